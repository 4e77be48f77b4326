"""What a policy's status lists where there is more than it holds, and what counts most of all that became of it."""

from __future__ import annotations

import pytest

from isthmus.api.common import ApprovalState, ApprovalStatus
from isthmus.api.service_dependency import ServiceDependency
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicySpec
from isthmus.model.ref import Ref
from isthmus.translate.listing import MAX_LIST_BYTES, MAX_LISTED_DESTINATIONS, MAX_LISTED_POLICIES, shown
from isthmus.translate.policy_statuses import policy_outcome, service_dependency_status, traffic_policy_status
from tests.unit.translate.fleets import meta

ACCEPTED = ApprovalStatus(state=ApprovalState.ACCEPTED)
INVALID = ApprovalStatus(state=ApprovalState.INVALID, errors=("is wrong here",))
PENDING = ApprovalStatus(state=ApprovalState.PENDING, errors=("is not there yet",))


def on(number: int) -> Ref:
    return Ref("", "gloo-mesh", f"destination-{number:05}")


@pytest.mark.parametrize(
    ("before", "state", "errors"),
    [
        (ACCEPTED, ApprovalState.FAILED, ("no room",)),
        (PENDING, ApprovalState.FAILED, ("is not there yet", "no room")),
        (INVALID, ApprovalState.INVALID, ("is wrong here",)),
    ],
)
def test_what_could_not_be_written_counts_where_nothing_is_wrong(
    before: ApprovalStatus, state: ApprovalState, errors: tuple[str, ...]
) -> None:
    found = policy_outcome((), (), {on(1): before}, {on(1): "no room"})

    assert found.state is state
    assert found.listed[on(1).key].errors == errors


@pytest.mark.parametrize(
    ("verdicts", "missing", "state"),
    [
        ((), (), ApprovalState.ACCEPTED),
        ((ACCEPTED,), (on(9),), ApprovalState.PENDING),
        ((ACCEPTED, PENDING), (), ApprovalState.PENDING),
        ((PENDING, INVALID), (on(9),), ApprovalState.INVALID),
    ],
)
def test_the_worst_counts(verdicts: tuple[ApprovalStatus, ...], missing: tuple[Ref, ...], state: ApprovalState) -> None:
    assert policy_outcome((), missing, {on(i): each for i, each in enumerate(verdicts)}, {}).state is state


def test_of_very_many_those_with_errors_are_listed() -> None:
    last = on(MAX_LISTED_DESTINATIONS + 7)
    verdicts = {on(number): ACCEPTED for number in range(MAX_LISTED_DESTINATIONS + 5)}

    found = service_dependency_status(
        ServiceDependency(metadata=meta("many")), policy_outcome((), (), {**verdicts, last: INVALID}, {})
    )

    assert len(found.workloads) == MAX_LISTED_DESTINATIONS
    assert found.workloads[last.key] == INVALID
    assert found.warnings == (
        f"status.workloads lists {MAX_LISTED_DESTINATIONS} of {MAX_LISTED_DESTINATIONS + 6} workloads, "
        "those with errors first",
    )


def test_long_errors_leave_room_for_fewer() -> None:
    long = ApprovalStatus(state=ApprovalState.INVALID, errors=("e" * (MAX_LIST_BYTES // 4),))

    found = traffic_policy_status(
        TrafficPolicy(metadata=meta("long"), spec=TrafficPolicySpec()),
        policy_outcome((), (), {on(number): long for number in range(20)}, {}),
        (),
    )

    assert list(found.destinations) == [on(number).key for number in range(7)]
    assert found.warnings == ("status.destinations lists 7 of 20 destinations, those with errors first",)


def policies(count: int, length: int) -> list[TrafficPolicy]:
    spec = TrafficPolicySpec(policy=Policy(request_timeout="1" * length + "s"))
    return [TrafficPolicy(metadata=meta(f"p{number}"), spec=spec) for number in range(count)]


def test_policies_are_listed_as_far_as_their_specs_fit() -> None:
    """In the statuses of destinations, and of hosts and tables."""
    assert len(shown(policies(MAX_LISTED_POLICIES + 1, 1))) == MAX_LISTED_POLICIES
    assert len(shown(policies(10, MAX_LIST_BYTES // 4))) == 3
