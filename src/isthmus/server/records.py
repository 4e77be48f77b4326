"""Discovered objects between the relay, the engine and the management cluster.

Stored on the management cluster and read back, an object gives the bytes that its agent sent, so that a restart of the
server costs no resending.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateStatus
from isthmus.api.kinds import DISCOVERED
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.records import BadRecord

Manifest = dict[str, Any]
Discovered = Mesh | Workload | Destination
Certificate = IssuedCertificate | CertificateRequest
"""What an agent says of the certificates of its meshes."""

CLUSTER_LABEL = "cluster.discovery.mesh.gloo.solo.io"
"""Label of every discovered object; its value is the cluster. Source: reference, discovery."""
DISCOVERED_KINDS: tuple[Kind, ...] = tuple(t.KIND for t in DISCOVERED)

CERTIFICATE_KINDS: tuple[Kind, ...] = (IssuedCertificate.KIND, CertificateRequest.KIND)

_REPORTED: tuple[type[Resource], ...] = (*DISCOVERED, IssuedCertificate, CertificateRequest)
_TYPES = {(t.KIND.api_version, t.KIND.kind): t for t in _REPORTED}
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {t: msgspec.json.Decoder(t) for t in _REPORTED}
_CERTIFICATES = {(kind.api_version, kind.kind) for kind in CERTIFICATE_KINDS}


def read_key(record: str) -> ObjectKey:
    """The identity of the object that *record* names, of a kind that agents report. Raises `BadRecord`."""
    try:
        key = ObjectKey.parse(record)
    except ValueError as error:
        raise BadRecord("the key is not that of an object") from error
    if (key.api_version, key.kind) not in _TYPES or not key.name:
        raise BadRecord(f"{key.api_version} {key.kind} is not a kind that agents report")
    return key


def read_discovered(key: ObjectKey, payload: bytes, cluster: str, namespace: str) -> Discovered:
    """The object that *cluster*'s agent reports at *key*.

    Raises `BadRecord` when it is not readable, or speaks for another cluster or namespace.
    """
    try:
        found: Discovered = _DECODERS[_TYPES[key.api_version, key.kind]].decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not readable: {error}") from error
    if found.key != key or key.namespace != namespace:
        raise BadRecord(f"the object is {found.metadata.namespace}/{found.metadata.name}, not what its key says")
    if speaks_for(found) != cluster or found.metadata.labels.get(CLUSTER_LABEL) != cluster:
        raise BadRecord(f"the object speaks for cluster {speaks_for(found)!r}")
    return found


def is_certificate(key: ObjectKey) -> bool:
    """Whether the object at *key* is one of those that `read_certificate` reads."""
    return (key.api_version, key.kind) in _CERTIFICATES


def read_certificate(key: ObjectKey, payload: bytes) -> Certificate:
    """What an agent says of a certificate at *key*. Raises `BadRecord`."""
    try:
        found: Certificate = _DECODERS[_TYPES[key.api_version, key.kind]].decode(payload)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BadRecord(f"not readable: {error}") from error
    if found.key != key:
        raise BadRecord(f"the object is {found.metadata.namespace}/{found.metadata.name}, not what its key says")
    return found


def with_certificate(mesh: Mesh, status: IssuedCertificateStatus | None) -> Mesh:
    """*mesh* with *status* as that of its certificate. Agents report the two apart, users see them together."""
    if mesh.spec.issued_certificate_status == status:
        return mesh
    return msgspec.structs.replace(mesh, spec=msgspec.structs.replace(mesh.spec, issued_certificate_status=status))


def speaks_for(found: Discovered) -> str:
    """The cluster that a discovered object says it was found in; empty for what users write."""
    match found:
        case Mesh():
            return found.spec.istio.installation.cluster if found.spec.istio else ""
        case Workload():
            return found.spec.kubernetes.controller.cluster_name if found.spec.kubernetes else ""
        case Destination():
            return found.spec.kube_service.ref.cluster_name if found.spec.kube_service else ""


def from_stored(kind: Kind, manifest: Manifest) -> Discovered | None:
    """The discovered object that *manifest* of the management cluster holds, as its agent reported it.

    None for what no agent reported, or what can't be read any more: then it is reported again.
    """
    metadata = manifest["metadata"]
    labels = metadata.get("labels") or {}
    if CLUSTER_LABEL not in labels:
        return None
    try:
        found: Any = msgspec.convert({"spec": manifest.get("spec") or {}}, _TYPES[kind.api_version, kind.kind])
    except msgspec.ValidationError:
        return None
    stored: Discovered = msgspec.structs.replace(
        found,
        metadata=ObjectMeta(
            name=metadata["name"],
            namespace=metadata.get("namespace", ""),
            labels=labels,
            annotations=metadata.get("annotations") or {},
        ),
    )
    return stored
