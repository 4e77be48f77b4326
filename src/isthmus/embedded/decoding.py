"""Wrong types in objects, which the real server refuses while it decodes them.

Holds the types of the fields that this server itself, its controllers or its tables read; what the tables lack may be
anything. Custom resources have a schema (schema.py) and only their metadata is looked at here.
"""

from __future__ import annotations

from typing import Any

from isthmus.embedded.errors import ApiError, bad_request
from isthmus.embedded.resources import Resource

# "string", "integer", "boolean", "number", "schema"; [type] a list, {"*": type} a map of any keys, any other mapping an
# object; {} and [{}] say nothing about what is below.
_STRINGS = {"*": "string"}
_OWNER = {"apiVersion": "string", "kind": "string", "name": "string", "uid": "string", "controller": "boolean"}
METADATA = {
    "name": "string",
    "generateName": "string",
    "namespace": "string",
    "uid": "string",
    "resourceVersion": "string",
    "labels": _STRINGS,
    "annotations": _STRINGS,
    "finalizers": ["string"],
    "ownerReferences": [_OWNER],
    "managedFields": [{"manager": "string", "operation": "string", "apiVersion": "string", "fieldsV1": {}}],
}
_CONDITIONS = {"conditions": [{"type": "string", "status": "string"}]}
_CONTAINER = {
    "name": "string",
    "image": "string",
    "command": ["string"],
    "args": ["string"],
    "imagePullPolicy": "string",
    "restartPolicy": "string",
    "ports": [{"name": "string", "containerPort": "integer", "protocol": "string"}],
    "env": [{"name": "string", "value": "string", "valueFrom": {}}],
    "resources": {},
}
_POD_SPEC = {
    "nodeName": "string",
    "serviceAccountName": "string",
    "containers": [_CONTAINER],
    "initContainers": [_CONTAINER],
    "volumes": [{"name": "string"}],
    "nodeSelector": _STRINGS,
    "readinessGates": [{}],
}
_EXPRESSION = {"key": "string", "operator": "string", "values": ["string"]}
_SELECTOR = {"matchLabels": _STRINGS, "matchExpressions": [_EXPRESSION]}
_TEMPLATE = {"metadata": {"labels": _STRINGS, "annotations": _STRINGS}, "spec": _POD_SPEC}
_CONTAINER_STATE = {"waiting": {"reason": "string"}, "terminated": {"reason": "string"}}
_CONTAINER_STATUS = {"name": "string", "ready": "boolean", "restartCount": "integer", "state": _CONTAINER_STATE}
_WORKLOAD = {
    "spec": {
        "replicas": "integer",
        "selector": _SELECTOR,
        "template": _TEMPLATE,
        "strategy": {"type": "string", "rollingUpdate": {}},
    },
    "status": {
        "replicas": "integer",
        "readyReplicas": "integer",
        "updatedReplicas": "integer",
        "availableReplicas": "integer",
        **_CONDITIONS,
    },
}
_SUBJECT = {"kind": "string", "apiGroup": "string", "name": "string", "namespace": "string"}
_BINDING = {"roleRef": {"apiGroup": "string", "kind": "string", "name": "string"}, "subjects": [_SUBJECT]}
_RULE = {"verbs": ["string"], "apiGroups": ["string"], "resources": ["string"]}
_NAMES = {"plural": "string", "singular": "string", "kind": "string", "listKind": "string", "shortNames": ["string"]}
_COLUMN = {"name": "string", "type": "string", "jsonPath": "string", "priority": "integer", "description": "string"}
_VERSION = {
    "name": "string",
    "served": "boolean",
    "storage": "boolean",
    "schema": {"openAPIV3Schema": "schema"},
    "subresources": {},
    "additionalPrinterColumns": [_COLUMN],
    "selectableFields": [{"jsonPath": "string"}],
}

