"""What the two programs may do on whole clusters, derived from the tables of kinds.

A row says who touches which kinds with which verbs; the charts' rules are generated from it. No wildcard, and no right
to bind roles. Rights in a namespace depend on values, and stand in the charts' ``account.yaml``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from isthmus.api.kinds import DISCOVERED, POLICIES, REGISTRATION
from isthmus.istio import kinds as istio
from isthmus.model import kinds
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

READ = ("get", "list", "watch")
WRITE = ("create", "delete", "patch")  # patch is also server-side apply
REPORT = ("patch",)


class Grant(msgspec.Struct, frozen=True):
    """One row: *verbs* on *kinds*, or on their *subresource*; if there are *names*, on objects of these names only."""

    kinds: tuple[Kind, ...]
    verbs: tuple[str, ...]
    subresource: str = ""
    names: tuple[str, ...] = ()


def _kinds_of(types: Iterable[type]) -> tuple[Kind, ...]:
    return tuple(t.KIND for t in types)  # type: ignore[attr-defined]


OWN_ON_MANAGEMENT = _kinds_of((*POLICIES, *DISCOVERED, *REGISTRATION))

SERVER_GRANTS = (
    Grant(OWN_ON_MANAGEMENT, READ),
    Grant(OWN_ON_MANAGEMENT, REPORT, "status"),
    Grant(_kinds_of(DISCOVERED), WRITE),
)
"""On the whole management cluster: users may keep policies in any namespace."""

DISCOVERY_INPUTS = (
    kinds.CONFIG_MAP,
    kinds.SERVICE,
    kinds.POD,
    kinds.ENDPOINT_SLICE,
    kinds.NODE,
    kinds.NAMESPACE,
    kinds.DEPLOYMENT,
    kinds.REPLICA_SET,
    kinds.DAEMON_SET,
    kinds.STATEFUL_SET,
    kinds.MUTATING_WEBHOOK_CONFIGURATION,
)
"""What discovery reads. A test compares this with discovery's own table; parts of the core do not see each other."""

AGENT_GRANTS = (
    Grant(DISCOVERY_INPUTS, READ),
    Grant(istio.OUTPUT_KINDS, (*READ, *WRITE)),
    # Istio's plug-in certificates, wherever Istio is. Server-side apply names what it creates, and a watch may name
    # what it selects, so these rights may too.
    Grant((kinds.SECRET,), (*READ, *WRITE), names=("cacerts",)),
    # The root that an istiod made itself: it signs once for the root that follows it.
    Grant((kinds.SECRET,), ("get",), names=("istio-ca-secret",)),
    # Restarts: a note on the template of what owns the pods; bare pods, and where that would take too many, eviction.
    Grant((kinds.POD_DISRUPTION_BUDGET,), READ),
    Grant((kinds.DEPLOYMENT, kinds.REPLICA_SET, kinds.DAEMON_SET, kinds.STATEFUL_SET), ("patch",)),
    Grant((kinds.POD,), ("create",), "eviction"),
)
"""On the whole managed cluster: exactly what it reads and writes."""


def rules(grants: Iterable[Grant]) -> list[Manifest]:
    """The RBAC rules that *grants* amount to: one per API group, names and set of verbs, sorted."""
    resources: dict[tuple[str, tuple[str, ...], tuple[str, ...]], set[str]] = defaultdict(set)
    for grant in grants:
        for kind in grant.kinds:
            name = f"{kind.plural}/{grant.subresource}" if grant.subresource else kind.plural
            resources[kind.group, grant.names, tuple(sorted(grant.verbs))].add(name)
    return [
        {
            "apiGroups": [group],
            "resources": sorted(found),
            **({"resourceNames": list(names)} if names else {}),
            "verbs": list(verbs),
        }
        for (group, names, verbs), found in sorted(resources.items())
    ]
