"""What the east-west gateways of a mesh need to pass calls by SNI on to the pods of one of its services.

A ServiceEntry that selects the pods, so that istiod follows them by itself: calls of other clusters go on while nobody
but istiod lives. It selects only in its own namespace, hence the entry is in the service's, exported to the gateways'.
Source: https://istio.io/latest/docs/reference/config/networking/service-entry/
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from isthmus.api.discovery import ServicePort
from isthmus.istio import objects as istio
from isthmus.translate.facts import EndpointFacts, ServiceFacts
from isthmus.translate.federation.objects import ISTIO_MUTUAL, Pairs, metadata, subsets
from isthmus.translate.ports import spoken_on

# Without it Istio takes an endpoint that is listed for one without a sidecar, and gives gateways none of those.
MUTUAL_TLS = {"security.istio.io/tlsMode": "istio"}


class Asked(NamedTuple):
    """The *number* of a port that callers ask for, and the service's port that answers."""

    number: int
    port: ServicePort


def local_entry(
    hostname: str,
    service: ServiceFacts,
    asked: Iterable[Asked],
    facts: EndpointFacts | None,
    gateways: tuple[str, ...],
    annotations: dict[str, str],
) -> istio.ServiceEntry:
    """The ServiceEntry by which gateways in the namespaces *gateways*, of which there are some, find the pods.

    *facts* are only read where `reads_endpoints` says so. A service without a selector, or whose pods answer to one
    name at different numbers, has its endpoints listed.
    """
    asked = tuple(asked)
    selecting = _selecting_ports(asked, facts) if service.selector else None
    listed = _listed(asked, facts) if selecting is None and facts is not None else ()
    return istio.ServiceEntry(
        metadata=metadata(hostname, service.service.namespace, annotations),
        spec=istio.ServiceEntrySpec(
            hosts=(hostname,),
            ports=selecting or tuple(_port(each) for each in asked),
            location="MESH_INTERNAL",
            resolution="STATIC",
            workload_selector=istio.ProxySelector(labels=service.selector) if selecting else None,
            endpoints=listed,
            export_to=gateways,
        ),
    )


def local_rule(
    hostname: str,
    service: ServiceFacts,
    wanted: Iterable[Pairs],
    gateways: tuple[str, ...],
    annotations: dict[str, str],
) -> istio.DestinationRule:
    """The DestinationRule beside the local entry, by which gateways tell subsets apart. Only needed if any are."""
    return istio.DestinationRule(
        metadata=metadata(hostname, service.service.namespace, annotations),
        spec=istio.DestinationRuleSpec(
            host=hostname,
            traffic_policy=istio.DestinationTraffic(tls=ISTIO_MUTUAL),
            subsets=subsets(wanted),
            export_to=gateways,
        ),
    )


def reads_endpoints(service: ServiceFacts) -> bool:
    """Whether the local entry of *service* depends on its endpoints."""
    return not service.selector or any(port.target_port_name for port in service.ports)


def _selecting_ports(asked: tuple[Asked, ...], facts: EndpointFacts | None) -> tuple[istio.Port, ...] | None:
    """Ports that lead to the right numbers of selected pods; None if no port of a ServiceEntry can say it.

    Since Istio 1.15 the number that a pod's container gives to the port's name comes first, then the target port; so a
    target by name is followed from pod to pod, and before, it is where all endpoints answer.
    """
    ports: dict[str, istio.Port] = {}
    for each in asked:
        target = each.port.target_port_name
        if not target:
            port = _port(each, each.port.target_port_number or each.port.port)
        else:
            numbers = _numbers(each.port, facts)
            if len(numbers) > 1 or (target in ports and not numbers):
                return None
            port = _port(each, next(iter(numbers), 0))
            if target not in ports:
                port = istio.Port(number=port.number, name=target, protocol=port.protocol, target_port=port.target_port)
        ports[port.name] = port
    return tuple(ports.values())


def _numbers(port: ServicePort, facts: EndpointFacts | None) -> set[int]:
    """The numbers at which endpoints answer for *port*."""
    subsets = facts.subsets if facts is not None else ()
    return {found.port for subset in subsets for found in subset.ports if found.name == port.name}


def _port(asked: Asked, target: int = 0) -> istio.Port:
    # Sixteen characters or more are no name of a container's port, which would come before the target port.
    name = f"east-west-port-{asked.number}"
    # As Istio reads the service's own port: it says so when two hosts of one pod differ.
    return istio.Port(number=asked.number, name=name, protocol=spoken_on(asked.port), target_port=target)


def _listed(asked: tuple[Asked, ...], facts: EndpointFacts) -> tuple[istio.WorkloadEntry, ...]:
    return tuple(
        istio.WorkloadEntry(address=endpoint.ip_address, ports=numbers, labels={**endpoint.labels, **MUTUAL_TLS})
        for subset in facts.subsets
        if (numbers := {_port(each).name: found.port for each in asked for found in subset.ports
                        if found.name == each.port.name})
        for endpoint in subset.endpoints
    )  # fmt: skip
