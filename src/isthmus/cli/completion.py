"""`meshctl completion`."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def completion(
    ctx: typer.Context,
    shell: Annotated[Literal["bash", "zsh", "fish"], typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a shell's completion script.

    bash: add `source <(meshctl completion bash)` to ~/.bashrc. zsh: the same in ~/.zshrc, after compinit.
    fish: run `meshctl completion fish > ~/.config/fish/completions/meshctl.fish` once.
    """
    from typer.completion import show_callback

    show_callback(ctx, ctx.command.params[0], shell)
