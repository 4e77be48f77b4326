"""The node runs our images as real processes, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from isthmus.embedded.controllers import Copy
from isthmus.embedded.door import Refused
from isthmus.embedded.node import LoopbackRange, Node
from isthmus.model.kinds import DEPLOYMENT, POD, SERVICE
from tests.unit.embedded_fleet.clusters import SECONDS, Cluster, Manifest, node, service, workload

ROOT = Path(__file__).parents[3]
POLL = 0.02
PROGRAM = "tests.unit.embedded_fleet.program:main"


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes find this package."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


class Machine:
    """A cluster with a node that runs `program.py` for the image ``example/program``."""

    def __init__(self, directory: Path, loopback: LoopbackRange, *, spare: bool = False) -> None:
        self.cluster = Cluster()
        self.node = Node(
            self.cluster.door,
            kubeconfig=directory / "kubeconfig",
            logs=directory / "logs",
            loopback=loopback,
            programs={"program": PROGRAM},
            spare=PROGRAM if spare else "",
        )
        self.cluster.controllers.runs_elsewhere = self.node.runs
        self.cluster.create(node("machine"))

    def run(self, *words: str, **spec: Any) -> None:
        """A Deployment of the program."""
        container = {
            "args": list(words),
            "ports": [{"name": "metrics", "containerPort": 9091}],
            "readinessProbe": {"httpGet": {"path": "/ready", "port": "metrics"}, "periodSeconds": 1},
            **spec.pop("container", {}),
        }
        strategy = {"type": "Recreate"}
        self.cluster.create(workload(image="example/program:1", container=container, strategy=strategy, **spec))

    async def until(self, condition: Callable[[Copy], Any]) -> Any:
        """What *condition* returns of the cluster as soon as that is something."""
        found: list[Any] = []

        def holds(copy: Copy) -> bool:
            found[:] = [condition(copy)]
            return bool(found[0])

        await self.cluster.until(holds)
        return found[0]

    async def ready(self, *, restarts: int = 0) -> Manifest:
        """The pod, once its program runs and is ready."""

        def one(copy: Copy) -> Manifest | None:
            for pod in copy.all(POD):
                [status] = pod.get("status", {}).get("containerStatuses") or [{}]
                if status.get("ready") and status["restartCount"] == restarts:
                    return pod
            return None

        found: Manifest = await self.until(one)
        return found

    def process(self, pod: Manifest) -> int:
        return self.node.processes[pod["metadata"]["namespace"], pod["metadata"]["name"]]

    def said(self, pod: Manifest) -> Manifest:
        """What the program saw when it last started."""
        file = self.node.log_file(pod["metadata"]["namespace"], pod["metadata"]["name"])
        found: Manifest = json.loads(file.read_text().splitlines()[-1])
        return found


@asynccontextmanager
async def machine(directory: Path, *, spare: bool = False) -> AsyncIterator[Machine]:
    with LoopbackRange() as loopback:
        found = Machine(directory, loopback, spare=spare)
        async with found.cluster.running():
            task = asyncio.create_task(found.node.run())
            try:
                yield found
            finally:
                task.cancel()
                await asyncio.wait([task])
            assert found.node.processes == {}


async def gone(pid: int) -> None:
    """Return when there is no such process."""
    async with asyncio.timeout(SECONDS):
        while True:
            if not is_alive(pid):
                return
            await asyncio.sleep(POLL)


def is_alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


async def test_a_pod_of_ours_is_a_process(tmp_path: Path) -> None:
    """With its arguments and environment, an address of its own, and a log."""
    env = [
        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PLAIN", "value": "text"},
    ]
    async with machine(tmp_path) as found:
        found.run("ready", "--where=$(POD_IP)", "$(UNKNOWN)", container={"env": env})
        found.cluster.create(service(type="LoadBalancer", ports=[{"name": "metrics", "port": 9091}]))
        pod = await found.ready()
        ingress = await found.until(
            lambda copy: copy.get(SERVICE, "default", "web")["status"]["loadBalancer"].get("ingress")  # type: ignore[index]
        )

        said = found.said(pod)
        address = pod["status"]["podIP"]
        assert is_alive(found.process(pod))
        assert address.startswith("127.")
        assert [entry["ip"] for entry in ingress] == [address]
        assert said["arguments"][1:] == ["ready", f"--where={address}", "$(UNKNOWN)"]
        expected = {
            "POD_NAME": pod["metadata"]["name"],
            "POD_NAMESPACE": "default",
            "POD_IP": address,
            "PLAIN": "text",
            "ISTHMUS_BIND_ADDRESS": address,
            "KUBECONFIG": str(tmp_path / "kubeconfig"),
        }
        assert {key: said["environment"].get(key) for key in expected} == expected
        pid = found.process(pod)
    assert not is_alive(pid)


async def test_a_pod_is_ready_when_its_program_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running is not ready; ready may end, too."""
    file = tmp_path / "ready"
    monkeypatch.setenv("READY_FILE", str(file))
    async with machine(tmp_path) as found:
        found.run("unready")
        status = await found.until(lambda copy: [_state(pod) for pod in copy.all(POD) if _state(pod)[0] == "running"])
        assert status == [("running", False)]

        file.touch()
        await found.ready()
        file.unlink()
        await found.until(lambda copy: [_state(pod) for pod in copy.all(POD)] == [("running", False)])


def _state(pod: Manifest) -> tuple[str, bool]:
    [status] = pod.get("status", {}).get("containerStatuses") or [{"state": {"": {}}, "ready": False}]
    return next(iter(status["state"])), status["ready"]


