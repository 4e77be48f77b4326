"""What Istio makes of our output, for every golden case of traffic policies and virtual destinations.

The objects that a case yields for cluster1 are applied there, in a namespace of their own, to which the whole case is
moved; the Services that it has there stand beside them. What the Envoy of a client in that namespace then has is put
into few words, and those are in `envoy.yaml` beside the case: read them like code. `pytest --update` rewrites them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.translate import Engine
from tests.golden import CASES, Golden, load_yaml
from tests.lab.running import ROOT, Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS
from tests.unit.translate.test_cases import load

NAMESPACE = "golden"
MOVED = {"default", "istio-system"}
"""Namespaces of the cases that become `NAMESPACE`."""
REGIONS = {"client": "us-east-1", "client-eu": "eu"}
"""Clients by name, and the region where each takes itself to be; its zone is a."""
LEFT_OUT = {"Gateway"}
"""Kinds that are validated and not applied: they would be about the lab's own gateways."""
FOUND = sorted(
    path.parent for folder in ("traffic", "virtual-destinations") for path in (CASES / folder).glob("*/in.yaml")
)
TOLERATED = {
    "IST0173": "it looks for pods of a subset on the cluster itself, where those of the cases are addresses alone",
    "IST0128": "a case has a user who wants TLS of mode SIMPLE, for which Istio would have CA certificates named",
}
"""What `istioctl analyze` may say about DestinationRules, and why."""
DEFAULT_RETRIES = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
STEPS = count(1)


@dataclass
class Case:
    """A golden case in `NAMESPACE`."""

    path: Path
    documents: list[Json]
    engine: Engine

    def manifests(self, cluster: str) -> list[Json]:
        return [output.manifest() for key, output in self.engine.outputs().items() if key.cluster == cluster]

    @property
    def services(self) -> list[Json]:
        found = [each for each in self.documents if "kubeService" in each["spec"]]
        return [each for each in found if each["spec"]["kubeService"]["ref"]["clusterName"] == "cluster1"]

    @property
    def client(self) -> str:
        """The client in the region of the case's services on cluster1."""
        regions = {each["spec"]["kubeService"].get("region") for each in self.services}
        return next((client for client, region in REGIONS.items() if region in regions), "client")


