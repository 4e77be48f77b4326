"""From a kubeconfig or a service account to a connection: where the server is, whom we trust, who we are.

lightkube reads the entries, builds the TLS context and knows tokens; here is what it leaves to do: several merged
files, relative paths, proxies, tls-server-name, exec plug-ins of ``v1`` with certificates, and error texts that help.
"""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
import yaml

from isthmus.kube.errors import KubeconfigError

if TYPE_CHECKING:
    import httpx2

    from isthmus.kube.exec_plugin import ExecAuth

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG = Path("~/.kube/config")
SECTIONS = {"clusters": "cluster", "contexts": "context", "users": "user"}
# Where an entry names a file, relative to the kubeconfig it stands in.
PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class Connection(msgspec.Struct):
    """How to reach one API server."""

    name: str
    """The context, or ``in-cluster``: what messages call the cluster."""
    server: str
    namespace: str
    """The namespace of the context, ``default`` if it names none."""
    tls: ssl.SSLContext
    auth: httpx2.Auth | None = None
    exec_auth: ExecAuth | None = None
    """*auth* itself if it is an exec plug-in's, which may replace the certificate in *tls*."""
    proxy: str | None = None
    server_name: str = ""
    """What the server's certificate must be for, if not the host of *server*."""

    def __str__(self) -> str:
        return f"{self.name} ({self.server})"

    @property
    def proxy_host(self) -> str:
        """The proxy without its password, for messages."""
        return urlsplit(self.proxy or "").netloc.rpartition("@")[2]


