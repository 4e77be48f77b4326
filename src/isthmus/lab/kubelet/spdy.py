"""The frames of SPDY/3.1, which kube-apiserver and kubectl speak to a kubelet: bytes in, frames out. Knows no sockets.

Owns framing and header compression. What a stream means, who may open one and how fast data flows is `streams.py`.
Both ends use the same class, as the format has no sides. Flow control is left out as the other end does
(github.com/moby/spdystream sends no WINDOW_UPDATE and ignores those that come): TCP's own is all there is.
Source: SPDY protocol, draft 3.1, https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

VERSION = 3
MAX_DATA = 2**24 - 1  # a frame's length has 24 bits
MAX_CONTROL = 2**16  # headers name a stream and a port, no more
MAX_HEADERS = 2**18  # of a header block once it is decompressed

FIN = 0x01
UNIDIRECTIONAL = 0x02

# Section 2.6.10.1: what both ends take as sent before the first header. Words with their lengths, then text.
_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age allow "
    "authorization cache-control connection content-base content-encoding content-language content-length "
    "content-location content-md5 content-range content-type date etag expect expires from host if-match "
    "if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade "
    "user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie "
    "keep-alive origin"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,"
    "publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)
DICTIONARY = (
    b"".join(struct.pack(">I", len(word)) + word.replace("_", " ").encode() for word in _WORDS.split()) + _TEXT.encode()
)

Headers = Mapping[str, str]
"""Names in lower case; several values of one name stand in one string, a NUL between them, as on the wire."""


class ProtocolError(Exception):
    """The other end sent what is not SPDY/3.1; nothing after it can be read."""


class ResetStatus(IntEnum):
    """Why a stream was reset."""

    PROTOCOL_ERROR = 1
    INVALID_STREAM = 2
    REFUSED_STREAM = 3
    UNSUPPORTED_VERSION = 4
    CANCEL = 5
    INTERNAL_ERROR = 6
    FLOW_CONTROL_ERROR = 7


class GoAwayStatus(IntEnum):
    """Why a connection takes no more streams."""

    OK = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2


@dataclass(frozen=True)
class SynStream:
    """Opens a stream; numbers of clients are odd, and grow."""

    stream: int
    headers: Headers = field(default_factory=dict)
    fin: bool = False
    unidirectional: bool = False
    associated: int = 0
    priority: int = 0


@dataclass(frozen=True)
class SynReply:
    """Accepts a stream; the peer drops data that precedes it."""

    stream: int
    headers: Headers = field(default_factory=dict)
    fin: bool = False


@dataclass(frozen=True)
class Reset:
    """Ends a stream in both directions; *status* is a `ResetStatus` unless the peer knows more."""

    stream: int
    status: int


@dataclass(frozen=True)
class Settings:
    """Values by their id; nothing here depends on them."""

    values: Mapping[int, int]


@dataclass(frozen=True)
class Ping:
    """Asks for the same frame in return; clients use odd numbers, servers even ones."""

    number: int


@dataclass(frozen=True)
class GoAway:
    """No more streams; *last* is the last one that was taken."""

    last: int
    status: int = GoAwayStatus.OK


@dataclass(frozen=True)
class MoreHeaders:
    """Headers that come after a stream's first ones."""

    stream: int
    headers: Headers
    fin: bool = False


@dataclass(frozen=True)
class WindowUpdate:
    """The peer has room for *size* more bytes; ignored, as the peer does."""

    stream: int
    size: int


@dataclass(frozen=True)
class Data:
    """Bytes of a stream; with *fin* the last of this direction."""

    stream: int
    data: bytes
    fin: bool = False


Frame = SynStream | SynReply | Reset | Settings | Ping | GoAway | MoreHeaders | WindowUpdate | Data

_SYN_STREAM, _SYN_REPLY, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _HEADERS, _WINDOW_UPDATE = 1, 2, 3, 4, 6, 7, 8, 9
_HEAD = struct.Struct(">II")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")
_SYN = struct.Struct(">IIBB")
_STREAM_BITS = 2**31 - 1


