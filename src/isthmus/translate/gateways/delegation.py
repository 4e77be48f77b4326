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
from isthmus.translate.gateways.routes import UNREACHABLE, Answer, Delegate, Forward, RouteFacts
from isthmus.translate.output import StatusKey
from isthmus.translate.seniority import Seniority
from isthmus.translate.traffic.conditions import Kind, Path, Request
from isthmus.translate.traffic.fields import LONGEST_REGEX, Field, Value

MAX_DEPTH = 32  # tables on the way from a host; far more than people read, far less than Python's stack
MAX_REQUESTS = 10_000  # that a host's tables match; they multiply where several routes lead to one table

Lookup = Callable[[str, Delegate], Iterable[TableFacts | None]]
"""The tables that an object in a namespace delegates to, in order; None for one that cannot be used."""


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
    owner, path = host.key.owner, f"{host.path}.options.trafficPolicy"
    above = _Above(host.name, (Request(),), {field: Said(value, owner, path) for field, value in host.fields.items()})
    flattener = _Flattener(host, lookup)
    leaves, _ = flattener.leaves(host.routes, owner, above)
    return Flattened(host.key, host.name, host.seniority, host.domains, leaves, tuple(flattener.findings))


class _Flattener:
    """Follows the delegations of *host*, and gathers what is wrong with them."""

    def __init__(self, host: HostFacts, lookup: Lookup) -> None:
        self._host = host
        self._lookup = lookup
        self._left = MAX_REQUESTS
        self.findings: dict[Finding, None] = {}

    def leaves(self, routes: tuple[RouteFacts, ...], owner: StatusKey, above: _Above) -> tuple[tuple[Leaf, ...], bool]:
        """What *routes* of *owner* come to, and whether that is all of them."""
        made: list[Leaf] = []
        complete = True
        for index, route in enumerate(routes):
            if above.way and not self._fits(len(above.requests) * len(route.requests)):
                return tuple(made), False
            requests = tuple(_joined(route, owner, above, self.findings))
            if not requests:
                complete = False
                continue
            said = {**above.said, **{f: Said(v, owner, f"{route.path}.options") for f, v in route.fields.items()}}
            way = (*above.way, Step(owner, index))
            here = _Above(f"{above.name}.{route.name}", requests, said, way)
            if isinstance(route.action, Delegate):
                made += self._below(route, route.action, owner, here)
            else:
                made.append(Leaf(here.name, requests, route.action, said, way, route.path))
        return tuple(made), complete

    def _below(self, route: RouteFacts, action: Delegate, owner: StatusKey, here: _Above) -> Iterator[Leaf]:
        """The routes of the tables that *route* delegates to.

        Where any is left out, requests that are meant for it must not fall to what comes after *route*.
        """
        tables, complete = self._tables(route, action, owner, here)
        found: list[tuple[int, Leaf]] = []
        for table in tables:
            inherited = msgspec.structs.replace(here, name=f"{here.name}.{table.key.name}")
            leaves, whole = self.leaves(table.routes, table.key, inherited)
            found += [(-table.weight, leaf) for leaf in leaves]
            complete = complete and whole
        if action.by_specificity:
            found.sort(key=lambda each: (each[0], each[1].rank))
        yield from (leaf for _, leaf in found)
        if not complete:
            yield Leaf(here.name, here.requests, UNREACHABLE, dict(here.said), here.way, route.path)

    def _tables(
        self, route: RouteFacts, action: Delegate, owner: StatusKey, here: _Above
    ) -> tuple[list[TableFacts], bool]:
        """The tables that *route* delegates to, in order, and whether these are all that it names."""
        if len(here.way) > MAX_DEPTH:
            text = f"{route.path}.delegateAction: more than {MAX_DEPTH} tables on the way from {self._host.name}"
            self.findings[Finding(owner, Weight.ERROR, text)] = None
            return [], False
        named = tuple(self._lookup(owner.namespace, action))
        usable = [table for table in named if table is not None]
        return sorted(usable, key=lambda table: -table.weight), len(usable) == len(named)

    def _fits(self, count: int) -> bool:
        """Whether *count* requests more are not too many."""
        self._left = max(self._left - count, -1)
        if self._left < 0:
            text = f"{self._host.path}.routes: routes of tables match in more than {MAX_REQUESTS} ways; some get 503"
            self.findings[Finding(self._host.key.owner, Weight.ERROR, text)] = None
        return self._left >= 0


def _joined(route: RouteFacts, owner: StatusKey, above: _Above, findings: dict[Finding, None]) -> Iterator[Request]:
    """What requests must look like to meet *route* and one of the routes above; findings say why none can."""
    made: dict[Request, None] = {}
    refused: dict[Finding, None] = {}
    for parent in above.requests:
        for child in route.requests:
            both = _both(parent, child)
            if isinstance(both, Request):
                made[both] = None
            else:
                refused[Finding(owner, Weight.ERROR, f"{route.path}.matchers: {both} {above.name}")] = None
    if not made:
        findings.update(refused)
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
        return Path(Kind.REGEX, f"{front}(?:{child.text.removeprefix('^')})")
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
