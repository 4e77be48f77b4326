"""Rate limits of routes, written there or by themselves: what a request tells the rate limit server."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Empty, OneofStruct, Resource
from isthmus.api.common import ApprovalState, ObjectRef, ObjectSelector
from isthmus.api.scalars import Int64
from isthmus.model.ref import Kind

GROUP = "networking.enterprise.mesh.gloo.solo.io"


class RequestHeadersAction(ApiStruct, frozen=True):
    """A descriptor from a request header."""

    header_name: str = ""
    """Header whose value is sent; required."""
    descriptor_key: str = ""
    """Key of the descriptor; required."""


class GenericKeyAction(ApiStruct, frozen=True):
    """A fixed descriptor with the key ``generic_key``."""

    descriptor_value: str = ""
    """Its value."""


class Int64Range(ApiStruct, frozen=True):
    """Whole numbers from start up to, but not including, end."""

    start: Int64 = 0
    """The first number."""
    end: Int64 = 0
    """The first number beyond."""


class RateLimitHeaderMatcher(OneofStruct, frozen=True):
    """A condition on one request header."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("exact_match", "regex_match", "range_match", "present_match", "prefix_match", "suffix_match"),
    )

    name: str = ""
    """Header name."""
    exact_match: str | None = None
    """The whole value."""
    regex_match: str | None = None
    """A regular expression for the whole value."""
    range_match: Int64Range | None = None
    """A range that the value, a whole number, is in."""
    present_match: bool | None = None
    """Whether the header is there."""
    prefix_match: str | None = None
    """The beginning of the value."""
    suffix_match: str | None = None
    """The end of the value."""
    invert_match: bool = False
    """Whether the condition must not hold."""


class HeaderValueMatchAction(ApiStruct, frozen=True):
    """A fixed descriptor with the key ``header_match``, sent when headers match."""

    descriptor_value: str = ""
    """Its value."""
    expect_match: bool | None = None
    """Whether it is sent when the headers match or when they do not; true by default."""
    headers: tuple[RateLimitHeaderMatcher, ...] = ()
    """The conditions, all of which must hold."""


class MetadataPathSegment(ApiStruct, frozen=True):
    """One step into metadata."""

    key: str = ""
    """Key of the structure to enter."""


class MetadataKey(ApiStruct, frozen=True):
    """Where a value is in Envoy's metadata."""

    key: str = ""
    """Filter whose metadata is read."""
    path: tuple[MetadataPathSegment, ...] = ()
    """The way to the value."""


class MetadataSource(Enum):
    """Whose metadata is read. DYNAMIC is the zero value."""

    DYNAMIC = "DYNAMIC"
    ROUTE_ENTRY = "ROUTE_ENTRY"


class MetadataAction(ApiStruct, frozen=True):
    """A descriptor from Envoy's metadata."""

    descriptor_key: str = ""
    """Key of the descriptor."""
    metadata_key: MetadataKey | None = None
    """Where the value is."""
    default_value: str = ""
    """Value when there is none; without it no descriptor is sent."""
    source: MetadataSource = MetadataSource.DYNAMIC
    """Whose metadata is read."""


class RateLimitAction(OneofStruct, frozen=True):
    """One descriptor of a request."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (
        (
            "source_cluster",
            "destination_cluster",
            "request_headers",
            "remote_address",
            "generic_key",
            "header_value_match",
            "metadata",
        ),
    )

    source_cluster: Empty | None = None
    """The Envoy cluster that the request comes from."""
    destination_cluster: Empty | None = None
    """The Envoy cluster that the request goes to."""
    request_headers: RequestHeadersAction | None = None
    """A request header."""
    remote_address: Empty | None = None
    """The client's address."""
    generic_key: GenericKeyAction | None = None
    """A fixed value."""
    header_value_match: HeaderValueMatchAction | None = None
    """A fixed value when headers match."""
    metadata: MetadataAction | None = None
    """A value of Envoy's metadata."""


class RateLimitActions(ApiStruct, frozen=True):
    """A tuple of descriptors; a request that lacks one of them is not counted. With setActions too, two tuples."""

    actions: tuple[RateLimitAction, ...] = ()
    """Descriptors in the order in which the server's descriptors are nested."""
    set_actions: tuple[RateLimitAction, ...] = ()
    """Descriptors whose order does not matter, and of which a request may lack some; for Gloo's rate limiter."""


class RawRateLimits(ApiStruct, frozen=True):
    """What requests tell the rate limit server."""

    rate_limits: tuple[RateLimitActions, ...] = ()
    """Tuples of descriptors; the request is limited when one of them is."""


class RouteRateLimit(OneofStruct, frozen=True):
    """Rate limits of the selected routes."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("raw", "ratelimit_client_config_ref"),)

    ratelimit_server_config_selector: ObjectSelector | None = None
    """The RateLimitServerConfigs that hold the limits; no effect, the rate limit server has its own."""
    raw: RawRateLimits | None = None
    """The descriptors themselves."""
    ratelimit_client_config_ref: ObjectRef | None = None
    """The RateLimitClientConfig that holds the descriptors."""


class RateLimits(ApiStruct, frozen=True):
    """What requests tell the rate limit server, in one of several forms; so far there is one."""

    raw: RawRateLimits | None = None
    """The descriptors themselves."""


class RateLimitClientConfigSpec(ApiStruct, frozen=True):
    """What requests of the routes that refer to it tell the rate limit server."""

    rate_limits: RateLimits | None = None
    """The descriptors."""


class RateLimitClientConfigStatus(ApiStruct, frozen=True):
    """What became of a rate limit client config."""

    observed_generation: Int64 = 0
    """Generation of the RateLimitClientConfig that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED if routes may refer to it; those that do say in their own status what became of it."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""


class RateLimitClientConfig(Resource, frozen=True):
    """Says once what requests tell the rate limit server; routes and policies refer to it."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "RateLimitClientConfig", "ratelimitclientconfigs")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("rlcc", "rlccs")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: RateLimitClientConfig
metadata:
  name: per-user
  namespace: gloo-mesh
spec:
  rateLimits:
    raw:
      rateLimits:
      - actions:
        - genericKey:
            descriptorValue: reviews
        - requestHeaders:
            headerName: x-user
            descriptorKey: user
"""

    spec: RateLimitClientConfigSpec = RateLimitClientConfigSpec()
    """What the user wants."""
    status: RateLimitClientConfigStatus | None = None
    """What became of it."""
