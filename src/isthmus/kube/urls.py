"""Where objects live on an API server, and what we call them in messages."""

from __future__ import annotations

from urllib.parse import quote

from isthmus.kube.events import Manifest
from isthmus.model.ref import Kind


def collection(kind: Kind, namespace: str = "") -> str:
    """The path of *kind*'s objects, in all namespaces if *namespace* is empty."""
    root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
    if kind.namespaced and namespace:
        root += f"/namespaces/{quote(namespace, safe='')}"
    return f"{root}/{kind.plural}"


def single(kind: Kind, namespace: str, name: str, subresource: str = "") -> str:
    """The path of one object. Raises ValueError where a part is missing: the request would reach another resource."""
    if not name:
        raise ValueError(f"{kind.kind} without a name")
    path = f"{home(kind, namespace)}/{quote(name, safe='')}"
    return f"{path}/{subresource}" if subresource else path


def home(kind: Kind, namespace: str) -> str:
    """The path of the collection that an object in *namespace* belongs to. Raises ValueError if it needs one."""
    if kind.namespaced and not namespace:
        raise ValueError(f"{kind.kind} without a namespace")
    return collection(kind, namespace)


def identity(manifest: Manifest) -> tuple[str, str]:
    """Namespace and name of *manifest*."""
    metadata = manifest["metadata"]
    return metadata.get("namespace", ""), metadata.get("name", "")


def called(kind: Kind, namespace: str = "", name: str = "") -> str:
    """What messages call the object, or the objects: ``Service bookinfo/reviews``, ``Services in bookinfo``."""
    if not name:
        return f"{kind.kind} objects in {namespace or 'all namespaces'}" if kind.namespaced else f"{kind.kind} objects"
    return f"{kind.kind} {namespace}/{name}" if kind.namespaced and namespace else f"{kind.kind} {name}"


def selection(labels: str, fields: str) -> dict[str, str]:
    """Query parameters of the selectors that are given."""
    both = {"labelSelector": labels, "fieldSelector": fields}
    return {key: value for key, value in both.items() if value}
