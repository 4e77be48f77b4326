"""When a certificate has to be replaced."""

from __future__ import annotations

from datetime import datetime, timedelta


def rotation_time(not_before: datetime, not_after: datetime) -> datetime:
    """When two thirds of a certificate's life are used up; the last third is for retries."""
    life: timedelta = not_after - not_before
    return not_before + life * 2 / 3


def rotation_due(not_before: datetime, not_after: datetime, now: datetime) -> bool:
    """Whether to replace the certificate now."""
    return now >= rotation_time(not_before, not_after)
