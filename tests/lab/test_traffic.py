"""Traffic shifted across clusters as in the walk-through: what callers get, and what callees got."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.lab.policies import forget, pods, settle
from tests.lab.running import Json, Lab, commands
from tests.lab.test_walkthrough import reviews_of

REVIEWS = "http://reviews:9080/reviews/0"
CALLS = 2000
CHANCE = 1e-5  # of a failure although all is right: Envoy decides about each request by chance
SHARES = {"cluster2/reviews-v3": 0.75, "cluster1/reviews-v1": 0.15, "cluster1/reviews-v2": 0.10}


@pytest.fixture(scope="module")
def shifted(federated: Lab) -> Iterator[Lab]:
    """`traffic-policy.yaml` is applied, as it is. Undone after the tests."""
    apply, *_, undo = commands("Shift traffic across clusters")
    federated.shell(apply)
    try:
        settle(federated, simple(federated))
        yield federated
    finally:
        federated.shell(undo)
        forget(federated)


def simple(lab: Lab) -> Json:
    [found] = lab.objects("mgmt", "trafficpolicy", "-n", "gloo-mesh", "simple")
    return found


def test_calls_of_one_service_are_shared_between_the_clusters(shifted: Lab) -> None:
    """75/15/10, the 75 of them by a version that the caller's cluster does not have; caller and callees agree."""
    callees = [*pods(shifted, "cluster1", "reviews").values(), *pods(shifted, "cluster2", "reviews").values()]
    for callee in callees:
        callee.requests()

    summary = shifted.tally("cluster1", REVIEWS, "-n", str(CALLS))

    assert summary["statuses"] == {"200": CALLS}
    told = Counter({f"{pod.cluster}/reviews-{pod.version}": len(pod.requests()) for pod in callees})
    assert +told == Counter(summary["versions"])
    assert set(summary["versions"]) == set(SHARES)
    errors = {
        version: (told[version] - CALLS * share) / math.sqrt(CALLS * share * (1 - share))
        for version, share in SHARES.items()
    }
    off = ", ".join(f"{v} {told[v] / CALLS:.2%} ({errors[v]:+.1f} standard errors)" for v in SHARES)
    shifted.measured.append(f"75/15/10 in {CALLS} calls: {off}")
    # Pearson's test: of three shares, two are free, and the chance of a greater distance d is exp(-d/2).
    distance = sum((told[version] - CALLS * share) ** 2 / (CALLS * share) for version, share in SHARES.items())
    assert math.exp(-distance / 2) > CHANCE, off


def test_the_policy_is_accepted_for_what_it_selects(shifted: Lab) -> None:
    status = simple(shifted)["status"]

    assert status["state"] == "ACCEPTED"
    assert status["destinations"] == {"reviews-default-cluster1.gloo-mesh.": {"state": "ACCEPTED"}}
    assert not status.get("errors")


def test_the_walkthrough_shows_what_comes_of_the_policy(shifted: Lab) -> None:
    """Its commands print what it says they do."""
    _, shown, called, _ = commands("Shift traffic across clusters")

    assert [line.split() for line in shifted.shell(shown).splitlines()] == [
        ["ACCEPTED"],
        ["75", "reviews.default.svc.cluster2.global", "version-v3"],
        ["15", "reviews.default.svc.cluster.local", "version-v1"],
        ["10", "reviews.default.svc.cluster.local", "version-v2"],
    ]
    answers = [json.loads(line) for line in shifted.shell(called).splitlines()]
    assert len(answers) == 20
    assert "cluster2" in {answer["clustername"] for answer in answers} <= {"cluster1", "cluster2"}


def test_each_share_is_answered_by_pods_of_its_subset(shifted: Lab) -> None:
    answers = shifted.call("cluster1", REVIEWS, "-n", "60")

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
    answers = shifted.call("cluster2", REVIEWS, "-n", "30")

    assert reviews_of(shifted, "cluster2", answers) == {"v1", "v2", "v3"}


def test_callers_on_the_other_cluster_are_shifted_too(shifted: Lab) -> None:
    """By its federated name the same service is shifted for whoever calls it from elsewhere."""
    # That one of the shares is not among so many has a chance of 3 in a million.
    answers = shifted.call("cluster2", "http://reviews.default.svc.cluster1.global:9080/reviews/0", "-n", "120")

    assert {(answer["cluster"], answer["version"]) for answer in answers} == {
        ("cluster2", "v3"),
        ("cluster1", "v1"),
        ("cluster1", "v2"),
    }
