"""What is said of one destination fits into one object, whatever users write."""

from __future__ import annotations

from functools import partial

import msgspec

from isthmus.api.common import HttpMatcher, KubeWorkloadMatcher, StringMatch, WorkloadSelector
from isthmus.api.discovery import ServicePort
from isthmus.api.traffic_policy import CorsPolicy, Policy, TrafficPolicy, TrafficPolicySpec
from isthmus.model.ref import Ref
from isthmus.translate.traffic.limits import MAX_BYTES, MAX_ROUTES, Said, fit
from isthmus.translate.traffic.merge import policy_facts, senders_of
from isthmus.translate.traffic.routes import Reachable, route
from tests.unit.translate.fleets import HTTP, meta

CLUSTER, HOST = "cluster1", "reviews.default.svc.cluster.local"


def nowhere(_: Ref) -> Reachable:
    raise AssertionError("nothing is shifted")


def fitted(*policies: TrafficPolicy, ports: tuple[ServicePort, ...] = (HTTP,)) -> Said:
    facts = sorted(map(policy_facts, policies), key=lambda each: each.seniority)
    return fit(facts, senders_of(facts, CLUSTER), [partial(route, ports, HOST, lookup=nowhere)])


def policy(age: int, *, path: str = "", app: str = "", cors: int = 0) -> TrafficPolicy:
    """One with a timeout, for requests to *path* or of *app*, and with as many origins as *cors*."""
    origins = CorsPolicy(allow_origins=tuple(StringMatch(exact=f"https://{i:030}.example") for i in range(cors)))
    return TrafficPolicy(
        metadata=meta(f"p{age:05}"),
        spec=TrafficPolicySpec(
            source_selector=(WorkloadSelector(KubeWorkloadMatcher(labels={"app": app})),) if app else (),
            http_request_matchers=(HttpMatcher(uri=StringMatch(prefix=path)),) if path else (),
            policy=Policy(request_timeout="2s", cors_policy=origins if cors else None),
        ),
    )


def refused(said: Said) -> list[str]:
    (routing,) = said.routings
    return [refusal.policy.name for refusal in routing.refusals]


def size(said: Said) -> int:
    (routing,) = said.routings
    return len(msgspec.json.encode(routing.http))


def test_what_multiplies_is_bounded_before_it_is_made() -> None:
    """Five hundred senders and five hundred paths would be 250,000 routes: the oldest are served, the others told."""
    many = [policy(2 * i, app=f"a{i}") for i in range(500)] + [policy(2 * i + 1, path=f"/{i}") for i in range(500)]

    said = fitted(*many)

    left_out = refused(said)
    assert MAX_ROUTES * 0.9 < len(said.merged.routes) <= MAX_ROUTES
    assert left_out == [f"p{age:05}" for age in range(1000 - len(left_out), 1000)]


def test_routes_fit_by_their_size_too() -> None:
    """A hundred routes of 40 kB each do not fit; as many of the oldest as do fit are served."""
    said = fitted(*(policy(i, path=f"/{i}", cors=800) for i in range(100)))

    left_out = refused(said)
    assert MAX_BYTES * 0.9 < size(said) <= MAX_BYTES
    assert left_out == [f"p{age:05}" for age in range(100 - len(left_out), 100)]


def test_one_that_is_too_much_by_itself_harms_no_other() -> None:
    """The oldest policy may be larger than an object; the younger ones are served all the same."""
    said = fitted(policy(0, cors=30_000), policy(1, path="/1"), policy(2, path="/2"))

    assert refused(said) == ["p00000"]
    assert len(said.merged.routes) == 2


def test_what_fits_is_left_alone() -> None:
    """A thousand policies on as many paths are served."""
    said = fitted(*(policy(i, path=f"/{i}") for i in range(1000)))

    assert refused(said) == []
    assert len(said.merged.routes) == 1000
