"""Runs containers as processes: what a container runtime and a network plug-in do for a kubelet.

A *sandbox* is a pod's network namespace with its link to the machine. A container has mount, PID, IPC and UTS
namespaces of its own, an overlay over the machine's file system as its root, and is a child of this process. What ends
the first process ends all others of its namespaces, so a crash of the box leaves nothing to tidy up.

All state of one container goes with it; sandboxes go with `Runtime.remove_sandbox`. Works under asyncio and uvloop.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import shutil
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from isthmus.lab import launcher
from isthmus.lab.launcher import CLONE_NEWNET, MNT_DETACH, MS_BIND

CAPABILITIES = (  # noqa: SIM905
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE "
    "NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN "
    "SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE "
    "MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
).split()
"""Every capability at its number (linux/capability.h)."""
DEFAULT_CAPABILITIES = frozenset(
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "  # noqa: SIM905
    "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE".split()
)
"""What containerd grants when a Pod asks for nothing."""

PYTHON = os.path.realpath(sys.executable)
NETNS = Path("/run/netns")
GATEWAY = "169.254.1.1"  # every pod's next hop; nobody has the address, both ends know each other's link address
GATEWAY_LINK = "ee:ee:ee:ee:ee:ee"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
POD_SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "0"}  # as containerd sets it
# A pod that comes to itself through a Service leaves and enters at the same leg, which is no mistake to correct.
LEG_SYSCTLS = {"rp_filter": "0", "send_redirects": "0"}
LINE_BYTES = 16 * 1024  # where containerd splits a longer line
LOG_BYTES = 50 * 2**20
DRAIN_SECONDS = 2.0  # for output after the end: only a process outside the container can still hold the pipe
END_SECONDS = 60.0  # from SIGKILL to the end of a container; longer, and its pod's address is given up
HIDDEN = ("/tmp", "/run", "/var/run")
PSEUDO = ("/dev", "/proc", "/sys")


class StartFailed(Exception):
    """A sandbox or a program did not start; the text says which and why."""


@dataclass(frozen=True)
class Mount:
    """A file or directory of the machine, seen in a container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True, kw_only=True)
class ContainerSpec:
    """What to run and what it may do."""

    name: str
    argv: tuple[str, ...]
    log: Path
    """Where standard output and error go, in the CRI's log format."""
    env: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    user: int = 0
    group: int = 0
    groups: tuple[int, ...] = ()
    mounts: tuple[Mount, ...] = ()
    read_only_root: bool = False
    privileged: bool = False
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    """The most that any process of it can have, without ``CAP_``; only user 0 has them."""
    no_new_privileges: bool = False


class Sandbox:
    """A pod's network, and the containers in it."""

    def __init__(self, name: str, machine: str, address: IPv4Address | None, hostname: str) -> None:
        self.name = name
        self.machine = machine
        self.address = address
        """None on the machine's own network."""
        self.hostname = hostname
        self.netns = NETNS / (machine if address is None else name)
        self.processes: set[Process] = set()
        """Running containers."""
        self.removed = False


class Process:
    """One running container."""

    def __init__(
        self,
        pid: int,
        spec: ContainerSpec,
        order: Mapping[str, Any],
        outputs: Iterable[Output],
        ended: Callable[[Process], None],
    ) -> None:
        self.pid = pid
        """In this process's PID namespace."""
        self.spec = spec
        self._order = order
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._code: int | None = None
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._pidfd = os.pidfd_open(pid)
        self._outputs = set(outputs)
        self._loop.add_reader(self._pidfd, self._reap)
        for output in self._outputs:
            output.follow(self._output_ended)

    async def wait(self) -> int:
        """Its exit code, 128+n when signal n ended it; by then all it printed is in the log."""
        return await asyncio.shield(self._exit)

    def signal(self, number: int) -> None:
        """Send a signal to the first process; nothing happens when that has ended."""
        if self._code is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    async def exec(
        self, argv: Sequence[str], *, stdin: int | None, stdout: int | None, stderr: int | None
    ) -> asyncio.subprocess.Process:
        """One more program in the container, with its user, environment and limits. Raises `StartFailed`.

        Signals sent to what comes back reach the program, and its exit code comes through. A terminal as *stdin*
        becomes the program's controlling terminal. The program ends with the container.
        """
        if self._code is not None:
            raise StartFailed(f"container {self.spec.name} has ended")
        order = {**self._order, "argv": list(argv), "container": self._pidfd}
        report = _Report()
        launched = None
        try:
            launched = await _launch(order, report, (self._pidfd,), stdin, stdout, stderr)
            await report.read()
        except BaseException:
            if launched is not None:
                launched.kill()
            raise
        finally:
            _, failure = report.end()
        if failure:
            await launched.wait()
            raise StartFailed(f"container {self.spec.name}: {failure}")
        return launched

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        try:
            code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:  # somebody else waited for it
            code = 255
        self._code = code if code >= 0 else 128 - code
        if self._outputs:
            self._loop.call_later(DRAIN_SECONDS, self._close_outputs)
        self._settle()

    def _output_ended(self, output: Output) -> None:
        self._outputs.discard(output)
        self._settle()

    def _close_outputs(self) -> None:
        for output in tuple(self._outputs):
            output.close()

    def _settle(self) -> None:
        if self._code is not None and not self._outputs and not self._exit.done():
            self._ended(self)
            self._exit.set_result(self._code)


