"""Options that several commands share, spelled once."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

import typer

DEFAULT_NAMESPACE = "gloo-mesh"


def _contexts(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    from isthmus.kube.errors import KubeconfigError
    from isthmus.kube.kubeconfig import kubeconfig_paths, merge

    given = ctx.params.get("kubeconfig")
    try:
        return sorted(merge((Path(given),) if given else kubeconfig_paths())["contexts"])
    except KubeconfigError:
        return ()


def _kinds(incomplete: str) -> Iterable[str]:
    from isthmus.api.kinds import KINDS

    return sorted(kind.KIND.plural for kind in KINDS)


Kubeconfig = Annotated[
    Path | None, typer.Option("--kubeconfig", metavar="FILE", help="Kubeconfig to use; kubectl's by default.")
]
KubeContext = Annotated[
    str,
    typer.Option(
        "--kubecontext",
        metavar="CONTEXT",
        help="Context of the management cluster; the current one by default.",
        autocompletion=_contexts,
    ),
]
Namespace = Annotated[
    str, typer.Option("-n", "--namespace", metavar="NAMESPACE", help="Namespace of the management plane.")
]
MgmtContext = Annotated[
    str,
    typer.Option(
        "--mgmt-context",
        metavar="CONTEXT",
        help="Context of the management cluster; the current one by default.",
        autocompletion=_contexts,
    ),
]
MgmtKubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--mgmt-kubeconfig", metavar="FILE", help="Kubeconfig of the management cluster; --kubeconfig by default."
    ),
]
RemoteContext = Annotated[
    str,
    typer.Option(
        "--remote-context",
        metavar="CONTEXT",
        help="Context of the cluster itself; the one that is called like the cluster by default.",
        autocompletion=_contexts,
    ),
]
MgmtNamespace = Annotated[
    str, typer.Option("--mgmt-namespace", metavar="NAMESPACE", help="Namespace of the management plane.")
]
RemoteNamespace = Annotated[
    str, typer.Option("--remote-namespace", metavar="NAMESPACE", help="Namespace of the agent on the cluster.")
]
ClusterName = Annotated[
    list[str],
    typer.Argument(metavar="[enterprise] NAME", help="Name of the cluster. The word `enterprise` may stand before it."),
]
KindName = Annotated[
    str, typer.Argument(metavar="KIND", help="A kind, its plural or its short name.", autocompletion=_kinds)
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A value of the installation; may be repeated."),
]
TableOrData = Annotated[
    Literal["table", "wide", "json", "yaml", "name"], typer.Option("-o", "--output", help="What to print.")
]
TextOrData = Annotated[Literal["text", "json", "yaml"], typer.Option("-o", "--output", help="What to print.")]
