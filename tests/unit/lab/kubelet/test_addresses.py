"""Addresses are given once, and again as late as can be."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.kubelet.addresses import Addresses, NoAddress


def test_an_address_that_came_back_is_the_last_to_be_given() -> None:
    addresses = Addresses(IPv4Network("10.0.0.0/29"))
    first = addresses.take()
    addresses.give_back(first)

    given_then = [addresses.take() for _ in range(6)]

    assert len(set(given_then)) == 6
    assert given_then[-1] == first
    with pytest.raises(NoAddress, match=r"10\.0\.0\.0/29"):
        addresses.take()


@given(st.lists(st.booleans(), max_size=60))
def test_no_two_have_the_same(steps: list[bool]) -> None:
    network = IPv4Network("10.0.0.0/28")
    addresses, held = Addresses(network), list[IPv4Address]()

    for take in steps:
        if take and len(held) < 14:
            held.append(addresses.take())
        elif held:
            addresses.give_back(held.pop(0))
        assert len(set(held)) == len(held)
        assert set(held) <= set(network.hosts())
