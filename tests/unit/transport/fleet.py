"""A management server and its agents on loopback, with real certificates, and a link between them that can be cut."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from isthmus.pki import (
    RELAY_ROOT_SECRET,
    RELAY_SERVER_SECRET,
    RELAY_SIGNING_SECRET,
    authority_of,
    make_csr,
    make_relay_secrets,
    new_key,
    sign_agent,
)
from isthmus.relay import Delta, Publication
from isthmus.transport import (
    ClientCredentials,
    ClientIdentity,
    Pace,
    Refused,
    RelayClient,
    RelayError,
    RelayServer,
    ServerCredentials,
    TokenRefused,
)

BRISK = Pace(connect=5, answer=5, beat=0.2, silence=0.8, retry_first=0.01, retry_last=0.1, settled=0.5, renew_again=0.1)
TOKEN = "let-me-in"


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for *condition*; fail when it does not come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - any condition, of any part
            await asyncio.sleep(0.001)


class Relay:
    """The certificates of one installation."""

    def __init__(self) -> None:
        self.serials = itertools.count(1)
        installed = datetime.now(UTC) - timedelta(days=400)  # before all that tests pretend
        self.secrets = make_relay_secrets(now=installed, serials=self.serials)
        self.authority = authority_of(self.secrets[RELAY_SIGNING_SECRET])
        self.root = self.secrets[RELAY_ROOT_SECRET]["ca.crt"]

    def server(self, *, signing: bool = True) -> ServerCredentials:
        secret = self.secrets[RELAY_SERVER_SECRET]
        authority = self.authority if signing else None
        return ServerCredentials(secret["tls.crt"], secret["tls.key"], secret["ca.crt"], authority)

    def identity(
        self, cluster: str, *, now: datetime | None = None, life: timedelta = timedelta(days=365)
    ) -> ClientIdentity:
        key = new_key()
        now = now or datetime.now(UTC)
        csr = make_csr(key, cluster)
        chain = sign_agent(csr, cluster, self.authority, serial=next(self.serials), now=now, life=life)
        return ClientIdentity(chain, key, self.root)


@dataclass
class Held:
    """A subscriber that holds records in memory; `gate` closed, it takes none."""

    records: dict[str, bytes] = field(default_factory=dict)
    deltas: list[Delta] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    fault: Exception | None = None

    def __post_init__(self) -> None:
        self.gate.set()

    def held(self) -> Mapping[str, bytes]:
        return self.records

    async def receive(self, delta: Delta) -> None:
        await self.gate.wait()
        if self.fault:
            raise self.fault
        for key, payload in delta.changes.items():
            if payload is None:
                del self.records[key]
            else:
                self.records[key] = payload
        self.deltas.append(delta)


@dataclass
class Management:
    """Hub and ledger of a server program; outlives its listening server."""

    registered: set[str] = field(default_factory=lambda: {"c1", "c2"})
    down: dict[str, Publication] = field(default_factory=dict)
    up: dict[str, Held] = field(default_factory=dict)
    events: list[tuple[str, ...]] = field(default_factory=list)
    redeemed: dict[str, str] = field(default_factory=dict)
    loses_answers: int = 0

    def admit(self, cluster: str) -> None:
        if cluster not in self.registered:
            raise Refused(f"cluster {cluster} is not registered; meshctl cluster register {cluster} does it")

    def publication(self, cluster: str) -> Publication:
        return self.down.setdefault(cluster, Publication())

    def subscriber(self, cluster: str) -> Held:
        return self.up.setdefault(cluster, Held())

    def connected(self, cluster: str) -> None:
        self.events.append(("connected", cluster))

    def disconnected(self, cluster: str, reason: str) -> None:
        self.events.append(("disconnected", cluster, reason))

    async def redeem(self, cluster: str, token: str, key: str) -> None:
        if token != TOKEN:
            raise TokenRefused("the registration token is wrong")
        if self.redeemed.setdefault(cluster, key) != key:
            raise TokenRefused(f"the registration token was used for {cluster} before")
        if self.loses_answers:
            self.loses_answers -= 1
            await asyncio.sleep(3600)


@dataclass
class Store:
    """The agent's Secrets, in memory."""

    found: ClientCredentials
    saved: int = 0

    async def load(self) -> ClientCredentials:
        return self.found

    async def save_pending(self, key: bytes) -> None:
        self.found = ClientCredentials(self.found.root, self.found.token, self.found.identity, key)

    async def save(self, identity: ClientIdentity) -> None:
        self.saved += 1
        self.found = ClientCredentials(self.found.root, None, identity)


@dataclass
class Agent:
    """One agent program's end, and what its observer heard."""

    client: RelayClient
    up: Publication
    down: Held
    store: Store | None
    errors: list[RelayError] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    connections: int = 0
    expiries: list[datetime] = field(default_factory=list)

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, error: RelayError, retry_in: float) -> None:
        self.errors.append(error)
        self.pauses.append(retry_in)

    def issued(self, not_after: datetime) -> None:
        self.expiries.append(not_after)


@asynccontextmanager
async def agent(
    port: int,
    *,
    cluster: str = "c1",
    store: Store | None,
    up: Publication | None = None,
    down: Held | None = None,
    pace: Pace = BRISK,
    authority: str = "enterprise-networking.gloo-mesh",
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Agent]:
    """An agent that dials 127.0.0.1:*port* meanwhile."""
    up = up if up is not None else Publication()
    down = down or Held()
    found = Agent(None, up, down, store)  # type: ignore[arg-type]
    found.client = RelayClient(
        cluster=cluster,
        address=f"127.0.0.1:{port}",
        publication=up,
        subscriber=down,
        credentials=store,
        authority=authority,
        observer=found,
        now=now,
        pace=pace,
    )
    task = asyncio.create_task(found.client.run())
    try:
        yield found
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Proxy:
    """Forwards TCP to *port*; can cut every link, hang on to them in silence, or let only so much through."""

    def __init__(self, port: int) -> None:
        self.target = port
        self.port = 0
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.accepting = True
        self.forwarded = 0
        self._links: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Reset every connection."""
        for writer in tuple(self._links):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._links.add(writer)
        try:
            if not self.accepting:
                return
            try:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            except OSError:
                return
            self._links.add(far_writer)
            back = asyncio.create_task(self._pump(far_reader, writer))
            self._tasks.add(back)
            await self._pump(reader, far_writer)
            await asyncio.wait({back})
            self._tasks.discard(back)
        finally:
            writer.transport.abort()
            self._links.discard(writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await self.flowing.wait()
                self.forwarded += len(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._links.discard(writer)


def server(
    management: Management,
    tls: ServerCredentials | None,
    *,
    port: int = 0,
    pace: Pace = BRISK,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> RelayServer:
    """A relay server on loopback for *management*."""
    return RelayServer(hub=management, ledger=management, tls=tls, host="127.0.0.1", port=port, pace=pace, now=now)
