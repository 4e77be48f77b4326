"""A connection does not outlive whoever opened it, whenever that one stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from httpcore2 import ConnectError

from isthmus.kube import KubeClient, Unavailable
from isthmus.kube.connections import Connections

from .certificates import Authority
from .conftest import Kubeconfig
from .peer import DEADLINE, Peer, Proxy, answer

VERSION = answer(200, {"gitVersion": "v1.30.2"})


class Silent:
    """Takes connections, and hears what is said without a word."""

    def __init__(self) -> None:
        self.port = 0
        self.heard: asyncio.Queue[None] = asyncio.Queue()
        """An entry for each connection whose client has said something: of TLS, its hello."""
        self.ended: asyncio.Queue[None] = asyncio.Queue()
        """An entry for each connection that the client has closed."""

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Silent]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            if await reader.read(65536):
                self.heard.put_nowait(None)
            await reader.read()
        self.ended.put_nowait(None)
        writer.transport.abort()


@pytest.mark.parametrize("way", ["straight", "through a proxy"])
@pytest.mark.parametrize("end", ["cancelled", "closed"])
async def test_a_tls_handshake_breaks_off(way: str, end: str, authority: Authority, kubeconfig: Kubeconfig) -> None:
    """The server learns at once that nobody waits for its half of the handshake any more."""
    async with asyncio.timeout(DEADLINE), Silent().serving() as server, Proxy().serving() as proxy:
        cluster = {"server": f"https://127.0.0.1:{server.port}", "certificate-authority": str(authority.certificate)}
        if way != "straight":
            cluster["proxy-url"] = proxy.url
        client = KubeClient.from_kubeconfig(kubeconfig(cluster), patience=0)
        request = asyncio.create_task(client.version())
        await server.heard.get()

        if end == "cancelled":
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        else:
            await client.close()
            with pytest.raises(Unavailable, match="closed during the TLS handshake"):
                await request

        await server.ended.get()
        await client.close()


async def test_closed_while_it_connects() -> None:
    """A connection that comes about after that is closed at once."""
    async with asyncio.timeout(DEADLINE), Silent().serving() as server:
        connections = Connections()
        connecting = asyncio.create_task(connections.connect_tcp("127.0.0.1", server.port))
        await asyncio.sleep(0)  # it has begun, and the event loop has not looked at its socket yet

        await connections.close()

        with pytest.raises(ConnectError, match="closed while it was being made"):
            await connecting
        await server.ended.get()


async def test_closing_is_cancelled() -> None:
    """Every connection is closed nevertheless."""
    async with asyncio.timeout(DEADLINE), Silent().serving() as server:
        connections = Connections()
        streams = [await connections.connect_tcp("127.0.0.1", server.port) for _ in range(3)]
        closing = asyncio.create_task(connections.close())
        await asyncio.sleep(0)  # it has closed the first one

        closing.cancel()

        with pytest.raises(asyncio.CancelledError):
            await closing
        for _ in streams:
            await server.ended.get()


async def test_a_client_is_cancelled_while_it_closes(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """Its connections all end."""
    peer.gate = asyncio.Event()
    peer.script = [VERSION]
    client = KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(client.version())
        await peer.until(lambda: peer.running == 3)
        peer.gate.set()

    closing = asyncio.create_task(client.close())
    await asyncio.sleep(0)
    closing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await closing
    await peer.left()
