"""Golden cases of translation: in.yaml holds the whole input, out.yaml the whole result."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from isthmus.api.base import Resource
from isthmus.api.parse import ParseFailure, examine, parse
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate import Engine, RootFacts
from tests.golden import CASES, Golden

DEPENDENCIES = sorted((CASES / "dependencies").iterdir())
EXTERNAL_SERVICES = sorted((CASES / "external-services").iterdir())
FEDERATION = sorted((CASES / "federation").iterdir())
GATEWAYS = sorted((CASES / "gateways").iterdir())
ACCESS = sorted((CASES / "access").iterdir())
FILTERS = sorted((CASES / "filters").iterdir())
TRAFFIC = sorted((CASES / "traffic").iterdir())
TRUST = sorted((CASES / "trust").iterdir())
VIRTUAL_DESTINATIONS = sorted((CASES / "virtual-destinations").iterdir())


def load(path: Path) -> Engine:
    engine = Engine()
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest["kind"] == "Root":
            set_root(engine, manifest)
            continue
        found = parse(manifest)
        assert isinstance(found, Resource), found if isinstance(found, ParseFailure) else manifest
        engine.set(found)
    engine.run()
    return engine


def set_root(engine: Engine, given: dict[str, Any]) -> None:
    """What the server tells the engine of a root; no object holds it."""
    facts, problem = given.get("facts"), given.get("problem")
    engine.set_root(
        Ref("", given["virtualMesh"]["namespace"], given["virtualMesh"]["name"]),
        msgspec.convert(facts, RootFacts) if facts else None,
        msgspec.convert(problem, Problem) if problem else None,
    )


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


@pytest.mark.parametrize("case", ACCESS, ids=lambda case: case.name)
def test_access(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", DEPENDENCIES, ids=lambda case: case.name)
def test_dependencies(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", EXTERNAL_SERVICES, ids=lambda case: case.name)
def test_external_services(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", FILTERS, ids=lambda case: case.name)
def test_filters(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", TRAFFIC, ids=lambda case: case.name)
def test_traffic(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", GATEWAYS, ids=lambda case: case.name)
def test_gateways(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", VIRTUAL_DESTINATIONS, ids=lambda case: case.name)
def test_virtual_destinations(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", TRUST, ids=lambda case: case.name)
def test_trust(case: Path, golden: Golden) -> None:
    golden.check(case / "out.yaml", result(load(case / "in.yaml")))


@pytest.mark.parametrize("case", TRUST, ids=lambda case: case.name)
def test_agents_read_what_trust_writes(case: Path) -> None:
    """Every output of trust is an object of ours without a fault, and the same after it was read."""
    for output in load(case / "in.yaml").outputs().values():
        found, warnings = examine(output.manifest(), "out.yaml")
        assert isinstance(found, Resource), found
        assert (found, list(warnings)) == (output.object, [])


@pytest.mark.parametrize(
    "case",
    FEDERATION + ACCESS + TRAFFIC + VIRTUAL_DESTINATIONS + GATEWAYS + FILTERS + EXTERNAL_SERVICES,
    ids=lambda case: case.name,
)
def test_outputs_fit_istios_published_types(case: Path) -> None:
    """Every output validates against the models generated from Istio's own CRDs, unknown fields refused."""
    for output in load(case / "in.yaml").outputs().values():
        manifest = output.manifest()
        group, _, version = manifest["apiVersion"].partition(".istio.io/")
        model = getattr(importlib.import_module(f"cloudcoil.models.istio.{group}.{version}"), manifest["kind"])
        parsed = model.model_validate(manifest)
        again = parsed.model_dump(by_alias=True, exclude_none=True, mode="json")
        assert again["spec"] == manifest["spec"]
