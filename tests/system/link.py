"""A network between agents and server that a test can cut."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self


class Network:
    """Forwards TCP connections on a port of its own to *address* (``host:port``).

    With *record* it keeps what went either way, one entry for each direction of a connection.
    """

    def __init__(self, address: str, *, record: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._dialling: set[asyncio.Task[None]] = set()
        self.cuts = 0
        self.recorded: list[bytearray] | None = [] if record else None

    @property
    def address(self) -> str:
        """Where to dial."""
        assert self._server is not None
        host, port = self._server.sockets[0].getsockname()
        return f"{host}:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self._server.wait_closed()

    def cut(self) -> None:
        """End every connection that is open now, in the middle of whatever is under way."""
        self.cuts += len(self._open)
        for writer in tuple(self._open):
            writer.transport.abort()
        for task in tuple(self._dialling):
            task.cancel()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._dialling.add(task)
        try:
            there, back = await asyncio.open_connection(*self._target)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        finally:
            self._dialling.discard(task)
        self._open |= {writer, back}
        try:
            await asyncio.gather(_pump(reader, back, self._tape()), _pump(there, writer, self._tape()))
        finally:
            for end in (writer, back):
                self._open.discard(end)
                end.transport.abort()

    def _tape(self) -> bytearray | None:
        if self.recorded is None:
            return None
        self.recorded.append(bytearray())
        return self.recorded[-1]


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tape: bytearray | None) -> None:
    try:
        while data := await reader.read(65536):
            if tape is not None:
                tape += data
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()
