"""What a restart needs to know of pods, and of what owns, serves and guards them. No I/O: Kubernetes objects in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from isthmus.model.kinds import DAEMON_SET, DEPLOYMENT, REPLICA_SET, STATEFUL_SET
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

RESTARTED_FOR = "isthmus.io/restarted-for"
"""Annotation of pod templates, and so of their pods: the fingerprint of the `cacerts` that they were restarted for."""
RESTARTED_AT = "isthmus.io/restarted-at"
"""Annotation of controllers: when that was begun. Not of the template, so that beginning twice changes nothing."""
ENLISTED = "isthmus.io/replacing"
"""Annotation of controllers whose pods are evicted one by one: the fingerprint, then the names of the pods."""

CONTROLLERS = {kind.kind: kind for kind in (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET)}
# Istio's names for the container of a sidecar or gateway, and for that of istiod.
MESHED = ("istio-proxy", "discovery")


class Owner(NamedTuple):
    """A controller of pods."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True)
class Pod:
    """A pod that has not run to its end."""

    namespace: str
    name: str
    uid: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    owner: Owner | None = None
    """None if no controller would replace it, or none that is known here."""
    ready: bool = False
    ready_since: datetime | None = None
    ending: bool = False
    created: datetime | None = None
    started: datetime | None = None
    restarted_for: str = ""
    meshed: bool = False
    """Whether it runs a proxy or the control plane of a mesh."""

    @property
    def called(self) -> str:
        """``<namespace>/<name>``."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Controller:
    """What owns pods and replaces them."""

    owner: Owner
    resource_version: str = ""
    replicas: int = 1
    """How many pods it is to have."""
    most_taken: int = 1
    """How many of them may be away at once while it follows its own strategy."""
    rolls: bool = True
    """Whether it replaces its pods when its template changes."""
    unmovable: str = ""
    """Why its pods would not change whatever is done; empty if they would."""
    restarted_for: str = ""
    restarted_at: datetime | None = None
    enlisted_for: str = ""
    enlisted: frozenset[str] = frozenset()

    @property
    def kind(self) -> Kind:
        """Its kind."""
        return CONTROLLERS[self.owner.kind]

    @property
    def replaces_evicted(self) -> bool:
        """Whether evicting its pods one by one is a way: the successor of an evicted pod must be told from it.

        A StatefulSet that rolls gives its pods their old names again, and takes one at a time by itself.
        """
        return not (self.owner.kind == STATEFUL_SET.kind and self.rolls)


@dataclass(frozen=True)
class Service:
    """A destination: the pods that its selector finds."""

    namespace: str
    name: str
    selector: Mapping[str, str]

    def selects(self, pod: Pod) -> bool:
        """Whether *pod* stands behind it."""
        return pod.namespace == self.namespace and self.selector.items() <= pod.labels.items()


@dataclass(frozen=True)
class Budget:
    """A PodDisruptionBudget."""

    namespace: str
    name: str
    match_labels: Mapping[str, str] = field(default_factory=dict)
    expressions: tuple[tuple[str, str, frozenset[str]], ...] = ()
    """Key, operator and values of each ``matchExpressions``."""
    allowed: int = 0
    """How many of its pods may go away now."""

    def selects(self, pod: Pod) -> bool:
        """Whether it guards *pod*."""
        return (
            pod.namespace == self.namespace
            and self.match_labels.items() <= pod.labels.items()
            and all(_matches(pod.labels, *expression) for expression in self.expressions)
        )


def read_pod(manifest: Manifest) -> Pod | None:
    """The pod; None for one that has run to its end."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed"):
        return None
    labels = metadata.get("labels") or {}
    ready: Manifest = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    is_ready = ready.get("status") == "True"
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    return Pod(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        labels=labels,
        owner=_owner(metadata, labels),
        ready=is_ready,
        ready_since=moment(ready.get("lastTransitionTime")) if is_ready else None,
        ending="deletionTimestamp" in metadata,
        created=moment(metadata.get("creationTimestamp")),
        started=moment(status.get("startTime")),
        restarted_for=(metadata.get("annotations") or {}).get(RESTARTED_FOR, ""),
        meshed=any(container.get("name") in MESHED for container in containers),
    )


