"""Containers as processes, on the real kernel. Needs root; every test runs in a box of its own and leaves nothing."""

from __future__ import annotations

import asyncio
import os
import pty
import re
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import uvloop

from isthmus.lab import launcher
from isthmus.lab.runtime import (
    DEFAULT_CAPABILITIES,
    LINE_BYTES,
    ContainerSpec,
    Log,
    Mount,
    Process,
    Runtime,
    Sandbox,
    StartFailed,
)

NETNS = Path("/run/netns")
PROXY = 1337  # the user of Istio's proxy


SERVE = """if True:
    import asyncio, sys
    async def answer(reader, writer):
        writer.write(writer.get_extra_info("peername")[0].encode() + b"\\n")
        writer.close()
    async def main():
        await asyncio.start_server(answer, "0.0.0.0", 80)
        await asyncio.start_server(answer, "127.0.0.1", 81)
        print("ready", flush=True)
        await asyncio.sleep(1000)
    asyncio.run(main())
"""  # tells who asks


class Machine:
    """A cluster's machine in a box, with a runtime."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.runtime = Runtime(Path("/run/containers"))
        self.log = directory / "0.log"

    async def pod(self, number: int = 2, **more: Any) -> Sandbox:
        return await self.runtime.create_sandbox(
            f"pod-{number}",
            **{"machine": "cluster1", "address": IPv4Address(f"10.11.0.{number}"), "hostname": "here", **more},
        )

    def spec(self, *argv: str, **more: Any) -> ContainerSpec:
        return ContainerSpec(**{"name": "app", "argv": argv, "log": self.log, **more})

    async def start(self, sandbox: Sandbox, *argv: str, **more: Any) -> Process:
        return await self.runtime.start(sandbox, self.spec(*argv, **more))

    async def run(self, sandbox: Sandbox, *argv: str, **more: Any) -> tuple[int, str]:
        """The exit code of one container, and what it wrote to its standard output and error."""
        log = self.directory / f"run-{time.monotonic_ns()}.log"
        process = await self.start(sandbox, *argv, **{"log": log, **more})
        return await process.wait(), "".join(text for _, _, text in entries(log))

    async def sh(self, sandbox: Sandbox, script: str, **more: Any) -> tuple[int, str]:
        return await self.run(sandbox, "sh", "-c", script, **more)

    def left(self) -> dict[str, object]:
        """What there is besides the machine itself."""
        names = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        return {
            "children": names,
            "networks": sorted(path.name for path in NETNS.iterdir()),
            "pods": sorted(str(path) for path in Path("/run/containers/pods").rglob("*")),
            "links": sorted(re.findall(r"\d+: (v[\d.]+)@", command("ip -n cluster1 -o link"))),
            "mounts": sorted(line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        }


def command(line: str) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True).stdout


def entries(log: Path) -> list[tuple[str, str, str]]:
    """Stream, tag and text of a CRI log; the text of a whole line ends with a newline."""
    found = []
    for line in log.read_text().splitlines():
        match = re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) ([FP]) (.*)", line)
        assert match, line
        found.append((match[1], match[2], match[3] + ("\n" if match[2] == "F" else "")))
    return found


def write(path: str, text: str) -> None:
    Path(path).write_text(text)


async def eventually(ready: Callable[[], Awaitable[object]], seconds: float = 30.0) -> object:
    """What *ready* gives as soon as that is true."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await ready():
                return found
            await asyncio.sleep(0.01)


