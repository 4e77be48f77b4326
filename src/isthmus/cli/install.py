"""`meshctl install`: the management plane on one cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import DEFAULT_NAMESPACE, Kubeconfig, KubeContext, Namespace, Settings

if TYPE_CHECKING:
    from isthmus.install import ManagementPlaneValues, Release
    from isthmus.kube import KubeClient

Manifest = dict[str, Any]


def install(
    edition: Annotated[
        str, typer.Argument(metavar="[enterprise]", help="Accepted, since users write it; changes nothing.")
    ] = "enterprise",
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
    namespace: Namespace = DEFAULT_NAMESPACE,
    settings: Settings = None,
    values: Annotated[
        list[Path] | None,
        typer.Option(
            "--values", "--chart-values-file", metavar="FILE", help="Values of the installation; may be repeated."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("-d", "--dry-run", help="Print the manifests, without the Secrets that would be made.")
    ] = False,
    register: Annotated[bool, typer.Option("-r", "--register", help="Register this cluster as well.")] = False,
    cluster_name: Annotated[str, typer.Option(metavar="NAME", help="With --register: its name.")] = "mgmt-cluster",
    cluster_domain: Annotated[
        str, typer.Option(metavar="DOMAIN", help="With --register: its Kubernetes DNS domain.")
    ] = "cluster.local",
    license_key: Annotated[str, typer.Option("--license", metavar="KEY", help="Accepted and kept; not needed.")] = "",
    skip_ui: Annotated[bool, typer.Option("--skip-ui", help="Accepted; changes nothing.")] = False,
    include_rbac: Annotated[bool, typer.Option("--include-rbac", help="Accepted; changes nothing.")] = False,
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait for it to run.")] = 300.0,
) -> None:
    """Install the management plane, or update it.

    Makes the relay's certificates and its registration token if there are none, and waits until the server runs.
    """
    from isthmus.cli import logs
    from isthmus.cli.clusters import connect, run
    from isthmus.cli.files import read_values_files
    from isthmus.cli.registration import Registration
    from isthmus.cli.registration import register as register_cluster
    from isthmus.install import ManagementPlaneValues, Release, management_plane, read_values
    from isthmus.model.problem import Problem

    if edition != "enterprise":
        raise typer.BadParameter(f"there is no edition {edition!r}: leave the word out", param_hint="[enterprise]")
    documents = read_values_files(values or ())
    if license_key:
        documents.append({"licenseKey": license_key})
    chosen = read_values(ManagementPlaneValues, documents, settings or ())
    if isinstance(chosen, Problem):
        raise Failure(str(chosen), "correct the value in --set or in the values file")
    release = Release(namespace=namespace)
    if dry_run:
        from isthmus.cli.output import print_yaml

        print_yaml(management_plane(chosen, release))
        return
    logs.configure()

    async def work() -> None:
        async with connect(kubeconfig, kubecontext) as mgmt:
            await install_management_plane(mgmt, chosen, release, timeout)
            if register:
                port = chosen.enterprise_networking.enterprise_networking.ports.grpc
                address = f"enterprise-networking.{namespace}.svc.{cluster_domain}:{port}"
                wanted = Registration(
                    name=cluster_name,
                    cluster_domain=cluster_domain,
                    relay_address=address,
                    mgmt_namespace=namespace,
                    remote_namespace=namespace,
                )
                await register_cluster(mgmt, mgmt, wanted)

    run(work())


async def install_management_plane(
    mgmt: KubeClient, values: ManagementPlaneValues, release: Release, seconds: float
) -> None:
    """Install on *mgmt* and wait until it runs. Raises `Failure`."""
    from isthmus import __version__
    from isthmus.cli.applying import apply_all, wait_until_available
    from isthmus.cli.progress import say, waiting
    from isthmus.install import management_plane

    where = mgmt.connection.name
    await _not_of_helm(mgmt, release)
    secrets = await make_secrets(mgmt, values, release)
    say(f"Installing the management plane {__version__} on {where}, namespace {release.namespace}")
    if secrets:
        say(f"Made Secrets: {', '.join(sorted(secrets))}")
    else:
        say("Kept the relay's certificates and token")
    await apply_all(mgmt, management_plane(values, release, secrets))
    with waiting("Waiting until the server is ready"):
        await wait_until_available(mgmt, release.namespace, "enterprise-networking", seconds=seconds)
    say(f"The management plane runs on {where}")


async def _not_of_helm(mgmt: KubeClient, release: Release) -> None:
    """Raise `Failure` where Helm keeps a record that would no longer be true."""
    from isthmus.install import helm_release
    from isthmus.kube import NotFound
    from isthmus.model import kinds

    try:
        present = await mgmt.get(kinds.DEPLOYMENT, release.namespace, "enterprise-networking")
    except NotFound:
        return
    if name := helm_release(present):
        raise Failure(
            f"Helm installed the management plane on {mgmt.connection.name}, as release {name}",
            f"`helm upgrade {name} charts/isthmus --namespace {release.namespace}`, or first `helm uninstall {name}`, "
            "which leaves Secrets and policies",
        )


async def make_secrets(
    mgmt: KubeClient, values: ManagementPlaneValues, release: Release
) -> dict[str, dict[str, bytes]]:
    """The data of the relay's Secrets that do not exist yet. Raises `Failure` if some exist and others are missing."""
    import secrets as randomness
    from datetime import UTC, datetime

    from isthmus.install import secrets_to_make
    from isthmus.model import kinds
    from isthmus.model.problem import Problem
    from isthmus.pki import RELAY_ROOT_SECRET, RELAY_SERVER_SECRET, RELAY_SIGNING_SECRET, make_relay_secrets

    server = values.enterprise_networking
    present = (await mgmt.list(kinds.SECRET, release.namespace)).items
    wanted = secrets_to_make(values, {item["metadata"]["name"] for item in present})
    if isinstance(wanted, Problem):
        raise Failure(str(wanted))
    names = {
        RELAY_ROOT_SECRET: RELAY_ROOT_SECRET,
        RELAY_SERVER_SECRET: server.relay_tls_secret.name,
        RELAY_SIGNING_SECRET: server.signing_tls_secret.name,
    }
    made: dict[str, dict[str, bytes]] = {}
    if server.token_secret.name in wanted:
        made[server.token_secret.name] = {server.token_secret.key: randomness.token_urlsafe(32).encode()}
    if set(wanted) - set(made):
        certificates = make_relay_secrets(
            now=datetime.now(UTC),
            serials=iter(lambda: randomness.randbits(127) + 1, 0),
            namespace=release.namespace,
            additional_sans=server.relay.additional_sans,
            root_common_name=server.relay.root_common_name,
            server_common_name=server.relay.server_common_name,
        )
        made |= {names[name]: data for name, data in certificates.items()}
    return made
