"""What translation returns: objects for clusters, and which statuses changed."""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.api.base import Resource
from isthmus.istio.objects import IstioObject
from isthmus.model.ref import Kind, ObjectKey, Ref

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class OutputKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """One desired object on one cluster."""

    cluster: str
    object: ObjectKey


class StatusKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """One object of the management cluster that has a status."""

    kind: Kind
    namespace: str
    name: str

    @property
    def ref(self) -> Ref:
        """The object as a `Ref`."""
        return Ref("", self.namespace, self.name)


class Output(msgspec.Struct, frozen=True, gc=False):
    """A desired object; *subject* is the Destination or Mesh in the statuses of its *parents* that answers for it."""

    object: IstioObject | Resource
    parents: tuple[StatusKey, ...]
    """The users' objects that ask for it."""
    subject: Ref

    def payload(self) -> bytes:
        """The canonical JSON manifest, without labels of ownership."""
        if isinstance(self.object, IstioObject):
            return self.object.payload()
        return _ENCODE(self.object.manifest())

    def manifest(self) -> dict[str, Any]:
        """The manifest as plain data."""
        manifest: dict[str, Any] = msgspec.json.decode(self.payload())
        return manifest


class Translation(msgspec.Struct, frozen=True, gc=False):
    """What one run of the engine changed."""

    outputs: dict[OutputKey, Output | None]
    """Desired objects that are new or different; None where nothing is desired any more."""
    statuses: tuple[StatusKey, ...]
    """Objects whose status is new or different, sorted."""
    addresses: dict[str, str] | None
    """The address book's displaced host names if they changed; to be stored before the outputs are used."""
