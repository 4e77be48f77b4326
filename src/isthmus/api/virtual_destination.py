"""VirtualDestination: one hostname backed by destinations in several clusters."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import (
    ApprovalState,
    ApprovalStatus,
    ClusterObjectRef,
    DestinationSelector,
    ObjectRef,
    OutlierDetection,
    RequiredSubsets,
)
from isthmus.api.scalars import Int64, UInt32, UpperCase
from isthmus.model.ref import Kind

GROUP = "networking.enterprise.mesh.gloo.solo.io"


class VirtualDestinationPort(OneofStruct, frozen=True):
    """The port at which a hostname answers."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("target_name", "target_number"),)

    number: UInt32 = 0
    """Port number; required."""
    protocol: UpperCase = ""
    """HTTP, HTTPS, GRPC, HTTP2, MONGO, TCP or TLS, in any case; HTTP by default."""
    target_name: str | None = None
    """Port of the backing services by name."""
    target_number: UInt32 | None = None
    """Port of the backing services by number; the number above by default."""


class MeshList(ApiStruct, frozen=True):
    """Meshes by reference."""

    meshes: tuple[ObjectRef, ...] = ()
    """The Mesh objects, all in one virtual mesh."""


class BackingDestination(ApiStruct, frozen=True):
    """A service behind a hostname."""

    kube_service: ClusterObjectRef | None = None
    """A Kubernetes service."""


class StaticDestination(ApiStruct, frozen=True):
    """A service behind a hostname, at its place in a fixed order."""

    kube_service: ClusterObjectRef | None = None
    """A Kubernetes service; required."""
    weight: UInt32 = 0
    """Share of the calls, relative to the others: then nothing comes first. For all destinations, or for none.
    An addition of ours."""


class StaticFailover(ApiStruct, frozen=True):
    """Destinations in a fixed order, or with fixed shares."""

    destinations: tuple[StaticDestination, ...] = ()
    """The destinations, the preferred one first, at most one per cluster; at least one."""


class Locality(ApiStruct, frozen=True):
    """A place."""

    region: str = ""
    """Region."""
    zone: str = ""
    """Zone."""
    sub_zone: str = ""
    """Sub-zone."""


class FailoverDirective(ApiStruct, frozen=True):
    """Where the calls of one region go when its own destinations fail."""

    from_: Locality = msgspec.field(default=Locality(), name="from")
    """Where the callers are; only the region counts."""
    to: tuple[Locality, ...] = ()
    """Where their calls go, in this order; only the region counts."""


class LocalizedFailover(ApiStruct, frozen=True):
    """Destinations, the nearest one first."""

    destination_selectors: tuple[DestinationSelector, ...] = ()
    """The destinations, at most one per cluster; required."""
    failover_directives: tuple[FailoverDirective, ...] = ()
    """Which region follows which; omitted means same zone, then same region, then elsewhere."""
    outlier_detection: OutlierDetection | None = None
    """When a destination counts as failed. By default after 10 errors, looked at every 5s, for 120s."""


class VirtualDestinationSpec(OneofStruct, frozen=True):
    """A hostname, who sees it and what is behind it."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("virtual_mesh", "mesh_list"), ("static", "localized"))

    hostname: str = ""
    """DNS name; required, unique within the virtual mesh. Names outside ``.global`` need Istio's DNS proxying."""
    port: VirtualDestinationPort | None = None
    """The port at which it answers; this or ports is required."""
    ports: tuple[VirtualDestinationPort, ...] = ()
    """More ports at which it answers."""
    virtual_mesh: ObjectRef | None = None
    """All meshes of this VirtualMesh see the hostname."""
    mesh_list: MeshList | None = None
    """These meshes see the hostname."""
    static: StaticFailover | None = None
    """Destinations in a fixed order."""
    localized: LocalizedFailover | None = None
    """Destinations, the nearest one first."""


class SelectedDestination(ApiStruct, frozen=True):
    """A destination behind the hostname."""

    ref: ClusterObjectRef = ClusterObjectRef()
    """The Destination."""
    destination: BackingDestination | None = None
    """The service."""


class VirtualDestinationStatus(ApiStruct, frozen=True):
    """What became of a virtual destination."""

    observed_generation: Int64 = 0
    """Generation of the VirtualDestination that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if it is on every mesh below."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    meshes: dict[str, ApprovalStatus] = {}
    """Outcome per mesh that sees the hostname, by ``<name>.<namespace>.``."""
    selected_destinations: tuple[SelectedDestination, ...] = ()
    """The destinations behind the hostname."""
    required_subsets: tuple[RequiredSubsets, ...] = ()
    """Traffic policies whose traffic shift names subsets of it."""


class VirtualDestination(Resource, frozen=True):
    """One hostname for destinations in several clusters, the nearest healthy one answering."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "VirtualDestination", "virtualdestinations")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("vd", "vds")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Hostname", "string", ".spec.hostname"),
        ("Port", "integer", ".spec.port.number"),
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: VirtualDestination
metadata:
  name: reviews-global
  namespace: gloo-mesh
spec:
  hostname: reviews.global
  port:
    number: 9080
    protocol: http
  virtualMesh:
    name: virtual-mesh
    namespace: gloo-mesh
  localized:
    destinationSelectors:
    - kubeServiceMatcher:
        labels:
          app: reviews
    outlierDetection:
      consecutiveErrors: 1
      interval: 5s
      baseEjectionTime: 2m
"""

    spec: VirtualDestinationSpec = VirtualDestinationSpec()
    """What the user wants."""
    status: VirtualDestinationStatus | None = None
    """What became of it."""
