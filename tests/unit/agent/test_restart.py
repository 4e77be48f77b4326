"""Pods restart on a cluster whose controllers run; nothing restarts twice, whenever the agent is started anew."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from isthmus.agent.certificates import GENERATION, HOLDER, ISSUED_AT, fingerprint
from isthmus.agent.restart import Restarter
from isthmus.agent.rollouts import RESTARTED_FOR
from isthmus.api.crd import crd
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.pod_bounce_directive import BY_HAND, PodBounceDirective
from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.controllers import Addresses, Controllers
from isthmus.embedded.door import InProcess
from isthmus.kube import KubeClient, Removed, WatchEvent
from isthmus.model.kinds import CONFIG_MAP, DEPLOYMENT, NODE, POD, REPLICA_SET, SECRET, SERVICE
from isthmus.model.ref import Kind
from tests.unit.agent.test_apply import until

Manifest = dict[str, Any]

OURS = "gloo-mesh"
MESH = "istiod-istio-system-cluster1"
ROOT = "istio-ca-root-cert"
LONG_AGO = "2020-01-01T00:00:00Z"
LATER = "2100-01-01T00:00:00Z"


class World:
    """A cluster with an istiod and two workloads, and its mesh's certificate."""

    def __init__(self, kube: KubeClient) -> None:
        self.kube = kube

    async def deploy(self, namespace: str, name: str, kind: Kind = DEPLOYMENT) -> None:
        """A controller of two pods."""
        labels = {"app": name}
        container = {"name": "discovery" if name == "istiod" else "istio-proxy", "image": "x"}
        await self.kube.create(
            kind,
            {
                "apiVersion": "apps/v1",
                "kind": kind.kind,
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "replicas": 2,
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                },
            },
        )

    async def issue(self, number: int, *, written: str = LONG_AGO, restarting: bool = True) -> str:
        """The certificate *number*, its `cacerts` and its directive; the fingerprint."""
        ref = {"name": MESH, "namespace": OURS}
        certificate = await self.kube.apply(
            IssuedCertificate.KIND,
            {
                "apiVersion": IssuedCertificate.KIND.api_version,
                "kind": "IssuedCertificate",
                "metadata": ref,
                "spec": {
                    "hosts": [f"spiffe://cluster1/{number}"],
                    "issuedCertificateSecret": {"name": "cacerts", "namespace": "istio-system"},
                    **({"podBounceDirective": ref} if restarting else {}),
                },
            },
        )
        if restarting:
            await self.kube.apply(PodBounceDirective.KIND, directive())
        data = {"ca-cert.pem": f"certificate {number}".encode(), "root-cert.pem": f"root {number}".encode()}
        notes = {
            HOLDER: f"{OURS}/{MESH}",
            GENERATION: str(certificate["metadata"]["generation"]),
            ISSUED_AT: written,
        }
        await self.kube.apply(
            SECRET,
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "cacerts", "namespace": "istio-system", "annotations": notes},
                "data": {key: b64encode(value).decode() for key, value in data.items()},
            },
        )
        return fingerprint(data)

    async def serve_root(self, number: int) -> None:
        """What istiod does once it has restarted."""
        for namespace in ("istio-system", "default"):
            await self.kube.apply(
                CONFIG_MAP,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": ROOT, "namespace": namespace},
                    "data": {"root-cert.pem": f"root {number}"},
                },
            )

    async def marks(self) -> dict[str, set[str]]:
        """By app: what its pods were restarted for."""
        found: dict[str, set[str]] = {}
        for pod in (await self.kube.list(POD)).items:
            metadata = pod["metadata"]
            if "deletionTimestamp" not in metadata:
                mark = (metadata.get("annotations") or {}).get(RESTARTED_FOR, "")
                found.setdefault(metadata["labels"]["app"], set()).add(mark)
        return found

    async def generations(self) -> dict[str, int]:
        """How often each Deployment was changed."""
        items = (await self.kube.list(DEPLOYMENT)).items
        return {item["metadata"]["name"]: item["metadata"]["generation"] for item in items}

    async def status(self) -> Manifest:
        found = await self.kube.get(PodBounceDirective.KIND, OURS, MESH)
        return dict(found.get("status") or {})


