"""In which order outputs are written and pruned, so that it is safe to stop anywhere.

What must hold also when a step fails, and the rest goes on, is in `access_order`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from isthmus.istio import kinds
from isthmus.model.kinds import ISSUED_CERTIFICATE, POD_BOUNCE_DIRECTIVE
from isthmus.model.ref import Kind

Manifest = dict[str, Any]


class Turn(NamedTuple):
    """One row of the order: objects of *kind*; of AuthorizationPolicies only those that do, or do not, *restrict*."""

    kind: Kind
    restricts: bool = False


# Written from top to bottom, pruned from bottom to top, and pruned only after everything is written: hosts before what
# says how to reach them, subsets, gateways and filters before the routes that name them, allow before deny, new before
# old. Certificates come last, and what restarts for them is known before they are.
OUTPUT_ORDER = (
    Turn(kinds.WORKLOAD_ENTRY),
    Turn(kinds.SERVICE_ENTRY),
    Turn(kinds.DESTINATION_RULE),
    Turn(kinds.GATEWAY),
    Turn(kinds.ENVOY_FILTER),
    Turn(kinds.VIRTUAL_SERVICE),
    Turn(kinds.SIDECAR),
    Turn(kinds.WASM_PLUGIN),
    Turn(kinds.TELEMETRY),
    Turn(kinds.REQUEST_AUTHENTICATION),
    Turn(kinds.PEER_AUTHENTICATION),
    Turn(kinds.AUTHORIZATION_POLICY, restricts=False),
    Turn(kinds.AUTHORIZATION_POLICY, restricts=True),
    Turn(POD_BOUNCE_DIRECTIVE),
    Turn(ISSUED_CERTIFICATE),
)
_TURNS = {turn: number for number, turn in enumerate(OUTPUT_ORDER)}


def restricts(manifest: Manifest) -> bool:
    """Whether an AuthorizationPolicy takes calls away: it denies, or it allows nothing.

    Source: Istio, an ALLOW policy without rules matches no request, so that every request to what it selects is denied.
    """
    spec = manifest.get("spec") or {}
    return manifest.get("kind") == kinds.AUTHORIZATION_POLICY.kind and (
        spec.get("action", "ALLOW") != "ALLOW" or not spec.get("rules")
    )


def write_rank(kind: Kind, *, restricts: bool) -> int:
    """When an object of *kind* is written."""
    return _TURNS[Turn(kind, restricts)]


def prune_rank(kind: Kind, *, restricts: bool) -> int:
    """When an object of *kind* is pruned, on the same scale."""
    return 2 * len(OUTPUT_ORDER) - _TURNS[Turn(kind, restricts)]
