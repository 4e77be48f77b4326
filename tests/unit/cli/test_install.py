"""`meshctl install` and `uninstall`: what is made, what is kept, what is left."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.install import ManagementPlaneValues, management_plane, registration
from isthmus.kube import KubeClient
from isthmus.model import kinds
from tests.unit.cli.meshctl import Clusters, meshctl

Manifest = dict[str, Any]


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    """An empty cluster ``mgmt``, on which nothing runs pods."""
    with Clusters(tmp_path, ["mgmt"]).running() as running:
        yield running


def install(clusters: Clusters, *words: str) -> Any:
    return meshctl("install", *words, "--timeout", "0.2", kubeconfig=clusters.kubeconfig)


def secrets(clusters: Clusters) -> dict[str, Manifest]:
    async def fetch() -> dict[str, Manifest]:
        async with KubeClient.from_kubeconfig(clusters.kubeconfig, "mgmt") as cluster:
            items = (await cluster.list(kinds.SECRET, "gloo-mesh")).items
            return {item["metadata"]["name"]: item["data"] for item in items}

    return asyncio.run(fetch())


def test_a_dry_run_prints_the_manifests_and_no_secret() -> None:
    result = meshctl("install", "enterprise", "--dry-run", "--namespace", "mesh", KUBECONFIG="/nowhere")

    assert (result.exit_code, result.stderr) == (0, "")
    assert list(yaml.safe_load_all(result.stdout)) == yaml.safe_load(
        yaml.safe_dump([_plain(item) for item in management_plane(ManagementPlaneValues(), _release("mesh"))])
    )
    assert "kind: Secret\n" not in result.stdout
    assert "&id" not in result.stdout


def _release(namespace: str) -> Any:
    from isthmus.install import Release

    return Release(namespace=namespace)


def _plain(item: Manifest) -> Manifest:
    import json

    plain: Manifest = json.loads(json.dumps(item))
    return plain


def test_values_of_the_walkthrough_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text("gloo-mesh-ui: {GlooMeshDashboard: {apiserver: {floatingUserId: true}}}\n")

    result = meshctl("install", "-d", "--values", str(file), "--license", "k", "--skip-ui", "--include-rbac")

    assert result.exit_code == 0
    assert "runAsUser" not in result.stdout


def test_an_unknown_value_names_the_nearest_one() -> None:
    result = meshctl("install", "-d", "--set", "enterprise-networking.verbos=true")

    assert result.exit_code == 1
    assert "enterprise-networking.verbos: no value has this name" in result.stderr
    assert "the nearest is enterprise-networking.verbose" in result.stderr


def test_another_edition_is_not_understood() -> None:
    result = meshctl("install", "community")

    assert result.exit_code == 2
    assert "there is no edition 'community'" in result.stderr


def test_a_server_that_does_not_start_is_an_error_that_says_where_to_look(clusters: Clusters) -> None:
    result = install(clusters)

    assert result.exit_code == 1
    assert "Deployment gloo-mesh/enterprise-networking has no available pod after 0 s" in result.stderr
    assert "`kubectl --context mgmt -n gloo-mesh describe pods -l app=enterprise-networking`" in result.stderr


def test_what_keeps_the_pod_from_running_is_said(clusters: Clusters) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    pod = {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "server", "namespace": "gloo-mesh", "labels": {"app": "enterprise-networking"}},
        "spec": {"containers": [{"name": "server", "image": "x"}]},
        "status": {"containerStatuses": [{"name": "server", "state": {"waiting": waiting}}]},
    }  # fmt: skip
    install(clusters)
    clusters.load("mgmt", pod)

    result = install(clusters)

    assert "       pod server: ImagePullBackOff no such image\n" in result.stderr


def test_a_second_installation_keeps_certificates_token_and_settings(clusters: Clusters) -> None:
    install(clusters)
    before = secrets(clusters)

    result = install(clusters)

    assert "Kept the relay's certificates and token" in result.stdout
    assert secrets(clusters) == before
    assert set(before) == {
        "relay-identity-token-secret", "relay-root-tls-secret", "relay-server-tls-secret", "relay-tls-signing-secret"
    }  # fmt: skip


def test_half_a_set_of_certificates_is_not_completed_with_another_root(clusters: Clusters) -> None:
    install(clusters)

    async def lose() -> None:
        async with KubeClient.from_kubeconfig(clusters.kubeconfig, "mgmt") as cluster:
            await cluster.delete(kinds.SECRET, "gloo-mesh", "relay-server-tls-secret")

    asyncio.run(lose())
    result = install(clusters)

    assert result.exit_code == 1
    assert "Secrets are missing: relay-server-tls-secret" in result.stderr


def test_an_object_of_somebody_else_is_not_taken_over(clusters: Clusters) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gloo-mesh"}}
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "enterprise-networking", "namespace": "gloo-mesh"},
        "spec": {"type": "ClusterIP", "selector": {"app": "mine"}, "ports": [{"name": "grpc", "port": 1}]},
    }  # fmt: skip
    clusters.load("mgmt", namespace, service)

    result = install(clusters)

    assert result.exit_code == 1
    assert "Service gloo-mesh/enterprise-networking exists and belongs to isthmus-load" in result.stderr


def test_what_helm_installed_is_left_to_helm(clusters: Clusters) -> None:
    """Its record would no longer be true."""
    items = list(management_plane())
    for item in items:
        item["metadata"].setdefault("annotations", {})["meta.helm.sh/release-name"] = "mesh"
    clusters.load("mgmt", *items)

    installed = install(clusters)
    uninstalled = meshctl("uninstall", kubeconfig=clusters.kubeconfig)

    for result, command in (
        (installed, "helm upgrade mesh"),
        (uninstalled, "helm uninstall mesh --namespace gloo-mesh"),
    ):
        assert result.exit_code == 1
        assert "Helm installed the management plane on mgmt, as release mesh" in result.stderr
        assert command in result.stderr
    assert secrets(clusters) == {}


def test_uninstalling_says_what_it_leaves_and_a_dry_run_deletes_nothing(clusters: Clusters) -> None:
    install(clusters)
    clusters.load("mgmt", registration("cluster1"))
    before = secrets(clusters)

    dry = meshctl("uninstall", "--dry-run", kubeconfig=clusters.kubeconfig)
    real = meshctl("uninstall", kubeconfig=clusters.kubeconfig)
    again = meshctl("uninstall", kubeconfig=clusters.kubeconfig)

    assert "would delete Deployment gloo-mesh/enterprise-networking" in dry.stdout
    assert (real.exit_code, real.stderr) == (0, "")
    assert "Left on mgmt: namespace gloo-mesh with its Secrets, policies," in real.stdout
    assert "Left registered: cluster1." in real.stdout
    assert secrets(clusters) == before
    assert again.exit_code == 1
    assert "there is no management plane in namespace gloo-mesh on mgmt" in again.stderr
    assert len(meshctl("cluster", "list", "-o", "name", kubeconfig=clusters.kubeconfig).stdout.split()) == 1
