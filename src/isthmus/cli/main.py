"""meshctl: the table of commands, plug-ins, and how errors are shown.

Every command is a module with one function: it parses, asks, and renders. What it needs beyond that it imports when it
runs, so that completion and `meshctl version` answer at once.

Exit codes: 0 done and well, 1 a problem found or something failed, 2 not understood, 130 interrupted.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isthmus.cli import (
    access,
    check,
    cluster,
    completion,
    demo,
    describe,
    get,
    install,
    lab,
    lab_build,
    mesh,
    translate,
    uninstall,
    version,
)
from isthmus.cli.failure import Failure

PLUGIN_PREFIX = "meshctl-"
COMPLETE = "_MESHCTL_COMPLETE"  # set by the scripts of `completion`


class Commands(TyperGroup):
    """The first word: a command of ours, or a plug-in on ``PATH``."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command of the first word. Becomes the plug-in if only one of that name exists."""
        if args and self.get_command(ctx, args[0]) is None and (plugin := shutil.which(PLUGIN_PREFIX + args[0])):
            sys.stdout.flush()
            os.execv(plugin, [plugin, *args[1:]])
        return super().resolve_command(ctx, args)

    def main(self, args: Sequence[str] | None = None, *rest: Any, **options: Any) -> Any:
        """Run *args*; a `Failure` becomes two lines on standard error and its exit code."""
        if COMPLETE in os.environ:
            from typer.completion import get_completion_inspect_parameters

            get_completion_inspect_parameters()  # registers typer's shells, which it else does for its own options
        try:
            return super().main(args, *rest, **options)
        except Failure as failure:
            typer.secho("error: ", fg="red", err=True, nl=False)
            typer.echo(failure.message.replace("\n", "\n       "), err=True)
            if failure.next_step:
                typer.secho("try:   ", fg="yellow", err=True, nl=False)
                typer.echo(failure.next_step, err=True)
            raise SystemExit(failure.code) from None


app = typer.Typer(
    name="meshctl",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,  # `completion` prints the scripts
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def global_options(
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Log what happens underneath to stderr.")] = False,
) -> None:
    """Join Istio meshes on many clusters into one virtual mesh.

    A word that is no command runs the program meshctl-WORD from PATH.
    """
    if verbose:
        from isthmus.cli import logs

        logs.configure(verbose=True)


clusters = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Register clusters with the management plane.")
clusters.command("register")(cluster.register)
clusters.command("deregister")(cluster.deregister)
clusters.command("list")(cluster.list_clusters)

meshes = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Restart what runs with an older certificate.")
meshes.command("restart")(mesh.restart)

accesses = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Who may call whom, and what a change would open or close."
)
accesses.command("can")(access.can)
accesses.command("matrix")(access.matrix)

laboratory = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Real clusters with Istio on this machine, without containers."
)
laboratory.command("build")(lab_build.build)
laboratory.command("up")(lab.up)
laboratory.command("down")(lab.down)
laboratory.command("status")(lab.status)
laboratory.command("flat")(lab.flat)
laboratory.command("exec")(lab.execute)

app.command("demo")(demo.demo)
app.command("install")(install.install)
app.command("uninstall")(uninstall.uninstall)
app.add_typer(clusters, name="cluster")
app.add_typer(meshes, name="mesh")
app.add_typer(laboratory, name="lab")
app.command("check")(check.check)
app.command("get")(get.get)
app.command("describe")(describe.describe)
app.add_typer(accesses, name="access")
app.command("translate")(translate.translate)
app.command("version")(version.version)
app.command("completion")(completion.completion)


def main() -> None:
    """The entry point of the program."""
    app()
