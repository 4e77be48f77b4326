"""The streams of one SPDY connection, as asyncio reads and writes. Called by what answers exec and port-forward.

Owns who may send what when, and back-pressure: a stream that nobody reads holds `FULL` bytes, then the whole connection
is read no further. SPDY's own windows would stop only that stream, but the peer knows none (see `spdy.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from isthmus.lab.kubelet.spdy import (
    Codec,
    Data,
    Frame,
    GoAway,
    GoAwayStatus,
    Headers,
    Ping,
    ProtocolError,
    Reset,
    ResetStatus,
    SynReply,
    SynStream,
)

CHUNK = 2**16
FULL = 2**20
PROBE_SECONDS = 5.0  # so often a connection that is not read is written to: only so does its end show


class StreamClosed(ConnectionError):
    """The stream takes no more data: reset, finished, or its connection is gone."""


class Stream:
    """One stream that the peer opened."""

    def __init__(self, session: Session, number: int, headers: Headers) -> None:
        self.number = number
        self.headers = headers
        self.gone = asyncio.Event()
        """Set when the peer has reset the stream or has left."""
        self._session = session
        self._received: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._finished = False
        self._discarding = False
        self._more = asyncio.Event()

    async def read(self) -> bytes:
        """Some bytes; none when the peer has ended its side, or the whole."""
        while not self._received:
            if self._ended:
                return b""
            self._more.clear()
            await self._more.wait()
        data = self._received.popleft()
        self._held -= len(data)
        if self._held < FULL:
            self._session.not_full(self)
        return data

    async def write(self, data: bytes) -> None:
        """Send *data* and wait until there is room for more. Raises `ConnectionError`."""
        if self._finished or self.gone.is_set():
            raise StreamClosed(f"stream {self.number} is closed")
        await self._session.send(Data(self.number, data))

    async def finish(self) -> None:
        """End our side, once; the peer may go on."""
        if not self._finished and not self.gone.is_set():
            self._finished = True
            if self._ended:
                self._session.forget(self)
            await self._session.send(Data(self.number, b"", fin=True))

    def discard(self) -> None:
        """Drop what the peer has sent and sends from now on, so that it holds up no other stream."""
        self._discarding = True
        self._received.clear()
        self._held = 0
        self._session.not_full(self)

    def receive(self, data: bytes, *, fin: bool) -> bool:
        """Keep what came for the stream. Returns whether the stream is full."""
        if data and not self._discarding and not self._ended:
            self._received.append(data)
            self._held += len(data)
        if fin:
            self._ended = True
            if self._finished:
                self._session.forget(self)
        self._more.set()
        return self._held >= FULL

    def break_off(self) -> None:
        """The peer is gone, or wants no more of the stream."""
        self._ended = True
        self._more.set()
        self.gone.set()


class Session:
    """One connection after its upgrade; *first* is what came behind the request."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        first: bytes = b"",
        probe_seconds: float = PROBE_SECONDS,
    ) -> None:
        self._probe_seconds = probe_seconds
        self._reader = reader
        self._writer = writer
        self._first = first
        self._codec = Codec()
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._full: set[Stream] = set()
        self._room = asyncio.Event()

    async def run(self, accept: Callable[[Stream], bool]) -> None:
        """Read until the peer leaves. *accept* is asked about each new stream, and answers whether it is taken."""
        try:
            data = self._first or await self._reader.read(CHUNK)
            while data:
                for frame in self._codec.receive(data):
                    if isinstance(frame, GoAway):
                        return
                    self._take(frame, accept)
                await self._writer.drain()
                while self._full:
                    await self._wait_for_room()
                data = await self._reader.read(CHUNK)
        except ProtocolError:
            await self.send(GoAway(self._last, GoAwayStatus.PROTOCOL_ERROR))
            raise
        finally:
            for stream in self._streams.values():
                stream.break_off()

    async def send(self, frame: Frame) -> None:
        """Write *frame* and wait until there is room for more. Raises `ConnectionError`."""
        if self._writer.is_closing():
            raise StreamClosed("the connection is closed")
        self._writer.write(self._codec.send(frame))
        await self._writer.drain()

    def not_full(self, stream: Stream) -> None:
        """*stream* has been read from."""
        self._full.discard(stream)
        self._room.set()

    def forget(self, stream: Stream) -> None:
        """Both sides of *stream* have ended."""
        self._streams.pop(stream.number, None)

    async def _wait_for_room(self) -> None:
        self._room.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._room.wait(), self._probe_seconds)
            return
        await self.send(Ping(2))

    def _take(self, frame: Frame, accept: Callable[[Stream], bool]) -> None:
        write = self._writer.write
        match frame:
            case SynStream(stream=number):
                if number <= self._last or number % 2 == 0:
                    write(self._codec.send(Reset(number, ResetStatus.PROTOCOL_ERROR)))
                    return
                self._last = number
                stream = Stream(self, number, frame.headers)
                if not accept(stream):
                    write(self._codec.send(Reset(number, ResetStatus.REFUSED_STREAM)))
                    return
                self._streams[number] = stream
                if frame.fin:
                    stream.receive(b"", fin=True)
                write(self._codec.send(SynReply(number)))
            case Data(stream=number):
                # Data of a stream that has gone away is on its way for a while; the peer drops ours as well.
                if number in self._streams and self._streams[number].receive(frame.data, fin=frame.fin):
                    self._full.add(self._streams[number])
            case Reset(stream=number):
                if number in self._streams:
                    stream = self._streams.pop(number)
                    stream.break_off()
                    self.not_full(stream)
            case Ping(number=number) if number % 2:
                write(self._codec.send(frame))
            case _:
                pass  # settings, windows, late headers, and the answer to our ping
