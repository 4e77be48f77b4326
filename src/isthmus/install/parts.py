"""The pieces that both installations are made of."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.api import crds
from isthmus.api.base import Resource
from isthmus.api.settings import Settings
from isthmus.install.rbac import Grant, rules
from isthmus.install.values import Free, Image, Release, merge
from isthmus.model import kinds
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

PART_OF = "app.kubernetes.io/part-of"
"""Label of every object that an installation makes; its value is ``gloo-mesh``. Nothing else is ever uninstalled."""
COMPONENT = "app.kubernetes.io/component"
"""Label that tells the installations apart: ``enterprise-networking`` or ``enterprise-agent``."""
VERSION = "app.kubernetes.io/version"

# The data plane does not pass these pods' traffic, and a sidecar would break the relay's own mutual TLS.
NO_SIDECAR = {"sidecar.istio.io/inject": "false"}


def manifest(kind: Kind, name: str, labels: Mapping[str, str], namespace: str = "", **fields: Any) -> Manifest:
    """An object of *kind* with *fields* at its top level."""
    metadata: Manifest = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = dict(labels)
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}


def labels_of(component: str, release: Release) -> dict[str, str]:
    """Labels of every object of *component*, apart from what other objects share."""
    return {"app": component, PART_OF: "gloo-mesh", COMPONENT: component, VERSION: release.version}


def namespace(release: Release) -> Manifest:
    """The namespace; Istio must not inject into it. It belongs to no component, since it may hold both."""
    return manifest(kinds.NAMESPACE, release.namespace, {"istio-injection": "disabled"})


def definitions(types: Iterable[type[Resource]], labels: Mapping[str, str]) -> list[Manifest]:
    """The CustomResourceDefinitions of *types*, in their order, with their own labels before *labels*."""
    found = crds.manifests(types)
    for definition in found:
        metadata = definition["metadata"]
        metadata["labels"] = {**labels, **metadata.get("labels", {})}
    return list(found)


def cluster_rights(
    account: str, release: Release, labels: Mapping[str, str], grants: Iterable[Grant]
) -> list[Manifest]:
    """ClusterRole and binding that give *account* the *grants* on the whole cluster.

    Their names hold the namespace, because two installations on one cluster may not share them.
    """
    name = f"{account}-{release.namespace}"
    return [
        manifest(kinds.CLUSTER_ROLE, name, labels, rules=rules(grants)),
        manifest(
            kinds.CLUSTER_ROLE_BINDING,
            name,
            labels,
            roleRef={"apiGroup": kinds.CLUSTER_ROLE.group, "kind": "ClusterRole", "name": name},
            subjects=[_subject(account, release)],
        ),
    ]


def rights_in(
    where: str, account: str, release: Release, labels: Mapping[str, str], grants: Iterable[Grant]
) -> list[Manifest]:
    """Role and binding that give *account* the *grants* in namespace *where*."""
    name = account if where == release.namespace else f"{account}-{release.namespace}"
    return [
        manifest(kinds.ROLE, name, labels, where, rules=rules(grants)),
        manifest(
            kinds.ROLE_BINDING,
            name,
            labels,
            where,
            roleRef={"apiGroup": kinds.ROLE.group, "kind": "Role", "name": name},
            subjects=[_subject(account, release)],
        ),
    ]


def deployment(
    name: str,
    release: Release,
    labels: Mapping[str, str],
    *,
    image: Image,
    args: Iterable[str],
    ports: Mapping[str, int],
    run_as_user: int | None,
    resources: Free,
    overrides: Free,
) -> Manifest:
    """A Deployment of one pod that runs *image* with *args* and is ready when ``/ready`` on its metrics port says so.

    It is replaced, never doubled: two servers would both write the discovered objects, two agents both apply.
    *run_as_user* None leaves the user id to the platform.
    """
    security: Manifest = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if run_as_user is not None:
        security["runAsUser"] = run_as_user
    container: Manifest = {
        "name": name,
        "image": f"{image.repository}:{image.tag or release.version}",
        "imagePullPolicy": image.pull_policy,
        "args": list(args),
        "env": [
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "metrics"}, "periodSeconds": 2},
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "metrics"},
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
    }
    made = manifest(
        kinds.DEPLOYMENT,
        name,
        labels,
        release.namespace,
        spec={
            "replicas": 1,
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {**labels, **NO_SIDECAR}, "annotations": dict(NO_SIDECAR)},
                "spec": {
                    "serviceAccountName": name,
                    "securityContext": security,
                    "terminationGracePeriodSeconds": 10,
                    "containers": [container],
                },
            },
        },
    )
    return merge(made, overrides)


def service(
    name: str,
    release: Release,
    labels: Mapping[str, str],
    *,
    service_type: str,
    ports: Mapping[str, int],
    selects: str = "",
    overrides: Free | None = None,
) -> Manifest:
    """The Service in front of Deployment *selects*, by default the one of the same name; ports keep their numbers."""
    made = manifest(
        kinds.SERVICE,
        name,
        labels,
        release.namespace,
        spec={
            "type": service_type,
            "selector": {"app": selects or name},
            "ports": [
                {"name": port, "port": number, "targetPort": port, "protocol": "TCP"} for port, number in ports.items()
            ],
        },
    )
    return merge(made, overrides or {})


def secret(name: str, data: Mapping[str, bytes], labels: Mapping[str, str], where: str) -> Manifest:
    """An opaque Secret with *data*."""
    encoded = {key: b64encode(value).decode() for key, value in sorted(data.items())}
    return manifest(kinds.SECRET, name, labels, where, type="Opaque", data=encoded)


def created_once(item: Manifest) -> bool:
    """Whether an installation creates *item* only where it is missing and never overwrites it.

    Agents trust what is in the Secrets, and the Settings are the user's from then on.
    """
    return item["kind"] in (kinds.SECRET.kind, Settings.KIND.kind)


def _subject(account: str, release: Release) -> Manifest:
    return {"kind": "ServiceAccount", "name": account, "namespace": release.namespace}
