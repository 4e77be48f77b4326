"""Objects of one server, their history, and who watches them; in memory, or in an SQLite file as well.

The store knows neither HTTP nor kinds: a resource is a key, an object its encoded body and what selectors need of it.
Everything here is synchronous and runs in the server's event loop, so each write is atomic to all readers.
"""

from __future__ import annotations

import asyncio
import builtins
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import msgspec
import orjson

from isthmus.model.ref import Kind

HISTORY = 8192
"""Events of one resource that a watch may resume from; older ones answer 410."""
WATCH_BACKLOG = 65536
"""Events a watcher may lag behind before its stream ends; it then resumes or gets 410."""

MAX_OBJECT_BYTES = 3 * 2**19
"""Size of an encoded object from which on etcd refuses it, by its default of 1.5 MiB for a request."""

Name = tuple[str, str]
"""Namespace and name."""


class Stored(msgspec.Struct, frozen=True):
    """One object at one revision. *body* is its JSON without apiVersion and kind and without the opening brace."""

    namespace: str
    name: str
    uid: str
    revision: int
    labels: dict[str, str]
    owners: tuple[str, ...]
    body: bytes

    @classmethod
    def of(cls, manifest: dict[str, Any], revision: int) -> Stored:
        metadata = manifest["metadata"]
        body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
        return cls(
            namespace=metadata.get("namespace", ""),
            name=metadata["name"],
            uid=metadata["uid"],
            revision=revision,
            labels=metadata.get("labels") or {},
            owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
            body=orjson.dumps(body)[1:],
        )

    def encoded(self, kind: Kind) -> bytes:
        """The whole object as JSON in the version of *kind*."""
        return b'{"kind":"%s","apiVersion":"%s",%s' % (kind.kind.encode(), kind.api_version.encode(), self.body)

    def bare(self) -> bytes:
        """The object as JSON without kind and apiVersion, as items of built-in lists are written."""
        return b"{" + self.body

    def manifest(self, kind: Kind) -> dict[str, Any]:
        """A fresh copy of the object as plain data."""
        return {"apiVersion": kind.api_version, "kind": kind.kind, **orjson.loads(b"{" + self.body)}


class Event(msgspec.Struct):
    """A change of one object. *frames* keeps what was encoded for watchers, so that each form is encoded once."""

    revision: int
    object: Stored
    previous: Stored | None
    deleted: bool = False
    frames: dict[Any, bytes] = {}


class Watch:
    """Events of one resource that somebody has still to read."""

    def __init__(self, namespace: str, since: int) -> None:
        self.namespace = namespace
        self.since = since
        """Revision of the last event that the watcher knows; in the future, if the server lost its past."""
        self.events: deque[Event] = deque()
        self.ended = False
        self._wake = asyncio.Event()

    def push(self, event: Event) -> None:
        if event.revision <= self.since or (self.namespace and event.object.namespace != self.namespace):
            return
        if len(self.events) >= WATCH_BACKLOG:
            self.end()
            return
        self.events.append(event)
        self._wake.set()

    def end(self) -> None:
        """Close the stream after what is pending."""
        self.ended = True
        self._wake.set()

    def take(self) -> list[Event]:
        """All pending events."""
        events = list(self.events)
        self.events.clear()
        self._wake.clear()
        if self.ended:
            self._wake.set()
        return events

    async def wait(self, seconds: float | None) -> None:
        """Return when there may be something to take, or after *seconds*."""
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return


class _Shelf:
    """The objects of one resource."""

    def __init__(self) -> None:
        self.objects: dict[Name, Stored] = {}
        self.events: deque[Event] = deque()
        self.compacted = 0
        """Revision up to which history is gone."""
        self.watches: set[Watch] = set()


class TooLarge(Exception):
    """The object is larger than etcd takes."""


class Compacted(Exception):
    """History from the asked revision on is no longer kept; *oldest* is the first that is."""

    def __init__(self, oldest: int) -> None:
        super().__init__(oldest)
        self.oldest = oldest


