"""What a user may set about an installation: the values of ``--set`` and of values files, of `meshctl` and of Helm.

Names are those of the charts that users know (reference, relay: Helm values), so that a values file can move. Only
values that the charts honour exist here; anything else is a Problem that names the nearest known one. The charts'
``values.yaml`` and ``values.schema.json`` are generated from these types and their docstrings.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

GRPC_PORT = 9900  # where agents dial in
AGENT_GRPC_PORT = 9977  # where the proxies of the agent's cluster send metrics and access logs
AGENT_HTTP_PORT = 9988
METRICS_PORT = 9091
RUN_AS_USER = 10101

CLUSTER_NAME = r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?"
SERVER_ADDRESS = r"(\[[0-9A-Fa-f:.]+\]|[-A-Za-z0-9._]+):[0-9]+"

Free = dict[str, Any]
"""A part of a manifest that the user writes himself and that is merged over ours."""


def _text(pattern: str) -> msgspec.Meta:
    """Only for the schema: an empty text is asked for by the chart, and `reading` says the same in better words."""
    return msgspec.Meta(extra_json_schema={"pattern": f"^({pattern})?$"})


Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
UserId = Annotated[int, msgspec.Meta(ge=1)]
AnyScalar = Annotated[str, msgspec.Meta(extra_json_schema={"type": ["string", "number", "boolean"]})]
"""Text for which Helm's ``--set`` may take a number: nothing depends on how it is written."""


