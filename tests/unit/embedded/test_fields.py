"""Ownership of fields: laws that hold for whatever managers apply."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded import fields
from isthmus.embedded.errors import ApiError
from isthmus.embedded.fields import Manager, Owners, read_owners, shown_path, write_owners
from isthmus.embedded.shapes import ANY, Shape, built_in_shape, shape_of_schema

NOW = "2024-01-02T03:04:05Z"
MAPS = built_in_shape("ConfigMap")
CONFIGS = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("12"), max_size=4).map(lambda data: {"data": data})
PARTS = Shape(
    fields={
        "parts": Shape(keys=("name",), items=ANY),
        "tags": Shape(is_set=True),
    }
)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "parts": st.lists(
            st.fixed_dictionaries({"name": st.sampled_from("abc")}, optional={"v": st.sampled_from("12")}),
            unique_by=lambda part: part["name"],
        ),
        "tags": st.lists(st.sampled_from("xyz"), unique=True),
        "map": st.dictionaries(st.sampled_from("kl"), st.sampled_from("12")),
    },
)


def applier(name: str) -> Manager:
    return Manager(name, "Apply", "v1")


def applied(
    owners: Owners, live: dict[str, Any], config: dict[str, Any], name: str, shape: Shape, *, force: bool = False
) -> tuple[dict[str, Any], Owners]:
    return fields.apply(owners, live, config, shape, applier(name), force=force, now=NOW)


def plain(manifest: dict[str, Any]) -> dict[str, Any]:
    """Without the metadata, which every manifest has, and without emptied maps and lists."""
    return {name: value for name, value in manifest.items() if name != "metadata" and value not in ({}, [])}


@given(SPECS, SPECS)
def test_applying_twice_changes_nothing(first: dict[str, Any], second: dict[str, Any]) -> None:
    """The same configuration again is no change, whatever lies below."""
    live, owners = applied({}, {}, first, "other", PARTS)
    live, owners = applied(owners, live, second, "me", PARTS, force=True)

    again, same = applied(owners, live, second, "me", PARTS)

    assert again == live
    assert same == owners


@given(SPECS, SPECS)
def test_sole_applier_decides_alone(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Nothing of an earlier configuration stays when its only owner applies another one."""
    live, owners = applied({}, {}, first, "me", PARTS)

    live, _ = applied(owners, live, second, "me", PARTS)

    assert plain(live) == plain(second)


@given(CONFIGS, CONFIGS)
def test_conflict_is_exactly_a_different_value_of_the_same_field(mine: dict[str, Any], yours: dict[str, Any]) -> None:
    """Two appliers conflict on the keys that both set to different values, and on no others."""
    live, owners = applied({}, {}, mine, "me", MAPS)
    expected = sorted(k for k in mine["data"].keys() & yours["data"].keys() if mine["data"][k] != yours["data"][k])

    try:
        live, _ = applied(owners, live, yours, "you", MAPS)
        found = []
    except ApiError as error:
        found = sorted(cause["field"].removeprefix(".data.") for cause in error.details["causes"])

    assert found == expected
    if not expected:
        assert plain(live) == plain({"data": mine["data"] | yours["data"]})


@given(CONFIGS, CONFIGS)
def test_giving_up_leaves_what_others_own(mine: dict[str, Any], yours: dict[str, Any]) -> None:
    """After one of two appliers gives everything up, the other's configuration is what is left."""
    live, owners = applied({}, {}, mine, "me", MAPS)
    live, owners = applied(owners, live, yours, "you", MAPS, force=True)

    live, owners = applied(owners, live, {}, "me", MAPS)

    assert plain(live) == plain(yours)
    assert applier("me") not in owners


@given(SPECS, SPECS)
def test_inputs_are_left_alone(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Applying returns new objects; the live one and the configuration stay as they were."""
    live, owners = applied({}, {}, first, "other", PARTS)
    before = copy.deepcopy((live, second))

    applied(owners, live, second, "me", PARTS, force=True)

    assert (live, second) == before


@given(SPECS, SPECS)
def test_written_owners_read_back(first: dict[str, Any], second: dict[str, Any]) -> None:
    """managedFields say all there is to say."""
    live, owners = applied({}, {}, first, "me", PARTS)
    updater = Manager("you", "Update", "v1", "status")
    owners = fields.after_update(owners, live, {**live, **second}, PARTS, updater, NOW)

    assert read_owners(write_owners(owners)) == owners


def test_broken_managed_fields_are_refused() -> None:
    """A client that sends nonsense as managedFields is told so."""
    with pytest.raises(ApiError, match="managedFields") as refusal:
        read_owners([{"operation": "Apply"}])

    assert refusal.value.code == 400


def test_duplicate_keys_are_refused() -> None:
    """A list that is merged by key may hold each key once."""
    with pytest.raises(ApiError, match=r"duplicate entries for key \[name=\"a\"\]"):
        applied({}, {}, {"parts": [{"name": "a"}, {"name": "a"}]}, "me", PARTS)


def test_shape_of_a_schema() -> None:
    """List and map types of a structural schema decide how values merge."""
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "one": {"type": "object", "x-kubernetes-map-type": "atomic"},
                    "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                    "many": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object"},
                    },
                },
            }
        },
    }
    config = {"spec": {"one": {"a": 1}, "set": ["x"], "many": [{"name": "n", "v": 1}], "list": [1, 2]}}

    paths = {shown_path(path) for path in fields.field_set(config, shape_of_schema(schema))}

    assert paths == {
        ".spec.one",
        '.spec.set[="x"]',
        '.spec.many[name="n"]',
        '.spec.many[name="n"].name',
        '.spec.many[name="n"].v',
        ".spec.list",
    }
