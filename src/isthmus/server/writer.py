"""Keeping discovered objects and statuses on the management cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

import structlog

from isthmus.api.base import ApiStruct
from isthmus.api.common import ApprovalState
from isthmus.api.kinds import BY_KIND
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.parse import ParseFailure
from isthmus.api.settings import SettingsStatus
from isthmus.kube import Conflict, KubeClient, KubeError, NotFound
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.crew import Crew
from isthmus.server.fleet import Cluster, Fleet, cluster_status
from isthmus.server.notes import LAST_KNOWN, Notes
from isthmus.server.plane import Plane
from isthmus.server.policies import Policies
from isthmus.server.records import DISCOVERED_KINDS
from isthmus.server.stored import Apply, Blocked, Delete, Stored
from isthmus.translate import StatusKey

WRITERS = 16  # writes at once; half of what the client sends at once
REST = 10.0  # a status that takes long to write, since it lists thousands, is written a tenth of the time at most

log = structlog.get_logger("isthmus.writer")


class Job(NamedTuple):
    """An object, its status, or (*key* names it) the note that a cluster's state is stored."""

    what: Literal["object", "status", "last known"]
    key: ObjectKey


_DISCOVERED = {(kind.api_version, kind.kind) for kind in DISCOVERED_KINDS}
RANKS = {"object": 0, "status": 1, "last known": 2}


