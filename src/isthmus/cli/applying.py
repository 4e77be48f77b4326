"""Writing an installation's objects to a cluster, waiting for what they start, and taking them away again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

from isthmus.api.kinds import KINDS
from isthmus.cli.failure import Failure
from isthmus.install import PART_OF, created_once
from isthmus.istio.kinds import ISTIO_KINDS
from isthmus.kube import AlreadyExists, Changed, Conflict, KubeClient, KubeError, NotFound, Removed, Replaced
from isthmus.model import kinds
from isthmus.model.ref import Kind

Manifest = dict[str, Any]
T = TypeVar("T")

MANAGER = "meshctl"
INSTALLED = {PART_OF: "gloo-mesh"}
"""What tells the objects of an installation from everybody else's."""

KNOWN_KINDS: dict[tuple[str, str], Kind] = {
    (kind.api_version, kind.kind): kind
    for kind in (
        *(value for value in vars(kinds).values() if isinstance(value, Kind)),
        *(resource.KIND for resource in KINDS),
        *ISTIO_KINDS,
    )
}


def kind_of(manifest: Manifest) -> Kind:
    """The kind of *manifest*, which is one that we know."""
    return KNOWN_KINDS[manifest["apiVersion"], manifest["kind"]]


async def apply_all(
    cluster: KubeClient, manifests: Iterable[Manifest], *, labels: dict[str, str] | None = None
) -> None:
    """Apply *manifests*, what others need first: namespaces, definitions (until they are served), then the rest.

    Objects that are made once stay as they are if they exist. *labels* are added to each object.
    """
    items = [_with_labels(manifest, labels or {}) for manifest in manifests]
    for item in items:
        if kind_of(item) == kinds.NAMESPACE:
            await apply_one(cluster, item)
    definitions = [item for item in items if kind_of(item) == kinds.CUSTOM_RESOURCE_DEFINITION]
    await _together(apply_one(cluster, item) for item in definitions)
    await _together(_served(cluster, item) for item in definitions)
    rest = [item for item in items if kind_of(item) not in (kinds.NAMESPACE, kinds.CUSTOM_RESOURCE_DEFINITION)]
    # A pod that starts finds its account, rights and secrets.
    await _together(apply_one(cluster, item) for item in rest if kind_of(item) != kinds.DEPLOYMENT)
    await _together(apply_one(cluster, item) for item in rest if kind_of(item) == kinds.DEPLOYMENT)


