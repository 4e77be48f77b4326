"""What the fields of a traffic policy come to, and which requests keep a route of their own."""

from __future__ import annotations

import pytest

from isthmus.api.common import ClusterObjectRef, HeaderMatcher, HttpMatcher
from isthmus.api.traffic_policy import Abort, FaultInjection, Mirror, Policy, RetryPolicy
from isthmus.istio.objects import HttpFault, HttpRetry
from isthmus.translate.traffic.fields import Copies, Field, fields_of, matcher_problems, policy_problems
from tests.unit.translate.test_bad_traffic import REVIEWS as ON
from tests.unit.translate.test_bad_traffic import fleet, policy, routes, status, to

REVIEWS = ClusterObjectRef(name="reviews", namespace="default", cluster_name="cluster1")


def test_no_attempts_are_told_without_what_to_try_again() -> None:
    """Istio refuses conditions beside no attempts."""
    assert fields_of(Policy(retries=RetryPolicy(0)))[Field.RETRIES] == HttpRetry(attempts=0)
    tried = fields_of(Policy(retries=RetryPolicy(2)))[Field.RETRIES]
    assert isinstance(tried, HttpRetry)
    assert tried.retry_on


@pytest.mark.parametrize(("said", "share"), [(None, 100.0), (0.0, 0.0), (12.5, 12.5)])
def test_only_an_omitted_percentage_means_all(said: float | None, share: float) -> None:
    found = fields_of(
        Policy(fault_injection=FaultInjection(abort=Abort(503), percentage=said), mirror=Mirror(REVIEWS, said))
    )

    fault, copies = found[Field.FAULT], found[Field.MIRROR]
    assert isinstance(fault, HttpFault)
    assert fault.abort is not None
    assert fault.abort.percentage.value == share
    assert isinstance(copies, Copies)
    assert copies.percentage == share


@pytest.mark.parametrize(("duration", "count"), [("0.0015s", 1), ("0.001s", 0), ("1.5s", 0), ("0.0005s", 1)])
def test_times_are_whole_milliseconds(duration: str, count: int) -> None:
    assert len(list(policy_problems(Policy(request_timeout=duration), "spec.policy"))) == count


@pytest.mark.parametrize(("twice", "count"), [(False, 0), (True, 1)])
def test_a_header_may_be_there_and_not_have_a_value(twice: bool, count: int) -> None:
    """Istio holds one test of a name that has to meet, and one that must not."""
    tests = (HeaderMatcher("x-user"), HeaderMatcher("X-User", "eve", invert_match=not twice))

    assert len(list(matcher_problems(HttpMatcher(headers=tests), "matcher"))) == count


def test_requests_whose_own_shift_is_refused_are_not_shifted_by_what_is_said_of_all() -> None:
    elsewhere = {"kubeService": {"name": "nowhere", "namespace": "default", "clusterName": "cluster2"}}
    engine = fleet(
        policy("all", trafficShift={"destinations": [to("cluster2")]}),
        policy(
            "some", 1, matchers=[{"uri": {"prefix": "/some"}}], trafficShift={"destinations": [elsewhere]},
        ),
    )  # fmt: skip

    written = routes(engine)
    assert written is not None
    some, rest = written.spec.http
    assert [match.uri.prefix for match in some.match if match.uri] == ["/some"]
    assert [each.destination.host for each in some.route] == ["reviews.default.svc.cluster.local"]
    assert [each.destination.host for each in rest.route] == ["reviews.default.svc.cluster2.global"]


def test_what_does_not_fit_is_refused_only_where_it_is_about_somebody() -> None:
    """A policy about callers of cluster2 alone says nothing on cluster1, however full the routes there are."""
    much = [{"uri": {"exact": f"/{number:05}"}} for number in range(2000)]
    here, there = ([{"kubeWorkloadMatcher": {"clusters": [cluster]}}] for cluster in ("cluster1", "cluster2"))
    engine = fleet(
        policy("first", matchers=much, sources=here, requestTimeout="1s"),
        policy("second", 1, matchers=[{"uri": {"prefix": "/b"}}], sources=here, requestTimeout="2s"),
        policy("theirs", 2, matchers=[{"uri": {"prefix": "/c"}}], sources=there, requestTimeout="3s"),
    )

    errors = {name: status(engine, name).destinations[ON].errors for name in ("first", "second", "theirs")}
    assert errors["first"] == errors["theirs"] == ()
    assert errors["second"][0].startswith("too much is said of this destination")
