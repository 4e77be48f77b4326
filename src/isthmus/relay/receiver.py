"""The subscribing end of a stream: tells what it holds, gathers generations, and gives each out once it is complete.

Nothing is removed that the publisher has not either removed or left out of everything it says is all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from isthmus.relay.frames import (
    BATCH_BYTES,
    WINDOW_BYTES,
    Ack,
    Changes,
    Compare,
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
from isthmus.relay.publication import Delta
from isthmus.relay.records import (
    DIGEST_BYTES,
    MAX_RECORD_BYTES,
    bucket_bits,
    bucket_digest,
    bucket_of,
    buckets_of,
    digest_of,
    root_of,
    split_digests,
)

DIGESTS_PER_FRAME = BATCH_BYTES // DIGEST_BYTES * DIGEST_BYTES  # in bytes


class _Step(Enum):
    WAIT = auto()  # for an offer; everything else was sent before the publisher heard of the resync
    TABLE = auto()  # for the rest of the publisher's digests
    FOLLOW = auto()  # generations arrive


@dataclass(slots=True)
class _Slices:
    """A large record of which slices are still to come."""

    key: str
    digest: bytes
    total: int
    payload: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A generation that waits to be applied, and what of the window it ends at."""

    delta: Delta
    generation: int
    taken: int


