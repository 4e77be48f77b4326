"""Gateways as derived collections: from what users wrote and services to listeners, routes and statuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from isthmus.api.route_table import RouteTable
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_host import VirtualHost
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.istio.objects import WeightedRoute
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.gateways import objects
from isthmus.translate.gateways.connections import Door, bound_port, door_of
from isthmus.translate.gateways.findings import Finding, Weight, findings_of
from isthmus.translate.gateways.guards import EXTAUTH_SERVICE, RATE_LIMIT_SERVICE, Guard, in_chain, port_of
from isthmus.translate.gateways.hosting import Hosts, chosen
from isthmus.translate.gateways.hosts import (
    HostFacts,
    HostKey,
)
from isthmus.translate.gateways.limits import missing
from isthmus.translate.gateways.listeners import (
    ANY_NAME,
    HANDLER,
    GatewayRule,
    ListenerFacts,
    Speech,
    gateway_rules,
    listener_facts,
    listener_problems,
)
from isthmus.translate.gateways.objects import IngressGateway
from isthmus.translate.gateways.routing import Around, HostRouting, Lookup, route_connections, route_host
from isthmus.translate.output import Output, OutputKey, StatusKey
from isthmus.translate.parents import parents_annotation
from isthmus.translate.selection import named_in_vain
from isthmus.translate.selectors import Term, selects, terms_of_rule, terms_of_service
from isthmus.translate.seniority import Seniority
from isthmus.translate.traffic.fields import Field
from isthmus.translate.traffic.filters import RouteFilter, idle
from isthmus.translate.traffic.reach import Reach
from isthmus.translate.traffic.routes import Reachable, Unreachable, Use

Place = tuple[Ref, int]
"""A port of a gateway's service."""
ServedKey = tuple[Ref, Ref, HostKey]
"""A VirtualGateway, the service of a gateway, and a host; the VirtualGateway itself where hosts play no part."""
_DEFAULT: Term = ("gateway",)
_LABEL, _VALUE = "istio", "ingressgateway"  # of the default gateway's pods. Source: reference, gateway selection.


class Bound(msgspec.Struct, frozen=True, gc=False):
    """The gateways that a VirtualGateway selects."""

    listener: ListenerFacts
    gateways: tuple[IngressGateway, ...]
    findings: tuple[Finding, ...]


class PortClaim(msgspec.Struct, frozen=True, gc=False):
    """A VirtualGateway that wants a port of a gateway."""

    seniority: Seniority
    speech: Speech


class Attached(msgspec.Struct, frozen=True, gc=False):
    """The hosts of a VirtualGateway, the oldest first; *selected* are the VirtualHosts among them."""

    hosts: tuple[HostKey, ...]
    selected: tuple[Ref, ...]
    findings: tuple[Finding, ...]


class DomainClaim(msgspec.Struct, frozen=True, order=True, gc=False):
    """A host that wants a domain at a port of a gateway, through a VirtualGateway."""

    seniority: Seniority
    host: HostKey
    age: Seniority
    """That of the VirtualGateway."""
    through: StatusKey


class Served(msgspec.Struct, frozen=True, gc=False):
    """A host at a gateway, with the domains that are left to it."""

    listener: ListenerFacts
    gateway: IngressGateway
    domains: tuple[str, ...]
    findings: tuple[Finding, ...]


class Chained(msgspec.Struct, frozen=True, gc=False):
    """A host at a gateway, and the filters that its routes need in the gateway's chains."""

    served: Served
    filters: tuple[RouteFilter, ...]


Shifted = Callable[[Fetch, str, Ref, int], tuple[WeightedRoute, ...]]
"""Where requests from a cluster to a port of a service go instead; empty if to itself."""


def unshifted(_: Fetch, __: str, ___: Ref, ____: int) -> tuple[WeightedRoute, ...]:
    """No request goes elsewhere."""
    return ()


