"""What crosses a relay stream, in either direction. `proto/relay.proto` says the same for the wire.

The publishing end sends Offer, Table, Part and Changes; the subscribing end Compare, Want, Ack and Resync; both begin
with Hello, and send a Beat when they have had nothing to say for a while.
"""

from __future__ import annotations

from dataclasses import dataclass

PROTOCOL = 1  # raised when an older peer would misunderstand us

WINDOW_BYTES = 4 * 2**20  # sent and not yet taken, per direction
BATCH_BYTES = 256 * 2**10  # records are gathered up to this; more saves no time, and delays acknowledgements
# A larger record is sent in slices. gRPC's own default for a message ends at 4 MiB; this is less, so that a slow link,
# too, brings something every few seconds.
SLICE_BYTES = 512 * 2**10
ENTRY_BYTES = 32  # what an entry counts for in the window beside its key and payload, so that removals count too


class ProtocolFault(Exception):
    """The peer broke the rules of the relay, or follows other ones."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Who speaks: the protocol's number, the cluster that the stream belongs to, the version of the program."""

    protocol: int
    cluster: str
    version: str


@dataclass(frozen=True, slots=True)
class Offer:
    """The digest of everything published (`records.root_of`), and whether that is all there will be."""

    root: bytes
    complete: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """The subscriber's bucket digests, joined; empty when it holds nothing."""

    bits: int
    buckets: bytes


@dataclass(frozen=True, slots=True)
class Table:
    """Record digests of the buckets that differ. *differing* is a bitmap of those buckets, in the first frame only."""

    differing: bytes
    digests: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Want:
    """Record digests that the subscriber lacks, and such as only it holds."""

    missing: bytes
    surplus: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A record as it travels."""

    key: str
    digest: bytes
    payload: bytes


@dataclass(frozen=True, slots=True)
class Part:
    """A slice of a record whose payload has *total* bytes."""

    key: str
    digest: bytes
    total: int
    slice: bytes


@dataclass(frozen=True, slots=True)
class Changes:
    """Changes of one generation; *end* closes it and gives *generation* and *complete* their meaning.

    *confirmed* are digests, joined, of surplus records that stay.
    """

    entries: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()
    confirmed: bytes = b""
    end: bool = False
    generation: int = 0
    complete: bool = False


@dataclass(frozen=True, slots=True)
class Ack:
    """Window units taken since the last offer, and the last generation applied."""

    taken: int
    applied: int


@dataclass(frozen=True, slots=True)
class Resync:
    """The subscriber cannot follow, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Beat:
    """A sign of life, from an end that had nothing else to say."""


PublisherFrame = Offer | Table | Part | Changes
SubscriberFrame = Compare | Want | Ack | Resync
Frame = Hello | Beat | PublisherFrame | SubscriberFrame


def window_units(frame: Part | Changes) -> int:
    """What *frame* takes of the window; both ends count alike."""
    if isinstance(frame, Part):
        return ENTRY_BYTES + len(frame.key) + len(frame.slice)
    entries = sum(ENTRY_BYTES + len(entry.key) + len(entry.payload) for entry in frame.entries)
    return ENTRY_BYTES + entries + sum(ENTRY_BYTES + len(key) for key in frame.removed) + len(frame.confirmed)
