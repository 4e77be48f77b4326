"""`meshctl mesh`: restart."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus.cli.options import (
    DEFAULT_NAMESPACE,
    Kubeconfig,
    MgmtContext,
    MgmtKubeconfig,
    MgmtNamespace,
    RemoteContext,
)


def restart(
    mesh_name: Annotated[
        str,
        typer.Option(metavar="NAME", help="The mesh, such as istiod-istio-system-cluster1; see `meshctl get meshes`."),
    ],
    mgmt_context: MgmtContext = "",
    remote_context: RemoteContext = "",
    kubeconfig: Kubeconfig = None,
    mgmt_kubeconfig: MgmtKubeconfig = None,
    mgmt_namespace: MgmtNamespace = DEFAULT_NAMESPACE,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to watch; the agent goes on.")] = 900.0,
) -> None:
    """Restart the pods of a mesh that run with an older certificate.

    Has the agent do it, once: istiod, then gateways, then workloads, so that no service loses its last ready pod and
    disruption budgets are obeyed. Shows how far it is. Exit code 1 if something is left after the time, with what that
    is; the same command shows later how far it has come.
    """
    from isthmus.cli.clusters import connect, context_like, get_named, run
    from isthmus.cli.restarting import cluster_of, restart_mesh

    async def work() -> None:
        from isthmus.api.discovery import Mesh

        async with connect(mgmt_kubeconfig or kubeconfig, mgmt_context) as mgmt:
            await get_named(mgmt, Mesh.KIND, mgmt_namespace, mesh_name)
            cluster = await cluster_of(mgmt, mgmt_namespace, mesh_name)
            context = remote_context or context_like(
                kubeconfig, cluster, "name the cluster's context with --remote-context"
            )
            async with connect(kubeconfig, context) as remote:
                await restart_mesh(mgmt, remote, mgmt_namespace, mesh_name, timeout)

    run(work())
