"""Every Service of type LoadBalancer has an address, and keeps it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.load_balancers import Key, give

RANGE = IPv4Network("203.0.113.16/28")
FIRST, SECOND = IPv4Address("203.0.113.17"), IPv4Address("203.0.113.18")


def service(*, kind: str = "LoadBalancer", wants: str = "", has: str = "") -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "x", "uid": "u"},
        "spec": {"type": kind, **({"loadBalancerIP": wants} if wants else {})},
        "status": {"loadBalancer": {"ingress": [{"ip": has}]} if has else {}},
    }


def key(name: str) -> Key:
    return "shop", name


def test_addresses_come_in_order_of_names_and_only_to_load_balancers() -> None:
    services = {key("b"): service(), key("a"): service(), key("c"): service(kind="ClusterIP")}

    assert give(services, {}, RANGE) == {key("a"): FIRST, key("b"): SECOND}


def test_who_has_an_address_keeps_it() -> None:
    services = {key("a"): service(), key("b"): service(has=str(FIRST))}

    assert give(services, {}, RANGE) == {key("a"): SECOND, key("b"): FIRST}


def test_who_asks_for_an_address_gets_it_first() -> None:
    services = {key("a"): service(has=str(FIRST)), key("b"): service(wants=str(FIRST))}

    assert give(services, {}, RANGE) == {key("a"): SECOND, key("b"): FIRST}


def test_an_address_from_elsewhere_is_not_given() -> None:
    services = {key("a"): service(wants="192.0.2.1"), key("b"): service(wants="nonsense")}

    assert give(services, {}, RANGE) == {key("a"): FIRST, key("b"): SECOND}


def test_a_service_that_comes_back_has_its_address_again() -> None:
    before = {key("gone"): FIRST}

    others = give({key("a"): service()}, before, RANGE)
    back = give({key("a"): service(has=str(others[key("a")])), key("gone"): service()}, before, RANGE)

    assert back == {key("a"): SECOND, key("gone"): FIRST}


@given(st.sets(st.text("abcdefgh", min_size=1, max_size=3), max_size=20))
def test_no_two_share_an_address_and_none_goes_to_waste(names: set[str]) -> None:
    given_addresses = give({key(name): service() for name in names}, {}, RANGE)

    assert len(set(given_addresses.values())) == len(given_addresses) == min(len(names), 14)
    assert set(given_addresses.values()) <= set(RANGE.hosts())
