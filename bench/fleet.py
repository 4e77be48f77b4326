"""The fleet that the benchmarks run on: federated clusters, two by default, with as many services as asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.common import ClusterObjectRef, DestinationSelector, KubeServiceMatcher, ObjectRef
from isthmus.api.discovery import (
    Destination,
    DestinationSpec,
    Endpoint,
    EndpointPort,
    EndpointSubset,
    ExternalAddress,
    IstioMesh,
    KubeService,
    Mesh,
    MeshInstallation,
    MeshSpec,
    ServicePort,
    ServiceType,
)
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import (
    Federation,
    FederationSelector,
    GlobalAccessPolicy,
    VirtualMesh,
    VirtualMeshSpec,
)

CLUSTERS = ("cluster1", "cluster2")
NAMESPACE = "gloo-mesh"
FEDERATED = {"federate": "yes"}
SERVICES_PER_NAMESPACE = 100


def _meta(name: str) -> ObjectMeta:
    return ObjectMeta(name=name, namespace=NAMESPACE)


def _mesh_ref(cluster: str) -> ObjectRef:
    return ObjectRef(name=f"istiod-istio-system-{cluster}", namespace=NAMESPACE)


def namespace_of(number: int) -> str:
    """The namespace of service *number*."""
    return f"ns-{number // SERVICES_PER_NAMESPACE}"


def service(cluster: str, number: int, *, port: int = 9080, shift: int = 0, federated: bool = True) -> Destination:
    """Service *number* of *cluster* with two endpoints; another *shift* gives them other addresses."""
    name, namespace = f"service-{number}", namespace_of(number)
    endpoints = tuple(
        Endpoint(
            ip_address=f"10.{number >> 8 & 255}.{number & 255}.{(pod + 2 * shift) % 250 + 1}",
            labels={"app": name, "version": f"v{pod + 1}"},
        )
        for pod in range(2)
    )
    return Destination(
        metadata=_meta(f"{name}-{namespace}-{cluster}"),
        spec=DestinationSpec(
            mesh=_mesh_ref(cluster),
            kube_service=KubeService(
                ref=ClusterObjectRef(name=name, namespace=namespace, cluster_name=cluster),
                workload_selector_labels={"app": name},
                labels={"app": name, **(FEDERATED if federated else {})},
                ports=(ServicePort(port=port, name="http", protocol="TCP", target_port_number=9080),),
                endpoint_subsets=(
                    EndpointSubset(endpoints=endpoints, ports=(EndpointPort(port=9080, name="http", protocol="TCP"),)),
                ),
            ),
        ),
    )


def gateway(cluster: str, address: str) -> Destination:
    """The east-west gateway of *cluster*, reached at *address*."""
    return Destination(
        metadata=_meta(f"istio-ingressgateway-istio-system-{cluster}"),
        spec=DestinationSpec(
            mesh=_mesh_ref(cluster),
            kube_service=KubeService(
                ref=ClusterObjectRef(name="istio-ingressgateway", namespace="istio-system", cluster_name=cluster),
                workload_selector_labels={"istio": "ingressgateway"},
                labels=FEDERATED,
                service_type=ServiceType.LOAD_BALANCER,
                external_addresses=(ExternalAddress(ip=address),),
                ports=(ServicePort(port=15443, name="tls", protocol="TCP", target_port_number=15443),),
            ),
        ),
    )


def virtual_mesh(
    clusters: Sequence[str] = CLUSTERS, access: GlobalAccessPolicy = GlobalAccessPolicy.MESH_DEFAULT
) -> VirtualMesh:
    """Federates the services of *clusters* that carry the label `FEDERATED`."""
    selector = DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels=FEDERATED))
    return VirtualMesh(
        metadata=_meta("virtual-mesh"),
        spec=VirtualMeshSpec(
            meshes=tuple(_mesh_ref(cluster) for cluster in clusters),
            federation=Federation(selectors=(FederationSelector(destination_selectors=(selector,)),)),
            global_access_policy=access,
        ),
    )


def fleet(services: int, clusters: Sequence[str] = CLUSTERS) -> Iterator[Resource]:
    """*clusters* of *services* services each, registered, with gateways, in one virtual mesh."""
    yield virtual_mesh(clusters)
    for number, cluster in enumerate(clusters):
        yield KubernetesCluster(metadata=_meta(cluster))
        installation = MeshInstallation(namespace="istio-system", cluster=cluster)
        istio = IstioMesh(installation=installation, trust_domain=cluster, smart_dns_proxying_enabled=True)
        yield Mesh(metadata=_meta(_mesh_ref(cluster).name), spec=MeshSpec(istio=istio))
        yield gateway(cluster, f"203.0.113.{number + 1}")
        for i in range(services):
            yield service(cluster, i)
