"""What becomes of requests under a traffic policy: retries, timeouts, faults, copies, headers; callees count.

Rates are counted over requests that Envoy decides about one by one. A test of one fails by chance once in 100,000 runs.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import partial
from statistics import median

import pytest

from tests.lab.policies import Pod, applied, pods, policy, routes, service, shift, written_as
from tests.lab.running import Json, Lab, eventually
from tests.lab.test_walkthrough import proxy_config, reviews_of

REVIEWS = "http://reviews:9080/reviews/0"
RATINGS = "http://ratings:9080/ratings/0"
SIGMAS = 4.42  # beyond which a normal deviate is, on either side, once in 100,000 times
TICK = 0.005  # seconds by which Envoy's timers are early at most
SLACK = 1.8  # seconds that a shared machine may take beyond the time that a policy says; a lost SYN costs 1 s


def check_rate(what: str, happened: int, calls: int, share: float) -> None:
    """Note how often something happened; fails when that is not *share* of *calls*."""
    error = math.sqrt(calls * share * (1 - share))
    off = abs(happened - calls * share) / error
    Lab.measured.append(f"{what}: {happened} of {calls}, {share:.0%} promised, {off:.1f} standard errors off")
    assert off <= SIGMAS, Lab.measured[-1]


# --- retries, timeouts, faults ----------------------------------------------------------------------------------------

TO_V1 = shift(("cluster1", "v1", 0))


def test_failed_requests_are_tried_again(federated: Lab) -> None:
    """As often as the policy says, and no more: the callee counts."""
    callee = pods(federated, "cluster1", "reviews")["v1"]
    with applied(federated, policy("again", {**TO_V1, "retries": {"attempts": 4}})):
        callee.requests()
        callee.fail(status=503, requests=4)
        [saved] = federated.call("cluster1", REVIEWS)
        got = callee.requests()
        callee.fail(status=503)
        [lost] = federated.call("cluster1", REVIEWS)
        got_all = callee.requests()
        callee.heal()

    assert (saved["status"], saved["pod"]) == (200, callee.name)
    assert [each["status"] for each in got] == [503, 503, 503, 503, 200]
    assert [each["headers"]["x-envoy-attempt-count"] for each in got] == ["1", "2", "3", "4", "5"]
    assert lost["status"] == 503
    assert [each["status"] for each in got_all] == [503] * 5
    federated.measured.append(f"retries: 4 failures, {len(got)} attempts at the callee; all fail, {len(got_all)}")


def test_without_attempts_nothing_is_tried_again(federated: Lab) -> None:
    callee = pods(federated, "cluster1", "reviews")["v1"]
    with applied(federated, policy("once", {**TO_V1, "retries": {"attempts": 0}})):
        callee.requests()
        callee.fail(status=503, requests=1)
        [answer] = federated.call("cluster1", REVIEWS)
        got = callee.requests()

    assert answer["status"] == 503
    assert len(got) == 1


def test_a_slow_attempt_is_given_up_for_another(federated: Lab) -> None:
    """Two of 5 s each are cut off after 1 s; the third is answered."""
    callee = pods(federated, "cluster1", "reviews")["v1"]
    says = {**TO_V1, "retries": {"attempts": 3, "perTryTimeout": "1s"}}
    with applied(federated, policy("impatient", says)):
        callee.fail(seconds=5, requests=2)
        [answer] = federated.call("cluster1", REVIEWS)

    assert answer["status"] == 200
    assert answer["body"]["served"]["request"]["x-envoy-attempt-count"] == "3"
    federated.measured.append(f"two attempts cut off after 1 s: {answer['ms'] / 1000:.2f} s in all")
    assert 2.0 - 2 * TICK <= answer["ms"] / 1000 <= 2.0 + SLACK


def test_a_request_that_takes_too_long_ends(federated: Lab) -> None:
    callee = pods(federated, "cluster1", "reviews")["v1"]
    with applied(federated, policy("in-time", {**TO_V1, "requestTimeout": "1s", "retries": {"attempts": 0}})):
        callee.fail(seconds=4, requests=1)
        [late, timely] = federated.call("cluster1", REVIEWS, "-n", "2")

    assert (late["status"], late["body"]) == (504, "upstream request timeout")
    assert (timely["status"], timely["pod"]) == (200, callee.name)
    federated.measured.append(f"a timeout of 1 s: {late['ms'] / 1000:.2f} s")
    assert 1.0 - TICK <= late["ms"] / 1000 <= 1.0 + SLACK


def test_requests_are_held_back(federated: Lab) -> None:
    """All of them for as long as the policy says; of a share, that share."""
    with applied(federated, policy("late", {"faultInjection": {"fixedDelay": "400ms"}})):
        times = [answer["ms"] / 1000 for answer in federated.call("cluster1", REVIEWS, "-n", "20")]
    with applied(federated, policy("late", {"faultInjection": {"fixedDelay": "400ms", "percentage": 25}})):
        some = [answer["ms"] / 1000 for answer in federated.call("cluster1", REVIEWS, "-n", "200")]

    federated.measured.append(f"a delay of 0.4 s: {min(times):.3f} to {max(times):.3f} s, median {median(times):.3f} s")
    assert min(times) >= 0.4 - TICK
    assert median(times) <= 0.4 + SLACK
    check_rate("a delay of 25 %", sum(each >= 0.4 - TICK for each in some), len(some), 0.25)


def test_requests_are_refused_on_purpose(federated: Lab) -> None:
    """A share of them, with the status that the policy says; the callee gets the others."""
    callees = pods(federated, "cluster1", "reviews").values()
    says = {"faultInjection": {"abort": {"httpStatus": 418}, "percentage": 30}}
    with applied(federated, policy("teapot", says)):
        for callee in callees:
            callee.requests()
        summary = federated.tally("cluster1", REVIEWS, "-n", "1000")
        got = sum(len(callee.requests()) for callee in callees)

    assert set(summary["statuses"]) == {"200", "418"}
    assert got == summary["statuses"]["200"]
    check_rate("aborts of 30 %", summary["statuses"]["418"], 1000, 0.3)


# --- copies, headers, browsers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", ["cluster1", "cluster2"])
def test_the_mirror_receives(federated: Lab, cluster: str) -> None:
    """A copy of each request to ratings, on the same cluster or the other; the caller gets the answers of ratings."""
    mirrors = list(pods(federated, cluster, "reviews").values())
    says = {"mirror": {"kubeService": service("reviews", cluster), "port": 9080}}
    with applied(federated, policy("copies", says, service("ratings", "cluster1"))):
        for mirror in mirrors:
            mirror.requests()
        answers = federated.call("cluster1", RATINGS, "-n", "50", "--header", "x-copy:yes")
        copies = copies_at(mirrors, 50)

    assert len(copies) == 50
    assert {(answer["status"], answer["service"]) for answer in answers} == {(200, "ratings")}
    assert {copy["path"] for copy in copies} == {"/ratings/0"}


def test_a_share_of_the_requests_is_mirrored(federated: Lab) -> None:
    [mirror] = pods(federated, "cluster2", "details").values()
    says = {"mirror": {"kubeService": service("details", "cluster2"), "percentage": 40}}
    with applied(federated, policy("copies", says, service("ratings", "cluster1"))):
        mirror.requests()
        federated.tally("cluster1", RATINGS, "-n", "500")
        copies = mirror.requests()

    check_rate("copies of 40 % to the other cluster", len(copies), 500, 0.4)


def test_headers_are_added_and_removed(federated: Lab) -> None:
    """Those of the request are seen by the callee, those of the answer by the caller."""
    callee = pods(federated, "cluster1", "reviews")["v1"]
    headers = {
        "appendRequestHeaders": {"x-team": "blue"},
        "removeRequestHeaders": ["x-secret"],
        "appendResponseHeaders": {"via": "isthmus"},
        "removeResponseHeaders": ["x-served-version"],
    }
    with applied(federated, policy("headers", {**TO_V1, "headerManipulation": headers})):
        callee.requests()
        [answer] = federated.call("cluster1", REVIEWS, "--header", "x-secret:1", "--header", "x-kept:2")
        [got] = callee.requests()

    assert got["headers"]["x-team"] == "blue"
    assert got["headers"]["x-kept"] == "2"
    assert "x-secret" not in got["headers"]
    assert answer["headers"]["via"] == "isthmus"
    assert answer["pod"] == callee.name
    assert "version" not in answer


def test_browsers_of_other_origins_are_answered(federated: Lab) -> None:
    cors = {
        "allowOrigins": [{"exact": "https://shop.example"}, {"suffix": ".blue.example"}],
        "allowMethods": ["GET", "PUT"],
        "allowHeaders": ["x-team"],
        "maxAge": "3600s",
    }
    asked = ("--method", "OPTIONS", "--header", "access-control-request-method:PUT")
    with applied(federated, policy("cors", {"corsPolicy": cors})):
        told = {
            origin: federated.call("cluster1", REVIEWS, *asked, "--header", f"origin:{origin}")[0]["headers"]
            for origin in ("https://shop.example", "https://a.blue.example", "https://evil.example")
        }

    allowed = {origin: headers.get("access-control-allow-origin") for origin, headers in told.items()}
    assert allowed == {
        "https://shop.example": "https://shop.example",
        "https://a.blue.example": "https://a.blue.example",
        "https://evil.example": None,
    }
    assert told["https://shop.example"]["access-control-allow-methods"] == "GET,PUT"
    assert told["https://shop.example"]["access-control-allow-headers"] == "x-team"
    assert told["https://shop.example"]["access-control-max-age"] == "3600"


def copies_at(mirrors: Iterable[Pod], count: int) -> list[Json]:
    """The requests that *mirrors* got once they are *count* in all: copies are not waited for."""
    got: list[Json] = []

    def complete() -> bool:
        got.extend(request for mirror in mirrors for request in mirror.requests())
        return len(got) >= count

    eventually(f"{count} copies are there", complete)
    return got


def test_what_another_site_makes_a_browser_send_is_refused(federated: Lab) -> None:
    """A POST from elsewhere is; one of the host's own pages or of an allowed site is not, nor is a GET."""
    says = {"csrf": {"filterEnabled": True, "additionalOrigins": [{"exact": "shop.example"}]}}
    origins = ("http://reviews:9080", "https://shop.example", "https://evil.example")

    def statuses(method: str) -> list[int]:
        asked = (("--method", method, "--header", f"origin:{origin}") for origin in origins)
        return [federated.call("cluster1", REVIEWS, *options)[0]["status"] for options in asked]

    with applied(federated, policy("csrf", says)):
        eventually("POSTs from elsewhere are refused", lambda: statuses("POST") == [200, 200, 403])
        read = statuses("GET")

    assert read == [200, 200, 200]


