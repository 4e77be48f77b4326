"""The wiring: which fact each kind yields, and which results read which facts.

`Discovery` holds facts, never manifests, and recomputes what a change touches. It does no I/O: the agent feeds it what
it watches and reports what `run` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import msgspec

from isthmus.api.base import Resource
from isthmus.discovery import facts, inputs, meshes
from isthmus.discovery.destinations import Block, FoundDestination, block, find_destination
from isthmus.discovery.facts import ControllerFacts, NamespaceFacts, NodeFacts, PodFacts, ServiceFacts, SliceFacts
from isthmus.discovery.inputs import CONTROLLER_KINDS, INPUT_KINDS, Manifest
from isthmus.discovery.meshes import ControlPlane, FoundMesh, Injector, MeshConfigFacts, Roster
from isthmus.discovery.naming import Claim, Site, settle_name
from isthmus.discovery.workloads import FoundWorkload, find_workload, governing_mesh, injected
from isthmus.flow import Collection, Fetch, Graph, Index, Source
from isthmus.model import kinds
from isthmus.model.problem import Problem
from isthmus.model.ref import Kind, ObjectKey

Place = tuple[str, str]
"""Namespace and name."""

ControllerKey = tuple[str, str, str]
"""Namespace, kind and name."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """A problem and the object of the cluster that has it."""

    object: ObjectKey
    problem: Problem

    def __str__(self) -> str:
        at = f"{self.object.namespace}/{self.object.name}" if self.object.namespace else self.object.name
        return f"{self.object.kind} {at} {self.problem}"


class _Sink(NamedTuple):
    """One fact that is taken from the objects of a kind: into which source, at which key, how.

    *read* gets the object and the fact that is there already.
    """

    source: Source[Any, Any]
    key: Callable[[Place], Any]
    read: Callable[[Any, Any], Any]


class _Found(Protocol):
    """A row of a derived collection that may be reported."""

    @property
    def claim(self) -> Claim: ...
    @property
    def resource(self) -> Resource | None: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...


class _Output:
    """The objects of one derived collection as they are reported: each under a name of its own, and their problems."""

    def __init__(self, rows: Collection[Any, Any], origin: Callable[[Any], ObjectKey]) -> None:
        self._rows: Collection[Any, _Found] = rows
        self._tap = self._rows.tap()
        self._origin = origin
        self._plain: dict[Any, str] = {}
        self._claimants: dict[str, tuple[Any, ...]] = {}
        """The rows that want a name; nearly always one."""
        self._reported: dict[Any, ObjectKey] = {}
        self.problems: dict[ObjectKey, tuple[Problem, ...]] = {}

    def collect(self, changes: dict[ObjectKey, Resource | None]) -> None:
        """Add what changed since the last call to *changes*."""
        taken = self._tap.take()
        contested: dict[str, None] = {}
        for row, found in taken.items():
            self._note_problems(row, found)
            contested.update(dict.fromkeys(self._note_claim(row, found)))
        concerned = dict.fromkeys(row for plain in contested for row in self._claimants.get(plain, ()))
        gone = [row for row in taken if row not in concerned]
        named = {row: self._resource(row) for row in concerned}
        # A name may pass from one object to another, so all are given up before any is taken.
        changed = {row: to for row, to in named.items() if row in taken or self._reported.get(row) != to.key}
        for row in (*gone, *changed):
            before = self._reported.pop(row, None)
            if before is not None:
                changes[before] = None
        for row, resource in changed.items():
            key = self._reported[row] = resource.key
            changes[key] = resource

    def _note_problems(self, row: Any, found: _Found | None) -> None:
        origin = self._origin(row)
        if found is not None and found.problems:
            self.problems[origin] = found.problems
        else:
            self.problems.pop(origin, None)

    def _note_claim(self, row: Any, found: _Found | None) -> tuple[str, ...]:
        """Bring the claim of *row* up to date; the names for which claimants may have changed."""
        old = self._plain.pop(row, None)
        if old is not None:
            others = tuple(other for other in self._claimants.pop(old) if other != row)
            if others:
                self._claimants[old] = others
        if found is None or found.resource is None:
            return (old,) if old is not None else ()
        new = self._plain[row] = found.resource.metadata.name
        self._claimants[new] = (*self._claimants.get(new, ()), row)
        return (new,) if old is None or old == new else (old, new)

    def _resource(self, row: Any) -> Resource:
        """What to report of *row*, under the name that it gets."""
        found = self._rows.get(row)
        assert found is not None
        assert found.resource is not None
        claimants = self._claimants[self._plain[row]]
        if len(claimants) == 1:
            return found.resource
        rivals = [rival.claim for rival in map(self._rows.get, claimants) if rival is not None]
        metadata = found.resource.metadata
        name = settle_name(metadata.name, found.claim, rivals)
        return msgspec.structs.replace(found.resource, metadata=msgspec.structs.replace(metadata, name=name))


class Discovery:
    """Everything discovered on one cluster, kept up to date.

    Feed it changes in any order, then `run`: what comes out depends on the present objects alone. The one exception is
    an unreadable mesh config, see `meshes.mesh_config`.
    """

    def __init__(self, cluster: str, agent_namespace: str, namespace: str | None = None) -> None:
        """For the cluster registered as *cluster*; results are for *namespace* of the management cluster, the agent's
        own by default."""
        site = Site.of(cluster, agent_namespace, namespace or agent_namespace)
        graph = self._graph = Graph()

        nodes: Source[str, NodeFacts] = graph.source("nodes")
        namespaces: Source[str, NamespaceFacts] = graph.source("namespaces")
        pods: Source[Place, PodFacts] = graph.source("pods")
        tags: Source[str, tuple[str, str]] = graph.source("revision tags")
        configs: Source[Place, MeshConfigFacts] = graph.source("mesh configs")
        injectors: Source[Place, Injector] = graph.source("injectors")
        planes: Source[Place, ControlPlane] = graph.source("control planes")
        controllers: Source[ControllerKey, ControllerFacts] = graph.source("controllers")
        services: Source[Place, ServiceFacts] = graph.source("services")
        slices: Source[Place, SliceFacts] = graph.source("endpoint slices")
        cluster_itself: Source[str, bool] = graph.source("cluster")
        cluster_itself.set(cluster, True)

        plane_claims: Index[str, Place, ControlPlane] = graph.index(
            "names of control planes", planes, lambda _, plane: (plane.plain_name,)
        )
        regions = graph.map("regions of nodes", nodes, lambda _, node: node.region or None)
        all_regions = graph.index("regions", regions, lambda _node, _region: (cluster,))

        def cluster_region(fetch: Fetch, key: str, _: bool) -> str | None:
            return min((region for _, region in fetch.group(all_regions, key)), default=None)

        region = graph.derive("region", cluster_itself, cluster_region)

        def found_mesh(fetch: Fetch, place: Place, plane: ControlPlane) -> FoundMesh:
            claims = [other.claim for _, other in fetch.group(plane_claims, plane.plain_name)]
            name = settle_name(plane.plain_name, plane.claim, claims)
            config = fetch.get(configs, (place[0], plane.config_map))
            return meshes.find_mesh(site, plane, name, config, fetch.get(region, cluster) or "")

        found_meshes = graph.derive("meshes", planes, found_mesh)
        all_meshes = graph.index("all meshes", found_meshes, lambda _place, _found: (cluster,))
        all_tags = graph.index("all tags", tags, lambda _name, _tag: (cluster,))

        def the_roster(fetch: Fetch, key: str, _: bool) -> Roster:
            found = [mesh for _, mesh in fetch.group(all_meshes, key)]
            rules = [(mesh, fetch.get(injectors, (mesh.claim.namespace, mesh.injector))) for mesh in found]
            return meshes.roster(site, rules, [tag for _, tag in fetch.group(all_tags, key)])

        roster = graph.derive("roster", cluster_itself, the_roster)

        proxied: Index[ControllerKey, Place, PodFacts] = graph.index(
            "pods with a proxy", pods, lambda place, pod: ((place[0], *pod.controller),) if pod.proxied else ()
        )

        def found_workload(fetch: Fetch, key: ControllerKey, controller: ControllerFacts) -> FoundWorkload | None:
            members = fetch.get(roster, cluster)
            if members is None or not members.members:
                return None
            namespace = fetch.get(namespaces, key[0])
            member, problems = governing_mesh(controller, namespace, members)
            if member is None or not (injected(controller, namespace, members, member) or fetch.group(proxied, key)):
                return None
            return find_workload(site, key[1], controller, member.ref, problems)

        workloads = graph.derive("workloads", controllers, found_workload)
        by_label: Index[tuple[str, str, str], ControllerKey, FoundWorkload] = graph.index(
            "workloads by label",
            workloads,
            lambda key, workload: [(key[0], label, value) for label, value in workload.pod_labels.items()],
        )

        def found_block(fetch: Fetch, place: Place, endpoint_slice: SliceFacts) -> Block:
            namespace = place[0]
            labels_of: dict[tuple[str, str], dict[str, str] | None] = {}

            def pod_labels(pod: str) -> dict[str, str] | None:
                facts = fetch.get(pods, (namespace, pod))
                if facts is None:
                    return None
                if facts.controller not in labels_of:
                    workload = fetch.get(workloads, (namespace, *facts.controller))
                    labels_of[facts.controller] = workload.pod_labels if workload is not None else None
                return labels_of[facts.controller]

            return block(endpoint_slice, pod_labels, lambda node: fetch.get(nodes, node))

        blocks = graph.derive("endpoint blocks", slices, found_block)
        by_service: Index[Place, Place, Block] = graph.index(
            "endpoint blocks by service",
            blocks,
            lambda place, one: ((place[0], one.service),),
        )

        def found_destination(fetch: Fetch, place: Place, service: ServiceFacts) -> FoundDestination | None:
            backing: list[FoundWorkload] = []
            if service.selector:
                # Every workload that the selector matches is in the group of each of its pairs; the smallest is least
                # to look through, and which one is read makes no difference to the result.
                pairs = [(place[0], label, value) for label, value in sorted(service.selector.items())]
                smallest = min(pairs, key=lambda pair: by_label.size(pair))
                wanted = service.selector.items()
                backing = [w for _, w in fetch.group(by_label, smallest) if wanted <= w.pod_labels.items()]
            if backing:
                mesh = backing[0].mesh
            elif service.enabled:
                members = fetch.get(roster, cluster)
                if members is None or members.default is None:
                    return None
                mesh = members.default.ref
            else:
                return None
            return find_destination(
                site,
                service,
                mesh,
                backing,
                [one for _, one in fetch.group(by_service, place)] if backing else (),
                lambda node: fetch.get(nodes, node),
            )

        destinations = graph.derive("destinations", services, found_destination)

        def sinks(kind: Kind) -> tuple[_Sink, ...]:
            return (
                _Sink(
                    controllers,
                    lambda place: (place[0], kind.kind, place[1]),
                    lambda view, _: facts.controller_facts(site, kind.kind, view),
                ),
            )

        by_place, by_name = (lambda place: place), (lambda place: place[1])
        self._intake: dict[Kind, tuple[type[Any], tuple[_Sink, ...]]] = {
            kinds.NAMESPACE: (
                inputs.MetadataView,
                (_Sink(namespaces, by_name, lambda view, _: facts.namespace_facts(view)),),
            ),
            kinds.NODE: (inputs.NodeView, (_Sink(nodes, by_name, lambda view, _: facts.node_facts(view)),)),
            kinds.CONFIG_MAP: (
                inputs.ConfigMapView,
                (
                    _Sink(configs, by_place, lambda view, known: meshes.mesh_config(view, known and known.config)),
                    _Sink(injectors, by_place, lambda view, _: meshes.injector(view)),
                ),
            ),
            kinds.MUTATING_WEBHOOK_CONFIGURATION: (
                inputs.MetadataView,
                (_Sink(tags, by_name, lambda view, _: meshes.revision_tag(view)),),
            ),
            **{kind: (inputs.ControllerView, sinks(kind)) for kind in CONTROLLER_KINDS},
            kinds.DEPLOYMENT: (
                inputs.ControllerView,
                (
                    *sinks(kinds.DEPLOYMENT),
                    _Sink(planes, by_place, lambda view, _: meshes.control_plane(site, view)),
                ),
            ),
            kinds.POD: (inputs.PodView, (_Sink(pods, by_place, lambda view, _: facts.pod_facts(view)),)),
            kinds.SERVICE: (
                inputs.ServiceView,
                (_Sink(services, by_place, lambda view, _: facts.service_facts(site, view)),),
            ),
            kinds.ENDPOINT_SLICE: (
                inputs.EndpointSliceView,
                (_Sink(slices, by_place, lambda view, _: facts.slice_facts(view)),),
            ),
        }
        self._outputs = (
            _Output(found_meshes, lambda place: _key(kinds.DEPLOYMENT, place)),
            _Output(workloads, lambda key: _key(_CONTROLLERS[key[1]], (key[0], key[2]))),
            _Output(destinations, lambda place: _key(kinds.SERVICE, place)),
        )
        self._fed: dict[Kind, set[Place]] = {kind: set() for kind in self._intake}
        self._faults: dict[ObjectKey, Problem] = {}
        self._planes, self._configs, self._injectors = planes, configs, injectors

    def feed(self, kind: Kind, key: ObjectKey, manifest: Manifest | None) -> None:
        """Take note of *manifest* as the present state of *key*, None if it is gone. Effective at the next `run`.

        Kinds and names that discovery does not read are ignored. An object that is not what its kind promises counts
        as absent and is a finding.
        """
        if kind not in self._intake or not inputs.reads(kind, key.name):
            return
        view_type, sinks = self._intake[kind]
        place = (key.namespace, key.name)
        self._faults.pop(key, None)
        view = None
        if manifest is None:
            self._fed[kind].discard(place)
        else:
            self._fed[kind].add(place)
            try:
                view = msgspec.convert(manifest, view_type)
            except msgspec.ValidationError as error:
                what, _, path = str(error).partition(" - at `$.")
                self._faults[key] = Problem(path.removesuffix("`"), "InvalidObject", f"cannot be read: {what}")
        for sink in sinks:
            row = sink.key(place)
            sink.source.set(row, None if view is None else sink.read(view, sink.source.get(row)))

    def replace(self, kind: Kind, items: Iterable[Manifest]) -> None:
        """Take note of *items* as all objects of *kind*, as after a new list."""
        present = {manifest_key(kind, item): item for item in items}
        places = {(key.namespace, key.name) for key in present}
        for place in self._fed.get(kind, set()) - places:
            self.feed(kind, _key(kind, place), None)
        for key, item in present.items():
            self.feed(kind, key, item)

    def run(self) -> dict[ObjectKey, Resource | None]:
        """What changed among the discovered objects since the last run; None for an object that is gone."""
        self._graph.run()
        changes: dict[ObjectKey, Resource | None] = {}
        for output in self._outputs:
            output.collect(changes)
        return changes

    def problems(self) -> tuple[Finding, ...]:
        """What is wrong in the cluster as of the last run, by object."""
        found = [Finding(key, problem) for key, problem in self._faults.items()]
        for output in self._outputs:
            found += [Finding(key, problem) for key, problems in output.problems.items() for problem in problems]
        for place, rules in self._injectors.items():
            found += [Finding(_key(kinds.CONFIG_MAP, place), problem) for problem in rules.problems]
        return tuple(sorted(found))

    @property
    def complete(self) -> bool:
        """Whether what is not reported is known to be gone.

        False while a control plane has a mesh config that cannot be read and never could: what it governs is unknown
        then, and nothing that was reported earlier may be deleted for it.
        """
        configs = (self._configs.get((place[0], plane.config_map)) for place, plane in self._planes.items())
        return all(config is None or config.config is not None for config in configs)

    @property
    def root_namespaces(self) -> frozenset[str]:
        """Those of the meshes as of what was fed last: policies there are for the pods of all namespaces."""
        return frozenset(namespace for (namespace, _), _ in self._planes.items())

    @property
    def evaluations(self) -> int:
        """Functions evaluated since the start: what a change cost."""
        return self._graph.evaluations


def discover(
    cluster: str, objects: Iterable[Manifest], *, agent_namespace: str = "gloo-mesh"
) -> tuple[tuple[Resource, ...], tuple[Finding, ...]]:
    """What is discovered from *objects* of *cluster*, from scratch: the results by key, and what is wrong.

    Objects of other kinds are ignored.
    """
    discovery = Discovery(cluster, agent_namespace)
    for item in objects:
        kind = _KINDS.get((item.get("apiVersion"), item.get("kind")))
        if kind is not None:
            discovery.feed(kind, manifest_key(kind, item), item)
    results = discovery.run()
    return tuple(r for _, r in sorted(results.items()) if r is not None), discovery.problems()


def manifest_key(kind: Kind, manifest: Manifest) -> ObjectKey:
    """The identity of *manifest*; a namespaced object that names no namespace is in ``default``."""
    metadata = manifest.get("metadata") or {}
    namespace = (metadata.get("namespace") or "default") if kind.namespaced else ""
    return ObjectKey(kind.api_version, kind.kind, namespace, metadata.get("name") or "")


_KINDS: dict[tuple[Any, Any], Kind] = {(kind.api_version, kind.kind): kind for kind in INPUT_KINDS}
_CONTROLLERS = {kind.kind: kind for kind in CONTROLLER_KINDS}


def _key(kind: Kind, place: Place) -> ObjectKey:
    return ObjectKey(kind.api_version, kind.kind, *place)
