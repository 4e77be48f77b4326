"""The environment of a container, and references to it in commands and arguments. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.fields import Setting, Sources, Unresolved, field_value, referenced, resource_value

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as container engines set it
_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expand(text: str, values: Mapping[str, str]) -> str:
    """*text* with ``$(NAME)`` replaced; an unknown name stays as it is written, and ``$$`` means ``$``.

    Source: Kubernetes, third_party/forked/golang/expansion.
    """
    return _REFERENCE.sub(lambda found: "$" if found[1] is None else values.get(found[1], found[0]), text)


def service_environment(host: str, port: int) -> dict[str, str]:
    """Where containers find their API server.

    Variables of other Services are not set: bookinfo, Istio and our own charts look names up in DNS.
    """
    url = f"tcp://{host}:{port}"
    tcp = f"KUBERNETES_PORT_{port}_TCP"
    return {
        "KUBERNETES_SERVICE_HOST": host,
        "KUBERNETES_SERVICE_PORT": str(port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        "KUBERNETES_PORT": url,
        tcp: url,
        f"{tcp}_PROTO": "tcp",
        f"{tcp}_PORT": str(port),
        f"{tcp}_ADDR": host,
    }


def environment(
    container: Manifest, setting: Setting, sources: Sources, *, image: Mapping[str, str], services: Mapping[str, str]
) -> dict[str, str]:
    """The container's environment. Raises `Unresolved`.

    *image* and *services* give way to what the container says. A value may refer to names before it and to services.
    """
    declared: dict[str, str] = {}
    for each in container.get("envFrom") or ():
        prefix = each.get("prefix", "")
        for key, reference in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key not in each:
                continue
            optional = bool(each[key].get("optional"))
            held = referenced(reference, each[key].get("name", ""), optional, setting.namespace, sources) or {}
            declared |= {prefix + name: _text(content) for name, content in held.items()}
    for variable in container.get("env") or ():
        if variable.get("value"):
            value: str | None = expand(str(variable["value"]), {**services, **declared})
        elif "valueFrom" in variable:
            value = _value_from(variable["valueFrom"], container, setting, sources)
        else:
            value = ""
        if value is not None:
            declared[variable["name"]] = value
    return {"PATH": PATH, **image, **services, **declared}


def _value_from(source: Mapping[str, Any], container: Manifest, setting: Setting, sources: Sources) -> str | None:
    """The value, None if the variable is left out because what it refers to may be missing."""
    if "fieldRef" in source:
        return field_value(setting, source["fieldRef"]["fieldPath"])
    if "resourceFieldRef" in source:
        return resource_value(source["resourceFieldRef"], container, setting)
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if key in source:
            name, item, optional = source[key].get("name", ""), source[key]["key"], bool(source[key].get("optional"))
            held = referenced(kind, name, optional, setting.namespace, sources)
            if held is not None and item in held:
                return _text(held[item])
            if optional:
                return None
            raise Unresolved(f"couldn't find key {item} in {kind} {setting.namespace}/{name}")
    raise Unresolved(f"unsupported source of an environment variable: {', '.join(source)}")


def _text(content: bytes) -> str:
    return content.decode(errors="surrogateescape")
