"""The base classes of all API types and the metadata of every object."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from isthmus.model.ref import Kind, ObjectKey, Ref


class ApiStruct(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", forbid_unknown_fields=True, gc=False
):
    """Base of every message: camelCase on the wire, zero values omitted, unknown fields refused.

    gc=False since values form no cycles: the collector has nothing to look for in a fleet of them.

    Source: reference, JSON encoding rules (proto3 JSON: zero values are not written).
    """

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = ()
    """Groups of attributes (snake_case) of which at most one may be set; see `isthmus.api.parse`."""


class OneofStruct(ApiStruct, frozen=True):
    """Base of messages with oneofs. Raises ValueError when two arms of one are set; `parse` makes it a Problem."""

    def __post_init__(self) -> None:
        for group in self.ONEOFS:
            if sum(getattr(self, attribute) is not None for attribute in group) > 1:
                raise ValueError(f"only one of {' and '.join(group)} may be set")


class Empty(ApiStruct, frozen=True):
    """A message without fields; its presence is the value (``generated: {}``)."""


class ObjectMeta(ApiStruct, frozen=True, forbid_unknown_fields=False):
    """Kubernetes object metadata, as far as we read or write it. Other fields are ignored."""

    name: str = ""
    """Name, unique per kind in its namespace."""
    namespace: str = ""
    """Namespace."""
    labels: dict[str, str] = {}
    """What objects are selected by."""
    annotations: dict[str, str] = {}
    """Notes of any form."""
    generation: int = 0
    """Counts the changes of the spec."""
    uid: str = ""
    """Tells two objects apart that had the same name one after the other."""
    resource_version: str = ""
    """Changes with every write."""
    creation_timestamp: str | None = None
    """When it was created, RFC 3339."""


class Resource(ApiStruct, frozen=True):
    """Base of every kind: metadata here; `spec` and `status` are declared by each kind with their own types."""

    KIND: ClassVar[Kind]
    EXAMPLE: ClassVar[str] = ""
    """A small object of this kind in YAML, for the reference page."""
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ()
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = ()
    """Printer columns of ``kubectl get``: (header, type, JSON path)."""

    metadata: ObjectMeta = ObjectMeta()
    """Name, namespace, labels and annotations."""

    @property
    def key(self) -> ObjectKey:
        """Identity within one cluster."""
        return ObjectKey(self.KIND.api_version, self.KIND.kind, self.metadata.namespace, self.metadata.name)

    @property
    def ref(self) -> Ref:
        """Identity as an object of the management cluster."""
        return Ref("", self.metadata.namespace, self.metadata.name)

    def manifest(self) -> dict[str, Any]:
        """The object as plain JSON data, apiVersion and kind first; zero values omitted."""
        data: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self))  # lists, where to_builtins keeps tuples
        return {"apiVersion": self.KIND.api_version, "kind": self.KIND.kind, **data}
