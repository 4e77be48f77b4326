"""What follows from desired and actual state, row by row of the table in `isthmus.agent.outputs`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus.agent.order import OUTPUT_ORDER, prune_rank, restricts, write_rank
from isthmus.agent.outputs import Blocked, Outputs, Prune, Write
from isthmus.istio.kinds import AUTHORIZATION_POLICY, DESTINATION_RULE, OUTPUT_KINDS, SERVICE_ENTRY
from isthmus.model.ref import ObjectKey

Manifest = dict[str, Any]
OURS = {
    "cluster.multicluster.solo.io": "",
    "owner.networking.mesh.gloo.solo.io": "gloo-mesh",
    "relay-agent": "cluster1",
}


def key(name: str) -> ObjectKey:
    return ObjectKey("networking.istio.io/v1beta1", "ServiceEntry", "istio-system", name)


def entry(name: str, host: str = "a.global", **metadata: Any) -> Manifest:
    return {
        "apiVersion": "networking.istio.io/v1beta1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "istio-system", **metadata},
        "spec": {"hosts": [host]},
    }


def stored(name: str, version: int, host: str = "a.global", labels: dict[str, str] | None = None) -> Manifest:
    labels = OURS if labels is None else labels
    return entry(name, host, labels=labels, resourceVersion=str(version), uid=f"uid-{name}")


def record(name: str, host: str = "a.global") -> dict[str, bytes | None]:
    return {str(key(name)): json.dumps(entry(name, host)).encode()}


def test_nothing_is_decided_before_the_cluster_is_known() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.receive(record("a"), complete=True)

    assert outputs.decide(key("a")) is None
    assert outputs.waiting_for() == tuple(kind.kind for kind in OUTPUT_KINDS)


def test_a_kind_that_the_cluster_does_not_serve_is_said() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.receive(record("a"), complete=True)

    again = outputs.refused(SERVICE_ENTRY, "no such kind")

    assert [name for name, _ in again] == [key("a")]
    assert outputs.decide(key("a")) == Blocked("no such kind")
    assert [name for name, _ in outputs.replaced(SERVICE_ENTRY, [])] == [key("a")]
    assert isinstance(outputs.decide(key("a")), Write)


def test_what_is_missing_is_written_with_the_labels_of_ownership() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [])
    outputs.receive(record("a"), complete=False)

    write = outputs.decide(key("a"))

    assert isinstance(write, Write)
    assert write.manifest == entry("a", labels=OURS)


def test_what_is_there_already_is_not_written_again() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1)])
    outputs.receive(record("a"), complete=True)

    assert outputs.decide(key("a")) is None


@pytest.mark.parametrize("drift", [stored("a", 2, "b.global"), stored("a", 2, labels={**OURS, "x": "y"})])
def test_drift_is_written_over(drift: Manifest) -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1)])
    outputs.receive(record("a"), complete=True)

    assert [name for name, _ in outputs.changed(SERVICE_ENTRY, drift)] == [key("a")]
    assert isinstance(outputs.decide(key("a")), Write)


def test_what_others_added_to_our_object_stays_until_it_changes_again() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1, labels={**OURS, "x": "y"})])
    outputs.receive(record("a"), complete=True)
    write = outputs.decide(key("a"))
    assert isinstance(write, Write)

    outputs.wrote(key("a"), write, stored("a", 2, labels={**OURS, "x": "y"}))
    assert outputs.decide(key("a")) is None

    outputs.changed(SERVICE_ENTRY, stored("a", 3, labels={**OURS, "x": "z"}))
    assert isinstance(outputs.decide(key("a")), Write)


def test_an_answer_is_known_before_the_watch_tells_and_old_news_are_ignored() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [])
    outputs.receive(record("a"), complete=True)
    write = outputs.decide(key("a"))
    assert isinstance(write, Write)
    outputs.wrote(key("a"), write, stored("a", 7))

    assert outputs.changed(SERVICE_ENTRY, stored("a", 5, "old.global")) == []
    assert outputs.removed(SERVICE_ENTRY, stored("a", 6)) == []
    assert outputs.decide(key("a")) is None
    outputs.removed(SERVICE_ENTRY, stored("a", 8))
    assert isinstance(outputs.decide(key("a")), Write)


@pytest.mark.parametrize(
    "labels",
    [{}, {**OURS, "relay-agent": "cluster2"}, {**OURS, "owner.networking.mesh.gloo.solo.io": "x"}, {"app": "a"}],
)
def test_somebody_elses_object_is_left_alone(labels: dict[str, str]) -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1, "b.global", labels=labels)])

    outputs.receive(record("a"), complete=True)
    assert isinstance(outputs.decide(key("a")), Blocked)
    outputs.receive({str(key("a")): None}, complete=True)
    assert outputs.decide(key("a")) is None


def test_an_object_becomes_ours_to_write_when_its_owner_deletes_it() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1, labels={})])
    outputs.receive(record("a"), complete=True)

    assert [name for name, _ in outputs.removed(SERVICE_ENTRY, stored("a", 2, labels={}))] == [key("a")]
    assert isinstance(outputs.decide(key("a")), Write)


def test_an_object_whose_labels_a_user_removed_is_the_users() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1)])
    outputs.receive({}, complete=True)

    outputs.changed(SERVICE_ENTRY, stored("a", 2, labels={}))

    assert outputs.decide(key("a")) is None


def test_pruning_waits_for_a_complete_desired_state() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1), stored("b", 2)])
    outputs.receive(record("b"), complete=False)
    assert outputs.decide(key("a")) is None

    again = outputs.receive({}, complete=True)

    assert key("a") in dict(again)
    assert outputs.decide(key("a")) == Prune(SERVICE_ENTRY, "uid-a", "1")
    assert outputs.decide(key("b")) is None
    outputs.receive({}, complete=False)
    assert outputs.decide(key("a")) is None


def test_what_is_removed_while_incomplete_is_pruned_once_complete() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [stored("a", 1)])
    outputs.receive(record("a"), complete=True)
    outputs.receive({str(key("a")): None}, complete=False)
    assert outputs.decide(key("a")) is None

    assert key("a") in dict(outputs.receive({}, complete=True))
    assert isinstance(outputs.decide(key("a")), Prune)


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("no key", b"{}"),
        ("apps/v1|Deployment|default|evil", b'{"apiVersion":"apps/v1","kind":"Deployment"}'),
        (str(key("a")), b"not json"),
        (str(key("")), json.dumps(entry("")).encode()),
        (str(key("a")), b"[]"),
        (str(key("a")), json.dumps(entry("other")).encode()),
    ],
)
def test_a_record_that_is_no_output_harms_nothing(name: str, payload: bytes) -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    outputs.replaced(SERVICE_ENTRY, [])

    again = outputs.receive({name: payload, **record("good")}, complete=True)

    assert isinstance(outputs.decide(key("good")), Write)
    assert all(isinstance(outputs.decide(k), Blocked) for k, _ in again if k != key("good"))
    assert outputs.records()[name] == payload
    outputs.receive({name: None}, complete=True)
    assert name not in outputs.records()


def test_records_are_what_the_server_sent() -> None:
    outputs = Outputs("cluster1", "gloo-mesh")
    sent = record("a") | record("b")

    outputs.receive(sent, complete=True)

    assert outputs.records() == sent


def test_the_order_has_a_turn_for_every_output_kind() -> None:
    assert set(OUTPUT_KINDS) <= {turn.kind for turn in OUTPUT_ORDER}


def test_new_before_old_and_hosts_before_rules_and_back() -> None:
    entry_first = write_rank(SERVICE_ENTRY, restricts=False) < write_rank(DESTINATION_RULE, restricts=False)
    rule_first = prune_rank(DESTINATION_RULE, restricts=False) < prune_rank(SERVICE_ENTRY, restricts=False)

    assert entry_first
    assert rule_first
    assert max(write_rank(*turn[:1], restricts=turn.restricts) for turn in OUTPUT_ORDER) < min(
        prune_rank(*turn[:1], restricts=turn.restricts) for turn in OUTPUT_ORDER
    )


def test_allow_before_deny_and_back() -> None:
    def policy(**spec: Any) -> Manifest:
        return {"kind": "AuthorizationPolicy", "spec": spec}

    assert not restricts(policy(rules=[{}]))
    assert restricts(policy())
    assert restricts(policy(action="DENY", rules=[{}]))
    allow = write_rank(AUTHORIZATION_POLICY, restricts=False)
    assert allow < write_rank(AUTHORIZATION_POLICY, restricts=True)
    assert prune_rank(AUTHORIZATION_POLICY, restricts=True) < prune_rank(AUTHORIZATION_POLICY, restricts=False)
