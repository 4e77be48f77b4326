"""`meshctl get`: tables that programs can read too, and data as Kubernetes has it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from isthmus.api.kinds import KINDS
from isthmus.cli.get import age, at
from isthmus.cli.kinds import kind_named, kind_names
from tests.unit.cli.meshctl import Clusters, meshctl


def table(clusters: Clusters, *words: str) -> list[list[str]]:
    """The cells of a table, without its ages."""
    result = meshctl("get", *words, kubeconfig=clusters.kubeconfig)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in result.stdout.splitlines()]
    ages = lines[0].index("AGE")
    return [cells[:ages] + cells[ages + 1 :] for cells in lines]


def test_the_columns_are_those_of_kubectl(walkthrough: Clusters) -> None:
    assert table(walkthrough, "meshes") == [
        ["NAME", "CLUSTER", "VERSION", "TRUST DOMAIN", "VIRTUAL MESH"],
        ["istiod-istio-system-cluster1", "cluster1", "1.9.9", "cluster1", "virtual-mesh"],
        ["istiod-istio-system-cluster2", "cluster2", "1.31.1", "cluster2", "virtual-mesh"],
    ]


def test_wide_adds_what_an_object_selects_or_reaches(walkthrough: Clusters) -> None:
    meshes, virtual_meshes = table(walkthrough, "meshes", "-o", "wide"), table(walkthrough, "vm", "-o", "wide")
    destination = table(walkthrough, "dest", "reviews-default-cluster2", "-o", "wide")

    assert [row[-1] for row in meshes] == ["GATEWAYS", "203.0.113.1:15443", "203.0.113.2:15443"]
    assert [row[-2:] for row in virtual_meshes] == [
        ["MESHES", "DESTINATIONS"],
        ["istiod-istio-system-cluster1,istiod-istio-system-cluster2", "10"],
    ]
    assert [row[-3:] for row in destination] == [
        ["PORTS", "ENDPOINTS", "FEDERATED TO"],
        ["9080/TCP", "3", "istiod-istio-system-cluster1"],
    ]


def test_all_namespaces_come_with_their_name(walkthrough: Clusters) -> None:
    assert table(walkthrough, "virtualmeshes", "-A")[1][:2] == ["gloo-mesh", "virtual-mesh"]


def test_objects_are_chosen_by_label(walkthrough: Clusters) -> None:
    rows = table(walkthrough, "meshes", "-l", "cluster.discovery.mesh.gloo.solo.io=cluster2")

    assert [row[0] for row in rows[1:]] == ["istiod-istio-system-cluster2"]


def test_data_is_what_translate_reads(walkthrough: Clusters) -> None:
    kubeconfig = walkthrough.kubeconfig
    many = json.loads(meshctl("get", "meshes", "-o", "json", kubeconfig=kubeconfig).stdout)
    one = yaml.safe_load(
        meshctl("get", "mesh", "istiod-istio-system-cluster1", "-o", "yaml", kubeconfig=kubeconfig).stdout
    )

    translated = meshctl("translate", "-f", "-", input=json.dumps(many))

    assert many["kind"] == "List"
    assert many["items"][0] == one
    assert "managedFields" not in one["metadata"]
    assert translated.exit_code == 0


def test_names_are_what_kubectl_takes(walkthrough: Clusters) -> None:
    result = meshctl("get", "vm", "-o", "name", kubeconfig=walkthrough.kubeconfig)

    assert result.stdout == "virtualmesh.networking.mesh.gloo.solo.io/virtual-mesh\n"


def test_registered_clusters_are_listed(walkthrough: Clusters) -> None:
    result = meshctl("cluster", "list", "-o", "name", kubeconfig=walkthrough.kubeconfig)

    assert result.stdout.split() == [f"kubernetescluster.multicluster.solo.io/cluster{n}" for n in (1, 2)]


def test_nothing_found_is_no_error(walkthrough: Clusters) -> None:
    result = meshctl("get", "trafficpolicies", kubeconfig=walkthrough.kubeconfig)

    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "No trafficpolicies found.\n")


def test_an_object_that_is_not_there_is(walkthrough: Clusters) -> None:
    result = meshctl("get", "mesh", "nope", kubeconfig=walkthrough.kubeconfig)

    assert result.exit_code == 1
    assert result.stderr == (
        "error: mgmt has no Mesh gloo-mesh/nope\ntry:   `meshctl get meshes -A` lists those that there are\n"
    )


@pytest.mark.parametrize("word", ["VirtualMesh", "virtualmeshes", "vm", "vmeshes", "vms.networking.mesh.gloo.solo.io"])
def test_a_kind_goes_by_all_its_names(word: str) -> None:
    assert kind_named(word).KIND.kind == "VirtualMesh"


def test_no_two_kinds_share_a_name() -> None:
    own = [{kind.KIND.plural, kind.KIND.kind.lower(), *kind.SHORT_NAMES} for kind in KINDS]

    assert sum(map(len, own)) == len(set().union(*own))
    assert set().union(*own) <= set(kind_names())


def test_a_misspelt_kind_is_suggested(walkthrough: Clusters) -> None:
    result = meshctl("get", "destnations", kubeconfig=walkthrough.kubeconfig)

    assert result.exit_code == 1
    assert result.stderr.startswith("error: 'destnations' is not a kind of Isthmus; did you mean destinations?\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (599, "9m59s"), (600, "10m"), (10799, "179m"), (10800, "3h"),
        (4 * 3600 + 60, "4h1m"), (8 * 3600, "8h"), (48 * 3600, "2d"), (49 * 3600, "2d1h"), (8 * 86400, "8d"),
        (730 * 86400, "2y"), (800 * 86400, "2y70d"), (3000 * 86400, "8y"),
    ],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds: int, text: str) -> None:
    now = datetime(2026, 11, 22, tzinfo=UTC)

    assert age((now - timedelta(seconds=seconds)).isoformat(), now) == text


def test_a_path_that_leads_nowhere_finds_nothing() -> None:
    assert at({"a": {"b": 1}}, ".a.b") == 1
    assert at({"a": {"b": 1}}, ".a.b.c") is None
    assert at({}, ".a") is None
    assert at({"a": [{"b": 1}]}, ".a[0].b") == 1
    assert at({"a": []}, ".a[0].b") is None
    assert at({"a": "text"}, ".a[0]") is None