_SCHEMA = {
    "type": "string",
    "format": "string",
    "pattern": "string",
    "properties": {"*": "schema"},
    "items": "schema",
    "not": "schema",
    "required": ["string"],
    "enum": [{}],
    "allOf": ["schema"],
    "anyOf": ["schema"],
    "oneOf": ["schema"],
    **dict.fromkeys(("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), "integer"),
    **dict.fromkeys(("nullable", "uniqueItems", "exclusiveMaximum", "exclusiveMinimum"), "boolean"),
    **dict.fromkeys(("minimum", "maximum", "multipleOf"), "number"),
    "x-kubernetes-list-map-keys": ["string"],
    "x-kubernetes-list-type": "string",
    "x-kubernetes-map-type": "string",
    "x-kubernetes-preserve-unknown-fields": "boolean",
    "x-kubernetes-int-or-string": "boolean",
    "x-kubernetes-embedded-resource": "boolean",
}

_TYPES: dict[str, dict[str, Any]] = {
    "Namespace": {"spec": {"finalizers": ["string"]}, "status": {"phase": "string"}},
    "ConfigMap": {"data": _STRINGS, "binaryData": _STRINGS, "immutable": "boolean"},
    "Secret": {"data": _STRINGS, "stringData": _STRINGS, "type": "string", "immutable": "boolean"},
    "ServiceAccount": {"secrets": [{"name": "string"}], "imagePullSecrets": [{"name": "string"}]},
    "Service": {
        "spec": {
            "type": "string",
            "clusterIP": "string",
            "clusterIPs": ["string"],
            "externalIPs": ["string"],
            "externalName": "string",
            "selector": _STRINGS,
            "ports": [{"name": "string", "port": "integer", "protocol": "string", "nodePort": "integer"}],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "string", "hostname": "string"}]}, **_CONDITIONS},
    },
    "Pod": {
        "spec": _POD_SPEC,
        "status": {
            "phase": "string",
            "podIP": "string",
            "reason": "string",
            "containerStatuses": [_CONTAINER_STATUS],
            "initContainerStatuses": [_CONTAINER_STATUS],
            **_CONDITIONS,
        },
    },
    "Node": {
        "spec": {"unschedulable": "boolean"},
        "status": {"addresses": [{"type": "string", "address": "string"}], "nodeInfo": _STRINGS, **_CONDITIONS},
    },
    "Event": {
        "involvedObject": {"kind": "string", "name": "string", "namespace": "string"},
        "type": "string",
        "reason": "string",
        "message": "string",
        "lastTimestamp": "string",
        "eventTime": "string",
    },
    "Endpoints": {"subsets": [{"addresses": [{"ip": "string"}], "ports": [{"name": "string", "port": "integer"}]}]},
    "EndpointSlice": {
        "addressType": "string",
        "endpoints": [{"addresses": ["string"], "conditions": {}}],
        "ports": [{"name": "string", "port": "integer", "protocol": "string"}],
    },
    "Lease": {"spec": {"holderIdentity": "string", "leaseDurationSeconds": "integer"}},
    "Deployment": _WORKLOAD,
    "ReplicaSet": _WORKLOAD,
    "StatefulSet": _WORKLOAD,
    "DaemonSet": {
        "spec": {"selector": _SELECTOR, "template": _TEMPLATE},
        "status": {"numberReady": "integer", "desiredNumberScheduled": "integer", **_CONDITIONS},
    },
    "Job": {
        "spec": {"selector": _SELECTOR, "template": _TEMPLATE, "completions": "integer"},
        "status": {"succeeded": "integer", "startTime": "string", "completionTime": "string", **_CONDITIONS},
    },
    "PodDisruptionBudget": {"spec": {"selector": _SELECTOR}, "status": {"disruptionsAllowed": "integer"}},
    "Role": {"rules": [_RULE]},
    "ClusterRole": {"rules": [_RULE]},
    "RoleBinding": _BINDING,
    "ClusterRoleBinding": _BINDING,
    "MutatingWebhookConfiguration": {"webhooks": [{"name": "string"}]},
    "ValidatingWebhookConfiguration": {"webhooks": [{"name": "string"}]},
    "CustomResourceDefinition": {
        "spec": {
            "group": "string",
            "scope": "string",
            "names": {**_NAMES, "categories": ["string"]},
            "versions": [_VERSION],
            "conversion": {},
        },
        "status": {"storedVersions": ["string"], **_CONDITIONS},
    },
}

_FOUND = {bool: "bool", int: "number", float: "number", str: "string", list: "array", dict: "object"}
_WANTED = {"string": (str,), "boolean": (bool,), "integer": (int,), "number": (int, float)}
_GO = {"string": "string", "boolean": "bool", "integer": "int32", "number": "float64"}


def check_types(resource: Resource, version: str, manifest: dict[str, Any]) -> None:
    """Raises ApiError 400 for the first field whose type the real server could not decode.

    Takes null fields out of *manifest*, as decoding does; of custom resources out of the metadata only.
    """
    _drop_nulls(manifest.get("metadata") if resource.custom else manifest)
    body = {} if resource.custom else _TYPES.get(resource.kind, {"spec": {}, "status": {}})
    for name, types in (("metadata", METADATA), *body.items()):
        if name in manifest:
            _check(manifest[name], types, f"{resource.kind}.{name}", resource, version)


def _check(value: Any, types: Any, at: str, resource: Resource, version: str) -> None:
    if types == {}:
        return
    if types == "schema":
        _check_schema(value, at, resource, version)
    elif isinstance(types, str):
        wrong = not isinstance(value, _WANTED[types]) or (types != "boolean" and isinstance(value, bool))
        if wrong:
            raise _refusal(value, _GO[types], at, resource, version)
    elif isinstance(types, list):
        if not isinstance(value, list):
            raise _refusal(
                value, "[]" + (_GO.get(types[0], "") if isinstance(types[0], str) else ""), at, resource, version
            )
        for item in value:
            _check(item, types[0], at, resource, version)
    elif not isinstance(value, dict):
        raise _refusal(value, "map[string]string" if types == _STRINGS else "struct", at, resource, version)
    elif "*" in types:
        for below in value.values():
            _check(below, types["*"], at, resource, version)
    else:
        for name, below in types.items():
            if name in value:
                _check(value[name], below, f"{at}.{name}", resource, version)


def _check_schema(value: Any, at: str, resource: Resource, version: str) -> None:
    if not isinstance(value, dict):
        raise _refusal(value, "JSONSchemaProps", at, resource, version)
    _check(value, _SCHEMA, at, resource, version)
    additional = value.get("additionalProperties")
    if additional is not None and not isinstance(additional, bool):
        _check_schema(additional, f"{at}.additionalProperties", resource, version)


def _drop_nulls(value: Any) -> None:
    if isinstance(value, dict):
        for name in [name for name, below in value.items() if below is None]:
            del value[name]
        for below in value.values():
            _drop_nulls(below)
    elif isinstance(value, list):
        for item in value:
            _drop_nulls(item)


def _refusal(value: Any, wanted: str, at: str, resource: Resource, version: str) -> ApiError:
    found = _FOUND.get(type(value), "null")
    return bad_request(
        f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
        f"json: cannot unmarshal {found} into Go struct field {at} of type {wanted}"
    )
