"""What istiod does about roots on an embedded cluster, which runs none: it signs nothing, and hands its root out.

An istiod reads its authority when it starts and keeps it for as long as it runs: Secret `cacerts` if there is one, else
a root of its own that it makes once and keeps in `istio-ca-secret`. Every namespace has the root, for proxies to trust.
Source: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/
"""

from __future__ import annotations

import asyncio
import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from isthmus.embedded.door import Current, Door, Everything, Gone, Refused
from isthmus.model.kinds import CONFIG_MAP, NAMESPACE, POD, SECRET
from isthmus.model.ref import Kind
from isthmus.pki import CA_CERT, CA_KEY, ROOT_CERT, make_trust_root, new_key

Manifest = dict[str, Any]

LABELS = {"app": "istiod"}
PLUGGED_IN = "cacerts"
SELF_SIGNED = "istio-ca-secret"
ROOT_MAP = "istio-ca-root-cert"
WATCHED = (POD, NAMESPACE, CONFIG_MAP)
AGAIN = 0.5  # seconds until a refused write is tried again
LIFE = timedelta(days=3650)
SERIAL_BITS = 127


class Istiod:
    """The istiods of one cluster."""

    def __init__(self, door: Door, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.handed_out = asyncio.Event()
        """Set when every namespace has had the root once."""
        self._door = door
        self._clock = clock
        self._running: dict[str, str] = {}
        """The namespace of each istiod's pod that runs, by uid."""
        self._roots: dict[str, str] = {}
        """The root that each of them began with; the one that runs for longest leads."""
        self._namespaces: set[str] = set()
        self._maps: dict[str, str] = {}
        """The root that each namespace has."""
        self._untold = set(WATCHED)
        self._work = asyncio.Event()

    async def run(self) -> None:
        """Follow the cluster and hand roots out until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in WATCHED:
                tasks.create_task(self._follow(kind), name=f"istiod follows {kind.plural}")
            while True:
                await self._work.wait()
                self._work.clear()
                if self._untold:
                    continue
                try:
                    await self._start()
                    await self._hand_out()
                except Refused:
                    await asyncio.sleep(AGAIN)
                    self._work.set()

    async def _follow(self, kind: Kind) -> None:
        known: dict[str, str] | set[str] = self._namespaces
        if kind != NAMESPACE:
            known = self._running if kind == POD else self._maps
        async for told in self._door.watch(kind):
            if isinstance(told, Everything):
                known.clear()
                for item in told.items:
                    self._see(kind, item)
                self._untold.discard(kind)
            elif isinstance(told, Current):
                self._see(kind, told.item)
            else:
                self._see(kind, told.item, gone=isinstance(told, Gone))
            self._work.set()

    def _see(self, kind: Kind, item: Manifest, *, gone: bool = False) -> None:
        metadata = item["metadata"]
        name, namespace = metadata["name"], metadata.get("namespace", "")
        gone = gone or "deletionTimestamp" in metadata
        if kind == POD and LABELS.items() <= (metadata.get("labels") or {}).items():
            self._running.pop(metadata["uid"], None)
            if not gone and item.get("status", {}).get("phase") == "Running":
                self._running[metadata["uid"]] = namespace
        elif kind == NAMESPACE:
            self._namespaces.discard(name)
            if not gone:
                self._namespaces.add(name)
        elif kind == CONFIG_MAP and name == ROOT_MAP:
            self._maps.pop(namespace, None)
            if not gone:
                self._maps[namespace] = (item.get("data") or {}).get(ROOT_CERT, "")

    async def _start(self) -> None:
        """Have every istiod that runs read its authority, once."""
        self._roots = {uid: root for uid, root in self._roots.items() if uid in self._running}
        for uid, namespace in [pod for pod in self._running.items() if pod[0] not in self._roots]:
            self._roots[uid] = await self._root(namespace)

    async def _root(self, namespace: str) -> str:
        for name, key in ((PLUGGED_IN, ROOT_CERT), (SELF_SIGNED, CA_CERT)):
            found = await self._door.get(SECRET, namespace, name)
            if found is not None and (encoded := (found.get("data") or {}).get(key)):
                return b64decode(encoded).decode()
        made = make_trust_root(
            new_key(),
            organization="cluster.local",
            serial=secrets.randbits(SERIAL_BITS),
            now=self._clock(),
            life=LIFE,
        )
        own = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.kind,
            "metadata": {"name": SELF_SIGNED, "namespace": namespace},
            "type": "istio.io/ca-root",
            "data": {key: b64encode(made[key]).decode() for key in (CA_CERT, CA_KEY)},
        }
        await self._door.create(SECRET, own)
        return made[CA_CERT].decode()

    async def _hand_out(self) -> None:
        if not self._roots:
            return
        root = next(iter(self._roots.values()))
        for namespace in sorted(self._namespaces):
            if self._maps.get(namespace) == root:
                continue
            data = {"data": {ROOT_CERT: root}}
            if namespace in self._maps:
                await self._door.patch(CONFIG_MAP, namespace, ROOT_MAP, data)
            else:
                metadata = {"name": ROOT_MAP, "namespace": namespace}
                await self._door.create(
                    CONFIG_MAP, {"apiVersion": "v1", "kind": CONFIG_MAP.kind, "metadata": metadata, **data}
                )
            self._maps[namespace] = root
        self.handed_out.set()
