"""What a watch tells, and the reading of its byte stream. No I/O: bytes in, events out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import orjson

from isthmus.kube.errors import error_from_status
from isthmus.model.ref import Kind

Manifest = dict[str, Any]


class ObjectList(msgspec.Struct, frozen=True):
    """Every object that matched, as of *resource_version*."""

    items: tuple[Manifest, ...]
    resource_version: str


class Replaced(msgspec.Struct, frozen=True):
    """The complete state: what is not in *items* does not exist."""

    items: tuple[Manifest, ...]


class Changed(msgspec.Struct, frozen=True):
    """*item* was created or changed. The same state may be told twice."""

    item: Manifest


class Removed(msgspec.Struct, frozen=True):
    """*item* was deleted, or left the selection; its last state."""

    item: Manifest


WatchEvent = Replaced | Changed | Removed


class Broken(Exception):
    """The stream holds something that is no event, so it was cut or garbled; resuming heals it."""


class EventReader:
    """Cuts the bytes of one watch response into events and remembers how far the watch has come.

    A half line at the end of a stream is dropped: its resource version is not taken, so the server sends it again.
    """

    def __init__(self, resource_version: str, about: str) -> None:
        self.resource_version = resource_version
        self.about = about
        self.ended_by_error = False
        """Whether an ERROR event came, so that resuming from here is no use."""
        self._rest = b""

    def restart(self) -> None:
        """A new response begins; half a line of the previous one is void."""
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Changed | Removed]:
        """Events complete with *chunk*. Raises `Broken`, or the `KubeError` that an ERROR event carries."""
        if b"\n" not in chunk:
            self._rest += chunk
            return
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if not line.strip():
                continue
            verb, item = self._decode(line)
            if verb == "ERROR":
                self.ended_by_error = True
                raise error_from_status(item, self.about)
            self.resource_version = item["metadata"]["resourceVersion"]
            if verb == "DELETED":
                yield Removed(trimmed(item))
            elif verb != "BOOKMARK":
                yield Changed(trimmed(item))

    def _decode(self, line: bytes) -> tuple[str, Manifest]:
        try:
            event = orjson.loads(line)
            verb, item = event["type"], event["object"]
            if verb != "ERROR":
                item["metadata"]["resourceVersion"]
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            raise Broken(f"{self.about}: not an event: {line[:80]!r}") from error
        return verb, item


def trimmed(item: Manifest, kind: Kind | None = None) -> Manifest:
    """*item* without ``managedFields`` (a third of a typical object, and nobody here reads it), told its *kind*.

    Lists of built-in kinds leave apiVersion and kind out of their items.
    """
    metadata = item.get("metadata")
    if metadata:
        metadata.pop("managedFields", None)
    if kind is not None and "kind" not in item:
        return {"apiVersion": kind.api_version, "kind": kind.kind, **item}
    return item
