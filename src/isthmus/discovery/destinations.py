"""Services that workloads stand behind: their ports, subsets, endpoints and outside addresses.

Endpoints come in blocks, one per EndpointSlice, so that a pod that comes or goes costs its own slice and a merge, even
where one Service has tens of thousands of them.

Source: reference, discovery §4 and §5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from isthmus.api.common import ObjectRef
from isthmus.api.discovery import (
    Destination,
    DestinationSpec,
    DestinationStatus,
    Endpoint,
    EndpointPort,
    EndpointSubset,
    ExternalAddress,
    KubeService,
    ServiceType,
    SubLocality,
    SubsetValues,
)
from isthmus.api.ready_endpoints import MAX_LISTED_ENDPOINTS, OVER_CAPACITY, READY_ENDPOINTS, Labels, write_counts
from isthmus.discovery.facts import NodeFacts, ServiceFacts, SliceFacts
from isthmus.discovery.naming import Claim, Site
from isthmus.discovery.workloads import FoundWorkload
from isthmus.model.problem import Problem

# Labels that differ between pods without meaning a subset. Source: reference, discovery §4.
NO_SUBSETS = frozenset({"pod-template-hash", "service.istio.io/canonical-revision"})

Ports = tuple[EndpointPort, ...]


class Group(msgspec.Struct, frozen=True, gc=False):
    """Endpoints that have their ports and labels in common."""

    ports: Ports
    labels: Labels
    endpoints: tuple[Endpoint, ...]


class Block(msgspec.Struct, frozen=True, gc=False):
    """The ready endpoints of one EndpointSlice with labels and locality filled in."""

    service: str
    ip_family: str
    groups: tuple[Group, ...]
    nodes: tuple[str, ...]
    regions: tuple[str, ...]


class FoundDestination(msgspec.Struct, frozen=True, gc=False):
    """A Service in a mesh, as the object that is reported."""

    claim: Claim
    resource: Destination
    problems: tuple[Problem, ...]


def block(
    facts: SliceFacts,
    pod_labels: Callable[[str], dict[str, str] | None],
    node: Callable[[str], NodeFacts | None],
) -> Block:
    """The endpoints of *facts*; *pod_labels* gives the labels of the workload behind a pod, *node* a node by name."""
    groups: dict[Labels, list[Endpoint]] = {}
    keys: dict[int, Labels] = {}
    nodes: dict[str, NodeFacts | None] = {}
    for endpoint in facts.endpoints:
        labels = (endpoint.pod and pod_labels(endpoint.pod)) or {}
        key = keys.get(id(labels)) if labels else ()  # the pods of one workload share the very object
        if key is None:
            key = keys[id(labels)] = tuple(sorted(labels.items()))
        if endpoint.node and endpoint.node not in nodes:
            nodes[endpoint.node] = node(endpoint.node)
        groups.setdefault(key, []).append(
            Endpoint(
                ip_address=endpoint.address,
                labels=labels,
                sub_locality=_locality(nodes.get(endpoint.node), endpoint.zone),
            )
        )
    return Block(
        service=facts.service,
        ip_family=facts.ip_family,
        groups=tuple(Group(facts.ports, labels, tuple(endpoints)) for labels, endpoints in sorted(groups.items())),
        nodes=tuple(sorted(nodes)),
        regions=tuple(sorted({known.region for known in nodes.values() if known is not None and known.region})),
    )


def find_destination(
    site: Site,
    service: ServiceFacts,
    mesh: ObjectRef,
    backing: Sequence[FoundWorkload],
    blocks: Sequence[Block],
    node: Callable[[str], NodeFacts | None],
) -> FoundDestination:
    """The Destination of *service* in *mesh*.

    *backing* are the workloads behind it, none for a Service that is one only by its annotation: subsets and endpoints
    stay empty then. *blocks* are its endpoints, in a fixed order.
    """
    blocks = _one_family(service, blocks) if backing else ()
    groups = _distinct([group for one in blocks for group in one.groups])
    counts: dict[Labels, int] = {}
    for group in groups:
        counts[group.labels] = counts.get(group.labels, 0) + len(group.endpoints)
    truncated = sum(counts.values()) > MAX_LISTED_ENDPOINTS
    annotations = service.annotations
    if truncated:
        rounded = {labels: _three_digits(count) for labels, count in counts.items()}
        annotations = annotations | {OVER_CAPACITY: "truncated", READY_ENDPOINTS: write_counts(rounded)}
    addresses = service.external_addresses
    if service.service_type is ServiceType.NODE_PORT:
        addresses += _node_addresses(blocks, node, addresses)
    problems = service.problems + _address_problems(service, addresses) + _mesh_problems(backing, mesh)
    return FoundDestination(
        service.claim,
        Destination(
            metadata=site.metadata(service.plain_name, annotations),
            spec=DestinationSpec(
                kube_service=KubeService(
                    ref=service.ref,
                    workload_selector_labels=service.selector,
                    labels=service.labels,
                    ports=service.ports,
                    subsets=subsets(workload.pod_labels for workload in backing),
                    region=min((region for one in blocks for region in one.regions), default=""),
                    endpoint_subsets=_listed(groups),
                    external_addresses=addresses,
                    service_type=service.service_type,
                ),
                mesh=mesh,
            ),
            status=DestinationStatus(warnings=tuple(str(p) for p in problems)) if problems else None,
        ),
        problems,
    )


def subsets(pod_labels: Iterable[dict[str, str]]) -> dict[str, SubsetValues]:
    """The label keys that have more than one value in *pod_labels*, each with its values."""
    values: dict[str, set[str]] = {}
    for labels in pod_labels:
        for key, value in labels.items():
            values.setdefault(key, set()).add(value)
    return {
        key: SubsetValues(values=tuple(sorted(found)))
        for key, found in sorted(values.items())
        if len(found) > 1 and key not in NO_SUBSETS
    }


def _locality(node: NodeFacts | None, zone: str) -> SubLocality | None:
    """Zone and sub-zone of the node; the zone that the EndpointSlice names where the node names none."""
    known = node.sub_locality if node is not None else None
    if known is not None and (known.zone or not zone):
        return known
    if not zone:
        return None
    return SubLocality(zone=zone, sub_zone=known.sub_zone if known is not None else "")


def _one_family(service: ServiceFacts, blocks: Sequence[Block]) -> Sequence[Block]:
    """The blocks of one IP family, because a pod of a dual-stack Service stands in a slice of each.

    It is the Service's own first family; where it has no slice (or names none), the family of the first block.
    """
    families = [one.ip_family for one in blocks]
    if len(set(families)) < 2:
        return blocks
    wanted = service.ip_family if service.ip_family in families else min(families)
    return [one for one in blocks if one.ip_family == wanted]


def _distinct(groups: list[Group]) -> list[Group]:
    """*groups*, but an address that two slices hold for a moment counts once, in the first of them."""
    if len(groups) < 2:
        return groups
    seen: dict[Ports, set[str]] = {}
    for group in groups:
        seen.setdefault(group.ports, set()).update([endpoint.ip_address for endpoint in group.endpoints])
    if sum(len(addresses) for addresses in seen.values()) == sum(len(group.endpoints) for group in groups):
        return groups
    distinct: list[Group] = []
    for group in groups:
        left = seen[group.ports]
        endpoints = [one for one in group.endpoints if one.ip_address in left]
        left.difference_update([one.ip_address for one in endpoints])
        distinct.append(Group(group.ports, group.labels, tuple(endpoints)))
    return distinct


def _listed(groups: list[Group]) -> tuple[EndpointSubset, ...]:
    """The endpoints to list, by ports: all of them, or for each set of labels its share of `MAX_LISTED_ENDPOINTS`.

    A share is at least one, so no subset vanishes. The first are taken, in order of slices, so that most changes of a
    large Service do not change what is listed.
    """
    totals: dict[tuple[Ports, Labels], int] = {}
    for group in groups:
        key = group.ports, group.labels
        totals[key] = totals.get(key, 0) + len(group.endpoints)
    total = sum(totals.values())
    room = max(MAX_LISTED_ENDPOINTS - len(totals), 0)
    shares = totals if total <= MAX_LISTED_ENDPOINTS else {k: 1 + room * count // total for k, count in totals.items()}
    left = dict(shares)
    by_ports: dict[Ports, list[Endpoint]] = {}
    for group in groups:
        key = group.ports, group.labels
        taken = group.endpoints[: left[key]]
        left[key] -= len(taken)
        by_ports.setdefault(group.ports, []).extend(taken)
    return tuple(
        EndpointSubset(endpoints=tuple(sorted(endpoints, key=_address)), ports=ports)
        for ports, endpoints in sorted(by_ports.items(), key=_port_numbers)
        if endpoints
    )


def _address(endpoint: Endpoint) -> str:
    return endpoint.ip_address


def _port_numbers(subset: tuple[Ports, list[Endpoint]]) -> list[tuple[int, str, str]]:
    return [(port.port, port.name, port.protocol) for port in subset[0]]


def _three_digits(count: int) -> int:
    """*count* rounded so coarsely that one pod of thousands does not rewrite the object."""
    unit: int = 10 ** max(len(str(count)) - 3, 0)
    return (count + unit // 2) // unit * unit


def _node_addresses(
    blocks: Sequence[Block], node: Callable[[str], NodeFacts | None], known: tuple[ExternalAddress, ...]
) -> tuple[ExternalAddress, ...]:
    """Addresses of the nodes that run the pods, in order of node names, without those *known* already."""
    found: dict[ExternalAddress, None] = {}
    for name in sorted({name for one in blocks for name in one.nodes}):
        facts = node(name)
        for address in facts.addresses if facts is not None else ():
            found[ExternalAddress(ip=address)] = None
    return tuple(address for address in found if address not in known)


def _address_problems(service: ServiceFacts, addresses: tuple[ExternalAddress, ...]) -> tuple[Problem, ...]:
    """What is wrong with a gateway that nobody outside can reach.

    A NodePort service is one only if it looks like a gateway: many others have node ports that nobody dials.
    """
    if addresses:
        return ()
    if service.service_type is ServiceType.LOAD_BALANCER:
        message = "the load balancer has no address yet; other clusters cannot reach this Service"
        return (Problem("status.loadBalancer.ingress", "NoExternalAddress", message),)
    if service.service_type is ServiceType.NODE_PORT and service.selector.get("istio") == "ingressgateway":
        message = "no node that runs a pod of this Service has an external address; other clusters cannot reach it"
        return (Problem("spec.type", "NoExternalAddress", message),)
    return ()


def _mesh_problems(backing: Sequence[FoundWorkload], mesh: ObjectRef) -> tuple[Problem, ...]:
    others = sorted({workload.mesh.name for workload in backing} - {mesh.name})
    if not others:
        return ()
    message = f"workloads of several meshes stand behind this Service; it counts to {mesh.name}, not to "
    return (Problem("spec.selector", "SeveralMeshes", message + ", ".join(others)),)
