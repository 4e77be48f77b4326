"""What `meshctl access` reads: the management cluster or a saved fleet, changes on paper, and users' own policies.

Of destinations only those in question are typed and translated, and those that may be gateways; so what is asked about
one namespace costs little of what else there is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.kinds import BY_KIND
from isthmus.api.parse import ParseFailure, parse
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.failure import Failure
from isthmus.cli.files import Document
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import Kind, Ref
from isthmus.translate.access.emission import Emission
from isthmus.translate.access.reachability import Fleet

if TYPE_CHECKING:
    from pathlib import Path

Manifest = dict[str, Any]
Objects = dict[type[Resource], dict[Ref, Resource]]
Own = dict[str, dict[tuple[str, str], Manifest]]
"""By cluster, then by namespace and name, AuthorizationPolicies that are not ours."""

CLUSTER_ANNOTATION = "cluster.multicluster.solo.io/name"
READ: tuple[type[Resource], ...] = (Mesh, Workload, Destination, VirtualMesh, AccessPolicy)
YOUNGEST = "9999-12-31T23:59:59Z"  # a new object is younger than all that there are


class Found(msgspec.Struct):
    """A fleet as it was read."""

    objects: Objects
    own: Own
    unseen: tuple[str, ...] = ()
    """Of which clusters the users' own AuthorizationPolicies are not known, and why."""


class Deletion(msgspec.Struct, frozen=True):
    """An object that a change takes away."""

    kind: Kind
    namespace: str
    name: str


class Changes(msgspec.Struct, frozen=True):
    """What is to be different."""

    documents: tuple[Document, ...] = ()
    deletions: tuple[Deletion, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.documents or self.deletions)


def found_in(documents: Iterable[Document], namespace: str, scope: Collection[str]) -> Found:
    """The objects of a saved fleet; kinds that have no part in access are left out. Raises `Failure`."""
    found = Found({kind: {} for kind in READ}, {})
    _add(found, documents, namespace, scope)
    return found


def _add(found: Found, documents: Iterable[Document], namespace: str, scope: Collection[str]) -> None:
    """Put *documents* in place of what has their identity."""
    errors = []
    for document in documents:
        manifest = document.manifest
        kind = BY_KIND.get((str(manifest.get("apiVersion")), str(manifest.get("kind"))))
        if manifest.get("kind") == AUTHORIZATION_POLICY.kind:
            _add_own(found.own, document)
        elif kind is None or kind not in found.objects or (kind is Destination and not in_scope(manifest, scope)):
            continue
        else:
            metadata = manifest.get("metadata")
            if isinstance(metadata, dict) and not metadata.get("namespace"):
                manifest = {**manifest, "metadata": {**metadata, "namespace": namespace}}
            resource = parse(manifest, document.source)
            if isinstance(resource, ParseFailure):
                errors.append(str(resource))
            else:
                found.objects[kind][resource.ref] = resource
    if errors:
        raise Failure("\n".join(errors), "mend the objects; the management plane can't read them either")


def _add_own(own: Own, document: Document) -> None:
    metadata = document.manifest.get("metadata") or {}
    namespace, name = metadata.get("namespace") or "default", metadata.get("name", "")
    cluster = (metadata.get("annotations") or {}).get(CLUSTER_ANNOTATION)
    if not cluster:
        raise Failure(
            f"{document.source}: AuthorizationPolicy {namespace}/{name} does not say on which cluster it is",
            f"name the cluster in its annotation {CLUSTER_ANNOTATION}",
        )
    manifest = {**document.manifest, "metadata": {**metadata, "namespace": namespace}}
    own.setdefault(cluster, {})[namespace, name] = manifest


def in_scope(manifest: Manifest, scope: Collection[str]) -> bool:
    """Whether a Destination is of one of the namespaces in *scope* (none: of any), or may be a gateway."""
    service = (manifest.get("spec") or {}).get("kubeService") or {}
    return (
        not scope
        or (service.get("ref") or {}).get("namespace") in scope
        or service.get("serviceType", "CLUSTER_IP") != "CLUSTER_IP"
        or bool(service.get("externalAddresses"))
        or "istio" in (service.get("workloadSelectorLabels") or {})
    )


