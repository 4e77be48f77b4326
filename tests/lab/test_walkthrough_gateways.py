"""The walk-through with cluster2's east-west gateway in a namespace of its own, which is not Istio's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.policies import applied, policy, shift
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import REVIEWS, reviews_of

NAMESPACE, NAME = "edge", "edge-gateway"
LABELS = {"app": NAME, "istio": "edge"}
ACCOUNT = "istio-ingressgateway-service-account"
ENTRY = ("serviceentry", "reviews.default.svc.cluster2.global")


@pytest.fixture(scope="module")
def edge(federated: Lab) -> Iterator[Lab]:
    """A copy of cluster2's ingress gateway in another namespace is its east-west gateway. Undone after the tests."""
    before = entered_at(federated)
    listed = {"apiVersion": "v1", "kind": "List", "items": copied(federated)}
    federated.kubectl("cluster2", "apply", "-f", "-", stdin=json.dumps(listed))
    federated.kubectl("cluster2", "rollout", "status", "deployment", NAME, "-n", NAMESPACE, "--timeout=120s")
    choose(federated, [chosen("cluster1", "istio-system", "istio-ingressgateway"), chosen("cluster2", NAMESPACE, NAME)])
    try:
        address = eventually("the new gateway has an address", lambda: address_of_gateway(federated))
        eventually("cluster2 is entered there", lambda: entered_at(federated) == {address})
        yield federated
    finally:
        choose(federated, None)
        eventually("cluster2 is entered where it was", lambda: entered_at(federated) == before)
        federated.kubectl("cluster2", "delete", "namespace", NAMESPACE)


def copied(lab: Lab) -> list[Json]:
    """The namespace, and what of the ingress gateway is copied to it."""
    [service] = lab.objects("cluster2", "service", "istio-ingressgateway", "-n", "istio-system")
    [deployment] = lab.objects("cluster2", "deployment", "istio-ingressgateway", "-n", "istio-system")
    meta = {"name": NAME, "namespace": NAMESPACE, "labels": LABELS}
    ports = [{key: port[key] for key in ("name", "port", "targetPort")} for port in service["spec"]["ports"]]
    template = deployment["spec"]["template"]
    network = {key: value for key, value in template["metadata"]["labels"].items() if key.startswith("topology.")}
    template["metadata"]["labels"] = {**LABELS, **network, "sidecar.istio.io/inject": "false"}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta,
            "spec": {"type": "LoadBalancer", "selector": LABELS, "ports": ports},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": meta,
            "spec": {"selector": {"matchLabels": LABELS}, "template": template},
        },
    ]


def chosen(cluster: str, namespace: str, name: str) -> Json:
    services = [{"clusterName": cluster, "namespace": namespace, "name": name}]
    return {"destinationSelectors": [{"kubeServiceRefs": {"services": services}}]}


def choose(lab: Lab, selectors: list[Json] | None) -> None:
    patch = json.dumps({"spec": {"federation": {"ingressGatewaySelectors": selectors}}})
    lab.kubectl("mgmt", "patch", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh", "--type=merge", "-p", patch)


def entered_at(lab: Lab) -> set[str]:
    """The addresses at which cluster1 enters cluster2."""
    [entry] = lab.objects("cluster1", *ENTRY, "-n", "istio-system")
    return {endpoint["address"] for endpoint in entry["spec"]["endpoints"]}


def address_of_gateway(lab: Lab) -> str:
    [service] = lab.objects("cluster2", "service", NAME, "-n", NAMESPACE)
    ingress = service["status"].get("loadBalancer", {}).get("ingress", [])
    return str(ingress[0]["ip"]) if ingress else ""


def test_calls_come_in_through_a_gateway_in_another_namespace(edge: Lab) -> None:
    """The entry that lets them in is told to the gateway's namespace, and to no other."""
    answers = eventually("it lets calls in", lambda: answered(edge))
    [entry] = edge.objects("cluster2", *ENTRY, "-n", "default")

    assert entry["spec"]["exportTo"] == [NAMESPACE]
    assert reviews_of(edge, "cluster2", answers) <= {"v1", "v2", "v3"}


def test_that_gateway_tells_subsets_apart(edge: Lab) -> None:
    """It finds the DestinationRule beside the service."""
    eventually("it lets calls in", lambda: answered(edge))
    with applied(edge, policy("only-v3", shift(("cluster2", "v3", 100)))):
        eventually("v3 answers", lambda: edge.call("cluster1", "http://reviews:9080/reviews/0")[0]["status"] == 200)

        answers = edge.call("cluster1", "http://reviews:9080/reviews/0", "-n", "30")

        assert reviews_of(edge, "cluster2", answers) == {"v3"}


def answered(lab: Lab) -> list[Json]:
    """The answers, if there is one to each of twenty calls."""
    answers = lab.call("cluster1", REVIEWS, "-n", "20")
    return answers if all(answer["status"] == 200 for answer in answers) else []
