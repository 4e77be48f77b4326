"""The relay's records as the two programs spell them.

| from   | key                                | payload                                     |
|--------|------------------------------------|---------------------------------------------|
| agent  | `ObjectKey` of a discovered object | `encode(object)`                            |
| agent  | `REPORT` and an `ObjectKey`        | a `WriteReport`: why it can't be written    |
| server | `ObjectKey` of a desired object    | its manifest without ownership labels       |
"""

from __future__ import annotations

import msgspec

from isthmus.model.ref import ObjectKey

REPORT = "isthmus|WriteReport||"
"""How keys of write reports begin; the key of the object follows."""

encode = msgspec.json.Encoder(order="deterministic").encode
"""The payload of a record: equal objects have equal bytes, also after they were stored and read again."""


class WriteReport(msgspec.Struct, frozen=True):
    """What an agent says of an object that it could not write."""

    message: str


class BadRecord(Exception):
    """A record that the receiver does not take; the text says why."""


_REPORT_DECODER = msgspec.json.Decoder(WriteReport)


def report_key(key: ObjectKey) -> str:
    """The record key of the report about the object at *key*."""
    return f"{REPORT}{key}"


def read_report(record: str, payload: bytes | None) -> tuple[ObjectKey, str | None]:
    """What a record whose key begins with `REPORT` says: the object, and its trouble or None. Raises `BadRecord`."""
    try:
        key = ObjectKey.parse(record.removeprefix(REPORT))
        return key, None if payload is None else _REPORT_DECODER.decode(payload).message
    except (ValueError, msgspec.MsgspecError) as error:
        raise BadRecord(f"not a write report: {error}") from error
