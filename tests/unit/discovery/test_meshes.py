"""Control planes, their versions and their configs, as Istio's installations of several years write them."""

from __future__ import annotations

import pytest

from isthmus.discovery.meshes import LabelSelector, MeshConfig, Requirement, image_version, parse_mesh_config
from isthmus.model.problem import Problem


@pytest.mark.parametrize(
    ("image", "version"),
    [
        ("docker.io/istio/pilot:1.9.5", "1.9.5"),
        ("gcr.io/istio-release/pilot:1.31.1-distroless", "1.31.1-distroless"),
        ("registry:5000/istio/pilot:1.9.5@sha256:abc", "1.9.5"),
        ("registry:5000/istio/pilot@sha256:abc", "sha256:abc"),
        ("registry:5000/istio/pilot", ""),
    ],
)
def test_the_version_is_the_tag_or_else_the_digest(image: str, version: str):
    assert image_version(image) == version


@pytest.mark.parametrize(
    ("text", "config"),
    [
        ("", MeshConfig()),
        ("trustDomain: cluster1", MeshConfig(trust_domain="cluster1")),
        ("trustDomain: null\ndefaultConfig: null", MeshConfig()),
        ('defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: "true"}}', MeshConfig(dns_capture=True)),
        ('defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: "false"}}', MeshConfig()),
        ("defaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: true}}", MeshConfig()),
    ],
)
def test_mesh_configs_that_can_be_read(text: str, config: MeshConfig):
    assert parse_mesh_config(text) == config


@pytest.mark.parametrize(
    "text",
    [
        "a: [",
        "just text",
        "- a",
        "trustDomain: [a]",
        "defaultConfig: 7",
        "a: 2021-99-99",
        "\x00",
        "[" * 100_000,
        "a:\n" + "".join(" " * level + "- \n" for level in range(1, 2000)),
        "a: &a {b: *a}\ndefaultConfig: {proxyMetadata: {ISTIO_META_DNS_CAPTURE: *a}, x: [}",
        "a: &a [*a]\ntrustDomain: *a",
        "!!python/object/apply:os.system [true]",
    ],
)
def test_mesh_configs_that_cannot_be_read_are_problems(text: str):
    problem = parse_mesh_config(text)

    assert isinstance(problem, Problem)
    assert problem.message.startswith("not a mesh config: ")
    assert len(problem.message) < 200


@pytest.mark.parametrize(
    ("operator", "values", "labels", "selected"),
    [
        ("In", ("a", "b"), {"k": "a"}, True),
        ("In", ("a",), {}, False),
        ("NotIn", ("a",), {"k": "b"}, True),
        ("NotIn", ("a",), {}, True),
        ("NotIn", ("a",), {"k": "a"}, False),
        ("Exists", None, {"k": ""}, True),
        ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True),
        ("DoesNotExist", None, {"k": ""}, False),
        ("Sounds like", ("a",), {"k": "a"}, False),
    ],
)
def test_selector_expressions(operator: str, values: tuple[str, ...] | None, labels: dict[str, str], selected: bool):
    selector = LabelSelector(match_expressions=(Requirement("k", operator, values),))

    assert selector.selects(labels) is selected


def test_all_parts_of_a_selector_must_match_and_an_empty_one_selects_nothing():
    selector = LabelSelector({"a": "1"}, (Requirement("b", "Exists"),))

    assert selector.selects({"a": "1", "b": ""})
    assert not selector.selects({"a": "1"})
    assert not selector.selects({"b": ""})
    assert not LabelSelector().selects({})
