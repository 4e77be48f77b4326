"""The routes of one host on one cluster, by names that the gateways of that cluster know."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from math import gcd

import msgspec

from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.federation.objects import subset_name
from isthmus.translate.gateways.delegation import Leaf
from isthmus.translate.gateways.findings import Finding, Weight
from isthmus.translate.gateways.policies import Treated, TreatedHost
from isthmus.translate.gateways.routes import UNREACHABLE, Forward, Share
from isthmus.translate.output import StatusKey
from isthmus.translate.traffic.asking import ASKED, Referred, is_free
from isthmus.translate.traffic.conditions import ANY_SENDER, Condition, Request
from isthmus.translate.traffic.fields import Copies, Field, Value
from isthmus.translate.traffic.filters import RouteFilter, route_name
from isthmus.translate.traffic.routes import Reachable, Unreachable, Use, ambiguous, with_fields, with_host

REFUSED = istio.DirectResponse(status=403)
"""What requests get that a server should be asked about which is not there."""

_ASKING = (Field.EXTAUTH, Field.RATE_LIMIT)
"""What routes say to servers that a VirtualGateway asks, if it does."""

_OF_ANSWERS = (Field.CORS, Field.HEADERS)
"""What Istio takes on routes that send nothing on."""


class Lookup(msgspec.Struct, frozen=True):
    """What routes ask of a cluster."""

    reach: Callable[[Ref, bool], Reachable | Unreachable]
    """A service, or with True a Destination outside any mesh, as the cluster's proxies know it."""
    has_pods: Callable[[Use], bool]
    shifted: Callable[[Ref, int], tuple[istio.WeightedRoute, ...]]
    """Where requests to a port of a service go instead, as traffic policies shift all of them; empty if to itself."""
    limits: Callable[[Ref], RouteFilter | Unreachable]
    """The rate limits of a RateLimitClientConfig."""


class Around(msgspec.Struct, frozen=True):
    """What a VirtualGateway, *called* so, says of all its routes."""

    called: str
    defaults: Mapping[Field, Value] = {}
    """What counts for routes of which nothing else is said."""
    guards: Mapping[Field, RouteFilter] = {}
    """The filters in the chain that ask servers."""
    refuses: Collection[Field] = ()
    """Servers that are to be asked, are not there, and without which requests are refused."""
    asks: Collection[Field] = ()
    """Servers that are to be asked, there or not."""


class HostRouting(msgspec.Struct, frozen=True, gc=False):
    """The routes of a host on a cluster, or of connections that are not looked into, and what they ask of others."""

    http: tuple[istio.HttpRoute, ...]
    connections: tuple[istio.WeightedRoute, ...]
    uses: tuple[Use, ...]
    """Subsets that routes name, sorted."""
    filtered: tuple[tuple[str, tuple[RouteFilter, ...]], ...]
    """Names of routes, and what filters are told about each; sorted by name."""
    findings: tuple[Finding, ...]


def route_host(host: TreatedHost, around: Around, lookup: Lookup) -> HostRouting:
    """The routes of *host* where *lookup* looks, with what is *around* them."""
    router = _Router(lookup, requests=True)
    return router.result(http=tuple(router.route(each, around) for each in host.routes))


def route_connections(shares: Sequence[Share], owner: StatusKey, path: str, lookup: Lookup) -> HostRouting:
    """Where connections go as *shares*, written by *owner* at field path *path*, say."""
    router = _Router(lookup, requests=False)
    return router.result(connections=router.destinations(shares, owner, path))


