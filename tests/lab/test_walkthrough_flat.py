"""The walk-through on one flat network: pods of one cluster call pods of the other, and no gateway is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.running import Lab, eventually
from tests.lab.test_walkthrough import REVIEWS, outbound, proxy_config, reviews_of


@pytest.fixture(scope="module")
def flat(federated: Lab) -> Iterator[Lab]:
    """Both clusters on one network, and a virtual mesh that knows it. Apart again after the tests."""
    with_gateways = addresses_of_entry(federated)
    federated.run("meshctl", "lab", "flat", "on")
    set_flat(federated, True)
    try:
        eventually("the pods are the endpoints", lambda: len(addresses_of_entry(federated)) == 3)
        yield federated
    finally:
        set_flat(federated, False)
        federated.run("meshctl", "lab", "flat", "off")
        eventually("the gateway is the endpoint again", lambda: addresses_of_entry(federated) == with_gateways)
        eventually("its proxy knows it", lambda: addresses_in_envoy(federated) == with_gateways)


def set_flat(lab: Lab, value: bool) -> None:
    patch = json.dumps({"spec": {"federation": {"flatNetwork": value}}})
    lab.kubectl("mgmt", "patch", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh", "--type=merge", "-p", patch)


def addresses_of_entry(lab: Lab) -> set[str]:
    """The endpoints that cluster1 has for reviews of cluster2."""
    [entry] = lab.objects("cluster1", "serviceentry", "-n", "istio-system", "reviews.default.svc.cluster2.global")
    return {endpoint["address"] for endpoint in entry["spec"]["endpoints"]}


def addresses_in_envoy(lab: Lab) -> set[str]:
    """Those that the sidecar of cluster1's client has for it."""
    name = outbound("reviews", "cluster2")
    return {
        host["address"]["socketAddress"]["address"]
        for entry in proxy_config(lab, "cluster1", "endpoints", "--cluster", name)
        if entry["name"] == name
        for host in entry.get("hostStatuses", ())
    }


def test_pods_are_asked_without_a_gateway(flat: Lab) -> None:
    """Each of the three pods answers on its own address, with mutual TLS between the two sidecars."""
    pods = {
        item["status"]["podIP"]: item["metadata"]["name"]
        for item in flat.objects("cluster2", "pods", "-l", "app=reviews")
        if "deletionTimestamp" not in item["metadata"]
    }
    eventually("Envoy has the pods", lambda: addresses_in_envoy(flat) == set(pods))

    answers = flat.call("cluster1", REVIEWS, "-n", "30")

    assert reviews_of(flat, "cluster2", answers) == {"v1", "v2", "v3"}
    assert {answer["pod"] for answer in answers} == set(pods.values())
    told = {answer["body"]["served"]["request"]["x-forwarded-client-cert"] for answer in answers}
    assert {part for one in told for part in one.split(";") if part.startswith("URI=")} == {
        "URI=spiffe://cluster1/ns/default/sa/client"
    }
