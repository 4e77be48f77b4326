"""Which TrafficPolicies are about which routes of gateways, and what they say there.

What a route's options say counts most, then those of its host, then policies, the oldest first; different fields add
up. A policy on a route that delegates is on the routes behind it too.
Source: reference, VirtualHost and TrafficPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from isthmus.api.common import ObjectSelector
from isthmus.api.route_table import RouteTable
from isthmus.api.traffic_policy import RouteSelector, TrafficPolicy
from isthmus.api.virtual_host import Route, VirtualHost
from isthmus.model.ref import Ref
from isthmus.translate.gateways.delegation import Flattened, Leaf, Said, Step
from isthmus.translate.gateways.findings import Finding, Weight
from isthmus.translate.gateways.hosts import HostKey
from isthmus.translate.gateways.routes import NOT_OF_ROUTES, fields_of_route, options_warnings
from isthmus.translate.gateways.selection import ANYWHERE, Head, namespaces_of, selects_object
from isthmus.translate.output import StatusKey
from isthmus.translate.selectors import EVERYTHING, Term
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.traffic.fields import POLICY, Field, Value, fields_of

ALL_ROUTES = ("*",)


class RouteRule(msgspec.Struct, frozen=True, gc=False):
    """One route selector of a policy without a fault of its own, and what the policy sets for routes."""

    policy: Ref
    seniority: Seniority
    selector: RouteSelector
    fields: dict[Field, Value]

    @property
    def everywhere(self) -> bool:
        """Whether routes of any object may be meant."""
        selector = self.selector
        return not (
            selector.virtual_host_refs
            or selector.virtual_host_selector is not None
            or selector.route_table_refs
            or selector.route_table_selector is not None
        )

    def terms(self) -> Iterator[Term]:
        """Terms of which every object whose routes may be meant has at least one."""
        if self.everywhere:
            yield EVERYTHING
        for kind, refs, chosen in self._kinds():
            yield from (("object", kind, ref.namespace, ref.name) for ref in dict.fromkeys(refs))
            for namespace in namespaces_of(chosen, self.policy.namespace) if chosen is not None else ():
                yield ("kind", kind) if namespace == ANYWHERE else ("namespace", kind, namespace)

    def selects(self, kind: str, head: Head) -> bool:
        """Whether routes of the *kind* object *head* are meant."""
        return self.everywhere or any(
            kind == wanted
            and (
                head.ref in refs
                or (chosen is not None and selects_object(chosen, self.policy.namespace, head.ref, head.labels))
            )
            for wanted, refs, chosen in self._kinds()
        )

    def selects_route(self, route: Route) -> bool:
        """Whether *route* of such an object is meant."""
        return self.selector.route_label_matcher.items() <= route.labels.items()

    def _kinds(self) -> Iterator[tuple[str, list[Ref], ObjectSelector | None]]:
        """Kind, references and selector of each kind of objects that have routes."""
        selector = self.selector
        yield VirtualHost.KIND.kind, [r.ref for r in selector.virtual_host_refs], selector.virtual_host_selector
        yield RouteTable.KIND.kind, [r.ref for r in selector.route_table_refs], selector.route_table_selector


class Ruled(msgspec.Struct, frozen=True, gc=False):
    """The rules on each route of an object, from old to young policies, and names of routes by policy."""

    rules: tuple[tuple[RouteRule, ...], ...]
    names: dict[Ref, tuple[str, ...]]


class Treated(msgspec.Struct, frozen=True, gc=False):
    """A route that decides, and what is said about its requests."""

    leaf: Leaf
    said: dict[Field, Said]


class TreatedHost(msgspec.Struct, frozen=True, gc=False):
    """A host with all that is said about its routes."""

    key: HostKey
    name: str
    seniority: Seniority
    domains: tuple[str, ...]
    routes: tuple[Treated, ...]
    findings: tuple[Finding, ...]


def route_rules(policy: TrafficPolicy) -> Iterator[RouteRule]:
    """The route selectors of *policy*, which has no problem."""
    fields = fields_of_route(policy.spec.policy)
    for selector in policy.spec.route_selector:
        yield RouteRule(policy.ref, seniority(policy), selector, fields)


def terms_of_object(kind: str, ref: Ref) -> Iterator[Term]:
    """All terms that the *kind* object *ref* has."""
    yield EVERYTHING
    yield ("kind", kind)
    yield ("namespace", kind, ref.namespace)
    yield ("object", kind, ref.namespace, ref.name)


def rule_routes(routes: tuple[Route, ...], rules: Iterable[RouteRule]) -> Ruled | None:
    """Which of *rules*, that mean an object with *routes*, are on which of them; None if none is on any."""
    ordered = sorted(rules, key=lambda rule: rule.seniority)
    on_routes = tuple(tuple(rule for rule in ordered if rule.selects_route(route)) for route in routes)
    names: dict[Ref, dict[str, None]] = {}
    for i, (route, found) in enumerate(zip(routes, on_routes, strict=True)):
        for rule in found:
            names.setdefault(rule.policy, {})[called(route, i)] = None
    every = {policy: ALL_ROUTES if len(found) == len(routes) else tuple(found) for policy, found in names.items()}
    return Ruled(on_routes, every) if every else None


def called(route: Route, number: int) -> str:
    """How statuses call *route*: by its name, else by what it matches."""
    if route.name:
        return route.name
    for matcher in route.matchers:
        uri = matcher.uri
        if uri is not None and (text := uri.exact or uri.prefix or uri.regex or uri.suffix):
            return text
    return f"{number}"


def treat(host: Flattened, ruled: Mapping[StatusKey, Ruled]) -> TreatedHost:
    """*host*, with what policies say about its routes; *ruled* has the objects on whose routes any are."""
    findings = dict.fromkeys(host.findings)
    routes = tuple(Treated(leaf, _settle(leaf, ruled, findings)) for leaf in host.leaves)
    return TreatedHost(host.key, host.name, host.seniority, host.domains, routes, tuple(findings))


def _settle(leaf: Leaf, ruled: Mapping[StatusKey, Ruled], findings: dict[Finding, None]) -> dict[Field, Said]:
    said = dict(leaf.said)
    for rule in sorted(_rules_on(leaf.way, ruled), key=lambda rule: rule.seniority):
        policy = StatusKey(TrafficPolicy.KIND, rule.policy.namespace, rule.policy.name)
        for field, value in rule.fields.items():
            first = said.setdefault(field, Said(value, policy, POLICY))
            if first.who.kind == TrafficPolicy.KIND and first.value != value:
                message = (
                    f"{POLICY}.{field.value} is set otherwise for route {leaf.name} by TrafficPolicy "
                    f"{first.who.name}.{first.who.namespace}, which is older and has it"
                )
                findings[Finding(policy, Weight.ERROR, message)] = None
    return said


def _rules_on(way: tuple[Step, ...], ruled: Mapping[StatusKey, Ruled]) -> Iterable[RouteRule]:
    found: dict[Ref, RouteRule] = {}
    for step in way:
        on_object = ruled.get(step.owner)
        for rule in on_object.rules[step.index] if on_object is not None else ():
            found.setdefault(rule.policy, rule)
    return found.values()


def policy_warnings(policy: TrafficPolicy) -> Iterator[str]:
    """What of *policy*, which selects routes, has no effect on them."""
    spec = policy.spec
    if not spec.route_selector or spec.policy is None:
        return
    if not spec.destination_selector:
        yield from options_warnings(spec.policy, POLICY)
    elif any(field in NOT_OF_ROUTES for field in fields_of(spec.policy)):
        named = ", ".join(f"{POLICY}.{field.value}" for field in fields_of(spec.policy) if field in NOT_OF_ROUTES)
        yield f"{named} has an effect on destinations alone, not on routes of gateways"
    if spec.http_request_matchers:
        yield "spec.httpRequestMatchers has no effect on routes of gateways: they have matchers of their own"
