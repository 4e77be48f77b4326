"""The objects of an installation: what the charts render, and what `meshctl` adds to that.

It adds the namespace, which Helm's users make with ``--create-namespace``, and the relay's Secrets, which a chart makes
where no `meshctl` is.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.settings import Settings
from isthmus.install import chart
from isthmus.install.values import RELEASE, AgentValues, ManagementPlaneValues, Release, document
from isthmus.model import kinds
from isthmus.model.problem import Problem
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

PART_OF = "app.kubernetes.io/part-of"
"""Label of every object that an installation makes; its value is ``gloo-mesh``. Nothing else is ever uninstalled."""
COMPONENT = "app.kubernetes.io/component"
"""Label that tells the installations apart: ``enterprise-networking`` or ``enterprise-agent``."""
VERSION = "app.kubernetes.io/version"

SERVER = "enterprise-networking"
ROOT_SECRET = "relay-root-tls-secret"
DEFAULTS = ManagementPlaneValues()


def management_plane(
    values: ManagementPlaneValues = DEFAULTS,
    release: Release = RELEASE,
    secrets: Mapping[str, Mapping[str, bytes]] = MappingProxyType({}),
) -> tuple[Manifest, ...]:
    """Every object of the management plane, in the order in which to create them.

    *secrets* is the data of the relay's Secrets by name (see `secrets_to_make`); others exist or are the user's.
    """
    server = msgspec.structs.replace(values.enterprise_networking, self_signed=False)
    brought = msgspec.structs.replace(values, enterprise_networking=server)
    labels = {
        "app": SERVER,
        PART_OF: "gloo-mesh",
        COMPONENT: SERVER,
        VERSION: chart.app_version(chart.MANAGEMENT_PLANE),
    }
    made = [_secret(name, data, labels, release.namespace) for name, data in sorted(secrets.items())]
    rendered = chart.render(chart.MANAGEMENT_PLANE, document(brought), release)
    return (_namespace(release), *chart.in_order([*rendered, *made]))


def agent(values: AgentValues, release: Release = RELEASE) -> tuple[Manifest, ...]:
    """Every object of the agent, in the order in which to create them. Its root and token Secrets must exist before.

    *values* name the cluster and the server. Istio's namespaces stay untouched.
    """
    return (_namespace(release), *chart.render(chart.AGENT, document(values), release))


def secrets_to_make(values: ManagementPlaneValues, existing: Collection[str]) -> tuple[str, ...] | Problem:
    """Names of the relay's Secrets that an installation must make, given the *existing* ones in its namespace.

    All certificates are made together, or none: what one root signed is worthless with another. An existing Secret is
    never made again, since every agent trusts it.
    """
    server = values.enterprise_networking
    certificates = (ROOT_SECRET, server.relay_tls_secret.name, server.signing_tls_secret.name)
    token = server.token_secret.name
    if values.global_.insecure:
        return ()
    # The root's key may be kept elsewhere once it has signed; its certificate is in the other two as well.
    missing = [name for name in certificates[1:] if name not in existing]
    if not server.self_signed:
        if wanted := [name for name in (*certificates[1:], token) if name not in existing]:
            return _missing(wanted, "with selfSigned=false they must exist before the installation")
        return ()
    if missing and any(name in existing for name in certificates):
        return _missing(missing, "restore them, or delete the other relay certificates to make all anew")
    return (*(certificates if missing else ()), *(() if token in existing else (token,)))


def _missing(names: Collection[str], remedy: str) -> Problem:
    return Problem(SERVER, "SecretMissing", f"Secrets are missing: {', '.join(names)}; {remedy}")


def registration(cluster: str, cluster_domain: str = "cluster.local", namespace: str = "gloo-mesh") -> Manifest:
    """The KubernetesCluster that registers *cluster*; it lives on the management cluster."""
    metadata = {"name": cluster, "namespace": namespace}
    return _manifest(KubernetesCluster.KIND, metadata, spec={"clusterDomain": cluster_domain})


def created_once(item: Manifest) -> bool:
    """Whether an installation creates *item* only where it is missing and never overwrites it.

    Agents trust what is in the Secrets, and the Settings are the user's from then on.
    """
    return item["kind"] in (kinds.SECRET.kind, Settings.KIND.kind)


def helm_release(item: Manifest) -> str:
    """The release of which Helm keeps *item*; empty for an object that `meshctl` installed."""
    return str((item["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name", ""))


def _namespace(release: Release) -> Manifest:
    """The namespace; Istio must not inject into it. It belongs to no component, since it may hold both."""
    return _manifest(kinds.NAMESPACE, {"name": release.namespace, "labels": {"istio-injection": "disabled"}})


def _secret(name: str, data: Mapping[str, bytes], labels: Mapping[str, str], where: str) -> Manifest:
    encoded = {key: b64encode(value).decode() for key, value in sorted(data.items())}
    metadata = {"name": name, "namespace": where, "labels": dict(labels)}
    return _manifest(kinds.SECRET, metadata, type="Opaque", data=encoded)


def _manifest(kind: Kind, metadata: Manifest, **fields: Any) -> Manifest:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}
