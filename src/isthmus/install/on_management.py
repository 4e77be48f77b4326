"""The manifests of the management plane."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType

from isthmus.api.kinds import DISCOVERED, POLICIES, REGISTRATION
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.settings import Settings
from isthmus.install.parts import (
    Manifest,
    cluster_rights,
    definitions,
    deployment,
    labels_of,
    manifest,
    namespace,
    rights_in,
    secret,
    service,
)
from isthmus.install.rbac import SERVER_GRANTS, SERVER_OWN_GRANTS
from isthmus.install.values import RELEASE, ManagementPlaneValues, Release
from isthmus.model import kinds
from isthmus.model.problem import Problem

NAME = "enterprise-networking"
ADMIN_SERVICE = "enterprise-networking-admin"
LICENSE_SECRET = "gloo-mesh-enterprise-license"
ROOT_SECRET = "relay-root-tls-secret"
DEFAULTS = ManagementPlaneValues()
SERVER_TYPES = (*POLICIES, *DISCOVERED, *REGISTRATION)


def management_plane(
    values: ManagementPlaneValues = DEFAULTS,
    release: Release = RELEASE,
    secrets: Mapping[str, Mapping[str, bytes]] = MappingProxyType({}),
) -> tuple[Manifest, ...]:
    """Every object of the management plane, in the order in which to create them.

    *secrets* is the data of the relay's Secrets by name (see `secrets_to_make`); others exist or are the user's.
    """
    labels = labels_of(NAME, release)
    server = values.enterprise_networking
    workload = server.enterprise_networking
    made = {name: dict(data) for name, data in secrets.items()}
    if values.license_key:
        made[LICENSE_SECRET] = {"key": values.license_key.encode()}
    ports = {"grpc": workload.ports.grpc, "http": workload.ports.http, "metrics": server.default_metrics_port}
    args = [
        f"--grpc-port={workload.ports.grpc}",
        f"--http-port={workload.ports.http}",
        f"--metrics-port={server.default_metrics_port}",
        f"--relay-server-secret-name={server.relay_tls_secret.name}",
        f"--relay-signing-secret-name={server.signing_tls_secret.name}",
        f"--relay-identity-token-secret-name={server.token_secret.name}",
        f"--relay-identity-token-secret-key={server.token_secret.key}",
        *(["--relay-insecure"] if values.global_.insecure else []),
        *(["--verbose"] if server.verbose else []),
    ]
    return (
        namespace(release),
        *definitions(SERVER_TYPES, labels),
        manifest(kinds.SERVICE_ACCOUNT, NAME, labels, release.namespace),
        *cluster_rights(NAME, release, labels, SERVER_GRANTS),
        *rights_in(release.namespace, NAME, release, labels, SERVER_OWN_GRANTS),
        *(secret(name, data, labels, release.namespace) for name, data in sorted(made.items())),
        manifest(
            Settings.KIND,
            "settings",
            labels,
            release.namespace,
            spec={"mtls": {"istio": {"tlsMode": server.settings.mtls.istio.tls_mode}}},
        ),
        service(
            NAME,
            release,
            labels,
            service_type=workload.service_type,
            ports={"grpc": workload.ports.grpc},
            overrides=workload.service_overrides,
        ),
        # Apart, because neither port asks who is there and the first Service is reachable from outside.
        service(
            ADMIN_SERVICE,
            release,
            labels,
            selects=NAME,
            service_type="ClusterIP",
            ports={"http": ports["http"], "metrics": ports["metrics"]},
        ),
        deployment(
            NAME,
            release,
            labels,
            image=workload.image,
            args=args,
            ports=ports,
            run_as_user=None if values.floating_user_id else workload.run_as_user,
            resources=workload.resources,
            overrides=workload.deployment_overrides,
        ),
    )


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
    return Problem("enterprise-networking", "SecretMissing", f"Secrets are missing: {', '.join(names)}; {remedy}")


def registration(cluster: str, cluster_domain: str = "cluster.local", namespace: str = "gloo-mesh") -> Manifest:
    """The KubernetesCluster that registers *cluster*; it lives on the management cluster."""
    return manifest(KubernetesCluster.KIND, cluster, {}, namespace, spec={"clusterDomain": cluster_domain})
