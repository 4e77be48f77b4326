"""What we ask of an API server, asked of the real kube-apiserver; and what users apply, applied there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from isthmus.api.crds import manifests
from tests.contract.server import KUBECONFIG
from tests.lab.api_server import bare_api_server
from tests.lab.running import ROOT, WALKTHROUGH, Lab

SUITE_SECONDS = 500.0

# On which cluster users apply a file, and whether this version takes it.
TAKEN = {
    "virtual-mesh.yaml": "mgmt",
    "traffic-policy.yaml": "mgmt",
    "access-policy.yaml": "mgmt",
    "virtual-destination.yaml": "mgmt",
    "traffic-policy-failover.yaml": "mgmt",
    "access-log-record.yaml": "mgmt",
    "bookinfo.yaml": "cluster1",
    "bookinfo-gateway.yaml": "cluster1",
}
NOT_APPLIED = {
    "istio-operator-cluster1.yaml",  # for istioctl
    "istio-operator-cluster2.yaml",
    "istio-cluster1.yaml",  # stand for running clusters on embedded API servers
    "istio-cluster2.yaml",
    "nodes-cluster1.yaml",
    "nodes-cluster2.yaml",
    "network-attachment-definition.yaml",  # OpenShift's kind
    "rolebinding-patch.yaml",  # no object
}


def test_the_contract_holds_on_the_real_api_server(tmp_path: Path) -> None:
    """The suite that the embedded API server passes, the same files, on both."""
    with bare_api_server(tmp_path) as kubeconfig:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(ROOT / "tests" / "contract")],
            cwd=ROOT,
            env={**Lab(tmp_path).environment, KUBECONFIG: str(kubeconfig)},
            capture_output=True,
            text=True,
            timeout=SUITE_SECONDS,
            check=False,
        )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"contract: embedded API server and {kubeconfig}" in done.stdout
    assert "kubectl is not on PATH" not in done.stdout


def test_every_crd_is_established(managed: Lab) -> None:
    """kube-apiserver has nothing to object to in any of our types."""
    ours = {crd["metadata"]["name"] for crd in manifests()}

    found = {
        (cluster, item["metadata"]["name"]): item
        for cluster in ("mgmt", "cluster1", "cluster2")
        for item in managed.objects(cluster, "customresourcedefinitions")
        if item["metadata"]["name"] in ours
    }

    assert {name for _, name in found} == ours
    for name, item in found.items():
        conditions = {condition["type"]: condition["status"] for condition in item["status"]["conditions"]}
        assert conditions["Established"] == "True", name
        assert conditions["NamesAccepted"] == "True", name
        assert conditions.get("NonStructuralSchema", "False") == "False", name
        assert conditions.get("KubernetesAPIApprovalPolicyConformant", "True") == "True", name


def test_every_file_of_the_walkthrough_has_its_place() -> None:
    """A new file is either applied below, or somebody said why not."""
    files = {path.name for path in WALKTHROUGH.glob("*.yaml")}

    assert files == TAKEN.keys() | NOT_APPLIED


@pytest.mark.parametrize("name", TAKEN)
def test_files_of_the_walkthrough_apply(managed: Lab, name: str) -> None:
    """The real API server validates each against its schema, and istiod those that are Istio's.

    A virtual mesh whose root other tests have replaced would be merged with the file, which names another one.
    """
    exists = name == "virtual-mesh.yaml" and managed.has("mgmt", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh")
    verb = "replace" if exists else "apply"
    answer = managed.kubectl(
        TAKEN[name], verb, "--dry-run=server", "--validate=strict", "-f", str(WALKTHROUGH / name), "-o", "json"
    )

    applied = json.loads(answer)
    assert applied.get("items", [applied])


def test_a_wrong_field_is_refused_with_its_path(managed: Lab) -> None:
    """Schemas are strict: a typing error does not pass as nothing."""
    text = (WALKTHROUGH / "virtual-mesh.yaml").read_text().replace("federation:", "federatoin:")

    done = managed.attempt(
        "kubectl", "--context", "mgmt", "apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text
    )

    assert done.returncode == 1
    assert 'unknown field "spec.federatoin"' in done.stderr
