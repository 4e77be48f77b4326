"""VirtualGateways as written: which connections they take, and what is wrong with them by themselves.

Source: reference, VirtualGateway; https://istio.io/latest/docs/reference/config/networking/gateway/
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any

import msgspec

from isthmus.api.common import ObjectSelector
from isthmus.api.traffic_policy import Policy
from isthmus.api.virtual_gateway import (
    ConnectionHandler,
    ConnectionMatch,
    ConnectionOptions,
    HttpHandler,
    ServerTlsMode,
    SslConfig,
    SslParameters,
    TcpHandler,
    TcpHost,
    TlsVersion,
    VirtualGateway,
    VirtualGatewaySpec,
)
from isthmus.istio import objects as istio
from isthmus.model.hosts import is_address
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.federation.gateways import DEFAULT_PORT_NAME
from isthmus.translate.gateways.connections import ListenerSettings, connection_problems, passing_of, settings_of
from isthmus.translate.gateways.guards import Guard, guard_problems, guards_of
from isthmus.translate.gateways.hosts import (
    HostFacts,
    HostKey,
    domain_problems,
    facts_of_spec,
    host_problems,
    host_warnings,
)
from isthmus.translate.gateways.routes import LARGEST_WEIGHT, Share, fields_of_route
from isthmus.translate.gateways.selection import selector_problems
from isthmus.translate.output import StatusKey
from isthmus.translate.selectors import Rule, rules_of, wrong_services
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.traffic.fields import Field, Value, policy_problems, reference_problems, service_problems

_VERSIONS = tuple(TlsVersion)  # from old to new, behind the one that leaves it open
HANDLER = "spec.connectionHandlers[0]"
ROUTES = f"{HANDLER}.http.routeConfig"
ANY_NAME = ("*",)
_TERMINATED = (ServerTlsMode.SIMPLE, ServerTlsMode.MUTUAL, ServerTlsMode.ISTIO_MUTUAL)
_WITH_CERTIFICATE = (ServerTlsMode.SIMPLE, ServerTlsMode.MUTUAL)


class Speech(Enum):
    """What can share a port: requests in plain text by their host, TLS by the name asked for, anything else alone."""

    HTTP = "HTTP"
    TLS = "TLS"
    TCP = "TCP"


_SPEECH = {"HTTP": Speech.HTTP, "HTTP2": Speech.HTTP, "GRPC": Speech.HTTP, "HTTPS": Speech.TLS, "TLS": Speech.TLS,
           "TCP": Speech.TCP, "MONGO": Speech.TCP}  # fmt: skip


class GatewayRule(msgspec.Struct, frozen=True, gc=False):
    """One way in which a VirtualGateway selects services; without a rule, services of the default gateway."""

    virtual_gateway: Ref
    rule: Rule | None
    port_name: str


class ListenerFacts(msgspec.Struct, frozen=True, gc=False):
    """A VirtualGateway without a fault of its own."""

    key: StatusKey
    seniority: Seniority
    protocol: str
    tls: istio.ServerTls | None
    bind: str
    looks_at_hosts: bool
    """Whether requests are told apart by host; otherwise connections are passed on."""
    server_names: tuple[str, ...]
    """Names that clients ask for; none for any."""
    selectors: tuple[ObjectSelector, ...]
    """Of VirtualHosts."""
    shares: tuple[Share, ...]
    """Where connections go that are passed on; none if their SNI says."""
    fields: dict[Field, Value]
    """What counts for routes of which nothing else is said."""
    guards: tuple[Guard, ...]
    """Servers that are asked about requests."""
    settings: ListenerSettings
    """What is said of all connections to its ports."""
    passing: dict[str, Any]
    """What is said of connections that are passed on, as Envoy has it."""

    @property
    def ref(self) -> Ref:
        """The VirtualGateway."""
        return self.key.ref

    @property
    def speech(self) -> Speech:
        """What shares its port."""
        return _SPEECH[self.protocol]

    @property
    def redirects(self) -> bool:
        """Whether clients are sent to https."""
        return self.tls is not None and self.tls.https_redirect


def listener_facts(gateway: VirtualGateway) -> ListenerFacts:
    """Facts of *gateway*, which has no problem."""
    spec, (handler,) = gateway.spec, gateway.spec.connection_handlers
    options = handler.connection_options or ConnectionOptions()
    match = handler.connection_match or ConnectionMatch()
    http = handler.http or HttpHandler()
    return ListenerFacts(
        key=StatusKey(gateway.KIND, gateway.metadata.namespace, gateway.metadata.name),
        seniority=seniority(gateway),
        protocol=_protocol(handler),
        tls=_tls(options),
        bind=spec.options.bind_address if spec.options else "",
        looks_at_hosts=handler.http is not None,
        server_names=() if "*" in match.server_names else tuple(dict.fromkeys(map(str.lower, match.server_names))),
        selectors=tuple(each.virtual_host_selector for each in http.route_config if each.virtual_host_selector),
        shares=_shares(handler.tcp) if handler.tcp else (),
        fields=fields_of_route(_options_of(http)),
        guards=guards_of(http.route_options) if http.route_options is not None else (),
        settings=settings_of(spec),
        passing=passing_of(handler.tcp),
    )


def gateway_rules(gateway: VirtualGateway) -> Iterator[GatewayRule]:
    """The ways in which *gateway* selects services."""
    for selector in gateway.spec.ingress_gateway_selectors:
        name = selector.port_name or DEFAULT_PORT_NAME
        if not selector.destination_selectors:
            yield GatewayRule(gateway.ref, None, name)
        else:
            yield from (GatewayRule(gateway.ref, rule, name) for rule in rules_of(selector.destination_selectors))


def inline_hosts(gateway: VirtualGateway) -> Iterator[HostFacts]:
    """The hosts that *gateway*, which has no problem, holds itself."""
    (handler,) = gateway.spec.connection_handlers
    key = StatusKey(gateway.KIND, gateway.metadata.namespace, gateway.metadata.name)
    for i, each in enumerate(handler.http.route_config if handler.http else ()):
        if each.virtual_host is not None:
            path = f"{ROUTES}[{i}].virtualHost"
            facts = facts_of_spec(each.virtual_host, HostKey(key, i), seniority(gateway), path)
            if facts is not None:
                yield facts


def _options_of(http: HttpHandler) -> Policy | None:
    """What *http* says of all routes, as a route would."""
    return Policy(csrf=http.route_options.csrf) if http.route_options is not None else None


def _protocol(handler: ConnectionHandler) -> str:
    match, options = handler.connection_match, handler.connection_options
    if match is not None and match.transport_protocol:
        return match.transport_protocol
    encrypted = options is not None and options.ssl_config is not None
    if handler.http is not None:
        return "HTTPS" if encrypted else "HTTP"
    return "TLS" if encrypted else "TCP"


def _tls(options: ConnectionOptions) -> istio.ServerTls | None:
    if options.https_redirect:
        return istio.ServerTls(https_redirect=True)
    if options.ssl_config is None:
        return None
    config, files = options.ssl_config, options.ssl_config.ssl_files
    parameters = config.parameters or SslParameters()
    return istio.ServerTls(
        mode=config.tls_mode.value,
        credential_name=config.secret_name or "",
        server_certificate=files.tls_cert if files else "",
        private_key=files.tls_key if files else "",
        ca_certificates=files.root_ca if files else "",
        subject_alt_names=config.verify_subject_alt_name,
        min_protocol_version=_version(parameters.minimum_protocol_version),
        max_protocol_version=_version(parameters.maximum_protocol_version),
        cipher_suites=parameters.cipher_suites,
    )


def _version(version: TlsVersion) -> str:
    return "" if version is TlsVersion.TLS_AUTO else version.value.upper()


def _shares(handler: TcpHandler) -> tuple[Share, ...]:
    even = not any(host.weight for host in handler.tcp_hosts)
    found = []
    for host in handler.tcp_hosts:
        action, weight = host.destination, 1 if even else host.weight
        if action is None or action.forward_sni_cluster_name is not None:
            continue
        if action.kube is not None:
            found.append(Share(action.kube.ref, (), 0, weight))
        elif action.virtual is not None:
            found.append(Share(action.virtual.ref, (), 0, weight))
        elif action.static is not None:
            found.append(Share(action.static.ref, (), 0, weight, external=True))
    return tuple(found)


# --- problems ---------------------------------------------------------------------------------------------------------


def listener_problems(spec: VirtualGatewaySpec) -> Iterator[Problem]:
    """What is wrong with a VirtualGateway that says *spec*."""
    if spec.deploy_to_ingress_gateways is not None or spec.deploy_to_sidecars:
        name = "deployToSidecars" if spec.deploy_to_sidecars else "deployToIngressGateways"
        yield Problem(f"spec.{name}", "Unsupported", "is not implemented: use ingressGatewaySelectors")
    elif not spec.ingress_gateway_selectors:
        message = "is empty: select the gateways' services, and their port by name"
        yield Problem("spec.ingressGatewaySelectors", "MissingField", message)
    for i, selector in enumerate(spec.ingress_gateway_selectors):
        path = f"spec.ingressGatewaySelectors[{i}].destinationSelectors"
        yield from wrong_services(selector.destination_selectors, path)
    if spec.options is not None and spec.options.bind_address and not is_address(spec.options.bind_address):
        message = f"{spec.options.bind_address!r} is no IP address"
        yield Problem("spec.options.bindAddress", "InvalidValue", message)
    count = len(spec.connection_handlers)
    if count != 1:
        message = f"has {count} entries: exactly one is supported; write one VirtualGateway for each"
        yield Problem("spec.connectionHandlers", "Unsupported", message)
        return
    yield from _handler_problems(spec.connection_handlers[0])


def _handler_problems(handler: ConnectionHandler) -> Iterator[Problem]:
    if handler.http is None and handler.tcp is None:
        yield Problem(HANDLER, "MissingField", "needs a handler: http or tcp")
        return
    options = handler.connection_options or ConnectionOptions()
    config = options.ssl_config
    if handler.connection_match is not None:
        for i, name in enumerate(handler.connection_match.server_names):
            yield from domain_problems(name, f"{HANDLER}.connectionMatch.serverNames[{i}]")
        if handler.connection_match.server_names and config is None:
            message = "are names that clients ask for with TLS: set connectionOptions.sslConfig too"
            yield Problem(f"{HANDLER}.connectionMatch.serverNames", "Contradiction", message)
        yield from _protocol_problems(handler, handler.connection_match.transport_protocol)
    if config is not None:
        yield from _ssl_problems(config, handler)
    if handler.http is not None:
        yield from _http_problems(handler.http)
    if handler.tcp is not None:
        if options.https_redirect:
            message = "sends clients of http to https, and this handler is tcp"
            yield Problem(f"{HANDLER}.connectionOptions.httpsRedirect", "Contradiction", message)
        yield from _tcp_problems(handler.tcp, config)
        yield from connection_problems(handler.tcp, f"{HANDLER}.tcp")


def _protocol_problems(handler: ConnectionHandler, protocol: str) -> Iterator[Problem]:
    plain = handler.connection_options is None or handler.connection_options.ssl_config is None
    if handler.http is not None:
        possible: tuple[str, ...] = ("HTTP", "HTTP2", "GRPC") if plain else ("HTTPS",)
    else:
        possible = ("TCP", "MONGO") if plain else ("TLS",)
    if protocol and protocol not in possible:
        kind, tls = "http" if handler.http is not None else "tcp", "without" if plain else "with"
        message = f"{protocol} is not possible for {kind} {tls} sslConfig: {' or '.join(possible)}"
        yield Problem(f"{HANDLER}.connectionMatch.transportProtocol", "Contradiction", message)


def _ssl_problems(config: SslConfig, handler: ConnectionHandler) -> Iterator[Problem]:
    path, mode, files = f"{HANDLER}.connectionOptions.sslConfig", config.tls_mode, config.ssl_files
    if handler.http is not None and mode not in _TERMINATED:
        message = f"{mode.value} does not decrypt, so that no request is seen: say SIMPLE, MUTUAL or ISTIO_MUTUAL"
        yield Problem(f"{path}.tlsMode", "Contradiction", message)
        return
    if mode in _WITH_CERTIFICATE and not config.secret_name and files is None:
        message = f"{mode.value} needs a certificate: set secretName, or sslFiles"
        yield Problem(path, "MissingField", message)
    if mode not in _WITH_CERTIFICATE and (config.secret_name or files is not None):
        yield Problem(path, "Contradiction", f"{mode.value} uses no certificate of the gateway's own")
    if files is not None:
        needed = {"tlsCert": files.tls_cert, "tlsKey": files.tls_key}
        if mode is ServerTlsMode.MUTUAL:
            needed["rootCa"] = files.root_ca
        for name, value in needed.items():
            if not value:
                yield Problem(f"{path}.sslFiles.{name}", "MissingField", f"{mode.value} needs the path of this file")
    if config.verify_subject_alt_name and mode is not ServerTlsMode.MUTUAL:
        message = "is about certificates of clients: they are asked for with tlsMode MUTUAL"
        yield Problem(f"{path}.verifySubjectAltName", "Contradiction", message)
    if config.parameters is not None:
        least, most = config.parameters.minimum_protocol_version, config.parameters.maximum_protocol_version
        if most is not TlsVersion.TLS_AUTO and _VERSIONS.index(least) > _VERSIONS.index(most):
            message = f"{least.value} is later than maximumProtocolVersion, {most.value}, so that nobody could connect"
            yield Problem(f"{path}.parameters.minimumProtocolVersion", "Contradiction", message)


def _http_problems(handler: HttpHandler) -> Iterator[Problem]:
    said = _options_of(handler)
    if said is not None:
        yield from policy_problems(said, f"{HANDLER}.http.routeOptions")
    if handler.route_options is not None:
        yield from guard_problems(handler.route_options, f"{HANDLER}.http.routeOptions")
    if not handler.route_config:
        yield Problem(ROUTES, "MissingField", "is empty: select VirtualHosts, or write one inline")
    for i, each in enumerate(handler.route_config):
        if each.virtual_host_selector is not None:
            yield from selector_problems(each.virtual_host_selector, f"{ROUTES}[{i}].virtualHostSelector")
        elif each.virtual_host is not None:
            yield from host_problems(each.virtual_host, f"{ROUTES}[{i}].virtualHost")
        else:
            yield Problem(f"{ROUTES}[{i}]", "MissingField", "needs virtualHostSelector or virtualHost")


def _tcp_problems(handler: TcpHandler, config: SslConfig | None) -> Iterator[Problem]:
    path = f"{HANDLER}.tcp.tcpHosts"
    if not handler.tcp_hosts:
        yield Problem(path, "MissingField", "is empty: say where connections go")
    names: set[str] = set()
    by_sni = [host for host in handler.tcp_hosts if _is_by_sni(host)]
    automatic = config is not None and config.tls_mode is ServerTlsMode.AUTO_PASSTHROUGH
    for i, host in enumerate(handler.tcp_hosts):
        at, action = f"{path}[{i}]", host.destination
        if host.name in names:
            yield Problem(f"{at}.name", "Duplicate", f"{host.name!r} is used twice")
        names.add(host.name)
        if host.weight > LARGEST_WEIGHT:
            yield Problem(f"{at}.weight", "OutOfRange", f"{host.weight} is more than {LARGEST_WEIGHT}")
        if action is None or not (action.kube or action.virtual or action.static or _is_by_sni(host)):
            message = "needs one of kube, virtual, static and forwardSniClusterName"
            yield Problem(f"{at}.destination", "MissingField", message)
        elif action.kube is not None:
            yield from service_problems(action.kube.ref, f"{at}.destination.kube")
        elif action.virtual is not None:
            yield from reference_problems(action.virtual, f"{at}.destination", "virtual")
        elif action.static is not None:
            yield from reference_problems(action.static, f"{at}.destination", "static")
    if by_sni and (len(handler.tcp_hosts) > 1 or not automatic):
        message = "forwardSniClusterName stands alone, and needs sslConfig.tlsMode AUTO_PASSTHROUGH"
        yield Problem(path, "Contradiction", message)
    elif automatic and handler.tcp_hosts and not by_sni:
        message = "AUTO_PASSTHROUGH goes by the SNI alone: set forwardSniClusterName, or another tlsMode"
        yield Problem(path, "Contradiction", message)


def _is_by_sni(host: TcpHost) -> bool:
    return host.destination is not None and host.destination.forward_sni_cluster_name is not None


# --- warnings ---------------------------------------------------------------------------------------------------------


def listener_warnings(spec: VirtualGatewaySpec) -> Iterator[str]:
    """What of a VirtualGateway that says *spec* has no effect."""
    for handler in spec.connection_handlers:
        options = handler.connection_options
        if options is not None and options.strict_filter_management:
            yield f"{HANDLER}.connectionOptions.strictFilterManagement has no effect yet"
        if handler.http is not None:
            for i, each in enumerate(handler.http.route_config):
                if each.virtual_host is not None:
                    yield from host_warnings(each.virtual_host, f"{ROUTES}[{i}].virtualHost")
