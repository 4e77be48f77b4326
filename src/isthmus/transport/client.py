"""The agent's end of the relay: gets an identity, keeps a stream to the server open, renews the identity in time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from grpclib.client import Stream
from grpclib.exceptions import StreamTerminatedError

from isthmus import __version__
from isthmus.pki import (
    certificate_facts,
    check_chain,
    make_csr,
    new_key,
    rotation_time,
)
from isthmus.relay import Publication, Subscriber
from isthmus.relay.frames import ProtocolFault
from isthmus.relay.session import Session
from isthmus.transport.credentials import ClientCredentials, ClientIdentity, CredentialStore
from isthmus.transport.dial import Link, Target, dial
from isthmus.transport.errors import (
    IdentityRefused,
    Incompatible,
    NoCredentials,
    RelayError,
    Unreachable,
)
from isthmus.transport.stream import (
    CLUSTER_HEADER,
    LINK_ERRORS,
    MAX_MESSAGE_BYTES,
    Carrier,
    Channel,
    Pace,
    apart,
    bound,
    digests_of,
    utc_now,
)
from isthmus.transport.traffic import Traffic
from isthmus.wire import relay_pb2 as wire
from isthmus.wire.relay_grpc import IdentityStub, RelayStub

DEFAULT_AUTHORITY = "enterprise-networking.gloo-mesh"

ServerStream = Stream[wire.ToServer, wire.ToAgent]


class LinkObserver(Protocol):
    """Who is told how the link fares, for logs and metrics."""

    def connected(self) -> None:
        """The server has accepted the stream."""
        ...

    def disconnected(self, error: RelayError, retry_in: float) -> None:
        """The stream ended, or none came about; the next try is in *retry_in* seconds."""
        ...

    def issued(self, not_after: datetime) -> None:
        """A new client certificate has been saved."""
        ...


class _Renewed(Exception):
    """There is a new client certificate; the link is made again with it."""


@dataclass
class _Backoff:
    """Growing pauses between tries, shortened at random so that agents do not come all at once."""

    first: float
    last: float
    tries: int = 0

    def next(self) -> float:
        pause = min(self.last, self.first * 2.0**self.tries)
        self.tries = min(self.tries + 1, 30)
        return pause * random.uniform(0.5, 1.0)


class RelayClient:
    """Keeps one cluster's link to the server at *address* (`host:port`).

    *authority* is the name in the server's certificate, not where it is. Without *credentials* in plain text and
    without an identity (insecure mode).
    """

    def __init__(
        self,
        *,
        cluster: str,
        address: str,
        publication: Publication,
        subscriber: Subscriber,
        credentials: CredentialStore | None,
        authority: str = DEFAULT_AUTHORITY,
        observer: LinkObserver | None = None,
        now: Callable[[], datetime] = utc_now,
        pace: Pace | None = None,
    ) -> None:
        self._cluster = cluster
        self._target = Target.parse(address, authority)
        self._publication = publication
        self._subscriber = subscriber
        self._store = credentials
        self._observer = observer
        self._now = now
        self._pace = pace or Pace()
        self._traffic = Traffic()
        self._refused: bytes | None = None  # the chain that the server last refused

    @property
    def traffic(self) -> Traffic:
        """Counters of this link."""
        return self._traffic

    async def run(self) -> None:
        """Keep the link up until cancelled; trouble goes to the observer and is tried again with growing pauses.

        What the subscriber or the credential store raise ends it.
        """
        backoff = _Backoff(self._pace.retry_first, self._pace.retry_last)
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                await self._link()
            except _Renewed:
                continue
            except RelayError as error:
                if self._traffic.connected and clock() - began >= self._pace.settled:
                    backoff.tries = 0
                pause = backoff.next()
                self._traffic.connected = False
                if self._observer:
                    self._observer.disconnected(error, pause)
                await asyncio.sleep(pause)
            finally:
                self._traffic.connected = False

    async def _link(self) -> None:
        """Make the link once and keep it. Raises `RelayError` when it ends, `_Renewed` when it has to be made again."""
        if self._store is None:
            await self._talk(None, None)
            return
        credentials = await self._store.load()
        identity = credentials.identity
        if identity is None or self._is_spent(identity, credentials):
            identity = await self._bootstrap(self._store, credentials)
        await self._talk(self._store, identity, credentials.root or identity.ca)

    def _is_spent(self, identity: ClientIdentity, credentials: ClientCredentials) -> bool:
        """Whether to ask for another identity. Raises `IdentityRefused` if so, and no token is there."""
        trust = identity.ca + b"\n" + (credentials.root or b"")
        problem = check_chain(identity.chain, trust, self._now())
        if problem is None and self._cluster not in certificate_facts(identity.chain).dns_names:
            names = ", ".join(certificate_facts(identity.chain).dns_names)
            raise IdentityRefused(
                f"relay-client-tls-secret holds a certificate for {names or 'no DNS name'}, this agent's cluster is "
                f"{self._cluster}; delete the Secret or correct the cluster's name"
            )
        can_ask = credentials.root is not None and credentials.token is not None
        if problem is None:
            return can_ask and identity.chain == self._refused
        if not can_ask:
            raise IdentityRefused(
                f"relay-client-tls-secret {problem}; register the cluster again to give its agent a new token"
            )
        return True

    async def _bootstrap(self, store: CredentialStore, credentials: ClientCredentials) -> ClientIdentity:
        """An identity against the token, saved."""
        missing = [
            name
            for name, found in (
                ("relay-root-tls-secret (ca.crt)", credentials.root),
                ("relay-identity-token-secret (token)", credentials.token),
            )
            if found is None
        ]
        if credentials.root is None or credentials.token is None:
            raise NoCredentials(
                f"no client certificate, and to ask for one {' and '.join(missing)} would be needed; "
                "meshctl cluster register puts them there"
            )
        key = credentials.pending_key
        if key is None:
            key = new_key()
            await store.save_pending(key)
        request = wire.IssueRequest(cluster=self._cluster, token=credentials.token, csr=make_csr(key, self._cluster))
        link = await dial(self._target, trust=credentials.root, identity=None, seconds=self._pace.connect)
        try:
            response = await self._ask(link, IdentityStub(link).Issue(request))
        finally:
            link.abort()
        return await self._keep(store, response, key)

    async def _renew(self, store: CredentialStore, link: Link, identity: ClientIdentity) -> None:
        """Wait until *identity* has used up most of its life, then replace it and raise `_Renewed`."""
        facts = certificate_facts(identity.chain)
        due = rotation_time(facts.not_before, facts.not_after)
        while True:
            remaining = (due - self._now()).total_seconds()
            if remaining <= 0:
                break
            await asyncio.sleep(min(remaining, 3600.0))  # the clock may be set meanwhile
        while True:
            key = new_key()
            request = wire.RenewRequest(csr=make_csr(key, self._cluster))
            metadata = {CLUSTER_HEADER: self._cluster}
            try:
                response = await self._ask(link, IdentityStub(link).Renew(request, metadata=metadata))
                await self._keep(store, response, key)
            except RelayError:
                # The present certificate is good for a while; a link that broke has its own reader.
                await asyncio.sleep(self._pace.renew_again)
            else:
                raise _Renewed

    async def _keep(self, store: CredentialStore, response: wire.IssueResponse, key: bytes) -> ClientIdentity:
        identity = ClientIdentity(response.chain, key, response.ca)
        problem = check_chain(identity.chain, identity.ca, self._now())
        if problem is not None:
            raise IdentityRefused(f"the server issued a certificate that is of no use: {problem}")
        await store.save(identity)
        if self._observer:
            self._observer.issued(certificate_facts(identity.chain).not_after)
        return identity

    async def _talk(
        self, store: CredentialStore | None, identity: ClientIdentity | None, trust: bytes | None = None
    ) -> None:
        """Dial and carry the stream until it ends."""
        link = await dial(self._target, trust=trust, identity=identity, seconds=self._pace.connect)
        try:
            await self._stream(store, link, identity)
        except IdentityRefused:
            self._refused = identity.chain if identity else None
            raise
        finally:
            link.abort()

    async def _stream(self, store: CredentialStore | None, link: Link, identity: ClientIdentity | None) -> None:
        wake = asyncio.Event()
        session = Session(
            self._cluster,
            version=__version__,
            publication=self._publication,
            held=await digests_of(self._subscriber.held()),
            wake=wake.set,
        )
        try:
            stream = RelayStub(link).Connect.open(metadata={CLUSTER_HEADER: self._cluster})
            async with stream:
                await apart(stream.send_request(), self._pace.answer)
                bound(stream._stream, MAX_MESSAGE_BYTES)
                carrier = Carrier(session, _channel_of(stream), self._subscriber, self._traffic, wake, self._pace)
                await apart(self._greet(session, carrier), self._pace.answer)
                self._traffic.connected = True
                self._traffic.connections += 1
                self._traffic.generations_sent = self._traffic.generations_acknowledged = 0
                if self._observer:
                    self._observer.connected()
                renewal = [self._renew(store, link, identity)] if store and identity else []
                await carrier.run(*renewal)
        except TimeoutError as error:
            raise Unreachable(f"{self._target.address} does not answer") from error
        except ProtocolFault as error:
            raise Incompatible(f"{self._target.address}: {error}") from error
        except LINK_ERRORS as error:
            raise link.explain(error) from error
        finally:
            session.close()

    async def _ask(self, link: Link, call: Coroutine[Any, Any, wire.IssueResponse]) -> wire.IssueResponse:
        try:
            return await apart(call, self._pace.answer)
        except TimeoutError as error:
            raise Unreachable(f"{self._target.address} does not answer") from error
        except LINK_ERRORS as error:
            raise link.explain(error) from error

    async def _greet(self, session: Session, carrier: Carrier) -> None:
        hello = session.next_frame()
        assert hello is not None
        await carrier.send(hello)
        await carrier.receive()


def _channel_of(stream: ServerStream) -> Channel:
    async def receive() -> wire.Frame:
        message = await stream.recv_message()
        if message is None:
            # As grpclib has it, so that leaving the stream raises what the trailers say.
            raise StreamTerminatedError("the server has ended the stream")
        return message.frame

    async def send(frame: wire.Frame) -> None:
        await stream.send_message(wire.ToServer(frame=frame))

    return Channel(receive, send)
