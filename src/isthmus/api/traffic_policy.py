"""TrafficPolicy: how requests to destinations and through gateway routes travel."""

from __future__ import annotations

from typing import ClassVar

from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import (
    ApprovalState,
    ApprovalStatus,
    ClusterObjectRef,
    DestinationSelector,
    HeaderManipulation,
    HttpMatcher,
    MtlsPolicy,
    ObjectRef,
    ObjectSelector,
    OutlierDetection,
    StringMatch,
    TrafficShift,
    WorkloadSelector,
)
from isthmus.api.rate_limit import RouteRateLimit
from isthmus.api.scalars import Double, Duration, Int32, Int64, UInt32
from isthmus.model.ref import Kind

GROUP = "networking.mesh.gloo.solo.io"


class RouteSelector(ApiStruct, frozen=True):
    """Selects routes of gateways; without hosts and tables, those of all of them."""

    virtual_host_refs: tuple[ObjectRef, ...] = ()
    """VirtualHosts by reference."""
    virtual_host_selector: ObjectSelector | None = None
    """VirtualHosts by namespace and label."""
    route_table_refs: tuple[ObjectRef, ...] = ()
    """RouteTables by reference."""
    route_table_selector: ObjectSelector | None = None
    """RouteTables by namespace and label."""
    route_label_matcher: dict[str, str] = {}
    """Labels, every pair of which must be on the route; omitted means all routes."""


class Abort(ApiStruct, frozen=True):
    """Answers requests without sending them on."""

    http_status: Int32 = 0
    """Status code of the answer; required."""


class FaultInjection(OneofStruct, frozen=True):
    """Faults made on purpose."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("fixed_delay", "abort"),)

    fixed_delay: Duration | None = None
    """Time that requests are held back, at least 1ms."""
    abort: Abort | None = None
    """Answers requests without sending them on."""
    percentage: Double | None = None
    """Share of the requests, 0 to 100; omitted means 100."""


class RetryPolicy(ApiStruct, frozen=True):
    """What happens when a request fails."""

    attempts: Int32 = 0
    """How often it is tried again: when there is no answer, none in time, or 502, 503 or 504."""
    per_try_timeout: Duration = ""
    """Time limit of each try, at least 1ms."""


class CorsPolicy(ApiStruct, frozen=True):
    """Cross-origin requests of browsers."""

    allow_origins: tuple[StringMatch, ...] = ()
    """Origins that may call; exact, prefix or regex."""
    allow_methods: tuple[str, ...] = ()
    """Methods for ``Access-Control-Allow-Methods``."""
    allow_headers: tuple[str, ...] = ()
    """Headers for ``Access-Control-Allow-Headers``."""
    expose_headers: tuple[str, ...] = ()
    """Headers for ``Access-Control-Expose-Headers``."""
    max_age: Duration = ""
    """How long browsers keep the answer."""
    allow_credentials: bool | None = None
    """Whether a request may carry credentials."""


class Mirror(ApiStruct, frozen=True):
    """Copies requests to another service; its answers are dropped."""

    kube_service: ClusterObjectRef | None = None
    """The Kubernetes service that gets the copies."""
    percentage: Double | None = None
    """Share of the requests, 0 to 100; omitted means 100."""
    port: UInt32 = 0
    """Service port; needed when the Service has more than one."""


class CsrfPolicy(ApiStruct, frozen=True):
    """Refuses requests that another site made a browser send."""

    filter_enabled: bool = False
    """Whether such requests are refused."""
    shadow_enabled: bool = False
    """Whether such requests are only counted; ignored when filterEnabled is set."""
    percentage: Double | None = None
    """Share of the requests that are looked at, 0 to 100; omitted means 100."""
    additional_origins: tuple[StringMatch, ...] = ()
    """Origins that may call besides the destination's own."""


class CustomAuth(ApiStruct, frozen=True):
    """Settings for an auth server of the user's own."""

    context_extensions: dict[str, str] = {}
    """Key-values that are sent to the auth server."""


class RouteExtauth(OneofStruct, frozen=True):
    """External authorisation of requests."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("disable", "config_ref", "custom_auth"),)

    disable: bool | None = None
    """Whether requests are not authorised although the gateway says so."""
    config_ref: ObjectRef | None = None
    """The AuthConfig that applies; the auth server is sent ``<namespace>.<name>`` as ``config_id``."""
    custom_auth: CustomAuth | None = None
    """Settings for an auth server of the user's own."""


