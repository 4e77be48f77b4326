"""The small program that becomes a container's program, or one more program in a running container.

Run as ``python -I -S launcher.py FD``: the runtime has put an order there. What goes wrong before the program runs is
written to the order's report descriptor, which closes when the program takes over. Imports little and nothing of ours,
because every start pays for it; orders are marshalled since importing ``json`` alone would double the time.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # signal without the enumerations
import ctypes
import marshal
import os
import sys

TYPE_CHECKING = False  # typing is not imported
if TYPE_CHECKING:
    from typing import Any

    Order = dict[str, Any]

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC = 1, 2, 4, 8, 32, 4096, 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2
CLONE_PARENT = 0x8000
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 24, 38
CAPABILITY_VERSION_3 = 0x20080522
SIGKILL, SIGCHLD = 9, 17
FORWARDED = (1, 2, 3, 10, 12, 15, 28)  # HUP INT QUIT USR1 USR2 TERM WINCH
# What is ignored stays so in the next program: Python ignores PIPE and XFSZ, a shell INT and QUIT behind an `&`.
RESET = (*range(1, 9), *range(10, 19), *range(20, 32))  # all but KILL and STOP
RLIMIT_NOFILE = 7
OPEN_FILES = 1 << 20  # what container runtimes give
TIOCSCTTY = 0x540E
SYS_CLONE = {"x86_64": 56, "aarch64": 220}  # asm/unistd.h

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2", "ptmx": "pts/ptmx"}
# As in containers: a root user without privileges may neither read nor set what belongs to the whole machine.
MASKED = ("kcore", "keys", "timer_list", "latency_stats")
FROZEN = ("sys", "sysrq-trigger", "irq", "bus", "fs")

libc = ctypes.CDLL(None, use_errno=True)
libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
libc.prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
libc.syscall.argtypes = (ctypes.c_long,) * 6
libc.syscall.restype = ctypes.c_long


def call(name: str, *arguments: object) -> int:
    """The result of libc's function *name*. Raises `OSError`."""
    result: int = getattr(libc, name)(*arguments)
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount, with both paths in the error."""
    try:
        call("mount", os.fsencode(source), os.fsencode(target), kind.encode(), flags, os.fsencode(options))
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} ({kind or source} at {target})") from None


def main() -> None:
    """Read the order and become what it says."""
    with os.fdopen(int(sys.argv[1]), "rb") as file:
        order = marshal.loads(file.read())
    report = order["report"]
    os.set_inheritable(report, False)
    try:
        if "container" in order:
            enter_container(order)
        else:
            start_container(order)
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        os.write(report, f"error {error.strerror}{where}\n".encode())
        os._exit(1)


def start_container(order: Order) -> None:
    """Become the first process of new namespaces, as a child of the runtime and not of this process."""
    network = os.open(order["network"], os.O_RDONLY)
    call("setns", network, CLONE_NEWNET)
    os.close(network)
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_PARENT | SIGCHLD
    pid = call("syscall", SYS_CLONE[os.uname().machine], flags, 0, 0, 0, 0)
    if pid:
        os.write(order["report"], f"pid {pid}\n".encode())
        os._exit(0)
    call("sethostname", order["hostname"].encode(), len(order["hostname"].encode()))
    make_root(order)
    become(order)


def enter_container(order: Order) -> None:
    """Run a program beside the container's first process; this process stays to carry signals and the exit code."""
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET
    call("setns", order["container"], flags)
    os.close(order["container"])
    pid = os.fork()
    if not pid:
        become(order)
    os.close(order["report"])
    nothing = os.open("/dev/null", os.O_RDWR)
    for descriptor in range(3):  # else a reader would wait for an end of file that only this process holds back
        os.dup2(nothing, descriptor)
    for number in FORWARDED:
        _signal.signal(number, lambda number, _: libc.kill(pid, number))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code >= 0:
        os._exit(code)
    if -code != SIGKILL:
        _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)


