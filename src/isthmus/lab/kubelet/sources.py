"""The ConfigMaps and Secrets of a cluster, kept by watches, for the pods that refer to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from isthmus.kube import KubeClient
from isthmus.kube.events import Manifest, Removed, Replaced
from isthmus.model.kinds import CONFIG_MAP, SECRET
from isthmus.model.ref import Kind

Key = tuple[str, str, str]
"""Kind, namespace, name."""


class WatchedSources:
    """All of them: a lab's are few, and a pod then starts without asking."""

    def __init__(self, kube: KubeClient, on_change: Callable[[Key], None]) -> None:
        self._kube = kube
        self._on_change = on_change
        self._items: dict[Key, Manifest] = {}
        self._listed = {CONFIG_MAP.kind: asyncio.Event(), SECRET.kind: asyncio.Event()}

    def find(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object of *kind* ``ConfigMap`` or ``Secret``."""
        return self._items.get((kind, namespace, name))

    async def complete(self) -> None:
        """Wait until everything that exists is known."""
        for listed in self._listed.values():
            await listed.wait()

    async def run(self) -> None:
        """Follow the cluster until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow(CONFIG_MAP))
            tasks.create_task(self._follow(SECRET))

    async def _follow(self, kind: Kind) -> None:
        async for told in self._kube.watch(kind):
            if isinstance(told, Replaced):
                present = {_key(kind, item): item for item in told.items}
                for key in [key for key in self._items if key[0] == kind.kind and key not in present]:
                    self._forget(key)
                for key, item in present.items():
                    self._know(key, item)
                self._listed[kind.kind].set()
            elif isinstance(told, Removed):
                self._forget(_key(kind, told.item))
            else:
                self._know(_key(kind, told.item), told.item)

    def _know(self, key: Key, item: Manifest) -> None:
        before = self._items.get(key)
        self._items[key] = item
        if before is None or any(before.get(part) != item.get(part) for part in ("data", "binaryData")):
            self._on_change(key)

    def _forget(self, key: Key) -> None:
        if self._items.pop(key, None) is not None:
            self._on_change(key)


def _key(kind: Kind, item: Manifest) -> Key:
    return kind.kind, item["metadata"]["namespace"], item["metadata"]["name"]
