"""The Istio objects of one virtual destination.

Clients see the host name with every place where it is answered: the pods of their own cluster, and the gateways of the
others. What they send to a gateway names an *alias* (`alias_of`), which each gateway's cluster knows with its own pods
alone; so a call never travels on to a third cluster.
Source: reference, VirtualDestination; https://istio.io/latest/docs/tasks/traffic-management/locality-load-balancing/
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from isthmus.istio import objects as istio
from isthmus.model.names import MAX_NAME, sanitize
from isthmus.model.ref import Ref
from isthmus.translate.facts import EndpointFacts, MeshFacts, ServiceFacts
from isthmus.translate.federation.local import MUTUAL_TLS
from isthmus.translate.federation.objects import Pairs, metadata, subset_name
from isthmus.translate.virtual_destinations.facts import VirtualDestinationFacts, VirtualPort

WEIGHT_UNIT = 1000  # so that shares stay right within 0.1 % when they are divided among pods
MARK = "true"


class Backing(msgspec.Struct, frozen=True, gc=False):
    """A service behind a host name, and the mesh that it is in."""

    service: ServiceFacts
    mesh: MeshFacts


class Place(msgspec.Struct, frozen=True, order=True, gc=False):
    """Pods of one service that carry the same labels of subsets, and the locality of all; *weight* counts them."""

    locality: str
    labels: Pairs
    weight: int


def object_name(virtual: Ref) -> str:
    """Name of the objects of a virtual destination; two may share it. Source: reference."""
    return sanitize(f"{virtual.name}-{virtual.namespace}")


def alias_of(virtual: Ref, suffix: str) -> str:
    """The name under which gateways know the pods of their own cluster that are behind *virtual*."""
    # An object's name may be longer than DNS lets what is between two dots be.
    name = virtual.name if len(virtual.name) <= MAX_NAME else sanitize(virtual.name)
    return f"{name}.{virtual.namespace}.backing.{suffix}"


def is_alias(hostname: str, suffix: str) -> bool:
    """Whether `alias_of` some virtual destination may be *hostname*."""
    return hostname.endswith(f".backing.{suffix}")


def pod_endpoints(
    facts: EndpointFacts, service: ServiceFacts, ports: Sequence[VirtualPort], region: str
) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints at the pods of *service*, with their labels and localities."""
    found = []
    for subset in facts.subsets:
        by_name = {port.name: port.port for port in subset.ports}
        targets = ((port, port.of(service.ports)) for port in ports)
        numbers = {port.name: by_name[target.name] for port, target in targets if target and target.name in by_name}
        for endpoint in subset.endpoints if len(numbers) == len(ports) else ():
            below = endpoint.sub_locality
            found.append(
                istio.WorkloadEntry(
                    address=endpoint.ip_address,
                    ports=numbers,
                    labels={**endpoint.labels, **MUTUAL_TLS},
                    locality=locality(region, below.zone if below else "", below.sub_zone if below else ""),
                )
            )
    return tuple(found)


def gateway_endpoints(
    entries: Sequence[tuple[str, int]], places: Sequence[Place], ports: Sequence[VirtualPort]
) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints at the gateways of another cluster, each with its share of the pods behind them as its weight."""
    return tuple(
        istio.WorkloadEntry(
            address=address,
            ports={port.name: number for port in ports},
            labels=dict(place.labels),
            weight=place.weight // len(entries) if place.weight > len(entries) else 0,
            locality=place.locality,
        )
        for address, number in entries
        for place in places
    )


def places_of(facts: EndpointFacts, region: str, wanted: Sequence[Pairs]) -> tuple[Place, ...]:
    """The ready pods behind gateways, told apart by the labels that *wanted* subsets name; sorted.

    All are where they all are together, such as in a region if their zones differ: a gateway sends a call to any of
    them, and Envoy keeps one endpoint of an address, the first, whatever locality others have. Weights are rounded up
    to powers of two, so that scaling a Deployment rarely changes them.
    Source: Envoy, source/extensions/clusters/eds/eds.cc, updateLocalityEndpoints
    """
    names = sorted({name for labels in wanted for name, _ in labels})
    counts: dict[Pairs, int] = {}
    localities: set[tuple[str, str, str]] = set()
    for pod_labels, zone, sub_zone, ready in facts.ready():
        labels = tuple((name, pod_labels[name]) for name in names if name in pod_labels)
        counts[labels] = counts.get(labels, 0) + ready
        localities.add((region, zone, sub_zone))
    around = locality(*_common(localities)) if localities else ""
    return tuple(sorted(Place(around, labels, 1 << (count - 1).bit_length()) for labels, count in counts.items()))


def _common(localities: Iterable[tuple[str, str, str]]) -> tuple[str, str, str]:
    """The smallest locality that holds all *localities*."""
    region, zone, sub_zone = (
        found.pop() if len(found) == 1 else "" for found in map(set, zip(*localities, strict=True))
    )
    return region, zone, sub_zone if zone else ""


def in_order(
    found: Sequence[istio.WorkloadEntry], virtual: VirtualDestinationFacts, service: Ref
) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints of *service*, which is one of *virtual*'s static destinations, marked with its place among them.

    Without localities, which would divide what comes at one place; of several, istiod keeps one for host names.
    A weight is divided among addresses: Envoy takes one endpoint for each, also where several tell subsets apart.
    """
    if virtual.shared:
        addresses = {(each.address, *each.ports.values()) for each in found}
        whole = virtual.static[virtual.place_of(service)].weight * WEIGHT_UNIT
        weight = max(1, round(whole / max(1, len(addresses))))
        return tuple(msgspec.structs.replace(each, locality="", weight=weight) for each in found)
    unplaced = (msgspec.structs.replace(each, locality="", weight=0) for each in found)
    return _marked(unplaced, virtual.place_of(service), len(virtual.static))


