"""`meshctl translate`: the engine on files, deterministic to the byte, every mistake with its place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.golden import CASES, Golden, load_yaml
from tests.unit.cli.meshctl import meshctl

CASE = CASES / "cli" / "translate"
IN = CASE / "in.yaml"

MESH = """\
apiVersion: discovery.mesh.gloo.solo.io/v1
kind: Mesh
metadata: {name: istiod-istio-system-cluster1, namespace: gloo-mesh}
spec: {istio: {installation: {cluster: cluster1, namespace: istio-system}}}
"""


def test_objects_and_statuses_are_one_stream(golden: Golden) -> None:
    result = meshctl("translate", "-f", str(IN))

    assert (result.exit_code, result.stderr) == (0, "")
    golden.check(CASE / "out.yaml", result.stdout)


def test_a_directory_gets_a_folder_per_cluster(tmp_path: Path) -> None:
    stream = list(yaml.safe_load_all(meshctl("translate", "-f", str(IN)).stdout))

    result = meshctl("translate", "-f", str(IN), "-d", str(tmp_path / "out"))

    assert (result.exit_code, result.output) == (0, "")
    found = {}
    for path in sorted((tmp_path / "out").glob("*/*.yaml")):
        item = yaml.safe_load(path.read_text())
        metadata = item["metadata"]
        assert path.name == f"{item['kind']}.{metadata['namespace']}.{metadata['name']}.yaml"
        found[path.parent.name, item["kind"], metadata["name"]] = item
    wanted = {}
    for item in stream:
        cluster = item["metadata"].get("annotations", {}).pop("cluster.multicluster.solo.io/name", "_statuses")
        wanted[cluster, item["kind"], item["metadata"]["name"]] = item
    assert found == wanted


def test_json_says_the_same() -> None:
    stream = list(yaml.safe_load_all(meshctl("translate", "-f", str(IN)).stdout))

    result = meshctl("translate", "-f", str(IN), "-o", "json")

    assert json.loads(result.stdout) == {"apiVersion": "v1", "kind": "List", "items": stream}


@pytest.mark.parametrize("seed", ["1", "2"])
def test_equal_objects_give_equal_bytes_in_whatever_order(seed: str, tmp_path: Path) -> None:
    """Neither the order of objects and files nor Python's hashes show."""
    documents = load_yaml(IN)
    half = len(documents) // 2
    (tmp_path / "b.yaml").write_text(yaml.safe_dump_all(reversed(documents[:half])))
    (tmp_path / "a.json").write_text(json.dumps({"kind": "List", "items": documents[half:][::-1]}))
    program = "from isthmus.cli.main import app; app()"

    ran = subprocess.run(
        [sys.executable, "-c", program, "translate", "-f", tmp_path],
        env={**os.environ, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == (CASE / "out.yaml").read_text()


def test_a_second_run_removes_what_the_first_wrote_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "out"
    meshctl("translate", "-f", str(IN), "-d", str(out))
    before = {path.relative_to(out) for path in out.glob("*/*.yaml")}
    (out / "notes.md").write_text("mine")
    fewer = tmp_path / "fewer.yaml"
    fewer.write_text(MESH)

    result = meshctl("translate", "-f", str(fewer), "-d", str(out))

    assert result.exit_code == 0
    assert len(before) > 10
    assert {path.relative_to(out) for path in out.glob("*/*.yaml")} == {
        Path("_statuses/Mesh.gloo-mesh.istiod-istio-system-cluster1.yaml")
    }
    assert (out / "notes.md").read_text() == "mine"


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("kind: Mine")

    result = meshctl("translate", "-f", str(IN), "-d", str(tmp_path))

    assert result.exit_code == 1
    assert "holds files that meshctl translate did not write" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


def test_every_mistake_names_file_document_object_and_path(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        MESH
        + """\
---
apiVersion: networking.mesh.gloo.solo.io/v1
kind: VirtualMesh
metadata: {name: vm, namespace: gloo-mesh}
spec: {federation: {selector: []}, meshes: one}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: default}
---
"""
        + MESH
    )

    result = meshctl("translate", "-f", str(bad))

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"error: {bad}, document 2: VirtualMesh gloo-mesh/vm spec.federation.selector: unknown field; "
        "did you mean selectors?",
        f"       {bad}, document 2: VirtualMesh gloo-mesh/vm spec.meshes: expected a list, found 'one'",
        f"       {bad}, document 3: Service default/reviews kind: v1 Service is not a kind of Isthmus",
        f"       {bad}, document 4: Mesh gloo-mesh/istiod-istio-system-cluster1 is given before, in {bad}",
        "try:   mend the objects, or leave out those of other kinds; nothing was translated",
    ]


def test_an_object_that_is_not_accepted_is_exit_code_1_beside_the_output() -> None:
    unknown = CASES / "federation" / "unknown-mesh-does-not-stop-the-others" / "in.yaml"

    result = meshctl("translate", "-f", str(unknown))

    assert result.exit_code == 1
    assert "kind: ServiceEntry" in result.stdout
    assert result.stderr == (
        "VirtualMesh gloo-mesh/virtual-mesh: INVALID: Mesh istiod-istio-system-cluster9.gloo-mesh not found\n"
    )


def test_objects_without_a_namespace_are_in_the_given_one(tmp_path: Path) -> None:
    file = tmp_path / "mesh.yaml"
    file.write_text(MESH.replace(", namespace: gloo-mesh", ""))

    result = meshctl("translate", "-f", str(file), "-n", "meshes")

    assert yaml.safe_load(result.stdout)["metadata"]["namespace"] == "meshes"


def test_a_kind_that_is_not_translated_yet_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "cr.yaml"
    file.write_text(
        "apiVersion: certificates.mesh.gloo.solo.io/v1\nkind: CertificateRequest\nmetadata: {name: x, namespace: y}\n"
    )

    result = meshctl("translate", "-f", str(file))

    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "warning: CertificateRequest y/x is not translated by this version\n"
