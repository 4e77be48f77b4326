"""ServiceDependency: which destinations workloads call, so that their proxies need not know the others."""

from __future__ import annotations

from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ApprovalState, ApprovalStatus, DestinationSelector, WorkloadSelector
from isthmus.api.scalars import Int64
from isthmus.model.ref import Kind

GROUP = "networking.enterprise.mesh.gloo.solo.io"


class ServiceDependencySpec(ApiStruct, frozen=True):
    """Who calls what."""

    source_selectors: tuple[WorkloadSelector, ...] = ()
    """Workloads that call; omitted means all."""
    destination_selectors: tuple[DestinationSelector, ...] = ()
    """Destinations that they call; omitted means all."""


class ServiceDependencyStatus(ApiStruct, frozen=True):
    """What became of a service dependency."""

    observed_generation: Int64 = 0
    """Generation of the ServiceDependency that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if it is on every workload below."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    workloads: dict[str, ApprovalStatus] = {}
    """Outcome per selected workload, by ``<name>.<namespace>.``."""


class ServiceDependency(Resource, frozen=True):
    """Says which destinations workloads call; their proxies are told about those that any dependency names, alone."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "ServiceDependency", "servicedependencies")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("sd", "sds")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: ServiceDependency
metadata:
  name: productpage
  namespace: gloo-mesh
spec:
  sourceSelectors:
  - kubeWorkloadMatcher:
      namespaces:
      - default
      labels:
        app: productpage
  destinationSelectors:
  - kubeServiceMatcher:
      labels:
        app: reviews
  - kubeServiceMatcher:
      labels:
        app: details
"""

    spec: ServiceDependencySpec = ServiceDependencySpec()
    """What the user wants."""
    status: ServiceDependencyStatus | None = None
    """What became of it."""