def changed(found: Found, changes: Changes, namespace: str) -> Found:
    """*found* after *changes*. Raises `Failure` for what can't be read, or taken away."""
    after = Found(
        {kind: dict(objects) for kind, objects in found.objects.items()},
        {cluster: dict(policies) for cluster, policies in found.own.items()},
        found.unseen,
    )
    for deletion in changes.deletions:
        ref = Ref("", deletion.namespace or namespace, deletion.name)
        if after.objects.get(BY_KIND[deletion.kind.api_version, deletion.kind.kind], {}).pop(ref, None) is None:
            raise Failure(
                f"there is no {deletion.kind.kind} {ref.namespace}/{ref.name} to take away",
                f"`meshctl get {deletion.kind.plural} -A` lists those that there are",
            )
    _refuse_strangers(changes.documents)
    _add(after, changes.documents, namespace, ())
    for kind, objects in after.objects.items():
        for ref, resource in objects.items():
            old = found.objects[kind].get(ref)
            if resource is not old and not resource.metadata.creation_timestamp:
                born = old.metadata.creation_timestamp if old is not None else YOUNGEST
                metadata = msgspec.structs.replace(resource.metadata, creation_timestamp=born)
                objects[ref] = msgspec.structs.replace(resource, metadata=metadata)
    return after


def _refuse_strangers(documents: Sequence[Document]) -> None:
    """A change that would be left out would look like one that opens nothing."""
    for document in documents:
        kind = document.manifest.get("kind")
        if kind not in (*(read.KIND.kind for read in READ), AUTHORIZATION_POLICY.kind):
            raise Failure(
                f"{document.source}: {kind} has no part in who may call whom",
                "name files with AccessPolicies, VirtualMeshes, AuthorizationPolicies or discovered objects only",
            )


def fleets(before: Found, after: Found | None) -> tuple[Fleet, Fleet]:
    """*before* and *after*, translated; one and the same where there is no *after*."""
    emission = Emission()
    for objects in before.objects.values():
        for resource in objects.values():
            emission.set(resource)
    first = _fleet(before, emission)
    if after is None:
        return first, first
    for kind, objects in after.objects.items():
        old = before.objects[kind]
        for ref in old.keys() - objects.keys():
            emission.remove(kind.KIND, ref)
        for ref, resource in objects.items():
            if resource is not old.get(ref):
                emission.set(resource)
    return first, _fleet(after, emission)


def _fleet(found: Found, emission: Emission) -> Fleet:
    objects: Mapping[type[Resource], Mapping[Ref, Any]] = found.objects
    return Fleet(
        meshes=objects[Mesh],
        workloads=objects[Workload],
        destinations=objects[Destination],
        emitted=emission.run(),
        own={cluster: tuple(policies.values()) for cluster, policies in found.own.items()},
    )


# --- clusters ---------------------------------------------------------------------------------------------------------


async def found_on(
    kubeconfig: Path | None, context: str, namespace: str, scope: Collection[str], contexts: Mapping[str, str]
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
        # Policies count in whatever namespace they are; what agents found is in that of the management plane.
        where = {kind: "" if kind in (VirtualMesh, AccessPolicy) else namespace for kind in READ}
        lists = await asyncio.gather(*(cluster.list(kind.KIND, where[kind]) for kind in READ))
    found = found_in(
        (Document(item, f"cluster {management}") for listed in lists for item in listed.items),
        namespace,
        scope,
    )
    known = contexts_of(kubeconfig)
    clusters = sorted(
        {
            m.spec.istio.installation.cluster
            for m in found.objects[Mesh].values()
            if isinstance(m, Mesh) and m.spec.istio
        }
    )
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
