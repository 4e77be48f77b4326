"""Identities of objects: what tells two objects apart, and how they are written in statuses and records."""

from __future__ import annotations

import msgspec


class Ref(msgspec.Struct, frozen=True, order=True, gc=False):
    """Where an object lives. *cluster* is empty for objects of the management cluster."""

    cluster: str
    namespace: str
    name: str

    @property
    def key(self) -> str:
        """The spelling of status maps: ``<name>.<namespace>.<cluster>``, with a trailing dot on the management cluster.

        Source: reference, Gloo Mesh status keys.
        """
        return f"{self.name}.{self.namespace}.{self.cluster}"


class Kind(msgspec.Struct, frozen=True, order=True, gc=False):
    """A Kubernetes kind: *group* is empty for the core group, *plural* is the name in URLs."""

    group: str
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``group/version``, or ``version`` alone for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version


class ObjectKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Identity of one Kubernetes object on one cluster; as text, the key of relay records."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """``<apiVersion>|<kind>|<namespace>|<name>``; no part may hold ``|``, so `parse` is its inverse."""
        return f"{self.api_version}|{self.kind}|{self.namespace}|{self.name}"

    @classmethod
    def parse(cls, text: str) -> ObjectKey:
        """Inverse of ``str(key)``. Raises ValueError when *text* has not exactly four parts."""
        api_version, kind, namespace, name = text.split("|")
        return cls(api_version, kind, namespace, name)
