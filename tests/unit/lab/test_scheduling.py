"""Pods go to nodes that take them, and replicas apart."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.scheduling import choose_node, takes, waits

Manifest = dict[str, Any]


def node(name: str, *, unschedulable: bool = False, **labels: str) -> Manifest:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"unschedulable": unschedulable}}


def pod(name: str, owner: str = "", on: str = "", *, kind: str = "ReplicaSet", **spec: Any) -> Manifest:
    owners = [{"uid": owner, "kind": kind, "controller": True}] if owner else []
    return {
        "metadata": {"name": name, "uid": name, "namespace": "shop", "ownerReferences": owners},
        "spec": {**({"nodeName": on} if on else {}), **spec},
    }


A, B = node("a", zone="east"), node("b", zone="west")


def required(*terms: Manifest) -> Manifest:
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": list(terms)}}}


@given(st.lists(st.sampled_from("xyz"), max_size=12))
def test_replicas_spread_evenly(owners: list[str]) -> None:
    pods: list[Manifest] = []

    for number, owner in enumerate(owners):
        name = f"{owner}-{number}"
        pods.append(pod(name, owner, choose_node(pod(name, owner), [A, B], pods) or ""))

    for owner in "xyz":
        places = [each["spec"]["nodeName"] for each in pods if each["metadata"]["ownerReferences"][0]["uid"] == owner]
        assert abs(places.count("a") - places.count("b")) <= 1


def test_among_equals_the_emptier_node_then_the_first() -> None:
    assert choose_node(pod("p", "x"), [B, A], []) == "a"
    assert choose_node(pod("p", "x"), [A, B], [pod("other", "y", "a")]) == "b"


def test_pods_that_end_do_not_count() -> None:
    ended = {**pod("e", "x", "a"), "status": {"phase": "Succeeded"}}
    ending = pod("f", "x", "a")
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"

    assert choose_node(pod("p", "x"), [A, B], [ended, ending, pod("g", "z", "b")]) == "a"


def test_node_selector() -> None:
    assert choose_node(pod("p", nodeSelector={"zone": "west"}), [A, B], []) == "b"
    assert choose_node(pod("p", nodeSelector={"zone": "north"}), [A, B], []) is None


@pytest.mark.parametrize(
    ("term", "fits"),
    [
        ({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["east", "north"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["east"]}]}, False),
        ({"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "zone", "operator": "DoesNotExist"}]}, False),
        ({"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["3"]}]}, True),
        ({"matchExpressions": [{"key": "size", "operator": "Lt", "values": ["3"]}]}, False),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}, True),
        ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}, False),
        ({}, False),
    ],
)
def test_required_affinity(term: Manifest, fits: bool) -> None:
    assert takes(node("a", zone="east", size="4"), pod("p", affinity=required(term))) is fits


def test_one_of_several_terms_is_enough() -> None:
    west = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["west"]}]}
    east = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["east"]}]}

    assert takes(A, pod("p", affinity=required(west, east)))


def test_a_cordoned_node_takes_only_what_belongs_to_it() -> None:
    cordoned = node("a", unschedulable=True)

    assert not takes(cordoned, pod("p", "x"))
    assert takes(cordoned, pod("p", "x", kind="DaemonSet"))


def test_who_waits_for_this_scheduler() -> None:
    ending = pod("e")
    ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"

    assert waits(pod("p"))
    assert not waits(pod("p", on="a"))
    assert not waits(pod("p", schedulerName="other"))
    assert not waits(pod("p", schedulingGates=[{"name": "g"}]))
    assert not waits(ending)
