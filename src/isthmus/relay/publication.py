"""What one end wants the other to hold, and how it reaches the other.

The programs publish into a `Publication` and receive through a `Subscriber`; the machines in `isthmus.relay.sender` and
`isthmus.relay.receiver` do the rest. Not for use by several threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Protocol

from isthmus.relay.records import MAX_RECORD_BYTES, RecordTooLarge, digest_of


@dataclass(frozen=True, slots=True)
class Delta:
    """The changes of one generation.

    *changes* maps keys to new payloads, None where the record is gone. *complete*: with this delta the receiver holds
    everything that the sender wants it to hold, and nothing else.
    """

    changes: Mapping[str, bytes | None]
    complete: bool


class Subscriber(Protocol):
    """The receiving end of a publication; the programs implement it."""

    def held(self) -> Mapping[str, bytes]:
        """The records held from the other side; asked once per connection, so that only what differs is sent."""
        ...

    async def receive(self, delta: Delta) -> None:
        """Take one generation. Called in order, one at a time; as long as it takes, the sender is held back.

        The first call of every connection tells how the other side differs from `held`, and may be empty. A link that
        breaks cancels the call; what it has not come to hold by then is sent again.
        """
        ...


class Record(NamedTuple):
    """A payload and its digest."""

    digest: bytes
    payload: bytes


@dataclass(eq=False, slots=True)
class Cursor:
    """What one session has still to send of a publication; `wake` is called when that grows."""

    publication: Publication
    wake: Callable[[], None]
    dirty: dict[str, None] = field(default_factory=dict)
    complete_changed: bool = False


class Publication:
    """A keyed set of records that one end keeps for the other, and whether it is all of them."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}
        self._complete = False
        self._cursors: set[Cursor] = set()

    @property
    def records(self) -> Mapping[str, Record]:
        """What the other side shall hold, as known so far."""
        return MappingProxyType(self._records)

    @property
    def complete(self) -> bool:
        """Whether `records` is everything that the other side shall hold."""
        return self._complete

    def __len__(self) -> int:
        return len(self._records)

    def publish(self, changes: Mapping[str, bytes | None], *, complete: bool) -> None:
        """Change the records, None to remove one; all of *changes* reach the other side together.

        *complete* tells the state after it: False while the publisher is still finding out what it wants published.
        What is published before it could be sent is sent once, in its latest form. Raises `RecordTooLarge` before
        anything is changed.
        """
        for key, payload in changes.items():
            if payload is not None and len(payload) > MAX_RECORD_BYTES:
                raise RecordTooLarge(key, len(payload))
        changed: dict[str, None] = {}
        for key, payload in changes.items():
            if payload is None:
                if self._records.pop(key, None) is not None:
                    changed[key] = None
            else:
                record = Record(digest_of(key, payload), payload)
                before = self._records.get(key)
                if before is None or before.digest != record.digest:
                    self._records[key] = record
                    changed[key] = None
        turned = complete != self._complete
        self._complete = complete
        if changed or turned:
            for cursor in tuple(self._cursors):
                cursor.dirty.update(changed)
                cursor.complete_changed |= turned
                cursor.wake()

    def attach(self, wake: Callable[[], None]) -> Cursor:
        """A cursor that from now on learns of every change; `detach` it when its session ends."""
        cursor = Cursor(self, wake)
        self._cursors.add(cursor)
        return cursor

    def detach(self, cursor: Cursor) -> None:
        """Forget *cursor*."""
        self._cursors.discard(cursor)
