"""Renders the part of Go's templates that our charts use, so that `meshctl` needs no Helm.

Everything else is an error that names the file and the line, when a template is read and not when it is rendered:
actions and functions that are not in the tables below, or a variable that is not there. Where Go and Helm do something
surprising with what is left, such as printing ``<no value>``, this refuses. A test compares with Helm (`tests/lab`).

Source: https://pkg.go.dev/text/template, https://masterminds.github.io/sprig/, https://helm.sh/docs/chart_template_guide/
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C where PyYAML was built with it: ten times as fast


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
    r"""\s+|(?P<text>"(?:\\.|[^"\\])*"|`[^`]*`)|(?P<number>-?\d+)|(?P<path>\$?\w*(?:\.\w+)+|\$\w*|\.)"""
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
        body, end, at = self._body({"$"}, ())
        if end:
            raise TemplateError(f"{at}: {end!r} ends nothing")
        return body

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
        self.definitions[name.strip()[1:-1]] = self._body({"$"}, ("end",))[0]


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
                return Literal(self._at, text[1:-1] if text[0] == "`" else _unquoted(text))
            case "number":
                return Literal(self._at, int(text))
            case "name" if text in CONSTANTS:
                return Literal(self._at, CONSTANTS[text])
            case "name" if text in KNOWN:
                return Call(self._at, text, ())
            case "path":
                base, *fields = text.split(".")
                if base:
                    self._check(base)
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
        return "".join(self._print(self._bodies[name], data, Scope({"$": data})))

    def _print(self, body: Body, dot: object, scope: Scope) -> Iterator[str]:
        for node in body:
            match node:
                case Text(text=text):
                    yield text
                case Print(at, value):
                    yield printed(self._value(value, dot, scope), at)
                case Assign(_, name, value, new):
                    scope.set(name, self._value(value, dot, scope), new=new)
                case Branch():
                    yield from self._branch(node, dot, scope)

    def _branch(self, node: Branch, dot: object, scope: Scope) -> Iterator[str]:
        value = self._value(node.value, dot, scope)
        inner = Scope({}, scope)
        if node.word != "range":
            for name in node.names:
                inner.set(name, value, new=True)
            if value:
                yield from self._print(node.body, value if node.word == "with" else dot, inner)
            else:
                yield from self._print(node.other, dot, inner)
            return
        if not isinstance(value, Mapping | Sequence) or isinstance(value, str):
            raise TemplateError(f"{node.at}: cannot range over {value!r}")
        rows = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value))
        for key, item in rows:
            block = Scope({}, scope)
            for name, found in zip(node.names[::-1], (item, key), strict=False):
                block.set(name, found, new=True)
            yield from self._print(node.body, item, block)
        if not rows:
            yield from self._print(node.other, dot, inner)

    def _value(self, node: Node, dot: object, scope: Scope) -> Any:
        match node:
            case Literal(value=value):
                return value
            case Path(at, base, fields):
                if isinstance(base, Node):
                    value = self._value(base, dot, scope)
                else:
                    value = dot if base == "." else scope.get(base)
                for field in fields:
                    if not isinstance(value, Mapping):
                        raise TemplateError(f"{at}: {value!r} has no field {field!r}")
                    value = value.get(field)
                return value
            case Call(at, function, operands):
                return self._call(at, function, operands, dot, scope)
        raise AssertionError(f"{type(node).__name__} has no value")

    def _call(self, at: str, function: str, operands: Body, dot: object, scope: Scope) -> Any:
        if function in ("and", "or"):
            value: Any = None
            for operand in operands:
                value = self._value(operand, dot, scope)
                if bool(value) is (function == "or"):
                    break
            return value
        values = [self._value(operand, dot, scope) for operand in operands]
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


class Scope:
    """The variables of a block, in front of those around it."""

    def __init__(self, variables: dict[str, Any], outer: Scope | None = None) -> None:
        self._variables = variables
        self._outer = outer

    def get(self, name: str) -> Any:
        """The value of a variable that is there."""
        if name in self._variables or self._outer is None:
            return self._variables[name]
        return self._outer.get(name)

    def set(self, name: str, value: Any, *, new: bool) -> None:
        """Set a variable of this block, or where it is."""
        if new or name in self._variables or self._outer is None:
            self._variables[name] = value
        else:
            self._outer.set(name, value, new=False)


def printed(value: object, at: str = "") -> str:
    """*value* as Go prints it. A list or map is an error, since nobody wants ``map[a:b]``."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
    raise TemplateError(f"{at}: {type(value).__name__} cannot be printed; is toYaml missing?")


# --- functions ------------------------------------------------------------------------------------------------------


def _printf(form: str, *values: object) -> str:
    if set(re.findall(r"%(.)", form)) - {"s", "d"}:
        raise ValueError(f"only %s and %d are known, not {form!r}")
    return re.sub("%[sd]", "%s", form) % tuple(printed(value) for value in values)


ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def _quote(value: object) -> str:
    """Quoted as Go does, which is how YAML reads it."""

    def character(found: str) -> str:
        if found in ESCAPES:
            return ESCAPES[found]
        if found.isprintable():
            return found
        return f"\\u{ord(found):04x}" if ord(found) < 0x10000 else f"\\U{ord(found):08x}"

    return '"' + "".join(character(found) for found in printed(value)) + '"'


def _nindent(width: int, text: str) -> str:
    return "".join("\n" + " " * width + line for line in text.split("\n"))


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Keeps a text on one line, whatever is in it, since lines are indented afterwards."""


def _text(dumper: Any, value: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if value.isprintable() else '"')


_Dumper.add_representer(str, _text)


def _to_yaml(value: object) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, width=10**6, allow_unicode=True, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else value[key]
    return value


def _set(target: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    target[key] = value
    return target


def _unset(target: dict[str, Any], key: str) -> dict[str, Any]:
    target.pop(key, None)
    return target


def _dict(*items: Any) -> dict[str, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


def _kind(name: str, value: object) -> bool:
    """Of Go's kinds those that a value of YAML may have and that charts ask for."""
    return {"map": isinstance(value, Mapping), "invalid": value is None}[name]


def _required(message: str, value: object) -> object:
    if value is None or value == "":
        raise ValueError(message)
    return value


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "b64enc": lambda text: b64encode(text.encode()).decode(),
    "default": lambda other, value: value or other,
    "dict": _dict,
    "eq": lambda a, b: a == b,
    "fromYaml": lambda text: yaml.load(text, LOADER),
    "index": _index,
    "int64": int,
    "kindIs": _kind,
    "list": lambda *items: list(items),
    "lookup": lambda *what: {},  # as `helm template` has it: there is no cluster
    "ne": lambda a, b: a != b,
    "nindent": _nindent,
    "not": lambda value: not value,
    "printf": _printf,
    "quote": _quote,
    "required": _required,
    "set": _set,
    "sortAlpha": sorted,
    "toString": printed,
    "toYaml": _to_yaml,
    "uniq": lambda items: list(dict.fromkeys(items)),
    "unset": _unset,
}

OF_TEMPLATES = frozenset({"and", "or", "include"})
"""Functions that do not just take values: see `Templates`."""

HELM_ONLY = frozenset(
    {
        "append",
        "fail",
        "genCAWithKey",
        "genPrivateKey",
        "genSignedCertWithKey",
        "hasKey",
        "join",
        "prepend",
        "randAlphaNum",
    }
)
"""Functions that may stand in a template, but not be called here: `meshctl` makes the relay's Secrets itself."""

KNOWN = FUNCTIONS.keys() | OF_TEMPLATES | HELM_ONLY
