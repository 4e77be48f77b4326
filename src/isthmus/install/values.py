"""What a user may set about an installation: the values of ``--set`` and of values files.

Names are those of the charts that users know (reference, relay: Helm values), so that a values file can move. Only
values that the manifests honour exist here; anything else is a Problem that names the nearest known one.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import yaml

from isthmus import __version__
from isthmus.model.problem import Problem

GRPC_PORT = 9900  # where agents dial in
AGENT_GRPC_PORT = 9977  # where the proxies of the agent's cluster send metrics and access logs
AGENT_HTTP_PORT = 9988
METRICS_PORT = 9091
RUN_AS_USER = 10101

Free = dict[str, Any]
"""A part of a manifest that the user writes himself and that is merged over ours."""


class Values(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of every group of values."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Where an installation goes and which one it is; what Helm knows apart from values."""

    namespace: str = "gloo-mesh"
    version: str = __version__


RELEASE = Release()


class Image(Values, frozen=True):
    """A container image. An empty tag means the version that is installed."""

    repository: str = ""
    tag: str = ""
    pull_policy: typing.Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"


class ServerImage(Image, frozen=True):
    """The server's image."""

    repository: str = "isthmus/isthmus-server"


class ServerSecret(Values, frozen=True):
    """The Secret of the server's certificate, in the release's namespace."""

    name: str = "relay-server-tls-secret"


class SigningSecret(Values, frozen=True):
    """The Secret of the CA that signs agents' certificates, in the release's namespace."""

    name: str = "relay-tls-signing-secret"


class TokenSecret(Values, frozen=True):
    """The Secret that holds the registration token, and under which key."""

    name: str = "relay-identity-token-secret"
    key: str = "token"


class GlobalValues(Values, frozen=True):
    """What holds for every part of an installation."""

    insecure: bool = False
    """Whether the relay goes without TLS and believes every agent. Server and agents must agree."""


# --- management plane ---------------------------------------------------------------------------------------------


class ServerPorts(Values, frozen=True):
    """Ports of the Service ``enterprise-networking``."""

    grpc: int = GRPC_PORT
    http: int = 8080


class ServerWorkload(Values, frozen=True):
    """The Deployment and the Service of the server."""

    image: ServerImage = ServerImage()
    service_type: typing.Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    ports: ServerPorts = ServerPorts()
    floating_user_id: bool = False
    run_as_user: int = RUN_AS_USER
    resources: Free = msgspec.field(default_factory=lambda: {"requests": {"cpu": "125m", "memory": "256Mi"}})
    deployment_overrides: Free = {}
    service_overrides: Free = {}


class RelayCertificates(Values, frozen=True):
    """Names in the certificates that are made at install time."""

    additional_sans: tuple[str, ...] = ()
    server_common_name: str = "enterprise-networking"
    root_common_name: str = "enterprise-networking-ca"


class IstioTls(Values, frozen=True):
    """The initial TLS mode of generated DestinationRules."""

    tls_mode: typing.Literal["DISABLE", "SIMPLE", "ISTIO_MUTUAL"] = "ISTIO_MUTUAL"


class SettingsMtls(Values, frozen=True):
    """Mutual TLS of the initial Settings object."""

    istio: IstioTls = IstioTls()


class InitialSettings(Values, frozen=True):
    """The Settings object that is created with the installation."""

    mtls: SettingsMtls = SettingsMtls()


class ServerValues(Values, frozen=True):
    """Values of the server, prefixed ``enterprise-networking``."""

    self_signed: bool = True
    relay_tls_secret: ServerSecret = ServerSecret()
    signing_tls_secret: SigningSecret = SigningSecret()
    token_secret: TokenSecret = TokenSecret()
    relay: RelayCertificates = RelayCertificates()
    settings: InitialSettings = InitialSettings()
    verbose: bool = False
    default_metrics_port: int = METRICS_PORT
    enterprise_networking: ServerWorkload = ServerWorkload()


class FloatingUser(Values, frozen=True):
    """Whether the platform assigns the user id (OpenShift's restricted security context)."""

    floating_user_id: bool = False


class DashboardApiServer(Values, frozen=True):
    """The older place of the dashboard's user id."""

    apiserver: FloatingUser = FloatingUser()


class DashboardValues(Values, frozen=True):
    """Values of the dashboard, prefixed ``gloo-mesh-ui``: both spellings of its user id."""

    gloo_mesh_dashboard: DashboardApiServer = msgspec.field(default=DashboardApiServer(), name="GlooMeshDashboard")
    dashboard: FloatingUser = FloatingUser()


