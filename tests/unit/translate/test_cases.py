"""Golden cases of translation: in.yaml holds the whole input, out.yaml the whole result."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from isthmus.api.base import Resource
from isthmus.api.parse import ParseFailure, parse
from isthmus.translate import Engine
from tests.golden import CASES, Golden

FEDERATION = sorted((CASES / "federation").iterdir())


def load(path: Path) -> Engine:
    engine = Engine()
    for manifest in yaml.safe_load_all(path.read_text()):
        found = parse(manifest)
        assert isinstance(found, Resource), found if isinstance(found, ParseFailure) else manifest
        engine.set(found)
    engine.run()
    return engine


def result(engine: Engine) -> str:
    """Outputs by cluster, then statuses, as one YAML document."""
    clusters: dict[str, list[dict[str, Any]]] = {}
    for key, output in engine.outputs().items():
        clusters.setdefault(key.cluster, []).append(output.manifest())
    statuses = {f"{key.kind.kind} {key.name}": msgspec.to_builtins(engine.status(key)) for key in engine.status_keys()}
    return yaml.safe_dump({"outputs": clusters, "statuses": statuses}, sort_keys=False, width=120)


@pytest.mark.parametrize("case", FEDERATION, ids=lambda case: case.name)
def test_federation(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", FEDERATION, ids=lambda case: case.name)
def test_outputs_fit_istios_published_types(case: Path) -> None:
    """Every output validates against the models generated from Istio's own CRDs, unknown fields refused."""
    networking = importlib.import_module("cloudcoil.models.istio.networking.v1beta1")
    for output in load(case / "in.yaml").outputs().values():
        manifest = output.manifest()
        model = getattr(networking, manifest["kind"])
        parsed = model.model_validate(manifest)
        again = parsed.model_dump(by_alias=True, exclude_none=True, mode="json")
        assert again["spec"] == manifest["spec"]
