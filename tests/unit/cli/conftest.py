"""A management cluster as the walk-through leaves it, shared by the tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from isthmus.api.base import Resource
from isthmus.api.parse import parse
from isthmus.translate import Engine
from isthmus.translate.output import StatusKey
from tests.golden import CASES, load_yaml
from tests.unit.cli.meshctl import Clusters, with_our_kinds

WALKTHROUGH = CASES / "cli" / "walkthrough"
TRAFFIC = CASES / "cli" / "traffic"


@pytest.fixture(scope="session")
def walkthrough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Cluster ``mgmt`` with every object of `WALKTHROUGH`. Not to be written to."""
    with Clusters(tmp_path_factory.mktemp("walkthrough"), ["mgmt"]).running() as clusters:
        with_our_kinds(clusters, "mgmt")
        clusters.load("mgmt", *load_yaml(WALKTHROUGH / "in.yaml"))
        yield clusters


@pytest.fixture(scope="session")
def traffic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Cluster ``mgmt`` with every object of `TRAFFIC`, and the statuses that the engine gives them. To be read only.

    Policies of one second are older or younger by their names, so the file has them in that order.
    """
    with Clusters(tmp_path_factory.mktemp("traffic"), ["mgmt"]).running() as clusters:
        with_our_kinds(clusters, "mgmt")
        clusters.load("mgmt", *with_statuses(load_yaml(TRAFFIC / "in.yaml")))
        yield clusters


def with_statuses(manifests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """*manifests* with the statuses that the engine gives them."""
    engine = Engine()
    found = [parse(manifest) for manifest in manifests]
    keys = []
    for resource in found:
        assert isinstance(resource, Resource), resource
        engine.set(resource)
        keys.append(StatusKey(resource.KIND, resource.metadata.namespace, resource.metadata.name))
    engine.run()
    statuses = [engine.status(key) for key in keys]
    return [
        {**manifest, "status": msgspec.json.decode(msgspec.json.encode(status))} if status is not None else manifest
        for manifest, status in zip(manifests, statuses, strict=True)
    ]
