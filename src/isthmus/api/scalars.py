"""The scalar types of the API: how wide a number is, and which strings have a form of their own.

To Python they are plain `int`, `float` and `str`. The metadata is read by msgspec (range and normal form), by `parse`
(which brings what a user wrote into the normal form) and by `crd` (the format in the schema).
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

UInt32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
"""Written without format but with bounds in the schema. Source: reference, JSON encoding rules."""

Int32 = Annotated[int, Meta(ge=-(2**31), le=2**31 - 1, extra={"format": "int32"})]
Int64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1, extra={"format": "int64"})]
LARGEST_FLOAT = (2 - 2**-23) * 2.0**127  # of 32 bits; an API server refuses more
Float = Annotated[float, Meta(ge=-LARGEST_FLOAT, le=LARGEST_FLOAT, extra={"format": "float"})]
Double = Annotated[float, Meta(extra={"format": "double"})]

Duration = Annotated[str, Meta(pattern=r"^([0-9]+(\.([0-9]{3}){1,3})?s)?\Z", extra={"form": "duration"})]
"""A length of time. Users write a Go duration (``1m30s``, ``100ms``); the value is seconds with 0, 3, 6 or 9 decimals
(``90s``, ``0.100s``), so equal lengths are equal strings. Empty when unset. See `duration`."""

UpperCase = Annotated[str, Meta(pattern=r"^[^a-z]*\Z", extra={"form": "upper"})]
"""A word that users write in any case; the value is upper case."""

Timestamp = Annotated[str, Meta(extra={"format": "date-time"})]
"""A moment in RFC 3339 (``2021-06-01T12:00:00Z``)."""
