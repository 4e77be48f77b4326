"""From a Kubernetes object as a user wrote it to a typed one, or to everything that is wrong with it.

The normal form (camelCase, no other spellings, durations in seconds) is decoded by msgspec at once. Whatever msgspec
refuses is read again by a walk over the types that knows the liberties users take, brings them into the normal form,
and says of the rest what was expected where, all of it in one go.
"""

from __future__ import annotations

import base64
import difflib
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any, TypeAlias

import msgspec

from isthmus.api.base import ApiStruct, ObjectMeta, Resource
from isthmus.api.duration import normal_duration
from isthmus.api.kinds import BY_KIND, KINDS
from isthmus.api.scalars import LARGEST_FLOAT
from isthmus.api.shape import EnumOf, Field, ListOf, MapOf, Message, Scalar, Shape, fields_of, oneofs_of
from isthmus.api.spellings import Spelling, spellings_of
from isthmus.model.problem import Problem

Manifest: TypeAlias = dict[str, Any]


class ParseFailure(msgspec.Struct, frozen=True):
    """An object that can't be read. *source* says where it came from (a file), *problems* is never empty."""

    source: str
    kind: str
    namespace: str
    name: str
    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        """One line per problem: source, kind, namespace/name, field path, message."""
        identity = "/".join(part for part in (self.namespace, self.name) if part) or "without a name"
        prefix = f"{self.source}: " if self.source else ""
        return "\n".join(f"{prefix}{self.kind or 'object'} {identity} {problem}" for problem in self.problems)


def parse(manifest: Manifest, source: str = "") -> Resource | ParseFailure:
    """The typed object that *manifest* describes, or all that is wrong with it."""
    return examine(manifest, source)[0]


def examine(manifest: Manifest, source: str = "") -> tuple[Resource | ParseFailure, tuple[Problem, ...]]:
    """What `parse` returns, and warnings: what was understood but may have been meant otherwise."""
    cls = _type_of(manifest)
    if isinstance(cls, Problem):
        return _failure(manifest, source, [cls]), ()
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    walk = _Walk()
    resource = _at_once(cls, body)
    if resource is None:
        normal = walk.resource(cls, body)
        if walk.problems:
            return _failure(manifest, source, walk.problems), tuple(walk.warnings)
        resource = msgspec.convert(normal, cls)
    problems = list(_name_problems(resource.metadata))
    if problems:
        return _failure(manifest, source, problems), tuple(walk.warnings)
    return resource, tuple(walk.warnings)


def _at_once(cls: type[Resource], body: Manifest) -> Resource | None:
    """*body* if it is in the normal form, twenty times as fast as by a walk. None if a walk has to look at it."""
    try:
        resource = msgspec.convert(body, cls)
    except (msgspec.ValidationError, OverflowError):
        return None
    # null, which a warning may be due to, and nan, which JSON has no word for; both encode as null.
    return None if b"null" in msgspec.json.encode(body.get("spec", {})) else resource


def _failure(manifest: Any, source: str, problems: list[Problem]) -> ParseFailure:
    manifest = manifest if isinstance(manifest, dict) else {}
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind, namespace, name = manifest.get("kind"), metadata.get("namespace"), metadata.get("name")
    return ParseFailure(source, _text(kind), _text(namespace), _text(name), tuple(problems))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _type_of(manifest: Any) -> type[Resource] | Problem:
    if not isinstance(manifest, dict):
        return Problem("", "WrongType", f"expected an object, found {_seen(manifest)}")
    api_version, kind = manifest.get("apiVersion"), manifest.get("kind")
    if not isinstance(api_version, str):
        return Problem("apiVersion", "WrongType", f"expected a string, found {_seen(api_version)}")
    if not isinstance(kind, str):
        return Problem("kind", "WrongType", f"expected a string, found {_seen(kind)}")
    if found := BY_KIND.get((api_version, kind)):
        return found
    for cls in KINDS:
        if cls.KIND.kind == kind:
            return Problem("apiVersion", "UnknownKind", f"{api_version!r} has no {kind}; {cls.KIND.api_version!r} has")
    hint = _similar(kind, [cls.KIND.kind for cls in KINDS])
    return Problem("kind", "UnknownKind", f"{api_version} {kind} is not a kind of Isthmus{hint}")


NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
MAX_NAME, MAX_LABEL = 253, 63  # https://kubernetes.io/docs/concepts/overview/working-with-objects/names/