class Policy(ApiStruct, frozen=True):
    """How requests travel; what is omitted stays as it is."""

    traffic_shift: TrafficShift | None = None
    """Where the requests go instead."""
    fault_injection: FaultInjection | None = None
    """Faults made on purpose."""
    request_timeout: Duration = ""
    """Time limit of a request."""
    retries: RetryPolicy | None = None
    """What happens when a request fails."""
    cors_policy: CorsPolicy | None = None
    """Cross-origin requests of browsers."""
    mirror: Mirror | None = None
    """Copies of the requests."""
    header_manipulation: HeaderManipulation | None = None
    """Headers to add and remove."""
    outlier_detection: OutlierDetection | None = None
    """When an endpoint that fails is left out for a while. By default after 5 errors, looked at every 10s, for 30s."""
    mtls: MtlsPolicy | None = None
    """TLS between client and destination, instead of what Settings say."""
    csrf: CsrfPolicy | None = None
    """Refusal of requests that another site made a browser send."""
    rate_limit: RouteRateLimit | None = None
    """Limits on the number of requests; gateway routes only."""
    extauth: RouteExtauth | None = None
    """External authorisation of requests; gateway routes only."""


class TrafficPolicySpec(ApiStruct, frozen=True):
    """Which requests, and how they travel."""

    source_selector: tuple[WorkloadSelector, ...] = ()
    """Workloads that send the requests; omitted means all."""
    destination_selector: tuple[DestinationSelector, ...] = ()
    """Destinations that the requests go to; omitted means all."""
    route_selector: tuple[RouteSelector, ...] = ()
    """Routes of gateways that the policy applies to; omitted means none."""
    http_request_matchers: tuple[HttpMatcher, ...] = ()
    """Conditions, one of which must hold; omitted means every request."""
    policy: Policy | None = None
    """How the requests travel."""


class GatewayRoutes(ApiStruct, frozen=True):
    """Routes of one VirtualHost or RouteTable."""

    routes: tuple[str, ...] = ()
    """Their names; ``*`` means all."""


class TrafficPolicyStatus(ApiStruct, frozen=True):
    """What became of a traffic policy."""

    observed_generation: Int64 = 0
    """Generation of the TrafficPolicy that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if it is on every destination below."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    destinations: dict[str, ApprovalStatus] = {}
    """Outcome per selected destination, by ``<name>.<namespace>.``."""
    workloads: tuple[str, ...] = ()
    """Workloads whose requests it changes, as ``<name>.<namespace>.``, sorted."""
    gateway_routes: dict[str, GatewayRoutes] = {}
    """Routes that it applies to, by ``<name>.<namespace> (VirtualHost)`` or ``(RouteTable)``."""


class TrafficPolicy(Resource, frozen=True):
    """Says how requests travel: shift, timeout, retries, faults, mirrors, headers, CORS, outlier detection, TLS."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "TrafficPolicy", "trafficpolicies")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("tp", "tps")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.mesh.gloo.solo.io/v1
kind: TrafficPolicy
metadata:
  name: reviews-canary
  namespace: gloo-mesh
spec:
  sourceSelector:
  - kubeWorkloadMatcher:
      namespaces:
      - default
  destinationSelector:
  - kubeServiceRefs:
      services:
      - name: reviews
        namespace: default
        clusterName: cluster1
  policy:
    requestTimeout: 2s
    trafficShift:
      destinations:
      - kubeService:
          name: reviews
          namespace: default
          clusterName: cluster2
          subset:
            version: v3
        weight: 75
      - kubeService:
          name: reviews
          namespace: default
          clusterName: cluster1
          subset:
            version: v1
        weight: 25
"""

    spec: TrafficPolicySpec = TrafficPolicySpec()
    """What the user wants."""
    status: TrafficPolicyStatus | None = None
    """What became of it."""


class AppliedTrafficPolicy(ApiStruct, frozen=True):
    """A traffic policy in force on a destination or a gateway object."""

    ref: ObjectRef = ObjectRef()
    """The TrafficPolicy."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""
    spec: TrafficPolicySpec | None = None
    """Its content when it was accepted last."""
    routes: tuple[str, ...] = ()
    """Gateway objects only: names of the routes, or the path of unnamed ones, or ``*``."""
