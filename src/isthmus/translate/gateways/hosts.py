"""VirtualHosts and RouteTables as written: what they say, and what is wrong with them by themselves."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from isthmus.api.route_table import RouteTable, RouteTableSpec
from isthmus.api.virtual_host import Route, VirtualHost, VirtualHostSpec
from isthmus.model.hosts import MAX_HOSTNAME, is_dns_name
from isthmus.model.problem import Problem
from isthmus.translate.gateways.routes import (
    RouteFacts,
    fields_of_route,
    options_warnings,
    route_facts,
    route_problems,
    route_warnings,
)
from isthmus.translate.output import StatusKey
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.traffic.fields import Field, Value, policy_problems


class HostKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """A host: a VirtualHost, or number *inline* of the hosts that a VirtualGateway holds itself."""

    owner: StatusKey
    inline: int = -1


class HostFacts(msgspec.Struct, frozen=True, gc=False):
    """A host without a fault of its own, and with routes; *path* is where it is written."""

    key: HostKey
    seniority: Seniority
    path: str
    domains: tuple[str, ...]
    """Each once, in lower case."""
    routes: tuple[RouteFacts, ...]
    fields: dict[Field, Value]
    """What counts for routes that do not say otherwise."""

    @property
    def name(self) -> str:
        """What the host is called in Istio's objects."""
        return self.key.owner.name if self.key.inline < 0 else f"{self.key.owner.name}-{self.key.inline}"


class TableFacts(msgspec.Struct, frozen=True, gc=False):
    """A RouteTable without a fault of its own."""

    key: StatusKey
    weight: int
    routes: tuple[RouteFacts, ...]


def key_of(resource: VirtualHost | RouteTable) -> StatusKey:
    """*resource* as one that has a status."""
    return StatusKey(resource.KIND, resource.metadata.namespace, resource.metadata.name)


def host_facts(host: VirtualHost) -> HostFacts | None:
    """Facts of *host*, which has no problem; None if it has no routes: it is ignored then."""
    return facts_of_spec(host.spec, HostKey(key_of(host)), seniority(host), "spec")


def facts_of_spec(spec: VirtualHostSpec, key: HostKey, seniority: Seniority, path: str) -> HostFacts | None:
    """Facts of a host that says *spec* at field path *path*, without a problem; None if it has no routes."""
    if not spec.routes:
        return None
    return HostFacts(
        key=key,
        seniority=seniority,
        path=path,
        domains=tuple(dict.fromkeys(domain.lower() for domain in spec.domains)),
        routes=_routes(spec.routes, path),
        fields=fields_of_route(spec.options.traffic_policy) if spec.options else {},
    )


def table_facts(table: RouteTable) -> TableFacts:
    """Facts of *table*, which has no problem."""
    return TableFacts(key_of(table), table.spec.weight, _routes(table.spec.routes, "spec"))


def _routes(routes: tuple[Route, ...], path: str) -> tuple[RouteFacts, ...]:
    return tuple(route_facts(route, f"{path}.routes[{i}]", i) for i, route in enumerate(routes))


# --- problems and warnings --------------------------------------------------------------------------------------------


def host_problems(spec: VirtualHostSpec, path: str = "spec") -> Iterator[Problem]:
    """What is wrong with a host that says *spec* at field path *path*."""
    if not spec.domains:
        yield Problem(f"{path}.domains", "MissingField", "is empty: name at least one domain, or * for any")
    for i, domain in enumerate(spec.domains):
        yield from domain_problems(domain, f"{path}.domains[{i}]")
    for i, route in enumerate(spec.routes):
        yield from route_problems(route, f"{path}.routes[{i}]")
    if spec.options is not None and spec.options.traffic_policy is not None:
        yield from policy_problems(spec.options.traffic_policy, f"{path}.options.trafficPolicy")


def domain_problems(domain: str, path: str) -> Iterator[Problem]:
    """What is wrong with *domain*, which is at field path *path*: Istio takes names with a dot, and ``*`` in front."""
    rest = domain.lower().removeprefix("*.")
    if domain == "*":
        return
    if rest.endswith("*"):
        message = f"{domain!r}: Istio has no wildcard at the end; write the domains out, or * for any"
        yield Problem(path, "Unsupported", message)
    elif len(domain) > MAX_HOSTNAME or not is_dns_name(rest):
        yield Problem(path, "InvalidName", f"{domain!r} is no domain such as shop.example.com, *.example.com or *")
    elif "." not in domain:
        message = f"{domain!r} has no dot, so Istio would take it for the short name of a service"
        yield Problem(path, "InvalidName", message)


def table_problems(spec: RouteTableSpec) -> Iterator[Problem]:
    """What is wrong with a table that says *spec*."""
    for i, route in enumerate(spec.routes):
        yield from route_problems(route, f"spec.routes[{i}]")


def host_warnings(spec: VirtualHostSpec, path: str = "spec") -> Iterator[str]:
    """What of a host that says *spec* at field path *path* has no effect."""
    if not spec.routes:
        yield f"{path}.routes is empty, so the host is ignored"
    for i, route in enumerate(spec.routes):
        yield from route_warnings(route, f"{path}.routes[{i}]")
    if spec.options is not None and spec.options.traffic_policy is not None:
        yield from options_warnings(spec.options.traffic_policy, f"{path}.options.trafficPolicy")


def table_warnings(spec: RouteTableSpec) -> Iterator[str]:
    """What of a table that says *spec* has no effect."""
    for i, route in enumerate(spec.routes):
        yield from route_warnings(route, f"spec.routes[{i}]")
