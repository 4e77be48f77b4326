"""The embedded fleet's door over HTTP, for API servers in processes of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from isthmus.embedded.door import Current, Everything, Gone, Refused
from isthmus.kube import Changed, Conflict, KubeClient, KubeError, NotFound, Replaced
from isthmus.model.ref import Kind

Manifest = dict[str, Any]


class HttpDoor:
    """What controllers, node and istiod ask of an API server, asked by our own client."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube

    async def watch(self, kind: Kind) -> AsyncIterator[Everything | Current | Gone]:
        async for event in self._kube.watch(kind):
            if isinstance(event, Replaced):
                yield Everything(event.items)
            elif isinstance(event, Changed):
                yield Current(event.item)
            else:
                yield Gone(event.item)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        try:
            return await self._kube.get(kind, namespace, name)
        except NotFound:
            return None
        except KubeError as error:
            raise Refused(str(error)) from error

    async def create(self, kind: Kind, manifest: Manifest) -> Manifest:
        try:
            return await self._kube.create(kind, manifest)
        except KubeError as error:
            raise Refused(str(error)) from error

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Manifest, *, subresource: str = "") -> Manifest:
        try:
            return await self._kube.patch(kind, namespace, name, patch, subresource=subresource)
        except KubeError as error:
            raise Refused(str(error)) from error

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        try:
            await self._kube.delete(kind, namespace, name, uid=uid)
        except Conflict:
            return
        except KubeError as error:
            raise Refused(str(error)) from error


@asynccontextmanager
async def open_door(kubeconfig: Path, context: str) -> AsyncIterator[HttpDoor]:
    """The door to the cluster of *context*."""
    async with KubeClient.from_kubeconfig(kubeconfig, context) as kube:
        yield HttpDoor(kube)
