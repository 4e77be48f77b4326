"""What translation reads of a Destination of an external service, and what is wrong with it by itself.

Source: reference, Destination; what Istio refuses must never reach it:
https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import msgspec

from isthmus.api.discovery import Destination, ExternalService, ExternalServicePort
from isthmus.istio import objects as istio
from isthmus.model.hosts import MAX_LABEL, is_address, is_dns_name, is_label
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.ports import number_problems, protocol_problems, range_problems
from isthmus.translate.seniority import Seniority, seniority

PATH = "spec.externalService"
GENERATED = ipaddress.ip_network("240.0.0.0/4")
"""Where the addresses of host names are generated."""

_REQUESTS = (("HTTP", "HTTP2", "GRPC"), ("TCP",))
"""Protocols of ports to which requests may be sent as they are; the first group that a service has counts."""
_BY_NAME = ("HTTP", "HTTP2", "GRPC")
"""Protocols that tell host names at one address apart."""
_BY_SNI = ("HTTPS", "TLS")
"""Protocols of which istiod tells host names apart only where none has an address, by what clients ask for."""


class Written(msgspec.Struct, frozen=True, gc=False):
    """An external service as a user wrote it."""

    ref: Ref
    seniority: Seniority
    generation: int
    mesh: Ref | None
    service: ExternalService


class ExternalFacts(msgspec.Struct, frozen=True, gc=False):
    """A host outside any mesh that has no fault of its own."""

    ref: Ref
    seniority: Seniority
    mesh: Ref | None
    """The mesh whose virtual mesh knows it; None: all virtual meshes do."""
    name: str
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: tuple[istio.Port, ...]
    endpoints: tuple[istio.WorkloadEntry, ...]
    resolution: str

    @property
    def host(self) -> str | None:
        """The host name that routes go to; None if all have a wildcard."""
        return next((host for host in self.hosts if not host.startswith("*")), None)

    @property
    def needs_address(self) -> bool:
        """Whether an address is generated. Connections that go where their caller wants keep their own."""
        return not self.addresses and self.resolution != "NONE"

    def mixes_with(self, other: ExternalFacts) -> bool:
        """Whether proxies could not tell calls of this from those of *other* at one address."""
        mine, theirs = ({port.number: port.protocol for port in facts.ports} for facts in (self, other))
        return any({mine[number], theirs[number]} - {*_BY_NAME} for number in mine.keys() & theirs.keys())

    def ports_of_requests(self) -> tuple[istio.Port, ...]:
        """The ports to which requests may be sent, of those that say they speak HTTP if any does."""
        for protocols in _REQUESTS:
            found = tuple(port for port in self.ports if port.protocol in protocols)
            if found:
                return found
        return ()


def written(ref: Ref, destination: Destination) -> Written | None:
    """The external service of *destination*, None if it is of another kind."""
    service, mesh = destination.spec.external_service, destination.spec.mesh
    if service is None:
        return None
    generation = destination.metadata.generation
    return Written(ref, seniority(destination), generation, mesh.ref if mesh is not None else None, service)


def external_facts(found: Written) -> ExternalFacts:
    """Facts of *found*."""
    service = found.service
    hosts = tuple(dict.fromkeys(host.lower() for host in service.hosts))
    endpoints = tuple(istio.WorkloadEntry(address=each.address, ports=dict(each.ports)) for each in service.endpoints)
    return ExternalFacts(
        ref=found.ref,
        seniority=found.seniority,
        mesh=found.mesh,
        name=service.name or found.ref.name,
        hosts=hosts,
        addresses=service.addresses,
        ports=tuple(
            istio.Port(number=port.number, name=_name(port), protocol=port.protocol or "TCP") for port in service.ports
        ),
        endpoints=endpoints,
        resolution=_resolution(service),
    )


def problems_of(found: Written) -> tuple[Problem, ...]:
    """What is wrong with *found* whatever meshes there are."""
    service = found.service
    problems = [*_name_problems(service), *_host_problems(service), *_address_problems(service)]
    return (*problems, *_port_problems(service), *_endpoint_problems(service))


def _name(port: ExternalServicePort) -> str:
    return port.name or f"{(port.protocol or 'TCP').lower()}-{port.number}"


def _resolution(service: ExternalService) -> str:
    """How endpoints are found. Source: reference; a wildcard has no address in DNS, so callers say where they go."""
    if not service.endpoints:
        return "NONE" if all(host.startswith("*") for host in service.hosts) else "DNS"
    return "STATIC" if all(is_address(each.address) for each in service.endpoints) else "DNS"


# --- problems ---------------------------------------------------------------------------------------------------------


def _name_problems(service: ExternalService) -> Iterator[Problem]:
    if service.name and not is_dns_name(service.name):
        message = f"{service.name!r} is no name of an object: lower-case letters, digits, - and ., such as legacy"
        yield Problem(f"{PATH}.name", "InvalidName", message)


def _host_problems(service: ExternalService) -> Iterator[Problem]:
    if not service.hosts:
        yield Problem(f"{PATH}.hosts", "MissingField", "a host name is required, such as legacy.corp.example")
    wildcards = [host for host in service.hosts if host.startswith("*")]
    for i, host in enumerate(service.hosts):
        path, name = f"{PATH}.hosts[{i}]", host.lower().removeprefix("*.")
        if is_address(host):
            message = f"{host} is an address: give a host name, and the address in endpoints"
            yield Problem(path, "InvalidName", message)
        elif not is_dns_name(name):
            message = f"{host!r} is no DNS name such as legacy.corp.example or *.corp.example"
            yield Problem(path, "InvalidName", message)
        elif "." not in name and not host.startswith("*"):
            message = f"Istio takes {host!r} for a service of whoever calls: give a name with a dot"
            yield Problem(path, "InvalidName", message)
        elif host in wildcards and len(wildcards) < len(service.hosts) and not service.endpoints:
            message = f"DNS has no address of {host}: give endpoints, or write it in a Destination of its own"
            yield Problem(path, "Contradiction", message)
    anywhere = not service.addresses and _resolution(service) == "NONE"
    telling = (*_BY_NAME, *_BY_SNI) if anywhere else _BY_NAME
    mute = [protocol for port in service.ports if (protocol := port.protocol or "TCP") not in telling]
    if mute and len({host.lower() for host in service.hosts}) > 1:
        message = (
            f"at a port that speaks {mute[0]} several host names of one address are not told apart: write a "
            "Destination for each"
        )
        yield Problem(f"{PATH}.hosts", "Contradiction", message)


def _address_problems(service: ExternalService) -> Iterator[Problem]:
    for i, address in enumerate(service.addresses):
        path = f"{PATH}.addresses[{i}]"
        try:
            found = ipaddress.ip_network(address, strict=False)
        except ValueError:
            yield Problem(path, "InvalidAddress", f"{address!r} is no IP address or range such as 10.0.0.0/24")
            continue
        if found.version == GENERATED.version and found.overlaps(GENERATED):
            message = f"{address} is of {GENERATED}, from where addresses are generated: leave it out to get one"
            yield Problem(path, "Reserved", message)
        elif "/" in address and _resolution(service) == "DNS":
            message = f"{address} is a range, which needs endpoints that are IP addresses"
            yield Problem(path, "Contradiction", message)


def _port_problems(service: ExternalService) -> Iterator[Problem]:
    if not service.ports:
        yield Problem(f"{PATH}.ports", "MissingField", "a port is required: its number, and the protocol")
    numbers: set[int] = set()
    names: set[str] = set()
    for i, port in enumerate(service.ports):
        path, name = f"{PATH}.ports[{i}]", _name(port)
        yield from number_problems(port.number, path, numbers)
        numbers.add(port.number)
        # A port without a name has one that is made of its protocol.
        yield from tuple(protocol_problems(port.protocol, path)) or _port_name_problems(name, f"{path}.name", names)
        names.add(name)


def _port_name_problems(name: str, path: str, others: set[str]) -> Iterator[Problem]:
    if not is_label(name):
        message = f"{name!r} is no name of a port: at most {MAX_LABEL} lower-case letters, digits and -"
        yield Problem(path, "InvalidName", message)
    elif name in others:
        yield Problem(path, "Duplicate", f"{name} is the name of two ports")


def _endpoint_problems(service: ExternalService) -> Iterator[Problem]:
    names = [_name(port) for port in service.ports]
    for i, endpoint in enumerate(service.endpoints):
        path = f"{PATH}.endpoints[{i}]"
        if not (is_address(endpoint.address) or is_dns_name(endpoint.address)):
            message = f"{endpoint.address!r} is no IP address, and no host name in lower case"
            yield Problem(f"{path}.address", "InvalidAddress", message)
        for name, number in endpoint.ports.items():
            if name not in names:
                message = f"names no port of the service; its ports: {', '.join(names) or 'none'}"
                yield Problem(f"{path}.ports[{name!r}]", "NotFound", message)
            else:
                yield from range_problems(number, f"{path}.ports[{name!r}]")
