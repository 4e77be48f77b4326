"""`meshctl version`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from isthmus import __version__


def version(
    output: Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="What to print.")] = "text",
) -> None:
    """The version of meshctl."""
    if output == "json":
        from isthmus.cli.output import print_json

        print_json({"client": {"version": __version__}})
    else:
        typer.echo(f"meshctl {__version__}")
