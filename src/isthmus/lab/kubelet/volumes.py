"""What volumes hold: files from ConfigMaps, Secrets, the pod's own fields and service account tokens. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.fields import Setting, Sources, Unresolved, field_value, referenced, resource_value

DEFAULT_MODE = 0o644
TOKEN_SECONDS = 3600  # life of a token that does not say; Kubernetes' default
WRITTEN = ("configMap", "secret", "downwardAPI", "projected")
"""Volumes whose files the kubelet writes."""
MADE = ("emptyDir", "hostPath")
"""Volumes that only need a place."""


@dataclass(frozen=True)
class File:
    """One file of a volume."""

    content: bytes
    mode: int = DEFAULT_MODE


@dataclass(frozen=True)
class TokenRequest:
    """A token that a volume holds: for whom, for how long."""

    audience: str
    seconds: int


Tokens = Callable[[TokenRequest], str]


def kind_of(volume: Manifest) -> str:
    """Which kind of volume it is. Raises `Unresolved` for one that the lab does not have."""
    for kind in (*WRITTEN, *MADE):
        if kind in volume:
            return kind
    unknown = ", ".join(sorted(set(volume) - {"name"})) or "none"
    raise Unresolved(f'volume "{volume["name"]}": the lab has no volumes of kind {unknown}')


def files(volume: Manifest, setting: Setting, sources: Sources, tokens: Tokens) -> dict[str, File]:
    """What *volume* holds, by path within it. Raises `Unresolved`.

    *tokens* gives a token for each request that `token_requests` finds in the volume.
    """
    kind = kind_of(volume)
    mode = (volume[kind] or {}).get("defaultMode", DEFAULT_MODE)
    parts = (volume[kind].get("sources") or ()) if kind == "projected" else ({kind: volume[kind]},)
    found: dict[str, File] = {}
    for part in parts:
        found |= _part(part, mode, setting, sources, tokens)
    for path in found:
        if not _inside(path):
            raise Unresolved(f'volume "{volume["name"]}": {path!r} is no path within it')
    return found


def token_requests(pod: Manifest) -> frozenset[TokenRequest]:
    """The tokens that the volumes of *pod* hold."""
    parts = (part for volume in pod["spec"].get("volumes") or () for part in _parts(volume))
    return frozenset(_token_request(part["serviceAccountToken"]) for part in parts if "serviceAccountToken" in part)


def references(pod: Manifest) -> frozenset[tuple[str, str]]:
    """Kind and name of each ConfigMap and Secret that *pod* refers to."""
    spec = pod["spec"]
    found = set[tuple[str, str]]()
    for volume in spec.get("volumes") or ():
        for part in _parts(volume):
            if part.get("configMap"):
                found.add(("ConfigMap", part["configMap"].get("name", "")))
            if part.get("secret"):
                found.add(("Secret", _secret_name(part["secret"])))
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        mentions = [*(container.get("envFrom") or ()), *(e.get("valueFrom") or {} for e in container.get("env") or ())]
        for mention in mentions:
            for key, reference in mention.items():
                if key in ("configMapRef", "configMapKeyRef"):
                    found.add(("ConfigMap", reference.get("name", "")))
                if key in ("secretRef", "secretKeyRef"):
                    found.add(("Secret", reference.get("name", "")))
    return frozenset(found)


def nested_mounts(pod: Manifest, volume: str) -> tuple[str, ...]:
    """Folders that must be in *volume* because containers mount other volumes there, outermost first.

    A volume may be mounted read-only, so nobody could make them later. Source: kubelet, MakeNestedMountpoints.
    """
    found = set[str]()
    spec = pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        mounts = container.get("volumeMounts") or ()
        for outer in mounts:
            if outer["name"] != volume or outer.get("subPath") or outer.get("subPathExpr"):
                continue
            place = PurePosixPath(outer["mountPath"])
            for inner in mounts:
                path = PurePosixPath(inner["mountPath"])
                if inner["name"] != volume and place in path.parents:
                    found.add(str(path.relative_to(place)))
    return tuple(sorted(found))


def _parts(volume: Manifest) -> Iterator[Mapping[str, Any]]:
    if volume.get("projected"):
        yield from volume["projected"].get("sources") or ()
    else:
        yield volume


def _part(part: Mapping[str, Any], mode: int, setting: Setting, sources: Sources, tokens: Tokens) -> dict[str, File]:
    if "configMap" in part:
        return _keys("ConfigMap", part["configMap"].get("name", ""), part["configMap"], mode, setting, sources)
    if "secret" in part:
        return _keys("Secret", _secret_name(part["secret"]), part["secret"], mode, setting, sources)
    if "downwardAPI" in part:
        items = part["downwardAPI"].get("items") or ()
        return {each["path"]: _downward(each, each.get("mode", mode), setting) for each in items}
    if "serviceAccountToken" in part:
        source = part["serviceAccountToken"]
        return {source["path"]: File(tokens(_token_request(source)).encode(), mode)}
    raise Unresolved(f"the lab has no volume source of kind {', '.join(part)}")


def _keys(
    kind: str, name: str, source: Mapping[str, Any], mode: int, setting: Setting, sources: Sources
) -> dict[str, File]:
    optional = bool(source.get("optional"))
    held = referenced(kind, name, optional, setting.namespace, sources) or {}
    items = source.get("items")
    if items is None:
        return {key: File(content, mode) for key, content in held.items()}
    found = {}
    for item in items:
        if item["key"] in held:
            found[item["path"]] = File(held[item["key"]], item.get("mode", mode))
        elif not optional:
            raise Unresolved(f"{kind.lower()} references non-existent key: {item['key']}")
    return found


def _downward(item: Mapping[str, Any], mode: int, setting: Setting) -> File:
    if "fieldRef" in item:
        return File(field_value(setting, item["fieldRef"]["fieldPath"]).encode(), mode)
    reference = item["resourceFieldRef"]
    spec = setting.pod["spec"]
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        if container["name"] == reference.get("containerName"):
            return File(resource_value(reference, container, setting).encode(), mode)
    raise Unresolved(f"no container {reference.get('containerName')!r} to tell resources of")


def _token_request(source: Mapping[str, Any]) -> TokenRequest:
    return TokenRequest(source.get("audience", ""), int(source.get("expirationSeconds") or TOKEN_SECONDS))


def _secret_name(source: Mapping[str, Any]) -> str:
    """A volume of one Secret says ``secretName``, a projected one ``name``."""
    return str(source.get("secretName") or source.get("name") or "")


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and ".." not in parts
