"""Istio objects as values: the fields that translation sets, and nothing else.

Source of every field: https://istio.io/latest/docs/reference/config/networking/
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec

from isthmus.istio import kinds
from isthmus.model.ref import Kind, ObjectKey

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Base of every message; gc=False since values form no cycles: the collector has nothing to look for in them."""


class Metadata(_Message, frozen=True):
    """Identity and annotations. Labels of ownership are the agent's to add when it writes."""

    name: str
    namespace: str
    annotations: dict[str, str] = {}


class IstioObject(_Message, frozen=True):
    """Base of every Istio kind."""

    KIND: ClassVar[Kind]

    metadata: Metadata

    @property
    def key(self) -> ObjectKey:
        """Identity within one cluster."""
        return ObjectKey(self.KIND.api_version, self.KIND.kind, self.metadata.namespace, self.metadata.name)

    def payload(self) -> bytes:
        """The manifest as canonical JSON: equal objects have equal bytes."""
        head = f'{{"apiVersion":"{self.KIND.api_version}","kind":"{self.KIND.kind}",'
        return head.encode() + _ENCODE(self)[1:]


class Port(_Message, frozen=True):
    """A port of a ServiceEntry or Gateway; *protocol* is Istio's name in upper case, empty: Istio looks what comes in.

    *target_port* is where endpoints answer, 0: at *number*.
    """

    number: int
    name: str
    protocol: str = ""
    target_port: int = 0


class WorkloadEntry(_Message, frozen=True):
    """An endpoint of a ServiceEntry; *ports* maps port names to numbers, *locality* is ``region/zone/subzone``."""

    address: str
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    weight: int = 0
    locality: str = ""


class ServiceEntrySpec(_Message, frozen=True):
    """Hosts that Istio should know, and where they are."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    location: str = ""
    resolution: str = ""
    workload_selector: ProxySelector | None = None
    endpoints: tuple[WorkloadEntry, ...] = ()
    export_to: tuple[str, ...] = ()


class ServiceEntry(IstioObject, frozen=True):
    """networking.istio.io ServiceEntry."""

    KIND: ClassVar[Kind] = kinds.SERVICE_ENTRY

    spec: ServiceEntrySpec


class ClientTls(_Message, frozen=True):
    """TLS settings of a DestinationRule; *sni* instead of the name that Istio makes of the host."""

    mode: str
    sni: str = ""


class TcpKeepalive(_Message, frozen=True):
    """SO_KEEPALIVE of connections to the host."""

    probes: int = 0
    time: str = ""
    interval: str = ""


class TcpSettings(_Message, frozen=True):
    """Settings of TCP connections to the host."""

    tcp_keepalive: TcpKeepalive | None = None


class ConnectionPool(_Message, frozen=True):
    """Connections to the host."""

    tcp: TcpSettings | None = None


class OutlierDetection(_Message, frozen=True):
    """When an endpoint that fails is left out for a while; percent 0 to 100."""

    consecutive_5xx_errors: int = msgspec.field(name="consecutive5xxErrors")
    interval: str
    base_ejection_time: str
    max_ejection_percent: int


class Failover(_Message, frozen=True):
    """The region that serves callers of another one when nothing in their own does."""

    from_: str = msgspec.field(name="from")
    to: str


class LocalityLb(_Message, frozen=True):
    """Whether the nearest endpoints are preferred, and what follows them."""

    enabled: bool
    failover: tuple[Failover, ...] = ()
    failover_priority: tuple[str, ...] = ()
    """Labels as ``name=value``. Endpoints with all of them come first, then those that lack the last, and so on."""


class LoadBalancer(_Message, frozen=True):
    """How endpoints are chosen."""

    locality_lb_setting: LocalityLb | None = None


class PortSelector(_Message, frozen=True):
    """A service port."""

    number: int


class PortTraffic(_Message, frozen=True):
    """How clients connect to one port of a host, instead of what is said for the host."""

    port: PortSelector
    tls: ClientTls | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancer: LoadBalancer | None = None


class DestinationTraffic(_Message, frozen=True):
    """The trafficPolicy of a DestinationRule, or of one of its subsets."""

    tls: ClientTls | None = None
    connection_pool: ConnectionPool | None = None
    outlier_detection: OutlierDetection | None = None
    load_balancer: LoadBalancer | None = None
    port_level_settings: tuple[PortTraffic, ...] = ()


class Subset(_Message, frozen=True):
    """A named set of endpoints with these labels."""

    name: str
    labels: dict[str, str]
    traffic_policy: DestinationTraffic | None = None


class DestinationRuleSpec(_Message, frozen=True):
    """How clients connect to a host."""

    host: str
    traffic_policy: DestinationTraffic | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()


class DestinationRule(IstioObject, frozen=True):
    """networking.istio.io DestinationRule."""

    KIND: ClassVar[Kind] = kinds.DESTINATION_RULE

    spec: DestinationRuleSpec


class ServerTls(_Message, frozen=True):
    """TLS settings of a gateway server. *credential_name* is a Secret of its namespace; paths are those of its pods."""

    mode: str = ""
    https_redirect: bool = False
    credential_name: str = ""
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    subject_alt_names: tuple[str, ...] = ()
    min_protocol_version: str = ""
    max_protocol_version: str = ""
    cipher_suites: tuple[str, ...] = ()


class Server(_Message, frozen=True):
    """A listener of a gateway; *bind* is the address that it listens on, without one all."""

    port: Port
    hosts: tuple[str, ...]
    tls: ServerTls | None = None
    bind: str = ""


class GatewaySpec(_Message, frozen=True):
    """Listeners on the pods that *selector* selects."""

    selector: dict[str, str]
    servers: tuple[Server, ...]


class Gateway(IstioObject, frozen=True):
    """networking.istio.io Gateway."""

    KIND: ClassVar[Kind] = kinds.GATEWAY

    spec: GatewaySpec


class StringMatch(_Message, frozen=True):
    """How a string is compared; with no field, it only has to be there."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class HttpMatch(_Message, frozen=True):
    """Which requests a route is for; what is omitted matches anything."""

    uri: StringMatch | None = None
    ignore_uri_case: bool = False
    method: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    port: int = 0
    source_labels: dict[str, str] = {}
    source_namespace: str = ""


