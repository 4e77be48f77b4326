"""From who may call what to the rules of an AuthorizationPolicy.

A caller that cannot be named, since its cluster is not there, is left out, and never widens a rule to everybody.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.access.evaluation import LOCAL_TRUST_DOMAIN
from isthmus.translate.access.facts import AccessFacts, Account, Callers


class Named(msgspec.Struct, frozen=True, gc=False):
    """How a mesh's policies name the callers of one cluster."""

    domains: tuple[str, ...]
    """Their trust domains; none where they are not known."""
    ambiguous: bool = False
    """Whether their own domain is left out: in these policies its name means another one."""


Domains = Mapping[str, Named]
"""The names of callers, by each cluster that can call."""

MOST_BYTES = 400_000  # of one object's rules; etcd takes 1.5 MiB with its old and new state in one request


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Callers of a policy that match nobody, and why."""

    policy: Ref
    message: str


class Authorized(msgspec.Struct, frozen=True, gc=False):
    """Rules, merged and sorted; without any, nobody is allowed."""

    rules: tuple[istio.AuthorizationRule, ...]
    refusals: tuple[Refusal, ...]


def authorize(policies: Sequence[AccessFacts], domains: Domains) -> Authorized:
    """The rules of *policies*, where *domains* tells the clusters that can call."""
    refusals: dict[Refusal, None] = {}
    by_operation: dict[istio.Operation, dict[istio.Source, None] | None] = {}
    for policy in policies:
        for callers in policy.callers:
            source = _source(policy.ref, callers, domains, refusals)
            before = by_operation.get(policy.operation, {})
            if callers.anybody or before is None:
                by_operation[policy.operation] = None
            elif source is not None:
                by_operation[policy.operation] = {**before, source: None}
    rules = [
        istio.AuthorizationRule(
            from_=tuple(istio.From(source=source) for source in _merged(sources)) if sources is not None else (),
            to=(istio.To(operation=operation),) if operation != istio.Operation() else (),
        )
        for operation, sources in by_operation.items()
    ]
    return Authorized(tuple(sorted(rules, key=_order)), tuple(refusals))


def split(
    rules: Sequence[istio.AuthorizationRule], most: int = MOST_BYTES
) -> dict[int, tuple[istio.AuthorizationRule, ...]]:
    """*rules* in as many parts as their size demands, by number; together they allow what they allow as one.

    A caller stays in its part whoever else comes or goes. When parts double, some of its callers move from part i to a
    new part, and back when they halve; so, with new parts written first and old ones pruned last, nobody is ever left
    out meanwhile. Source: Istio, implicit enablement: a request passes when any ALLOW policy matches.
    """
    if _size(rules) <= most:
        return {0: tuple(rules)}
    pieces = [piece for rule in rules for piece in _pieces(rule)]
    count = 2
    while count <= len(pieces):
        parts = _parts(pieces, count)
        if max(map(_size, parts.values())) <= most:
            break
        count *= 2
    return parts


def _size(rules: Sequence[istio.AuthorizationRule]) -> int:
    return len(msgspec.json.encode(rules))


class _Piece(msgspec.Struct, frozen=True):
    """A source of a rule that names one principal or none; None stands for anybody."""

    to: tuple[istio.To, ...]
    source: istio.Source | None

    @property
    def number(self) -> int:
        """What tells its part, the same for ever."""
        return zlib.crc32(msgspec.json.encode(self, order="deterministic"))


def _pieces(rule: istio.AuthorizationRule) -> Iterable[_Piece]:
    if not rule.from_:
        yield _Piece(rule.to, None)
    for caller in rule.from_:
        for principal in caller.source.principals or (None,):
            named = (principal,) if principal is not None else ()
            yield _Piece(rule.to, msgspec.structs.replace(caller.source, principals=named))


def _parts(pieces: Iterable[_Piece], count: int) -> dict[int, tuple[istio.AuthorizationRule, ...]]:
    """*pieces* spread over *count* parts, a power of two; parts without any are left out."""
    found: dict[int, dict[tuple[istio.To, ...], list[istio.Source | None]]] = {}
    for piece in pieces:
        found.setdefault(piece.number % count, {}).setdefault(piece.to, []).append(piece.source)
    return {
        number: tuple(istio.AuthorizationRule(from_=_from(sources), to=to) for to, sources in found[number].items())
        for number in sorted(found)
    }


def _from(sources: Sequence[istio.Source | None]) -> tuple[istio.From, ...]:
    """The callers *sources*, those that differ in their principals alone in one; empty for anybody."""
    alike: dict[istio.Source, list[str]] = {}
    others: list[istio.Source] = []
    for source in sources:
        if source is None:
            return ()
        if source.principals:
            alike.setdefault(msgspec.structs.replace(source, principals=()), []).extend(source.principals)
        else:
            others.append(source)
    named = (msgspec.structs.replace(rest, principals=tuple(principals)) for rest, principals in alike.items())
    return tuple(istio.From(source=source) for source in (*named, *others))


def _source(policy: Ref, callers: Callers, domains: Domains, refusals: dict[Refusal, None]) -> istio.Source | None:
    principals: set[str] = set()
    for account in callers.accounts:
        clusters = (account.cluster,) if account.cluster else tuple(domains)
        for cluster in clusters:
            named = domains.get(cluster)
            principals.update(_principal(domain, account) for domain in (named.domains if named is not None else ()))
            if message := _unnamed(cluster, named):
                refusals[Refusal(policy, message)] = None
    if callers.accounts and not principals:
        return None  # an empty list would be anybody
    return istio.Source(
        principals=tuple(sorted(principals)),
        namespaces=callers.namespaces,
        request_principals=callers.tokens,
        not_request_principals=callers.not_tokens,
    )


def _unnamed(cluster: str, named: Named | None) -> str:
    """Why callers on *cluster* match nobody; empty if they have names."""
    if named is None:
        return f"cluster {cluster} is not in the virtual mesh: callers there match nobody"
    if named.ambiguous:
        return (
            f"the trust domain of cluster {cluster} is {LOCAL_TRUST_DOMAIN}, which in policies here means the callee's "
            f"own: callers there match nobody; set a trustDomain on cluster {cluster}"
        )
    return "" if named.domains else f"Trust domain not found for cluster {cluster}: callers there match nobody"


def _principal(domain: str, account: Account) -> str:
    """The SPIFFE id of *account*, without its scheme. Source: reference; Istio, AuthorizationPolicy, principals."""
    if not account.namespace:
        return f"{domain}/ns/*"
    return f"{domain}/ns/{account.namespace}/sa/{account.name or '*'}"


def _merged(sources: Iterable[istio.Source]) -> list[istio.Source]:
    """*sources*, those that name principals alone in one; sorted."""
    principals: set[str] = set()
    others: set[istio.Source] = set()
    for source in sources:
        if source == istio.Source(principals=source.principals):
            principals.update(source.principals)
        else:
            others.add(source)
    one = [istio.Source(principals=tuple(sorted(principals)))] if principals else []
    return one + sorted(others, key=msgspec.structs.astuple)


def _order(rule: istio.AuthorizationRule) -> tuple[object, ...]:
    return tuple(msgspec.structs.astuple(to.operation) for to in rule.to)
