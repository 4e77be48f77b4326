"""What the real server fills in and refuses for its built-in kinds, as far as this project's objects need it.

Source: the defaults in https://kubernetes.io/docs/reference/generated/kubernetes-api/v1.32/ and tests/contract.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson

from isthmus.embedded.errors import Cause
from isthmus.embedded.resources import Resource

Manifest = dict[str, Any]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_QUALIFIED = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
MAX_ANNOTATIONS_BYTES = 256 * 1024
MAX_DATA_BYTES = 2**20  # of a ConfigMap or Secret

_SUBDOMAIN_TEXT = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_TEXT = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with "
    "an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)
_LABEL_1035_TEXT = (
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, "
    "and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is "
    "'[a-z]([-a-z0-9]*[a-z0-9])?')"
)
_VALUE_TEXT = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_KEY_TEXT = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric "
    "character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)


# --- metadata of every kind ---


def metadata_faults(resource: Resource, metadata: Manifest) -> Iterator[Cause]:
    """What is wrong with the metadata of any object."""
    name = metadata.get("name", "")
    yield from _name_faults(resource, name)
    for key, value in (metadata.get("labels") or {}).items():
        yield from _label_faults(key, value)
    annotations = metadata.get("annotations") or {}
    for key in annotations:
        if not _is_qualified(key.lower()):
            yield Cause("metadata.annotations", "FieldValueInvalid", f'Invalid value: "{key}": {_KEY_TEXT}')
    if sum(len(key.encode()) + len(str(value).encode()) for key, value in annotations.items()) > MAX_ANNOTATIONS_BYTES:
        text = f"Too long: may not be more than {MAX_ANNOTATIONS_BYTES} bytes"
        yield Cause("metadata.annotations", "FieldValueTooLong", text)


def _name_faults(resource: Resource, name: str) -> Iterator[Cause]:
    if not name:
        yield Cause("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")
        return
    if resource.group == "rbac.authorization.k8s.io":
        return
    rule, text, longest = _SUBDOMAIN, _SUBDOMAIN_TEXT, 253
    if resource.key == "namespaces":
        rule, text, longest = _LABEL, _LABEL_TEXT, 63
    elif resource.key == "services":
        rule, text, longest = _LABEL_1035, _LABEL_1035_TEXT, 63
    if len(name) > longest:
        yield Cause(
            "metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": must be no more than {longest} bytes'
        )
    if rule.fullmatch(name) is None:
        yield Cause("metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {text}')


def _is_qualified(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or len(prefix) > 253 or _SUBDOMAIN.fullmatch(prefix) is None):
        return False
    return len(name) <= 63 and _QUALIFIED.fullmatch(name) is not None


def _label_faults(key: str, value: Any) -> Iterator[Cause]:
    at = "metadata.labels"
    if not _is_qualified(key):
        yield Cause(at, "FieldValueInvalid", f'Invalid value: "{key}": {_KEY_TEXT}')
    if len(str(value)) > 63:
        yield Cause(at, "FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 bytes')
    if value and _QUALIFIED.fullmatch(str(value)) is None:
        yield Cause(at, "FieldValueInvalid", f'Invalid value: "{value}": {_VALUE_TEXT}')


# --- per kind ---


class Addresses:
    """Cluster IPs and node ports given to Services. The caller tells what is in use, also after a restart."""

    def __init__(self, service_range: str) -> None:
        network = ipaddress.ip_network(service_range)
        self._hosts = network.hosts()
        self.first = str(next(self._hosts))
        """The address of the API server's own Service."""
        self._free: list[str] = []
        self._used = {self.first}
        self._ports: set[int] = set()

    def take(self, service: Manifest) -> None:
        """Mark what *service* uses."""
        spec = service.get("spec", {})
        self._used.update(ip for ip in spec.get("clusterIPs") or () if ip != "None")
        self._ports.update(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))

    def release(self, service: Manifest) -> None:
        """Forget what a deleted *service* used."""
        spec = service.get("spec", {})
        for ip in spec.get("clusterIPs") or ():
            if ip != "None":
                self._used.discard(ip)
                self._free.append(ip)
        self._ports.difference_update(port["nodePort"] for port in spec.get("ports") or () if port.get("nodePort"))

    def cluster_ip(self) -> str:
        for ip in self._hosts:
            if str(ip) not in self._used:
                return str(ip)
        return next(ip for ip in self._free if ip not in self._used)

    def node_port(self) -> int:
        port = next(port for port in range(30000, 32768) if port not in self._ports)
        self._ports.add(port)
        return port


