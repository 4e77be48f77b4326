"""How a command says that it could not do what it was asked."""

from __future__ import annotations


class Failure(Exception):
    """A command ends with exit code *code*. *next_step* is what the user can do about it, in one sentence."""

    def __init__(self, message: str, next_step: str = "", code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.code = code
