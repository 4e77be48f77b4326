"""Ports of Kubernetes services as Istio understands them.

Source: https://istio.io/latest/docs/ops/configuration/traffic-management/protocol-selection/
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from isthmus.api.discovery import EndpointPort, ServicePort
from isthmus.istio.objects import Port
from isthmus.model.problem import Problem

LARGEST_PORT = 65535
PROTOCOLS = ("HTTP", "HTTPS", "GRPC", "HTTP2", "MONGO", "TCP", "TLS")
"""What a port that a user writes may say that it speaks."""

_PROTOCOLS = {
    "grpc": "GRPC", "grpc-web": "GRPC-WEB", "http": "HTTP", "http2": "HTTP2", "https": "HTTPS", "mongo": "MONGO",
    "mysql": "MYSQL", "redis": "REDIS", "tcp": "TCP", "tls": "TLS",
}  # fmt: skip
_STANDARD_APP_PROTOCOLS = {  # KEP-3726, which Istio honours
    "kubernetes.io/h2c": "HTTP2", "kubernetes.io/ws": "HTTP", "kubernetes.io/wss": "HTTPS",
}  # fmt: skip


_SERVER_FIRST = (25, 53, 3306, 27017)  # there Istio does not wait for what a client says first


def spoken_on(port: ServicePort) -> str:
    """Istio's name of the protocol that TCP *port* says it speaks: its appProtocol, else the prefix of its name.

    Empty where it says none, so that Istio looks at what comes in.
    """
    if port.app_protocol in _STANDARD_APP_PROTOCOLS:
        return _STANDARD_APP_PROTOCOLS[port.app_protocol]
    spoken = port.app_protocol.lower()
    if not spoken:
        name = port.name.lower()
        spoken = "grpc-web" if name.startswith("grpc-web") else name.partition("-")[0]
    return _PROTOCOLS.get(spoken, "TCP" if port.port in _SERVER_FIRST else "")


def protocol_of(port: ServicePort) -> str:
    """Istio's name of the protocol of *port*: what it says it speaks, else its L4 protocol."""
    return spoken_on(port) or port.protocol or "TCP"


def name_of(port: ServicePort | EndpointPort) -> str:
    """Name of *port* in a ServiceEntry, where every port needs one: its own, else its L4 protocol.

    Source: reference, VirtualMesh behaviour, Istio objects. A Service has at most one unnamed port.
    """
    return port.name or (port.protocol or "TCP").lower()


def is_tcp(port: ServicePort) -> bool:
    """Whether *port* can be carried over mutual TLS to another cluster; UDP and SCTP cannot."""
    return (port.protocol or "TCP") == "TCP"


def istio_port(port: ServicePort) -> Port:
    """*port* as a ServiceEntry lists it."""
    return Port(number=port.port, name=name_of(port), protocol=protocol_of(port))


def is_http(port: ServicePort) -> bool:
    """Whether Istio reads requests on *port*: it speaks HTTP or gRPC, or does not say what it speaks.

    Istio looks at what comes in where nothing is said. Source: protocol selection, as above.
    """
    return is_tcp(port) and spoken_on(port) in ("", "HTTP", "HTTP2", "GRPC", "GRPC-WEB")


def range_problems(number: int, path: str) -> Iterator[Problem]:
    """What is wrong with *number*, which is at field path *path*, as that of a port."""
    if not 0 < number <= LARGEST_PORT:
        yield Problem(path, "OutOfRange", f"{number} is no port from 1 to {LARGEST_PORT}")


def number_problems(number: int, path: str, others: Collection[int]) -> Iterator[Problem]:
    """What is wrong with *number* as that of the port at field path *path*, where *others* have been named before."""
    found = tuple(range_problems(number, f"{path}.number"))
    yield from found
    if not found and number in others:
        yield Problem(f"{path}.number", "Duplicate", f"port {number} is named twice")


def protocol_problems(protocol: str, path: str) -> Iterator[Problem]:
    """What is wrong with *protocol*, empty for the usual one, as that of the port at field path *path*."""
    if protocol and protocol not in PROTOCOLS:
        yield Problem(f"{path}.protocol", "InvalidProtocol", f"{protocol} is not one of {', '.join(PROTOCOLS)}")
