"""From what happened to a pod's containers to the status that Kubernetes shows. Pure.

Source: kubelet, status/generate.go and getPhase in kubelet_pods.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.containers import is_sidecar

OURS = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
"""Conditions that a kubelet keeps; others belong to whoever set them."""
KILLED = 137  # the exit code of a process that SIGKILL ended


@dataclass(frozen=True)
class Waiting:
    """The container does not run yet, or not now."""

    reason: str
    message: str = ""


@dataclass(frozen=True)
class Running:
    """The container runs."""

    since: datetime


@dataclass(frozen=True)
class Terminated:
    """The container ran and ended."""

    exit_code: int
    since: datetime
    until: datetime
    message: str = ""
    reason: str = ""

    @property
    def why(self) -> str:
        """The reason as Kubernetes shows it."""
        return self.reason or ("Completed" if self.exit_code == 0 else "Error")


State = Waiting | Running | Terminated


@dataclass
class Record:
    """What is known of one container."""

    state: State = field(default_factory=lambda: Waiting("ContainerCreating"))
    last: Terminated | None = None
    restarts: int = 0
    started: bool = False
    """Whether its startup probe, if any, succeeded."""
    ready: bool = False


@dataclass(frozen=True)
class Observed:
    """What is known of a pod at one instant."""

    records: Mapping[str, Record]
    since: datetime
    """When the kubelet took the pod on."""
    host_address: str
    address: str = ""
    """The pod's, as soon as it has had one."""
    networked: bool = False
    """Whether the pod has its network now."""
    ended: bool = False
    """Whether nothing of the pod runs or will run again."""


def pod_status(pod: Manifest, observed: Observed, before: Manifest, now: datetime) -> Manifest:
    """The status of *pod*, with our conditions only. Those that are as *before* keep the time of their last change."""
    phase = pod_phase(pod, observed)
    status: Manifest = {
        "phase": phase,
        "startTime": timestamp(observed.since),
        "hostIP": observed.host_address,
        "hostIPs": [{"ip": observed.host_address}],
        "containerStatuses": [_container_status(pod, each, observed) for each in pod["spec"]["containers"]],
    }
    if observed.address:
        status |= {"podIP": observed.address, "podIPs": [{"ip": observed.address}]}
    if pod["spec"].get("initContainers"):
        status["initContainerStatuses"] = [
            _container_status(pod, each, observed) for each in pod["spec"]["initContainers"]
        ]
    status["conditions"] = _conditions(pod, observed, before, phase, now)
    if "generation" in pod["metadata"]:
        status["observedGeneration"] = pod["metadata"]["generation"]
    return status


def status_patch(status: Manifest) -> Manifest:
    """The strategic merge patch that makes a pod's status *status*, apart from conditions that are not ours.

    Lists with keys are merged item by item, so that what is no longer there has to be said.
    """
    addresses: Manifest = {key: [*status[key], {"$patch": "replace"}] for key in ("podIPs", "hostIPs") if key in status}
    conditions = [{"reason": None, "message": None, **each} for each in status["conditions"]]
    return {**status, **addresses, "conditions": conditions}


def pod_phase(pod: Manifest, observed: Observed) -> str:
    """One of Pending, Running, Succeeded, Failed."""
    spec, records = pod["spec"], observed.records
    states = [records[each["name"]].state for each in spec["containers"]]
    began = any(
        not isinstance(state, Waiting) or records[each["name"]].last is not None
        for each, state in zip(spec["containers"], states, strict=True)
    )
    if observed.ended:
        codes = [state.exit_code for state in states if isinstance(state, Terminated)]
        return "Succeeded" if len(codes) == len(states) and not any(codes) else "Failed"
    return "Running" if began else "Pending"


def will_restart(pod: Manifest, container: Manifest, exit_code: int, *, init: bool) -> bool:
    """Whether *container* is started again after it ended with *exit_code*."""
    policy = container.get("restartPolicy") or pod["spec"].get("restartPolicy", "Always")
    if init and not is_sidecar(container):
        return exit_code != 0 and policy != "Never"
    return bool(policy == "Always" or (policy == "OnFailure" and exit_code != 0))


def is_ready(status: Manifest) -> bool:
    """Whether a pod's *status* says that it is ready."""
    return any(each["type"] == "Ready" and each["status"] == "True" for each in status.get("conditions") or ())


