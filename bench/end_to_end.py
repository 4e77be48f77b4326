"""From a Service applied on one cluster to its ServiceEntry on the other, through real processes.

API servers are embedded; server and agents are the programs that users run, joined by gRPC over mutual TLS. Every
other of bookinfo's objects is there as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from rich.table import Table

from isthmus.agent.apply import Applier
from isthmus.agent.outputs import Outputs
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.install import install_management_plane
from isthmus.cli.registration import Registration, register
from isthmus.embedded.fleet import Fleet, walkthrough
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.install import ManagementPlaneValues, Release
from isthmus.istio.kinds import SERVICE_ENTRY
from isthmus.istio.objects import Metadata, Port, ServiceEntry, ServiceEntrySpec, WorkloadEntry
from isthmus.kube import Changed, KubeClient, Replaced
from isthmus.model.kinds import CUSTOM_RESOURCE_DEFINITION, NAMESPACE, SERVICE
from isthmus.model.ref import Kind
from isthmus.program.logs import configure_logs
from isthmus.relay import Delta

Row = dict[str, Any]
Manifest = dict[str, Any]

SAMPLES = 100
PAUSE = 0.1  # seconds between samples, in which statuses and the other objects of the last change are written
MANY = 500
DESIRED = 10_000
SECONDS = 60.0  # a guard for each wait
FROM, TO = "cluster1", "cluster2"


class Entries:
    """The ServiceEntries of a cluster, as a watch tells them."""

    def __init__(self) -> None:
        self._there: set[str] = set()
        self._waiting: dict[tuple[str, bool], asyncio.Future[float]] = {}

    async def follow(self, kube: KubeClient) -> None:
        """Watch until cancelled."""
        async for event in kube.watch(SERVICE_ENTRY):
            if isinstance(event, Replaced):
                self._there = {item["metadata"]["name"] for item in event.items}
                continue
            name, there = event.item["metadata"]["name"], isinstance(event, Changed)
            (self._there.add if there else self._there.discard)(name)
            if (waiting := self._waiting.pop((name, there), None)) is not None and not waiting.done():
                waiting.set_result(time.perf_counter())

    async def until(self, name: str, there: bool) -> float:
        """When *name* came or went."""
        if (name in self._there) == there:
            return time.perf_counter()
        waiting = self._waiting[name, there] = asyncio.get_running_loop().create_future()
        return await asyncio.wait_for(waiting, SECONDS)


def service(number: int) -> Manifest:
    """A Service in front of pods that run already."""
    return {
        "apiVersion": SERVICE.api_version,
        "kind": SERVICE.kind,
        "metadata": {"name": f"bench-{number}", "namespace": "default"},
        "spec": {"selector": {"app": "details"}, "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}]},
    }


def entry(number: int) -> str:
    """The name of the ServiceEntry that follows from `service`."""
    return f"bench-{number}.default.svc.{FROM}.global"


@asynccontextmanager
async def federation() -> AsyncIterator[tuple[KubeClient, KubeClient]]:
    """The two clusters of a federated fleet."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(TemporaryDirectory(prefix="isthmus-bench-"))
        fleet = await stack.enter_async_context(Fleet(Path(directory)))
        doors = [
            await stack.enter_async_context(KubeClient.from_kubeconfig(fleet.kubeconfig, name)) for name in fleet.names
        ]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            await install_management_plane(doors[0], ManagementPlaneValues(), Release(), SECONDS)
            for name, kube in zip(fleet.managed, doors[1:], strict=True):
                await register(doors[0], kube, Registration(name=name, seconds=SECONDS))
        await doors[0].apply(VirtualMesh.KIND, yaml.safe_load(walkthrough("virtual-mesh.yaml").read_text()))
        yield doors[1], doors[2]


async def apply(kube: KubeClient, kind: Kind, manifest: Manifest) -> None:
    await kube.apply(kind, manifest, manager="kubectl")


