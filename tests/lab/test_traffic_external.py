"""Requests for services of the mesh that go to a host outside of it: here the ingress gateway of cluster2.

It serves one domain, which nobody but the VirtualHost there and the external service's host name know: an answer tells
that requests arrive at its address, and under its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.lab.policies import applied, forget, is_accepted, pods, policy, service, settle
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_traffic_gateways import GATEWAY, SHOP, ask, enterprise, route, status_of, to, written
from tests.lab.test_walkthrough import OURS

OUTSIDE = "legacy.corp.example"
REVIEWS = "http://reviews:9080/reviews/0"
CALLS = 400
LEGACY: Json = {"staticDestination": {"name": "legacy", "namespace": "gloo-mesh"}}
VIA = "1.1 outside"


def destination(external: Json) -> Json:
    """The Destination of the external service of that name."""
    return {
        "apiVersion": "discovery.mesh.gloo.solo.io/v1",
        "kind": "Destination",
        "metadata": {"name": external["name"], "namespace": "gloo-mesh"},
        "spec": {"externalService": external},
    }


def legacy(lab: Lab) -> Json:
    """The host outside, at the address of cluster2's ingress gateway."""
    [found] = lab.objects("cluster2", "service", "istio-ingressgateway", "-n", "istio-system")
    address = found["status"]["loadBalancer"]["ingress"][0]["ip"]
    return destination({
        "name": "legacy",
        "hosts": [OUTSIDE],
        "ports": [{"number": 8080, "name": "http", "protocol": "HTTP"}],
        "endpoints": [{"address": address, "ports": {"http": 80}}],
    })  # fmt: skip


@pytest.fixture(scope="module")
def outside(federated: Lab) -> Iterator[Lab]:
    """The ingress gateway of cluster2 answers for one domain with reviews v3, which runs on cluster2 alone."""
    listener = {
        "ingressGatewaySelectors": [
            {
                "portName": "http2",
                "destinationSelectors": [
                    {"kubeServiceMatcher": {"clusters": ["cluster2"], "labels": {"istio": "ingressgateway"}}}
                ],
            }
        ],
        "connectionHandlers": [{"http": {"routeConfig": [{"virtualHostSelector": {"labels": {"app": "outside"}}}]}}],
    }
    action = to(service("reviews", "cluster2", subset={"version": "v3"}))
    answered = {"headerManipulation": {"appendResponseHeaders": {"via": VIA}}}
    host = enterprise(
        "VirtualHost",
        "outside",
        {"domains": [OUTSIDE], "routes": [route({"prefix": "/"}, routeAction=action, options=answered)]},
        labels={"app": "outside"},
    )
    with written(federated, enterprise("VirtualGateway", "outside", listener), host, legacy(federated)):
        eventually("the external service is known", lambda: is_accepted(federated, legacy(federated)))
        eventually("it answers by its own name", lambda: by_name(federated)["status"] == 200)
        yield federated
    forget(federated)
    eventually(
        "no mesh knows it", lambda: not federated.has("cluster1", "serviceentry", "legacy", "-n", "istio-system")
    )


def by_name(lab: Lab) -> Json:
    """What callers on cluster1 get who call the host outside themselves; no DNS server knows it."""
    return lab.call("cluster1", f"http://{OUTSIDE}:8080/reviews/0")[0]


def came_from_outside(answer: Json) -> bool:
    """Whether *answer* came through the gateway of cluster2, under the name that this one serves."""
    where = (answer["status"], answer.get("cluster"), answer.get("version"))
    return where == (200, "cluster2", "v3") and answer["headers"].get("via") == VIA


def test_the_host_is_known_by_name_on_every_mesh(outside: Lab) -> None:
    """By an address that was generated."""
    entries = [
        outside.objects(cluster, "serviceentry", "legacy", "-n", "istio-system")[0]
        for cluster in ("cluster1", "cluster2")
    ]

    [address], [other] = (entry["spec"]["addresses"] for entry in entries)
    assert address == other
    assert 240 <= int(address.split(".")[0]) < 255
    assert came_from_outside(by_name(outside))
    assert [
        mesh["name"] for mesh in status_of(outside, "destination", "legacy")["appliedFederation"]["federatedToMeshes"]
    ] == [
        "istiod-istio-system-cluster1",
        "istiod-istio-system-cluster2",
    ]


