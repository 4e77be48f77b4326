"""What is written to the management cluster, and that a restart writes nothing."""

from __future__ import annotations

from isthmus.api.discovery import Destination, DestinationStatus
from isthmus.server.stored import Apply, ApplyStatus, Blocked, Delete, Stored
from tests.unit.server.objects import destination, stored

KIND = Destination.KIND


def test_an_object_that_is_stored_as_it_is_wanted_is_not_written() -> None:
    found = destination("x", "a")
    store = Stored((KIND,))
    store.replaced(KIND, [stored(found)])

    assert store.decide_object(KIND, found.key, found, known=True) is None
    assert isinstance(store.decide_object(KIND, found.key, destination("x", "a", port=9), known=True), Apply)


def test_nothing_is_decided_before_everything_is_read() -> None:
    found = destination("x", "a")

    assert Stored((KIND,)).decide_object(KIND, found.key, found, known=True) is None


def test_what_is_gone_is_deleted_once_its_cluster_is_known() -> None:
    found = destination("x", "a")
    store = Stored((KIND,))
    store.replaced(KIND, [stored(found)])

    assert store.decide_object(KIND, found.key, None, known=False) is None
    assert store.decide_object(KIND, found.key, None, known=True) == Delete("uid-x", "1")


def test_a_users_object_is_left_alone() -> None:
    found = destination("x", "a")
    theirs = stored(found)
    theirs["metadata"]["labels"] = {}
    store = Stored((KIND,))
    store.replaced(KIND, [theirs])

    assert isinstance(store.decide_object(KIND, found.key, found, known=True), Blocked)
    assert store.decide_object(KIND, found.key, None, known=True) is None


def test_a_status_speaks_of_the_stored_generation_and_is_written_once() -> None:
    found = destination("x", "a")
    store = Stored((KIND,))
    store.replaced(KIND, [stored(found)])
    status = DestinationStatus(local_fqdn="x.default.svc.cluster.local")

    action = store.decide_status(KIND, found.key, status)
    assert action == ApplyStatus(
        {
            "metadata": {"name": "x", "namespace": "gloo-mesh", "uid": "uid-x"},
            "status": {"localFqdn": "x.default.svc.cluster.local", "observedGeneration": 3},
        }
    )

    store.changed(KIND, stored(found, 2, status=action.manifest["status"]))
    assert store.decide_status(KIND, found.key, status) is None


def test_there_is_no_status_without_its_object() -> None:
    store = Stored((KIND,))
    store.replaced(KIND, [])

    assert store.decide_status(KIND, destination("x", "a").key, DestinationStatus(local_fqdn="x")) is None


def test_old_news_are_no_news() -> None:
    found = destination("x", "a")
    store = Stored((KIND,))
    store.replaced(KIND, [])

    assert store.changed(KIND, stored(found, 5))
    assert not store.changed(KIND, stored(found, 5))
    assert not store.removed(KIND, stored(found, 4))
    assert store.removed(KIND, stored(found, 6))