async def _together(work: Iterable[Any]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for one in work:
            tasks.create_task(one)


async def apply_one(cluster: KubeClient, manifest: Manifest) -> None:
    """Apply one object of an installation. Fields that others set on an object of ours are taken over.

    Raises `Failure` if an object of that name belongs to somebody else.
    """
    kind = kind_of(manifest)
    if created_once(manifest):
        await create_missing(cluster, manifest)
        return
    try:
        await cluster.apply(kind, manifest, manager=MANAGER)
    except Conflict as conflict:
        metadata = manifest["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        present = await cluster.get(kind, namespace, name)
        # Definitions have names that are ours alone; an earlier product or chart may have made them.
        if kind != kinds.CUSTOM_RESOURCE_DEFINITION and not is_installed(present):
            raise Failure(
                f"{kind.kind} {namespace}/{name} exists and belongs to {', '.join(conflict.managers)}",
                "delete or rename it, or install into another namespace with --namespace",
            ) from conflict
        await cluster.apply(kind, manifest, manager=MANAGER, force=True)


async def create_missing(cluster: KubeClient, manifest: Manifest) -> bool:
    """Create *manifest* unless an object of that name exists; whether it was created."""
    try:
        await cluster.create(kind_of(manifest), manifest)
    except AlreadyExists:
        return False
    return True


async def _served(cluster: KubeClient, definition: Manifest) -> None:
    def established(found: Manifest | None) -> bool | None:
        conditions = (found or {}).get("status", {}).get("conditions") or ()
        return any(c["type"] == "Established" and c["status"] == "True" for c in conditions) or None

    name = definition["metadata"]["name"]
    await wait_for(cluster, kinds.CUSTOM_RESOURCE_DEFINITION, "", name, established, seconds=30)


async def wait_for(
    cluster: KubeClient,
    kind: Kind,
    namespace: str,
    name: str,
    wanted: Callable[[Manifest | None], T | None],
    *,
    seconds: float,
) -> T:
    """What *wanted* returns of the object (None: it is not there) as soon as that is not None.

    Raises TimeoutError after *seconds*.
    """
    async with asyncio.timeout(seconds):
        async with aclosing(cluster.watch(kind, namespace, fields=f"metadata.name={name}")) as events:
            async for event in events:
                match event:
                    case Replaced(items):
                        found = wanted(items[0] if items else None)
                    case Changed(item):
                        found = wanted(item)
                    case Removed():
                        found = wanted(None)
                if found is not None:
                    return found
    raise AssertionError("a watch never ends by itself")


async def wait_until_available(cluster: KubeClient, namespace: str, name: str, *, seconds: float) -> None:
    """Return when Deployment *name* has an available pod of its newest version. Raises `Failure` that says why not."""

    def available(deployment: Manifest | None) -> bool | None:
        status = (deployment or {}).get("status", {})
        current = status.get("observedGeneration", 0) >= (deployment or {}).get("metadata", {}).get("generation", 0)
        updated = status.get("updatedReplicas", 0) >= 1 and status.get("availableReplicas", 0) >= 1
        return (current and updated) or None

    try:
        await wait_for(cluster, kinds.DEPLOYMENT, namespace, name, available, seconds=seconds)
    except TimeoutError as error:
        reasons = await pod_troubles(cluster, namespace, name)
        raise Failure(
            f"Deployment {namespace}/{name} has no available pod after {seconds:.0f} s"
            + ("".join(f"\n{reason}" for reason in reasons)),
            f"look at `kubectl --context {cluster.connection.name} -n {namespace} describe pods -l app={name}` "
            f"and at the pod's log",
        ) from error


async def pod_troubles(cluster: KubeClient, namespace: str, name: str) -> list[str]:
    """What keeps the pods of *name* from running, as far as their statuses say."""
    try:
        pods = (await cluster.list(kinds.POD, namespace, labels=f"app={name}")).items
    except KubeError:
        return []
    troubles = []
    for pod in pods:
        status = pod.get("status", {})
        for found in status.get("conditions", ()):
            if found["type"] == "PodScheduled" and found["status"] == "False":
                troubles.append(f"pod {pod['metadata']['name']}: {found.get('message', 'not scheduled')}")
        for container in status.get("containerStatuses", ()):
            for state in (container.get("state", {}), container.get("lastState", {})):
                for part in ("waiting", "terminated"):
                    if (what := state.get(part)) and what.get("reason") not in (None, "ContainerCreating", "Completed"):
                        message = (
                            what.get("message") or f"exit code {what.get('exitCode')}" if part == "terminated" else ""
                        )
                        text = f"pod {pod['metadata']['name']}: {what['reason']} {message or what.get('message', '')}"
                        troubles.append(text.strip())
    return troubles


def is_installed(manifest: Manifest) -> bool:
    """Whether an installation made the object."""
    labels = manifest["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in INSTALLED.items())


def _with_labels(manifest: Manifest, labels: dict[str, str]) -> Manifest:
    if not labels:
        return manifest
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), **labels}}}


async def find_all(cluster: KubeClient, searched: Sequence[Kind], labels: str) -> list[Manifest]:
    """Every object of the kinds *searched* with *labels*, in all namespaces; kinds that are not served have none."""

    async def find(kind: Kind) -> tuple[Manifest, ...]:
        try:
            return (await cluster.list(kind, labels=labels)).items
        except NotFound:
            return ()

    found = await asyncio.gather(*(find(kind) for kind in searched))
    return [item for items in found for item in items]


async def delete_all(cluster: KubeClient, items: Iterable[Manifest]) -> int:
    """Delete *items* as they were found; how many were still there."""

    async def delete(item: Manifest) -> bool:
        metadata = item["metadata"]
        namespace = metadata.get("namespace", "")
        return await cluster.delete(kind_of(item), namespace, metadata["name"], uid=metadata.get("uid", ""))

    return sum(await asyncio.gather(*(delete(item) for item in items)))


async def delete_deployment(cluster: KubeClient, namespace: str, name: str, *, seconds: float) -> bool:
    """Delete a Deployment and return when its pods are gone and write no more; False if it was not there."""
    if not await cluster.delete(kinds.DEPLOYMENT, namespace, name, propagation="Foreground"):
        return False
    async with asyncio.timeout(seconds):
        await wait_for(cluster, kinds.DEPLOYMENT, namespace, name, lambda found: found is None or None, seconds=seconds)
        async with aclosing(cluster.watch(kinds.POD, namespace, labels=f"app={name}")) as events:
            left: set[str] = set()
            async for event in events:
                match event:
                    case Replaced(items):
                        left = {item["metadata"]["name"] for item in items}
                    case Changed(item):
                        left.add(item["metadata"]["name"])
                    case Removed(item):
                        left.discard(item["metadata"]["name"])
                if not left:
                    return True
    return True
