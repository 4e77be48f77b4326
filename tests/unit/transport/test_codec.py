"""Frames survive the wire, and names in certificates match as they should."""

from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.relay import frames
from isthmus.transport.codec import decode, encode
from isthmus.transport.dial import Target
from isthmus.transport.tls import names_server
from isthmus.wire import relay_pb2 as wire

texts = st.text(st.characters(codec="utf-8"), max_size=20)
counts = st.integers(0, 2**64 - 1)
entries = st.builds(frames.Entry, texts, st.binary(), st.binary())
every_frame = st.one_of(
    st.builds(frames.Hello, st.integers(0, 2**32 - 1), texts, texts),
    st.builds(frames.Beat),
    st.builds(frames.Offer, st.binary(), st.booleans()),
    st.builds(frames.Compare, st.integers(0, 2**32 - 1), st.binary()),
    st.builds(frames.Table, st.binary(), st.binary(), st.booleans()),
    st.builds(frames.Want, st.binary(), st.binary(), st.booleans()),
    st.builds(frames.Part, texts, st.binary(), counts, st.binary()),
    st.builds(
        frames.Changes,
        st.lists(entries).map(tuple),
        st.lists(texts).map(tuple),
        st.binary(),
        st.booleans(),
        counts,
        st.booleans(),
    ),
    st.builds(frames.Ack, counts, counts),
    st.builds(frames.Resync, texts),
)


@given(every_frame)
def test_a_frame_survives_the_wire(frame):
    assert decode(wire.Frame.FromString(encode(frame).SerializeToString())) == frame


def test_every_frame_is_on_the_wire():
    """A frame that one of the two lists lacks would be lost silently."""
    assert {kind.__name__.lower() for kind in typing.get_args(frames.Frame)} == {
        field.name for field in wire.Frame.DESCRIPTOR.fields
    }


def test_an_unknown_frame_is_a_fault():
    with pytest.raises(frames.ProtocolFault, match="does not know"):
        decode(wire.Frame())


@pytest.mark.parametrize(
    ("names", "authority", "fits"),
    [
        (("*.gloo-mesh",), "enterprise-networking.gloo-mesh", True),
        (("*.gloo-mesh",), "Enterprise-Networking.Gloo-Mesh.", True),
        (("*.gloo-mesh",), "a.b.gloo-mesh", False),
        (("*.gloo-mesh",), "gloo-mesh", False),
        (("*.gloo-mesh",), "evil-gloo-mesh", False),
        (("other", "relay.example.com"), "relay.example.com", True),
        (("*",), "relay", False),
        (("*",), "relay.example.com", False),
        (("10.0.0.1",), "10.0.0.1", True),
        ((), "relay", False),
    ],
)
def test_names_of_servers(names, authority, fits):
    assert names_server(names, authority) is fits


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("relay.example.com:9900", "relay.example.com", 9900), ("[2001:db8::1]:9900", "2001:db8::1", 9900)],
)
def test_addresses(address, host, port):
    target = Target.parse(address, "a")

    assert (target.host, target.port) == (host, port)
    assert target.address == address


@pytest.mark.parametrize("address", ["", "relay", "relay:", ":9900", "https://relay:9900", "::1:9900", "relay:99999"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ValueError, match="is not an address such as"):
        Target.parse(address, "a")
