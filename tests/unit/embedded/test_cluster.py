"""A running cluster: start, stop, kubeconfig, loading, restarts, also after SIGKILL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from isthmus.embedded import EmbeddedCluster, merged_kubeconfig
from isthmus.embedded.errors import ApiError
from isthmus.embedded.ports import held_port
from tests.unit.embedded.conftest import client

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


async def test_kubeconfig_leads_to_the_cluster(cluster: EmbeddedCluster) -> None:
    """The kubeconfig alone is enough: address, authority, certificate; its context has the cluster's name."""
    config = cluster.kubeconfig()

    async with client(config) as http:
        answer = await http.get("/api/v1/namespaces/kube-system")

    assert answer.json()["metadata"]["uid"]
    assert config["current-context"] == "cluster1"
    assert [context["name"] for context in config["contexts"]] == ["cluster1"]


async def test_token_of_the_cluster(cluster: EmbeddedCluster) -> None:
    """The bearer token is the administrator too, without a certificate."""
    config = cluster.kubeconfig()
    async with client(config) as http:
        answer = await http.post(
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            json={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
            headers={"authorization": f"Bearer {cluster.credentials.token}"},
        )

    assert answer.json()["status"]["userInfo"]["username"] == "admin"


async def test_merged_kubeconfig() -> None:
    """Several clusters in one kubeconfig, the first one current."""
    async with EmbeddedCluster("mgmt") as mgmt, EmbeddedCluster("cluster1") as other:
        config = merged_kubeconfig([mgmt, other])

    assert [entry["name"] for entry in config["contexts"]] == ["mgmt", "cluster1"]
    assert config["current-context"] == "mgmt"
    assert [entry["cluster"]["server"] for entry in config["clusters"]] == [mgmt.url, other.url]
    assert mgmt.url != other.url


async def test_certificate_of_another_cluster_is_refused(cluster: EmbeddedCluster) -> None:
    """An administrator of one cluster is nobody on another."""
    async with EmbeddedCluster("cluster2") as other:
        config = cluster.kubeconfig()
        config["users"] = other.kubeconfig()["users"]
        async with client(config) as http:
            with pytest.raises(Exception, match=r"(?i)alert|disconnected|closed|reset"):
                await http.get(MAPS)


async def test_starts_fast() -> None:
    """A server is up in a moment, so that a test may have its own; the bound leaves room for a busy machine."""
    async with EmbeddedCluster("warm-up"):
        pass
    before = time.process_time()

    async with EmbeddedCluster("cluster1"):
        spent = time.process_time() - before

    assert spent < 0.15


async def test_load_applies_the_rules_of_the_server(cluster: EmbeddedCluster) -> None:
    """Loading fills in defaults, keeps the status, unpacks lists, replaces on the second time, refuses bad objects."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "a", "image": "i"}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }
    items = {"apiVersion": "v1", "kind": "List", "items": [config_map("a", k="v"), pod]}

    assert await cluster.load([items, config_map("b")]) == 3
    await cluster.load([config_map("a", other="v")])

    async with client(cluster.kubeconfig()) as http:
        loaded = (await http.get(f"{MAPS}/a")).json()
        running = (await http.get("/api/v1/namespaces/default/pods/p")).json()
    assert loaded["data"] == {"other": "v"}
    assert running["status"]["phase"] == "Running"
    assert running["spec"]["restartPolicy"] == "Always"
    with pytest.raises(ApiError, match='no matches for kind "Widget"'):
        await cluster.load([{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "x"}}])


async def test_stop_ends_watches() -> None:
    """A stopping server ends its streams in order; the client sees an end, not an error."""
    async with (
        EmbeddedCluster("cluster1") as cluster,
        client(cluster.kubeconfig()) as http,
        http.stream("GET", MAPS, params={"watch": "true"}) as response,
    ):
        stopped = asyncio.create_task(cluster.stop())
        lines = [line async for line in response.aiter_lines()]
        await stopped

    assert lines == []


async def test_bookmarks_come_on_time() -> None:
    """An idle watch learns again and again how far it has come."""
    async with EmbeddedCluster("cluster1", bookmark_seconds=0.05) as cluster, client(cluster.kubeconfig()) as http:
        params = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": str(cluster.api.store.revision)}
        async with http.stream("GET", MAPS, params=params) as response:
            lines = response.aiter_lines()
            first = json.loads(await anext(lines))
            await cluster.load([{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "elsewhere"}}])
            second = json.loads(await anext(lines))

    assert first["type"] == second["type"] == "BOOKMARK"
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in (first, second)]
    assert versions[0] < versions[1]


async def test_page_of_a_forgotten_list_is_gone(cluster: EmbeddedCluster) -> None:
    """A continue token that the server no longer knows answers 410, and the client lists anew."""
    await cluster.load([config_map(name) for name in "abc"])
    async with client(cluster.kubeconfig()) as http:
        first = (await http.get(MAPS, params={"limit": 1})).json()
        for _ in range(64):
            await http.get(MAPS, params={"limit": 1})
        answer = await http.get(MAPS, params={"limit": 1, "continue": first["metadata"]["continue"]})

    assert answer.status_code == 410
    assert answer.json()["reason"] == "Expired"


async def test_restart_in_place(tmp_path: Path) -> None:
    """With storage, credentials and port a cluster comes back as it was: same door, same objects, same revisions."""
    folder, file = tmp_path / "credentials", tmp_path / "objects.db"
    async with EmbeddedCluster("cluster1", storage=file, credentials=folder) as cluster:
        config, port = cluster.kubeconfig(), cluster.port
        await cluster.load([config_map("a", k="v")])
        revision = cluster.api.store.revision

    async with (
        EmbeddedCluster("cluster1", storage=file, credentials=folder, port=port) as cluster,
        client(config) as http,
    ):
        listed = (await http.get(MAPS)).json()
        await cluster.load([config_map("b")])
        later = (await http.get(f"{MAPS}/b")).json()

    assert [(item["metadata"]["name"], item["data"]) for item in listed["items"]] == [("a", {"k": "v"})]
    assert int(listed["metadata"]["resourceVersion"]) == revision
    assert int(later["metadata"]["resourceVersion"]) > revision
    assert (folder / "admin.key").stat().st_mode & 0o077 == 0


class Process:
    """An embedded cluster as a process of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self._folder = folder
        self._port = port
        self._process: asyncio.subprocess.Process | None = None
        self.config: dict[str, Any] = {}

    async def start(self) -> None:
        """Start, or start again as before."""
        words = ["--name", "cluster1", "--storage", str(self._folder / "objects.db"), "--port", str(self._port)]
        command = [sys.executable, "-m", "isthmus.embedded", *words, "--credentials", str(self._folder / "credentials")]
        self._process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        assert self._process.stdout is not None
        ready = json.loads(await asyncio.wait_for(self._process.stdout.readline(), 60))
        self.config = json.loads(await asyncio.to_thread(Path(ready["kubeconfig"]).read_text))

    async def kill(self, how: int = signal.SIGKILL) -> int:
        assert self._process is not None
        os.kill(self._process.pid, how)
        return await asyncio.wait_for(self._process.wait(), 60)


async def test_sigkill_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """Killed at any moment under writes, the server comes back with every object that it had confirmed."""
    with held_port() as port:
        await _kill_again_and_again(Process(tmp_path, port))


async def _kill_again_and_again(process: Process) -> None:
    confirmed: dict[str, str] = {}
    enough = asyncio.Event()
    for turn in range(3):
        await process.start()
        async with client(process.config) as http:
            listed = {item["metadata"]["name"]: item for item in (await http.get(MAPS)).json()["items"]}
            assert {name: listed[name]["metadata"]["resourceVersion"] for name in confirmed} == confirmed

            async def write(number: int, turn: int = turn, http: Any = http) -> None:
                answer = await http.post(MAPS, json=config_map(f"m-{turn}-{number}"))
                if answer.status_code == 201:
                    confirmed[f"m-{turn}-{number}"] = answer.json()["metadata"]["resourceVersion"]
                    if len(confirmed) >= 20 * (turn + 1):
                        enough.set()

            writers = asyncio.gather(*(write(number) for number in range(200)), return_exceptions=True)
            await asyncio.wait_for(enough.wait(), 60)
            await process.kill()
            await writers
            enough.clear()

    await process.start()
    async with client(process.config) as http:
        listed = {item["metadata"]["name"]: item for item in (await http.get(MAPS)).json()["items"]}
    assert {name: listed[name]["metadata"]["resourceVersion"] for name in confirmed} == confirmed
    assert await process.kill(signal.SIGTERM) == 0
