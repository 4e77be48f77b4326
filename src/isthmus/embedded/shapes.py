"""How lists and maps of a kind are merged: as one value, as a set, or item by item.

Server-side apply (fields.py) and strategic merge patch (patches.py) read these; shapes of custom resources are derived
from their schema (`shape_of_schema`), those of built-in kinds are the tables below, as far as users merge into them.
Source: x-kubernetes-list-type, x-kubernetes-list-map-keys, x-kubernetes-map-type and patchMergeKey in the OpenAPI
document of Kubernetes.
"""

from __future__ import annotations

from typing import Any

import msgspec


class Shape(msgspec.Struct, frozen=True):
    """The shape of one value. Without fields, values and items: maps merge by key, lists are one value."""

    fields: dict[str, Shape] = {}
    values: Shape | None = None
    """Shape of the values of keys that *fields* lacks."""
    items: Shape | None = None
    atomic: bool = False
    """A map that is replaced as a whole."""
    is_set: bool = False
    keys: tuple[str, ...] = ()
    """Keys that identify an item; a list with keys is merged item by item."""
    patch_key: str = ""
    """Key of strategic merge where it differs from `keys`; lists of scalars use ``.``."""
    open: bool = False
    """Keys beyond *fields* are data of the user, so each owned map is a member of the field set on its own."""

    def field(self, name: str) -> Shape:
        return self.fields.get(name) or self.values or (OPEN if self.open else ANY)

    @property
    def item(self) -> Shape:
        return self.items or (OPEN if self.open else ANY)


ANY = Shape()
OPEN = Shape(open=True)
ATOMIC = Shape(atomic=True)

KEY_DEFAULTS = {"protocol": "TCP"}
"""Values of keys that an item may leave out."""


def _struct(**fields: Shape) -> Shape:
    return Shape(fields=fields)


def _by(*keys: str, patch_key: str = "", **fields: Shape) -> Shape:
    return Shape(keys=keys, patch_key=patch_key or keys[0], items=Shape(fields=fields))


def _patched_by(key: str) -> Shape:
    """A list that apply replaces as a whole and strategic merge patch merges."""
    return Shape(patch_key=key)


_SET = Shape(is_set=True, patch_key=".")
METADATA = _struct(
    ownerReferences=Shape(keys=("uid",), patch_key="uid", items=ATOMIC),
    finalizers=_SET,
)
_CONDITIONS = _struct(conditions=_by("type"))
_KEY_REFERENCE = _struct(
    valueFrom=_struct(secretKeyRef=ATOMIC, configMapKeyRef=ATOMIC, fieldRef=ATOMIC, resourceFieldRef=ATOMIC)
)
_CONTAINERS = Shape(
    keys=("name",),
    patch_key="name",
    items=_struct(
        ports=_by("containerPort", "protocol"),
        env=Shape(keys=("name",), patch_key="name", items=_KEY_REFERENCE),
        volumeMounts=_by("mountPath"),
        volumeDevices=_by("devicePath"),
        resources=_struct(claims=_by("name")),
    ),
)
POD_SPEC = _struct(
    containers=_CONTAINERS,
    initContainers=_CONTAINERS,
    ephemeralContainers=_CONTAINERS,
    volumes=_by("name"),
    imagePullSecrets=_by("name"),
    hostAliases=_by("ip"),
    topologySpreadConstraints=_by("topologyKey", "whenUnsatisfiable", labelSelector=ATOMIC),
    schedulingGates=_by("name"),
    nodeSelector=ATOMIC,
)
_TEMPLATE = _struct(metadata=METADATA, spec=POD_SPEC)
_WORKLOAD = _struct(spec=_struct(selector=ATOMIC, template=_TEMPLATE), status=_CONDITIONS)

BUILT_IN = {
    "Pod": _struct(
        spec=POD_SPEC,
        status=_struct(conditions=_by("type"), podIPs=_by("ip"), hostIPs=_patched_by("ip")),
    ),
    "Service": _struct(
        spec=_struct(ports=_by("port", "protocol"), selector=ATOMIC),
        status=_struct(conditions=_by("type")),
    ),
    "ServiceAccount": _struct(secrets=_by("name"), imagePullSecrets=_patched_by("name")),
    "Namespace": _struct(status=_CONDITIONS),
    "Node": _struct(
        spec=_struct(taints=_patched_by("key"), podCIDRs=_SET),
        status=_struct(conditions=_by("type"), addresses=_by("type")),
    ),
    "Deployment": _WORKLOAD,
    "ReplicaSet": _WORKLOAD,
    "StatefulSet": _WORKLOAD,
    "DaemonSet": _WORKLOAD,
    "Job": _WORKLOAD,
    "PodDisruptionBudget": _struct(spec=_struct(selector=ATOMIC), status=_CONDITIONS),
    "RoleBinding": _struct(roleRef=ATOMIC),
    "ClusterRoleBinding": _struct(roleRef=ATOMIC),
    "CustomResourceDefinition": _struct(status=_CONDITIONS),
    "MutatingWebhookConfiguration": _struct(webhooks=_by("name")),
    "ValidatingWebhookConfiguration": _struct(webhooks=_by("name")),
}


def built_in_shape(kind: str) -> Shape:
    """The shape of a whole object of a built-in *kind*."""
    body = BUILT_IN.get(kind, ANY)
    return Shape(fields={**body.fields, "metadata": METADATA})


def shape_of_schema(schema: dict[str, Any]) -> Shape:
    """The shape of a whole custom resource, from its structural schema."""
    body = _shape(schema)
    return Shape(fields={**body.fields, "metadata": METADATA}, open=True)


def _shape(schema: dict[str, Any]) -> Shape:
    fields = {name: _shape(sub) for name, sub in schema.get("properties", {}).items()}
    additional = schema.get("additionalProperties")
    values = _shape(additional) if isinstance(additional, dict) else None
    items = schema.get("items")
    list_type = schema.get("x-kubernetes-list-type", "atomic")
    if schema.get("x-kubernetes-embedded-resource"):
        fields.setdefault("metadata", METADATA)
    return Shape(
        fields=fields,
        values=values,
        items=_shape(items) if isinstance(items, dict) else None,
        atomic=schema.get("x-kubernetes-map-type") == "atomic",
        is_set=list_type == "set",
        keys=tuple(schema.get("x-kubernetes-list-map-keys", ())) if list_type == "map" else (),
        open=True,
    )