def in_box(body: Callable[[Machine], Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test that runs *body* as the first process of new PID, mount and network namespaces, under both loops."""

    @pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
    def test(tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        async def begin() -> None:
            await body(Machine(tmp_path))

        reading, writing = os.pipe()
        holder = os.fork()
        if not holder:
            os._exit(_hold_box(writing, lambda: run(begin())))
        os.close(writing)
        with os.fdopen(reading) as report:
            text = report.read()
        _, status = os.waitpid(holder, 0)
        if status:
            pytest.fail(text or f"the box ended with status {status}", pytrace=False)

    test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
    return test


def _hold_box(report: int, body: Callable[[], None]) -> int:
    launcher.call("unshare", launcher.CLONE_NEWPID | launcher.CLONE_NEWNS | launcher.CLONE_NEWNET)
    first = os.fork()
    if first:
        os.close(report)
        return os.waitpid(first, 0)[1] >> 8
    try:
        launcher.call("prctl", launcher.PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        launcher.mount("", "/", flags=launcher.MS_REC | launcher.MS_PRIVATE)
        launcher.mount("proc", "/proc", "proc")
        launcher.mount("tmpfs", "/run", "tmpfs")
        NETNS.mkdir()
        for name, address in (("cluster1", "172.31.1.1"), ("cluster2", "172.31.2.1")):
            command(f"ip netns add {name}")
            command(f"ip -n {name} addr add {address}/32 dev lo")
            command(f"ip -n {name} link set lo up")
        body()
    except BaseException:  # noqa: BLE001  # it is carried to the test
        os.write(report, traceback.format_exc(limit=-4).encode())
        os._exit(1)
    os._exit(0)


@in_box
async def test_exit_code_and_output_come_back(machine: Machine) -> None:
    """Exit code, working directory, environment and both streams are the program's; a part of a line is marked."""
    pod = await machine.pod()

    process = await machine.start(
        pod,
        *("sh", "-c", "echo $GREETING from $PWD; echo no >&2; printf half; exit 3"),
        env={"GREETING": "hello", "PATH": "/bin"},
        working_dir="/srv/made/for/it",
    )

    assert await process.wait() == 3
    assert await process.wait() == 3, "asking again gives the same"
    assert sorted(entries(machine.log)) == [
        ("stderr", "F", "no\n"),
        ("stdout", "F", "hello from /srv/made/for/it\n"),
        ("stdout", "P", "half"),
    ]
    process.signal(signal.SIGTERM)  # reaches nobody


@in_box
async def test_a_signal_reaches_the_first_process(machine: Machine) -> None:
    """The program is process 1: it gets the signals it has handlers for, SIGKILL always, and no others."""
    pod = await machine.pod()

    killed = await machine.start(pod, "sleep", "1000")
    killed.signal(signal.SIGTERM)  # ignored: no handler
    killed.signal(signal.SIGKILL)
    script = "trap 'echo ending; exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    trapping = await machine.start(pod, "sh", "-c", script)
    await eventually(lambda: _wrote(machine.log, "ready"))
    trapping.signal(signal.SIGTERM)

    assert await killed.wait() == 128 + signal.SIGKILL
    assert await trapping.wait() == 7
    assert ("stdout", "F", "ending\n") in entries(machine.log)


@in_box
async def test_what_is_left_ends_with_the_first_process(machine: Machine) -> None:
    """A process in the background, which holds the output open, neither survives nor delays the end."""
    pod = await machine.pod()

    async with asyncio.timeout(30):
        code, output = await machine.sh(pod, "sleep 1000 & echo $$")

    assert (code, output) == (0, "1\n")
    assert machine.left()["children"] == []


@in_box
async def test_no_line_is_lost_when_the_program_ends_at_once(machine: Machine) -> None:
    """Every line is in the log, in order, when `wait` returns; longer ones than the CRI takes in parts."""
    pod = await machine.pod()
    long = 3 * LINE_BYTES + 5

    script = f"import sys; print(*range(50000), sep=chr(10)); print('x' * {long}); sys.stdout.write('y' * {LINE_BYTES})"
    process = await machine.start(pod, sys.executable, "-c", script)
    assert await process.wait() == 0

    found = entries(machine.log)
    assert [text for _, _, text in found[:50000]] == [f"{number}\n" for number in range(50000)]
    assert [(tag, len(text)) for _, tag, text in found[50000:]] == [
        *[("P", LINE_BYTES)] * 3,
        ("F", 5 + 1),
        ("P", LINE_BYTES),
    ]


def test_a_full_log_starts_anew(tmp_path: Path) -> None:
    """No line is torn or lost between a file and its successor; only one old file is kept."""
    path = tmp_path / "0.log"
    log = Log(path, limit=10_000)
    log.opened()

    sizes = []
    for number in range(1000):
        log.write("stdout", b"line %d" % number)
        sizes.append(path.stat().st_size)
    log.closed()

    assert max(sizes) <= 10_000
    kept = entries(tmp_path / "0.log.1") + entries(path)
    assert [text for _, _, text in kept] == [f"line {number}\n" for number in range(1000 - len(kept), 1000)]
    assert len(kept) > 200
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0.log", "0.log.1"]


@in_box
async def test_a_container_sees_only_itself(machine: Machine) -> None:
    """Own processes, host name and temporary files; what it writes is in no other container and not on the machine."""
    pod = await machine.pod(hostname="reviews-v1")
    write("/run/secret-of-the-machine", "")

    _, first = await machine.sh(
        pod, "hostname; echo $HOSTNAME; cd /proc; ls -d [0-9]*; ls -A /tmp /run; id -u > /etc/written-by-rt"
    )
    _, second = await machine.sh(pod, "cat /etc/written-by-rt || ls -A /tmp; ls /proc/self/fd; cat /etc/hosts")

    # Of the machine's /tmp only the way to the programs, where a checkout lies there.
    checkout = Path(__file__).parts[2:3] if Path(__file__).is_relative_to("/tmp") else ()
    assert first.splitlines() == ["reviews-v1", "reviews-v1", "1", "/run:", "", "/tmp:", *checkout]
    assert second.splitlines() == ["cat: /etc/written-by-rt: No such file or directory", "0", "1", "2", "3"]
    assert "written-by-rt" not in os.listdir("/etc")


@in_box
async def test_any_user_runs_python_and_opens_its_output(machine: Machine) -> None:
    """Istio's proxy opens /dev/stdout as user 1337; OpenShift assigns any. /root, where Python is, is closed."""
    pod = await machine.pod()
    script = """if True:
        import isthmus, os, re
        print(os.getuid(), os.getgid(), os.getgroups(), oct(os.umask(0)), os.environ["HOME"])
        print("out", file=open("/dev/stdout", "w"))
        print("error", file=open("/dev/stderr", "w"))
        print(*re.findall("Cap(?:Prm|Eff|Bnd|Amb):.*|NoNewPrivs:.*", open("/proc/self/status").read()))
    """

    code, output = await machine.run(
        pod,
        *(sys.executable, "-uc", script),
        user=PROXY,
        group=1338,
        groups=(5, 2000),
        capabilities=frozenset({"NET_BIND_SERVICE"}),
        no_new_privileges=True,
    )

    assert code == 0, output
    none, bind = "0" * 16, f"{1 << 10:016x}"
    expected = [
        "1337 1338 [5, 2000] 0o22 /",
        f"CapPrm:\t{none} CapEff:\t{none} CapBnd:\t{bind} CapAmb:\t{none} NoNewPrivs:\t1",
    ]
    assert [line for line in output.splitlines() if line not in ("out", "error")] == expected
    assert {"out", "error"} < set(output.splitlines())


@in_box
async def test_root_may_not_touch_the_machine(machine: Machine) -> None:
    """Root of a container has its capabilities and no others: it mounts nothing, opens no disk, sets no sysctl."""
    pod = await machine.pod()
    mine = "; ".join(f"echo {value}" for value in ("$(id -u)", "$(grep CapEff /proc/self/status)"))

    _, bits = await machine.sh(pod, mine)
    assert bits.split() == ["0", "CapEff:", "00000000a80425fb"], "what containerd grants"
    for attempt in (
        "mount -t tmpfs tmpfs /mnt",
        "mknod /disk b 254 0 && dd if=/disk count=1",
        "mknod /dev/disk b 254 0 && dd if=/dev/disk count=1",
        "echo h > /proc/sysrq-trigger",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 1 > /sys/class/net/lo/flags",
        "ip link set lo down",
        "cat /proc/keys | grep .",
    ):
        code, output = await machine.sh(pod, attempt)
        assert code, f"{attempt}: {output}"
    for privilege in ("mount -t tmpfs tmpfs /mnt", "echo 0 > /proc/sys/net/ipv4/conf/eth0/rp_filter"):
        assert await machine.sh(pod, privilege, privileged=True) == (0, "")


@in_box
async def test_istio_redirects_in_a_pod(machine: Machine) -> None:
    """With the capabilities of Istio's init container a pod's packet filter is changed, and only the pod's."""
    pod, other = await machine.pod(2), await machine.pod(3)
    redirect = "iptables -t nat -A OUTPUT -p tcp --dport 81 -j REDIRECT --to-ports 15001 && iptables -t nat -S OUTPUT"
    needs = frozenset({"NET_ADMIN", "NET_RAW"})

    code, _ = await machine.sh(pod, redirect)
    assert code
    code, output = await machine.sh(pod, redirect, capabilities=needs)
    assert code == 0, output
    assert "--to-ports 15001" in output
    _, beside = await machine.sh(other, "iptables -t nat -S OUTPUT", capabilities=needs)
    assert "15001" not in beside


@in_box
async def test_a_read_only_root_leaves_volumes_writable(machine: Machine) -> None:
    """As on Kubernetes: /tmp is read-only, too, /dev/shm is not, and a volume is what it says."""
    pod = await machine.pod()
    writable, fixed = machine.directory / "writable", machine.directory / "fixed"
    writable.mkdir()
    fixed.mkdir()
    (fixed / "token").write_text("secret\n")
    token = fixed / "token"
    link = fixed / "link"
    link.symlink_to(writable)
    mounts = (
        Mount(writable, "/var/cache/app"),
        Mount(fixed, "/var/run/secrets/kubernetes.io/serviceaccount", read_only=True),
        Mount(token, "/etc/resolv.conf", read_only=True),
        Mount(link, "/new/place"),
    )
    script = """
        for directory in / /tmp /run /var/cache/app /var/run/secrets/kubernetes.io/serviceaccount /dev/shm /new/place
        do touch $directory/file 2>/dev/null && echo $directory; done
        cat /var/run/secrets/kubernetes.io/serviceaccount/token /etc/resolv.conf
        exec 2>&1; mknod /var/cache/app/disk b 254 0; cat /var/cache/app/disk; echo more >> /etc/resolv.conf
    """

    _, output = await machine.sh(pod, script, mounts=mounts, read_only_root=True)

    assert output.splitlines() == [
        *("/var/cache/app", "/dev/shm", "/new/place", "secret", "secret"),
        "cat: /var/cache/app/disk: Permission denied",
        "sh: 5: cannot create /etc/resolv.conf: Read-only file system",
    ]
    assert (writable / "file").exists()


@in_box
async def test_a_start_that_fails_says_why_and_leaves_nothing(machine: Machine) -> None:
    """Every mistake of a Pod is an error with its name in it, and no process, file or mount stays."""
    pod = await machine.pod()
    before = machine.left()
    plain = machine.directory / "plain"
    plain.write_text("not a program")
    failures = {
        "app: cannot run nonsense: not found in PATH /bin": {"argv": ("nonsense",), "env": {"PATH": "/bin"}},
        "app: cannot run /no/program: No such file or directory": {"argv": ("/no/program",)},
        "app: cannot run /etc/passwd: Permission denied": {"argv": ("/etc/passwd",)},
        "app: nothing to mount at /data: no /no/volume": {"mounts": (Mount(Path("/no/volume"), "/data"),)},
        "app: Not a directory: /etc/passwd/data": {"mounts": (Mount(machine.directory, "/etc/passwd/data"),)},
        "app: no capability is called FLY": {"capabilities": DEFAULT_CAPABILITIES | {"FLY"}},
    }

    for text, wrong in failures.items():
        with pytest.raises(StartFailed, match=re.escape(f"container {text}")):
            await machine.runtime.start(pod, machine.spec(**{"argv": ("true",), **wrong}))
        assert machine.left() == before, text


@in_box
async def test_a_cancelled_start_leaves_no_container(machine: Machine) -> None:
    """However early a start is cancelled, its container ends."""
    pod = await machine.pod()
    before = machine.left()

    for step in range(0, 30, 3):
        start = asyncio.ensure_future(machine.start(pod, "sleep", "1000"))
        await asyncio.sleep(step / 1000)
        start.cancel()
        await asyncio.gather(start, return_exceptions=True)
        if not start.cancelled():
            start.result().signal(signal.SIGKILL)
        await eventually(lambda: _equal(machine.left, before))


@in_box
async def test_exec_runs_beside_the_program(machine: Machine) -> None:
    """In all namespaces of the container, as its user with its environment; streams, exit code and signals pass."""
    pod = await machine.pod()
    process = await machine.start(
        pod, *("sh", "-c", "echo mine > /tmp/file; echo ready; exec sleep 1000"), user=PROXY, env={"COLOUR": "green"}
    )
    await eventually(lambda: _wrote(machine.log, "ready"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}

    script = "cat; cat /tmp/file; id -u; echo $COLOUR; hostname; cat /proc/1/comm; hostname -I; echo bad >&2; exit 9"
    run = await process.exec(["sh", "-c", script], **pipes)
    out, error = await run.communicate(b"given\n")
    assert out.decode().split() == ["given", "mine", "1337", "green", "here", "sleep", "10.11.0.2"]
    assert (error, run.returncode) == (b"bad\n", 9)

    run = await process.exec(
        ["sh", "-c", "trap 'echo stopped; exit 4' TERM; echo; while :; do sleep 0.01; done"], **pipes
    )
    assert run.stdout is not None
    await run.stdout.readline()
    run.send_signal(signal.SIGTERM)
    assert (await run.communicate(), run.returncode) == ((b"stopped\n", b""), 4)

    run = await process.exec(["sh", "-c", "kill -KILL $$"], **pipes)
    assert await run.wait() == -signal.SIGKILL

    with pytest.raises(StartFailed, match="container app: cannot run nonsense: not found in PATH"):
        await process.exec(["nonsense"], **pipes)

    run = await process.exec(["sleep", "1000"], **pipes)
    process.signal(signal.SIGKILL)
    assert await process.wait() == 128 + signal.SIGKILL
    assert await run.wait() == -signal.SIGKILL, "it ends with the container"
    with pytest.raises(StartFailed, match="container app has ended"):
        await process.exec(["true"], **pipes)


@in_box
async def test_an_exec_that_is_killed_takes_its_program_along(machine: Machine) -> None:
    """SIGKILL cannot be passed on; the program ends all the same."""
    pod = await machine.pod()
    process = await machine.start(pod, "sleep", "1000")

    run = await process.exec(["sleep", "2000"], stdin=None, stdout=None, stderr=None)
    run.kill()
    await run.wait()

    async def alone() -> bool:
        run = await process.exec(
            ["sh", "-c", "cat /proc/[0-9]*/cmdline | grep -c '2000$'"], stdin=None, stdout=-1, stderr=-1
        )
        return (await run.communicate())[0] == b"0\n"

    await eventually(alone)


@in_box
async def test_exec_on_a_terminal_controls_it(machine: Machine) -> None:
    """Ctrl-C typed at the terminal interrupts the program, which needs the terminal as its controlling one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts with &: no program may inherit it
    pod = await machine.pod()
    process = await machine.start(pod, "sleep", "1000")
    here, there = pty.openpty()

    run = await process.exec(
        ["sh", "-c", "trap 'echo $TERM; exit 5' INT; echo go; while :; do sleep 0.1; done"],
        stdin=there,
        stdout=there,
        stderr=there,
    )
    os.close(there)
    os.set_blocking(here, False)
    seen = await eventually(lambda: _read(here, b"", b"go"))
    os.write(here, b"\x03")

    assert await run.wait() == 5
    assert isinstance(seen, bytes)
    assert b"xterm" in seen or await _read(here, seen, b"xterm")
    os.close(here)


@in_box
async def test_pods_reach_each_other_through_their_machine(machine: Machine) -> None:
    """By address, untranslated; any user may listen on any port; `connect` reaches what listens for the pod only."""
    sysctls = {"net.ipv4.ping_group_range": "0 100"}
    server, client = await machine.pod(2, sysctls=sysctls), await machine.pod(3)
    await machine.start(server, sys.executable, "-c", SERVE, user=PROXY)
    await eventually(lambda: _wrote(machine.log, "ready"))
    ask = "import socket; print(socket.create_connection(('10.11.0.2', 80), 5).makefile().read())"

    _, answer = await machine.run(client, sys.executable, "-c", ask)
    assert answer.strip() == "10.11.0.3"
    own = await machine.pod(4, address=None, hostname="node-a")
    code, answer = await machine.run(own, sys.executable, "-c", ask)
    assert (code, answer.strip()) == (0, "172.31.1.1"), "the machine's network"
    elsewhere = await machine.pod(5, machine="cluster2", address=IPv4Address("10.12.0.2"))
    code, answer = await machine.run(elsewhere, sys.executable, "-c", ask)
    assert code, "another machine without a route"
    reader, writer = await machine.runtime.connect(server, 81)
    assert await reader.read() == b"127.0.0.1\n"
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await machine.runtime.connect(client, 81)
    _, allowed = await machine.sh(server, "cat /proc/sys/net/ipv4/ping_group_range")
    assert allowed.split() == ["0", "100"]


@in_box
async def test_a_service_leads_to_any_pod_and_back(machine: Machine) -> None:
    """What the machine redirects, as kube-proxy does, is answered from the address that was asked."""
    server, client = await machine.pod(2), await machine.pod(3)
    for rule in (
        "PREROUTING -d 10.96.0.7 -p tcp -j DNAT --to-destination 10.11.0.2:80",
        "OUTPUT -d 10.96.0.7 -p tcp -j DNAT --to-destination 10.11.0.2:80",
        "POSTROUTING -s 10.11.0.2 -d 10.11.0.2 -j MASQUERADE",
    ):
        command(f"nsenter --net=/run/netns/cluster1 iptables -t nat -A {rule}")
    command("ip -n cluster1 route add 10.96.0.0/16 dev lo")
    await machine.start(server, sys.executable, "-c", SERVE)
    await eventually(lambda: _wrote(machine.log, "ready"))
    host = await machine.pod(4, address=None)
    ask = "import socket; print(socket.create_connection(('10.96.0.7', 80), 5).makefile().read())"

    seen = [(await machine.run(pod, sys.executable, "-c", ask))[1].strip() for pod in (client, server, host)]

    assert seen == ["10.11.0.3", "172.31.1.1", "172.31.1.1"]


@in_box
async def test_a_removed_pod_leaves_nothing(machine: Machine) -> None:
    """Its containers end, its network goes, and its address serves the next pod at once."""
    before = machine.left()
    for _ in range(3):
        pod = await machine.pod()
        running = [await machine.start(pod, "sh", "-c", "echo > /file; exec sleep 1000") for _ in range(2)]

        await machine.runtime.remove_sandbox(pod)

        assert [await process.wait() for process in running] == [137, 137]
        assert machine.left() == before
        await machine.runtime.remove_sandbox(pod)
        with pytest.raises(StartFailed, match="container app: its pod pod-2 is gone"):
            await machine.start(pod, "true")


@in_box
async def test_a_pod_that_cannot_be_made_leaves_nothing(machine: Machine) -> None:
    """A sysctl that a pod cannot have, a machine that does not exist, an address that is taken."""
    await machine.pod(9)
    before = machine.left()

    for text, wrong in {
        "sysctl kernel.shmmax does not belong to a network": {"sysctls": {"kernel.shmmax": "1"}},
        "sysctl net.ipv4.nonsense = 1: No such file or directory": {"sysctls": {"net.ipv4.nonsense": "1"}},
        "ip in cluster9": {"machine": "cluster9"},
        "File exists": {"address": IPv4Address("10.11.0.9")},
        "pod pod-9: [Errno 17] File exists: '/run/netns/pod-9'": {"number": 9},
    }.items():
        with pytest.raises(StartFailed, match=re.escape(text)):
            await machine.pod(**wrong)
        assert machine.left() == before


@in_box
async def test_programs_on_a_file_system_of_their_own_are_seen(machine: Machine) -> None:
    """An overlay over the machine's root shows no other file system: what containers need of one is mounted."""
    launcher.mount("tmpfs", "/opt", "tmpfs")
    write("/opt/tool", "here\n")
    machine.runtime = Runtime(Path("/run/containers"))
    pod = await machine.pod()

    assert await machine.sh(pod, "cat /opt/tool; touch /opt/other 2>/dev/null || true") == (0, "here\n")


async def _wrote(log: Path, text: str) -> bool:
    return any(text in entry for _, _, entry in entries(log))


async def _equal(found: Callable[[], object], expected: object) -> bool:
    return found() == expected


async def _read(terminal: int, seen: bytes, expected: bytes) -> bytes:
    try:
        seen += os.read(terminal, 4096)
    except OSError:
        return b""
    return seen if expected in seen else b""
