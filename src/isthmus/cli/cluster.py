"""`meshctl cluster`: register, deregister, list."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.options import (
    DEFAULT_NAMESPACE,
    ClusterName,
    Kubeconfig,
    KubeContext,
    MgmtContext,
    MgmtKubeconfig,
    MgmtNamespace,
    Namespace,
    RemoteContext,
    RemoteNamespace,
    Settings,
)

if TYPE_CHECKING:
    pass

EDITIONS = ("enterprise", "community")
GONE = "name the cluster's context with --remote-context; --forget if the cluster itself is gone"


def register(
    names: ClusterName,
    relay_server_address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT", help="Where the agent reaches the management plane; the Service's address by default."
        ),
    ] = "",
    mgmt_context: MgmtContext = "",
    remote_context: RemoteContext = "",
    cluster_domain: Annotated[
        str, typer.Option(metavar="DOMAIN", help="Kubernetes DNS domain of the cluster.")
    ] = "cluster.local",
    kubeconfig: Kubeconfig = None,
    mgmt_kubeconfig: MgmtKubeconfig = None,
    mgmt_namespace: MgmtNamespace = DEFAULT_NAMESPACE,
    remote_namespace: RemoteNamespace = DEFAULT_NAMESPACE,
    values: Annotated[
        list[Path] | None,
        typer.Option(
            "--values",
            "--enterprise-agent-chart-values",
            metavar="FILE",
            help="Values for the agent's installation; may be repeated.",
        ),
    ] = None,
    settings: Settings = None,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for the agent.")] = 120.0,
) -> None:
    """Register a cluster with the management plane.

    Copies the relay's root certificate and the registration token to the cluster, installs the agent, creates the
    KubernetesCluster, waits until the agent has its own certificate, and removes the token again. The management plane
    gets no credentials of the cluster. Options may stand before or after the name.
    """
    from isthmus.cli import logs
    from isthmus.cli.clusters import connect, context_like, run
    from isthmus.cli.files import read_values_files
    from isthmus.cli.registration import Registration
    from isthmus.cli.registration import register as register_cluster

    name = cluster_named(names)
    wanted = Registration(
        name=name,
        cluster_domain=cluster_domain,
        relay_address=relay_server_address,
        mgmt_namespace=mgmt_namespace,
        remote_namespace=remote_namespace,
        values=tuple(read_values_files(values or ())),
        settings=tuple(settings or ()),
        seconds=timeout,
    )
    context = remote_context or context_like(kubeconfig, name, "name the cluster's context with --remote-context")
    logs.configure()

    async def work() -> None:
        async with (
            connect(mgmt_kubeconfig or kubeconfig, mgmt_context) as mgmt,
            connect(kubeconfig, context) as remote,
        ):
            await register_cluster(mgmt, remote, wanted)

    run(work())


def deregister(
    names: ClusterName,
    mgmt_context: MgmtContext = "",
    remote_context: RemoteContext = "",
    kubeconfig: Kubeconfig = None,
    mgmt_kubeconfig: MgmtKubeconfig = None,
    mgmt_namespace: MgmtNamespace = DEFAULT_NAMESPACE,
    remote_namespace: RemoteNamespace = DEFAULT_NAMESPACE,
    forget: Annotated[
        bool, typer.Option("--forget", help="The cluster is gone: take it out of the management plane only.")
    ] = False,
) -> None:
    """Take a cluster out of the management plane.

    Removes its registration, its agent, and the Istio objects that the agent wrote there. Says what it leaves: the
    namespace, custom resource definitions, Istio itself.
    """
    from isthmus.cli import logs
    from isthmus.cli.clusters import connect, context_like, run
    from isthmus.cli.registration import deregister as deregister_cluster

    name = cluster_named(names)
    logs.configure()

    async def work() -> None:
        async with connect(mgmt_kubeconfig or kubeconfig, mgmt_context) as mgmt:
            if forget:
                await deregister_cluster(mgmt, None, name, mgmt_namespace, remote_namespace)
                return
            context = remote_context or context_like(kubeconfig, name, GONE)
            async with connect(kubeconfig, context) as remote:
                await deregister_cluster(mgmt, remote, name, mgmt_namespace, remote_namespace)

    run(work())


def list_clusters(
    output: Annotated[
        Literal["table", "json", "yaml", "name"], typer.Option("-o", "--output", help="What to print.")
    ] = "table",
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """List the registered clusters."""
    from isthmus.cli.get import get

    get("kubernetesclusters", output=output, namespace=namespace, kubeconfig=kubeconfig, kubecontext=kubecontext)


def cluster_named(names: list[str]) -> str:
    """The cluster in ``NAME`` or ``enterprise NAME``. Raises a usage error for anything else."""
    match names:
        case ["enterprise", name] | [name] if name not in EDITIONS:
            return name
        case ["community", *_]:
            raise typer.BadParameter("there is no community edition here: leave the word out", param_hint="NAME")
        case ["enterprise"]:
            raise typer.BadParameter("the name of the cluster is missing", param_hint="NAME")
    raise typer.BadParameter(f"one name was expected, found {' '.join(names)}", param_hint="NAME")
