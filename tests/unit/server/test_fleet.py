"""What is known of clusters, and that no cluster speaks for another."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.discovery import Destination, DestinationSpec, ExternalService
from isthmus.model.ref import ObjectKey
from isthmus.program.records import WriteReport, encode, report_key
from isthmus.server.fleet import Fleet, cluster_status
from isthmus.server.records import from_stored
from tests.unit.server.objects import destination, record, stored


def fleet_of(*clusters: str) -> Fleet:
    fleet = Fleet("gloo-mesh")
    for name in clusters:
        fleet.register(name, f"uid-{name}")
    return fleet


def test_a_cluster_is_unknown_until_it_has_reported_everything() -> None:
    fleet = fleet_of("a", "b")
    found = destination("x", "a")

    fleet.receive("a", record(found), complete=False)
    assert fleet.unknown() == ("a", "b")
    fleet.receive("a", {}, complete=True)
    fleet.receive("a", {}, complete=False)

    assert fleet.unknown() == ("b",)
    assert fleet.get(found.key) == found


def test_a_last_known_state_counts_only_when_all_of_it_was_stored() -> None:
    fleet = fleet_of("a", "b")

    fleet.load("a", [destination("x", "a")], complete=True)
    fleet.load("b", [destination("y", "b")], complete=False)

    assert fleet.unknown() == ("b",)


def test_a_report_is_not_overwritten_by_the_last_known_state() -> None:
    fleet = fleet_of("a")
    fleet.receive("a", record(destination("x", "a", port=1)), complete=True)

    assert not fleet.load("a", [destination("x", "a", port=2)], complete=True).objects
    assert fleet.get(destination("x", "a").key) == destination("x", "a", port=1)


def test_stored_and_read_back_an_object_gives_the_bytes_of_its_agent() -> None:
    """Otherwise every restart of the server would have all agents send everything again."""
    found = destination("x", "a")
    fleet = fleet_of("a")

    back = from_stored(Destination.KIND, stored(found, status={"localFqdn": "x"}))
    assert back is not None
    fleet.load("a", [back], complete=True)

    assert fleet.clusters["a"].records == record(found)


@pytest.mark.parametrize(
    "evil",
    [
        destination("x", "b"),
        destination("x", "a", namespace="kube-system"),
        msgspec.structs.replace(
            destination("x", "a"), spec=DestinationSpec(external_service=ExternalService(name="x", hosts=("x",)))
        ),
        msgspec.structs.replace(
            destination("x", "a"), metadata=msgspec.structs.replace(destination("x", "a").metadata, labels={})
        ),
    ],
    ids=["another cluster", "another namespace", "a user's kind of object", "without labels"],
)
def test_what_an_agent_says_for_others_is_refused(evil: Destination) -> None:
    fleet = fleet_of("a", "b")

    change = fleet.receive("a", record(evil), complete=True)

    assert not change.objects
    assert fleet.get(evil.key) is None
    assert list(fleet.clusters["a"].bad) == [str(evil.key)]


@pytest.mark.parametrize(
    "key", ["", "a|b", "v1|Secret|gloo-mesh|x", str(destination("", "a").key), "isthmus|WriteReport||x"]
)
def test_a_record_of_no_known_kind_is_refused_and_held(key: str) -> None:
    """Held, so that it is not sent again on every connection."""
    fleet = fleet_of("a")

    fleet.receive("a", {key: b"{}"}, complete=True)
    assert list(fleet.clusters["a"].bad) == [key]
    assert fleet.clusters["a"].records == {key: b"{}"}

    fleet.receive("a", {key: None}, complete=True)
    assert not fleet.clusters["a"].bad
    assert not fleet.clusters["a"].records


def test_the_last_readable_version_stays_in_force() -> None:
    fleet = fleet_of("a")
    found = destination("x", "a")
    fleet.receive("a", record(found), complete=True)

    fleet.receive("a", {str(found.key): b'{"spec": 7}'}, complete=True)

    assert fleet.get(found.key) == found


def test_two_clusters_that_claim_one_name_end_the_same_whoever_came_first() -> None:
    one, two = destination("x", "a", port=1), destination("x", "b", port=2)
    ends = []
    for order in ([("a", one), ("b", two)], [("b", two), ("a", one)]):
        fleet = fleet_of("a", "b")
        for cluster, found in order:
            fleet.receive(cluster, record(found), complete=True)
        ends.append(fleet.get(one.key))

    assert ends == [one, one]


def test_the_other_claim_counts_when_the_first_is_gone() -> None:
    one, two = destination("x", "a", port=1), destination("x", "b", port=2)
    fleet = fleet_of("a", "b")
    fleet.receive("b", record(two), complete=True)
    fleet.receive("a", record(one), complete=True)

    assert fleet.receive("a", {str(one.key): None}, complete=True).objects == {one.key: two}
    assert fleet.receive("b", {str(two.key): None}, complete=True).objects == {one.key: None}


def test_deregistration_forgets_everything() -> None:
    fleet = fleet_of("a")
    found, output = destination("x", "a"), ObjectKey("v1", "K", "n", "o")
    fleet.receive("a", record(found) | {report_key(output): encode(WriteReport("no"))}, complete=True)

    change = fleet.deregister("a")

    assert change.objects == {found.key: None}
    assert change.reports == {output: None}
    assert not fleet.clusters


def test_a_new_registration_of_a_name_starts_anew() -> None:
    fleet = fleet_of("a")
    found = destination("x", "a")
    fleet.receive("a", record(found), complete=True)

    assert fleet.register("a", "uid-a") is None
    change = fleet.register("a", "another uid")

    assert change is not None
    assert change.objects == {found.key: None}
    assert fleet.unknown() == ("a",)


def test_write_reports_come_and_go() -> None:
    fleet = fleet_of("a")
    output = ObjectKey("networking.istio.io/v1beta1", "ServiceEntry", "istio-system", "x")

    came = fleet.receive("a", {report_key(output): encode(WriteReport("conflict"))}, complete=True)
    went = fleet.receive("a", {report_key(output): None}, complete=True)

    assert came.reports == {output: "conflict"}
    assert went.reports == {output: None}
    assert not fleet.clusters["a"].reports


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from("xyz"), st.none() | st.integers(1, 3)),
        max_size=30,
    )
)
def test_changes_add_up_to_the_state(history: list[tuple[str, str, int | None]]) -> None:
    """Who follows the changes knows what `get` tells, in whatever order clusters claim names."""
    fleet = fleet_of("a", "b", "c")
    followed: dict[ObjectKey, object] = {}
    last: dict[tuple[str, str], int] = {}
    for cluster, name, port in history:
        found = destination(name, cluster, port=port or 1)
        change = fleet.receive(cluster, record(found) if port else {str(found.key): None}, complete=True)
        followed |= change.objects
        if port:
            last[name, cluster] = port
        else:
            last.pop((name, cluster), None)

    for name in "xyz":
        key = destination(name, "a").key
        first = min((cluster for n, cluster in last if n == name), default=None)
        expected = destination(name, first, port=last[name, first]) if first else None
        assert fleet.get(key) == expected
        assert followed.get(key) == expected


def test_a_registration_says_whether_its_agent_is_there() -> None:
    """Never there, there, gone: each has its own state and words, and none is taken for another."""
    cluster = fleet_of("cluster1").clusters["cluster1"]

    seen = []
    for connected, lost in ((False, ""), (True, ""), (False, "nothing was heard for 12 seconds"), (True, "before")):
        cluster.connected, cluster.lost = connected, lost
        (entry,) = cluster_status(cluster, 3).status
        seen.append((entry.state.value, entry.message, entry.observed_generation))

    assert seen == [
        ("PENDING", "no agent has connected since the server started", 3),
        ("ACCEPTED", "agent connected", 3),
        ("FAILED", "agent not connected: nothing was heard for 12 seconds", 3),
        ("ACCEPTED", "agent connected", 3),
    ]
