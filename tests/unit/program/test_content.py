"""Digests tell content from what the API server fills in."""

from __future__ import annotations

from typing import Any

from isthmus.program.content import content_digest, newer

OBJECT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "X",
    "metadata": {"name": "a", "labels": {"x": "1", "y": "2"}},
    "spec": {"hosts": ["a", "b"], "ports": {"http": 1}},
}


def test_what_the_server_fills_in_is_no_content() -> None:
    stored = {
        **OBJECT,
        "metadata": {**OBJECT["metadata"], "uid": "u", "resourceVersion": "7", "annotations": {}},
        "status": {"state": "x"},
    }

    assert content_digest(stored) == content_digest(OBJECT)


def test_the_order_of_keys_is_no_content_but_that_of_items_is() -> None:
    turned = {**OBJECT, "metadata": {"labels": {"y": "2", "x": "1"}, "name": "a"}}
    swapped = {**OBJECT, "spec": {**OBJECT["spec"], "hosts": ["b", "a"]}}

    assert content_digest(turned) == content_digest(OBJECT)
    assert content_digest(swapped) != content_digest(OBJECT)


def test_labels_annotations_and_spec_are_content() -> None:
    for metadata in ({"labels": {"x": "1"}}, {**OBJECT["metadata"], "annotations": {"a": "b"}}):
        assert content_digest({**OBJECT, "metadata": metadata}) != content_digest(OBJECT)
    assert content_digest({**OBJECT, "data": {}}) != content_digest(OBJECT)


def test_resource_versions_compare_as_numbers() -> None:
    assert newer("10", "9")
    assert not newer("9", "10")
    assert not newer("9", "9")
    assert newer("x", "9")
