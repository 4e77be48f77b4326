"""A person has a mesh restarted: by the agent's own restarts, on a cluster whose controllers run."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isthmus.agent.restart import Restarter
from isthmus.api.discovery import Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.pod_bounce_directive import PodBounceDirective
from isthmus.embedded.controllers import Addresses, Controllers
from isthmus.embedded.door import InProcess
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import DEPLOYMENT, NODE, POD
from tests.unit.agent.test_apply import until
from tests.unit.agent.test_restart import LATER, MESH, OURS, World
from tests.unit.cli.meshctl import Clusters, meshctl, with_our_kinds

Manifest = dict[str, Any]

RESTART = ("mesh", "restart", "--mesh-name", MESH, "--mgmt-context", "mgmt")
BY_HAND = f"{MESH}-by-hand"


def mesh() -> Manifest:
    return {
        "apiVersion": Mesh.KIND.api_version,
        "kind": "Mesh",
        "metadata": {"name": MESH, "namespace": OURS},
        "spec": {
            "istio": {
                "installation": {"namespace": "istio-system", "cluster": "cluster1", "podLabels": {"app": "istiod"}},
                "trustDomain": "cluster1",
            },
            "agentInfo": {"agentNamespace": OURS},
        },
    }


def workload(name: str) -> Manifest:
    return {
        "apiVersion": Workload.KIND.api_version,
        "kind": "Workload",
        "metadata": {"name": f"{name}-default-cluster1-deployment", "namespace": OURS},
        "spec": {
            "kubernetes": {
                "controller": {"name": name, "namespace": "default", "clusterName": "cluster1"},
                "podLabels": {"app": name},
            },
            "mesh": {"name": MESH, "namespace": OURS},
        },
    }


class Fleet:
    """A management cluster, and one with istiod and two workloads whose certificate is newer than their pods."""

    def __init__(self, clusters: Clusters) -> None:
        self.clusters = clusters
        self.kubeconfig = clusters.kubeconfig
        self.background: list[asyncio.Task[None]] = []

    async def prepare(self) -> None:
        api = self.clusters.cluster("cluster1").api
        controllers = Controllers(InProcess(api), Addresses("10.0.0.0/16", "192.0.2.0/28"))
        self.background.append(asyncio.create_task(controllers.run()))
        async with self.kube() as kube:
            await kube.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
            world = World(kube)
            for namespace, name in (("istio-system", "istiod"), ("default", "a"), ("default", "b")):
                await world.deploy(namespace, name)

            async def run() -> bool:
                return len((await kube.list(POD)).items) == 6

            await until(run)
            await world.issue(1, written=LATER, restarting=False)
            await world.serve_root(1)

    def kube(self) -> KubeClient:
        return KubeClient.from_kubeconfig(self.kubeconfig, "cluster1", patience=5.0)

    async def say(self, **status: Any) -> None:
        """What the agent says of the certificate."""
        async with self.kube() as kube:
            known = (await kube.get(IssuedCertificate.KIND, OURS, MESH))["metadata"]
            metadata = {key: known[key] for key in ("name", "namespace", "uid")}
            await kube.apply_status(IssuedCertificate.KIND, {"metadata": metadata, "status": status})

    async def restart_by_itself(self) -> None:
        """What the management plane wants with `autoRestartPods`."""
        async with self.kube() as kube:
            await World(kube).issue(1, written=LATER)

    async def start_agent(self) -> None:
        async def follow() -> None:
            async with self.kube() as kube:
                await Restarter(kube, OURS).run()

        self.background.append(asyncio.create_task(follow()))

    async def generations(self) -> dict[str, int]:
        async with self.kube() as kube:
            return await World(kube).generations()

    async def pause(self, name: str, *, paused: bool) -> None:
        async with self.kube() as kube:
            await kube.patch(DEPLOYMENT, "default", name, {"spec": {"paused": paused}})

    async def by_hand(self) -> Manifest | None:
        async with self.kube() as kube:
            try:
                return await kube.get(PodBounceDirective.KIND, OURS, BY_HAND)
            except NotFound:
                return None

    async def stop(self) -> None:
        for task in self.background:
            task.cancel()
        await asyncio.wait(self.background)

    def do(self, work: Any) -> Any:
        return self.clusters.do(work)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Clusters(tmp_path, ["mgmt", "cluster1"]).running() as clusters:
        for name in ("mgmt", "cluster1"):
            with_our_kinds(clusters, name)
        clusters.load("mgmt", mesh(), workload("a"), workload("b"))
        namespaces = ("istio-system", "default")
        clusters.load(
            "cluster1", *({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}} for name in namespaces)
        )
        found = Fleet(clusters)
        clusters.do(found.prepare())
        try:
            yield found
        finally:
            clusters.do(found.stop())


OUTDATED = {"count": 6, "names": ["default/a-1"]}


def test_all_that_is_outdated_restarts_once(fleet: Fleet) -> None:
    before = fleet.do(fleet.generations())
    fleet.do(fleet.say(state="ISSUED", outdatedPods=OUTDATED))
    fleet.do(fleet.start_agent())

    result = meshctl(*RESTART, kubeconfig=fleet.kubeconfig)

    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == f"6 pods of {MESH} with an older certificate"
    assert "  Deployment istio-system/istiod is restarting" in lines
    assert "6 pods restarted" in lines
    assert lines[-1] == f"every pod of {MESH} runs with the present certificate"
    assert fleet.do(fleet.generations()) == {name: number + 1 for name, number in before.items()}
    assert fleet.do(fleet.by_hand()) is None


def test_a_mesh_that_restarts_by_itself_is_only_watched(fleet: Fleet) -> None:
    fleet.do(fleet.restart_by_itself())
    fleet.do(fleet.say(state="ISSUED"))
    fleet.do(fleet.start_agent())

    result = meshctl(*RESTART, kubeconfig=fleet.kubeconfig)

    assert result.exit_code == 0, result.stderr
    assert "the mesh restarts by itself, so this only watches" in result.stdout
    assert fleet.do(fleet.by_hand()) is None


def test_nothing_is_restarted_when_nothing_is_outdated(fleet: Fleet) -> None:
    fleet.do(fleet.say(state="FINISHED"))

    result = meshctl(*RESTART, kubeconfig=fleet.kubeconfig)

    assert (result.exit_code, result.stdout) == (0, f"no pod of {MESH} runs with an older certificate\n")
    assert fleet.do(fleet.by_hand()) is None


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"state": "FAILED", "error": "cacerts is somebody else's"}, "is FAILED: cacerts is somebody else's"),
        ({"state": "REQUESTED"}, "is REQUESTED"),
    ],
)
def test_without_a_certificate_in_place_nothing_is_restarted(
    fleet: Fleet, status: dict[str, str], message: str
) -> None:
    fleet.do(fleet.say(**status))

    result = meshctl(*RESTART, kubeconfig=fleet.kubeconfig)

    assert result.exit_code == 1
    assert message in result.stderr
    assert fleet.do(fleet.by_hand()) is None


def test_what_is_left_is_said_when_the_time_is_over_and_the_next_run_goes_on(fleet: Fleet) -> None:
    fleet.do(fleet.say(state="ISSUED", outdatedPods=OUTDATED))
    fleet.do(fleet.pause("a", paused=True))
    fleet.do(fleet.start_agent())
    assert meshctl(*RESTART, "--timeout", "0.1", kubeconfig=fleet.kubeconfig).exit_code == 1

    async def only_a_is_left() -> bool:
        status = (await fleet.by_hand() or {}).get("status") or {}
        return status.get("waiting") == ["Deployment default/a is paused"]

    fleet.do(until(only_a_is_left))
    result = meshctl(*RESTART, "--timeout", "5", kubeconfig=fleet.kubeconfig)

    assert result.exit_code == 1
    assert "the agent is at it already" in result.stdout
    assert "not done after 5 seconds: Deployment default/a is paused" in result.stderr
    assert "the agent goes on; the same command shows how far it is" in result.stderr

    fleet.do(fleet.pause("a", paused=False))
    again = meshctl(*RESTART, kubeconfig=fleet.kubeconfig)

    assert again.exit_code == 0, again.stderr
    assert fleet.do(fleet.by_hand()) is None


def test_an_agent_that_says_nothing_is_told(fleet: Fleet) -> None:
    fleet.do(fleet.say(state="ISSUED", outdatedPods=OUTDATED))

    result = meshctl(*RESTART, "--timeout", "0.5", kubeconfig=fleet.kubeconfig)

    assert result.exit_code == 1
    assert "the agent has not said how far it is; is it of this version?" in result.stderr


def test_a_mesh_that_is_not_there_is_named(fleet: Fleet) -> None:
    result = meshctl("mesh", "restart", "--mesh-name", "x", "--mgmt-context", "mgmt", kubeconfig=fleet.kubeconfig)

    assert result.exit_code == 1
    assert "mgmt has no Mesh gloo-mesh/x" in result.stderr
