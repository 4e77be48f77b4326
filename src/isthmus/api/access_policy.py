"""AccessPolicy: who may call whom."""

from __future__ import annotations

from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ApprovalState, ApprovalStatus, DestinationSelector, IdentitySelector, ObjectRef
from isthmus.api.scalars import Int64, UInt32
from isthmus.model.ref import Kind

GROUP = "networking.mesh.gloo.solo.io"


class AccessPolicySpec(ApiStruct, frozen=True):
    """Callers, destinations, and what the callers may do there."""

    source_selector: tuple[IdentitySelector, ...] = ()
    """Identities that may call; omitted means any."""
    destination_selector: tuple[DestinationSelector, ...] = ()
    """Destinations that they may call; omitted means all."""
    allowed_paths: tuple[str, ...] = ()
    """HTTP paths or ``/package.Service/Method``: exact, ``prefix*`` or ``*suffix``; omitted means any."""
    allowed_methods: tuple[str, ...] = ()
    """HTTP methods, always POST for gRPC; omitted means any."""
    allowed_ports: tuple[UInt32, ...] = ()
    """Ports; omitted means any."""


class AccessPolicyStatus(ApiStruct, frozen=True):
    """What became of an access policy."""

    observed_generation: Int64 = 0
    """Generation of the AccessPolicy that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if it is on every destination below."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    destinations: dict[str, ApprovalStatus] = {}
    """Outcome per selected destination, by ``<name>.<namespace>.``."""
    workloads: tuple[str, ...] = ()
    """Workloads that may call, as ``<name>.<namespace>.``, sorted."""


class AccessPolicy(Resource, frozen=True):
    """Allows callers, by identity, to call destinations."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "AccessPolicy", "accesspolicies")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("ap", "aps")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.mesh.gloo.solo.io/v1
kind: AccessPolicy
metadata:
  name: productpage
  namespace: gloo-mesh
spec:
  sourceSelector:
  - kubeServiceAccountRefs:
      serviceAccounts:
      - name: bookinfo-productpage
        namespace: default
        clusterName: cluster1
  destinationSelector:
  - kubeServiceMatcher:
      namespaces:
      - default
      labels:
        service: details
  allowedMethods:
  - GET
"""

    spec: AccessPolicySpec = AccessPolicySpec()
    """What the user wants."""
    status: AccessPolicyStatus | None = None
    """What became of it."""


class AppliedAccessPolicy(ApiStruct, frozen=True):
    """An access policy in force on a destination."""

    ref: ObjectRef = ObjectRef()
    """The AccessPolicy."""
    observed_generation: Int64 = 0
    """Its generation when it was applied."""
    spec: AccessPolicySpec | None = None
    """Its content when it was accepted last."""
