"""Mesh, Workload and Destination: what agents discovered, kept on the management cluster.

Source of every field: the reference's discovery group.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.access_policy import AppliedAccessPolicy
from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import (
    AppliedIngressGateway,
    ApprovalState,
    ClusterObjectRef,
    ObjectRef,
    RequiredSubsets,
    TcpKeepalive,
)
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.api.scalars import Int64, UInt32, UpperCase
from isthmus.api.traffic_policy import AppliedTrafficPolicy
from isthmus.api.virtual_mesh import VirtualMeshSpec
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


class IngressGatewayInfo(OneofStruct, frozen=True):
    """An ingress gateway next to the control plane. Deprecated: see VirtualMesh's ingressGatewaySelectors."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("dns_name", "ip"),)

    name: str = ""
    """Name of the gateway's Service."""
    namespace: str = ""
    """Namespace of the gateway's Service."""
    workload_labels: dict[str, str] = {}
    """Labels of the gateway's pods."""
    external_address: str = ""
    """Deprecated: address at which other clusters reach it."""
    dns_name: str | None = None
    """Host name at which other clusters reach it."""
    ip: str | None = None
    """IP address at which other clusters reach it."""
    external_tls_port: UInt32 = 0
    """Port for mesh traffic at that address."""
    tls_container_port: UInt32 = 0
    """Port for mesh traffic of the gateway's pods."""


class IstioMesh(ApiStruct, frozen=True):
    """An Istio control plane."""

    installation: MeshInstallation = MeshInstallation()
    """Where istiod runs."""
    trust_domain: str = ""
    """SPIFFE trust domain of the mesh config; empty means ``cluster.local``."""
    trust_domain_aliases: tuple[str, ...] = ()
    """Trust domains whose identities pass for those of this one (``trustDomainAliases`` of the mesh config)."""
    refuses_foreign_trust_domains: bool = False
    """Ours. Whether sidecars refuse callers of trust domains that the mesh config does not name: they do unless istiod
    runs with ``PILOT_SKIP_VALIDATE_TRUST_DOMAIN=true``."""
    accepted_trust_domains: tuple[str, ...] = ()
    """Ours. Trust domains that ``caCertificates`` of the mesh config name; their callers are not refused."""
    istiod_service_account: str = ""
    """Service account of the istiod deployment."""
    ingress_gateways: tuple[IngressGatewayInfo, ...] = ()
    """Deprecated: the mesh's ingress gateways."""
    smart_dns_proxying_enabled: bool = False
    """Whether sidecars capture DNS (``ISTIO_META_DNS_CAPTURE``)."""


class AwsAppMesh(ApiStruct, frozen=True):
    """A mesh of AWS App Mesh."""

    aws_name: str = ""
    """Name in App Mesh."""
    region: str = ""
    """Region that it is in."""
    aws_account_id: str = ""
    """Account that owns it."""
    arn: str = ""
    """Amazon resource name of the mesh."""
    clusters: tuple[str, ...] = ()
    """Registered clusters with workloads in it."""


class LinkerdMesh(ApiStruct, frozen=True):
    """A Linkerd control plane."""

    installation: MeshInstallation = MeshInstallation()
    """Where it runs."""
    cluster_domain: str = ""
    """End of the cluster's service names."""


class ConsulConnectMesh(ApiStruct, frozen=True):
    """A Consul Connect control plane."""

    installation: MeshInstallation = MeshInstallation()
    """Where it runs."""


class OsmMesh(ApiStruct, frozen=True):
    """An Open Service Mesh control plane."""

    installation: MeshInstallation = MeshInstallation()
    """Where it runs."""


class AgentInfo(ApiStruct, frozen=True):
    """The agent of the mesh's cluster."""

    agent_namespace: str = ""
    """Namespace in which the agent runs."""


class MeshSpec(OneofStruct, frozen=True):
    """A discovered mesh."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("istio", "aws_app_mesh", "linkerd", "consul_connect", "osm"),)

    istio: IstioMesh | None = None
    """Set when the mesh is Istio, the one kind of mesh that Isthmus manages."""
    aws_app_mesh: AwsAppMesh | None = None
    """Set when the mesh is AWS App Mesh. Kept, not managed."""
    linkerd: LinkerdMesh | None = None
    """Set when the mesh is Linkerd. Kept, not managed."""
    consul_connect: ConsulConnectMesh | None = None
    """Set when the mesh is Consul Connect. Kept, not managed."""
    osm: OsmMesh | None = None
    """Set when the mesh is Open Service Mesh. Kept, not managed."""
    agent_info: AgentInfo | None = None
    """The agent that reported the mesh."""
    issued_certificate_status: IssuedCertificateStatus | None = None
    """Status of the mesh's IssuedCertificate on its cluster."""


