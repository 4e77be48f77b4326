"""The agent keeps a cluster at the desired state, and its hands off what is not its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from isthmus.agent.apply import Applier, edited_by_hand
from isthmus.agent.outputs import Outputs
from isthmus.agent.removal import find_left_behind
from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.istio.kinds import SERVICE_ENTRY, VIRTUAL_SERVICE
from isthmus.kube import Cause, Conflict, KubeClient, NotFound
from isthmus.model.ref import ObjectKey
from isthmus.relay import Delta
from tests.unit.agent.test_outputs import OURS, entry, key, record

T = TypeVar("T")
Manifest = dict[str, Any]


class Agent:
    """An applier and what it reports."""

    def __init__(self, kube: KubeClient) -> None:
        self.reports: dict[ObjectKey, str] = {}
        self.applier = Applier(kube, Outputs("cluster1", "gloo-mesh"), self._report)

    def _report(self, about: ObjectKey, problem: str | None) -> None:
        if problem is None:
            self.reports.pop(about, None)
        else:
            self.reports[about] = problem

    async def receive(self, *records: dict[str, bytes | None], complete: bool = True) -> None:
        changes = {name: payload for each in records for name, payload in each.items()}
        await self.applier.receive(Delta(changes, complete))


@asynccontextmanager
async def agent(kube: KubeClient) -> AsyncIterator[Agent]:
    running = Agent(kube)
    task = asyncio.create_task(running.applier.run())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(condition: Callable[[], Awaitable[T | None] | T | None]) -> T:
    """What *condition* returns once that is something."""
    async with asyncio.timeout(60):
        while True:
            found: Any = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found  # type: ignore[no-any-return]
            await asyncio.sleep(0.01)


async def names(kube: KubeClient) -> set[str]:
    return {item["metadata"]["name"] for item in (await kube.list(SERVICE_ENTRY)).items}


async def get(kube: KubeClient, name: str) -> Manifest | None:
    try:
        return await kube.get(SERVICE_ENTRY, "istio-system", name)
    except NotFound:
        return None


@pytest.fixture
def client(cluster: EmbeddedCluster, kube: KubeClient) -> KubeClient:
    return kube


async def test_desired_objects_are_written_and_pruned(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("a") | record("b"))
        await until(lambda: running.applier.writes == 2)
        await running.receive({str(key("a")): None})
        await until(lambda: running.applier.prunes == 1)

        found = await get(client, "b")
        assert await names(client) == {"b"}
        assert found is not None
        assert found["metadata"]["labels"] == OURS
        assert found["spec"] == {"hosts": ["a.global"]}
        assert [m["manager"] for m in found["metadata"]["managedFields"]] == ["isthmus"]


async def test_nothing_is_pruned_before_the_desired_state_is_complete(client: KubeClient) -> None:
    await client.apply(SERVICE_ENTRY, entry("old", labels=OURS))
    async with agent(client) as running:
        await running.receive(record("new"), complete=False)
        await until(lambda: running.applier.writes == 1)
        assert await names(client) == {"old", "new"}

        await running.receive({}, complete=True)
        await until(lambda: running.applier.prunes == 1)
        assert await names(client) == {"new"}


async def test_a_restart_writes_nothing(client: KubeClient) -> None:
    async with agent(client) as first:
        await first.receive(record("a") | record("b"))
        await until(lambda: first.applier.writes == 2)
    async with agent(client) as second:
        await second.receive(record("a") | record("b") | record("c"))
        await until(lambda: second.applier.writes and not second.applier.pending)

        assert second.applier.writes == 1


async def test_a_users_object_is_reported_and_left_alone_until_it_is_gone(client: KubeClient) -> None:
    await client.apply(SERVICE_ENTRY, entry("a", "mine.global"), manager="kubectl")
    before = await get(client, "a")
    async with agent(client) as running:
        await running.receive(record("a"))
        assert "left alone" in await until(lambda: running.reports.get(key("a")))
        assert await get(client, "a") == before

        await client.delete(SERVICE_ENTRY, "istio-system", "a")
        await until(lambda: running.applier.writes == 1)
        assert not running.reports

        await running.receive({str(key("a")): None})
        await until(lambda: running.applier.prunes == 1)


async def test_a_field_that_another_manager_applies_is_reported_and_left_alone(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("a"))
        await until(lambda: running.applier.writes == 1)
        await client.apply(SERVICE_ENTRY, entry("a", "theirs.global"), manager="gitops", force=True)

        report = await until(lambda: running.reports.get(key("a")))
        found = await get(client, "a")
        assert "gitops" in report
        assert found is not None
        assert found["spec"]["hosts"] == ["theirs.global"]


async def test_an_edit_by_hand_is_undone(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("a"))
        await until(lambda: running.applier.writes == 1)
        await client.patch(SERVICE_ENTRY, "istio-system", "a", {"spec": {"hosts": ["edited.global"]}})

        await until(lambda: running.applier.writes == 2)
        found = await get(client, "a")
        assert found is not None
        assert found["spec"]["hosts"] == ["a.global"]
        assert not running.reports


async def test_what_somebody_deletes_comes_back(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("a"))
        await until(lambda: running.applier.writes == 1)

        await client.delete(SERVICE_ENTRY, "istio-system", "a")

        await until(lambda: running.applier.writes == 2)
        assert await names(client) == {"a"}


async def test_labels_that_others_add_stay(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("a"))
        await until(lambda: running.applier.writes == 1)
        await client.patch(SERVICE_ENTRY, "istio-system", "a", {"metadata": {"labels": {"team": "x"}}})
        await until(lambda: running.applier.writes == 2)
        await running.receive(record("a", "b.global"))
        await until(lambda: running.applier.writes == 3)

        found = await get(client, "a")
        assert found is not None
        assert found["metadata"]["labels"] == {**OURS, "team": "x"}
        assert found["spec"]["hosts"] == ["b.global"]


async def test_one_bad_object_harms_only_itself(client: KubeClient) -> None:
    async with agent(client) as running:
        await running.receive(record("good") | record("NOT A NAME"))
        await until(lambda: running.applier.writes == 1)
        await until(lambda: running.reports)

        assert await names(client) == {"good"}
        assert list(running.reports) == [key("NOT A NAME")]


async def test_a_kind_that_is_not_served_is_reported_and_written_when_it_is(
    bare_cluster: EmbeddedCluster, kube: KubeClient
) -> None:
    async with agent(kube) as running:
        await running.receive(record("a"))
        await until(lambda: running.reports.get(key("a")))

        await bare_cluster.load(istio_definitions())

        await until(lambda: running.applier.writes == 1)
        assert not running.reports


async def test_what_a_deregistered_cluster_is_left_with(client: KubeClient) -> None:
    await client.apply(SERVICE_ENTRY, entry("theirs"), manager="kubectl")
    async with agent(client) as running:
        await running.receive(record("a"))
        await until(lambda: running.applier.writes == 1)

    left = await find_left_behind(client, "cluster1", "gloo-mesh")
    assert [(each.kind, each.name) for each in left] == [(SERVICE_ENTRY, "a")]
    assert await find_left_behind(client, "cluster2", "gloo-mesh") == ()


def conflict(*messages: str) -> Conflict:
    causes = tuple(Cause(field=".spec.hosts", reason="FieldManagerConflict", message=text) for text in messages)
    return Conflict("x", causes=causes)


def test_edits_are_told_from_declarations() -> None:
    edit = 'conflict with "kubectl-edit" using networking.istio.io/v1beta1 at 2024-01-01T00:00:00Z'
    declared = 'conflict with "gitops"'

    assert edited_by_hand(conflict(edit))
    assert not edited_by_hand(conflict(edit, declared))
    assert not edited_by_hand(conflict(declared))
    assert not edited_by_hand(conflict())


async def test_users_own_routes_are_reported_and_ours_written_when_they_are_gone(client: KubeClient) -> None:
    """Before that nothing is written for the host, and nothing of the user's changes."""
    host = "reviews.default.svc.cluster.local"
    ours = virtual_service("reviews", host)
    await client.apply(VIRTUAL_SERVICE, virtual_service("mine", "reviews"), manager="kubectl")
    before = await client.get(VIRTUAL_SERVICE, "default", "mine")
    wanted = ObjectKey(VIRTUAL_SERVICE.api_version, VIRTUAL_SERVICE.kind, "default", "reviews")
    async with agent(client) as running:
        await running.receive({str(wanted): json.dumps(ours).encode()})
        report = await until(lambda: running.reports.get(wanted))

        assert f"{host} is already configured by the existing VirtualService default/mine" in report
        assert [item["metadata"]["name"] for item in (await client.list(VIRTUAL_SERVICE)).items] == ["mine"]
        assert await client.get(VIRTUAL_SERVICE, "default", "mine") == before

        await client.delete(VIRTUAL_SERVICE, "default", "mine")
        await until(lambda: running.applier.writes == 1)
        await until(lambda: not running.reports)


