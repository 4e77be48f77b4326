"""A kubelet brings pods to where their objects say, on an API server and with processes that are real.

Scripts end at once or wait for ``$GO``, a fifo, so that a test says when something happens and never waits for a time.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from isthmus.embedded import EmbeddedCluster
from isthmus.kube import Changed, KubeClient, Removed, Replaced
from isthmus.lab.kubelet import Kubelet
from isthmus.lab.kubelet.tasks import cancelled
from isthmus.lab.plan import plan
from isthmus.lab.runtime import StartFailed
from isthmus.model.kinds import CONFIG_MAP, EVENT, NODE, POD, SERVICE
from isthmus.model.ref import Kind
from tests.unit.lab.kubelet.machine import PlainMachine, ShellImage

Manifest = dict[str, Any]

DEADLINE = 30.0
CLUSTER = plan()[1]
NODE_A = CLUSTER.nodes[0].name
FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.05; done"


class Town:
    """One cluster with a kubelet, and what its watch tells of the pods."""

    def __init__(self, kube: KubeClient, folder: Path) -> None:
        self.kube = kube
        self.machine = PlainMachine()
        self.folder = folder
        self.kubelet = Kubelet(
            kube,
            CLUSTER,
            self.machine,
            ShellImage(),
            directory=folder / "run",
            logs=folder / "logs",
        )
        self._pods: dict[str, Manifest] = {}
        self._told = asyncio.Condition()

    async def follow(self) -> None:
        async for told in self.kube.watch(POD):
            async with self._told:
                if isinstance(told, Replaced):
                    self._pods = {item["metadata"]["name"]: item for item in told.items}
                elif isinstance(told, Changed):
                    self._pods[told.item["metadata"]["name"]] = told.item
                else:
                    del self._pods[told.item["metadata"]["name"]]
                self._told.notify_all()

    async def until(self, name: str, holds: Callable[[Manifest], Any]) -> Manifest:
        """The status of pod *name* as soon as it is as wanted."""

        def found() -> bool:
            return name in self._pods and bool(holds(self._pods[name].get("status") or {}))

        try:
            async with asyncio.timeout(DEADLINE), self._told:
                await self._told.wait_for(found)
        except TimeoutError:
            pytest.fail(f"{name} is only {self._pods.get(name, {}).get('status')}")
        status: Manifest = self._pods[name]["status"]
        return status

    async def seen(self, kind: Kind, holds: Callable[[dict[str, Manifest]], Any]) -> dict[str, Manifest]:
        """The objects of *kind* by name, as soon as they are as wanted."""
        items: dict[str, Manifest] = {}
        async with asyncio.timeout(DEADLINE), aclosing(self.kube.watch(kind)) as watch:
            async for told in watch:
                assert not isinstance(told, Removed)
                for item in told.items if isinstance(told, Replaced) else (told.item,):
                    items[item["metadata"]["name"]] = item
                if holds(items):
                    return items
        raise AssertionError("the watch ended")

    async def run(self, name: str, *containers: Manifest, **spec: Any) -> None:
        await self.kube.create(POD, pod(name, *containers, **spec))

    def log(self, name: str, container: str = "main", *, previous: bool = False) -> str:
        path = self.kubelet.log("default", name, container, previous)
        return path.read_text() if path else ""


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with EmbeddedCluster("town") as cluster:
        config = tmp_path / "kubeconfig"
        config.write_text(json.dumps(cluster.kubeconfig()))
        async with KubeClient.from_kubeconfig(config) as kube:
            found = Town(kube, tmp_path)
            follower, keeper = asyncio.ensure_future(found.follow()), asyncio.ensure_future(found.kubelet.run())
            try:
                yield found
                assert not keeper.done(), keeper.exception()
            finally:
                await cancelled(keeper)
                await cancelled(follower)
                found.machine.kill_all()
            assert not found.machine.running
            assert not found.machine.sandboxes


def shell(script: str, name: str = "main", **more: Any) -> Manifest:
    return {"name": name, "image": "shell", "args": [script], **more}


def pod(name: str, *containers: Manifest, **spec: Any) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"nodeName": NODE_A, "restartPolicy": "Always", "containers": list(containers), **spec},
    }


def is_ready(status: Manifest) -> bool:
    return any((each["type"], each["status"]) == ("Ready", "True") for each in status.get("conditions", ()))


def container_of(status: Manifest, name: str = "main") -> Manifest:
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((each for each in every if each["name"] == name), {})


def waits_because(status: Manifest, name: str = "main") -> str:
    return str(container_of(status, name).get("state", {}).get("waiting", {}).get("reason", ""))


async def test_nodes_are_there(town: Town) -> None:
    nodes = (await town.seen(NODE, lambda nodes: len(nodes) == 2)).values()

    zones = {each["metadata"]["labels"]["topology.kubernetes.io/zone"] for each in nodes}
    assert zones == {node.zone for node in CLUSTER.nodes}
    ports = [each["status"]["daemonEndpoints"]["kubeletEndpoint"]["Port"] for each in nodes]
    assert sorted(ports) == [node.kubelet_port for node in CLUSTER.nodes]


async def test_a_pod_runs_and_is_ready(town: Town) -> None:
    await town.run("web", shell(f'echo "I am $HOSTNAME on $ISTHMUS_LAB_CLUSTER"; {FOREVER}'))

    status = await town.until("web", is_ready)

    assert status["phase"] == "Running"
    assert status["hostIP"] == str(CLUSTER.nodes[0].address)
    assert status["podIP"] == "10.11.0.1"
    assert town.log("web") == "I am web on cluster1\n"
    assert town.kubelet.containers("default", "web") == ("main",)
    assert town.kubelet.process("default", "web", "main") is not None
    assert town.kubelet.sandbox("default", "web") is not None


async def test_a_pod_whose_object_is_gone_ends(town: Town) -> None:
    await town.run("web", shell(FOREVER))
    await town.until("web", is_ready)
    process = town.kubelet.process("default", "web", "main")
    assert process is not None

    await town.kube.delete(POD, "default", "web")

    async with asyncio.timeout(DEADLINE):
        await process.wait()
        await town.machine.emptied.wait()


async def test_a_pod_that_completes_succeeds_and_keeps_its_log(town: Town) -> None:
    await town.run("good", shell("echo done; echo because > $DEV_TERMINATION_LOG"), restartPolicy="Never")
    await town.run("bad", shell("echo no; exit 4"), restartPolicy="Never")

    good = await town.until("good", lambda status: status.get("phase") == "Succeeded")
    bad = await town.until("bad", lambda status: status.get("phase") == "Failed")

    ended = container_of(good)["state"]["terminated"]
    assert (ended["reason"], ended["message"]) == ("Completed", "because\n")
    assert container_of(bad)["state"]["terminated"]["exitCode"] == 4
    assert town.log("good") == "done\n"


async def test_a_container_that_fails_is_started_again(town: Town) -> None:
    await town.run("web", shell("echo try; exit 1", terminationMessagePolicy="FallbackToLogsOnError"))

    status = await town.until("web", lambda status: container_of(status).get("restartCount", 0) >= 2)
    assert len(list(town.folder.glob("logs/*/main/*.log"))) <= 2  # this run and the one before

    assert container_of(status)["lastState"]["terminated"]["exitCode"] == 1
    assert "try" in container_of(status)["lastState"]["terminated"]["message"]
    await town.until("web", lambda status: waits_because(status) == "CrashLoopBackOff")
    assert town.log("web", previous=True) == "try\n"


async def test_init_containers_and_sidecars_come_first(town: Town) -> None:
    order = town.folder / "order"
    started = {"exec": {"command": ["grep", "-q", "main-may-start", str(town.folder / "word")]}, "periodSeconds": 1}
    await town.run(
        "web",
        shell(f"echo main >> {order}; {FOREVER}"),
        initContainers=[
            shell(f"echo first >> {order}", "first"),
            shell(f"echo side >> {order}; {FOREVER}", "side", restartPolicy="Always", startupProbe=started),
            shell(f"echo last >> {order}", "last"),
        ],
    )
    status = await town.until("web", lambda status: "running" in container_of(status, "side").get("state", {}))
    assert status["phase"] == "Pending"
    assert waits_because(status) == "PodInitializing"
    assert order.read_text().split()[0] == "first"

    (town.folder / "word").write_text("main-may-start")

    await town.until("web", is_ready)
    assert order.read_text().split() == ["first", "side", "last", "main"]


async def test_a_failed_init_container_fails_a_pod_that_may_not_try_again(town: Town) -> None:
    await town.run(
        "web",
        shell(f"echo > {town.folder / 'never'}"),
        initContainers=[shell("exit 1", "first")],
        restartPolicy="Never",
    )

    status = await town.until("web", lambda status: status.get("phase") == "Failed")

    assert container_of(status, "first")["state"]["terminated"]["exitCode"] == 1
    assert not (town.folder / "never").exists()


async def test_a_sidecar_ends_when_the_work_is_done(town: Town) -> None:
    """Jobs with sidecars come to an end."""
    sidecar = shell(FOREVER, "side", restartPolicy="Always")
    await town.run("job", shell("exit 0"), initContainers=[sidecar], restartPolicy="Never")

    status = await town.until("job", lambda status: status.get("phase") == "Succeeded")

    assert "terminated" in container_of(status, "side")["state"]


async def test_the_hook_of_one_container_holds_up_the_next(town: Town) -> None:
    """So that an application starts when its proxy is ready."""
    go = town.folder / "go"
    os.mkfifo(go)
    hook = {"postStart": {"exec": {"command": ["cat", str(go)]}}}
    await town.run("web", shell(FOREVER, "proxy", lifecycle=hook), shell(FOREVER))
    await town.until("web", lambda status: "running" in container_of(status, "proxy").get("state", {}))
    assert town.kubelet.process("default", "web", "main") is None

    await asyncio.to_thread(go.write_text, "now")

    await town.until("web", is_ready)


async def test_probes_decide(town: Town) -> None:
    willing, sick = town.folder / "willing", town.folder / "sick"
    readiness = {"exec": {"command": ["test", "-e", str(willing)]}, "periodSeconds": 1, "failureThreshold": 1}
    liveness = {"exec": {"command": ["test", "!", "-e", str(sick)]}, "periodSeconds": 1, "failureThreshold": 1}
    await town.run("web", shell(FOREVER, readinessProbe=readiness, livenessProbe=liveness))
    status = await town.until("web", lambda status: "running" in container_of(status).get("state", {}))
    assert not is_ready(status)

    willing.touch()
    await town.until("web", is_ready)
    willing.unlink()
    await town.until("web", lambda status: not is_ready(status))
    sick.touch()

    status = await town.until("web", lambda status: container_of(status).get("restartCount") == 1)
    assert not is_ready(status)


async def test_volumes_follow_config_maps(town: Town) -> None:
    config = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "conf", "namespace": "default"},
        "data": {"color": "red"},
    }
    volumes = [{"name": "conf", "configMap": {"name": "conf"}}]
    mounts = [{"name": "conf", "mountPath": "/conf"}]
    wait = "until grep -q blue $CONF/color; do sleep 0.05; done; exit 0"
    await town.run("web", shell(wait, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    status = await town.until("web", lambda status: waits_because(status) == "ContainerCreating")
    assert not status.get("podIP")

    await town.kube.create(CONFIG_MAP, config)
    await town.until("web", lambda status: status.get("phase") == "Running")
    await town.kube.patch(CONFIG_MAP, "default", "conf", {"data": {"color": "blue"}})

    await town.until("web", lambda status: status.get("phase") == "Succeeded")


async def test_what_is_wrong_is_told(town: Town) -> None:
    await town.run("image", {"name": "main", "image": "nginx"})
    await town.run("program", {**shell(""), "command": ["/no/such/program"]}, restartPolicy="Never")
    needs = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "x"}}}]
    await town.run("config", shell(FOREVER, env=needs))

    image = await town.until("image", lambda status: waits_because(status) == "ErrImagePull")
    program = await town.until("program", lambda status: status.get("phase") == "Failed")
    await town.until("config", lambda status: waits_because(status) == "CreateContainerConfigError")

    assert "shell" in container_of(image)["state"]["waiting"]["message"]
    assert container_of(program)["state"]["terminated"]["reason"] == "StartError"
    pods = {"image", "program", "config"}
    await town.seen(EVENT, lambda events: {each["involvedObject"]["name"] for each in events.values()} >= pods)


async def test_a_network_that_cannot_be_made_is_tried_again(town: Town) -> None:
    town.machine.failures = [StartFailed("no veth today"), OSError("nor now")]

    await town.run("web", shell(FOREVER))

    await town.until("web", is_ready)


async def test_a_fault_of_ours_stays_with_its_pod(town: Town) -> None:
    """It is logged, and the pod is begun anew."""
    town.machine.failures = [RuntimeError("a bug")]

    await town.run("unlucky", shell(FOREVER))
    await town.run("web", shell(FOREVER))

    await town.until("web", is_ready)
    await town.until("unlucky", is_ready)


async def test_pods_of_other_nodes_are_left_alone(town: Town) -> None:
    await town.run("elsewhere", shell(FOREVER), nodeName="somewhere")
    await town.run("web", shell(FOREVER))

    await town.until("web", is_ready)

    assert town.kubelet.containers("default", "elsewhere") == ()


async def test_a_load_balancer_has_an_address(town: Town) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
    }
    await town.kube.create(SERVICE, service)

    found = await town.seen(SERVICE, lambda services: _ingress(services.get("web", {})))

    assert _ingress(found["web"]) == [{"ip": "203.0.113.17"}]


def _ingress(service: Manifest) -> Any:
    return service.get("status", {}).get("loadBalancer", {}).get("ingress")
