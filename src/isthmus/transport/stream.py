"""Drives a relay session over one gRPC stream; the same for both ends."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import grpclib.protocol
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from isthmus.relay import Subscriber
from isthmus.relay.frames import Frame, ProtocolFault
from isthmus.relay.records import digest_of
from isthmus.relay.session import Session
from isthmus.transport.codec import decode, encode
from isthmus.transport.errors import RelayError, Unreachable
from isthmus.transport.traffic import Traffic
from isthmus.wire import relay_pb2 as wire

T = TypeVar("T")

# How a link that does not work shows; anything else is a fault of ours or of a program's.
LINK_ERRORS = (RelayError, ProtocolFault, GRPCError, StreamTerminatedError, H2Error, OSError)

CLUSTER_HEADER = "x-cluster-id"  # gRPC metadata with the name of the agent's cluster
UNACKNOWLEDGED_MILLISECONDS = 30_000  # until the kernel gives up a connection whose peer has vanished
MAX_MESSAGE_BYTES = 4 * 2**20  # as gRPC has it by default; grpclib would take anything
MAX_REQUEST_BYTES = 64 * 2**10  # for a certificate: such peers may be anybody
DIGEST_SLICE_BYTES = 2**20  # hashed at a time, about a millisecond's worth


@dataclass(frozen=True)
class Pace:
    """How long the ends wait for what, in seconds."""

    connect: float = 10.0  # TCP and TLS
    answer: float = 15.0  # hello; a certificate
    beat: float = 4.0  # of silence, until an end gives a sign of life
    silence: float = 12.0  # of the other side, until the link counts as broken
    retry_first: float = 0.1
    retry_last: float = 15.0
    settled: float = 5.0  # that a link must have held for the next try to come at once
    renew_again: float = 60.0  # after a renewal that failed


@dataclass(frozen=True)
class Channel:
    """The two directions of one stream."""

    receive: Callable[[], Awaitable[wire.Frame]]
    send: Callable[[wire.Frame], Awaitable[None]]


async def digests_of(held: Mapping[str, bytes]) -> dict[str, bytes]:
    """The record digests of *held*; other tasks run in between."""
    found: dict[str, bytes] = {}
    hashed = 0
    for key, payload in tuple(held.items()):
        found[key] = digest_of(key, payload)
        hashed += len(payload)
        if hashed > DIGEST_SLICE_BYTES:
            hashed = 0
            await asyncio.sleep(0)
    return found


class Carrier:
    """One session on one channel, from the first frame to the end of the stream."""

    def __init__(
        self,
        session: Session,
        channel: Channel,
        subscriber: Subscriber,
        traffic: Traffic,
        wake: asyncio.Event,
        pace: Pace,
    ) -> None:
        self._session = session
        self._channel = channel
        self._subscriber = subscriber
        self._traffic = traffic
        self._wake = wake  # the writer
        self._arrived = asyncio.Event()  # wakes the applier
        self._pace = pace
        self._records_sent = 0

    async def send(self, frame: Frame) -> None:
        """Send one frame."""
        message = encode(frame)
        await self._channel.send(message)
        self._traffic.bytes_out += message.ByteSize()
        self._traffic.records_out += self._session.records_sent - self._records_sent
        self._records_sent = self._session.records_sent
        self._traffic.generations_sent = self._session.generations_sent

    async def receive(self) -> None:
        """Wait for one frame and take it."""
        message = await self._channel.receive()
        before = self._session.records_received
        self._session.receive(decode(message))
        self._traffic.bytes_in += message.ByteSize()
        self._traffic.records_in += self._session.records_received - before
        self._traffic.generations_acknowledged = self._session.generations_acknowledged

    async def run(self, *others: Coroutine[Any, Any, None]) -> None:
        """Carry frames, and run *others* beside, until one of them fails; that is raised."""
        await together(self._read(), self._write(), self._apply(), self._listen(), *others)

    async def _read(self) -> None:
        while True:
            await self.receive()
            self._wake.set()
            self._arrived.set()

    async def _write(self) -> None:
        clock = asyncio.get_running_loop().time
        beat_at = 0.0
        while True:
            self._wake.clear()
            while (frame := self._session.next_frame()) is not None:
                await self.send(frame)
                beat_at = clock() + self._pace.beat
            try:
                async with asyncio.timeout_at(beat_at):
                    await self._wake.wait()
            except TimeoutError:
                self._session.beat()

    async def _apply(self) -> None:
        while True:
            self._arrived.clear()
            while (delta := self._session.next_delta()) is not None:
                await self._subscriber.receive(delta)
                self._traffic.generations_in += 1
                self._session.applied()
                self._wake.set()
            await self._arrived.wait()

    async def _listen(self) -> None:
        """Raise `Unreachable` when nothing comes. Counts its own turns, not the clock: a busy end has not listened."""
        turns = 4
        silent = 0
        while silent < turns:
            before = self._session.frames_received
            await asyncio.sleep(self._pace.silence / turns)
            silent = silent + 1 if self._session.frames_received == before else 0
        raise Unreachable(f"nothing has come from the other side for {self._pace.silence:g} seconds")


async def together(*jobs: Coroutine[Any, Any, None]) -> None:
    """Run *jobs* until one of them ends; the others are cancelled, and what it raised is raised.

    A TaskGroup would do, but until Python 3.13 it leaves its task marked as being cancelled, and the server has to know
    whether its task is.
    """
    tasks = [asyncio.create_task(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _stop(tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        # A fault of a program matters more than the link that it took down.
        raise next((error for error in errors if not isinstance(error, LINK_ERRORS)), errors[0])


async def apart(job: Coroutine[Any, Any, T], seconds: float) -> T:
    """The result of *job*, run as a task of its own: grpclib ends a wait by cancelling the task that waits.

    Raises TimeoutError after *seconds*.
    """
    task = asyncio.create_task(job)
    try:
        await asyncio.wait((task,), timeout=seconds)
        if not task.done():
            raise TimeoutError
    finally:
        await _stop((task,))
    return task.result()


async def _stop(tasks: Collection[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)


def bound(stream: grpclib.protocol.Stream, limit: int) -> None:
    """Refuse messages on *stream* that announce more than *limit* bytes, before any of them is kept."""
    receive = stream.recv_data

    async def receive_within(size: int) -> bytes:
        if size > limit:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"a message of {size} bytes; up to {limit} are taken")
        return await receive(size)

    stream.recv_data = receive_within  # type: ignore[method-assign]


def keep_watch(connection: socket.socket) -> None:
    """Let the kernel give *connection* up, or those accepted from it, when the peer has vanished."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MILLISECONDS)


def utc_now() -> datetime:
    """The time of the wall clock."""
    return datetime.now(UTC)
