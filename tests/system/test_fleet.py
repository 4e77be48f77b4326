"""The embedded fleet: what the demo and the other system tests stand on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from isthmus.cli.install import install_management_plane
from isthmus.embedded.controllers import Copy
from isthmus.embedded.fleet import Fleet
from isthmus.embedded.plans import is_ready
from isthmus.install import ManagementPlaneValues, Release
from isthmus.istio.kinds import GATEWAY, VIRTUAL_SERVICE
from isthmus.kube import KubeClient
from isthmus.model.kinds import DEPLOYMENT, ENDPOINT_SLICE, NAMESPACE, NODE, POD, SERVICE
from tests.system.http_door import open_door

Manifest = dict[str, Any]
Kube = Mapping[str, KubeClient]

SECONDS = 90.0  # a guard; everything here takes a second or two on a machine that is not overloaded
BOOKINFO = ("details-v1", "productpage-v1", "ratings-v1", "reviews-v1", "reviews-v2")
ISTIO = ("istio-ingressgateway", "istiod")


def workloads(pods: tuple[Manifest, ...]) -> dict[str, int]:
    """How many ready pods each Deployment has."""
    counts: dict[str, int] = {}
    for pod in pods:
        name = pod["metadata"]["name"].rsplit("-", 2)[0]
        counts[name] = counts.get(name, 0) + is_ready(pod)
    return counts


def addresses(copy: Copy, service: str) -> set[str]:
    """Ready endpoints of a Service."""
    return {
        endpoint["addresses"][0]
        for item in copy.all(ENDPOINT_SLICE)
        if item["metadata"]["labels"]["kubernetes.io/service-name"] == service
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
    }


async def test_the_walkthrough_is_deployed(kube: Kube, fleet: Fleet) -> None:
    """Bookinfo runs on both clusters, the third reviews on the second only, each pod with a proxy; mgmt has nothing."""
    first, second = [(await kube[name].list(POD)).items for name in fleet.managed]

    assert workloads(first) == dict.fromkeys((*BOOKINFO, *ISTIO), 1)
    assert workloads(second) == dict.fromkeys((*BOOKINFO, "reviews-v3", *ISTIO), 1)
    for pod in (*first, *second):
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
        wanted = pod["metadata"]["namespace"] == "default" or pod["metadata"]["name"].startswith("istio-ingress")
        assert any(container["name"] == "istio-proxy" for container in containers) is wanted
    assert (await kube["mgmt"].list(POD)).items == ()
    assert len((await kube["mgmt"].list(NODE)).items) == 1
    for name in fleet.managed:
        assert (await kube[name].get(NAMESPACE, "", "default"))["metadata"]["labels"]["istio-injection"] == "enabled"
        assert [len((await kube[name].list(kind)).items) for kind in (GATEWAY, VIRTUAL_SERVICE)] == [1, 1]


async def test_services_have_endpoints_and_gateways_addresses(kube: Kube, fleet: Fleet) -> None:
    """The endpoints are the pods', and the gateways' addresses are those of the walk-through's files."""
    gateways = {}
    for name in fleet.managed:
        pods = {pod["status"]["podIP"] for pod in (await kube[name].list(POD, "default", labels="app=reviews")).items}
        assert addresses(fleet.controllers[name].copy, "reviews") == pods
        gateway = await kube[name].get(SERVICE, "istio-system", "istio-ingressgateway")
        gateways[name] = gateway["status"]["loadBalancer"]["ingress"]

    assert gateways == {"cluster1": [{"ip": "203.0.113.1"}], "cluster2": [{"ip": "203.0.113.2"}]}


@pytest.mark.parametrize(("kind", "form"), [("ipv6", r"2001:db8:"), ("hostname", r"lb-")])
async def test_gateways_may_have_other_kinds_of_addresses(tmp_path: Path, kind: Any, form: str) -> None:
    """Each cluster's its own."""
    async with Fleet(tmp_path, load_balancers=kind) as fleet:
        found = []
        for name in fleet.managed:
            service = fleet.controllers[name].copy.get(SERVICE, "istio-system", "istio-ingressgateway")
            assert service is not None
            [entry] = service["status"]["loadBalancer"]["ingress"]
            found.append(entry.get("ip") or entry["hostname"])

    assert len(set(found)) == 2
    assert all(address.startswith(form) for address in found)


async def test_names_and_number_of_clusters_are_free(tmp_path: Path) -> None:
    """A fleet of four, under other names: files are read with the names in place."""
    names = ("control", "east", "west", "north")
    async with Fleet(tmp_path, names=names) as fleet:
        gateways = set()
        for name in fleet.managed:
            copy = fleet.controllers[name].copy
            service = copy.get(SERVICE, "istio-system", "istio-ingressgateway")
            assert service is not None
            gateways.add(service["status"]["loadBalancer"]["ingress"][0]["ip"])
            assert {node["metadata"]["name"].rsplit("-", 1)[0] for node in copy.all(NODE)} == {name}
        async with KubeClient.from_kubeconfig(fleet.kubeconfig, "west") as west:
            mesh = (await west.list(POD, "istio-system")).items
        assert workloads(mesh) == dict.fromkeys(ISTIO, 1)

    assert len(gateways) == 3


