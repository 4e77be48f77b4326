"""`meshctl access`: who may call whom, why, and what a change would open or close."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from isthmus.cli.failure import Failure
from isthmus.cli.options import DEFAULT_NAMESPACE, Kubeconfig, KubeContext, Namespace

if TYPE_CHECKING:
    from isthmus.cli.access_fleet import Changes, Found, Scope
    from isthmus.model.ref import Ref
    from isthmus.translate.access.evaluation import Request

ERROR, DEPENDS, OPENS = 2, 3, 2  # exit codes beside 0 and 1
_NUMBER = re.compile(r"-?[0-9]+")
_NAME = re.compile(r"(?P<namespace>[^/@\s]+)/(?P<name>[^/@\s]+)@(?P<cluster>[^/@\s]+)")


def _names(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Workloads and destinations of the management cluster; none when it does not answer."""
    import asyncio

    from isthmus.cli.access_fleet import called_names
    from isthmus.kube import KubeError

    given = ctx.params.get("kubeconfig")
    try:
        return asyncio.run(
            called_names(
                Path(given) if given else None,
                ctx.params.get("kubecontext") or "",
                ctx.params.get("namespace") or DEFAULT_NAMESPACE,
            )
        )
    except (KubeError, ExceptionGroup):
        return ()


Port = Annotated[
    str, typer.Option("--port", metavar="PORT", help="Port of the Service, by number or name; any by default.")
]
Method = Annotated[str, typer.Option("--method", metavar="METHOD", help="HTTP method; any by default.")]
PathOption = Annotated[str, typer.Option("--path", metavar="PATH", help="Path of the request; any by default.")]
Host = Annotated[str, typer.Option("--host", metavar="HOST", help="Host header; any by default.")]
Header = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="NAME=VALUE", help="A header; may be repeated. Others then are absent."),
]
From = Annotated[
    list[str] | None,
    typer.Option("--from", metavar="FILE", help="A saved fleet instead of the management cluster; may be repeated."),
]
Files = Annotated[
    list[str] | None,
    typer.Option("-f", "--filename", metavar="FILE", help="A change on paper: a file, a folder, or -; repeatable."),
]
Deletes = Annotated[
    list[str] | None,
    typer.Option(
        "--delete",
        metavar="KIND/NAME",
        help="A change: take this object away, [NAMESPACE/]NAME, of an AuthorizationPolicy NAMESPACE/NAME@CLUSTER; "
        "repeatable.",
    ),
]
Contexts = Annotated[
    list[str] | None,
    typer.Option(
        "--cluster-context",
        metavar="NAME=CONTEXT",
        help="Context of a cluster, to read users' own policies; the one called like it by default. Repeatable.",
    ),
]


