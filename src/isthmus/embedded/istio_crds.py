"""CustomResourceDefinitions of Istio's kinds and of the others that the walk-through applies.

Names, short names, versions and printer columns are Istio's; the schemas are open, because Istio's own validation is
not this server's business. Source: https://github.com/istio/api, kubernetes/customresourcedefinitions.gen.yaml, release
1.30, and for NetworkAttachmentDefinition the k8s.cni.cncf.io de-facto standard.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.istio import kinds
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

NETWORK_ATTACHMENT_DEFINITION = Kind(
    "k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition", "network-attachment-definitions"
)

_AGE = ("Age", ".metadata.creationTimestamp", "Time of creation.")
_ALL = ("v1", "v1alpha3", "v1beta1")


class _Definition(msgspec.Struct, frozen=True):
    """One row: a kind, the versions that Istio serves, its short names and columns (header, path, description)."""

    kind: Kind
    versions: tuple[str, ...]
    short_names: tuple[str, ...] = ()
    columns: tuple[tuple[str, str, str], ...] = ()
    storage: str = ""
    """The stored version if it isn't the first."""
    needs_spec: bool = False


_TABLE = (
    _Definition(
        kinds.SERVICE_ENTRY,
        _ALL,
        ("se",),
        (
            ("Hosts", ".spec.hosts", "The hosts of the entry."),
            ("Location", ".spec.location", "Whether the service is part of the mesh (MESH_INTERNAL) or outside."),
            ("Resolution", ".spec.resolution", "How the service's endpoints are found: NONE, STATIC or DNS."),
            _AGE,
        ),
        needs_spec=True,
    ),
    _Definition(
        kinds.DESTINATION_RULE, _ALL, ("dr",), (("Host", ".spec.host", "The service that the rule is for."), _AGE)
    ),
    _Definition(
        kinds.VIRTUAL_SERVICE,
        _ALL,
        ("vs",),
        (
            ("Gateways", ".spec.gateways", "The gateways and sidecars that apply these routes."),
            ("Hosts", ".spec.hosts", "The destinations of the traffic."),
            _AGE,
        ),
    ),
    _Definition(kinds.GATEWAY, _ALL, ("gw",)),
    _Definition(kinds.SIDECAR, _ALL),
    _Definition(
        kinds.WORKLOAD_ENTRY,
        _ALL,
        ("we",),
        (_AGE, ("Address", ".spec.address", "Address of the network endpoint.")),
        needs_spec=True,
    ),
    _Definition(kinds.WORKLOAD_GROUP, _ALL, ("wg",), (_AGE,), needs_spec=True),
    _Definition(kinds.PROXY_CONFIG, ("v1beta1",)),
    _Definition(kinds.ENVOY_FILTER, ("v1alpha3",)),
    _Definition(
        kinds.AUTHORIZATION_POLICY,
        ("v1", "v1beta1"),
        ("ap",),
        (("Action", ".spec.action", "What the policy does with a request."), _AGE),
    ),
    _Definition(
        kinds.PEER_AUTHENTICATION,
        ("v1", "v1beta1"),
        ("pa",),
        (("Mode", ".spec.mtls.mode", "How mutual TLS is used."), _AGE),
    ),
    _Definition(kinds.REQUEST_AUTHENTICATION, ("v1", "v1beta1"), ("ra",)),
    _Definition(kinds.TELEMETRY, ("v1", "v1alpha1"), ("telemetry",), (_AGE,), storage="v1alpha1"),
    _Definition(kinds.WASM_PLUGIN, ("v1alpha1",), (), (_AGE,), needs_spec=True),
    _Definition(
        kinds.ISTIO_OPERATOR,
        ("v1alpha1",),
        ("iop", "io"),
        (
            ("Revision", ".spec.revision", "Revision of the control plane."),
            ("Status", ".status.status", "State of the installation."),
            _AGE,
        ),
    ),
    _Definition(NETWORK_ATTACHMENT_DEFINITION, ("v1",), ("net-attach-def",)),
)


def istio_definitions(*, v1: bool = True) -> list[Manifest]:
    """The CustomResourceDefinitions, ready to apply.

    Without *v1* as Istio has them before 1.22, when its kinds had no version v1 yet, so that kubectl prefers v1beta1.
    """
    return [_manifest(row if v1 else _before_v1(row)) for row in _TABLE]


def _before_v1(row: _Definition) -> _Definition:
    older = tuple(version for version in row.versions if version != "v1")
    return msgspec.structs.replace(row, versions=older) if older else row


def _manifest(row: _Definition) -> Manifest:
    kind = row.kind
    lower = kind.kind.lower() if kind != NETWORK_ATTACHMENT_DEFINITION else "network-attachment-definition"
    names: Manifest = {"plural": kind.plural, "singular": lower, "kind": kind.kind, "listKind": f"{kind.kind}List"}
    if row.short_names:
        names["shortNames"] = list(row.short_names)
    if kind.group.endswith("istio.io"):
        names["categories"] = ["istio-io", kind.group.replace(".", "-")]
    stored = row.storage or row.versions[0]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{kind.group}"},
        "spec": {
            "group": kind.group,
            "scope": "Namespaced",
            "names": names,
            "versions": [_version(row, version, stored == version) for version in row.versions],
        },
    }


def _version(row: _Definition, name: str, storage: bool) -> Manifest:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema: Manifest = {"type": "object", "properties": {"spec": anything, "status": anything}}
    if row.needs_spec:
        schema["required"] = ["spec"]
    version: Manifest = {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}
    if row.kind != NETWORK_ATTACHMENT_DEFINITION:
        version["subresources"] = {"status": {}}
    if row.columns:
        version["additionalPrinterColumns"] = [
            {
                "name": header,
                "type": "date" if path == _AGE[1] else "string",
                "jsonPath": path,
                "description": description,
            }
            for header, path, description in row.columns
        ]
    return version
