"""Embedded clusters and their in-process doors for the tests of this folder."""

from __future__ import annotations

import base64
import ssl
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from isthmus.embedded import EmbeddedCluster
from isthmus.embedded.api import Api, Write
from isthmus.embedded.store import Store
from isthmus.model.ref import Kind

ME = Write(manager="me")


class Door:
    """An `Api` by kinds and manifests, for tests."""

    def __init__(self, api: Api) -> None:
        self.api = api

    def create(self, kind: Kind, manifest: dict[str, Any], namespace: str = "default") -> dict[str, Any]:
        resource = self.api.resource_of(kind)
        where = namespace if kind.namespaced else ""
        return self.api.create(resource, kind.version, where, manifest, ME).object.manifest(kind)

    def delete(self, kind: Kind, name: str, namespace: str = "default", **how: str) -> None:
        from isthmus.embedded.api import Deletion

        where = namespace if kind.namespaced else ""
        self.api.delete(self.api.resource_of(kind), where, name, Deletion(**how))

    def names(self, kind: Kind, namespace: str = "default") -> list[str]:
        return [stored.name for stored in self.api.store.list(self.api.resource_of(kind).key, namespace)]

    def get(self, kind: Kind, name: str, namespace: str = "default") -> dict[str, Any]:
        where = namespace if kind.namespaced else ""
        return self.api.find(self.api.resource_of(kind), where, name).manifest(kind)

    def patch(self, kind: Kind, name: str, patch: dict[str, Any], namespace: str = "default") -> None:
        where = namespace if kind.namespaced else ""
        self.api.merge(self.api.resource_of(kind), kind.version, where, name, patch, ME)


@pytest.fixture
async def door() -> Door:
    """A server's objects without HTTP."""
    return Door(Api(Store()))


@pytest.fixture
async def cluster() -> AsyncIterator[EmbeddedCluster]:
    """A running cluster in memory."""
    async with EmbeddedCluster("cluster1") as running:
        yield running


def client(config: dict[str, Any]) -> httpx2.AsyncClient:
    """HTTP to the first cluster of a kubeconfig with its user's certificate."""
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as file:
        for name in ("client-certificate-data", "client-key-data"):
            file.write(base64.b64decode(user[name]))
        file.flush()
        context.load_cert_chain(file.name)
    return httpx2.AsyncClient(base_url=cluster["server"], verify=context, trust_env=False, timeout=60)
