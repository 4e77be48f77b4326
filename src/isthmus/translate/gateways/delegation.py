"""The routes of a host, with those of the RouteTables that it delegates to in their places.

A route that delegates matches by prefix, and what the tables' routes match is appended to that; they inherit its
options, except what they set themselves.
Source: reference, VirtualHost.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping

import msgspec

from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.gateways.findings import Finding, Weight
from isthmus.translate.gateways.hosts import HostFacts, HostKey, TableFacts
from isthmus.translate.gateways.routes import Answer, Delegate, Forward, RouteFacts
from isthmus.translate.membership import Seniority
from isthmus.translate.output import StatusKey
from isthmus.translate.traffic.conditions import Kind, Path, Request
from isthmus.translate.traffic.fields import LONGEST_REGEX, Field, Value

Lookup = Callable[[str, Delegate], Iterable[TableFacts]]
"""The tables that an object in a namespace delegates to, in order; only those that can be used."""


class Said(msgspec.Struct, frozen=True, gc=False):
    """A value that an object sets for a route, and where it says so."""

    value: Value
    who: StatusKey
    path: str


class Step(msgspec.Struct, frozen=True, order=True, gc=False):
    """A route on the way from a host to what happens: number *index* of the routes of *owner*."""

    owner: StatusKey
    index: int


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """A route that decides; *name* tells the way to it."""

    name: str
    requests: tuple[Request, ...]
    action: Forward | Answer
    said: dict[Field, Said]
    way: tuple[Step, ...]
    """From the host's own route to this one."""
    path: str

    @property
    def owner(self) -> StatusKey:
        """The object that holds the route."""
        return self.way[-1].owner

    @property
    def rank(self) -> tuple[Kind, int]:
        """Sorts from specific to general by the most specific request. Source: reference, ROUTE_SPECIFICITY."""
        return min((request.path.kind, -len(request.path.text)) for request in self.requests)


class Flattened(msgspec.Struct, frozen=True, gc=False):
    """A host with all routes that decide, in the order in which they are tried."""

    key: HostKey
    name: str
    seniority: Seniority
    domains: tuple[str, ...]
    leaves: tuple[Leaf, ...]
    findings: tuple[Finding, ...]


class _Above(msgspec.Struct, frozen=True, gc=False):
    """What routes inherit."""

    name: str
    requests: tuple[Request, ...]
    said: Mapping[Field, Said]
    way: tuple[Step, ...] = ()


def flatten(host: HostFacts, lookup: Lookup) -> Flattened:
    """*host*, with the routes of its tables. *lookup* never leads back to a table that is on the way."""
    owner, findings = host.key.owner, dict[Finding, None]()
    path = f"{host.path}.options.trafficPolicy"
    above = _Above(host.name, (Request(),), {field: Said(value, owner, path) for field, value in host.fields.items()})
    leaves = tuple(_leaves(host.routes, owner, above, lookup, findings))
    return Flattened(host.key, host.name, host.seniority, host.domains, leaves, tuple(findings))


def _leaves(
    routes: tuple[RouteFacts, ...], owner: StatusKey, above: _Above, lookup: Lookup, findings: dict[Finding, None]
) -> Iterator[Leaf]:
    for index, route in enumerate(routes):
        requests = tuple(_joined(route, owner, above, findings))
        if not requests:
            continue
        said = {**above.said, **{f: Said(v, owner, f"{route.path}.options") for f, v in route.fields.items()}}
        name, way = f"{above.name}.{route.name}", (*above.way, Step(owner, index))
        if not isinstance(route.action, Delegate):
            yield Leaf(name, requests, route.action, said, way, route.path)
            continue
        tables = sorted(lookup(owner.namespace, route.action), key=lambda table: -table.weight)
        below: list[tuple[int, Leaf]] = []
        for table in tables:
            inherited = _Above(f"{name}.{table.key.name}", requests, said, way)
            below += [(-table.weight, leaf) for leaf in _leaves(table.routes, table.key, inherited, lookup, findings)]
        if route.action.by_specificity:
            below.sort(key=lambda found: (found[0], found[1].rank))
        yield from (leaf for _, leaf in below)


