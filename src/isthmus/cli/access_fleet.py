"""What `meshctl access` reads: the management cluster or a saved fleet, changes on paper, and users' own policies.

Of destinations only those in question are typed and translated, and those that may be gateways; so what is asked about
one namespace costs little of what else there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.common import KubeServiceMatcher
from isthmus.api.discovery import Destination, Mesh, ServiceType, Workload
from isthmus.api.kinds import BY_KIND
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.parse import ParseFailure, parse
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.access_own import fault_of
from isthmus.cli.failure import Failure
from isthmus.cli.files import Document
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import Ref
from isthmus.translate.access.emission import Emission
from isthmus.translate.access.facts import problems_of
from isthmus.translate.access.reachability import Fleet, Roster, spelled
from isthmus.translate.facts import MeshFacts, ServiceFacts, mesh_facts
from isthmus.translate.selectors import Rule, Term, rules_of, selects, terms_of_rule, terms_of_service
from isthmus.translate.virtual_destinations.derivations import rules_behind

if TYPE_CHECKING:
    from pathlib import Path

Manifest = dict[str, Any]
Objects = dict[type[Resource], dict[Ref, Resource]]
Own = dict[str, dict[tuple[str, str], Manifest]]
"""By cluster, then by namespace and name, AuthorizationPolicies that are not ours."""

Place = tuple[str, str]
"""A cluster and a namespace."""

CLUSTER_ANNOTATION = "cluster.multicluster.solo.io/name"
FOUND: tuple[type[Resource], ...] = (Mesh, Workload, Destination, KubernetesCluster)
"""What the management plane keeps in its own namespace; what users write counts in any."""
READ: tuple[type[Resource], ...] = (*FOUND, VirtualMesh, AccessPolicy, VirtualGateway, VirtualDestination)
CHANGED = (
    "AccessPolicy", "VirtualMesh", "VirtualGateway", "VirtualDestination", "AuthorizationPolicy", "Mesh", "Destination",
)  # fmt: skip
YOUNGEST = "9999-12-31T23:59:59Z"  # a new object is younger than all that there are


class Found(msgspec.Struct):
    """A fleet as it was read."""

    objects: Objects
    own: Own
    unseen: tuple[str, ...] = ()
    """Of which clusters the users' own AuthorizationPolicies are not known, and why."""
    faults: tuple[str, ...] = ()
    """What is wrong with AccessPolicies that a change brings."""


class Deletion(msgspec.Struct, frozen=True):
    """An object that a change takes away."""

    resource: type[Resource] | None
    """None for an AuthorizationPolicy."""
    namespace: str
    name: str
    cluster: str = ""
    """That of an AuthorizationPolicy."""


class Changes(msgspec.Struct, frozen=True):
    """What is to be different."""

    documents: tuple[Document, ...] = ()
    deletions: tuple[Deletion, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.documents or self.deletions)


NO_CHANGES = Changes()


class Scope(msgspec.Struct, frozen=True):
    """Which destinations are in question: of *namespaces* (none: of any), and of one of *places* if they are given."""

    namespaces: frozenset[str] = frozenset()
    places: frozenset[Place] | None = None
    roots: frozenset[Place] = frozenset()
    """Root namespaces, whose policies may be about pods of any."""
    behind: Mapping[Term, Sequence[Rule]] = {}
    """What selects the services that are together behind one host name, by its terms."""

    def has(self, manifest: Manifest) -> bool:
        """Whether a Destination is in question, or those that are may depend on it: gateways lead to them."""
        service = _service(manifest)
        if (
            service.get("serviceType", "CLUSTER_IP") != "CLUSTER_IP"
            or service.get("externalAddresses")
            or "istio" in (service.get("workloadSelectorLabels") or {})
        ):
            return True
        where = _identity(service)
        place = (where.cluster, where.namespace)
        if place in self.roots or (
            (not self.namespaces or where.namespace in self.namespaces)
            and (self.places is None or place in self.places)
        ):
            return True
        if not self.behind:
            return False
        facts = _facts(service)
        return any(selects(rule, facts) for term in terms_of_service(facts) for rule in self.behind.get(term, ()))