async def test_a_killed_program_is_started_again(tmp_path: Path) -> None:
    """In the same pod, at the same address, and counted."""
    async with machine(tmp_path) as found:
        found.run("ready")
        before = await found.ready()
        first = found.process(before)

        os.kill(first, signal.SIGKILL)
        after = await found.ready(restarts=1)

        assert after["metadata"]["uid"] == before["metadata"]["uid"]
        assert after["status"]["podIP"] == before["status"]["podIP"]
        assert after["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == -signal.SIGKILL
        assert found.process(after) != first


async def test_a_spare_process_becomes_the_first_pod(tmp_path: Path) -> None:
    """It is used once, with all that a fresh one would have had; the next start is a fresh one."""
    async with machine(tmp_path, spare=True) as found:
        [spare] = await _children_of_ours()
        found.run("ready", container={"env": [{"name": "PLAIN", "value": "text"}]})
        before = await found.ready()
        first = found.process(before)
        said = found.said(before)
        os.kill(first, signal.SIGKILL)
        after = await found.ready(restarts=1)

        assert first == spare
        assert found.process(after) != spare
        again = found.said(after)
        assert said == again


async def test_an_unused_spare_is_ended(tmp_path: Path) -> None:
    """Also if no pod ever came."""
    async with machine(tmp_path, spare=True):
        [spare] = await _children_of_ours()

    assert not is_alive(spare)


async def _children_of_ours() -> list[int]:
    """The containers that this process has started, as soon as there is one."""
    async with asyncio.timeout(SECONDS):
        while True:
            if found := _containers():
                return found
            await asyncio.sleep(POLL)


def _containers() -> list[int]:
    found = []
    for file in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        with suppress(OSError):  # a thread, or a child, that has ended meanwhile
            pids = [int(word) for word in file.read_text().split()]
            found += [pid for pid in pids if b"container.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return found


async def test_a_program_that_always_ends_is_tried_less_and_less(tmp_path: Path) -> None:
    """The status says so, in Kubernetes' words."""
    async with machine(tmp_path) as found:
        found.run("exit=3")

        def crashing(copy: Copy) -> Manifest | None:
            for pod in copy.all(POD):
                for status in pod.get("status", {}).get("containerStatuses") or ():
                    if status["restartCount"] >= 2 and "waiting" in status["state"]:
                        found: Manifest = status
                        return found
            return None

        status = await found.until(crashing)

        assert status["state"] == {"waiting": {"reason": "CrashLoopBackOff"}}
        assert status["lastState"]["terminated"]["exitCode"] == 3
        assert status["ready"] is False


async def test_a_deleted_pod_ends_its_program_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    """Politely; and a Deployment's pods come back to the address that its Service has given out."""
    async with machine(tmp_path) as found:
        found.run("ready")
        before = await found.ready()
        pid = found.process(before)

        found.cluster.delete(POD, before["metadata"]["name"])
        await gone(pid)
        await found.until(
            lambda copy: all(pod["metadata"]["uid"] != before["metadata"]["uid"] for pod in copy.all(POD))
        )
        after = await found.ready()

        assert after["metadata"]["uid"] != before["metadata"]["uid"]
        assert after["status"]["podIP"] == before["status"]["podIP"]


async def test_replicas_have_addresses_of_their_own(tmp_path: Path) -> None:
    """Each listens on the same ports."""
    async with machine(tmp_path) as found:
        found.run("ready", replicas=2)
        await found.until(lambda copy: [_state(pod) for pod in copy.all(POD)] == [("running", True)] * 2)

        assert len({pod["status"]["podIP"] for pod in found.cluster.all(POD)}) == 2
        assert len(found.node.processes) == 2


async def test_a_program_that_does_not_end_is_killed(tmp_path: Path) -> None:
    """After the pod's grace period."""
    async with machine(tmp_path) as found:
        found.run("ready", "deaf", pod={"terminationGracePeriodSeconds": 0})
        pid = found.process(await found.ready())

        found.cluster.delete(DEPLOYMENT, "web")
        await gone(pid)


async def test_what_the_node_cannot_give_is_said(tmp_path: Path) -> None:
    """A pod that asks for more than this node knows does not start, and its status says for what."""
    env = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
    async with machine(tmp_path) as found:
        found.run("ready", container={"env": env})

        def waiting(copy: Copy) -> Manifest | None:
            for pod in copy.all(POD):
                for status in pod.get("status", {}).get("containerStatuses") or ():
                    if status["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError":
                        found: Manifest = status["state"]["waiting"]
                        return found
            return None

        state = await found.until(waiting)

        assert "PASSWORD" in state["message"]
        assert found.node.processes == {}


async def test_other_images_are_none_of_its_business(tmp_path: Path) -> None:
    """They only look as if they ran."""
    async with machine(tmp_path) as found:
        found.cluster.create(workload(image="example/other:1"))
        pod = await found.ready()

        assert not found.node.runs(pod)
        assert found.node.processes == {}


def test_a_program_does_not_outlive_who_started_it() -> None:
    """Also when that one is killed and can clean up nothing."""
    program = "tests.unit.embedded_fleet.program:wait"
    starter = (
        "import subprocess\n"
        "from isthmus.embedded.node import container_command\n"
        f"child = subprocess.Popen(container_command({program!r}, []))\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    with parent.stdout:
        child = int(parent.stdout.readline())
        assert parent.stdout.readline() == "runs\n"

    parent.kill()
    parent.wait()
    asyncio.run(gone(child))


def test_fleets_have_addresses_of_their_own() -> None:
    """Two on one machine never get in each other's way; what is given back can be had again."""
    with LoopbackRange() as one, LoopbackRange() as other:
        assert one.take().rpartition(".")[0] != other.take().rpartition(".")[0]
        for _ in range(252):
            one.take()
        with pytest.raises(Refused):
            one.take()
