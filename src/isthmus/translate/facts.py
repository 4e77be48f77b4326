"""Narrow facts about discovered objects: what translation reads of them, so that nothing else wakes it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from isthmus.api.discovery import Destination, EndpointSubset, Mesh, ServicePort, ServiceType
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.ready_endpoints import OVER_CAPACITY, Labels, ready_endpoints
from isthmus.flow import Fetch
from isthmus.model.ref import Ref

DEFAULT_CLUSTER_DOMAIN = "cluster.local"


class MeshFacts(msgspec.Struct, frozen=True, gc=False):
    """An Istio mesh: where its configuration goes, and what its proxies can do."""

    ref: Ref
    cluster: str
    root_namespace: str
    dns_proxying: bool
    trust_domain: str
    """Empty if it is not known."""
    trust_domain_aliases: tuple[str, ...] = ()
    """Domains whose identities count as those of its own, such as the one that it had before."""
    region: str = ""
    """Where its cluster is; empty if that is not known."""


class ServiceFacts(msgspec.Struct, frozen=True, gc=False):
    """A Kubernetes service in a mesh, without its endpoints."""

    ref: Ref
    """The Destination."""
    service: Ref
    mesh: Ref
    labels: dict[str, str]
    selector: dict[str, str]
    ports: tuple[ServicePort, ...]
    type: ServiceType
    external_addresses: tuple[str, ...]


class EndpointFacts(msgspec.Struct, frozen=True, gc=False):
    """Where a service's pods answer."""

    subsets: tuple[EndpointSubset, ...]
    counted: dict[Labels, int] | None
    """Ready endpoints by their labels when discovery listed only some of very many, else None."""
    region: str
    """Where they are; empty if that is not known."""

    def pod_labels(self) -> frozenset[Labels]:
        """The sets of labels that ready pods have."""
        return frozenset(tuple(sorted(labels.items())) for labels, _, _, _ in self.ready())

    def ready(self) -> Iterator[tuple[dict[str, str], str, str, int]]:
        """Labels, zone, sub-zone and number of ready pods; where pods were only counted, nothing tells the zones."""
        if self.counted is not None:
            yield from ((dict(labels), "", "", ready) for labels, ready in self.counted.items())
            return
        for subset in self.subsets:
            for endpoint in subset.endpoints:
                below = endpoint.sub_locality
                yield endpoint.labels, below.zone if below else "", below.sub_zone if below else "", 1


def mesh_facts(ref: Ref, mesh: Mesh) -> MeshFacts | None:
    """Facts of an Istio mesh, None for any other kind."""
    istio = mesh.spec.istio
    if istio is None:
        return None
    where = istio.installation
    return MeshFacts(
        ref=ref,
        cluster=where.cluster,
        root_namespace=where.namespace or "istio-system",
        dns_proxying=istio.smart_dns_proxying_enabled,
        trust_domain=istio.trust_domain,
        trust_domain_aliases=istio.trust_domain_aliases,
        region=where.region,
    )


def service_facts(ref: Ref, destination: Destination) -> ServiceFacts | None:
    """Facts of a Kubernetes service that belongs to a mesh, None for any other destination."""
    service, mesh = destination.spec.kube_service, destination.spec.mesh
    if service is None or mesh is None:
        return None
    return ServiceFacts(
        ref=ref,
        service=service.ref.ref,
        mesh=mesh.ref,
        labels=service.labels,
        selector=service.workload_selector_labels,
        ports=service.ports,
        type=service.service_type,
        external_addresses=tuple(address.ip or address.dns_name or "" for address in service.external_addresses),
    )


def endpoint_facts(_: Ref, destination: Destination) -> EndpointFacts | None:
    """The ready endpoints of a Kubernetes service."""
    service = destination.spec.kube_service
    if service is None:
        return None
    cut = OVER_CAPACITY in destination.metadata.annotations
    return EndpointFacts(service.endpoint_subsets, ready_endpoints(destination) if cut else None, service.region)


def reported_warnings(_: Ref, found: Mesh | Destination) -> tuple[str, ...] | None:
    """What discovery found wrong with an object, None if nothing; agents report it as the object's status."""
    return found.status.warnings or None if found.status else None


def local_fqdn(service: Ref, domain: str) -> str:
    """Host name of *service* within its own cluster, whose names end in *domain*."""
    return f"{service.name}.{service.namespace}.svc.{domain}"


def cluster_domain(namespace: str, _: Fetch, ref: Ref, cluster: KubernetesCluster) -> tuple[tuple[str, str], ...]:
    """In what the names of a cluster's services end, by the cluster; only of one in the management *namespace*."""
    if ref.namespace != namespace:
        return ()
    return ((ref.name, cluster.spec.cluster_domain or DEFAULT_CLUSTER_DOMAIN),)
