"""Objects that kubectl's own builders send: ``kubectl create configmap`` and its siblings encode them as protobuf.

Decodes the kinds that those commands make, from tables of field numbers; every answer is JSON. A field that the tables
lack is refused, not dropped. Source: the generated.proto files of k8s.io/api and k8s.io/apimachinery, release 1.36.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from functools import cache
from typing import Any

from isthmus.embedded.errors import ApiError

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\0"

# Number, name and type of each field. `*T` is a list, `{T}` a map from strings, `int?` a number whose zero is meant,
# `-` a field that clients fill with zeros and a server writes itself.
_MESSAGES = {
    "Unknown": "1 typeMeta TypeMeta, 2 raw bytes, 3 contentEncoding string, 4 contentType string",
    "TypeMeta": "1 apiVersion string, 2 kind string",
    "ObjectMeta": "1 name string, 2 generateName string, 3 namespace string, 4 selfLink string, 5 uid string, "
    "6 resourceVersion string, 7 generation -, 8 creationTimestamp -, 11 labels {string}, 12 annotations {string}, "
    "13 ownerReferences *OwnerReference, 14 finalizers *string, 17 managedFields -",
    "OwnerReference": "5 apiVersion string, 1 kind string, 3 name string, 4 uid string, 6 controller bool, "
    "7 blockOwnerDeletion bool",
    "LabelSelector": "1 matchLabels {string}, 2 matchExpressions *LabelSelectorRequirement",
    "LabelSelectorRequirement": "1 key string, 2 operator string, 3 values *string",
    "IntOrString": "1 type int, 2 intVal int, 3 strVal string",
    "DeleteOptions": "1 gracePeriodSeconds int?, 2 preconditions Preconditions, 3 orphanDependents bool, "
    "4 propagationPolicy string, 5 dryRun *string",
    "Preconditions": "1 uid string, 2 resourceVersion string",
    "ConfigMap": "1 metadata ObjectMeta, 2 data {string}, 3 binaryData {bytes}, 4 immutable bool",
    "Secret": "1 metadata ObjectMeta, 2 data {bytes}, 3 type string, 4 stringData {string}, 5 immutable bool",
    "Namespace": "1 metadata ObjectMeta, 2 spec NamespaceSpec, 3 status -",
    "NamespaceSpec": "1 finalizers *string",
    "ServiceAccount": "1 metadata ObjectMeta, 2 secrets *LocalObjectReference, "
    "3 imagePullSecrets *LocalObjectReference, 4 automountServiceAccountToken bool",
    "LocalObjectReference": "1 name string",
    "Service": "1 metadata ObjectMeta, 2 spec ServiceSpec, 3 status -",
    "ServiceSpec": "1 ports *ServicePort, 2 selector {string}, 3 clusterIP string, 18 clusterIPs *string, "
    "4 type string, 5 externalIPs *string, 7 sessionAffinity string, 8 loadBalancerIP string, 10 externalName string, "
    "11 externalTrafficPolicy string, 12 healthCheckNodePort int, 13 publishNotReadyAddresses bool, "
    "17 ipFamilyPolicy string, 19 ipFamilies *string",
    "ServicePort": "1 name string, 2 protocol string, 3 port int, 4 targetPort IntOrString, 5 nodePort int, "
    "6 appProtocol string",
    "PodTemplateSpec": "1 metadata ObjectMeta, 2 spec PodSpec",
    "PodSpec": "2 containers *Container, 3 restartPolicy string, 4 terminationGracePeriodSeconds int?, "
    "6 dnsPolicy string, 7 nodeSelector {string}, 8 serviceAccountName string, 9 serviceAccount string, "
    "10 nodeName string, 11 hostNetwork bool, 12 hostPID bool, 13 hostIPC bool, 16 hostname string, "
    "17 subdomain string, 19 schedulerName string, 20 initContainers *Container, 24 priorityClassName string",
    "Container": "1 name string, 2 image string, 3 command *string, 4 args *string, 5 workingDir string, "
    "6 ports *ContainerPort, 7 env *EnvVar, 13 terminationMessagePath string, 14 imagePullPolicy string, "
    "16 stdin bool, 17 stdinOnce bool, 18 tty bool, 20 terminationMessagePolicy string",
    "ContainerPort": "1 name string, 2 hostPort int, 3 containerPort int, 4 protocol string, 5 hostIP string",
    "EnvVar": "1 name string, 2 value string",
    "Deployment": "1 metadata ObjectMeta, 2 spec DeploymentSpec, 3 status -",
    "DeploymentSpec": "1 replicas int?, 2 selector LabelSelector, 3 template PodTemplateSpec, "
    "4 strategy DeploymentStrategy, 5 minReadySeconds int, 6 revisionHistoryLimit int?, 7 paused bool, "
    "9 progressDeadlineSeconds int?",
    "DeploymentStrategy": "1 type string",
    "Role": "1 metadata ObjectMeta, 2 rules *PolicyRule",
    "ClusterRole": "1 metadata ObjectMeta, 2 rules *PolicyRule, 3 aggregationRule AggregationRule",
    "AggregationRule": "1 clusterRoleSelectors *LabelSelector",
    "PolicyRule": "1 verbs *string, 2 apiGroups *string, 3 resources *string, 4 resourceNames *string, "
    "5 nonResourceURLs *string",
    "RoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "ClusterRoleBinding": "1 metadata ObjectMeta, 2 subjects *Subject, 3 roleRef RoleRef",
    "RoleRef": "1 apiGroup string, 2 kind string, 3 name string",
    "Subject": "1 kind string, 2 apiGroup string, 3 name string, 4 namespace string",
    "PodDisruptionBudget": "1 metadata ObjectMeta, 2 spec PodDisruptionBudgetSpec, 3 status -",
    "PodDisruptionBudgetSpec": "1 minAvailable IntOrString, 2 selector LabelSelector, 3 maxUnavailable IntOrString",
    "Eviction": "1 metadata ObjectMeta, 2 deleteOptions DeleteOptions",
    "SelfSubjectAccessReview": "1 metadata ObjectMeta, 2 spec SelfSubjectAccessReviewSpec, 3 status -",
    "SelfSubjectAccessReviewSpec": "1 resourceAttributes ResourceAttributes, "
    "2 nonResourceAttributes NonResourceAttributes",
    "ResourceAttributes": "1 namespace string, 2 verb string, 3 group string, 4 version string, 5 resource string, "
    "6 subresource string, 7 name string",
    "NonResourceAttributes": "1 path string, 2 verb string",
    "SelfSubjectReview": "1 metadata ObjectMeta, 2 status -",
}


def decode(body: bytes) -> dict[str, Any]:
    """The object in a protobuf request body. Raises ApiError 400 when it is broken, 415 when it isn't in the tables."""
    if not body.startswith(_MAGIC):
        raise ApiError(400, "BadRequest", "the body does not start with the Kubernetes protobuf prefix")
    try:
        envelope = _message("Unknown", body[len(_MAGIC) :])
        about = envelope.get("typeMeta", {})
        kind = about.get("kind", "")
        if kind not in _MESSAGES:
            raise ApiError(415, "UnsupportedMediaType", f"{kind} is not accepted as protobuf; send it as JSON")
        return {**about, **_message(kind, base64.b64decode(envelope.get("raw", "")))}
    except (IndexError, ValueError) as error:
        raise ApiError(400, "BadRequest", f"the protobuf body is broken: {error}") from error


