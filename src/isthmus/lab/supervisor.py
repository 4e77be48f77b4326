"""What runs inside the box: networks, control planes, kubelets, and the doors through which the host's kubectl comes.

The box's first process only starts this one and collects orphans; when this one ends, the box ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import uvloop

from isthmus.embedded import merged_kubeconfig
from isthmus.embedded.certificates import Credentials
from isthmus.kube import KubeClient
from isthmus.lab.binaries import find
from isthmus.lab.control_plane import ControlPlane
from isthmus.lab.images import Images
from isthmus.lab.kubelet import Kubelet
from isthmus.lab.kubelet.server import KubeletServer
from isthmus.lab.messages import Order, Report
from isthmus.lab.network import NETNS, make_networks, run, set_flat
from isthmus.lab.plan import API_PORT, plan
from isthmus.lab.runtime import Runtime, in_network


def main() -> None:
    """The box's first process: forks the supervisor, collects orphans, ends with it."""
    supervisor = os.fork()
    if supervisor:
        signal.signal(signal.SIGTERM, lambda *_: os.kill(supervisor, signal.SIGTERM))
        while True:
            with suppress(InterruptedError):
                pid, status = os.wait()
                if pid == supervisor:
                    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    order = msgspec.json.decode(sys.argv[1].encode(), type=Order)
    uvloop.run(Supervisor(order).run())


@dataclass(frozen=True)
class Door:
    """A cluster as the host reaches it."""

    name: str
    url: str
    credentials: Credentials


class Supervisor:
    """Everything inside the box."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._directory = Path(order.directory)

    async def run(self) -> None:
        """Start all, report it, and go on until SIGTERM."""
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        try:
            async with asyncio.TaskGroup() as tasks:
                await self._start(tasks)
                await stop.wait()
                raise asyncio.CancelledError
        except* Exception as group:
            errors = "; ".join(str(error) or type(error).__name__ for error in _leaves(group))
            traceback.print_exception(group)  # before the report, on which the box is ended
            self._report(Report(f"the lab failed: {errors}", failed=True))
            raise

    async def _start(self, tasks: asyncio.TaskGroup) -> None:
        clusters = plan(tuple(self._order.doors))
        await run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
        await make_networks(clusters)
        if self._order.flat:
            await set_flat(clusters, flat=True)
        self._report(Report("networks made"))
        binaries = find()
        runtime = Runtime(Path("/run/containers"))
        planes = [
            ControlPlane(cluster, binaries, Path("/run/lab") / cluster.name, self._directory / cluster.name)
            for cluster in clusters
        ]

        async def start(plane: ControlPlane) -> None:
            await plane.run(tasks)
            await self._start_nodes(tasks, plane, runtime, Images(binaries))
            self._report(Report(f"{plane.name}: Kubernetes is ready"))

        async with asyncio.TaskGroup() as starting:
            for plane in planes:
                starting.create_task(start(plane))
        doors = []
        for plane in planes:
            door = socket.socket(fileno=self._order.doors[plane.name])
            doors.append(Door(plane.name, f"https://127.0.0.1:{door.getsockname()[1]}", plane.credentials))
            await asyncio.start_server(partial(_forward, str(plane.cluster.address), API_PORT), sock=door)
        config = msgspec.json.encode(merged_kubeconfig(doors)).decode()
        self._report(Report("all clusters are ready", ready=True, kubeconfig=config))

    async def _start_nodes(
        self, tasks: asyncio.TaskGroup, plane: ControlPlane, runtime: Runtime, images: Images
    ) -> None:
        kube = KubeClient.from_kubeconfig(plane.kubeconfig, plane.name)
        kubelet = Kubelet(
            kube,
            plane.cluster,
            runtime,
            images,
            directory=Path("/run/kubelet") / plane.name,
            logs=self._directory / plane.name / "pods",
        )
        tasks.create_task(kubelet.run(), name=f"{plane.name}/kubelet")
        tls = plane.kubelet_tls()
        for node in plane.cluster.nodes:
            server = KubeletServer(kubelet, tls, partial(kubelet.pods, node.name))
            with in_network(NETNS / plane.name):
                listener = socket.create_server((str(node.address), node.kubelet_port))
            tasks.create_task(server.serve(listener), name=f"{node.name}/server")
        await kubelet.registered.wait()

    def _report(self, report: Report) -> None:
        with suppress(BrokenPipeError):  # nobody waits any more
            os.write(self._order.report_fd, msgspec.json.encode(report) + b"\n")


async def _forward(host: str, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(host, port)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
    finally:
        far_writer.close()
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while (data := await reader.read(65536)) and not writer.is_closing():
            writer.write(data)
            await writer.drain()
        if not writer.is_closing():
            writer.write_eof()
    except (OSError, RuntimeError):  # uvloop's word for a connection that the far end has closed just now
        writer.close()


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found.extend(_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    return found


if __name__ == "__main__":
    main()
