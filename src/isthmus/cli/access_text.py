"""Answers of `meshctl access` as text for people and as data for programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import typer

from isthmus.api.access_policy import AccessPolicy
from isthmus.model.ref import Ref
from isthmus.translate.access.reachability import Change, Deciding, Ground, Matrix, Reach, Verdict, spelled
from isthmus.translate.parents import ANNOTATION

SYMBOLS = {
    Reach.YES: ("●", "green"),
    Reach.DEPENDS: ("◐", "yellow"),
    Reach.NO: ("○", "red"),
    Reach.UNKNOWN: ("·", None),
}
MEANINGS = {
    Reach.YES: "yes",
    Reach.DEPENDS: "depends on the request",
    Reach.NO: "no",
    Reach.UNKNOWN: "not known there",
}
MOST_NAMED = 8  # names on one line; -o json has them all
Data = dict[str, Any]


def origins(deciding: Deciding) -> tuple[str, ...]:
    """The users' objects that a policy comes from, ``AccessPolicy gloo-mesh/name``; none for one that users wrote.

    Of those that were merged only those that let the call pass, if one does.
    """
    if deciding.behind:
        return tuple(f"{AccessPolicy.KIND.kind} {ref.namespace}/{ref.name}" for ref in deciding.behind)
    named = deciding.policy.annotations.get(ANNOTATION)
    if not named:
        return ()
    found: dict[str, list[dict[str, str]]] = msgspec.json.decode(named)
    return tuple(
        f"{kind.rpartition('Kind=')[2]} {each['namespace']}/{each['name']}"
        for kind, refs in found.items()
        for each in refs
    )


# --- one call ---------------------------------------------------------------------------------------------------------


def print_verdict(caller: Ref, callee: Ref, verdict: Verdict, unseen: Sequence[str]) -> None:
    """The answer on one line, and its grounds below."""
    symbol, colour = SYMBOLS[verdict.answer]
    word = {Reach.UNKNOWN: "no", Reach.DEPENDS: "depends"}.get(verdict.answer, verdict.answer.value)
    typer.secho(f"{symbol} {word}", fg=colour, bold=True, nl=False)
    typer.echo(f": {spelled(caller)} → {spelled(callee)}: {verdict.reason}")
    for ground in verdict.grounds:
        _print_ground(ground, several=len(verdict.grounds) > 1)
    _print_unseen(unseen)


def _print_ground(ground: Ground, *, several: bool) -> None:
    indent = "  "
    if several:
        typer.echo(f"  {ground.about}: {ground.decision.reason}")
        indent = "    "
    for deciding in ground.policies:
        source = origins(deciding)
        made = f" from {_listed(source)}" if source else ""
        typer.echo(f"{indent}{deciding.policy.effect.action} {deciding.policy.key}{made}")
    if ground.decision.depends_on:
        typer.echo(f"{indent}depends on whether {_listed(ground.decision.depends_on)}")


def verdict_data(caller: Ref, callee: Ref, verdict: Verdict, unseen: Sequence[str]) -> Data:
    """The answer as data."""
    return {
        "caller": spelled(caller),
        "callee": spelled(callee),
        "answer": verdict.answer.value,
        "reason": verdict.reason,
        "grounds": [
            {
                "about": ground.about,
                "answer": ground.decision.answer.value,
                "reason": ground.decision.reason,
                "policies": [
                    {
                        "name": deciding.policy.key,
                        "action": deciding.policy.effect.action,
                        "from": list(origins(deciding)),
                    }
                    for deciding in ground.policies
                ],
                "dependsOn": list(ground.decision.depends_on),
            }
            for ground in verdict.grounds
        ],
        "unseen": list(unseen),
    }


# --- many calls -------------------------------------------------------------------------------------------------------


def print_matrix(matrix: Matrix, unseen: Sequence[str]) -> None:
    """A row for each service, a numbered column for each group of callers, and the groups below."""
    rows = sorted((name, cells) for names, cells in zip(matrix.callees, matrix.cells, strict=True) for name in names)
    if not rows:
        typer.echo("No services found.", err=True)
        return
    if not matrix.callers:
        typer.echo("No callers found.", err=True)
        return
    typer.echo("   ".join(f"{_symbol(reach)} {meaning}" for reach, meaning in MEANINGS.items()) + "\n")
    wide = max(len(spelled(name)) for name, _ in rows)
    digits = len(str(len(matrix.callers)))
    numbers = "  ".join(str(number).rjust(digits) for number in range(1, len(matrix.callers) + 1))
    typer.secho(f"{'CALLERS'.rjust(wide)}  {numbers}", bold=True)
    for name, cells in rows:
        drawn = "  ".join(" " * (digits - 1) + _symbol(cell) for cell in cells)
        typer.echo(f"{spelled(name).ljust(wide)}  {drawn}")
    typer.secho("\nCALLERS", bold=True)
    for number, names in enumerate(matrix.callers, start=1):
        typer.echo(f"{str(number).rjust(digits)}  {_listed([spelled(name) for name in names])}")
    _print_unseen(unseen)


def matrix_data(matrix: Matrix, unseen: Sequence[str]) -> Data:
    """The matrix as data: each answer once, with all callees and callers that it is about."""
    return {
        "answers": [
            {
                "answer": cell.value,
                "callees": [spelled(name) for name in callees],
                "callers": [spelled(name) for name in callers],
            }
            for callees, row in zip(matrix.callees, matrix.cells, strict=True)
            for callers, cell in zip(matrix.callers, row, strict=True)
        ],
        "unseen": list(unseen),
    }


def print_changes(changes: Sequence[Change], unseen: Sequence[str]) -> None:
    """What opens first, then what closes."""
    if not changes:
        typer.echo("Nothing opens and nothing closes.")
    for change in changes:
        what, colour = _word(change)
        typer.secho(what, fg=colour, bold=True, nl=False)
        typer.echo(f"  {change.before.value} → {change.after.value}")
        for title, names in (("callers", change.callers), ("services", change.callees)):
            typer.echo(f"  {title.ljust(8)}  {_listed([spelled(name) for name in names])}")
    _print_unseen(unseen)


def _word(change: Change) -> tuple[str, str]:
    if change.opens and change.closes:
        return "opens and closes", "red"
    return ("opens", "red") if change.opens else ("closes", "green")


def changes_data(changes: Sequence[Change], unseen: Sequence[str]) -> Data:
    """The changes as data."""
    return {
        "opens": any(change.opens for change in changes),
        "closes": any(change.closes for change in changes),
        "changes": [
            {
                "opens": change.opens,
                "closes": change.closes,
                "before": change.before.value,
                "after": change.after.value,
                "callers": [spelled(name) for name in change.callers],
                "callees": [spelled(name) for name in change.callees],
            }
            for change in changes
        ],
        "unseen": list(unseen),
    }


def _symbol(reach: Reach) -> str:
    symbol, colour = SYMBOLS[reach]
    return typer.style(symbol, fg=colour) if colour else symbol


def print_notes(texts: Iterable[str]) -> None:
    """What deserves attention beside an answer, on standard error."""
    for each in texts:
        typer.secho("note: ", fg="yellow", nl=False, err=True)
        typer.echo(each, err=True)


def _print_unseen(unseen: Iterable[str]) -> None:
    print_notes(f"AuthorizationPolicies that users wrote are not counted in on cluster {each}" for each in unseen)


def _listed(texts: Sequence[str]) -> str:
    shown = ", ".join(texts[:MOST_NAMED])
    return f"{shown} and {len(texts) - MOST_NAMED} more" if len(texts) > MOST_NAMED else shown
