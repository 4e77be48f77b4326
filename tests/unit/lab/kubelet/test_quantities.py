"""Quantities are read as Kubernetes writes them."""

from __future__ import annotations

from fractions import Fraction

import pytest

from isthmus.lab.kubelet.quantities import amount, in_units


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", Fraction(2)),
        ("100m", Fraction(1, 10)),
        ("1.5Gi", Fraction(3 * 2**29)),
        ("128Mi", Fraction(2**27)),
        ("2k", Fraction(2000)),
        ("1e3", Fraction(1000)),
        ("1E", Fraction(10**18)),
        ("5n", Fraction(5, 10**9)),
        (".5", Fraction(1, 2)),
        (3, Fraction(3)),
    ],
)
def test_every_form_has_its_number(text: str | int, number: Fraction) -> None:
    assert amount(text) == number


@pytest.mark.parametrize("text", ["", "ten", "1 Gi", "1Kb", "1e", "--1"])
def test_what_is_no_quantity_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        amount(text)


def test_units_round_up() -> None:
    """Half a processor is told as one: a program must not think that it has none."""
    assert in_units("500m", "1") == 1
    assert in_units("1500m", "1") == 2
    assert in_units("1Gi", "1Mi") == 1024
    assert in_units("2", "0") == 2
