"""Access on a whole fleet: whatever is written when, and whoever is killed meanwhile, it goes from old to new alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from isthmus.agent.ownership import selector
from isthmus.api.access_policy import AccessPolicy
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.kube import Changed, KubeClient, Removed, Replaced, WatchEvent
from isthmus.model.kinds import DEPLOYMENT
from isthmus.program.watching import follow
from isthmus.translate.access.evaluation import Answer, Call, Policies, Workload
from tests.system.federation import Federation, federation, until

Manifest = dict[str, Any]
Verdicts = dict[tuple[str, str], Answer]

pytestmark = pytest.mark.timeout(400)  # some seconds; many times that on a machine that others use too

ROOT = "istio-system"
ACCOUNTS = ("bookinfo-productpage", "bookinfo-reviews")
CALLERS = [f"{cluster}/ns/default/sa/{name}" for cluster in ("cluster1", "cluster2") for name in ACCOUNTS]
PODS = {name: Workload("default", {"app": name}) for name in ("details", "productpage", "ratings", "reviews")}
PODS["gateway"] = Workload(ROOT, {"istio": "ingressgateway"})


class Recorder:
    """The AuthorizationPolicies of a cluster, and what they came to after every single write."""

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], Manifest] = {}
        self.steps: list[Verdicts] = [verdicts({})]

    def take(self, event: WatchEvent) -> None:
        match event:
            case Replaced(items):
                self.policies = {key_of(item): item for item in items}
            case Changed(item):
                self.policies[key_of(item)] = item
            case Removed(item):
                self.policies.pop(key_of(item), None)
        self.steps.append(verdicts(self.policies))


def key_of(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def verdicts(policies: Mapping[tuple[str, str], Manifest]) -> Verdicts:
    """Who may call whom, by Istio's published rules."""
    rules = Policies(policies.values(), ROOT)
    return {
        (name, caller): rules.decide(pods, Call(principal=caller, port=9080, method="GET", path="/")).answer
        for name, pods in PODS.items()
        for caller in CALLERS
    }


@asynccontextmanager
async def recorded(fleet: Federation) -> AsyncIterator[dict[str, Recorder]]:
    """What happens to the policies of each cluster from now on."""
    recorders = {cluster: Recorder() for cluster in fleet.fleet.managed}
    tasks = [
        asyncio.create_task(
            follow(fleet.kube[cluster], AUTHORIZATION_POLICY, recorder.take, labels=selector(cluster, "gloo-mesh"))
        )
        for cluster, recorder in recorders.items()
    ]
    try:
        yield recorders
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


def policy(name: str, account: str, cluster: str, *services: str) -> Manifest:
    """Lets one service account call *services* on every cluster."""
    caller = {"name": account, "namespace": "default", "clusterName": cluster}
    return {
        "apiVersion": AccessPolicy.KIND.api_version,
        "kind": "AccessPolicy",
        "metadata": {"name": name, "namespace": "gloo-mesh"},
        "spec": {
            "sourceSelector": [{"kubeServiceAccountRefs": {"serviceAccounts": [caller]}}],
            "destinationSelector": [{"kubeServiceMatcher": {"labels": {"service": name}}} for name in services],
        },
    }


PAGE = policy("page", "bookinfo-productpage", "cluster1", "details", "reviews")
PAGE_ELSEWHERE = policy("page", "bookinfo-productpage", "cluster2", "reviews", "ratings")
STARS = policy("stars", "bookinfo-reviews", "cluster1", "ratings")
# What users want, and what is killed after each write of theirs.
STATES: tuple[tuple[str, tuple[Manifest, ...], tuple[str, ...]], ...] = (
    ("ENABLED", (PAGE, STARS), ()),
    ("DISABLED", (PAGE, STARS), ("mgmt",)),
    ("ENABLED", (PAGE_ELSEWHERE,), ("cluster1",)),
    ("MESH_DEFAULT", (), ("mgmt", "cluster2")),
    ("ENABLED", (STARS, PAGE), ("mgmt", "cluster1")),
)


async def test_access_goes_from_old_to_new_alone(tmp_path: Path) -> None:
    """After every write on either cluster, each call is as in a state that users went through, whoever is killed."""
    async with federation(tmp_path, own_processes=False) as fleet, recorded(fleet) as recorders:
        await settled(fleet, recorders)
        count = 0
        for stance, policies, victims in STATES:
            began = {cluster: len(recorder.steps) - 1 for cluster, recorder in recorders.items()}
            passed = [await wanted(fleet)]

            async for _ in changes(fleet.mgmt, stance, policies):
                passed.append(await wanted(fleet))
                for victim in victims:
                    fleet.kill(victim)
            await settled(fleet, recorders)

            for cluster, recorder in recorders.items():
                may = [verdicts(state[cluster]) for state in passed]
                for step in recorder.steps[began[cluster] :]:
                    assert {call for call in step if step[call] not in {state[call] for state in may}} == set()
                    count += 1
        assert count > 4 * len(STATES)