class Store:
    """All objects of one server, keyed by resource, namespace and name."""

    def __init__(self, path: Path | None = None, *, history: int = HISTORY) -> None:
        self.revision = 1
        self._history = history
        self._shelves: dict[str, _Shelf] = {}
        self._dependents: dict[str, set[tuple[str, Name]]] = {}
        self._uids: dict[str, tuple[str, Name]] = {}
        self._file = None if path is None else _File(path)
        if self._file is not None:
            self._load(self._file)

    def _load(self, file: _File) -> None:
        for resource, revision in file.revisions():
            self._shelf(resource).compacted = revision
            self.revision = max(self.revision, revision)
        for resource, revision, body in file.objects():
            stored = Stored.of(orjson.loads(body), revision)
            self._shelf(resource).objects[stored.namespace, stored.name] = stored
            self._index(resource, None, stored)

    def _shelf(self, resource: str) -> _Shelf:
        shelf = self._shelves.get(resource)
        if shelf is None:
            shelf = self._shelves[resource] = _Shelf()
        return shelf

    def transaction(self) -> AbstractContextManager[None]:
        """Everything written within reaches the file together or, if the process is killed, not at all."""
        return nullcontext() if self._file is None else self._file.transaction()

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        return self._shelf(resource).objects.get((namespace, name))

    def list(self, resource: str, namespace: str = "") -> list[Stored]:
        """All objects of a resource, of one namespace if given, sorted by namespace and name."""
        objects = self._shelf(resource).objects
        if namespace:
            return [objects[key] for key in sorted(key for key in objects if key[0] == namespace)]
        return [objects[key] for key in sorted(objects)]

    def put(self, resource: str, manifest: dict[str, Any]) -> Stored:
        """Write an object; its metadata.resourceVersion becomes the new revision. Raises TooLarge."""
        manifest["metadata"]["resourceVersion"] = str(self.revision + 1)
        stored = Stored.of(manifest, self.revision + 1)
        if len(stored.body) > MAX_OBJECT_BYTES:
            raise TooLarge
        self.revision += 1
        shelf = self._shelf(resource)
        previous = shelf.objects.get((stored.namespace, stored.name))
        if self._file is not None:
            with self._file.transaction():
                self._file.put(resource, stored)
        shelf.objects[stored.namespace, stored.name] = stored
        self._index(resource, previous, stored)
        self._publish(shelf, Event(self.revision, stored, previous, frames={}))
        return stored

    def remove(self, resource: str, stored: Stored) -> Stored:
        """Remove an object. What comes back is its last state at the revision of the removal."""
        self.revision += 1
        manifest = orjson.loads(stored.bare())
        manifest["metadata"]["resourceVersion"] = str(self.revision)
        last = Stored.of(manifest, self.revision)
        shelf = self._shelf(resource)
        if self._file is not None:
            with self._file.transaction():
                self._file.remove(resource, last)
        del shelf.objects[stored.namespace, stored.name]
        self._index(resource, stored, None)
        self._publish(shelf, Event(self.revision, last, stored, deleted=True, frames={}))
        return last

    def _index(self, resource: str, previous: Stored | None, stored: Stored | None) -> None:
        for gone in previous.owners if previous else ():
            members = self._dependents[gone]
            members.discard((resource, (previous.namespace, previous.name)))  # type: ignore[union-attr]
            if not members:
                del self._dependents[gone]
        if stored is None and previous is not None:
            self._uids.pop(previous.uid, None)
        if stored is not None:
            key = (resource, (stored.namespace, stored.name))
            self._uids[stored.uid] = key
            for uid in stored.owners:
                self._dependents.setdefault(uid, set()).add(key)

    def by_uid(self, uid: str) -> tuple[str, Name] | None:
        """Resource, namespace and name of a living object."""
        return self._uids.get(uid)

    def dependents(self, uid: str) -> builtins.list[tuple[str, Name]]:
        """The objects that name *uid* as an owner."""
        return sorted(self._dependents.get(uid, ()))

    def everything_in(self, namespace: str) -> Iterator[tuple[str, Stored]]:
        """Every object of a namespace with its resource."""
        for resource, shelf in list(self._shelves.items()):
            for stored in [stored for key, stored in shelf.objects.items() if key[0] == namespace]:
                yield resource, stored

    def _publish(self, shelf: _Shelf, event: Event) -> None:
        shelf.events.append(event)
        while len(shelf.events) > self._history:
            shelf.compacted = shelf.events.popleft().revision
        for watch in shelf.watches:
            watch.push(event)

    def watch(self, resource: str, namespace: str, since: int | None) -> Watch:
        """Open a watch for what happens after revision *since* (None: from now). Raises Compacted."""
        shelf = self._shelf(resource)
        watch = Watch(namespace, self.revision if since is None else since)
        if since is not None:
            if since < shelf.compacted:
                raise Compacted(shelf.compacted)
            for event in _after(shelf.events, since):
                watch.push(event)
        shelf.watches.add(watch)
        return watch

    def unwatch(self, resource: str, watch: Watch) -> None:
        self._shelf(resource).watches.discard(watch)

    def end_watches(self, resource: str | None = None) -> None:
        """End every watch, or those of one resource."""
        shelves: Iterable[_Shelf] = self._shelves.values() if resource is None else (self._shelf(resource),)
        for shelf in shelves:
            for watch in shelf.watches:
                watch.end()

    def close(self) -> None:
        self.end_watches()
        if self._file is not None:
            self._file.close()


def _after(events: deque[Event], since: int) -> Iterator[Event]:
    """The events newer than *since*, oldest first."""
    newer = []
    for event in reversed(events):
        if event.revision <= since:
            break
        newer.append(event)
    return reversed(newer)


class _File:
    """The same objects in SQLite; a killed process loses nothing that it answered."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        # A killed process needs no fsync; a power failure may lose the last writes, which a demo can bear.
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, revision INTEGER, "
            "body BLOB, PRIMARY KEY (resource, namespace, name))"
        )
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS revisions (resource TEXT PRIMARY KEY, revision INTEGER) WITHOUT ROWID"
        )

    def revisions(self) -> list[tuple[str, int]]:
        return self._db.execute("SELECT resource, revision FROM revisions").fetchall()

    def objects(self) -> Iterator[tuple[str, int, bytes]]:
        yield from self._db.execute("SELECT resource, revision, body FROM objects")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One transaction, also when transactions are nested. What memory already holds is kept on an exception too."""
        if self._db.in_transaction:
            yield
            return
        self._db.execute("BEGIN")
        try:
            yield
        finally:
            self._db.execute("COMMIT")

    def put(self, resource: str, stored: Stored) -> None:
        key = (resource, stored.namespace, stored.name)
        self._db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)", (*key, stored.revision, stored.bare())
        )
        self._count(resource, stored.revision)

    def remove(self, resource: str, stored: Stored) -> None:
        key = (resource, stored.namespace, stored.name)
        self._db.execute("DELETE FROM objects WHERE resource = ? AND namespace = ? AND name = ?", key)
        self._count(resource, stored.revision)

    def _count(self, resource: str, revision: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO revisions VALUES (?, ?)", (resource, revision))

    def close(self) -> None:
        self._db.close()
