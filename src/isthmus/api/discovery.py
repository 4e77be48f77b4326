"""Mesh, Workload and Destination: what agents discovered, kept on the management cluster.

Source of every field: the reference's discovery group.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import AppliedIngressGateway, ClusterObjectRef, ObjectRef, TcpKeepalive
from isthmus.model.ref import Kind

GROUP = "discovery.mesh.gloo.solo.io"


class MeshInstallation(ApiStruct, frozen=True):
    """Where a control plane runs."""

    namespace: str = ""
    """Namespace of the control plane, Istio's root namespace."""
    cluster: str = ""
    """Registered cluster name."""
    pod_labels: dict[str, str] = {}
    """Labels that select the control plane's pods."""
    version: str = ""
    """Image tag of the control plane, or its digest where there is no tag."""
    region: str = ""
    """Region label of the cluster's nodes; empty when no node has one."""


class IstioMesh(ApiStruct, frozen=True):
    """An Istio control plane."""

    installation: MeshInstallation = MeshInstallation()
    """Where istiod runs."""
    trust_domain: str = ""
    """SPIFFE trust domain of the mesh config; empty means ``cluster.local``."""
    istiod_service_account: str = ""
    """Service account of the istiod deployment."""
    smart_dns_proxying_enabled: bool = False
    """Whether sidecars capture DNS (``ISTIO_META_DNS_CAPTURE``)."""


class AgentInfo(ApiStruct, frozen=True):
    """The agent of the mesh's cluster."""

    agent_namespace: str = ""
    """Namespace in which the agent runs."""


class MeshSpec(ApiStruct, frozen=True):
    """A discovered mesh."""

    istio: IstioMesh | None = None
    """Set when the mesh is Istio, the one kind of mesh that Isthmus manages."""
    agent_info: AgentInfo | None = None
    """The agent that reported the mesh."""


class AppliedVirtualMesh(ApiStruct, frozen=True):
    """The virtual mesh that a mesh is a member of."""

    ref: ObjectRef = ObjectRef()
    """The VirtualMesh."""
    observed_generation: int = 0
    """Its generation when it was applied."""


class MeshStatus(ApiStruct, frozen=True):
    """What the management plane did with a mesh."""

    observed_generation: int = 0
    """Generation of the Mesh that this status speaks of."""
    applied_virtual_mesh: AppliedVirtualMesh | None = None
    """The virtual mesh in force, absent when the mesh is in none."""
    applied_east_west_ingress_gateways: tuple[AppliedIngressGateway, ...] = ()
    """The gateways through which other meshes reach this one."""
    warnings: tuple[str, ...] = ()
    """What deserves attention: discovery or configuration that will hurt."""


class Mesh(Resource, frozen=True):
    """A service mesh control plane and what it governs."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Mesh", "meshes")

    spec: MeshSpec = MeshSpec()
    """What was discovered."""
    status: MeshStatus | None = None
    """What the management plane did with it."""


class KubernetesWorkload(ApiStruct, frozen=True):
    """A controller whose pods are in a mesh."""

    controller: ClusterObjectRef = ClusterObjectRef()
    """The Deployment, StatefulSet, DaemonSet or bare ReplicaSet."""
    pod_labels: dict[str, str] = {}
    """Labels of the pod template."""
    service_account_name: str = ""
    """Service account of the pods; empty means ``default``."""


class WorkloadSpec(ApiStruct, frozen=True):
    """A discovered workload."""

    kubernetes: KubernetesWorkload | None = None
    """The Kubernetes controller."""
    mesh: ObjectRef | None = None
    """The mesh that governs it."""


class WorkloadStatus(ApiStruct, frozen=True):
    """What the management plane did with a workload."""

    observed_generation: int = 0
    """Generation of the Workload that this status speaks of."""


class Workload(Resource, frozen=True):
    """Pods run from one controller, with one identity, in a mesh."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Workload", "workloads")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("wkld", "wklds")

    spec: WorkloadSpec = WorkloadSpec()
    """What was discovered."""
    status: WorkloadStatus | None = None
    """What the management plane did with it."""


class ServiceType(Enum):
    """Type of a Kubernetes Service; CLUSTER_IP is the zero value."""

    CLUSTER_IP = "CLUSTER_IP"
    NODE_PORT = "NODE_PORT"
    LOAD_BALANCER = "LOAD_BALANCER"
    EXTERNAL_NAME = "EXTERNAL_NAME"


class ServicePort(ApiStruct, frozen=True):
    """A port of a Kubernetes Service."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("target_port_name", "target_port_number"),)

    port: int = 0
    """Service port."""
    name: str = ""
    """Port name; empty for the only, unnamed port."""
    protocol: str = ""
    """L4 protocol: TCP, UDP or SCTP."""
    app_protocol: str = ""
    """Application protocol of the Service, such as ``http`` or ``kubernetes.io/h2c``."""
    node_port: int = 0
    """Port on every node, 0 if none."""
    target_port_name: str | None = None
    """Container port by name."""
    target_port_number: int | None = None
    """Container port by number."""


class SubsetValues(ApiStruct, frozen=True):
    """Values of one pod label."""

    values: tuple[str, ...] = ()
    """The values, sorted."""


class SubLocality(ApiStruct, frozen=True):
    """Locality below the region."""

    zone: str = ""
    """Zone of the endpoint's node."""
    sub_zone: str = ""
    """Sub-zone of the endpoint's node."""


