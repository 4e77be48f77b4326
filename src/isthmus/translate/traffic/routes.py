"""The routes of one destination on one cluster: where requests go, by names that the proxies of that cluster know."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from isthmus.api.discovery import ServicePort
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.federation.objects import Pairs, subset_name
from isthmus.translate.output import StatusKey
from isthmus.translate.parents import parents
from isthmus.translate.ports import is_http, is_tcp
from isthmus.translate.traffic.conditions import Condition
from isthmus.translate.traffic.fields import Copies, Field, Target, Value
from isthmus.translate.traffic.filters import RouteFilter, route_name
from isthmus.translate.traffic.merge import Merged, Route, Setting


class Reachable(msgspec.Struct, frozen=True, gc=False):
    """A service as a cluster knows it."""

    host: str
    ports: tuple[ServicePort, ...]


class Unreachable(msgspec.Struct, frozen=True, gc=False):
    """Why a cluster cannot send anything there; *later* if nothing is wrong and it may still come."""

    reason: str
    later: bool = False


Lookup = Callable[[Ref, bool], Reachable | Unreachable]
"""How a cluster knows a service, or with True the Destination of an external service."""


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """A field of a policy that has no effect on one destination, and why."""

    policy: Ref
    message: str
    later: bool = False


class Use(msgspec.Struct, frozen=True, order=True, gc=False):
    """A subset of *service* that a route of *who* names, by its labels."""

    service: Ref
    labels: Pairs
    who: StatusKey


class Filtered(msgspec.Struct, frozen=True, gc=False):
    """What an EnvoyFilter says of the routes called *name*, since *policy* does."""

    name: str
    said: RouteFilter
    policy: Ref


class Routing(msgspec.Struct, frozen=True, gc=False):
    """Routes, from specific to general, and what they ask of others. No routes: nothing is to be said."""

    http: tuple[istio.HttpRoute, ...]
    uses: tuple[Use, ...]
    """Sorted."""
    refusals: tuple[Refusal, ...]
    filtered: tuple[Filtered, ...] = ()
    """By name, each once."""


def with_host(headers: istio.Headers | None, host: str) -> istio.Headers:
    """*headers*, and that of the host unless they say another: servers outside do not know the name that callers use.

    Istio sets it unless something is said for the whole route.
    """
    headers = headers or istio.Headers()
    request = headers.request or istio.HeaderOperations()
    if any(name.lower() == "host" for name in request.add):
        return headers
    named = msgspec.structs.replace(request, add={**request.add, "host": host})
    return msgspec.structs.replace(headers, request=named)


def ambiguous(ports: Sequence[int]) -> str:
    """What is wrong with an external service that has all these *ports* for requests."""
    listed = ", ".join(map(str, ports))
    return (
        f"has several ports for requests, {listed}, and a staticDestination names none: leave one in that Destination"
    )


def with_fields(made: istio.HttpRoute, values: Mapping[Field, Value]) -> istio.HttpRoute:
    """*made*, with those of *values* that say nothing of where requests go."""
    timeout, retries, fault = values.get(Field.TIMEOUT), values.get(Field.RETRIES), values.get(Field.FAULT)
    cors, headers = values.get(Field.CORS), values.get(Field.HEADERS)
    return msgspec.structs.replace(
        made,
        timeout=timeout if isinstance(timeout, str) else "",
        retries=retries if isinstance(retries, istio.HttpRetry) else None,
        fault=fault if isinstance(fault, istio.HttpFault) else None,
        cors_policy=cors if isinstance(cors, istio.CorsPolicy) else None,
        headers=headers if isinstance(headers, istio.Headers) else None,
    )


def route(ports: tuple[ServicePort, ...], host: str, merged: Merged, lookup: Lookup) -> Routing:
    """The routes to *host*, which has *ports*, that *merged* asks for."""
    return _Router(ports, host, lookup).route(merged)


class _Router:
    def __init__(self, ports: tuple[ServicePort, ...], host: str, lookup: Lookup) -> None:
        self._host = host
        self._lookup = lookup
        self._ports = [port.port for port in ports if is_http(port)]
        self._tcp = [port.port for port in ports if is_tcp(port)]
        self._several = len(ports) > 1
        self._uses: set[Use] = set()
        self._refusals: dict[Refusal, None] = {}
        self._filtered: dict[str, Filtered] = {}

    def route(self, merged: Merged) -> Routing:
        """Of each condition one route for each port."""
        http = [made for said in merged.routes for port in self._ports if (made := self._one(said, port)) is not None]
        if http:
            # Without a route for all others, Envoy answers 404 to requests that no policy speaks of.
            ends = [made.match for made in http]
            http += [self._rest(port) for port in self._ports if self._matched(Condition(), port) not in ends]
        filtered = tuple(self._filtered[name] for name in sorted(self._filtered))
        return Routing(tuple(http), tuple(sorted(self._uses)), tuple(self._refusals), filtered)

    def _rest(self, port: int) -> istio.HttpRoute:
        return istio.HttpRoute(match=self._matched(Condition(), port), route=self._own(port))

    def _matched(self, condition: Condition, port: int) -> tuple[istio.HttpMatch, ...]:
        """Requests to *port* that meet *condition*; a service with one port for HTTP gets no other."""
        matched = condition.match(port if len(self._ports) > 1 else 0)
        return (matched,) if matched != istio.HttpMatch() else ()

    def _own(self, port: int) -> tuple[istio.WeightedRoute, ...]:
        """The service itself. Of several ports one has to be named, or else `istioctl analyze` says so: IST0112."""
        selector = istio.PortSelector(number=port) if self._several else None
        return (istio.WeightedRoute(destination=istio.RouteTarget(host=self._host, port=selector)),)

    def _goes_elsewhere(self, said: Route, port: int) -> bool:
        return Field.MIRROR in said.settings or self._shift(said, port) is not None

    def _shift(self, said: Route, port: int) -> tuple[Setting, tuple[Target, ...]] | None:
        """What counts for requests to *port*: a shift that names ports of this service is about those alone."""
        for setting in said.settings.get(Field.SHIFT, ()):
            targets = setting.value
            assert isinstance(targets, tuple)
            named = {target.port for target in targets} & set(self._tcp)
            if not named or port in named:
                return setting, targets
        return None

    def _one(self, said: Route, port: int) -> istio.HttpRoute | None:
        """The route for requests to *port*; None if nothing is said of them."""
        values = {field: settings[0].value for field, settings in said.settings.items()}
        shift = self._shift(said, port)
        destinations = self._destinations(*shift, port) if shift is not None else None
        mirror = self._mirror(said.settings[Field.MIRROR][0], port) if Field.MIRROR in values else None
        made = istio.HttpRoute(
            name=self._filter(said.settings[Field.CSRF][0]) if Field.CSRF in values else "",
            match=self._matched(said.condition, port),
            route=destinations or self._own(port),
            mirror=mirror[0] if mirror else None,
            mirror_percentage=mirror[1] if mirror else None,
        )
        made = with_fields(made, values)
        if destinations is None and made == istio.HttpRoute(match=made.match, route=made.route):
            # What was refused is kept from what is said of more requests.
            refused = self._goes_elsewhere(said, port) and said.condition != Condition()
            return made if refused else None
        return made

    def _filter(self, setting: Setting) -> str:
        """The name by which an EnvoyFilter finds the route."""
        said = setting.value
        assert isinstance(said, RouteFilter)
        name = route_name(said)
        self._filtered.setdefault(name, Filtered(name, said, setting.policy))
        return name

    def _destinations(
        self, setting: Setting, targets: tuple[Target, ...], port: int
    ) -> tuple[istio.WeightedRoute, ...] | None:
        """Where the requests go; None if one of the places is not there, since others would get its share."""
        made: list[istio.WeightedRoute] = []
        uses: list[Use] = []
        for target in targets:
            found = self._reach(
                setting.policy,
                target.service,
                target.port,
                port,
                Field.SHIFT,
                "traffic shift",
                external=target.external,
            )
            if found is None:
                return None
            subset = subset_name(target.subset) if target.subset else ""
            if target.subset:
                uses.append(Use(target.service, target.subset, *parents(TrafficPolicy.KIND, setting.policy)))
            destination = istio.RouteTarget(host=found[0], subset=subset, port=istio.PortSelector(number=found[1]))
            headers = with_host(None, found[0]) if target.external else None
            made.append(istio.WeightedRoute(destination=destination, weight=target.weight, headers=headers))
        self._uses.update(uses)
        return tuple(made)

    def _mirror(self, setting: Setting, port: int) -> tuple[istio.RouteTarget, istio.Percent] | None:
        copies = setting.value
        assert isinstance(copies, Copies)
        found = self._reach(setting.policy, copies.service, copies.port, port, Field.MIRROR, "mirror")
        if found is None:
            return None
        target = istio.RouteTarget(host=found[0], port=istio.PortSelector(number=found[1]))
        return target, istio.Percent(value=copies.percentage)

    def _reach(
        self, policy: Ref, service: Ref, wanted: int, asked: int, field: Field, what: str, *, external: bool = False
    ) -> tuple[str, int] | None:
        """Host name and port of *service*; None, and a refusal, if it cannot be reached. Source of texts: reference."""
        path = f"spec.policy.{field.value}"
        found = self._lookup(service, external)
        if isinstance(found, Unreachable):
            self._refuse(policy, f"{path}: invalid {what} destination {service.key}: {found.reason}", later=found.later)
            return None
        numbers = list(dict.fromkeys(port.port for port in found.ports if is_tcp(port)))
        name = f"{service.name}.{service.namespace}.{service.cluster}"
        if wanted and wanted not in numbers:
            self._refuse(
                policy, f"{path}: specified port {wanted} does not exist for {what} destination service {name}"
            )
            return None
        if not numbers:
            self._refuse(policy, f"{path}: {what} destination service {name} has no TCP port")
            return None
        if wanted or len(numbers) == 1:
            return found.host, wanted or numbers[0]
        if asked in numbers:
            return found.host, asked
        listed = ", ".join(map(str, numbers))
        if external:
            self._refuse(policy, f"{path}: {what} destination {service.key} {ambiguous(numbers)}, or take {asked}")
            return None
        self._refuse(
            policy,
            f"{path}: must provide port for {what} destination service {name} with multiple ports: one of {listed}, "
            f"since it has no port {asked} as the requests have",
        )
        return None

    def _refuse(self, policy: Ref, message: str, *, later: bool = False) -> None:
        self._refusals[Refusal(policy, message, later)] = None