class AppliedVirtualMesh(ApiStruct, frozen=True):
    """The virtual mesh that a mesh is a member of."""

    ref: ObjectRef = ObjectRef()
    """The VirtualMesh."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""
    spec: VirtualMeshSpec | None = None
    """Its content when it was accepted last."""


class AppliedObject(ApiStruct, frozen=True):
    """An object in force on a mesh or a workload."""

    ref: ObjectRef = ObjectRef()
    """The object."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""
    errors: tuple[str, ...] = ()
    """What went wrong."""


class MeshStatus(ApiStruct, frozen=True):
    """What the management plane did with a mesh."""

    observed_generation: Int64 = 0
    """Generation of the Mesh that this status speaks of."""
    applied_virtual_mesh: AppliedVirtualMesh | None = None
    """The virtual mesh in force, absent when the mesh is in none."""
    applied_virtual_destinations: tuple[AppliedObject, ...] = ()
    """The virtual destinations that it sees."""
    applied_east_west_ingress_gateways: tuple[AppliedIngressGateway, ...] = ()
    """The gateways through which other meshes reach this one."""
    warnings: tuple[str, ...] = ()
    """What deserves attention: discovery or configuration that will hurt."""


class Mesh(Resource, frozen=True):
    """A service mesh control plane and what it governs."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Mesh", "meshes")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Cluster", "string", ".spec.istio.installation.cluster"),
        ("Version", "string", ".spec.istio.installation.version"),
        ("Trust Domain", "string", ".spec.istio.trustDomain"),
        ("Virtual Mesh", "string", ".status.appliedVirtualMesh.ref.name"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: discovery.mesh.gloo.solo.io/v1
kind: Mesh
metadata:
  name: istiod-istio-system-cluster1
  namespace: gloo-mesh
spec:
  agentInfo:
    agentNamespace: gloo-mesh
  istio:
    installation:
      cluster: cluster1
      namespace: istio-system
      podLabels:
        app: istiod
      version: 1.9.5
    istiodServiceAccount: istiod-service-account
    trustDomain: cluster1
"""

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


class AppMeshPort(ApiStruct, frozen=True):
    """A port of an App Mesh virtual node."""

    port: UInt32 = 0
    """Port number."""
    protocol: str = ""
    """Protocol."""


class AppMeshWorkload(ApiStruct, frozen=True):
    """What AWS App Mesh knows of a workload."""

    virtual_node_name: str = ""
    """Name of its virtual node."""
    ports: tuple[AppMeshPort, ...] = ()
    """Its ports."""


class WorkloadSpec(ApiStruct, frozen=True):
    """A discovered workload."""

    kubernetes: KubernetesWorkload | None = None
    """The Kubernetes controller."""
    mesh: ObjectRef | None = None
    """The mesh that governs it."""
    app_mesh: AppMeshWorkload | None = None
    """Set when that is AWS App Mesh."""


