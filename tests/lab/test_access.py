"""Access across clusters: who may call is decided by the callee's sidecar, from the caller's certificate.

This version does not write AuthorizationPolicies yet; those that the walk-through expects of it are applied by hand.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import yaml

from tests.lab.running import WALKTHROUGH, Json, Lab, eventually
from tests.lab.test_walkthrough import OTHER, reviews_of

CLUSTERS = tuple(OTHER)
ALLOWED = ("cluster1", "productpage-v1")
EXPECTED = ("authorization-policy-details.yaml", "authorization-policy-reviews.yaml")


@pytest.fixture(scope="module")
def restricted(federated: Lab) -> Iterator[Lab]:
    """Only the product page of cluster1 may call details and reviews, on both clusters. Undone after the tests."""
    policies = [yaml.safe_load((WALKTHROUGH / "expected" / name).read_text()) for name in EXPECTED]
    for policy in policies:
        del policy["metadata"]["labels"]  # with these our agent would take it for its own, and delete it
    try:
        for cluster in CLUSTERS:
            for policy in policies:
                federated.apply(cluster, policy)
        settle(federated, lambda cluster, workload: (cluster, workload) == ALLOWED)
        yield federated
    finally:
        for cluster in CLUSTERS:
            federated.kubectl(cluster, "delete", "authorizationpolicies", "-n", "default", "details", "reviews")
        settle(federated, lambda cluster, workload: True)


def settle(lab: Lab, may_call: Callable[[str, str], bool]) -> None:
    """Wait until every caller is answered or refused as it should be, again and again.

    Envoy applies a new policy to new connections; one that was open serves a last request by the old one.
    """
    for cluster, workload in itertools.product(CLUSTERS, ("client", "productpage-v1")):
        wanted = 200 if may_call(cluster, workload) else 403
        for service, at in itertools.product(("details", "reviews"), CLUSTERS):
            target = url(service, at) if at != cluster else f"http://{service}:9080/{service}/0"
            eventually(
                f"{workload} of {cluster} gets {wanted} from {service} of {at}",
                partial(all_answers_are, lab, cluster, workload, target, wanted),
            )


def all_answers_are(lab: Lab, cluster: str, workload: str, target: str, status: int) -> bool:
    return {answer["status"] for answer in lab.call(cluster, target, "-n", "10", workload=workload)} == {status}


def is_refused(answer: Json) -> bool:
    """Whether a sidecar refused the call; the application behind it was not asked."""
    return answer["status"] == 403 and answer["body"] == "RBAC: access denied" and "pod" not in answer


def url(service: str, cluster: str) -> str:
    return f"http://{service}.default.svc.{cluster}.global:9080/{service}/0"


def test_another_workload_of_the_same_cluster_is_refused_across_clusters(restricted: Lab) -> None:
    answers = [restricted.call("cluster1", url(service, "cluster2"))[0] for service in ("reviews", "details")]

    assert all(is_refused(answer) for answer in answers), answers


def test_the_allowed_workload_is_answered_across_clusters(restricted: Lab) -> None:
    answers = restricted.call("cluster1", url("reviews", "cluster2"), "-n", "5", workload="productpage-v1")

    assert reviews_of(restricted, "cluster2", answers) <= {"v1", "v2", "v3"}
    told = {answer["body"]["served"]["request"]["x-forwarded-client-cert"] for answer in answers}
    assert all("URI=spiffe://cluster1/ns/default/sa/bookinfo-productpage" in one for one in told)


def test_the_same_workload_of_the_other_cluster_is_refused(restricted: Lab) -> None:
    """An identity is that of its cluster: cluster2's product page is not the one that is allowed."""
    answers = [
        restricted.call("cluster2", url("details", "cluster1"), workload="productpage-v1")[0],
        restricted.call("cluster2", "http://details:9080/details/0", workload="productpage-v1")[0],
    ]

    assert all(is_refused(answer) for answer in answers), answers


def test_what_no_policy_restricts_stays_open(restricted: Lab) -> None:
    [answer] = restricted.call("cluster1", url("ratings", "cluster2"))

    assert (answer["status"], answer["cluster"]) == (200, "cluster2")
    assert answer["body"]["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
    assert answer["pod"] in restricted.pods("cluster2", "app=ratings")


def test_the_product_page_shows_what_it_may_see(restricted: Lab) -> None:
    """On cluster1 the whole page; on cluster2 a page that stands, with an error in place of either block."""
    pages = {cluster: restricted.call(cluster, "http://productpage:9080/productpage")[0] for cluster in CLUSTERS}

    assert {page["status"] for page in pages.values()} == {200}
    assert "Book Details" in pages["cluster1"]["body"]
    assert "Reviews served by" in pages["cluster1"]["body"]
    assert "Error fetching product details" in pages["cluster2"]["body"]
    assert "Error fetching product reviews" in pages["cluster2"]["body"]
