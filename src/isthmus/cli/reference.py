"""``python -m isthmus.cli.reference [--check]``: the manual's command reference, out of the commands themselves."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from isthmus.cli.main import app

PATH = Path("docs/reference/meshctl.md")

HEAD = """\
# meshctl

<!-- Written by `python -m isthmus.cli.reference`. Do not edit: change the commands. -->

Kubeconfig and contexts are kubectl's: `$KUBECONFIG` or `~/.kube/config`, and the current context, unless an option says
otherwise. Results go to standard output; errors and the next step to standard error.

| exit code | means |
|---|---|
| 0 | done, and well |
| 1 | a problem was found, or something failed |
| 2 | the command line was not understood |
| 130 | interrupted |

A first word that is no command runs the program `meshctl-WORD` from `PATH` with the remaining words.
"""


def reference() -> str:
    """The page."""
    root: Any = typer.main.get_command(app)
    return "\n".join([HEAD, *_table(root, "## Global options"), *_commands(root, "meshctl")]).rstrip() + "\n"


def _commands(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        path = f"{prefix} {name}"
        if hasattr(command, "commands"):
            yield from _commands(command, path)
            continue
        words = [_placeholder(parameter) for parameter in _of(command, "argument")]
        yield f"## {path}\n\n    {' '.join([path, '[OPTIONS]', *words])}\n"
        yield inspect.cleandoc(command.help or "") + "\n"
        yield from _table(command, "")


def _table(command: Any, title: str) -> Iterator[str]:
    rows = [
        f"| `{_placeholder(parameter)}` | {_escaped(parameter.help or '')} | |"
        for parameter in _of(command, "argument")
    ]
    for parameter in _of(command, "option"):
        names = ", ".join(f"`{name}`" for name in parameter.opts)
        value = "" if parameter.is_flag else f" `{_value(parameter)}`"
        default = parameter.default
        shown = "" if default in (None, "", False) or callable(default) else f"`{default}`"
        rows.append(f"| {names}{value} | {_escaped(parameter.help or '')} | {shown} |")
    if rows:
        if title:
            yield title + "\n"
        yield "| | | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _of(command: Any, kind: str) -> list[Any]:
    return [parameter for parameter in command.params if parameter.param_type_name == kind]


def _placeholder(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _value(parameter: Any) -> str:
    declared = getattr(parameter, "type_descriptor", None) or parameter.type  # typer from 0.29 on, and before
    choices = getattr(declared, "choices", None)
    return str(parameter.metavar or ("\\|".join(map(str, choices)) if choices else "VALUE"))


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    """Write the page into the checkout, or with ``--check`` say whether it is stale. The exit code."""
    if arguments == ["--check"]:
        stale = not PATH.exists() or PATH.read_text() != reference()
        if stale:
            sys.stderr.write(f"{PATH} is stale: run `make generate`\n")
        return int(stale)
    PATH.write_text(reference())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
