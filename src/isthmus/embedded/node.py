"""Runs the pods of our own images as processes of this machine; every other pod only looks as if it ran.

A pod gets a loopback address of its own, on which its process listens on the ports that its container names, so that a
Service's address and port work as they stand. Readiness probes count, liveness probes don't. Owns its processes alone:
it ends them by their number, and they end with it.
"""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import msgspec

from isthmus.embedded.door import Current, Door, Everything, Refused
from isthmus.embedded.plans import HASH_LABEL
from isthmus.model.kinds import POD

Manifest = dict[str, Any]

PROGRAMS = {"isthmus-server": "isthmus.server.main:main", "isthmus-agent": "isthmus.agent.main:main"}
"""The last part of an image's name, and what its process calls."""

IMPORTS = {
    "isthmus.server.main:main": (
        "isthmus.server.main",
        "isthmus.server.run",
        "isthmus.program.lifecycle",
        "isthmus.program.logs",
        "uvicorn.protocols.http.httptools_impl",
        "uvloop",
    ),
    "isthmus.agent.main:main": (
        "isthmus.agent.main",
        "isthmus.agent.run",
        "isthmus.program.lifecycle",
        "isthmus.program.logs",
        "uvicorn.protocols.http.httptools_impl",
        "uvloop",
    ),
}
"""What a spare process imports beforehand: all but a few milliseconds of a program's start."""

BIND_ADDRESS = "ISTHMUS_BIND_ADDRESS"
"""Environment variable: the address a program listens on, instead of all."""

STARTING_POLL = 0.05  # seconds between probes of a pod that was not ready yet
FIRST_WAIT = 0.1  # seconds before a program that ended is started again; doubles up to LONGEST_WAIT
LONGEST_WAIT = 10.0
STEADY = 30.0  # seconds after which a program that ends counts as having run well
PROBE_TIMEOUT = 1.0
TELL_TIMEOUT = 2.0
FAILURES = 3  # of a probe in a row until a ready pod is not ready any more; Kubernetes' default
GRACE = 30.0  # seconds between SIGTERM and SIGKILL where the pod does not say
RESERVED_PORT = 9900  # held on the first address of a range, so that another fleet takes another one


def container_command(program: str, arguments: Sequence[str]) -> list[str]:
    """The command that runs *program* (``module:function``) so that it ends with this process."""
    # By its file, because as a module of this package it would first import the API server; -P, because beside that
    # file are modules that have names of the standard library.
    return [sys.executable, "-P", str(Path(__file__).with_name("container.py")), str(os.getpid()), program, *arguments]


class LoopbackRange:
    """254 loopback addresses that no other fleet on this machine uses while this one holds them.

    Use as a context manager. Linux answers on all of 127.0.0.0/8.
    """

    def __init__(self) -> None:
        self._held: socket.socket | None = None
        self._prefix = ""
        self._given = 1

    def __enter__(self) -> Self:
        start = random.randrange(256)
        for step in range(256):
            prefix = f"127.77.{(start + step) % 256}"
            holder = socket.socket()
            try:
                holder.bind((f"{prefix}.1", RESERVED_PORT))
            except OSError as error:
                holder.close()
                if error.errno == errno.EADDRNOTAVAIL:
                    text = f"{prefix}.1 is not an address of this machine; Linux answers on all of 127.0.0.0/8"
                    raise OSError(error.errno, text) from error
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            self._held, self._prefix = holder, prefix
            return self
        raise OSError(errno.EADDRINUSE, f"port {RESERVED_PORT} is taken on every loopback address")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._held is not None:
            self._held.close()

    def take(self) -> str:
        """The next address. Raises `Refused` when all are given."""
        self._given += 1
        if self._given > 254:
            raise Refused(f"no free address in {self._prefix}.0/24")
        return f"{self._prefix}.{self._given}"


