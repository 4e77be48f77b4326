"""The box from outside: starting it, finding it again, seeing what runs in it, ending it.

Linux ends every process of a PID namespace with its first one (pid_namespaces(7)), and mounts, networks and packet
filter rules with the last process that uses them. So ending the box is killing one process, and a box whose starter was
killed leaves nothing either.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from isthmus.lab.binaries import SBIN
from isthmus.lab.messages import Order, Report

STATE = "lab.json"
KUBECONFIG = "kubeconfig"
LOG = "supervisor.log"
UNSHARE = ("unshare", "--net", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--mount-proc", "--")
END_SECONDS = 20.0
WATCHERS = Path("/proc/sys/fs/inotify/max_user_instances")
MOST_WATCHERS = 1024
"""Each sidecar takes three, all as one user: the kernel's 128 are too few for two labs that restart pods."""


class BoxFailed(Exception):
    """The box did not start or does not run; the text says why."""


class BoxState(msgspec.Struct, frozen=True):
    """What finds a running box again."""

    pid: int
    """The process that holds the box: its only child is the box's first."""
    started: int
    """When it started, in clock ticks since boot: tells it from a later process of the same number."""
    names: tuple[str, ...]
    flat: bool


@dataclass(frozen=True)
class BoxProcess:
    """One process in the box, seen from the host."""

    pid: int
    place: str
    """In whose network it is: a machine's ``cluster``, a pod's ``cluster/namespace/pod``, or the box's own, ``lab``."""
    command: str
    memory: int
    """Bytes that would be free without it: shared pages count in proportion (PSS)."""


def make_room(report: Callable[[str], None], limit: Path = WATCHERS) -> None:
    """Let the sidecars of a few labs, which are one user to the kernel, watch their files. Never lowers the *limit*."""
    if int(limit.read_text()) >= MOST_WATCHERS:
        return
    try:
        limit.write_text(str(MOST_WATCHERS))
    except OSError as error:
        report(f"{limit} cannot be raised to {MOST_WATCHERS}; sidecars of a second lab may not start: {error.strerror}")


