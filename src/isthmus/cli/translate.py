"""`meshctl translate`: the engine on files alone.

On standard output every object is one document of a YAML stream. Objects for a cluster name it in the annotation
`CLUSTER_ANNOTATION`; statuses of objects of the management cluster follow, without it. In a folder (``-d``) each
cluster has a folder of its own with a file per object, exactly as an agent would be told to write it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import DEFAULT_NAMESPACE, Namespace

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from isthmus.api.base import Resource
    from isthmus.translate import Engine

Manifest = dict[str, Any]

CLUSTER_ANNOTATION = "cluster.multicluster.solo.io/name"
STATUSES = "_statuses"  # no cluster is called so: names of clusters are DNS names, which have no underscore
WRITTEN = ".meshctl-translate"
"""In the folder of ``-d``, the list of files that the last run wrote, so that the next one removes what is stale."""


def translate(
    files: Annotated[
        list[str],
        typer.Option("-f", "--filename", metavar="FILE", help="A file, a folder, or - ; may be repeated."),
    ],
    directory: Annotated[
        Path | None,
        typer.Option("-d", "--directory", metavar="DIR", help="Write a folder per cluster here instead of printing."),
    ] = None,
    output: Annotated[Literal["yaml", "json"], typer.Option("-o", "--output", help="Format of what is written.")] = (
        "yaml"
    ),
    namespace: Namespace = DEFAULT_NAMESPACE,
) -> None:
    """Translate files as the management plane would.

    Needs no cluster. In go Mesh, Workload, Destination, KubernetesCluster and policies, as `meshctl get -o yaml`
    prints them and users write them. Out come the Istio objects of every cluster and the statuses. Equal input gives
    equal output, to the byte. In the stream the annotation cluster.multicluster.solo.io/name names the cluster of an
    object; with -d every cluster has a folder of its own, and the statuses are in the folder _statuses.

    Exit code 1: an object can't be read, or the status of one says that it is not accepted.
    """
    from isthmus.translate import INPUTS, Engine

    resources = read_resources(files, namespace)
    engine = Engine(namespace=namespace)
    for resource in resources:
        if type(resource) in INPUTS:
            engine.set(resource)
        else:
            typer.secho(f"warning: {_called(resource.key)} is not translated by this version", fg="yellow", err=True)
    engine.run()
    results = [(key.cluster, output.manifest()) for key, output in sorted(engine.outputs().items())]
    statuses = list(_statuses(engine, resources))
    if directory is not None:
        _write(directory, output, results, statuses)
    else:
        _print(output, [_with_cluster(cluster, item) for cluster, item in results] + statuses)
    rejected = [line for status in statuses for line in _rejected(status)]
    for line in rejected:
        typer.secho(line, err=True)
    if rejected:
        raise typer.Exit(1)


def read_resources(files: Iterable[str], namespace: str) -> list[Resource]:
    """The typed objects in *files*; those without a namespace are in *namespace*.

    Warnings go to standard error. Raises `Failure` with everything that is wrong in any of them.
    """
    from isthmus.api.parse import ParseFailure, examine
    from isthmus.cli.files import read_documents
    from isthmus.model.ref import ObjectKey

    found: dict[ObjectKey, Resource] = {}
    sources: dict[ObjectKey, str] = {}
    errors: list[str] = []
    for document in read_documents(files):
        resource, warnings = examine(_in_namespace(document.manifest, namespace), document.source)
        if isinstance(resource, ParseFailure):
            errors.append(str(resource))
            continue
        key = resource.key
        for warning in warnings:
            typer.secho(f"warning: {document.source}: {_called(key)} {warning}", fg="yellow", err=True)
        if key in found:
            errors.append(f"{document.source}: {_called(key)} is given before, in {sources[key]}")
        found[key], sources[key] = resource, document.source
    if errors:
        raise Failure("\n".join(errors), "mend the objects, or leave out those of other kinds; nothing was translated")
    return list(found.values())


def _called(key: Any) -> str:
    return f"{key.kind} {key.namespace}/{key.name}"


def _in_namespace(manifest: Manifest, namespace: str) -> Manifest:
    metadata = manifest.get("metadata")
    if not isinstance(metadata, dict) or metadata.get("namespace"):
        return manifest
    return {**manifest, "metadata": {**metadata, "namespace": namespace}}


def _statuses(engine: Engine, resources: Iterable[Resource]) -> Iterator[Manifest]:
    """The status of each of *resources* that has one, as the object without its spec, sorted."""
    import msgspec

    from isthmus.translate import StatusKey

    generations = {
        StatusKey(resource.KIND, resource.metadata.namespace, resource.metadata.name): resource.metadata.generation
        for resource in resources
    }
    for key in engine.status_keys():
        status = msgspec.to_builtins(engine.status(key))
        if generations[key]:
            status = {"observedGeneration": generations[key], **status}
        yield {
            "apiVersion": key.kind.api_version,
            "kind": key.kind.kind,
            "metadata": {"name": key.name, "namespace": key.namespace},
            "status": status,
        }


def _rejected(item: Manifest) -> list[str]:
    status, metadata = item["status"], item["metadata"]
    if status.get("state") not in ("INVALID", "FAILED"):
        return []
    about = f"{item['kind']} {metadata['namespace']}/{metadata['name']}"
    reasons = list(status.get("errors", ()))
    for part in ("meshes", "destinations"):
        for key, outcome in status.get(part, {}).items():
            reasons += [f"{key} {error}" for error in outcome.get("errors", ()) if error not in reasons]
    return [f"{about}: {status['state']}: {reason}" for reason in reasons or ["no reason given"]]


def _with_cluster(cluster: str, item: Manifest) -> Manifest:
    metadata = item["metadata"]
    annotations = {**metadata.get("annotations", {}), CLUSTER_ANNOTATION: cluster}
    return {**item, "metadata": {**metadata, "annotations": annotations}}


def _print(output: str, items: list[Manifest]) -> None:
    from isthmus.cli.output import as_list, print_json, print_yaml

    if output == "json":
        print_json(as_list(items))
    else:
        print_yaml(items)


def _write(directory: Path, output: str, results: list[tuple[str, Manifest]], statuses: list[Manifest]) -> None:
    from isthmus.cli.output import json_text, yaml_text

    text = json_text if output == "json" else yaml_text
    wanted = {
        f"{folder}/{item['kind']}.{item['metadata']['namespace']}.{item['metadata']['name']}.{output}": item
        for folder, item in [*results, *((STATUSES, status) for status in statuses)]
    }
    index = directory / WRITTEN
    try:
        if directory.exists() and not index.exists() and any(directory.iterdir()):
            raise Failure(
                f"{directory} holds files that meshctl translate did not write", "name an empty or a new folder"
            )
        before = index.read_text().splitlines() if index.exists() else []
        directory.mkdir(parents=True, exist_ok=True)
        # The index first: a run that is cut short leaves no file that the next one does not know.
        index.write_text("".join(f"{name}\n" for name in sorted({*wanted, *before})))
        for name in before:
            if name not in wanted:
                (directory / name).unlink(missing_ok=True)
        for name, item in wanted.items():
            path = directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text(item))
        index.write_text("".join(f"{name}\n" for name in sorted(wanted)))
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}", "name a folder that you may write to") from error
