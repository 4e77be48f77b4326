"""Traffic policies as derived collections: from policies and services to routes, rules and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from isthmus.api.common import ApprovalStatus
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate import selection
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.objects import Pairs, metadata, subsets
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.ports import is_http, is_tcp
from isthmus.translate.selection import Selection
from isthmus.translate.selectors import Rule, rules_of
from isthmus.translate.traffic.conditions import ANY_REQUEST
from isthmus.translate.traffic.fields import OF_DESTINATION, POLICY, Field, problems_of
from isthmus.translate.traffic.limits import fit
from isthmus.translate.traffic.merge import Conflict, PolicyFacts, Senders, Setting, policy_facts, senders_of
from isthmus.translate.traffic.reach import Reach
from isthmus.translate.traffic.routes import Reachable, Routing, Unreachable, Use, route
from isthmus.translate.verdicts import Judged, by_policy, judge

ISTIO_MUTUAL = "ISTIO_MUTUAL"
DEFAULT = "default"


Applied = selection.Applied[PolicyFacts]
"""The traffic policies on one service, from old to young."""


class Place(msgspec.Struct, frozen=True, gc=False):
    """A cluster whose proxies know a destination, as *host*, and where objects about it go."""

    cluster: str
    host: str
    name: str
    namespaces: tuple[str, ...]


class Client(msgspec.Struct, frozen=True, gc=False):
    """What is said of one destination to the proxies of one place."""

    place: Place
    routing: Routing
    of_destination: dict[Field, Setting]
    conflicts: tuple[Conflict, ...]


class Routed(msgspec.Struct, frozen=True, gc=False):
    """What the policies on one destination come to; policies from old to young, the destination's own cluster first."""

    policies: tuple[Ref, ...]
    clients: tuple[Client, ...]
    warnings: tuple[tuple[Ref, str], ...]
    """What policies say that has no effect here, or more than they say."""

    def on(self, cluster: str) -> Client | None:
        """What is said to *cluster*."""
        return next((client for client in self.clients if client.place.cluster == cluster), None)