def _service(manifest: Manifest) -> Manifest:
    return (manifest.get("spec") or {}).get("kubeService") or {}


def _identity(service: Manifest) -> Ref:
    where = service.get("ref") or {}
    return Ref(where.get("clusterName", ""), where.get("namespace", ""), where.get("name", ""))


def _facts(service: Manifest) -> ServiceFacts:
    """What selectors look at."""
    where = _identity(service)
    return ServiceFacts(where, where, where, service.get("labels") or {}, {}, (), ServiceType.CLUSTER_IP, ())


def found_in(
    documents: Iterable[Document],
    namespace: str,
    scope: Scope,
    changes: Changes = NO_CHANGES,
    *,
    only_changed: bool = False,
) -> Found:
    """The objects of a saved fleet; kinds that have no part in access are left out. Raises `Failure`.

    Of destinations there are those of *scope* and those on which they depend, now or after *changes*; with
    *only_changed* without those that *changes* cannot touch.
    """
    found = Found({kind: {} for kind in READ}, {})
    destinations: list[Document] = []
    others: list[Document] = []
    for each in documents:
        (destinations if each.manifest.get("kind") == Destination.KIND.kind else others).append(each)
    _add(found, others, namespace)
    new = Found({kind: {} for kind in READ}, {})
    _refuse_strangers(changes.documents)
    _add(new, changes.documents, namespace, once=True)
    roots = frozenset((mesh.cluster, mesh.root_namespace) for state in (found, new) for mesh in _meshes(state))
    places = None
    if only_changed and (rules := _touched(found, new, changes.deletions, namespace)) is not None:
        places = _places(destinations, rules)
    scope = Scope(scope.namespaces, None if places is None or places & roots else places, roots, _behind((found, new)))
    _add(found, (each for each in destinations if scope.has(each.manifest)), namespace)
    return found


def _behind(states: Iterable[Found]) -> dict[Term, list[Rule]]:
    """What VirtualDestinations select, and the services that have their host names, by terms."""
    found: dict[Term, list[Rule]] = {}
    for state in states:
        for virtual in state.objects[VirtualDestination].values():
            assert isinstance(virtual, VirtualDestination)
            # Of its host name's namespace, by which services are known; nothing for one such as ratings.global.
            _, _, rest = virtual.spec.hostname.partition(".")
            named = KubeServiceMatcher(namespaces=(rest.partition(".")[0],))
            for rule in (*rules_behind(virtual), named):
                for term in terms_of_rule(rule):
                    found.setdefault(term, []).append(rule)
    return found


def _places(destinations: Iterable[Document], rules: Sequence[Rule]) -> frozenset[Place]:
    """Where there are destinations that one of *rules* chooses: services beside them may have the same pods."""
    found = set()
    for facts in (_facts(_service(document.manifest)) for document in destinations):
        if any(selects(rule, facts) for rule in rules):
            found.add((facts.service.cluster, facts.service.namespace))
    return frozenset(found)


def _touched(found: Found, new: Found, deletions: Sequence[Deletion], namespace: str) -> tuple[Rule, ...] | None:
    """What chooses the destinations whose policies a change may touch; None if it may touch those of any."""
    rules: list[Rule] = []
    roots = {mesh.root_namespace for mesh in _meshes(found)}
    own = [(cluster, where) for cluster, policies in new.own.items() for where, _ in policies]
    own += [(each.cluster, each.namespace) for each in deletions if each.resource is None]
    for cluster, where in own:
        if where in roots:
            return None
        rules.append(KubeServiceMatcher(namespaces=(where,), clusters=(cluster,)))
    if any(objects for kind, objects in new.objects.items() if kind is not AccessPolicy):
        return None
    if any(deletion.resource not in (AccessPolicy, None) for deletion in deletions):
        return None
    gone = {Ref("", each.namespace or namespace, each.name) for each in deletions if each.resource is not None}
    for state in (found, new):
        for ref in gone | new.objects[AccessPolicy].keys():
            if isinstance(policy := state.objects[AccessPolicy].get(ref), AccessPolicy):
                rules += rules_of(policy.spec.destination_selector)
    return tuple(rules)


