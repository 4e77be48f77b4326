"""What traffic policies come to on a destination: the routes in their order, and which of two policies counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from isthmus.api.discovery import Destination
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.cli.description.parts import Known, Section, pairs
from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.facts import service_facts
from isthmus.translate.selectors import Rule, Term, rules_of, selects, terms_of_rule, terms_of_service
from isthmus.translate.traffic.asking import Referred
from isthmus.translate.traffic.conditions import Condition, Kind, Path, Test
from isthmus.translate.traffic.fields import Copies, Field, Target, Value, problems_of
from isthmus.translate.traffic.merge import Conflict, Merged, merge, policy_facts, senders_of

MAX_ROUTES = 100  # lines that a person still reads

_PATHS = {Kind.EXACT: "path {}", Kind.PREFIX: "path {}*", Kind.REGEX: "path ~ {}"}


class Policies:
    """The traffic policies, found by the destinations that they select."""

    def __init__(self, known: Known) -> None:
        self._meshes = {mesh.ref: mesh.spec.istio.installation.cluster for mesh in known.meshes if mesh.spec.istio}
        self._policies = {policy.ref: policy for policy in known.traffic_policies}
        self._by_term: dict[Term, list[tuple[Rule, Ref]]] = {}
        for policy in known.traffic_policies:
            if policy.spec.destination_selector or not policy.spec.route_selector:
                for rule in rules_of(policy.spec.destination_selector):
                    for term in terms_of_rule(rule):
                        self._by_term.setdefault(term, []).append((rule, policy.ref))

    def on(self, destination: Destination) -> list[TrafficPolicy]:
        """Those that select *destination*, the oldest first."""
        facts = service_facts(destination.ref, destination)
        if facts is None:
            return []
        candidates = (pair for term in terms_of_service(facts) for pair in self._by_term.get(term, ()))
        chosen = {policy for rule, policy in candidates if selects(rule, facts)}
        return sorted((self._policies[ref] for ref in chosen), key=lambda policy: policy_facts(policy).seniority)

    def merged(self, destination: Destination) -> dict[str, Merged]:
        """What those on *destination* come to, by the clusters that know it, its own first."""
        service = destination.spec.kube_service
        facts = [policy_facts(policy) for policy in self.on(destination) if not problems_of(policy.spec)]
        if service is None or not facts:
            return {}
        applied = destination.status.applied_federation if destination.status else None
        abroad = (self._meshes.get(mesh.ref) for mesh in (applied.federated_to_meshes if applied else ()))
        clusters = dict.fromkeys((service.ref.cluster_name, *filter(None, abroad)))
        return {cluster: merge(facts, senders_of(facts, cluster)) for cluster in clusters}


def routes_sections(merged: dict[str, Merged]) -> Iterator[Section]:
    """The routes in the order in which proxies look, and what is said of them, by whom.

    They are numbered, and where clusters differ named after those that call.
    """
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    home = next(iter(merged), "")
    for cluster, found in merged.items():
        alike.setdefault(tuple(_said(found, abroad=cluster != home)), []).append(cluster)
    routes: list[tuple[str, ...]] = []
    said: list[tuple[str, ...]] = []
    for rows, clusters in alike.items():
        prefix = f"{','.join(clusters)}/" if len(alike) > 1 else ""
        for number, route in enumerate(merged[clusters[0]].routes, 1):
            routes.append((f"{prefix}{number}", _request(route.condition), _callers(route.condition)))
        said += [(f"{prefix}{number}", *row) for number, *row in rows]
    yield Section("Routes", ("ROUTE", "REQUESTS", "CALLERS"), tuple(routes[:MAX_ROUTES]), len(routes[MAX_ROUTES:]))
    columns = ("ROUTE", "FIELD", "VALUE", "POLICY")
    yield Section("What counts on them", columns, tuple(said[:MAX_ROUTES]), len(said[MAX_ROUTES:]))


def conflicts_of(merged: Iterable[Merged]) -> dict[Conflict, None]:
    """The conflicts in *merged*, each once."""
    return {conflict: None for found in merged for conflict in found.conflicts}


def settings_of(policy: TrafficPolicy) -> str:
    """The fields that *policy* sets."""
    return ", ".join(field.value for field in policy_facts(policy).fields)


def requests_of(policy: TrafficPolicy) -> str:
    """The requests that *policy* is about."""
    return "; ".join(_request(Condition(request=request)) for request in policy_facts(policy).requests)


def name_of(policy: Ref) -> str:
    """*policy* as it is asked for."""
    return f"{policy.namespace}/{policy.name}"


def value_text(value: Value) -> str:
    """*value* on one line."""
    match value:
        case str():
            return value
        case Copies():
            return f"{value.percentage:g}% to {_service(value.service)}"
        case istio.ClientTls():
            return value.mode
        case istio.OutlierDetection():
            errors = f"after {value.consecutive_5xx_errors} errors in a row"
            return f"{errors}, for {value.base_ejection_time}, at most {value.max_ejection_percent}% of the pods"
        case istio.HttpRetry():
            each = f", each {value.per_try_timeout}" if value.per_try_timeout else ""
            return f"{value.attempts}{each}"
        case istio.HttpFault(delay=istio.Delay() as delay):
            return f"{delay.fixed_delay} for {_percent(delay.percentage)}"
        case istio.HttpFault(abort=istio.Abort() as abort):
            return f"{abort.http_status} for {_percent(abort.percentage)}"
        case Referred():
            return f"RateLimitClientConfig {value.config.namespace}/{value.config.name}"
        case tuple():
            return ", ".join(_target(target, alone=len(value) == 1) for target in value)
        case _:
            return msgspec.json.encode(value).decode()


def _said(merged: Merged, *, abroad: bool) -> Iterator[tuple[str, str, str, str]]:
    """Number of the route, field, value and policy; fields of a destination as a whole are on all routes.

    For calls from *abroad*, no policy says how they are encrypted.
    """
    for number, route in enumerate(merged.routes, 1):
        for field in (field for field in Field if field in route.settings):
            setting = route.settings[field][0]
            yield str(number), field.value, value_text(setting.value), name_of(setting.policy)
    for field, setting in merged.of_destination.items():
        if field is Field.TLS and abroad:
            continue
        yield "all", field.value, value_text(setting.value), name_of(setting.policy)


def _request(condition: Condition) -> str:
    request = condition.request
    words = [
        request.method,
        _path(request.path),
        *(("no " if test.invert else "") + _test("header", test) for test in request.headers),
        *(_test("query", test) for test in request.query),
    ]
    return ", ".join(word for word in words if word) or "all"


def _path(path: Path) -> str:
    text = _PATHS[path.kind].format(path.text) if path.kind in _PATHS else ""
    return f"{text} in any case" if path.ignore_case else text


def _test(what: str, test: Test) -> str:
    return f"{what} {test.name}" + (f" {'~' if test.regex else '='} {test.value}" if test.value else "")


def _callers(condition: Condition) -> str:
    sender = condition.sender
    words = [f"namespace {sender.namespace}" if sender.namespace else "", pairs(dict(sender.labels))]
    return ", ".join(word for word in words if word) or "all"


def _target(target: Target, *, alone: bool) -> str:
    subset = f" [{pairs(dict(target.subset))}]" if target.subset else ""
    port = f":{target.port}" if target.port else ""
    where = f"Destination {name_of(target.service)}" if target.external else _service(target.service)
    return f"{100 if alone else target.weight}% to {where}{port}{subset}"


def _service(service: Ref) -> str:
    if not service.cluster:
        return f"VirtualDestination {name_of(service)}"
    return f"{service.name}.{service.namespace} on {service.cluster}"


def _percent(percentage: istio.Percent | None) -> str:
    return f"{percentage.value:g}%" if percentage else "100%"
