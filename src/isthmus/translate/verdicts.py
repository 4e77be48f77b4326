"""What became of each of the policies on one destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from isthmus.api.common import ApprovalState, ApprovalStatus
from isthmus.flow import Fetch
from isthmus.model.ref import Ref

Judged = dict[Ref, ApprovalStatus]
"""Verdicts on one destination, by policy."""


def judge(
    policies: Sequence[Ref],
    *,
    errors: Mapping[Ref, Iterable[str]],
    warnings: Mapping[Ref, Iterable[str]],
    later: Mapping[Ref, Iterable[str]] = {},
) -> Judged:
    """Verdicts on *policies*, which come from old to young; those that are accepted are numbered.

    *later* is what may mend itself: a policy is PENDING for it, if it has no errors.
    """
    found: Judged = {}
    order = 0
    for policy in policies:
        wrong, to_come = tuple(errors.get(policy, ())), tuple(later.get(policy, ()))
        state = ApprovalState.ACCEPTED
        if wrong or to_come:
            state = ApprovalState.INVALID if wrong else ApprovalState.PENDING
        accepted = state is ApprovalState.ACCEPTED
        found[policy] = ApprovalStatus(
            acceptance_order=order if accepted else 0,
            state=state,
            errors=wrong + to_come,
            warnings=tuple(warnings.get(policy, ())),
        )
        order += accepted
    return found


def by_policy(_: Fetch, destination: Ref, judged: Judged) -> Iterator[tuple[tuple[Ref, Ref], ApprovalStatus]]:
    """The verdicts on *destination*, each behind the policy and the destination."""
    for policy, verdict in judged.items():
        yield (policy, destination), verdict
