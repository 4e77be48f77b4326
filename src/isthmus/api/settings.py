"""Settings: defaults of one management plane."""

from __future__ import annotations

from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ApprovalState, MtlsPolicy
from isthmus.api.scalars import Int64
from isthmus.model.ref import Kind

GROUP = "settings.mesh.gloo.solo.io"


class GrpcServer(ApiStruct, frozen=True):
    """A gRPC server."""

    address: str = ""
    """Host and port."""
    insecure: bool = False
    """Whether it is called without TLS."""
    reconnect_on_network_failures: bool = False
    """Whether a broken connection is made again."""


class IngressGatewayDetector(ApiStruct, frozen=True):
    """How ingress gateways are recognised."""

    gateway_workload_labels: dict[str, str] = {}
    """Labels in the gateway service's pod selector; ``istio: ingressgateway`` by default."""
    gateway_tls_port_name: str = ""
    """Name of the service port for mesh traffic; ``tls`` by default."""


class IstioDiscovery(ApiStruct, frozen=True):
    """Discovery of Istio."""

    ingress_gateway_detectors: dict[str, IngressGatewayDetector] = {}
    """By cluster name or ``*``, how gateways are recognised. Deprecated: see VirtualMesh's ingressGatewaySelectors."""


class DiscoverySettings(ApiStruct, frozen=True):
    """Discovery, per kind of mesh."""

    istio: IstioDiscovery | None = None
    """Discovery of Istio."""


class RelaySettings(ApiStruct, frozen=True):
    """The relay between agents and management plane."""

    enabled: bool = False
    """Whether agents dial in. Accepted and without effect: they always do."""
    server: GrpcServer | None = None
    """Accepted and without effect."""


class SettingsSpec(ApiStruct, frozen=True):
    """Defaults of one management plane."""

    mtls: MtlsPolicy | None = None
    """TLS of generated DestinationRules unless a TrafficPolicy says otherwise; omitted leaves it to Istio."""
    networking_extension_servers: tuple[GrpcServer, ...] = ()
    """Servers that may add to or override the outputs; called in this order, later ones win."""
    discovery: DiscoverySettings | None = None
    """Discovery."""
    relay: RelaySettings | None = None
    """The relay between agents and management plane."""


class SettingsStatus(ApiStruct, frozen=True):
    """What became of the settings."""

    observed_generation: Int64 = 0
    """Generation of the Settings that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED when they are in force."""
    errors: tuple[str, ...] = ()
    """Why they are not in force."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although they are in force."""


class Settings(Resource, frozen=True):
    """Defaults of one management plane; it reads the object named ``settings`` in its own namespace."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "Settings", "settings")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("s",)
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("TLS", "string", ".spec.mtls.istio.tlsMode"),
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: settings.mesh.gloo.solo.io/v1
kind: Settings
metadata:
  name: settings
  namespace: gloo-mesh
spec:
  mtls:
    istio:
      tlsMode: ISTIO_MUTUAL
"""

    spec: SettingsSpec = SettingsSpec()
    """What the user wants."""
    status: SettingsStatus | None = None
    """What became of it."""
