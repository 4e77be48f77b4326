"""Renders the part of Go's templates that our charts use, so that `meshctl` needs no Helm.

Anything else is an error that names the file and the line, as soon as the template is read: an action, a function that
is not in `functions`, a variable that is not there. What Go prints and nobody wants, such as ``map[a:b]``, is an error
as well. A test compares with Helm (`tests/lab/test_charts.py`).

Source: https://pkg.go.dev/text/template, https://masterminds.github.io/sprig/, https://helm.sh/docs/chart_template_guide/
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

from isthmus.install.functions import FUNCTIONS, HELM_ONLY, printed

Scope = ChainMap[str, Any]
"""Variables by name and the ``.``, those of the innermost block first."""


class TemplateError(Exception):
    """A template that cannot be read or rendered, or that refuses its values; says the file and the line."""


# --- what a template is made of -----------------------------------------------------------------------------------


class Node(msgspec.Struct, frozen=True):
    """Base of all parts; *at* is ``<file>:<line>``."""

    at: str


class Text(Node, frozen=True):
    """Printed as it is."""

    text: str


class Literal(Node, frozen=True):
    """A constant, or None for ``nil``."""

    value: Any


class Path(Node, frozen=True):
    """*fields* of *base*, which is ``.``, a variable such as ``$`` or ``$x``, or something in parentheses."""

    base: str | Node
    fields: tuple[str, ...]


class Call(Node, frozen=True):
    """A function of `FUNCTIONS` with its operands. The empty name calls the first operand with the others."""

    function: str
    operands: tuple[Node, ...]


class Print(Node, frozen=True):
    """Prints a value."""

    value: Node


class Assign(Node, frozen=True):
    """Sets a variable: a new one of this block, or one that is there."""

    name: str
    value: Node
    new: bool


class Branch(Node, frozen=True):
    """``if``, ``with`` or ``range``: *body* if *value* is not empty, else *other*. *names* are its variables."""

    word: str
    names: tuple[str, ...]
    value: Node
    body: tuple[Node, ...]
    other: tuple[Node, ...]


Body = tuple[Node, ...]


# --- reading --------------------------------------------------------------------------------------------------------

ACTION = re.compile(r"\{\{(?P<left>-\s)?(?P<code>.*?)(?P<right>\s-)?\}\}", re.S)
TOKEN = re.compile(
    r"""\s+|(?P<text>"(?:\\.|[^"\\])*")|(?P<number>-?\d+)|(?P<path>\$?\w*(?:\.\w+)+|\$\w*|\.)"""
    r"""|(?P<name>[a-zA-Z]\w*)|(?P<mark>:=|=|\||\(|\)|,)"""
)


class _Reader:
    """Reads one file. Every method takes what it describes off the front."""

    def __init__(self, file: str, source: str) -> None:
        self._file = file
        self._parts: list[tuple[str, str, int]] = list(self._split(source))
        self._next = 0
        self.definitions: dict[str, Body] = {}

    def read(self) -> Body:
        """The whole file."""
        return self._body({"$", "."}, ())[0]

    def _split(self, source: str) -> Iterator[tuple[str, str, int]]:
        """(text or action, content, line), spaces trimmed as ``{{-`` and ``-}}`` say, comments left out."""
        start, trim = 0, False
        for found in ACTION.finditer(source):
            text = source[start : found.start()]
            text = text.lstrip() if trim else text
            yield "text", text.rstrip() if found["left"] else text, source.count("\n", 0, start) + 1
            if not found["code"].strip().startswith("/*"):
                yield "action", found["code"].strip(), source.count("\n", 0, found.start()) + 1
            start, trim = found.end(), bool(found["right"])
        text = source[start:]
        if "{{" in text:
            line = source.count("\n", 0, start + text.index("{{")) + 1
            raise TemplateError(f"{self._file}:{line}: an action that does not end")
        yield "text", text.lstrip() if trim else text, source.count("\n", 0, start) + 1

    def _body(self, known: set[str], ends: tuple[str, ...]) -> tuple[Body, str, str]:
        """Nodes up to one of *ends*; which one, and where. *known* are the variables, to which this block adds."""
        nodes: list[Node] = []
        at = f"{self._file}:1"
        while self._next < len(self._parts):
            what, content, line = self._parts[self._next]
            self._next += 1
            at = f"{self._file}:{line}"
            if what == "text":
                if content:
                    nodes.append(Text(at, content))
                continue
            word, *more = content.split(None, 1)
            rest = more[0] if more else ""
            if word in ("if", "with", "range"):
                nodes.append(self._branch(word, rest, set(known), at))
            elif word == "define":
                self._define(rest, at)
            elif word in ("end", "else"):
                if word not in ends:
                    raise TemplateError(f"{at}: {content!r} ends nothing")
                return tuple(nodes), content, at
            else:
                nodes.append(_Code(content, at, known).statement())
        if ends:
            raise TemplateError(f"{at}: 'end' is missing")
        return tuple(nodes), "", at

    def _branch(self, word: str, code: str, known: set[str], at: str) -> Branch:
        names, value = _Code(code, at, known).head(word)
        known.update(names)
        body, end, where = self._body(set(known), ("end", "else"))
        other: Body = ()
        if end != "end":
            _, _, again = end.partition(" ")
            if again.startswith("if "):
                other = (self._branch("if", again.removeprefix("if "), set(known), where),)
            elif again:
                raise TemplateError(f"{where}: {end!r} is not understood")
            else:
                other, _, _ = self._body(set(known), ("end",))
        return Branch(at, word, names, value, body, other)

    def _define(self, name: str, at: str) -> None:
        if not re.fullmatch(r'\s*"[^"\\]+"\s*', name):
            raise TemplateError(f"{at}: a definition needs a name in quotes")
        self.definitions[name.strip()[1:-1]] = self._body({"$", "."}, ("end",))[0]