def directive() -> Manifest:
    """istiod, then the workloads."""
    secret = {"name": "cacerts", "namespace": "istio-system"}
    sync = {
        "secretRef": secret,
        "secretKey": "root-cert.pem",
        "configMapRef": {"name": ROOT, "namespace": "default"},
        "configMapKey": "root-cert.pem",
    }
    return {
        "apiVersion": PodBounceDirective.KIND.api_version,
        "kind": "PodBounceDirective",
        "metadata": {"name": MESH, "namespace": OURS},
        "spec": {
            "podsToBounce": [
                {"namespace": "istio-system", "labels": {"app": "istiod"}, "waitForReplicas": 1},
                *({"namespace": "default", "labels": {"app": app}, "rootCertSync": sync} for app in ("a", "b", "c")),
            ]
        },
    }


@pytest.fixture
async def world(bare_cluster: EmbeddedCluster, tmp_path: Path) -> AsyncIterator[World]:
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(bare_cluster.kubeconfig()))
    await bare_cluster.load([crd(IssuedCertificate), crd(PodBounceDirective)])
    async with AsyncExitStack() as stack:
        kube = await stack.enter_async_context(KubeClient.from_kubeconfig(path, patience=5.0))
        await kube.create(NODE, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node"}})
        controllers = Controllers(InProcess(bare_cluster.api), Addresses("10.0.0.0/16", "192.0.2.0/28"))
        stack.push_async_callback(stopped, asyncio.create_task(controllers.run()))
        made = World(kube)
        for namespace, name in (("istio-system", "istiod"), ("default", "a"), ("default", "b")):
            await made.deploy(namespace, name)
        await kube.create(
            SERVICE,
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "a", "namespace": "default"},
                "spec": {"selector": {"app": "a"}, "ports": [{"port": 80}]},
            },
        )
        await until(lambda: all_run(made))
        yield made


async def all_run(world: World) -> bool:
    marks = await world.marks()
    return set(marks) == {"istiod", "a", "b"} and len((await world.kube.list(POD)).items) == 6


async def pods_of(world: World, app: str) -> bool:
    return len((await world.kube.list(POD, labels=f"app={app}")).items) == 2


