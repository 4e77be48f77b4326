"""What VirtualHosts and RouteTables come to, whichever gateways serve them, as derived collections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from isthmus.api.common import ObjectSelector
from isthmus.api.route_table import RouteTable
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_host import VirtualHost
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.problem import Problem
from isthmus.model.ref import Kind, Ref
from isthmus.translate.gateways.delegation import Flattened, cycle_from, delegations, flatten
from isthmus.translate.gateways.findings import Finding, Weight
from isthmus.translate.gateways.hosts import (
    HostFacts,
    HostKey,
    TableFacts,
    host_facts,
    host_problems,
    table_facts,
    table_problems,
)
from isthmus.translate.gateways.listeners import inline_hosts
from isthmus.translate.gateways.policies import (
    RouteRule,
    Ruled,
    TreatedHost,
    route_rules,
    rule_routes,
    terms_of_object,
    treat,
)
from isthmus.translate.gateways.routes import Delegate, RouteFacts
from isthmus.translate.gateways.selection import ANYWHERE, Head, head_of, namespaces_of, selects_labels
from isthmus.translate.output import StatusKey
from isthmus.translate.traffic.fields import problems_of

Heads = Index[str, Ref, Head]


class Led(msgspec.Struct, frozen=True, gc=False):
    """The tables that an object delegates to itself, each once, and what is wrong with that."""

    tables: tuple[Ref, ...]
    findings: tuple[Finding, ...]


class Hosts:
    """The collections of hosts with all their routes, and what policies say about these."""

    def __init__(
        self,
        graph: Graph,
        *,
        virtual_gateways: Collection[Ref, VirtualGateway],
        virtual_hosts: Collection[Ref, VirtualHost],
        route_tables: Collection[Ref, RouteTable],
        policies: Collection[Ref, TrafficPolicy],
        listener_problems: Collection[Ref, tuple[Problem, ...]],
    ) -> None:
        """*listener_problems* are those of VirtualGateways: the hosts of one that has any are none."""
        self._listener_problems = listener_problems

        # What users wrote, each object by itself.
        self.host_problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "virtual host problems", virtual_hosts, lambda _, each: tuple(host_problems(each.spec)) or None
        )
        self.table_problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "route table problems", route_tables, lambda _, each: tuple(table_problems(each.spec)) or None
        )
        self.facts: Collection[Ref, HostFacts] = graph.derive("virtual hosts", virtual_hosts, self._read_host)
        self._inline: Collection[HostKey, HostFacts] = graph.expand(
            "hosts of virtual gateways", virtual_gateways, self._read_inline
        )
        self.inline_by_owner: Index[Ref, HostKey, HostFacts] = graph.index(
            "hosts of virtual gateways by owner", self._inline, lambda key, _: (key.owner.ref,)
        )
        self._tables: Collection[Ref, TableFacts] = graph.derive("route tables", route_tables, self._read_table)
        self.heads = _by_namespace(graph, "virtual hosts", virtual_hosts)
        self._table_heads = _by_namespace(graph, "route tables", route_tables)

        # Policies on routes.
        rules: Collection[tuple[Ref, int], RouteRule] = graph.expand("route rules", policies, _route_rules)
        self._rules_by_term = graph.index("route rules by term", rules, lambda _, rule: rule.terms())
        self.ruled_hosts: Collection[Ref, Ruled] = graph.derive("policies on hosts", virtual_hosts, self._rule)
        self.ruled_tables: Collection[Ref, Ruled] = graph.derive("policies on tables", route_tables, self._rule)
        self.routes_by_policy = tuple(
            graph.index(f"{name} by policy", graph.expand(name, ruled, partial(_policy_routes, kind)), first_part)
            for name, kind, ruled in (
                ("routes of hosts under policies", VirtualHost.KIND, self.ruled_hosts),
                ("routes of tables under policies", RouteTable.KIND, self.ruled_tables),
            )
        )

        # Delegation.
        self._cycles: Collection[Ref, tuple[Ref, ...]] = graph.derive("route table cycles", self._tables, self._cycle)
        self._led_tables: Collection[Ref, Led] = graph.derive("tables of tables", self._tables, self._lead_table)
        self._led_hosts: Collection[Ref, Led] = graph.derive("tables of hosts", self.facts, self._lead_host)
        self._led_inline: Collection[HostKey, Led] = graph.derive(
            "tables of inline hosts", self._inline, self._lead_host
        )
        self.leading = tuple(
            graph.index(f"{name} by table", graph.expand(name, led, partial(_edges, kind)), first_part)
            for name, kind, led in (
                ("delegations of hosts", VirtualHost.KIND, self._led_hosts),
                ("delegations of tables", RouteTable.KIND, self._led_tables),
            )
        )
        flat_hosts: Collection[Ref, Flattened] = graph.derive("flat hosts", self.facts, self._flatten)
        flat_inline: Collection[HostKey, Flattened] = graph.derive("flat inline hosts", self._inline, self._flatten)
        self._treated_hosts: Collection[Ref, TreatedHost] = graph.derive("treated hosts", flat_hosts, self._treat)
        self._treated_inline: Collection[HostKey, TreatedHost] = graph.derive(
            "treated inline hosts", flat_inline, self._treat
        )
        self.judged = (
            self._led_hosts, self._led_inline, self._led_tables, self._treated_hosts, self._treated_inline
        )  # fmt: skip
        """What holds findings."""

    def _read_host(self, fetch: Fetch, ref: Ref, host: VirtualHost) -> HostFacts | None:
        return None if fetch.get(self.host_problems, ref) else host_facts(host)

    def _read_inline(self, fetch: Fetch, ref: Ref, gateway: VirtualGateway) -> Iterable[tuple[HostKey, HostFacts]]:
        found = () if fetch.get(self._listener_problems, ref) else inline_hosts(gateway)
        return ((facts.key, facts) for facts in found)

    def _read_table(self, fetch: Fetch, ref: Ref, table: RouteTable) -> TableFacts | None:
        return None if fetch.get(self.table_problems, ref) else table_facts(table)

    # --- policies on routes -------------------------------------------------------------------------------------------

    def _rule(self, fetch: Fetch, ref: Ref, found: VirtualHost | RouteTable) -> Ruled | None:
        head, kind = head_of(ref, found), found.KIND.kind
        rules = {
            key: rule
            for term in terms_of_object(kind, ref)
            for key, rule in fetch.group(self._rules_by_term, term)
            if rule.selects(kind, head)
        }
        return rule_routes(found.spec.routes, [rules[key] for key in sorted(rules)])

    # --- delegation ---------------------------------------------------------------------------------------------------

    def _named(self, fetch: Fetch, home: str, delegate: Delegate) -> list[Ref]:
        """The tables that an object in namespace *home* delegates to, in order; also those that are not there."""
        return list(dict.fromkeys((*delegate.refs, *chosen(fetch, self._table_heads, delegate.selector, home))))

    def _leads_to(self, fetch: Fetch, ref: Ref) -> Iterator[Ref]:
        table = fetch.get(self._tables, ref)
        for _, delegate in delegations(table.routes if table is not None else ()):
            yield from self._named(fetch, ref.namespace, delegate)

    def _cycle(self, fetch: Fetch, ref: Ref, _: TableFacts) -> tuple[Ref, ...] | None:
        return cycle_from(ref, partial(self._leads_to, fetch)) or None

    def _usable(self, fetch: Fetch, ref: Ref) -> TableFacts | None:
        return None if fetch.get(self._cycles, ref) else fetch.get(self._tables, ref)

    def _lead(self, fetch: Fetch, owner: StatusKey, routes: tuple[RouteFacts, ...]) -> Led:
        tables: dict[Ref, None] = {}
        findings: dict[Finding, None] = {}
        for path, delegate in delegations(routes):
            named = self._named(fetch, owner.namespace, delegate)
            if not named:
                findings[Finding(owner, Weight.WARNING, f"{path}.delegateAction.selector selects no RouteTable")] = None
            for ref in named:
                called = f"RouteTable {ref.name}.{ref.namespace}"
                if self._usable(fetch, ref) is not None:
                    tables[ref] = None
                elif fetch.get(self.table_problems, ref) or fetch.get(self._cycles, ref):
                    text = f"{path}.delegateAction: {called} is INVALID, so what is meant for it gets 503"
                    findings[Finding(owner, Weight.WARNING, text)] = None
                else:
                    findings[Finding(owner, Weight.LATER, f"{path}.delegateAction.refs: {called} not found")] = None
        return Led(tuple(tables), tuple(findings))

    def _lead_host(self, fetch: Fetch, _: object, host: HostFacts) -> Led:
        return self._lead(fetch, host.key.owner, host.routes)

    def _lead_table(self, fetch: Fetch, ref: Ref, table: TableFacts) -> Led:
        cycle = fetch.get(self._cycles, ref)
        if cycle is None:
            return self._lead(fetch, table.key, table.routes)
        way = " → ".join(f"{each.name}.{each.namespace}" for each in cycle)
        return Led((), (Finding(table.key, Weight.ERROR, f"delegates to itself: {way}"),))

    def reached_from(self, fetch: Fetch, key: StatusKey | HostKey) -> tuple[Ref, ...]:
        """The tables that a host or table delegates to, directly or not, sorted."""
        if isinstance(key, HostKey):
            led = fetch.get(self._led_hosts, key.owner.ref) if key.inline < 0 else fetch.get(self._led_inline, key)
        else:
            led = fetch.get(self._led_tables, key.ref)
        waiting, seen = [*(led.tables if led is not None else ())], set[Ref]()
        while waiting:
            ref = waiting.pop()
            if ref not in seen:
                seen.add(ref)
                below = fetch.get(self._led_tables, ref)
                waiting += below.tables if below is not None else ()
        return tuple(sorted(seen))

    def _flatten(self, fetch: Fetch, _: object, host: HostFacts) -> Flattened:
        def lookup(home: str, delegate: Delegate) -> Iterator[TableFacts | None]:
            return (self._usable(fetch, ref) for ref in self._named(fetch, home, delegate))

        return flatten(host, lookup)

    def _treat(self, fetch: Fetch, _: object, host: Flattened) -> TreatedHost:
        owners = dict.fromkeys(step.owner for leaf in host.leaves for step in leaf.way)
        ruled = {}
        for owner in owners:
            of_kind = {VirtualHost.KIND: self.ruled_hosts, RouteTable.KIND: self.ruled_tables}.get(owner.kind)
            found = fetch.get(of_kind, owner.ref) if of_kind is not None else None
            if found is not None:
                ruled[owner] = found
        return treat(host, ruled)

    def treated(self, fetch: Fetch, key: HostKey) -> TreatedHost | None:
        """A host with all its routes, and what is said about them."""
        return fetch.get(self._treated_hosts, key.owner.ref) if key.inline < 0 else fetch.get(self._treated_inline, key)


def _by_namespace(graph: Graph, name: str, found: Collection[Ref, Any]) -> Heads:
    heads: Collection[Ref, Head] = graph.map(f"heads of {name}", found, head_of)
    return graph.index(f"heads of {name} by namespace", heads, lambda ref, _: (ref.namespace, ANYWHERE))


def chosen(fetch: Fetch, heads: Heads, selector: ObjectSelector | None, home: str) -> list[Ref]:
    """What *selector* of an object in namespace *home* selects, the oldest first."""
    if selector is None:
        return []
    found = (head for namespace in namespaces_of(selector, home) for _, head in fetch.group(heads, namespace))
    chosen = [head for head in found if selects_labels(selector, head.labels)]
    return [head.ref for head in sorted(chosen, key=lambda head: head.seniority)]


def _route_rules(_: Fetch, ref: Ref, policy: TrafficPolicy) -> Iterable[tuple[tuple[Ref, int], RouteRule]]:
    if not policy.spec.route_selector or problems_of(policy.spec):
        return ()
    return (((ref, i), rule) for i, rule in enumerate(route_rules(policy)))


def _policy_routes(
    kind: Kind, _: Fetch, ref: Ref, ruled: Ruled
) -> Iterator[tuple[tuple[Ref, StatusKey], tuple[str, ...]]]:
    for policy, names in ruled.names.items():
        yield (policy, StatusKey(kind, ref.namespace, ref.name)), names


def _edges(kind: Kind, _: Fetch, ref: Ref, led: Led) -> Iterator[tuple[tuple[Ref, StatusKey], StatusKey]]:
    owner = StatusKey(kind, ref.namespace, ref.name)
    for table in led.tables:
        yield (table, owner), owner