class RouteTarget(_Message, frozen=True):
    """A host, or a subset of it, that requests go to."""

    host: str
    subset: str = ""
    port: PortSelector | None = None


class Percent(_Message, frozen=True):
    """A share, 0 to 100."""

    value: float


class Delay(_Message, frozen=True):
    """How long a share of the requests is held back."""

    fixed_delay: str
    percentage: Percent


class Abort(_Message, frozen=True):
    """How a share of the requests is answered without being sent on."""

    http_status: int
    percentage: Percent


class HttpFault(_Message, frozen=True):
    """Faults made on purpose."""

    delay: Delay | None = None
    abort: Abort | None = None


class HttpRetry(_Message, frozen=True):
    """How often a request that fails is tried again; 0 is never."""

    attempts: int
    per_try_timeout: str = ""
    retry_on: str = ""


class CorsPolicy(_Message, frozen=True):
    """Cross-origin requests of browsers."""

    allow_origins: tuple[StringMatch, ...] = ()
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: str = ""
    allow_credentials: bool | None = None


class HeaderOperations(_Message, frozen=True):
    """Headers to add to what is there, and to remove."""

    add: dict[str, str] = {}
    remove: tuple[str, ...] = ()


class Headers(_Message, frozen=True):
    """What happens to the headers of requests and responses."""

    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class WeightedRoute(_Message, frozen=True):
    """A share of the requests and where it goes; weight 0 is left out, and is all of them if it is the only one."""

    destination: RouteTarget
    weight: int = 0
    headers: Headers | None = None


class HttpRewrite(_Message, frozen=True):
    """What takes the place of the path, or of the prefix that a match compared."""

    uri: str


class HttpRedirect(_Message, frozen=True):
    """Where clients are sent; *prefix_rewrite* needs Istio 1.31."""

    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    scheme: str = ""
    redirect_code: int = 0


class HttpBody(_Message, frozen=True):
    """The body of an answer."""

    string: str


class DirectResponse(_Message, frozen=True):
    """An answer that the proxy gives itself."""

    status: int
    body: HttpBody | None = None


class HttpRoute(_Message, frozen=True):
    """What happens to the requests that match; without matches, to all."""

    name: str = ""
    match: tuple[HttpMatch, ...] = ()
    redirect: HttpRedirect | None = None
    direct_response: DirectResponse | None = None
    route: tuple[WeightedRoute, ...] = ()
    rewrite: HttpRewrite | None = None
    timeout: str = ""
    retries: HttpRetry | None = None
    fault: HttpFault | None = None
    mirror: RouteTarget | None = None
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class L4Match(_Message, frozen=True):
    """Which connections a route is for, by the port of the gateway."""

    port: int


class TcpRoute(_Message, frozen=True):
    """Where connections go."""

    match: tuple[L4Match, ...]
    route: tuple[WeightedRoute, ...]


class TlsMatch(_Message, frozen=True):
    """Which TLS connections a route is for, by the name that the client asks for and the port of the gateway."""

    sni_hosts: tuple[str, ...]
    port: int


class TlsRoute(_Message, frozen=True):
    """Where TLS connections go that the proxy does not decrypt."""

    match: tuple[TlsMatch, ...]
    route: tuple[WeightedRoute, ...]


class VirtualServiceSpec(_Message, frozen=True):
    """How requests to *hosts* travel; the first route that matches counts. Without *gateways*, for sidecars."""

    hosts: tuple[str, ...]
    gateways: tuple[str, ...] = ()
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[TlsRoute, ...] = ()
    tcp: tuple[TcpRoute, ...] = ()