# --- whose requests, and which policies count -------------------------------------------------------------------------


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
    matched = policy("canary", shift(("cluster2", "v3", 100)), httpRequestMatchers=[{"uri": {"prefix": "/reviews/1"}}])
    with applied(federated, match_all, matched):
        ours = [route["route"] for route in routes(federated, "cluster1") if written_as(route) == "reviews"]

    assert [route["timeout"] for route in ours] == ["7s", "7s"]
    assert ours[0]["cluster"] == "outbound|9080|version-v3|reviews.default.svc.cluster2.global"


def _all_of(lab: Lab, workload: str) -> tuple[str, str] | None:
    """Where all requests of *workload* go; None if not all go to one place."""
    answers = lab.call("cluster1", REVIEWS, "-n", "20", workload=workload)
    found = {(answer["cluster"], answer["version"]) for answer in answers if answer["status"] == 200}
    return found.pop() if len(found) == 1 and {answer["status"] for answer in answers} == {200} else None


# --- what is said of a destination as a whole -------------------------------------------------------------------------


def test_a_pod_that_fails_is_left_out(federated: Lab) -> None:
    """After three errors in a row, or soon after, it gets no request any more, until its time is over."""
    callees = pods(federated, "cluster1", "reviews")
    outliers = {"consecutiveErrors": 3, "interval": "1s", "baseEjectionTime": "300s", "maxEjectionPercent": 100}
    with applied(federated, policy("outliers", {"outlierDetection": outliers})):
        eventually("the client's proxy detects outliers", lambda: _detects_outliers(federated))
        # Who detects outliers prefers its own zone: the pod that fails has to be one that is asked.
        [before] = federated.call("cluster1", REVIEWS)
        for callee in callees.values():
            callee.requests()
        failing = callees[before["version"]]
        failing.fail(status=500)
        answers = federated.call("cluster1", REVIEWS, "-n", "60")
        failing.heal()
        got = {version: len(callee.requests()) for version, callee in callees.items()}

    errors = got.pop(failing.version)
    assert 3 <= errors < 9  # Envoy counts them in one thread and tells the others
    assert list(got.values()) == [60 - errors]
    assert Counter(answer["status"] for answer in answers) == {500: errors, 200: 60 - errors}


def test_mutual_tls_is_switched_off_where_a_policy_says_so(federated: Lab) -> None:
    """On the service's own cluster; callers elsewhere keep it, as gateways need it."""
    says = {"mtls": {"istio": {"tlsMode": "DISABLE"}}}
    with applied(federated, policy("plain", says, service("details", "cluster1"))):
        eventually("the client's proxy sends plain text", lambda: _certified(federated, "cluster1") is False)
        certified = _certified(federated, "cluster2")

    assert certified
    eventually("mutual TLS is back", lambda: _certified(federated, "cluster1"))


def _detects_outliers(lab: Lab) -> bool:
    fqdn = "reviews.default.svc.cluster.local"
    return any("outlierDetection" in each for each in proxy_config(lab, "cluster1", "clusters", "--fqdn", fqdn))


def _certified(lab: Lab, cluster: str) -> bool | None:
    """Whether details of cluster1 see a certificate of the client of *cluster*; None if they see no request."""
    host = "details" if cluster == "cluster1" else "details.default.svc.cluster1.global"
    [answer] = lab.call(cluster, f"http://{host}:9080/details/0")
    if answer["status"] != 200:
        return None
    return "x-forwarded-client-cert" in answer["body"]["served"]["request"]
