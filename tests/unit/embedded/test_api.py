"""What follows from changes: owners, namespaces, kinds, allocated addresses. No HTTP here."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded import tables
from isthmus.embedded.api import Api, Write
from isthmus.embedded.errors import ApiError
from isthmus.embedded.resources import BUILT_IN
from isthmus.embedded.store import Store
from isthmus.model.kinds import CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, NAMESPACE, SECRET, SERVICE
from isthmus.model.ref import Kind
from tests.unit.embedded.conftest import Door

WIDGET = Kind("example.com", "v1", "Widget", "widgets")


def named(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


def owned_by(*owners: dict[str, Any], block: bool = False) -> dict[str, Any]:
    """Metadata that names *owners*."""
    return {
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "blockOwnerDeletion": block,
            }
            for owner in owners
        ]
    }


def definition(schema: dict[str, Any] | None = None) -> dict[str, Any]:
    names = {"plural": "widgets", "kind": "Widget"}
    schema = {"openAPIV3Schema": schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "example.com", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "widgets.example.com"}, "spec": spec}


async def test_dependents_go_with_their_owner(door: Door) -> None:
    """Background deletion takes a whole chain of owners along."""
    root = door.create(CONFIG_MAP, named("root"))
    middle = door.create(SECRET, named("middle", **owned_by(root)))
    door.create(CONFIG_MAP, named("leaf", **owned_by(middle)))
    door.create(CONFIG_MAP, named("other"))

    door.delete(CONFIG_MAP, "root")

    assert door.names(CONFIG_MAP) == ["other"]
    assert door.names(SECRET) == []


async def test_dependent_of_two_owners_stays_with_the_second(door: Door) -> None:
    """An object goes when its last owner does."""
    first, second = door.create(CONFIG_MAP, named("first")), door.create(CONFIG_MAP, named("second"))
    door.create(CONFIG_MAP, named("shared", **owned_by(first, second)))

    door.delete(CONFIG_MAP, "first")
    assert "shared" in door.names(CONFIG_MAP)

    door.delete(CONFIG_MAP, "second")
    assert door.names(CONFIG_MAP) == []


async def test_orphans_stay(door: Door) -> None:
    """Orphan deletion takes the owner's name off its dependents and leaves them."""
    owner = door.create(CONFIG_MAP, named("owner"))
    door.create(CONFIG_MAP, named("dependent", **owned_by(owner)))

    door.delete(CONFIG_MAP, "owner", propagation="Orphan")

    assert door.names(CONFIG_MAP) == ["dependent"]
    assert "ownerReferences" not in door.get(CONFIG_MAP, "dependent")["metadata"]


async def test_foreground_deletion_waits_for_dependents(door: Door) -> None:
    """The owner stays, marked for deletion, until a dependent that a finalizer holds is gone."""
    owner = door.create(CONFIG_MAP, named("owner"))
    door.create(CONFIG_MAP, named("dependent", finalizers=["example.com/hold"], **owned_by(owner, block=True)))

    door.delete(CONFIG_MAP, "owner", propagation="Foreground")

    waiting = door.get(CONFIG_MAP, "owner")["metadata"]
    assert waiting["finalizers"] == ["foregroundDeletion"]
    assert "deletionTimestamp" in waiting
    door.patch(CONFIG_MAP, "dependent", {"metadata": {"finalizers": None}})
    assert door.names(CONFIG_MAP) == []


async def test_namespace_takes_its_content_along(door: Door) -> None:
    """A namespace is Terminating while something in it is held, refuses new content, and goes with the last object."""
    door.create(NAMESPACE, named("team"))
    door.create(CONFIG_MAP, named("free"), "team")
    door.create(CONFIG_MAP, named("held", finalizers=["example.com/hold"]), "team")

    door.delete(NAMESPACE, "team")

    assert door.get(NAMESPACE, "team")["status"]["phase"] == "Terminating"
    assert door.names(CONFIG_MAP, "team") == ["held"]
    with pytest.raises(ApiError, match="because it is being terminated") as refusal:
        door.create(CONFIG_MAP, named("late"), "team")
    assert refusal.value.code == 403
    assert refusal.value.details["causes"][0]["reason"] == "NamespaceTerminating"
    door.patch(CONFIG_MAP, "held", {"metadata": {"finalizers": None}}, "team")
    assert "team" not in door.names(NAMESPACE, "")
    door.create(NAMESPACE, named("team"))
    door.create(CONFIG_MAP, named("again"), "team")


async def test_held_namespace_goes_with_its_own_finalizer(door: Door) -> None:
    """An empty namespace may be held itself; released, its name is free again."""
    door.create(NAMESPACE, named("team", finalizers=["example.com/hold"]))
    door.delete(NAMESPACE, "team")
    assert door.get(NAMESPACE, "team")["status"]["phase"] == "Terminating"

    door.patch(NAMESPACE, "team", {"metadata": {"finalizers": None}})

    assert "team" not in door.names(NAMESPACE, "")
    door.create(NAMESPACE, named("team"))
    door.create(CONFIG_MAP, named("a"), "team")


