"""How objects look in lists: ages, paths of printer columns, and Istio's kinds as the walk-through shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from isthmus.embedded.api import Api
from isthmus.embedded.cluster import load_object
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.embedded.resources import BUILT_IN
from isthmus.embedded.store import Store
from isthmus.embedded.tables import human_duration, json_path, table
from isthmus.istio.kinds import ISTIO_KINDS, SERVICE_ENTRY


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (492, "8m12s"),
        (600, "10m"),
        (10799, "179m"),
        (10800, "3h"),
        (18060, "5h1m"),
        (28800, "8h"),
        (172799, "47h"),
        (172800, "2d"),
        (266400, "3d2h"),
        (691200, "8d"),
        (63071999, "729d"),
        (63072000, "2y"),
        (70848000, "2y90d"),
        (252288000, "8y"),
    ],
)
def test_ages_are_short(seconds: int, shown: str) -> None:
    """Two units while they matter, one afterwards.

    Source: Kubernetes, HumanDuration of apimachinery's duration package.
    """
    assert human_duration(seconds) == shown


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.size", [3]),
        (".spec.none", []),
        (".spec.hosts[0]", ["a"]),
        (".spec.hosts[-1]", ["b"]),
        (".spec.hosts[9]", []),
        (".spec.hosts[*]", ["a", "b"]),
        (".spec.hosts", [["a", "b"]]),
        (r".metadata.labels.app\.kubernetes\.io/name", ["x"]),
        (".metadata.labels['app.kubernetes.io/name']", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        ("broken[", []),
    ],
)
def test_paths_of_columns(path: str, found: list[Any]) -> None:
    """The forms of JSON path that printer columns use."""
    manifest = {
        "metadata": {"labels": {"app.kubernetes.io/name": "x"}},
        "spec": {"size": 3, "hosts": ["a", "b"]},
        "status": {"conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}]},
    }

    assert json_path(manifest, path) == found


async def test_every_built_in_kind_fits_its_columns() -> None:
    """An object with nothing but a name has a cell for each column."""
    for resource in BUILT_IN:
        shown = table(resource, resource.versions[0], [{"metadata": {"name": "a"}}], {})

        assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"]), resource.kind


async def test_service_entries_are_listed_as_in_the_walk_through() -> None:
    """Columns and cells of ``kubectl get serviceentries``: lists in brackets, without quotes."""
    api = Api(Store())
    for definition in istio_definitions():
        load_object(api, definition)
    host = "details.default.svc.cluster2.global"
    entry = {
        "apiVersion": SERVICE_ENTRY.api_version,
        "kind": "ServiceEntry",
        "metadata": {"name": host, "namespace": "default"},
        "spec": {"hosts": [host], "location": "MESH_INTERNAL", "resolution": "DNS"},
    }
    load_object(api, entry)

    resource = api.resource_of(SERVICE_ENTRY)
    manifest = api.find(resource, "default", host).manifest(SERVICE_ENTRY)
    manifest["metadata"]["creationTimestamp"] = "2024-01-02T03:00:00Z"
    now = datetime(2024, 1, 2, 3, 8, 12, tzinfo=UTC)
    shown = table(resource, "v1beta1", [manifest], {}, now=now)

    assert [column["name"] for column in shown["columnDefinitions"]] == [
        "Name",
        "Hosts",
        "Location",
        "Resolution",
        "Age",
    ]
    assert shown["rows"][0]["cells"] == [host, f"[{host}]", "MESH_INTERNAL", "DNS", "8m12s"]


async def test_istios_kinds_are_served_in_every_version() -> None:
    """Each kind that we write is served in our version, and the same object in Istio's others."""
    api = Api(Store())
    for definition in istio_definitions():
        load_object(api, definition)

    for kind in ISTIO_KINDS:
        assert kind.version in api.resource_of(kind).versions
    assert api.resource_of(SERVICE_ENTRY).versions == ("v1", "v1beta1", "v1alpha3")


def test_istio_before_v1_serves_what_it_did_then() -> None:
    """Without v1, every kind of Istio's keeps a stored version, and kubectl finds ServiceEntries in v1beta1."""
    for definition in istio_definitions(v1=False):
        versions = definition["spec"]["versions"]
        assert sum(version["storage"] for version in versions) == 1
        if definition["spec"]["names"]["kind"] == "ServiceEntry":
            assert {version["name"] for version in versions} == {"v1alpha3", "v1beta1"}