class _Router:
    """Makes routes, and gathers what they ask of others and what is wrong with them."""

    def __init__(self, lookup: Lookup, *, requests: bool) -> None:
        self._lookup = lookup
        self._requests = requests
        self._uses: set[Use] = set()
        self._findings: dict[Finding, None] = {}
        self._filtered: dict[str, tuple[RouteFilter, ...]] = {}

    def result(
        self, http: tuple[istio.HttpRoute, ...] = (), connections: tuple[istio.WeightedRoute, ...] = ()
    ) -> HostRouting:
        """The routes that were made, and all that came up."""
        uses = tuple(sorted(self._uses))
        filtered = tuple((name, self._filtered[name]) for name in sorted(self._filtered))
        return HostRouting(http, connections, uses, filtered, tuple(self._findings))

    def route(self, treated: Treated, around: Around) -> istio.HttpRoute:
        """The route of *treated*, with what is *around* it."""
        leaf, action = treated.leaf, treated.leaf.action
        values = {**around.defaults, **dict(self._said(treated, around))}
        filters = tuple(_filters(values, around))
        self._tell_unasked(treated, around)
        made = istio.HttpRoute(name=self._name(leaf, filters), match=_matches(leaf.requests))
        if _is_refused(values, around):
            made = msgspec.structs.replace(made, direct_response=REFUSED)
        elif isinstance(action, Forward):
            shares = self.destinations(action.shares, leaf.owner, f"{leaf.path}.routeAction.destinations")
            if shares:
                rewrite = istio.HttpRewrite(uri=action.rewrite) if action.rewrite else None
                made = msgspec.structs.replace(made, route=shares, rewrite=rewrite)
                return with_fields(self._mirrored(made, treated), values)
            made = msgspec.structs.replace(made, direct_response=UNREACHABLE)
        elif isinstance(action, istio.HttpRedirect):
            made = msgspec.structs.replace(made, redirect=action)
        else:
            made = msgspec.structs.replace(made, direct_response=action)
        return with_fields(made, {field: value for field, value in values.items() if field in _OF_ANSWERS})

    def _said(self, treated: Treated, around: Around) -> Iterator[tuple[Field, Value]]:
        """What is said of the route's requests, with the rate limits that it refers to."""
        for field, said in treated.said.items():
            if not isinstance(said.value, Referred):
                yield field, said.value
                continue
            found = self._lookup.limits(said.value.config)
            if isinstance(found, RouteFilter):
                yield field, found
            elif field in around.asks:
                text = (
                    f"{said.path}.{field.value}.ratelimitClientConfigRef: {found.reason}, so requests are not limited"
                )
                self._findings[Finding(said.who, Weight.LATER if found.later else Weight.ERROR, text)] = None

    def _tell_unasked(self, treated: Treated, around: Around) -> None:
        for field in _ASKING:
            said = treated.said.get(field)
            if said is None or field in around.asks or (isinstance(said.value, RouteFilter) and is_free(said.value)):
                continue
            what = "requests are refused" if field is Field.EXTAUTH else "requests are not limited"
            text = f"{said.path}.{field.value}: {around.called} has no routeOptions.{field.value}, so {what}"
            self._findings[Finding(said.who, Weight.ERROR, text)] = None

    def _name(self, leaf: Leaf, said: tuple[RouteFilter, ...]) -> str:
        """The route's name; one that filters are told about says what, since an EnvoyFilter finds it by that alone."""
        if not said:
            return leaf.name
        name = f"{leaf.name}.{route_name(*said)}"
        self._filtered[name] = said
        return name

    def destinations(self, shares: Sequence[Share], owner: StatusKey, path: str) -> tuple[istio.WeightedRoute, ...]:
        """Where *shares*, written by *owner* at field path *path*, go; those that cannot be reached are left out."""
        found: list[tuple[istio.WeightedRoute, int]] = []
        for i, share in enumerate(shares):
            target = self._target(share, owner, f"{path}[{i}]")
            if target is not None:
                names_host = share.external and self._requests
                headers = with_host(share.headers, target.host) if names_host else share.headers
                made = istio.WeightedRoute(destination=target, headers=headers)
                found += [(each, share.weight * parts) for each, parts in self._split(made, share)]
        if len(found) < 2:
            return tuple(route for route, weight in found if weight)
        weights = proportions([weight for _, weight in found])
        if not any(weights):
            return ()
        return tuple(msgspec.structs.replace(route, weight=w) for (route, _), w in zip(found, weights, strict=True))

    def _split(self, made: istio.WeightedRoute, share: Share) -> Iterator[tuple[istio.WeightedRoute, int]]:
        """Where what is meant for *share*'s service goes, and how many parts of 100: a shift of all requests counts."""
        port = made.destination.port
        plain = self._requests and share.service.cluster and not share.subset and port is not None
        shifted = self._lookup.shifted(share.service, port.number) if plain and port is not None else ()
        if not shifted:
            yield made, 100
        for each in shifted:
            headers = with_host(share.headers, each.destination.host) if each.headers else share.headers
            yield (
                istio.WeightedRoute(destination=each.destination, headers=headers),
                each.weight if len(shifted) > 1 else 100,
            )

    def _target(self, share: Share, owner: StatusKey, path: str) -> istio.RouteTarget | None:
        target = self._reach(share.service, share.port, owner, path, "destination", external=share.external)
        if target is None or not share.subset:
            return target
        use = Use(share.service, share.subset, owner)
        if not self._lookup.has_pods(use):
            labels = ", ".join(f"{name}: {value}" for name, value in share.subset)
            text = f"{path}: no ready pod of {share.service.key} has {labels}: requests that go there get 503"
            self._findings[Finding(owner, Weight.WARNING, text)] = None
        self._uses.add(use)
        return msgspec.structs.replace(target, subset=subset_name(share.subset))

    def _mirrored(self, made: istio.HttpRoute, treated: Treated) -> istio.HttpRoute:
        said = treated.said.get(Field.MIRROR)
        if said is None or not isinstance(said.value, Copies):
            return made
        copies = said.value
        target = self._reach(copies.service, copies.port, said.who, f"{said.path}.mirror", "mirror destination")
        if target is None:
            return made
        share = istio.Percent(value=copies.percentage)
        return msgspec.structs.replace(made, mirror=target, mirror_percentage=share)

    def _reach(
        self, service: Ref, port: int, owner: StatusKey, path: str, what: str, *, external: bool = False
    ) -> istio.RouteTarget | None:
        found = self._lookup.reach(service, external)
        if isinstance(found, Unreachable):
            weight = Weight.LATER if found.later else Weight.ERROR
            self._findings[Finding(owner, weight, f"{path}: invalid {what} {service.key}: {found.reason}")] = None
            return None
        numbers = [each.port for each in found.ports]
        name = f"{what} {service.key}"
        if port and port not in numbers:
            text = f"{path}: specified port {port} does not exist for {name}"
        elif not numbers:
            text = f"{path}: {name} has no port"
        elif external and len(numbers) > 1:
            text = f"{path}: {name} {ambiguous(numbers)}"
        elif not port and service.cluster and len(numbers) > 1:
            text = f"{path}: must provide port for {name} with multiple ports: one of {', '.join(map(str, numbers))}"
        else:
            return istio.RouteTarget(host=found.host, port=istio.PortSelector(number=port or numbers[0]))
        self._findings[Finding(owner, Weight.ERROR, text)] = None
        return None


