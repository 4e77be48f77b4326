"""The workloads that policies are about as callers, for their statuses; nothing that is written depends on them.

A status names the first of very many, and what those are is kept up to date by group, so that one more workload among
ten thousand costs nothing that it is not among the first of.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

import msgspec

from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.ref import Ref
from isthmus.translate.access.facts import AccessFacts, Account
from isthmus.translate.callers import CallerFacts, matchers_of
from isthmus.translate.facts import MeshFacts
from isthmus.translate.membership import Membership
from isthmus.translate.selection import Applied, Policy
from isthmus.translate.selectors import EVERYTHING, Matcher, Term, matches, terms_of_rule

MAX_LISTED_WORKLOADS = 100  # names that a person still reads, in the status of each of very many policies
KEPT = MAX_LISTED_WORKLOADS + 1  # tells that there are more

P = TypeVar("P")
Group = tuple[Ref, Term]
"""A mesh, and what callers there have in common."""


class Alternative(msgspec.Struct, frozen=True):
    """One way to select callers: those that have *term*, on one of *clusters* (empty: any), and meet *matcher*."""

    term: Term = EVERYTHING
    clusters: tuple[str, ...] = ()
    matcher: Matcher | None = None


class Firsts:
    """Keeps of each group the members with the lowest keys. An operator of the graph: it remembers all members."""

    def __init__(self, count: int, groups: Callable[[CallerFacts], Iterable[Group]]) -> None:
        self._count = count
        self._groups = groups
        self._groups_of: dict[Ref, frozenset[Group]] = {}
        self._members: dict[Group, set[Ref]] = {}
        self._first: dict[Group, list[Ref]] = {}

    def update(self, changes: Mapping[Ref, CallerFacts | None]) -> dict[Group, tuple[Ref, ...] | None]:
        """The first members of the groups where *changes* made them others; None for a group that is empty now."""
        touched: dict[Group, None] = {}
        for ref, caller in changes.items():
            before = self._groups_of.pop(ref, frozenset())
            after = frozenset(self._groups(caller)) if caller is not None else frozenset()
            if after:
                self._groups_of[ref] = after
            touched.update((group, None) for group in before - after if self._leave(group, ref))
            touched.update((group, None) for group in after - before if self._join(group, ref))
        return {group: self._listed(group) for group in touched}

    def _join(self, group: Group, ref: Ref) -> bool:
        members = self._members.setdefault(group, set())
        first = self._first.setdefault(group, [])
        incomplete = len(first) < min(self._count, len(members))
        members.add(ref)
        if incomplete:
            return True  # others come first perhaps: who that is tells `_listed`
        if len(first) == self._count and ref > first[-1]:
            return False
        insort(first, ref)
        del first[self._count :]
        return True

    def _leave(self, group: Group, ref: Ref) -> bool:
        self._members[group].remove(ref)
        first = self._first[group]
        place = bisect_left(first, ref)
        if place == len(first) or first[place] != ref:
            return False
        del first[place]
        return True

    def _listed(self, group: Group) -> tuple[Ref, ...] | None:
        members, first = self._members[group], self._first[group]
        if not members:
            del self._members[group], self._first[group]
            return None
        if len(first) < min(self._count, len(members)):
            first = self._first[group] = heapq.nsmallest(self._count, members)
        return tuple(first)


class Sources:
    """Lists, for each policy, the workloads that its source selectors select, among those that reach a destination."""

    def __init__(
        self,
        graph: Graph,
        *,
        callers: Collection[Ref, CallerFacts],
        meshes: Collection[Ref, MeshFacts],
        membership: Membership,
    ) -> None:
        self._graph = graph
        self._meshes = meshes
        self._membership = membership
        self._by_label: Index[Term, Ref, CallerFacts] = graph.index(
            "callers by label", callers, lambda _, caller: _labels(caller)
        )
        self._first: Collection[Group, tuple[Ref, ...]] = graph.operate(
            "first callers of groups", callers, Firsts(KEPT, _groups).update
        )

    def of(
        self,
        what: str,
        policies: Collection[Ref, P],
        applied: Collection[Ref, Applied[Policy]],
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
        meshes = self._graph.index(f"meshes of destinations by owner, {what}", present, first_part)

        def listed(fetch: Fetch, ref: Ref, policy: P) -> tuple[Ref, ...] | None:
            near = (mesh for _, mesh in fetch.group(meshes, ref))
            reaching = {each.ref: each for mesh in near for each in self._reaching(fetch, mesh)}
            found = {ref for each in alternatives(policy) for ref in self._selected(fetch, each, reaching)}
            return tuple(heapq.nsmallest(KEPT, found)) or None

        return self._graph.derive(f"workloads, {what}", policies, listed)

    def _reaching(self, fetch: Fetch, mesh: Ref) -> Iterator[MeshFacts]:
        """The meshes whose workloads can call those of *mesh*."""
        own = fetch.get(self._meshes, mesh)
        if own is not None:
            yield own
        group = self._membership.group_of(fetch, mesh)
        yield from group.members if group is not None else ()

    def _selected(self, fetch: Fetch, alternative: Alternative, meshes: Mapping[Ref, MeshFacts]) -> Iterator[Ref]:
        matcher = alternative.matcher
        if matcher is not None:
            for ref, caller in fetch.group(self._by_label, alternative.term):
                if caller.mesh in meshes and matches(matcher, caller.controller, caller.labels):
                    yield ref
            return
        for mesh in meshes.values():
            if not alternative.clusters or mesh.cluster in alternative.clusters:
                yield from fetch.get(self._first, (mesh.ref, alternative.term)) or ()


def senders_of(policy: TrafficPolicy) -> Iterator[Alternative]:
    """Whose requests *policy* is about."""
    for matcher in matchers_of(policy.spec.source_selector):
        if len(matcher.labels) + bool(matcher.namespaces) > 1:
            yield Alternative(terms_of_rule(matcher)[0], matcher=matcher)
        elif matcher.labels:
            yield from (Alternative(("label", *pair), matcher.clusters) for pair in matcher.labels.items())
        else:
            yield from _in_namespaces(matcher.namespaces, matcher.clusters)


def callers_of(policy: AccessFacts) -> Iterator[Alternative]:
    """Whom *policy* allows to call, as far as workloads tell: who has to show a token may be any of them."""
    for callers in policy.callers:
        for account in callers.accounts:
            yield from _of_account(account, callers.namespaces)
        if not callers.accounts:
            yield from _in_namespaces(callers.namespaces, ())


def _of_account(account: Account, namespaces: tuple[str, ...]) -> Iterator[Alternative]:
    clusters = (account.cluster,) if account.cluster else ()
    if not account.name:
        meant = (account.namespace,) if account.namespace else namespaces
        allowed = tuple(each for each in meant if not namespaces or each in namespaces)
        yield from _in_namespaces(allowed, clusters) if allowed or not meant else ()
    elif not namespaces or account.namespace in namespaces:
        yield Alternative(("account", account.namespace, account.name), clusters)


def _in_namespaces(namespaces: tuple[str, ...], clusters: tuple[str, ...]) -> Iterator[Alternative]:
    if not namespaces:
        yield Alternative(EVERYTHING, clusters)
    yield from (Alternative(("namespace", namespace), clusters) for namespace in namespaces)


def _labels(caller: CallerFacts) -> Iterator[Term]:
    return (("label", name, value) for name, value in caller.labels.items())


def _groups(caller: CallerFacts) -> Iterator[Group]:
    """What alternatives without a matcher may ask for of *caller*."""
    namespace = caller.controller.namespace
    yield caller.mesh, EVERYTHING
    yield caller.mesh, ("namespace", namespace)
    yield caller.mesh, ("account", namespace, caller.service_account)
    yield from ((caller.mesh, label) for label in _labels(caller))
