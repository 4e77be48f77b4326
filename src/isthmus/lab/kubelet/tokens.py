"""Tokens of a pod's service account, asked for before they are needed and renewed before they end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Protocol

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.status import parsed
from isthmus.lab.kubelet.volumes import TokenRequest
from isthmus.model.kinds import SERVICE_ACCOUNT
from isthmus.model.ref import Kind

RENEW_AFTER = 0.8  # of a token's life; as the kubelet does
LONGEST_SECONDS = 24 * 3600.0  # after which any token is renewed; as the kubelet does


class Asks(Protocol):
    """What is needed of a `KubeClient`."""

    async def create(self, kind: Kind, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Create a subresource of the object that *manifest* names."""


class TokenStore:
    """The tokens of one pod."""

    def __init__(self, kube: Asks, pod: Manifest, clock: Callable[[], float] = time.time) -> None:
        self._kube = kube
        self._clock = clock
        self._pod = pod["metadata"]
        self._account = pod["spec"].get("serviceAccountName") or "default"
        self._held: dict[TokenRequest, tuple[str, float]] = {}

    def token(self, request: TokenRequest) -> str:
        """The token for *request*, which `fetch` has fetched."""
        return self._held[request][0]

    def due_in(self) -> float | None:
        """Seconds until `fetch` has something to do; None for never."""
        due = min((due for _, due in self._held.values()), default=None)
        return None if due is None else max(0.0, due - self._clock())

    async def fetch(self, requests: Iterable[TokenRequest]) -> None:
        """Have a token that is good for a while for each of *requests*. Raises `KubeError`."""
        for request in requests:
            if request in self._held and self._held[request][1] > self._clock():
                continue
            spec = {
                "expirationSeconds": request.seconds,
                "boundObjectRef": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": self._pod["name"],
                    "uid": self._pod["uid"],
                },
            } | ({"audiences": [request.audience]} if request.audience else {})
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "metadata": {"name": self._account, "namespace": self._pod["namespace"]},
                "spec": spec,
            }
            status = (await self._kube.create(SERVICE_ACCOUNT, body, subresource="token"))["status"]
            now = self._clock()
            life = parsed(status["expirationTimestamp"]).timestamp() - now
            self._held[request] = (status["token"], now + min(LONGEST_SECONDS, life * RENEW_AFTER))
