"""``python -m isthmus.install.schema``: writes the parts of the charts that follow from types and tables.

These are ``values.yaml`` and ``values.schema.json`` (from `values`), ``crds/`` (from `isthmus.api`) and the rules of
the cluster roles (from `rbac`). With ``--check`` it says what is stale. Reads docstrings from the source files.
"""

from __future__ import annotations

import json
import sys
import textwrap
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from isthmus import __version__
from isthmus.api.crd import crd
from isthmus.api.crds import file_name
from isthmus.api.docstrings import attribute_docs, summary
from isthmus.api.written import keep
from isthmus.install.chart import AGENT, DEFINED, MANAGEMENT_PLANE, directory
from isthmus.install.manifests import COMPONENT, PART_OF, VERSION
from isthmus.install.rbac import AGENT_GRANTS, SERVER_GRANTS, Grant, rules
from isthmus.install.values import AgentValues, Free, GlobalValues, ManagementPlaneValues, Values

Manifest = dict[str, Any]

CHARTS: dict[str, tuple[type[Values], tuple[Grant, ...], str]] = {
    MANAGEMENT_PLANE: (ManagementPlaneValues, SERVER_GRANTS, "enterprise-networking"),
    AGENT: (AgentValues, AGENT_GRANTS, "enterprise-agent"),
}
WIDTH = 120
SCALARS = {str: "string", bool: "boolean", int: "integer"}


def generated() -> dict[Path, str]:
    """Content of every generated file."""
    found: dict[Path, str] = {}
    for chart, (values, grants, component) in CHARTS.items():
        folder = directory(chart)
        found[folder / "values.yaml"] = _values_file(values)
        found[folder / "values.schema.json"] = json.dumps(_schema_file(values), indent=2) + "\n"
        found[folder / "templates" / "_rules.tpl"] = _rules(grants)
        for cls in DEFINED[chart]:
            definition = crd(cls)
            labels = {PART_OF: "gloo-mesh", COMPONENT: component, VERSION: __version__}
            definition["metadata"]["labels"].update(labels)
            found[folder / "crds" / file_name(cls)] = _comment("isthmus.api") + _yaml(definition)
    return found


def _comment(source: str) -> str:
    return f"# Generated from {source} by `make generate`.\n"


def _yaml(value: object) -> str:
    return yaml.dump(value, Dumper=_NoAliases, sort_keys=False, width=10_000, allow_unicode=True)


class _NoAliases(yaml.SafeDumper):
    """Repeats equal parts instead of pointing at the first: kubectl reads either, people only this."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _rules(grants: tuple[Grant, ...]) -> str:
    text = "{{- /* Generated from isthmus.install.rbac by `make generate`. */ -}}\n"
    return f'{text}{{{{- define "isthmus.rules" -}}}}\n{_yaml(rules(grants))}{{{{- end -}}}}\n'


# --- values.yaml ----------------------------------------------------------------------------------------------------


def _values_file(values: type[Values]) -> str:
    return _comment("isthmus.install.values") + "\n".join(_commented(values, msgspec.to_builtins(values())))


def _commented(values: type[Values], defaults: Manifest, indent: str = "") -> Iterator[str]:
    """Lines of *defaults*, every key with its documentation above it."""
    for field in msgspec.structs.fields(values):
        key, default = field.encode_name, defaults[field.encode_name]
        if not indent:
            yield ""
        for line in textwrap.wrap(_documentation(values, field), WIDTH - len(indent) - 2):
            yield f"{indent}# {line}"
        if _is_group(field.type):
            yield f"{indent}{key}:"
            yield from _commented(field.type, default, indent + "  ")
        elif isinstance(default, dict) and default:
            yield f"{indent}{key}:"
            yield textwrap.indent(_yaml(default).rstrip(), indent + "  ")
        else:
            yield f"{indent}{key}: {json.dumps(default)}"
    if not indent:
        yield ""


def _documentation(values: type[Values], field: msgspec.structs.FieldInfo) -> str:
    text = attribute_docs(values).get(field.name) or (summary(field.type) if _is_group(field.type) else "")
    if not text:
        raise LookupError(f"{values.__name__}.{field.name} has no docstring")
    choices = _schema(field.type).get("enum")
    return f"{text} One of {', '.join(choices)}." if choices else text


def _is_group(type_: Any) -> typing.TypeGuard[type[Values]]:
    return isinstance(type_, type) and issubclass(type_, Values)


# --- values.schema.json ---------------------------------------------------------------------------------------------


def _schema_file(values: type[Values]) -> Manifest:
    return {"$schema": "http://json-schema.org/draft-07/schema#", "title": summary(values), **_schema(values)}


def _schema(type_: Any) -> Manifest:
    """The JSON schema of a value. Every key of a group is required: ``values.yaml`` has it, so only null is refused."""
    if _is_group(type_):
        fields = msgspec.structs.fields(type_)
        schema: Manifest = {
            "type": "object",
            "properties": {f.encode_name: {"description": _documentation(type_, f), **_schema(f.type)} for f in fields},
            "required": [f.encode_name for f in fields],
        }
        # A chart around ours may share more with its other parts.
        return schema if type_ is GlobalValues else {**schema, "additionalProperties": False}
    if type_ == Free:
        return {"type": "object"}
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is Annotated:
        schema = _schema(arguments[0])
        for meta in arguments[1:]:
            limits = {"minimum": meta.ge, "maximum": meta.le}
            schema |= {key: value for key, value in limits.items() if value is not None}
            schema |= meta.extra_json_schema or {}
        return schema
    if origin is typing.Literal:
        return {"type": "string", "enum": list(arguments)}
    if origin is tuple:
        return {"type": "array", "items": _schema(arguments[0])}
    return {"type": SCALARS[type_]}


# --- command --------------------------------------------------------------------------------------------------------


def present() -> set[Path]:
    """The definitions that the charts have."""
    return {path for chart in CHARTS for path in directory(chart).glob("crds/*")}


if __name__ == "__main__":
    sys.exit(keep(generated(), present(), sys.argv[1:]))
