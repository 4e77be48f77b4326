"""Who is older: of several objects that want the same thing, the oldest has it."""

from __future__ import annotations

from isthmus.api.base import Resource

Seniority = tuple[str, str, str]
"""Sorts objects by age: creation time (RFC 3339, so text order is time order), namespace, name."""
STILL_TO_COME = "~"  # sorts behind every time


def seniority(resource: Resource) -> Seniority:
    """How *resource* sorts among others by age. Without a creation time, as in files, it is still to come: youngest."""
    meta = resource.metadata
    return (meta.creation_timestamp or STILL_TO_COME, meta.namespace, meta.name)