class _Code:
    """Reads the code of one action."""

    def __init__(self, code: str, at: str, known: set[str]) -> None:
        self._at = at
        self._known = known
        self._tokens: list[tuple[str, str]] = []
        position = 0
        while position < len(code):
            found = TOKEN.match(code, position)
            if found is None:
                raise TemplateError(f"{at}: {code[position:]!r} is not understood")
            if found.lastgroup:
                # A field right behind a parenthesis belongs to it.
                glued = found.lastgroup == "path" and position > 0 and code[position - 1] == ")"
                self._tokens.append(("fields" if glued else found.lastgroup, found[0]))
            position = found.end()

    def statement(self) -> Node:
        """A value to print, or the setting of a variable."""
        match self._tokens:
            case [("path", name), ("mark", ":=" | "=" as mark), *_] if name.startswith("$") and "." not in name:
                del self._tokens[:2]
                value = self._whole()
                if mark == "=":
                    self._check(name)
                self._known.add(name)
                return Assign(self._at, name, value, mark == ":=")
        return Print(self._at, self._whole())

    def head(self, word: str) -> tuple[tuple[str, ...], Node]:
        """The variables and the value of an ``if``, ``with`` or ``range``."""
        names: tuple[str, ...] = ()
        match self._tokens:
            case [("path", key), ("mark", ","), ("path", value), ("mark", ":="), *_] if word == "range":
                names = (key, value)
                del self._tokens[:4]
            case [("path", name), ("mark", ":="), *_]:
                names = (name,)
                del self._tokens[:2]
        return names, self._whole()

    def _whole(self) -> Node:
        value = self._pipeline()
        if self._tokens:
            raise TemplateError(f"{self._at}: {self._tokens[0][1]!r} is not expected here")
        return value

    def _pipeline(self) -> Node:
        value = self._command(())
        while self._tokens and self._tokens[0] == ("mark", "|"):
            del self._tokens[0]
            value = self._command((value,))
        return value

    def _command(self, piped: Body) -> Node:
        """A function with its operands, the *piped* one last; or a value."""
        function = ""
        if self._tokens and self._tokens[0][0] == "name" and self._tokens[0][1] not in CONSTANTS:
            function = self._tokens.pop(0)[1]
            if function not in KNOWN:
                raise TemplateError(
                    f"{self._at}: function {function!r} is not known here; see isthmus.install.template"
                )
        operands: list[Node] = []
        while self._tokens and self._tokens[0] not in (("mark", "|"), ("mark", ")")):
            operands.append(self._operand())
        if not function and not operands:
            raise TemplateError(f"{self._at}: a value is missing")
        if not function and len(operands) + len(piped) == 1:
            return operands[0]
        return Call(self._at, function, (*operands, *piped))

    def _operand(self) -> Node:
        sort, text = self._tokens.pop(0)
        match sort:
            case "text":
                return Literal(self._at, _unquoted(text))
            case "number":
                return Literal(self._at, int(text))
            case "name" if text in CONSTANTS:
                return Literal(self._at, CONSTANTS[text])
            case "name" if text in KNOWN:
                return Call(self._at, text, ())
            case "path":
                base, *fields = text.split(".")
                self._check(base or ".")
                return Path(self._at, base or ".", tuple(filter(None, fields)))
            case "mark" if text == "(":
                value = self._pipeline()
                if not self._tokens or self._tokens.pop(0) != ("mark", ")"):
                    raise TemplateError(f"{self._at}: a parenthesis is not closed")
                if self._tokens and self._tokens[0][0] == "fields":
                    return Path(self._at, value, tuple(self._tokens.pop(0)[1].split(".")[1:]))
                return value
        raise TemplateError(f"{self._at}: {text!r} is not expected here")

    def _check(self, name: str) -> None:
        if name not in self._known:
            raise TemplateError(f"{self._at}: there is no variable {name}")


