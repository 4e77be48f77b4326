"""Istio objects as values: the fields that translation sets, and nothing else.

Source of every field: https://istio.io/latest/docs/reference/config/networking/
"""

from __future__ import annotations

from typing import ClassVar

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
    """A port of a ServiceEntry or Gateway; *protocol* is Istio's name in upper case."""

    number: int
    name: str
    protocol: str


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
    """TLS settings of a gateway server."""

    mode: str


class Server(_Message, frozen=True):
    """A listener of a gateway."""

    port: Port
    hosts: tuple[str, ...]
    tls: ServerTls | None = None


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


class WeightedRoute(_Message, frozen=True):
    """A share of the requests and where it goes; weight 0 is left out, and is all of them if it is the only one."""

    destination: RouteTarget
    weight: int = 0


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


class HttpRoute(_Message, frozen=True):
    """What happens to the requests that match; without matches, to all."""

    match: tuple[HttpMatch, ...] = ()
    route: tuple[WeightedRoute, ...] = ()
    timeout: str = ""
    retries: HttpRetry | None = None
    fault: HttpFault | None = None
    mirror: RouteTarget | None = None
    mirror_percentage: Percent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class VirtualServiceSpec(_Message, frozen=True):
    """How requests to *hosts* travel; the first route that matches counts."""

    hosts: tuple[str, ...]
    http: tuple[HttpRoute, ...] = ()


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