class Receiver:
    """One stream's view of what is held from the other side. *held* maps keys to record digests."""

    def __init__(self, held: Mapping[str, bytes], *, window: int = WINDOW_BYTES) -> None:
        self._held = dict(held)  # as of the last generation that arrived in full
        self._ack_step = window // 4
        self._step = _Step.WAIT
        self._replies: deque[SubscriberFrame] = deque()
        self._bits = 0
        self._offer_complete = False
        self._differing = b""
        self._tabled: set[bytes] = set()
        self._surplus: dict[bytes, str] = {}  # held, and not named by the publisher since its offer
        self._changes: dict[str, tuple[bytes, bytes] | None] = {}  # of the generation that is arriving
        self._slices: _Slices | None = None
        self._ready: deque[_Ready] = deque()
        self._taken = 0
        self._acknowledged = 0
        self._applied = 0
        self.records_received = 0

    def receive(self, frame: PublisherFrame) -> None:
        """Take what the publisher says. Raises `ProtocolFault`."""
        if isinstance(frame, Offer):
            self._take_offer(frame)
        elif self._step is _Step.WAIT:
            return
        elif isinstance(frame, Table):
            self._take_table(frame)
        elif self._step is not _Step.FOLLOW:
            raise ProtocolFault("the peer sends records before it was asked for them")
        elif isinstance(frame, Part):
            self._take_part(frame)
        else:
            self._take_changes(frame)

    def next_frame(self) -> SubscriberFrame | None:
        """What to send next, if anything."""
        if self._replies:
            return self._replies.popleft()
        # While a generation is being applied its bytes count as under way: that holds the publisher back.
        if not self._ready and self._taken - self._acknowledged >= self._ack_step:
            return self._ack(self._taken)
        return None

    def next_delta(self) -> Delta | None:
        """The generation to apply now, if one has arrived in full; `applied` moves on to the next."""
        return self._ready[0].delta if self._ready else None

    def applied(self) -> None:
        """Tell the publisher that what `next_delta` returned has been applied."""
        done = self._ready.popleft()
        self._applied = done.generation
        taken = done.taken if self._ready else self._taken
        self._replies.append(self._ack(max(taken, self._acknowledged)))

    def _ack(self, taken: int) -> Ack:
        self._acknowledged = taken
        return Ack(taken, self._applied)

    def _resync(self, reason: str) -> None:
        self._step = _Step.WAIT
        self._changes = {}
        self._slices = None
        self._replies.append(Resync(reason))

    def _take_offer(self, offer: Offer) -> None:
        self._changes = {}
        self._slices = None
        self._surplus = {}
        self._tabled = set()
        self._differing = b""
        self._offer_complete = offer.complete
        self._taken = self._acknowledged = 0
        # Generations still to be applied were counted before this offer.
        self._ready = deque(_Ready(ready.delta, ready.generation, 0) for ready in self._ready)
        if offer.root == root_of(self._held.values()):
            self._replies.append(Want(b"", b"", last=True))
            self._step = _Step.FOLLOW
        elif not self._held:
            self._replies.append(Compare(0, b""))
            self._step = _Step.FOLLOW
        else:
            self._bits = bucket_bits(len(self._held))
            buckets = buckets_of(self._held.values(), self._bits)
            self._replies.append(Compare(self._bits, b"".join(bucket_digest(digests) for digests in buckets)))
            self._step = _Step.TABLE

    def _take_table(self, frame: Table) -> None:
        if self._step is not _Step.TABLE:
            raise ProtocolFault("the peer sends a table that was not asked for")
        self._differing = self._differing or frame.differing
        if len(self._differing) != (1 << self._bits) + 7 >> 3 or len(frame.digests) % DIGEST_BYTES:
            raise ProtocolFault("the peer's table has the wrong size")
        self._tabled.update(split_digests(frame.digests))
        if not frame.last:
            return
        compared = {d: key for key, d in self._held.items() if self._differs(bucket_of(d, self._bits))}
        self._surplus = {digest: key for digest, key in compared.items() if digest not in self._tabled}
        missing = b"".join(sorted(digest for digest in self._tabled if digest not in compared))
        # A publisher that offers everything drops what only we hold; one that does not may still come to name it.
        surplus = b"" if self._offer_complete else b"".join(sorted(self._surplus))
        length = max(1, len(missing), len(surplus))
        for at in range(0, length, DIGESTS_PER_FRAME):
            end = at + DIGESTS_PER_FRAME
            self._replies.append(Want(missing[at:end], surplus[at:end], last=end >= length))
        self._tabled = set()
        self._step = _Step.FOLLOW

    def _differs(self, bucket: int) -> bool:
        return bool(self._differing[bucket >> 3] >> (bucket & 7) & 1)

    def _take_part(self, part: Part) -> None:
        slices = self._slices
        if part.total > MAX_RECORD_BYTES:
            raise ProtocolFault(f"record {part.key} has {part.total} bytes; up to {MAX_RECORD_BYTES} are taken")
        if slices is None:
            slices = self._slices = _Slices(part.key, part.digest, part.total)
        elif (slices.key, slices.digest, slices.total) != (part.key, part.digest, part.total):
            raise ProtocolFault(f"record {part.key} begins before {slices.key} has ended")
        self._taken += window_units(part)
        slices.payload += part.slice
        if not part.slice or len(slices.payload) > slices.total:
            raise ProtocolFault(f"the slices of record {part.key} do not add up to {slices.total} bytes")
        if len(slices.payload) == slices.total:
            self._slices = None
            self._take_record(part.key, part.digest, bytes(slices.payload))

    def _take_changes(self, changes: Changes) -> None:
        if self._slices is not None:
            raise ProtocolFault(f"record {self._slices.key} was not sent to its end")
        self._taken += window_units(changes)
        for entry in changes.entries:
            if not self._take_record(entry.key, entry.digest, entry.payload):
                return
        for key in changes.removed:
            self._changes[key] = None
        for digest in split_digests(changes.confirmed):
            if self._surplus.pop(digest, None) is None:
                self._resync("a record was confirmed that is not held")
                return
        if changes.end:
            self._finish(changes.generation, changes.complete)

    def _take_record(self, key: str, digest: bytes, payload: bytes) -> bool:
        if digest_of(key, payload) != digest:
            self._resync(f"record {key} does not match its digest")
            return False
        self.records_received += 1
        self._changes[key] = (digest, payload)
        return True

    def _finish(self, generation: int, complete: bool) -> None:
        found: dict[str, bytes | None] = {}
        for key, change in self._changes.items():
            before = self._held.get(key)
            if before is not None:
                self._surplus.pop(before, None)
            if change is None:
                if before is not None:
                    del self._held[key]
                    found[key] = None
            elif change[0] != before:
                self._held[key], found[key] = change
        if complete:
            for key in self._surplus.values():
                del self._held[key]
                found[key] = None
            self._surplus = {}
        self._changes = {}
        self._ready.append(_Ready(Delta(found, complete), generation, self._taken))
