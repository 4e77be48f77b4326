"""Image names lead to programs, whatever registry and tag they have."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.lab.binaries import Binaries, Found
from isthmus.lab.images import Images, name_of

PROGRAMS = ("pilot-agent", "pilot-discovery", "envoy", "istio")


@pytest.fixture
def images() -> Images:
    found = {name: Found(name, "1", "test", Path("/cache") / name) for name in PROGRAMS}
    return Images(Binaries(Path("/cache"), found), python="/venv/bin/python")


@pytest.mark.parametrize(
    "reference",
    [
        "proxyv2",
        "istio/proxyv2:1.30.0",
        "gcr.io/istio-testing/proxyv2:latest-distroless",
        "localhost:5000/a/b/proxyv2",
        "registry.example:443/proxyv2@sha256:0123",
        "istio/proxyv2:1.30@sha256:0123",
    ],
)
def test_the_name_is_the_last_part_of_the_path(reference: str) -> None:
    assert name_of(reference) == "proxyv2"


def test_istios_proxy_has_all_that_its_agent_starts(images: Images) -> None:
    image = images.of("istio/proxyv2:1.30.0")

    assert image is not None
    assert image.entrypoint == ("/usr/local/bin/pilot-agent",)
    assert image.files["/usr/local/bin/envoy"] == Path("/cache/envoy")
    assert image.files["/var/lib/istio/envoy/envoy_bootstrap_tmpl.json"].name == "envoy_bootstrap.json"
    assert (image.user, image.group) == (1337, 1337)


@pytest.mark.parametrize(
    ("reference", "arguments"),
    [
        ("docker.io/istio/examples-bookinfo-productpage-v1:1.20", ("productpage", "v1")),
        ("istio/examples-bookinfo-reviews-v3", ("reviews", "v3")),
    ],
)
def test_bookinfo(images: Images, reference: str, arguments: tuple[str, str]) -> None:
    image = images.of(reference)

    assert image is not None
    assert image.entrypoint == ("/venv/bin/python", "-m", "isthmus.lab.bookinfo", *arguments)


@pytest.mark.parametrize("program", ["isthmus-server", "isthmus-agent"])
def test_our_own_programs_are_those_beside_this_python_and_never_root(images: Images, program: str) -> None:
    image = images.of(f"ghcr.io/isthmus/{program}:0.1.0")

    assert image is not None
    assert image.entrypoint == (f"/venv/bin/{program}",)
    assert image.user != 0


@pytest.mark.parametrize("reference", ["nginx", "examples-bookinfo-", "examples-bookinfo-reviews", "proxyv2x"])
def test_other_images_are_unknown(images: Images, reference: str) -> None:
    assert images.of(reference) is None


def test_messages_can_name_what_is_known(images: Images) -> None:
    for name in images.names:
        assert images.of(name.replace("SERVICE-VERSION", "reviews-v1")) is not None
