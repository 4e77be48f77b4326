"""How much of what there is a status lists, and the parts that statuses of several kinds share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.common import ApprovalState, ApprovalStatus, ObjectRef, RequiredSubsets
from isthmus.api.traffic_policy import AppliedTrafficPolicy, TrafficPolicy
from isthmus.model.ref import Ref

MAX_LISTED_DESTINATIONS = 2000  # an object of etcd holds 1.5 MiB, and the API server stores every key of a map twice

MAX_LISTED_POLICIES = 100  # whose whole specs a destination's status holds
MAX_LISTED_MESSAGES = 20  # about one thing; who reads them mends the first
MAX_LIST_BYTES = 200_000  # of one list: several of them and the object's spec have to fit into an object

_ENCODE = msgspec.json.Encoder().encode
_P = TypeVar("_P", TrafficPolicy, AccessPolicy)


def approval(errors: tuple[str, ...], *, failed: bool = False) -> ApprovalStatus:
    """ACCEPTED without errors, else INVALID, or FAILED when the object was right but writing it was not possible."""
    if not errors:
        return ApprovalStatus(state=ApprovalState.ACCEPTED)
    return ApprovalStatus(state=ApprovalState.FAILED if failed else ApprovalState.INVALID, errors=errors)


def object_ref(ref: Ref) -> ObjectRef:
    """*ref* as YAML writes it."""
    return ObjectRef(name=ref.name, namespace=ref.namespace)


def shown(policies: Sequence[_P]) -> Sequence[_P]:
    """The first of *policies*, as many as a status can hold with their whole specs."""
    room = MAX_LIST_BYTES
    for count, policy in enumerate(policies[:MAX_LISTED_POLICIES]):
        room -= len(_ENCODE(policy.spec))
        if room < 0:
            return policies[:count]
    return policies[:MAX_LISTED_POLICIES]


def brief(messages: tuple[str, ...]) -> tuple[str, ...]:
    """The first of *messages*, and how many more there are."""
    more = len(messages) - MAX_LISTED_MESSAGES
    return messages if more <= 0 else (*messages[:MAX_LISTED_MESSAGES], f"and {more} more")


def applied_traffic_policy(policy: TrafficPolicy, routes: tuple[str, ...] = ()) -> AppliedTrafficPolicy:
    """*policy* in the status of what it is applied to; of a host or table, to *routes* of it."""
    return AppliedTrafficPolicy(
        ref=object_ref(policy.ref), observed_generation=policy.metadata.generation, spec=policy.spec, routes=routes
    )


def required_subsets(naming: Sequence[TrafficPolicy]) -> tuple[RequiredSubsets, ...]:
    """The policies *naming*, whose traffic shifts name subsets; the first of them where there are very many."""
    return tuple(
        RequiredSubsets(
            traffic_policy_ref=object_ref(policy.ref),
            observed_generation=policy.metadata.generation,
            traffic_shift=policy.spec.policy.traffic_shift if policy.spec.policy else None,
        )
        for policy in shown(naming)
    )
