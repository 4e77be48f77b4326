"""`kubectl exec`: one command in a running container, its input and output as streams of one connection.

Source of what goes over which stream, and of the answer's form: k8s.io/client-go/tools/remotecommand, protocol
v4.channel.k8s.io, which is what kube-apiserver and every kubectl since 1.4 speak to a kubelet.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec

from isthmus.lab.kubelet.descriptors import Descriptor
from isthmus.lab.kubelet.streams import Stream
from isthmus.lab.runtime import StartFailed

PROTOCOL = "v4.channel.k8s.io"


class Container(Protocol):
    """What is asked of a running container; isthmus.lab.runtime.Process is one."""

    async def wait(self) -> int:
        """Its exit code, when it has ended."""

    async def exec(
        self, argv: Sequence[str], *, stdin: int | None, stdout: int | None, stderr: int | None
    ) -> asyncio.subprocess.Process:
        """Start *argv* in the container. A terminal as *stdin* becomes the command's controlling terminal.

        Raises `StartFailed` or `OSError`.
        """


@dataclass(frozen=True)
class Command:
    """What a request asks to run, and which streams it opens for it."""

    argv: tuple[str, ...]
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool

    @property
    def streams(self) -> frozenset[str]:
        """Types of the streams that the client opens. A terminal has no stderr of its own, but a size."""
        wanted = {
            "error": True,
            "stdin": self.stdin,
            "stdout": self.stdout,
            "stderr": self.stderr and not self.tty,
            "resize": self.tty,
        }
        return frozenset(name for name, opened in wanted.items() if opened)


_Cells = Annotated[int, msgspec.Meta(ge=0, lt=2**16)]


class _Size(msgspec.Struct):
    Width: _Cells
    Height: _Cells


async def run_command(container: Container, command: Command, streams: Mapping[str, Stream]) -> None:
    """Run *command* until it ends, then end its streams. Cancelled, it ends the command.

    Raises `ConnectionError` when the client has left.
    """
    run = _in_terminal if command.tty else _with_pipes
    try:
        status = exit_status(await run(container, command, streams))
    except ConnectionError:
        raise
    except (StartFailed, OSError) as error:  # without a Status the client would take it for a success
        status = failure(f"error executing command in container: {error}")
    await streams["error"].write(msgspec.json.encode(status))
    for stream in streams.values():
        stream.discard()
        await stream.finish()


def exit_status(code: int) -> Mapping[str, Any]:
    """The Status that tells the client how a command ended."""
    if code == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {code}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


def failure(message: str) -> Mapping[str, Any]:
    """The Status of a command that could not be run."""
    return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError", "code": 500}


async def _with_pipes(container: Container, command: Command, streams: Mapping[str, Stream]) -> int:
    ends: dict[str, int] = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.DEVNULL)
    ours: dict[str, Descriptor] = {}
    with ExitStack() as all_ours:
        with ExitStack() as theirs:
            for name in ends.keys() & streams.keys():
                read, write = os.pipe()
                ends[name], mine = (read, write) if name == "stdin" else (write, read)
                theirs.callback(os.close, ends[name])
                ours[name] = all_ours.enter_context(Descriptor(mine))
            process = await container.exec(command.argv, **ends)
        async with _running(process) as ended, asyncio.TaskGroup() as tasks:
            if "stdin" in ours:
                feeding = tasks.create_task(_feed(streams["stdin"], ours["stdin"], close=True))
                ended.add_done_callback(lambda _: feeding.cancel())
            for name in ours.keys() - {"stdin"}:
                tasks.create_task(_drain(ours[name], streams[name], ended))
        return ended.result()


async def _in_terminal(container: Container, command: Command, streams: Mapping[str, Stream]) -> int:
    master, slave = os.openpty()
    with Descriptor(master) as terminal:
        try:
            process = await container.exec(command.argv, stdin=slave, stdout=slave, stderr=slave)
        finally:
            os.close(slave)
        async with _running(process) as ended, asyncio.TaskGroup() as tasks:
            feeding = [tasks.create_task(_resize(streams["resize"], terminal))]
            if "stdin" in streams:
                feeding.append(tasks.create_task(_feed(streams["stdin"], terminal, close=False)))
            for task in feeding:
                ended.add_done_callback(lambda _, task=task: task.cancel())  # type: ignore[misc]
            if "stdout" in streams:
                tasks.create_task(_drain(terminal, streams["stdout"], ended))
        return ended.result()


@asynccontextmanager
async def _running(process: asyncio.subprocess.Process) -> AsyncIterator[asyncio.Future[int]]:
    """The exit code to come of *process*, which does not outlive the block."""
    ended = asyncio.ensure_future(_exit_code(process))
    try:
        yield ended
        await asyncio.shield(ended)
    finally:
        if not ended.done():
            with suppress(ProcessLookupError):
                process.kill()
            await ended


async def _exit_code(process: asyncio.subprocess.Process) -> int:
    code = await process.wait()
    return 128 - code if code < 0 else code


async def _feed(stream: Stream, to: Descriptor, *, close: bool) -> None:
    """Give a command what the client sends; the end of it too where *to* is the command's alone."""
    try:
        while data := await stream.read():
            await to.write(data)
    except OSError:  # it reads no more
        stream.discard()
    if close:
        to.close()


async def _drain(source: Descriptor, stream: Stream, ended: asyncio.Future[int]) -> None:
    """Send the client what a command writes."""
    while data := await source.read(ended):
        await stream.write(data)


async def _resize(stream: Stream, terminal: Descriptor) -> None:
    """Give the terminal the size of the client's: a JSON object per line, whenever it changes."""
    buffer = b""
    while data := await stream.read():
        *lines, buffer = (buffer + data).split(b"\n")
        for line in filter(None, lines):
            with suppress(msgspec.DecodeError):  # a size that no terminal has
                size = msgspec.json.decode(line, type=_Size)
                fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", size.Height, size.Width, 0, 0))
