"""The stand-in for istiod: which root it hands out, and when."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from isthmus.embedded.istiod import ROOT_MAP, Istiod
from isthmus.model.kinds import CONFIG_MAP, DEPLOYMENT, NAMESPACE, NODE, POD, SECRET
from tests.unit.embedded_fleet.clusters import SECONDS, Cluster

Manifest = dict[str, Any]
SYSTEM = "istio-system"


def istiod() -> Manifest:
    labels = {"app": "istiod"}
    return {
        "apiVersion": DEPLOYMENT.api_version,
        "kind": DEPLOYMENT.kind,
        "metadata": {"name": "istiod", "namespace": SYSTEM},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "discovery", "image": "docker.io/istio/pilot:1.20.0"}]},
            },
        },
    }


def cacerts(root: str) -> Manifest:
    metadata = {"name": "cacerts", "namespace": SYSTEM}
    data = {"root-cert.pem": b64encode(root.encode()).decode()}
    return {"apiVersion": "v1", "kind": SECRET.kind, "metadata": metadata, "data": data}


def named(kind: str, name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


@pytest.fixture
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.create(*(named(NAMESPACE.kind, name) for name in (SYSTEM, "shop")), named(NODE.kind, "a"), istiod())
    return cluster


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[Istiod]:
    found = Istiod(cluster.door)
    task = asyncio.create_task(found.run())
    async with cluster.running():
        try:
            async with asyncio.timeout(SECONDS):
                await found.handed_out.wait()
            yield found
        finally:
            task.cancel()
            await asyncio.wait([task])
    if not task.cancelled():
        task.result()


def root_of(cluster: Cluster, namespace: str) -> str:
    maps = [item for item in cluster.all(CONFIG_MAP, namespace) if item["metadata"]["name"] == ROOT_MAP]
    return str(maps[0]["data"]["root-cert.pem"]) if maps else ""


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def becomes(cluster: Cluster, root: str, *namespaces: str) -> None:
    await until(lambda: {root_of(cluster, namespace) for namespace in namespaces} == {root})


async def restart(cluster: Cluster, mark: str) -> None:
    """Replace the pod of istiod, and wait until the one before is gone."""
    before = {pod["metadata"]["uid"] for pod in cluster.all(POD, SYSTEM)}
    template = {"metadata": {"annotations": {"mark": mark}}}
    cluster.patch(DEPLOYMENT, "istiod", {"spec": {"template": template}}, SYSTEM)
    await until(lambda: before.isdisjoint(pod["metadata"]["uid"] for pod in cluster.all(POD, SYSTEM)))


async def test_a_root_that_is_plugged_in_is_read_at_the_start_and_not_before(cluster: Cluster) -> None:
    """In every namespace, also in those that come later; without it, a root of its own, always the same."""
    async with running(cluster):
        own = root_of(cluster, "shop")
        assert b64decode(cluster.get(SECRET, "istio-ca-secret", SYSTEM)["data"]["ca-cert.pem"]).decode() == own
        await becomes(cluster, own, SYSTEM, "shop", "default")

        cluster.create(cacerts("theirs"))
        cluster.create(named(NAMESPACE.kind, "late"))
        await becomes(cluster, own, "late")

        await restart(cluster, "1")
        await becomes(cluster, "theirs", SYSTEM, "shop", "default", "late")

        cluster.delete(SECRET, "cacerts", SYSTEM)
        await restart(cluster, "2")
        await becomes(cluster, own, SYSTEM, "shop", "default", "late")


async def test_what_users_change_or_delete_comes_back(cluster: Cluster) -> None:
    async with running(cluster):
        root = root_of(cluster, "shop")

        cluster.patch(CONFIG_MAP, ROOT_MAP, {"data": {"root-cert.pem": "another"}}, "shop")
        cluster.delete(CONFIG_MAP, ROOT_MAP, "default")

        await becomes(cluster, root, "shop", "default")
