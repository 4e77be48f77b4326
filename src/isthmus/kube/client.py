"""The door to one cluster's API server.

Everything Isthmus reads from or writes to Kubernetes passes through `KubeClient`; objects are plain JSON data.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Self

from isthmus.kube import discovery, kubeconfig, urls
from isthmus.kube.errors import Gone, NotFound
from isthmus.kube.events import Manifest, ObjectList, WatchEvent, trimmed
from isthmus.kube.session import Session
from isthmus.kube.watch import follow
from isthmus.model.ref import Kind

PAGE = 500  # objects per answer to a list, as client-go asks for
RELISTS = 3  # how often a list starts over because its continue token expired between two pages
PATIENCE = 30.0  # seconds during which a request is tried again
IN_FLIGHT = 32  # requests at once; API servers grant one client far fewer than the 400 they take in all
APPLY = "application/apply-patch+yaml"  # JSON is YAML
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class KubeClient:
    """One cluster's API server. Use it as an async context manager, or `close` it.

    A request is tried again on 429, 5xx and broken connections until *patience* seconds have passed; any other
    refusal is a `KubeError` at once. At most *in_flight* requests run at a time; watches do not count.
    """

    def __init__(
        self, connection: kubeconfig.Connection, *, patience: float = PATIENCE, in_flight: int = IN_FLIGHT
    ) -> None:
        self.connection = connection
        self._session = Session(connection, patience, in_flight)

    @classmethod
    def from_kubeconfig(
        cls, path: Path | None = None, context: str | None = None, *, patience: float = PATIENCE
    ) -> KubeClient:
        """The cluster of *context* in the kubeconfig at *path*; by default kubectl's files and their current context.

        Raises `KubeconfigError`.
        """
        paths = (Path(path).expanduser(),) if path is not None else kubeconfig.kubeconfig_paths()
        return cls(kubeconfig.load(paths, context), patience=patience)

    @classmethod
    def in_cluster(cls, *, patience: float = PATIENCE) -> KubeClient:
        """The cluster this process runs in, as its pod's service account. Raises `KubeconfigError`."""
        return cls(kubeconfig.in_cluster(), patience=patience)

    @classmethod
    def from_environment(cls, *, patience: float = PATIENCE) -> KubeClient:
        """In-cluster where ``KUBERNETES_SERVICE_HOST`` is set, else kubectl's current context."""
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            return cls.in_cluster(patience=patience)
        return cls.from_kubeconfig(patience=patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection; watches that still run break."""
        await self._session.close()

    def __repr__(self) -> str:
        return f"KubeClient({self.connection})"

    @property
    def namespace(self) -> str:
        """The namespace of the kubeconfig's context, or the pod's; ``default`` if none is named."""
        return self.connection.namespace

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest:
        """The object. Raises `NotFound`."""
        return await self._session.json(
            "GET", urls.single(kind, namespace, name), f"get {urls.called(kind, namespace, name)}"
        )

    async def list(self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = "") -> ObjectList:
        """Every object of *kind* that the selectors match, in all namespaces by default, without ``managedFields``.

        *labels* and *fields* are selectors as kubectl takes them.
        """
        selection = urls.selection(labels, fields)
        for _ in range(RELISTS):
            try:
                return await self._pages(kind, namespace, {**selection, "limit": str(PAGE)})
            except Gone:
                continue  # the state our first pages came from is compacted away
        return await self._pages(kind, namespace, selection)

    async def _pages(self, kind: Kind, namespace: str, params: dict[str, str]) -> ObjectList:
        path, about = urls.collection(kind, namespace), f"list {urls.called(kind, namespace)}"
        items: builtins.list[Manifest] = []
        while True:
            page = await self._session.json("GET", path, about, params=params)
            items += [trimmed(item, kind) for item in page.get("items") or ()]
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return ObjectList(tuple(items), str(metadata.get("resourceVersion", "")))
            params = {**params, "continue": metadata["continue"]}

    def watch(
        self, kind: Kind, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> AsyncGenerator[WatchEvent, None]:
        """The state of the selected objects and every change of it, for ever; see `follow`.

        First comes `Replaced`, and again whenever the server can't tell what happened since. Breaks are mended
        silently: no change is lost, and a state may be told twice. Ends only with an exception, when the server
        refuses (`Forbidden`, or `NotFound` for a kind without CRD).
        """
        return follow(self._session, self.list, kind, namespace, labels=labels, fields=fields)

    async def create(self, kind: Kind, manifest: Manifest, *, subresource: str = "") -> Manifest:
        """Create the object, or the *subresource* of the object that *manifest* names. Raises `AlreadyExists`.

        To `apply` it later, create it by `apply` too: a server takes the owner of created fields for another manager.
        """
        namespace, name = urls.identity(manifest)
        about = f"create {f'the {subresource} of ' if subresource else ''}{urls.called(kind, namespace, name)}"
        path = urls.single(kind, namespace, name, subresource) if subresource else urls.home(kind, namespace)
        return await self._session.json("POST", path, about, body=manifest)

    async def apply(
        self, kind: Kind, manifest: Manifest, *, force: bool = False, manager: str = "isthmus", dry_run: bool = False
    ) -> Manifest:
        """Server-side apply: of *manager*'s fields the object has exactly these; other managers' fields stay.

        Raises `Conflict` when another manager owns one of the fields with another value, unless *force*.
        """
        namespace, name = urls.identity(manifest)
        params = {"fieldManager": manager, "force": "true" if force else "false"}
        if dry_run:
            params["dryRun"] = "All"
        return await self._session.json(
            "PATCH",
            urls.single(kind, namespace, name),
            f"apply {urls.called(kind, namespace, name)}",
            params=params,
            body=manifest,
            content_type=APPLY,
        )

    async def apply_status(self, kind: Kind, manifest: Manifest, *, manager: str = "isthmus") -> Manifest:
        """Server-side apply of the status in *manifest* and nothing else of it, by force: statuses are ours alone."""
        namespace, name = urls.identity(manifest)
        known = manifest["metadata"]
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.kind,
            "metadata": {key: known[key] for key in ("name", "namespace", "uid", "resourceVersion") if key in known},
            "status": manifest["status"],
        }
        return await self._session.json(
            "PATCH",
            urls.single(kind, namespace, name, "status"),
            f"apply the status of {urls.called(kind, namespace, name)}",
            params={"fieldManager": manager, "force": "true"},
            body=body,
            content_type=APPLY,
        )

    async def patch(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        patch: Manifest,
        *,
        subresource: str = "",
        strategic: bool = False,
    ) -> Manifest:
        """JSON merge patch: null removes a field, a list takes the place of the whole list. Raises `NotFound`.

        A *strategic* one, which only built-in kinds take, merges lists that have keys: conditions by their type.
        """
        return await self._session.json(
            "PATCH",
            urls.single(kind, namespace, name, subresource),
            f"patch {urls.called(kind, namespace, name)}",
            body=patch,
            content_type=STRATEGIC if strategic else MERGE,
        )

    async def delete(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        resource_version: str = "",
        propagation: str = "Background",
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete the object; False if it was not there (any more). *grace_seconds* says how long a pod may take to end.

        Raises `Conflict` if the object has another *uid* or *resource_version* than the given one.
        """
        options: Manifest = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        preconditions = {"uid": uid, "resourceVersion": resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {key: value for key, value in preconditions.items() if value}
        path, about = urls.single(kind, namespace, name), f"delete {urls.called(kind, namespace, name)}"
        try:
            await self._session.json("DELETE", path, about, body=options)
        except NotFound:
            return False
        return True

    async def kinds(self) -> tuple[Kind, ...]:
        """What the server serves, in every version, sorted."""
        found: set[Kind] = set()
        for root in ("/api", "/apis"):
            document = await self._session.json("GET", root, "discover kinds", accept=discovery.ACCEPT)
            if discovery.is_aggregated(document):
                found.update(discovery.aggregated_kinds(document))
                continue
            for path in discovery.resource_list_paths(document):
                found.update(discovery.listed_kinds(await self._session.json("GET", path, "discover kinds")))
        return tuple(sorted(found))

    async def version(self) -> str:
        """The server's version, such as ``v1.30.2``."""
        return str((await self._session.json("GET", "/version", "get the version"))["gitVersion"])