def _filters(values: Mapping[Field, Value], around: Around) -> Iterator[RouteFilter]:
    """What filters are told about a route of which *values* are said."""
    csrf = values.get(Field.CSRF)
    if isinstance(csrf, RouteFilter):
        yield csrf
    asked = values.get(Field.EXTAUTH, ASKED)
    if Field.EXTAUTH in around.guards and isinstance(asked, RouteFilter) and not is_free(asked):
        yield msgspec.structs.replace(asked, filter=around.guards[Field.EXTAUTH].filter)
    limits = values.get(Field.RATE_LIMIT)
    if Field.RATE_LIMIT in around.guards and isinstance(limits, RouteFilter):
        yield msgspec.structs.replace(limits, filter=around.guards[Field.RATE_LIMIT].filter)


def _is_refused(values: Mapping[Field, Value], around: Around) -> bool:
    """Whether requests cannot be let pass, since nobody is there whom a route or the VirtualGateway wants asked."""
    asked = values.get(Field.EXTAUTH, ASKED)
    nobody = Field.EXTAUTH in around.refuses or (Field.EXTAUTH in values and Field.EXTAUTH not in around.asks)
    unasked = nobody and isinstance(asked, RouteFilter) and not is_free(asked)
    return unasked or (Field.RATE_LIMIT in around.refuses and Field.RATE_LIMIT in values)


def proportions(weights: Sequence[int]) -> list[int]:
    """*weights* in smallest numbers; to a sum of 100 where that changes none, which Istio wanted before 1.15."""
    common = gcd(*weights) or 1
    reduced = [weight // common for weight in weights]
    total = sum(reduced)
    return [weight * (100 // total) for weight in reduced] if total and 100 % total == 0 else reduced


def _matches(requests: Iterable[Request]) -> tuple[istio.HttpMatch, ...]:
    found = tuple(Condition(ANY_SENDER, request).match(0) for request in requests)
    return () if istio.HttpMatch() in found else found