async def test_a_mesh_whose_control_plane_is_gone_keeps_its_rules(tmp_path: Path) -> None:
    """They are there when it comes back, whoever was killed meanwhile, and go once no virtual mesh names it."""
    async with federation(tmp_path, own_processes=False) as fleet, recorded(fleet) as recorders:
        mgmt, kube = fleet.mgmt, fleet.kube["cluster1"]
        await mgmt.apply(AccessPolicy.KIND, PAGE, force=True, manager="test")
        await settled(fleet, recorders)
        istiod = await kube.get(DEPLOYMENT, ROOT, "istiod")
        before = len(recorders["cluster1"].steps) - 1

        await kube.delete(DEPLOYMENT, ROOT, "istiod")
        await until(lambda: lost(mgmt))
        for victim in ("cluster1", "mgmt"):
            fleet.kill(victim)
        await until(lambda: connected(mgmt, "cluster1"))
        await mgmt.apply(AccessPolicy.KIND, STARS, force=True, manager="test")
        await until(lambda: named(recorders["cluster2"], "ratings"))
        await kube.apply(DEPLOYMENT, {key: istiod[key] for key in ("apiVersion", "kind")} | fresh(istiod))
        await settled(fleet, recorders)

        closed = recorders["cluster1"].steps[before]
        for step in recorders["cluster1"].steps[before:]:
            assert [call for call in step if step[call] is not closed[call] and call[0] != "ratings"] == []

        await kube.delete(DEPLOYMENT, ROOT, "istiod")
        await until(lambda: lost(mgmt))
        assert recorders["cluster1"].policies
        meshes = [{"name": "istiod-istio-system-cluster2", "namespace": "gloo-mesh"}]
        await mgmt.patch(VirtualMesh.KIND, "gloo-mesh", "virtual-mesh", {"spec": {"meshes": meshes}})
        await settled(fleet, recorders)
        assert recorders["cluster1"].policies == {}


async def lost(mgmt: KubeClient) -> bool | None:
    """Whether the Mesh of cluster1 is gone, and the status of the VirtualMesh says so."""
    status = (await mgmt.get(VirtualMesh.KIND, "gloo-mesh", "virtual-mesh")).get("status") or {}
    told = [
        found for found in (status.get("meshes") or {}).items() if "cluster1" in found[0] and "not found" in str(found)
    ]
    return True if told else None


async def connected(mgmt: KubeClient, cluster: str) -> bool | None:
    """Whether the agent of *cluster* is connected to the server that runs now."""
    status = (await mgmt.get(KubernetesCluster.KIND, "gloo-mesh", cluster)).get("status") or {}
    return True if "agent connected" in str(status) else None


async def named(recorder: Recorder, name: str) -> bool | None:
    """Whether there is a policy called *name*."""
    return True if ("default", name) in recorder.policies else None


def fresh(item: Manifest) -> Manifest:
    """*item* as a user would write it."""
    metadata = {key: item["metadata"][key] for key in ("name", "namespace", "labels") if key in item["metadata"]}
    return {"metadata": metadata, "spec": item["spec"]}


async def changes(mgmt: KubeClient, stance: str, policies: tuple[Manifest, ...]) -> AsyncIterator[None]:
    """Each write of a user who wants *stance*, and *policies* alone."""
    for manifest in policies:
        await mgmt.apply(AccessPolicy.KIND, manifest, force=True, manager="test")
        yield
    await mgmt.patch(VirtualMesh.KIND, "gloo-mesh", "virtual-mesh", {"spec": {"globalAccessPolicy": stance}})
    yield
    names = {manifest["metadata"]["name"] for manifest in policies}
    for item in (await mgmt.list(AccessPolicy.KIND)).items:
        if item["metadata"]["name"] not in names:
            await mgmt.delete(AccessPolicy.KIND, "gloo-mesh", item["metadata"]["name"])
            yield


async def wanted(fleet: Federation) -> dict[str, dict[tuple[str, str], Manifest]]:
    """The policies that each cluster should have, by what users want now."""
    found: dict[str, dict[tuple[str, str], Manifest]] = {cluster: {} for cluster in fleet.fleet.managed}
    for (cluster, key), content in (await fleet.expected()).items():
        if key.kind == AUTHORIZATION_POLICY.kind:
            where = (key.namespace, key.name)
            found[cluster][where] = content | {
                "kind": key.kind,
                "metadata": {"namespace": key.namespace, "name": key.name},
            }
    return found


async def settled(fleet: Federation, recorders: Mapping[str, Recorder]) -> None:
    """Wait until every cluster has the policies that it should have."""

    async def same() -> bool | None:
        expected = await wanted(fleet)
        actual = {
            cluster: {key: item.get("spec") for key, item in recorder.policies.items()}
            for cluster, recorder in recorders.items()
        }
        specs = {cluster: {key: item["spec"] for key, item in found.items()} for cluster, found in expected.items()}
        return True if actual == specs else None

    await until(same)
