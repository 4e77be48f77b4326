"""Patches: the examples of the standards, and strategic merge of kubectl's directives."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded.errors import ApiError
from isthmus.embedded.patches import json_patch, merge_patch, strategic_merge_patch
from isthmus.embedded.shapes import built_in_shape

SHAPE = built_in_shape("Pod")


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    """The examples of RFC 7386, appendix A."""
    assert merge_patch(target, patch) == result


JSON = st.recursive(
    st.booleans() | st.integers(0, 3) | st.sampled_from("ab"),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.dictionaries(st.sampled_from("abc"), JSON))
def test_patches_leave_their_inputs_alone(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """A patch makes a new object."""
    before = copy.deepcopy((target, patch))

    merge_patch(target, patch)
    strategic_merge_patch(target, patch, SHAPE)

    assert (target, patch) == before


@given(st.dictionaries(st.sampled_from("abc"), JSON), st.dictionaries(st.sampled_from("abc"), JSON))
def test_strategic_merge_without_keyed_lists_is_a_merge_patch(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """Where no list has a key the two formats say the same."""
    assert strategic_merge_patch(target, patch, SHAPE) == merge_patch(target, patch)


@pytest.mark.parametrize("operations", [[{"op": "no"}], [{}], 5, [5], [{"op": "add", "path": "x", "value": 1}]])
def test_broken_json_patch_is_refused(operations: Any) -> None:
    """Whatever is not a JSON patch is the client's mistake."""
    with pytest.raises(ApiError) as refusal:
        json_patch({"a": 1}, operations)

    assert refusal.value.code in (400, 422)


def test_json_patch_of_the_whole_object() -> None:
    """An object cannot be replaced by something that is none."""
    with pytest.raises(ApiError):
        json_patch({"a": 1}, [{"op": "replace", "path": "", "value": 5}])


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ([{"name": "a", "image": "1"}], [{"name": "a", "image": "2"}], [{"name": "a", "image": "2"}]),
        ([{"name": "a"}, {"name": "b"}], [{"name": "a", "$patch": "delete"}], [{"name": "b"}]),
        ([{"name": "a"}], [{"name": "none", "$patch": "delete"}], [{"name": "a"}]),
        ([{"name": "a"}], [{"$patch": "replace"}, {"name": "b"}], [{"name": "b"}]),
        (
            [{"name": "a"}],
            [{"name": "b", "env": [{"name": "X"}]}],
            [{"name": "b", "env": [{"name": "X"}]}, {"name": "a"}],
        ),
        (None, [{"name": "a"}], [{"name": "a"}]),
    ],
)
def test_strategic_merge_of_containers(target: Any, patch: Any, result: Any) -> None:
    """Containers are merged by name; directives delete or replace."""
    pod = {"spec": {"containers": target} if target is not None else {}}

    assert strategic_merge_patch(pod, {"spec": {"containers": patch}}, SHAPE)["spec"]["containers"] == result


@pytest.mark.parametrize("patch", [{"spec": {"$patch": "explode"}}, {"spec": {"containers": [{"image": "x"}]}}])
def test_broken_strategic_patch_is_refused(patch: dict[str, Any]) -> None:
    """An unknown directive or an item without its key is the client's mistake."""
    with pytest.raises(ApiError) as refusal:
        strategic_merge_patch({"spec": {"containers": [{"name": "a"}]}}, patch, SHAPE)

    assert refusal.value.code == 400
