"""Exchanges that state what we need from an API server; each one is data in exchanges/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.exchange import run
from tests.contract.server import Server

EXCHANGES = {
    f"{path.stem}:{name}": steps
    for path in sorted((Path(__file__).parent / "exchanges").glob("*.yaml"))
    for name, steps in yaml.safe_load(path.read_text()).items()
}


@pytest.mark.parametrize("steps", EXCHANGES.values(), ids=EXCHANGES.keys())
def test_exchange(server: Server, steps: list[dict[str, Any]]) -> None:
    """The server answers as the exchange says."""
    run(server, steps)
