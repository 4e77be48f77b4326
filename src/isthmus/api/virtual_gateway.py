"""VirtualGateway: listeners at ingress gateways of any clusters, and which hosts they serve."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Empty, OneofStruct, Resource
from isthmus.api.common import (
    AppliedIngressGateway,
    ApprovalState,
    ClusterObjectRef,
    IngressGatewaySelector,
    ObjectRef,
    ObjectRefList,
    ObjectSelector,
    WorkloadSelector,
)
from isthmus.api.scalars import Duration, Int64, UInt32, UpperCase
from isthmus.api.traffic_policy import CsrfPolicy
from isthmus.api.virtual_host import GROUP, VirtualHostSpec
from isthmus.model.ref import Kind


class DeployToIngressGateways(ApiStruct, frozen=True):
    """Gateways by their pods, as 1.1 had it."""

    bind_address: str = ""
    """Address that they listen on."""
    bind_port: UInt32 = 0
    """Port that they listen on."""
    gateway_workloads: tuple[WorkloadSelector, ...] = ()
    """The gateways."""


class ConnectionMatch(ApiStruct, frozen=True):
    """Which connections."""

    server_names: tuple[str, ...] = ()
    """Names that clients ask for with TLS (SNI): exact or ``*.example.com``; omitted means any."""
    transport_protocol: UpperCase = ""
    """HTTP, HTTP2, GRPC, HTTPS, TCP, MONGO or TLS, in any case; omitted follows from handler and TLS."""


class RouteConfig(OneofStruct, frozen=True):
    """Hosts of a gateway."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("virtual_host_selector", "virtual_host"),)

    virtual_host_selector: ObjectSelector | None = None
    """VirtualHosts by namespace and label."""
    virtual_host: VirtualHostSpec | None = None
    """A host that only this gateway has."""


class GatewayRateLimit(ApiStruct, frozen=True):
    """The rate limit server of a gateway."""

    ratelimit_server_ref: ObjectRef | None = None
    """Its Service on each cluster; omitted means any Service named ``rate-limiter``."""
    request_timeout: Duration = ""
    """How long its answer is waited for; 100ms by default."""
    deny_on_fail: bool = False
    """Whether requests are refused when it does not answer."""


class ExtauthRequest(ApiStruct, frozen=True):
    """What an HTTP auth server is sent."""

    allowed_headers: tuple[str, ...] = ()
    """Request headers that it is sent."""
    headers_to_add: dict[str, str] = {}
    """Headers that are added to what it is sent."""


class ExtauthResponse(ApiStruct, frozen=True):
    """What an HTTP auth server's answer changes."""

    allowed_upstream_headers: tuple[str, ...] = ()
    """Its headers that are added to the request."""
    allowed_client_headers: tuple[str, ...] = ()
    """Its headers that clients get when it refuses."""


class ExtauthHttpService(ApiStruct, frozen=True):
    """An auth server that speaks HTTP."""

    path_prefix: str = ""
    """What its paths begin with."""
    request: ExtauthRequest | None = None
    """What it is sent."""
    response: ExtauthResponse | None = None
    """What its answer changes."""


class ExtauthRequestBody(ApiStruct, frozen=True):
    """Whether an auth server is sent the body."""

    max_request_bytes: UInt32 = 0
    """Bytes at most; 4096 by default."""
    allow_partial_message: bool = False
    """Whether a longer body is cut instead of refused."""
    pack_as_bytes: bool = False
    """Whether it is sent as bytes instead of a string."""


class TransportApiVersion(Enum):
    """The version of Envoy's auth protocol. GLOO_MESH_AUTO is the zero value."""

    GLOO_MESH_AUTO = "GLOO_MESH_AUTO"
    ENVOY_AUTO = "ENVOY_AUTO"
    V3 = "V3"


