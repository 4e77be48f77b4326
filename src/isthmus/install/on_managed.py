"""The manifests of an agent on a managed cluster."""

from __future__ import annotations

from isthmus.api.kinds import CERTIFICATES
from isthmus.install.parts import (
    Manifest,
    cluster_rights,
    definitions,
    deployment,
    labels_of,
    manifest,
    namespace,
    rights_in,
    service,
)
from isthmus.install.rbac import AGENT_GRANTS, AGENT_OWN_GRANTS
from isthmus.install.values import RELEASE, AgentTokenSecret, AgentValues, ClientSecret, Release, RootSecret
from isthmus.model import kinds

NAME = "enterprise-agent"


def agent(values: AgentValues, release: Release = RELEASE) -> tuple[Manifest, ...]:
    """Every object of the agent, in the order in which to create them. Its root and token Secrets must exist before.

    Istio's namespaces stay untouched.
    """
    labels = labels_of(NAME, release)
    workload, relay = values.enterprise_agent, values.relay
    secrets: tuple[tuple[str, ClientSecret | RootSecret | AgentTokenSecret], ...] = (
        ("client-cert", relay.client_cert_secret),
        ("root-cert", relay.root_tls_secret),
        ("identity-token", relay.token_secret),
    )
    where = {name: found.namespace or release.namespace for name, found in secrets}
    ports = {"grpc": workload.ports.grpc, "http": workload.ports.http, "metrics": values.default_metrics_port}
    args = [
        f"--cluster={relay.cluster}",
        f"--relay-address={relay.server_address}",
        f"--relay-authority={relay.authority}",
        *(
            arg
            for name, found in secrets
            for arg in (f"--relay-{name}-secret-name={found.name}", f"--relay-{name}-secret-namespace={where[name]}")
        ),
        f"--relay-identity-token-secret-key={relay.token_secret.key}",
        f"--grpc-port={workload.ports.grpc}",
        f"--http-port={workload.ports.http}",
        f"--metrics-port={values.default_metrics_port}",
        *(["--relay-insecure"] if values.global_.insecure or relay.insecure else []),
        *(["--verbose"] if values.verbose else []),
    ]
    return (
        namespace(release),
        *definitions(CERTIFICATES, labels),
        manifest(kinds.SERVICE_ACCOUNT, NAME, labels, release.namespace),
        *cluster_rights(NAME, release, labels, AGENT_GRANTS),
        *(
            item
            for place in sorted({release.namespace, *where.values()})
            for item in rights_in(place, NAME, release, labels, AGENT_OWN_GRANTS)
        ),
        service(
            NAME,
            release,
            labels,
            service_type="ClusterIP",
            ports=ports,
            overrides=workload.service_overrides,
        ),
        deployment(
            NAME,
            release,
            labels,
            image=workload.image,
            args=args,
            ports=ports,
            run_as_user=None if workload.floating_user_id else workload.run_as_user,
            resources=workload.resources,
            overrides=workload.deployment_overrides,
        ),
    )