def _joined(route: RouteFacts, owner: StatusKey, above: _Above, findings: dict[Finding, None]) -> Iterator[Request]:
    """What requests must look like to meet *route* and one of the routes above."""
    made: dict[Request, None] = {}
    for parent in above.requests:
        for child in route.requests:
            both = _both(parent, child)
            if isinstance(both, Request):
                made[both] = None
            else:
                findings[Finding(owner, Weight.ERROR, f"{route.path}.matchers: {both} {above.name}")] = None
    for request in made:
        rewrites = isinstance(route.action, Forward) and route.action.rewrite
        if request.path.kind is Kind.REGEX and (rewrites or _rewrites_prefix(route.action)):
            what = "replaces a prefix or exact path, and the matcher becomes a regular expression under"
            findings[Finding(owner, Weight.ERROR, f"{route.path}: {what} {above.name}")] = None
            continue
        if request.path.kind is Kind.REGEX and len(request.path.text) > LONGEST_REGEX:
            what = f"becomes a regular expression of more than {LONGEST_REGEX} characters under"
            findings[Finding(owner, Weight.ERROR, f"{route.path}.matchers: {what} {above.name}")] = None
            continue
        yield request


def _rewrites_prefix(action: object) -> bool:
    return isinstance(action, istio.HttpRedirect) and bool(action.prefix_rewrite)


def _both(parent: Request, child: Request) -> Request | str:
    """Requests that meet *parent*, and *child* behind its prefix; or why there are none that Istio could be told."""
    if parent.method and child.method and parent.method != child.method:
        return f"{child.method} never comes in under {parent.method} of"
    headers = tuple(sorted({*parent.headers, *child.headers}))
    query = tuple(sorted({*parent.query, *child.query}))
    if len({(test.name, test.invert) for test in headers}) < len(headers) or len({t.name for t in query}) < len(query):
        return "a header or query parameter is tested otherwise than by"
    path = appended(parent.path, child.path)
    return Request(path, parent.method or child.method, headers, query)


def appended(parent: Path, child: Path) -> Path:
    """*child* behind the prefix *parent*. Where only one of them ignores case, a regular expression says so."""
    if parent.kind is Kind.ANY or child.kind is Kind.ANY:
        return child if parent.kind is Kind.ANY else parent
    before = parent.text.removesuffix("/") if child.text.startswith("/") else parent.text
    if child.kind is not Kind.REGEX and parent.ignore_case == child.ignore_case:
        return Path(child.kind, before + child.text, child.ignore_case)
    front = f"(?i:{re.escape(before)})" if parent.ignore_case else re.escape(before)
    if child.kind is Kind.REGEX:
        return Path(Kind.REGEX, f"{front}(?:{child.text})")
    back = f"(?i:{re.escape(child.text)})" if child.ignore_case else re.escape(child.text)
    return Path(Kind.REGEX, front + back + (".*" if child.kind is Kind.PREFIX else ""))


# --- which tables -----------------------------------------------------------------------------------------------------


def delegations(routes: tuple[RouteFacts, ...]) -> Iterator[tuple[str, Delegate]]:
    """Field path and action of those of *routes* that delegate."""
    for route in routes:
        if isinstance(route.action, Delegate):
            yield route.path, route.action


def cycle_from(table: Ref, leads_to: Callable[[Ref], Iterable[Ref]]) -> tuple[Ref, ...]:
    """The shortest way from *table* back to itself, which is first and last on it; empty if there is none."""
    ways: list[tuple[Ref, ...]] = [(table,)]
    seen: set[Ref] = set()
    for way in ways:
        for other in leads_to(way[-1]):
            if other == table:
                return (*way, table)
            if other not in seen:
                seen.add(other)
                ways.append((*way, other))
    return ()
