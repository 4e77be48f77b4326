"""The agent reports what its cluster has: all at once, then what changes."""

from __future__ import annotations

import asyncio

import pytest

from isthmus.agent.report import Reporter
from isthmus.discovery import INPUT_KINDS, Discovery, discover
from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.fleet import deployed
from isthmus.kube import Changed, KubeClient, Replaced, WatchEvent
from isthmus.model.kinds import CONFIG_MAP, POD, SERVICE
from isthmus.model.ref import ObjectKey
from isthmus.program.records import encode, report_key
from tests.unit.agent.test_apply import until


@pytest.fixture
async def reporter(bare_cluster: EmbeddedCluster, kube: KubeClient) -> Reporter:
    await bare_cluster.load(deployed("cluster1", 1))
    return Reporter(kube, Discovery("cluster1", "gloo-mesh"))


async def test_the_first_report_is_the_whole_and_the_next_is_what_changed(reporter: Reporter, kube: KubeClient) -> None:
    told: list[tuple[int, bool]] = []
    publication = reporter.publication
    publication.attach(lambda: told.append((len(publication), publication.complete)))
    task = asyncio.create_task(reporter.run())
    await until(lambda: publication.complete)

    lists = [await kube.list(kind) for kind in INPUT_KINDS]
    expected, _ = discover("cluster1", [item for listed in lists for item in listed.items])
    assert told == [(len(expected), True)]
    assert {k: r.payload for k, r in publication.records.items()} == {str(r.key): encode(r) for r in expected}
    assert reporter.waiting_for() == ()

    await kube.delete(SERVICE, "default", "ratings")
    await until(lambda: len(told) > 1)
    assert told[-1] == (len(expected) - 1, True)
    task.cancel()
    await asyncio.wait([task])


async def test_it_is_incomplete_while_a_mesh_config_was_never_readable(reporter: Reporter, kube: KubeClient) -> None:
    await kube.patch(CONFIG_MAP, "istio-system", "istio", {"data": {"mesh": "not: [yaml"}})
    task = asyncio.create_task(reporter.run())

    await until(reporter.findings)
    assert not reporter.publication.complete

    await kube.patch(CONFIG_MAP, "istio-system", "istio", {"data": {"mesh": "trustDomain: cluster1"}})
    await until(lambda: reporter.publication.complete)
    task.cancel()
    await asyncio.wait([task])


async def test_write_reports_come_and_go_and_do_not_make_it_complete(reporter: Reporter) -> None:
    about = ObjectKey("v1", "K", "n", "x")

    reporter.write_report(about, "no")
    assert list(reporter.publication.records) == [report_key(about)]
    assert not reporter.publication.complete
    reporter.write_report(about, None)
    assert not reporter.publication.records


async def test_the_root_namespaces_of_meshes_are_told(bare_cluster: EmbeddedCluster, kube: KubeClient) -> None:
    await bare_cluster.load(deployed("cluster1", 1))
    told: list[frozenset[str]] = []
    reporter = Reporter(kube, Discovery("cluster1", "gloo-mesh"), roots=told.append)
    task = asyncio.create_task(reporter.run())

    await until(lambda: told)

    assert told[0] == {"istio-system"}
    task.cancel()
    await asyncio.wait([task])


async def test_who_else_wants_to_know_of_pods_is_told(bare_cluster: EmbeddedCluster, kube: KubeClient) -> None:
    await bare_cluster.load(deployed("cluster1", 1))
    told: list[WatchEvent] = []
    reporter = Reporter(kube, Discovery("cluster1", "gloo-mesh"), pods=told.append)
    task = asyncio.create_task(reporter.run())
    await until(lambda: told)
    pod = {"name": "new", "namespace": "default"}
    await kube.create(
        POD,
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": pod,
            "spec": {"containers": [{"name": "a", "image": "a"}]},
        },
    )

    await until(lambda: len(told) > 1)

    assert isinstance(told[0], Replaced)
    assert isinstance(told[1], Changed)
    assert (told[1].item["kind"], told[1].item["metadata"]["name"]) == ("Pod", "new")
    task.cancel()
    await asyncio.wait([task])