class Values(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    """Base of every group of values."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """Where an installation goes; what Helm knows apart from values."""

    namespace: str = "gloo-mesh"


RELEASE = Release()


class Image(Values, frozen=True):
    """The container image."""

    repository: str = ""
    """Where it is, without a tag."""
    tag: str = ""
    """Empty: the version of the chart."""
    pull_policy: typing.Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes pull it."""


class ServerImage(Image, frozen=True):
    """The server's image."""

    repository: str = "isthmus/isthmus-server"


class ServerSecret(Values, frozen=True):
    """The Secret of the server's certificate, in the release's namespace."""

    name: str = "relay-server-tls-secret"
    """Its name."""


class SigningSecret(Values, frozen=True):
    """The Secret of the CA that signs agents' certificates, in the release's namespace."""

    name: str = "relay-tls-signing-secret"
    """Its name."""


class TokenSecret(Values, frozen=True):
    """The Secret of the registration token, in the release's namespace."""

    name: str = "relay-identity-token-secret"
    """Its name."""
    key: str = "token"
    """Under which key the token is."""


class GlobalValues(Values, frozen=True):
    """What holds for every part of an installation."""

    insecure: bool = False
    """Whether the relay goes without TLS and believes every agent. Server and agents must agree."""


# --- management plane ---------------------------------------------------------------------------------------------


class ServerPorts(Values, frozen=True):
    """Ports of the server."""

    grpc: Port = GRPC_PORT
    """Where agents connect; the only port of Service `enterprise-networking`."""
    http: Port = 8080
    """Reserved for the dashboard; of Service `enterprise-networking-admin`."""


class ServerWorkload(Values, frozen=True):
    """The Deployment and the Service of the server."""

    image: ServerImage = ServerImage()
    service_type: typing.Literal["LoadBalancer", "NodePort", "ClusterIP"] = "LoadBalancer"
    """How agents of other clusters reach the Service."""
    ports: ServerPorts = ServerPorts()
    floating_user_id: bool = False
    """Whether the platform assigns the user id, as OpenShift does."""
    run_as_user: UserId = RUN_AS_USER
    """The user id, unless it is floating. Any but 0 will do."""
    resources: Free = msgspec.field(default_factory=lambda: {"requests": {"cpu": "125m", "memory": "256Mi"}})
    """Resources of the container."""
    deployment_overrides: Free = {}
    """Merged over the Deployment; null removes a field."""
    service_overrides: Free = {}
    """Merged over the Service `enterprise-networking`; null removes a field."""


class RelayCertificates(Values, frozen=True):
    """Names in the relay's certificates, where these are made at the installation."""

    additional_sans: tuple[str, ...] = ()
    """DNS names of the server besides `*.<namespace>`."""
    server_common_name: str = "enterprise-networking"
    """Common name of the server's certificate."""
    root_common_name: str = "enterprise-networking-ca"
    """Common name of the relay's root."""


class IstioTls(Values, frozen=True):
    """TLS between Istio's proxies."""

    tls_mode: typing.Literal["DISABLE", "SIMPLE", "ISTIO_MUTUAL"] = "ISTIO_MUTUAL"
    """TLS mode of DestinationRules."""


class SettingsMtls(Values, frozen=True):
    """Mutual TLS."""

    istio: IstioTls = IstioTls()


class InitialSettings(Values, frozen=True):
    """The Settings object that the installation creates. It is the users' from then on."""

    mtls: SettingsMtls = SettingsMtls()


class ServerValues(Values, frozen=True):
    """The server and its relay."""

    self_signed: bool = True
    """Whether the installation makes the relay's Secrets that are missing. If not, they must exist before it."""
    relay_tls_secret: ServerSecret = ServerSecret()
    signing_tls_secret: SigningSecret = SigningSecret()
    token_secret: TokenSecret = TokenSecret()
    relay: RelayCertificates = RelayCertificates()
    settings: InitialSettings = InitialSettings()
    verbose: bool = False
    """Whether debug messages are logged."""
    default_metrics_port: Port = METRICS_PORT
    """Health, metrics and snapshots; of Service `enterprise-networking-admin`."""
    enterprise_networking: ServerWorkload = ServerWorkload()


class DashboardServer(Values, frozen=True):
    """The dashboard is served by the server's pod; this is an older place of its value."""

    floating_user_id: bool = False
    """As `enterprise-networking.enterpriseNetworking.floatingUserId`."""


class DashboardParts(Values, frozen=True):
    """The older name of the dashboard."""

    apiserver: DashboardServer = DashboardServer()


class DashboardValues(Values, frozen=True):
    """The dashboard."""

    gloo_mesh_dashboard: DashboardParts = msgspec.field(default=DashboardParts(), name="GlooMeshDashboard")
    dashboard: DashboardServer = DashboardServer()


class ManagementPlaneValues(Values, frozen=True):
    """Everything a user may set about the management plane."""

    license_key: AnyScalar = ""
    """Accepted and kept in a Secret; nothing needs it."""
    global_: GlobalValues = msgspec.field(default=GlobalValues(), name="global")
    enterprise_networking: ServerValues = msgspec.field(default=ServerValues(), name="enterprise-networking")
    gloo_mesh_ui: DashboardValues = msgspec.field(default=DashboardValues(), name="gloo-mesh-ui")


# --- agent --------------------------------------------------------------------------------------------------------


class AgentImage(Image, frozen=True):
    """The agent's image."""

    repository: str = "isthmus/isthmus-agent"


class AgentPorts(Values, frozen=True):
    """Ports of the Service `enterprise-agent`, for the proxies of the cluster."""

    grpc: Port = AGENT_GRPC_PORT
    """Where proxies send metrics and access logs; Istio's mesh configuration names it."""
    http: Port = AGENT_HTTP_PORT
    """Reserved."""


class AgentWorkload(Values, frozen=True):
    """The Deployment and the Service of the agent."""

    image: AgentImage = AgentImage()
    ports: AgentPorts = AgentPorts()
    verify_workloads: bool = True
    """Whether the agent connects to the mesh's pods to see which certificates they present."""
    floating_user_id: bool = False
    """Whether the platform assigns the user id, as OpenShift does."""
    run_as_user: UserId = RUN_AS_USER
    """The user id, unless it is floating. Any but 0 will do."""
    resources: Free = msgspec.field(default_factory=lambda: {"requests": {"cpu": "50m", "memory": "128Mi"}})
    """Resources of the container."""
    deployment_overrides: Free = {}
    """Merged over the Deployment; null removes a field."""
    service_overrides: Free = {}
    """Merged over the Service; null removes a field."""


class RootSecret(Values, frozen=True):
    """The Secret of the relay's root certificate (`ca.crt`)."""

    name: str = "relay-root-tls-secret"
    """Its name."""
    namespace: str = ""
    """Empty: the release's."""


class ClientSecret(Values, frozen=True):
    """The Secret in which the agent keeps its certificate."""

    name: str = "relay-client-tls-secret"
    """Its name."""
    namespace: str = ""
    """Empty: the release's."""


class AgentTokenSecret(Values, frozen=True):
    """The Secret of the registration token, which is needed until the agent has a certificate."""

    name: str = "relay-identity-token-secret"
    """Its name."""
    namespace: str = ""
    """Empty: the release's."""
    key: str = "token"
    """Under which key the token is."""


class AgentRelay(Values, frozen=True):
    """How the agent reaches the server and proves who it is."""

    cluster: Annotated[str, _text(CLUSTER_NAME)] = ""
    """Required: the name under which the cluster is registered."""
    server_address: Annotated[str, _text(SERVER_ADDRESS)] = ""
    """Required: `host:port` of the server, without a scheme."""
    authority: str = "enterprise-networking.gloo-mesh"
    """Name that the server's certificate must carry: `enterprise-networking.<its namespace>`."""
    insecure: bool = False
    """As `global.insecure`."""
    root_tls_secret: RootSecret = RootSecret()
    client_cert_secret: ClientSecret = ClientSecret()
    token_secret: AgentTokenSecret = AgentTokenSecret()


class AgentValues(Values, frozen=True):
    """Everything a user may set about an agent."""

    global_: GlobalValues = msgspec.field(default=GlobalValues(), name="global")
    relay: AgentRelay = AgentRelay()
    verbose: bool = False
    """Whether debug messages are logged."""
    default_metrics_port: Port = METRICS_PORT
    """Health, metrics and snapshots."""
    enterprise_agent: AgentWorkload = AgentWorkload()


def document(values: Values) -> Mapping[str, Any]:
    """*values* as the charts' templates see them, defaults included."""
    found: Mapping[str, Any] = msgspec.to_builtins(values)
    return found
