"""`kubectl port-forward`: connections to ports of a pod as pairs of streams of one connection.

Source: k8s.io/client-go/tools/portforward, protocol portforward.k8s.io. Each connection has an error stream, opened
first, and a data stream; both carry the same request id and the port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from isthmus.lab.kubelet.streams import CHUNK, Stream

PROTOCOL = "portforward.k8s.io"

Connect = Callable[[int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""A connection to a port of the pod. Raises `OSError`."""


class PortForward:
    """The connections of one client to *pod*, each a task of *tasks*."""

    def __init__(self, pod: str, connect: Connect, tasks: asyncio.TaskGroup) -> None:
        self._pod = pod
        self._connect = connect
        self._tasks = tasks
        self._halves: dict[str, Stream] = {}

    def accept(self, stream: Stream) -> bool:
        """Take *stream*, and start the connection when it is the second of its pair."""
        kind, port, request = (stream.headers.get(name, "") for name in ("streamtype", "port", "requestid"))
        if kind not in ("error", "data") or not port.isdecimal() or not 0 < int(port) < 2**16:
            return False
        other = self._halves.pop(request, None)
        if other is None:
            self._halves[request] = stream
            return True
        if other.headers["streamtype"] == kind or other.headers["port"] != port:
            return False
        data, errors = (stream, other) if kind == "data" else (other, stream)
        self._tasks.create_task(self._forward(int(port), data, errors))
        return True

    async def _forward(self, port: int, data: Stream, errors: Stream) -> None:
        with suppress(ConnectionError):  # the client left or has reset the stream
            try:
                reader, writer = await self._connect(port)
            except OSError as error:
                await errors.write(f"error forwarding port {port} to pod {self._pod}: {error}".encode())
            else:
                try:
                    await _copy(data, reader, writer)
                finally:
                    writer.close()
            data.discard()
            await data.finish()
            await errors.finish()


async def _copy(data: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Both ways until the pod's side ends or the client resets. The client's end is passed on; the pod may answer."""

    async def to_pod() -> None:
        with suppress(ConnectionError):
            while received := await data.read():
                writer.write(received)
                await writer.drain()
            if not data.gone.is_set():
                writer.write_eof()
                return
        data.discard()

    async def from_pod() -> None:
        with suppress(ConnectionError):
            while sent := await reader.read(CHUNK):
                await data.write(sent)

    sending = asyncio.create_task(to_pod())
    receiving = asyncio.create_task(from_pod())
    leaving = asyncio.create_task(data.gone.wait())
    try:
        await asyncio.wait((receiving, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, receiving, leaving):
            task.cancel()
        await asyncio.gather(sending, receiving, leaving, return_exceptions=True)
