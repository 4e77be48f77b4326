"""Several policies on one destination: which of them says what about which requests.

A policy says its fields about every request that meets one of its conditions. For a condition that counts which is the
most specific of those that cover it, and of equal ones the oldest policy; so a route with matchers has what a policy
without matchers sets, unless it says otherwise itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from isthmus.api.common import WorkloadSelector
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.model.ref import Ref
from isthmus.translate.membership import Seniority, seniority
from isthmus.translate.traffic.conditions import (
    ANY_REQUEST,
    ANY_SENDER,
    Condition,
    Kind,
    Path,
    Request,
    request_of,
    senders_on,
)
from isthmus.translate.traffic.fields import OF_DESTINATION, Field, Value, fields_of


class PolicyFacts(msgspec.Struct, frozen=True, gc=False):
    """What translation reads of a policy that has no fault of its own."""

    ref: Ref
    seniority: Seniority
    senders: tuple[WorkloadSelector, ...]
    requests: tuple[Request, ...]
    """Each once; never empty."""
    fields: dict[Field, Value]


class Setting(msgspec.Struct, frozen=True, gc=False):
    """A value, and the policy that says it."""

    value: Value
    policy: Ref


class Conflict(msgspec.Struct, frozen=True, gc=False):
    """A field that *loser* sets otherwise than *winner*, which is older, for the same requests."""

    field: Field
    loser: Ref
    winner: Ref

    def __str__(self) -> str:
        return (
            f"spec.policy.{self.field.value} is set otherwise by TrafficPolicy "
            f"{self.winner.name}.{self.winner.namespace}, which is older and has it"
        )


class Route(msgspec.Struct, frozen=True, gc=False):
    """What is said about the requests of one condition; each field by one or more, who counts most first."""

    condition: Condition
    settings: dict[Field, tuple[Setting, ...]]


class Merged(msgspec.Struct, frozen=True, gc=False):
    """All that is said about a destination on one cluster; routes from specific to general."""

    routes: tuple[Route, ...]
    of_destination: dict[Field, Setting]
    conflicts: tuple[Conflict, ...]


def policy_facts(policy: TrafficPolicy) -> PolicyFacts:
    """Facts of *policy*."""
    spec = policy.spec
    requests = dict.fromkeys(request_of(matcher) for matcher in spec.http_request_matchers)
    return PolicyFacts(
        ref=policy.ref,
        seniority=seniority(policy),
        senders=spec.source_selector,
        requests=tuple(requests) or (ANY_REQUEST,),
        fields=fields_of(spec.policy),
    )


def merge(policies: Sequence[PolicyFacts], cluster: str) -> Merged:
    """What *policies*, the oldest first, say to the proxies of *cluster*."""
    said: dict[Condition, list[PolicyFacts]] = {}
    here: list[PolicyFacts] = []
    for policy in policies:
        senders = senders_on(cluster, policy.senders)
        if senders is None:
            continue
        here.append(policy)
        for sender in senders:
            for request in policy.requests:
                said.setdefault(Condition(sender, request), []).append(policy)
    conflicts: dict[Conflict, None] = {}
    of_destination = _settle(here, OF_DESTINATION, conflicts)
    of_requests = tuple(field for field in Field if field not in OF_DESTINATION)
    own = {condition: _settle(each, of_requests, conflicts) for condition, each in said.items()}
    general = _Coverage(own)
    routes = []
    for condition in sorted(_closure(own), key=lambda condition: condition.rank):
        settings: dict[Field, tuple[Setting, ...]] = {}
        for covering in general.of(condition):
            for field, setting in own[covering].items():
                settings[field] = (*settings.get(field, ()), setting)
        if settings:
            routes.append(Route(condition, settings))
    return Merged(tuple(routes), of_destination, tuple(conflicts))


def _settle(
    policies: Iterable[PolicyFacts], fields: Sequence[Field], conflicts: dict[Conflict, None]
) -> dict[Field, Setting]:
    """Of each field the value of the oldest policy; who says otherwise goes to *conflicts*."""
    settled: dict[Field, Setting] = {}
    for policy in policies:
        for field in fields:
            value = policy.fields.get(field)
            if value is None:
                continue
            first = settled.setdefault(field, Setting(value, policy.ref))
            if first.value != value:
                conflicts[Conflict(field, policy.ref, first.policy)] = None
    return settled


def _closure(conditions: Iterable[Condition]) -> Iterator[Condition]:
    """*conditions*, and those for requests that meet one for anybody's requests and one for all requests of somebody.

    Such requests take one route only, which has to say what both say.
    """
    every = dict.fromkeys(conditions)
    senders = [c.sender for c in every if c.request == ANY_REQUEST and c.sender != ANY_SENDER]
    requests = [c.request for c in every if c.sender == ANY_SENDER and c.request != ANY_REQUEST]
    every.update(dict.fromkeys(Condition(sender, request) for sender in senders for request in requests))
    return iter(every)


class _Coverage:
    """Finds the conditions that cover one, without trying each."""

    def __init__(self, conditions: Iterable[Condition]) -> None:
        self._by_path: dict[Path, list[Condition]] = {}
        for condition in conditions:
            self._by_path.setdefault(condition.request.path, []).append(condition)
        self._lengths = sorted({len(path.text) for path in self._by_path if path.kind is Kind.PREFIX})
        self._loose = [path for path in self._by_path if path.ignore_case]

    def of(self, condition: Condition) -> list[Condition]:
        """Those that cover *condition*, the most specific first."""
        path = condition.request.path
        paths = dict.fromkeys((path, Path(), *self._loose))
        if path.kind in (Kind.EXACT, Kind.PREFIX):
            paths.update((Path(Kind.PREFIX, path.text[:length]), None) for length in self._lengths)
        found = (each for candidate in paths for each in self._by_path.get(candidate, ()) if each.covers(condition))
        return sorted(found, key=lambda each: (each != condition, each.rank))
