"""Whose VirtualService or DestinationRule counts for a host: the users' own, unless ours was there before."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.agent.conflicts import Conflicts, claim_of
from isthmus.agent.outputs import Batch, Blocked, Outputs, Prune, Write
from isthmus.istio.kinds import DESTINATION_RULE, SERVICE_ENTRY, VIRTUAL_SERVICE
from isthmus.model.ref import Kind, ObjectKey
from tests.unit.agent.test_outputs import OURS

Manifest = dict[str, Any]
HOST = "reviews.default.svc.cluster.local"
FEDERATED = "reviews.default.svc.cluster2.global"


def manifest(kind: Kind, name: str, namespace: str, spec: Manifest, **metadata: Any) -> Manifest:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": spec,
    }


def rule(name: str = "reviews", host: str = HOST, namespace: str = "default", **rest: Any) -> Manifest:
    return manifest(DESTINATION_RULE, name, namespace, {"host": host, **rest})


def routes(name: str = "reviews", host: str = HOST, *, subset_of: str = "", namespace: str = "default") -> Manifest:
    destination = {"host": subset_of, "subset": "version-v3"} if subset_of else {"host": host}
    return manifest(
        VIRTUAL_SERVICE, name, namespace, {"hosts": [host], "http": [{"route": [{"destination": destination}]}]}
    )


def theirs(kind: Kind, spec: Manifest, namespace: str = "default", created: str = "2026-01-01T00:00:00Z") -> Manifest:
    name, version = "mine", {"resourceVersion": "1", "uid": "theirs"}
    return manifest(kind, name, namespace, spec, creationTimestamp=created, **version)


def ours(made: Manifest, created: str) -> Manifest:
    more = {"labels": OURS, "resourceVersion": "2", "uid": "ours", "creationTimestamp": created}
    return {**made, "metadata": {**made["metadata"], **more}}


def key(made: Manifest) -> ObjectKey:
    return ObjectKey(made["apiVersion"], made["kind"], made["metadata"]["namespace"], made["metadata"]["name"])


def wanting(*desired: Manifest, there: tuple[Manifest, ...] = ()) -> Outputs:
    """A cluster that has *there*, where *desired* is wanted."""
    outputs = Outputs("cluster1", "gloo-mesh")
    for kind in (SERVICE_ENTRY, DESTINATION_RULE, VIRTUAL_SERVICE):
        outputs.replaced(kind, [item for item in there if item["kind"] == kind.kind])
    outputs.receive({str(key(made)): json.dumps(made).encode() for made in desired}, complete=True)
    return outputs


def keys(batch: Batch) -> set[ObjectKey]:
    return {name for name, _ in batch}


@pytest.mark.parametrize(
    "hosts",
    [
        [HOST],
        ["other", HOST],
        ["reviews"],
        ["Reviews.Default.svc.cluster.local"],
        ["*.default.svc.cluster.local"],
        ["*"],
    ],
)
def test_a_users_routes_for_a_host_count_until_they_go(hosts: list[str]) -> None:
    mine = theirs(VIRTUAL_SERVICE, {"hosts": hosts, "gateways": ["mesh", "edge"]})
    outputs = wanting(routes(), there=(mine,))

    found = outputs.decide(key(routes()))

    assert isinstance(found, Blocked)
    assert HOST in found.reason
    assert "VirtualService default/mine" in found.reason
    assert keys(outputs.removed(VIRTUAL_SERVICE, mine)) == {key(mine), key(routes())}
    assert isinstance(outputs.decide(key(routes())), Write)


@pytest.mark.parametrize(
    ("host", "said"), [("*", " as one of * by"), ("*.local", " as one of *.local by"), (HOST, " by")]
)
def test_routes_for_more_hosts_count_from_any_namespace_and_are_said_to_be(host: str, said: str) -> None:
    outputs = wanting(routes(), there=(theirs(VIRTUAL_SERVICE, {"hosts": [host]}, "bookinfo"),))

    found = outputs.decide(key(routes()))

    assert isinstance(found, Blocked)
    assert f"{HOST} is already configured{said}" in found.reason


@pytest.mark.parametrize(
    ("spec", "namespace"),
    [
        ({"hosts": ["ratings"]}, "default"),
        ({"hosts": ["reviews"]}, "bookinfo"),
        ({"hosts": [FEDERATED]}, "default"),
        ({"hosts": ["*.cluster2.global"]}, "default"),
        ({"hosts": [HOST], "gateways": ["edge"]}, "default"),
        ({"hosts": [HOST], "exportTo": ["."]}, "bookinfo"),
        ({"http": []}, "default"),
    ],
)
def test_routes_for_others_are_no_conflict(spec: Manifest, namespace: str) -> None:
    outputs = wanting(routes(), there=(theirs(VIRTUAL_SERVICE, spec, namespace),))

    assert isinstance(outputs.decide(key(routes())), Write)


def test_what_is_private_to_the_namespace_of_ours_is_a_conflict() -> None:
    outputs = wanting(routes(), there=(theirs(VIRTUAL_SERVICE, {"hosts": [HOST], "exportTo": ["."]}),))

    assert isinstance(outputs.decide(key(routes())), Blocked)


@pytest.mark.parametrize("host", [HOST, "reviews"])
def test_a_users_rule_for_exactly_the_host_counts(host: str) -> None:
    outputs = wanting(rule(), there=(theirs(DESTINATION_RULE, {"host": host}),))

    found = outputs.decide(key(rule()))

    assert isinstance(found, Blocked)
    assert f"{HOST} is already configured by the existing DestinationRule default/mine" in found.reason


@pytest.mark.parametrize("spec", [{"host": "*.local"}, {"host": HOST, "workloadSelector": {"matchLabels": {"a": "b"}}}])
def test_a_rule_for_more_or_for_fewer_is_no_conflict(spec: Manifest) -> None:
    outputs = wanting(rule(), there=(theirs(DESTINATION_RULE, spec),))

    assert isinstance(outputs.decide(key(rule())), Write)


def test_the_rule_of_a_federated_host_stands_back_too() -> None:
    federated = rule("reviews-default-cluster2", FEDERATED, "istio-system")
    outputs = wanting(federated, there=(theirs(DESTINATION_RULE, {"host": FEDERATED}),))

    assert isinstance(outputs.decide(key(federated)), Blocked)


def test_what_stands_already_goes_on_beside_a_younger_one() -> None:
    there = ours(routes(), "2026-01-01T00:00:00Z")
    outputs = wanting(routes(host=HOST, subset_of=HOST), there=(there,))

    again = outputs.changed(VIRTUAL_SERVICE, theirs(VIRTUAL_SERVICE, {"hosts": [HOST]}, created="2026-01-02T00:00:00Z"))

    assert key(routes()) in keys(again)
    assert isinstance(outputs.decide(key(routes())), Write)


def test_ours_goes_if_both_came_in_one_second() -> None:
    """Times are whole seconds: which was first nobody knows, and what users wrote is not to be replaced."""
    there = ours(routes(), "2026-01-01T00:00:00Z")
    outputs = wanting(
        routes(), there=(there, theirs(VIRTUAL_SERVICE, {"hosts": [HOST]}, created="2026-01-01T00:00:00Z"))
    )

    assert outputs.decide(key(routes())) == Prune(VIRTUAL_SERVICE, "ours", "2")


def test_ours_goes_if_it_came_after_theirs() -> None:
    there = ours(routes(), "2026-01-02T00:00:00Z")
    outputs = wanting(routes(), there=(there, theirs(VIRTUAL_SERVICE, {"hosts": [HOST]})))

    assert outputs.decide(key(routes())) == Prune(VIRTUAL_SERVICE, "ours", "2")
    outputs.removed(VIRTUAL_SERVICE, {**there, "metadata": {**there["metadata"], "resourceVersion": "3"}})
    assert isinstance(outputs.decide(key(routes())), Blocked)


def test_routes_that_name_subsets_wait_for_the_rule_that_says_what_they_are() -> None:
    """Without it, Envoy would answer 503 to whatever goes to a subset."""
    federated = rule("reviews-default-cluster2", FEDERATED, "istio-system")
    shift = routes(subset_of=FEDERATED)
    mine = theirs(DESTINATION_RULE, {"host": FEDERATED}, "istio-system")
    outputs = wanting(federated, shift, there=(mine,))

    found = outputs.decide(key(shift))

    assert isinstance(found, Blocked)
    assert f"names subsets of {FEDERATED}, and the existing DestinationRule istio-system/mine" in found.reason
    assert {key(shift), key(federated)} < keys(outputs.removed(DESTINATION_RULE, mine))
    assert isinstance(outputs.decide(key(shift)), Write)


def test_they_wait_as_well_where_the_name_of_that_rule_is_taken() -> None:
    shift = routes(subset_of=HOST)
    taken = rule(host="ratings.default.svc.cluster.local")
    outputs = wanting(rule(), shift, there=({**taken, "metadata": {**taken["metadata"], "resourceVersion": "1"}},))

    assert isinstance(outputs.decide(key(rule())), Blocked)
    assert isinstance(outputs.decide(key(shift)), Blocked)


def test_routes_that_name_no_subset_any_more_need_no_rules() -> None:
    conflicts = Conflicts(lambda *_: "")
    for made, needing in ((routes(subset_of=HOST), (key(routes()),)), (routes(), ())):
        conflicts.note(VIRTUAL_SERVICE, key(made), claim_of(VIRTUAL_SERVICE, made), None)
        assert conflicts.needing_rules() == needing


def test_routes_that_name_no_subset_do_not_wait() -> None:
    outputs = wanting(rule(), routes(), there=(theirs(DESTINATION_RULE, {"host": HOST}),))

    assert isinstance(outputs.decide(key(routes())), Write)


def test_nothing_that_names_subsets_is_written_before_the_rules_are_known() -> None:
    shift = routes(subset_of=HOST)
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(VIRTUAL_SERVICE, [])
    outputs.receive({str(key(shift)): json.dumps(shift).encode()}, complete=True)

    assert outputs.decide(key(shift)) is None
    assert key(shift) in keys(outputs.replaced(DESTINATION_RULE, []))
    assert isinstance(outputs.decide(key(shift)), Write)


def test_what_went_while_the_watch_was_broken_is_no_conflict() -> None:
    outputs = wanting(routes(), there=(theirs(VIRTUAL_SERVICE, {"hosts": [HOST]}),))

    assert key(routes()) in keys(outputs.replaced(VIRTUAL_SERVICE, []))
    assert isinstance(outputs.decide(key(routes())), Write)


def test_a_user_who_takes_the_host_out_is_no_conflict_any_more() -> None:
    mine = theirs(VIRTUAL_SERVICE, {"hosts": [HOST, "ratings"]})
    outputs = wanting(routes(), there=(mine,))

    again = outputs.changed(VIRTUAL_SERVICE, {**mine, "spec": {"hosts": ["ratings"]}})

    assert key(routes()) in keys(again)
    assert isinstance(outputs.decide(key(routes())), Write)


def test_a_wildcard_that_comes_touches_every_host_that_it_covers() -> None:
    outputs = wanting(routes(), routes("ratings", "ratings.default.svc.cluster.local"))

    again = outputs.changed(VIRTUAL_SERVICE, theirs(VIRTUAL_SERVICE, {"hosts": ["*.default.svc.cluster.local"]}))

    assert {name.name for name in keys(again)} == {"mine", "reviews", "ratings"}


def test_of_several_the_oldest_is_named() -> None:
    young = theirs(DESTINATION_RULE, {"host": HOST}, "bookinfo", created="2026-02-01T00:00:00Z")
    outputs = wanting(rule(), there=(young, theirs(DESTINATION_RULE, {"host": HOST})))

    found = outputs.decide(key(rule()))

    assert isinstance(found, Blocked)
    assert "default/mine" in found.reason


@pytest.mark.parametrize("spec", [None, {}, {"hosts": []}, {"hosts": [""]}, {"host": ""}])
def test_what_names_no_host_claims_none(spec: Any) -> None:
    for kind in (VIRTUAL_SERVICE, DESTINATION_RULE):
        claim = claim_of(kind, manifest(kind, "x", "default", spec))
        assert claim is not None
        assert not claim.hosts
