"""Statuses of the gateways' kinds as derived collections."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.api.route_table import RouteTable, RouteTableStatus, SelectedBy, SelectorType
from isthmus.api.traffic_policy import AppliedTrafficPolicy, TrafficPolicy
from isthmus.api.virtual_gateway import VirtualGateway, VirtualGatewayStatus
from isthmus.api.virtual_host import VirtualHost, VirtualHostStatus
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.ref import Ref
from isthmus.translate.gateways import statuses
from isthmus.translate.gateways.derivations import Gateways
from isthmus.translate.gateways.doors import Doors
from isthmus.translate.gateways.findings import Finding
from isthmus.translate.gateways.hosts import HostKey, host_warnings, key_of, table_warnings
from isthmus.translate.gateways.listeners import listener_warnings
from isthmus.translate.gateways.policies import Ruled, policy_warnings
from isthmus.translate.gateways.statuses import OnRoutes
from isthmus.translate.listing import MAX_LISTED_POLICIES, applied_traffic_policy, shown
from isthmus.translate.output import StatusKey


class GatewayOutcomes:
    """What became of VirtualGateways, VirtualHosts and RouteTables, and of TrafficPolicies on routes."""

    def __init__(
        self,
        graph: Graph,
        *,
        gateways: Gateways,
        doors: Doors,
        virtual_gateways: Collection[Ref, VirtualGateway],
        virtual_hosts: Collection[Ref, VirtualHost],
        route_tables: Collection[Ref, RouteTable],
        policies: Collection[Ref, TrafficPolicy],
    ) -> None:
        self._gateways = gateways
        self._gathered = (*gateways.findings, *doors.findings)
        self._policies = policies
        self.virtual_gateways: Collection[Ref, VirtualGatewayStatus] = graph.derive(
            "virtual gateway statuses", virtual_gateways, self._virtual_gateway
        )
        through = graph.expand("tables by virtual gateway", virtual_gateways, self._through)
        self._through_by_table: Index[Ref, tuple[Ref, Ref], Ref] = graph.index(
            "virtual gateways by table", through, first_part
        )
        self.virtual_hosts: Collection[Ref, VirtualHostStatus] = graph.derive(
            "virtual host statuses", virtual_hosts, self._virtual_host
        )
        self.route_tables: Collection[Ref, RouteTableStatus] = graph.derive(
            "route table statuses", route_tables, self._route_table
        )
        self.policies: Collection[Ref, OnRoutes] = graph.derive("policies on routes", policies, self._policy)

    def status(self, key: StatusKey) -> statuses.AnyStatus | None:
        """The status of an object of the gateways' kinds, as far as nothing could not be written."""
        if key.kind == VirtualGateway.KIND:
            return self.virtual_gateways.get(key.ref)
        if key.kind == VirtualHost.KIND:
            return self.virtual_hosts.get(key.ref)
        return self.route_tables.get(key.ref)

    def _findings(self, fetch: Fetch, about: StatusKey) -> Iterator[Finding]:
        for found in self._gathered:
            for _, findings in fetch.group(found, about):
                yield from findings

    def _virtual_gateway(self, fetch: Fetch, ref: Ref, gateway: VirtualGateway) -> VirtualGatewayStatus:
        key = StatusKey(gateway.KIND, ref.namespace, ref.name)
        problems = fetch.get(self._gateways.listener_problems, ref) or ()
        serving, attached = fetch.get(self._gateways.serving, ref), fetch.get(self._gateways.attached, ref)
        held = serving.gateways if serving is not None else ()
        return statuses.virtual_gateway_status(
            gateway,
            statuses.verdict(problems, listener_warnings(gateway.spec), self._findings(fetch, key)),
            held,
            [each for each in held if self._gateways.names_at(fetch, ref, each)],
            attached.selected if attached is not None else (),
            self._tables(fetch, ref),
        )

    def _tables(self, fetch: Fetch, gateway: Ref) -> set[Ref]:
        """The tables that the hosts of *gateway* delegate to, directly or not."""
        attached = fetch.get(self._gateways.attached, gateway)
        hosts = attached.hosts if attached is not None else ()
        return {table for host in hosts for table in self._gateways.hosts.reached_from(fetch, host)}

    def _through(self, fetch: Fetch, ref: Ref, _: VirtualGateway) -> Iterator[tuple[tuple[Ref, Ref], Ref]]:
        for table in self._tables(fetch, ref):
            yield (table, ref), ref

    def _virtual_host(self, fetch: Fetch, ref: Ref, host: VirtualHost) -> VirtualHostStatus:
        key = HostKey(key_of(host))
        problems = fetch.get(self._gateways.hosts.host_problems, ref) or ()
        return statuses.virtual_host_status(
            host,
            statuses.verdict(problems, host_warnings(host.spec), self._findings(fetch, key.owner)),
            (row[0] for row, served in fetch.group(self._gateways.served_by_host, key) if served.domains),
            self._gateways.hosts.reached_from(fetch, key),
            self._applied(fetch, fetch.get(self._gateways.hosts.ruled_hosts, ref)),
        )

    def _route_table(self, fetch: Fetch, ref: Ref, table: RouteTable) -> RouteTableStatus:
        key = key_of(table)
        problems = fetch.get(self._gateways.hosts.table_problems, ref) or ()
        by = [
            SelectedBy(name=owner.name, namespace=owner.namespace, type=SelectorType(owner.kind.kind))
            for found in self._gateways.hosts.leading
            for _, owner in fetch.group(found, ref)
        ]
        by += [
            SelectedBy(name=gateway.name, namespace=gateway.namespace)
            for _, gateway in fetch.group(self._through_by_table, ref)
        ]
        return statuses.route_table_status(
            table,
            statuses.verdict(problems, table_warnings(table.spec), self._findings(fetch, key)),
            by,
            self._gateways.hosts.reached_from(fetch, key),
            self._applied(fetch, fetch.get(self._gateways.hosts.ruled_tables, ref)),
        )

    def _applied(self, fetch: Fetch, ruled: Ruled | None) -> tuple[AppliedTrafficPolicy, ...]:
        names = ruled.names if ruled is not None else {}
        found = (fetch.get(self._policies, policy) for policy in sorted(names)[:MAX_LISTED_POLICIES])
        listed = shown([policy for policy in found if policy is not None])
        return tuple(applied_traffic_policy(policy, names[policy.ref]) for policy in listed)

    def _policy(self, fetch: Fetch, ref: Ref, policy: TrafficPolicy) -> OnRoutes | None:
        if not policy.spec.route_selector:
            return None
        routes = {
            owner: names
            for found in self._gateways.hosts.routes_by_policy
            for (_, owner), names in fetch.group(found, ref)
        }
        key = StatusKey(policy.KIND, ref.namespace, ref.name)
        warnings = [*policy_warnings(policy)]
        if not routes:
            warnings.append("selects no route of a gateway")
        return OnRoutes(routes, statuses.verdict((), warnings, self._findings(fetch, key)))
