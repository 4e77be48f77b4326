"""Hands out the addresses of a network. No I/O."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network


class NoAddress(Exception):
    """Every address is in use; the text names the network."""


class Addresses:
    """The addresses of *network*. One that came back is given again as late as can be.

    Proxies and connection tracking remember an address for some time after its pod is gone.
    """

    def __init__(self, network: IPv4Network) -> None:
        self._network = network
        self._size = network.num_addresses
        self._last = 0
        self._used: set[IPv4Address] = set()

    def take(self) -> IPv4Address:
        """The next free address. Raises `NoAddress`."""
        for step in range(1, self._size):
            place = (self._last + step) % self._size
            address = self._network[place]
            if place not in (0, self._size - 1) and address not in self._used:
                self._last = place
                self._used.add(address)
                return address
        raise NoAddress(f"no free address in {self._network}")

    def give_back(self, address: IPv4Address) -> None:
        """*address* is free again."""
        self._used.discard(address)
