"""References, selectors and small messages that several kinds share.

Source of every field: the reference's shared types.
"""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, OneofStruct
from isthmus.api.scalars import Duration, Float, Int64, UInt32
from isthmus.model.ref import Ref


class ObjectRef(ApiStruct, frozen=True, order=True):
    """An object of the management cluster, unless said otherwise."""

    name: str = ""
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""

    @property
    def ref(self) -> Ref:
        """The same identity as a `Ref`."""
        return Ref("", self.namespace, self.name)


class ClusterObjectRef(ApiStruct, frozen=True, order=True):
    """An object of a registered cluster."""

    name: str = ""
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    cluster_name: str = ""
    """Name of the registered KubernetesCluster."""

    @property
    def ref(self) -> Ref:
        """The same identity as a `Ref`."""
        return Ref(self.cluster_name, self.namespace, self.name)


class ApprovalState(Enum):
    """How far an object was processed. PENDING is the zero value, so it is seen as no ``state`` at all."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    INVALID = "INVALID"
    FAILED = "FAILED"


class ApprovalStatus(ApiStruct, frozen=True):
    """Outcome of one object on one destination, workload or mesh."""

    acceptance_order: UInt32 = 0
    """Position among the accepted policies of the target, from 0."""
    state: ApprovalState = ApprovalState.PENDING
    """Outcome for this target."""
    errors: tuple[str, ...] = ()
    """Why the outcome is not ACCEPTED."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""


class KubeServiceMatcher(ApiStruct, frozen=True):
    """Selects Kubernetes services by what they are; fields are ANDed, an omitted field matches anything."""

    labels: dict[str, str] = {}
    """Labels of the Service object (not of its pods), every pair of which must match."""
    namespaces: tuple[str, ...] = ()
    """Namespaces, one of which must match."""
    clusters: tuple[str, ...] = ()
    """Registered cluster names, one of which must match."""


class KubeServiceRefs(ApiStruct, frozen=True):
    """Selects Kubernetes services by identity."""

    services: tuple[ClusterObjectRef, ...] = ()
    """The services; name, namespace and clusterName are all needed."""


class DestinationSelector(ApiStruct, frozen=True):
    """Selects destinations; both keys together select the union."""

    kube_service_matcher: KubeServiceMatcher | None = None
    """Services by labels, namespaces and clusters."""
    kube_service_refs: KubeServiceRefs | None = None
    """Services by reference."""


class IngressGatewaySelector(ApiStruct, frozen=True):
    """Selects ingress gateways by their services."""

    destination_selectors: tuple[DestinationSelector, ...] = ()
    """The gateway services; omitted selects the default gateway of the mesh."""
    port_name: str = ""
    """Name of the service port for mesh traffic; omitted means ``tls``."""


class TcpKeepalive(ApiStruct, frozen=True):
    """TCP keep-alive of connections between clusters."""

    probes: UInt32 = 0
    """Unanswered probes before the connection is dead; 0 takes the system's."""
    time: Duration = ""
    """Idle time before the first probe, a duration such as ``300s``."""
    interval: Duration = ""
    """Time between probes, a duration such as ``30s``."""


class AppliedIngressGateway(ApiStruct, frozen=True):
    """An east-west gateway in use."""

    destination_ref: ObjectRef = ObjectRef()
    """The gateway's Destination."""
    external_addresses: tuple[str, ...] = ()
    """IP addresses or DNS names at which other clusters reach it."""
    port: UInt32 = 0
    """Service port."""
    external_port: UInt32 = 0
    """Port at the external addresses: the service port of a LoadBalancer, the node port of a NodePort service."""


class ObjectRefList(ApiStruct, frozen=True):
    """Several objects of the management cluster."""

    refs: tuple[ObjectRef, ...] = ()
    """The objects."""


class SelectorOperator(Enum):
    """How a label is compared. `Equals` is the zero value. These are the only enum values in mixed case."""

    EQUALS = "Equals"
    DOUBLE_EQUALS = "DoubleEquals"
    NOT_EQUALS = "NotEquals"
    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GREATER_THAN = "GreaterThan"
    LESS_THAN = "LessThan"


