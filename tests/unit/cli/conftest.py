"""A management cluster as the walk-through leaves it, shared by the tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.golden import CASES, load_yaml
from tests.unit.cli.meshctl import Clusters, with_our_kinds

WALKTHROUGH = CASES / "cli" / "walkthrough"


@pytest.fixture(scope="session")
def walkthrough(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clusters]:
    """Cluster ``mgmt`` with every object of `WALKTHROUGH`. Not to be written to."""
    with Clusters(tmp_path_factory.mktemp("walkthrough"), ["mgmt"]).running() as clusters:
        with_our_kinds(clusters, "mgmt")
        clusters.load("mgmt", *load_yaml(WALKTHROUGH / "in.yaml"))
        yield clusters