def _name_problems(metadata: ObjectMeta) -> Iterator[Problem]:
    """What an API server would refuse; files that only `meshctl translate` reads meet none."""
    name, namespace = metadata.name, metadata.namespace
    if not name:
        yield Problem("metadata.name", "Required", "an object needs a name")
    elif len(name) > MAX_NAME:
        yield Problem(
            "metadata.name", "InvalidName", f"{len(name)} characters are too many; at most {MAX_NAME} will do"
        )
    elif not NAME.fullmatch(name):
        yield Problem("metadata.name", "InvalidName", f"{name!r} is not made of a-z, 0-9, '-' and '.' (RFC 1123)")
    if len(namespace) > MAX_LABEL:
        text = f"{len(namespace)} characters are too many; at most {MAX_LABEL} will do"
        yield Problem("metadata.namespace", "InvalidName", text)
    elif namespace and not LABEL.fullmatch(namespace):
        yield Problem("metadata.namespace", "InvalidName", f"{namespace!r} is not made of a-z, 0-9 and '-' (RFC 1123)")


class _Unreadable:
    """Stands for a value that a problem was reported for."""


UNREADABLE = _Unreadable()


class _Walk:
    """One reading of one object: collects problems and warnings on the way."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.warnings: list[Problem] = []
        self._in_status = False

    def resource(self, cls: type[Resource], body: Manifest) -> Any:
        """*body* in the normal form.

        A status is ours, not the user's, and is written anew; so what can't be read of it is left out with a warning.
        """
        normal = self._message(cls, {key: value for key, value in body.items() if key != "status"}, "")
        if body.get("status") is not None:
            (status,) = (field for field in fields_of(cls) if field.name == "status")
            before, self.problems, self._in_status = self.problems, [], True
            value = self._value(status.shape, body["status"], "status")
            self.warnings += self.problems
            if not self.problems:
                normal["status"] = value
            self.problems, self._in_status = before, False
        return normal

    def _problem(self, at: str, reason: str, message: str) -> Any:
        self.problems.append(Problem(at, reason, message))
        return UNREADABLE

    def _value(self, shape: Shape, value: Any, at: str) -> Any:
        match shape:
            case Message(cls):
                if not isinstance(value, dict):
                    return self._wrong_type(at, "an object", value)
                return self._message(cls, value, at)
            case ListOf(item):
                if not isinstance(value, list | tuple):
                    return self._wrong_type(at, "a list", value)
                return [self._value(item, member, f"{at}[{index}]") for index, member in enumerate(value)]
            case MapOf(item):
                if not isinstance(value, dict):
                    return self._wrong_type(at, "an object", value)
                for key in value:
                    if not isinstance(key, str):
                        self._wrong_type(at, "only strings as keys", key)
                return {key: self._value(item, member, f"{at}[{key}]") for key, member in value.items()}
            case EnumOf():
                return self._enum(shape, value, at)
            case Scalar():
                return self._scalar(shape, value, at)

    def _wrong_type(self, at: str, expected: str, value: Any) -> Any:
        return self._problem(at, "WrongType", f"expected {expected}, found {_seen(value)}")

    def _enum(self, shape: EnumOf, value: Any, at: str) -> Any:
        values = [member.value for member in shape.cls]
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(values):
            return values[value]
        if value in values:
            return value
        hint = _similar(value.upper(), values) if isinstance(value, str) else ""
        return self._problem(at, "UnknownValue", f"expected one of {', '.join(values)}, found {_seen(value)}{hint}")

    def _scalar(self, shape: Scalar, value: Any, at: str) -> Any:
        if isinstance(value, dict) and value.keys() == {"value"}:
            value = value["value"]  # the long form of a wrapped scalar, which some write
        match shape.name:
            case "bool":
                return value if isinstance(value, bool) else self._wrong_type(at, "true or false", value)
            case "float":
                return value if _is_number(value, LARGEST_FLOAT) else self._wrong_type(at, "a number", value)
            case "double":
                return value if _is_number(value, sys.float_info.max) else self._wrong_type(at, "a number", value)
            case "uint32" | "int32" | "int64":
                return self._integer(shape, value, at)
        if not isinstance(value, str):
            return self._wrong_type(at, "a string", value)
        match shape.name:
            case "duration":
                normal = normal_duration(value) if value else ""
                message = f"{value!r} is not a duration such as 2s, 150ms or 1m30s"
                return normal if normal is not None else self._problem(at, "InvalidDuration", message)
            case "upper":
                return value.upper()
            case "bytes" if not _is_base64(value):
                return self._problem(at, "InvalidBase64", f"expected base64, found {_seen(value)}")
        return value

    def _integer(self, shape: Scalar, value: Any, at: str) -> Any:
        low, high = shape.low, shape.high
        if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            return self._wrong_type(at, "a whole number", value)
        if (low is not None and value < low) or (high is not None and value > high):
            return self._problem(at, "OutOfRange", f"expected a whole number from {low} to {high}, found {value}")
        return value

    def _message(self, cls: type[ApiStruct], data: Manifest, at: str) -> Manifest:
        fields, others = _fields(cls), spellings_of(cls)
        written = self._canonical(cls, data, at)
        moved = self._moved(others, written, at)
        normal: Manifest = {}
        for name, (path, value) in {**written, **moved}.items():
            if (field := fields.get(name)) is not None:
                if value is None:
                    self._warn_of_null(field, path)
                else:
                    normal[name] = self._value(field.shape, value, path)
        for group in oneofs_of(cls):
            arms = [name for name in group if name in normal]
            if len(arms) > 1:
                self._problem(at, "Oneof", f"only one of {' and '.join(arms)} may be set")
        return normal

    def _warn_of_null(self, field: Field, at: str) -> None:
        if isinstance(field.shape, Message) and field.name != "status":
            text = "null means that the field is not set; write {} for an object with default values"
            self.warnings.append(Problem(at, "Null", text))

    def _canonical(self, cls: type[ApiStruct], data: Manifest, at: str) -> dict[str, tuple[str, Any]]:
        """Path and value of each field that was written, by the field's camelCase name (maybe another spelling)."""
        fields, others = _fields(cls), spellings_of(cls)
        written: dict[str, tuple[str, Any]] = {}
        for key, value in data.items():
            path = f"{at}.{key}" if at else str(key)
            name = next((n for n in (str(key), _camel(str(key))) if n in fields or n in others), None)
            if name is None:
                self._unknown(cls, str(key), path)
            elif name in written and written[name][1] != value:
                self._problem(path, "Twice", f"is the same field as {written[name][0]}; keep one of them")
            else:
                written[name] = (path, value)
        return written

    def _unknown(self, cls: type[ApiStruct], key: str, path: str) -> None:
        if not cls.__struct_config__.forbid_unknown_fields:
            return
        known = list(_fields(cls))
        hint = _similar(_camel(key), known)
        expected = hint or (f"; expected {_listed(known)}" if known else "; expected an empty object, {}")
        found = Problem(path, "UnknownField", f"unknown field{expected}")
        (self.warnings if self._in_status else self.problems).append(found)

    def _moved(
        self, others: dict[str, Spelling], written: dict[str, tuple[str, Any]], at: str
    ) -> dict[str, tuple[str, Any]]:
        """Path and value of each of today's fields that was written, partly or wholly, in another spelling."""
        moved: dict[str, tuple[str, Any]] = {}
        for row in others.values():
            path, value = written.get(row.old, ("", None))
            if value is None:
                continue
            field, _, inner = row.new.partition(".")
            today = written.get(field, (path, None))[1]
            if row.yields and today is not None:
                self.warnings.append(Problem(path, "Twice", f"is not used, since {row.new.partition('.')[0]} is set"))
                continue
            if row.doubt:
                self.warnings.append(Problem(path, "OldSpelling", f"read as {row.new}: {row.doubt}"))
            value = _today(row, value)
            current = moved.get(field, (path, today))[1]
            if inner and isinstance(current, dict) and current.get(inner, value) == value:
                moved[field] = (f"{at}.{field}", {**current, inner: value})
            elif current is None or (not inner and current == value):
                moved[field] = (f"{at}.{field}", {inner: value}) if inner else (path, value)
            else:
                self._problem(
                    path, "Twice", f"is another spelling of {row.new}, which is set to something else; keep one"
                )
        return moved


def _today(row: Spelling, value: Any) -> Any:
    return row.values[value] if isinstance(value, bool) and value in row.values else value


@cache
def _fields(cls: type[ApiStruct]) -> dict[str, Field]:
    return {field.name: field for field in fields_of(cls)}


def _camel(name: str) -> str:
    return re.sub(r"_([a-z0-9])", lambda found: found[1].upper(), name)


def _is_number(value: Any, largest: float) -> bool:
    """Whether *value* is a finite number; nan is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= largest


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except ValueError:
        return False
    return True


def _similar(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _listed(names: list[str]) -> str:
    shown = sorted(names)
    return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]


def _seen(value: Any) -> str:
    """What was found, for an error message; short even if the value is not."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return repr(value if len(value) <= 60 else value[:60] + "…")
        case int() if abs(value) >= 2**64:
            return "a number beyond 64 bits"
        case int() | float():
            return f"the number {value}"
        case list() | tuple():
            return "a list"
        case dict():
            return "an object"
        case _:
            return f"a {type(value).__name__}"
