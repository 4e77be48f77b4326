"""What is wrong with an object of gateways, found where it meets others; statuses gather it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import msgspec

from isthmus.flow import Collection, Fetch, Graph
from isthmus.translate.output import StatusKey


class Weight(IntEnum):
    """How much it matters."""

    ERROR = 0
    LATER = 1
    """Nothing is wrong, and it may still come."""
    WARNING = 2


class Finding(msgspec.Struct, frozen=True, order=True, gc=False):
    """A sentence for the status of *about*."""

    about: StatusKey
    weight: Weight
    message: str


def findings_of(graph: Graph, found: Collection[Any, Any]) -> Collection[tuple[StatusKey, Any], tuple[Finding, ...]]:
    """The findings in every value of *found*, by the object that they are about."""
    return graph.expand(f"findings of {found.name}", found, _by_object)


def _by_object(_: Fetch, key: Any, found: Any) -> Iterator[tuple[tuple[StatusKey, Any], tuple[Finding, ...]]]:
    by_object: dict[StatusKey, list[Finding]] = {}
    for finding in found.findings:
        by_object.setdefault(finding.about, []).append(finding)
    for about, findings in by_object.items():
        yield (about, key), tuple(findings)
