"""Other spellings: fields that users have in their files today under names that the types do not have.

`parse` moves their values to today's field; `crd` keeps them in the schema, so that a real API server does not prune
them. No row is needed for snake_case names, enum numbers, numeric strings and ``{value: X}``: `parse` takes them all.

Source: reference, marks [1.0] and [1.1], and the notes on old fields.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicySpec
from isthmus.api.base import ApiStruct
from isthmus.api.common import (
    HttpMatcher,
    IngressGatewaySelector,
    OutlierDetection,
    WeightedDestination,
    WorkloadSelector,
)
from isthmus.api.traffic_policy import TrafficPolicySpec
from isthmus.api.virtual_destination import LocalizedFailover
from isthmus.api.virtual_mesh import Federation, VirtualMeshSpec


class Spelling(msgspec.Struct, frozen=True):
    """Field *old* of *message* means the field at path *new* within it."""

    message: type[ApiStruct]
    old: str
    new: str
    doubt: str = ""
    """What else the field could mean; the user is warned of it."""
    yields: bool = False
    """Whether today's field wins when both are written; otherwise two different values are a problem."""
    values: dict[Any, Any] = {}
    """Today's value of an old one, where it changed too."""


FLAT = "selectors of 1.x ignored it here and selected every workload"
EITHER = "Istio counts gateway errors and 5xx errors apart; here one number stands for both"

SPELLINGS: tuple[Spelling, ...] = (
    # 1.0 had the path right on the matcher; 1.2 takes both, and uri wins.
    Spelling(HttpMatcher, "prefix", "uri.prefix", yields=True),
    Spelling(HttpMatcher, "exact", "uri.exact", yields=True),
    Spelling(HttpMatcher, "regex", "uri.regex", yields=True),
    # The flat selector of 0.x.
    Spelling(WorkloadSelector, "labels", "kubeWorkloadMatcher.labels", doubt=FLAT),
    Spelling(WorkloadSelector, "namespaces", "kubeWorkloadMatcher.namespaces", doubt=FLAT),
    Spelling(WorkloadSelector, "clusters", "kubeWorkloadMatcher.clusters", doubt=FLAT),
    # Some kinds have the singular, some the plural.
    Spelling(TrafficPolicySpec, "sourceSelectors", "sourceSelector"),
    Spelling(TrafficPolicySpec, "destinationSelectors", "destinationSelector"),
    Spelling(TrafficPolicySpec, "routeSelectors", "routeSelector"),
    Spelling(AccessPolicySpec, "sourceSelectors", "sourceSelector"),
    Spelling(AccessPolicySpec, "destinationSelectors", "destinationSelector"),
    Spelling(LocalizedFailover, "destinationSelector", "destinationSelectors"),
    # Renamed before 1.2.
    Spelling(Federation, "eastWestIngressGatewaySelectors", "ingressGatewaySelectors"),
    Spelling(IngressGatewaySelector, "gatewayTlsPortName", "portName"),
    Spelling(WeightedDestination, "failoverService", "virtualDestination"),
    Spelling(
        VirtualMeshSpec,
        "enforceAccessControl",
        "globalAccessPolicy",
        doubt="it is now globalAccessPolicy: ENABLED or DISABLED",
        values={True: "ENABLED", False: "DISABLED"},
    ),
    # Istio's words for outlier detection.
    Spelling(OutlierDetection, "consecutiveGatewayErrors", "consecutiveErrors", doubt=EITHER),
    Spelling(OutlierDetection, "consecutive5xxErrors", "consecutiveErrors", doubt=EITHER),
)


def spellings_of(message: type[ApiStruct]) -> dict[str, Spelling]:
    """The other spellings of the fields of *message*, by old name, in the order of the table."""
    return _BY_MESSAGE.get(message, {})


_BY_MESSAGE: dict[type[ApiStruct], dict[str, Spelling]] = {}
for _row in SPELLINGS:
    _BY_MESSAGE.setdefault(_row.message, {})[_row.old] = _row
