"""What controllers, node and istiod ask of the API server of their cluster.

`InProcess` answers from a server in this process. For a server in a process of its own, whoever starts the fleet passes
a door that speaks HTTP.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import msgspec

from isthmus.embedded.api import Api, Deletion, Write
from isthmus.embedded.errors import ApiError
from isthmus.model.ref import Kind

Manifest = dict[str, Any]


class Everything(msgspec.Struct, frozen=True):
    """The complete state of a kind: what is not in *items* does not exist."""

    items: tuple[Manifest, ...]


class Current(msgspec.Struct, frozen=True):
    """*item* was created or changed."""

    item: Manifest


class Gone(msgspec.Struct, frozen=True):
    """*item* does not exist any more; its last state."""

    item: Manifest


class Refused(Exception):
    """The API server did not do what it was asked for, or could not be reached."""


class Door(Protocol):
    """One cluster's API server. Every call but `watch` may raise `Refused`."""

    def watch(self, kind: Kind) -> AsyncIterator[Everything | Current | Gone]:
        """The state of *kind* and every change of it, for ever."""
        ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """The object; None if it is not there."""
        ...

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest: ...

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Manifest, *, subresource: str = "") -> Manifest:
        """Change the object by a JSON merge patch."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete the object, if it is there and has this *uid*."""
        ...


class InProcess:
    """The door to a server in this process, without HTTP; *manager* is who owns the fields it writes."""

    def __init__(self, api: Api, manager: str = "kube-controller-manager") -> None:
        self._api = api
        self._write = Write(manager=manager)

    async def watch(self, kind: Kind) -> AsyncIterator[Everything | Current | Gone]:
        resource = self._api.resource_of(kind)
        store = self._api.store
        while True:
            watch = store.watch(resource.key, "", None)
            try:
                yield Everything(tuple(_bare(stored.manifest(kind)) for stored in store.list(resource.key)))
                while not watch.ended:
                    await watch.wait(None)
                    for event in watch.take():
                        item = _bare(event.object.manifest(kind))
                        yield Gone(item) if event.deleted else Current(item)
            finally:
                store.unwatch(resource.key, watch)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        stored = self._api.store.get(self._api.resource_of(kind).key, namespace, name)
        return None if stored is None else _bare(stored.manifest(kind))

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        try:
            namespace = manifest["metadata"].get("namespace", "")
            written = self._api.create(self._api.resource_of(kind), kind.version, namespace, manifest, self._write)
        except ApiError as error:
            raise Refused(error.message) from error
        return _bare(written.object.manifest(kind))

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Manifest, *, subresource: str = "") -> Manifest:
        try:
            written = self._api.merge(
                self._api.resource_of(kind),
                kind.version,
                namespace,
                name,
                patch,
                self._write,
                subresource=subresource,
            )
        except ApiError as error:
            raise Refused(error.message) from error
        return _bare(written.object.manifest(kind))

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        try:
            self._api.delete(self._api.resource_of(kind), namespace, name, Deletion(uid=uid))
        except ApiError as error:
            if error.code not in (404, 409):
                raise Refused(error.message) from error


def _bare(manifest: Manifest) -> Manifest:
    """*manifest* without managedFields, which no controller reads."""
    manifest["metadata"].pop("managedFields", None)
    return manifest