async def test_a_younger_one_beside_ours_changes_nothing(client: KubeClient) -> None:
    """As for Istio, the oldest counts."""
    wanted = ObjectKey(VIRTUAL_SERVICE.api_version, VIRTUAL_SERVICE.kind, "default", "reviews")
    first, second = (
        virtual_service("reviews", "reviews.default.svc.cluster.local", timeout=timeout) for timeout in ("1s", "2s")
    )
    async with agent(client) as running:
        await running.receive({str(wanted): json.dumps(first).encode()})
        await until(lambda: running.applier.writes == 1)
        made = (await client.get(VIRTUAL_SERVICE, "default", "reviews"))["metadata"]["creationTimestamp"]
        await until(lambda: f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}" > made)  # of one second, theirs would count
        await client.apply(VIRTUAL_SERVICE, virtual_service("mine", "reviews"), manager="kubectl")
        await running.receive({str(wanted): json.dumps(second).encode()})
        await until(lambda: running.applier.writes == 2)

        assert not running.reports
        assert (await client.get(VIRTUAL_SERVICE, "default", "reviews"))["spec"] == second["spec"]


def virtual_service(name: str, host: str, **route: str) -> Manifest:
    return {
        "apiVersion": VIRTUAL_SERVICE.api_version,
        "kind": VIRTUAL_SERVICE.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"hosts": [host], "http": [{"route": [{"destination": {"host": host}}], **route}]},
    }
