"""Reading values: ``--set`` and values files in, typed values or a Problem out.

Both are merged as Helm merges them, so that the same words install the same with `meshctl` and with `helm`.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import yaml

from isthmus.install.values import CLUSTER_NAME, SERVER_ADDRESS, AgentValues, Free, ManagementPlaneValues, document
from isthmus.model.problem import Problem

V = TypeVar("V", ManagementPlaneValues, AgentValues)


def known_keys(values: type[msgspec.Struct]) -> tuple[str, ...]:
    """Every key that ``--set`` takes for *values*, dotted, sorted; free parts end in ``.*``."""
    return tuple(sorted(_keys(values)))


def read_values(values: type[V], documents: Sequence[Mapping[str, Any]], settings: Sequence[str] = ()) -> V | Problem:
    """*values* from *documents* (values files, later ones win) and *settings* (``a.b=c``, which win over files).

    The Problem's path is the dotted key.
    """
    merged: Free = {}
    for one in documents:
        merged = merge(merged, one)
    free = tuple(key[:-1] for key in known_keys(values) if key.endswith(".*"))
    for setting in settings:
        parsed = parse_setting(setting, free)
        if isinstance(parsed, Problem):
            return parsed
        merged = merge(merged, parsed)
    merged = _without_nulls(_over_defaults(merged, document(values())), free)
    if (unknown := _unknown_key(merged, known_keys(values))) is not None:
        return unknown
    try:
        # Not strict: a values file may quote a number, as Helm's users do.
        found = msgspec.convert(merged, values, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        return Problem(path.rstrip("`"), "InvalidValue", message)
    return _lacking(found) or found


def parse_setting(setting: str, free: tuple[str, ...] = ()) -> Free | Problem:
    """The document that ``--set`` text such as ``a.b=1,c={x,y}`` stands for.

    Values stay text, which their types read later; under the prefixes *free*, which have no type, YAML's scalars count.
    A backslash takes the meaning from the next dot, comma or ``=``. Source: Helm's ``--set``.
    """
    found: Free = {}
    for part in _split(setting, ","):
        key, *value = _split(part, "=", 1)
        path = [_unescape(step) for step in _split(key, ".")]
        if not value or not all(path):
            return Problem(setting, "InvalidSetting", f"{setting!r} is not of the form key=value")
        leaf: Any = _value(value[0], typed=not key.startswith(free))
        for step in reversed(path):
            leaf = {step: leaf}
        found = merge(found, leaf)
    return found


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Free:
    """*base* with every field of *over* in it: objects are merged, anything else is replaced, by null too."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return merged


def _over_defaults(found: Mapping[str, Any], defaults: Mapping[str, Any]) -> Free:
    """*found* and what only *defaults* has. A null removes a default; where there is none it stays, as with Helm."""
    merged = {**defaults, **found}
    for key, default in defaults.items():
        value = merged[key]
        if value is None:
            del merged[key]
        elif isinstance(value, Mapping) and isinstance(default, Mapping):
            merged[key] = _over_defaults(value, default)
    return merged


def _keys(values: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(values):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from (f"{field.encode_name}.{key}" for key in _keys(field.type))
        else:
            yield f"{field.encode_name}.*" if field.type == Free else field.encode_name


def _without_nulls(found: Mapping[str, Any], free: tuple[str, ...], prefix: str = "") -> Free:
    """*found* without nulls, which mean the default; under the prefixes *free* they mean what the user wants."""
    return {
        key: _without_nulls(value, free, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in found.items()
        if value is not None or prefix.startswith(free)
    }


def _lacking(values: ManagementPlaneValues | AgentValues) -> Problem | None:
    """What is required and not set, or set to nonsense."""
    if isinstance(values, ManagementPlaneValues):
        return None
    cluster, address = values.relay.cluster, values.relay.server_address
    if not re.fullmatch(CLUSTER_NAME, cluster):
        found = f"{cluster!r} is not a cluster name" if cluster else "missing"
        return Problem("relay.cluster", "InvalidValue", f"{found}; it is lower case letters, digits, '-' and '.'")
    if not re.fullmatch(SERVER_ADDRESS, address):
        found = f"{address!r} is not host:port" if address else "missing"
        return Problem(
            "relay.serverAddress", "InvalidValue", f"{found}; write for example 192.0.2.1:9900 without a scheme"
        )
    return None


def _unknown_key(found: Mapping[str, Any], known: Sequence[str]) -> Problem | None:
    for key in _leaves(found):
        if not any(
            key == name or name.startswith(f"{key}.") or (name.endswith(".*") and key.startswith(name[:-1]))
            for name in known
        ):
            return Problem(key, "UnknownValue", f"no value has this name; {_nearest(key, known)}")
    return None


def _nearest(key: str, known: Sequence[str]) -> str:
    # The last step counts as much as the whole: users forget the prefix of a subchart more often than they mistype.
    def likeness(name: str) -> float:
        whole = difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio()
        last = difflib.SequenceMatcher(None, key.lower().split(".")[-1], name.lower().split(".")[-1]).ratio()
        return whole + last

    return f"the nearest is {max(known, key=likeness)}"


def _leaves(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """*text* at every *separator* that no backslash precedes and no braces enclose, at most *most* times."""
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
        elif character == separator and depth == 0 and most != 0:
            parts.append(text[start:index])
            start, most = index + 1, most - 1
        index += 1
    return [*parts, text[start:]]


def _unescape(text: str) -> str:
    escaped = False
    result = []
    for character in text:
        if character == "\\" and not escaped:
            escaped = True
            continue
        result.append(character)
        escaped = False
    return "".join(result)


def _value(text: str, *, typed: bool) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_value(item, typed=typed) for item in _split(text[1:-1], ",") if item]
    if text == "null" or (not typed and (text in ("true", "false") or text.lstrip("-").isdecimal())):
        return yaml.safe_load(text)
    return _unescape(text)
