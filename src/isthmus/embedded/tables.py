"""Lists as ``kubectl get`` shows them: the Table form of the API.

Built-in kinds have the columns of the real server as far as users of this project look at them; custom resources the
ones that their definition declares.
Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from isthmus.embedded.resources import Column, Resource

Row = list[Any]
Manifest = dict[str, Any]

API_VERSION = "meta.k8s.io/v1"


class Heading(msgspec.Struct, frozen=True):
    """One column of a table; *priority* above 0 shows with ``-o wide`` only."""

    name: str
    type: str = "string"
    format: str = ""
    priority: int = 0
    description: str = ""


def table(
    resource: Resource,
    version: str,
    manifests: Sequence[Manifest],
    metadata: Manifest,
    *,
    include: str = "Metadata",
    headings: bool = True,
    now: datetime | None = None,
) -> Manifest:
    """The Table of *manifests*; *include* says what each row carries: None, Metadata or Object."""
    columns, cells = _layout(resource, version)
    at = now or datetime.now(UTC)
    definitions = []
    for column in columns:
        definition: Manifest = {"name": column.name, "type": column.type, "format": column.format}
        definitions.append(definition | {"description": column.description, "priority": column.priority})
    rows = [{"cells": cells(m, at), "object": _row_object(m, include)} for m in manifests]
    return {
        "kind": "Table",
        "apiVersion": API_VERSION,
        "metadata": metadata,
        "columnDefinitions": definitions if headings else None,
        "rows": rows,
    }


def partial(manifest: Manifest) -> Manifest:
    """The object's metadata alone."""
    return {"kind": "PartialObjectMetadata", "apiVersion": API_VERSION, "metadata": manifest["metadata"]}


def _row_object(manifest: Manifest, include: str) -> Manifest | None:
    if include == "Object":
        return manifest
    return partial(manifest) if include == "Metadata" else None


Cells = Callable[[Manifest, datetime], Row]


def _layout(resource: Resource, version: str) -> tuple[tuple[Heading, ...], Cells]:
    if resource.custom:
        columns = resource.columns[version]
        headings = tuple(_NAME) + tuple(
            Heading(column.name, column.type, column.format, column.priority, column.description) for column in columns
        )
        return headings, lambda manifest, now: [
            manifest["metadata"]["name"],
            *(_custom_cell(manifest, column, now) for column in columns),
        ]
    return _BUILT_IN.get(resource.kind, (_NAME_AGE, lambda manifest, now: [_name(manifest), _age(manifest, now)]))


# --- custom resources ---


