"""What the management cluster has of discovered objects and of statuses, and what is to be written. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from isthmus.api.base import ApiStruct
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.content import content_digest, digest, newer
from isthmus.server.policies import key_of
from isthmus.server.records import CLUSTER_LABEL, DISCOVERED_KINDS, Discovered

Manifest = dict[str, Any]


class Seen(msgspec.Struct, frozen=True):
    """One object as it is stored. *cluster* is that of its agent; empty for what a user wrote."""

    cluster: str
    uid: str
    resource_version: str
    generation: int
    content: bytes
    status: bytes


class Apply(msgspec.Struct, frozen=True):
    """Store *manifest*."""

    manifest: Manifest


class Delete(msgspec.Struct, frozen=True):
    """Delete the object if it still is the one that we know."""

    uid: str
    resource_version: str


class ApplyStatus(msgspec.Struct, frozen=True):
    """Store the status of *manifest*."""

    manifest: Manifest


class Blocked(msgspec.Struct, frozen=True):
    """Nothing can be done, and why."""

    reason: str


class Stored:
    """The objects of *kinds* on the management cluster, as watches and the answers to our writes tell."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._seen: dict[Kind, dict[ObjectKey, Seen]] = {kind: {} for kind in kinds}
        self._unread = dict.fromkeys(self._seen)

    def unread(self) -> tuple[Kind, ...]:
        """Kinds that have not been read completely yet."""
        return tuple(self._unread)

    def get(self, kind: Kind, key: ObjectKey) -> Seen | None:
        """What is known of the object at *key*."""
        return self._seen[kind].get(key)

    def discovered(self) -> Iterator[tuple[ObjectKey, Seen]]:
        """Every stored object that an agent reported."""
        for kind in DISCOVERED_KINDS:
            for key, seen in self._seen[kind].items():
                if seen.cluster:
                    yield key, seen

    def replaced(self, kind: Kind, items: Iterable[Manifest]) -> tuple[ObjectKey, ...]:
        """Take the complete state of *kind*; every key that is or was there."""
        before = self._seen[kind]
        now = self._seen[kind] = {key_of(kind, item): _seen(item) for item in items}
        self._unread.pop(kind, None)
        return tuple(dict.fromkeys((*before, *now)))

    def changed(self, kind: Kind, item: Manifest) -> bool:
        """Take a new state of one object, as the watch or the answer to a write tells it; whether it was new."""
        key = key_of(kind, item)
        before = self._seen[kind].get(key)
        if before is not None and not newer(item["metadata"]["resourceVersion"], before.resource_version):
            return False
        self._seen[kind][key] = _seen(item)
        return True

    def removed(self, kind: Kind, item: Manifest) -> bool:
        """Take note that an object is gone; False if it has been made again since."""
        key = key_of(kind, item)
        before = self._seen[kind].get(key)
        if before is not None and newer(before.resource_version, item["metadata"]["resourceVersion"]):
            return False
        self._seen[kind].pop(key, None)
        return True

    def decide_object(self, kind: Kind, key: ObjectKey, wanted: Discovered | None, *, known: bool) -> Any:
        """What to do about a discovered object: `Apply`, `Delete`, `Blocked` or None.

        *known* tells whether the cluster that reported the stored object has said all it has, or is deregistered;
        before that nothing of it is deleted.
        """
        if kind in self._unread:
            return None
        seen = self._seen[kind].get(key)
        if wanted is None:
            return Delete(seen.uid, seen.resource_version) if seen is not None and seen.cluster and known else None
        if seen is not None and not seen.cluster:
            return Blocked("a user's object has the name of a discovered one; it is left alone")
        manifest = wanted.manifest()
        return None if seen is not None and seen.content == content_digest(manifest) else Apply(manifest)

    def decide_status(self, kind: Kind, key: ObjectKey, status: ApiStruct | None) -> ApplyStatus | None:
        """What to do about the status of an object."""
        seen = self._seen[kind].get(key)
        if seen is None or status is None:
            return None
        written: Manifest = msgspec.json.decode(msgspec.json.encode(status))
        if kind in DISCOVERED_KINDS and seen.generation:
            written["observedGeneration"] = seen.generation
        if seen.status == digest(written):
            return None
        metadata = {"name": key.name, "namespace": key.namespace, "uid": seen.uid}
        return ApplyStatus({"metadata": metadata, "status": written})


def _seen(item: Manifest) -> Seen:
    metadata = item["metadata"]
    return Seen(
        cluster=(metadata.get("labels") or {}).get(CLUSTER_LABEL, ""),
        uid=metadata.get("uid", ""),
        resource_version=metadata["resourceVersion"],
        generation=metadata.get("generation", 0),
        content=content_digest(item),
        status=digest(item.get("status") or {}),
    )