async def test_change_and_what_follows_are_one_transaction(tmp_path: Path) -> None:
    """While a namespace and its objects are marked for deletion the file shows none of it, afterwards all."""
    path = tmp_path / "objects.db"
    marked: list[int] = []

    def look() -> str:
        """The server's clock; what another process would find in the file whenever the server looks at it."""
        with closing(sqlite3.connect(path)) as other:
            query = "SELECT count(*) FROM objects WHERE instr(CAST(body AS TEXT), 'deletionTimestamp')"
            marked.append(other.execute(query).fetchone()[0])
        return "2024-01-02T03:04:05Z"

    store = Store(path)
    door = Door(Api(store, clock=look))
    door.create(NAMESPACE, named("team"))
    for number in range(5):
        door.create(CONFIG_MAP, named(f"m{number}", finalizers=["example.com/hold"]), "team")
    marked.clear()

    door.delete(NAMESPACE, "team")
    during = [*marked]
    look()
    store.close()

    assert during == [0] * 6
    assert marked[-1] == 6


async def test_kind_takes_its_objects_along(door: Door) -> None:
    """Deleting a definition ends its objects and their watches; defined again, the kind starts empty."""
    door.create(CUSTOM_RESOURCE_DEFINITION, definition())
    door.create(WIDGET, named("a"))
    watch = door.api.store.watch("widgets.example.com", "", None)

    door.delete(CUSTOM_RESOURCE_DEFINITION, "widgets.example.com")

    assert [(event.deleted, event.object.name) for event in watch.take()] == [(True, "a")]
    assert watch.ended
    with pytest.raises(ApiError) as refusal:
        door.names(WIDGET)
    assert refusal.value.code == 404
    door.create(CUSTOM_RESOURCE_DEFINITION, definition())
    assert door.names(WIDGET) == []


async def test_changed_definition_holds_for_later_writes(door: Door) -> None:
    """A new schema validates what is written from then on and leaves what is stored."""
    door.create(CUSTOM_RESOURCE_DEFINITION, definition())
    door.create(WIDGET, named("old") | {"spec": {"size": "large"}})
    spec = {"type": "object", "properties": {"size": {"type": "integer"}}}
    strict = definition({"type": "object", "properties": {"spec": spec}})

    door.patch(CUSTOM_RESOURCE_DEFINITION, "widgets.example.com", {"spec": strict["spec"]})

    assert door.get(WIDGET, "old")["spec"] == {"size": "large"}
    with pytest.raises(ApiError, match=r"spec\.size in body must be of type integer"):
        door.create(WIDGET, named("new") | {"spec": {"size": "large"}})


async def test_addresses_are_unique_also_after_a_restart() -> None:
    """No two Services share a cluster IP or node port; freed ones may be used again; a restart forgets none."""
    store = Store()
    door = Door(Api(store))
    spec = {"type": "NodePort", "ports": [{"port": 80}]}
    for number in range(20):
        door.create(SERVICE, named(f"s{number}") | {"spec": spec})
    door.delete(SERVICE, "s3")

    door = Door(Api(store))
    for number in range(20, 30):
        door.create(SERVICE, named(f"s{number}") | {"spec": spec})

    specs = [door.get(SERVICE, name)["spec"] for name in door.names(SERVICE)]
    addresses = [spec["clusterIP"] for spec in specs]
    ports = [port["nodePort"] for spec in specs for port in spec["ports"] if "nodePort" in port]
    assert len(set(addresses)) == len(addresses) == 30  # with the server's own
    assert len(set(ports)) == len(ports) == 29


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 70000) | st.sampled_from(["", "a", "None", "LoadBalancer", "A B"]),
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["name", "a", "type"]), below, max_size=2)
    ),
    max_leaves=4,
)
FIELDS = (
    "ports",
    "selector",
    "template",
    "containers",
    "type",
    "clusterIP",
    "replicas",
    "strategy",
    "versions",
    "names",
)
SPECS = st.dictionaries(st.sampled_from(FIELDS), JUNK, max_size=4)
BODIES = st.fixed_dictionaries(
    {"metadata": st.fixed_dictionaries({"name": st.just("a")}, optional={"labels": JUNK, "finalizers": JUNK})},
    optional={
        "spec": SPECS | JUNK,
        "data": JUNK,
        "type": JUNK,
        "roleRef": JUNK,
        "subjects": JUNK,
        "endpoints": JUNK,
        "ports": JUNK,
        "webhooks": JUNK,
    },
)


@given(st.sampled_from(BUILT_IN), BODIES, BODIES)
async def test_nonsense_is_refused_not_broken_on(resource: Any, first: Any, second: Any) -> None:
    """Whatever a client sends, it gets an object, which a table can show, or a refusal that blames the client."""
    api = Api(Store())
    version = resource.versions[0]
    namespace = "default" if resource.namespaced else ""
    steps = (
        lambda: api.create(resource, version, namespace, first, Write()),
        lambda: api.merge(resource, version, namespace, "a", second, Write()),
        lambda: api.apply(resource, version, namespace, "a", second, Write(manager="me", force=True)),
    )

    for step in steps:
        try:
            written = step()
            tables.table(resource, version, [written.object.manifest(resource.served_as(version))], {})
        except ApiError as refusal:
            assert 400 <= refusal.code < 500 or "duplicate entries" in refusal.message  # noqa: PT017
