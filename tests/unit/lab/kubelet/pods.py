"""Pods as an API server returns them, for the tests of the lab's kubelet."""

from __future__ import annotations

import base64
from typing import Any

from isthmus.lab.kubelet.fields import Setting

Manifest = dict[str, Any]


def container(name: str = "main", **more: Any) -> Manifest:
    """A container of a pod."""
    return {"name": name, "image": f"example.org/{name}:1", **more}


def pod(*containers: Manifest, init: tuple[Manifest, ...] = (), **spec: Any) -> Manifest:
    """A pod named ``web`` in namespace ``shop``."""
    return {
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "u-1",
            "generation": 3,
            "labels": {"app": "web", "tier": "front"},
            "annotations": {"note": 'a "quoted"\nline'},
        },
        "spec": {
            "nodeName": "node-a",
            "serviceAccountName": "shopper",
            "restartPolicy": "Always",
            "containers": list(containers or (container(),)),
            **({"initContainers": list(init)} if init else {}),
            **spec,
        },
    }


def setting(of: Manifest | None = None) -> Setting:
    """Where that pod runs."""
    return Setting(of or pod(), "10.10.0.5", "172.31.0.1", {"cpu": "4", "memory": "8Gi"})


class Held:
    """The ConfigMaps and Secrets of namespace ``shop``."""

    def __init__(self, **items: dict[str, str]) -> None:
        """*items* by ``ConfigMap_name`` or ``Secret_name``."""
        self._items = items

    def find(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object of *kind*."""
        held = self._items.get(f"{kind}_{name}") if namespace == "shop" else None
        if held is None:
            return None
        if kind == "Secret":
            return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in held.items()}}
        return {"data": dict(held)}
