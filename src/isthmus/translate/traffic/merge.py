"""Several policies on one destination: which of them says what about which requests.

A policy says its fields about every request that meets one of its conditions. For a condition that counts which is the
most specific of those that cover it, and of equal ones the oldest policy; so a route with matchers has what a policy
without matchers sets, unless it says otherwise itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from isthmus.api.common import WorkloadSelector
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.model.ref import Ref
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.traffic.conditions import (
    ANY_REQUEST,
    ANY_SENDER,
    Condition,
    Kind,
    Path,
    Request,
    Sender,
    request_of,
    senders_on,
)
from isthmus.translate.traffic.fields import OF_DESTINATION, Field, Value, fields_of, ignored_in


class PolicyFacts(msgspec.Struct, frozen=True, gc=False):
    """What translation reads of a policy that has no fault of its own."""

    ref: Ref
    seniority: Seniority
    senders: tuple[WorkloadSelector, ...]
    requests: tuple[Request, ...]
    """Each once; never empty."""
    fields: dict[Field, Value]
    ignored: tuple[str, ...] = ()
    """What it says that has no effect on services, for its status."""


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
        ignored=tuple(ignored_in(spec.policy)) if spec.policy else (),
    )


Senders = tuple[tuple[Sender, ...] | None, ...]
"""Of each of several policies the senders on one cluster, None for one that is about nobody there."""


def senders_of(policies: Sequence[PolicyFacts], cluster: str) -> Senders:
    """Whom on *cluster* each of *policies* is about: clusters with equal senders have equal routes."""
    return tuple(senders_on(cluster, policy.senders) for policy in policies)


def most_routes(policies: Sequence[PolicyFacts], senders: Senders) -> int:
    """A number that the routes of `merge` do not exceed, without making them."""
    conditions = {
        Condition(sender, request)
        for policy, found in zip(policies, senders, strict=True)
        for sender in found or ()
        for request in policy.requests
    }
    of_senders, of_requests = _general(conditions)
    return len(conditions) + len(of_senders) * len(of_requests)


def merge(policies: Sequence[PolicyFacts], senders: Senders) -> Merged:
    """What *policies*, the oldest first, say to the proxies of a cluster where they are about *senders*."""
    said: dict[Condition, list[PolicyFacts]] = {}
    here: list[PolicyFacts] = []
    for policy, found in zip(policies, senders, strict=True):
        if found is None:
            continue
        here.append(policy)
        for sender in found:
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
    senders, requests = _general(every)
    every.update(dict.fromkeys(Condition(sender, request) for sender in senders for request in requests))
    return iter(every)


def _general(conditions: Iterable[Condition]) -> tuple[list[Sender], list[Request]]:
    """The senders of whom all requests are meant, and the requests that are meant whoever sends them."""
    senders: list[Sender] = []
    requests: list[Request] = []
    for condition in conditions:
        if condition.request == ANY_REQUEST and condition.sender != ANY_SENDER:
            senders.append(condition.sender)
        elif condition.sender == ANY_SENDER and condition.request != ANY_REQUEST:
            requests.append(condition.request)
    return senders, requests


class _Coverage:
    """Finds the conditions that cover one, without trying each.

    A condition asks for several things, and covers only what asks for all of them too: it is found by the one of them
    that the fewest others ask for.
    """

    def __init__(self, conditions: Iterable[Condition]) -> None:
        terms = {condition: _terms(condition) for condition in conditions}
        asked = Counter(term for found in terms.values() for term in found)
        self._by_term: dict[object, list[Condition]] = {}
        for condition, found in terms.items():
            rarest = min(found, key=asked.__getitem__, default=None)
            self._by_term.setdefault(rarest, []).append(condition)
        paths = [term for term in self._by_term if isinstance(term, Path)]
        self._lengths = sorted({len(path.text) for path in paths if path.kind is Kind.PREFIX})
        self._loose = [path for path in paths if path.ignore_case]

    def of(self, condition: Condition) -> list[Condition]:
        """Those that cover *condition*, the most specific first."""
        path = condition.request.path
        terms: dict[object, None] = dict.fromkeys((None, *_terms(condition), *self._loose))
        if path.kind in (Kind.EXACT, Kind.PREFIX):
            terms.update((Path(Kind.PREFIX, path.text[:length]), None) for length in self._lengths)
        found = (each for term in terms for each in self._by_term.get(term, ()) if each.covers(condition))
        return sorted(found, key=lambda each: (each != condition, each.rank))


def _terms(condition: Condition) -> list[object]:
    """What *condition* asks for; for values of one kind of path, `Path` itself says what covers what."""
    sender, request = condition.sender, condition.request
    found: list[object] = [*request.headers, *sender.labels]
    found += (("query", test) for test in request.query)
    found += (("namespace", sender.namespace),) if sender.namespace else ()
    found += (("method", request.method),) if request.method else ()
    found += (request.path,) if request.path.kind is not Kind.ANY else ()
    return found