def fill_defaults(resource: Resource, manifest: Manifest, addresses: Addresses) -> None:
    """Write what the server fills in into *manifest* (changed in place)."""
    fill = _DEFAULTS.get(resource.key)
    if fill is not None:
        fill(manifest)
    if resource.key == "services":
        _allocate(manifest["spec"], addresses)


def carry_over(resource: Resource, old: Manifest, new: Manifest) -> None:
    """Put into *new* (changed in place) what was allocated to *old* and the writer left out."""
    if resource.key == "namespaces":
        new["spec"] = dict(old["spec"])
    if resource.key != "services":
        return
    before, spec = old["spec"], new["spec"] = old["spec"], new.get("spec") or {}
    if "ExternalName" in (before["type"], spec.get("type")):
        return
    if not spec.get("clusterIP"):
        spec["clusterIP"] = before["clusterIP"]
    if spec["clusterIP"] == before["clusterIP"]:
        for name in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            spec[name] = spec.get(name) or before[name]
    given = {(port["port"], port["protocol"]): port.get("nodePort") for port in before.get("ports") or ()}
    for port in spec.get("ports") or ():
        node_port = given.get((port.get("port"), port.get("protocol", "TCP")))
        if node_port and spec.get("type") in ("NodePort", "LoadBalancer"):
            port.setdefault("nodePort", node_port)


def initial_status(resource: Resource, manifest: Manifest) -> None:
    """Set the status that an object has right after its creation (*manifest* is changed in place)."""
    if resource.key == "nodes":  # a kubelet registers its node together with its status
        return
    if resource.has_status:
        manifest.pop("status", None)
    initial = _INITIAL_STATUS.get(resource.key)
    if initial is not None:
        manifest["status"] = dict(initial)


_INITIAL_STATUS: dict[str, Manifest] = {
    "namespaces": {"phase": "Active"},
    "pods": {"phase": "Pending", "qosClass": "BestEffort"},
    "services": {"loadBalancer": {}},
    "deployments.apps": {},
    "replicasets.apps": {"replicas": 0},
    "statefulsets.apps": {"availableReplicas": 0, "replicas": 0},
    "daemonsets.apps": {
        "currentNumberScheduled": 0,
        "desiredNumberScheduled": 0,
        "numberMisscheduled": 0,
        "numberReady": 0,
    },
    "jobs.batch": {},
}


def _namespace(manifest: Manifest) -> None:
    labels = manifest["metadata"].get("labels") or {}
    manifest["metadata"]["labels"] = {**labels, "kubernetes.io/metadata.name": manifest["metadata"]["name"]}
    spec = manifest["spec"] = manifest.get("spec") or {}
    spec.setdefault("finalizers", ["kubernetes"])


def _service(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    kind = spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports") or ():
        port.setdefault("protocol", "TCP")
        if "port" in port:
            port.setdefault("targetPort", port["port"])
    if kind == "ExternalName":
        for name in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
            spec.pop(name, None)
        return
    spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind in ("NodePort", "LoadBalancer"):
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)


def _allocate(spec: Manifest, addresses: Addresses) -> None:
    if spec["type"] == "ExternalName":
        return
    if not spec.get("clusterIP"):
        spec["clusterIP"] = (spec.get("clusterIPs") or [None])[0] or addresses.cluster_ip()
    spec.setdefault("clusterIPs", [spec["clusterIP"]])
    spec.setdefault("ipFamilies", ["IPv6" if ":" in spec["clusterIP"] else "IPv4"])
    spec.setdefault("ipFamilyPolicy", "SingleStack")
    given = spec["type"] == "NodePort" or (
        spec["type"] == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False
    )
    for port in spec.get("ports") or ():
        if given and not port.get("nodePort"):
            port["nodePort"] = addresses.node_port()
        if spec["type"] == "ClusterIP":
            port.pop("nodePort", None)