def moved(value: Any, key: str = "") -> Any:
    """*value* with `NAMESPACE` in place of those that are `MOVED`."""
    if isinstance(value, dict):
        return {name: moved(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [moved(each, key) for each in value]
    if key in ("namespace", "namespaces") and value in MOVED:
        return NAMESPACE
    return value.replace(".default.svc.", f".{NAMESPACE}.svc.") if isinstance(value, str) else value


@pytest.fixture(params=FOUND, ids=lambda path: path.name, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    documents = [moved(document) for document in load_yaml(request.param / "in.yaml")]
    path = tmp_path_factory.mktemp("case") / "in.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return Case(request.param, documents, load(path))


# --- istiod accepts it ------------------------------------------------------------------------------------------------


def test_istio_validates_the_output(lab: Lab, case: Case, tmp_path: Path) -> None:
    """No error and no warning, whatever policies the case has."""
    manifests = [manifest for cluster in CLUSTERS for manifest in case.manifests(cluster)]
    (tmp_path / "out.yaml").write_text(yaml.safe_dump_all(manifests))

    done = lab.attempt("istioctl", "validate", "-f", str(tmp_path / "out.yaml"))

    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "warning" not in said.lower(), said
    assert manifests


# --- what a proxy gets ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clients(federated: Lab) -> Iterator[Lab]:
    """The namespace, and clients in it whose sidecars are asked."""
    deployment = (ROOT / "src" / "isthmus" / "lab" / "client.yaml").read_text()
    manifests: list[Json] = [
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": NAMESPACE, "labels": {"istio-injection": "enabled"}},
        }
    ]
    for name, region in REGIONS.items():
        account, pods = yaml.safe_load_all(deployment.replace("name: client", f"name: {name}"))
        account["metadata"]["namespace"] = pods["metadata"]["namespace"] = NAMESPACE
        pods["spec"]["selector"]["matchLabels"]["region"] = region
        # Source: https://istio.io/latest/docs/reference/config/labels/#IstioLocality
        pods["spec"]["template"]["metadata"]["labels"] |= {"region": region, "istio-locality": f"{region}.a"}
        pods["spec"]["template"]["spec"]["containers"][0]["name"] = "client"
        manifests += [account, pods]
    try:
        apply(federated, manifests)
        for name in REGIONS:
            federated.kubectl("cluster1", "rollout", "status", "-n", NAMESPACE, f"deployment/{name}", "--timeout=180s")
        yield federated
    finally:
        federated.kubectl("cluster1", "delete", "namespace", NAMESPACE)


@pytest.fixture(scope="module")
def configured(clients: Lab, case: Case) -> Iterator[Lab]:
    """The case's objects are on cluster1, and its client's proxy has what came of them. Gone after the test."""
    written = [each for each in case.manifests("cluster1") if each["kind"] not in LEFT_OUT]
    manifests = [*written, *(each for destination in case.services for each in kubernetes(destination))]
    try:
        apply(clients, manifests)
        mark(clients, case.client)
        yield clients
    finally:
        clients.kubectl("cluster1", "delete", "-f", "-", stdin=listed(manifests))


def apply(lab: Lab, manifests: list[Json]) -> None:
    lab.kubectl("cluster1", "apply", "-f", "-", stdin=listed(manifests))


def listed(manifests: list[Json]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests})


def kubernetes(destination: Json) -> Iterator[Json]:
    """The Service of *destination*, and its endpoints."""
    spec = destination["spec"]["kubeService"]
    name = spec["ref"]["name"]
    ports = [{"name": port["name"], "port": port["port"], "protocol": port["protocol"]} for port in spec["ports"]]
    for port, given in zip(ports, spec["ports"], strict=True):
        if "appProtocol" in given:
            port["appProtocol"] = given["appProtocol"]
    metadata = {"name": name, "namespace": NAMESPACE}
    yield {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}
    for i, subset in enumerate(spec.get("endpointSubsets", ())):
        yield {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata | {"name": f"{name}-{i}", "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "ports": [{"name": p["name"], "port": p["port"], "protocol": p["protocol"]} for p in subset["ports"]],
            "endpoints": [
                {"addresses": [each["ipAddress"]], "conditions": {"ready": True}} for each in subset["endpoints"]
            ],
        }


def mark(lab: Lab, client: str) -> None:
    """Wait until *client* has a ServiceEntry that is written now, and so what was written before."""
    host = f"step-{next(STEPS)}.{NAMESPACE}.test"
    marker = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": "step", "namespace": NAMESPACE},
        "spec": {
            "hosts": [host],
            "ports": [{"number": 9080, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "192.0.2.1"}],
        },
    }
    apply(lab, [marker])
    eventually(f"{client} has {host}", partial(_is_known, lab, client, host))


def _is_known(lab: Lab, client: str, host: str) -> bool:
    """Also its endpoints: what Envoy has not been told the endpoints of is not there yet."""
    endpoints = (each for each in asked(lab, client, "endpoints") if each["name"] == f"outbound|9080||{host}")
    return any(each.get("hostStatuses") for each in endpoints) and f"{host}:9080" in virtual_hosts(lab, client)


def asked(lab: Lab, client: str, what: str) -> list[Json]:
    """What the sidecar of *client* has."""
    found: list[Json] = json.loads(
        lab.run(
            "istioctl", "--context", "cluster1", "-n", NAMESPACE, "proxy-config", what, f"deploy/{client}", "-o", "json"
        )
    )
    return found


def virtual_hosts(lab: Lab, client: str) -> dict[str, Json]:
    return {
        host["name"]: host
        for configuration in asked(lab, client, "routes")
        if "|" not in configuration.get("name", "|")  # inbound, and static
        for host in configuration.get("virtualHosts", ())
    }


@dataclass
class Seen:
    """What a proxy has for the host names of a case."""

    known: set[str] = field(default_factory=set)
    """Names of all clusters, whatever their hosts."""
    routes: dict[str, list[Json]] = field(default_factory=dict)
    clusters: dict[str, Json] = field(default_factory=dict)
    endpoints: dict[str, list[str]] = field(default_factory=dict)


def seen(lab: Lab, case: Case) -> Seen:
    """What the proxy of the case's client has, without ports of other services: istiod repeats the routes there."""
    hosts = {
        host
        for each in case.manifests("cluster1")
        if each["kind"] not in LEFT_OUT
        for host in (*each["spec"].get("hosts", ()), each["spec"].get("host", ""))
    }
    found = Seen()
    for cluster in sorted(asked(lab, case.client, "clusters"), key=lambda cluster: cluster["name"]):
        found.known.add(cluster["name"])
        if cluster["name"].startswith("outbound|") and cluster["name"].rpartition("|")[2] in hosts:
            found.clusters[cluster["name"]] = connection(cluster)
    for name, virtual_host in sorted(virtual_hosts(lab, case.client).items()):
        host, _, port = name.partition(":")
        if f"outbound|{port}||{host}" in found.clusters:
            found.routes[name] = [in_short(route) for route in virtual_host["routes"]]
    for each in sorted(asked(lab, case.client, "endpoints"), key=lambda each: each["name"]):
        if each["name"] in found.clusters:
            found.endpoints[each["name"]] = sorted(map(endpoint, each.get("hostStatuses", ())))
    return found


def in_short(route: Json) -> Json:
    """A route of Envoy: which requests, where they go, and what else is said of them."""
    action = route.get("route", {})
    weighted = action.get("weightedClusters", {}).get("clusters", ())
    retries = action.get("retryPolicy", {})
    faults = route.get("typedPerFilterConfig", {})
    mirrors = action.get("requestMirrorPolicies", ())
    said = {
        "match": {key: in_one_order(value) for key, value in route["match"].items()},
        "to": {each["name"]: each["weight"] for each in weighted} or action.get("cluster"),
        "host": {each["name"]: each["hostRewriteLiteral"] for each in weighted if "hostRewriteLiteral" in each}
        or action.get("hostRewriteLiteral"),
        "timeout": action.get("timeout") if action.get("timeout") != "0s" else None,
        "retries": {key: retries[key] for key in ("numRetries", "perTryTimeout", "retryOn") if key in retries}
        if retries.get("retryOn") != DEFAULT_RETRIES
        else None,
        "mirrors": {each["cluster"]: each["runtimeFraction"]["defaultValue"]["numerator"] for each in mirrors},
        "headers": {
            key: route[key]
            for key in (
                "requestHeadersToAdd",
                "requestHeadersToRemove",
                "responseHeadersToAdd",
                "responseHeadersToRemove",
            )
            if key in route
        },
        "filters": {
            name: {key: value for key, value in config.items() if key != "@type"} for name, config in faults.items()
        },
    }
    return {key: value for key, value in said.items() if value}


def in_one_order(value: Any) -> Any:
    """Headers and query parameters by name: istiod has them in any order."""
    return sorted(value, key=lambda each: str(each["name"])) if isinstance(value, list) else value


def connection(cluster: Json) -> Json:
    """How an Envoy cluster connects: kind of endpoints, TLS, who is left out, whether localities count."""
    sockets = [each["transportSocket"] for each in cluster.get("transportSocketMatches", ())]
    sockets += [cluster["transportSocket"]] if "transportSocket" in cluster else []
    names = sorted({socket["typedConfig"]["sni"] for socket in sockets if "sni" in socket["typedConfig"]})
    said = {
        "type": cluster.get("type", "custom"),
        "sni": names,
        "outliers": cluster.get("outlierDetection"),
    }
    return {key: value for key, value in said.items() if value}


def endpoint(host: Json) -> str:
    """Priority, locality, address and weight of an endpoint."""
    address, place = host["address"]["socketAddress"], host.get("locality", {})
    locality = "/".join(filter(None, (place.get(key) for key in ("region", "zone", "subZone")))) or "anywhere"
    where = f"{address['address']}:{address['portValue']}"
    return f"priority {host.get('priority', 0)}: {where} in {locality}, weight {host.get('weight', 1)}"


def targets(routes: Iterable[Json]) -> set[str]:
    """Names of the Envoy clusters that *routes* send requests to."""
    found: set[str] = set()
    for route in routes:
        to = route.get("to", ())
        found |= {to} if isinstance(to, str) else set(to)
        found |= set(route.get("mirrors", ()))
    return found


def test_envoy_does_what_the_case_says(configured: Lab, case: Case, golden: Golden) -> None:
    """Routes, clusters and endpoints with their priorities.

    No route leads to a cluster that is not there, but for subsets of which a status says that they have no pod: of
    services behind gateways istiod makes no cluster then, and Envoy answers 503 as it does without endpoints.
    """
    found = seen(configured, case)
    missing = sorted(targets(route for routes in found.routes.values() for route in routes) - found.known)

    summary = {"routes": found.routes, "clusters": found.clusters, "endpoints": found.endpoints}
    if missing:
        assert any("no ready pod" in str(case.engine.status(key)) for key in case.engine.status_keys()), missing
        summary["missing"] = missing
    golden.check(case.path / "envoy.yaml", yaml.safe_dump(summary, sort_keys=False, width=120))


def test_istio_finds_nothing_to_say(configured: Lab, case: Case) -> None:
    suppressed = [f"--suppress={code}=DestinationRule {NAMESPACE}/*" for code in TOLERATED]

    done = configured.attempt("istioctl", "analyze", "--context", "cluster1", "-n", NAMESPACE, *suppressed)

    assert "[IST" not in done.stdout + done.stderr, done.stdout
