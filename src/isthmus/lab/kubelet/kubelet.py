"""The kubelet of one cluster: all its nodes, the pods on them, and what else a bare control plane lacks.

A scheduler and the addresses of load balancers are part of it, since neither is worth a program of its own.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.errors import Conflict, KubeError
from isthmus.kube.events import Manifest, Removed, Replaced
from isthmus.lab.images import Images
from isthmus.lab.kubelet.addresses import Addresses
from isthmus.lab.kubelet.environment import service_environment
from isthmus.lab.kubelet.events import Events
from isthmus.lab.kubelet.nodes import allocatable, pod_range, register
from isthmus.lab.kubelet.pod import PodKeeper
from isthmus.lab.kubelet.shared import Surroundings
from isthmus.lab.kubelet.sources import Key, WatchedSources
from isthmus.lab.load_balancers import LoadBalancers
from isthmus.lab.plan import API_SERVICE, DNS_SERVICE, ClusterPlan
from isthmus.lab.runtime import Process, Runtime, Sandbox
from isthmus.lab.scheduling import Scheduler
from isthmus.model.kinds import POD

API_SERVICE_PORT = 443
AGAIN_SECONDS = 1.0  # after a refusal by the API server, or after a pod's keeper failed

log = structlog.get_logger("isthmus.lab")


class Kubelet:
    """Runs the pods of one cluster. *directory* is on a tmpfs (volumes), *logs* where containers' logs stay."""

    def __init__(
        self,
        kube: KubeClient,
        cluster: ClusterPlan,
        runtime: Runtime,
        images: Images,
        *,
        directory: Path,
        logs: Path,
        dns: str = str(DNS_SERVICE),
    ) -> None:
        self.cluster = cluster
        self.registered = asyncio.Event()
        """Set when every node is there and ready."""
        self._kube = kube
        self._runtime = runtime
        self._sources = WatchedSources(kube, self._refresh)
        self._events = Events(kube)
        resources = allocatable()
        self._surroundings = {
            node.name: Surroundings(
                kube=kube,
                node=node,
                machine=cluster.name,
                runtime=runtime,
                images=images,
                sources=self._sources,
                events=self._events,
                addresses=Addresses(pod_range(cluster, node)),
                allocatable=resources,
                environment={"ISTHMUS_LAB_CLUSTER": cluster.name},
                services=service_environment(str(API_SERVICE), API_SERVICE_PORT),
                dns=dns,
                folder=directory,
                logs=logs,
            )
            for node in cluster.nodes
        }
        self._keepers: dict[str, PodKeeper] = {}
        self._names: dict[tuple[str, str], str] = {}

    # What the kubelet's server asks

    def containers(self, namespace: str, pod: str) -> tuple[str, ...]:
        """The names of the pod's containers, in their order; none if this kubelet does not know the pod."""
        keeper = self._keeper(namespace, pod)
        return keeper.containers() if keeper else ()

    def process(self, namespace: str, pod: str, container: str) -> Process | None:
        """The container's process, while it runs."""
        keeper = self._keeper(namespace, pod)
        return keeper.process(container) if keeper else None

    def log(self, namespace: str, pod: str, container: str, previous: bool = False) -> Path | None:
        """The file that the container's log of this run, or of the *previous* one, is in; None if there is none."""
        keeper = self._keeper(namespace, pod)
        return keeper.log(container, previous=previous) if keeper else None

    def sandbox(self, namespace: str, pod: str) -> Sandbox | None:
        """The pod's network, while it has one."""
        keeper = self._keeper(namespace, pod)
        return keeper.sandbox if keeper else None

    async def connect(self, namespace: str, pod: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to *port* of the pod's own loopback address. Raises `OSError`."""
        sandbox = self.sandbox(namespace, pod)
        if sandbox is None:
            raise OSError(errno.ENETDOWN, f"pod {namespace}/{pod} has no network now")
        return await self._runtime.connect(sandbox, port)

    def pods(self, node: str) -> tuple[Manifest, ...]:
        """The pods that are kept now on *node*."""
        pods = (keeper.pod for keeper in self._keepers.values())
        return tuple(pod for pod in pods if pod["spec"]["nodeName"] == node)

    def _keeper(self, namespace: str, pod: str) -> PodKeeper | None:
        return self._keepers.get(self._names.get((namespace, pod), ""))

    # What it does

    async def run(self) -> None:
        """Work until cancelled; then every container is killed."""
        async with asyncio.TaskGroup() as tasks:
            for work in (
                self._register,
                self._sources.run,
                self._events.run,
                Scheduler(self._kube).run,
                LoadBalancers(self._kube, self.cluster.load_balancers).run,
                lambda: self._follow(tasks),
            ):
                tasks.create_task(_insist(work))

    async def _register(self) -> None:
        await register(self._kube, self.cluster)
        self.registered.set()

    async def _follow(self, tasks: asyncio.TaskGroup) -> None:
        await self._sources.complete()
        async for told in self._kube.watch(POD):
            if isinstance(told, Replaced):
                present = {item["metadata"]["uid"] for item in told.items}
                for uid in [uid for uid in self._keepers if uid not in present]:
                    self._keepers[uid].vanish()
                for item in told.items:
                    self._take(item, tasks)
            elif isinstance(told, Removed):
                keeper = self._keepers.get(told.item["metadata"]["uid"])
                if keeper is not None:
                    keeper.vanish()
            else:
                self._take(told.item, tasks)

    def _take(self, pod: Manifest, tasks: asyncio.TaskGroup) -> None:
        metadata, around = pod["metadata"], self._surroundings.get(pod["spec"].get("nodeName", ""))
        if metadata["uid"] in self._keepers:
            self._keepers[metadata["uid"]].update(pod)
        elif around is not None:
            ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if ended and "deletionTimestamp" in metadata:
                tasks.create_task(self._delete_ended(pod))
            elif not ended:
                self._begin(pod, around, tasks)

    def _begin(self, pod: Manifest, around: Surroundings, tasks: asyncio.TaskGroup) -> None:
        metadata = pod["metadata"]
        try:
            keeper = PodKeeper(pod, around)
        except Exception as error:  # whatever it is about this pod, the others go on
            log.critical("pod not understood", pod=metadata["name"], exc_info=error)
            return
        self._keepers[metadata["uid"]] = keeper
        self._names[metadata["namespace"], metadata["name"]] = metadata["uid"]
        tasks.create_task(self._keep(metadata["uid"], around), name=f"pod {metadata['name']}")

    async def _keep(self, uid: str, around: Surroundings) -> None:
        """Run one pod; whatever goes wrong with it stays with it."""
        try:
            while True:
                keeper = self._keepers[uid]
                try:
                    await keeper.run()
                    return
                except Exception as error:
                    log.critical("the pod's keeper failed", pod="/".join(keeper.key), exc_info=error)
                await asyncio.sleep(AGAIN_SECONDS)
                if keeper.vanished:
                    return
                self._keepers[uid] = PodKeeper(keeper.pod, around)
        finally:
            keeper = self._keepers.pop(uid)
            if self._names.get(keeper.key) == uid:
                del self._names[keeper.key]

    async def _delete_ended(self, pod: Manifest) -> None:
        metadata = pod["metadata"]
        try:
            await self._kube.delete(POD, metadata["namespace"], metadata["name"], uid=metadata["uid"], grace_seconds=0)
        except Conflict:
            return
        except KubeError as error:
            log.warning("pod not deleted", pod=metadata["name"], error=str(error))

    def _refresh(self, key: Key) -> None:
        kind, namespace, name = key
        for keeper in self._keepers.values():
            if keeper.key[0] == namespace and (kind, name) in keeper.references:
                keeper.refresh()


async def _insist(work: Callable[[], Awaitable[None]]) -> None:
    """Do *work*, again whenever the API server refuses it: it may only be starting."""
    while True:
        try:
            await work()
            return
        except KubeError as error:
            log.warning("the API server refuses", error=str(error))
            await asyncio.sleep(AGAIN_SECONDS)
        except BaseExceptionGroup as group:
            _, others = group.split(KubeError)
            if others is not None:
                raise others from None
            log.warning("the API server refuses", error=str(group.exceptions[0]))
            await asyncio.sleep(AGAIN_SECONDS)
