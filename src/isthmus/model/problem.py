"""One fault in a user's object, as a value that ends in that object's status."""

from __future__ import annotations

import msgspec


class Problem(msgspec.Struct, frozen=True, order=True):
    """A fault that its author can mend.

    *path* is the field path within the object (``spec.meshes[1].name``; empty for the object as a whole), *reason* a
    CamelCase word for machines, *message* a sentence that says what was found and what would do.
    """

    path: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message
