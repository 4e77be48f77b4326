"""The client on a whole API server: what it was told equals what is there, through restarts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.embedded.ports import held_port
from isthmus.kube import Changed, Conflict, KubeClient, Removed, Replaced
from isthmus.kube.events import Manifest
from isthmus.model.kinds import CONFIG_MAP

from .peer import DEADLINE


def wanted(name: str, color: str) -> Manifest:
    metadata = {"name": name, "namespace": "default", "labels": {"app": "test"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"color": color}}


class View:
    """What a watch has told, by name."""

    def __init__(self) -> None:
        self.colors: dict[str, str] = {}
        self.replaced = 0
        self._told = asyncio.Condition()

    async def follow(self, client: KubeClient) -> None:
        async for event in client.watch(CONFIG_MAP, labels="app=test"):
            async with self._told:
                match event:
                    case Replaced(items):
                        self.replaced += 1
                        self.colors = {item["metadata"]["name"]: item["data"]["color"] for item in items}
                    case Changed(item):
                        self.colors[item["metadata"]["name"]] = item["data"]["color"]
                    case Removed(item):
                        del self.colors[item["metadata"]["name"]]
                self._told.notify_all()

    async def until(self, colors: dict[str, str]) -> None:
        async with asyncio.timeout(DEADLINE), self._told:
            await self._told.wait_for(lambda: self.replaced > 0 and self.colors == colors)


class Server:
    """An API server as a process of its own, which can be killed and comes back as it was."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.kubeconfig = folder / "kubeconfig"
        self._port = str(port)
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        place = ["--storage", str(self.folder / "db"), "--credentials", str(self.folder), "--port", self._port]
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "isthmus.embedded", "--name", "here", *place, stdout=asyncio.subprocess.PIPE
        )
        assert self._child.stdout is not None
        async with asyncio.timeout(DEADLINE):
            assert await self._child.stdout.readline()

    async def kill(self) -> None:
        if self._child is not None and self._child.returncode is None:
            self._child.kill()
            await self._child.wait()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    with held_port() as port:
        found = Server(tmp_path, port)
        try:
            await found.start()
            yield found
        finally:
            await found.kill()


async def test_watches_survive_kills(server: Server) -> None:
    """Twenty watches end with the state that is there, though the server is killed amid the changes."""
    views = [View() for _ in range(20)]

    async with KubeClient.from_kubeconfig(server.kubeconfig) as client, asyncio.TaskGroup() as tasks:
        following = [tasks.create_task(view.follow(client)) for view in views]
        for turn in range(2):
            changes = [
                tasks.create_task(client.apply(CONFIG_MAP, wanted(f"n{number}", f"{turn}-{number}")))
                for number in range(20)
            ]
            await changes[0]
            await server.kill()
            await server.start()
            await asyncio.gather(*changes)
        assert await client.delete(CONFIG_MAP, "default", "n1")

        there = await client.list(CONFIG_MAP, labels="app=test")
        colors = {item["metadata"]["name"]: item["data"]["color"] for item in there.items}
        for view in views:
            await view.until(colors)
        for task in following:
            task.cancel()

    assert colors == {f"n{number}": f"1-{number}" for number in range(20) if number != 1}


async def test_somebody_elses_field(server: Server) -> None:
    """A field another manager set is a conflict that names both; by force it becomes ours."""
    async with KubeClient.from_kubeconfig(server.kubeconfig) as client:
        await client.apply(CONFIG_MAP, wanted("a", "blue"), manager="argo")

        with pytest.raises(Conflict) as caught:
            await client.apply(CONFIG_MAP, wanted("a", "red"))
        forced = await client.apply(CONFIG_MAP, wanted("a", "red"), force=True)

    assert (caught.value.managers, caught.value.fields) == (("argo",), (".data.color",))
    assert forced["data"] == {"color": "red"}
