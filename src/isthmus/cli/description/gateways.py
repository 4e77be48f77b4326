"""What `meshctl describe` says about a VirtualGateway, a VirtualHost and a RouteTable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isthmus.api.common import HttpMatcher, ObjectRef, WeightedDestination
from isthmus.api.route_table import RouteTable
from isthmus.api.traffic_policy import AppliedTrafficPolicy
from isthmus.api.virtual_gateway import ConnectionHandler, VirtualGateway
from isthmus.api.virtual_host import DelegateAction, RedirectAction, Route, VirtualHost
from isthmus.cli.description.parts import Known, Parts, Section, outcome_facts


def virtual_gateway(gateway: VirtualGateway, _: Known) -> Parts:
    """The parts of a virtual gateway: where it listens, and for whom."""
    spec, status = gateway.spec, gateway.status
    facts = {
        **outcome_facts(gateway),
        "Ports": ", ".join(dict.fromkeys(each.port_name or "tls" for each in spec.ingress_gateway_selectors)),
        "Takes": ", ".join(_taken(handler) for handler in spec.connection_handlers),
    }
    if status is None:
        return facts, []
    served = [
        (each.destination_ref.name, ", ".join(each.external_addresses), str(each.external_port))
        for each in status.applied_ingress_gateways
    ]
    created = [
        (cluster, ref.namespace, ref.name)
        for cluster, refs in status.created_istio_gateways.items()
        for ref in refs.refs
    ]
    return facts, [
        Section("Ingress gateways", ("GATEWAY", "ADDRESS", "PORT"), tuple(served)),
        Section("Virtual hosts", ("HOST",), _names(status.selected_virtual_hosts)),
        Section("Route tables", ("TABLE",), _names(status.selected_route_tables)),
        Section("Istio gateways", ("CLUSTER", "NAMESPACE", "NAME"), tuple(created)),
    ]


def virtual_host(host: VirtualHost, _: Known) -> Parts:
    """The parts of a virtual host: its routes in their order, who serves it, and the policies on it."""
    status = host.status
    facts = {**outcome_facts(host), "Domains": ", ".join(host.spec.domains)}
    sections = [_routes(host.spec.routes)]
    if status is not None:
        sections += [
            Section("Virtual gateways", ("GATEWAY",), _names(status.attached_virtual_gateways)),
            Section("Route tables", ("TABLE",), _names(status.selected_route_tables)),
            _policies(status.applied_traffic_policies),
        ]
    return facts, sections


def route_table(table: RouteTable, _: Known) -> Parts:
    """The parts of a route table: its routes in their order, what leads to it, and the policies on it."""
    status = table.status
    facts = {**outcome_facts(table), "Weight": str(table.spec.weight)}
    sections = [_routes(table.spec.routes)]
    if status is not None:
        by = tuple((each.type.value, f"{each.namespace}/{each.name}") for each in status.selected_by)
        sections += [
            Section("Selected by", ("KIND", "NAME"), by),
            Section("Route tables", ("TABLE",), _names(status.selected_route_tables)),
            _policies(status.applied_traffic_policies),
        ]
    return facts, sections


def _names(refs: Iterable[ObjectRef]) -> tuple[tuple[str], ...]:
    return tuple((f"{ref.namespace}/{ref.name}",) for ref in refs)


def _policies(policies: Iterable[AppliedTrafficPolicy]) -> Section:
    rows = tuple((f"{each.ref.namespace}/{each.ref.name}", ", ".join(each.routes)) for each in policies)
    return Section("Traffic policies", ("POLICY", "ROUTES"), rows)


def _taken(handler: ConnectionHandler) -> str:
    options = handler.connection_options
    what = "requests" if handler.http is not None else "connections"
    if options is not None and options.https_redirect:
        return "requests, sent to https"
    if options is not None and options.ssl_config is not None:
        return f"{what} with TLS {options.ssl_config.tls_mode.value}"
    return what


def _routes(routes: Iterable[Route]) -> Section:
    rows = tuple(
        (route.name or str(i), " or ".join(map(matched, route.matchers)) or "anything", done(route))
        for i, route in enumerate(routes)
    )
    return Section("Routes", ("ROUTE", "REQUESTS", "ACTION"), rows)


def matched(matcher: HttpMatcher) -> str:
    """What *matcher* asks of a request, in a few words."""
    uri, words = matcher.uri, [matcher.method] if matcher.method else []
    if uri is not None:
        kinds = (("", uri.exact), ("prefix ", uri.prefix), ("regex ", uri.regex), ("suffix ", uri.suffix))
        words += [f"{kind}{text}" for kind, text in kinds if text is not None]
    for header in matcher.headers:
        compared = f"{'~' if header.regex else '='}{header.value}" if header.value else ""
        words.append(f"{'no ' if header.invert_match else ''}header {header.name}{compared}")
    words += [f"query {each.name}{f'={each.value}' if each.value else ''}" for each in matcher.query_parameters]
    return " ".join(words) or "anything"


def done(route: Route) -> str:
    """What happens to the requests of *route*, in a few words."""
    if route.route_action is not None:
        return ", ".join(_forwarded(route.route_action.destinations))
    if route.redirect_action is not None:
        return f"redirect to {_elsewhere(route.redirect_action)}"
    if route.direct_response_action is not None:
        return f"answer {route.direct_response_action.status}"
    return f"delegate to {_delegated(route.delegate_action)}" if route.delegate_action is not None else "nothing"


def _forwarded(destinations: Iterable[WeightedDestination]) -> Iterator[str]:
    for each in destinations:
        share = f" {each.weight}" if each.weight else ""
        service, virtual, static = each.kube_service, each.virtual_destination, each.static_destination
        if service is not None:
            yield f"{service.namespace}/{service.name} on {service.cluster_name}{share}"
        elif virtual is not None:
            yield f"virtual destination {virtual.namespace}/{virtual.name}{share}"
        elif static is not None:
            yield f"destination {static.namespace}/{static.name}{share}"


def _elsewhere(action: RedirectAction) -> str:
    scheme = "https://" if action.https_redirect else ""
    prefix = f" (prefix {action.prefix_rewrite})" if action.prefix_rewrite else ""
    return f"{scheme}{action.host_redirect}{action.path_redirect or ''}{prefix}".strip()


def _delegated(action: DelegateAction) -> str:
    named = [f"{ref.namespace}/{ref.name}" for ref in action.refs]
    if action.selector is not None:
        chosen = [f"{name}={value}" for name, value in sorted(action.selector.labels.items())]
        named.append(f"tables with {' '.join(chosen)}" if chosen else "selected tables")
    return ", ".join(named)