class Node:
    """Runs the pods of one cluster that `runs` says are ours."""

    def __init__(
        self,
        door: Door,
        *,
        kubeconfig: Path,
        logs: Path,
        loopback: LoopbackRange,
        programs: Mapping[str, str] = PROGRAMS,
        spare: str = "",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """*kubeconfig* is what the processes see; *logs* a folder for one file per pod.

        Of the program *spare* a process is kept that has done its imports, so that the first pod of it starts at once.
        """
        self.processes: dict[tuple[str, str], int] = {}
        """The process of each pod (namespace, name) that has one now."""
        self._door = door
        self._kubeconfig = kubeconfig
        self._logs = logs
        self._loopback = loopback
        self._programs = programs
        self._spare = spare
        self._waiting: asyncio.subprocess.Process | None = None
        self._clock = clock
        self._pods: dict[str, _Pod] = {}
        self._addresses: dict[tuple[str, str], list[str]] = defaultdict(list)
        """Addresses of a workload's pods: they come back to the same ones, so that its Service keeps its address."""
        self._in_use: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def runs(self, pod: Manifest) -> bool:
        """Whether the pod's process is ours to run."""
        return self._program(pod) is not None

    def _program(self, pod: Manifest) -> str | None:
        image = pod["spec"]["containers"][0]["image"]
        return self._programs.get(image.rpartition("/")[2].partition(":")[0].partition("@")[0])

    def log_file(self, namespace: str, name: str) -> Path:
        """What the pod's program said."""
        return self._logs / f"{namespace}_{name}.log"

    async def run(self) -> None:
        """Run pods until cancelled; then end every process."""
        self._logs.mkdir(parents=True, exist_ok=True)
        if self._spare:
            command = container_command("--wait", IMPORTS.get(self._spare, ()))
            self._waiting = await _start(command, os.environ, asyncio.subprocess.PIPE)
        try:
            await self._follow()
        finally:
            if self._waiting is not None:
                await _stop(self._waiting, 0)

    async def _follow(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            async for told in self._door.watch(POD):
                if isinstance(told, Everything):
                    present = {item["metadata"]["uid"] for item in told.items}
                    for uid in [uid for uid in self._pods if uid not in present]:
                        self._end(uid)
                    for item in told.items:
                        self._begin(tasks, item)
                elif isinstance(told, Current):
                    self._begin(tasks, told.item)
                else:
                    self._end(told.item["metadata"]["uid"])

    def _begin(self, tasks: asyncio.TaskGroup, item: Manifest) -> None:
        metadata = item["metadata"]
        program = self._program(item)
        if program is None or metadata["uid"] in self._pods or not item["spec"].get("nodeName"):
            return
        pod = self._pods[metadata["uid"]] = _Pod(item, program, self._address(item))
        tasks.create_task(self._run_pod(pod), name=f"pod {metadata['namespace']}/{metadata['name']}")

    def _end(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None:
            pod.ending.set()

    def _address(self, item: Manifest) -> str:
        """The first address of the pod's workload that no living pod has; one that still ends is waited for."""
        mine = self._addresses[item["metadata"]["namespace"], _workload(item)]
        taken = {pod.address for pod in self._pods.values()}
        for address in mine:
            if address not in taken:
                return address
        mine.append(self._loopback.take())
        return mine[-1]

    async def _run_pod(self, pod: _Pod) -> None:
        """Start the pod's program, and again whenever it ends, until the pod is gone."""
        await self._tell(pod, ready=False, state={"waiting": {"reason": "ContainerCreating"}})
        async with self._in_use[pod.address]:
            wait = FIRST_WAIT
            while not pod.ending.is_set():
                try:
                    command = self._command(pod)
                except _NotRunnable as error:
                    state = {"waiting": {"reason": "CreateContainerConfigError", "message": str(error)}}
                    await self._tell(pod, ready=False, state=state)
                    await pod.ending.wait()
                    return
                started = self._clock()
                code = await self._run_once(pod, command, started)
                if pod.ending.is_set():
                    return
                if (self._clock() - started).total_seconds() > STEADY:
                    wait = FIRST_WAIT
                pod.restarts += 1
                pod.last = {"terminated": {"exitCode": code, "finishedAt": self._now(), "reason": "Error"}}
                state = {"waiting": {"reason": "CrashLoopBackOff"}}
                await self._tell(pod, ready=False, state=state)
                _log().info("program ended", pod=pod.key, exit_code=code, restarts=pod.restarts, wait_seconds=wait)
                with suppress(TimeoutError):
                    await asyncio.wait_for(pod.ending.wait(), wait)
                wait = min(LONGEST_WAIT, wait * 2)

    async def _run_once(self, pod: _Pod, command: _Command, started: datetime) -> int:
        """Run the program until it ends or the pod is gone; its exit code."""
        process = await self._process(pod, command)
        self.processes[pod.key] = process.pid
        try:
            running = {"running": {"startedAt": started.strftime("%Y-%m-%dT%H:%M:%SZ")}}
            await self._attend(pod, process, running)
        finally:
            await _stop(process, pod.grace)
            del self.processes[pod.key]
        return process.returncode or 0

    async def _process(self, pod: _Pod, command: _Command) -> asyncio.subprocess.Process:
        file = self.log_file(*pod.key)
        spare = self._waiting
        if pod.program == self._spare and spare is not None and spare.returncode is None and spare.stdin is not None:
            self._waiting = None
            what = {"program": pod.program, "output": str(file.absolute()), **msgspec.to_builtins(command)}
            spare.stdin.write(msgspec.json.encode(what) + b"\n")
            spare.stdin.close()
            return spare
        with file.open("ab") as output:
            return await _start(
                container_command(pod.program, command.arguments),
                command.environment,
                asyncio.subprocess.DEVNULL,
                output,
            )

    async def _attend(self, pod: _Pod, process: asyncio.subprocess.Process, running: Manifest) -> None:
        """Probe the program and report, until it ends or the pod is gone."""
        probe = pod.container.get("readinessProbe") or {}
        period = float(probe.get("periodSeconds", 10))
        ends = [asyncio.ensure_future(process.wait()), asyncio.ensure_future(pod.ending.wait())]
        ready, failures = False, 0
        try:
            while True:
                if await _answers(pod, probe):
                    ready, failures = True, 0
                else:
                    failures += 1
                    ready = ready and failures < int(probe.get("failureThreshold", FAILURES))
                told = await self._tell(pod, ready=ready, state=running)
                pause = period if ready and told else STARTING_POLL
                done, _ = await asyncio.wait(ends, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    return
        finally:
            for end in ends:
                end.cancel()

    def _command(self, pod: _Pod) -> _Command:
        environment = {name: value for name, value in os.environ.items() if name != "KUBERNETES_SERVICE_HOST"}
        environment |= {"KUBECONFIG": str(self._kubeconfig), BIND_ADDRESS: pod.address, "PYTHONUNBUFFERED": "1"}
        # Its pods are no more than their names: whoever answers at their addresses is somebody else.
        environment["ISTHMUS_VERIFY_WORKLOADS"] = "false"
        for variable in pod.container.get("env") or ():
            environment[variable["name"]] = pod.value_of(variable)
        arguments = [
            re.sub(r"\$\(([A-Za-z0-9_]+)\)", lambda found: environment.get(found[1], found[0]), argument)
            for argument in pod.container.get("args") or ()
        ]
        return _Command(arguments, environment)

    async def _tell(self, pod: _Pod, *, ready: bool, state: Manifest) -> bool:
        """Write the pod's status, unless it says so already; whether the API server knows it now."""
        status = pod.status(ready=ready, state=state, now=self._now())
        if status == pod.told:
            return True
        try:
            namespace, name = pod.key
            patch = {"metadata": {"uid": pod.item["metadata"]["uid"]}, "status": status}
            async with asyncio.timeout(TELL_TIMEOUT):  # the program comes first: it is not left alone for a report
                await self._door.patch(POD, namespace, name, patch, subresource="status")
        except (Refused, TimeoutError) as error:
            _log().warning("status not written", pod=pod.key, error=str(error) or "no answer")
            return False
        pod.told = status
        return True

    def _now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%SZ")


class _Command(msgspec.Struct, frozen=True):
    """What a container's process is given."""

    arguments: list[str]
    environment: dict[str, str]


class _NotRunnable(Exception):
    """The pod asks for something that this node does not know."""


class _Pod:
    """A pod that is ours to run."""

    def __init__(self, item: Manifest, program: str, address: str) -> None:
        self.item = item
        self.program = program
        self.address = address
        self.container = item["spec"]["containers"][0]
        self.key = (item["metadata"]["namespace"], item["metadata"]["name"])
        self.grace = float(item["spec"].get("terminationGracePeriodSeconds", GRACE))
        self.ending = asyncio.Event()
        self.restarts = 0
        self.last: Manifest = {}
        self.told: Manifest = {}
        """The status that the API server has."""

    def value_of(self, variable: Manifest) -> str:
        """The value of an environment variable. Raises `_NotRunnable`."""
        if "valueFrom" not in variable:
            return str(variable.get("value", ""))
        metadata, spec = self.item["metadata"], self.item["spec"]
        fields = {
            "metadata.name": metadata["name"],
            "metadata.namespace": metadata["namespace"],
            "metadata.uid": metadata["uid"],
            "spec.nodeName": spec["nodeName"],
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "status.podIP": self.address,
            "status.hostIP": self.address,
        }
        path = variable["valueFrom"].get("fieldRef", {}).get("fieldPath", "")
        if path not in fields:
            raise _NotRunnable(f"env {variable['name']}: this node has no value for {variable['valueFrom']}")
        return str(fields[path])

    def port_number(self, port: str | int) -> int:
        """The number of a port that a probe names."""
        named = {item["name"]: item["containerPort"] for item in self.container.get("ports") or () if "name" in item}
        return int(named.get(port, port))

    def status(self, *, ready: bool, state: Manifest, now: str) -> Manifest:
        """The pod's status, with the time of the last transition of each condition."""
        before = {condition["type"]: condition for condition in self.told.get("conditions") or ()}
        conditions = []
        for kind, holds in (
            ("PodScheduled", True),
            ("Initialized", True),
            ("ContainersReady", ready),
            ("Ready", ready),
        ):
            status = "True" if holds else "False"
            since = before[kind]["lastTransitionTime"] if before.get(kind, {}).get("status") == status else now
            conditions.append({"type": kind, "status": status, "lastTransitionTime": since})
        container = {
            "name": self.container["name"],
            "image": self.container["image"],
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": self.restarts,
            "state": state,
            "lastState": self.last,
        }
        return {
            "phase": "Running" if "running" in state or self.restarts else "Pending",
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "hostIP": self.address,
            "startTime": self.told.get("startTime", now),
            "conditions": conditions,
            "containerStatuses": [container],
        }


def _log() -> Any:
    import structlog  # 0.2 s, which a fleet in which nothing goes wrong need not spend

    return structlog.get_logger("isthmus.node")


def _workload(item: Manifest) -> str:
    """The name of the workload that the pod came from: a Deployment's, whatever its ReplicaSet."""
    metadata = item["metadata"]
    owner = next((o["name"] for o in metadata.get("ownerReferences") or () if o.get("controller")), metadata["name"])
    return str(owner).removesuffix(f"-{(metadata.get('labels') or {}).get(HASH_LABEL, '')}")


async def _answers(pod: _Pod, probe: Manifest) -> bool:
    """Whether the program says by its readiness probe that it is ready; without one, it is."""
    try:
        async with asyncio.timeout(PROBE_TIMEOUT):
            if get := probe.get("httpGet"):
                return await _http_ok(pod.address, pod.port_number(get["port"]), get.get("path", "/"))
            if tcp := probe.get("tcpSocket"):
                _, writer = await asyncio.open_connection(pod.address, pod.port_number(tcp["port"]))
                writer.close()
    except (OSError, ValueError):
        return False
    return True


async def _http_ok(host: str, port: int, path: str) -> bool:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        line = await reader.readline()
    finally:
        writer.close()
    found = re.match(rb"HTTP/1\.[01] (\d+)", line)
    return found is not None and 200 <= int(found[1]) < 400


async def _start(
    command: list[str], environment: Mapping[str, str], standard_input: int, output: BinaryIO | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=standard_input,
        stdout=output,
        stderr=output,
        start_new_session=True,  # Ctrl-C is for us; we end the processes in order
    )


async def _stop(process: asyncio.subprocess.Process, grace: float) -> None:
    """End the process: politely, then for certain. A second cancellation cuts the politeness short."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), grace)
    except TimeoutError:
        _log().warning("program did not end in time", pid=process.pid, grace_seconds=grace)
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