async def measure() -> list[Row]:
    """All figures."""
    entries = Entries()
    async with federation() as (source, target), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(entries.follow(target))
        await entries.until(f"details.default.svc.{FROM}.global", True)
        came, went = [], []
        for number in range(SAMPLES):
            begun = time.perf_counter()
            await apply(source, SERVICE, service(number))
            came.append(await entries.until(entry(number), True) - begun)
            await asyncio.sleep(PAUSE)
        for number in range(SAMPLES):
            begun = time.perf_counter()
            await source.delete(SERVICE, "default", f"bench-{number}")
            went.append(await entries.until(entry(number), False) - begun)
            await asyncio.sleep(PAUSE)
        begun = time.perf_counter()
        await asyncio.gather(*(apply(source, SERVICE, service(number)) for number in range(MANY)))
        await asyncio.gather(*(entries.until(entry(number), True) for number in range(MANY)))
        many = time.perf_counter() - begun
        following.cancel()
    return [
        percentiles("end-to-end-service-applied", came),
        percentiles("end-to-end-service-deleted", went),
        {"name": "end-to-end-many-applied", "services": MANY, "clusters": 2, "seconds": round(many, 3)},
    ]


async def measure_apply() -> Row:
    """How long an agent takes to write many objects that it has received, to an API server in a process of its own."""
    with TemporaryDirectory(prefix="isthmus-bench-") as directory:
        command = ("-m", "isthmus.embedded", "--name", TO, "--credentials", directory)
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=asyncio.subprocess.PIPE)
        try:
            assert process.stdout is not None
            ready = json.loads(await process.stdout.readline())
            async with KubeClient.from_kubeconfig(Path(ready["kubeconfig"])) as kube:
                seconds = await apply_desired(kube)
        finally:
            process.kill()
            await process.wait()
    return {"name": "agent-writes", "objects": DESIRED, "seconds": round(seconds, 3)}


async def apply_desired(kube: KubeClient) -> float:
    """Seconds from the desired state's arrival to its last object's being written."""
    await kube.create(NAMESPACE, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})
    for definition in istio_definitions():
        await kube.create(CUSTOM_RESOURCE_DEFINITION, definition)
    applier = Applier(kube, Outputs(TO, "gloo-mesh"), lambda key, problem: None)
    objects = [
        ServiceEntry(
            metadata=Metadata(name=f"entry-{number}", namespace="istio-system"),
            spec=ServiceEntrySpec(
                hosts=(f"service-{number}.default.svc.{FROM}.global",),
                addresses=(f"240.0.{number >> 8}.{number & 255}",),
                ports=(Port(number=80, name="http", protocol="HTTP"),),
                location="MESH_INTERNAL",
                resolution="DNS",
                endpoints=(WorkloadEntry(address="198.51.100.1", ports={"http": 15443}, labels={"cluster": FROM}),),
            ),
        )
        for number in range(DESIRED)
    ]
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(applier.run())
        begun = time.perf_counter()
        await applier.receive(Delta({str(found.key): found.payload() for found in objects}, complete=True))
        while True:
            if applier.writes == DESIRED:
                running.cancel()
                return time.perf_counter() - begun
            await asyncio.sleep(0.01)


def percentiles(name: str, seconds: list[float]) -> Row:
    """One row of the table."""
    found = sorted(seconds)
    return {
        "name": name,
        "clusters": 2,
        "samples": len(found),
        "p50_ms": round(found[len(found) // 2] * 1000, 3),
        "p99_ms": round(found[min(len(found) - 1, len(found) * 99 // 100)] * 1000, 3),
    }


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    made = Table(
        title="End to end on the embedded fleet: to the ServiceEntry on the other cluster", title_justify="left"
    )
    for header in ("", "p50", "p99", "all"):
        made.add_column(header, justify="left" if not header else "right")
    for row in rows:
        if "seconds" in row:
            many = row.get("services") or row["objects"]
            made.add_row(f"{row['name']} ({many:,})", "", "", f"{row['seconds']:.2f} s")
        else:
            made.add_row(row["name"], f"{row['p50_ms']:.1f} ms", f"{row['p99_ms']:.1f} ms", "")
    return made


def run() -> list[Row]:
    """Measure; takes about a minute."""
    configure_logs(verbose=False)
    return [*asyncio.run(measure()), asyncio.run(measure_apply())]


if __name__ == "__main__":
    for found in run():
        sys.stdout.write(json.dumps(found) + "\n")