class VirtualService(IstioObject, frozen=True):
    """networking.istio.io VirtualService."""

    KIND: ClassVar[Kind] = kinds.VIRTUAL_SERVICE

    spec: VirtualServiceSpec


class Source(_Message, frozen=True):
    """Who calls; fields are ANDed, the entries of each are ORed. A ``*`` may stand at one end of an entry."""

    principals: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    request_principals: tuple[str, ...] = ()
    not_request_principals: tuple[str, ...] = ()


class From(_Message, frozen=True):
    """A caller of a rule."""

    source: Source


class Operation(_Message, frozen=True):
    """What is called; fields are ANDed, the entries of each are ORed. A ``*`` may stand at one end of a path."""

    paths: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()


class To(_Message, frozen=True):
    """An operation of a rule."""

    operation: Operation


class AuthorizationRule(_Message, frozen=True):
    """Calls; without callers or operations, from anybody or to anything."""

    from_: tuple[From, ...] = msgspec.field(default=(), name="from")
    to: tuple[To, ...] = ()


class WorkloadSelector(_Message, frozen=True):
    """Pods by their labels."""

    match_labels: dict[str, str]


class AuthorizationPolicySpec(_Message, frozen=True):
    """What the selected pods allow, or all of the namespace; without rules nothing, in the root namespace nobody's."""

    selector: WorkloadSelector | None = None
    rules: tuple[AuthorizationRule, ...] = ()


class AuthorizationPolicy(IstioObject, frozen=True):
    """security.istio.io AuthorizationPolicy. ALLOW is the action that is not written.

    Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/
    """

    KIND: ClassVar[Kind] = kinds.AUTHORIZATION_POLICY

    spec: AuthorizationPolicySpec


class ProxySelector(_Message, frozen=True):
    """The pods, or their proxies, that an object is for, by the labels of the pods."""

    labels: dict[str, str]


class EgressListener(_Message, frozen=True):
    """Hosts that a proxy may know, as ``<namespace>/<host>``; ``*`` is any namespace, ``.`` its own."""

    hosts: tuple[str, ...]


class SidecarSpec(_Message, frozen=True):
    """What of the mesh the selected proxies are told about."""

    workload_selector: ProxySelector
    egress: tuple[EgressListener, ...]


class Sidecar(IstioObject, frozen=True):
    """networking.istio.io Sidecar."""

    KIND: ClassVar[Kind] = kinds.SIDECAR

    spec: SidecarSpec


class FilterMatch(_Message, frozen=True):
    """A network filter by name, and one of the HTTP filters in it."""

    name: str
    sub_filter: FilterMatch | None = None


class FilterChainMatch(_Message, frozen=True):
    """A filter chain of a listener."""

    sni: str = ""
    filter: FilterMatch | None = None


class ListenerMatch(_Message, frozen=True):
    """Listeners, and a part of each; 0 is any port."""

    port_number: int = 0
    listener_filter: str = ""
    filter_chain: FilterChainMatch | None = None


class RouteMatch(_Message, frozen=True):
    """A route by the name that the VirtualService gives it."""

    name: str


class VirtualHostMatch(_Message, frozen=True):
    """A virtual host, named ``<host>:<port>``, and a route in it."""

    name: str = ""
    route: RouteMatch | None = None


class RouteConfigurationMatch(_Message, frozen=True):
    """A route configuration: of a port, or of a gateway, ``<namespace>/<name>``; 0 is any port."""

    port_number: int = 0
    gateway: str = ""
    vhost: VirtualHostMatch | None = None


class ClusterMatch(_Message, frozen=True):
    """Envoy clusters by name, or by what they are made of."""

    name: str = ""
    service: str = ""
    subset: str = ""
    port_number: int = 0


class ConfigMatch(_Message, frozen=True):
    """Where a patch applies; *context* is ANY, SIDECAR_INBOUND, SIDECAR_OUTBOUND or GATEWAY."""

    context: str
    listener: ListenerMatch | None = None
    route_configuration: RouteConfigurationMatch | None = None
    cluster: ClusterMatch | None = None


class Patch(_Message, frozen=True):
    """What is done there; *value* is a message of Envoy's API as JSON."""

    operation: str
    value: dict[str, Any] = {}


class ConfigPatch(_Message, frozen=True):
    """One change of what istiod tells proxies; *apply_to* names the kind of message that is changed."""

    apply_to: str
    match: ConfigMatch
    patch: Patch


class EnvoyFilterSpec(_Message, frozen=True):
    """Changes in the order in which they are made; without a selector for all proxies of the namespace."""

    config_patches: tuple[ConfigPatch, ...]
    workload_selector: ProxySelector | None = None
    priority: int = 0
    """Those with less come first."""


class EnvoyFilter(IstioObject, frozen=True):
    """networking.istio.io EnvoyFilter, for what Istio's own kinds have no field.

    Source: https://istio.io/latest/docs/reference/config/networking/envoy-filter/
    """

    KIND: ClassVar[Kind] = kinds.ENVOY_FILTER

    spec: EnvoyFilterSpec
