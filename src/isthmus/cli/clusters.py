"""Connections that commands make, and what becomes of their errors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from isthmus.cli.failure import Failure

if TYPE_CHECKING:
    from isthmus.kube import KubeClient, Manifest
    from isthmus.model.ref import Kind

T = TypeVar("T")

PATIENCE = 10.0  # seconds for which a person waits for one answer before an error is more useful


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of *work*. What an API server refused, or that none answered, becomes a `Failure`."""
    from isthmus.kube import KubeError

    try:
        return asyncio.run(work)
    except KubeError as error:
        raise Failure(str(error), next_step_after(error)) from error
    except ExceptionGroup as group:
        # Of concurrent work the first trouble is told; the others were cancelled for it or are like it.
        expected, ours = group.split((KubeError, Failure))
        if expected is None or ours is not None:
            raise
        first = next(leaves(expected))
        if isinstance(first, Failure):
            raise first from group
        raise Failure(str(first), next_step_after(first)) from group


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[Any]:
    """The exceptions in *group* that are no groups."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def next_step_after(error: Exception) -> str:
    """What a user can do about *error* of the Kubernetes door."""
    from isthmus.kube import Forbidden, KubeconfigError, NotFound, Unauthorized, Unavailable

    match error:
        case KubeconfigError():
            return "`kubectl config get-contexts` lists the contexts; name the kubeconfig with --kubeconfig"
        case Unauthorized():
            return "log in to the cluster again; `kubectl auth whoami` shows as whom you arrive"
        case Forbidden():
            return "ask the cluster's administrator for this right, or use another context"
        case NotFound() if error.of_kind:
            return "the cluster does not serve this kind: `meshctl install` on the management cluster brings it"
        case Unavailable():
            return "check that the cluster runs and that this machine reaches it: `kubectl --context NAME version`"
    return ""


def connect(kubeconfig: Path | None, context: str) -> KubeClient:
    """The cluster of *context* (empty: the current one). Raises `KubeconfigError`."""
    from isthmus.kube import KubeClient

    return KubeClient.from_kubeconfig(kubeconfig, context or None, patience=PATIENCE)


async def get_named(cluster: KubeClient, kind: Kind, namespace: str, name: str) -> Manifest:
    """The object that a user named. Raises `Failure` when there is none."""
    from isthmus.kube import NotFound

    try:
        return await cluster.get(kind, namespace, name)
    except NotFound as error:
        if error.of_kind:
            raise
        raise Failure(
            f"{cluster.connection.name} has no {kind.kind} {namespace}/{name}",
            f"`meshctl get {kind.plural} -A` lists those that there are",
        ) from error


def context_like(kubeconfig: Path | None, cluster: str, otherwise: str) -> str:
    """The context that is called like *cluster*. Raises `Failure` with next step *otherwise* if there is none."""
    from isthmus.kube import KubeconfigError

    try:
        contexts = contexts_of(kubeconfig)
    except KubeconfigError as error:
        raise Failure(str(error), next_step_after(error)) from error
    if cluster not in contexts:
        raise Failure(f"no context is called {cluster}, like the cluster; there are: {', '.join(contexts)}", otherwise)
    return cluster


def contexts_of(kubeconfig: Path | None) -> tuple[str, ...]:
    """The names of all contexts, sorted. Raises `KubeconfigError`."""
    from isthmus.kube.kubeconfig import kubeconfig_paths, merge

    paths = (kubeconfig.expanduser(),) if kubeconfig is not None else kubeconfig_paths()
    return tuple(sorted(merge(paths)["contexts"]))