def read_controller(kind: Kind, manifest: Manifest) -> Controller | None:
    """The controller of pods; None for a ReplicaSet that is another controller's means."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    if kind == REPLICA_SET and _controlled_by(metadata):
        return None
    replicas = status.get("desiredNumberScheduled", 0) if kind == DAEMON_SET else spec.get("replicas", 1)
    annotations = metadata.get("annotations") or {}
    template = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    enlisted_for, *enlisted = annotations.get(ENLISTED, "").split() or [""]
    taken, rolls, unmovable = _strategy(kind, spec, replicas)
    return Controller(
        owner=Owner(kind.kind, metadata["namespace"], metadata["name"]),
        resource_version=metadata.get("resourceVersion", ""),
        replicas=replicas,
        most_taken=taken,
        rolls=rolls,
        unmovable=unmovable,
        restarted_for=template.get(RESTARTED_FOR, ""),
        restarted_at=moment(annotations.get(RESTARTED_AT)),
        enlisted_for=enlisted_for,
        enlisted=frozenset(enlisted),
    )


def read_service(manifest: Manifest) -> Service | None:
    """The service; None for one that selects no pods."""
    selector = (manifest.get("spec") or {}).get("selector")
    metadata = manifest["metadata"]
    return Service(metadata["namespace"], metadata["name"], selector) if selector else None


def read_budget(manifest: Manifest) -> Budget:
    """The budget; one that the disruption controller has not counted yet allows nothing."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    selector = spec.get("selector") or {}
    return Budget(
        metadata["namespace"],
        metadata["name"],
        selector.get("matchLabels") or {},
        tuple(
            (e.get("key", ""), e.get("operator", ""), frozenset(e.get("values") or ()))
            for e in selector.get("matchExpressions") or ()
        ),
        status.get("disruptionsAllowed", 0),
    )


def _strategy(kind: Kind, spec: Manifest, replicas: int) -> tuple[int, bool, str]:
    """How many pods the controller takes at once, whether it rolls at all, and why it would not.

    Source: Kubernetes, API reference of apps/v1; a Deployment rounds maxUnavailable down, the others round it up.
    """
    if kind == REPLICA_SET:
        return 1, False, ""
    strategy = spec.get("strategy" if kind == DEPLOYMENT else "updateStrategy") or {}
    rolling = strategy.get("rollingUpdate") or {}
    if kind == DEPLOYMENT:
        if spec.get("paused"):
            return 0, True, "is paused"
        if strategy.get("type") == "Recreate":
            return replicas, True, ""
        unavailable = _number(rolling.get("maxUnavailable", "25%"), replicas, up=False)
        surge = _number(rolling.get("maxSurge", "25%"), replicas, up=True)
        return (unavailable if unavailable or surge else 1), True, ""
    rolls = strategy.get("type", "RollingUpdate") == "RollingUpdate"
    if kind == STATEFUL_SET:
        unmovable = f"keeps pods below {rolling['partition']} as they are" if rolls and rolling.get("partition") else ""
        return max(1, _number(rolling.get("maxUnavailable", 1), replicas, up=True)), rolls, unmovable
    return _number(rolling.get("maxUnavailable", 1), replicas, up=True), rolls, ""


def _number(value: int | str, of: int, *, up: bool) -> int:
    if isinstance(value, int):
        return value
    share = of * int(value.removesuffix("%")) / 100
    return math.ceil(share) if up else math.floor(share)


def _owner(metadata: Manifest, labels: Mapping[str, str]) -> Owner | None:
    owner = _controlled_by(metadata)
    kind, name = owner.get("kind", ""), owner.get("name", "")
    if kind == REPLICA_SET.kind:
        # A Deployment names its ReplicaSets <deployment>-<hash> and writes that hash on their pods.
        pod_hash = labels.get("pod-template-hash", "")
        if pod_hash and name.endswith(f"-{pod_hash}"):
            kind, name = DEPLOYMENT.kind, name.removesuffix(f"-{pod_hash}")
    return Owner(kind, metadata["namespace"], name) if kind in CONTROLLERS else None


def _controlled_by(metadata: Manifest) -> Manifest:
    return next((owner for owner in metadata.get("ownerReferences") or () if owner.get("controller")), {})


def _matches(labels: Mapping[str, str], key: str, operator: str, values: frozenset[str]) -> bool:
    match operator:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case _:
            return key not in labels


def moment(text: str | None) -> datetime | None:
    """A time as API servers write it; None if there is none."""
    return datetime.fromisoformat(text) if text else None
