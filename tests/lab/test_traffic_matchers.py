"""Which requests a traffic policy is about: what they look like, and who sends them."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.lab.policies import applied, policy, routes, shift, written_as
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import reviews_of

REVIEWS = "http://reviews:9080/reviews/0"
CANARY = ("cluster2", "v3")
STABLE = ("cluster1", "v1")
MATCHERS: list[Json] = [
    {"uri": {"exact": "/reviews/7"}},
    {"uri": {"prefix": "/reviews/1"}},
    {"uri": {"regex": "/reviews/[89]+"}},
    {"uri": {"suffix": "/42"}},
    {"uri": {"exact": "/REVIEWS/5", "ignoreCase": True}},
    {"headers": [{"name": "end-user", "value": "jason"}]},
    {"headers": [{"name": "X-Team", "value": "b(lu|ron)e", "regex": True}, {"name": "x-bot", "invertMatch": True}]},
    {"queryParameters": [{"name": "debug"}, {"name": "v", "value": "[23]", "regex": True}]},
    {"method": "PUT"},
]


@pytest.fixture(scope="module")
def matched(federated: Lab) -> Iterator[Lab]:
    """Requests to reviews go to v1, those that any of the matchers describes to v3 of cluster2."""
    canary = policy("canary", shift((*CANARY, 100)), httpRequestMatchers=MATCHERS)
    with applied(federated, policy("stable", shift((*STABLE, 100))), canary):
        yield federated


@pytest.mark.parametrize(
    ("request_line", "options", "goes_to"),
    [
        ("/reviews/7", (), CANARY),
        ("/reviews/77", (), STABLE),
        ("/reviews/1", (), CANARY),
        ("/reviews/123", (), CANARY),
        ("/reviews/21", (), STABLE),
        ("/reviews/898", (), CANARY),
        ("/reviews/890", (), STABLE),
        ("/reviews/42", (), CANARY),
        ("/reviews/421", (), STABLE),
        ("/reviews/5", (), CANARY),
        ("/reviews/0", ("end-user:jason",), CANARY),
        ("/reviews/0", ("end-user:jasons",), STABLE),
        ("/reviews/0", ("x-team:blue",), CANARY),
        ("/reviews/0", ("x-team:brone",), CANARY),
        ("/reviews/0", ("x-team:blues",), STABLE),
        ("/reviews/0", ("x-team:blue", "x-bot:1"), STABLE),
        ("/reviews/0?debug=1&v=2", (), CANARY),
        ("/reviews/0?debug=&v=3", (), CANARY),
        ("/reviews/0?v=2", (), STABLE),
        ("/reviews/0?debug=1&v=4", (), STABLE),
        ("/reviews/0", ("PUT",), CANARY),
        ("/reviews/0", ("POST",), STABLE),
    ],
)
def test_matchers_choose_requests(
    matched: Lab, request_line: str, options: tuple[str, ...], goes_to: tuple[str, str]
) -> None:
    arguments = [argument for each in options for argument in (("--header" if ":" in each else "--method"), each)]

    answers = matched.call("cluster1", f"http://reviews:9080{request_line}", *arguments, "-n", "5")

    assert {(answer["status"], answer["cluster"], answer["version"]) for answer in answers} == {(200, *goes_to)}


def test_source_selectors_choose_callers(federated: Lab) -> None:
    """By label and cluster: of three callers one gets v2, another v3, and the last whatever there is."""
    of_page = [{"kubeWorkloadMatcher": {"labels": {"app": "productpage"}, "clusters": ["cluster1"]}}]
    of_ratings = [{"kubeWorkloadMatcher": {"labels": {"app": "ratings"}, "namespaces": ["default"]}}]
    v2 = policy("for-the-page", shift(("cluster1", "v2", 100)), sourceSelector=of_page)
    v3 = policy("for-ratings", shift(("cluster2", "v3", 100)), sourceSelector=of_ratings)
    with applied(federated, v2, v3):
        got = {
            workload: eventually(f"{workload} has its routes", partial(_all_of, federated, workload))
            for workload in ("productpage-v1", "ratings-v1")
        }
        others = federated.call("cluster1", REVIEWS, "-n", "30")

    assert got == {"productpage-v1": ("cluster1", "v2"), "ratings-v1": ("cluster2", "v3")}
    assert reviews_of(federated, "cluster1", others) == {"v1", "v2"}


def test_a_matched_route_inherits_what_is_said_of_all_requests(federated: Lab) -> None:
    """In Envoy too: the route of the match carries the timeout of the policy without one."""
    match_all = policy("in-time", {"requestTimeout": "7s"})
    matched = policy("canary", shift((*CANARY, 100)), httpRequestMatchers=[{"uri": {"prefix": "/reviews/1"}}])
    with applied(federated, match_all, matched):
        ours = [route["route"] for route in routes(federated, "cluster1") if written_as(route) == "reviews"]

    assert [route["timeout"] for route in ours] == ["7s", "7s"]
    assert ours[0]["cluster"] == "outbound|9080|version-v3|reviews.default.svc.cluster2.global"


def _all_of(lab: Lab, workload: str) -> tuple[str, str] | None:
    """Where all requests of *workload* go; None if not all go to one place."""
    answers = lab.call("cluster1", REVIEWS, "-n", "20", workload=workload)
    found = {(answer["cluster"], answer["version"]) for answer in answers}
    return found.pop() if len(found) == 1 else None