async def stopped(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


@asynccontextmanager
async def restarter(kube: KubeClient) -> AsyncIterator[Restarter]:
    running = Restarter(kube, OURS)
    task = asyncio.create_task(running.run())
    try:
        yield running
    finally:
        await stopped(task)


def progress(running: Restarter, mark: str) -> Callable[[], bool]:
    return lambda: running.progress(OURS, MESH, mark).done


def all_are(world: World, mark: str, *apps: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        marks = await world.marks()
        return all(marks[app] == {mark} for app in apps)

    return check


async def test_istiod_restarts_then_waits_for_its_root_then_workloads_restart(world: World) -> None:
    before = await world.generations()
    mark = await world.issue(1)
    async with restarter(world.kube) as running:
        await until(all_are(world, mark, "istiod"))
        await until(lambda: "does not have the new root" in running.progress(OURS, MESH, mark).waiting)
        assert await all_are(world, "", "a", "b")()
        await world.serve_root(1)

        await until(progress(running, mark))

        assert await world.marks() == {app: {mark} for app in ("istiod", "a", "b")}
        assert await world.generations() == {name: number + 1 for name, number in before.items()}
        assert not running.old_pods(MESH, mark)
    status = await world.status()
    assert (status["finished"], status["observedCertificate"], "waiting" in status) == (True, mark, False)
    assert [len(each.get("bouncedPods", ())) for each in status["podsBounced"]] == [2, 2, 2, 0]


async def test_an_agent_that_is_started_again_and_again_restarts_nothing_twice(world: World) -> None:
    before = await world.generations()
    mark = await world.issue(1)
    for _ in range(3):
        async with restarter(world.kube) as running:
            await until(lambda: not running.waiting_for())
            await until(all_are(world, mark, "istiod"))
    await world.serve_root(1)
    for _ in range(3):
        async with restarter(world.kube) as running:
            await until(progress(running, mark))

    assert await world.generations() == {name: number + 1 for name, number in before.items()}


class Slow:
    """A client that answers a change of Deployment ``b`` only when the watch has told that it is gone again."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._gone = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)

    async def watch(self, kind: Kind, *given: Any, **named: Any) -> AsyncIterator[WatchEvent]:
        async for event in self._kube.watch(kind, *given, **named):
            yield event
            if isinstance(event, Removed) and kind == DEPLOYMENT:
                self._gone.set()

    async def patch(self, kind: Kind, namespace: str, name: str, patch: Manifest) -> Manifest:
        answer = await self._kube.patch(kind, namespace, name, patch)
        if name == "b":
            await self._kube.delete(kind, namespace, name)
            await self._gone.wait()
        return answer


async def test_a_controller_that_goes_while_it_is_restarted_holds_nothing_up(world: World) -> None:
    """The answer to a change may come after all that the watch has to tell of it."""
    await world.deploy("default", "c")
    mark = await world.issue(1)
    await world.serve_root(1)

    async with restarter(cast("KubeClient", Slow(world.kube))) as running:
        await until(progress(running, mark))

    assert await world.marks() == {app: {mark} for app in ("istiod", "a", "c")}


async def test_another_certificate_restarts_them_again(world: World) -> None:
    first = await world.issue(1)
    await world.serve_root(1)
    async with restarter(world.kube) as running:
        await until(progress(running, first))
        second = await world.issue(2)
        await world.serve_root(2)

        await until(progress(running, second))

        assert not running.progress(OURS, MESH, first).done
    assert await world.marks() == {app: {second} for app in ("istiod", "a", "b")}


async def test_pods_that_no_rollout_replaces_are_evicted_one_by_one(world: World) -> None:
    """A ReplicaSet takes a new template for new pods only."""
    await world.deploy("default", "c", REPLICA_SET)
    await until(lambda: pods_of(world, "c"))
    mark = await world.issue(1)
    await world.serve_root(1)
    async with restarter(world.kube) as running:
        await until(progress(running, mark))

    assert await world.marks() == {app: {mark} for app in ("istiod", "a", "b", "c")}


async def test_a_certificate_that_is_not_in_place_yet_restarts_nothing(world: World) -> None:
    """`cacerts` is of the generation before."""
    before = await world.generations()
    mark = await world.issue(1)
    secret = await world.kube.get(SECRET, "istio-system", "cacerts")
    await world.kube.patch(SECRET, "istio-system", "cacerts", {"metadata": {"annotations": {GENERATION: "77"}}})
    async with restarter(world.kube) as running:
        await until(lambda: not running.waiting_for())

        assert running.progress(OURS, MESH, mark).waiting == "the restart of pods is about to begin"
        assert await world.generations() == before
        await world.kube.patch(
            SECRET, "istio-system", "cacerts", {"metadata": {"annotations": secret["metadata"]["annotations"]}}
        )
        await until(all_are(world, mark, "istiod"))


async def test_without_a_directive_older_pods_are_told_until_a_person_restarts_them(world: World) -> None:
    before = await world.generations()
    mark = await world.issue(1, written=LATER, restarting=False)
    async with restarter(world.kube) as running:
        assert running.old_pods(MESH, mark) is None  # not: none
        told = await until(lambda: running.old_pods(MESH, mark))
        assert len(told) == 6
        assert {name.partition("/")[0] for name in told} == {"istio-system", "default"}
        assert await world.generations() == before

        await world.issue(1, written=LONG_AGO, restarting=False)

        await until(lambda: running.old_pods(MESH, mark) == ())


async def test_a_person_has_it_done_once(world: World) -> None:
    """Later certificates wait for the person again, though what was written for the first is still there."""
    mark = await world.issue(1, written=LATER, restarting=False)
    wanted = directive()
    wanted["metadata"] |= {"name": "by-hand", "annotations": {BY_HAND: MESH}}
    await world.serve_root(1)
    async with restarter(world.kube) as running:
        await until(lambda: running.old_pods(MESH, mark))
        await world.kube.create(PodBounceDirective.KIND, wanted)

        await until(all_are(world, mark, "istiod", "a", "b"))

        async def finished() -> bool:
            found = await world.kube.get(PodBounceDirective.KIND, OURS, "by-hand")
            return bool((found.get("status") or {}).get("finished"))

        await until(finished)
        before = await world.generations()
        other = await world.issue(2, written=LATER, restarting=False)
        await until(lambda: len(running.old_pods(MESH, other) or ()) == 6)
        assert await world.generations() == before


async def test_what_a_person_wants_is_for_one_certificate(world: World) -> None:
    before = await world.generations()
    mark = await world.issue(1, written=LATER, restarting=False)
    wanted = directive()
    wanted["metadata"] |= {"name": "by-hand", "annotations": {BY_HAND: "another"}}
    await world.kube.create(PodBounceDirective.KIND, wanted)
    async with restarter(world.kube) as running:
        await until(lambda: running.old_pods(MESH, mark))

        assert await world.generations() == before