class SelectorExpression(ApiStruct, frozen=True):
    """One requirement on a label."""

    key: str = ""
    """Label key."""
    operator: SelectorOperator = SelectorOperator.EQUALS
    """How the label's value is compared."""
    values: tuple[str, ...] = ()
    """What it is compared with: none for Exists and DoesNotExist, at least one for In and NotIn, else exactly one."""


class ObjectSelector(ApiStruct, frozen=True):
    """Selects objects of the management cluster; an empty selector selects all of the owner's namespace."""

    namespaces: tuple[str, ...] = ()
    """Namespaces, one of which must match; omitted means the owner's own, ``*`` all that are watched."""
    labels: dict[str, str] = {}
    """Labels, every pair of which must match. Not together with expressions."""
    expressions: tuple[SelectorExpression, ...] = ()
    """Requirements, all of which must hold. Not together with labels."""


class KubeWorkloadMatcher(ApiStruct, frozen=True):
    """Selects Kubernetes workloads by what they are; fields are ANDed, an omitted field matches anything."""

    labels: dict[str, str] = {}
    """Labels of the pod template, every pair of which must match."""
    namespaces: tuple[str, ...] = ()
    """Namespaces, one of which must match."""
    clusters: tuple[str, ...] = ()
    """Registered cluster names, one of which must match."""


class WorkloadSelector(ApiStruct, frozen=True):
    """Selects workloads; an item without a matcher selects all of them."""

    kube_workload_matcher: KubeWorkloadMatcher | None = None
    """Workloads by labels, namespaces and clusters."""


class KubeIdentityMatcher(ApiStruct, frozen=True):
    """Selects callers by where they run; fields are ANDed, an omitted field matches anything."""

    namespaces: tuple[str, ...] = ()
    """Namespaces, one of which must match."""
    clusters: tuple[str, ...] = ()
    """Registered cluster names, one of which must match."""


class KubeServiceAccountRefs(ApiStruct, frozen=True):
    """Selects callers by service account."""

    service_accounts: tuple[ClusterObjectRef, ...] = ()
    """The service accounts; an omitted name, namespace or clusterName means any."""


class RequestIdentityMatcher(ApiStruct, frozen=True):
    """Selects callers by the JWT of the request, written as issuer and subject: ``iss/sub``."""

    request_principals: tuple[str, ...] = ()
    """Principals, one of which must match."""
    not_request_principals: tuple[str, ...] = ()
    """Principals, none of which may match."""


class IdentitySelector(ApiStruct, frozen=True):
    """Selects callers by identity."""

    kube_identity_matcher: KubeIdentityMatcher | None = None
    """Callers by namespace and cluster."""
    kube_service_account_refs: KubeServiceAccountRefs | None = None
    """Callers by service account."""
    request_identity_matcher: RequestIdentityMatcher | None = None
    """Callers by the JWT of the request."""