class Box:
    """A box whose files are in *directory*."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / KUBECONFIG
        self.kubectl_cache = directory / "kubectl-cache"
        """What kubectl remembers of the API servers; outside, it would outlive them."""

    def state(self) -> BoxState | None:
        """The running box, None if there is none."""
        try:
            state = msgspec.json.decode((self.directory / STATE).read_bytes(), type=BoxState)
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return state if _start_time(state.pid) == state.started else None

    def start(self, names: Sequence[str], *, flat: bool, report: Callable[[str], None]) -> None:
        """Start it and return when its clusters are ready. Raises `BoxFailed`; then nothing of it is left."""
        if os.geteuid():
            raise BoxFailed("the lab makes namespaces and networks, which needs root")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._alone():
            make_room(report)
            self._start(names, flat, report)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Of two that start a lab in one directory, nobody would find the first again."""
        held = os.open(self.directory, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BoxFailed(f"a lab is being started in {self.directory}") from None
            yield
        finally:
            os.close(held)

    def _start(self, names: Sequence[str], flat: bool, report: Callable[[str], None]) -> None:
        if self.state():
            raise BoxFailed(f"a lab runs already in {self.directory}")
        self._forget()
        doors = {name: socket.create_server(("127.0.0.1", 0)) for name in names}
        reading, writing = os.pipe()
        order = Order(
            directory=str(self.directory),
            doors={name: door.fileno() for name, door in doors.items()},
            report_fd=writing,
            flat=flat,
        )
        with (self.directory / LOG).open("wb") as log:
            process = subprocess.Popen(
                [*UNSHARE, sys.executable, "-m", "isthmus.lab.supervisor", msgspec.json.encode(order).decode()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing, *order.doors.values()],
                env={**os.environ, "PATH": os.pathsep.join((os.environ.get("PATH", os.defpath), *SBIN))},
                start_new_session=True,
            )
        os.close(writing)
        for door in doors.values():
            door.close()
        try:
            state = BoxState(pid=process.pid, started=_start_time(process.pid), names=tuple(names), flat=flat)
            (self.directory / STATE).write_bytes(msgspec.json.encode(state))
            self._follow(reading, report)
        except BaseException:
            process.kill()
            process.wait()
            (self.directory / STATE).unlink(missing_ok=True)
            raise
        finally:
            os.close(reading)

    def _follow(self, reading: int, report: Callable[[str], None]) -> None:
        with os.fdopen(os.dup(reading)) as lines:
            for line in lines:
                step = msgspec.json.decode(line, type=Report)
                if step.failed:
                    raise BoxFailed(step.text)
                report(step.text)
                if step.ready:
                    self.kubeconfig.touch(mode=0o600)
                    self.kubeconfig.write_text(step.kubeconfig)
                    return
        tail = (self.directory / LOG).read_text(errors="replace").strip().splitlines()[-6:]
        raise BoxFailed("\n".join(["the lab ended while it started:", *tail]))

    def stop(self) -> bool:
        """End it and wait until nothing of it runs; False if none ran."""
        state = self.state()
        if state is None:
            return False
        watched = [descriptor for pid in self._tree(state) if (descriptor := _pidfd(pid)) is not None]
        try:
            with suppress(ProcessLookupError):  # it ends by itself
                os.kill(state.pid, signal.SIGKILL)
            for descriptor in watched:
                select.select([descriptor], [], [], END_SECONDS)
        finally:
            for descriptor in watched:
                os.close(descriptor)
        self._forget()
        return True

    def _forget(self) -> None:
        (self.directory / STATE).unlink(missing_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        shutil.rmtree(self.kubectl_cache, ignore_errors=True)

    def inside(self, machine: str, argv: Sequence[str]) -> list[str]:
        """The command that runs *argv* in the network of *machine* (empty: of the box). Raises `BoxFailed`."""
        first = self._first()
        enter = ["nsenter", f"--target={first}", "--net", "--mount", "--pid", "--ipc", "--uts", "--"]
        return [*enter, *(("nsenter", f"--net=/run/netns/{machine}", "--") if machine else ()), *argv]

    def processes(self) -> Iterator[BoxProcess]:
        """What runs in the box. Raises `BoxFailed` if it does not run."""
        state = self.running()
        first = self._first()
        places = _networks(Path(f"/proc/{first}/root/run/netns"))
        for pid in self._tree(state):
            try:
                network = os.stat(f"/proc/{pid}/ns/net").st_ino
                command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode()
                rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:  # ended meanwhile
                continue
            memory = next((int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")), 0)
            yield BoxProcess(pid, _place(places.get(network, "lab")), command, memory * 1024)

    def running(self) -> BoxState:
        """The running box. Raises `BoxFailed` if there is none."""
        state = self.state()
        if state is None:
            raise BoxFailed(f"no lab runs in {self.directory}")
        return state

    def _first(self) -> int:
        for child in _children(self.running().pid):
            return child
        raise BoxFailed(f"the lab in {self.directory} is ending")

    def _tree(self, state: BoxState) -> list[int]:
        found = [state.pid]
        for pid in found:
            found.extend(_children(pid))
        return found


def _networks(folder: Path) -> dict[int, str]:
    """Names of networks by inode; those of pods come and go meanwhile."""
    found: dict[int, str] = {}
    with suppress(OSError):  # there are none yet, or the box is ending
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                found[path.stat().st_ino] = path.name
    return found


def _place(netns: str) -> str:
    """A pod's network is named ``cluster.namespace.pod.uid``; only the pod's name may have further dots."""
    cluster, *pod = netns.split(".")
    return "/".join([cluster, pod[0], ".".join(pod[1:-1])]) if pod else cluster


def _children(pid: int) -> list[int]:
    children: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            children.extend(int(child) for child in (task / "children").read_text().split())
    except OSError:
        pass
    return children


def _start_time(pid: int) -> int:
    """Field 22 of /proc/PID/stat (proc(5)); 0 if there is no such process, or it has ended and nobody asked how."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None