class AppliedServiceDependency(ApiStruct, frozen=True):
    """A service dependency in force on a workload."""

    service_dependency_ref: ObjectRef = ObjectRef()
    """The ServiceDependency."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""


class ServiceDependencies(ApiStruct, frozen=True):
    """What a workload is known to call."""

    applied_service_dependencies: tuple[AppliedServiceDependency, ...] = ()
    """Where that is said."""
    destination_hostnames: tuple[str, ...] = ()
    """Host names, sorted."""


class WorkloadStatus(ApiStruct, frozen=True):
    """What the management plane did with a workload."""

    observed_generation: Int64 = 0
    """Generation of the Workload that this status speaks of."""
    applied_access_log_records: tuple[AppliedObject, ...] = ()
    """Access logs that are recorded."""
    applied_wasm_deployments: tuple[AppliedObject, ...] = ()
    """WebAssembly filters in its proxies."""
    service_dependencies: ServiceDependencies | None = None
    """What it is known to call."""
    warnings: tuple[str, ...] = ()
    """What deserves attention."""


class Workload(Resource, frozen=True):
    """Pods run from one controller, with one identity, in a mesh."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Workload", "workloads")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("wkld", "wklds")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Cluster", "string", ".spec.kubernetes.controller.clusterName"),
        ("Controller", "string", ".spec.kubernetes.controller.name"),
        ("Mesh", "string", ".spec.mesh.name"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: discovery.mesh.gloo.solo.io/v1
kind: Workload
metadata:
  name: reviews-v1-default-cluster1-deployment
  namespace: gloo-mesh
spec:
  kubernetes:
    controller:
      name: reviews-v1
      namespace: default
      clusterName: cluster1
    podLabels:
      app: reviews
      version: v1
    serviceAccountName: bookinfo-reviews
  mesh:
    name: istiod-istio-system-cluster1
    namespace: gloo-mesh
"""

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


class ServicePort(OneofStruct, frozen=True):
    """A port of a Kubernetes Service."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("target_port_name", "target_port_number"),)

    port: UInt32 = 0
    """Service port."""
    name: str = ""
    """Port name; empty for the only, unnamed port."""
    protocol: str = ""
    """L4 protocol: TCP, UDP or SCTP."""
    app_protocol: str = ""
    """Application protocol of the Service, such as ``http`` or ``kubernetes.io/h2c``."""
    node_port: UInt32 = 0
    """Port on every node, 0 if none."""
    target_port_name: str | None = None
    """Container port by name."""
    target_port_number: UInt32 | None = None
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

    port: UInt32 = 0
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


class ExternalAddress(OneofStruct, frozen=True):
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

    number: UInt32 = 0
    """Port number."""
    name: str = ""
    """Port name."""
    protocol: UpperCase = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS, in any case; TCP by default."""


class ExternalEndpoint(ApiStruct, frozen=True):
    """An endpoint of an external service."""

    address: str = ""
    """IP address or host name."""
    ports: dict[str, UInt32] = {}
    """Port number by port name, where it is not the number of the port."""


class ExternalService(ApiStruct, frozen=True):
    """A host outside any mesh, written by a user."""

    name: str = ""
    """Name of the ServiceEntry; that of this object by default."""
    hosts: tuple[str, ...] = ()
    """Host names; required. The first label may be ``*``."""
    addresses: tuple[str, ...] = ()
    """Virtual IP addresses, or ranges of them; by default one from 240.0.0.0/4 is generated."""
    ports: tuple[ExternalServicePort, ...] = ()
    """Ports; required."""
    endpoints: tuple[ExternalEndpoint, ...] = ()
    """Endpoints; none means that the hosts are resolved by DNS."""


class DestinationSpec(OneofStruct, frozen=True):
    """A discovered destination."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("kube_service", "external_service"),)

    kube_service: KubeService | None = None
    """A Kubernetes Service."""
    external_service: ExternalService | None = None
    """A host outside any mesh."""
    mesh: ObjectRef | None = None
    """The mesh that it belongs to; needed for Kubernetes services. An external service is known on all meshes of the
    virtual mesh that this one is in, and without it on those of every virtual mesh."""


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

    observed_generation: Int64 = 0
    """Generation of the Destination that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """Whether meshes know it, of external services, which users write. Ours."""
    errors: tuple[str, ...] = ()
    """Why they do not. Ours."""
    applied_traffic_policies: tuple[AppliedTrafficPolicy, ...] = ()
    """Accepted traffic policies, in order of acceptance."""
    applied_access_policies: tuple[AppliedAccessPolicy, ...] = ()
    """Accepted access policies, in order of acceptance."""
    local_fqdn: str = ""
    """Host name within its own cluster."""
    applied_federation: AppliedFederation | None = None
    """Absent when it is not federated or the federation failed."""
    required_subsets: tuple[RequiredSubsets, ...] = ()
    """Traffic policies whose traffic shift names subsets of it."""
    warnings: tuple[str, ...] = ()
    """What deserves attention."""


class Destination(Resource, frozen=True):
    """A service that traffic can go to."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Destination", "destinations")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("dest", "dests")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Cluster", "string", ".spec.kubeService.ref.clusterName"),
        ("Hostname", "string", ".status.localFqdn"),
        ("Federated Hostname", "string", ".status.appliedFederation.federatedHostname"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: discovery.mesh.gloo.solo.io/v1
kind: Destination
metadata:
  name: reviews-default-cluster1
  namespace: gloo-mesh
spec:
  kubeService:
    ref:
      name: reviews
      namespace: default
      clusterName: cluster1
    labels:
      app: reviews
    ports:
    - name: http
      port: 9080
      protocol: TCP
      targetPortNumber: 9080
    workloadSelectorLabels:
      app: reviews
  mesh:
    name: istiod-istio-system-cluster1
    namespace: gloo-mesh
"""

    spec: DestinationSpec = DestinationSpec()
    """What was discovered."""
    status: DestinationStatus | None = None
    """What the management plane did with it."""