def earlier_records(pod: Manifest, now: datetime) -> dict[str, Record]:
    """What is known of the containers of a pod that another kubelet ran before this one; its processes are gone."""
    status = pod.get("status") or {}
    told = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    records = {}
    for each in told:
        record = Record(restarts=each.get("restartCount", 0))
        if "running" in each["state"] or "terminated" in each["state"]:
            before = each["state"].get("terminated") or {}
            since = each["state"].get("running", before).get("startedAt")
            record.last = Terminated(
                exit_code=before.get("exitCode", KILLED),
                since=parsed(since) if since else now,
                until=parsed(before["finishedAt"]) if before.get("finishedAt") else now,
                reason=before.get("reason", "ContainerStatusUnknown"),
            )
            record.restarts += 1
        records[each["name"]] = record
    return records


def timestamp(moment: datetime) -> str:
    """*moment* as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed(text: str) -> datetime:
    """Inverse of `timestamp`."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def _container_status(pod: Manifest, container: Manifest, observed: Observed) -> Manifest:
    record = observed.records[container["name"]]
    identity = f"isthmus://{pod['metadata']['uid']}/{container['name']}/{record.restarts}"
    ran = not isinstance(record.state, Waiting)
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": container["image"] if ran or record.last else "",
        "containerID": identity if ran or record.last else "",
        "ready": record.ready,
        "started": record.started,
        "restartCount": record.restarts,
        "state": _state(record.state),
        "lastState": _state(record.last) if record.last else {},
    }


def _state(state: State) -> Manifest:
    match state:
        case Waiting():
            return {"waiting": {"reason": state.reason} | ({"message": state.message} if state.message else {})}
        case Running():
            return {"running": {"startedAt": timestamp(state.since)}}
        case Terminated():
            ended: dict[str, Any] = {
                "exitCode": state.exit_code,
                "reason": state.why,
                "startedAt": timestamp(state.since),
                "finishedAt": timestamp(state.until),
            }
            return {"terminated": ended | ({"message": state.message} if state.message else {})}


def _conditions(pod: Manifest, observed: Observed, before: Manifest, phase: str, now: datetime) -> list[Manifest]:
    known = {each["type"]: each for each in before.get("conditions") or ()}
    gates = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or ()}
    containers_ready = _containers_ready(pod, observed, phase)
    wanted = {
        "PodReadyToStartContainers": _truth(observed.networked),
        "Initialized": _initialized(pod, observed, phase),
        "Ready": _ready(pod, gates, containers_ready),
        "ContainersReady": containers_ready,
        "PodScheduled": _truth(True),
    }
    conditions = []
    for name in OURS:
        condition = {"type": name, **wanted[name]}
        same = known.get(name, {}).get("status") == condition["status"]
        condition["lastTransitionTime"] = known[name].get("lastTransitionTime") if same else timestamp(now)
        if "generation" in pod["metadata"]:
            condition["observedGeneration"] = pod["metadata"]["generation"]
        conditions.append(condition)
    return conditions


def _truth(holds: bool, reason: str = "", message: str = "") -> Manifest:
    texts = {"reason": reason, "message": message}
    return {"status": "True" if holds else "False", **{key: text for key, text in texts.items() if text}}


def _initialized(pod: Manifest, observed: Observed, phase: str) -> Manifest:
    if phase == "Succeeded":
        return _truth(True, "PodCompleted")
    records = observed.records
    if any(
        records[each["name"]].last or not isinstance(records[each["name"]].state, Waiting)
        for each in pod["spec"]["containers"]
    ):
        return _truth(True)  # a sidecar that starts again makes nothing uninitialized
    missing = [
        each["name"]
        for each in pod["spec"].get("initContainers") or ()
        if not (records[each["name"]].started if is_sidecar(each) else records[each["name"]].ready)
    ]
    if missing:
        return _truth(False, "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(missing)}]")
    return _truth(True)


def _containers_ready(pod: Manifest, observed: Observed, phase: str) -> Manifest:
    if phase in ("Succeeded", "Failed"):
        return _truth(False, "PodCompleted" if phase == "Succeeded" else "PodFailed")
    sidecars = [each for each in pod["spec"].get("initContainers") or () if is_sidecar(each)]
    names = [each["name"] for each in (*sidecars, *pod["spec"]["containers"])]
    unready = [name for name in names if not observed.records[name].ready]
    if unready:
        return _truth(False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]")
    return _truth(True)


def _ready(pod: Manifest, known: Mapping[str, Manifest], containers_ready: Manifest) -> Manifest:
    if containers_ready["status"] != "True":
        return containers_ready
    missing = []
    for gate in pod["spec"].get("readinessGates") or ():
        name = gate["conditionType"]
        if name not in known:
            missing.append(f'corresponding condition of pod readiness gate "{name}" does not exist.')
        elif known[name]["status"] != "True":
            missing.append(f'the status of pod readiness gate "{name}" is not "True", but {known[name]["status"]}')
    return _truth(False, "ReadinessGatesNotReady", ", ".join(missing)) if missing else _truth(True)