Limits = Callable[[Fetch, Ref], RouteFilter | Unreachable]
"""The rate limits of a RateLimitClientConfig."""


def unlimited(_: Fetch, config: Ref) -> Unreachable:
    """No RateLimitClientConfig is there."""
    return missing(config)


class Gateways:
    """The collections of gateways that listen, for which hosts, and what they do with requests."""

    def __init__(
        self,
        graph: Graph,
        *,
        virtual_gateways: Collection[Ref, VirtualGateway],
        virtual_hosts: Collection[Ref, VirtualHost],
        route_tables: Collection[Ref, RouteTable],
        policies: Collection[Ref, TrafficPolicy],
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        reach: Reach,
        shifted: Shifted = unshifted,
        limits: Limits = unlimited,
    ) -> None:
        """*shifted* says where requests to services go instead, *limits* what rate limits others refer to."""
        self._services_by_identity = services_by_identity
        self._reached = reach
        self._shifted = shifted
        self._limits = limits

        self.listener_problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "virtual gateway problems", virtual_gateways, lambda _, each: tuple(listener_problems(each.spec)) or None
        )
        self.hosts = Hosts(
            graph,
            virtual_gateways=virtual_gateways,
            virtual_hosts=virtual_hosts,
            route_tables=route_tables,
            policies=policies,
            listener_problems=self.listener_problems,
        )
        self._listeners: Collection[Ref, ListenerFacts] = graph.derive(
            "virtual gateways", virtual_gateways, self._read_listener
        )
        # Which gateways listen for what.
        wanted: Collection[tuple[Ref, int], GatewayRule] = graph.expand(
            "gateway rules", virtual_gateways, self._gateway_rules
        )
        self._gateway_rules_by_term = graph.index("gateway rules by term", wanted, lambda _, rule: _terms(rule))
        in_vain = graph.derive("gateway rules without a service", wanted, self._missing)
        self._missing_by_gateway: Index[Ref, tuple[Ref, int], Ref] = graph.index(
            "gateway rules without a service by owner", in_vain, first_part
        )
        selected = graph.expand("services of virtual gateways", services, self._select)
        self._selected: Index[Ref, tuple[Ref, Ref], tuple[ServiceFacts, tuple[str, ...]]] = graph.index(
            "services by virtual gateway", selected, first_part
        )
        self._servers: Index[tuple[str, str], Ref, ServiceFacts] = graph.index(
            "servers that gateways ask by cluster and name", services, _asked_by_name
        )
        self._bound: Collection[Ref, Bound] = graph.derive("selected gateways", self._listeners, self._bind)
        east_west = graph.expand("ports of east-west gateways", reach.east_west, _east_west_ports)
        self._east_west: Index[Place, tuple[Place, Ref], Ref] = graph.index(
            "ports of east-west gateways by port", east_west, first_part
        )
        doors = graph.expand("doors of other meshes", reach.east_west, partial(_east_west_doors, services))
        self._east_west_doors: Index[Door, tuple[Door, Ref], Ref] = graph.index(
            "doors of other meshes by door", doors, first_part
        )
        port_claims = graph.expand("claims on ports", self._bound, _port_claims)
        self._port_claims: Index[Place, tuple[Place, Ref], PortClaim] = graph.index(
            "claims on ports by port", port_claims, first_part
        )
        self.serving: Collection[Ref, Bound] = graph.derive("serving gateways", self._bound, self._hold)
        self.entrances: Collection[Ref, ServiceFacts] = graph.expand(
            "services of serving gateways", self.serving, _entrances
        )
        """The services of gateways that serve any VirtualGateway."""
        self.attached: Collection[Ref, Attached] = graph.derive("attached hosts", self._listeners, self._attach)
        domain_claims = graph.expand("claims on domains", self.serving, self._claim_domains)
        self._domain_claims: Index[tuple[Place, str], Any, DomainClaim] = graph.index(
            "claims on domains by domain", domain_claims, first_part
        )
        self.served: Collection[ServedKey, Served] = graph.expand("served hosts", self.serving, self._serve)
        self._served_by_gateway: Index[tuple[Ref, Ref], ServedKey, Served] = graph.index(
            "served hosts by gateway", self.served, lambda key, _: (key[:2],)
        )
        self.served_by_host: Index[HostKey, ServedKey, Served] = graph.index(
            "served hosts by host", self.served, lambda key, _: (key[2],)
        )

        # What they do.
        self._routed: Collection[ServedKey, HostRouting] = graph.derive("routes of hosts", self.served, self._route)
        self.uses: Collection[tuple[Any, str, Use], Use] = graph.expand(
            "subsets in routes of hosts", self._routed, self._uses
        )
        filtered = graph.expand("hosts with filters", self._routed, self._filtered)
        by_gateway: Index[Ref, tuple[Ref, ServedKey], Chained] = graph.index(
            "hosts with filters by gateway", filtered, first_part
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("gateways of virtual gateways", self.serving, self._write_gateways),
            graph.expand("virtual services of hosts", self._routed, self._write_routes),
            graph.expand("filters in chains of gateways", by_gateway, self._write_chain),
        )
        self.findings: tuple[Index[StatusKey, Any, tuple[Finding, ...]], ...] = tuple(
            graph.index(f"findings of {found.name} by object", findings_of(graph, found), first_part)
            for found in (*self.hosts.judged, self.serving, self.attached, self.served, self._routed)
        )

    def _read_listener(self, fetch: Fetch, ref: Ref, gateway: VirtualGateway) -> ListenerFacts | None:
        return None if fetch.get(self.listener_problems, ref) else listener_facts(gateway)

    # --- which gateways listen for what -------------------------------------------------------------------------------

    def _gateway_rules(
        self, fetch: Fetch, ref: Ref, gateway: VirtualGateway
    ) -> Iterable[tuple[tuple[Ref, int], GatewayRule]]:
        found = () if fetch.get(self.listener_problems, ref) else gateway_rules(gateway)
        return (((ref, i), rule) for i, rule in enumerate(found))

    def _missing(self, fetch: Fetch, _: object, rule: GatewayRule) -> Ref | None:
        return named_in_vain(fetch, rule.rule, self._services_by_identity)

    def _select(
        self, fetch: Fetch, ref: Ref, service: ServiceFacts
    ) -> Iterable[tuple[tuple[Ref, Ref], tuple[ServiceFacts, tuple[str, ...]]]]:
        default = service.selector.get(_LABEL) == _VALUE
        chosen: dict[Ref, list[tuple[int, str]]] = {}
        for term in (*terms_of_service(service), *((_DEFAULT,) if default else ())):
            for (owner, number), rule in fetch.group(self._gateway_rules_by_term, term):
                if default if rule.rule is None else selects(rule.rule, service):
                    chosen.setdefault(owner, []).append((number, rule.port_name))
        for owner, found in chosen.items():
            yield (owner, ref), (service, tuple(dict.fromkeys(port_name for _, port_name in sorted(found))))

    def _bind(self, fetch: Fetch, ref: Ref, listener: ListenerFacts) -> Bound:
        gateways: list[IngressGateway] = []
        findings = [
            Finding(listener.key, Weight.LATER, f"spec.ingressGatewaySelectors: Destination {service.key} not found")
            for _, service in fetch.group(self._missing_by_gateway, ref)
        ]
        for _, (service, (port_name, *others)) in fetch.group(self._selected, ref):
            for other in others:
                text = f"port {other} of gateway {service.service.key} is left out: {port_name} is selected before"
                findings.append(Finding(listener.key, Weight.WARNING, f"spec.ingressGatewaySelectors: {text}"))
            port = next((port for port in service.ports if port.name == port_name), None)
            if port is None:
                names = ", ".join(port.name for port in service.ports if port.name) or "none has a name"
                text = f"Service {service.service.key} has no port named {port_name}; its ports: {names}"
            elif listener.settings.proxy_protocol and bound_port(port) is None:
                text = (
                    f"port {port_name} of Service {service.service.key} has targetPort {port.target_port_name}: "
                    "enableProxyProtocol needs one by number"
                )
            elif not service.selector:
                text = f"Service {service.service.key} selects no pods by label, so that no gateway is behind it"
            else:
                gateways.append(IngressGateway(service, port))
                continue
            findings.append(Finding(listener.key, Weight.ERROR, f"spec.ingressGatewaySelectors: {text}"))
        if not gateways and not findings:
            text = "spec.ingressGatewaySelectors: no Destinations selected as ingress gateway"
            findings.append(Finding(listener.key, Weight.ERROR, text))
        return Bound(listener, tuple(sorted(gateways, key=lambda gateway: gateway.where)), tuple(findings))

    def _hold(self, fetch: Fetch, ref: Ref, bound: Bound) -> Bound:
        """*bound*, without the gateways whose port an older VirtualGateway uses otherwise."""
        listener, held = bound.listener, list[IngressGateway]()
        findings = list(bound.findings)
        for gateway in bound.gateways:
            where = f"port {gateway.port.name} of gateway {gateway.where.key}"
            what = self._refused_beside_other_meshes(fetch, listener, gateway)
            if what:
                text = (
                    f"port {gateway.port.port} ({gateway.port.name}) of gateway {gateway.where.key} takes the TLS of "
                    f"other meshes, and so no {what}: choose another with portName"
                )
                findings.append(Finding(listener.key, Weight.ERROR, f"spec.ingressGatewaySelectors: {text}"))
                continue
            claims = fetch.group(self._port_claims, (gateway.where, gateway.port.port))
            (_, holder), first = min(claims, key=lambda found: (found[1].seniority, found[0]))
            if holder == ref or (first.speech is listener.speech and first.speech is not Speech.TCP):
                held.append(gateway)
                continue
            text = (
                f"{where} is used for {first.speech.value} by VirtualGateway {holder.name}.{holder.namespace}, "
                "which is older and has it"
            )
            findings.append(Finding(listener.key, Weight.ERROR, text))
        return Bound(listener, tuple(held), tuple(findings))

    def _refused_beside_other_meshes(self, fetch: Fetch, listener: ListenerFacts, gateway: IngressGateway) -> str:
        """What *listener* wants to take where other meshes enter, and cannot; empty if they do not, or it can."""
        if listener.speech is not Speech.TLS:
            place = (gateway.service.ref, gateway.port.port)
            return listener.speech.value if fetch.group(self._east_west, place) else ""
        door = door_of(gateway.service, gateway.port) if listener.settings.proxy_protocol else None
        return "PROXY headers" if door is not None and self.is_east_west(fetch, door) else ""

    def is_east_west(self, fetch: Fetch, door: Door) -> bool:
        """Whether other meshes enter at *door*."""
        return bool(fetch.group(self._east_west_doors, door))

    def _attach(self, fetch: Fetch, ref: Ref, listener: ListenerFacts) -> Attached:
        found: dict[HostKey, HostFacts] = dict(fetch.group(self.hosts.inline_by_owner, ref))
        findings: dict[Finding, None] = {}
        selected: dict[Ref, None] = {}
        for selector in listener.selectors:
            selected.update(dict.fromkeys(chosen(fetch, self.hosts.heads, selector, listener.key.namespace)))
        for host in selected:
            facts = fetch.get(self.hosts.facts, host)
            if facts is not None:
                found[facts.key] = facts
                continue
            why = "is INVALID" if fetch.get(self.hosts.host_problems, host) else "has no routes"
            text = f"VirtualHost {host.name}.{host.namespace} {why}, so it is left out"
            findings[Finding(listener.key, Weight.WARNING, text)] = None
        if listener.looks_at_hosts and not found and not findings:
            findings[Finding(listener.key, Weight.WARNING, "selects no VirtualHost, so it listens for nothing")] = None
        hosts = sorted(found, key=lambda key: (found[key].seniority, key))
        return Attached(
            tuple(hosts), tuple(host for host in selected if fetch.get(self.hosts.facts, host)), tuple(findings)
        )

    def _rows(self, fetch: Fetch, bound: Bound) -> Iterator[tuple[HostKey, Seniority, tuple[str, ...]]]:
        """What the gateways of *bound* listen for: hosts and their domains, or connections and the names asked for."""
        listener = bound.listener
        if not listener.looks_at_hosts:
            yield HostKey(listener.key), listener.seniority, listener.server_names or ANY_NAME
            return
        attached = fetch.get(self.attached, listener.ref)
        for key in attached.hosts if attached is not None else ():
            host = self.hosts.treated(fetch, key)
            if host is not None:
                yield key, host.seniority, objects.common_names(host.domains, listener.server_names)

    def _claim_domains(
        self, fetch: Fetch, _: Ref, bound: Bound
    ) -> Iterator[tuple[tuple[tuple[Place, str], DomainClaim], DomainClaim]]:
        for key, seniority, domains in self._rows(fetch, bound):
            claim = DomainClaim(seniority, key, bound.listener.seniority, bound.listener.key)
            for gateway in bound.gateways:
                for domain in domains:
                    yield (((gateway.where, gateway.port.port), domain), claim), claim

    def _serve(self, fetch: Fetch, ref: Ref, bound: Bound) -> Iterator[tuple[ServedKey, Served]]:
        for key, _, domains in self._rows(fetch, bound):
            for gateway in bound.gateways:
                kept: list[str] = []
                findings: list[Finding] = []
                for domain in domains:
                    claims = fetch.group(self._domain_claims, ((gateway.where, gateway.port.port), domain))
                    holder = min(claim for _, claim in claims)
                    if (holder.host, holder.through) == (key, bound.listener.key):
                        kept.append(domain)
                    else:
                        findings.append(_lost(domain, gateway, key, bound.listener.key, holder))
                if not domains:
                    text = f"none of its domains is among the serverNames of {_called(bound.listener.key)}"
                    findings.append(Finding(key.owner, Weight.WARNING, text))
                yield (ref, gateway.service.ref, key), Served(bound.listener, gateway, tuple(kept), tuple(findings))

    # --- what they do -------------------------------------------------------------------------------------------------

    def _lookup(self, fetch: Fetch, cluster: str, *, requests: bool) -> Lookup:
        def reach(service: Ref, external: bool) -> Reachable | Unreachable:
            if external:
                return self._reached.external_on(fetch, cluster, service, requests=requests)
            return self._reached.known_on(fetch, cluster, service)

        return Lookup(
            reach,
            has_pods=lambda use: self._reached.has_pods(fetch, use.service, use.labels),
            shifted=lambda service, port: self._shifted(fetch, cluster, service, port),
            limits=lambda config: self._limits(fetch, config),
        )

    def _route(self, fetch: Fetch, key: ServedKey, served: Served) -> HostRouting | None:
        listener = served.listener
        lookup = self._lookup(fetch, served.gateway.cluster, requests=listener.looks_at_hosts)
        if not served.domains or listener.redirects:
            return None
        if not listener.looks_at_hosts:
            return route_connections(listener.shares, listener.key, f"{HANDLER}.tcp.tcpHosts", lookup)
        host = self.hosts.treated(fetch, key[2])
        if host is None:
            return None
        around, findings = self._around(fetch, listener, served.gateway.cluster)
        routing = route_host(host, around, lookup)
        return msgspec.structs.replace(routing, findings=(*routing.findings, *findings))

    def _around(self, fetch: Fetch, listener: ListenerFacts, cluster: str) -> tuple[Around, tuple[Finding, ...]]:
        """What *listener* says of all routes on *cluster*, and the servers that are not there."""
        guards: dict[Field, RouteFilter] = {}
        refuses: list[Field] = []
        findings: list[Finding] = []
        for guard in listener.guards:
            server = self._server(fetch, guard, cluster)
            port = port_of(guard, server.ports) if server is not None else None
            if server is not None and port is not None:
                guards[guard.field] = in_chain(guard, self._reached.fqdn(fetch, server.service), port.port)
                continue
            path = f"{HANDLER}.http.routeOptions.{guard.field.value}"
            name = ".".join(filter(None, (guard.service.name, guard.service.namespace)))
            what = "requests that it should be asked about are refused" if guard.closed else "nobody is asked"
            lacks = f"no Service {name} on cluster {cluster}"
            if server is not None:
                lacks = f"Service {server.service.key} has no port that says it speaks gRPC or HTTP2"
            weight = Weight.LATER if server is None else Weight.ERROR
            findings.append(Finding(listener.key, weight, f"{path}: {lacks}, so {what}"))
            refuses += [guard.field] if guard.closed else []
        asks = tuple(guard.field for guard in listener.guards)
        return Around(_called(listener.key), listener.fields, guards, refuses, asks), tuple(findings)

    def _server(self, fetch: Fetch, guard: Guard, cluster: str) -> ServiceFacts | None:
        """The service of *guard* on *cluster*; of several in any namespace the first by name."""
        named = guard.service
        if named.namespace:
            found = fetch.group(self._services_by_identity, Ref(cluster, named.namespace, named.name))
        else:
            found = fetch.group(self._servers, (cluster, named.name))
        return next((service for _, service in found if service.ports), None)

    def names_at(self, fetch: Fetch, ref: Ref, gateway: IngressGateway) -> tuple[str, ...]:
        """The names for which *gateway* listens for VirtualGateway *ref*, sorted; with none it does not listen."""
        rows = fetch.group(self._served_by_gateway, (ref, gateway.service.ref))
        return tuple(sorted({domain for _, served in rows for domain in served.domains}))

    def _write_gateways(self, fetch: Fetch, ref: Ref, bound: Bound) -> Iterator[tuple[OutputKey, Output]]:
        for gateway in bound.gateways:
            rows = fetch.group(self._served_by_gateway, (ref, gateway.service.ref))
            if hosts := self.names_at(fetch, ref, gateway):
                whose = tuple(
                    dict.fromkeys((bound.listener.key, *(key[2].owner for key, each in rows if each.domains)))
                )
                made = objects.listener_object(bound.listener, gateway, hosts, parents_annotation(whose))
                yield OutputKey(gateway.cluster, made.key), Output(made, whose, gateway.service.ref)

    def _write_routes(self, fetch: Fetch, key: ServedKey, routing: HostRouting) -> Iterator[tuple[OutputKey, Output]]:
        served = fetch.get(self.served, key)
        if served is None or not (routing.http or routing.connections):
            return
        listener, gateway, owner = served.listener, served.gateway, key[2].owner
        whose = tuple(dict.fromkeys((listener.key, owner)))
        annotations = parents_annotation(whose)
        if routing.connections:
            made = [objects.connections_object(listener, gateway, served.domains, routing.connections, annotations)]
        else:
            host = self.hosts.treated(fetch, key[2])
            assert host is not None, key
            names = objects.host_names(host.name, owner, listener.ref, gateway.where)
            made = [
                objects.routes_object(name, listener.ref, gateway, domains, routing.http, annotations)
                for name, domains in zip(names, objects.apart(served.domains), strict=False)
            ]
            if routing.filtered:
                filters = objects.routes_filter(host.name, gateway, routing.filtered, annotations)
                yield OutputKey(gateway.cluster, filters.key), Output(filters, whose, gateway.service.ref)
        for each in made:
            yield OutputKey(gateway.cluster, each.key), Output(each, whose, gateway.service.ref)

    def _filtered(
        self, fetch: Fetch, key: ServedKey, routing: HostRouting
    ) -> Iterator[tuple[tuple[Ref, ServedKey], Chained]]:
        served = fetch.get(self.served, key)
        if served is None or not routing.filtered:
            return
        named = {each.filter for _, said in routing.filtered for each in said}
        around, _ = self._around(fetch, served.listener, served.gateway.cluster)
        filters = (idle(), *around.guards.values())
        yield (key[1], key), Chained(served, tuple(each for each in filters if each.filter in named))

    def _write_chain(
        self, _: Fetch, gateway: Ref, rows: tuple[tuple[tuple[Ref, ServedKey], Chained], ...]
    ) -> Iterator[tuple[OutputKey, Output]]:
        owners = {owner for (_, key), found in rows for owner in (found.served.listener.key, key[2].owner)}
        whose, at = tuple(sorted(owners)), rows[0][1].served.gateway
        filters = {each.filter: each for _, found in rows for each in found.filters}
        for each in filters.values():
            made = objects.chain_filter(at, each, parents_annotation(whose))
            yield OutputKey(at.cluster, made.key), Output(made, whose, gateway)

    def _uses(self, fetch: Fetch, key: ServedKey, routing: HostRouting) -> Iterator[tuple[tuple[Any, str, Use], Use]]:
        served = fetch.get(self.served, key)
        if served is not None:
            yield from (((key, served.gateway.cluster, use), use) for use in routing.uses)


