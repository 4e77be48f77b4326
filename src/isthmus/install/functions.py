"""The functions of Go's templates, sprig and Helm that our charts use; see `template`.

Source: https://pkg.go.dev/text/template#hdr-Functions, https://masterminds.github.io/sprig/,
https://helm.sh/docs/chart_template_guide/function_list/
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

import yaml

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C where PyYAML was built with it: ten times as fast


def printed(value: object) -> str:
    """*value* as Go prints it. A list or map is an error, since nobody wants ``map[a:b]``."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
    raise TypeError(f"a {type(value).__name__} cannot be printed; is toYaml missing?")


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

HELM_ONLY = frozenset(
    {"fail", "genCAWithKey", "genPrivateKey", "genSignedCertWithKey", "hasKey", "prepend", "randAlphaNum"}
)
"""Functions that may stand in a template, but not be called here: `meshctl` makes the relay's Secrets itself."""
