"""Lengths of time as users write them (Go durations) and as the API keeps them (seconds)."""

from __future__ import annotations

import re
from datetime import timedelta

NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # micro sign
    "μs": 10**3,  # Greek mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
LONGEST = 2**63 - 1  # nanoseconds; Go keeps a duration in an int64


def normal_duration(text: str) -> str | None:
    """The Go duration *text* in seconds with 0, 3, 6 or 9 decimals.

    None if it is not a duration, is negative, or is longer than 292 years.

    Source: reference, JSON encoding rules; https://pkg.go.dev/time#ParseDuration.
    """
    if text in ("0", "+0", "-0"):
        return "0s"
    total, at = 0, 1 if text.startswith("+") else 0
    if at == len(text):
        return None
    while at < len(text):
        part = PART.match(text, at)
        if part is None:
            return None
        whole, _, decimals = part[1].partition(".")
        unit = NANOSECONDS[part[2]]
        total += int(whole or 0) * unit + int(decimals or 0) * unit // 10 ** len(decimals)
        at = part.end()
    return _seconds(total) if total <= LONGEST else None


def _seconds(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    if not rest:
        return f"{seconds}s"
    decimals = f"{rest:09d}"
    while decimals.endswith("000"):
        decimals = decimals[:-3]
    return f"{seconds}.{decimals}s"


def as_timedelta(duration: str) -> timedelta | None:
    """The length of a `Duration` field, to the microsecond; None when it is unset.

    Raises ValueError when *duration* is not in the normal form, which `parse` guarantees.
    """
    if not duration:
        return None
    if not duration.endswith("s"):
        raise ValueError(f"{duration!r} is not in the normal form, such as 90s")
    whole, _, decimals = duration[:-1].partition(".")
    return timedelta(seconds=int(whole), microseconds=int(decimals.ljust(9, "0")) // 1000 if decimals else 0)