CONSTANTS = {"true": True, "false": False, "nil": None}
OF_TEMPLATES = frozenset({"and", "or", "include"})
"""Functions that do not just take values: see `Templates`."""
KNOWN = FUNCTIONS.keys() | OF_TEMPLATES | HELM_ONLY


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text[1:-1])


# --- rendering ------------------------------------------------------------------------------------------------------


class Templates:
    """The templates of a chart: files by name, and what they define, which all of them may include."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = tuple(sorted(name for name in files if not name.rpartition("/")[2].startswith("_")))
        """Those that print something; the others only define, which Helm tells by the underscore."""
        self._bodies: dict[str, Body] = {}
        for name, source in files.items():
            reader = _Reader(name, source)
            self._bodies[name] = reader.read()
            self._bodies.update(reader.definitions)

    def render(self, name: str, data: object) -> str:
        """What the file or definition *name* prints of *data*. Raises `TemplateError`."""
        if name not in self._bodies:
            raise TemplateError(f"nothing defines a template {name!r}")
        return "".join(self._print(self._bodies[name], ChainMap({"$": data, ".": data})))

    def _print(self, body: Body, scope: Scope) -> Iterator[str]:
        for node in body:
            match node:
                case Text(text=text):
                    yield text
                case Print(at, value):
                    found = self._value(value, scope)
                    try:
                        yield printed(found)
                    except TypeError as error:
                        raise TemplateError(f"{at}: {error}") from error
                case Assign(_, name, value, new):
                    place = scope.maps[0] if new else next(block for block in scope.maps if name in block)
                    place[name] = self._value(value, scope)
                case Branch():
                    yield from self._branch(node, scope)

    def _branch(self, node: Branch, scope: Scope) -> Iterator[str]:
        value = self._value(node.value, scope)
        inner = scope.new_child()
        if node.word != "range":
            for name in node.names:
                inner[name] = value
            if value and node.word == "with":
                inner["."] = value
            yield from self._print(node.body if value else node.other, inner)
            return
        if not isinstance(value, Mapping | Sequence) or isinstance(value, str):
            raise TemplateError(f"{node.at}: cannot range over {value!r}")
        rows = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
        for key, item in rows:
            block = scope.new_child({".": item})
            for name, found in zip(node.names[::-1], (item, key), strict=False):
                block[name] = found
            yield from self._print(node.body, block)
        if not rows:
            yield from self._print(node.other, inner)

    def _value(self, node: Node, scope: Scope) -> Any:
        match node:
            case Literal(value=value):
                return value
            case Path(at, base, fields):
                value = self._value(base, scope) if isinstance(base, Node) else scope[base]
                for field in fields:
                    if not isinstance(value, Mapping):
                        raise TemplateError(f"{at}: {value!r} has no field {field!r}")
                    value = value.get(field)
                return value
            case Call(at, function, operands):
                return self._call(at, function, operands, scope)
        raise AssertionError(f"{type(node).__name__} has no value")

    def _call(self, at: str, function: str, operands: Body, scope: Scope) -> Any:
        if function in ("and", "or"):
            value: Any = None
            for operand in operands:
                value = self._value(operand, scope)
                if bool(value) is (function == "or"):
                    break
            return value
        values = [self._value(operand, scope) for operand in operands]
        if function == "include":
            return self.render(*values)
        if function == "":
            method, *rest = values
            if not callable(method):
                raise TemplateError(f"{at}: {method!r} takes no operands")
            return method(*rest)
        if function in HELM_ONLY:
            raise TemplateError(f"{at}: only Helm has {function!r}")
        try:
            return FUNCTIONS[function](*values)
        except (TypeError, ValueError, KeyError, IndexError, yaml.YAMLError) as error:
            raise TemplateError(f"{at}: {function}: {error}") from error
