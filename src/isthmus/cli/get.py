"""`meshctl get`: our objects on the management cluster, as a table or as data."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.options import DEFAULT_NAMESPACE, KindName, Kubeconfig, KubeContext, Namespace, TableOrData

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isthmus.api.base import Resource

Manifest = dict[str, Any]


def get(
    kind: KindName,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One object; all of the kind by default.")] = "",
    output: TableOrData = "table",
    labels: Annotated[
        str, typer.Option("-l", "--selector", metavar="LABELS", help="Only objects with these labels, as kubectl's -l.")
    ] = "",
    everywhere: Annotated[bool, typer.Option("-A", "--all-namespaces", help="In all namespaces.")] = False,
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """List policies, discovered objects and clusters.

    `-o wide` adds what each one selects or reaches.
    """
    from isthmus.cli.clusters import connect, get_named, run
    from isthmus.cli.kinds import kind_named

    resource = kind_named(kind)

    async def fetch() -> tuple[Manifest, ...]:
        async with connect(kubeconfig, kubecontext) as cluster:
            if name:
                return (await get_named(cluster, resource.KIND, namespace, name),)
            return (await cluster.list(resource.KIND, "" if everywhere else namespace, labels=labels)).items

    found = run(fetch())
    if output in ("table", "wide"):
        _print_table(resource, found, wide=output == "wide", everywhere=everywhere)
    elif output == "name":
        for item in found:
            typer.echo(f"{resource.KIND.kind.lower()}.{resource.KIND.group}/{item['metadata']['name']}")
    else:
        _print_data(output, found, single=bool(name))


def _print_data(output: str, items: Sequence[Manifest], *, single: bool) -> None:
    from isthmus.cli.output import as_list, print_json, print_yaml

    for item in items:
        item.get("metadata", {}).pop("managedFields", None)
    value = items[0] if single else as_list(items)
    if output == "json":
        print_json(value)
    else:
        print_yaml([value])


def _print_table(resource: type[Resource], items: Sequence[Manifest], *, wide: bool, everywhere: bool) -> None:
    from isthmus.cli.output import print_table

    if not items:
        typer.echo(f"No {resource.KIND.plural} found.", err=True)
        return
    now = datetime.now(UTC)
    columns: list[tuple[str, Callable[[Manifest], str]]] = [("NAME", lambda item: item["metadata"]["name"])]
    if everywhere:
        columns.insert(0, ("NAMESPACE", lambda item: item["metadata"].get("namespace", "")))
    for header, form, path in resource.COLUMNS:
        columns.append((header.upper(), partial(_cell, form=form, path=path, now=now)))
    if wide:
        columns += WIDE.get(resource.KIND.kind, ())
    rows = [[value(item) for _, value in columns] for item in items]
    print_table([header for header, _ in columns], rows)


def _cell(item: Manifest, *, form: str, path: str, now: datetime) -> str:
    value = at(item, path)
    if value is None:
        return ""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return age(str(value), now) if form == "date" else str(value)


def at(item: Any, path: str) -> Any:
    """The value at *path*, such as ``.spec.mesh.name`` or ``.status.status[0].state``, None where there is none."""
    for step in path.strip(".").replace("[", ".[").split("."):
        if step.startswith("["):
            index = int(step[1:-1])
            item = item[index] if isinstance(item, list) and index < len(item) else None
        else:
            item = item.get(step) if isinstance(item, dict) else None
    return item


def age(timestamp: str, now: datetime) -> str:
    """How long ago *timestamp* was, in one or two units as kubectl writes it."""
    seconds = max(0, int((now - datetime.fromisoformat(timestamp)).total_seconds()))
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    # The steps at which kubectl drops the smaller unit. Source: k8s.io/apimachinery duration.HumanDuration
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if hours < 3:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    return f"{days // 365}y{days % 365}d" if days < 8 * 365 and days % 365 else f"{days // 365}y"


def _names(path: str) -> Callable[[Manifest], str]:
    return lambda item: ",".join(ref.get("name", "") for ref in at(item, path) or ())


def _count(path: str) -> Callable[[Manifest], str]:
    return lambda item: str(len(at(item, path) or ()))


def _gateways(item: Manifest) -> str:
    gateways = at(item, ".status.appliedEastWestIngressGateways") or ()
    return ",".join(
        f"{address}:{gateway.get('externalPort', 0)}"
        for gateway in gateways
        for address in gateway.get("externalAddresses", ())
    )


def _endpoints(item: Manifest) -> str:
    subsets = at(item, ".spec.kubeService.endpointSubsets") or ()
    return str(sum(len(subset.get("endpoints", ())) for subset in subsets))


def _ports(item: Manifest) -> str:
    ports = at(item, ".spec.kubeService.ports") or ()
    return ",".join(f"{port.get('port')}/{port.get('protocol', 'TCP')}" for port in ports)


WIDE: dict[str, tuple[tuple[str, Callable[[Manifest], str]], ...]] = {
    "VirtualMesh": (("MESHES", _names(".spec.meshes")), ("DESTINATIONS", _count(".status.destinations"))),
    "TrafficPolicy": (("DESTINATIONS", _count(".status.destinations")), ("WORKLOADS", _count(".status.workloads"))),
    "AccessPolicy": (("DESTINATIONS", _count(".status.destinations")), ("WORKLOADS", _count(".status.workloads"))),
    "VirtualGateway": (
        ("HOSTS", _names(".status.selectedVirtualHosts")),
        ("INGRESS GATEWAYS", _count(".status.appliedIngressGateways")),
    ),
    "VirtualHost": (("GATEWAYS", _names(".status.attachedVirtualGateways")),),
    "RouteTable": (("SELECTED BY", _names(".status.selectedBy")),),
    "Mesh": (("GATEWAYS", _gateways),),
    "Destination": (
        ("PORTS", _ports),
        ("ENDPOINTS", _endpoints),
        ("FEDERATED TO", _names(".status.appliedFederation.federatedToMeshes")),
    ),
}
"""What `-o wide` adds to the printer columns: what each object selects or reaches."""
