"""The server's end of the relay: listens, holds every stream to its certificate's cluster, signs certificates."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar, cast

import grpclib.server
from cryptography.x509 import random_serial_number
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from isthmus import __version__
from isthmus.pki import PemInvalid, certificate_facts, inspect_csr, sign_agent
from isthmus.relay.frames import Hello, ProtocolFault
from isthmus.relay.session import Session, check_hello
from isthmus.transport.accept import Server
from isthmus.transport.codec import decode
from isthmus.transport.errors import Unreachable
from isthmus.transport.hub import Hub, IdentityLedger, Refused, ServerCredentials, TokenRefused
from isthmus.transport.stream import (
    CLUSTER_HEADER,
    LINK_ERRORS,
    MAX_MESSAGE_BYTES,
    MAX_REQUEST_BYTES,
    Carrier,
    Channel,
    Pace,
    bound,
    digests_of,
    keep_watch,
    utc_now,
)
from isthmus.transport.tls import dns_names_in, names_server, server_context
from isthmus.transport.traffic import Traffic
from isthmus.wire import relay_grpc
from isthmus.wire import relay_pb2 as wire

CLOSING = "the server is shutting down"

Request = TypeVar("Request", wire.IssueRequest, wire.RenewRequest)
AgentStream = grpclib.server.Stream[wire.ToServer, wire.ToAgent]


@dataclass(eq=False)
class _Live:
    """The open stream of a cluster, and how to end it."""

    end: asyncio.Future[GRPCError]
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def stop(self, status: Status, reason: str) -> None:
        if not self.end.done():
            self.end.set_result(GRPCError(status, reason))

    async def stopped(self) -> None:
        raise await asyncio.shield(self.end)


class RelayServer:
    """Listens for agents on *host* (empty: every address) and *port* (0: a free one).

    Without *tls* in plain text and without identities (insecure mode): then every agent is who it says it is.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        ledger: IdentityLedger | None = None,
        tls: ServerCredentials | None,
        host: str = "",
        port: int = 9900,
        now: Callable[[], datetime] = utc_now,
        pace: Pace | None = None,
    ) -> None:
        self._hub = hub
        self._ledger = ledger
        self._tls = tls
        self._host = host
        self._port = port
        self._now = now
        self._pace = pace or Pace()
        self._context = server_context(tls) if tls else None
        self._server: Server | None = None
        self._live: dict[str, _Live] = {}
        self._traffic: dict[str, Traffic] = {}

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._port

    @property
    def traffic(self) -> Mapping[str, Traffic]:
        """Counters of every cluster that ever connected."""
        return MappingProxyType(self._traffic)

    async def start(self) -> None:
        """Listen. Raises OSError when the port is taken."""
        listener = _listener(self._host, self._port)
        self._port = listener.getsockname()[1]
        self._server = Server([_Relay(self), _Identity(self)])
        await self._server.start(sock=listener, ssl=self._listening_context())

    def reload(self, tls: ServerCredentials) -> None:
        """Use *tls* for connections made from now on. Raises `PemInvalid`, and goes on with what it had.

        A server that was started without TLS stays without.
        """
        if self._tls is None:
            return
        self._context = server_context(tls)
        self._tls = tls

    def disconnect(self, cluster: str, reason: str) -> None:
        """End the cluster's stream, if there is one; the agent is told *reason* and will try again."""
        if live := self._live.get(cluster):
            live.stop(Status.UNAVAILABLE, reason)

    async def close(self) -> None:
        """End all streams and stop listening."""
        server, self._server = self._server, None
        if server is None:
            return
        ended = tuple(self._live.values())
        for live in ended:
            live.stop(Status.UNAVAILABLE, CLOSING)
        for live in ended:
            await live.gone.wait()
        await server.end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _listening_context(self) -> ssl.SSLContext | None:
        """A context that hands every handshake to the context of the day."""
        if self._tls is None:
            return None
        context = server_context(self._tls)

        def choose(connection: ssl.SSLObject, name: str | None, listening: ssl.SSLContext) -> None:
            connection.context = self._context or listening

        context.sni_callback = choose
        return context

    def _identify(self, stream: grpclib.server.Stream[Any, Any]) -> tuple[str, datetime | None]:
        """The cluster that *stream* may speak for, and until when. Raises `GRPCError`."""
        metadata = cast(Mapping[str, str], stream.metadata or {})
        cluster = str(metadata.get(CLUSTER_HEADER, ""))
        if not cluster:
            raise GRPCError(Status.INVALID_ARGUMENT, f"metadata {CLUSTER_HEADER} with the cluster's name is missing")
        if self._tls is None:
            return cluster, None
        certificate = stream.peer.cert()
        if not certificate:
            raise GRPCError(
                Status.UNAUTHENTICATED, "no client certificate; ask for one with the registration token first"
            )
        names = dns_names_in(certificate)
        if cluster not in names:
            raise GRPCError(
                Status.PERMISSION_DENIED,
                f"the client certificate is for {', '.join(names) or 'no DNS name'}, not for cluster {cluster}",
            )
        until = datetime.fromtimestamp(ssl.cert_time_to_seconds(certificate["notAfter"]), UTC)
        if self._now() >= until:
            raise GRPCError(
                Status.UNAUTHENTICATED,
                f"the client certificate of {cluster} expired on {until:%Y-%m-%d %H:%M} UTC; "
                "register the cluster again to give its agent a new token",
            )
        return cluster, until

    def _admit(self, cluster: str) -> None:
        try:
            self._hub.admit(cluster)
        except Refused as error:
            raise GRPCError(Status.NOT_FOUND, str(error)) from error

    async def _connect(self, stream: AgentStream) -> None:
        """One agent's stream, from its first frame to its end."""
        cluster, until = self._identify(stream)
        self._admit(cluster)
        channel = _channel_of(stream)
        hello = await self._greet(channel, cluster)
        live = await self._take_over(cluster)
        traffic = self._traffic.setdefault(cluster, Traffic())
        reason = "the link broke"
        try:
            await self._carry(channel, hello, live, until, traffic)
        except LINK_ERRORS as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from error  # the connection is gone: there is nobody to answer
            answer = _answer_to(error)
            reason = answer.message or answer.status.name
            raise answer from error
        except Exception as error:
            reason = f"a fault of the server: {error!r}"
            raise
        finally:
            if self._live.get(cluster) is live:
                del self._live[cluster]
            if traffic.connected:
                traffic.connected = False
                self._hub.disconnected(cluster, reason)
            live.gone.set()

    async def _carry(
        self, channel: Channel, hello: Hello, live: _Live, until: datetime | None, traffic: Traffic
    ) -> None:
        """Carry the stream of a cluster that said *hello*, until something ends it; that is raised."""
        cluster = hello.cluster
        loop = asyncio.get_running_loop()
        wake = asyncio.Event()
        subscriber = self._hub.subscriber(cluster)
        held = await digests_of(subscriber.held())
        publication = self._hub.publication(cluster)
        session = Session(cluster, version=__version__, publication=publication, held=held, wake=wake.set)
        seconds = (until - self._now()).total_seconds() if until else 0.0
        gone = f"the client certificate of {cluster} has expired"
        expiry = loop.call_later(seconds, live.stop, Status.UNAUTHENTICATED, gone) if until else None
        try:
            session.receive(hello)
            traffic.connected = True
            traffic.connections += 1
            traffic.generations_sent = traffic.generations_acknowledged = 0
            self._hub.connected(cluster)
            await Carrier(session, channel, subscriber, traffic, wake, self._pace).run(live.stopped())
        finally:
            if expiry is not None:
                expiry.cancel()
            session.close()

    async def _take_over(self, cluster: str) -> _Live:
        """The one live stream of *cluster* from now on; the one before has ended. Raises `GRPCError`."""
        while before := self._live.get(cluster):
            before.stop(Status.ABORTED, f"a newer connection of cluster {cluster} took over")
            await before.gone.wait()
        if self._server is None:
            raise GRPCError(Status.UNAVAILABLE, CLOSING)
        live = self._live[cluster] = _Live(asyncio.get_running_loop().create_future())
        return live

    async def _greet(self, channel: Channel, cluster: str) -> Hello:
        """The agent's first frame. Raises `GRPCError`."""
        try:
            async with asyncio.timeout(self._pace.answer):
                return check_hello(decode(await channel.receive()), cluster)
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the agent does not say hello") from error
        except ProtocolFault as error:
            raise GRPCError(Status.FAILED_PRECONDITION, str(error)) from error

    async def _request_of(self, stream: grpclib.server.Stream[Request, wire.IssueResponse]) -> Request | None:
        bound(stream._stream, MAX_REQUEST_BYTES)
        try:
            async with asyncio.timeout(self._pace.answer):
                return await stream.recv_message()
        except TimeoutError as error:
            raise GRPCError(Status.DEADLINE_EXCEEDED, "the request does not come to its end") from error

    async def _issue(self, request: wire.IssueRequest) -> wire.IssueResponse:
        """A certificate against a token."""
        tls = self._signing()
        if self._ledger is None:
            raise GRPCError(Status.UNIMPLEMENTED, "this server takes no registration tokens")
        try:
            asked = inspect_csr(request.csr)
        except PemInvalid as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        if asked.dns_names != (request.cluster,):
            raise GRPCError(
                Status.INVALID_ARGUMENT,
                f"the certificate request is for {', '.join(asked.dns_names) or 'nothing'}, not for {request.cluster}",
            )
        if names_server(certificate_facts(tls.chain).dns_names, request.cluster):
            # Such a certificate would let an agent pass for the server.
            raise GRPCError(Status.INVALID_ARGUMENT, f"{request.cluster} is a name of the server, not of a cluster")
        try:
            await self._ledger.redeem(request.cluster, request.token, asked.fingerprint)
        except TokenRefused as error:
            raise GRPCError(Status.PERMISSION_DENIED, str(error)) from error
        return self._sign(tls, request.cluster, request.csr)

    async def _renew(self, request: wire.RenewRequest, cluster: str) -> wire.IssueResponse:
        """The next certificate of a cluster that has a good one."""
        self._admit(cluster)
        return self._sign(self._signing(), cluster, request.csr)

    def _signing(self) -> ServerCredentials:
        if self._tls is None:
            raise GRPCError(Status.UNIMPLEMENTED, "this server is insecure and issues no certificates")
        if self._tls.signing is None:
            raise GRPCError(
                Status.UNIMPLEMENTED,
                "this server issues no agent certificates; bring relay-client-tls-secret, or give the server its CA",
            )
        return self._tls

    def _sign(self, tls: ServerCredentials, cluster: str, csr: bytes) -> wire.IssueResponse:
        assert tls.signing is not None
        try:
            chain = sign_agent(csr, cluster, tls.signing, serial=random_serial_number(), now=self._now())
        except PemInvalid as error:
            raise GRPCError(Status.INVALID_ARGUMENT, str(error)) from error
        return wire.IssueResponse(chain=chain, ca=tls.signing.root)


