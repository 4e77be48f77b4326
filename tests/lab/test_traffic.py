"""Traffic across clusters, measured at the caller.

This version prepares the subsets that a TrafficPolicy shifts to; the route itself is written here by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.running import WALKTHROUGH, Json, Lab, eventually
from tests.lab.test_walkthrough import outbound, proxy_config, reviews_of

CALLS = 1000
TOLERANCE = 0.07  # five standard deviations of the most even of the shares
LOCAL, REMOTE = "reviews.default.svc.cluster.local", "reviews.default.svc.cluster2.global"
SHARES = {"cluster2/reviews-v3": 0.75, "cluster1/reviews-v1": 0.15, "cluster1/reviews-v2": 0.10}


@pytest.fixture(scope="module")
def shifted(federated: Lab) -> Iterator[Lab]:
    """`traffic-policy.yaml` is applied, and cluster1 routes calls of reviews as it says. Undone after the tests."""
    policy = str(WALKTHROUGH / "traffic-policy.yaml")
    federated.kubectl("mgmt", "apply", "-f", policy)
    written = [rule(LOCAL, ("v1", "v2")), route()]
    try:
        eventually("cluster1's proxies know v3 of cluster2", lambda: knows_subset(federated))
        for manifest in written:
            federated.apply("cluster1", manifest)
        eventually("the route is in use", lambda: routes_by_weight(federated))
        yield federated
    finally:
        federated.kubectl("mgmt", "delete", "-f", policy)
        for manifest in written:
            federated.kubectl(
                "cluster1", "delete", manifest["kind"].lower(), manifest["metadata"]["name"], "--ignore-not-found"
            )
        eventually("the subset is forgotten", lambda: not knows_subset(federated))


def rule(host: str, versions: tuple[str, ...]) -> Json:
    """The subsets of a local service."""
    subsets = [{"name": f"version-{version}", "labels": {"version": version}} for version in versions]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "reviews-by-hand", "namespace": "default"},
        "spec": {"host": host, "subsets": subsets},
    }


def route() -> Json:
    """What `traffic-policy.yaml` asks for."""
    shares = [(REMOTE, "v3", 75), (LOCAL, "v1", 15), (LOCAL, "v2", 10)]
    destinations = [
        {"destination": {"host": host, "subset": f"version-{version}"}, "weight": weight}
        for host, version, weight in shares
    ]
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": "reviews-by-hand", "namespace": "default"},
        "spec": {"hosts": [LOCAL], "http": [{"route": destinations}]},
    }


def knows_subset(lab: Lab) -> bool:
    """Whether the sidecar of cluster1's client has a cluster for v3 of cluster2's reviews, with an endpoint."""
    name = outbound("reviews", "cluster2").replace("||", "|version-v3|")
    endpoints = proxy_config(lab, "cluster1", "endpoints", "--cluster", name)
    return any(entry["name"] == name and entry.get("hostStatuses") for entry in endpoints)


def routes_by_weight(lab: Lab) -> bool:
    """Whether it has the route."""
    return "weightedClusters" in str(proxy_config(lab, "cluster1", "routes", "--name", "9080"))


def test_calls_of_one_service_are_shared_between_the_clusters(shifted: Lab) -> None:
    """75/15/10 at the caller, the 75 of them by a version that its own cluster does not have."""
    summary = shifted.tally("cluster1", "http://reviews:9080/reviews/0", "-n", str(CALLS))

    assert summary["statuses"] == {"200": CALLS}
    shares = {version: calls / CALLS for version, calls in summary["versions"].items()}
    assert shares == {version: pytest.approx(share, abs=TOLERANCE) for version, share in SHARES.items()}
    shifted.measured.append(
        f"75/15/10 in {CALLS} calls: {', '.join(f'{k} {v:.1%}' for k, v in sorted(shares.items()))}"
    )


def test_each_share_is_answered_by_pods_of_its_subset(shifted: Lab) -> None:
    answers = shifted.call("cluster1", "http://reviews:9080/reviews/0", "-n", "60")

    for cluster, versions in (("cluster1", {"v1", "v2"}), ("cluster2", {"v3"})):
        given = [answer for answer in answers if answer["cluster"] == cluster]
        assert reviews_of(shifted, cluster, given) <= versions
        assert given


def test_the_product_page_shows_red_stars_from_the_other_cluster(shifted: Lab) -> None:
    """A user of cluster1 sees reviews that only cluster2 has."""
    answers = shifted.call("cluster1", "http://productpage:9080/productpage", "-n", "20")

    assert {answer["status"] for answer in answers} == {200}
    assert {answer["cluster"] for answer in answers} == {"cluster1"}
    red = [answer for answer in answers if '<p style="color: red">★★★★★</p>' in answer["body"]]
    assert red
    assert all("on cluster cluster2" in answer["body"] for answer in red)


def test_the_other_cluster_is_not_shifted(shifted: Lab) -> None:
    """The policy names cluster1's reviews; calls on cluster2 stay there."""
    answers = shifted.call("cluster2", "http://reviews:9080/reviews/0", "-n", "30")

    assert reviews_of(shifted, "cluster2", answers) == {"v1", "v2", "v3"}
