"""Writing and pruning what `outputs` decides, and telling the server what could not be written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from isthmus.agent.outputs import Blocked, Outputs, Prune, Write
from isthmus.kube import Changed, Conflict, KubeClient, KubeError, Removed, Replaced, WatchEvent
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.crew import Crew
from isthmus.program.watching import follow
from isthmus.relay import Delta

WRITERS = 16  # writes at once; half of what the client sends at once, so that watches and reports get through
REPAIR_SECONDS = 30.0  # how long an edit by hand is undone at once only the first time

log = structlog.get_logger("isthmus.apply")


class Applier:
    """Keeps the cluster at the desired state; the relay's subscriber in the agent.

    *report* is told of every object that cannot be written, and of None when it can again; *received* is called after
    *outputs* has taken something from the server.
    """

    def __init__(
        self,
        kube: KubeClient,
        outputs: Outputs,
        report: Callable[[ObjectKey, str | None], None],
        received: Callable[[], None] = lambda: None,
    ) -> None:
        self._kube = kube
        self._outputs = outputs
        self._report = report
        self._received = received
        self._crew: Crew[ObjectKey] = Crew(self._act, WRITERS)
        self._repaired: dict[ObjectKey, float] = {}
        self.problems: dict[ObjectKey, str] = {}
        self.writes = 0
        self.prunes = 0

    def held(self) -> dict[str, bytes]:
        """What the server has sent."""
        return self._outputs.records()

    async def receive(self, delta: Delta) -> None:
        """Take one generation; it is written from now on, without keeping the server waiting."""
        log.debug("desired state received", changes=len(delta.changes), complete=delta.complete)
        self._crew.add(self._outputs.receive(delta.changes, complete=delta.complete))
        self._received()

    def rooted(self, namespaces: frozenset[str]) -> None:
        """Take the root namespaces of the cluster's meshes."""
        self._crew.add(self._outputs.rooted(namespaces))

    @property
    def pending(self) -> int:
        """Objects that wait to be written or pruned."""
        return len(self._crew.queue) + self._crew.queue.postponed

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in self._outputs.kinds:
                tasks.create_task(self._watch(kind), name=f"watch {kind.plural}")
            tasks.create_task(self._crew.run(), name="apply")

    async def _watch(self, kind: Kind) -> None:
        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._crew.add(self._outputs.replaced(kind, items))
                case Changed(item):
                    self._crew.add(self._outputs.changed(kind, item))
                case Removed(item):
                    self._crew.add(self._outputs.removed(kind, item))

        def refused(error: KubeError) -> None:
            self._crew.add(self._outputs.refused(kind, str(error)))

        await follow(self._kube, kind, take, refused=refused)

    async def _act(self, key: ObjectKey) -> bool:
        match self._outputs.decide(key):
            case Write() as write:
                return await self._write(key, write)
            case Prune() as prune:
                return await self._prune(key, prune)
            case Blocked(reason):
                self._note(key, reason)
            case None:
                self._note(key, None)
        return True

    async def _write(self, key: ObjectKey, write: Write) -> bool:
        try:
            answer = await self._apply(key, write)
        except KubeError as error:
            self._note(key, str(error))
            self._crew.add(self._outputs.failed(key))
            return False
        log.debug("written", object=str(key))
        self._crew.add(self._outputs.wrote(key, write, answer))
        self.writes += 1
        self._note(key, None)
        return True

    async def _apply(self, key: ObjectKey, write: Write) -> dict[str, object]:
        try:
            return await self._kube.apply(write.kind, write.manifest)
        except Conflict as conflict:
            now = asyncio.get_running_loop().time()
            if not edited_by_hand(conflict) or now - self._repaired.get(key, -REPAIR_SECONDS) < REPAIR_SECONDS:
                raise
            self._repaired[key] = now
            log.info("edit undone", object=str(key), managers=conflict.managers, fields=conflict.fields)
            return await self._kube.apply(write.kind, write.manifest, force=True)

    async def _prune(self, key: ObjectKey, prune: Prune) -> bool:
        try:
            await self._kube.delete(
                prune.kind, key.namespace, key.name, uid=prune.uid, resource_version=prune.resource_version
            )
        except Conflict:
            self._crew.add(self._outputs.failed(key))
            return False  # it changed; the watch tells how
        except KubeError as error:
            self._note(key, str(error))
            self._crew.add(self._outputs.failed(key))
            return False
        log.debug("pruned", object=str(key))
        self.prunes += 1
        self._note(key, None)
        return True

    def _note(self, key: ObjectKey, problem: str | None) -> None:
        if self.problems.get(key) == problem:
            return
        if problem is None:
            del self.problems[key]
            log.info("object no longer in trouble", object=str(key))
        else:
            self.problems[key] = problem
            log.warning("object cannot be written", object=str(key), error=problem)
        self._report(key, problem)


def edited_by_hand(conflict: Conflict) -> bool:
    """Whether our fields of an object of ours were overwritten without being applied (`kubectl edit`, `kubectl patch`).

    That is drift, and undone. Who applies the field by server-side apply declares it his own; both of us would write
    in turns for ever, so that is reported instead. Source: the API server names the version (``using v1 at ...``) of
    managers that update, and only of these (apimachinery, managedfields, printManager).
    """
    return bool(conflict.causes) and all('" using ' in cause.message for cause in conflict.causes)
