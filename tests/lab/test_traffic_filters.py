"""Fixed orders and shares of virtual destinations, csrf, and what proxies are told, as real Envoys do them."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.lab.policies import applied, pods, policy, service
from tests.lab.proxies import drained
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_traffic_gateways import ask, enterprise, written
from tests.lab.test_walkthrough import proxy_config

DETAILS = "http://details:9080/details/0"
ERRORS = 3
"""In a row, after which a destination has failed."""
CALLS = 300
GUARDED = "guarded.example.com"


def static(hostname: str, *destinations: Json) -> Json:
    """A virtual destination of details in a fixed order."""
    spec = {
        "hostname": hostname,
        "port": {"number": 9080, "protocol": "http"},
        "static": {"destinations": list(destinations)},
        "virtualMesh": {"name": "virtual-mesh", "namespace": "gloo-mesh"},
    }
    return enterprise("VirtualDestination", hostname.replace(".", "-"), spec)


def behind(cluster: str, **more: Any) -> Json:
    """Details of *cluster* as one of the destinations."""
    return {"kubeService": service("details", cluster), **more}


@pytest.fixture
def healing(federated: Lab) -> Iterator[Lab]:
    """Details of cluster2 answers as usual afterwards."""
    try:
        yield federated
    finally:
        for pod in pods(federated, "cluster2", "details").values():
            pod.heal()


def test_the_first_destination_is_asked_until_it_fails(healing: Lab) -> None:
    """Although the second is in the caller's cluster; outlier detection is that of a policy on the first."""
    lab, url = healing, "http://details.static.global:9080/details/0"
    outliers = {"outlierDetection": {"consecutiveErrors": ERRORS, "interval": "1s", "baseEjectionTime": "300s"}}
    ordered = static("details.static.global", behind("cluster2"), behind("cluster1"))

    with applied(lab, policy("details-outliers", outliers, service("details", "cluster2")), ordered):
        first = {"cluster2/details-v1": 50}
        eventually("the first answers", lambda: lab.tally("cluster1", url, "-n", "50")["versions"] == first)
        pods(lab, "cluster2", "details")["v1"].fail(status=500, requests=CALLS)
        started = time.time()
        answers = lab.call("cluster1", url, "-n", str(CALLS), "--rate", "50")

    failed = [answer for answer in answers if answer["status"] != 200]
    lab.measure("the next of a fixed order answers", max(a["at"] for a in failed) - started, 5.0)
    Lab.measured.append(f"a fixed order: {len(failed)} of {CALLS} calls failed, {ERRORS} errors make a failure")
    assert {answer["cluster"] for answer in failed} == {"cluster2"}
    assert {answer["cluster"] for answer in answers[len(failed) :]} == {"cluster1"}
    assert len(failed) < 3 * ERRORS


def test_calls_are_shared_by_weight(federated: Lab) -> None:
    """70 and 30 of 100, within four standard errors, although one of them is near and the other is not."""
    url = "http://details.shared.global:9080/details/0"
    shared = static("details.shared.global", behind("cluster2", weight=70), behind("cluster1", weight=30))

    with applied(federated, shared):
        eventually("it is answered", lambda: federated.call("cluster1", url)[0]["status"] == 200)
        summary = federated.tally("cluster1", url, "-n", str(CALLS))

    assert summary["statuses"] == {"200": CALLS}
    far = summary["versions"]["cluster2/details-v1"]
    Lab.measured.append(f"weights 70/30 in {CALLS} calls: {far}/{CALLS - far}")
    assert abs(far - CALLS * 0.7) < 4 * math.sqrt(CALLS * 0.7 * 0.3)


def test_what_another_site_made_a_browser_send_is_refused(federated: Lab) -> None:
    """Only what changes something, only from elsewhere, and not where a more specific policy lets it pass."""
    csrf = {"csrf": {"filterEnabled": True, "additionalOrigins": [{"exact": "shop.example.com"}]}}
    anything = policy("details-csrf", csrf, service("details", "cluster1"))
    free = policy(
        "details-csrf-free",
        {"csrf": {}},
        service("details", "cluster1"),
        httpRequestMatchers=[{"uri": {"prefix": "/details/1"}}],
    )
    evil, allowed = ("--header", "Origin:http://evil.example.com"), ("--header", "Origin:http://shop.example.com")
    post = partial(federated.call, "cluster1", DETAILS, "--method", "POST", "--data", "{}")

    with applied(federated, anything, free):
        eventually("it is refused", lambda: post(*evil)[0]["status"] == 403)
        others = {
            "allowed": post(*allowed),
            "own": post("--header", "Origin:http://details:9080"),
            "reading": federated.call("cluster1", DETAILS, *evil),
            "free": federated.call("cluster1", DETAILS.replace("/0", "/1"), "--method", "POST", "--data", "{}", *evil),
        }
        refused = post(*evil)

    assert [answer["body"] for answer in refused] == ["Invalid origin"]
    assert {name: answer["status"] for name, (answer,) in others.items()} == dict.fromkeys(others, 200)


