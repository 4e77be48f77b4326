"""What of a Kubernetes object is its content, as one digest, so that two can be compared without keeping either."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import orjson

Manifest = dict[str, Any]

# What the API server fills in. Everything else at the top level (spec, data, type, rules ...) is content; status is
# content of its own, compared apart.
_NOT_CONTENT = frozenset({"apiVersion", "kind", "metadata", "status"})


def content_digest(manifest: Manifest) -> bytes:
    """A digest of *manifest*'s labels, annotations and everything below them but status; equal exactly when these are.

    Absent and empty labels or annotations are the same.
    """
    metadata = manifest.get("metadata") or {}
    body = {key: value for key, value in manifest.items() if key not in _NOT_CONTENT}
    return digest([metadata.get("labels") or {}, metadata.get("annotations") or {}, body])


def digest(data: Any) -> bytes:
    """A digest of JSON *data*, whatever the order of its keys."""
    return blake2b(orjson.dumps(data, option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


def newer(version: str, than: str) -> bool:
    """Whether resource version *version* is later than *than*; versions that are no numbers count as later.

    Source: Kubernetes compares resource versions of one resource as numbers (KEP-5504).
    """
    if version.isdecimal() and than.isdecimal():
        return int(version) > int(than)
    return version != than
