"""SPDY framing: what goes in at one end comes out at the other, and nothing else does."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.kubelet.spdy import (
    DICTIONARY,
    MAX_CONTROL,
    MAX_HEADERS,
    Codec,
    Data,
    Frame,
    GoAway,
    MoreHeaders,
    Ping,
    ProtocolError,
    Reset,
    ResetStatus,
    Settings,
    SynReply,
    SynStream,
    WindowUpdate,
)

words = st.integers(0, 2**31 - 1)
streams = st.integers(1, 2**31 - 1)
headers = st.dictionaries(
    st.sampled_from(["streamtype", "port", "requestid", ":path", "x-other"]) | st.text("abcdefghij-", min_size=1),
    st.sampled_from(["error", "data", "8080"]) | st.text(max_size=40),
    max_size=5,
)
frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(
        SynStream,
        streams,
        headers,
        fin=st.booleans(),
        unidirectional=st.booleans(),
        associated=words,
        priority=st.integers(0, 7),
    ),
    st.builds(SynReply, streams, headers, st.booleans()),
    st.builds(MoreHeaders, streams, headers, st.booleans()),
    st.builds(Data, streams, st.binary(max_size=300), st.booleans()),
    st.builds(Reset, streams, st.integers(0, 2**32 - 1)),
    st.builds(Ping, st.integers(0, 2**32 - 1)),
    st.builds(GoAway, words, st.integers(0, 2**32 - 1)),
    st.builds(Settings, st.dictionaries(st.integers(0, 2**24 - 1), st.integers(0, 2**32 - 1), max_size=4)),
    st.builds(WindowUpdate, words, words),
)


@given(st.lists(frames, max_size=12), st.lists(st.integers(1, 60), min_size=1))
def test_frames_arrive_as_sent_however_they_are_cut(sent: list[Frame], cuts: list[int]) -> None:
    """Both codecs keep one compression state over all header blocks, and no piece of input is too small."""
    ours, theirs = Codec(), Codec()
    wire = b"".join(ours.send(frame) for frame in sent)

    received: list[Frame] = []
    at = turn = 0
    while at < len(wire):
        size = cuts[turn % len(cuts)]
        received += theirs.receive(wire[at : at + size])
        at, turn = at + size, turn + 1

    assert received == sent


@given(st.lists(frames, max_size=3), st.binary(max_size=400), st.integers(0, 200))
def test_any_input_is_frames_or_a_protocol_error(sent: list[Frame], noise: bytes, at: int) -> None:
    """A peer that talks nonsense, also in the middle of sense, cannot make the codec fail in another way."""
    wire = b"".join(Codec().send(frame) for frame in sent)
    codec = Codec()

    with suppress(ProtocolError):
        codec.receive(wire[:at] + noise + wire[at:])


def test_dictionary_is_that_of_the_specification() -> None:
    """0xe3c6a7c2 is what every SPDY/3 peer's first header block names, after the two bytes of zlib's header."""
    assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2
    block = Codec().send(SynReply(1))[12:]
    assert block[2:6] == bytes.fromhex("e3c6a7c2")


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (Ping(1), "80030006 00000004 00000001"),
        (Reset(3, ResetStatus.CANCEL), "80030003 00000008 00000003 00000005"),
        (GoAway(7), "80030007 00000008 00000007 00000000"),
        (WindowUpdate(5, 4096), "80030009 00000008 00000005 00001000"),
        (Settings({4: 100}), "80030004 0000000c 00000001 00000004 00000064"),
        (Data(5, b"hello", fin=True), "00000005 01000005 68656c6c6f"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_frames_are_laid_out_as_specified(frame: Frame, wire: str) -> None:
    """Section 2.6 of the draft."""
    assert Codec().send(frame) == bytes.fromhex(wire)
    assert Codec().receive(bytes.fromhex(wire)) == [frame]


def test_headers_are_compressed_from_one_block_to_the_next() -> None:
    """The second stream of a connection costs a few bytes."""
    codec = Codec()
    first = codec.send(SynStream(1, {"streamtype": "error", "port": "15014", "requestid": "0"}))
    second = codec.send(SynStream(3, {"streamtype": "error", "port": "15014", "requestid": "0"}))
    assert len(second) < len(first) / 2


def test_unknown_control_frames_are_skipped() -> None:
    """As the draft asks, so that a newer peer can be talked to."""
    unknown = bytes.fromhex("8003000a 00000006 000000000000")  # CREDENTIAL
    assert Codec().receive(unknown + Codec().send(Ping(1))) == [Ping(1)]


def _syn_reply(block: bytes) -> bytes:
    return struct.pack(">III", 0x80030002, 4 + len(block), 1) + block


def _compressed(plain: bytes) -> bytes:
    deflate = zlib.compressobj(zdict=DICTIONARY)
    return deflate.compress(plain) + deflate.flush(zlib.Z_SYNC_FLUSH)


@pytest.mark.parametrize(
    ("wire", "problem"),
    [
        (bytes.fromhex("80020006 00000004 00000001"), "version 2"),
        (bytes.fromhex("00000000 00000001 78"), "stream 0"),
        (bytes.fromhex("80030003 00000008 00000000 00000001"), "stream 0"),
        (bytes.fromhex("80030003 00000004 00000001"), "too short"),
        (bytes.fromhex("80030004 00000008 00000002 00000001"), "2 settings"),
        (struct.pack(">II", 0x80030008, MAX_CONTROL + 1), "control frame of"),
        (_syn_reply(b"not zlib at all"), "do not decompress"),
        (_syn_reply(b""), "too short"),
        (_syn_reply(_compressed(struct.pack(">II", 1, 4) + b"abc")), "end too early"),
        (_syn_reply(_compressed(struct.pack(">I", 2**32 - 1))), "too short"),
        (_syn_reply(_compressed(bytes(MAX_HEADERS + 1))), "more than"),
    ],
)
def test_what_is_not_spdy_is_refused(wire: bytes, problem: str) -> None:
    """Each with a text that says what was found; a small block that inflates without end among them."""
    with pytest.raises(ProtocolError, match=problem):
        Codec().receive(wire)


def test_data_too_large_for_a_frame_is_a_mistake_of_ours() -> None:
    """The length has 24 bits; the next frame would be read from the middle of this one."""
    with pytest.raises(ValueError, match="do not fit"):
        Codec().send(Data(1, bytes(2**24)))