def can(
    caller: Annotated[
        str, typer.Argument(metavar="CALLER", help="NAMESPACE/NAME@CLUSTER of a workload.", autocompletion=_names)
    ],
    callee: Annotated[
        str, typer.Argument(metavar="CALLEE", help="NAMESPACE/NAME@CLUSTER of a service.", autocompletion=_names)
    ],
    port: Port = "",
    method: Method = "",
    path: PathOption = "",
    host: Host = "",
    header: Header = None,
    files: Files = None,
    delete: Deletes = None,
    saved: From = None,
    contexts: Contexts = None,
    output: Annotated[Literal["text", "json", "yaml"], typer.Option("-o", "--output", help="What to print.")] = "text",
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """Say whether one may call the other, and why.

    By the AuthorizationPolicies that the management plane writes and those that users wrote on the clusters. A name is
    that of a workload or of a service; a caller named by a service stands for all workloads behind it. With -f and
    --delete the answer is that after a change.

    Exit code 0: yes. 1: no. 3: it depends, on what was not given or on what nobody knows on paper. 2: an error.
    """
    from isthmus.cli import access_text
    from isthmus.cli.access_fleet import Scope, fleets
    from isthmus.translate.access.reachability import NotFound, Reach, Reachability, spelled

    with _errors():
        source, target = _name(caller), _name(callee)
        request = _request(port, method, path, host, header)
        changes = _changes(files, delete)
        scope = Scope(frozenset((source.namespace, target.namespace)))
        before, after = _read(saved, changes, scope, False, contexts, namespace, kubeconfig, kubecontext)
        access_text.print_notes(after.faults if after is not None else ())
        _, fleet = fleets(before, after, namespace)
        try:
            verdict = Reachability(fleet).can(source, target, request)
        except NotFound as missing:
            raise _not_found(spelled(missing.args[0]), before) from None
    if output == "text":
        access_text.print_verdict(source, target, verdict, before.unseen)
    else:
        _print(output, access_text.verdict_data(source, target, verdict, before.unseen))
    if verdict.answer is not Reach.YES:
        raise typer.Exit(DEPENDS if verdict.answer is Reach.DEPENDS else 1)


def matrix(
    namespaces: Annotated[
        list[str] | None, typer.Argument(metavar="[NAMESPACE]...", help="Namespaces of the services; all by default.")
    ] = None,
    callers: Annotated[
        list[str] | None,
        typer.Option("--callers", metavar="NAMESPACE", help="Only callers of this namespace; may be repeated."),
    ] = None,
    clusters: Annotated[
        list[str] | None,
        typer.Option("--cluster", metavar="NAME", help="Only services of this cluster; may be repeated."),
    ] = None,
    port: Port = "",
    method: Method = "",
    path: PathOption = "",
    host: Host = "",
    header: Header = None,
    diff: Annotated[bool, typer.Option("--diff", help="What -f and --delete would open or close.")] = False,
    files: Files = None,
    delete: Deletes = None,
    saved: From = None,
    contexts: Contexts = None,
    output: Annotated[
        Literal["text", "json", "yaml", "svg", "html"], typer.Option("-o", "--output", help="What to print.")
    ] = "text",
    namespace: Namespace = DEFAULT_NAMESPACE,
    kubeconfig: Kubeconfig = None,
    kubecontext: KubeContext = "",
) -> None:
    """Show services by callers.

    Callers of whom all answers are the same share a column. With -f and --delete the answers are those after a change;
    with --diff only what the change makes different.

    Exit code 2 with --diff: the change opens something. 1: an error.
    """
    from isthmus.cli import access_text
    from isthmus.cli.access_fleet import Scope, fleets
    from isthmus.translate.access.evaluation import Effects
    from isthmus.translate.access.reachability import Reachability, difference, identities

    changes = _changes(files, delete)
    if diff and not (files or delete):
        raise typer.BadParameter("needs a change: -f FILE or --delete KIND/NAME", param_hint="--diff")
    if diff and output in ("svg", "html"):
        raise typer.BadParameter(f"{output} draws a whole matrix, not what a change makes different", param_hint="-o")
    request = _request(port, method, path, host, header)
    scope = Scope(frozenset(namespaces or ()))
    with _at_rest():
        found, changed = _read(saved, changes, scope, diff, contexts, namespace, kubeconfig, kubecontext)
        access_text.print_notes(changed.faults if changed is not None else ())
        old, new = fleets(found, changed, namespace)
        numbered, effects = identities(old, new), Effects()
        after = Reachability(new, numbered, effects)

        def chosen(names: Iterable[Ref], within: list[str] | None, of: list[str] | None = None) -> list[Ref]:
            return [n for n in names if (not within or n.namespace in within) and (not of or n.cluster in of)]

        if diff:
            before = Reachability(old, numbered, effects)
            services = chosen((*before.services, *after.services), namespaces, clusters)
            calling = chosen(dict.fromkeys((*before.callers, *after.callers)), callers)
            if not services or not calling:
                # As good as no answer, but to a pipeline it would say that nothing opens.
                raise Failure(
                    f"no {'callers' if services else 'services'} are chosen, so nothing can be compared",
                    "see the namespaces, --cluster and --callers; `meshctl access matrix` shows what there is",
                )
            differences = difference(before, after, services, calling, request)
        else:
            services, calling = chosen(after.services, namespaces, clusters), chosen(after.callers, callers)
            result = after.matrix(services, calling, request)
    if diff:
        if output == "text":
            access_text.print_changes(differences, found.unseen)
        else:
            _print(output, access_text.changes_data(differences, found.unseen))
        if any(change.opens for change in differences):
            raise typer.Exit(OPENS)
        return
    if output == "text":
        access_text.print_matrix(result, found.unseen)
    elif output in ("svg", "html"):
        from isthmus.cli.access_picture import html, svg

        title = f"Who may call {', '.join(namespaces)}" if namespaces else "Who may call whom"
        typer.echo(svg(result, title) if output == "svg" else html(result, title, found.unseen), nl=False)
    else:
        _print(output, access_text.matrix_data(result, found.unseen))


@contextmanager
def _at_rest() -> Iterator[None]:
    """No collection of garbage inside: what is read stays to the end, and looking at it again takes half the time.

    Nor is what was read inside looked at afterwards.
    """
    import gc

    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _errors() -> Iterator[None]:
    """A `Failure` inside ends with `ERROR`, since 1 is an answer."""
    try:
        yield
    except Failure as failure:
        failure.code = ERROR
        raise


def _name(text: str) -> Ref:
    from isthmus.model.ref import Ref

    found = _NAME.fullmatch(text)
    if found is None:
        raise Failure(f"{text!r} does not name one object of a cluster", "write it as NAMESPACE/NAME@CLUSTER")
    return Ref(found["cluster"], found["namespace"], found["name"])


def _not_found(name: str, found: Found) -> Failure:
    """That nothing is called *name*, and what is called like it."""
    import difflib

    from isthmus.cli.access_fleet import names_in

    near = difflib.get_close_matches(name, names_in(found), n=1)
    return Failure(
        f"no workload or service is called {name}" + (f"; did you mean {near[0]}?" if near else ""),
        "`meshctl get workloads` and `meshctl get destinations` list those that agents found",
    )


def _request(port: str, method: str, path: str, host: str, headers: list[str] | None) -> Request:
    from isthmus.translate.access.evaluation import Request
    from isthmus.translate.access.facts import METHOD
    from isthmus.translate.ports import LARGEST_PORT

    if path and not path.startswith("/"):
        raise typer.BadParameter(f"{path!r} does not begin with /", param_hint="--path")
    if method and (not METHOD.fullmatch(method) or method != method.upper()):
        raise typer.BadParameter(f"{method!r} is no HTTP method such as GET", param_hint="--method")
    number = int(port) if _NUMBER.fullmatch(port) else 0
    if _NUMBER.fullmatch(port) and not 0 < number <= LARGEST_PORT:
        raise typer.BadParameter(f"{port} is no port from 1 to {LARGEST_PORT}", param_hint="--port")
    pairs = _pairs(headers, "--header", fold=True)
    return Request(
        port=number,
        port_name="" if number else port,
        method=method,
        path=path,
        host=host,
        headers=pairs or None,
    )


def _pairs(texts: Iterable[str] | None, option: str, *, fold: bool = False) -> dict[str, str]:
    """Values by names, which with *fold* are the same in any case and come in lower case."""
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, found, value = text.partition("=")
        if not (name and found and value):
            raise typer.BadParameter(f"{text!r} is not of the form NAME=VALUE", param_hint=option)
        name = name.lower() if fold else name
        if name in pairs:
            raise typer.BadParameter(f"{name} is given twice", param_hint=option)
        pairs[name] = value
    return pairs


def _changes(files: list[str] | None, deletes: list[str] | None) -> Changes:
    from isthmus.cli.access_fleet import Changes, Deletion
    from isthmus.cli.files import read_documents
    from isthmus.cli.kinds import kind_named
    from isthmus.istio.kinds import AUTHORIZATION_POLICY

    deletions = []
    for text in deletes or ():
        word, _, name = text.partition("/")
        if word.lower() in (AUTHORIZATION_POLICY.kind.lower(), AUTHORIZATION_POLICY.plural):
            own = _name(name)
            deletions.append(Deletion(None, own.namespace, own.name, own.cluster))
            continue
        where, _, last = name.rpartition("/")
        if not last:
            raise Failure(f"--delete {text}: no object is named", "write it as KIND/NAME or KIND/NAMESPACE/NAME")
        deletions.append(Deletion(kind_named(word), where, last))
    documents = tuple(read_documents(files or ()))
    if files and not documents:
        raise Failure(f"there is no object in {', '.join(files)}", "name a file with what would be applied")
    return Changes(documents, tuple(deletions))


def _read(
    saved: list[str] | None,
    changes: Changes,
    scope: Scope,
    only_changed: bool,
    contexts: list[str] | None,
    namespace: str,
    kubeconfig: Path | None,
    kubecontext: str,
) -> tuple[Found, Found | None]:
    """The fleet, and what it is after *changes* if there are any."""
    from isthmus.cli.access_fleet import changed, found_in, found_on
    from isthmus.cli.clusters import run
    from isthmus.cli.files import read_documents

    given = _pairs(contexts, "--cluster-context")
    if saved:
        found = found_in(read_documents(saved, by_programs=True), namespace, scope, changes, only_changed=only_changed)
    else:
        found = run(found_on(kubeconfig, kubecontext, namespace, scope, given, changes, only_changed=only_changed))
    return found, changed(found, changes, namespace) if changes else None


def _print(output: str, value: dict[str, object]) -> None:
    from isthmus.cli.output import print_json, print_yaml

    if output == "json":
        print_json(value)
    else:
        print_yaml([value])
