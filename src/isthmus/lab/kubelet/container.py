"""Runs one container of a pod: start, hooks, probes, restarts, end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.containers import container_spec, is_sidecar
from isthmus.lab.kubelet.environment import environment
from isthmus.lab.kubelet.fields import Unresolved
from isthmus.lab.kubelet.probes import Probe, Tally, probe_of
from isthmus.lab.kubelet.probing import ProbeFailed, ask
from isthmus.lab.kubelet.shared import PodState, now
from isthmus.lab.kubelet.status import Record, Running, Terminated, Waiting, will_restart
from isthmus.lab.kubelet.tasks import whole
from isthmus.lab.runtime import ContainerSpec, Process, StartFailed

FIRST_WAIT = 0.5  # seconds before a container that ended is started again; doubles up to LONGEST_WAIT
LONGEST_WAIT = 10.0
STEADY_SECONDS = 60.0  # a container that ran as long is started again as if for the first time
LOOK_AGAIN_SECONDS = 5.0  # until what a container misses is looked for again, unless news of it come first
LEAST_GRACE = 2.0  # seconds between SIGTERM and SIGKILL, whatever a hook before took; as the kubelet grants
HOOK_SECONDS = 600.0  # a hook after the start that takes longer has failed
LONGEST_MESSAGE = 4096  # bytes of a termination log, as the kubelet reads


class ContainerKeeper:
    """One container of a pod."""

    def __init__(self, state: PodState, container: Manifest, record: Record, *, init: bool) -> None:
        self.container = container
        self.record = record
        self.process: Process | None = None
        """While the container runs."""
        self.posted = asyncio.Event()
        """Set when the first start is done, with the hook after it, or has failed."""
        self.started = asyncio.Event()
        """Set when the startup probe, if any, has succeeded."""
        self._state = state
        self._init = init
        self._began = 0.0

    @property
    def name(self) -> str:
        """The container's name."""
        return str(self.container["name"])

    @property
    def sidecar(self) -> bool:
        """Whether it is an init container that stays."""
        return self._init and is_sidecar(self.container)

    def log_file(self, *, previous: bool) -> Path:
        """What the container wrote in its last run, or in the one before.

        One that waits to be started again has its last run as the previous one, too.
        """
        return self._log_path(self.record.restarts - (previous and self.process is not None))

    def _log_path(self, run: int) -> Path:
        return self._state.logs / self.name / f"{run}.log"

    async def run(self) -> int:
        """Run the container, again and again where its policy says so; its last exit code.

        Cancelling leaves its process running, for `stop`.
        """
        record, wait = self.record, FIRST_WAIT
        if record.last is not None and not self._init and not self._restarts(record.last):
            self.posted.set()  # another kubelet ran it
            return self._note_end(record.last).exit_code
        while True:
            ended = await self._run_once()
            self.posted.set()
            if not self._restarts(ended):
                return ended.exit_code
            if (ended.until - ended.since).total_seconds() > STEADY_SECONDS:
                wait = FIRST_WAIT
            record.last = ended
            self._state.warn("BackOff", f"Back-off restarting failed container {self.name}")
            self.wait("CrashLoopBackOff", f"back-off {wait:g}s restarting failed container={self.name}")
            await asyncio.sleep(wait)
            wait = min(LONGEST_WAIT, wait * 2)
            record.restarts += 1

    def _restarts(self, ended: Terminated) -> bool:
        return will_restart(self._state.pod, self.container, ended.exit_code, init=self._init)

    def wait(self, reason: str, message: str = "") -> None:
        """Note that the container does not run now, and why."""
        self.record.state = Waiting(reason, message)
        self.record.ready = self.record.started = False
        self._state.changed.set()

    async def _run_once(self) -> Terminated:
        spec = await self._specified()
        since = now()
        try:
            process = await whole(self._start(spec))
        except StartFailed as error:
            self._state.warn("Failed", f"Error: {error}")
            return self._note_end(Terminated(128, since, now(), str(error), "StartError"))
        async with asyncio.TaskGroup() as tasks:
            attendant = tasks.create_task(self._attend(process))
            code = await process.wait()
            attendant.cancel()
        return self._note_exit(process, code)

    async def _specified(self) -> ContainerSpec:
        """What to start, as soon as all that the container refers to is there."""
        wait = FIRST_WAIT
        while True:
            try:
                return self._spec()
            except _UnknownImage as error:
                reason, text = "ErrImagePull", str(error)
            except Unresolved as error:
                reason, text = "CreateContainerConfigError", str(error)
            self._state.warn("Failed", f"Error: {text}")
            self.wait(reason, text)
            self.posted.set()
            await self._state.news(wait)
            wait = min(LOOK_AGAIN_SECONDS, wait * 2)

    def _spec(self) -> ContainerSpec:
        state, around = self._state, self._state.around
        image = around.images.of(self.container["image"])
        if image is None:
            known = ", ".join(around.images.names)
            raise _UnknownImage(f"the lab has no program for image {self.container['image']!r}, only for {known}")
        env = environment(
            self.container,
            state.setting,
            around.sources,
            image={**around.environment, "HOSTNAME": state.hostname, **image.env},
            services=around.services,
        )
        spec = container_spec(state.pod, self.container, image, env, state.place, self._log_path(self.record.restarts))
        _make_writable(state.place.termination_log(self.name))
        for mount in spec.mounts:
            if not mount.source.exists() and mount.source.is_relative_to(state.place.folder):
                mount.source.mkdir(parents=True)  # a subPath of an emptyDir
                mount.source.chmod(0o777)
        return spec

    async def _start(self, spec: ContainerSpec) -> Process:
        assert self._state.sandbox is not None
        spec.log.parent.mkdir(parents=True, exist_ok=True)
        self._log_path(self.record.restarts - 2).unlink(missing_ok=True)  # nobody can ask for it any more
        self.process = await self._state.around.runtime.start(self._state.sandbox, spec)
        self._began = asyncio.get_running_loop().time()
        self.record.state = Running(now())
        self._state.changed.set()
        return self.process

    # While it runs

    async def _attend(self, process: Process) -> None:
        """Hook and probes of one run, until cancelled."""
        hook = (self.container.get("lifecycle") or {}).get("postStart")
        if hook:
            try:
                await self._ask(hook, process, HOOK_SECONDS)
            except ProbeFailed as error:
                self._state.warn("FailedPostStartHook", f"PostStartHook failed: {error}")
                await self._stop(process, self._state.grace)
                return
        self.posted.set()
        startup = probe_of(self.container, "startup")
        if startup is not None and not await self._start_up(startup, process):
            return
        self.record.started = True
        readiness, liveness = probe_of(self.container, "readiness"), probe_of(self.container, "liveness")
        if readiness is None:
            self.record.ready = not self._init or self.sidecar
        self._state.changed.set()
        self.started.set()
        async with asyncio.TaskGroup() as tasks:
            if readiness is not None:
                tasks.create_task(self._watch_readiness(readiness, process))
            if liveness is not None:
                tasks.create_task(self._watch_liveness(liveness, process))

    async def _start_up(self, probe: Probe, process: Process) -> bool:
        """Wait for the startup probe's verdict; whether the container may go on."""
        tally = await self._first_tally(probe)
        while tally.verdict is None:
            await self._probe(tally, process)
        if not tally.verdict:
            await self._kill_unwell(probe, process)
        return tally.verdict

    async def _watch_readiness(self, probe: Probe, process: Process) -> None:
        tally = await self._first_tally(probe)
        while True:
            if await self._probe(tally, process):
                self.record.ready = bool(tally.verdict)
                self._state.changed.set()

    async def _watch_liveness(self, probe: Probe, process: Process) -> None:
        tally = await self._first_tally(probe)
        while tally.verdict:
            await self._probe(tally, process)
        await self._kill_unwell(probe, process)

    async def _first_tally(self, probe: Probe) -> Tally:
        """Wait until *probe* may begin, counted from the container's start."""
        await asyncio.sleep(max(0.0, self._began + probe.delay - asyncio.get_running_loop().time()))
        return Tally(probe)

    async def _probe(self, tally: Tally, process: Process) -> bool:
        """Wait until the next probe is due and ask; whether the verdict is another one now."""
        await asyncio.sleep(tally.pause())
        probe, problem, loop = tally.probe, "", asyncio.get_running_loop()
        try:
            await self._ask(probe.action, process, probe.timeout)
        except ProbeFailed as error:
            problem = str(error)
        changed = tally.count(not problem, loop.time())
        if changed and problem:
            self._state.warn("Unhealthy", f"{probe.kind.capitalize()} probe of {self.name} failed: {problem}")
        return changed

    async def _kill_unwell(self, probe: Probe, process: Process) -> None:
        self._state.tell("Killing", f"Container {self.name} failed {probe.kind} probe, will be restarted")
        await self._stop(process, self._state.grace if probe.grace is None else probe.grace)

    async def _ask(self, action: Mapping[str, Any], process: Process, seconds: float) -> None:
        async def run(command: Sequence[str]) -> tuple[int, str]:
            return await _output(process, command)

        await ask(action, self.container, str(self._state.address), run, seconds)

    # The end

    async def stop(self, grace: float, turn: Callable[[], Awaitable[None]] | None = None) -> None:
        """End the container, if it runs: hook, SIGTERM when it is its *turn*, SIGKILL after *grace* seconds."""
        process = self.process
        if process is not None:
            self._note_exit(process, await self._stop(process, grace, turn))

    async def kill(self) -> None:
        """End the container at once, if it runs."""
        if self.process is not None:
            self.process.signal(signal.SIGKILL)
            self._note_exit(self.process, await self.process.wait())

    async def _stop(self, process: Process, grace: float, turn: Callable[[], Awaitable[None]] | None = None) -> int:
        """The exit code."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        hook = (self.container.get("lifecycle") or {}).get("preStop")
        if hook and grace:
            try:
                await self._ask(hook, process, grace)
            except ProbeFailed as error:
                self._state.warn("FailedPreStopHook", f"PreStopHook failed: {error}")
        if turn is not None:
            await turn()
        process.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout_at(max(deadline, loop.time() + LEAST_GRACE)):
                return await process.wait()
        except TimeoutError:
            process.signal(signal.SIGKILL)
            return await process.wait()

    def _note_exit(self, process: Process, code: int) -> Terminated:
        """Note that *process* ended with *code*; twice is the same as once."""
        if self.process is not process and isinstance(self.record.state, Terminated):
            return self.record.state
        self.process = None
        since = self.record.state.since if isinstance(self.record.state, Running) else now()
        return self._note_end(Terminated(code, since, now(), self._message(code)))

    def _note_end(self, ended: Terminated) -> Terminated:
        self.record.state = ended
        self.record.started = False
        # An init container that did its work counts as ready.
        self.record.ready = self._init and not self.sidecar and ended.exit_code == 0
        self._state.changed.set()
        return ended

    def _message(self, code: int) -> str:
        """What the container left to say, or the last of its log where it wants that."""
        try:
            message = _tail(self._state.place.termination_log(self.name))
            fall_back = self.container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
            if not message and code and fall_back:
                lines = _tail(self._log_path(self.record.restarts)).splitlines()
                message = "\n".join(line.split(" ", 3)[-1] for line in lines)
        except OSError:
            return ""
        return message


class _UnknownImage(Unresolved):
    """The lab has no program for the image."""


async def _output(process: Process, command: Sequence[str]) -> tuple[int, str]:
    """Exit code and output of *command* in the container."""
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    try:
        running = await process.exec(command, stdin=null, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    except (StartFailed, OSError) as error:
        return 126, str(error)
    try:
        said, _ = await running.communicate()
    except asyncio.CancelledError:
        if running.returncode is None:
            running.kill()
            await running.wait()
        raise
    return running.returncode or 0, said.decode(errors="replace")


def _make_writable(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o666)


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_MESSAGE))
        return file.read().decode(errors="replace")
