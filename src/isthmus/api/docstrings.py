"""The documentation that the types carry in their source, for schemas and reference pages.

Only generation reads it: it needs the source files, which the running programs do not.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from functools import cache

import msgspec


def summary(cls: type) -> str:
    """The docstring of *cls* without what follows its first paragraph."""
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0].replace("\n", " ")


@cache
def attribute_docs(cls: type[msgspec.Struct]) -> dict[str, str]:
    """The docstring below each attribute of *cls* and its bases, on one line. An attribute without one is left out."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            docs.update(_docs_in(base.__module__).get(base.__name__, {}))
    return docs


def plain(text: str) -> str:
    """*text* with the marks of code that Markdown and `kubectl explain` share."""
    return re.sub(r"``([^`]+)``", r"`\1`", text)


@cache
def _docs_in(module: str) -> dict[str, dict[str, str]]:
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: _class_docs(node) for node in tree.body if isinstance(node, ast.ClassDef)}


def _class_docs(node: ast.ClassDef) -> dict[str, str]:
    docs: dict[str, str] = {}
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                docs[name] = inspect.cleandoc(text).replace("\n", " ")
    return docs
