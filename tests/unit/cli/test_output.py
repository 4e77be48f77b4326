"""What is printed is read by other programs as what it is."""

from __future__ import annotations

import pytest
import yaml

from isthmus.cli.output import yaml_text


@pytest.mark.parametrize("value", ["y", "N", "7e10", "1E-3", ".5e1", "0o17", "0b1", "012", "no", "1.5", "1_000"])
def test_texts_that_look_like_something_else_are_quoted(value: str) -> None:
    """Go's readers know more numbers and truths than Python's: a label's value 7e10 would become one."""
    assert yaml_text({"version": value}) == f"version: '{value}'\n"


@pytest.mark.parametrize("value", ["yes-man", "5s", "10.0.0.1", "v1", "7e10f", "2026-01-01T00:00:00Z", "a.b", "-"])
def test_other_texts_come_back_as_they_are(value: str) -> None:
    assert yaml.safe_load(yaml_text({"version": value})) == {"version": value}


def test_what_is_no_text_is_not_quoted() -> None:
    assert yaml_text({"a": 7, "b": True, "c": 1.5, "d": "10.0.0.1", "e": "5s"}) == (
        "a: 7\nb: true\nc: 1.5\nd: 10.0.0.1\ne: 5s\n"
    )
