"""The controllers that make an embedded cluster look alive: they carry out `plans` until nothing is left to do.

One `Controllers` per cluster keeps a copy of what the cluster holds, and works off what changed, one object at a time.
Its own writes enter the copy as they are answered, so that a late watch never makes it do a thing twice.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any, Literal

from isthmus.embedded.door import Current, Door, Everything, Refused
from isthmus.embedded.plans import PLANS, Change, Create, Delete, Planned, selects
from isthmus.model.kinds import DAEMON_SET, ENDPOINT_SLICE, NODE, POD, SERVICE, SERVICE_ACCOUNT
from isthmus.model.ref import Kind

Manifest = dict[str, Any]
Key = tuple[Kind, str, str]

WATCHED = (*PLANS, NODE, ENDPOINT_SLICE, SERVICE_ACCOUNT)
AGAIN = 0.5  # seconds until a refused write is tried again, if nothing changes before
OWNERS = {kind.kind: kind for kind in PLANS}


class Copy:
    """What a cluster holds, as far as it was told."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[tuple[str, str], Manifest]] = {kind: {} for kind in WATCHED}
        self._places: dict[tuple[Kind, str], dict[str, Manifest]] = defaultdict(dict)
        self._owned: dict[tuple[str, Kind], dict[str, Manifest]] = defaultdict(dict)
        self.pod_ips: dict[str, int] = defaultdict(int)
        """How many pods have each address."""
        self._deleted: set[str] = set()
        """Uids that we deleted and whose last words may still be under way."""

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        return self._objects[kind].get((namespace, name))

    def all(self, kind: Kind, namespace: str = "") -> list[Manifest]:
        found = self._places.get((kind, namespace), {}) if namespace else self._objects[kind]
        return [found[key] for key in sorted(found)]  # type: ignore[index]

    def owned(self, uid: str, kind: Kind) -> list[Manifest]:
        found = self._owned.get((uid, kind), {})
        return [found[name] for name in sorted(found)]

    def put(self, kind: Kind, item: Manifest) -> bool:
        """Take *item* in, unless something newer is known; whether it was."""
        metadata = item["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        present = self._objects[kind].get(key)
        if metadata["uid"] in self._deleted or (present is not None and _version(present) >= _version(item)):
            return False
        if present is not None:
            self._forget(kind, present)
        self._objects[kind][key] = item
        if key[0]:
            self._places[kind, key[0]][key[1]] = item
        if uid := _controller(item).get("uid"):
            self._owned[uid, kind][key[1]] = item
        if ip := item.get("status", {}).get("podIP"):
            self.pod_ips[ip] += 1
        return True

    def remove(self, kind: Kind, item: Manifest, *, by_us: bool = False) -> bool:
        """Take *item* out, if it is the one that is known; whether it was."""
        metadata = item["metadata"]
        self._deleted.discard(metadata["uid"])
        if by_us:
            self._deleted.add(metadata["uid"])
        present = self.get(kind, metadata.get("namespace", ""), metadata["name"])
        if present is None or present["metadata"]["uid"] != metadata["uid"]:
            return False
        self._forget(kind, present)
        return True

    def _forget(self, kind: Kind, item: Manifest) -> None:
        metadata = item["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        del self._objects[kind][key]
        self._places.get((kind, key[0]), {}).pop(key[1], None)
        if uid := _controller(item).get("uid"):
            owned = self._owned[uid, kind]
            owned.pop(key[1], None)
            if not owned:
                del self._owned[uid, kind]
        if ip := item.get("status", {}).get("podIP"):
            self.pod_ips[ip] -= 1
            if not self.pod_ips[ip]:
                del self.pod_ips[ip]


class Addresses:
    """Addresses that a cluster gives out: to pods, and to load balancers."""

    def __init__(self, pods: str, load_balancers: str, ingress: Literal["ip", "hostname"] = "ip") -> None:
        """*pods* and *load_balancers* are networks, of IPv4 or IPv6; *ingress* is what load balancers are known by."""
        self._pods = ip_network(pods)
        self._load_balancers = ip_network(load_balancers)
        self._ingress = ingress
        self._next_pod = 10  # leaves room for gateways, as real pod networks do

    def pod_ip(self, used: Container[str]) -> str:
        """An address that is not in *used*; one that was given back comes last again."""
        size = self._pods.num_addresses - 2
        for _ in range(size):
            ip = str(self._pods[1 + self._next_pod % size])
            self._next_pod += 1
            if ip not in used:
                return ip
        raise Refused(f"no free address in {self._pods}")

    def ingress(self, used: set[str]) -> Manifest:
        """An entry of a load balancer's status whose address is not in *used*; the same for the same Services."""
        for ip in self._load_balancers.hosts():
            entry = {"ip": str(ip), "ipMode": "VIP"}
            if self._ingress == "hostname":
                entry = {"hostname": f"lb-{str(ip).replace('.', '-').replace(':', '-')}.elb.example.com"}
            if used.isdisjoint(entry.values()):
                return entry
        raise Refused(f"no free address in {self._load_balancers}")


class Controllers:
    """The controllers of one cluster."""

    def __init__(
        self,
        door: Door,
        addresses: Addresses,
        *,
        runs_elsewhere: Callable[[Manifest], bool] = lambda pod: False,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.copy = Copy()
        self.runs_elsewhere = runs_elsewhere
        self._door = door
        self._addresses = addresses
        self._clock = clock
        self._dirty: dict[Key, None] = {}
        self._untold = set(WATCHED)
        self._work = asyncio.Event()
        self._changed = asyncio.Condition()

    # --- what plans ask for ---

    def now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")

    def pod_ip(self) -> str:
        return self._addresses.pod_ip(self.copy.pod_ips)

    def ingress(self) -> Manifest:
        used = {
            entry.get("ip") or entry.get("hostname", "")
            for service in self.copy.all(SERVICE)
            for entry in service.get("status", {}).get("loadBalancer", {}).get("ingress") or ()
        }
        return self._addresses.ingress(used)

    # --- running ---

    async def run(self) -> None:
        """Follow the cluster and carry out plans until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in WATCHED:
                tasks.create_task(self._follow(kind), name=f"follow {kind.plural}")
            tasks.create_task(self._work_off(), name="carry out")

    async def until(self, condition: Callable[[Copy], bool]) -> None:
        """Return once *condition* holds of the cluster."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._untold and condition(self.copy))

    async def _follow(self, kind: Kind) -> None:
        async for told in self._door.watch(kind):
            if isinstance(told, Everything):
                present = {item["metadata"]["uid"] for item in told.items}
                for item in self.copy.all(kind):
                    if item["metadata"]["uid"] not in present:
                        self._gone(kind, item)
                for item in told.items:
                    self._current(kind, item)
                self._untold.discard(kind)
            elif isinstance(told, Current):
                self._current(kind, told.item)
            else:
                self._gone(kind, told.item)
            self._work.set()

    def _current(self, kind: Kind, item: Manifest) -> None:
        before = self.copy.get(kind, item["metadata"].get("namespace", ""), item["metadata"]["name"])
        if self.copy.put(kind, item):
            for each in (before, item) if before is not None else (item,):
                self._dirty.update(dict.fromkeys(self._concerned(kind, each)))

    def _gone(self, kind: Kind, item: Manifest, *, by_us: bool = False) -> None:
        if self.copy.remove(kind, item, by_us=by_us):
            self._dirty.update(dict.fromkeys(self._concerned(kind, item)))

    def _concerned(self, kind: Kind, item: Manifest) -> Iterator[Key]:
        """The objects whose plan may read *item*."""
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "")
        if kind in PLANS:
            yield kind, namespace, metadata["name"]
        owner = _controller(item)
        if owner.get("kind") in OWNERS:
            yield OWNERS[owner["kind"]], namespace, owner["name"]
        if kind == POD:
            for service in self.copy.all(SERVICE, namespace):
                if service["spec"].get("selector") and selects(service["spec"]["selector"], item):
                    yield SERVICE, namespace, service["metadata"]["name"]
        if kind == NODE:
            for concerned in (DAEMON_SET, POD):
                for each in self.copy.all(concerned):
                    if concerned == DAEMON_SET or not each["spec"].get("nodeName"):
                        yield concerned, each["metadata"]["namespace"], each["metadata"]["name"]

    async def _work_off(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._work.wait()
            self._work.clear()
            while self._dirty and not self._untold:
                key = next(iter(self._dirty))
                del self._dirty[key]
                item = self.copy.get(*key)
                if item is None:
                    continue
                try:
                    for planned in PLANS[key[0]](self.copy, self, item):
                        await self._carry_out(planned)
                except Refused:
                    loop.call_later(AGAIN, self._again, key)
                await asyncio.sleep(0)
            async with self._changed:
                self._changed.notify_all()

    def _again(self, key: Key) -> None:
        self._dirty[key] = None
        self._work.set()

    async def _carry_out(self, planned: Planned) -> None:
        if isinstance(planned, Create):
            self._current(planned.kind, await self._door.create(planned.kind, planned.manifest))
            return
        metadata = planned.item["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        if isinstance(planned, Change):
            # The uid as a precondition: what took the object's name meanwhile is none of this plan's business.
            patch = {**planned.patch, "metadata": {"uid": metadata["uid"]}}
            subresource = planned.subresource
            self._current(
                planned.kind, await self._door.patch(planned.kind, namespace, name, patch, subresource=subresource)
            )
        elif isinstance(planned, Delete):
            await self._door.delete(planned.kind, namespace, name, uid=metadata["uid"])
            self._gone(planned.kind, planned.item, by_us=True)


def _version(item: Manifest) -> int:
    """Embedded servers count revisions, so that newer is greater."""
    return int(item["metadata"]["resourceVersion"])


def _controller(item: Manifest) -> Manifest:
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner for owner in owners if owner.get("controller")), {})