class Log:
    """A container's log file in the CRI format: ``TIME stdout F TEXT``, with P for a part of a line.

    A file of *limit* bytes becomes FILE.1; what FILE.1 held is gone.
    """

    def __init__(self, path: Path, limit: int = LOG_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._streams = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self._size = os.fstat(self._file).st_size

    def write(self, stream: str, lines: bytes, *, part: bool = False) -> None:
        """Add whole lines, without the last one's end, or a part of one."""
        now = time.time_ns()
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now // 10**9))
        head = f"{seconds}.{now % 10**9:09d}Z {stream} ".encode()
        text = head + (b"P " if part else b"F ") + lines.replace(b"\n", b"\n" + head + b"F ") + b"\n"
        if self._size and self._size + len(text) > self._limit:
            os.close(self._file)
            os.replace(self._path, f"{self._path}.1")
            self._open()
        self._size += len(text)
        while text:
            text = text[os.write(self._file, text) :]

    def opened(self) -> None:
        """One more stream writes to it."""
        self._streams += 1

    def closed(self) -> None:
        """One stream has ended; the last closes the file."""
        self._streams -= 1
        if not self._streams:
            os.close(self._file)


class Output:
    """One stream of a container, on its way from a pipe to the log."""

    def __init__(self, stream: str, pipe: int, log: Log) -> None:
        self._stream = stream
        self._pipe = pipe
        self._log = log
        self._rest = b""
        self._ended: Callable[[Output], None] | None = None
        os.set_blocking(pipe, False)
        log.opened()

    def follow(self, ended: Callable[[Output], None]) -> None:
        """Carry until the container ends; *ended* is called then."""
        self._ended = ended
        asyncio.get_running_loop().add_reader(self._pipe, self._read)

    def _read(self) -> None:
        with suppress(BlockingIOError):
            if not self._take():
                self.close()

    def _take(self) -> bool:
        chunk = os.read(self._pipe, LINE_BYTES)
        lines, end, rest = (self._rest + chunk).rpartition(b"\n")
        if len(lines) > LINE_BYTES:  # only then can one of them be too long
            for line in lines.split(b"\n"):
                self._log.write(self._stream, self._parts(line))
        elif end:
            self._log.write(self._stream, lines)
        self._rest = self._parts(rest)
        return bool(chunk)

    def _parts(self, line: bytes) -> bytes:
        """Write what of *line* is too long, and return its last part."""
        while len(line) > LINE_BYTES:
            self._log.write(self._stream, line[:LINE_BYTES], part=True)
            line = line[LINE_BYTES:]
        return line

    def close(self) -> None:
        """Write what is there, and follow no more. What came without a line's end is written as a part."""
        with suppress(BlockingIOError):
            while self._take():
                pass
        asyncio.get_running_loop().remove_reader(self._pipe)
        os.close(self._pipe)
        if self._rest:
            self._log.write(self._stream, self._rest, part=True)
        self._log.closed()
        if self._ended is not None:
            self._ended(self)


class Runtime:
    """Makes sandboxes and starts containers. *directory* is on a tmpfs of the box, as overlays are best."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._skin = directory / "skin"
        self._started = 0
        self._own_mounts = tuple(Mount(path, str(path), read_only=True) for path in _unseen(_programs()))
        shutil.rmtree(self._skin, ignore_errors=True)
        _make_skin(self._skin)
        NETNS.mkdir(parents=True, exist_ok=True)

    async def create_sandbox(
        self,
        name: str,
        *,
        machine: str,
        address: IPv4Address | None,
        hostname: str,
        sysctls: Mapping[str, str] | None = None,
    ) -> Sandbox:
        """A pod's network, its *address* routed from *machine*; without one the machine's own. Raises `StartFailed`."""
        sandbox = Sandbox(name, machine, address, hostname)
        try:
            if address is not None:
                _make_netns(sandbox.netns)
        except OSError as error:
            raise StartFailed(f"pod {name}: {error}") from error
        (self._directory / "pods" / name).mkdir(parents=True, exist_ok=True)
        if address is None:
            return sandbox
        try:
            await self._link(sandbox, address)
            with in_network(sandbox.netns):
                for key, value in {**POD_SYSCTLS, **(sysctls or {})}.items():
                    _write_sysctl(key, value)
        except BaseException as error:
            await self.remove_sandbox(sandbox)
            if isinstance(error, OSError | StartFailed):
                raise StartFailed(f"pod {name}: {error}") from error
            raise
        return sandbox

    async def _link(self, sandbox: Sandbox, address: IPv4Address) -> None:
        leg = _leg(address)
        link = "0a:58:" + ":".join(f"{byte:02x}" for byte in address.packed)
        await _ip(
            NETNS / sandbox.machine,
            f"link add {leg} address {GATEWAY_LINK} type veth peer name eth0 address {link} netns {sandbox.name}",
            f"link set {leg} addrgenmode none up",
            f"neigh add {address} lladdr {link} dev {leg} nud permanent",
            f"route add {address} dev {leg}",
        )
        with in_network(NETNS / sandbox.machine):
            _write_sysctl("net.ipv4.ip_forward", "1")
            _write_sysctl("net.ipv4.conf.all.rp_filter", "0")
            for key, value in LEG_SYSCTLS.items():
                _write_sysctl(f"net/ipv4/conf/{leg}/{key}", value)
        await _ip(
            sandbox.netns,
            "link set lo up",
            f"addr add {address}/32 dev eth0",
            "link set eth0 addrgenmode none up",
            f"neigh add {GATEWAY} lladdr {GATEWAY_LINK} dev eth0 nud permanent",
            f"route add default via {GATEWAY} dev eth0 onlink",
        )

    async def remove_sandbox(self, sandbox: Sandbox) -> None:
        """End what still runs in it and take its network down. Does nothing the second time."""
        sandbox.removed = True
        running = tuple(sandbox.processes)
        for process in running:
            process.signal(signal.SIGKILL)
        async with asyncio.timeout(END_SECONDS):
            for process in running:
                await process.wait()
        if sandbox.address is not None:
            with suppress(StartFailed):  # not made, or gone already
                await _ip(sandbox.netns, "link del eth0")  # and its other end, before the address serves another pod
            with suppress(OSError):
                launcher.call("umount2", os.fsencode(sandbox.netns), MNT_DETACH)
            sandbox.netns.unlink(missing_ok=True)
        shutil.rmtree(self._directory / "pods" / sandbox.name, ignore_errors=True)

    async def start(self, sandbox: Sandbox, spec: ContainerSpec) -> Process:
        """Run a container. Returns when its program runs. Raises `StartFailed`."""
        if sandbox.removed:
            raise StartFailed(f"container {spec.name}: its pod {sandbox.name} is gone")
        for mount in spec.mounts:
            if not mount.source.exists():
                raise StartFailed(f"container {spec.name}: nothing to mount at {mount.target}: no {mount.source}")
        order = self._order(sandbox, spec)
        directory = Path(order["directory"])
        for part in ("upper", "work", "root"):
            (directory / part).mkdir(parents=True)
            (directory / part).chmod(0o755)
        log = Log(spec.log)
        out, out_end = os.pipe()
        error, error_end = os.pipe()
        outputs = (Output("stdout", out, log), Output("stderr", error, log))
        report = _Report()
        process: Process | None = None
        try:
            try:
                launched = await _launch(order, report, (), asyncio.subprocess.DEVNULL, out_end, error_end)
            finally:
                os.close(out_end)
                os.close(error_end)
            try:
                await report.read()
            finally:
                pid, failure = report.end()
                if pid:
                    process = Process(pid, spec, order, outputs, lambda ended: self._clear(sandbox, ended, directory))
                    sandbox.processes.add(process)
            await launched.wait()
            if failure or process is None:
                if process is not None:
                    await process.wait()
                raise StartFailed(f"container {spec.name}: {failure or 'the launcher failed'}")
        except BaseException:
            if process is None:
                for output in outputs:
                    output.close()
                shutil.rmtree(directory, ignore_errors=True)
            else:
                process.signal(signal.SIGKILL)
            raise
        return process

    async def connect(self, sandbox: Sandbox, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to *port* of the pod's own 127.0.0.1. Raises `OSError`."""
        with in_network(sandbox.netns):
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
            return await asyncio.open_connection(sock=connection)
        except BaseException:
            connection.close()
            raise

    def _order(self, sandbox: Sandbox, spec: ContainerSpec) -> dict[str, Any]:
        self._started += 1
        directory = self._directory / "pods" / sandbox.name / f"{spec.name}-{self._started}"
        kept = frozenset(CAPABILITIES) if "ALL" in spec.capabilities else spec.capabilities
        if unknown := kept.difference(CAPABILITIES):
            raise StartFailed(f"container {spec.name}: no capability is called {', '.join(sorted(unknown))}")
        home = "/" if spec.user else "/root"
        mounts = (*self._own_mounts, *spec.mounts)
        return {
            "network": str(sandbox.netns),
            "hostname": sandbox.hostname,
            "directory": str(directory),
            "skin": os.path.relpath(self._skin, directory),
            "mounts": [(os.path.realpath(mount.source), mount.target, mount.read_only) for mount in mounts],
            "argv": list(spec.argv),
            "env": {"PATH": PATH, "HOSTNAME": sandbox.hostname, "HOME": home, **spec.env},
            "working_dir": spec.working_dir or "/",
            "user": spec.user,
            "group": spec.group,
            "groups": list(spec.groups),
            "capabilities": None if spec.privileged else tuple(CAPABILITIES.index(name) for name in kept),
            "no_new_privileges": spec.no_new_privileges,
            "read_only_root": spec.read_only_root,
        }

    def _clear(self, sandbox: Sandbox, process: Process, directory: Path) -> None:
        sandbox.processes.discard(process)
        shutil.rmtree(directory, ignore_errors=True)


class _Report:
    """What a launcher says until its program takes over: its process's number, and what went wrong."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe()
        self._text = b""

    async def read(self) -> None:
        """Wait until the program runs or will not."""
        loop = asyncio.get_running_loop()
        finished = loop.create_future()

        def read() -> None:
            chunk = os.read(self._reading, 4096)
            self._text += chunk
            if not chunk and not finished.done():
                finished.set_result(None)

        loop.add_reader(self._reading, read)
        try:
            await finished
        finally:
            loop.remove_reader(self._reading)

    def end(self) -> tuple[int, str]:
        """The process's number, 0 if none came to be, and the failure, empty if the program runs.

        Blocks for the milliseconds that a start takes if `read` was cancelled.
        """
        os.set_blocking(self._reading, True)  # uvloop has changed it
        while chunk := os.read(self._reading, 4096):
            self._text += chunk
        os.close(self._reading)
        pid, failure = 0, ""
        for line in self._text.decode(errors="replace").splitlines():
            word, _, rest = line.partition(" ")
            if word == "pid":
                pid = int(rest)
            else:
                failure = rest
        return pid, failure


async def _launch(
    order: Mapping[str, Any],
    report: _Report,
    descriptors: Sequence[int],
    stdin: int | None,
    stdout: int | None,
    stderr: int | None,
) -> asyncio.subprocess.Process:
    paper = _paper(marshal.dumps({**order, "report": report.writing}))
    try:
        return await asyncio.create_subprocess_exec(
            *(PYTHON, "-I", "-S", launcher.__file__, str(paper)),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=(paper, report.writing, *descriptors),
            start_new_session=True,
        )
    finally:
        os.close(paper)
        os.close(report.writing)


def _paper(text: bytes) -> int:
    """A descriptor to read *text* from; unlike a pipe it takes all at once, and nobody has to wait for the reader."""
    paper = os.memfd_create("paper")
    os.write(paper, text)
    os.lseek(paper, 0, os.SEEK_SET)
    return paper


def _programs() -> tuple[Path, ...]:
    """What a container needs to run this Python and this package."""
    found = (Path(sys.prefix), Path(sys.base_prefix), Path(launcher.__file__).parents[2])
    return (*found, *(path.resolve() for path in found))


def _unseen(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of *paths* and of the system's directories that an overlay over ``/`` alone does not show."""
    root = os.stat("/").st_dev
    system = [path for name in ("usr", "bin", "sbin", "lib", "lib64", "opt") if (path := Path("/") / name).is_dir()]
    for path in sorted({*paths, *(path.resolve() for path in system)}):
        if path.stat().st_dev != root or any(path.is_relative_to(hidden) for hidden in (*HIDDEN, *PSEUDO)):
            yield path


def _make_skin(skin: Path) -> None:
    """The layer between the machine's files and what a container writes: what every container has differently.

    Opens the way to Python for any user, where a directory such as /root is closed, and hides what runs on the machine.
    """
    ways: dict[Path, int] = {Path("/etc"): 0o011}
    for path in (*_programs(), Path(sys.executable)):
        ways.update(dict.fromkeys(_way(path), 0o011))
    ways.update(dict.fromkeys(_programs(), 0o055))
    for way, bits in sorted(ways.items()):
        if not any(way.is_relative_to(hidden) for hidden in (*HIDDEN, *PSEUDO)):
            state = way.stat()
            copy = skin / way.relative_to("/")
            copy.mkdir(exist_ok=True, parents=True)
            copy.chmod(stat.S_IMODE(state.st_mode) | bits)
            os.chown(copy, state.st_uid, state.st_gid)
    for name in HIDDEN:
        path = Path(name)
        if path.is_dir() and not path.is_symlink():
            copy = skin / path.relative_to("/")
            copy.mkdir(parents=True)
            copy.chmod(0o1777 if name == "/tmp" else 0o755)
            os.setxattr(copy, "trusted.overlay.opaque", b"y")
    for name in ("hosts", "hostname", "resolv.conf"):  # may be links into /run, and a kubelet mounts its own there
        (skin / "etc" / name).touch()


def _way(path: Path) -> Iterator[Path]:
    """Every directory that looking up *path* passes, through symbolic links as well."""
    here = Path("/")
    parts = path.parts[1:]
    for place, part in enumerate(parts):
        yield here
        step = here / part
        if step.is_symlink():
            yield from _way(Path(os.path.normpath(here / step.readlink() / Path(*parts[place + 1 :]))))
            return
        here = step


def _leg(address: IPv4Address) -> str:
    """The machine's end of a pod's link: at most 15 characters."""
    return f"v{address}"


@contextmanager
def in_network(netns: Path) -> Iterator[None]:
    """Let this thread be in another network. Nothing is awaited meanwhile: other tasks would be there, too."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            launcher.call("setns", there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            launcher.call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def _make_netns(netns: Path) -> None:
    """A new network namespace, held by a mount at *netns* as ``ip netns add`` does, which would cost a process."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        netns.touch(exist_ok=False)
        try:
            launcher.call("unshare", CLONE_NEWNET)
            launcher.mount("/proc/thread-self/ns/net", str(netns), flags=MS_BIND)
        except OSError:
            netns.unlink()
            raise
        finally:
            launcher.call("setns", home, CLONE_NEWNET)
    finally:
        os.close(home)


def _write_sysctl(key: str, value: str) -> None:
    """Set a sysctl of this thread's network; written with dots, or with slashes where a name has dots."""
    path = key if "/" in key else key.replace(".", "/")
    if not path.startswith("net/"):
        raise StartFailed(f"sysctl {key} does not belong to a network: a pod cannot have its own")
    try:
        (Path("/proc/sys") / path).write_text(value)
    except OSError as error:
        raise StartFailed(f"sysctl {key} = {value}: {error.strerror}") from error


async def _ip(netns: Path, *lines: str) -> None:
    """Run commands of ip(8) in one network, in one process. Raises `StartFailed`."""
    paper = _paper("".join(f"{line}\n" for line in lines).encode())
    try:
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net={netns}", "ip", "-batch", "-"),
            stdin=paper,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    finally:
        os.close(paper)
    said, _ = await process.communicate()
    if process.returncode:
        raise StartFailed(f"ip in {netns.name}: {said.decode(errors='replace').strip()}")