def _meshes(found: Found) -> Iterator[MeshFacts]:
    for ref, mesh in found.objects[Mesh].items():
        if isinstance(mesh, Mesh) and (facts := mesh_facts(ref, mesh)) is not None:
            yield facts


def _take_own(own: Own, deletion: Deletion) -> None:
    if own.get(deletion.cluster, {}).pop((deletion.namespace, deletion.name), None) is None:
        raise Failure(
            f"no AuthorizationPolicy {deletion.namespace}/{deletion.name} of a user is known on cluster "
            f"{deletion.cluster}, so it cannot be taken away",
            "`kubectl get authorizationpolicies -A` lists those of a cluster; ours go with what they come from",
        )


def _add(found: Found, documents: Iterable[Document], namespace: str, *, once: bool = False) -> None:
    """Put *documents* in place of what has their identity, which with *once* none of them may share."""
    errors = []
    for document in documents:
        manifest = document.manifest
        kind = BY_KIND.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))
        if manifest.get("kind") == AUTHORIZATION_POLICY.kind:
            _add_own(found.own, document, once=once)
        elif kind is not None and kind in found.objects:
            metadata = manifest.get("metadata")
            if isinstance(metadata, dict) and not metadata.get("namespace"):
                manifest = {**manifest, "metadata": {**metadata, "namespace": namespace}}
            resource = parse(manifest, document.source)
            if isinstance(resource, ParseFailure):
                errors.append(str(resource))
                continue
            if once and resource.ref in found.objects[kind]:
                raise _twice(document, kind.KIND.kind, resource.ref)
            found.objects[kind][resource.ref] = resource
    if errors:
        raise Failure("\n".join(errors), "mend the objects; the management plane can't read them either")


def _twice(document: Document, kind: str, ref: Ref) -> Failure:
    where = f" on cluster {ref.cluster}" if ref.cluster else ""
    return Failure(
        f"{document.source}: {kind} {ref.namespace}/{ref.name}{where} stands twice", "name every object once"
    )


def _add_own(own: Own, document: Document, *, once: bool) -> None:
    if (fault := fault_of(document.manifest)) is not None:
        raise Failure(f"{document.source}: AuthorizationPolicy: {fault}", "mend the object")
    metadata = document.manifest["metadata"]
    namespace, name = metadata.get("namespace") or "default", metadata["name"]
    cluster = (metadata.get("annotations") or {}).get(CLUSTER_ANNOTATION)
    if not cluster:
        raise Failure(
            f"{document.source}: AuthorizationPolicy {namespace}/{name} does not say on which cluster it is",
            f"name the cluster in its annotation {CLUSTER_ANNOTATION}",
        )
    if once and (namespace, name) in own.get(cluster, {}):
        raise _twice(document, AUTHORIZATION_POLICY.kind, Ref(cluster, namespace, name))
    manifest = {**document.manifest, "metadata": {**metadata, "namespace": namespace}}
    own.setdefault(cluster, {})[namespace, name] = manifest


