"""The OpenAPI v3 documents, as far as kubectl reads them.

``kubectl apply`` looks whether PATCH takes fieldValidation, and then leaves validation to the server; ``kubectl
explain`` shows the schemas of custom resources. Built-in kinds have no schema here: kubectl falls back to types that
it carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from isthmus.embedded.resources import Resource

Manifest = dict[str, Any]

_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_QUERY = [
    {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
    for name in ("dryRun", "fieldManager", "fieldValidation", "force")
]


def root(groups: dict[str, list[str]]) -> Manifest:
    """The answer of /openapi/v3."""
    paths = {}
    for group, versions in groups.items():
        for version in versions:
            path = f"apis/{group}/{version}" if group else f"api/{version}"
            paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def document(resources: Sequence[Resource], group: str, version: str) -> Manifest:
    """The answer of /openapi/v3/apis/<group>/<version>."""
    paths: Manifest = {}
    schemas: Manifest = {_METADATA: {"type": "object", "description": "Metadata that all objects have."}}
    for resource in resources:
        if resource.group != group or version not in resource.versions:
            continue
        gvk = {"group": group, "version": version, "kind": resource.kind}
        schema = _schema_name(resource, version)
        schemas[schema] = _schema(resource, version, gvk)
        content = {"schema": {"$ref": f"#/components/schemas/{schema}"}}
        base = f"/apis/{group}/{version}" if group else f"/api/{version}"
        where = "namespaces/{namespace}/" if resource.namespaced else ""
        answers = {"200": {"description": "OK", "content": {"application/json": content}}}
        described = {"responses": answers, "x-kubernetes-group-version-kind": gvk}
        patch = {"application/merge-patch+json": {"schema": {"type": "object"}}}
        paths[f"{base}/{where}{resource.plural}/{{name}}"] = {
            "get": described | {"x-kubernetes-action": "get"},
            "patch": described
            | {"x-kubernetes-action": "patch", "parameters": _QUERY, "requestBody": {"content": patch}},
        }
    about = {"title": "Kubernetes", "version": "unversioned"}
    return {"openapi": "3.0.0", "info": about, "paths": paths, "components": {"schemas": schemas}}


def _schema_name(resource: Resource, version: str) -> str:
    domain = ".".join(reversed(resource.group.split("."))) if resource.group else "io.k8s.api.core"
    return f"{domain}.{version}.{resource.kind}"


def _schema(resource: Resource, version: str, gvk: Manifest) -> Manifest:
    if not resource.custom:
        return {"type": "object", "x-kubernetes-group-version-kind": [gvk]}
    declared = resource.schemas[version]
    properties = {
        **declared.get("properties", {}),
        "apiVersion": {"type": "string", "description": "Version of the schema of this object."},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_METADATA}"}], "default": {}},
    }
    return {**declared, "properties": properties, "x-kubernetes-group-version-kind": [gvk]}
