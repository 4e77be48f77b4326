"""Watches: where they start, what they say, how they end, and what happens when the past is gone."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from tests.contract.server import HISTORY, Server, until

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


class Maps:
    """The ConfigMaps of a namespace of their own."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.namespace = server.new_namespace()
        self.path = f"/api/v1/namespaces/{self.namespace}/configmaps"

    def create(self, name: str, **metadata: Any) -> dict[str, Any]:
        answer = self.server.http.post(self.path, json={"metadata": {"name": name, **metadata}})
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def patch(self, name: str, patch: dict[str, Any]) -> dict[str, Any]:
        headers = {"content-type": "application/merge-patch+json"}
        answer = self.server.http.patch(f"{self.path}/{name}", json=patch, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def delete(self, name: str) -> None:
        answer = self.server.http.delete(f"{self.path}/{name}")
        assert answer.status_code == 200, answer.text

    def version(self) -> str:
        """The resourceVersion of a list, from which a watch sees everything later."""
        return str(self.server.http.get(self.path).json()["metadata"]["resourceVersion"])


@pytest.fixture
def maps(server: Server) -> Maps:
    return Maps(server)


def version_of(manifest: dict[str, Any]) -> int:
    return int(manifest["metadata"]["resourceVersion"])


def test_every_change_in_order(server: Server, maps: Maps) -> None:
    """From a list's version on, each change is one event with the object as it then was."""
    with server.watch(maps.path, resourceVersion=maps.version()) as events:
        maps.create("a")
        maps.patch("a", {"data": {"k": "v"}})
        maps.create("b")
        maps.delete("a")
        seen = [events.next_change() for _ in range(4)]

    assert [(kind, item["metadata"]["name"]) for kind, item in seen] == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    assert "data" not in seen[0][1]
    assert seen[1][1]["data"] == seen[3][1]["data"] == {"k": "v"}
    versions = [version_of(item) for _, item in seen]
    assert versions == sorted(versions)
    assert len(set(versions)) == 4
    assert seen[0][1]["kind"] == "ConfigMap"
    assert seen[0][1]["apiVersion"] == "v1"


def test_resume_after_an_event(server: Server, maps: Maps) -> None:
    """A watch from an event's version continues right behind it."""
    first = maps.create("a")
    maps.create("b")
    maps.delete("a")

    with server.watch(maps.path, resourceVersion=first["metadata"]["resourceVersion"]) as events:
        seen = [events.next_change() for _ in range(2)]

    assert [(kind, item["metadata"]["name"]) for kind, item in seen] == [("ADDED", "b"), ("DELETED", "a")]


def test_without_version_starts_with_what_exists(server: Server, maps: Maps) -> None:
    """Existing objects come as ADDED first."""
    maps.create("a")
    maps.create("b")

    with server.watch(maps.path) as events:
        seen = [events.next_change() for _ in range(2)]
        maps.create("c")
        seen.append(events.next_change())

    assert sorted(item["metadata"]["name"] for _, item in seen[:2]) == ["a", "b"]
    assert [kind for kind, _ in seen] == ["ADDED"] * 3
    assert seen[2][1]["metadata"]["name"] == "c"


def test_unchanged_object_is_no_event(server: Server, maps: Maps) -> None:
    """A write that changes nothing wakes nobody."""
    maps.create("a")

    with server.watch(maps.path, resourceVersion=maps.version()) as events:
        maps.patch("a", {"metadata": {"labels": None}})
        maps.create("b")
        kind, item = events.next_change()

    assert (kind, item["metadata"]["name"]) == ("ADDED", "b")


def test_label_selector_turns_changes_into_comings_and_goings(server: Server, maps: Maps) -> None:
    """An object that starts or stops to match is ADDED or DELETED for this watcher."""
    with server.watch(maps.path, resourceVersion=maps.version(), labelSelector="x=1") as events:
        maps.create("a")
        maps.patch("a", {"metadata": {"labels": {"x": "1"}}})
        maps.patch("a", {"data": {"k": "v"}})
        maps.patch("a", {"metadata": {"labels": {"x": "2"}}})
        maps.delete("a")
        maps.create("b", labels={"x": "1"})
        seen = [events.next_change() for _ in range(4)]

    assert [(kind, item["metadata"]["name"]) for kind, item in seen] == [
        ("ADDED", "a"),
        ("MODIFIED", "a"),
        ("DELETED", "a"),
        ("ADDED", "b"),
    ]


def test_one_object_by_name(server: Server, maps: Maps) -> None:
    """A field selector on the name watches one object."""
    with server.watch(maps.path, resourceVersion=maps.version(), fieldSelector="metadata.name=b") as events:
        maps.create("a")
        maps.create("b")
        kind, item = events.next_change()

    assert (kind, item["metadata"]["name"]) == ("ADDED", "b")


def test_all_namespaces(server: Server, maps: Maps) -> None:
    """The collection without a namespace carries every namespace's events; one with a namespace its own only."""
    other = Maps(server)
    with (
        server.watch("/api/v1/configmaps", resourceVersion=maps.version(), labelSelector="w=all") as everywhere,
        server.watch(maps.path, resourceVersion=maps.version()) as here,
    ):
        other.create("a", labels={"w": "all"})
        maps.create("b", labels={"w": "all"})
        seen = [everywhere.next_change()[1]["metadata"] for _ in range(2)]
        mine = here.next_change()[1]["metadata"]

    assert [(found["namespace"], found["name"]) for found in seen] == [(other.namespace, "a"), (maps.namespace, "b")]
    assert mine["name"] == "b"


def test_time_is_up(server: Server, maps: Maps) -> None:
    """timeoutSeconds ends the stream in an orderly way; with bookmarks the last line says where to resume."""
    version = maps.version()
    with server.watch(maps.path, resourceVersion=version, timeoutSeconds="1") as events:
        assert events.rest() == []
    with server.watch(maps.path, resourceVersion=version, timeoutSeconds="3", allowWatchBookmarks="true") as events:
        maps.create("a")
        seen = events.rest()

    assert seen[0]["type"] == "ADDED"
    bookmark = seen[-1]
    assert bookmark["type"] == "BOOKMARK"
    assert bookmark["object"]["kind"] == "ConfigMap"
    assert version_of(bookmark["object"]) >= version_of(seen[0]["object"])
    with server.watch(maps.path, resourceVersion=bookmark["object"]["metadata"]["resourceVersion"]) as events:
        maps.create("b")
        kind, item = events.next_change()
    assert (kind, item["metadata"]["name"]) == ("ADDED", "b")


def test_version_not_a_number(server: Server, maps: Maps) -> None:
    """A garbled version is refused."""
    answer = server.http.get(maps.path, params={"watch": "true", "resourceVersion": "abc", "timeoutSeconds": "1"})

    assert answer.status_code in (400, 500)
    assert answer.json()["status"] == "Failure"


def test_past_is_gone(server: Server, maps: Maps) -> None:
    """A version whose history the server no longer keeps is answered by one ERROR event with code 410."""
    maps.create("a")
    for number in range(HISTORY + 1):
        maps.patch("a", {"data": {"n": str(number)}})

    with server.watch(maps.path, resourceVersion="1") as events:
        [event] = events.rest()

    assert events.code == 200
    assert event["type"] == "ERROR"
    assert event["object"]["kind"] == "Status"
    assert event["object"]["code"] == 410
    assert event["object"]["reason"] == "Expired"
    assert event["object"]["message"].startswith("too old resource version: 1 (")


def test_version_of_the_future(server: Server, maps: Maps) -> None:
    """A version that is yet to come is waited for in silence."""
    with server.watch(maps.path, resourceVersion="999999999999", timeoutSeconds="1") as events:
        maps.create("a")

        assert events.rest() == []


def test_tables(server: Server, maps: Maps) -> None:
    """``kubectl get -w`` asks for events as tables."""
    headers = {"accept": TABLE}
    params = {"watch": "true", "resourceVersion": maps.version(), "timeoutSeconds": "20"}
    with server.http.stream("GET", maps.path, params=params, headers=headers) as response:
        maps.create("a")
        event = json.loads(next(response.iter_lines()))

    assert event["type"] == "ADDED"
    assert event["object"]["kind"] == "Table"
    assert event["object"]["columnDefinitions"][0]["name"] == "Name"
    [row] = event["object"]["rows"]
    assert row["cells"][0] == "a"
    assert row["object"]["kind"] == "PartialObjectMetadata"


def test_metadata_only(server: Server, maps: Maps) -> None:
    """A watcher may ask for metadata alone."""
    params = {"watch": "true", "resourceVersion": maps.version(), "timeoutSeconds": "20"}
    with server.http.stream("GET", maps.path, params=params, headers={"accept": METADATA}) as response:
        maps.create("a")
        event = json.loads(next(response.iter_lines()))

    assert event["object"]["kind"] == "PartialObjectMetadata"
    assert event["object"]["metadata"]["name"] == "a"


def test_deletion_with_finalizer(server: Server, maps: Maps) -> None:
    """Marking for deletion is a change; the object goes when its last finalizer does."""
    maps.create("a", finalizers=["example.com/hold"])
    with server.watch(maps.path, resourceVersion=maps.version()) as events:
        maps.delete("a")
        maps.patch("a", {"metadata": {"finalizers": None}})
        seen = [events.next_change() for _ in range(2)]

    assert [kind for kind, _ in seen] == ["MODIFIED", "DELETED"]
    assert "deletionTimestamp" in seen[0][1]["metadata"]


def test_many_watchers_see_the_same(server: Server, maps: Maps) -> None:
    """Each of several watchers gets each event."""
    version = maps.version()
    results: list[list[str]] = []

    def follow() -> None:
        with server.watch(maps.path, resourceVersion=version) as events:
            results.append([events.next_change()[1]["metadata"]["name"] for _ in range(5)])

    watchers = [threading.Thread(target=follow) for _ in range(4)]
    for watcher in watchers:
        watcher.start()
    for number in range(5):
        maps.create(f"m{number}")
    for watcher in watchers:
        watcher.join(20)

    assert results == [[f"m{number}" for number in range(5)]] * 4


def test_initial_events_end_with_a_bookmark(server: Server, maps: Maps) -> None:
    """sendInitialEvents streams what exists and marks the end of it."""
    maps.create("a")
    query = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan", "allowWatchBookmarks": "true"}
    with server.watch(maps.path, **query) as events:
        first, mark = events.next(), events.next()

    assert (first["type"], first["object"]["metadata"]["name"]) == ("ADDED", "a")
    assert mark["type"] == "BOOKMARK"
    assert mark["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


def test_watch_of_a_custom_kind_in_each_version(server: Server) -> None:
    """A change through one version reaches the watchers of every version, each in its own."""
    group = f"{server.new_name('g')}.example.com"
    version = {"served": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
    names = {"plural": "cogs", "kind": "Cog"}
    versions = [{"name": "v1", "storage": True, **version}, {"name": "v1beta1", "storage": False, **version}]
    spec = {"group": group, "scope": "Cluster", "names": names, "versions": versions}
    definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    answer = server.http.post(definitions, json={"metadata": {"name": f"cogs.{group}"}, "spec": spec})
    assert answer.status_code == 201, answer.text
    older = f"/apis/{group}/v1beta1/cogs"
    until("the kind is served", lambda: server.http.get(older).status_code == 200)

    start = server.http.get(older).json()["metadata"]["resourceVersion"]
    with (
        server.watch(f"/apis/{group}/v1/cogs", resourceVersion=start) as new,
        server.watch(older, resourceVersion=start) as old,
    ):
        cog = {"apiVersion": f"{group}/v1beta1", "kind": "Cog", "metadata": {"name": "a"}}
        created = until("created", lambda: server.http.post(older, json=cog).status_code == 201)
        seen = [events.next_change() for events in (new, old)]
    server.http.delete(f"{definitions}/cogs.{group}")

    assert created
    assert [item["apiVersion"] for _, item in seen] == [f"{group}/v1", f"{group}/v1beta1"]