def make_root(order: Order) -> None:
    """The container's file system: an overlay over the machine's, with devices, proc, sysfs and mounts of its own.

    While it is made, the machine's own root is at /proc: a path is looked up inside the container, where a symbolic
    link such as /var/run leads to the container's /run.
    """
    mount("", "/", flags=MS_REC | MS_PRIVATE)
    os.chdir(order["directory"])
    mount("overlay", "root", "overlay", MS_NODEV, f"lowerdir={order['skin']}:/,upperdir=upper,workdir=work")
    os.chdir("root")
    call("pivot_root", b".", b"proc")
    os.chdir("/")
    os.umask(0)
    make_devices()
    privileged = order["capabilities"] is None
    mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | (0 if privileged else MS_RDONLY))
    os.umask(0o022)
    for source, target, read_only in order["mounts"]:
        bind("/proc" + source, target, read_only)
    call("umount2", b"/proc", MNT_DETACH)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    if not privileged:
        for name in MASKED:
            if os.path.exists(f"/proc/{name}"):
                mount("/dev/null", f"/proc/{name}", flags=MS_BIND)
        for name in FROZEN:
            if os.path.exists(f"/proc/{name}"):
                mount(f"/proc/{name}", f"/proc/{name}", flags=MS_BIND)
                flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC
                mount("", f"/proc/{name}", flags=flags)
    os.makedirs(order["working_dir"], exist_ok=True)
    if order["read_only_root"]:
        mount("", "/", flags=MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NODEV)


def make_devices() -> None:
    """Fill /dev. Nodes are bound from the machine, so that no node that the container makes itself can be opened."""
    mount("tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=64k")
    for name in DEVICES:
        os.close(os.open(f"/dev/{name}", os.O_CREAT, 0o666))
        mount(f"/proc/dev/{name}", f"/dev/{name}", flags=MS_BIND)
    for name, target in LINKS.items():
        os.symlink(target, f"/dev/{name}")
    os.mkdir("/dev/pts")
    os.mkdir("/dev/shm")
    mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=64m")


def bind(source: str, target: str, read_only: bool) -> None:
    """Make *source* appear at *target*, which comes into being if nothing is there."""
    target = os.path.realpath(target)
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT, 0o644))
    mount(source, target, flags=MS_BIND | MS_REC)
    mount("", target, flags=MS_BIND | MS_REMOUNT | MS_NODEV | (MS_RDONLY if read_only else 0))


def become(order: Order) -> None:
    """Give up what the order does not grant, and become its program."""
    raise_open_files()
    last = max(int(name) for name in os.listdir("/proc/self/fd"))
    os.closerange(3, order["report"])  # uvloop lets through what its process inherited
    os.closerange(order["report"] + 1, last + 1)
    for descriptor in (1, 2):
        if os.fstat(descriptor).st_mode & 0o170000 == 0o010000:  # a pipe: its user may open /dev/stdout
            os.fchown(descriptor, order["user"], order["group"])
    if order["capabilities"] is not None:
        limit_capabilities(order["capabilities"])
    os.setgroups(order["groups"])
    os.setresgid(order["group"], order["group"], order["group"])
    os.setresuid(order["user"], order["user"], order["user"])
    os.umask(0o022)
    if order["no_new_privileges"]:
        call("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if "container" in order:
        call("prctl", PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)  # lost when the user changes, so after that
    for number in RESET:
        _signal.signal(number, _signal.SIG_DFL)
    os.setsid()
    if os.isatty(0):
        libc.ioctl(0, TIOCSCTTY, 0)
        order["env"].setdefault("TERM", "xterm")
    os.chdir(order["working_dir"])
    program = find_program(order["argv"][0], order["env"].get("PATH", ""))
    try:
        os.execve(program, order["argv"], order["env"])
    except OSError as error:
        raise OSError(error.errno, f"cannot run {program}: {error.strerror}") from None


def find_program(name: str, path: str) -> str:
    """The file to run for *name*, as execvp(3) finds it."""
    if "/" in name:
        return name
    for directory in path.split(":"):
        found = os.path.join(directory or ".", name)
        if os.access(found, os.X_OK) and not os.path.isdir(found):
            return found
    raise OSError(2, f"cannot run {name}: not found in PATH {path}")


def limit_capabilities(kept: tuple[int, ...]) -> None:
    """Nothing but *kept* can be had from here on; root gets it with the next program, others do not."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    for number in range(last + 1):
        if number not in kept:
            call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, each low half first
    call("capget", header, sets)
    sets[2] = sets[5] = 0  # inheritable, and with it ambient
    call("capset", header, sets)


def raise_open_files() -> None:
    """As many open files as containers have, or as this machine allows."""
    limits = (ctypes.c_uint64 * 2)(OPEN_FILES, OPEN_FILES)
    if libc.setrlimit(RLIMIT_NOFILE, limits) == -1:
        call("getrlimit", RLIMIT_NOFILE, limits)
        limits[0] = limits[1]
        call("setrlimit", RLIMIT_NOFILE, limits)


if __name__ == "__main__":
    main()
