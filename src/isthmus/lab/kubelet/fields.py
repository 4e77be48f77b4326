"""What a pod's containers may ask to be told: fields of the pod, resources, keys of ConfigMaps and Secrets. Pure."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.quantities import in_units

_SUBSCRIPT = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


class Unresolved(Exception):
    """A pod refers to what is not there (yet), or asks for what this kubelet does not know; the text says which."""


class Sources(Protocol):
    """The ConfigMaps and Secrets of a cluster."""

    def find(self, kind: str, namespace: str, name: str) -> Manifest | None:
        """The object of *kind* ``ConfigMap`` or ``Secret``."""


@dataclass(frozen=True)
class Setting:
    """Where a pod runs: what is known of it apart from its manifest."""

    pod: Manifest
    address: str
    host_address: str
    allocatable: Mapping[str, str] = field(default_factory=dict)
    """The node's, which stand for limits that a container does not have."""

    @property
    def namespace(self) -> str:
        """The pod's."""
        return str(self.pod["metadata"]["namespace"])


def field_value(setting: Setting, path: str) -> str:
    """The text of the pod's field at *path*. Raises `Unresolved`.

    Source: Kubernetes, downward API, available fields.
    """
    metadata, spec = setting.pod["metadata"], setting.pod["spec"]
    subscript = _SUBSCRIPT.fullmatch(path)
    if subscript:
        return str((metadata.get(subscript[1]) or {}).get(subscript[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(metadata[path.removeprefix("metadata.")])
        case "metadata.labels" | "metadata.annotations":
            pairs = metadata.get(path.removeprefix("metadata.")) or {}
            return "\n".join(f"{key}={json.dumps(pairs[key], ensure_ascii=False)}" for key in sorted(pairs))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.podIP" | "status.podIPs":
            return setting.address
        case "status.hostIP" | "status.hostIPs":
            return setting.host_address
        case _:
            raise Unresolved(f"unsupported fieldPath: {path}")


def resource_value(reference: Mapping[str, Any], container: Manifest, setting: Setting) -> str:
    """The number that a ``resourceFieldRef`` stands for. Raises `Unresolved`."""
    kind, _, resource = str(reference["resource"]).partition(".")
    if kind not in ("limits", "requests"):
        raise Unresolved(f"unsupported container resource: {reference['resource']}")
    given = (container.get("resources") or {}).get(kind) or {}
    fallback = setting.allocatable.get(resource, "0") if kind == "limits" else "0"
    return str(in_units(given.get(resource, fallback), reference.get("divisor") or "1"))


def contents(kind: str, item: Manifest) -> dict[str, bytes]:
    """The keys of a ConfigMap or Secret, with what they hold."""
    encoded = item.get("data" if kind == "Secret" else "binaryData") or {}
    plain = {} if kind == "Secret" else item.get("data") or {}
    return {key: base64.b64decode(text) for key, text in encoded.items()} | {
        key: text.encode() for key, text in plain.items()
    }


def referenced(kind: str, name: str, optional: bool, namespace: str, sources: Sources) -> dict[str, bytes] | None:
    """The contents of the object that a pod refers to; None if it may be missing and is. Raises `Unresolved`."""
    item = sources.find(kind, namespace, name)
    if item is not None:
        return contents(kind, item)
    if optional:
        return None
    raise Unresolved(f'{kind.lower()} "{name}" not found')
