"""Virtual IP addresses of federated host names: unique, from 240.0.0.0/4, the same on every restart.

Source: reference, stable virtual IP of a federated hostname. Where that hash is free it is used, so an existing
installation keeps its addresses; where two names hash to one address, which begins at about 20,000 names, the first to
hold it keeps it and the other moves on. Who moved is remembered outside (`AddressBook.displaced`) and given back at the
start, so that nobody's address depends on the order in which clusters report.
"""

from __future__ import annotations

from collections.abc import Mapping

from isthmus.model.ref import Ref

_FNV_OFFSET, _FNV_PRIME = 2166136261, 16777619
_SERVICE, _LOCAL = b"kube-service", b"local-resource"
_LAST_BLOCK = 0xFF  # 255.0.0.0/8 holds the broadcast address; some systems refuse all of it


def fnv1(data: bytes) -> int:
    """32-bit FNV-1 (multiply, then xor) of *data*. Source: draft-eastlake-fnv-17, section 2."""
    value = _FNV_OFFSET
    for byte in data:
        value = (value * _FNV_PRIME & 0xFFFFFFFF) ^ byte
    return value


def candidate(service: Ref, attempt: int) -> str:
    """The *attempt*-th address to try for *service*, or a virtual destination; attempt 0 is the reference's hash.

    Never in 255.0.0.0/8: a hash that lands there is as good as taken.
    """
    scope = _SERVICE if service.cluster else _LOCAL
    name = f"{service.name}{service.namespace}{service.cluster}".encode() + scope
    if attempt:
        name += f"#{attempt}".encode()
    value = fnv1(name)
    first, second, third, fourth = value & 0xFF | 0xF0, value >> 8 & 0xFF, value >> 16 & 0xFF, value >> 24
    if first == _LAST_BLOCK:
        return candidate(service, attempt + 1)
    return f"{first}.{second}.{third}.{fourth}"


class AddressBook:
    """Hands out addresses to host names. An operator of the graph: it remembers who holds what.

    *displaced* is what an earlier book reported: host names that could not have their first candidate, with what they
    got instead. Given the same displaced names the result does not depend on the order of changes, except which of two
    newcomers of one run that meet on an address goes first: the one whose host name sorts first.
    """

    def __init__(self, displaced: Mapping[str, str] = {}) -> None:
        # Of two names with one address, as in a list that somebody edited, the first by name is believed.
        self._promised_to = {address: hostname for hostname, address in sorted(displaced.items(), reverse=True)}
        self._promised = {hostname: address for address, hostname in self._promised_to.items()}
        self._owners: dict[str, tuple[bool, Ref]] = {}
        self._holders: dict[str, str] = {}
        self._addresses: dict[str, str] = {}
        self._displaced: dict[str, str] = dict(self._promised)

    @property
    def displaced(self) -> dict[str, str]:
        """Address by host name, of those that could not have their first candidate."""
        return dict(self._displaced)

    def update(self, changes: Mapping[str, Ref | None], *, virtual: bool = False) -> dict[str, str | None]:
        """Addresses of the host names in *changes* (None: the name is gone), releasing before assigning.

        A name that now is another's, as that of a virtual destination may be, is as good as gone and come again.
        *virtual* says whose names these are, those of virtual destinations or of services: a name that has passed
        from the ones to the others keeps its address when the ones give it up. External services come with the former;
        a Destination's status key, which is no host name, stands for all names of one.
        """
        result: dict[str, str | None] = {}
        for hostname, service in changes.items():
            owner = self._owners.get(hostname)
            if owner is None or owner == (virtual, service):
                continue
            result[hostname] = None
            if service is not None or owner[0] == virtual:
                del self._owners[hostname], self._holders[self._addresses.pop(hostname)]
                self._forget(hostname)
        newcomers = [hostname for hostname in changes if changes[hostname] and hostname not in self._addresses]
        for hostname in sorted(newcomers) if len(newcomers) > 1 else newcomers:
            service = changes[hostname]
            assert service is not None
            result[hostname] = self._assign(hostname, service)
            self._owners[hostname] = virtual, service
        return result

    def _assign(self, hostname: str, service: Ref) -> str:
        address = self._promised.get(hostname)
        if address is None:
            first = address = candidate(service, 0)
            attempt = 0
            while address in self._holders or self._promised_to.get(address, hostname) != hostname:
                attempt += 1
                address = candidate(service, attempt)
            if address != first:
                self._displaced[hostname] = address
        self._holders[address] = hostname
        self._addresses[hostname] = address
        return address

    def _forget(self, hostname: str) -> None:
        if self._displaced.pop(hostname, None) is not None:
            promised = self._promised.pop(hostname, None)
            if promised is not None:
                self._promised_to.pop(promised, None)