def _custom_cell(manifest: Manifest, column: Column, now: datetime) -> Any:
    found = json_path(manifest, column.path)
    if not found:
        return "<unknown>" if column.type == "date" else None
    value = found[0]
    if column.type == "date":
        return _since(value, now) if isinstance(value, str) else "<invalid>"
    if column.type == "string":
        return value if isinstance(value, str) else _go_text(value)
    if column.type == "integer":
        return int(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    if column.type == "number":
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    return value if isinstance(value, bool) else None


def _go_text(value: Any) -> str:
    """A list or map as ``[a b]`` and ``map[k:v]``.

    Source: the walk-through's listings. Servers from Kubernetes 1.18 on write JSON (``["a","b"]``).
    """
    if isinstance(value, list):
        return f"[{' '.join(map(_go_text, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go_text(below)}' for key, below in sorted(value.items()))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    return "<nil>" if value is None else str(value)


_STEP = re.compile(
    r"""\.(?P<name>(?:[^.\[\]\\]|\\.)+)
      | \[(?P<index>-?\d+)\]
      | \[(?P<all>\*)\]
      | \['(?P<quoted>[^']+)'\]
      | \[\?\(@\.(?P<key>[^=!\s]+)\s*(?P<operator>==|!=)\s*['"](?P<value>[^'"]*)['"]\)\]
    """,
    re.VERBOSE,
)


def json_path(manifest: Any, path: str) -> list[Any]:
    """What a printer column's path finds: fields, indexes, ``[*]`` and ``[?(@.type=='x')]``."""
    found = [manifest]
    at = 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            return []
        at = step.end()
        found = [below for value in found for below in _follow(value, step)]
    return [value for value in found if value is not None]


def _follow(value: Any, step: re.Match[str]) -> list[Any]:
    name = step["name"] or step["quoted"]
    if name is not None:
        name = name.replace("\\.", ".")
        return [value[name]] if isinstance(value, dict) and name in value else []
    if step["key"] is not None:
        items = value if isinstance(value, list) else []
        wanted = step["operator"] == "=="
        return [
            item for item in items if isinstance(item, dict) and (str(item.get(step["key"])) == step["value"]) is wanted
        ]
    if step["all"]:
        return list(value) if isinstance(value, list) else list(value.values()) if isinstance(value, dict) else []
    index = int(step["index"])
    return [value[index]] if isinstance(value, list) and -len(value) <= index < len(value) else []


# --- built-in kinds ---


def _name(manifest: Manifest) -> str:
    return str(manifest["metadata"]["name"])


def _age(manifest: Manifest, now: datetime) -> str:
    return _since(manifest["metadata"].get("creationTimestamp"), now)


def _since(stamp: str | None, now: datetime) -> str:
    """Time passed since *stamp* as kubectl writes ages: ``8m12s``, ``5h``, ``3d4h``."""
    if not stamp:
        return "<unknown>"
    try:
        seconds = int((now - datetime.fromisoformat(stamp)).total_seconds())
    except ValueError:
        return "<invalid>"
    return human_duration(seconds)


def human_duration(seconds: int) -> str:
    """Source: k8s.io/apimachinery/pkg/util/duration, the two leading units while they matter."""
    if seconds < 0:
        return "<invalid>" if seconds < -1 else "0s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return _two(days, "d", hours % 24, "h")
    if days < 730:
        return f"{days}d"
    if days < 2920:
        return _two(days // 365, "y", days % 365, "d")
    return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


_NAME = (Heading("Name", format="name"),)
_AGE = Heading("Age")
_NAME_AGE = (*_NAME, _AGE)


def _at(manifest: Manifest, *path: str, default: Any = None) -> Any:
    value: Any = manifest
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return default if value is None else value


def _pod(pod: Manifest, now: datetime) -> Row:
    specs = [
        *_at(pod, "spec", "containers", default=[]),
        *(c for c in _at(pod, "spec", "initContainers", default=[]) if c.get("restartPolicy") == "Always"),
    ]
    statuses = [
        *_at(pod, "status", "containerStatuses", default=[]),
        *(
            status
            for status in _at(pod, "status", "initContainerStatuses", default=[])
            if any(status.get("name") == spec.get("name") for spec in specs)
        ),
    ]
    ready = sum(1 for status in statuses if status.get("ready"))
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    gates = _at(pod, "spec", "readinessGates", default=[])
    return [
        _name(pod),
        f"{ready}/{len(specs)}",
        _pod_state(pod, statuses),
        str(restarts),
        _age(pod, now),
        _at(pod, "status", "podIP", default="<none>") or "<none>",
        _at(pod, "spec", "nodeName", default="<none>") or "<none>",
        _at(pod, "status", "nominatedNodeName", default="<none>") or "<none>",
        "<none>" if not gates else f"0/{len(gates)}",
    ]


def _pod_state(pod: Manifest, statuses: list[Manifest]) -> str:
    if _at(pod, "metadata", "deletionTimestamp"):
        return "Terminating"
    for status in statuses:
        reason = _at(status, "state", "waiting", "reason") or _at(status, "state", "terminated", "reason")
        if reason:
            return str(reason)
    return str(_at(pod, "status", "reason") or _at(pod, "status", "phase", default="Unknown"))


def _service(service: Manifest, now: datetime) -> Row:
    kind = _at(service, "spec", "type", default="ClusterIP")
    ports = ",".join(
        f"{port['port']}{':' + str(port['nodePort']) if port.get('nodePort') else ''}/{port.get('protocol', 'TCP')}"
        for port in _at(service, "spec", "ports", default=[])
    )
    return [
        _name(service),
        kind,
        _at(service, "spec", "clusterIP", default="<none>") or "<none>",
        _external_address(service, kind),
        ports or "<none>",
        _age(service, now),
        _labels_text(_at(service, "spec", "selector")),
    ]


def _external_address(service: Manifest, kind: str) -> str:
    external = list(_at(service, "spec", "externalIPs", default=[]))
    if kind == "ExternalName":
        return str(_at(service, "spec", "externalName", default=""))
    if kind == "LoadBalancer":
        ingress = _at(service, "status", "loadBalancer", "ingress", default=[])
        given = [entry.get("ip") or entry.get("hostname", "") for entry in ingress]
        return ",".join([*given, *external]) or "<pending>"
    return ",".join(external) or "<none>"


def _labels_text(labels: dict[str, str] | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"


def _selector_text(selector: Manifest | None) -> str:
    terms = [f"{key}={value}" for key, value in sorted(((selector or {}).get("matchLabels") or {}).items())]
    for term in (selector or {}).get("matchExpressions") or ():
        operator, values = term["operator"], ",".join(term.get("values") or ())
        key = term["key"]
        words = {"Exists": key, "DoesNotExist": f"!{key}", "In": f"{key} in ({values})"}
        terms.append(words.get(operator, f"{key} notin ({values})"))
    return ",".join(terms) or "<none>"


def _containers(manifest: Manifest, field: str) -> str:
    containers = _at(manifest, "spec", "template", "spec", "containers", default=[])
    return ",".join(str(container.get(field, "")) for container in containers)


def _deployment(item: Manifest, now: datetime) -> Row:
    status = item.get("status") or {}
    return [
        _name(item),
        f"{status.get('readyReplicas', 0)}/{_at(item, 'spec', 'replicas', default=1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        _age(item, now),
        _containers(item, "name"),
        _containers(item, "image"),
        _selector_text(_at(item, "spec", "selector")),
    ]


def _replica_set(item: Manifest, now: datetime) -> Row:
    status = item.get("status") or {}
    return [
        _name(item),
        _at(item, "spec", "replicas", default=1),
        status.get("replicas", 0),
        status.get("readyReplicas", 0),
        _age(item, now),
        _containers(item, "name"),
        _containers(item, "image"),
        _selector_text(_at(item, "spec", "selector")),
    ]


def _stateful_set(item: Manifest, now: datetime) -> Row:
    ready = _at(item, "status", "readyReplicas", default=0)
    return [
        _name(item),
        f"{ready}/{_at(item, 'spec', 'replicas', default=1)}",
        _age(item, now),
        _containers(item, "name"),
        _containers(item, "image"),
    ]


def _daemon_set(item: Manifest, now: datetime) -> Row:
    status = item.get("status") or {}
    numbers = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled")
    return [
        _name(item),
        *(status.get(number, 0) for number in numbers),
        status.get("numberAvailable", 0),
        _labels_text(_at(item, "spec", "template", "spec", "nodeSelector")),
        _age(item, now),
        _containers(item, "name"),
        _containers(item, "image"),
        _selector_text(_at(item, "spec", "selector")),
    ]


def _node(node: Manifest, now: datetime) -> Row:
    conditions = {c.get("type"): c.get("status") for c in _at(node, "status", "conditions", default=[])}
    state = {"True": "Ready", "False": "NotReady"}.get(str(conditions.get("Ready")), "Unknown")
    if _at(node, "spec", "unschedulable"):
        state += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = _at(node, "metadata", "labels", default={})
    roles = sorted(label[len(prefix) :] for label in labels if label.startswith(prefix))
    addresses = {a.get("type"): a.get("address") for a in _at(node, "status", "addresses", default=[])}
    about = _at(node, "status", "nodeInfo", default={})
    return [
        _name(node),
        state,
        ",".join(roles) or "<none>",
        _age(node, now),
        about.get("kubeletVersion", ""),
        addresses.get("InternalIP") or "<none>",
        addresses.get("ExternalIP") or "<none>",
        about.get("osImage") or "<unknown>",
        about.get("kernelVersion") or "<unknown>",
        about.get("containerRuntimeVersion") or "<unknown>",
    ]


def _endpoint_slice(item: Manifest, now: datetime) -> Row:
    ports = [str(port.get("port", "*")) for port in item.get("ports") or ()]
    addresses = [address for endpoint in item.get("endpoints") or () for address in endpoint.get("addresses") or ()]
    return [
        _name(item),
        item.get("addressType", ""),
        _some(ports) if ports else "<unset>",
        _some(addresses) if addresses else "<unset>",
        _age(item, now),
    ]


def _some(texts: list[str]) -> str:
    return ",".join(texts[:3]) + (f" + {len(texts) - 3} more..." if len(texts) > 3 else "")


def _endpoints(item: Manifest, now: datetime) -> Row:
    pairs = [
        f"{address.get('ip')}:{port.get('port')}"
        for subset in item.get("subsets") or ()
        for port in subset.get("ports") or ()
        for address in subset.get("addresses") or ()
    ]
    return [_name(item), _some(pairs) or "<none>", _age(item, now)]


def _config_map(item: Manifest, now: datetime) -> Row:
    return [_name(item), len(item.get("data") or {}) + len(item.get("binaryData") or {}), _age(item, now)]


def _secret(item: Manifest, now: datetime) -> Row:
    return [_name(item), item.get("type", "Opaque"), len(item.get("data") or {}), _age(item, now)]


def _service_account(item: Manifest, now: datetime) -> Row:
    return [_name(item), len(item.get("secrets") or ()), _age(item, now)]


def _namespace(item: Manifest, now: datetime) -> Row:
    return [_name(item), _at(item, "status", "phase", default=""), _age(item, now)]


def _event(item: Manifest, now: datetime) -> Row:
    about = item.get("involvedObject") or {}
    last = item.get("lastTimestamp") or item.get("eventTime") or item["metadata"].get("creationTimestamp")
    return [
        _since(last, now),
        item.get("type", ""),
        item.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        str(item.get("message", "")).strip(),
    ]


def _lease(item: Manifest, now: datetime) -> Row:
    return [_name(item), _at(item, "spec", "holderIdentity", default=""), _age(item, now)]


def _role(item: Manifest, now: datetime) -> Row:
    return [_name(item), item["metadata"].get("creationTimestamp", "")]


def _binding(item: Manifest, now: datetime) -> Row:
    role = item.get("roleRef") or {}
    subjects = item.get("subjects") or ()

    def names(kind: str) -> str:
        return ", ".join(
            f"{s.get('namespace', '')}/{s.get('name')}" if kind == "ServiceAccount" else str(s.get("name"))
            for s in subjects
            if s.get("kind") == kind
        )

    who = [names("User"), names("Group"), names("ServiceAccount")]
    return [_name(item), f"{role.get('kind', '')}/{role.get('name', '')}", _age(item, now), *who]


def _definition(item: Manifest, now: datetime) -> Row:
    return [_name(item), item["metadata"].get("creationTimestamp", "")]


def _webhooks(item: Manifest, now: datetime) -> Row:
    return [_name(item), len(item.get("webhooks") or ()), _age(item, now)]


def _disruption_budget(item: Manifest, now: datetime) -> Row:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    return [
        _name(item),
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        status.get("disruptionsAllowed", 0),
        _age(item, now),
    ]


def _job(item: Manifest, now: datetime) -> Row:
    spec, status = item.get("spec") or {}, item.get("status") or {}
    conditions = {c.get("type") for c in status.get("conditions") or () if c.get("status") == "True"}
    state = "Complete" if "Complete" in conditions else "Failed" if "Failed" in conditions else "Running"
    start, end = status.get("startTime"), status.get("completionTime")
    duration = "" if not start else _since(start, datetime.fromisoformat(end) if end else now)
    done = f"{status.get('succeeded', 0)}/{spec.get('completions', 1)}"
    return [_name(item), state, done, duration, _age(item, now)]


def _whole(*names: str) -> tuple[Heading, ...]:
    """Headings of integer columns."""
    return tuple(Heading(name, "integer") for name in names)


def _wide(*names: str) -> tuple[Heading, ...]:
    """Headings that show with ``-o wide``."""
    return tuple(Heading(name, priority=1) for name in names)


def _plain(*names: str) -> tuple[Heading, ...]:
    return tuple(Heading(name) for name in names)


_TEMPLATE = _wide("Containers", "Images")
_BINDING = ((*_NAME, Heading("Role"), _AGE, *_wide("Users", "Groups", "ServiceAccounts")), _binding)
_WEBHOOKS = ((*_NAME, *_whole("Webhooks"), _AGE), _webhooks)
_CREATED = (*_NAME, Heading("Created At", format="date-time"))

_BUILT_IN: dict[str, tuple[tuple[Heading, ...], Cells]] = {
    "Pod": (
        (
            *_NAME,
            *_plain("Ready", "Status", "Restarts"),
            _AGE,
            *_wide("IP", "Node", "Nominated Node", "Readiness Gates"),
        ),
        _pod,
    ),
    "Service": (
        (*_NAME, *_plain("Type", "Cluster-IP", "External-IP", "Port(s)"), _AGE, *_wide("Selector")),
        _service,
    ),
    "Deployment": (
        (*_NAME, Heading("Ready"), *_plain("Up-to-date", "Available"), _AGE, *_TEMPLATE, *_wide("Selector")),
        _deployment,
    ),
    "ReplicaSet": (
        (*_NAME, *_whole("Desired", "Current", "Ready"), _AGE, *_TEMPLATE, *_wide("Selector")),
        _replica_set,
    ),
    "StatefulSet": ((*_NAME, Heading("Ready"), _AGE, *_TEMPLATE), _stateful_set),
    "DaemonSet": (
        (
            *_NAME,
            *_whole("Desired", "Current", "Ready", "Up-to-date", "Available"),
            Heading("Node Selector"),
            _AGE,
            *_TEMPLATE,
            *_wide("Selector"),
        ),
        _daemon_set,
    ),
    "Node": (
        (
            *_NAME,
            *_plain("Status", "Roles"),
            _AGE,
            Heading("Version"),
            *_wide("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime"),
        ),
        _node,
    ),
    "EndpointSlice": ((*_NAME, *_plain("AddressType", "Ports", "Endpoints"), _AGE), _endpoint_slice),
    "Endpoints": ((*_NAME, Heading("Endpoints"), _AGE), _endpoints),
    "ConfigMap": ((*_NAME, Heading("Data"), _AGE), _config_map),
    "Secret": ((*_NAME, *_plain("Type", "Data"), _AGE), _secret),
    "ServiceAccount": ((*_NAME, Heading("Secrets"), _AGE), _service_account),
    "Namespace": ((*_NAME, Heading("Status"), _AGE), _namespace),
    "Event": (_plain("Last Seen", "Type", "Reason", "Object", "Message"), _event),
    "Lease": ((*_NAME, Heading("Holder"), _AGE), _lease),
    "ClusterRole": (_CREATED, _role),
    "Role": (_CREATED, _role),
    "ClusterRoleBinding": _BINDING,
    "RoleBinding": _BINDING,
    "CustomResourceDefinition": (_CREATED, _definition),
    "MutatingWebhookConfiguration": _WEBHOOKS,
    "ValidatingWebhookConfiguration": _WEBHOOKS,
    "PodDisruptionBudget": (
        (*_NAME, *_plain("Min Available", "Max Unavailable"), *_whole("Allowed Disruptions"), _AGE),
        _disruption_budget,
    ),
    "Job": ((*_NAME, *_plain("Status", "Completions", "Duration"), _AGE), _job),
}
