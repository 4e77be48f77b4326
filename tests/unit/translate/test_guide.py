"""The objects in the guide are read, and accepted on the fleet of the walk-through."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.api.base import Resource
from isthmus.api.common import ApprovalState
from isthmus.api.parse import parse
from isthmus.translate import Engine
from isthmus.translate.output import StatusKey
from tests.golden import CASES, load_yaml

GUIDE = Path(__file__).parents[3] / "docs" / "guide"
PAGES = ("traffic.md", "gateways.md", "filters.md", "access.md", "dependencies.md")


def examples(page: str) -> list[Any]:
    """The whole objects among the YAML blocks of *page*."""
    blocks = re.findall(r"```yaml\n(.*?)```", (GUIDE / page).read_text(), re.DOTALL)
    found = [parse(manifest) for block in blocks for manifest in yaml.safe_load_all(block) if "\nmetadata:" in block]
    assert found
    return found


@pytest.mark.parametrize("page", PAGES)
def test_what_the_guide_shows_is_accepted(page: str) -> None:
    engine = Engine()
    for manifest in load_yaml(CASES / "cli" / "walkthrough" / "in.yaml"):
        resource = parse(manifest)
        if isinstance(resource, Resource):
            engine.set(resource)
    shown = examples(page)
    for resource in shown:
        assert isinstance(resource, Resource), resource
        engine.set(resource)
    engine.run()

    for resource in shown:
        status: Any = engine.status(StatusKey(resource.KIND, resource.metadata.namespace, resource.metadata.name))
        assert status.state is ApprovalState.ACCEPTED, (resource.metadata.name, status)