class Traffic:
    """The collections of traffic policies."""

    def __init__(
        self,
        graph: Graph,
        *,
        policies: Collection[Ref, TrafficPolicy],
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        federation: Federation,
        reach: Reach,
        default_tls: Collection[str, istio.ClientTls],
    ) -> None:
        """*default_tls* holds at DEFAULT the TLS of rules for which no policy says any, or nothing."""
        self._default_tls = default_tls
        self._federation = federation
        self._services = services
        self._services_by_identity = services_by_identity
        self._reached = reach
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "traffic policy problems", policies, lambda _, policy: problems_of(policy.spec) or None
        )
        self._facts: Collection[Ref, PolicyFacts] = graph.derive("traffic policies", policies, self._read)
        self._selection = Selection(graph, "traffic policy", policies, _rules, services_by_identity)
        self.missing = self._selection.missing
        self.applied: Collection[Ref, Applied] = graph.derive("applied traffic policies", services, self._apply)
        self.routed: Collection[Ref, Routed] = graph.derive("routings", self.applied, self._route)
        uses = graph.expand("subsets in routes", self.routed, _uses)
        self._uses: Index[tuple[str, Ref], tuple[Ref, str, Use], Use] = graph.index(
            "subsets in routes by cluster and service", uses, lambda key, use: ((key[1], use.service),)
        )
        self.uses_by_service: Index[Ref, tuple[Ref, str, Use], Use] = graph.index(
            "subsets in routes by service", uses, lambda _, use: (use.service,)
        )
        self.judged: Collection[Ref, Judged] = graph.derive("judged destinations", self.routed, self._judge)
        verdicts = graph.expand("verdicts on traffic policies", self.judged, by_policy)
        self.verdicts: Index[Ref, tuple[Ref, Ref], ApprovalStatus] = graph.index(
            "verdicts by traffic policy", verdicts, first_part
        )

    def write(self, graph: Graph, gateway_uses: Collection[tuple[Any, str, Use], Use]) -> None:
        """Make the `outputs`; routes of gateways, which follow shifts, name the subsets *gateway_uses*."""
        self._gateway_uses: Index[tuple[str, Ref], tuple[Any, str, Use], Use] = graph.index(
            "subsets in routes of gateways by cluster and service",
            gateway_uses,
            lambda key, use: ((key[1], use.service),),
        )
        self._gateway_uses_by_service: Index[Ref, tuple[Any, str, Use], Use] = graph.index(
            "subsets in routes of gateways by service", gateway_uses, lambda _, use: (use.service,)
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("virtual services", self.routed, _virtual_services),
            graph.expand("local rules", self._services, self._local_rule),
        )

    def shifted(self, fetch: Fetch, cluster: str, service: Ref, port: int) -> tuple[istio.WeightedRoute, ...]:
        """Where requests to *port* of *service* that come from *cluster* go, whatever they are; empty if to itself."""
        for destination, _ in fetch.group(self._services_by_identity, service):
            routed = fetch.get(self.routed, destination)
            client = routed.on(cluster) if routed else None
            if client is None:
                continue
            for made in client.routing.http:
                if made.match not in ((), (istio.HttpMatch(port=port),)):
                    continue
                targets = [each.destination for each in made.route]
                if any(target.subset or target.host != client.place.host for target in targets):
                    return made.route
        return ()

    def said(self, fetch: Fetch, destination: Ref, cluster: str) -> dict[Field, Setting]:
        """What is said to *cluster* about *destination* as a whole."""
        routed = fetch.get(self.routed, destination)
        client = routed.on(cluster) if routed else None
        return client.of_destination if client else {}

    def uses_on(self, fetch: Fetch, cluster: str, service: Ref) -> tuple[Use, ...]:
        """The subsets of *service* that routes on *cluster* name."""
        where = (cluster, service)
        return tuple(use for uses in (self._uses, self._gateway_uses) for _, use in fetch.group(uses, where))

    def uses_of(self, fetch: Fetch, service: Ref) -> tuple[Use, ...]:
        """The subsets of *service* that routes of any cluster name."""
        by_service = (self.uses_by_service, self._gateway_uses_by_service)
        return tuple(use for uses in by_service for _, use in fetch.group(uses, service))

    def uses_abroad(self, fetch: Fetch, service: Ref) -> tuple[Use, ...]:
        """The subsets of *service* that routes of other clusters than its own name."""
        by_service = (self.uses_by_service, self._gateway_uses_by_service)
        found = (each for uses in by_service for each in fetch.group(uses, service))
        return tuple(use for (_, cluster, _), use in found if cluster != service.cluster)

    def _read(self, fetch: Fetch, ref: Ref, policy: TrafficPolicy) -> PolicyFacts | None:
        return None if fetch.get(self.problems, ref) else policy_facts(policy)

    def _apply(self, fetch: Fetch, _: Ref, service: ServiceFacts) -> Applied | None:
        return self._selection.applied(fetch, service, self._facts)

    def _route(self, fetch: Fetch, ref: Ref, applied: Applied) -> Routed:
        where = applied.service.service
        places = [Place(where.cluster, self._reached.fqdn(fetch, where), where.name, (where.namespace,))]
        federated = self._federation.known_abroad(fetch, ref)
        if federated is not None and self._federation.has_way(fetch, federated):
            name = self._federation.rule_name(fetch, federated)
            roots: dict[str, dict[str, None]] = {}
            for mesh in federated.targets:
                roots.setdefault(mesh.cluster, {})[mesh.root_namespace] = None
            places += [Place(cluster, federated.hostname, name, tuple(found)) for cluster, found in roots.items()]
        alike: dict[Senders, list[Place]] = {}
        for place in places:
            alike.setdefault(senders_of(applied.policies, place.cluster), []).append(place)
        clients: dict[Place, Client] = {}
        for senders, found in alike.items():
            routers = [
                partial(route, applied.service.ports, place.host, lookup=partial(self._reach, fetch, place.cluster))
                for place in found
            ]
            said = fit(applied.policies, senders, routers)
            for place, routing in zip(found, said.routings, strict=True):
                clients[place] = Client(place, routing, said.merged.of_destination, said.merged.conflicts)
        policies = tuple(policy.ref for policy in applied.policies)
        warnings = tuple(_warnings(applied, abroad=federated is not None))
        return Routed(policies, tuple(clients[place] for place in places), warnings)

    def _judge(self, fetch: Fetch, _: Ref, routed: Routed) -> Judged:
        """What became of each policy on one destination."""
        errors: dict[Ref, dict[str, None]] = {policy: {} for policy in routed.policies}
        later: dict[Ref, dict[str, None]] = {policy: {} for policy in routed.policies}
        warnings: dict[Ref, dict[str, None]] = {policy: {} for policy in routed.policies}
        for policy, warning in routed.warnings:
            warnings[policy][warning] = None
        for client in routed.clients:
            for conflict in client.conflicts:
                errors[conflict.loser][str(conflict)] = None
            for refusal in client.routing.refusals:
                (later if refusal.later else errors)[refusal.policy][refusal.message] = None
            for use in client.routing.uses:
                if not self._reached.has_pods(fetch, use.service, use.labels):
                    labels = ", ".join(f"{name}: {value}" for name, value in use.labels)
                    warnings[use.who.ref][
                        f"spec.policy.trafficShift: no ready pod of {use.service.key} has {labels}: requests that go "
                        "there are answered with 503"
                    ] = None
        return judge(routed.policies, errors=errors, warnings=warnings, later=later)

    def _reach(self, fetch: Fetch, cluster: str, service: Ref, external: bool) -> Reachable | Unreachable:
        if external:
            return self._reached.external_on(fetch, cluster, service)
        return self._reached.known_on(fetch, cluster, service, ", or leave that cluster out with spec.sourceSelector")

    def _local_rule(self, fetch: Fetch, ref: Ref, service: ServiceFacts) -> Iterable[tuple[OutputKey, Output]]:
        """The rule of a service on its own cluster, where it would change something."""
        where = service.service
        uses, said = self.uses_on(fetch, where.cluster, where), self.said(fetch, ref, where.cluster)
        if not service.ports or not (uses or said):
            return
        policies = parents(TrafficPolicy.KIND, *(each.policy for each in said.values()))
        whose = tuple(sorted({*(use.who for use in uses), *policies}))
        rule = istio.DestinationRule(
            metadata=metadata(where.name, where.namespace, parents_annotation(whose)),
            spec=istio.DestinationRuleSpec(
                host=self._reached.fqdn(fetch, where),
                traffic_policy=_traffic_policy(said, fetch.get(self._default_tls, DEFAULT)),
                subsets=subsets(labels_of(uses)),
            ),
        )
        yield OutputKey(where.cluster, rule.key), Output(rule, whose, ref)


