"""What VirtualGateways say of connections that Istio's Gateway has no field for, as patches of EnvoyFilters.

Source: reference, VirtualGateway; https://istio.io/latest/docs/reference/config/networking/envoy-filter/; Envoy's API,
Listener and TcpProxy: https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from isthmus.api.discovery import ServicePort
from isthmus.api.virtual_gateway import TcpHandler, TcpProxySettings, VirtualGatewaySpec
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.traffic.fields import duration_problems

CONTEXT = "GATEWAY"
TCP_PROXY = "envoy.filters.network.tcp_proxy"
PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol"
FOR_EVER = "0s"  # of an idle time: connections may be silent for as long as they like
_TYPE = "type.googleapis.com/envoy.extensions.filters."


class ListenerSettings(msgspec.Struct, frozen=True, gc=False):
    """What is said of all connections to a port."""

    buffer_limit: int | None = None
    """Bytes that are held for a connection; None for Istio's default."""
    proxy_protocol: bool = False
    """Whether each begins with a PROXY header, which says who made it."""


def settings_of(spec: VirtualGatewaySpec) -> ListenerSettings:
    """What a VirtualGateway that says *spec* says of all connections to its ports."""
    (handler,) = spec.connection_handlers
    return ListenerSettings(
        buffer_limit=spec.options.per_connection_buffer_limit_bytes if spec.options is not None else None,
        proxy_protocol=handler.connection_options is not None and handler.connection_options.enable_proxy_protocol,
    )


def passing_of(handler: TcpHandler | None) -> dict[str, Any]:
    """What is said of connections that are passed on, as Envoy's TcpProxy has it; empty if nothing."""
    said = _proxy_settings(handler) or TcpProxySettings()
    found: dict[str, Any] = {}
    if said.max_connect_attempts is not None:
        found["max_connect_attempts"] = said.max_connect_attempts
    if said.idle_timeout:
        found["idle_timeout"] = said.idle_timeout
    if said.tunneling_config is not None:
        found["tunneling_config"] = {"hostname": said.tunneling_config.hostname}
    return found


def connection_problems(handler: TcpHandler, path: str) -> Iterator[Problem]:
    """What Envoy would refuse of what *handler*, which is at field path *path*, says of its connections."""
    said, at = _proxy_settings(handler), f"{path}.options.tcpProxySettings"
    if said is None:
        return
    if said.max_connect_attempts == 0:
        yield Problem(f"{at}.maxConnectAttempts", "OutOfRange", "0 is less than 1: no connection would be made")
    if said.idle_timeout != FOR_EVER:
        yield from duration_problems(said.idle_timeout, f"{at}.idleTimeout")
    if said.tunneling_config is not None and not said.tunneling_config.hostname:
        message = "is empty: name the host and port that the proxy is asked to connect to, such as example.com:443"
        yield Problem(f"{at}.tunnelingConfig.hostname", "MissingField", message)


Door = tuple[str, str, tuple[tuple[str, str], ...], int]
"""A port of a gateway's pods, whichever Services lead to it: cluster, namespace, labels of the pods, and the port."""


def door_of(service: ServiceFacts, port: ServicePort) -> Door | None:
    """Where what comes in at *port* of *service* arrives; None if only the pods know."""
    number, where = bound_port(port), service.service
    if number is None:
        return None
    return where.cluster, where.namespace, tuple(sorted(service.selector.items())), number


def bound_port(port: ServicePort) -> int | None:
    """The port at which a gateway's pods listen for what comes in at *port*; None if only the pods know it."""
    if port.target_port_name:
        return None
    return port.target_port_number or port.port


def listener_patches(port: int, said: ListenerSettings) -> Iterator[istio.ConfigPatch]:
    """What makes the listener at *port* do what is *said* of it."""
    match = _at(istio.ListenerMatch(port_number=port))
    if said.buffer_limit is not None:
        value: dict[str, Any] = {"per_connection_buffer_limit_bytes": said.buffer_limit}
        yield istio.ConfigPatch("LISTENER", match, istio.Patch(operation="MERGE", value=value))
    if said.proxy_protocol:
        # The mesh may have it already (gatewayTopology), and so may an object that is about to go: two would want two.
        there = _at(istio.ListenerMatch(port_number=port, listener_filter=PROXY_PROTOCOL))
        yield istio.ConfigPatch("LISTENER_FILTER", there, istio.Patch(operation="REMOVE"))
        value = {"name": PROXY_PROTOCOL, "typed_config": {"@type": f"{_TYPE}listener.proxy_protocol.v3.ProxyProtocol"}}
        yield istio.ConfigPatch("LISTENER_FILTER", match, istio.Patch(operation="INSERT_FIRST", value=value))


def passing_patches(port: int, names: Iterable[str], said: dict[str, Any]) -> Iterator[istio.ConfigPatch]:
    """What makes connections to *port* be passed on as *said*; with *names*, those that ask for one of them."""
    value = {"typed_config": {"@type": f"{_TYPE}network.tcp_proxy.v3.TcpProxy", **said}}
    for name in tuple(names) or ("",):
        chain = istio.FilterChainMatch(sni=name, filter=istio.FilterMatch(name=TCP_PROXY))
        match = _at(istio.ListenerMatch(port_number=port, filter_chain=chain))
        yield istio.ConfigPatch("NETWORK_FILTER", match, istio.Patch(operation="MERGE", value=value))


def _at(listener: istio.ListenerMatch) -> istio.ConfigMatch:
    return istio.ConfigMatch(context=CONTEXT, listener=listener)


def _proxy_settings(handler: TcpHandler | None) -> TcpProxySettings | None:
    return handler.options.tcp_proxy_settings if handler is not None and handler.options is not None else None
