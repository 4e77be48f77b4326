"""The loop at the centre: what changed goes into the engine, what the engine changes goes to the clusters.

Changes that arrive while it runs are taken together next; there is no delay.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import structlog

from isthmus.api.base import Resource
from isthmus.api.discovery import Mesh
from isthmus.api.kinds import BY_KIND
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.kube import KubeError
from isthmus.model.problem import Problem
from isthmus.model.ref import ObjectKey, Ref
from isthmus.relay import Publication
from isthmus.server.fleet import Fleet
from isthmus.server.notes import Notes
from isthmus.server.policies import Policies
from isthmus.translate import Engine, OutputKey, RootFacts, StatusKey

LARGE_BATCH = 1000  # changes from which on the engine runs beside the event loop: about 100 ms of work
RETRY_SECONDS = 1.0

log = structlog.get_logger("isthmus.plane")


@dataclass
class Turns:
    """What the loop has done, for metrics."""

    runs: int = 0
    changes: int = 0
    seconds: float = 0.0
    last_seconds: float = 0.0
    outputs: int = 0


@dataclass(frozen=True)
class Pruning:
    """Which clusters may prune what is not published to them, and what keeps the others from it."""

    missing: tuple[str, ...]
    """What is not known; then no cluster may."""
    held: Mapping[str, str]
    """Why, by the cluster that may not although everything is known."""
    clusters: frozenset[str]
    """Those that may."""


class Plane:
    """The engine and what surrounds it.

    *statuses* is told of every object whose status changed, *outputs* of every desired object that did, by cluster.
    """

    def __init__(
        self,
        engine: Engine,
        fleet: Fleet,
        policies: Policies,
        notes: Notes,
        statuses: Callable[[Iterable[StatusKey]], None],
        outputs: Callable[[str, Iterable[ObjectKey]], None] = lambda cluster, keys: None,
    ) -> None:
        self.engine = engine
        self.lock = asyncio.Lock()
        """Held while the engine runs; nobody else may read it then."""
        self.publications: defaultdict[str, Publication] = defaultdict(Publication)
        self.turns = Turns()
        self._fleet = fleet
        self._policies = policies
        self._notes = notes
        self._statuses = statuses
        self._outputs = outputs
        self._roots: dict[Ref, tuple[RootFacts | None, Problem | None]] = {}
        self._objects: dict[ObjectKey, Resource | None] = {}
        self._reports: dict[OutputKey, str | None] = {}
        self._wake = asyncio.Event()
        self._pruning = Pruning((), {}, frozenset())

    def change(self, objects: Mapping[ObjectKey, Resource | None]) -> None:
        """Take changed objects that users wrote."""
        self._objects.update(objects)
        self._wake.set()

    def change_discovered(self, objects: Mapping[ObjectKey, Resource | None]) -> None:
        """Take changed objects that agents reported. Where a user's object has the name, the user's counts."""
        self.change({key: found for key, found in objects.items() if self._policies.get(key) is None})

    def report(self, cluster: str, reports: Mapping[ObjectKey, str | None]) -> None:
        """Take what the agent of *cluster* could not write, None where it now could."""
        for key, message in reports.items():
            self._reports[OutputKey(cluster, key)] = message
        self._wake.set()

    def set_root(self, virtual_mesh: Ref, root: RootFacts | None, problem: Problem | None) -> None:
        """Take what signs for a virtual mesh; see `Engine.set_root`."""
        self._roots[virtual_mesh] = (root, problem)
        self._wake.set()

    def missing(self) -> tuple[str, ...]:
        """What is not known, so that nothing may be pruned; empty when everything is."""
        return (
            *(f"{kind.kind} objects, which are not read yet" for kind in self._policies.unread()),
            *(f"{key.kind} {key.namespace}/{key.name}, which cannot be read" for key in self._policies.unknown()),
            *(f"cluster {name}, which has not reported yet" for name in self._fleet.unknown()),
        )

    def held(self) -> dict[str, str]:
        """Clusters on which nothing may be pruned although everything is known, each with the reason.

        No mesh is found there, and one that a VirtualMesh names is not found. Its proxies go on without control plane,
        by the rules that they have; one that comes back would find none if they were pruned, and so let everybody in.
        """
        lost = tuple(
            f"{virtual_mesh.key.namespace}/{virtual_mesh.key.name} names {mesh.name}"
            for virtual_mesh in self._policies.objects(VirtualMesh.KIND)
            if isinstance(virtual_mesh, VirtualMesh)
            for mesh in virtual_mesh.spec.meshes
            if not self._is_there(ObjectKey(Mesh.KIND.api_version, Mesh.KIND.kind, mesh.namespace, mesh.name))
        )
        if not lost:
            return {}
        without = (name for name, cluster in self._fleet.clusters.items() if cluster.known and not cluster.has_mesh())
        reason = f"no mesh is found on it, while VirtualMesh {' and '.join(lost)}, which is not found"
        return dict.fromkeys(without, reason)

    def _prunable(self) -> Pruning:
        """What may be pruned now.

        Nothing on a cluster before its agent has reported: of the last known state a part may have been stored before
        the server died, so that a mesh is known and its services are not; and the report is on its way with whoever
        would prune.
        """
        missing, held = self.missing(), self.held()
        reported = () if missing else (name for name, known in self._fleet.clusters.items() if known.reported)
        return Pruning(missing, held, frozenset(reported) - held.keys())

    def _is_there(self, key: ObjectKey) -> bool:
        return self._policies.get(key) is not None or self._fleet.get(key) is not None

    async def run(self) -> None:
        """Work until cancelled. To be started when all policies are read."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            changed = self._objects or self._reports or self._roots
            if changed or self._prunable() != self._pruning:
                await self.turn()

    async def turn(self) -> None:
        """Take all changes so far and publish what follows."""
        objects, self._objects = self._objects, {}
        reports, self._reports = self._reports, {}
        roots, self._roots = self._roots, {}
        before, self._pruning = self._pruning, self._prunable()
        _say(before, self._pruning)
        started = time.monotonic()
        async with self.lock:
            if len(objects) < LARGE_BATCH:
                result = self._translate(objects, reports, roots)
            else:
                result = await asyncio.to_thread(self._translate, objects, reports, roots)
        self.turns.runs += 1
        self.turns.changes += len(objects) + len(reports)
        self.turns.last_seconds = time.monotonic() - started
        self.turns.seconds += self.turns.last_seconds
        if result.addresses is not None:
            await self._keep(result.addresses)
        self._publish(result.payloads, self._pruning.clusters)
        log.debug(
            "translated",
            changes=len(objects) + len(reports),
            outputs=sum(map(len, result.payloads.values())),
            statuses=len(result.statuses),
            seconds=round(self.turns.last_seconds, 6),
        )
        self._statuses(result.statuses)
        for cluster, changes in result.payloads.items():
            self._outputs(cluster, changes)
        self._report_again(result.payloads)

    def _translate(
        self,
        objects: Mapping[ObjectKey, Resource | None],
        reports: Mapping[OutputKey, str | None],
        roots: Mapping[Ref, tuple[RootFacts | None, Problem | None]],
    ) -> _Result:
        engine = self.engine
        for key, resource in objects.items():
            if resource is not None:
                engine.set(resource)
            else:
                engine.remove(BY_KIND[key.api_version, key.kind].KIND, key.namespace, key.name)
        for virtual_mesh, (root, problem) in roots.items():
            engine.set_root(virtual_mesh, root, problem)
        for output, message in reports.items():
            engine.write_error(output, message)
        translation = engine.run()
        payloads: dict[str, dict[ObjectKey, bytes | None]] = {}
        for changed, wanted in translation.outputs.items():
            of_cluster = payloads.setdefault(changed.cluster, {})
            of_cluster[changed.object] = None if wanted is None else wanted.payload()
        return _Result(payloads, translation.statuses, translation.addresses)

    async def _keep(self, addresses: Mapping[str, str]) -> None:
        while True:
            try:
                await self._notes.keep_addresses(addresses)
            except KubeError as error:
                log.warning("addresses cannot be stored; nothing is published before they are", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _publish(self, payloads: Mapping[str, Mapping[ObjectKey, bytes | None]], prunable: Collection[str]) -> None:
        for cluster in {*payloads, *self.publications}:
            changes = payloads.get(cluster, {})
            publication = self.publications[cluster]
            complete = cluster in prunable
            if changes or publication.complete != complete:
                self.turns.outputs += len(changes)
                publication.publish({str(key): payload for key, payload in changes.items()}, complete=complete)

    def _report_again(self, payloads: Mapping[str, Mapping[ObjectKey, bytes | None]]) -> None:
        """The engine forgets a report about what is not desired; the agent says it only once."""
        for cluster, changes in payloads.items():
            known = self._fleet.clusters.get(cluster)
            if known is None or not known.reports:
                continue
            again = {key: known.reports[key] for key, payload in changes.items() if payload and key in known.reports}
            if again:
                self.report(cluster, again)


@dataclass(frozen=True)
class _Result:
    payloads: dict[str, dict[ObjectKey, bytes | None]]
    statuses: tuple[StatusKey, ...]
    addresses: dict[str, str] | None


def _say(before: Pruning, now: Pruning) -> None:
    if now.missing != before.missing:
        if now.missing:
            log.warning("nothing is pruned for now", unknown=now.missing)
        else:
            log.info("everything is known; what is no longer wanted is pruned")
    for cluster, reason in now.held.items():
        if before.held.get(cluster) != reason:
            log.warning("nothing is pruned on one cluster for now", cluster=cluster, reason=reason)
