"""Telling the user what long work is at, on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer


def say(text: str) -> None:
    """One finished step."""
    typer.echo(text)
    sys.stdout.flush()


@contextmanager
def waiting(text: str) -> Iterator[None]:
    """*text* while something takes time: a spinner on a terminal, a line elsewhere; with the seconds it took."""
    started = time.monotonic()
    if sys.stdout.isatty():
        from rich.console import Console

        with Console().status(text, spinner="dots"):
            yield
    else:
        yield
    seconds = time.monotonic() - started
    say(f"{text}: done" + (f" ({seconds:.1f} s)" if seconds >= 0.05 else ""))
