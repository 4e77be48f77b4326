"""The manual's command reference is the commands' own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from isthmus.cli.main import app
from isthmus.cli.reference import PATH, reference

ROOT = Path(__file__).parents[3]


def test_the_page_is_current() -> None:
    assert (ROOT / PATH).read_text() == reference(), "stale: run `make generate`"


def options(command: Any) -> set[str]:
    inner = [options(each) for each in getattr(command, "commands", {}).values()]
    return {name for parameter in command.params for name in parameter.opts}.union(*inner)


def test_every_option_and_command_explains_itself() -> None:
    def commands(group: Any) -> list[Any]:
        found = []
        for command in group.commands.values():
            found += [command, *(commands(command) if hasattr(command, "commands") else [])]
        return found

    for command in commands(typer.main.get_command(app)):
        assert command.help, command.name
        for parameter in command.params:
            assert parameter.help or parameter.param_type_name == "argument", (command.name, parameter.name)


def test_the_page_names_every_option() -> None:
    page = reference()

    assert all(f"`{name}`" in page for name in options(typer.main.get_command(app)) if name.startswith("-"))
