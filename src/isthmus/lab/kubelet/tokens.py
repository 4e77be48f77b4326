"""Tokens of a pod's service account, asked for before they are needed and renewed before they end."""

from __future__ import annotations

import time
from collections.abc import Iterable

from isthmus.kube import KubeClient
from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.status import parsed
from isthmus.lab.kubelet.volumes import TokenRequest
from isthmus.model.kinds import SERVICE_ACCOUNT

RENEW_AFTER = 0.8  # of a token's life; as the kubelet does
LONGEST_SECONDS = 24 * 3600.0  # after which any token is renewed; as the kubelet does


class TokenStore:
    """The tokens of one pod."""

    def __init__(self, kube: KubeClient, pod: Manifest) -> None:
        self._kube = kube
        self._pod = pod["metadata"]
        self._account = pod["spec"].get("serviceAccountName") or "default"
        self._held: dict[TokenRequest, tuple[str, float]] = {}

    def token(self, request: TokenRequest) -> str:
        """The token for *request*, which `fetch` has fetched."""
        return self._held[request][0]

    def due_in(self) -> float | None:
        """Seconds until `fetch` has something to do; None for never."""
        due = min((due for _, due in self._held.values()), default=None)
        return None if due is None else max(0.0, due - time.time())

    async def fetch(self, requests: Iterable[TokenRequest]) -> None:
        """Have a token that is good for a while for each of *requests*. Raises `KubeError`."""
        for request in requests:
            if request in self._held and self._held[request][1] > time.time():
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
            now = time.time()
            life = parsed(status["expirationTimestamp"]).timestamp() - now
            self._held[request] = (status["token"], now + min(LONGEST_SECONDS, life * RENEW_AFTER))
