"""The publishing end of a stream: brings the other side to what a `Publication` holds, and keeps it there.

It offers a digest of everything; if the other side holds something else they find out what differs, and only that is
sent, as the first generation. From then on every change is part of a generation. Not more than a window is under way;
what changes meanwhile is coalesced.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum, auto

from isthmus.relay.frames import (
    BATCH_BYTES,
    ENTRY_BYTES,
    SLICE_BYTES,
    WINDOW_BYTES,
    Ack,
    Changes,
    Compare,
    Entry,
    Offer,
    Part,
    ProtocolFault,
    PublisherFrame,
    Resync,
    SubscriberFrame,
    Table,
    Want,
    window_units,
)
from isthmus.relay.publication import Publication, Record
from isthmus.relay.records import (
    BUCKET_DIGEST_BYTES,
    DIGEST_BYTES,
    MAX_BUCKET_BITS,
    bucket_digest,
    buckets_of,
    root_of,
    split_digests,
)

MAX_RESYNCS = 3  # in a row without progress; a fourth would not help either
DIGESTS_PER_FRAME = BATCH_BYTES // DIGEST_BYTES * DIGEST_BYTES  # in bytes


class _Step(Enum):
    OFFER = auto()  # an offer is to be sent
    OFFERED = auto()  # Compare or Want is to come
    TABLED = auto()  # Want is to come, perhaps in several frames
    FOLLOW = auto()  # generations are sent


class Sender:
    """One stream's view of a publication. *wake* is called when `next_frame` may have something again."""

    def __init__(self, publication: Publication, wake: Callable[[], None], *, window: int = WINDOW_BYTES) -> None:
        self._publication = publication
        self._cursor = publication.attach(wake)
        self._window = window
        self._step = _Step.OFFER
        self._tables: deque[Table] = deque()
        self._key_of: dict[bytes, str] = {}  # by digest, for what was tabled
        self._surplus: set[bytes] = set()  # digests that the other side holds and waits to hear of
        self._first = False  # the generation that ends the comparison is due, even when it is empty
        self._generation: Iterator[PublisherFrame] | None = None
        self._sent = 0
        self._taken = 0
        self._resyncs = 0
        self.records_sent = 0
        self.generations_sent = 0
        self.generations_acknowledged = 0

    def close(self) -> None:
        """Let the publication forget this stream."""
        self._publication.detach(self._cursor)

    def receive(self, frame: SubscriberFrame) -> None:
        """Take what the subscriber says. Raises `ProtocolFault`."""
        match frame:
            case Ack():
                if frame.taken > self._sent or frame.applied > self.generations_sent:
                    if self._step is _Step.FOLLOW:
                        raise ProtocolFault("the peer acknowledges more than it was sent")
                    return  # said before it saw the new offer
                self._taken = max(self._taken, frame.taken)
                if frame.applied > self.generations_acknowledged:
                    self.generations_acknowledged = frame.applied
                    self._resyncs = 0
            case Resync():
                self._resyncs += 1
                if self._resyncs > MAX_RESYNCS:
                    raise ProtocolFault(f"the peer asked to start again {self._resyncs} times: {frame.reason}")
                self._step = _Step.OFFER
                self._generation = None
                self._tables.clear()
            case Compare():
                self._compare(frame)
            case Want():
                self._want(frame)

    def next_frame(self) -> PublisherFrame | None:
        """What to send next; None until something was published, received or acknowledged."""
        if self._step is _Step.OFFER:
            return self._offer()
        if self._tables:
            return self._tables.popleft()
        if self._step is not _Step.FOLLOW or self._sent - self._taken >= self._window:
            return None
        if self._generation is None:
            if not (self._first or self._cursor.dirty or self._cursor.complete_changed):
                return None
            self._generation = self._frames_of(self._start_generation())
        frame = next(self._generation)
        if isinstance(frame, Changes) and frame.end:
            self._generation = None
            self.generations_sent = frame.generation
        if isinstance(frame, Changes | Part):
            self._sent += window_units(frame)
        if isinstance(frame, Changes):
            self.records_sent += len(frame.entries)
        return frame

    def _offer(self) -> Offer:
        self._sent = self._taken = 0
        self._surplus = set()
        self._start_over()
        self._step = _Step.OFFERED
        records = self._publication.records
        return Offer(root_of(record.digest for record in records.values()), self._publication.complete)

    def _start_over(self) -> None:
        """Forget changes made so far: what is compared now contains them."""
        self._cursor.dirty.clear()
        self._cursor.complete_changed = False

    def _compare(self, frame: Compare) -> None:
        if self._step is not _Step.OFFERED:
            raise ProtocolFault("the peer compares what was not offered")
        if not frame.buckets:
            self._start_over()
            self._cursor.dirty.update(dict.fromkeys(self._publication.records))
            self._follow()
            return
        if not 0 <= frame.bits <= MAX_BUCKET_BITS or len(frame.buckets) != BUCKET_DIGEST_BYTES << frame.bits:
            raise ProtocolFault(f"the peer compares {len(frame.buckets)} bytes as 2^{frame.bits} buckets")
        self._start_over()
        self._key_of = {record.digest: key for key, record in self._publication.records.items()}
        differing = bytearray((1 << frame.bits) + 7 >> 3)
        found: list[bytes] = []
        for number, digests in enumerate(buckets_of(self._key_of, frame.bits)):
            at = number * BUCKET_DIGEST_BYTES
            if bucket_digest(digests) != frame.buckets[at : at + BUCKET_DIGEST_BYTES]:
                differing[number >> 3] |= 1 << (number & 7)
                found += digests
        joined = b"".join(found)
        for at in range(0, max(1, len(joined)), DIGESTS_PER_FRAME):
            end = at + DIGESTS_PER_FRAME
            self._tables.append(Table(bytes(differing) if at == 0 else b"", joined[at:end], last=end >= len(joined)))
        self._step = _Step.TABLED

    def _want(self, frame: Want) -> None:
        if self._step not in (_Step.OFFERED, _Step.TABLED):
            raise ProtocolFault("the peer wants records that were not offered")
        for digest in split_digests(frame.missing):
            key = self._key_of.get(digest)
            if key is None:
                raise ProtocolFault("the peer wants a record that was not offered")
            self._cursor.dirty[key] = None
        self._surplus.update(split_digests(frame.surplus))
        if frame.last:
            self._follow()

    def _follow(self) -> None:
        self._key_of = {}
        self._first = True
        self._step = _Step.FOLLOW

    def _start_generation(self) -> list[tuple[str, Record | None]]:
        """The changes of the next generation, as they are now; later ones are for the generation after it."""
        records = self._publication.records
        items = [(key, records.get(key)) for key in self._cursor.dirty]
        self._start_over()
        self._first = False
        return items

    def _frames_of(self, items: list[tuple[str, Record | None]]) -> Iterator[PublisherFrame]:
        complete = self._publication.complete  # read when the first frame is, together with the items
        number = self.generations_sent + 1
        entries: list[Entry] = []
        removed: list[str] = []
        confirmed: list[bytes] = []
        size = 0
        for key, record in items:
            if record is None:
                removed.append(key)
                size += ENTRY_BYTES + len(key)
            elif record.digest in self._surplus:
                self._surplus.discard(record.digest)
                confirmed.append(record.digest)
                size += DIGEST_BYTES
            elif len(record.payload) > SLICE_BYTES:
                yield from _parts_of(key, record)
                self.records_sent += 1
            else:
                entries.append(Entry(key, record.digest, record.payload))
                size += ENTRY_BYTES + len(key) + len(record.payload)
            if size >= BATCH_BYTES:
                yield Changes(tuple(entries), tuple(removed), b"".join(confirmed))
                entries, removed, confirmed, size = [], [], [], 0
        if complete:
            self._surplus = set()
        yield Changes(
            tuple(entries), tuple(removed), b"".join(confirmed), end=True, generation=number, complete=complete
        )


def _parts_of(key: str, record: Record) -> Iterator[Part]:
    for at in range(0, len(record.payload), SLICE_BYTES):
        yield Part(key, record.digest, len(record.payload), record.payload[at : at + SLICE_BYTES])
