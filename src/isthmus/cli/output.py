"""How results reach standard output: aligned tables, JSON, YAML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import typer

_NO_TEXT_IN_GO = re.compile(
    r"[yYnN]|[-+]?(?:[0-9][0-9_]*\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|0[oO][0-7_]+|0[bB][01_]+", re.ASCII
)
"""What kubectl and istioctl read as numbers and truth, such as a label's value 7e10, and Python does not."""


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table as kubectl prints it."""
    for line in table_lines(headers, rows):
        typer.echo(line)


def table_lines(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """*headers* and *rows* in columns three spaces apart, without rules, so that other programs can read them."""
    lines = [list(headers), *([cell or "<none>" for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return ["   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def print_json(value: object) -> None:
    """Indented JSON."""
    typer.echo(json_text(value), nl=False)


def print_yaml(values: Iterable[Mapping[str, Any]]) -> None:
    """One YAML document for each of *values*."""
    for index, value in enumerate(values):
        typer.echo(("---\n" if index else "") + yaml_text(value), nl=False)


def json_text(value: object) -> str:
    """Indented JSON with its final newline, keys in the order they have."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def yaml_text(value: object) -> str:
    """One YAML document with its final newline, keys sorted as kubectl does."""
    import yaml

    class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]  # C where libyaml is there
        def ignore_aliases(self, _: object) -> bool:
            return True  # kubectl reads anchors, people do not

    def text(dumper: Any, value: str) -> Any:
        style = "'" if _NO_TEXT_IN_GO.fullmatch(value) else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Dumper.add_representer(str, text)
    return str(yaml.dump(value, Dumper=Dumper, default_flow_style=False, allow_unicode=True, width=1_000_000))


def as_list(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """*items* as a Kubernetes ``List``."""
    return {"apiVersion": "v1", "kind": "List", "items": list(items)}