def changed(found: Found, changes: Changes, namespace: str) -> Found:
    """*found* after *changes*. Raises `Failure` for what can't be read, or taken away."""
    after = Found(
        {kind: dict(objects) for kind, objects in found.objects.items()},
        {cluster: dict(policies) for cluster, policies in found.own.items()},
        found.unseen,
    )
    for deletion in changes.deletions:
        if deletion.resource is None:
            _take_own(after.own, deletion)
            continue
        ref = Ref("", deletion.namespace or namespace, deletion.name)
        if after.objects.get(deletion.resource, {}).pop(ref, None) is None:
            missing = deletion.resource.KIND
            raise Failure(
                f"there is no {missing.kind} {ref.namespace}/{ref.name} to take away",
                f"`meshctl get {missing.plural} -A` lists those that there are",
            )
    _add(after, changes.documents, namespace)
    clusters = {mesh.cluster for mesh in _meshes(after)}
    if strangers := sorted(after.own.keys() - found.own.keys() - clusters):
        raise Failure(
            f"AuthorizationPolicies are for cluster {', '.join(strangers)}, of which no mesh is known",
            f"the clusters with a mesh: {', '.join(sorted(clusters)) or 'none'}",
        )
    for kind, objects in after.objects.items():
        for ref, resource in objects.items():
            old = found.objects[kind].get(ref)
            if resource is not old and not resource.metadata.creation_timestamp:
                born = old.metadata.creation_timestamp if old is not None else YOUNGEST
                metadata = msgspec.structs.replace(resource.metadata, creation_timestamp=born)
                objects[ref] = msgspec.structs.replace(resource, metadata=metadata)
    after.faults = tuple(
        f"AccessPolicy {ref.namespace}/{ref.name} has a fault and allows nobody: {problem}"
        for ref, policy in after.objects[AccessPolicy].items()
        if isinstance(policy, AccessPolicy) and policy is not found.objects[AccessPolicy].get(ref)
        for problem in problems_of(policy.spec)
    )
    return after


def _refuse_strangers(documents: Sequence[Document]) -> None:
    """A change that would be left out would look like one that opens nothing."""
    for document in documents:
        api_version, kind = document.manifest.get("apiVersion"), document.manifest.get("kind")
        group = str(api_version).partition("/")[0]
        if kind == AUTHORIZATION_POLICY.kind and group != AUTHORIZATION_POLICY.group:
            raise Failure(f"{document.source}: {api_version} has no {kind}", f"{AUTHORIZATION_POLICY.group}/v1 has")
        known = [each.KIND for each in READ if each.KIND.kind == kind]
        if kind in CHANGED and known and (str(api_version), str(kind)) not in BY_KIND:
            raise Failure(f"{document.source}: {api_version} has no {kind}", f"{known[0].api_version} has")
        if kind not in CHANGED:
            raise Failure(
                f"{document.source}: {kind or 'what has no kind'} is none of the kinds whose change is shown on paper",
                f"name files that hold only {', '.join(CHANGED)}",
            )


def fleets(before: Found, after: Found | None, namespace: str) -> tuple[Fleet, Fleet]:
    """*before* and *after*, translated; one and the same where there is no *after*."""
    states = (before, after) if after is not None else (before,)
    emission = Emission([kind for kind in READ if any(state.objects[kind] for state in states)], namespace)
    for objects in before.objects.values():
        for resource in objects.values():
            emission.set(resource)
    first = _fleet(before, emission, Roster(_workloads(before)))
    if after is None:
        return first, first
    for kind, objects in after.objects.items():
        old = before.objects[kind]
        for ref in old.keys() - objects.keys():
            emission.remove(kind.KIND, ref)
        for ref, resource in objects.items():
            if resource is not old.get(ref):
                emission.set(resource)
    same = after.objects[Workload] == before.objects[Workload]
    return first, _fleet(after, emission, first.roster if same else Roster(_workloads(after)))


def _fleet(found: Found, emission: Emission, roster: Roster) -> Fleet:
    objects: Mapping[type[Resource], Mapping[Ref, Any]] = found.objects
    return Fleet(
        meshes=objects[Mesh],
        roster=roster,
        destinations=objects[Destination],
        emitted=emission.run(),
        own={cluster: tuple(policies.values()) for cluster, policies in found.own.items()},
    )