async def test_scaling_is_seen_at_once(kube: Kube, fleet: Fleet) -> None:
    """A Deployment is scaled by a client; pods and endpoints follow."""
    await kube["cluster2"].patch(DEPLOYMENT, "default", "reviews-v3", {"spec": {"replicas": 4}})

    await fleet.until("cluster2", lambda copy: len(addresses(copy, "reviews")) == 6, SECONDS)

    assert workloads((await kube["cluster2"].list(POD, "default", labels="version=v3")).items) == {"reviews-v3": 4}


async def test_the_installed_server_is_a_process_that_comes_back(kube: Kube, fleet: Fleet) -> None:
    """Installed as users do it, reachable at its Service's address and port 9900, restarted when it is killed."""
    mgmt = kube["mgmt"]
    await install_management_plane(mgmt, ManagementPlaneValues(), Release(), SECONDS)
    service = await mgmt.get(SERVICE, "gloo-mesh", "enterprise-networking")
    [pod] = (await mgmt.list(POD, "gloo-mesh")).items
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    [first] = fleet.nodes["mgmt"].processes.values()

    await _connect(address, 9900)
    os.kill(first, signal.SIGKILL)
    await fleet.until("mgmt", lambda copy: _restarted(copy, pod), SECONDS)

    [second] = fleet.nodes["mgmt"].processes.values()
    again = await mgmt.get(SERVICE, "gloo-mesh", "enterprise-networking")
    assert second != first
    assert again["status"] == service["status"]
    await _connect(address, 9900)


async def _connect(address: str, port: int) -> None:
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    await writer.wait_closed()


def _restarted(copy: Copy, before: Manifest) -> bool:
    pod = copy.get(POD, "gloo-mesh", before["metadata"]["name"])
    return pod is not None and pod["status"]["containerStatuses"][0]["restartCount"] == 1 and is_ready(pod)


async def test_a_killed_api_server_comes_back_as_it_was(tmp_path: Path) -> None:
    """In a process of its own it loses nothing that it answered, and the controllers go on."""
    async with (
        Fleet(tmp_path, own_processes=True, open_door=open_door) as fleet,
        KubeClient.from_kubeconfig(fleet.kubeconfig, "cluster1") as cluster1,
    ):
        await cluster1.patch(DEPLOYMENT, "default", "reviews-v1", {"spec": {"replicas": 3}})
        await fleet.until("cluster1", lambda copy: len(addresses(copy, "reviews")) == 4, SECONDS)
        before = {item["metadata"]["uid"] for item in (await cluster1.list(POD)).items}

        await fleet.servers["cluster1"].kill()
        await fleet.servers["cluster1"].start()

        assert {item["metadata"]["uid"] for item in (await cluster1.list(POD)).items} == before
        await cluster1.patch(DEPLOYMENT, "default", "reviews-v1", {"spec": {"replicas": 1}})
        await fleet.until("cluster1", lambda copy: len(addresses(copy, "reviews")) == 2, SECONDS)


async def test_a_fleet_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The trouble comes out of the entrance, not after a while."""
    (tmp_path / "kubeconfig").mkdir()

    with pytest.raises(IsADirectoryError):
        await Fleet(tmp_path).__aenter__()


KILLED = textwrap.dedent(
    """
    import asyncio
    from pathlib import Path
    from isthmus.cli.install import install_management_plane
    from isthmus.embedded.fleet import Fleet
    from isthmus.install import ManagementPlaneValues, Release
    from isthmus.kube import KubeClient

    async def main():
        async with Fleet() as fleet, KubeClient.from_kubeconfig(fleet.kubeconfig, "mgmt") as mgmt:
            await install_management_plane(mgmt, ManagementPlaneValues(), Release(), 90)
            print("processes", *fleet.nodes["mgmt"].processes.values(), flush=True)
            await asyncio.Event().wait()

    asyncio.run(main())
    """
)


def test_nothing_is_left_of_a_killed_fleet(tmp_path: Path) -> None:
    """The programs end with the process that ran the fleet, although it could clean up nothing."""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    starter = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, env=environment)
    assert starter.stdout is not None
    with starter.stdout:
        words = next(line.split() for line in starter.stdout if line.startswith("processes"))
    [program] = [int(word) for word in words[1:]]

    starter.kill()
    starter.wait()

    asyncio.run(_gone(program))


async def _gone(pid: int) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if not _lives(pid):
                return
            await asyncio.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_nothing_is_left_of_an_ended_fleet(tmp_path: Path) -> None:
    """Programs end politely, ports are free again, and a temporary directory is gone."""
    async with Fleet() as fleet:
        directory = fleet.directory
        async with KubeClient.from_kubeconfig(fleet.kubeconfig, "mgmt") as mgmt:
            await install_management_plane(mgmt, ManagementPlaneValues(), Release(), SECONDS)
        [program] = fleet.nodes["mgmt"].processes.values()
        [url] = {cluster.url for name, cluster in fleet.clusters.items() if name == "mgmt"}

    await _gone(program)
    assert not directory.exists()
    with pytest.raises(ConnectionRefusedError):
        await _connect("127.0.0.1", int(url.rpartition(":")[2]))
