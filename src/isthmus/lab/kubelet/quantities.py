"""Amounts of resources as Kubernetes writes them."""

from __future__ import annotations

import re
from fractions import Fraction
from math import ceil

_FORM = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)")
_UNIT = {suffix: Fraction(1000) ** power for power, suffix in enumerate("num", start=-3)}
_UNIT |= {suffix: Fraction(1000) ** power for power, suffix in enumerate("kMGTPE", start=1)}
_UNIT |= {f"{suffix}i": Fraction(1024) ** power for power, suffix in enumerate("KMGTPE", start=1)}


def amount(quantity: str | int | float) -> Fraction:
    """The number that *quantity*, such as ``100m`` or ``1.5Gi``, stands for. Raises ValueError."""
    found = _FORM.fullmatch(str(quantity))
    if found is None:
        raise ValueError(f"{quantity!r} is not a quantity such as 100m or 1Gi")
    number, exponent, suffix = found.groups()
    unit = Fraction(10) ** int(exponent) if exponent else _UNIT.get(suffix, Fraction(1))
    return Fraction(number) * unit


def in_units(quantity: str | int | float, divisor: str | int | float) -> int:
    """*quantity* in units of *divisor*, rounded up.

    Source: Kubernetes, resourceFieldRef; a divisor of 0 counts as 1.
    """
    return ceil(amount(quantity) / (amount(divisor) or 1))
