"""One embedded cluster: an API server with certificates, on a port, in the running event loop."""

from __future__ import annotations

import asyncio
import base64
import secrets
import socket
import ssl
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from isthmus.embedded.api import Api, Write
from isthmus.embedded.certificates import Credentials, issue_credentials, load_credentials, save_credentials
from isthmus.embedded.store import HISTORY, Store

Manifest = dict[str, Any]

SHUTDOWN_SECONDS = 2.0
LOADER = Write(manager="isthmus-load")


class EmbeddedCluster:
    """A Kubernetes API server for the demo and the fast tests.

    *storage* is an SQLite file that survives a restart (None: memory only); *credentials* a folder that keeps
    certificates and token (None: new ones each time); *tokens* further bearer tokens and their users. Use as an async
    context manager; `api` is the in-process door.
    """

    def __init__(
        self,
        name: str,
        *,
        storage: Path | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        credentials: Path | None = None,
        tokens: Mapping[str, str] | None = None,
        history: int = HISTORY,
        bookmark_seconds: float = 10.0,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        self._storage = storage
        self._credentials_folder = credentials
        self._tokens = dict(tokens or {})
        self._history = history
        self._bookmark_seconds = bookmark_seconds
        self._server: _Server | None = None
        self._api: Api | None = None
        self._credentials: Credentials | None = None

    @property
    def url(self) -> str:
        """Where the server listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"

    @property
    def api(self) -> Api:
        """The objects and kinds, without HTTP. Only while the cluster runs."""
        if self._api is None:
            raise RuntimeError(f"the embedded cluster {self.name} is not running")
        return self._api

    @property
    def credentials(self) -> Credentials:
        """Authority, certificates and token. Only after the start."""
        if self._credentials is None:
            raise RuntimeError(f"the embedded cluster {self.name} is not running")
        return self._credentials

    async def __aenter__(self) -> EmbeddedCluster:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Listen; the port is known afterwards."""
        from isthmus.embedded.http import Http

        self._credentials = self._find_credentials()
        self._tokens[self._credentials.token] = "admin"
        self._api = Api(Store(self._storage, history=self._history))
        app = Http(
            self._api,
            address=lambda: f"{self.host}:{self.port}",
            authenticate=self._tokens.get,
            bookmark_seconds=self._bookmark_seconds,
        )
        self._server = _Server(app, _tls(self._credentials))
        self.port = await self._server.listen(self.host, self.port)

    async def stop(self) -> None:
        """End every watch, answer what is under way, close the port and the file."""
        if self._api is not None:
            self._api.store.end_watches()
        if self._server is not None:
            await self._server.close()
        if self._api is not None:
            self._api.store.close()
        self._server = self._api = None

    def _find_credentials(self) -> Credentials:
        if self._credentials is not None:
            return self._credentials
        folder = self._credentials_folder
        found = load_credentials(folder) if folder is not None else None
        if found is not None:
            return found
        hosts = dict.fromkeys((self.host, "127.0.0.1", "localhost", "kubernetes.default.svc"))
        made = issue_credentials(secrets.token_urlsafe(24), tuple(hosts))
        if folder is not None:
            save_credentials(made, folder)
        return made

    def kubeconfig(self) -> Manifest:
        """A kubeconfig whose one context, named as the cluster, is its administrator."""
        return merged_kubeconfig([self])

    async def load(self, manifests: Iterable[Manifest]) -> int:
        """Create or replace objects without HTTP, by the same rules; the number of objects comes back.

        Lists are unpacked. The status of a manifest is written too, as a controller would. Raises ApiError.
        """
        count = 0
        for manifest in _unpacked(manifests):
            load_object(self.api, manifest)
            count += 1
            if count % 200 == 0:
                await asyncio.sleep(0)  # lets the server answer in between
        return count


def load_object(api: Api, manifest: Manifest, write: Write = LOADER) -> None:
    """Create or update one object with its status."""
    resource, version = api.find_kind(manifest.get("apiVersion", ""), manifest.get("kind", ""))
    metadata = manifest.get("metadata") or {}
    namespace = (metadata.get("namespace") or "default") if resource.namespaced else ""
    name = metadata.get("name", "")
    forced = Write(manager=write.manager, force=True, validation="Strict")
    written = api.apply(resource, version, namespace, name, manifest, forced)
    if version in resource.has_status and "status" in manifest and resource.key != "namespaces":
        patch = {"status": manifest["status"]}
        if written.object is not None:
            api.merge(resource, version, namespace, name, patch, forced, subresource="status")


def _unpacked(manifests: Iterable[Manifest]) -> Iterable[Manifest]:
    for manifest in manifests:
        if str(manifest.get("kind", "")).endswith("List") and "items" in manifest:
            yield from manifest["items"]
        else:
            yield manifest


class Reachable(Protocol):
    """A server with an administrator, which a kubeconfig can name."""

    @property
    def name(self) -> str:
        """The cluster's name."""

    @property
    def url(self) -> str:
        """Where its API server listens."""

    @property
    def credentials(self) -> Credentials:
        """Its authority and its administrator."""


def merged_kubeconfig(clusters: Iterable[Reachable]) -> Manifest:
    """One kubeconfig with a context per cluster, each named as its cluster; the first is current."""
    config: Manifest = {"apiVersion": "v1", "kind": "Config", "preferences": {}}
    config |= {"clusters": [], "users": [], "contexts": [], "current-context": ""}
    for cluster in clusters:
        made = cluster.credentials
        config["current-context"] = config["current-context"] or cluster.name
        server = {"server": cluster.url, "certificate-authority-data": _base64(made.authority.certificate)}
        config["clusters"].append({"name": cluster.name, "cluster": server})
        user = {
            "client-certificate-data": _base64(made.admin.certificate),
            "client-key-data": _base64(made.admin.key),
        }
        config["users"].append({"name": f"{cluster.name}-admin", "user": user})
        context = {"cluster": cluster.name, "user": f"{cluster.name}-admin"}
        config["contexts"].append({"name": cluster.name, "context": context})
    return config


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _tls(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=credentials.authority.certificate.decode())
    with tempfile.NamedTemporaryFile() as file:  # ssl loads a chain from a file only
        file.write(credentials.server.certificate + credentials.server.key)
        file.flush()
        context.load_cert_chain(file.name)
    return context


class _Server:
    """uvicorn's HTTP protocol on one port, without its process supervision and signal handlers."""

    def __init__(self, app: Any, tls: ssl.SSLContext) -> None:
        from uvicorn.config import Config
        from uvicorn.server import ServerState

        self._tls = tls
        self._config = Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            interface="asgi3",
            ws="none",
            timeout_keep_alive=300,
            server_header=False,
            date_header=False,
        )
        self._config.load()
        self._state = ServerState()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Start; the port comes back."""
        from isthmus.embedded.connection import Connection

        bound = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, which this one does not;
        # without it every short answer waits 40 ms for the peer's delayed acknowledgement.
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._config, self._state, {}), sock=bound, ssl=self._tls
        )
        return int(bound.getsockname()[1])

    async def close(self) -> None:
        """Close the port, let requests under way end, then cut what is left."""
        if self._listener is None:
            return
        self._listener.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=SHUTDOWN_SECONDS)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        if self._state.tasks:
            await asyncio.wait(self._state.tasks)
        await asyncio.sleep(0)  # lets the transports report that they are closed
