"""The lab that these tests run on, and how far the walk-through has been gone on it.

``ISTHMUS_LAB_DIRECTORY`` names a lab that runs already (`meshctl lab up --directory …`); without it one is started, and
ended after the tests. Every fixture is a step of the walk-through, taken with its commands unless it was taken before.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.lab.running import Lab, commands, eventually

DIRECTORY = "ISTHMUS_LAB_DIRECTORY"
MESHCTL = Path(sys.executable).with_name("meshctl")
UP_SECONDS = 600.0
TEST_SECONDS = 1200.0  # the first of a run also waits for the lab and the steps of the walk-through
HERE = Path(__file__).parent
OPEN = {
    "apiVersion": "networking.mesh.gloo.solo.io/v1",
    "kind": "AccessPolicy",
    "metadata": {"name": "everybody", "namespace": "gloo-mesh"},
    "spec": {},
}
"""Lets everybody call everything: the walk-through's virtual mesh refuses what no policy allows."""
VAULT = HERE / "test_vault.py"
FIRST, LAST = HERE / "test_trust.py", HERE / "test_trust_end.py"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Only who asks for these tests gets them: they need root, and programs that Go built."""
    given = {_path(argument) for argument in config.args}
    if collection_path == VAULT and VAULT not in given and "vault" not in config.option.keyword:
        return True  # what it needs is built on demand
    asked = any(path == HERE or HERE in path.parents for path in given)
    return None if asked else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the story of trust first, since the others begin where it ends, and its end last."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))
    items.sort(key=lambda item: {FIRST: -1, LAST: 1}.get(item.path, 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    if Lab.measured:
        terminalreporter.section("measured on the lab")
        for line in Lab.measured:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three clusters, Istio on two of them, bookinfo and a client to call from."""
    given = os.environ.get(DIRECTORY)
    running = Lab(Path(given).absolute() if given else tmp_path_factory.mktemp("lab"))
    if given:
        yield running
        return
    try:
        subprocess.run([MESHCTL, "lab", "up", "--directory", running.directory], check=True, timeout=UP_SECONDS)
        yield running
    finally:
        subprocess.run([MESHCTL, "lab", "down", "--directory", running.directory], check=True, timeout=60)


@pytest.fixture(scope="session")
def managed(lab: Lab) -> Lab:
    """The management plane runs, and both Istio clusters are registered with it."""
    if not lab.has("mgmt", "deployment", "enterprise-networking", "-n", "gloo-mesh"):
        for block in commands("The management plane"):
            lab.shell(block)
    if not lab.has("mgmt", "kubernetesclusters", "cluster2", "-n", "gloo-mesh"):
        for block in commands("Register both clusters"):
            lab.shell(block)
    lab.apply("mgmt", OPEN)
    return lab


@pytest.fixture(scope="session")
def bookinfo(managed: Lab) -> Lab:
    """Bookinfo runs on both clusters, reviews v3 on cluster2 only."""
    for block in commands("Bookinfo"):
        managed.shell(block)
    for cluster in ("cluster1", "cluster2"):
        managed.kubectl(cluster, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s")
    return managed


@pytest.fixture(scope="session")
def federated(bookinfo: Lab) -> Lab:
    """The virtual mesh joins both clusters, and each has the other's services."""
    if not bookinfo.has("mgmt", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh"):
        for block in commands("Federate"):
            bookinfo.shell(block)
    pairs = (("cluster1", "cluster2"), ("cluster2", "cluster1"))
    for cluster, _ in pairs:
        eventually(
            f"no pod of {cluster} is to restart for its trust", partial(_is_settled, bookinfo, cluster), within=300
        )
    for cluster, other in pairs:
        url = f"http://details.default.svc.{other}.global:9080/details/0"
        eventually(f"{cluster} reaches details of {other}", partial(_answers, bookinfo, cluster, url))
    return bookinfo


@pytest.fixture
def connecting_anew(federated: Lab) -> Iterator[Lab]:
    """The sidecar of cluster1's client opens a connection for each request, as many callers together would.

    A gateway that passes TLS on chooses the pod of a connection, not of a request, and one caller alone keeps its own.
    """
    protocol = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {
        "@type": f"type.googleapis.com/{protocol}",
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    patch = {"operation": "MERGE", "value": {"typed_extension_protocol_options": {protocol: options}}}
    manifest = {
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": {"name": "client-connects-anew", "namespace": "default"},
        "spec": {
            "workloadSelector": {"labels": {"app": "client"}},
            "configPatches": [{"applyTo": "CLUSTER", "match": {"context": "SIDECAR_OUTBOUND"}, "patch": patch}],
        },
    }
    federated.apply("cluster1", manifest)
    try:
        eventually("its clusters say so", lambda: _requests_per_connection(federated) == 1)
        yield federated
    finally:
        federated.kubectl("cluster1", "delete", "envoyfilter", "client-connects-anew")
        eventually("its clusters no longer say so", lambda: _requests_per_connection(federated) is None)


def _requests_per_connection(lab: Lab) -> int | None:
    """The limit that the sidecar of cluster1's client has for reviews of cluster2."""
    fqdn = "reviews.default.svc.cluster2.global"
    printed = lab.run(
        "istioctl", "--context", "cluster1", "proxy-config", "clusters", "deploy/client", "--fqdn", fqdn, "-o", "json"
    )
    [cluster] = json.loads(printed)
    for options in cluster.get("typedExtensionProtocolOptions", {}).values():
        if found := options.get("commonHttpProtocolOptions", {}).get("maxRequestsPerConnection"):
            return int(found)
    return None


def _answers(lab: Lab, cluster: str, url: str) -> bool:
    return bool(lab.call(cluster, url)[0]["status"] == 200)


def _is_settled(lab: Lab, cluster: str) -> bool:
    issued = lab.objects(cluster, "issuedcertificates", "-n", "gloo-mesh")
    return bool(issued) and all((each.get("status") or {}).get("state") == "FINISHED" for each in issued)


def _path(argument: str) -> Path:
    return Path(argument.partition("::")[0]).absolute()
