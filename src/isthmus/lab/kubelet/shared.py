"""What the keepers of a pod and of its containers share."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.events import Manifest
from isthmus.lab.images import Images
from isthmus.lab.kubelet.addresses import Addresses
from isthmus.lab.kubelet.containers import Place
from isthmus.lab.kubelet.events import Events
from isthmus.lab.kubelet.fields import Setting, Sources
from isthmus.lab.kubelet.network_files import hostname
from isthmus.lab.plan import NodePlan
from isthmus.lab.runtime import Runtime, Sandbox

GRACE_SECONDS = 30  # for a pod that does not say; Kubernetes' default

log = structlog.get_logger("isthmus.lab")


@dataclass(frozen=True)
class Surroundings:
    """What the pods of one node share."""

    kube: KubeClient
    node: NodePlan
    machine: str
    runtime: Runtime
    images: Images
    sources: Sources
    events: Events
    addresses: Addresses
    allocatable: Mapping[str, str]
    environment: Mapping[str, str]
    """Variables of every container, which it may set otherwise."""
    services: Mapping[str, str]
    """Variables that tell where the API server is."""
    dns: str
    folder: Path
    """On a tmpfs: volumes and what else containers mount."""
    logs: Path


class PodState:
    """One pod on its node, as of now."""

    def __init__(self, pod: Manifest, around: Surroundings) -> None:
        self.pod = pod
        self.around = around
        self.uid: str = pod["metadata"]["uid"]
        self.address: IPv4Address | None = None
        self.sandbox: Sandbox | None = None
        self.place = Place(around.folder / "pods" / self.uid, around.folder / "host" / around.node.name)
        self.logs = around.logs / "_".join((*self.key, self.uid))
        self.changed = asyncio.Event()
        """Set when the pod's status may be another."""
        self._news = asyncio.Event()
        self._said: set[tuple[str, str]] = set()

    @property
    def key(self) -> tuple[str, str]:
        """Namespace and name."""
        return self.pod["metadata"]["namespace"], self.pod["metadata"]["name"]

    @property
    def hostname(self) -> str:
        """What containers call their machine."""
        return hostname(self.pod, self.around.node.name)

    @property
    def setting(self) -> Setting:
        """What containers may ask to be told."""
        return Setting(self.pod, str(self.address), str(self.around.node.address), self.around.allocatable)

    @property
    def grace(self) -> float:
        """Seconds that a container has to end by itself."""
        own = self.pod["spec"].get("terminationGracePeriodSeconds", GRACE_SECONDS)
        return float(self.pod["metadata"].get("deletionGracePeriodSeconds", own))

    def spread_news(self) -> None:
        """Let those who wait for what the pod refers to look again."""
        self._news.set()
        self._news.clear()

    async def news(self, seconds: float) -> None:
        """Wait until something changes that the pod refers to, or for *seconds*."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return

    def tell(self, reason: str, message: str) -> None:
        """Tell users what befell the pod."""
        self.around.events.tell(self.pod, reason, message)

    def warn(self, reason: str, message: str) -> None:
        """Tell users what is wrong with the pod, the same thing once."""
        if (reason, message) in self._said:
            return
        self._said.add((reason, message))
        log.warning("pod in trouble", pod="/".join(self.key), node=self.around.node.name, reason=reason, error=message)
        self.around.events.tell(self.pod, reason, message, warning=True)


def now() -> datetime:
    """The time, in the whole seconds that Kubernetes shows."""
    return datetime.now(UTC).replace(microsecond=0)
