"""How changes of access are told to people."""

from __future__ import annotations

import pytest

from isthmus.api.access_policy import AccessPolicy
from isthmus.cli.access_text import MOST_NAMED, origins, print_changes
from isthmus.model.ref import Ref
from isthmus.translate.access.evaluation import Effect, Policy
from isthmus.translate.access.reachability import Change, Deciding, Reach
from isthmus.translate.output import StatusKey
from isthmus.translate.parents import parents_annotation

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


@pytest.mark.parametrize(
    ("behind", "named"),
    [((), ("AccessPolicy gloo-mesh/p", "AccessPolicy gloo-mesh/q")), (("q",), ("AccessPolicy gloo-mesh/q",))],
)
def test_of_merged_policies_those_that_let_the_call_pass_are_named(
    behind: tuple[str, ...], named: tuple[str, ...]
) -> None:
    merged = parents_annotation(tuple(StatusKey(AccessPolicy.KIND, "gloo-mesh", name) for name in ("p", "q")))
    policy = Policy("default", "reviews", {}, None, Effect("ALLOW", ()), merged)

    assert origins(Deciding(policy, tuple(Ref("", "gloo-mesh", name) for name in behind))) == named
    assert origins(Deciding(Policy("default", "mine", {}, None, Effect("ALLOW", ()), {}))) == ()