class GatewayExtauth(ApiStruct, frozen=True):
    """The auth server of a gateway."""

    extauthz_ref: ObjectRef | None = None
    """Its Service on each cluster; omitted means any Service named ``ext-auth-service``."""
    http_service: ExtauthHttpService | None = None
    """Settings of a server that speaks HTTP; omitted means gRPC."""
    request_timeout: Duration = ""
    """How long its answer is waited for; 2s by default."""
    failure_mode_allow: bool = False
    """Whether requests pass when it does not answer."""
    request_body: ExtauthRequestBody | None = None
    """Whether it is sent the body."""
    clear_route_cache: bool = False
    """Whether the route is chosen again after its answer."""
    status_on_error: UInt32 = 0
    """Status code when it does not answer; 403 by default."""
    transport_api_version: TransportApiVersion = TransportApiVersion.GLOO_MESH_AUTO
    """The version of its protocol."""
    stat_prefix: str = ""
    """Prefix of Envoy's statistics."""


class RouteOptions(ApiStruct, frozen=True):
    """What happens to all requests of a gateway before a route is chosen."""

    csrf: CsrfPolicy | None = None
    """Refusal of requests that another site made a browser send."""
    rate_limit: GatewayRateLimit | None = None
    """The rate limit server; limits come from routes."""
    extauth: GatewayExtauth | None = None
    """The auth server."""


class HttpHandler(ApiStruct, frozen=True):
    """Routes requests."""

    route_config: tuple[RouteConfig, ...] = ()
    """The hosts."""
    route_options: RouteOptions | None = None
    """What happens to all requests."""


class TcpAction(OneofStruct, frozen=True):
    """Where connections go."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("static", "virtual", "kube", "forward_sni_cluster_name"),)

    static: ObjectRef | None = None
    """A Destination of an external service."""
    virtual: ObjectRef | None = None
    """A VirtualDestination."""
    kube: ClusterObjectRef | None = None
    """A Kubernetes service."""
    forward_sni_cluster_name: Empty | None = None
    """The service of the mesh that the connection's SNI names; its TLS is not decrypted."""


class TcpHost(ApiStruct, frozen=True):
    """A share of the connections and where it goes."""

    name: str = ""
    """Name, unique within the list."""
    destination: TcpAction | None = None
    """Where the connections go; required."""
    weight: UInt32 = 0
    """Share of the connections; all omitted means even shares."""


class TunnelingConfig(ApiStruct, frozen=True):
    """A tunnel through an HTTP proxy."""

    hostname: str = ""
    """Host that the proxy is asked to connect to."""


class TcpProxySettings(ApiStruct, frozen=True):
    """Settings of proxied connections."""

    max_connect_attempts: UInt32 | None = None
    """How often a connection is tried."""
    idle_timeout: Duration = ""
    """How long a connection may be silent."""
    tunneling_config: TunnelingConfig | None = None
    """A tunnel through an HTTP proxy."""


class TcpOptions(ApiStruct, frozen=True):
    """Options of connections."""

    tcp_proxy_settings: TcpProxySettings | None = None
    """Settings of proxied connections."""


class TcpHandler(ApiStruct, frozen=True):
    """Passes connections on."""

    tcp_hosts: tuple[TcpHost, ...] = ()
    """Where they go."""
    options: TcpOptions | None = None
    """Options of the connections."""


class TlsVersion(Enum):
    """A version of TLS. TLS_AUTO is the zero value."""

    TLS_AUTO = "TLS_AUTO"
    TLSV1_0 = "TLSv1_0"
    TLSV1_1 = "TLSv1_1"
    TLSV1_2 = "TLSv1_2"
    TLSV1_3 = "TLSv1_3"


class SslParameters(ApiStruct, frozen=True):
    """Versions and ciphers of TLS."""

    minimum_protocol_version: TlsVersion = TlsVersion.TLS_AUTO
    """The lowest version."""
    maximum_protocol_version: TlsVersion = TlsVersion.TLS_AUTO
    """The highest version."""
    cipher_suites: tuple[str, ...] = ()
    """Ciphers by Envoy's names; omitted means Istio's choice."""


class SslFiles(ApiStruct, frozen=True):
    """Certificates as files of the gateway's pods."""

    tls_cert: str = ""
    """Path of the certificate."""
    tls_key: str = ""
    """Path of its key."""
    root_ca: str = ""
    """Path of the roots that certificates of clients are verified with."""


class ServerTlsMode(Enum):
    """What a gateway does with TLS. PASSTHROUGH is the zero value, so HTTP always has to say SIMPLE or another."""

    PASSTHROUGH = "PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"


