"""Three clusters on this machine: API servers, controllers, nodes, and what the walk-through deploys on them.

The first cluster is for the management plane; on the others the walk-through's Istio and bookinfo look as if they ran.
`meshctl demo` and the system tests install and register on top, the way users do.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Literal, Self

import yaml

from isthmus.embedded.cluster import EmbeddedCluster, merged_kubeconfig
from isthmus.embedded.controllers import Addresses, Controllers, Copy
from isthmus.embedded.door import Door, InProcess
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.embedded.istiod import Istiod
from isthmus.embedded.node import PROGRAMS, LoopbackRange, Node, container_command
from isthmus.embedded.ports import held_port
from isthmus.embedded.selectors import Predicate, parse_labels
from isthmus.model.kinds import DEPLOYMENT, ENDPOINT_SLICE, NODE, SERVICE

Manifest = dict[str, Any]
OpenDoor = Callable[[Path, str], AbstractAsyncContextManager[Door]]
"""Opens the door to the cluster of a context in a kubeconfig."""

NAMES = ("mgmt", "cluster1", "cluster2")
OBJECTS = "objects.sqlite"
START_SECONDS = 60.0  # a guard, forty times what it takes
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

INJECTED = {"istio-injection": "enabled"}
# Which of bookinfo runs on the first Istio cluster: the walk-through's two `kubectl apply -l`. Others run all of it.
BOOKINFO_OF_FIRST = ("app,version notin (v3)", "account")

# Networks for documentation, apart from the addresses that the walk-through's gateways have.
LOAD_BALANCERS = {"ipv4": "198.51.100.{}/28", "ipv6": "2001:db8:{}::/120", "hostname": "198.51.100.{}/28"}


def walkthrough(name: str) -> Path:
    """The file of the walk-through: in an installed package beside the code, in a checkout in ``examples/``."""
    packaged = Path(str(files("isthmus"))) / "examples" / "walkthrough" / name
    return packaged if packaged.exists() else Path(__file__).parents[3] / "examples" / "walkthrough" / name


class Fleet:
    """Clusters that run while the context is entered.

    Their kubeconfig is at `kubeconfig`, with a context per cluster. With *own_processes* every API server is a process
    that can be killed and started again, with its objects in a file; *open_door* is then how to speak to it.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        names: Sequence[str] = NAMES,
        load_balancers: Literal["ipv4", "ipv6", "hostname"] = "ipv4",
        own_processes: bool = False,
        spares: bool = False,
        open_door: OpenDoor | None = None,
        progress: Callable[[str, float], None] = lambda phase, seconds: None,
    ) -> None:
        """*directory* keeps kubeconfigs and logs (None: a temporary one); *progress* is told each phase that ended.

        *spares* prepares a process for the server and each agent, for those who will install them at once.
        """
        if own_processes and open_door is None:
            raise ValueError("own_processes needs open_door: nothing here speaks HTTP")
        self.names = tuple(names)
        self.clusters: dict[str, EmbeddedCluster] = {}
        """The API servers in this process."""
        self.servers: dict[str, ServerProcess] = {}
        """The API servers in processes of their own."""
        self.controllers: dict[str, Controllers] = {}
        self.istiods: dict[str, Istiod] = {}
        self.nodes: dict[str, Node] = {}
        self.phases: dict[str, float] = {}
        """Seconds that each phase of the start took."""
        self._directory = directory
        self._load_balancers = load_balancers
        self._own_processes = own_processes
        self._spares = spares
        self._open_door = open_door
        self._progress = progress
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    @property
    def directory(self) -> Path:
        """Where kubeconfigs, logs and databases are."""
        if self._directory is None:
            raise RuntimeError("the fleet is not running")
        return self._directory

    @property
    def kubeconfig(self) -> Path:
        """A kubeconfig with one context per cluster."""
        return self.directory / "kubeconfig"

    @property
    def managed(self) -> tuple[str, ...]:
        """The clusters with Istio."""
        return self.names[1:]

    async def until(self, cluster: str, condition: Callable[[Copy], bool], seconds: float = START_SECONDS) -> None:
        """Return once *condition* holds of what *cluster* holds. Raises TimeoutError."""
        async with asyncio.timeout(seconds):
            await self.controllers[cluster].until(condition)

    async def wait(self) -> None:
        """Return when the fleet has ended; raise what ended it."""
        if self._running is not None:
            await asyncio.shield(self._running)

    async def __aenter__(self) -> Self:
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # One task owns everything, so that the fleet may be entered and left in different ones, as test fixtures are.
        self._running = asyncio.create_task(self._run(started), name="fleet")
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.wait([self._running, started], return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._running.cancel()
            await asyncio.wait([self._running])
            raise
        if not started.done():
            await self._running  # it failed: say why
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._running is not None:
            await self._running

    # --- from start to end ---

    async def _run(self, started: asyncio.Future[None]) -> None:
        async with AsyncExitStack() as stack:
            if self._directory is None:
                self._directory = Path(stack.enter_context(TemporaryDirectory(prefix="isthmus-fleet-")))
            self._directory.mkdir(parents=True, exist_ok=True)
            loopback = stack.enter_context(LoopbackRange())
            with self._phase("API servers"):
                for name in self.names:
                    await self._prepare(name, stack)
                _write(self.kubeconfig, merged_kubeconfig(self.clusters.values()))
            with self._phase("Istio and bookinfo"):
                for index, name in enumerate(self.names):
                    await self.clusters[name].load(deployed(name, index, self._load_balancers))
            if self._own_processes:
                with self._phase("own processes"):
                    for name in self.names:
                        await self._move_out(name, stack)
            async with asyncio.TaskGroup() as tasks:
                crew = []
                for index, name in enumerate(self.names):
                    door = await self._door(name, stack)
                    kubeconfig = self.directory / name / "kubeconfig"
                    node = Node(
                        door,
                        kubeconfig=kubeconfig,
                        logs=self.directory / name / "logs",
                        loopback=loopback,
                        spare=PROGRAMS["isthmus-agent" if index else "isthmus-server"] if self._spares else "",
                    )
                    addresses = _addresses(index, self._load_balancers)
                    controllers = Controllers(door, addresses, runs_elsewhere=node.runs)
                    self.nodes[name], self.controllers[name] = node, controllers
                    crew.append(tasks.create_task(node.run(), name=f"node of {name}"))
                    crew.append(tasks.create_task(controllers.run(), name=f"controllers of {name}"))
                    if index:
                        istiod = self.istiods[name] = Istiod(door)
                        crew.append(tasks.create_task(istiod.run(), name=f"istiod of {name}"))
                with self._phase("controllers"):
                    for name in self.managed:
                        await self.controllers[name].until(settled)
                        await self.istiods[name].handed_out.wait()
                started.set_result(None)
                await self._stop.wait()
                for task in crew:  # while API servers still answer the programs that end
                    task.cancel()

    async def _prepare(self, name: str, stack: AsyncExitStack) -> None:
        """Start the API server of *name* in this process."""
        place = self.directory / name
        place.mkdir(exist_ok=True)
        kept = self._own_processes
        cluster = EmbeddedCluster(
            name,
            storage=place / OBJECTS if kept else None,
            credentials=place if kept else None,
            port=stack.enter_context(held_port()) if kept else 0,
        )
        self.clusters[name] = await stack.enter_async_context(cluster)
        _write(place / "kubeconfig", cluster.kubeconfig())

    async def _move_out(self, name: str, stack: AsyncExitStack) -> None:
        """Go on with the API server of *name* in a process of its own."""
        cluster = self.clusters.pop(name)
        await cluster.stop()
        server = ServerProcess(name, self.directory / name, cluster.port)
        self.servers[name] = await stack.enter_async_context(server)

    async def _door(self, name: str, stack: AsyncExitStack) -> Door:
        if self._own_processes and self._open_door is not None:
            return await stack.enter_async_context(self._open_door(self.kubeconfig, name))
        return InProcess(self.clusters[name].api)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        yield
        self.phases[name] = time.perf_counter() - begun
        self._progress(name, self.phases[name])


class ServerProcess:
    """An API server in a process of its own: it may be killed, and started again with what it had."""

    def __init__(self, name: str, directory: Path, port: int) -> None:
        self._name = name
        self._directory = directory
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Start it; it answers afterwards."""
        process = self._process = await asyncio.create_subprocess_exec(
            *container_command(
                "isthmus.embedded.__main__:main",
                [
                    f"--name={self._name}",
                    f"--credentials={self._directory}",
                    f"--storage={self._directory / OBJECTS}",
                    f"--port={self._port}",
                ],
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            said = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
        except BaseException:
            await self.kill()
            raise
        if not said:
            raise ChildProcessError(f"the API server of {self._name} ended with {await process.wait()}")

    async def kill(self) -> None:
        """End it as a crash would: nothing is flushed, no connection closed."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


def deployed(name: str, index: int, load_balancers: str = "ipv4") -> list[Manifest]:
    """What the walk-through has on its *index*-th cluster, here called *name*.

    The first has a node and nothing else; the second has the files of ``cluster1``, all others those of ``cluster2``.
    """
    if index == 0:
        labels = {"kubernetes.io/hostname": f"{name}-a"}
        return [{"apiVersion": "v1", "kind": NODE.kind, "metadata": {"name": f"{name}-a", "labels": labels}}]
    model = f"cluster{min(index, 2)}"
    items = [
        *istio_definitions(v1=index != 1),  # cluster1 has Istio 1.9, the others today's
        *_read(f"nodes-{model}.yaml", model, name),
        *_read(f"istio-{model}.yaml", model, name),
    ]
    if index > 2 or load_balancers != "ipv4":
        for item in items:
            item.pop("status", None)  # the gateway's address in the file; it gets one of its own
    items.append({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": INJECTED}})
    bookinfo = _read("bookinfo.yaml", model, name)
    if index == 1:
        chosen = [parse_labels(selector) for selector in BOOKINFO_OF_FIRST]
        bookinfo = [item for item in bookinfo if any(_matches(predicates, item) for predicates in chosen)]
    return [*items, *bookinfo, *_read("bookinfo-gateway.yaml", model, name)]


def settled(copy: Copy) -> bool:
    """Whether every Deployment is available, and every Service with a selector has endpoints and an address."""
    backed = {item["metadata"]["labels"]["kubernetes.io/service-name"] for item in copy.all(ENDPOINT_SLICE)}
    return all(
        item.get("status", {}).get("availableReplicas", 0) >= item["spec"].get("replicas", 1)
        for item in copy.all(DEPLOYMENT)
    ) and all(
        item["metadata"]["name"] in backed
        and (item["spec"].get("type") != "LoadBalancer" or item["status"]["loadBalancer"].get("ingress"))
        for item in copy.all(SERVICE)
        if item["spec"].get("selector")
    )


def _read(file: str, model: str, name: str) -> list[Manifest]:
    text = walkthrough(file).read_text(encoding="utf-8").replace(model, name)
    return [item for item in yaml.load_all(text, LOADER) if item]


def _matches(predicates: Sequence[Predicate], item: Manifest) -> bool:
    labels = item["metadata"].get("labels") or {}
    return all(predicate(labels) for predicate in predicates)


def _addresses(index: int, load_balancers: Literal["ipv4", "ipv6", "hostname"]) -> Addresses:
    network = LOAD_BALANCERS[load_balancers].format(index * 16)
    pods = f"fd00:{index}::/64" if load_balancers == "ipv6" else f"10.{index}.0.0/16"
    return Addresses(pods, network, "hostname" if load_balancers == "hostname" else "ip")


def _write(path: Path, kubeconfig: Manifest) -> None:
    """Keys are for their owner only."""
    path.touch(mode=0o600)
    path.write_text(json.dumps(kubeconfig, indent=1), encoding="utf-8")  # JSON is YAML
