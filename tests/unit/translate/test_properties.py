"""The engine's promises over whole fleets: where it ends depends on the objects, not on how they came, and is sound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import Resource
from isthmus.api.discovery import Destination, Mesh
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.traffic_policy import Policy, RetryPolicy, TrafficPolicy
from isthmus.istio.objects import (
    AuthorizationPolicy,
    DestinationRule,
    DestinationTraffic,
    EnvoyFilter,
    HttpMatch,
    HttpRoute,
    RouteTarget,
    ServiceEntry,
    Sidecar,
    VirtualService,
)
from isthmus.model.ref import Kind, Ref
from isthmus.translate import Engine, Output, OutputKey, StatusKey
from isthmus.translate.facts import DEFAULT_CLUSTER_DOMAIN, local_fqdn
from isthmus.translate.ports import is_http
from tests.unit.translate.fleets import meta
from tests.unit.translate.histories import Given, Step, histories, resources, starts, traffic_policies

FAULTY = Policy(retries=RetryPolicy(attempts=-1))
State = dict[tuple[Kind, Ref], Resource]


class Followed:
    """An engine, the objects that it was given, and all that its deltas told."""

    def __init__(self, start: Sequence[Resource]) -> None:
        self.engine = Engine()
        self.state: State = {}
        self.roots: dict[Ref, Given] = {}
        self.outputs: dict[OutputKey, bytes] = {}
        self.statuses: dict[StatusKey, bytes] = {}
        for resource in start:
            self._set(resource)

    def follow(self, history: Sequence[Step]) -> None:
        """Take *history*, then run."""
        for step in history:
            if isinstance(step.found, Given):
                found = Given(step.found.virtual_mesh, None, None) if step.remove else step.found
                self.engine.set_root(*found)
                self.roots[found.virtual_mesh] = found
            elif step.remove:
                where = step.found.metadata
                self.engine.remove(step.found.KIND, where.namespace, where.name)
                self.state.pop((step.found.KIND, step.found.ref), None)
            else:
                self._set(step.found)
            if step.run:
                self._run()
        self._run()

    def _set(self, resource: Resource) -> None:
        self.engine.set(resource)
        self.state[resource.KIND, resource.ref] = resource

    def _run(self) -> None:
        delta = self.engine.run()
        for key, output in delta.outputs.items():
            self.outputs.pop(key, None)
            if output is not None:
                self.outputs[key] = output.payload()
        for status in delta.statuses:
            self.statuses.pop(status, None)
            if (found := self.engine.status(status)) is not None:
                self.statuses[status] = msgspec.json.encode(found)

    def from_scratch(self) -> Engine:
        """Another engine that is given the last state only, in another order."""
        fresh = Engine()
        for _, resource in sorted(self.state.items(), key=lambda item: item[0]):
            fresh.set(resource)
        for _, found in sorted(self.roots.items()):
            fresh.set_root(*found)
        fresh.run()
        return fresh


def written(engine: Engine) -> dict[OutputKey, bytes]:
    return {key: output.payload() for key, output in engine.outputs().items()}


def said(engine: Engine) -> dict[StatusKey, bytes]:
    return {key: msgspec.json.encode(engine.status(key)) for key in engine.status_keys()}


@given(starts, histories)
@settings(max_examples=80, deadline=None)
def test_incremental_equals_from_scratch(start: list[Resource], history: list[Step]) -> None:
    """Any changes to a working fleet end as a start from scratch does, byte by byte, and the deltas add up to it."""
    followed = Followed(start)

    followed.follow(history)

    fresh = followed.from_scratch()
    assert written(followed.engine) == written(fresh)
    assert said(followed.engine) == said(fresh)
    assert followed.outputs == written(fresh)
    assert followed.statuses == said(fresh)


@given(starts, st.lists(resources, max_size=15))
@settings(max_examples=40, deadline=None)
def test_an_idle_run_changes_nothing(start: list[Resource], found: list[Resource]) -> None:
    """Setting what is already there returns an empty delta."""
    followed = Followed(start)
    followed.follow([Step(resource, remove=False, run=False) for resource in found])

    for resource in followed.state.values():
        followed.engine.set(resource)
    delta = followed.engine.run()

    assert (delta.outputs, delta.statuses, delta.addresses) == ({}, (), None)


@given(starts, histories)
@settings(max_examples=80, deadline=None)
def test_what_is_written_holds_together(start: list[Resource], history: list[Step]) -> None:
    """Whatever users write, no cluster gets an object that points nowhere, does nothing or has no cause."""
    followed = Followed(start)

    followed.follow(history)

    fleet = Fleet(followed)
    assert list(fleet.faults()) == []


@given(starts, histories, traffic_policies)
@settings(max_examples=40, deadline=None)
def test_a_policy_with_a_fault_changes_nothing(
    start: list[Resource], history: list[Step], policy: TrafficPolicy
) -> None:
    """A policy that is refused as such leaves what all others ask for as it was."""
    followed = Followed(start)
    followed.follow(history)
    before = written(followed.engine)
    spec = msgspec.structs.replace(policy.spec, policy=FAULTY)

    followed.follow([Step(TrafficPolicy(metadata=meta("oldest"), spec=spec), remove=False, run=False)])

    assert written(followed.engine) == before


class Fleet:
    """What each cluster knows once everything is written, and what is wrong with it."""

    def __init__(self, followed: Followed) -> None:
        self.outputs = followed.engine.outputs()
        self._collections = followed.engine._outputs
        self._state = followed.state
        domains = {
            found.metadata.name: found.spec.cluster_domain
            for found in followed.state.values()
            if isinstance(found, KubernetesCluster)
        }
        self._ports: dict[tuple[str, str], set[int]] = {}
        self._http: dict[tuple[str, str], set[int]] = {}
        for found in followed.state.values():
            if isinstance(found, Destination) and (service := found.spec.kube_service) is not None:
                where = service.ref.ref
                host = local_fqdn(where, domains.get(where.cluster) or DEFAULT_CLUSTER_DOMAIN)
                self._ports.setdefault((where.cluster, host), set()).update(port.port for port in service.ports)
                self._http.setdefault((where.cluster, host), set()).update(
                    port.port for port in service.ports if is_http(port)
                )
        # Filters go where a mesh has its root, which nobody knows while only its services are reported.
        self._half_known = {
            found.spec.kube_service.ref.cluster_name
            for found in followed.state.values()
            if isinstance(found, Destination)
            and found.spec.kube_service
            and found.spec.mesh
            and (Mesh.KIND, found.spec.mesh.ref) not in followed.state
        }
        self._owners: dict[tuple[str, str], set[StatusKey]] = {}
        self._subsets: dict[tuple[str, str], set[str]] = {}
        self._routes_named: set[tuple[str, str]] = set()
        self._filters: set[tuple[str, str]] = set()
        for key, output in self.outputs.items():
            match output.object:
                case ServiceEntry() as entry if not entry.spec.export_to:
                    for host in entry.spec.hosts:
                        self._ports.setdefault((key.cluster, host), set()).update(p.number for p in entry.spec.ports)
                        self._owners.setdefault((key.cluster, host), set()).update(output.parents)
                case DestinationRule() as rule if not rule.spec.export_to:
                    names = {subset.name for subset in rule.spec.subsets}
                    self._subsets.setdefault((key.cluster, rule.spec.host), set()).update(names)
                case VirtualService() as routes:
                    self._routes_named.update((key.cluster, route.name) for route in routes.spec.http if route.name)
                case EnvoyFilter() as filters:
                    self._filters.add((key.cluster, filters.metadata.name))

    def faults(self) -> Iterator[str]:
        """Everything that is wrong, for people."""
        for key in self.outputs:
            holders = [found.name for found in self._collections if key in found]
            if len(holders) != 1:
                yield f"{key} is written by {holders}"
        for key, output in self.outputs.items():
            for fault in (*self._cause(output), *self._contents(key.cluster, output)):
                yield f"{key}: {fault}"
        for (cluster, host), owners in self._owners.items():
            if len(owners) > 1:
                yield f"{cluster}: {host} is the name of {owners}"

    def _cause(self, output: Output) -> Iterator[str]:
        if not output.parents:
            yield "nobody asks for it"
        for parent in output.parents:
            if (parent.kind, parent.ref) not in self._state:
                yield f"asked for by {parent}, which is not there"

    def _contents(self, cluster: str, output: Output) -> Iterator[str]:
        match output.object:
            case DestinationRule() as rule:
                if not rule.spec.subsets and rule.spec.traffic_policy in (None, DestinationTraffic()):
                    yield "changes nothing"
                if (cluster, rule.spec.host) not in self._ports and not rule.spec.export_to:
                    yield f"is about {rule.spec.host}, which {cluster} does not know"
                names = [subset.name for subset in rule.spec.subsets]
                if len(set(names)) != len(names):
                    yield f"subsets {names} are not told apart"
            case VirtualService() as routes:
                yield from self._routes(cluster, routes)
            case Sidecar() as sidecar:
                [listener] = sidecar.spec.egress
                hosts = listener.hosts
                for namespace, _, host in (each.partition("/") for each in hosts):
                    if namespace == "*" and not self._ports.get((cluster, host)):
                        yield f"tells of {host}, which {cluster} does not know"
                if not hosts or list(hosts) != sorted(set(hosts)):
                    yield f"tells of {hosts}"
            case EnvoyFilter() as filters:
                for patch in filters.spec.config_patches:
                    found = patch.match.route_configuration
                    if (
                        found
                        and found.vhost
                        and found.vhost.route
                        and (cluster, found.vhost.route.name) not in self._routes_named
                    ):
                        yield f"is about routes called {found.vhost.route.name}, of which there is none"
            case AuthorizationPolicy() as rules:
                for rule in rules.spec.rules:
                    for source in rule.from_:
                        if any("nowhere" in principal for principal in source.source.principals):
                            yield "names a cluster that is not there"

    def _routes(self, cluster: str, found: VirtualService) -> Iterator[str]:
        (host,) = found.spec.hosts
        spoken = self._http.get((cluster, host), self._ports.get((cluster, host), set()))
        if not found.spec.http:
            yield "has no route"
        ends = [route.match for route in found.spec.http]
        for port in sorted({match.port for matches in ends for match in matches}):
            if () not in ends and (HttpMatch(port=port),) not in ends:
                yield f"has no route for what matches none at port {port or 'of any number'}"
        for i, route in enumerate(found.spec.http):
            if route.name and (cluster, route.name) not in self._filters and cluster not in self._half_known:
                yield f"route {i} is called {route.name}, and no filter is about that"
            if not route.match and i < len(found.spec.http) - 1:
                yield f"route {i} hides those behind it"
            for match in route.match:
                if match.port and match.port not in spoken:
                    yield f"route {i} is about port {match.port}, at which {host} does not speak HTTP"
            weights = [each.weight for each in route.route]
            if len(weights) > 1 and sum(weights) != 100:
                yield f"the weights of route {i} are {weights}"
            for target in self._targets(route):
                yield from (f"route {i}: {fault}" for fault in self._target(cluster, target))

    def _targets(self, route: HttpRoute) -> Iterator[RouteTarget]:
        yield from (each.destination for each in route.route)
        if route.mirror is not None:
            yield route.mirror

    def _target(self, cluster: str, target: RouteTarget) -> Iterator[str]:
        known = self._ports.get((cluster, target.host))
        if known is None:
            yield f"goes to {target.host}, which {cluster} does not know"
        elif target.port is not None and target.port.number not in known:
            yield f"goes to port {target.port.number} of {target.host}, which has {known}"
        if target.subset and target.subset not in self._subsets.get((cluster, target.host), ()):
            yield f"goes to subset {target.subset} of {target.host}, which is nowhere said"