def by_region(
    found: Sequence[istio.WorkloadEntry], virtual: VirtualDestinationFacts, region: str
) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints in *region*, marked with its place in *virtual*'s order; those of all other regions come last."""
    order = virtual.order
    place = order.index(region) if region in order else len(order)
    return _marked(found, place, len(order) + 1) if order else tuple(found)


def _marked(found: Iterable[istio.WorkloadEntry], place: int, places: int) -> tuple[istio.WorkloadEntry, ...]:
    marks = dict.fromkeys(_marks(places)[: places - 1 - place], MARK)
    return tuple(msgspec.structs.replace(each, labels={**each.labels, **marks}) for each in found)


def _marks(places: int) -> tuple[str, ...]:
    """Labels of the endpoints that are among the first n of *places*: the first label those of the most.

    What is at place i of n has the first n - 1 - i of them, so that Istio, which counts how many of a list of labels
    an endpoint has from its start, makes i its priority; what is nearer comes first among equals if `failover` is set.
    Source: https://istio.io/latest/docs/reference/config/networking/destination-rule/#LocalityLoadBalancerSetting
    """
    return tuple(f"isthmus.io/among-first-{n}" for n in range(places - 1, 0, -1))


def locality(region: str, zone: str, sub_zone: str) -> str:
    """A locality as Istio writes it; what is unknown is left out from the end."""
    return "/".join((region, zone, sub_zone)).rstrip("/") if region else ""


def entry(
    name: str,
    virtual: VirtualDestinationFacts,
    namespace: str,
    address: str,
    endpoints: tuple[istio.WorkloadEntry, ...],
    annotations: dict[str, str],
    *,
    by_name: bool,
) -> istio.ServiceEntry:
    """The ServiceEntry by which clients know the host name; *by_name*: an endpoint is a host name itself."""
    return istio.ServiceEntry(
        metadata=metadata(name, namespace, annotations),
        spec=istio.ServiceEntrySpec(
            hosts=(virtual.hostname,),
            addresses=(address,),
            ports=_ports(virtual),
            location="MESH_INTERNAL",
            resolution="DNS" if by_name else "STATIC",
            endpoints=endpoints,
        ),
    )


def rule(
    name: str,
    virtual: VirtualDestinationFacts,
    namespace: str,
    alias: str,
    wanted: Sequence[Pairs],
    annotations: dict[str, str],
) -> istio.DestinationRule:
    """How clients connect: mutual TLS that names *alias*, the nearest or first one first, without those that fail.

    Without outlier detection Istio ignores locality and order. Source: locality load balancing, as above.
    """
    return istio.DestinationRule(
        metadata=metadata(name, namespace, annotations),
        spec=istio.DestinationRuleSpec(
            host=virtual.hostname,
            traffic_policy=_traffic(virtual, alias, ""),
            subsets=tuple(
                istio.Subset(name=subset, labels=dict(labels), traffic_policy=_traffic(virtual, alias, subset))
                for labels, subset in sorted(((labels, subset_name(labels)) for labels in wanted), key=lambda s: s[1])
            ),
        ),
    )


def _ports(virtual: VirtualDestinationFacts) -> tuple[istio.Port, ...]:
    return tuple(istio.Port(number=port.number, name=port.name, protocol=port.protocol) for port in virtual.ports)


def _traffic(virtual: VirtualDestinationFacts, alias: str, subset: str) -> istio.DestinationTraffic:
    """Of one port, or else of each: what is said for a port replaces all that is said for the host name."""
    places = len(virtual.order) + 1 if virtual.order else len(virtual.static)
    balance = istio.LoadBalancer(
        locality_lb_setting=istio.LocalityLb(
            enabled=not virtual.shared,
            failover=tuple(istio.Failover(from_=start, to=followers[0]) for start, followers in virtual.failover),
            failover_priority=() if virtual.shared else tuple(f"{mark}={MARK}" for mark in _marks(places)),
        )
    )
    each = [
        istio.PortTraffic(
            port=istio.PortSelector(number=port.number),
            tls=istio.ClientTls(mode="ISTIO_MUTUAL", sni=f"outbound_.{port.number}_.{subset}_.{alias}"),
            outlier_detection=virtual.outliers,
            load_balancer=balance,
        )
        for port in virtual.ports
    ]
    if len(each) > 1:
        return istio.DestinationTraffic(port_level_settings=tuple(each))
    only = each[0]
    return istio.DestinationTraffic(tls=only.tls, outlier_detection=only.outlier_detection, load_balancer=balance)
