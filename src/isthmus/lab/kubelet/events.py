"""Tells users what befell a pod, as Event objects; few, and never twice the same."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.errors import Forbidden, KubeError, NotFound
from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.status import timestamp
from isthmus.model.kinds import EVENT

WAITING = 200  # events that wait for the API server; more are dropped, they are only for reading

log = structlog.get_logger("isthmus.lab")


class Events:
    """Writes events one after the other, so that they never hold anything up."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self._queue: asyncio.Queue[Manifest] = asyncio.Queue(WAITING)

    def tell(self, pod: Manifest, reason: str, message: str, *, warning: bool = False) -> None:
        """Note that *reason* befell *pod*."""
        metadata, now = pod["metadata"], timestamp(datetime.now(UTC))
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Pod",
                **{key: metadata[key] for key in ("name", "namespace", "uid")},
            },
            "reason": reason,
            "message": message[:1024],  # the API's limit
            "type": "Warning" if warning else "Normal",
            "source": {"component": "kubelet", "host": pod["spec"].get("nodeName", "")},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            self._queue.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("event dropped", pod=metadata["name"], reason=reason)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            event = await self._queue.get()
            try:
                await self._kube.create(EVENT, event)
            except (Forbidden, NotFound):
                continue  # a namespace that ends takes no events
            except KubeError as error:
                log.warning("event not written", error=str(error))
