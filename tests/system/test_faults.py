"""Whatever is killed, whenever: in the end the fleet is as one that was never disturbed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.kube import KubeClient
from isthmus.model import kinds
from tests.system.federation import Federation, federation, until, without_pod_addresses

Manifest = dict[str, Any]
Change = Callable[[Federation], Awaitable[None]]

pytestmark = pytest.mark.timeout(400)  # some seconds each; many times that on a machine that others use too

CHANGES = 40
NAMES = [f"shop-{number}" for number in range(6)]


def service(name: str, port: int) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port, "protocol": "TCP"}]},
    }


def deployment(name: str, version: str, replicas: int) -> Manifest:
    labels = {"app": name, "version": version}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{name}-{version}", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [
                        {"name": name, "image": f"example.com/{name}:1"},
                        {"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.9.9"},
                    ]
                },
            },
        },
    }


def changes(seed: int, count: int = CHANGES) -> list[Change]:
    """What users do: the same for the same *seed*. Each change sets a state, so that it may be tried again."""
    dice = random.Random(seed)
    return [one_change(dice) for _ in range(count)]


def one_change(dice: random.Random) -> Change:
    cluster, name = dice.choice(["cluster1", "cluster2"]), dice.choice(NAMES)
    what = dice.choice(["service", "service", "deployment", "deployment", "no service", "no deployment", "mesh"])
    version, replicas, port = dice.choice(["v1", "v2"]), dice.randrange(4), dice.choice([80, 8080])
    selectors = dice.choice([[{}], [{"destinationSelectors": [{"kubeServiceMatcher": {"namespaces": ["default"]}}]}]])

    async def change(fleet: Federation) -> None:
        kube = fleet.kube[cluster]
        match what:
            case "service":
                await write(kube, kinds.SERVICE, service(name, port))
            case "deployment":
                await write(kube, kinds.DEPLOYMENT, deployment(name, version, replicas))
            case "no service":
                await kube.delete(kinds.SERVICE, "default", name)
            case "no deployment":
                await kube.delete(kinds.DEPLOYMENT, "default", f"{name}-{version}")
            case "mesh":
                patch = {"spec": {"federation": {"selectors": selectors}}}
                await fleet.mgmt.patch(VirtualMesh.KIND, "gloo-mesh", "virtual-mesh", patch)

    return change


async def write(kube: KubeClient, kind: Any, manifest: Manifest) -> None:
    await kube.apply(kind, manifest, force=True, manager="test")


async def kill_server(fleet: Federation, dice: random.Random) -> None:
    fleet.kill("mgmt")


async def kill_agent(fleet: Federation, dice: random.Random) -> None:
    fleet.kill(dice.choice(fleet.fleet.managed))


async def cut_network(fleet: Federation, dice: random.Random) -> None:
    fleet.network.cut()


async def kill_api_server(fleet: Federation, dice: random.Random) -> None:
    await fleet.restart_api_server(dice.choice(fleet.fleet.names))


FAULTS = (kill_server, kill_agent, cut_network, kill_api_server)


async def disturb(fleet: Federation, seed: int, faults: tuple[Any, ...], times: int) -> None:
    """*times* faults at random moments of the next seconds."""
    dice = random.Random(seed)
    for _ in range(times):
        await asyncio.sleep(dice.uniform(0.05, 0.6))
        await dice.choice(faults)(fleet, dice)


async def change_all(fleet: Federation, seed: int, pause: float) -> None:
    dice = random.Random(seed + 1)
    for change in changes(seed):
        await change(fleet)
        await asyncio.sleep(dice.uniform(0, pause))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
async def test_one_kind_of_fault(fault: Any, tmp_path: Path) -> None:
    """One part is struck again and again while users change things; nothing is lost and nothing left over."""
    async with federation(tmp_path, own_processes=True) as fleet:
        await fleet.settled()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(change_all(fleet, 1, 0.1))
            tasks.create_task(disturb(fleet, 2, (fault,), 4))

        await fleet.settled()


async def test_all_faults_at_once_end_as_no_fault_at_all(tmp_path: Path) -> None:
    """A shaken fleet and a calm one, given the same input, hold the same."""
    async with federation(tmp_path / "calm", own_processes=False) as fleet:
        await change_all(fleet, 3, 0.0)
        calm = await fleet.settled()

    async with federation(tmp_path / "shaken", own_processes=True) as fleet:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(change_all(fleet, 3, 0.1))
            tasks.create_task(disturb(fleet, 4, FAULTS, 8))
        shaken = await fleet.settled()

    assert without_pod_addresses(shaken) == without_pod_addresses(calm)


async def test_nothing_is_pruned_for_a_cluster_that_is_down(tmp_path: Path) -> None:
    """The server comes back while one cluster is away: what the others have for its sake stays."""
    async with federation(tmp_path, own_processes=True) as fleet:
        before = await fleet.settled()
        await fleet.fleet.servers["cluster2"].kill()
        fleet.kill("cluster2")

        assert fleet.kill("mgmt")
        await write(fleet.kube["cluster1"], kinds.SERVICE, service("details", 9080))
        # The server has restarted and worked once it has seen this through.
        await write(fleet.kube["cluster1"], kinds.SERVICE, service("late", 80))
        await write(fleet.kube["cluster1"], kinds.DEPLOYMENT, deployment("late", "v1", 1))

        async def late() -> Any:
            names = {key.name for cluster, key in await fleet.outputs("cluster1")}
            return names if "late.default.svc.cluster1.global" in names else None

        await until(late)
        after = await fleet.outputs("cluster1")
        assert {place for place in before if place[0] == "cluster1"} <= set(after)

        await fleet.fleet.servers["cluster2"].start()
        await fleet.settled()
