"""The Istio objects of one federated destination and of one gateway.

Source: the reference's federation objects; field meanings from
https://istio.io/latest/docs/reference/config/networking/service-entry/ and its neighbours.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

import msgspec

from isthmus.api.common import TcpKeepalive
from isthmus.istio import objects as istio
from isthmus.model.names import sanitize
from isthmus.model.ref import Ref
from isthmus.translate.facts import EndpointFacts, MeshFacts, ServiceFacts
from isthmus.translate.federation.gateways import EastWestGateway
from isthmus.translate.ports import is_tcp, istio_port, name_of

Pairs = tuple[tuple[str, str], ...]
"""Labels, sorted."""

CLUSTER_LABEL = "cluster"
ISTIO_MUTUAL = istio.ClientTls(mode="ISTIO_MUTUAL")

_PLAIN = re.compile("[a-z0-9]+")


class LabelShare(msgspec.Struct, frozen=True, gc=False):
    """Endpoints of a service that carry the same subset labels, and their share of its ready pods (0: no weight)."""

    labels: dict[str, str]
    weight: int = 0


class Federated(msgspec.Struct, frozen=True, gc=False):
    """A service, the name it has on other meshes, and the meshes that know it."""

    service: ServiceFacts
    virtual_mesh: Ref
    hostname: str
    suffix: str
    home: MeshFacts
    targets: tuple[MeshFacts, ...]
    flat_network: bool
    keepalive: TcpKeepalive | None


def rule_name(service: Ref) -> str:
    """Name of the DestinationRule of a federated host name. Source: reference, VirtualMesh behaviour."""
    return sanitize(f"{service.name}-{service.namespace}-{service.cluster}")


def subset_name(labels: Pairs) -> str:
    """Name of the subset with *labels*, which are sorted. Source: reference, TrafficPolicy field translation.

    What the name alone does not tell apart, such as ``1.0`` and ``1-0``, a hash does.
    """
    name = "-".join(f"{name}-{value}" for name, value in labels)
    if not all(_PLAIN.fullmatch(part) for pair in labels for part in pair):
        name += f"-{hashlib.sha256(repr(labels).encode()).hexdigest()[:8]}"
    return sanitize(name)


def metadata(name: str, namespace: str, annotations: dict[str, str]) -> istio.Metadata:
    """Metadata of an output."""
    return istio.Metadata(name=name, namespace=namespace, annotations=annotations)


def gateway_endpoints(
    federated: Federated, entries: tuple[tuple[str, int], ...], shares: tuple[LabelShare, ...]
) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints at the gateways: one for each gateway address and set of subset labels that clients tell apart."""
    names = [name_of(port) for port in federated.service.ports if is_tcp(port)]
    cluster = {CLUSTER_LABEL: federated.service.service.cluster}
    return tuple(
        istio.WorkloadEntry(
            address=address,
            ports=dict.fromkeys(names, port),
            labels={**share.labels, **cluster},
            weight=share.weight,
        )
        for address, port in entries
        for share in shares
    )


def pod_endpoints(federated: Federated, facts: EndpointFacts) -> tuple[istio.WorkloadEntry, ...]:
    """Endpoints at the pods themselves, with the pods' labels."""
    cluster = {CLUSTER_LABEL: federated.service.service.cluster}
    names = {name_of(port) for port in federated.service.ports if is_tcp(port)}
    return tuple(
        istio.WorkloadEntry(address=endpoint.ip_address, ports=ports, labels={**endpoint.labels, **cluster})
        for subset in facts.subsets
        if (ports := {name_of(port): port.port for port in subset.ports if name_of(port) in names})
        for endpoint in subset.endpoints
    )


def remote_entry(
    federated: Federated,
    namespace: str,
    address: str,
    endpoints: tuple[istio.WorkloadEntry, ...],
    annotations: dict[str, str],
) -> istio.ServiceEntry:
    """The ServiceEntry by which another mesh knows the service."""
    return istio.ServiceEntry(
        metadata=metadata(federated.hostname, namespace, annotations),
        spec=istio.ServiceEntrySpec(
            hosts=(federated.hostname,),
            addresses=(address,),
            ports=tuple(istio_port(port) for port in federated.service.ports if is_tcp(port)),
            location="MESH_INTERNAL",
            resolution="STATIC" if federated.flat_network else "DNS",
            endpoints=endpoints,
        ),
    )


def subsets(wanted: Iterable[Pairs]) -> tuple[istio.Subset, ...]:
    """Subsets with these labels, by name."""
    return tuple(
        sorted((istio.Subset(name=subset_name(labels), labels=dict(labels)) for labels in wanted), key=lambda s: s.name)
    )


def remote_rule(
    federated: Federated,
    name: str,
    namespace: str,
    wanted: tuple[Pairs, ...],
    outliers: istio.OutlierDetection | None,
    annotations: dict[str, str],
) -> istio.DestinationRule:
    """The DestinationRule of a client mesh: mutual TLS, without which the gateway could not read where calls go."""
    return istio.DestinationRule(
        metadata=metadata(name, namespace, annotations),
        spec=istio.DestinationRuleSpec(
            host=federated.hostname,
            traffic_policy=istio.DestinationTraffic(
                tls=ISTIO_MUTUAL,
                connection_pool=_connection_pool(federated.keepalive),
                outlier_detection=outliers,
            ),
            subsets=subsets(wanted),
        ),
    )


def _connection_pool(keepalive: TcpKeepalive | None) -> istio.ConnectionPool | None:
    if keepalive is None:
        return None
    settings = istio.TcpKeepalive(probes=keepalive.probes, time=keepalive.time, interval=keepalive.interval)
    return istio.ConnectionPool(tcp=istio.TcpSettings(tcp_keepalive=settings))


def passthrough_gateway(
    mesh: MeshFacts, gateway: EastWestGateway, suffix: str, annotations: dict[str, str]
) -> istio.Gateway:
    """The Gateway that lets calls of other meshes in, chosen by SNI and not decrypted."""
    return istio.Gateway(
        metadata=metadata(gateway.object_name, mesh.root_namespace, annotations),
        spec=istio.GatewaySpec(
            selector=gateway.selector,
            servers=(
                istio.Server(
                    port=istio.Port(number=gateway.port, name="tls", protocol="TLS"),
                    hosts=(f"*.{suffix}",),
                    tls=istio.ServerTls(mode="AUTO_PASSTHROUGH"),
                ),
            ),
        ),
    )


def label_shares(facts: EndpointFacts | None, wanted: tuple[Pairs, ...]) -> tuple[LabelShare, ...]:
    """The sets of labels, among the names that *wanted* subsets use, that the service's ready pods carry.

    Weights are ready pods rounded to powers of two and reduced, so that scaling a Deployment rarely changes them.
    Shape: never empty; sorted by labels; a single share has no weight.
    """
    names = sorted({name for labels in wanted for name, _ in labels})
    if not names or facts is None:
        return (LabelShare({}),)
    counts: dict[tuple[tuple[str, str], ...], int] = {}
    for pod_labels, _, _, ready in facts.ready():
        labels = tuple((name, pod_labels[name]) for name in names if name in pod_labels)
        counts[labels] = counts.get(labels, 0) + ready
    if not counts:
        return (LabelShare({}),)
    powers = {labels: (count - 1).bit_length() for labels, count in counts.items()}
    least = min(powers.values())
    even = least == max(powers.values())
    return tuple(
        LabelShare(dict(labels), 0 if even else 1 << power - least) for labels, power in sorted(powers.items())
    )
