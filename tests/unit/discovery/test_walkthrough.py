"""The walk-through's own files yield what its user sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.discovery import discover
from tests.golden import load_yaml
from tests.unit.discovery.clusters import injected_namespace

WALKTHROUGH = Path(__file__).parents[3] / "examples" / "walkthrough"


def applied(cluster: str) -> list[dict[str, Any]]:
    """What is on *cluster* after the walk-through's commands: on cluster1 without reviews v3."""
    bookinfo = load_yaml(WALKTHROUGH / "bookinfo.yaml")
    if cluster == "cluster1":
        labels = [(manifest, manifest["metadata"]["labels"]) for manifest in bookinfo]
        without_v3 = [manifest for manifest, has in labels if "app" in has and has.get("version") != "v3"]
        bookinfo = without_v3 + [manifest for manifest, has in labels if "account" in has]
    istio, nodes = load_yaml(WALKTHROUGH / f"istio-{cluster}.yaml"), load_yaml(WALKTHROUGH / f"nodes-{cluster}.yaml")
    return [*istio, *nodes, injected_namespace(), *bookinfo]


@pytest.mark.parametrize(
    ("cluster", "reviews", "version", "address"),
    [("cluster1", ["v1", "v2"], "1.9.9", "203.0.113.1"), ("cluster2", ["v1", "v2", "v3"], "1.31.1", "203.0.113.2")],
)
def test_the_walkthrough_is_discovered(cluster: str, reviews: list[str], version: str, address: str):
    resources, problems = discover(cluster, applied(cluster))

    assert problems == ()
    found = {(type(resource), resource.metadata.name): resource for resource in resources}
    applications = ["details", "productpage", "ratings", "reviews"]
    deployments = ["details-v1", "productpage-v1", "ratings-v1", *(f"reviews-{one}" for one in reviews)]
    assert set(found) == {
        (Mesh, f"istiod-istio-system-{cluster}"),
        *((Destination, f"{name}-default-{cluster}") for name in applications),
        (Destination, f"istio-ingressgateway-istio-system-{cluster}"),
        *((Workload, f"{name}-default-{cluster}-deployment") for name in deployments),
        (Workload, f"istio-ingressgateway-istio-system-{cluster}-deployment"),
    }
    mesh = found[Mesh, f"istiod-istio-system-{cluster}"].manifest()["spec"]["istio"]
    assert (mesh["trustDomain"], mesh["smartDnsProxyingEnabled"]) == (cluster, True)
    assert mesh["installation"]["version"] == version
    service = found[Destination, f"reviews-default-{cluster}"].manifest()["spec"]["kubeService"]
    assert service["subsets"] == {"version": {"values": reviews}}
    gateway = found[Destination, f"istio-ingressgateway-istio-system-{cluster}"].manifest()["spec"]["kubeService"]
    assert gateway["externalAddresses"] == [{"ip": address}]
    assert {"name": "tls", "port": 15443, "protocol": "TCP", "targetPortNumber": 15443} in gateway["ports"]


def test_both_clusters_are_installed_the_same_way():
    """The operator file of cluster2 is that of cluster1 with other names, as the walk-through says."""
    first = (WALKTHROUGH / "istio-operator-cluster1.yaml").read_text()
    second = (WALKTHROUGH / "istio-operator-cluster2.yaml").read_text()

    assert first.replace("cluster1", "cluster2").replace("network1", "network2") == second


def test_istio_runs_with_the_mesh_config_of_the_operator_files():
    """The stand-in clusters hold what installing the operator files would leave."""
    for cluster in ("cluster1", "cluster2"):
        (operator,) = load_yaml(WALKTHROUGH / f"istio-operator-{cluster}.yaml")
        (config_map,) = (
            manifest
            for manifest in load_yaml(WALKTHROUGH / f"istio-{cluster}.yaml")
            if (manifest["kind"], manifest["metadata"]["name"]) == ("ConfigMap", "istio")
        )
        running, asked = yaml.safe_load(config_map["data"]["mesh"]), operator["spec"]["meshConfig"]

        assert running["trustDomain"] == operator["spec"]["values"]["global"]["trustDomain"]
        assert asked["defaultConfig"].items() <= running["defaultConfig"].items()
        assert running["accessLogFile"] == asked["accessLogFile"]
