"""What the lab asks of the machine before it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from isthmus.lab.box import MOST_WATCHERS, make_room


@pytest.mark.parametrize(("before", "after"), [("128\n", MOST_WATCHERS), ("8192\n", 8192)])
def test_the_limit_of_watchers_is_raised_and_never_lowered(tmp_path: Path, before: str, after: int) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text(before)
    told: list[str] = []

    make_room(told.append, limit)

    assert int(limit.read_text()) == after
    assert told == []