class StringMatch(OneofStruct, frozen=True):
    """How a string is compared."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("exact", "prefix", "regex", "suffix"),)

    exact: str | None = None
    """The whole string."""
    prefix: str | None = None
    """Its beginning."""
    regex: str | None = None
    """A regular expression (RE2) for the whole string."""
    suffix: str | None = None
    """Its end."""
    ignore_case: bool = False
    """Whether upper and lower case are the same; no effect on regex."""


class HeaderMatcher(ApiStruct, frozen=True):
    """A condition on one request header."""

    name: str = ""
    """Header name."""
    value: str = ""
    """Header value; omitted means that the header only has to be there."""
    regex: bool = False
    """Whether value is a regular expression."""
    invert_match: bool = False
    """Whether the header must not match."""


class QueryParameterMatcher(ApiStruct, frozen=True):
    """A condition on one query parameter."""

    name: str = ""
    """Parameter name."""
    value: str = ""
    """Parameter value; omitted means that the parameter only has to be there."""
    regex: bool = False
    """Whether value is a regular expression."""


class HttpMatcher(ApiStruct, frozen=True):
    """A condition on an HTTP request; fields are ANDed, an omitted field matches anything."""

    name: str = ""
    """Name of the matcher, for reports."""
    uri: StringMatch | None = None
    """The path."""
    headers: tuple[HeaderMatcher, ...] = ()
    """Headers, all of which must match."""
    query_parameters: tuple[QueryParameterMatcher, ...] = ()
    """Query parameters, all of which must match."""
    method: str = ""
    """The HTTP method."""


class HeaderManipulation(ApiStruct, frozen=True):
    """Headers to add and remove."""

    remove_response_headers: tuple[str, ...] = ()
    """Names of headers that are removed from responses."""
    append_response_headers: dict[str, str] = {}
    """Headers that are added to responses."""
    remove_request_headers: tuple[str, ...] = ()
    """Names of headers that are removed from requests."""
    append_request_headers: dict[str, str] = {}
    """Headers that are added to requests."""


class OutlierDetection(ApiStruct, frozen=True):
    """When an endpoint that fails is left out for a while; zero takes the default of the kind that holds it."""

    consecutive_errors: UInt32 = 0
    """Errors in a row after which an endpoint is ejected."""
    interval: Duration = ""
    """Time between two looks at the endpoints."""
    base_ejection_time: Duration = ""
    """Shortest time that an endpoint stays ejected."""
    max_ejection_percent: UInt32 = 0
    """Largest share of the endpoints that may be ejected, 0 to 100."""


class TlsMode(Enum):
    """How clients speak to a destination. DISABLE is the zero value."""

    DISABLE = "DISABLE"
    SIMPLE = "SIMPLE"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class IstioMtls(ApiStruct, frozen=True):
    """TLS of Istio's clients."""

    tls_mode: TlsMode = TlsMode.DISABLE
    """How clients speak to the destination; omitted means DISABLE."""


class MtlsPolicy(ApiStruct, frozen=True):
    """TLS between client and destination, per kind of mesh."""

    istio: IstioMtls | None = None
    """TLS in Istio meshes."""


class KubeDestination(ApiStruct, frozen=True):
    """A Kubernetes service that traffic is sent to."""

    name: str = ""
    """Name of the Service."""
    namespace: str = ""
    """Namespace of the Service."""
    cluster_name: str = ""
    """Name of the registered KubernetesCluster."""
    subset: dict[str, str] = {}
    """Pod labels; only pods with all of them get the traffic."""
    port: UInt32 = 0
    """Service port; needed when the Service has more than one."""

    @property
    def ref(self) -> Ref:
        """The Service as a `Ref`."""
        return Ref(self.cluster_name, self.namespace, self.name)


class VirtualDestinationReference(ApiStruct, frozen=True):
    """A VirtualDestination that traffic is sent to."""

    name: str = ""
    """Name of the VirtualDestination."""
    namespace: str = ""
    """Namespace of the VirtualDestination."""
    subset: dict[str, str] = {}
    """Pod labels; only pods with all of them get the traffic."""


class DestinationOptions(ApiStruct, frozen=True):
    """What else happens when a weighted destination is chosen."""

    header_manipulation: HeaderManipulation | None = None
    """Headers to add and remove."""


class WeightedDestination(OneofStruct, frozen=True):
    """A share of the traffic and where it goes."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("kube_service", "virtual_destination", "static_destination", "cluster_header"),
    )

    weight: UInt32 = 0
    """Share of the traffic; the weights of a list should sum to 100. A single entry may omit it."""
    kube_service: KubeDestination | None = None
    """A Kubernetes service."""
    virtual_destination: VirtualDestinationReference | None = None
    """A VirtualDestination."""
    static_destination: ObjectRef | None = None
    """A Destination of an external service."""
    cluster_header: str | None = None
    """Not implemented."""
    options: DestinationOptions | None = None
    """What else happens when this entry is chosen; gateway routes only."""


class TrafficShift(ApiStruct, frozen=True):
    """Where the requests to a destination go instead."""

    destinations: tuple[WeightedDestination, ...] = ()
    """The new destinations and their shares."""


class RequiredSubsets(ApiStruct, frozen=True):
    """A traffic policy whose traffic shift names subsets of the destination."""

    traffic_policy_ref: ObjectRef = ObjectRef()
    """The TrafficPolicy."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""
    traffic_shift: TrafficShift | None = None
    """Its traffic shift."""


