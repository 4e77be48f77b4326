"""The workloads that policies are about as callers, for their statuses; nothing that is written depends on them.

A status names the first of very many, so that what a change costs does not grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol, TypeVar

import msgspec

from isthmus.api.common import KubeWorkloadMatcher
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.flow import Collection, Fetch, Graph, Index
from isthmus.model.ref import Ref
from isthmus.translate.access.facts import AccessFacts, Callers
from isthmus.translate.callers import CallerFacts, matchers_of
from isthmus.translate.dependencies.derivations import may_be, terms_of_callers
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.membership import Membership
from isthmus.translate.selectors import EVERYTHING, Term, matches, terms_of, terms_of_rule

MAX_LISTED_WORKLOADS = 100  # names that a person still reads, in the status of each of very many policies


class Alternative(msgspec.Struct, frozen=True):
    """One way to select callers: those that pass *test*, all of which have one of *terms*. No test: everybody."""

    terms: tuple[Term, ...] = (EVERYTHING,)
    test: Callable[[CallerFacts], bool] | None = None


EVERYBODY = Alternative()


class _Policy(Protocol):
    @property
    def ref(self) -> Ref: ...


class _Applied(Protocol):
    """The policies on one service."""

    @property
    def service(self) -> ServiceFacts: ...
    @property
    def policies(self) -> tuple[_Policy, ...]: ...


P = TypeVar("P")
A = TypeVar("A", bound=_Applied)


class Sources:
    """Lists, for each policy, the workloads that its source selectors select, among those that reach a destination."""

    def __init__(self, graph: Graph, *, callers: Collection[Ref, CallerFacts], membership: Membership) -> None:
        self._graph = graph
        self._membership = membership
        self._by_term: Index[Term, Ref, CallerFacts] = graph.index(
            "callers by term", callers, lambda _, caller: terms_of(caller.controller, caller.labels)
        )
        by_mesh = graph.index("callers by mesh", callers, lambda _, caller: (caller.mesh,))
        self._first: Collection[Ref, tuple[Ref, ...]] = graph.derive(
            "first callers of meshes", by_mesh, lambda _, __, members: tuple(ref for ref, _ in _first(members))
        )

    def of(
        self,
        what: str,
        policies: Collection[Ref, P],
        applied: Collection[Ref, A],
        alternatives: Callable[[P], Iterable[Alternative]],
    ) -> Collection[Ref, tuple[Ref, ...]]:
        """The first workloads of each of *policies*, sorted, and one more than are listed if there are more.

        *applied* says on which services they are; *what* names them.
        """
        services = self._graph.index(
            f"services by mesh and owner, {what}",
            applied,
            lambda _, each: ((policy.ref, each.service.mesh) for policy in each.policies),
        )
        present = self._graph.derive(f"meshes of destinations, {what}", services, lambda _, key, __: key[1])
        meshes = self._graph.index(f"meshes of destinations by owner, {what}", present, lambda key, _: (key[0],))

        def listed(fetch: Fetch, ref: Ref, policy: P) -> tuple[Ref, ...] | None:
            near = {mesh for _, mesh in fetch.group(meshes, ref)}
            reaching = {mesh for each in sorted(near) for mesh in self._reaching(fetch, each)}
            found = {caller for each in alternatives(policy) for caller in self._selected(fetch, each, reaching)}
            return tuple(sorted(found)[: MAX_LISTED_WORKLOADS + 1]) or None

        return self._graph.derive(f"workloads, {what}", policies, listed)

    def _reaching(self, fetch: Fetch, mesh: Ref) -> Iterator[Ref]:
        """The meshes whose workloads can call those of *mesh*."""
        yield mesh
        member = fetch.get(self._membership.member, mesh)
        group = fetch.get(self._membership.facts, member.virtual_mesh) if member is not None else None
        yield from (each.ref for each in (group.members if group is not None else ()))

    def _selected(self, fetch: Fetch, alternative: Alternative, meshes: set[Ref]) -> Iterator[Ref]:
        test = alternative.test
        if test is None:
            for mesh in sorted(meshes):
                yield from fetch.get(self._first, mesh) or ()
            return
        for term in alternative.terms:
            members = fetch.group(self._by_term, term)
            yield from (ref for ref, _ in _first(pair for pair in members if pair[1].mesh in meshes and test(pair[1])))


def senders_of(policy: TrafficPolicy) -> Iterator[Alternative]:
    """Whose requests *policy* is about."""
    for matcher in matchers_of(policy.spec.source_selector):
        yield EVERYBODY if matcher == KubeWorkloadMatcher() else _matching(matcher)


def callers_of(policy: AccessFacts) -> Iterator[Alternative]:
    """Whom *policy* allows to call, as far as workloads tell: who has to show a token may be any of them."""
    for callers in policy.callers:
        yield _identified(callers) if callers.accounts or callers.namespaces else EVERYBODY


def _matching(matcher: KubeWorkloadMatcher) -> Alternative:
    return Alternative(terms_of_rule(matcher), lambda caller: matches(matcher, caller.controller, caller.labels))


def _identified(callers: Callers) -> Alternative:
    return Alternative(terms_of_callers(callers), lambda caller: may_be(callers, caller))


def _first(members: Iterable[tuple[Ref, CallerFacts]]) -> Iterator[tuple[Ref, CallerFacts]]:
    return islice(members, MAX_LISTED_WORKLOADS + 1)
