"""What is wrong with an object of gateways, found where it meets others; statuses gather it."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from isthmus.translate.output import StatusKey


class Weight(IntEnum):
    """How much it matters."""

    ERROR = 0
    LATER = 1
    """Nothing is wrong, and it may still come."""
    WARNING = 2


class Finding(msgspec.Struct, frozen=True, order=True, gc=False):
    """A sentence for the status of *about*."""

    about: StatusKey
    weight: Weight
    message: str