class ManagementPlaneValues(Values, frozen=True):
    """Everything a user may set about the management plane."""

    license_key: str = ""
    """Accepted and kept in a Secret; nothing needs it."""
    global_: GlobalValues = msgspec.field(default=GlobalValues(), name="global")
    enterprise_networking: ServerValues = msgspec.field(default=ServerValues(), name="enterprise-networking")
    gloo_mesh_ui: DashboardValues = msgspec.field(default=DashboardValues(), name="gloo-mesh-ui")

    @property
    def floating_user_id(self) -> bool:
        """Whether the platform gives the user id; the dashboard's values count, since it is served by the same pod."""
        ui = self.gloo_mesh_ui
        return (
            self.enterprise_networking.enterprise_networking.floating_user_id
            or ui.gloo_mesh_dashboard.apiserver.floating_user_id
            or ui.dashboard.floating_user_id
        )


# --- agent --------------------------------------------------------------------------------------------------------


class AgentImage(Image, frozen=True):
    """The agent's image."""

    repository: str = "isthmus/isthmus-agent"


class AgentPorts(Values, frozen=True):
    """Ports of the Service ``enterprise-agent``."""

    grpc: int = AGENT_GRPC_PORT
    http: int = AGENT_HTTP_PORT


class AgentWorkload(Values, frozen=True):
    """The Deployment and the Service of the agent."""

    image: AgentImage = AgentImage()
    ports: AgentPorts = AgentPorts()
    floating_user_id: bool = False
    run_as_user: int = RUN_AS_USER
    resources: Free = msgspec.field(default_factory=lambda: {"requests": {"cpu": "50m", "memory": "128Mi"}})
    deployment_overrides: Free = {}
    service_overrides: Free = {}


class RootSecret(Values, frozen=True):
    """The Secret of the relay's root certificate. An empty namespace is the release's."""

    name: str = "relay-root-tls-secret"
    namespace: str = ""


class ClientSecret(Values, frozen=True):
    """The Secret in which the agent keeps its certificate. An empty namespace is the release's."""

    name: str = "relay-client-tls-secret"
    namespace: str = ""


class AgentTokenSecret(Values, frozen=True):
    """The Secret that holds the registration token, and under which key. An empty namespace is the release's."""

    name: str = "relay-identity-token-secret"
    namespace: str = ""
    key: str = "token"


class AgentRelay(Values, frozen=True):
    """How the agent reaches the server and proves who it is."""

    cluster: str = ""
    """The registered name; required."""
    server_address: str = ""
    """``host:port`` of the server; required."""
    authority: str = "enterprise-networking.gloo-mesh"
    """Name that the server's certificate must carry: ``enterprise-networking.<its namespace>``."""
    insecure: bool = False
    root_tls_secret: RootSecret = RootSecret()
    client_cert_secret: ClientSecret = ClientSecret()
    token_secret: AgentTokenSecret = AgentTokenSecret()


class AgentValues(Values, frozen=True):
    """Everything a user may set about an agent."""

    global_: GlobalValues = msgspec.field(default=GlobalValues(), name="global")
    relay: AgentRelay = AgentRelay()
    verbose: bool = False
    default_metrics_port: int = METRICS_PORT
    enterprise_agent: AgentWorkload = AgentWorkload()


# --- reading ------------------------------------------------------------------------------------------------------

V = TypeVar("V", ManagementPlaneValues, AgentValues)


def known_keys(values: type[msgspec.Struct]) -> tuple[str, ...]:
    """Every key that ``--set`` takes for *values*, dotted, sorted; free parts end in ``.*``."""
    return tuple(sorted(_keys(values)))


def read_values(values: type[V], documents: Sequence[Mapping[str, Any]], settings: Sequence[str] = ()) -> V | Problem:
    """*values* from *documents* (values files, later ones win) and *settings* (``a.b=c``, which win over files).

    The Problem's path is the dotted key.
    """
    merged: Free = {}
    for document in documents:
        merged = merge(merged, document, keep_null=True)
    free = tuple(key[:-1] for key in known_keys(values) if key.endswith(".*"))
    for setting in settings:
        parsed = parse_setting(setting, free)
        if isinstance(parsed, Problem):
            return parsed
        merged = merge(merged, parsed, keep_null=True)
    merged = _defaulted(merged, free)
    if (unknown := _unknown_key(merged, known_keys(values))) is not None:
        return unknown
    try:
        # Not strict: a values file may quote a number, as Helm's users do.
        found = msgspec.convert(merged, values, strict=False)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `$.")
        return Problem(path.rstrip("`"), "InvalidValue", message)
    return _lacking(found) or found


