"""An embedded cluster without HTTP, and objects for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from isthmus.embedded.api import Api
from isthmus.embedded.controllers import Addresses, Controllers, Copy
from isthmus.embedded.door import InProcess
from isthmus.embedded.store import Store
from isthmus.model import kinds
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

SECONDS = 60.0  # a guard; what is waited for takes milliseconds


class Cluster:
    """An API server in memory and its controllers."""

    def __init__(self, **how: Any) -> None:
        self.api = Api(Store())
        self.door = InProcess(self.api)
        self.addresses = Addresses(how.pop("pods", "10.9.0.0/16"), how.pop("load_balancers", "192.0.2.0/28"), **how)
        self.controllers = Controllers(self.door, self.addresses)

    def create(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            resource, version = self.api.find_kind(manifest["apiVersion"], manifest["kind"])
            namespace = manifest["metadata"].get("namespace", "")
            self.api.create(resource, version, namespace, manifest)
            if "status" in manifest:
                name = manifest["metadata"]["name"]
                patch = {"status": manifest["status"]}
                self.api.merge(resource, version, namespace, name, patch, subresource="status")

    def patch(self, kind: Kind, name: str, patch: Manifest, namespace: str = "default") -> None:
        namespace = namespace if kind.namespaced else ""
        self.api.merge(self.api.resource_of(kind), kind.version, namespace, name, patch)

    def delete(self, kind: Kind, name: str, namespace: str = "default") -> None:
        self.api.delete(self.api.resource_of(kind), namespace if kind.namespaced else "", name)

    def all(self, kind: Kind, namespace: str = "default") -> list[Manifest]:
        stored = self.api.store.list(self.api.resource_of(kind).key, namespace if kind.namespaced else "")
        return [item.manifest(kind) for item in stored]

    def get(self, kind: Kind, name: str, namespace: str = "default") -> Manifest:
        return next(item for item in self.all(kind, namespace) if item["metadata"]["name"] == name)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The controllers at work."""
        task = asyncio.create_task(self.controllers.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def until(self, condition: Callable[[Copy], bool]) -> None:
        """Wait for the controllers to see *condition*."""
        async with asyncio.timeout(SECONDS):
            await self.controllers.until(condition)

    async def settled(self) -> None:
        """Wait until the controllers have seen everything and have nothing left to write."""
        seen = -1
        async with asyncio.timeout(SECONDS):
            while seen != self.api.store.revision:
                seen = self.api.store.revision
                for _ in range(20):  # turns of the event loop: a watch, a plan and its echo take fewer
                    await asyncio.sleep(0)


def node(name: str, zone: str = "") -> Manifest:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


def workload(
    kind: Kind = kinds.DEPLOYMENT, name: str = "web", *, image: str = "example/web:1", **spec: Any
) -> Manifest:
    """A workload whose pods have the label ``app: <name>``."""
    labels = {"app": name}
    container = spec.pop("container", {})
    template = {
        "metadata": {"labels": {**labels, **spec.pop("labels", {})}},
        "spec": {"containers": [{"name": "main", "image": image, **container}], **spec.pop("pod", {})},
    }
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def service(name: str = "web", **spec: Any) -> Manifest:
    ports = spec.pop("ports", [{"name": "http", "port": 80}])
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": ports, **spec},
    }


def endpoints(copy: Copy, name: str = "web") -> list[str]:
    """The ready addresses of a Service, over all slices."""
    return sorted(
        endpoint["addresses"][0]
        for item in copy.all(kinds.ENDPOINT_SLICE)
        if item["metadata"]["labels"]["kubernetes.io/service-name"] == name
        for endpoint in item["endpoints"]
        if endpoint["conditions"]["ready"]
    )