class _Relay(relay_grpc.RelayBase):
    def __init__(self, server: RelayServer) -> None:
        self._server = server

    async def Connect(self, stream: AgentStream) -> None:
        bound(stream._stream, MAX_MESSAGE_BYTES)
        await self._server._connect(stream)


class _Identity(relay_grpc.IdentityBase):
    def __init__(self, server: RelayServer) -> None:
        self._server = server

    async def Issue(self, stream: grpclib.server.Stream[wire.IssueRequest, wire.IssueResponse]) -> None:
        request = await self._server._request_of(stream)
        await stream.send_message(await self._server._issue(request or wire.IssueRequest()))

    async def Renew(self, stream: grpclib.server.Stream[wire.RenewRequest, wire.IssueResponse]) -> None:
        cluster, _ = self._server._identify(stream)
        request = await self._server._request_of(stream)
        await stream.send_message(await self._server._renew(request or wire.RenewRequest(), cluster))


def _answer_to(error: BaseException) -> GRPCError:
    """What the agent is told when its stream ends by *error*."""
    match error:
        case GRPCError():
            return error
        case ProtocolFault():
            return GRPCError(Status.FAILED_PRECONDITION, str(error))
        case Unreachable():
            return GRPCError(Status.UNAVAILABLE, str(error))
        case _:
            return GRPCError(Status.UNAVAILABLE, f"the link broke: {error}")


def _channel_of(stream: AgentStream) -> Channel:
    async def receive() -> wire.Frame:
        message = await stream.recv_message()
        if message is None:
            raise Unreachable("the agent has ended the stream")
        return message.frame

    async def send(frame: wire.Frame) -> None:
        await stream.send_message(wire.ToAgent(frame=frame))

    return Channel(receive, send)


def _listener(host: str, port: int) -> socket.socket:
    """A listening socket; empty *host* means every address, IPv6 included where there is IPv6."""
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family)
    elif socket.has_dualstack_ipv6():
        listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    else:
        listener = socket.create_server(("", port))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # connections inherit it; not every loop sets it
    keep_watch(listener)
    return listener
