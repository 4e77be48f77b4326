"""Statuses of the policies that apply to many destinations or workloads.

Source: reference, status of TrafficPolicy, AccessPolicy and ServiceDependency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from isthmus.api.access_policy import AccessPolicy, AccessPolicyStatus
from isthmus.api.common import ApprovalState, ApprovalStatus
from isthmus.api.service_dependency import ServiceDependency, ServiceDependencyStatus
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicyStatus
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.access.facts import open_sources
from isthmus.translate.listing import MAX_LIST_BYTES, MAX_LISTED_DESTINATIONS, MAX_LISTED_MESSAGES, approval, brief
from isthmus.translate.sources import MAX_LISTED_WORKLOADS


class PolicyOutcome(msgspec.Struct, frozen=True):
    """What became of a policy."""

    problems: tuple[Problem, ...]
    """Its own."""
    missing: tuple[Ref, ...]
    """The services that it names and that are not there, sorted."""
    found: dict[Ref, ApprovalStatus]
    """On each destination or workload that it selects."""

    @property
    def state(self) -> ApprovalState:
        """All in all."""
        states = {verdict.state for verdict in self.found.values()}
        if self.problems or ApprovalState.INVALID in states:
            return ApprovalState.INVALID
        if ApprovalState.FAILED in states:
            return ApprovalState.FAILED
        return ApprovalState.PENDING if self.missing or ApprovalState.PENDING in states else ApprovalState.ACCEPTED

    @property
    def errors(self) -> tuple[str, ...]:
        """What is wrong with the policy wherever it applies."""
        return brief((*map(str, self.problems), *(f"Destination {each.key} not found" for each in self.missing)))

    @property
    def listed(self) -> dict[str, ApprovalStatus]:
        """What a status lists, those with errors first if not all are."""
        return {ref.key: self.found[ref] for ref in sorted(self._chosen())}

    def cut(self, what: str = "destinations") -> tuple[str, ...]:
        """A warning if not all are listed; *what* they are, as the status names them."""
        chosen = self._chosen()
        if len(chosen) == len(self.found):
            return ()
        return (f"status.{what} lists {len(chosen)} of {len(self.found)} {what}, those with errors first",)

    def _chosen(self) -> list[Ref]:
        def errors_first(ref: Ref) -> tuple[bool, Ref]:
            return self.found[ref].state is ApprovalState.ACCEPTED, ref

        chosen = sorted(self.found, key=errors_first)[:MAX_LISTED_DESTINATIONS]
        room = 2 * MAX_LIST_BYTES
        for count, ref in enumerate(chosen):
            room -= len(ref.key) + sum(map(len, (*self.found[ref].errors, *self.found[ref].warnings)))
            if room < 0:
                return chosen[:count]
        return chosen


def policy_outcome(
    problems: tuple[Problem, ...],
    missing: Iterable[Ref],
    verdicts: Mapping[Ref, ApprovalStatus],
    failures: Mapping[Ref, str],
) -> PolicyOutcome:
    """What became of a policy with *verdicts* on what it selects; *failures* say for what of it writing failed."""
    found = {subject: _brief_verdict(verdict) for subject, verdict in verdicts.items()}
    for subject, failure in failures.items():
        before = found.get(subject, ApprovalStatus())
        if before.state in (ApprovalState.ACCEPTED, ApprovalState.PENDING):
            found[subject] = approval((*before.errors, failure), failed=True)
    return PolicyOutcome(problems, tuple(sorted(missing)), found)


def _brief_verdict(verdict: ApprovalStatus) -> ApprovalStatus:
    if max(len(verdict.errors), len(verdict.warnings)) <= MAX_LISTED_MESSAGES:
        return verdict
    return msgspec.structs.replace(verdict, errors=brief(verdict.errors), warnings=brief(verdict.warnings))


def traffic_policy_status(
    policy: TrafficPolicy, outcome: PolicyOutcome, workloads: tuple[Ref, ...]
) -> TrafficPolicyStatus:
    """Status of a traffic policy; *workloads* are those whose requests it is about, the first of very many.

    A policy with a problem of its own has no effect at all; one that has a problem on a destination serves the others.
    """
    spec = policy.spec
    warnings = tuple(
        f"spec.policy.{field} is about routes of gateways alone"
        for field, value in _gateway_fields(spec.policy)
        if value is not None and not spec.route_selector
    )
    if (
        not outcome.problems
        and not outcome.found
        and not outcome.missing
        and (spec.destination_selector or not spec.route_selector)
    ):
        warnings += ("selects no destination",)
    if spec.source_selector and outcome.found and not workloads:
        warnings += ("spec.sourceSelector selects no workload that can call its destinations",)
    return TrafficPolicyStatus(
        observed_generation=policy.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=warnings + outcome.cut() + _cut(workloads),
        destinations=outcome.listed,
        workloads=_listed(workloads),
    )


def access_policy_status(
    policy: AccessPolicy, outcome: PolicyOutcome, workloads: tuple[Ref, ...]
) -> AccessPolicyStatus:
    """Status of an access policy; *workloads* are those that it allows to call, the first of very many.

    A policy with a problem of its own allows nobody.
    """
    open_ = () if outcome.problems else open_sources(policy.spec)
    warnings = tuple(f"{path} is empty: everybody may call, also without an identity" for path in open_)
    if outcome.problems:
        warnings += ("allows nobody until that is mended",)
    if not outcome.found and not outcome.missing:
        warnings += ("selects no destination",)
    elif outcome.found and not (outcome.problems or open_ or workloads):
        warnings += ("names no workload that is known: nobody may call by it yet",)
    return AccessPolicyStatus(
        observed_generation=policy.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=warnings + outcome.cut() + _cut(workloads),
        destinations=outcome.listed,
        workloads=_listed(workloads),
    )


def service_dependency_status(dependency: ServiceDependency, outcome: PolicyOutcome) -> ServiceDependencyStatus:
    """Status of a service dependency, with what became of it on each workload."""
    return ServiceDependencyStatus(
        observed_generation=dependency.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=outcome.cut("workloads") if outcome.found else ("selects no workload",),
        workloads=outcome.listed,
    )


def _listed(workloads: tuple[Ref, ...]) -> tuple[str, ...]:
    return tuple(workload.key for workload in workloads[:MAX_LISTED_WORKLOADS])


def _cut(workloads: tuple[Ref, ...]) -> tuple[str, ...]:
    if len(workloads) <= MAX_LISTED_WORKLOADS:
        return ()
    return (f"status.workloads lists the first {MAX_LISTED_WORKLOADS} workloads",)


def _gateway_fields(policy: Policy | None) -> tuple[tuple[str, object], ...]:
    return (("rateLimit", policy.rate_limit), ("extauth", policy.extauth)) if policy is not None else ()