def parse_setting(setting: str, free: tuple[str, ...] = ()) -> Free | Problem:
    """The document that ``--set`` text such as ``a.b=1,c={x,y}`` stands for.

    Values stay text, which their types read later; under the prefixes *free*, which have no type, YAML's scalars count.
    A backslash takes the meaning from the next dot, comma or ``=``. Source: Helm's ``--set``.
    """
    document: Free = {}
    for part in _split(setting, ","):
        key, *value = _split(part, "=", 1)
        path = [_unescape(step) for step in _split(key, ".")]
        if not value or not all(path):
            return Problem(setting, "InvalidSetting", f"{setting!r} is not of the form key=value")
        leaf: Any = _value(value[0], typed=not key.startswith(free))
        for step in reversed(path):
            leaf = {step: leaf}
        document = merge(document, leaf, keep_null=True)
    return document


def merge(base: Mapping[str, Any], over: Mapping[str, Any], *, keep_null: bool = False) -> Free:
    """*base* with every field of *over* in it: objects are merged, anything else is replaced, null removes.

    *keep_null* is for two documents that are both yet to be merged over a third.
    """
    merged = dict(base)
    for key, value in over.items():
        if value is None and not keep_null:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            below = merged.get(key)
            merged[key] = merge(below if isinstance(below, Mapping) else {}, value, keep_null=keep_null)
        else:
            merged[key] = value
    return merged


def _keys(values: type[msgspec.Struct]) -> Iterator[str]:
    for field in msgspec.structs.fields(values):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from (f"{field.encode_name}.{key}" for key in _keys(field.type))
        else:
            yield f"{field.encode_name}.*" if field.type == Free else field.encode_name


def _defaulted(document: Mapping[str, Any], free: tuple[str, ...], prefix: str = "") -> Free:
    """*document* without nulls, which mean the default; under the prefixes *free* they mean what the user wants."""
    return {
        key: _defaulted(value, free, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in document.items()
        if value is not None or prefix.startswith(free)
    }


def _lacking(values: ManagementPlaneValues | AgentValues) -> Problem | None:
    """What is required and not set, or set to nonsense."""
    if isinstance(values, ManagementPlaneValues):
        return None
    relay = values.relay
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?", relay.cluster):
        found = f"{relay.cluster!r} is not a cluster name" if relay.cluster else "missing"
        return Problem("relay.cluster", "InvalidValue", f"{found}; it is lower case letters, digits, '-' and '.'")
    host, colon, port = relay.server_address.rpartition(":")
    if "/" in relay.server_address or not (host and colon and port.isdecimal()) or (":" in host and host[0] != "["):
        found = f"{relay.server_address!r} is not host:port" if relay.server_address else "missing"
        return Problem(
            "relay.serverAddress", "InvalidValue", f"{found}; write for example 192.0.2.1:9900 without a scheme"
        )
    return None


def _unknown_key(document: Mapping[str, Any], known: Sequence[str]) -> Problem | None:
    for key in _leaves(document):
        if not any(
            key == name or name.startswith(f"{key}.") or (name.endswith(".*") and key.startswith(name[:-1]))
            for name in known
        ):
            return Problem(key, "UnknownValue", f"no value has this name; {_nearest(key, known)}")
    return None


def _nearest(key: str, known: Sequence[str]) -> str:
    # The last step counts as much as the whole: users forget the prefix of a subchart more often than they mistype.
    def likeness(name: str) -> float:
        whole = difflib.SequenceMatcher(None, key.lower(), name.lower()).ratio()
        last = difflib.SequenceMatcher(None, key.lower().split(".")[-1], name.lower().split(".")[-1]).ratio()
        return whole + last

    return f"the nearest is {max(known, key=likeness)}"


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """*text* at every *separator* that no backslash precedes and no braces enclose, at most *most* times."""
    parts, start, depth, index = [], 0, 0, 0
    while index < len(text):
        character = text[index]
        if character == "\\":
            index += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
        elif character == separator and depth == 0 and most != 0:
            parts.append(text[start:index])
            start, most = index + 1, most - 1
        index += 1
    return [*parts, text[start:]]


def _unescape(text: str) -> str:
    escaped = False
    result = []
    for character in text:
        if character == "\\" and not escaped:
            escaped = True
            continue
        result.append(character)
        escaped = False
    return "".join(result)


def _value(text: str, *, typed: bool) -> Any:
    if text.startswith("{") and text.endswith("}"):
        return [_value(item, typed=typed) for item in _split(text[1:-1], ",") if item]
    if text == "null" or (not typed and (text in ("true", "false") or text.lstrip("-").isdecimal())):
        return yaml.safe_load(text)
    return _unescape(text)