def _secret(manifest: Manifest) -> None:
    manifest.setdefault("type", "Opaque")
    plain = manifest.pop("stringData", None)
    if plain:
        encoded = {key: base64.b64encode(str(value).encode()).decode() for key, value in plain.items()}
        manifest["data"] = {**(manifest.get("data") or {}), **encoded}


def _pod_spec(spec: Manifest) -> None:
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("schedulerName", "default-scheduler")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("securityContext", {})
    if spec.get("serviceAccountName"):
        spec.setdefault("serviceAccount", spec["serviceAccountName"])
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        image = str(container.get("image", ""))
        tag = image.rpartition("/")[2].partition(":")[2]
        container.setdefault(
            "imagePullPolicy", "Always" if tag in ("", "latest") and "@" not in image else "IfNotPresent"
        )
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        container.setdefault("resources", {})
        for port in container.get("ports") or ():
            port.setdefault("protocol", "TCP")


def _pod(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    _pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("enableServiceLinks", True)


def _template(spec: Manifest) -> None:
    template = spec.get("template")
    if isinstance(template, dict):
        template.setdefault("metadata", {})
        template["spec"] = template.get("spec") or {}
        _pod_spec(template["spec"])


def _deployment(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    spec.setdefault("replicas", 1)
    spec.setdefault("progressDeadlineSeconds", 600)
    spec.setdefault("revisionHistoryLimit", 10)
    strategy = spec["strategy"] = spec.get("strategy") or {}
    if strategy.setdefault("type", "RollingUpdate") == "RollingUpdate":
        rolling = strategy["rollingUpdate"] = strategy.get("rollingUpdate") or {}
        rolling.setdefault("maxSurge", "25%")
        rolling.setdefault("maxUnavailable", "25%")
    _template(spec)


def _replica_set(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    spec.setdefault("replicas", 1)
    _template(spec)


def _stateful_set(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    spec.setdefault("replicas", 1)
    spec.setdefault("podManagementPolicy", "OrderedReady")
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})
    spec.setdefault("persistentVolumeClaimRetentionPolicy", {"whenDeleted": "Retain", "whenScaled": "Retain"})
    _template(spec)


def _daemon_set(manifest: Manifest) -> None:
    spec = manifest["spec"] = manifest.get("spec") or {}
    spec.setdefault("revisionHistoryLimit", 10)
    rolling = {"maxSurge": 0, "maxUnavailable": 1}
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    _template(spec)


def _endpoint_slice(manifest: Manifest) -> None:
    manifest.setdefault("endpoints", [])
    manifest["ports"] = manifest.get("ports") or []
    for port in manifest["ports"]:
        port.setdefault("protocol", "TCP")
        port.setdefault("name", "")


def _binding(manifest: Manifest) -> None:
    for subject in manifest.get("subjects") or ():
        if subject.get("kind") in ("User", "Group"):
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")
    reference = manifest.get("roleRef")
    if isinstance(reference, dict) and not reference.get("apiGroup"):
        reference["apiGroup"] = "rbac.authorization.k8s.io"


def _definition(manifest: Manifest) -> None:
    names = manifest.get("spec", {}).get("names") or {}
    if isinstance(names.get("kind"), str):
        names.setdefault("singular", names["kind"].lower())
        names.setdefault("listKind", f"{names['kind']}List")
    manifest["spec"].setdefault("conversion", {"strategy": "None"})


_DEFAULTS: dict[str, Callable[[Manifest], None]] = {
    "namespaces": _namespace,
    "services": _service,
    "secrets": _secret,
    "pods": _pod,
    "deployments.apps": _deployment,
    "replicasets.apps": _replica_set,
    "statefulsets.apps": _stateful_set,
    "daemonsets.apps": _daemon_set,
    "jobs.batch": lambda manifest: _template(manifest.setdefault("spec", {})),
    "endpointslices.discovery.k8s.io": _endpoint_slice,
    "rolebindings.rbac.authorization.k8s.io": _binding,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding,
    "customresourcedefinitions.apiextensions.k8s.io": _definition,
}


def faults(resource: Resource, manifest: Manifest, old: Manifest | None) -> Iterator[Cause]:
    """What is wrong with an object of a built-in kind, defaults already filled in; *old* is what it replaces."""
    check = _CHECKS.get(resource.key)
    if check is not None:
        yield from check(manifest, old)


def _required(at: str, text: str = "") -> Cause:
    return Cause(at, "FieldValueRequired", f"Required value{': ' if text else ''}{text}")


def _service_faults(service: Manifest, old: Manifest | None) -> Iterator[Cause]:
    spec = service["spec"]
    ports = spec.get("ports") or []
    if not ports and spec["type"] != "ExternalName" and spec.get("clusterIP") != "None":
        yield _required("spec.ports")
    seen: set[str] = set()
    for index, port in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = port.get("name", "")
        if not name and len(ports) > 1:
            yield _required(f"{at}.name")
        if name and name in seen:
            yield Cause(f"{at}.name", "FieldValueDuplicate", f'Duplicate value: "{name}"')
        seen.add(name)
        if not isinstance(port.get("port"), int) or not 1 <= port["port"] <= 65535:
            found = port.get("port", 0)
            yield Cause(
                f"{at}.port", "FieldValueInvalid", f"Invalid value: {found}: must be between 1 and 65535, inclusive"
            )
    before = (old or {}).get("spec", {})
    fixed = before.get("clusterIP") if before.get("type") != "ExternalName" else None
    if fixed and spec.get("clusterIP") != fixed and spec["type"] != "ExternalName":
        found = spec.get("clusterIP") or ""
        text = f'Invalid value: ["{found}"]: may not change once set'
        yield Cause("spec.clusterIPs[0]", "FieldValueInvalid", text)


def _workload_faults(workload: Manifest, old: Manifest | None) -> Iterator[Cause]:
    spec = workload["spec"]
    selector = spec.get("selector")
    template = spec.get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    if not selector:
        yield _required("spec.selector")
    elif any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        text = "`selector` does not match template `labels`"
        yield Cause("spec.template.metadata.labels", "FieldValueInvalid", f"Invalid value: {_json(labels)}: {text}")
    yield from _container_faults(template.get("spec") or {}, "spec.template.spec")
    if old is not None and selector != old["spec"].get("selector"):
        yield Cause("spec.selector", "FieldValueInvalid", f"Invalid value: {_json(selector)}: field is immutable")


def _pod_faults(pod: Manifest, old: Manifest | None) -> Iterator[Cause]:
    yield from _container_faults(pod["spec"], "spec")


def _container_faults(spec: Manifest, at: str) -> Iterator[Cause]:
    containers = spec.get("containers") or []
    if not containers:
        yield _required(f"{at}.containers")
    for index, container in enumerate(containers):
        for field in ("name", "image"):
            if not container.get(field):
                yield _required(f"{at}.containers[{index}].{field}")


def _secret_faults(secret: Manifest, old: Manifest | None) -> Iterator[Cause]:
    if old is not None and old.get("type") != secret.get("type"):
        yield Cause("type", "FieldValueInvalid", f'Invalid value: "{secret.get("type")}": field is immutable')
    if old is not None and old.get("immutable") and old.get("data") != secret.get("data"):
        yield Cause("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")
    needed = {"kubernetes.io/tls": ("tls.crt", "tls.key"), "kubernetes.io/dockerconfigjson": (".dockerconfigjson",)}
    for key in needed.get(secret.get("type", ""), ()):
        if key not in (secret.get("data") or {}):
            yield _required(f"data[{key}]")
    if sum(len(value) * 3 // 4 for value in (secret.get("data") or {}).values()) > MAX_DATA_BYTES:
        yield Cause("data", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA_BYTES} bytes")
    for key in secret.get("data") or ():
        if re.fullmatch(r"[-._a-zA-Z0-9]+", key) is None or len(key) > 253:
            yield _key_fault(key)


def _config_map_faults(config_map: Manifest, old: Manifest | None) -> Iterator[Cause]:
    plain = sum(len(value.encode()) for value in (config_map.get("data") or {}).values())
    binary = sum(len(value) * 3 // 4 for value in (config_map.get("binaryData") or {}).values())
    if plain + binary > MAX_DATA_BYTES:
        yield Cause("[]", "FieldValueTooLong", f"Too long: may not be more than {MAX_DATA_BYTES} bytes")
    for key in (*(config_map.get("data") or ()), *(config_map.get("binaryData") or ())):
        if re.fullmatch(r"[-._a-zA-Z0-9]+", key) is None or len(key) > 253:
            yield _key_fault(key)
    if old is not None and old.get("immutable") and old.get("data") != config_map.get("data"):
        yield Cause("data", "FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set")


def _key_fault(key: str) -> Cause:
    text = (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or "
        "'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
    )
    return Cause(f"data[{key}]", "FieldValueInvalid", f'Invalid value: "{key}": {text}')


def _slice_faults(item: Manifest, old: Manifest | None) -> Iterator[Cause]:
    kind = item.get("addressType")
    if not kind:
        yield _required("addressType")
    elif kind not in ("IPv4", "IPv6", "FQDN"):
        text = f'Unsupported value: "{kind}": supported values: "FQDN", "IPv4", "IPv6"'
        yield Cause("addressType", "FieldValueNotSupported", text)


def _definition_faults(definition: Manifest, old: Manifest | None) -> Iterator[Cause]:
    spec = definition.get("spec") or {}
    names = spec.get("names") or {}
    wanted = f"{names.get('plural')}.{spec.get('group')}"
    name = definition["metadata"]["name"]
    if name != wanted:
        text = f'Invalid value: "{name}": must be spec.names.plural+"."+spec.group'
        yield Cause("metadata.name", "FieldValueInvalid", text)
    for field in ("group", "scope", "versions"):
        if not spec.get(field):
            yield _required(f"spec.{field}")
    for field in ("plural", "kind"):
        if not names.get(field):
            yield _required(f"spec.names.{field}")
    versions = spec.get("versions") or []
    if versions and sum(1 for version in versions if version.get("storage")) != 1:
        text = "must have exactly one version marked as storage version"
        yield Cause("spec.versions", "FieldValueInvalid", f"Invalid value: {_json(versions)}: {text}")
    for index, version in enumerate(versions):
        schema = (version.get("schema") or {}).get("openAPIV3Schema")
        if schema is None:
            text = "schemas are required"
            yield _required(f"spec.versions[{index}].schema.openAPIV3Schema", text)
        else:
            yield from _structural_faults(schema, f"spec.versions[{index}].schema.openAPIV3Schema")


def _structural_faults(schema: Manifest, at: str) -> Iterator[Cause]:
    """Every node needs a type, unless it says what else it takes."""
    if not schema.get("type") and not (
        schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    ):
        empty = "must not be empty for specified object fields"
        yield _required(f"{at}.type", empty if ".properties[" in at else "must not be empty at the root")
    for name, below in (schema.get("properties") or {}).items():
        yield from _structural_faults(below, f"{at}.properties[{name}]")
    for word in ("items", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from _structural_faults(schema[word], f"{at}.{word}")


def _binding_faults(binding: Manifest, old: Manifest | None) -> Iterator[Cause]:
    reference = binding.get("roleRef") or {}
    if reference.get("kind") not in ("Role", "ClusterRole"):
        text = f'Unsupported value: "{reference.get("kind", "")}": supported values: "ClusterRole", "Role"'
        yield Cause("roleRef.kind", "FieldValueNotSupported", text)
    if not reference.get("name"):
        yield _required("roleRef.name")
    if old is not None and old.get("roleRef") != reference:
        yield Cause("roleRef", "FieldValueInvalid", f"Invalid value: {_json(reference)}: cannot change roleRef")


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


_CHECKS: dict[str, Callable[[Manifest, Manifest | None], Iterator[Cause]]] = {
    "services": _service_faults,
    "pods": _pod_faults,
    "secrets": _secret_faults,
    "configmaps": _config_map_faults,
    "deployments.apps": _workload_faults,
    "replicasets.apps": _workload_faults,
    "statefulsets.apps": _workload_faults,
    "daemonsets.apps": _workload_faults,
    "endpointslices.discovery.k8s.io": _slice_faults,
    "rolebindings.rbac.authorization.k8s.io": _binding_faults,
    "clusterrolebindings.rbac.authorization.k8s.io": _binding_faults,
    "customresourcedefinitions.apiextensions.k8s.io": _definition_faults,
}


def decode_fault(manifest: Manifest) -> str | None:
    """What cannot be read at all, such as data of a Secret that is not base64; None if all can."""
    for key, value in (manifest.get("data") or {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, TypeError, ValueError):
            return f'Secret in version "v1" cannot be handled as a Secret: illegal base64 data in data[{key}]'
    return None
