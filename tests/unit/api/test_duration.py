"""Durations: what users write, and the one form that is kept."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.duration import as_timedelta, normal_duration
from tests.strategies import durations


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("5s", "5s"),
        ("120s", "120s"),
        ("100ms", "0.100s"),
        ("5ms", "0.005s"),
        ("1m", "60s"),
        ("1h", "3600s"),
        ("1h30m", "5400s"),
        ("1.5s", "1.500s"),
        (".5h", "1800s"),
        ("1us", "0.000001s"),
        ("1µs", "0.000001s"),
        ("1ns", "0.000000001s"),
        ("0", "0s"),
        ("+2s", "2s"),
    ],
)
def test_go_durations_are_kept_in_seconds(written: str, kept: str) -> None:
    assert normal_duration(written) == kept


@pytest.mark.parametrize("written", ["", "5", "2 sec", "-1s", "1s ", "s", "+", ".s", "1d", "٣s", "1e3s", "3000000h"])
def test_anything_else_is_no_duration(written: str) -> None:
    assert normal_duration(written) is None


def test_292_years_is_the_limit() -> None:
    """Go keeps a duration in 63 bits of nanoseconds."""
    assert normal_duration(f"{2**63 - 1}ns") == "9223372036.854775807s"
    assert normal_duration(f"{2**63}ns") is None


@given(durations())
def test_the_kept_form_stays_as_it_is(duration: str) -> None:
    assert normal_duration(duration) == duration


@given(st.integers(0, 10**15))
def test_a_kept_duration_is_a_timedelta_to_the_microsecond(microseconds: int) -> None:
    kept = normal_duration(f"{microseconds}us")

    assert kept is not None
    assert as_timedelta(kept) == timedelta(microseconds=microseconds)


def test_an_unset_duration_is_no_timedelta() -> None:
    assert as_timedelta("") is None


def test_a_timedelta_is_made_from_the_kept_form_only() -> None:
    with pytest.raises(ValueError, match="1m30"):
        as_timedelta("1m30")
