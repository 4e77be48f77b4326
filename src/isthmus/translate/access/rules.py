"""From who may call what to the rules of an AuthorizationPolicy.

A caller that cannot be named, since its cluster is not there, is left out, and never widens a rule to everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.access.facts import AccessFacts, Account, Callers

MOST_BYTES = 400_000  # of one object's rules; etcd takes 1.5 MiB with its old and new state in one request


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Callers of a policy that match nobody, and why."""

    policy: Ref
    message: str


class Authorized(msgspec.Struct, frozen=True, gc=False):
    """Rules, merged and sorted; without any, nobody is allowed."""

    rules: tuple[istio.AuthorizationRule, ...]
    refusals: tuple[Refusal, ...]


def authorize(policies: Sequence[AccessFacts], domains: Mapping[str, str]) -> Authorized:
    """The rules of *policies*, where *domains* is the trust domain of each cluster that can call."""
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
) -> list[tuple[istio.AuthorizationRule, ...]]:
    """*rules* in as many parts as their size demands; together they allow what they allow as one.

    Source: Istio, implicit enablement: a request passes when any ALLOW policy matches.
    """
    parts: list[list[istio.AuthorizationRule]] = [[]]
    room = most
    for piece in (piece for rule in rules for piece in _pieces(rule, most)):
        size = len(msgspec.json.encode(piece))
        if size > room and parts[-1]:
            parts.append([])
            room = most
        parts[-1].append(piece)
        room -= size
    return [tuple(part) for part in parts]


def _pieces(rule: istio.AuthorizationRule, most: int) -> Iterable[istio.AuthorizationRule]:
    """*rule*, or several with fewer principals each that allow the same."""
    if len(msgspec.json.encode(rule)) <= most:
        yield rule
        return
    for caller in rule.from_:
        principals = caller.source.principals
        longest = max((len(principal) for principal in principals), default=0) + 4
        step = max(1, most // 2 // longest)
        for start in range(0, len(principals), step):
            some = msgspec.structs.replace(caller.source, principals=principals[start : start + step])
            yield msgspec.structs.replace(rule, from_=(istio.From(source=some),))
        if not principals:
            yield msgspec.structs.replace(rule, from_=(caller,))


def _source(
    policy: Ref, callers: Callers, domains: Mapping[str, str], refusals: dict[Refusal, None]
) -> istio.Source | None:
    principals: set[str] = set()
    for account in callers.accounts:
        clusters = (account.cluster,) if account.cluster else tuple(domains)
        for cluster in clusters:
            domain = domains.get(cluster)
            if domain:
                principals.add(_principal(domain, account))
            elif domain is None:
                message = f"cluster {cluster} is not in the virtual mesh: callers there match nobody"
                refusals[Refusal(policy, message)] = None
            else:
                refusals[
                    Refusal(policy, f"Trust domain not found for cluster {cluster}: callers there match nobody")
                ] = None
    if callers.accounts and not principals:
        return None  # an empty list would be anybody
    return istio.Source(
        principals=tuple(sorted(principals)),
        namespaces=callers.namespaces,
        request_principals=callers.tokens,
        not_request_principals=callers.not_tokens,
    )


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