@cache
def _fields(message: str) -> dict[int, tuple[str, str]]:
    rows = (row.split() for row in _MESSAGES[message].split(", "))
    return {int(number): (name, kind) for number, name, kind in rows}


def _message(message: str, data: bytes) -> Any:
    fields = _fields(message)
    result: dict[str, Any] = {}
    for number, value in _wire(data):
        if number not in fields:
            if value in (0, b""):
                continue
            text = f"field {number} of {message} is not accepted as protobuf; send the object as JSON"
            raise ApiError(415, "UnsupportedMediaType", text)
        name, kind = fields[number]
        if kind == "-":
            continue
        if kind.startswith("*"):
            result.setdefault(name, []).append(_value(kind[1:], value))
        elif kind.startswith("{"):
            key, entry = _entry(kind[1:-1], value)
            result.setdefault(name, {})[key] = entry
        else:
            found = _value(kind, value)
            if found not in ("", 0, {}) or kind == "int?":
                result[name] = found
    if message == "IntOrString":
        return result.get("strVal", "") if result.get("type") else result.get("intVal", 0)
    return result


def _entry(kind: str, value: Any) -> tuple[str, Any]:
    parts = dict(_wire(_bytes(value)))
    return _bytes(parts.get(1, b"")).decode(), _value(kind, parts.get(2, b""))


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError(f"a map entry does not come as {value!r}")
    return value


def _value(kind: str, value: Any) -> Any:
    if isinstance(value, int) is not (kind in ("bool", "int", "int?")):
        raise ValueError(f"a {kind} does not come as {value!r}")
    if kind == "string":
        return value.decode()
    if kind == "bytes":
        return base64.b64encode(value).decode()
    if kind == "bool":
        return bool(value)
    if kind in ("int", "int?"):
        return value - 2**64 if value >= 2**63 else value
    return _message(kind, value)


def _wire(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and raw value of each field: an integer or bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif tag & 7 == 2:
            length, at = _varint(data, at)
            if at + length > len(data):
                raise IndexError("a field is longer than its message")
            yield tag >> 3, data[at : at + length]
            at += length
        else:
            raise IndexError(f"wire type {tag & 7} is not used by Kubernetes")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