class KeyAlgorithm(Enum):
    """What kind of key an authority signs with. RSA is the zero value."""

    RSA = "RSA"
    ECDSA = "ECDSA"


class CommonCertOptions(ApiStruct, frozen=True):
    """Properties of a certificate authority's certificate; zero takes the default."""

    ttl_days: UInt32 = 0
    """Days until it expires; 365 by default."""
    rsa_key_size_bytes: UInt32 = 0
    """Size of the RSA key in bits, despite the name; 4096 by default."""
    org_name: str = ""
    """Organisation in the subject; ``gloo-mesh`` for roots, ``Istio`` for intermediates by default."""
    secret_rotation_grace_period_ratio: Float = 0.0
    """Share of the lifetime that is left when it is renewed; 0.10 by default."""
    key_algorithm: KeyAlgorithm = KeyAlgorithm.RSA
    """RSA, or ECDSA with curve P-256, whose size no field says. Not in Gloo Mesh."""


class VaultKubernetesAuth(OneofStruct, frozen=True):
    """How the agent logs in to Vault with a Kubernetes service account."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("service_account_ref", "mounted_sa_path"),)

    mount_path: str = ""
    """Path of Vault's auth method; ``/v1/auth/kubernetes`` by default. ``{cluster}`` in it is the cluster's name."""
    role: str = ""
    """Vault role; required."""
    secret_token_key: str = ""
    """Key of the token in the service account's Secret, or its file's name; ``token`` by default."""
    service_account_ref: ObjectRef | None = None
    """The service account in the agent's namespace whose token is used; it must have a Secret with one."""
    mounted_sa_path: str | None = None
    """Folder of the agent that has the token; ``/var/run/secrets/kubernetes.io/serviceaccount`` by default."""


class VaultAppRoleAuth(ApiStruct, frozen=True):
    """How the agent logs in to Vault with an AppRole. An addition of ours."""

    mount_path: str = ""
    """Path of Vault's auth method; ``/v1/auth/approle`` by default. ``{cluster}`` in it is the cluster's name."""
    role_id: str = ""
    """Role id; required."""
    secret_id_secret_ref: ObjectRef | None = None
    """Secret in the agent's namespace that holds the secret id; required."""
    secret_id_key: str = ""
    """Key of the secret id in that Secret; ``secretId`` by default."""


class VaultCA(OneofStruct, frozen=True):
    """A certificate authority in HashiCorp Vault."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("token_secret_ref", "kubernetes_auth", "app_role_auth"),)

    ca_path: str = ""
    """Path that signs, such as ``pki/root/sign-intermediate``."""
    csr_path: str = ""
    """Not used: the agent makes the key and the request itself, so that no key travels."""
    server: str = ""
    """URL of the Vault server."""
    ca_bundle: bytes = b""
    """PEM certificates that the server's certificate is verified with; the system's by default."""
    namespace: str = ""
    """Vault namespace."""
    token_secret_ref: ObjectRef | None = None
    """Secret in the agent's namespace that holds a Vault token under ``token``."""
    kubernetes_auth: VaultKubernetesAuth | None = None
    """Log in with a Kubernetes service account."""
    app_role_auth: VaultAppRoleAuth | None = None
    """Log in with an AppRole. An addition of ours."""


class CertificateRotationState(Enum):
    """How far the rotation of a root is. NOT_ROTATING is the zero value; the next four are active states."""

    NOT_ROTATING = "NOT_ROTATING"
    PREVIOUS_CA = "PREVIOUS_CA"
    ADDING_NEW_ROOT = "ADDING_NEW_ROOT"
    PROPAGATING_NEW_INTERMEDIATE = "PROPAGATING_NEW_INTERMEDIATE"
    DELETING_OLD_ROOT = "DELETING_OLD_ROOT"
    VERIFYING = "VERIFYING"
    VERIFIED = "VERIFIED"
    ROLLING_BACK = "ROLLING_BACK"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
