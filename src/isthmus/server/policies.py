"""What users wrote on the management cluster, read into typed objects. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from isthmus.api.base import Resource
from isthmus.api.parse import ParseFailure, parse
from isthmus.model.ref import Kind, ObjectKey
from isthmus.server.records import CLUSTER_LABEL

Manifest = dict[str, Any]
Changes = dict[ObjectKey, Resource | None]


class Policies:
    """The users' objects of *kinds*.

    One that can't be read any more stays in force as it last could be; one that never could be makes our knowledge
    incomplete, since what it wants kept is unknown.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._objects: dict[Kind, dict[ObjectKey, Resource]] = {kind: {} for kind in kinds}
        self._unread = dict.fromkeys(self._objects)
        self.unreadable: dict[ObjectKey, ParseFailure] = {}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds whose objects are to be told to `replaced`, `changed` and `removed`."""
        return tuple(self._objects)

    def get(self, key: ObjectKey) -> Resource | None:
        """The object in force at *key*."""
        return next((objects[key] for objects in self._objects.values() if key in objects), None)

    def objects(self, kind: Kind) -> tuple[Resource, ...]:
        """The objects of *kind* in force, by key."""
        return tuple(found for _, found in sorted(self._objects[kind].items()))

    def unread(self) -> tuple[Kind, ...]:
        """Kinds that have not been read completely yet."""
        return tuple(self._unread)

    def unknown(self) -> tuple[ObjectKey, ...]:
        """Objects of which no version could be read, sorted."""
        return tuple(sorted(key for key in self.unreadable if self.get(key) is None))

    def replaced(self, kind: Kind, items: Iterable[Manifest]) -> Changes:
        """Take the complete state of *kind*. What changed."""
        changes: Changes = {}
        gone = dict.fromkeys((*self._objects[kind], *(key for key in self.unreadable if key.kind == kind.kind)))
        for item in items:
            if is_users(item):
                gone.pop(key_of(kind, item), None)
                changes |= self.changed(kind, item)
        for key in gone:
            changes |= self._remove(kind, key)
        self._unread.pop(kind, None)
        return changes

    def changed(self, kind: Kind, item: Manifest) -> Changes:
        """Take a new state of one object. What changed, which is nothing if only its status did."""
        key = key_of(kind, item)
        if not is_users(item):
            return self._remove(kind, key)
        found = parse(without_status(item))
        if isinstance(found, ParseFailure):
            self.unreadable[key] = found
            return {}
        self.unreadable.pop(key, None)
        if self._objects[kind].get(key) == found:
            return {}
        self._objects[kind][key] = found
        return {key: found}

    def removed(self, kind: Kind, item: Manifest) -> Changes:
        """Take note that an object is gone. What changed."""
        return self._remove(kind, key_of(kind, item))

    def _remove(self, kind: Kind, key: ObjectKey) -> Changes:
        self.unreadable.pop(key, None)
        return {key: None} if self._objects[kind].pop(key, None) is not None else {}


def is_users(item: Manifest) -> bool:
    """Whether a user wrote *item*, not the server from an agent's report."""
    return CLUSTER_LABEL not in (item["metadata"].get("labels") or {})


def without_status(item: Manifest) -> Manifest:
    """*item* without what we write or what changes with every write."""
    metadata = {
        key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "managedFields")
    }
    return {**{key: value for key, value in item.items() if key != "status"}, "metadata": metadata}


def key_of(kind: Kind, item: Manifest) -> ObjectKey:
    """The identity of *item*, of which *kind* is known."""
    metadata = item["metadata"]
    return ObjectKey(kind.api_version, kind.kind, metadata.get("namespace", ""), metadata["name"])
