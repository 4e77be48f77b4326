"""How changes of access are told to people."""

from __future__ import annotations

import pytest

from isthmus.cli.access_text import MOST_NAMED, print_changes
from isthmus.model.ref import Ref
from isthmus.translate.access.reachability import Change, Reach

CALLEE = (Ref("cluster1", "default", "reviews"),)


def callers(count: int) -> tuple[Ref, ...]:
    return tuple(Ref("cluster1", "default", f"c{number:02}") for number in range(count))


@pytest.mark.parametrize(
    ("opens", "closes", "said"), [(True, False, "opens"), (False, True, "closes"), (True, True, "opens and closes")]
)
def test_one_change_may_open_and_close(
    opens: bool, closes: bool, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a rule that allows other paths than before."""
    change = Change(callers(1), CALLEE, Reach.DEPENDS, Reach.DEPENDS, opens, closes)

    print_changes([change], ())

    first, *_ = capsys.readouterr().out.splitlines()
    assert first == f"{said}  {Reach.DEPENDS.value} → {Reach.DEPENDS.value}"


@pytest.mark.parametrize(
    ("count", "end"), [(MOST_NAMED, f"c{MOST_NAMED - 1:02}@cluster1"), (MOST_NAMED + 2, " and 2 more")]
)
def test_of_very_many_names_the_first_are_told_and_how_many_more(
    count: int, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_changes([Change(callers(count), CALLEE, Reach.NO, Reach.YES, opens=True, closes=False)], ())

    _, line, _ = capsys.readouterr().out.splitlines()
    assert line.startswith("  callers   default/c00@cluster1, default/c01@cluster1")
    assert line.endswith(end)
