"""A matrix of `meshctl access` as a picture: SVG, alone or in a page of HTML that also names who is in a group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

import msgspec

from isthmus.cli.access_text import MEANINGS
from isthmus.model.ref import Ref
from isthmus.translate.access.reachability import Matrix, Reach, spelled

CELL, STEP, MARGIN = 20, 23, 28  # pixels; from one cell to the next there is a little more than a cell
APART = 26  # pixels between rows of two namespaces, with room for the name of the second
GAP = 9  # pixels between columns of two namespaces
CHARACTER = 6.9  # pixels of a character in the font below, on average and rounded up
SLOPE = 0.71  # of text that is turned by 45 degrees
MOST_ALONE = 60  # callers, and services, that have a line each; of more, those that are alike share one
FILL = {Reach.YES: "#2f9e6e", Reach.DEPENDS: "#f2b632", Reach.NO: "#e4e9ef", Reach.UNKNOWN: "#ffffff"}
STYLE = """\
text { font: 12px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-size: 18px; font-weight: 600 }
.where { fill: #7b8b9a }
.band { font-size: 11px; font-weight: 600; fill: #52667a }
.cell:hover { stroke: #1f2933; stroke-width: 1.5 }"""
PAGE = """\
body { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1f2933; margin: 0 }
section { padding: 0 28px 28px } h2 { font-size: 15px } li { margin: .3em 0 } .where { color: #7b8b9a }
figure { margin: 0; overflow-x: auto }"""


class Line(msgspec.Struct, frozen=True):
    """A row or a column: the callees or callers that it stands for, and the number of their group in the matrix."""

    names: tuple[Ref, ...]
    group: int

    @property
    def where(self) -> str:
        """Namespace and cluster of the first, by which lines are kept together."""
        return f"{self.names[0].namespace}@{self.names[0].cluster}"

    @property
    def label(self) -> str:
        """What stands beside the line."""
        more = len(self.names) - 1
        return f"{self.names[0].name} +{more}" if more else self.names[0].name


def svg(matrix: Matrix, title: str) -> str:
    """*matrix* drawn: a row for each service, a column for each caller, namespaces apart."""
    rows, columns = _lines(matrix.callees), _lines(matrix.callers)
    down, across = list(_places(rows, APART, APART)), list(_places(columns, GAP, 0))
    left = MARGIN + CHARACTER * max((len(each) for row in rows for each in (row.label, row.where)), default=21) + 8
    heads = SLOPE * CHARACTER * max((len(f"{column.label} {column.where}") for column in columns), default=0)
    top = MARGIN + 62 + heads
    width = max(left + (across[-1] if across else 0) + STEP + max(heads, MARGIN), MARGIN * 2 + 480)
    height = top + (down[-1] if down else 0) + STEP + MARGIN
    size = f'width="{width:.0f}" height="{height:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:.0f} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect {size} fill="#ffffff"/>',
        f'<text class="title" x="{MARGIN}" y="{MARGIN + 10}">{escape(title)}</text>',
        *_legend(MARGIN, MARGIN + 26),
    ]
    for column, x in zip(columns, across, strict=True):
        turned = f"translate({left + x + CELL / 2 + 4:.1f} {top - 6:.1f}) rotate(-45)"
        where = f'<tspan class="where" dx="5">{escape(column.where)}</tspan>'
        parts.append(f'<text transform="{turned}">{escape(column.label)}{where}</text>')
    parts.append(_text("where", left - 10, top - 6, "services ↓  callers →"))
    before = ""
    for row, y in zip(rows, down, strict=True):
        if row.where != before:
            parts.append(_text("band", left - 10, top + y - 7, row.where))
            before = row.where
        parts.append(_text("name", left - 10, top + y + CELL / 2 + 4, row.label))
        for column, x in zip(columns, across, strict=True):
            reach = matrix.cells[row.group][column.group]
            parts.append(_cell(left + x, top + y, reach, f"{column.label} → {row.label}: {MEANINGS[reach]}"))
    return "\n".join([*parts, "</svg>", ""])


def html(matrix: Matrix, title: str, unseen: Sequence[str]) -> str:
    """A page with the picture, and with the names of the callers and services that share a line in it."""
    sections = []
    for heading, groups in (("Callers that are alike", matrix.callers), ("Services that are alike", matrix.callees)):
        items = "".join(f"<li>{escape(', '.join(map(spelled, names)))}</li>" for names in groups if len(names) > 1)
        if items:
            sections.append(f"<section><h2>{heading}</h2><ul>{items}</ul></section>")
    if unseen:
        items = "".join(f"<li>{escape(each)}</li>" for each in unseen)
        sections.append(
            f"<section><h2>AuthorizationPolicies that users wrote are not counted in on</h2><ul>{items}</ul></section>"
        )
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        f"<style>{PAGE}</style></head>\n<body>\n<figure>{svg(matrix, title)}</figure>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _lines(groups: tuple[tuple[Ref, ...], ...]) -> list[Line]:
    """Lines in the order in which they are drawn."""
    alone = sum(map(len, groups)) <= MOST_ALONE
    lines = [
        Line(names, number)
        for number, group in enumerate(groups)
        for names in (((name,) for name in group) if alone else (group,))
    ]
    return sorted(lines, key=lambda line: line.names)


def _places(lines: Sequence[Line], apart: int, at: int) -> Iterator[int]:
    """Where each of *lines* begins; *apart* is added between two namespaces, the first begins *at*."""
    before = lines[0].where if lines else ""
    for line in lines:
        if line.where != before:
            at += apart
        before = line.where
        yield at
        at += STEP


def _legend(x: float, y: float) -> Iterator[str]:
    for reach, meaning in MEANINGS.items():
        yield _cell(x, y, reach, meaning)
        yield f'<text class="where" x="{x + CELL + 7:.1f}" y="{y + CELL / 2 + 4:.1f}">{meaning}</text>'
        x += CELL + 26 + len(meaning) * CHARACTER


def _text(kind: str, x: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="end">{escape(text)}</text>'


def _cell(x: float, y: float, reach: Reach, tooltip: str) -> str:
    """A square, coloured; what depends is half full, what is not known has a border only."""
    border = ' stroke="#cfd8e1" stroke-dasharray="2 2"' if reach is Reach.UNKNOWN else ""
    square = f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{CELL}" height="{CELL}" rx="4"'
    title = f"<title>{escape(tooltip)}</title>"
    if reach is not Reach.DEPENDS:
        return f'{square} fill="{FILL[reach]}"{border}>{title}</rect>'
    half = f"M{x:.1f} {y + 4:.1f}v{CELL - 8}a4 4 0 0 0 4 4h{CELL - 8}z"
    return f'{square} fill="#fbe6b3">{title}</rect><path d="{half}" fill="{FILL[reach]}" pointer-events="none"/>'
