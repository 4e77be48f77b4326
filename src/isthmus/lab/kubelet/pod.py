"""Runs one pod: volumes, network, containers in their order, status, end.

What a pure function can decide is decided elsewhere: what a container is given in `containers`, `environment` and
`volumes`, when it is probed in `probes`, what is told of it in `status`.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from isthmus.kube.errors import Conflict, KubeError, NotFound
from isthmus.kube.events import Manifest
from isthmus.lab.kubelet import volumes
from isthmus.lab.kubelet.addresses import NoAddress
from isthmus.lab.kubelet.container import FIRST_WAIT, LOOK_AGAIN_SECONDS, ContainerKeeper
from isthmus.lab.kubelet.containers import fs_group, host_path
from isthmus.lab.kubelet.fields import Unresolved
from isthmus.lab.kubelet.network_files import hosts, resolv_conf
from isthmus.lab.kubelet.shared import PodState, Surroundings, now
from isthmus.lab.kubelet.status import (
    OURS,
    Observed,
    Record,
    Waiting,
    earlier_records,
    parsed,
    pod_status,
    status_patch,
)
from isthmus.lab.kubelet.tasks import cancelled, whole
from isthmus.lab.kubelet.tokens import TokenStore
from isthmus.lab.kubelet.volume_files import make_folder, write_files
from isthmus.lab.runtime import Process, Sandbox, StartFailed
from isthmus.model.kinds import POD

TELL_AGAIN_SECONDS = 1.0  # after a status could not be written
FIRST_SECONDS = 0.1  # until the first report: volumes and network mostly take less
SETTLE_SECONDS = 0.02  # changes that come together are told together
FORCED_GRACE = 2.0  # seconds to end for a pod whose object is gone already

log = structlog.get_logger("isthmus.lab")


class PodKeeper:
    """One pod on its node."""

    def __init__(self, pod: Manifest, around: Surroundings) -> None:
        self.references = volumes.references(pod)
        """Kind and name of each ConfigMap and Secret that the pod refers to."""
        self._state = state = PodState(pod, around)
        started = (pod.get("status") or {}).get("startTime")
        self._since = parsed(started) if started else now()
        earlier = earlier_records(pod, now())
        init = pod["spec"].get("initContainers") or ()
        waiting = Waiting("PodInitializing" if init else "ContainerCreating")

        def keeper(container: Manifest, *, init: bool) -> ContainerKeeper:
            record = earlier.get(container["name"]) or Record()
            record.state = waiting
            return ContainerKeeper(state, container, record, init=init)

        self._init = [keeper(each, init=True) for each in init]
        self._main = [keeper(each, init=False) for each in pod["spec"]["containers"]]
        self._tokens = TokenStore(around.kube, pod)
        self._written: dict[str, dict[str, volumes.File]] = {}
        self._ended = False
        self._vanished = asyncio.Event()
        self._ending = asyncio.Event()
        self._stale = asyncio.Event()
        self._told: Manifest = {}

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self._state.key

    @property
    def pod(self) -> Manifest:
        """The pod's object, as far as it is known."""
        return self._state.pod

    @property
    def sandbox(self) -> Sandbox | None:
        """The pod's network, while it has one."""
        return self._state.sandbox

    # What the kubelet tells

    def update(self, pod: Manifest) -> None:
        """The pod's object is now *pod*."""
        before, self._state.pod = self._state.pod, pod
        if "deletionTimestamp" in pod["metadata"]:
            self._ending.set()
        if any(before["metadata"].get(part) != pod["metadata"].get(part) for part in ("labels", "annotations")):
            self.refresh()
        if _from_others(before) != _from_others(pod):
            self._state.changed.set()

    @property
    def vanished(self) -> bool:
        """Whether the pod's object is gone."""
        return self._vanished.is_set()

    def vanish(self) -> None:
        """The pod's object is gone: nobody waits for a report."""
        self._vanished.set()
        self._ending.set()

    def refresh(self) -> None:
        """What the pod refers to has changed."""
        self._stale.set()
        self._state.spread_news()

    # What the kubelet's server asks

    def containers(self) -> tuple[str, ...]:
        """The names of all containers, in their order."""
        return tuple(each.name for each in (*self._init, *self._main))

    def process(self, container: str) -> Process | None:
        """The container's process, while it runs."""
        keeper = self._keeper(container)
        return keeper.process if keeper else None

    def log(self, container: str, *, previous: bool) -> Path | None:
        """Where the log of a container is; see `ContainerKeeper.log_file`."""
        keeper = self._keeper(container)
        path = keeper.log_file(previous=previous) if keeper else None
        return path if path and path.exists() else None

    def _keeper(self, container: str) -> ContainerKeeper | None:
        return next((each for each in (*self._init, *self._main) if each.name == container), None)

    # The life of the pod

    async def run(self) -> None:
        """Keep the pod until it is deleted and gone. When cancelled, what runs of it is killed."""
        if "deletionTimestamp" in self.pod["metadata"]:
            self._ending.set()
        reporter = asyncio.create_task(self._report())
        life = asyncio.create_task(self._live())
        ending = asyncio.create_task(self._ending.wait())
        try:
            waiting: set[asyncio.Task[Any]] = {reporter, life, ending}
            while ending in waiting:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()  # raises what it failed with
            await cancelled(life)
            await self._stop_in_time()
            await cancelled(reporter)
            await self._tear_down()
            await self._delete()
        finally:
            for task in (life, ending, reporter):
                await cancelled(task)
            await self._kill_all()
            await self._tear_down()

    async def _live(self) -> None:
        await self._set_up()
        async with asyncio.TaskGroup() as tasks:
            refresher = tasks.create_task(self._refresh_volumes())
            sidecars: list[asyncio.Task[int]] = []
            if await self._initialize(tasks, sidecars):
                runs = []
                for keeper in self._main:
                    # One after the other, so that the hook of the first may hold up the second; as the kubelet does.
                    runs.append(tasks.create_task(keeper.run()))
                    await keeper.posted.wait()
                await asyncio.gather(*runs)
            for sidecar in sidecars:
                await cancelled(sidecar)
            await cancelled(refresher)
            await self._stop_all()
        self._ended = True
        self._state.changed.set()
        await self._tear_down()

    async def _initialize(self, tasks: asyncio.TaskGroup, sidecars: list[asyncio.Task[int]]) -> bool:
        """Run the init containers in their order; whether all did their work."""
        for keeper in self._init:
            if keeper.sidecar:
                sidecars.append(tasks.create_task(keeper.run()))
                await keeper.started.wait()
            elif await keeper.run():
                return False
        return True

    async def _stop_in_time(self) -> None:
        """End every container; soon, when the pod's object is gone before they have ended."""
        stopping = asyncio.create_task(self._stop_all())
        vanished = asyncio.create_task(self._vanished.wait())
        try:
            await asyncio.wait((stopping, vanished), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((stopping,), timeout=FORCED_GRACE if vanished.done() else None)
            if stopping.done():
                stopping.result()
        finally:
            await cancelled(stopping)
            await cancelled(vanished)
        await self._kill_all()

    async def _kill_all(self) -> None:
        await asyncio.gather(*(keeper.kill() for keeper in (*self._init, *self._main)))

    async def _stop_all(self) -> None:
        """End every container: first the main ones, then sidecars, the last one first.

        Hooks before the end run at once for all, so that a sidecar knows of what comes while it still serves.
        Source: kubelet, killContainersWithSyncResult and its termination ordering.
        """
        grace = self._state.grace
        sidecars = [keeper for keeper in self._init if keeper.sidecar]
        others = [*self._main, *(keeper for keeper in self._init if not keeper.sidecar)]
        if any(keeper.process for keeper in (*sidecars, *others)):
            self._state.tell("Killing", "Stopping the containers")
        before = [asyncio.create_task(keeper.stop(grace)) for keeper in others]
        for keeper in reversed(sidecars):
            before.append(asyncio.create_task(keeper.stop(grace, partial(_all_done, tuple(before)))))
        try:
            await asyncio.gather(*before)
        finally:
            for task in before:
                await cancelled(task)

    # Volumes and network

    async def _set_up(self) -> None:
        """Volumes, then the network; again until it works."""
        wait = FIRST_WAIT
        while True:
            self._stale.clear()
            try:
                self._make_place()
                await self._write_volumes()
                await whole(self._make_sandbox())
            except (Unresolved, KubeError) as error:
                self._state.warn("FailedMount", str(error))
            except (StartFailed, NoAddress, OSError) as error:
                self._state.warn("FailedCreatePodSandBox", str(error))
            else:
                self._state.changed.set()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stale.wait()
            wait = min(LOOK_AGAIN_SECONDS, wait * 2)

    def _make_place(self) -> None:
        state, spec = self._state, self.pod["spec"]
        if state.address is None:
            node, addresses = state.around.node, state.around.addresses
            state.address = node.address if spec.get("hostNetwork") else addresses.take()
        (state.place.folder / "termination").mkdir(parents=True, exist_ok=True)
        texts = {
            "hosts": hosts(self.pod, str(state.address), state.hostname),
            "hostname": f"{state.hostname}\n",
            "resolv.conf": resolv_conf(self.pod, state.around.dns),
        }
        for file, text in texts.items():
            state.place.network_file(file).write_text(text)
        for volume in spec.get("volumes") or ():
            kind = volumes.kind_of(volume)
            if kind == "hostPath":
                host_path(volume["hostPath"], state.place).mkdir(parents=True, exist_ok=True)
                continue
            root = state.place.volume(volume["name"])
            if not root.exists():
                make_folder(root, fs_group(self.pod), writable=kind == "emptyDir")
            for inner in volumes.nested_mounts(self.pod, volume["name"]):
                (root / inner).mkdir(parents=True, exist_ok=True)

    async def _make_sandbox(self) -> None:
        state, spec = self._state, self.pod["spec"]
        sysctls = (spec.get("securityContext") or {}).get("sysctls") or ()
        namespace, name = self.key
        state.sandbox = await state.around.runtime.create_sandbox(
            f"{state.around.machine}.{namespace}.{name}.{state.uid[:8]}",
            machine=state.around.machine,
            address=None if spec.get("hostNetwork") else state.address,
            hostname=state.hostname,
            sysctls={each["name"]: str(each["value"]) for each in sysctls},
        )

    async def _write_volumes(self) -> None:
        """Bring every volume up to date. Raises `Unresolved` when something that it needs is not there."""
        state = self._state
        await self._tokens.fetch(volumes.token_requests(self.pod))
        for volume in self.pod["spec"].get("volumes") or ():
            if volumes.kind_of(volume) not in volumes.WRITTEN:
                continue
            wanted = volumes.files(volume, state.setting, state.around.sources, self._tokens.token)
            if self._written.get(volume["name"]) != wanted:
                write_files(state.place.volume(volume["name"]), wanted, fs_group(self.pod))
                self._written[volume["name"]] = wanted

    async def _refresh_volumes(self) -> None:
        """Let volumes follow what they show, until cancelled. What has been deleted stays as it was."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tokens.due_in()):
                    await self._stale.wait()
            self._stale.clear()
            try:
                await self._write_volumes()
            except (Unresolved, KubeError, OSError) as error:
                self._state.warn("FailedMount", str(error))
                await asyncio.sleep(LOOK_AGAIN_SECONDS)

    async def _tear_down(self) -> None:
        """Give back what the pod had of the node; twice is the same as once."""
        state = self._state
        sandbox, state.sandbox = state.sandbox, None
        if sandbox is not None:
            await whole(state.around.runtime.remove_sandbox(sandbox))
        shutil.rmtree(state.place.folder, ignore_errors=True)
        address, state.address = state.address, None
        if address is not None:
            state.around.addresses.give_back(address)

    # The pod's object

    async def _report(self) -> None:
        """Write the status whenever it is another, until cancelled."""
        await asyncio.sleep(FIRST_SECONDS)
        while True:
            self._state.changed.clear()
            await asyncio.sleep(SETTLE_SECONDS)
            try:
                await self._tell()
            except NotFound:
                pass  # gone: the watch tells
            except KubeError as error:  # a Conflict, too: another pod of that name, or too many writers at once
                log.warning("status not written", pod="/".join(self.key), error=str(error))
                await asyncio.sleep(TELL_AGAIN_SECONDS)
                continue
            await self._state.changed.wait()

    async def _tell(self) -> None:
        """Write the status, unless the API server has it so."""
        status = self._status()
        if status == self._told:
            return
        await self._state.around.kube.patch(
            POD,
            *self.key,
            {"metadata": {"uid": self._state.uid}, "status": status_patch(status)},
            subresource="status",
            strategic=True,  # others keep conditions, too
        )
        self._told = status

    def _status(self) -> Manifest:
        state = self._state
        observed = Observed(
            records={keeper.name: keeper.record for keeper in (*self._init, *self._main)},
            since=self._since,
            host_address=str(state.around.node.address),
            address=str(state.address) if state.sandbox is not None else self._told.get("podIP", ""),
            networked=state.sandbox is not None,
            ended=self._ended,
        )
        # The watch may not have come to what was told last.
        before = self._told or self.pod.get("status") or {}
        return pod_status(self.pod, observed, before, now())

    async def _delete(self) -> None:
        """Report how the containers ended, then let the object go."""
        while not self.vanished:
            try:
                with suppress(NotFound, Conflict):
                    self._ended = True
                    await self._tell()
                await self._state.around.kube.delete(POD, *self.key, uid=self._state.uid, grace_seconds=0)
                return
            except Conflict:
                return  # another pod of that name
            except KubeError as error:
                log.warning("pod not deleted", pod="/".join(self.key), error=str(error))
                await asyncio.sleep(TELL_AGAIN_SECONDS)


async def _all_done(tasks: Sequence[asyncio.Task[None]]) -> None:
    if tasks:
        await asyncio.wait(tasks)


def _from_others(pod: Manifest) -> list[object]:
    """What of a pod's status others write, and what the status repeats of the rest."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return [pod["metadata"].get("generation"), [each for each in conditions if each["type"] not in OURS]]