def _workloads(found: Found) -> Iterator[Workload]:
    """Those of Istio meshes that are known, without which nobody knows as whom they call."""
    meshes = {mesh.ref for mesh in _meshes(found)}
    for workload in found.objects[Workload].values():
        if isinstance(workload, Workload) and workload.spec.mesh and workload.spec.mesh.ref in meshes:
            yield workload


# --- clusters ---------------------------------------------------------------------------------------------------------


async def found_on(
    kubeconfig: Path | None,
    context: str,
    namespace: str,
    scope: Scope,
    contexts: Mapping[str, str],
    changes: Changes = NO_CHANGES,
    *,
    only_changed: bool = False,
) -> Found:
    """The fleet of the management cluster, and users' policies of all clusters that a context leads to.

    *contexts* are those that were named, by cluster; else one is taken that is called like the cluster.
    """
    import asyncio
    from functools import partial

    from isthmus.agent.ownership import ownership_labels
    from isthmus.cli.clusters import connect, contexts_of

    async with connect(kubeconfig, context) as cluster:
        management = cluster.connection.name
        listing = (cluster.list(kind.KIND, namespace if kind in FOUND else "") for kind in READ)
        lists = await asyncio.gather(*listing)
    found = found_in(
        (Document(item, f"cluster {management}") for listed in lists for item in listed.items),
        namespace,
        scope,
        changes,
        only_changed=only_changed,
    )
    known = contexts_of(kubeconfig)
    clusters = sorted({mesh.cluster for mesh in _meshes(found)})
    reading = {name: contexts.get(name, name) for name in clusters if name in contexts or name in known}
    labels = [ownership_labels(name, namespace) for name in reading]
    read = await asyncio.gather(*map(partial(_own_policies, kubeconfig), reading.values(), labels))
    unseen = [f"{name}: no context leads there (--cluster-context)" for name in clusters if name not in reading]
    for name, policies in zip(reading, read, strict=True):
        if isinstance(policies, str):
            unseen.append(f"{name}: {policies}")
        else:
            found.own[name] = {(each["metadata"]["namespace"], each["metadata"]["name"]): each for each in policies}
    found.unseen = tuple(sorted(unseen))
    return found


async def _own_policies(kubeconfig: Path | None, context: str, ours: dict[str, str]) -> list[Manifest] | str:
    """The AuthorizationPolicies behind *context* without our labels, or why they are not known."""
    from isthmus.agent.ownership import is_owned
    from isthmus.cli.clusters import connect
    from isthmus.kube import KubeError, NotFound

    try:
        async with connect(kubeconfig, context) as cluster:
            listed = await cluster.list(AUTHORIZATION_POLICY)
    except NotFound:
        return []  # a cluster without Istio's definitions
    except KubeError as error:
        return str(error)
    return [item for item in listed.items if not is_owned(item, ours)]


def names_in(found: Found) -> list[str]:
    """The names of all workloads and services that were read."""
    kubernetes = (each.spec.kubernetes for each in found.objects[Workload].values() if isinstance(each, Workload))
    services = (each.spec.kube_service for each in found.objects[Destination].values() if isinstance(each, Destination))
    refs = [each.controller.ref for each in kubernetes if each is not None]
    return [spelled(ref) for ref in (*refs, *(each.ref.ref for each in services if each is not None))]


async def called_names(kubeconfig: Path | None, context: str, namespace: str) -> list[str]:
    """The names of all workloads and services, for completion; may repeat itself. Raises `KubeError`."""
    import asyncio

    from isthmus.cli.clusters import connect

    async with connect(kubeconfig, context) as cluster:
        lists = await asyncio.gather(*(cluster.list(kind.KIND, namespace) for kind in (Workload, Destination)))
    names = []
    for item in (item for listed in lists for item in listed.items):
        spec = item.get("spec") or {}
        where = (spec.get("kubernetes") or {}).get("controller") or (spec.get("kubeService") or {}).get("ref")
        if where:
            names.append(f"{where.get('namespace')}/{where.get('name')}@{where.get('clusterName')}")
    return sorted(names)
