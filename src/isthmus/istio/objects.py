"""Istio objects as values: the fields that translation sets, and nothing else.

Source of every field: https://istio.io/latest/docs/reference/config/networking/
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from isthmus.istio import kinds
from isthmus.model.ref import Kind, ObjectKey

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class _Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel", gc=False):
    """Base of every message; gc=False since values form no cycles: the collector has nothing to look for in them."""


class Metadata(_Message, frozen=True):
    """Identity and annotations. Labels of ownership are the agent's to add when it writes."""

    name: str
    namespace: str
    annotations: dict[str, str] = {}


class IstioObject(_Message, frozen=True):
    """Base of every Istio kind."""

    KIND: ClassVar[Kind]

    metadata: Metadata

    @property
    def key(self) -> ObjectKey:
        """Identity within one cluster."""
        return ObjectKey(self.KIND.api_version, self.KIND.kind, self.metadata.namespace, self.metadata.name)

    def payload(self) -> bytes:
        """The manifest as canonical JSON: equal objects have equal bytes."""
        head = f'{{"apiVersion":"{self.KIND.api_version}","kind":"{self.KIND.kind}",'
        return head.encode() + _ENCODE(self)[1:]


class Port(_Message, frozen=True):
    """A port of a ServiceEntry or Gateway; *protocol* is Istio's name in upper case."""

    number: int
    name: str
    protocol: str


class WorkloadEntry(_Message, frozen=True):
    """An endpoint of a ServiceEntry; *ports* maps port names to numbers at *address*."""

    address: str
    ports: dict[str, int] = {}
    labels: dict[str, str] = {}
    weight: int = 0


class ServiceEntrySpec(_Message, frozen=True):
    """Hosts that Istio should know, and where they are."""

    hosts: tuple[str, ...]
    addresses: tuple[str, ...] = ()
    ports: tuple[Port, ...] = ()
    location: str = ""
    resolution: str = ""
    endpoints: tuple[WorkloadEntry, ...] = ()
    export_to: tuple[str, ...] = ()


class ServiceEntry(IstioObject, frozen=True):
    """networking.istio.io ServiceEntry."""

    KIND: ClassVar[Kind] = kinds.SERVICE_ENTRY

    spec: ServiceEntrySpec


class ClientTls(_Message, frozen=True):
    """TLS settings of a DestinationRule."""

    mode: str


class TcpKeepalive(_Message, frozen=True):
    """SO_KEEPALIVE of connections to the host."""

    probes: int = 0
    time: str = ""
    interval: str = ""


class TcpSettings(_Message, frozen=True):
    """Settings of TCP connections to the host."""

    tcp_keepalive: TcpKeepalive | None = None


class ConnectionPool(_Message, frozen=True):
    """Connections to the host."""

    tcp: TcpSettings | None = None


class DestinationTraffic(_Message, frozen=True):
    """The trafficPolicy of a DestinationRule."""

    tls: ClientTls | None = None
    connection_pool: ConnectionPool | None = None


class Subset(_Message, frozen=True):
    """A named set of endpoints with these labels."""

    name: str
    labels: dict[str, str]


class DestinationRuleSpec(_Message, frozen=True):
    """How clients connect to a host."""

    host: str
    traffic_policy: DestinationTraffic | None = None
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()


class DestinationRule(IstioObject, frozen=True):
    """networking.istio.io DestinationRule."""

    KIND: ClassVar[Kind] = kinds.DESTINATION_RULE

    spec: DestinationRuleSpec


class ServerTls(_Message, frozen=True):
    """TLS settings of a gateway server."""

    mode: str


class Server(_Message, frozen=True):
    """A listener of a gateway."""

    port: Port
    hosts: tuple[str, ...]
    tls: ServerTls | None = None


class GatewaySpec(_Message, frozen=True):
    """Listeners on the pods that *selector* selects."""

    selector: dict[str, str]
    servers: tuple[Server, ...]


class Gateway(IstioObject, frozen=True):
    """networking.istio.io Gateway."""

    KIND: ClassVar[Kind] = kinds.GATEWAY

    spec: GatewaySpec
