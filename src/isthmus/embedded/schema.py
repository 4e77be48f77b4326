"""Structural schemas of custom resources: pruning, defaulting, validation.

Messages are those of the real server as far as the contract tests compare them. CEL rules (x-kubernetes-validations)
are not evaluated.
Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson

from isthmus.embedded.errors import Cause

Schema = dict[str, Any]

_ROOT_FIELDS = ("apiVersion", "kind", "metadata")


def prune(manifest: dict[str, Any], schema: Schema) -> list[str]:
    """Take unknown fields out of *manifest* (changed in place); their paths come back, sorted."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        unknown: list[str] = []
        _prune_properties(manifest, schema, "", unknown, skip=_ROOT_FIELDS)
        return sorted(unknown)
    unknown = []
    for name in [name for name in manifest if name not in _ROOT_FIELDS]:
        if name in schema.get("properties", {}):
            _prune(manifest[name], schema["properties"][name], name, unknown)
        else:
            del manifest[name]
            unknown.append(name)
    return sorted(unknown)


def _prune(value: Any, schema: Schema, at: str, unknown: list[str]) -> None:
    if isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            for index, item in enumerate(value):
                _prune(item, items, f"{at}[{index}]", unknown)
        return
    if not isinstance(value, dict):
        return
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        for name, below in value.items():
            _prune(below, additional, f"{at}.{name}", unknown)
        return
    keep = schema.get("x-kubernetes-preserve-unknown-fields") or additional is True
    skip = _ROOT_FIELDS if schema.get("x-kubernetes-embedded-resource") else ()
    if not keep:
        properties = schema.get("properties", {})
        for name in [name for name in value if name not in properties and name not in skip]:
            del value[name]
            unknown.append(f"{at}.{name}")
    _prune_properties(value, schema, at, unknown, skip)


def _prune_properties(
    value: dict[str, Any], schema: Schema, at: str, unknown: list[str], skip: tuple[str, ...] = ()
) -> None:
    for name, sub in schema.get("properties", {}).items():
        if name in value and name not in skip:
            _prune(value[name], sub, f"{at}.{name}" if at else name, unknown)


def fill_defaults(value: Any, schema: Schema) -> None:
    """Write the schema's defaults into *value* (changed in place); a null where it isn't allowed counts as absent."""
    if isinstance(value, dict):
        for name, sub in schema.get("properties", {}).items():
            if name in value and value[name] is None and "default" in sub and not sub.get("nullable"):
                del value[name]
            if name not in value and "default" in sub:
                value[name] = copy.deepcopy(sub["default"])
            if name in value:
                fill_defaults(value[name], sub)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            for below in value.values():
                fill_defaults(below, additional)
    elif isinstance(value, list) and isinstance(schema.get("items"), dict):
        for item in value:
            fill_defaults(item, schema["items"])


def normalize(value: Any, schema: Schema) -> Any:
    """*value* (changed in place) without nulls that the schema does not allow, and with 2.0 as the integer 2."""
    if isinstance(value, dict):
        properties, additional = schema.get("properties", {}), schema.get("additionalProperties")
        for name in list(value):
            sub = properties.get(name, additional if isinstance(additional, dict) else {})
            if value[name] is None and name in properties and not _takes_null(sub):
                del value[name]
            else:
                value[name] = normalize(value[name], sub)
    elif isinstance(value, list):
        items = schema.get("items")
        if isinstance(items, dict):
            value[:] = [normalize(item, items) for item in value]
    elif isinstance(value, float) and schema.get("type") == "integer" and value.is_integer():
        return int(value)
    return value


def _takes_null(schema: Schema) -> bool:
    return bool(schema.get("nullable") or schema.get("x-kubernetes-preserve-unknown-fields"))


def validate(manifest: dict[str, Any], schema: Schema) -> list[Cause]:
    """All faults of *manifest*, in order of their paths."""
    body = {name: value for name, value in manifest.items() if name not in _ROOT_FIELDS}
    root = {**schema, "properties": {k: v for k, v in schema.get("properties", {}).items() if k not in _ROOT_FIELDS}}
    if "required" in root:
        root["required"] = [name for name in root["required"] if name not in _ROOT_FIELDS]
    return sorted(_faults(body, root, ""), key=lambda cause: cause.field)


def _invalid(at: str, value: Any, text: str) -> Cause:
    return Cause(at or "<nil>", "FieldValueInvalid", f"Invalid value: {_quoted(value)}: {text}")


def _quoted(value: Any) -> str:
    return orjson.dumps(value).decode()


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "number": (int, float),
    "integer": (int,),
}


def _type_name(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    for name in ("integer", "number", "string", "object", "array"):
        if isinstance(value, _TYPES[name]):
            return name
    return "null"


def _has_type(value: Any, wanted: str) -> bool:
    if isinstance(value, bool):
        return wanted == "boolean"
    if wanted == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(wanted, (object,)))


