"""Label and field selectors of requests.

Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import orjson

from isthmus.embedded.errors import bad_request
from isthmus.embedded.resources import Resource
from isthmus.embedded.store import Stored

_REQUIREMENT = re.compile(
    r"""\s*(?:
        (?P<absent>!)\s*(?P<absent_key>[^\s=!,()<>]+)
      | (?P<key>[^\s=!,()<>]+)\s*(?:
            (?P<set_operator>in|notin)\s*\((?P<set>[^()]*)\)
          | (?P<operator>==|=|!=|>|<)\s*(?P<value>[^\s=!,()<>]*)
        )?
    )\s*(?:,|$)""",
    re.VERBOSE,
)

Predicate = Callable[[Mapping[str, str]], bool]


class Selector(msgspec.Struct, frozen=True):
    """What a request asks for: predicates on labels, and (path, value, equal) on fields."""

    labels: tuple[Predicate, ...] = ()
    fields: tuple[tuple[str, str, bool], ...] = ()

    @property
    def empty(self) -> bool:
        return not self.labels and not self.fields

    def matches(self, stored: Stored) -> bool:
        if not all(predicate(stored.labels) for predicate in self.labels):
            return False
        manifest: dict[str, Any] | None = None
        for path, value, equal in self.fields:
            if path == "metadata.name":
                found = stored.name
            elif path == "metadata.namespace":
                found = stored.namespace
            else:
                manifest = manifest or orjson.loads(stored.bare())
                found = _text_at(manifest, path)
            if (found == value) is not equal:
                return False
        return True


def parse_selector(resource: Resource, labels: str, fields: str) -> Selector:
    """The selector of a request on *resource*. Raises ApiError 400 on what the real server refuses."""
    return Selector(parse_labels(labels) if labels else (), _parse_fields(resource, fields) if fields else ())


def parse_labels(text: str) -> tuple[Predicate, ...]:
    predicates: list[Predicate] = []
    at = 0
    while at < len(text):
        found = _REQUIREMENT.match(text, at)
        if found is None or found.end() == at:
            raise bad_request(f"unable to parse requirement: found '{text[at:]}'")
        at = found.end()
        predicates.append(_predicate(found))
    return tuple(predicates)


def _predicate(found: re.Match[str]) -> Predicate:
    if found["absent"]:
        key = found["absent_key"]
        return lambda labels: key not in labels
    key = found["key"]
    if found["set_operator"]:
        values = {value.strip() for value in found["set"].split(",")}
        if found["set_operator"] == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: key not in labels or labels[key] not in values
    operator, value = found["operator"], found["value"]
    if operator in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    if operator == ">":
        return lambda labels: labels.get(key, "").isdigit() and int(labels[key]) > int(value)
    if operator == "<":
        return lambda labels: labels.get(key, "").isdigit() and int(labels[key]) < int(value)
    return lambda labels: key in labels


def _parse_fields(resource: Resource, text: str) -> tuple[tuple[str, str, bool], ...]:
    known = {"metadata.name", *resource.selectable}
    if resource.namespaced or not resource.custom:
        known.add("metadata.namespace")
    wanted = []
    for term in text.split(","):
        if not term:
            continue
        found = re.fullmatch(r"([^=!]+)(==|=|!=)(.*)", term)
        if found is None:
            raise bad_request(f"invalid selector: '{term}'; can't understand '{term}'")
        if found[1] not in known:
            raise bad_request(f"field label not supported: {found[1]}")
        wanted.append((found[1], found[3], found[2] != "!="))
    return tuple(wanted)


def _text_at(manifest: dict[str, Any], path: str) -> str:
    value: Any = manifest
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