class SslConfig(OneofStruct, frozen=True):
    """TLS of a gateway."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("secret_name", "ssl_files"),)

    secret_name: str | None = None
    """Secret with ``tls.crt`` and ``tls.key`` in the cluster and namespace of the gateway."""
    ssl_files: SslFiles | None = None
    """Certificates as files of the gateway's pods."""
    verify_subject_alt_name: tuple[str, ...] = ()
    """Names, one of which a client's certificate must have; needs a root."""
    parameters: SslParameters | None = None
    """Versions and ciphers."""
    tls_mode: ServerTlsMode = ServerTlsMode.PASSTHROUGH
    """What the gateway does with TLS: PASSTHROUGH (when omitted), SIMPLE, MUTUAL, AUTO_PASSTHROUGH or ISTIO_MUTUAL."""


class ConnectionOptions(OneofStruct, frozen=True):
    """Options of connections."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("ssl_config", "https_redirect"),)

    ssl_config: SslConfig | None = None
    """TLS; omitted means none."""
    https_redirect: bool | None = None
    """Whether clients are sent to https, with 301."""
    strict_filter_management: bool = False
    """Whether only named filters are in the chain. Not acted on."""
    enable_proxy_protocol: bool = False
    """Whether connections begin with a PROXY header, which says who made them; one without is refused."""


class ConnectionHandler(OneofStruct, frozen=True):
    """Which connections, and what happens to them."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("http", "tcp"),)

    connection_match: ConnectionMatch | None = None
    """Which connections; omitted means all."""
    http: HttpHandler | None = None
    """Routes requests."""
    tcp: TcpHandler | None = None
    """Passes connections on."""
    connection_options: ConnectionOptions | None = None
    """TLS and other options."""


class GatewayOptions(ApiStruct, frozen=True):
    """Options of a listener."""

    per_connection_buffer_limit_bytes: UInt32 | None = None
    """Bytes that are held for a connection, from which on its sender waits; 1 MiB by default."""
    bind_address: str = ""
    """Address that the gateway listens on; all by default."""


class VirtualGatewaySpec(ApiStruct, frozen=True):
    """Gateways, and what they do with connections."""

    ingress_gateway_selectors: tuple[IngressGatewaySelector, ...] = ()
    """Services of gateways, on any cluster, and the name of their port, such as ``http2`` or ``https``."""
    deploy_to_ingress_gateways: DeployToIngressGateways | None = None
    """Not implemented: use ingressGatewaySelectors."""
    deploy_to_sidecars: tuple[WorkloadSelector, ...] = ()
    """Not implemented."""
    connection_handlers: tuple[ConnectionHandler, ...] = ()
    """What happens to connections; exactly one."""
    options: GatewayOptions | None = None
    """Options of the listener."""


class VirtualGatewayStatus(ApiStruct, frozen=True):
    """What became of a virtual gateway."""

    observed_generation: Int64 = 0
    """Generation of the VirtualGateway that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED if every gateway that it selects serves it."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted, such as hosts that are not."""
    applied_ingress_gateways: tuple[AppliedIngressGateway, ...] = ()
    """The gateways that serve it."""
    selected_virtual_hosts: tuple[ObjectRef, ...] = ()
    """The VirtualHosts that it serves."""
    selected_route_tables: tuple[ObjectRef, ...] = ()
    """The RouteTables that these delegate to, directly or not."""
    created_istio_gateways: dict[str, ObjectRefList] = {}
    """Istio's Gateways that were made of it, by cluster."""


class VirtualGateway(Resource, frozen=True):
    """Lets requests from outside in at gateways of any clusters, to destinations on any other."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "VirtualGateway", "virtualgateways")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("vg", "vgs")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: VirtualGateway
metadata:
  name: shop
  namespace: gloo-mesh
spec:
  ingressGatewaySelectors:
  - portName: http2
    destinationSelectors:
    - kubeServiceMatcher:
        clusters:
        - cluster1
        namespaces:
        - istio-system
        labels:
          istio: ingressgateway
  connectionHandlers:
  - http:
      routeConfig:
      - virtualHostSelector:
          namespaces:
          - gloo-mesh
"""

    spec: VirtualGatewaySpec = VirtualGatewaySpec()
    """What the user wants."""
    status: VirtualGatewayStatus | None = None
    """What became of it."""
