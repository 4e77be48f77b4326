"""A cluster with Istio's kinds, and the door to it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.kube import KubeClient


@pytest.fixture
async def bare_cluster() -> AsyncIterator[EmbeddedCluster]:
    """An API server that serves no kinds of Istio yet."""
    async with EmbeddedCluster("cluster1") as cluster:
        await cluster.load([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}])
        await cluster.load([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gloo-mesh"}}])
        yield cluster


@pytest.fixture
async def cluster(bare_cluster: EmbeddedCluster) -> EmbeddedCluster:
    """An API server that serves Istio's kinds."""
    await bare_cluster.load(istio_definitions())
    return bare_cluster


@pytest.fixture
async def kube(bare_cluster: EmbeddedCluster, tmp_path: Path) -> AsyncIterator[KubeClient]:
    """The door to the cluster."""
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(bare_cluster.kubeconfig()))
    async with KubeClient.from_kubeconfig(path, patience=5.0) as client:
        yield client