class Endpoint(ApiStruct, frozen=True):
    """A ready address behind a service."""

    ip_address: str = ""
    """Pod address, IPv4 or IPv6."""
    labels: dict[str, str] = {}
    """Pod labels of the workload behind it."""
    sub_locality: SubLocality | None = None
    """Where it runs."""


class EndpointPort(ApiStruct, frozen=True):
    """A port at which all endpoints of one subset answer."""

    port: int = 0
    """Container port number."""
    name: str = ""
    """Name of the service port that it belongs to."""
    protocol: str = ""
    """L4 protocol."""
    app_protocol: str = ""
    """Application protocol."""


class EndpointSubset(ApiStruct, frozen=True):
    """Endpoints that share one set of ports."""

    endpoints: tuple[Endpoint, ...] = ()
    """The addresses."""
    ports: tuple[EndpointPort, ...] = ()
    """The ports of each of them."""


class ExternalAddress(ApiStruct, frozen=True):
    """An address at which a service is reached from outside its cluster."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("dns_name", "ip"),)

    dns_name: str | None = None
    """Host name."""
    ip: str | None = None
    """IPv4 or IPv6 address."""


class KubeService(ApiStruct, frozen=True):
    """A Kubernetes Service in a mesh."""

    ref: ClusterObjectRef = ClusterObjectRef()
    """The Service."""
    workload_selector_labels: dict[str, str] = {}
    """The Service's pod selector."""
    labels: dict[str, str] = {}
    """The Service's own labels; destination selectors compare with these."""
    ports: tuple[ServicePort, ...] = ()
    """The Service's ports."""
    subsets: dict[str, SubsetValues] = {}
    """Pod labels that have more than one value among the workloads behind it."""
    region: str = ""
    """Region of the nodes of its pods."""
    endpoint_subsets: tuple[EndpointSubset, ...] = ()
    """Ready endpoints."""
    external_addresses: tuple[ExternalAddress, ...] = ()
    """Addresses of a LoadBalancer, NodePort or externalIPs Service."""
    service_type: ServiceType = ServiceType.CLUSTER_IP
    """Type of the Service."""


class ExternalServicePort(ApiStruct, frozen=True):
    """A port of an external service."""

    number: int = 0
    """Port number."""
    name: str = ""
    """Port name."""
    protocol: str = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS."""


class ExternalEndpoint(ApiStruct, frozen=True):
    """An endpoint of an external service."""

    address: str = ""
    """IP address or domain."""
    ports: dict[str, int] = {}
    """Port number by port name."""


class ExternalService(ApiStruct, frozen=True):
    """A host outside any mesh, written by a user."""

    name: str = ""
    """Name of the service."""
    hosts: tuple[str, ...] = ()
    """Host names."""
    addresses: tuple[str, ...] = ()
    """Virtual IP addresses."""
    ports: tuple[ExternalServicePort, ...] = ()
    """Ports."""
    endpoints: tuple[ExternalEndpoint, ...] = ()
    """Endpoints; none means that the hosts are resolved by DNS."""


class DestinationSpec(ApiStruct, frozen=True):
    """A discovered destination."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("kube_service", "external_service"),)

    kube_service: KubeService | None = None
    """A Kubernetes Service."""
    external_service: ExternalService | None = None
    """A host outside any mesh."""
    mesh: ObjectRef | None = None
    """The mesh that it belongs to; needed for Kubernetes services."""


class AppliedFederation(ApiStruct, frozen=True):
    """How a destination is known on other meshes."""

    federated_hostname: str = ""
    """Host name on the other meshes."""
    federated_to_meshes: tuple[ObjectRef, ...] = ()
    """The meshes that know it."""
    flat_network: bool = False
    """Whether clients connect to the pods directly."""
    virtual_mesh_ref: ObjectRef | None = None
    """The VirtualMesh that federates it."""
    tcp_keepalive: TcpKeepalive | None = None
    """Keep-alive of the connections between clusters."""


class DestinationStatus(ApiStruct, frozen=True):
    """What the management plane did with a destination."""

    observed_generation: int = 0
    """Generation of the Destination that this status speaks of."""
    local_fqdn: str = ""
    """Host name within its own cluster."""
    applied_federation: AppliedFederation | None = None
    """Absent when it is not federated or the federation failed."""
    warnings: tuple[str, ...] = ()
    """What deserves attention."""


class Destination(Resource, frozen=True):
    """A service that traffic can go to."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Destination", "destinations")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("dest", "dests")

    spec: DestinationSpec = DestinationSpec()
    """What was discovered."""
    status: DestinationStatus | None = None
    """What the management plane did with it."""