class Codec:
    """One end of a connection. Header blocks share a compression state, so frames go out in the order they are made."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)
        self._deflate = zlib.compressobj(zdict=DICTIONARY)

    def send(self, frame: Frame) -> bytes:
        """*frame* as bytes to write."""
        match frame:
            case Data():
                return _HEAD.pack(frame.stream, _length(frame.data, frame.fin)) + frame.data
            case SynStream():
                flags = FIN * frame.fin | UNIDIRECTIONAL * frame.unidirectional
                first = _SYN.pack(frame.stream, frame.associated, frame.priority << 5, 0)
                return _control(_SYN_STREAM, first + self._compress(frame.headers), flags)
            case SynReply():
                return _control(_SYN_REPLY, _WORD.pack(frame.stream) + self._compress(frame.headers), frame.fin)
            case MoreHeaders():
                return _control(_HEADERS, _WORD.pack(frame.stream) + self._compress(frame.headers), frame.fin)
            case Reset():
                return _control(_RST_STREAM, _TWO_WORDS.pack(frame.stream, frame.status))
            case Ping():
                return _control(_PING, _WORD.pack(frame.number))
            case GoAway():
                return _control(_GOAWAY, _TWO_WORDS.pack(frame.last, frame.status))
            case WindowUpdate():
                return _control(_WINDOW_UPDATE, _TWO_WORDS.pack(frame.stream, frame.size))
            case Settings():
                pairs = b"".join(_TWO_WORDS.pack(number, value) for number, value in frame.values.items())
                return _control(_SETTINGS, _WORD.pack(len(frame.values)) + pairs)

    def receive(self, data: bytes) -> list[Frame]:
        """The frames that *data* completes. Raises `ProtocolError`."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            first, second = _HEAD.unpack_from(buffer, start)
            flags, length = second >> 24, second & MAX_DATA
            control = bool(first >> 31)
            if control and length > MAX_CONTROL:
                raise ProtocolError(f"a control frame of {length} bytes")
            end = start + _HEAD.size + length
            if end > len(buffer):
                break
            body = bytes(buffer[start + _HEAD.size : end])
            start = end
            if not control:
                frames.append(Data(_stream(first), body, bool(flags & FIN)))
                continue
            if first >> 16 & 0x7FFF != VERSION:
                raise ProtocolError(f"a frame of version {first >> 16 & 0x7FFF}, not {VERSION}")
            # "If an endpoint receives a control frame for a type it does not recognize, it must ignore the frame."
            parse = _PARSERS.get(first & 0xFFFF)
            if parse is not None:
                try:
                    frames.append(parse(self, body, flags))
                except struct.error:
                    raise ProtocolError(f"a control frame of type {first & 0xFFFF} is too short") from None
        del buffer[:start]
        return frames

    def _syn_stream(self, body: bytes, flags: int) -> Frame:
        stream, associated, priority, _ = _SYN.unpack_from(body)
        return SynStream(
            stream=_stream(stream),
            headers=self._decompress(body[_SYN.size :]),
            fin=bool(flags & FIN),
            unidirectional=bool(flags & UNIDIRECTIONAL),
            associated=associated & _STREAM_BITS,
            priority=priority >> 5,
        )

    def _syn_reply(self, body: bytes, flags: int) -> Frame:
        return SynReply(_stream(*_WORD.unpack_from(body)), self._decompress(body[_WORD.size :]), bool(flags & FIN))

    def _more_headers(self, body: bytes, flags: int) -> Frame:
        return MoreHeaders(_stream(*_WORD.unpack_from(body)), self._decompress(body[_WORD.size :]), bool(flags & FIN))

    def _reset(self, body: bytes, _: int) -> Frame:
        stream, status = _TWO_WORDS.unpack_from(body)
        return Reset(_stream(stream), status)

    def _ping(self, body: bytes, _: int) -> Frame:
        return Ping(*_WORD.unpack_from(body))

    def _go_away(self, body: bytes, _: int) -> Frame:
        last, status = _TWO_WORDS.unpack_from(body)
        return GoAway(last & _STREAM_BITS, status)

    def _window_update(self, body: bytes, _: int) -> Frame:
        stream, size = _TWO_WORDS.unpack_from(body)
        return WindowUpdate(stream & _STREAM_BITS, size & _STREAM_BITS)

    def _settings(self, body: bytes, _: int) -> Frame:
        (count,) = _WORD.unpack_from(body)
        pairs = body[_WORD.size :]
        if len(pairs) != _TWO_WORDS.size * count:
            raise ProtocolError(f"{count} settings in {len(pairs)} bytes")
        return Settings({number & 0xFFFFFF: value for number, value in _TWO_WORDS.iter_unpack(pairs)})

    def _compress(self, headers: Headers) -> bytes:
        parts = [_WORD.pack(len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode(), value.encode()):
                parts += _WORD.pack(len(text)), text
        return self._deflate.compress(b"".join(parts)) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def _decompress(self, block: bytes) -> Headers:
        try:
            plain = self._inflate.decompress(block, MAX_HEADERS)
        except zlib.error as error:
            raise ProtocolError(f"headers that do not decompress: {error}") from None
        if self._inflate.unconsumed_tail:
            raise ProtocolError(f"headers of more than {MAX_HEADERS} bytes")
        (count,) = _WORD.unpack_from(plain)
        texts, at = [], _WORD.size
        for _ in range(2 * count):
            (size,) = _WORD.unpack_from(plain, at)
            at += _WORD.size
            if at + size > len(plain):
                raise ProtocolError("headers that end too early")
            texts.append(plain[at : at + size].decode(errors="replace"))
            at += size
        return dict(zip(texts[::2], texts[1::2], strict=True))


_PARSERS: Mapping[int, Callable[[Codec, bytes, int], Frame]] = {
    _SYN_STREAM: Codec._syn_stream,
    _SYN_REPLY: Codec._syn_reply,
    _RST_STREAM: Codec._reset,
    _SETTINGS: Codec._settings,
    _PING: Codec._ping,
    _GOAWAY: Codec._go_away,
    _HEADERS: Codec._more_headers,
    _WINDOW_UPDATE: Codec._window_update,
}


def _control(kind: int, body: bytes, flags: int = 0) -> bytes:
    return _HEAD.pack(1 << 31 | VERSION << 16 | kind, flags << 24 | len(body)) + body


def _length(data: bytes, fin: bool) -> int:
    if len(data) > MAX_DATA:
        raise ValueError(f"{len(data)} bytes do not fit a frame")
    return FIN * fin << 24 | len(data)


def _stream(number: int) -> int:
    number &= _STREAM_BITS
    if number == 0:
        raise ProtocolError("a frame of stream 0")
    return number
