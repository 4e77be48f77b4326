"""What a pod's status says of its containers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from isthmus.lab.kubelet.status import (
    Observed,
    Record,
    Running,
    State,
    Terminated,
    Waiting,
    earlier_records,
    pod_status,
    status_patch,
    will_restart,
)
from tests.unit.lab.kubelet.pods import Manifest, container, pod

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CREATING = Record(Waiting("ContainerCreating"))


def runs(*, ready: bool = True, started: bool = True) -> Record:
    return Record(Running(NOW), started=started, ready=ready)


def ended(code: int, *, ready: bool = False) -> Record:
    return Record(Terminated(code, NOW, NOW), ready=ready)


def crashing(code: int = 1) -> Record:
    return Record(Waiting("CrashLoopBackOff"), last=Terminated(code, NOW, NOW), restarts=2)


def status_of(of: Manifest, *, over: bool = False, before: Manifest | None = None, **records: Record) -> Manifest:
    observed = Observed(records, NOW, "172.31.0.1", "10.10.0.5", networked=not over, ended=over)
    return pod_status(of, observed, before or {}, NOW)


def condition(status: Manifest, kind: str) -> tuple[str, str]:
    found = next(each for each in status["conditions"] if each["type"] == kind)
    return found["status"], found.get("reason", "")


SIDECAR = container("side", restartPolicy="Always")
INIT = container("init")


@pytest.mark.parametrize(
    ("of", "records", "phase"),
    [
        (pod(), {"main": CREATING}, "Pending"),
        (pod(init=(INIT,)), {"init": runs(), "main": CREATING}, "Pending"),
        (pod(init=(SIDECAR,)), {"side": runs(), "main": CREATING}, "Pending"),
        (pod(), {"main": runs(ready=False)}, "Running"),
        (pod(), {"main": crashing()}, "Running"),
        (pod(init=(INIT,)), {"init": crashing(), "main": CREATING}, "Pending"),
    ],
)
def test_phase_while_the_pod_lives(of: Manifest, records: dict[str, Record], phase: str) -> None:
    assert status_of(of, **records)["phase"] == phase


@pytest.mark.parametrize(
    ("of", "records", "phase"),
    [
        (pod(), {"main": ended(0)}, "Succeeded"),
        (pod(), {"main": ended(3)}, "Failed"),
        (pod(container("a"), container("b")), {"a": ended(0), "b": ended(1)}, "Failed"),
        (pod(init=(SIDECAR,)), {"side": ended(143), "main": ended(0)}, "Succeeded"),
        (pod(init=(INIT,)), {"init": ended(1), "main": CREATING}, "Failed"),
    ],
)
def test_phase_of_a_pod_that_has_ended(of: Manifest, records: dict[str, Record], phase: str) -> None:
    status = status_of(of, over=True, **records)

    assert status["phase"] == phase
    assert condition(status, "Ready") == ("False", "PodCompleted" if phase == "Succeeded" else "PodFailed")
    assert condition(status, "PodReadyToStartContainers") == ("False", "")


def test_a_pod_is_ready_when_its_containers_and_sidecars_are() -> None:
    of = pod(container("a"), container("b"), init=(SIDECAR,))

    waits = status_of(of, a=runs(), b=runs(ready=False), side=runs())
    waits_for_sidecar = status_of(of, a=runs(), b=runs(), side=runs(ready=False))
    is_ready = status_of(of, a=runs(), b=runs(), side=runs())

    assert condition(waits, "Ready") == ("False", "ContainersNotReady")
    assert "[b]" in next(each["message"] for each in waits["conditions"] if each["type"] == "Ready")
    assert condition(waits_for_sidecar, "ContainersReady") == ("False", "ContainersNotReady")
    assert condition(is_ready, "Ready") == ("True", "")


def test_a_readiness_gate_holds_the_pod_but_not_its_containers() -> None:
    of = pod(readinessGates=[{"conditionType": "example.org/gate"}])
    open_gate: dict[str, Any] = {"conditions": [{"type": "example.org/gate", "status": "True"}]}
    shut_gate: dict[str, Any] = {"conditions": [{"type": "example.org/gate", "status": "False"}]}

    for gate in ({}, shut_gate):
        status = status_of({**of, "status": gate}, main=runs())
        assert condition(status, "Ready") == ("False", "ReadinessGatesNotReady")
        assert condition(status, "ContainersReady") == ("True", "")
    status = status_of({**of, "status": open_gate}, main=runs())

    assert condition(status, "Ready") == ("True", "")
    assert "example.org/gate" not in {each["type"] for each in status["conditions"]}  # not ours to write


def test_initialized_when_init_containers_did_their_work_and_sidecars_started() -> None:
    of = pod(init=(INIT, SIDECAR))
    works = status_of(of, init=runs(), side=CREATING, main=CREATING)
    starts = status_of(of, init=ended(0, ready=True), side=runs(started=False), main=CREATING)
    started = status_of(of, init=ended(0, ready=True), side=runs(), main=CREATING)
    restarts = status_of(of, init=ended(0, ready=True), side=crashing(), main=runs())

    assert condition(works, "Initialized") == ("False", "ContainersNotInitialized")
    assert condition(starts, "Initialized") == ("False", "ContainersNotInitialized")
    assert condition(started, "Initialized") == ("True", "")
    assert condition(restarts, "Initialized") == ("True", "")


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    of, later = pod(), NOW + timedelta(minutes=5)
    first = status_of(of, main=runs(ready=False))
    observed = Observed({"main": runs()}, NOW, "172.31.0.1", "10.10.0.5", networked=True)

    second = pod_status(of, observed, first, later)

    times = {each["type"]: each["lastTransitionTime"] for each in second["conditions"]}
    assert times["PodScheduled"] == "2026-01-02T03:04:05Z"
    assert times["Ready"] == "2026-01-02T03:09:05Z"


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            Waiting("ErrImagePull", "no such image"),
            {"waiting": {"reason": "ErrImagePull", "message": "no such image"}},
        ),
        (Running(NOW), {"running": {"startedAt": "2026-01-02T03:04:05Z"}}),
        (
            Terminated(137, NOW, NOW + timedelta(seconds=2), "out of luck"),
            {
                "terminated": {
                    "exitCode": 137,
                    "reason": "Error",
                    "message": "out of luck",
                    "startedAt": "2026-01-02T03:04:05Z",
                    "finishedAt": "2026-01-02T03:04:07Z",
                }
            },
        ),
    ],
)
def test_states(state: State, told: Manifest) -> None:
    status = status_of(pod(), main=Record(state, last=Terminated(0, NOW, NOW), restarts=4))

    found = status["containerStatuses"][0]
    assert found["state"] == told
    assert found["lastState"]["terminated"]["reason"] == "Completed"
    assert found["restartCount"] == 4
    assert found["containerID"] == "isthmus://u-1/main/4"


def test_addresses() -> None:
    status = status_of(pod(), main=runs())

    assert (status["podIP"], status["podIPs"]) == ("10.10.0.5", [{"ip": "10.10.0.5"}])
    assert (status["hostIP"], status["observedGeneration"]) == ("172.31.0.1", 3)
    assert "podIP" not in pod_status(pod(), Observed({"main": CREATING}, NOW, "172.31.0.1"), {}, NOW)


def test_a_patch_says_what_no_longer_holds() -> None:
    """A strategic merge patch leaves what it does not name."""
    patch = status_patch(status_of(pod(), main=runs()))

    ready = next(each for each in patch["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"], ready["message"]) == ("True", None, None)
    assert patch["podIPs"] == [{"ip": "10.10.0.5"}, {"$patch": "replace"}]


@pytest.mark.parametrize(
    ("policy", "own", "code", "init", "again"),
    [
        ("Always", None, 0, False, True),
        ("OnFailure", None, 0, False, False),
        ("OnFailure", None, 1, False, True),
        ("Never", None, 1, False, False),
        ("Always", None, 0, True, False),  # an init container that did its work
        ("Always", None, 1, True, True),
        ("Never", None, 1, True, False),
        ("Never", "Always", 0, True, True),  # a sidecar
        ("Never", "OnFailure", 1, False, True),  # a container's own policy
    ],
)
def test_who_is_started_again(policy: str, own: str | None, code: int, init: bool, again: bool) -> None:
    one = container(**({"restartPolicy": own} if own else {}))

    assert will_restart(pod(one, restartPolicy=policy), one, code, init=init) is again


def test_what_another_kubelet_ran_has_ended() -> None:
    told = [
        {"name": "main", "restartCount": 3, "state": {"running": {"startedAt": "2026-01-02T03:00:00Z"}}},
        {"name": "next", "restartCount": 0, "state": {"waiting": {"reason": "ContainerCreating"}}},
    ]

    records = earlier_records({**pod(), "status": {"containerStatuses": told}}, NOW)

    assert records["main"].restarts == 4
    assert records["main"].last == Terminated(
        137, datetime(2026, 1, 2, 3, tzinfo=UTC), NOW, reason="ContainerStatusUnknown"
    )
    assert (records["next"].restarts, records["next"].last) == (0, None)