class Writer:
    """Writes to the management cluster what changed, several objects at a time, each in its latest form."""

    def __init__(
        self,
        kube: KubeClient,
        stored: Stored,
        fleet: Fleet,
        policies: Policies,
        notes: Notes,
        noted: Mapping[str, str],
    ) -> None:
        self._kube = kube
        self._stored = stored
        self._fleet = fleet
        self._policies = policies
        self._notes = notes
        self._crew: Crew[Job] = Crew(self._act, WRITERS, rest=REST)
        self._with_status: set[ObjectKey] = set()
        self._unstored: dict[Cluster, set[ObjectKey]] = {}
        self._plane: Plane | None = None
        self.noted = dict(noted)
        """The note `LAST_KNOWN`, as it is stored."""
        self.problems: dict[Job, str] = {}
        self.writes = 0

    @property
    def pending(self) -> int:
        """Objects and statuses that wait to be written."""
        return len(self._crew.queue) + self._crew.queue.postponed

    async def run(self, plane: Plane) -> None:
        """Work until cancelled. To be started when the management cluster's objects are read."""
        self._plane = plane
        await self._crew.run()

    def objects(self, keys: Iterable[ObjectKey]) -> None:
        """Bring discovered objects up to date."""
        self._add("object", keys)

    def statuses(self, keys: Iterable[StatusKey]) -> None:
        """Bring statuses up to date that the engine has computed anew."""
        changed = [ObjectKey(k.kind.api_version, k.kind.kind, k.namespace, k.name) for k in keys]
        self._with_status.update(changed)
        self._add("status", changed)

    def cluster(self, name: str) -> None:
        """Bring the status of a cluster's registration up to date."""
        key = ObjectKey(KubernetesCluster.KIND.api_version, KubernetesCluster.KIND.kind, self._fleet.namespace, name)
        self._with_status.add(key)
        self._add("status", (key,))

    def look_again(self, keys: Iterable[ObjectKey]) -> None:
        """Bring objects and statuses up to date after somebody else has written them."""
        seen = tuple(keys)
        self._add("object", (key for key in seen if (key.api_version, key.kind) in _DISCOVERED))
        self._add("status", (key for key in seen if key in self._with_status or key in self._policies.unreadable))

    def reported(self, cluster: Cluster) -> None:
        """Take note that *cluster* has reported completely, and store it all."""
        keys = {*cluster.objects, *(key for key, seen in self._stored.discovered() if seen.cluster == cluster.name)}
        self._unstored[cluster] = keys
        self._add("object", keys)
        self._note_if_stored(cluster)

    def deregistered(self, name: str) -> None:
        """Delete what is stored of a cluster that is registered no more."""
        for cluster in [c for c in self._unstored if c.name == name]:
            del self._unstored[cluster]
        self._add("object", [key for key, seen in self._stored.discovered() if seen.cluster == name])
        self._add("last known", [_note_key(name)])

    def _add(self, what: Literal["object", "status", "last known"], keys: Iterable[ObjectKey]) -> None:
        self._crew.add((Job(what, key), RANKS[what]) for key in keys)

    async def _act(self, job: Job) -> bool:
        try:
            match job.what:
                case "object":
                    problem = await self._write_object(job.key)
                case "status":
                    problem = await self._write_status(job.key)
                case "last known":
                    problem = await self._write_note(job.key.name)
        except NotFound as error:
            if job.what != "status" or error.of_kind:
                self._note(job, str(error))
                return False
            problem = None  # deleted meanwhile; the watch tells
        except Conflict:
            return False  # changed meanwhile; the watch tells how
        except KubeError as error:
            self._note(job, str(error))
            return False
        self._note(job, problem)
        return True

    async def _write_object(self, key: ObjectKey) -> str | None:
        kind = _kind(key)
        seen = self._stored.get(kind, key)
        reporter = self._fleet.clusters.get(seen.cluster) if seen is not None else None
        action = self._stored.decide_object(
            kind, key, self._fleet.get(key), known=reporter is None or reporter.reported
        )
        match action:
            case Blocked(reason):
                return reason
            case Apply(manifest):
                answer = await self._kube.apply(kind, manifest, force=True)
                self._stored.changed(kind, answer)
                self.writes += 1
                self._add("status", [key])
            case Delete(uid, version):
                await self._kube.delete(kind, key.namespace, key.name, uid=uid, resource_version=version)
                self.writes += 1
        for cluster in [c for c, keys in self._unstored.items() if key in keys]:
            self._unstored[cluster].discard(key)
            self._note_if_stored(cluster)
        return None

    async def _write_status(self, key: ObjectKey) -> str | None:
        plane = self._plane
        if plane is None:
            return None
        kind = _kind(key)
        unreadable = self._policies.unreadable.get(key)
        seen = self._stored.get(kind, key)
        generation = seen.generation if seen is not None else 0
        status: ApiStruct | None
        if kind == KubernetesCluster.KIND:
            cluster = self._fleet.clusters.get(key.name) if key.namespace == self._fleet.namespace else None
            status = cluster_status(cluster, generation) if cluster is not None else None
        elif unreadable is not None:
            status = refusal(unreadable, generation)
        else:
            async with plane.lock:
                status = plane.engine.status(StatusKey(kind, key.namespace, key.name))
        if status is None:
            self._with_status.discard(key)
        action = self._stored.decide_status(kind, key, status)
        if action is not None:
            self._stored.changed(kind, await self._kube.apply_status(kind, action.manifest))
            self.writes += 1
            if (key.api_version, key.kind) in _DISCOVERED:
                self._add("object", [key])  # the answer may be the first that tells of somebody's edit
        return None

    def _note_if_stored(self, cluster: Cluster) -> None:
        if self._unstored.get(cluster) == set():
            del self._unstored[cluster]
            self._add("last known", [_note_key(cluster.name)])

    async def _write_note(self, name: str) -> str | None:
        cluster = self._fleet.clusters.get(name)
        wanted = cluster.registration if cluster is not None and cluster.reported else None
        if cluster is not None and wanted is None:
            return None
        if self.noted.get(name) != wanted:
            await self._notes.write(LAST_KNOWN, {name: wanted})
            if wanted is None:
                self.noted.pop(name, None)
            else:
                self.noted[name] = wanted
        return None

    def _note(self, job: Job, problem: str | None) -> None:
        if self.problems.get(job) == problem:
            return
        if problem is None:
            del self.problems[job]
        else:
            self.problems[job] = problem
            log.warning("cannot be written", what=job.what, object=str(job.key), error=problem)


def refusal(failure: ParseFailure, generation: int) -> SettingsStatus:
    """The status of an object that can't be read; its fields are those that all users' kinds share."""
    return SettingsStatus(
        observed_generation=generation,
        state=ApprovalState.INVALID,
        errors=tuple(str(problem) for problem in failure.problems),
    )


def _kind(key: ObjectKey) -> Kind:
    return BY_KIND[key.api_version, key.kind].KIND


def _note_key(cluster: str) -> ObjectKey:
    return ObjectKey("", "", "", cluster)
