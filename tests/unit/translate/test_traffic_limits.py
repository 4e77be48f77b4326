"""What is written and said of one destination fits into an object, whatever users write."""

from __future__ import annotations

from functools import partial

import msgspec

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import (
    ClusterObjectRef,
    DestinationSelector,
    HttpMatcher,
    KubeServiceMatcher,
    KubeServiceRefs,
    KubeWorkloadMatcher,
    StringMatch,
    WorkloadSelector,
)
from isthmus.api.discovery import Destination, DestinationStatus, ServicePort
from isthmus.api.traffic_policy import CorsPolicy, Policy, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.listing import MAX_LISTED_MESSAGES
from isthmus.translate.traffic.limits import MAX_BYTES, MAX_ROUTES, Said, fit
from isthmus.translate.traffic.merge import policy_facts, senders_of
from isthmus.translate.traffic.routes import Reachable, route
from tests.unit.translate.fleets import HTTP, engine_of, federated_pair, meta

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


LARGEST_STATUS = 1_000_000  # bytes; etcd takes objects of 1.5 MiB, and the rest of a Destination has to fit in too


def status(engine: Engine, kind: type[Resource], name: str) -> ApiStruct:
    found = engine.status(StatusKey(kind.KIND, "gloo-mesh", name))
    assert found is not None
    return found


def test_a_destination_lists_as_many_policies_as_fit() -> None:
    """Of a hundred policies of 20 kB each, which it could list by number, a status lists what fits, and says so."""
    engine = engine_of(federated_pair())
    for i in range(100):
        engine.set(policy(i, path=f"/{i}", cors=400))
    engine.run()

    found = status(engine, Destination, "reviews-default-cluster1")

    assert isinstance(found, DestinationStatus)
    listed = len(found.applied_traffic_policies)
    assert 0 < listed < 30
    assert f"traffic policies apply; the first {listed} are listed" in found.warnings[-1]
    assert len(msgspec.json.encode(found)) < LARGEST_STATUS


def test_a_policy_says_what_is_wrong_in_few_words() -> None:
    """A policy whose every matcher is at odds with another policy's, and that names services that are not there."""
    engine = engine_of(federated_pair())
    matchers = tuple(HttpMatcher(uri=StringMatch(prefix=f"/{i}")) for i in range(500))
    for i, matcher in enumerate(matchers):
        engine.set(
            TrafficPolicy(
                metadata=meta(f"old-{i}", creation_timestamp="2025-01-01T00:00:00Z"),
                spec=TrafficPolicySpec(http_request_matchers=(matcher,), policy=Policy(request_timeout="1s")),
            )
        )
    services = tuple(ClusterObjectRef(f"service-{i}", "default", "cluster1") for i in range(5000))
    named = (DestinationSelector(), DestinationSelector(KubeServiceMatcher(), KubeServiceRefs(services)))
    young = TrafficPolicySpec(
        destination_selector=named, http_request_matchers=matchers, policy=Policy(request_timeout="9s")
    )
    engine.set(TrafficPolicy(metadata=meta("young", creation_timestamp="2026-01-01T00:00:00Z"), spec=young))
    engine.run()

    found = status(engine, TrafficPolicy, "young")

    assert isinstance(found, TrafficPolicyStatus)
    assert found.errors[-1] == f"and {5000 - MAX_LISTED_MESSAGES} more"
    on_reviews = found.destinations["reviews-default-cluster1.gloo-mesh."]
    assert on_reviews.errors[-1] == f"and {500 - MAX_LISTED_MESSAGES} more"
    assert len(msgspec.json.encode(found)) < LARGEST_STATUS
