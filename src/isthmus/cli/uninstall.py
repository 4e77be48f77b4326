"""`meshctl uninstall`: the management plane goes, what users wrote stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import DEFAULT_NAMESPACE, Kubeconfig, KubeContext, Namespace

if TYPE_CHECKING:
    from isthmus.kube import KubeClient

SERVER = "enterprise-networking"


def uninstall(
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    dry_run: Annotated[bool, typer.Option("-d", "--dry-run", help="Only say what would be deleted.")] = False,
) -> None:
    """Remove the management plane.

    Says what it leaves: definitions, policies, Secrets, the namespace. With the Secrets a later installation serves
    the same agents again. What agents applied to their clusters stays until `meshctl cluster deregister`, so do that
    first.
    """
    from isthmus.cli import logs
    from isthmus.cli.clusters import connect, run

    logs.configure()

    async def work() -> None:
        async with connect(kubeconfig, kubecontext) as mgmt:
            await uninstall_management_plane(mgmt, namespace, dry_run=dry_run)

    run(work())


async def uninstall_management_plane(mgmt: KubeClient, namespace: str, *, dry_run: bool) -> None:
    """Remove what `meshctl install` made in *namespace* of *mgmt*. Raises `Failure` if there is nothing."""
    from isthmus.api.kubernetes_cluster import KubernetesCluster
    from isthmus.cli.applying import INSTALLED, delete_all, delete_deployment, find_all, kind_of
    from isthmus.cli.progress import say, waiting
    from isthmus.cli.registration import AGENT_KINDS
    from isthmus.install import COMPONENT, helm_release
    from isthmus.kube import NotFound
    from isthmus.model import kinds

    where = mgmt.connection.name
    labels = ",".join(f"{key}={value}" for key, value in {**INSTALLED, COMPONENT: SERVER}.items())
    found = await find_all(mgmt, (kinds.DEPLOYMENT, *AGENT_KINDS), labels)
    # Installations in other namespaces have the same labels; cluster-wide objects name theirs at the end.
    mine = [
        item
        for item in found
        if item["metadata"].get("namespace", namespace) == namespace
        and (kind_of(item).namespaced or item["metadata"]["name"].endswith(f"-{namespace}"))
    ]
    if not mine:
        raise Failure(
            f"there is no management plane in namespace {namespace} on {where}",
            "name the right one with --kubecontext and --namespace",
        )
    if name := next(filter(None, map(helm_release, mine)), ""):
        raise Failure(
            f"Helm installed the management plane on {where}, as release {name}",
            f"`helm uninstall {name} --namespace {namespace} --kube-context {where}`",
        )
    if dry_run:
        for item in mine:
            metadata = item["metadata"]
            say(f"would delete {item['kind']} {'/'.join(filter(None, (metadata.get('namespace'), metadata['name'])))}")
    else:
        try:
            with waiting(f"Stopping the server on {where}"):
                await delete_deployment(mgmt, namespace, SERVER, seconds=60)
        except TimeoutError as error:
            raise Failure(
                f"the server's pod on {where} does not end",
                f"`kubectl --context {where} -n {namespace} delete pod -l app={SERVER} --force`, then uninstall again",
            ) from error
        count = await delete_all(mgmt, [item for item in mine if kind_of(item) != kinds.DEPLOYMENT])
        say(f"Deleted the server's Services, accounts and rights ({count} objects)")
    try:
        registered = (await mgmt.list(KubernetesCluster.KIND, namespace)).items
    except NotFound:
        registered = ()
    leaves = "Would leave" if dry_run else "Left"
    say(f"{leaves} on {where}: namespace {namespace} with its Secrets, policies, discovered objects and Settings,")
    say("  and the custom resource definitions. To delete all of that, and with it every policy:")
    say(f"  kubectl --context {where} delete crd -l {labels}")
    say(f"  kubectl --context {where} delete namespace {namespace}")
    if registered:
        names = ", ".join(item["metadata"]["name"] for item in registered)
        say(f"{leaves} registered: {names}. Their agents keep what is applied and try to reach the server.")
