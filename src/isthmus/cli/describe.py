"""`meshctl describe`: one object in full, with what it selects and what selects it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import DEFAULT_NAMESPACE, KindName, Kubeconfig, KubeContext, Namespace, TextOrData

if TYPE_CHECKING:
    from isthmus.api.base import Resource
    from isthmus.cli.description.parts import Description
    from isthmus.kube import KubeClient

Manifest = dict[str, Any]


def describe(
    kind: KindName,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="One object; all of the kind by default.")] = "",
    search: Annotated[
        str, typer.Option("-s", "--search", metavar="A,B", help="Only objects whose name holds one of these texts.")
    ] = "",
    output: TextOrData = "text",
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """Show an object in full.

    With what it selects, what selects it, and what is wrong with it.

    A virtual mesh: its meshes, gateways and federated destinations. A mesh: its workloads and destinations. A
    destination: its host names, endpoints, the meshes that know it, and the policies on it: routes in their order,
    what counts on them, conflicts, subsets. A traffic policy: what it sets, where, and which of two policies counts.
    A virtual destination: what is behind its host name, and where. A virtual gateway: where it listens, and for whom. A
    virtual host or route table: its routes in their order, what leads to it, and the policies on it.
    """
    from isthmus.cli.clusters import connect, get_named, run
    from isthmus.cli.description import describe_object, needed
    from isthmus.cli.description.parts import Known
    from isthmus.cli.kinds import kind_named

    resource = kind_named(kind)

    async def fetch() -> tuple[list[Resource], dict[type[Resource], list[Resource]]]:
        async with connect(kubeconfig, kubecontext) as cluster:
            if name:
                found = _typed([await get_named(cluster, resource.KIND, namespace, name)])
            else:
                found = await _listed(cluster, resource, namespace)
            return found, {other: await _listed(cluster, other, namespace) for other in needed(resource)}

    found, others = run(fetch())
    words = [word for word in search.split(",") if word]
    if words:
        found = [item for item in found if any(word in item.metadata.name for word in words)]
    known = Known.of(item for items in others.values() for item in items)
    descriptions = [describe_object(item, known) for item in found]
    if output == "text":
        _print_text(descriptions, resource)
    else:
        _print_data(output, descriptions, single=bool(name))


async def _listed(cluster: KubeClient, resource: type[Resource], namespace: str) -> list[Resource]:
    return _typed((await cluster.list(resource.KIND, namespace)).items)


def _typed(manifests: Any) -> list[Resource]:
    from isthmus.api.parse import ParseFailure, parse

    found = []
    for manifest in manifests:
        resource = parse(manifest)
        if isinstance(resource, ParseFailure):
            raise Failure(str(resource), "correct the object; the management plane can't read it either")
        found.append(resource)
    return sorted(found, key=lambda item: item.ref)


def _print_data(output: str, descriptions: list[Description], *, single: bool) -> None:
    from isthmus.cli.output import print_json, print_yaml

    values = [as_data(description) for description in descriptions]
    if output == "json":
        print_json(values[0] if single else values)
    else:
        print_yaml(values)


def as_data(description: Description) -> Manifest:
    """*description* as plain data: a table becomes a list of objects, titles and headers become camelCase keys."""
    data: Manifest = {"kind": description.kind, "namespace": description.namespace, "name": description.name}
    data |= {_camel(name): value for name, value in description.facts.items()}
    for section in description.sections:
        headers = [_camel(column) for column in section.columns]
        data[_camel(section.title)] = [dict(zip(headers, row, strict=True)) for row in section.rows]
    return data


def _camel(title: str) -> str:
    first, *rest = title.replace("-", " ").lower().split()
    return first + "".join(word.capitalize() for word in rest)


def _print_text(descriptions: list[Description], resource: type[Resource]) -> None:
    from isthmus.cli.output import table_lines

    if not descriptions:
        typer.echo(f"No {resource.KIND.plural} found.", err=True)
    for number, description in enumerate(descriptions):
        typer.secho(("\n" if number else "") + f"{description.kind} {description.name}", bold=True)
        width = max(map(len, description.facts), default=0)
        for name, value in description.facts.items():
            typer.echo(f"  {name.ljust(width)}   {value}")
        for section in description.sections:
            typer.secho(f"\n  {section.title}", bold=True, fg="red" if section.title == "Problems" else None)
            lines = table_lines(section.columns, section.rows) if section.rows else ["none"]
            for line in lines:
                typer.echo(f"    {line}")
            if section.more:
                typer.echo(f"    and {section.more} more")
