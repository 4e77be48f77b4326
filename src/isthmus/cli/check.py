"""`meshctl check`: fetch what `checks` looks at, and show what it says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isthmus.cli.options import DEFAULT_NAMESPACE, Kubeconfig, KubeContext, Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isthmus.api.base import Resource
    from isthmus.cli.checks import Check, Observed
    from isthmus.kube import KubeClient
    from isthmus.model.ref import Kind

SYMBOLS = {"ok": ("✔", "green"), "warning": ("!", "yellow"), "error": ("✘", "red")}


def check(
    cluster_contexts: Annotated[
        list[str] | None,
        typer.Option(
            "--cluster-context",
            metavar="NAME=CONTEXT",
            help="Context of a registered cluster; the one that is called like it by default. May be repeated.",
        ),
    ] = None,
    output: Annotated[Literal["text", "json"], typer.Option("-o", "--output", help="What to print.")] = "text",
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """Check every precondition of the fleet.

    Looks at the management cluster, and at every registered cluster that a context of the kubeconfig leads to: API
    servers, definitions, the relay and its certificates, agents, policies, roots and certificates of meshes and what
    workloads present, Istio's settings, on OpenShift the security contexts. Says of each what to do. Exit code 1 if one
    of them is an error.
    """
    from datetime import UTC, datetime

    from isthmus.cli.check_trust import check_trust
    from isthmus.cli.checks import check_fleet
    from isthmus.cli.clusters import contexts_of, run

    given = _pairs(cluster_contexts or ())

    async def look() -> tuple[Observed, dict[str, Observed | None]]:
        from isthmus.api.kubernetes_cluster import KubernetesCluster

        contexts = contexts_of(kubeconfig)
        management = await observe(kubeconfig, kubecontext, namespace, management=True)
        names = [item["metadata"]["name"] for item in management.all(KubernetesCluster.KIND, namespace)]
        clusters: dict[str, Observed | None] = {}
        for name in sorted({*names, *given}):
            context = given.get(name, name)
            known = context in contexts or name in given
            clusters[name] = await observe(kubeconfig, context, namespace, management=False) if known else None
        return management, clusters

    (management, clusters), now = run(look()), datetime.now(UTC)
    checks = by_cluster((*check_fleet(management, clusters, now), *check_trust(management, clusters, now)))
    if output == "json":
        import msgspec

        from isthmus.cli.output import print_json

        print_json([msgspec.to_builtins(found) for found in checks])
    else:
        print_checks(checks)
    if any(found.state == "error" for found in checks):
        raise typer.Exit(1)


def by_cluster(checks: Iterable[Check]) -> tuple[Check, ...]:
    """*checks* with those of one cluster together, clusters in the order in which they are named first."""
    groups: dict[str, list[Check]] = {}
    for found in checks:
        groups.setdefault(found.cluster, []).append(found)
    return tuple(found for group in groups.values() for found in group)


def _pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, found, context = text.partition("=")
        if not (name and found and context):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=CONTEXT", param_hint="--cluster-context")
        pairs[name] = context
    return pairs


async def observe(kubeconfig: Path | None, context: str, namespace: str, *, management: bool) -> Observed:
    """What the checks need of the cluster behind *context*."""
    from isthmus.cli.checks import Observed
    from isthmus.cli.clusters import connect
    from isthmus.kube import KubeError

    try:
        async with connect(kubeconfig, context) as cluster:
            return await _observe(cluster, namespace, management=management)
    except KubeError as error:
        return Observed(context=context or "the current context", namespace=namespace, trouble=str(error))


async def _observe(cluster: KubeClient, namespace: str, *, management: bool) -> Observed:
    import asyncio

    from isthmus.cli.checks import OPENSHIFT_KINDS, SECURITY_CONTEXT, Observed, istio_namespaces
    from isthmus.kube import Forbidden, NotFound
    from isthmus.model import kinds

    version = await cluster.version()
    served = frozenset(await cluster.kinds())
    refused: dict[Kind, str] = {}
    objects: dict[Kind, tuple[dict[str, Any], ...]] = {}

    async def fetch(kind: Kind, where: str) -> None:
        try:
            objects[kind] = (*objects.get(kind, ()), *(await cluster.list(kind, where)).items)
        except NotFound:
            return
        except Forbidden as error:
            refused[kind] = str(error)

    wanted = _wanted(namespace, management=management)
    if not management and SECURITY_CONTEXT in served:
        wanted += [(kind, "") for kind in OPENSHIFT_KINDS]
    await asyncio.gather(*(fetch(kind, where) for kind, where in wanted if kind in served))
    if management:
        objects[kinds.SECRET] = (*objects.get(kinds.SECRET, ()), *await _roots(cluster, namespace, objects, refused))
    else:
        # Not those of the whole cluster: they may be many, and large.
        deployments = objects.get(kinds.DEPLOYMENT, ())
        await asyncio.gather(*(fetch(kinds.CONFIG_MAP, where) for where in istio_namespaces(deployments)))
    name = cluster.connection.name
    return Observed(name, namespace, version=version, served=served, objects=objects, refused=refused)


async def _roots(
    cluster: KubeClient, namespace: str, objects: Mapping[Kind, Iterable[dict[str, Any]]], refused: dict[Kind, str]
) -> list[dict[str, Any]]:
    """The Secrets of roots that are not in *namespace*."""
    from isthmus.api.parse import parse
    from isthmus.api.virtual_mesh import VirtualMesh
    from isthmus.kube import Forbidden, NotFound
    from isthmus.model.kinds import SECRET
    from isthmus.translate.trust.wanted import Wanted, wanted_root

    found = []
    for manifest in objects.get(VirtualMesh.KIND, ()):
        virtual_mesh = parse(manifest)
        wanted = wanted_root(virtual_mesh, namespace) if isinstance(virtual_mesh, VirtualMesh) else None
        if isinstance(wanted, Wanted) and wanted.secret.namespace != namespace:
            try:
                found.append(await cluster.get(SECRET, wanted.secret.namespace, wanted.secret.name))
            except NotFound:
                continue
            except Forbidden as error:
                refused[SECRET] = str(error)
    return found


def _wanted(namespace: str, *, management: bool) -> list[tuple[Kind, str]]:
    """Kinds and the namespace in which they are looked at, all by default."""
    from isthmus.api.discovery import Mesh
    from isthmus.api.kinds import POLICIES, REGISTRATION
    from isthmus.model import kinds

    both = [(kinds.CUSTOM_RESOURCE_DEFINITION, ""), (kinds.NAMESPACE, ""), (kinds.SECRET, namespace)]
    if not management:
        certificates = [(kind, namespace) for kind in (kinds.ISSUED_CERTIFICATE, kinds.POD_BOUNCE_DIRECTIVE)]
        return [*both, (kinds.DEPLOYMENT, ""), (kinds.SERVICE, ""), *certificates]
    resources: tuple[type[Resource], ...] = (*POLICIES, *REGISTRATION, Mesh)
    ours = [(resource.KIND, "") for resource in resources]
    return [*both, (kinds.DEPLOYMENT, namespace), (kinds.SERVICE, namespace), *ours]


def print_checks(checks: Sequence[Check]) -> None:
    """One line per check under its cluster, and below it what to do."""
    cluster = ""
    for found in checks:
        if found.cluster != cluster:
            typer.secho(("\n" if cluster else "") + found.cluster, bold=True)
            cluster = found.cluster
        symbol, colour = SYMBOLS[found.state]
        typer.secho(f"  {symbol} ", fg=colour, nl=False)
        typer.echo(f"{found.name}: {found.message}" if found.message else found.name)
        if found.remedy:
            typer.secho(f"    → {found.remedy}", dim=True)
    counts = {state: sum(found.state == state for found in checks) for state in SYMBOLS}
    typer.echo(f"\n{counts['ok']} ok, {_counted(counts['warning'], 'warning')}, {_counted(counts['error'], 'error')}")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
