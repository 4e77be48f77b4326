"""The listening end of connections from agents, and how they end.

grpclib's server leaves the connections open that it has accepted. Their transports would outlive it, and from Python
3.12 on it would wait for them without end. One name of grpclib that begins with an underscore is used here for that:
there is no public way to be told of connections.
Source: https://docs.python.org/3/library/asyncio-eventloop.html#asyncio.Server.wait_closed
"""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import BaseTransport, Transport
from collections.abc import Collection
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

import grpclib.server
from grpclib.protocol import H2Protocol

if TYPE_CHECKING:
    from grpclib._typing import IServable

GOODBYE_SECONDS = 2.0  # for agents to take what was last sent, and to hang up themselves


class Accepted(H2Protocol):
    """A connection that ends when it is told to, even if that is before TLS is agreed on."""

    def __init__(self, made: H2Protocol) -> None:
        super().__init__(made.handler, made.config, made.h2_config)
        self.lost = asyncio.Event()
        self._transport: Transport | None = None
        self._ended = False

    def connection_made(self, transport: BaseTransport) -> None:
        self._transport = cast(Transport, transport)
        super().connection_made(transport)
        if self._ended:
            self._transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self.lost.set()

    def end(self) -> None:
        """Send what is to be sent, then hang up."""
        self._ended = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Hang up now."""
        if self._transport is not None:
            self._transport.abort()


class Server(grpclib.server.Server):
    """grpclib's server, which ends its connections too."""

    def __init__(self, handlers: Collection[IServable]) -> None:
        super().__init__(handlers)
        self._connections: WeakSet[Accepted] = WeakSet()

    def _protocol_factory(self) -> H2Protocol:
        connection = Accepted(super()._protocol_factory())
        self._connections.add(connection)
        return connection

    async def end(self) -> None:
        """Stop listening, cancel requests that are being answered, and end all connections."""
        self.close()
        connections = tuple(self._connections)
        for connection in connections:
            connection.end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_SECONDS):
                for connection in connections:
                    await connection.lost.wait()
        for connection in connections:
            connection.abort()
        with contextlib.suppress(TimeoutError):  # one that never agreed on TLS has nothing that could be ended
            async with asyncio.timeout(GOODBYE_SECONDS):
                await self.wait_closed()
