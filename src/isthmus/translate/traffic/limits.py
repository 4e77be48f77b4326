"""How much is said of one destination on one cluster: what does not fit into one object is refused, the youngest first.

Istio takes the routes of a host from one VirtualService, so they cannot be spread over several.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

import msgspec

from isthmus.model.ref import Ref
from isthmus.translate.traffic.merge import Merged, PolicyFacts, Senders, merge, most_routes
from isthmus.translate.traffic.routes import Refusal, Routing

MAX_BYTES = 1_000_000  # of the routes; etcd takes objects of 1.5 MiB, and the API server adds to them
MAX_ROUTES = 2_000  # before ports are told apart; policies about senders and policies about requests multiply

_ENCODE = msgspec.json.Encoder().encode


Router = Callable[[Merged], Routing]


class Said(msgspec.Struct, frozen=True, gc=False):
    """What policies on one destination come to, and the routes that each of several routers makes of it."""

    merged: Merged
    routings: tuple[Routing, ...]


def fit(policies: Sequence[PolicyFacts], senders: Senders, routers: Sequence[Router]) -> Said:
    """What *policies*, the oldest first, come to; those that do not fit with the older ones are refused.

    *senders* are whom they are about on the clusters that *routers* make routes for.
    """
    found = _attempt(policies, senders, routers)
    if found is not None:
        return found
    # One that is too much by itself must not stand in the way of all that are younger.
    small = [i for i in range(len(policies)) if _attempt(policies[i : i + 1], senders[i : i + 1], routers[:1])]

    def older(count: int) -> tuple[Sequence[PolicyFacts], Senders]:
        return [policies[i] for i in small[:count]], tuple(senders[i] for i in small[:count])

    counts = range(1, len(small) + 1)
    # Routes are counted before they are made: where they are too many, there may be a thousand times too many.
    most = bisect_left(counts, True, key=lambda count: most_routes(*older(count)) > MAX_ROUTES)
    kept = _attempt(*older(most), routers)
    if kept is None:
        most = bisect_left(counts[:most], True, key=lambda count: _attempt(*older(count), routers) is None)
        kept = _attempt(*older(most), routers)
    assert kept is not None, "no policies have no routes"
    refused = sorted({*range(len(policies))} - {*small[:most]})
    refusals = tuple(_refusal(policies[i].ref) for i in refused if senders[i] is not None)
    return Said(
        kept.merged,
        tuple(msgspec.structs.replace(each, refusals=each.refusals + refusals) for each in kept.routings),
    )


def _attempt(policies: Sequence[PolicyFacts], senders: Senders, routers: Sequence[Router]) -> Said | None:
    """What *policies* come to, None if that is too much."""
    if most_routes(policies, senders) > MAX_ROUTES:
        return None
    merged = merge(policies, senders)
    routings = []
    for router in routers:
        routing = router(merged)
        if len(_ENCODE(routing.http)) > MAX_BYTES:
            return None
        routings.append(routing)
    return Said(merged, tuple(routings))


def _refusal(policy: Ref) -> Refusal:
    return Refusal(
        policy,
        f"too much is said of this destination: its routes fit into one object, of at most {MAX_ROUTES} routes and "
        f"{MAX_BYTES} bytes, only without this policy; older policies go first",
    )
