"""AccessLogRecord: which requests of which workloads are logged on the management cluster."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import ApprovalState, HeaderMatcher, ObjectRef, WorkloadSelector
from isthmus.api.scalars import Int64, UInt32
from isthmus.model.ref import Kind

GROUP = "observability.enterprise.mesh.gloo.solo.io"


class Comparator(Enum):
    """How a status code is compared. EQ is the zero value."""

    EQ = "EQ"
    GE = "GE"
    LE = "LE"


class StatusCodeMatcher(ApiStruct, frozen=True):
    """A condition on the response's status code."""

    value: UInt32 = 0
    """The code that the response's is compared with."""
    comparator: Comparator = Comparator.EQ
    """Equal (EQ), greater or equal (GE), less or equal (LE)."""


class AccessLogFilter(OneofStruct, frozen=True):
    """A request that is logged."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("status_code_matcher", "header_matcher"),)

    status_code_matcher: StatusCodeMatcher | None = None
    """By the status code of its response."""
    header_matcher: HeaderMatcher | None = None
    """By a header of the request or of its response."""


class AccessLogRecordSpec(ApiStruct, frozen=True):
    """Workloads, which of their requests, and what beyond the usual is recorded."""

    workload_selectors: tuple[WorkloadSelector, ...] = ()
    """The workloads; omitted means all."""
    filters: tuple[AccessLogFilter, ...] = ()
    """A request is logged if any of these holds; omitted means every request."""
    included_request_headers: tuple[str, ...] = ()
    """Request headers to record."""
    included_response_headers: tuple[str, ...] = ()
    """Response headers to record."""
    included_response_trailers: tuple[str, ...] = ()
    """Response trailers to record."""
    included_filter_state_objects: tuple[str, ...] = ()
    """Objects of Envoy's filter state to record."""


class AccessLogRecordStatus(ApiStruct, frozen=True):
    """What became of an access log record."""

    observed_generation: Int64 = 0
    """Generation of the AccessLogRecord that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if it is on every workload below."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    workloads: tuple[ObjectRef, ...] = ()
    """The Workload objects that it selects."""


class AccessLogRecord(Resource, frozen=True):
    """Has proxies send their access logs to the management plane."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "AccessLogRecord", "accesslogrecords")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("alr", "alrs")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: observability.enterprise.mesh.gloo.solo.io/v1
kind: AccessLogRecord
metadata:
  name: access-log-reviews
  namespace: gloo-mesh
spec:
  workloadSelectors:
  - kubeWorkloadMatcher:
      namespaces:
      - default
      labels:
        app: reviews
  filters:
  - statusCodeMatcher:
      value: 500
      comparator: GE
"""

    spec: AccessLogRecordSpec = AccessLogRecordSpec()
    """What the user wants."""
    status: AccessLogRecordStatus | None = None
    """What became of it."""
