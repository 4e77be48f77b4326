"""VirtualHost: domains of gateways and the routes of their requests; `Route` is that of RouteTables too."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import ApprovalState, HttpMatcher, ObjectRef, ObjectSelector, WeightedDestination
from isthmus.api.scalars import Int64, UInt32
from isthmus.api.traffic_policy import AppliedTrafficPolicy, Policy
from isthmus.model.ref import Kind

GROUP = "networking.enterprise.mesh.gloo.solo.io"


class RouteAction(ApiStruct, frozen=True):
    """Sends requests on."""

    destinations: tuple[WeightedDestination, ...] = ()
    """Where they go; weights are relative, and all omitted means even shares."""
    path_rewrite: str = ""
    """What takes the place of the matcher's prefix or exact path; not together with a regex."""


class RedirectCode(Enum):
    """Status code of a redirect. MOVED_PERMANENTLY is the zero value."""

    MOVED_PERMANENTLY = "MOVED_PERMANENTLY"
    FOUND = "FOUND"
    SEE_OTHER = "SEE_OTHER"
    TEMPORARY_REDIRECT = "TEMPORARY_REDIRECT"
    PERMANENT_REDIRECT = "PERMANENT_REDIRECT"


class RedirectAction(OneofStruct, frozen=True):
    """Sends clients elsewhere."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("path_redirect", "prefix_rewrite"),)

    host_redirect: str = ""
    """Host that they are sent to; omitted means the same."""
    path_redirect: str | None = None
    """Path that they are sent to, instead of the whole path."""
    prefix_rewrite: str | None = None
    """What takes the place of the matcher's prefix. Needs Istio 1.31."""
    response_code: RedirectCode = RedirectCode.MOVED_PERMANENTLY
    """Status code: 301, 302, 303, 307 or 308 by name."""
    https_redirect: bool = False
    """Whether they are sent to https."""
    strip_query: bool = False
    """Whether the query is dropped. Without effect: Istio keeps it."""


class DirectResponseAction(ApiStruct, frozen=True):
    """Answers requests at the gateway."""

    status: UInt32 = 0
    """Status code, 200 to 599; required."""
    body: str = ""
    """Body of the answer."""


class SortMethod(Enum):
    """How the routes of delegated tables are ordered. TABLE_WEIGHT is the zero value."""

    TABLE_WEIGHT = "TABLE_WEIGHT"
    ROUTE_SPECIFICITY = "ROUTE_SPECIFICITY"


class DelegateAction(ApiStruct, frozen=True):
    """Leaves the choice to the routes of RouteTables."""

    refs: tuple[ObjectRef, ...] = ()
    """RouteTables by reference; they come before selected ones."""
    selector: ObjectSelector | None = None
    """RouteTables by namespace and label, the oldest first."""
    sort_method: SortMethod = SortMethod.TABLE_WEIGHT
    """TABLE_WEIGHT: by weight of the tables, high first; ROUTE_SPECIFICITY: all routes from specific to general."""


class Route(OneofStruct, frozen=True):
    """Which requests, and what happens to them."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("route_action", "redirect_action", "direct_response_action", "delegate_action"),
    )

    name: str = ""
    """Name of the route, for reports and in Istio's objects."""
    matchers: tuple[HttpMatcher, ...] = ()
    """Conditions, one of which must hold; omitted means every request."""
    route_action: RouteAction | None = None
    """Sends requests on."""
    redirect_action: RedirectAction | None = None
    """Sends clients elsewhere."""
    direct_response_action: DirectResponseAction | None = None
    """Answers requests at the gateway."""
    delegate_action: DelegateAction | None = None
    """Leaves the choice to the routes of RouteTables, whose matchers are appended to the prefix of this route."""
    options: Policy | None = None
    """How the requests travel; delegated routes inherit what they do not set themselves."""
    labels: dict[str, str] = {}
    """What the routeSelector of a TrafficPolicy compares with."""


class VirtualHostOptions(ApiStruct, frozen=True):
    """Defaults for the routes of a host."""

    traffic_policy: Policy | None = None
    """How requests travel where their route does not say otherwise."""


class VirtualHostSpec(ApiStruct, frozen=True):
    """Domains, and the routes of their requests."""

    domains: tuple[str, ...] = ()
    """Host names: exact, ``*.example.com`` or ``*``; each once on one gateway. Istio has no ``example.*``."""
    routes: tuple[Route, ...] = ()
    """The first that matches counts; a host without routes is ignored."""
    options: VirtualHostOptions | None = None
    """Defaults for the routes."""


class VirtualHostStatus(ApiStruct, frozen=True):
    """What became of a virtual host."""

    observed_generation: Int64 = 0
    """Generation of the VirtualHost that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED if it serves all its domains on every gateway that it is attached to."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    attached_virtual_gateways: tuple[ObjectRef, ...] = ()
    """VirtualGateways that serve it."""
    selected_route_tables: tuple[ObjectRef, ...] = ()
    """RouteTables that its routes delegate to, directly or not."""
    applied_traffic_policies: tuple[AppliedTrafficPolicy, ...] = ()
    """TrafficPolicies that select its routes."""


class VirtualHost(Resource, frozen=True):
    """Routes requests for some domains that come in at gateways."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "VirtualHost", "virtualhosts")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("vh", "vhs")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Domains", "string", ".spec.domains"),
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: VirtualHost
metadata:
  name: shop
  namespace: gloo-mesh
spec:
  domains:
  - shop.example.com
  routes:
  - name: reviews
    matchers:
    - uri:
        prefix: /reviews
    routeAction:
      destinations:
      - kubeService:
          name: reviews
          namespace: default
          clusterName: cluster2
    options:
      requestTimeout: 2s
"""

    spec: VirtualHostSpec = VirtualHostSpec()
    """What the user wants."""
    status: VirtualHostStatus | None = None
    """What became of it."""