def _asked_by_name(_: Ref, service: ServiceFacts) -> Iterable[tuple[str, str]]:
    where = service.service
    return ((where.cluster, where.name),) if where.name in (EXTAUTH_SERVICE, RATE_LIMIT_SERVICE) else ()


def _terms(rule: GatewayRule) -> Iterable[Term]:
    return (_DEFAULT,) if rule.rule is None else terms_of_rule(rule.rule)


def _east_west_ports(_: Fetch, mesh: Ref, found: MeshGateways) -> Iterator[tuple[tuple[Place, Ref], Ref]]:
    yield from ((((gateway.destination, gateway.port), mesh), mesh) for gateway in found.gateways)


def _east_west_doors(
    services: Collection[Ref, ServiceFacts], fetch: Fetch, mesh: Ref, found: MeshGateways
) -> Iterator[tuple[tuple[Door, Ref], Ref]]:
    doors = {
        door
        for gateway in found.gateways
        if (service := fetch.get(services, gateway.destination)) is not None
        for port in service.ports
        if port.port == gateway.port and (door := door_of(service, port)) is not None
    }
    yield from (((door, mesh), mesh) for door in doors)


def _port_claims(_: Fetch, ref: Ref, bound: Bound) -> Iterator[tuple[tuple[Place, Ref], PortClaim]]:
    for gateway in bound.gateways:
        claim = PortClaim(bound.listener.seniority, bound.listener.speech)
        yield ((gateway.where, gateway.port.port), ref), claim


def _entrances(_: Fetch, __: Ref, bound: Bound) -> Iterator[tuple[Ref, ServiceFacts]]:
    yield from ((gateway.service.ref, gateway.service) for gateway in bound.gateways)


def _lost(domain: str, gateway: IngressGateway, key: HostKey, through: StatusKey, holder: DomainClaim) -> Finding:
    """What is said of *domain*, which *key* does not get at *gateway*."""
    where = f"at port {gateway.port.name} of gateway {gateway.where.key}"
    if holder.host == key:
        text = f"{_called(key.owner)} is served {where} by {_called(holder.through)}, which is older"
        return Finding(through, Weight.WARNING, text)
    text = f"domain {domain} {where} already belongs to {_called(holder.host.owner)}, which is older"
    return Finding(key.owner, Weight.ERROR, text)


def _called(key: StatusKey) -> str:
    return f"{key.kind.kind} {key.name}.{key.namespace}"