def test_half_of_the_requests_leave_the_mesh(outside: Lab) -> None:
    """Beside a service of the mesh, within five standard errors; both pods count the same as the callers."""
    kept = {"kubeService": service("reviews", "cluster1", subset={"version": "v1"}), "weight": 50}
    shares = {"trafficShift": {"destinations": [kept, {**LEGACY, "weight": 50}]}}
    callees = [pods(outside, "cluster1", "reviews")["v1"], pods(outside, "cluster2", "reviews")["v3"]]

    with applied(outside, policy("half-outside", shares)):
        for callee in callees:
            callee.requests()
        answers = outside.call("cluster1", REVIEWS, "-n", str(CALLS))
        told = [len(callee.requests()) for callee in callees]

    gone = [answer for answer in answers if answer["cluster"] == "cluster2"]
    Lab.measured.append(f"50/50 to a host outside: {len(gone)} of {CALLS} calls left the mesh")
    assert all(came_from_outside(answer) for answer in gone)
    assert {answer["body"]["id"] for answer in answers} == {"0"}
    assert {answer["version"] for answer in answers if answer not in gone} == {"v1"}
    assert told == [CALLS - len(gone), len(gone)]
    assert abs(len(gone) - CALLS / 2) <= 5 * math.sqrt(CALLS) / 2


def test_all_requests_leave_the_mesh_from_wherever_they_are_sent(outside: Lab) -> None:
    """Those of the other cluster, which knows the service by its federated name, too."""
    with applied(outside, policy("all-outside", {"trafficShift": {"destinations": [LEGACY]}})):
        here = outside.call("cluster1", REVIEWS, "-n", "20")
        there = outside.call("cluster2", "http://reviews.default.svc.cluster1.global:9080/reviews/0", "-n", "20")

    assert all(map(came_from_outside, here)), here
    assert all(map(came_from_outside, there)), there


def test_a_host_that_comes_later_heals_the_policy(outside: Lab) -> None:
    """Until it is there the policy is pending, and requests go where they went."""
    external = legacy(outside)["spec"]["externalService"]
    later = destination({**external, "name": "later", "hosts": [f"www.{OUTSIDE}"]})
    target = {"staticDestination": {"name": "later", "namespace": "gloo-mesh"}}
    waiting = policy("waiting", {
        "trafficShift": {"destinations": [target]},
        # That of its route counts, and not that of the destination, which the gateway does not serve.
        "headerManipulation": {"appendRequestHeaders": {"host": OUTSIDE}},
    })  # fmt: skip

    with written(outside, waiting):
        eventually("it is pending", lambda: "no Destination" in str(status_of(outside, "trafficpolicy", "waiting")))
        assert "state" not in status_of(outside, "trafficpolicy", "waiting")
        assert {answer["cluster"] for answer in outside.call("cluster1", REVIEWS, "-n", "10")} == {"cluster1"}
        with written(outside, later):
            settle(outside, waiting)
            eventually("requests arrive", lambda: came_from_outside(outside.call("cluster1", REVIEWS)[0]))
    forget(outside)


def test_a_gateway_sends_requests_there_too(outside: Lab) -> None:
    """By the same object, and under the name of the host outside."""
    host = enterprise(
        "VirtualHost",
        "shop",
        {"domains": [SHOP], "routes": [route({"prefix": "/reviews"}, routeAction={"destinations": [LEGACY]})]},
        labels={"app": "shop"},
    )

    with written(outside, GATEWAY, host):
        eventually("the gateway serves the shop", lambda: ask(outside, "/reviews/0")["status"] == 200)
        answer = ask(outside, "/reviews/0")
        entries = outside.objects("cluster1", "serviceentry", "-A", "-l", OURS)

    assert came_from_outside(answer)
    assert [entry["metadata"]["name"] for entry in entries if OUTSIDE in entry["spec"]["hosts"]] == ["legacy"]
