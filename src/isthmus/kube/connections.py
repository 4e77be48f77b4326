"""The TCP connections to one API server: each of them is closed, whatever ended the request that opened it.

httpcore forgets an open connection in three cases (seen in httpcore2 2.16), and only the garbage collector finds it:

- the request is cancelled during the TLS handshake; `start_tls` closes the connection after an `Exception` only
- the pool is closed while a connection is being made, which is in nobody's hands yet
- closing the pool is itself cancelled; it stops at the connection that it was at
"""

# ruff: noqa: ASYNC109 - the signatures are those of httpcore

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from typing import Any
from weakref import WeakSet

import anyio
from httpcore2 import SOCKET_OPTION, AnyIOBackend, AsyncNetworkStream, ConnectError


class Connections(AnyIOBackend):
    """Opens connections for a pool of httpcore, and knows those that are open."""

    def __init__(self) -> None:
        self._open: WeakSet[_Stream] = WeakSet()
        self._closings = 0

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[SOCKET_OPTION] | None = None,
    ) -> AsyncNetworkStream:
        """A connection. Raises `ConnectError`, also when `close` was called meanwhile."""
        before = self._closings
        stream = _Stream(await super().connect_tcp(host, port, timeout, local_address, socket_options), self._open)
        if self._closings != before:
            await stream.aclose()
            raise ConnectError("closed while it was being made")
        return stream

    async def close(self) -> None:
        """Close every connection there is; new ones may be made afterwards."""
        self._closings += 1
        cancelled: asyncio.CancelledError | None = None
        for stream in tuple(self._open):
            try:
                await stream.aclose()
            except asyncio.CancelledError as error:
                cancelled = error  # this one is closed: anyio does that before it gives others a turn
        if cancelled is not None:
            raise cancelled


class _Stream(AsyncNetworkStream):
    """One connection, in plain text or as the TLS layer over another one."""

    def __init__(self, stream: AsyncNetworkStream, known: WeakSet[_Stream]) -> None:
        self._stream = stream
        self._known = known
        known.add(self)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> AsyncNetworkStream:
        try:
            return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._known)
        except anyio.ClosedResourceError as error:  # by `Connections.close`
            raise ConnectError("closed during the TLS handshake") from error
        except BaseException:
            await self._stream.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
