"""Which objects of users select which services, as derived collections: found by what they share, not one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

import msgspec

from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.ref import Ref
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.selectors import Rule, selects, terms_of_rule, terms_of_service
from isthmus.translate.seniority import Seniority

Owner = TypeVar("Owner")


class PolicyLike(Protocol):
    """What translation reads of a policy, whatever it is about."""

    @property
    def ref(self) -> Ref: ...
    @property
    def seniority(self) -> Seniority: ...


Policy = TypeVar("Policy", bound=PolicyLike)


class Applied(msgspec.Struct, Generic[Policy], frozen=True, gc=False):
    """The policies on one service, from old to young."""

    service: ServiceFacts
    policies: tuple[Policy, ...]


class OwnedRule(msgspec.Struct, frozen=True, gc=False):
    """One alternative of an object's destination selectors."""

    owner: Ref
    rule: Rule


class Selection:
    """Which of *owners* select a service, and which services they name that are not there."""

    def __init__(
        self,
        graph: Graph,
        what: str,
        owners: Collection[Ref, Owner],
        rules_of: Callable[[Owner], Iterable[Rule]],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
    ) -> None:
        """*rules_of* returns the alternatives of one of *owners*, which are called *what*."""
        self._services_by_identity = services_by_identity

        def expand(_: Fetch, ref: Ref, owner: Owner) -> Iterator[tuple[tuple[Ref, str], OwnedRule]]:
            for i, rule in enumerate(rules_of(owner)):
                # A reference is keyed by what it names: one more in the middle of a long list is one more row.
                yield (ref, rule.key if isinstance(rule, Ref) else f"{i}"), OwnedRule(ref, rule)

        rules = graph.expand(f"{what} rules", owners, expand)
        self._by_term = graph.index(f"{what} rules by term", rules, lambda _, owned: terms_of_rule(owned.rule))
        # Row by row: a long list of references is not looked through again whenever one of its services changes.
        missing = graph.derive(f"{what} references to no service", rules, self._named_in_vain)
        self.missing: Index[Ref, tuple[Ref, str], Ref] = graph.index(
            f"{what} references to no service by owner", missing, first_part
        )

    def of(self, fetch: Fetch, service: ServiceFacts) -> list[Ref]:
        """Those that select *service*, sorted."""
        return sorted(
            {
                owned.owner
                for term in terms_of_service(service)
                for _, owned in fetch.group(self._by_term, term)
                if selects(owned.rule, service)
            }
        )

    def applied(self, fetch: Fetch, service: ServiceFacts, facts: Collection[Ref, Policy]) -> Applied[Policy] | None:
        """Those that select *service*, as *facts* has them; None if there are none. What *facts* lacks is left out."""
        found = (fetch.get(facts, owner) for owner in self.of(fetch, service))
        policies = sorted((each for each in found if each is not None), key=lambda each: each.seniority)
        return Applied(service, tuple(policies)) if policies else None

    def _named_in_vain(self, fetch: Fetch, _: object, owned: OwnedRule) -> Ref | None:
        named = owned.rule
        if isinstance(named, Ref) and not (named.cluster and named.namespace and named.name):
            return None  # a problem of the owner
        return named_in_vain(fetch, named, self._services_by_identity)


def named_in_vain(fetch: Fetch, rule: object, services_by_identity: Index[Ref, Ref, ServiceFacts]) -> Ref | None:
    """The service that *rule* names if it is not there; None too where *rule* names none."""
    return rule if isinstance(rule, Ref) and not fetch.group(services_by_identity, rule) else None
