"""What crosses a relay stream, in either direction. `proto/relay.proto` says the same for the wire.

The publishing end sends Offer, Table, Part and Changes; the subscribing end Compare, Want, Ack and Resync; both begin
with Hello, and send a Beat when they have had nothing to say for a while.
"""

from __future__ import annotations

import msgspec

PROTOCOL = 1  # raised when an older peer would misunderstand us

WINDOW_BYTES = 4 * 2**20  # sent and not yet taken, per direction
BATCH_BYTES = 256 * 2**10  # records are gathered up to this; more saves no time, and delays acknowledgements
# A larger record is sent in slices. gRPC's own default for a message ends at 4 MiB; this is less, so that a slow link,
# too, brings something every few seconds.
SLICE_BYTES = 512 * 2**10
ENTRY_BYTES = 32  # what an entry counts for in the window beside its key and payload, so that removals count too


class ProtocolFault(Exception):
    """The peer broke the rules of the relay, or follows other ones."""


class Hello(msgspec.Struct, frozen=True):
    """Who speaks: the protocol's number, the cluster that the stream belongs to, the version of the program."""

    protocol: int
    cluster: str
    version: str


class Offer(msgspec.Struct, frozen=True):
    """The digest of everything published (`records.root_of`), and whether that is all there will be."""

    root: bytes
    complete: bool


class Compare(msgspec.Struct, frozen=True):
    """The subscriber's bucket digests, joined; empty when it holds nothing."""

    bits: int
    buckets: bytes


class Table(msgspec.Struct, frozen=True):
    """Record digests of the buckets that differ. *differing* is a bitmap of those buckets, in the first frame only."""

    differing: bytes
    digests: bytes
    last: bool


class Want(msgspec.Struct, frozen=True):
    """Record digests that the subscriber lacks, and such as only it holds."""

    missing: bytes
    surplus: bytes
    last: bool


class Entry(msgspec.Struct, frozen=True):
    """A record as it travels."""

    key: str
    digest: bytes
    payload: bytes


class Part(msgspec.Struct, frozen=True):
    """A slice of a record whose payload has *total* bytes."""

    key: str
    digest: bytes
    total: int
    slice: bytes


class Changes(msgspec.Struct, frozen=True):
    """Changes of one generation; *end* closes it and gives *generation* and *complete* their meaning.

    *confirmed* are digests, joined, of surplus records that stay.
    """

    entries: tuple[Entry, ...] = ()
    removed: tuple[str, ...] = ()
    confirmed: bytes = b""
    end: bool = False
    generation: int = 0
    complete: bool = False


class Ack(msgspec.Struct, frozen=True):
    """Window units taken since the last offer, and the last generation applied."""

    taken: int
    applied: int


class Resync(msgspec.Struct, frozen=True):
    """The subscriber cannot follow, and why."""

    reason: str


class Beat(msgspec.Struct, frozen=True):
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
