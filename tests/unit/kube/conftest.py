"""A scripted API server, clients for it, and kubeconfigs that lead to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.kube import KubeClient

from .certificates import Authority
from .peer import Peer


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """An API server over plain HTTP."""
    async with Peer().serving() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who issues certificates in this test."""
    return Authority(tmp_path)


Kubeconfig = Callable[..., Path]


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Kubeconfig:
    """Writes a kubeconfig with the one context ``here``."""

    def write(cluster: dict[str, Any], user: dict[str, Any] | None = None, file: str = "config") -> Path:
        path = tmp_path / file
        context: dict[str, Any] = {"cluster": "the-cluster"}
        content: dict[str, Any] = {
            "current-context": "here",
            "clusters": [{"name": "the-cluster", "cluster": cluster}],
            "contexts": [{"name": "here", "context": context}],
        }
        if user is not None:
            context["user"] = "the-user"
            content["users"] = [{"name": "the-user", "user": user}]
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
async def client(peer: Peer, kubeconfig: Kubeconfig) -> AsyncIterator[KubeClient]:
    """A client of *peer* that gives up after two seconds."""
    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}), patience=2) as found:
        yield found
