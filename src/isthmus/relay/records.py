"""Records and their digests: what both ends compare instead of sending."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

DIGEST_BYTES = 16
BUCKET_DIGEST_BYTES = 8
MAX_RECORD_BYTES = 64 * 2**20  # what one record may hold; objects of Kubernetes end at 1.5 MiB
RECORDS_PER_BUCKET = 16  # so that one changed record costs the digests of about that many
MAX_BUCKET_BITS = 16


class RecordTooLarge(ValueError):
    """A record that the relay does not carry."""

    def __init__(self, key: str, size: int) -> None:
        super().__init__(f"record {key} has {size} bytes; the relay carries records of up to {MAX_RECORD_BYTES} bytes")
        self.key = key
        self.size = size


def digest_of(key: str, payload: bytes) -> bytes:
    """The digest that stands for *payload* under *key*; equal exactly when both are."""
    name = key.encode()
    found = blake2b(len(name).to_bytes(4, "big"), digest_size=DIGEST_BYTES)
    found.update(name)
    found.update(payload)
    return found.digest()


def root_of(digests: Iterable[bytes]) -> bytes:
    """One digest for a set of record digests."""
    return blake2b(b"".join(sorted(digests)), digest_size=DIGEST_BYTES).digest()


def bucket_bits(count: int) -> int:
    """Into 2 to the power of how many buckets *count* record digests are sorted for comparing."""
    return min(MAX_BUCKET_BITS, max(0, (count // RECORDS_PER_BUCKET).bit_length()))


def bucket_of(digest: bytes, bits: int) -> int:
    """The bucket of a record digest: its leading *bits*."""
    return int.from_bytes(digest[:4], "big") >> (32 - bits)


def buckets_of(digests: Iterable[bytes], bits: int) -> list[list[bytes]]:
    """The digests of each bucket, sorted."""
    found: list[list[bytes]] = [[] for _ in range(1 << bits)]
    for digest in sorted(digests):
        found[bucket_of(digest, bits)].append(digest)
    return found


def bucket_digest(digests: Iterable[bytes]) -> bytes:
    """One short digest for the sorted record digests of a bucket."""
    return blake2b(b"".join(digests), digest_size=BUCKET_DIGEST_BYTES).digest()


def split_digests(joined: bytes) -> list[bytes]:
    """Record digests out of their concatenation."""
    return [joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)]
