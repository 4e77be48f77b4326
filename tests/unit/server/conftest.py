"""A management cluster, a server on it, and agents that are nothing but their end of the relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.ports import held_port
from isthmus.install import management_plane, registration
from isthmus.kube import KubeClient
from isthmus.model.ref import Kind
from isthmus.relay import Delta, Publication
from isthmus.server.run import Options, run_server
from isthmus.transport import Pace, RelayClient, RelayError

T = TypeVar("T")
Manifest = dict[str, Any]

SECONDS = 60.0  # a guard; what is waited for takes milliseconds


@pytest.fixture
async def mgmt() -> AsyncIterator[EmbeddedCluster]:
    """A management cluster on which everything is installed, but no server runs."""
    async with EmbeddedCluster("mgmt") as cluster:
        await cluster.load(item for item in management_plane() if item["kind"] != "Deployment")
        yield cluster


@pytest.fixture
async def kube(mgmt: EmbeddedCluster, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """The door to the management cluster."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(mgmt.kubeconfig()))
    async with KubeClient.from_kubeconfig(path, patience=5.0) as client:
        yield client


class Agent:
    """The agent's end of the relay: what it publishes, what it holds, what it was told of its link."""

    def __init__(self, cluster: str, address: str) -> None:
        self.publication = Publication()
        self.held_records: dict[str, bytes] = {}
        self.complete = False
        self.connections = 0
        self.errors: list[RelayError] = []
        self.client = RelayClient(
            cluster=cluster,
            address=address,
            publication=self.publication,
            subscriber=self,
            credentials=None,
            observer=self,
            # Servers that end here come back at once, and may leave a connection behind that nobody has taken.
            pace=Pace(answer=3.0, retry_last=0.5),
        )

    def held(self) -> Mapping[str, bytes]:
        return self.held_records

    async def receive(self, delta: Delta) -> None:
        for key, payload in delta.changes.items():
            if payload is None:
                self.held_records.pop(key, None)
            else:
                self.held_records[key] = payload
        self.complete = delta.complete

    def connected(self) -> None:
        self.connections += 1

    def disconnected(self, error: RelayError, retry_in: float) -> None:
        self.errors.append(error)

    def issued(self, not_after: object) -> None: ...


class Plane:
    """A running server without TLS."""

    def __init__(self, kube: KubeClient, mgmt: EmbeddedCluster, grpc_port: int, metrics_port: int) -> None:
        self.kube = kube
        self.mgmt = mgmt
        self.options = Options(
            namespace="gloo-mesh",
            host="127.0.0.1",
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            insecure=True,
        )

    @asynccontextmanager
    async def server(self) -> AsyncIterator[None]:
        """The server, while the context lasts."""
        task = asyncio.create_task(run_server(self.kube, self.options))
        try:
            yield
            assert not task.done(), task
        finally:
            task.cancel()
            await asyncio.wait([task])

    @asynccontextmanager
    async def agent(self, cluster: str) -> AsyncIterator[Agent]:
        """An agent, while the context lasts."""
        agent = Agent(cluster, f"127.0.0.1:{self.options.grpc_port}")
        task = asyncio.create_task(agent.client.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def register(self, *clusters: str) -> None:
        """Create KubernetesClusters."""
        await self.mgmt.load(registration(name) for name in clusters)

    async def get(self, path: str) -> tuple[int, str]:
        """Code and text of a page on the port for operators."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.options.metrics_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = (await reader.read()).decode()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition("\r\n\r\n")
        return int(head.split()[1]), body

    async def items(self, kind: Kind) -> dict[str, Manifest]:
        """The objects of *kind*, by name."""
        return {item["metadata"]["name"]: item for item in (await self.kube.list(kind)).items}


@pytest.fixture
def plane(kube: KubeClient, mgmt: EmbeddedCluster) -> Iterator[Plane]:
    with held_port() as grpc_port, held_port() as metrics_port:
        yield Plane(kube, mgmt, grpc_port, metrics_port)


async def until(condition: Callable[[], Awaitable[T | None] | T | None]) -> T:
    """What *condition* returns once that is something."""
    async with asyncio.timeout(SECONDS):
        while True:
            found: Any = condition()
            if asyncio.iscoroutine(found):
                found = await found
            if found:
                return found  # type: ignore[no-any-return]
            await asyncio.sleep(0.02)
