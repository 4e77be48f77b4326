"""CustomResourceDefinitions, made from the types. `generate` writes them to ``crds/``; programs read them there.

Source of the schema's conventions: reference, JSON encoding rules.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from isthmus import __version__
from isthmus.api.base import ApiStruct, Resource
from isthmus.api.docstrings import attribute_docs, plain, summary
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.shape import EnumOf, Field, ListOf, MapOf, Message, Scalar, Shape, fields_of, oneofs_of
from isthmus.api.spellings import Spelling, spellings_of
from isthmus.api.traffic_policy import AppliedTrafficPolicy

Manifest = dict[str, Any]

UNVALIDATED = (AppliedTrafficPolicy,)
"""Messages whose content the API server keeps as it is. Source: reference, unvalidated subtrees."""

SCALARS: dict[str, Manifest] = {
    "string": {"type": "string"},
    "upper": {"type": "string"},
    "duration": {"type": "string"},
    "timestamp": {"type": "string", "format": "date-time"},
    "bytes": {"type": "string", "format": "byte"},  # the reference says binary, which Kubernetes does not know
    "bool": {"type": "boolean"},
    "uint32": {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
}


def crd(cls: type[Resource]) -> Manifest:
    """The CustomResourceDefinition of *cls*; reads the docstrings in its source."""
    kind = cls.KIND
    names = {"kind": kind.kind, "listKind": f"{kind.kind}List", "plural": kind.plural, "singular": kind.kind.lower()}
    columns = [{"name": header, "type": type_, "jsonPath": path} for header, type_, path in cls.COLUMNS]
    version = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": _root(cls)},
        "subresources": {"status": {}},
    }
    spec = {
        "group": kind.group,
        "names": {**names, **({"shortNames": list(cls.SHORT_NAMES)} if cls.SHORT_NAMES else {})},
        "scope": "Namespaced",
        "versions": [version],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{kind.plural}.{kind.group}",
            "labels": {
                "app": "gloo-mesh",
                "app.kubernetes.io/name": "skv2" if cls is KubernetesCluster else "gloo-mesh",
            },
            "annotations": {"crd.solo.io/version": __version__, "crd.solo.io/specHash": _digest(spec)},
        },
        "spec": spec,
    }


def _digest(spec: Manifest) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _root(cls: type[Resource]) -> Manifest:
    docs = attribute_docs(cls)
    parts = (field for field in fields_of(cls) if field.name != "metadata")  # every object has it: not ours to describe
    properties = {field.name: _described(field.shape, plain(docs[field.attribute])) for field in parts}
    return {"type": "object", "description": plain(summary(cls)), "properties": properties}


def _schema(shape: Shape) -> Manifest:
    match shape:
        case Message(cls):
            return _message(cls)
        case ListOf(item):
            return {"type": "array", "items": _schema(item)}
        case MapOf(item):
            return {"type": "object", "additionalProperties": _schema(item)}
        case EnumOf(cls):
            return {"type": "string", "enum": [member.value for member in cls]}
        case Scalar(name=name):
            return dict(SCALARS[name])


def _message(cls: type[ApiStruct]) -> Manifest:
    if cls in UNVALIDATED:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if not fields_of(cls):
        return {"type": "object", "maxProperties": 0}
    docs, oneofs = attribute_docs(cls), oneofs_of(cls)
    arms = {name for group in oneofs for name in group}
    properties = {f.name: _property(f, plain(docs[f.attribute]), f.name in arms) for f in fields_of(cls)}
    for row in spellings_of(cls).values():
        properties[row.old] = _other(cls, row)
    return {"type": "object", "properties": properties, **_exclusive(oneofs)}


def _described(shape: Shape, description: str) -> Manifest:
    schema = _schema(shape)
    return {"type": schema["type"], "description": description, **schema}


def _property(field: Field, description: str, in_oneof: bool) -> Manifest:
    schema = _described(field.shape, description)
    wrapped = field.optional and not in_oneof and isinstance(field.shape, Scalar)
    return {**schema, "nullable": True} if wrapped else schema


def _other(cls: type[ApiStruct], row: Spelling) -> Manifest:
    """Schema of another spelling: that of today's field, unless its values changed too."""
    description = f"Another spelling of `{row.new}`."
    if row.values:
        return {"type": "boolean", "description": description}
    shape: Shape = Message(cls)
    for name in row.new.split("."):
        assert isinstance(shape, Message)
        shape = next(field.shape for field in fields_of(shape.cls) if field.name == name)
    return _described(shape, description)


def _exclusive(oneofs: tuple[tuple[str, ...], ...]) -> Manifest:
    """At most one member of each group; groups of one need no rule."""
    rules = [_at_most_one(group) for group in oneofs if len(group) > 1]
    if len(rules) > 1:
        return {"allOf": rules}
    return rules[0] if rules else {}


def _at_most_one(group: tuple[str, ...]) -> Manifest:
    present = [{"required": [name]} for name in group]
    return {"oneOf": [{"not": {"anyOf": present}}, *present]}