def _faults(value: Any, schema: Schema, at: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    wanted = schema.get("type", "")
    if schema.get("x-kubernetes-int-or-string"):
        if isinstance(value, bool) or not isinstance(value, int | str):
            yield _type_fault(value, "integer,string", at)
            return
    elif wanted and not _has_type(value, wanted):
        yield _type_fault(value, wanted, at)
        return
    yield from _value_faults(value, schema, at)
    if isinstance(value, dict):
        yield from _object_faults(value, schema, at)
    elif isinstance(value, list):
        yield from _list_faults(value, schema, at)
    elif isinstance(value, str):
        yield from _string_faults(value, schema, at)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield from _number_faults(value, schema, at)
    yield from _combined_faults(value, schema, at)


def _type_fault(value: Any, wanted: str, at: str) -> Cause:
    found = _type_name(value)
    text = f'{at} in body must be of type {wanted}: "{found}"'
    return Cause(at, "FieldValueTypeInvalid", f'Invalid value: "{found}": {text}')


def _value_faults(value: Any, schema: Schema, at: str) -> Iterator[Cause]:
    allowed = schema.get("enum")
    if allowed is not None and value not in allowed:
        choices = ", ".join(_quoted(choice) for choice in allowed)
        yield Cause(at, "FieldValueNotSupported", f"Unsupported value: {_quoted(value)}: supported values: {choices}")


def _object_faults(value: dict[str, Any], schema: Schema, at: str) -> Iterator[Cause]:
    for name in schema.get("required", ()):
        if name not in value:
            yield Cause(f"{at}.{name}" if at else name, "FieldValueRequired", "Required value")
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    for name, below in value.items():
        sub = properties.get(name, additional if isinstance(additional, dict) else None)
        if sub is not None:
            yield from _faults(below, sub, f"{at}.{name}" if at else name)
    most, least = schema.get("maxProperties"), schema.get("minProperties")
    if most is not None and len(value) > most:
        yield Cause(at, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _invalid(at, value, f"{at} in body should have at least {least} properties")


def _list_faults(value: list[Any], schema: Schema, at: str) -> Iterator[Cause]:
    most, least = schema.get("maxItems"), schema.get("minItems")
    if most is not None and len(value) > most:
        yield Cause(at, "FieldValueTooMany", f"Too many: {len(value)}: must have at most {most} items")
    if least is not None and len(value) < least:
        yield _invalid(at, len(value), f"{at} in body should have at least {least} items")
    items = schema.get("items")
    if isinstance(items, dict):
        for index, item in enumerate(value):
            yield from _faults(item, items, f"{at}[{index}]")
    keys = schema.get("x-kubernetes-list-map-keys") if schema.get("x-kubernetes-list-type") == "map" else None
    unique = schema.get("uniqueItems") or schema.get("x-kubernetes-list-type") == "set"
    if keys or unique:
        seen = set()
        for index, item in enumerate(value):
            mark = {key: item[key] for key in keys if key in item} if keys and isinstance(item, dict) else item
            text = orjson.dumps(mark, option=orjson.OPT_SORT_KEYS)
            if text in seen:
                yield Cause(f"{at}[{index}]", "FieldValueDuplicate", f"Duplicate value: {_quoted(mark)}")
            seen.add(text)


_FORMATS = {
    "date-time": lambda text: datetime.fromisoformat(text),
    "date": lambda text: datetime.strptime(text, "%Y-%m-%d"),
}


def _string_faults(value: str, schema: Schema, at: str) -> Iterator[Cause]:
    most, least, pattern = schema.get("maxLength"), schema.get("minLength"), schema.get("pattern")
    if most is not None and len(value) > most:
        yield Cause(at, "FieldValueTooLong", f"Too long: may not be more than {most} bytes")
    if least is not None and len(value) < least:
        yield _invalid(at, value, f"{at} in body should be at least {least} chars long")
    if pattern is not None and re.search(pattern, value) is None:
        yield _invalid(at, value, f"{at} in body should match '{pattern}'")
    check = _FORMATS.get(schema.get("format", ""))
    if check is not None:
        try:
            check(value)
        except ValueError:
            yield _invalid(at, value, f"{at} in body must be of type {schema['format']}: {_quoted(value)}")


def _number_faults(value: float, schema: Schema, at: str) -> Iterator[Cause]:
    most, least = schema.get("maximum"), schema.get("minimum")
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        bound = "less than" if schema.get("exclusiveMaximum") else "less than or equal to"
        yield _invalid(at, value, f"{at} in body should be {bound} {most}")
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        bound = "greater than" if schema.get("exclusiveMinimum") else "greater than or equal to"
        yield _invalid(at, value, f"{at} in body should be {bound} {least}")
    factor = schema.get("multipleOf")
    if factor and value % factor:
        yield _invalid(at, value, f"{at} in body should be a multiple of {factor}")


def _combined_faults(value: Any, schema: Schema, at: str) -> Iterator[Cause]:
    for sub in schema.get("allOf", ()):
        yield from _faults(value, sub, at)
    shown = at or "<nil>"
    if "anyOf" in schema and not any(_fits(value, sub, at) for sub in schema["anyOf"]):
        text = f'"{at}" must validate at least one schema (anyOf)'
        yield Cause(shown, "FieldValueInvalid", f'Invalid value: "": {text}')
        yield from _first_faults(value, schema["anyOf"], at)
    if "oneOf" in schema:
        fitting = sum(1 for sub in schema["oneOf"] if _fits(value, sub, at))
        if fitting != 1:
            found = "Found none valid" if fitting == 0 else f"Found {fitting} valid alternatives"
            text = f'"{at}" must validate one and only one schema (oneOf). {found}'
            yield Cause(shown, "FieldValueInvalid", f'Invalid value: "": {text}')
            if fitting == 0:
                yield from _first_faults(value, schema["oneOf"], at)
    if "not" in schema and _fits(value, schema["not"], at):
        yield Cause(shown, "FieldValueInvalid", f'Invalid value: "": "{at}" must not validate the schema (not)')


def _fits(value: Any, schema: Schema, at: str) -> bool:
    return next(_faults(value, schema, at), None) is None


def _first_faults(value: Any, alternatives: list[Schema], at: str) -> Iterator[Cause]:
    """What the alternative that came closest lacks."""
    yield from min((list(_faults(value, sub, at)) for sub in alternatives), key=len, default=[])
