"""RouteTable: routes that VirtualHosts and other RouteTables delegate to."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ApprovalState, ObjectRef
from isthmus.api.scalars import Int32, Int64
from isthmus.api.traffic_policy import AppliedTrafficPolicy
from isthmus.api.virtual_host import GROUP, Route
from isthmus.model.ref import Kind


class RouteTableSpec(ApiStruct, frozen=True):
    """Routes, and how they are ordered among those of other tables."""

    routes: tuple[Route, ...] = ()
    """The first that matches counts. What their matchers say is appended to the prefix of the delegating route."""
    weight: Int32 = 0
    """Tables with a higher weight come first among those that one route delegates to."""


class SelectorType(Enum):
    """The kind of what selects a route table. VirtualGateway is the zero value."""

    VIRTUAL_GATEWAY = "VirtualGateway"
    VIRTUAL_HOST = "VirtualHost"
    ROUTE_TABLE = "RouteTable"


class SelectedBy(ApiStruct, frozen=True, order=True):
    """What leads to a route table."""

    name: str = ""
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    type: SelectorType = SelectorType.VIRTUAL_GATEWAY
    """Its kind."""


class RouteTableStatus(ApiStruct, frozen=True):
    """What became of a route table."""

    observed_generation: Int64 = 0
    """Generation of the RouteTable that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED without errors, also when nothing selects it."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    selected_by: tuple[SelectedBy, ...] = ()
    """VirtualHosts and RouteTables that delegate to it, and VirtualGateways that serve its routes."""
    selected_route_tables: tuple[ObjectRef, ...] = ()
    """RouteTables that its routes delegate to, directly or not."""
    applied_traffic_policies: tuple[AppliedTrafficPolicy, ...] = ()
    """TrafficPolicies that select its routes."""


class RouteTable(Resource, frozen=True):
    """Holds routes for VirtualHosts that delegate to it; has no effect alone."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "RouteTable", "routetables")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("rt", "rts")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Weight", "integer", ".spec.weight"),
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: RouteTable
metadata:
  name: reviews
  namespace: gloo-mesh
spec:
  routes:
  - matchers:
    - uri:
        prefix: /v1
    routeAction:
      destinations:
      - kubeService:
          name: reviews
          namespace: default
          clusterName: cluster1
          subset:
            version: v1
"""

    spec: RouteTableSpec = RouteTableSpec()
    """What the user wants."""
    status: RouteTableStatus | None = None
    """What became of it."""
