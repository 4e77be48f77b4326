"""Which node a pod goes to: the one with the fewest pods of its owner, so that replicas spread over zones.

Node selectors, required node affinity and cordoned nodes are honoured; resources, taints and preferences are not: a
node of the lab takes any pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.errors import Conflict, Forbidden, KubeError, NotFound
from isthmus.kube.events import Manifest, Removed, Replaced
from isthmus.model.kinds import NODE, POD

SCHEDULER = "default-scheduler"
RETRY_SECONDS = 2.0  # after which a pod that no node takes is tried again: labels of nodes may have changed

log = structlog.get_logger("isthmus.lab")


class Scheduler:
    """Binds the pods of one cluster that wait for a node."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._pods: dict[str, Manifest] = {}
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._bind_waiting())

    async def _follow(self) -> None:
        async for told in self._kube.watch(POD):
            if isinstance(told, Replaced):
                self._pods = {item["metadata"]["uid"]: item for item in told.items}
            elif isinstance(told, Removed):
                self._pods.pop(told.item["metadata"]["uid"], None)
            else:
                self._pods[told.item["metadata"]["uid"]] = told.item
            self._news.set()

    async def _bind_waiting(self) -> None:
        while True:
            self._news.clear()
            waiting = sorted(filter(waits, self._pods.values()), key=_age)
            if waiting:
                try:
                    nodes = (await self._kube.list(NODE)).items
                    for pod in waiting:
                        await self._bind(pod, nodes)
                except KubeError as error:
                    log.warning("pods not scheduled", error=str(error))
            try:
                async with asyncio.timeout(RETRY_SECONDS if waiting else None):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _bind(self, pod: Manifest, nodes: Sequence[Manifest]) -> None:
        metadata = pod["metadata"]
        node = choose_node(pod, nodes, self._pods.values())
        if node is None:
            await self._tell(pod, len(nodes))
            return
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {key: metadata[key] for key in ("name", "namespace", "uid")},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            await self._kube.create(POD, binding, subresource="binding")
        except (NotFound, Conflict):
            return  # deleted meanwhile, or bound by another; the watch tells which
        except Forbidden as error:  # such as in a namespace that ends; the other pods need not wait for that
            log.warning("pod not scheduled", pod=metadata["name"], error=str(error))
            return
        if metadata["uid"] in self._pods:
            # The watch may be late: the next pod must see this one in its place.
            self._pods[metadata["uid"]] = {**pod, "spec": {**pod["spec"], "nodeName": node}}

    async def _tell(self, pod: Manifest, nodes: int) -> None:
        """Say on *pod* that no node takes it, once."""
        if any(each["type"] == "PodScheduled" for each in (pod.get("status") or {}).get("conditions") or ()):
            return
        metadata = pod["metadata"]
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": f"none of {nodes} nodes is what the pod's node selector or affinity asks for",
            "lastTransitionTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        patch = {"metadata": {"uid": metadata["uid"]}, "status": {"conditions": [condition]}}
        try:
            await self._kube.patch(
                POD, metadata["namespace"], metadata["name"], patch, subresource="status", strategic=True
            )
        except (NotFound, Conflict):
            return  # deleted meanwhile


def waits(pod: Manifest) -> bool:
    """Whether *pod* is for us to bind."""
    spec = pod["spec"]
    return (
        not spec.get("nodeName")
        and spec.get("schedulerName", SCHEDULER) == SCHEDULER
        and not spec.get("schedulingGates")
        and "deletionTimestamp" not in pod["metadata"]
    )


def choose_node(pod: Manifest, nodes: Iterable[Manifest], pods: Iterable[Manifest]) -> str | None:
    """The name of the node for *pod*, None if none will do.

    Of those with the fewest pods of its owner the one with the fewest pods, then the first by name.
    """
    running = [each for each in pods if _counts(each)]
    load = {
        node["metadata"]["name"]: (
            sum(_on(each, node) and _owner(each) == _owner(pod) for each in running),
            sum(_on(each, node) for each in running),
        )
        for node in nodes
        if takes(node, pod)
    }
    return min(load, key=lambda name: (load[name], name), default=None)


def takes(node: Manifest, pod: Manifest) -> bool:
    """Whether *pod* may run on *node*."""
    spec = pod["spec"]
    # A DaemonSet's pod names its node in its affinity and goes to cordoned nodes as well.
    if node.get("spec", {}).get("unschedulable") and _kind_of_owner(pod) != "DaemonSet":
        return False
    labels = node["metadata"].get("labels") or {}
    if any(labels.get(key) != value for key, value in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_matches(term: dict[str, Any], node: Manifest) -> bool:
    fields = {"metadata.name": node["metadata"]["name"]}
    labels = node["metadata"].get("labels") or {}
    requirements = [(labels, each) for each in term.get("matchExpressions") or ()]
    requirements += [(fields, each) for each in term.get("matchFields") or ()]
    # An empty term matches nothing. Source: Kubernetes API, NodeSelectorTerm.
    return bool(requirements) and all(_requirement_holds(each, found) for found, each in requirements)


def _requirement_holds(requirement: dict[str, Any], found: dict[str, str]) -> bool:
    value, values = found.get(requirement["key"]), requirement.get("values") or []
    match requirement["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and value.isdecimal() and int(value) > int(values[0])
        case "Lt":
            return value is not None and value.isdecimal() and int(value) < int(values[0])
        case _:
            return False


def _counts(pod: Manifest) -> bool:
    ended = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
    return not ended and "deletionTimestamp" not in pod["metadata"]


def _on(pod: Manifest, node: Manifest) -> bool:
    return bool(pod["spec"].get("nodeName") == node["metadata"]["name"])


def _owner(pod: Manifest) -> str:
    """What the pod is a replica of: its controller, else itself."""
    metadata = pod["metadata"]
    owners = metadata.get("ownerReferences") or ()
    return str(next((each["uid"] for each in owners if each.get("controller")), metadata["uid"]))


def _kind_of_owner(pod: Manifest) -> str:
    owners = pod["metadata"].get("ownerReferences") or ()
    return str(next((each["kind"] for each in owners if each.get("controller")), ""))


def _age(pod: Manifest) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp", "")), str(pod["metadata"]["name"])