def labels_of(uses: Iterable[Use]) -> tuple[Pairs, ...]:
    """Labels of the subsets in *uses*, each once, sorted."""
    return tuple(sorted({use.labels for use in uses}))


def _traffic_policy(said: dict[Field, Setting], default: istio.ClientTls | None) -> istio.DestinationTraffic | None:
    tls = said[Field.TLS].value if Field.TLS in said else default
    outliers = said[Field.OUTLIERS].value if Field.OUTLIERS in said else None
    if tls is None and outliers is None:
        return None
    return istio.DestinationTraffic(
        tls=tls if isinstance(tls, istio.ClientTls) else None,
        outlier_detection=outliers if isinstance(outliers, istio.OutlierDetection) else None,
    )


def _rules(policy: TrafficPolicy) -> Iterable[Rule]:
    spec = policy.spec
    # One that is about routes of gateways alone would hit every service.
    return rules_of(spec.destination_selector) if spec.destination_selector or not spec.route_selector else ()


def _uses(_: Fetch, ref: Ref, routed: Routed) -> Iterator[tuple[tuple[Ref, str, Use], Use]]:
    for client in routed.clients:
        for use in client.routing.uses:
            yield (ref, client.place.cluster, use), use


def _virtual_services(_: Fetch, ref: Ref, routed: Routed) -> Iterable[tuple[OutputKey, Output]]:
    whose = parents(TrafficPolicy.KIND, *routed.policies)
    for client in routed.clients:
        for namespace in client.place.namespaces if client.routing.http else ():
            made = istio.VirtualService(
                metadata=metadata(client.place.name, namespace, parents_annotation(whose)),
                spec=istio.VirtualServiceSpec(hosts=(client.place.host,), http=client.routing.http),
            )
            yield OutputKey(client.place.cluster, made.key), Output(made, whose, ref)


def _warnings(applied: Applied, *, abroad: bool) -> Iterator[tuple[Ref, str]]:
    """What of the policies on a service works otherwise than one may think; *abroad*: other clusters know it."""
    http = {port.port for port in applied.service.ports if is_http(port)}
    mute = {port.port for port in applied.service.ports if is_tcp(port)} - http
    for policy in applied.policies:
        of_requests = [field for field in policy.fields if field not in OF_DESTINATION]
        if not http and of_requests:
            yield policy.ref, f"no port speaks HTTP, so {_listed(of_requests)} has no effect"
        elif isinstance(targets := policy.fields.get(Field.SHIFT), tuple):
            for port in sorted({target.port for target in targets} & mute):
                yield policy.ref, f"{POLICY}.trafficShift: port {port} speaks no HTTP, so calls of it stay as they are"
        for ignored in policy.ignored:
            yield policy.ref, ignored
        of_all = [field for field in policy.fields if field in OF_DESTINATION]
        limited = policy.requests != (ANY_REQUEST,) or any(
            sender.kube_workload_matcher
            and (sender.kube_workload_matcher.labels or sender.kube_workload_matcher.namespaces)
            for sender in policy.senders
        )
        if of_all and limited:
            yield policy.ref, f"{_listed(of_all)} counts for all requests, whoever sends them and whatever they are"
        tls = policy.fields.get(Field.TLS)
        if abroad and isinstance(tls, istio.ClientTls) and tls.mode != ISTIO_MUTUAL:
            yield (
                policy.ref,
                f"{POLICY}.mtls: calls from other clusters stay {ISTIO_MUTUAL}, or else no gateway could tell where to",
            )


def _listed(fields: Iterable[Field]) -> str:
    return ", ".join(f"{POLICY}.{field.value}" for field in fields)