def kubeconfig_paths(environment: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """The files kubectl would read: ``$KUBECONFIG`` (several, split as ``$PATH`` is), or ``~/.kube/config``."""
    named = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return tuple(path.expanduser() for path in named or [DEFAULT_KUBECONFIG])


def load(paths: tuple[Path, ...], context: str | None = None) -> Connection:
    """The connection that *context* (or the current context) of the merged *paths* describes."""
    config = merge(paths)
    files = ", ".join(str(path) for path in paths)
    chosen = context or config["current-context"]
    there = ", ".join(sorted(config["contexts"])) or "none"
    if not chosen:
        raise KubeconfigError(f"{files}: no context given and no current-context set; contexts there: {there}")
    if chosen not in config["contexts"]:
        raise KubeconfigError(f"{files}: no context {chosen!r}; contexts there: {there}")
    wanted = config["contexts"][chosen]
    cluster = _entry(config, "clusters", wanted.get("cluster"), f"{files}: context {chosen!r}")
    user = _entry(config, "users", wanted["user"], f"{files}: context {chosen!r}") if wanted.get("user") else {}
    return connect(chosen, str(wanted.get("namespace") or "default"), cluster, user, files)


def _entry(config: dict[str, Any], section: str, name: str | None, at: str) -> dict[str, Any]:
    if name in config[section]:
        return dict(config[section][name])
    there = ", ".join(sorted(config[section])) or "none"
    raise KubeconfigError(
        f"{at} names {SECTIONS[section]} {name or ''!r}, which is not there; {section} there: {there}"
    )


def merge(paths: tuple[Path, ...]) -> dict[str, Any]:
    """The entries of all *paths* by name; who comes first wins. A missing file counts only if none is there.

    Source: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files
    """
    merged: dict[str, Any] = {"current-context": "", **{section: {} for section in SECTIONS}}
    present = [path for path in paths if path.is_file()]
    if not present:
        raise KubeconfigError("no kubeconfig at " + ", ".join(str(path) for path in paths))
    for path in present:
        content = _read(path)
        merged["current-context"] = merged["current-context"] or content.get("current-context") or ""
        for section, single in SECTIONS.items():
            for entry in content.get(section) or ():
                try:
                    name, value = entry["name"], dict(entry[single] or {})
                except (KeyError, TypeError, ValueError) as error:
                    raise KubeconfigError(f"{path}: an entry of {section} lacks its name or {single}") from error
                merged[section].setdefault(name, _absolute(value, path.absolute().parent))
    return merged


def _read(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise KubeconfigError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise KubeconfigError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict | None):
        raise KubeconfigError(f"{path} is not a kubeconfig: a mapping was expected")
    return content or {}


def _absolute(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    for key in PATHS:
        if entry.get(key):
            entry[key] = str(folder / entry[key])
    plugin = entry.get("exec")
    if isinstance(plugin, dict) and "/" in str(plugin.get("command", "")):
        entry["exec"] = {**plugin, "command": str(folder / plugin["command"])}
    return entry


def connect(name: str, namespace: str, cluster: dict[str, Any], user: dict[str, Any], at: str) -> Connection:
    """The connection to the server of entry *cluster* as entry *user*. *at* says in messages where they stand."""
    from lightkube import ConfigError
    from lightkube.config import client_adapter, models

    from isthmus.kube.exec_plugin import ExecAuth

    server = str(cluster.get("server") or "")
    if not _is_address(server):
        raise KubeconfigError(f"{at}: cluster of context {name!r}: server {server!r} is not an http(s) address")
    cluster, user = _cleaned(cluster), _cleaned(user)
    for key, value in {**cluster, **user}.items():
        if fault := _fault(key, value):
            raise KubeconfigError(f"{at}: context {name!r}: {fault}")
    try:
        plugin = user.pop("exec", None)
        who = msgspec.convert(user, models.User)
        where = msgspec.convert(cluster, models.Cluster)
        tls = client_adapter.verify_cluster(where, who, lambda path: path, trust_env=True)
        auth = client_adapter.user_auth(who)
    except (ConfigError, msgspec.ValidationError, ValueError, OSError) as error:
        # OSError covers ssl.SSLError: what should be a certificate or key is none.
        raise KubeconfigError(f"{at}: context {name!r}: {error}") from error
    exec_auth = None
    if plugin is not None and auth is None:
        auth = exec_auth = ExecAuth(plugin, cluster, tls, f"{at}: context {name!r}")
    return Connection(
        name=name,
        server=server.rstrip("/"),
        namespace=namespace,
        tls=tls,
        auth=auth,
        exec_auth=exec_auth,
        proxy=str(cluster.get("proxy-url") or "") or environment_proxy(server),
        server_name=str(cluster.get("tls-server-name") or ""),
    )


def _cleaned(entry: dict[str, Any]) -> dict[str, Any]:
    """*entry* without white space around texts, and without the file of what it also holds inline, as in kubectl."""
    return {
        key: value.strip() if isinstance(value, str) else value
        for key, value in entry.items()
        if value is not None and not entry.get(f"{key}-data")
    }


def _is_address(server: str) -> bool:
    try:
        parts = urlsplit(server)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not match, a port that is no number
        return False


def _fault(key: str, value: Any) -> str:
    """What is wrong with an entry that leads to a file or holds one, as far as OpenSSL would not say it better."""
    if not value or not isinstance(value, str):
        return ""
    if key == "token" and not (value.isascii() and value.isprintable()):
        return "token holds characters that a token can't have"
    if key in PATHS and not Path(value).is_file():
        return f"{key} {value}: no such file"
    if key.removesuffix("-data") in PATHS and key not in PATHS:
        try:
            base64.b64decode(value)
        except ValueError as error:
            return f"{key} is not base64: {error}"
    return ""


def environment_proxy(server: str) -> str | None:
    """The proxy that ``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY`` ask for; for this machine itself none, as in Go."""
    parts = urlsplit(server)
    host = parts.hostname or ""
    if host == "localhost" or host.startswith("127.") or host == "::1" or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    found = getproxies().get(parts.scheme) or getproxies().get("all")
    if found and "://" not in found:
        return f"http://{found}"
    return found


def in_cluster(folder: Path = SERVICE_ACCOUNT, environment: Mapping[str, str] = os.environ) -> Connection:
    """The connection of a pod through its service account. The token is read again when the server refuses it."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise KubeconfigError("not in a cluster: KUBERNETES_SERVICE_HOST is not set")
    if not (folder / "token").is_file():
        raise KubeconfigError(f"in-cluster: no service account token at {folder / 'token'}")
    try:
        namespace = (folder / "namespace").read_text().strip()
    except FileNotFoundError:
        namespace = "default"
    return connect(
        "in-cluster",
        namespace,
        {
            "server": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            "certificate-authority": str(folder / "ca.crt"),
        },
        {"tokenFile": str(folder / "token")},
        str(folder),
    )
