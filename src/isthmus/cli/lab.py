"""`meshctl lab`: the walk-through's clusters for real, with Istio, on this machine."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import TableOrData

if TYPE_CHECKING:
    from isthmus.lab.box import Box

Directory = Annotated[
    Path | None,
    typer.Option(
        "--directory",
        metavar="DIR",
        envvar="ISTHMUS_LAB_DIRECTORY",
        help="Where its kubeconfig and its logs are [default: ~/.local/state/isthmus/lab].",
    ),
]
MEGA = 1024 * 1024


def up(
    directory: Directory = None,
    flat: Annotated[
        bool, typer.Option("--flat", help="One network: pods of both Istio clusters reach each other.")
    ] = False,
    bare: Annotated[bool, typer.Option("--bare", help="Only the clusters, without Istio and bookinfo.")] = False,
) -> None:
    """Start three clusters, with Istio on two of them and bookinfo; they run until `meshctl lab down`."""
    from isthmus.lab.binaries import LabUnready, find, require_system_programs
    from isthmus.lab.box import BoxFailed
    from isthmus.lab.plan import NAMES
    from isthmus.lab.setup import CommandFailed, Setup

    started = time.monotonic()

    def report(text: str) -> None:
        typer.echo(f"{time.monotonic() - started:5.1f} s  {text}")

    try:
        require_system_programs()
        binaries = find()
    except LabUnready as error:
        raise Failure(error.message, error.next_step) from error
    box = _box(directory)
    try:
        box.start(NAMES, flat=flat, report=report)
    except BoxFailed as error:
        raise Failure(str(error), f"look at {box.directory}") from error
    if not bare:
        try:
            Setup(box, binaries, report).clusters(NAMES[1:])
        except CommandFailed as error:
            raise Failure(
                str(error), f"meshctl lab status; the clusters still run, logs are in {box.directory}"
            ) from error
    typer.echo(
        f"""
The clusters {", ".join(NAMES)} run until `meshctl lab down`. Use them from this shell:

  export KUBECONFIG={box.kubeconfig} PATH={binaries.search_path}:$PATH
  kubectl --context cluster1 get pods -A
"""
    )


def down(directory: Directory = None) -> None:
    """End the lab; nothing of it stays but its logs."""
    box = _box(directory)
    typer.echo("the lab has ended" if box.stop() else f"no lab runs in {box.directory}")


def status(directory: Directory = None, output: TableOrData = "table") -> None:
    """List the lab's processes and their memory. Exit code 1 if no lab runs."""
    from isthmus.cli.output import print_json, print_table, print_yaml

    box = _box(directory)
    with _boxed():
        processes = sorted(box.processes(), key=lambda process: (process.place, process.pid))
    if output != "table":
        rows: list[dict[str, Any]] = [
            {"pid": found.pid, "where": found.place, "memory": found.memory, "command": found.command}
            for found in processes
        ]
        print_json(rows) if output == "json" else print_yaml([{"processes": rows}])
        return
    print_table(
        ("WHERE", "PID", "MEMORY", "COMMAND"),
        [(found.place, str(found.pid), f"{found.memory / MEGA:.0f} MiB", _short(found.command)) for found in processes],
    )
    total = sum(found.memory for found in processes)
    typer.echo(f"{len(processes)} processes, {total / MEGA:.0f} MiB")


def flat(
    state: Annotated[
        str, typer.Argument(metavar="on|off", help="Whether pods of both Istio clusters reach each other.")
    ],
    directory: Directory = None,
) -> None:
    """Put the Istio clusters of a running lab on one network, or apart."""
    if state not in ("on", "off"):
        raise typer.BadParameter("on or off", param_hint="STATE")
    import asyncio

    from isthmus.lab.network import NetworkFailed, set_flat
    from isthmus.lab.plan import plan

    box = _box(directory)
    with _boxed():
        clusters, enter = plan(box.running().names), tuple(box.inside("", ()))
    try:
        asyncio.run(set_flat(clusters, flat=state == "on", enter=enter))
    except NetworkFailed as error:
        raise Failure(str(error), "meshctl lab status") from error


def execute(
    machine: Annotated[str, typer.Argument(metavar="CLUSTER", help="In whose network to run the command.")],
    command: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="What to run, after --.")],
    directory: Directory = None,
) -> None:
    """Run a command in the network of a cluster's nodes: there its load balancers' addresses are reached."""
    with _boxed():
        argv = _box(directory).inside(machine, command)
    os.execvp(argv[0], argv)


def _box(directory: Path | None) -> Box:
    from isthmus.lab.box import Box

    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Box((directory or Path(state) / "isthmus" / "lab").absolute())


@contextmanager
def _boxed() -> Iterator[None]:
    from isthmus.lab.box import BoxFailed

    try:
        yield
    except BoxFailed as error:
        raise Failure(str(error), "meshctl lab up") from error


def _short(command: str, width: int = 90) -> str:
    words = shlex.join([Path(word).name if index == 0 else word for index, word in enumerate(command.split(" "))])
    return words if len(words) <= width else words[: width - 1] + "…"
