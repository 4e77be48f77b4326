"""Small fleets for the tests of translation, built of the API types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.common import ClusterObjectRef, ObjectRef
from isthmus.api.discovery import (
    AgentInfo,
    Destination,
    DestinationSpec,
    Endpoint,
    EndpointPort,
    EndpointSubset,
    ExternalAddress,
    IstioMesh,
    KubernetesWorkload,
    KubeService,
    Mesh,
    MeshInstallation,
    MeshSpec,
    ServicePort,
    ServiceType,
    Workload,
    WorkloadSpec,
)
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.api.virtual_mesh import (
    Federation,
    GlobalAccessPolicy,
    MtlsConfig,
    ProxyScope,
    VirtualMesh,
    VirtualMeshSpec,
)
from isthmus.translate import Engine

EVERYTHING = Federation()
HTTP = ServicePort(port=9080, name="http", protocol="TCP", target_port_number=9080)
TLS = ServicePort(port=15443, name="tls", protocol="TCP", node_port=31443, target_port_number=15443)


def meta(name: str, **more: object) -> ObjectMeta:
    """Metadata of a management object."""
    return ObjectMeta(name=name, namespace="gloo-mesh", **more)  # type: ignore[arg-type]


def mesh_ref(cluster: str, plane: str = "istiod") -> ObjectRef:
    """The mesh that control plane *plane* governs on *cluster*."""
    return ObjectRef(name=f"{plane}-istio-system-{cluster}", namespace="gloo-mesh")


def mesh(
    cluster: str,
    *,
    dns: bool = True,
    root: str = "istio-system",
    plane: str = "istiod",
    aliases: tuple[str, ...] = (),
    agent: str = "",
    certificate: IssuedCertificateStatus | None = None,
    region: str = "",
) -> Mesh:
    """An Istio mesh on *cluster*."""
    installation = MeshInstallation(namespace=root, cluster=cluster, region=region)
    istio = IstioMesh(
        installation=installation,
        trust_domain=cluster,
        trust_domain_aliases=aliases,
        smart_dns_proxying_enabled=dns,
    )
    info = AgentInfo(agent_namespace=agent) if agent else None
    spec = MeshSpec(istio=istio, agent_info=info, issued_certificate_status=certificate)
    return Mesh(metadata=meta(mesh_ref(cluster, plane).name), spec=spec)


def workload(cluster: str, name: str, *, plane: str = "istiod") -> Workload:
    """A Deployment in the mesh of *cluster*."""
    controller = ClusterObjectRef(name=name, namespace="default", cluster_name=cluster)
    kubernetes = KubernetesWorkload(controller=controller, pod_labels={"app": name})
    return Workload(
        metadata=meta(f"{name}-default-{cluster}"),
        spec=WorkloadSpec(kubernetes=kubernetes, mesh=mesh_ref(cluster, plane)),
    )


def service(
    cluster: str,
    name: str,
    *,
    namespace: str = "default",
    pods: Mapping[str, int] | None = None,
    ports: tuple[ServicePort, ...] = (HTTP,),
    labels: dict[str, str] | None = None,
    selector: dict[str, str] | None = None,
    type: ServiceType = ServiceType.CLUSTER_IP,
    addresses: tuple[ExternalAddress, ...] = (),
    object_name: str | None = None,
    annotations: dict[str, str] | None = None,
    plane: str = "istiod",
) -> Destination:
    """A Service with *pods* ready pods by version."""
    endpoints = tuple(
        Endpoint(ip_address=f"10.0.{number}.{i + 1}", labels={"app": name, "version": version})
        for number, (version, count) in enumerate(sorted((pods or {"v1": 1}).items()))
        for i in range(count)
    )
    targets = tuple(EndpointPort(port=port.port, name=port.name, protocol=port.protocol) for port in ports)
    return Destination(
        metadata=meta(object_name or f"{name}-{namespace}-{cluster}", annotations=annotations or {}),
        spec=DestinationSpec(
            mesh=mesh_ref(cluster, plane),
            kube_service=KubeService(
                ref=ClusterObjectRef(name=name, namespace=namespace, cluster_name=cluster),
                labels={"app": name} if labels is None else labels,
                workload_selector_labels={"app": name} if selector is None else selector,
                ports=ports,
                service_type=type,
                external_addresses=addresses,
                endpoint_subsets=(EndpointSubset(endpoints=endpoints, ports=targets),) if endpoints else (),
            ),
        ),
    )


def gateway(cluster: str, address: str | None = "203.0.113.1", **more: object) -> Destination:
    """The ingress gateway of *cluster*, without an external address if that is None."""
    return service(
        cluster,
        "istio-ingressgateway",
        namespace="istio-system",
        selector={"istio": "ingressgateway"},
        ports=(TLS,),
        type=ServiceType.LOAD_BALANCER,
        addresses=(ExternalAddress(ip=address),) if address else (),
        **more,  # type: ignore[arg-type]
    )


def virtual_mesh(
    *members: str | ObjectRef,
    name: str = "virtual-mesh",
    federation: Federation | None = EVERYTHING,
    mtls: MtlsConfig | None = None,
    access: GlobalAccessPolicy = GlobalAccessPolicy.MESH_DEFAULT,
    scope: ProxyScope = ProxyScope.EVERYTHING,
    created: str | None = None,
) -> VirtualMesh:
    """A virtual mesh of *members*: a cluster stands for its one mesh."""
    return VirtualMesh(
        metadata=meta(name, creation_timestamp=created, generation=1),
        spec=VirtualMeshSpec(
            meshes=tuple(mesh_ref(member) if isinstance(member, str) else member for member in members),
            federation=federation,
            mtls_config=mtls,
            global_access_policy=access,
            proxy_scope=scope,
        ),
    )


def engine_of(found: Iterable[Resource], addresses: Mapping[str, str] = {}) -> Engine:
    """An engine that is given *found* and has not run."""
    engine = Engine(addresses=addresses)
    for resource in found:
        engine.set(resource)
    return engine


def federated_pair() -> list[Resource]:
    """Two clusters in one virtual mesh, each with a gateway and reviews."""
    found: list[Resource] = [virtual_mesh("cluster1", "cluster2")]
    for cluster in ("cluster1", "cluster2"):
        found += [mesh(cluster), gateway(cluster), service(cluster, "reviews")]
    return found


def two_planes(*, root: str) -> list[Resource]:
    """Two control planes on cluster1, the second in namespace *root*, and one on cluster2."""
    return [
        *federated_pair()[1:],
        virtual_mesh("cluster1", mesh_ref("cluster1", "istiod-canary"), "cluster2"),
        mesh("cluster1", plane="istiod-canary", root=root),
        service("cluster1", "ratings", plane="istiod-canary"),
    ]


def three_clusters() -> list[Resource]:
    """Three clusters in one virtual mesh, each with a gateway and two versions of reviews and of ratings."""
    clusters = ("cluster1", "cluster2", "cluster3")
    found: list[Resource] = [virtual_mesh(*clusters)]
    for cluster in clusters:
        found += [mesh(cluster), gateway(cluster)]
        found += [service(cluster, name, pods={"v1": 2, "v2": 1}) for name in ("reviews", "ratings")]
    return found
