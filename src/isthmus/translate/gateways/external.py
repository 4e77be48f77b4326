"""Destinations outside any mesh that routes of gateways go to.

Source: reference, Destination; https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

import ipaddress

import msgspec

from isthmus.api.discovery import Destination, ExternalEndpoint, ExternalServicePort, ServicePort
from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.federation.objects import metadata
from isthmus.translate.gateways.objects import object_name
from isthmus.translate.traffic.routes import Reachable, Unreachable


class ExternalFacts(msgspec.Struct, frozen=True, gc=False):
    """A host outside any mesh."""

    ref: Ref
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    ports: tuple[ExternalServicePort, ...]
    endpoints: tuple[ExternalEndpoint, ...]


def external_facts(ref: Ref, destination: Destination) -> ExternalFacts | None:
    """Facts of a host outside any mesh, None for any other destination."""
    external = destination.spec.external_service
    if external is None:
        return None
    return ExternalFacts(ref, external.hosts, external.addresses, external.ports, external.endpoints)


def reach_external(facts: ExternalFacts | None) -> Reachable | Unreachable:
    """*facts* as gateways know them by `external_entry`."""
    if facts is None:
        return Unreachable("there is no Destination of an external service with this name yet", later=True)
    host = next((host for host in facts.hosts if "*" not in host), None)
    if host is None:
        return Unreachable("it has no host name without *, so that nothing tells where requests go")
    return Reachable(host, tuple(ServicePort(port=p.number, name=p.name, protocol=p.protocol) for p in facts.ports))


def external_entry(facts: ExternalFacts, namespace: str, annotations: dict[str, str]) -> istio.ServiceEntry:
    """The ServiceEntry by which the gateways in *namespace*, and nobody else, know *facts*."""
    endpoints = tuple(istio.WorkloadEntry(address=each.address, ports=dict(each.ports)) for each in facts.endpoints)
    static = bool(endpoints) and all(_is_ip(each.address) for each in endpoints)
    return istio.ServiceEntry(
        metadata=metadata(object_name(facts.ref.name, facts.ref.namespace), namespace, annotations),
        spec=istio.ServiceEntrySpec(
            hosts=tuple(host for host in facts.hosts if "*" not in host),
            addresses=facts.addresses,
            ports=tuple(
                istio.Port(number=port.number, name=port.name or f"port-{port.number}", protocol=port.protocol or "TCP")
                for port in facts.ports
            ),
            location="MESH_EXTERNAL",
            resolution="STATIC" if static else "DNS",
            endpoints=endpoints,
            export_to=(".",),
        ),
    )


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
