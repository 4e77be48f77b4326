"""Fleets on this machine, for tests of everything together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from isthmus.embedded.fleet import Fleet
from isthmus.kube import KubeClient


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Fleet]:
    """Three clusters as the walk-through has them before it installs anything; API servers in this process."""
    async with Fleet(tmp_path / "fleet") as found:
        yield found


@pytest.fixture
async def kube(fleet: Fleet) -> AsyncIterator[Mapping[str, KubeClient]]:
    """A client of each cluster of the fleet, by name."""
    async with AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(KubeClient.from_kubeconfig(fleet.kubeconfig, name))
            for name in fleet.names
        }