def test_a_proxy_knows_what_its_workload_depends_on(federated: Lab) -> None:
    """Here and on the other cluster, and what the routes of that go to; calls of anything else pass it unread."""
    depends = enterprise(
        "ServiceDependency",
        "client",
        {
            "sourceSelectors": [{"kubeWorkloadMatcher": {"labels": {"app": "client"}, "clusters": ["cluster1"]}}],
            "destinationSelectors": [{"kubeServiceMatcher": {"labels": {"app": "details"}}}],
        },
    )
    away = {"trafficShift": {"destinations": [{"kubeService": service("ratings", "cluster2")}]}}
    shifted = policy("details-away", away, service("details", "cluster1"))
    named = {"details.default.svc.cluster.local", "details.default.svc.cluster2.global"}
    before = outbound(federated)

    with applied(federated, depends):
        eventually("it knows details alone", lambda: outbound(federated) == named)
        answers = [federated.call("cluster1", f"http://{name}:9080/details/0")[0] for name in sorted(named)]
        [unread] = federated.call("cluster1", "http://reviews:9080/reviews/0")
        with applied(federated, shifted):
            eventually(
                "it also knows where its calls go",
                lambda: outbound(federated) == named | {"ratings.default.svc.cluster2.global"},
            )

    Lab.measured.append(f"a client that depends on one service knows {len(named)} of {len(before)} hosts")
    assert [(answer["status"], answer["cluster"]) for answer in answers] == [(200, "cluster1"), (200, "cluster2")]
    assert unread["status"] == 200
    eventually("it knows everything again", lambda: outbound(federated) >= before)


def test_a_gateway_asks_servers_and_refuses_what_other_sites_send(federated: Lab) -> None:
    """Details stands for an auth server that knows products alone, ratings for a rate limit server that fails.

    Servers that limit rates are asked over gRPC, so that ratings needs a Service which says that it speaks that.
    """
    port = {"name": "grpc", "port": 9080, "targetPort": 9080}
    limiter = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "limiter", "namespace": "default"},
        "spec": {"selector": {"app": "ratings"}, "ports": [port]},
    }
    reviews = {
        "routeAction": {"pathRewrite": "/reviews/", "destinations": [{"kubeService": service("reviews", "cluster1")}]}
    }
    counted = {"rateLimits": [{"actions": [{"genericKey": {"descriptorValue": "all"}}]}]}
    limits = enterprise("RateLimitClientConfig", "all", {"rateLimits": {"raw": counted}})
    limited = {"ratelimitClientConfigRef": {"name": "all", "namespace": "gloo-mesh"}}
    guarded = enterprise(
        "VirtualGateway",
        "guarded",
        {
            "ingressGatewaySelectors": [
                {
                    "portName": "http2",
                    "destinationSelectors": [
                        {"kubeServiceMatcher": {"clusters": ["cluster1"], "labels": {"istio": "ingressgateway"}}}
                    ],
                }
            ],
            "connectionHandlers": [
                {
                    "http": {
                        "routeConfig": [
                            {
                                "virtualHost": {
                                    "domains": [GUARDED],
                                    "routes": [
                                        {
                                            "matchers": [{"uri": {"prefix": "/open/"}}],
                                            "options": {"extauth": {"disable": True}},
                                            **reviews,
                                        },
                                        {
                                            "matchers": [{"uri": {"prefix": "/limited/"}}],
                                            "options": {"extauth": {"disable": True}, "rateLimit": limited},
                                            **reviews,
                                        },
                                        {"matchers": [{"uri": {"prefix": "/"}}], **reviews},
                                    ],
                                }
                            }
                        ],
                        "routeOptions": {
                            "csrf": {"filterEnabled": True},
                            "extauth": {
                                "extauthzRef": {"name": "details", "namespace": "default"},
                                "httpService": {"pathPrefix": "/details"},
                            },
                            "rateLimit": {
                                "ratelimitServerRef": {"name": "limiter", "namespace": "default"},
                                "denyOnFail": True,
                            },
                        },
                    }
                }
            ],
        },
    )
    get = partial(ask, federated, host=GUARDED)
    post = partial(get, "/open/0", "--method", "POST", "--data", "{}", "--header")

    with on_cluster(federated, "cluster1", limiter), written(federated, limits, guarded):
        eventually("the gateway serves the host", lambda: get("/open/0")["status"] == 200)
        eventually("the auth server is asked", lambda: get("/nothing").get("service") == "details")
        drained(federated, "cluster1", ["istio=ingressgateway"], namespace="istio-system")
        found = {
            "allowed": get("/0"),
            "refused": get("/nothing"),
            "not asked": get("/open/0"),
            "limited": get("/limited/0"),
            "other site": post("Origin:http://evil.example.com"),
            "own site": post(f"Origin:http://{GUARDED}"),
        }
    eventually("the host is gone from the gateway", lambda: get("/open/0")["status"] == 404)

    assert {what: (answer["status"], answer.get("service")) for what, answer in found.items()} == {
        "allowed": (200, "reviews"),
        "refused": (400, "details"),
        "not asked": (200, "reviews"),
        "limited": (500, None),
        "other site": (403, None),
        "own site": (200, "reviews"),
    }


@contextlib.contextmanager
def on_cluster(lab: Lab, cluster: str, manifest: Json) -> Iterator[None]:
    """A Service is on *cluster*, and discovered."""
    name = manifest["metadata"]["name"]
    lab.apply(cluster, manifest)
    try:
        found = partial(lab.has, "mgmt", "destination", f"{name}-default-{cluster}", "-n", "gloo-mesh")
        eventually(f"{name} is discovered", found)
        yield
    finally:
        lab.kubectl(cluster, "delete", "service", name)


def outbound(lab: Lab) -> set[str]:
    """The hosts that the client's proxy on cluster1 knows."""
    names = (each["name"].split("|") for each in proxy_config(lab, "cluster1", "clusters"))
    return {name[3] for name in names if name[0] == "outbound"}
