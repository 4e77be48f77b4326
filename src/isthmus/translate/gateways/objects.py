"""The Istio objects of one VirtualGateway at one gateway.

Source of the layout: reference, VirtualGateway behaviour.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

import msgspec

from isthmus.api.discovery import ServicePort, ServiceType
from isthmus.istio import objects as istio
from isthmus.model.names import MAX_NAME, sanitize
from isthmus.model.ref import Ref
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.federation.objects import metadata
from isthmus.translate.gateways.connections import CONTEXT
from isthmus.translate.gateways.listeners import ListenerFacts, Speech
from isthmus.translate.output import StatusKey
from isthmus.translate.traffic.filters import RouteFilter, base_of, insertion, on_route

CHAIN = ("csrf", "ext_authz", "ratelimit")
_DIGITS = 8  # of a digest, in hex: few enough to read, and objects of one name are rare


class IngressGateway(msgspec.Struct, frozen=True, gc=False):
    """The service of a gateway, and the port at which requests come in."""

    service: ServiceFacts
    port: ServicePort

    @property
    def where(self) -> Ref:
        """The service."""
        return self.service.service

    @property
    def cluster(self) -> str:
        """The cluster that it is on."""
        return self.service.service.cluster

    @property
    def external_port(self) -> int:
        """Port at the service's external addresses."""
        return self.port.node_port if self.service.type is ServiceType.NODE_PORT else self.port.port


def gateway_name(listener: Ref, gateway: Ref) -> str:
    """Name of the Istio Gateway of VirtualGateway *listener* at the service *gateway*."""
    return object_name(listener.name, listener.namespace, gateway.name)


def host_names(host: str, owner: StatusKey, listener: Ref, gateway: Ref) -> Iterator[str]:
    """Names of VirtualServices of *host*, which *owner* is or holds, there: as many as are asked for."""
    parts = (host, owner.kind.kind, owner.namespace, owner.name, listener.name, listener.namespace, gateway.name)
    yield object_name(*parts)
    yield from (object_name(*parts, f"{number}") for number in count(1))


def object_name(*parts: str) -> str:
    """A DNS label that begins as the first of *parts* does; no two lists share one. Istio takes no other name."""
    digest = hashlib.sha256("/".join(parts).encode()).hexdigest()[:_DIGITS]
    return f"{sanitize(parts[0])[: MAX_NAME - _DIGITS - 1]}-{digest}"


def listener_object(
    listener: ListenerFacts, gateway: IngressGateway, hosts: tuple[str, ...], annotations: dict[str, str]
) -> istio.Gateway:
    """The Gateway that has *gateway* listen for *hosts*."""
    port = istio.Port(
        number=gateway.port.port, name=gateway.port.name or listener.protocol.lower(), protocol=listener.protocol
    )
    server = istio.Server(port=port, hosts=hosts, tls=listener.tls, bind=listener.bind)
    return istio.Gateway(
        metadata=metadata(gateway_name(listener.ref, gateway.where), gateway.where.namespace, annotations),
        spec=istio.GatewaySpec(selector=gateway.service.selector, servers=(server,)),
    )


def routes_object(
    name: str,
    listener: Ref,
    gateway: IngressGateway,
    domains: tuple[str, ...],
    http: tuple[istio.HttpRoute, ...],
    annotations: dict[str, str],
) -> istio.VirtualService:
    """The VirtualService called *name*, with the routes of requests for *domains*."""
    return istio.VirtualService(
        metadata=metadata(name, gateway.where.namespace, annotations),
        spec=istio.VirtualServiceSpec(hosts=domains, gateways=(_bound(listener, gateway),), http=http),
    )


def connections_object(
    listener: ListenerFacts,
    gateway: IngressGateway,
    names: tuple[str, ...],
    routes: tuple[istio.WeightedRoute, ...],
    annotations: dict[str, str],
) -> istio.VirtualService:
    """The VirtualService of connections that are not looked into: decrypted or plain ones, or by the *names* asked for.

    Istio leaves out all names if another VirtualService has one of them, so *names* are those that are left.
    """
    port = gateway.port.port
    hosts = tuple(name for name in names if not any(other != name and covers(other, name) for other in names))
    passed = listener.speech is Speech.TLS and listener.tls is not None and listener.tls.mode == "PASSTHROUGH"
    return istio.VirtualService(
        metadata=metadata(gateway_name(listener.ref, gateway.where), gateway.where.namespace, annotations),
        spec=istio.VirtualServiceSpec(
            hosts=hosts,
            gateways=(_bound(listener.ref, gateway),),
            tls=(istio.TlsRoute(match=(istio.TlsMatch(sni_hosts=hosts, port=port),), route=routes),) if passed else (),
            tcp=() if passed else (istio.TcpRoute(match=(istio.L4Match(port=port),), route=routes),),
        ),
    )


def routes_filter(
    host: str,
    gateway: IngressGateway,
    filtered: Sequence[tuple[str, tuple[RouteFilter, ...]]],
    annotations: dict[str, str],
) -> istio.EnvoyFilter:
    """Tells the pods of *gateway* what filters do on routes of *host*.

    Named after the routes, which are named after what is said: so what is new is there before routes need it, and what
    is old until none does.
    """
    name = object_name(host, *(route for route, _ in filtered), gateway.where.name)
    patches = tuple(on_route(CONTEXT, route, *said) for route, said in filtered)
    return _envoy_filter(name, gateway, patches, annotations)


def chain_filter(gateway: IngressGateway, said: RouteFilter, annotations: dict[str, str]) -> istio.EnvoyFilter:
    """Puts *said*, which does nothing by itself, into the chains of *gateway*'s pods, in the order of `CHAIN`."""
    name, patches = (
        object_name(base_of(said), said.filter, gateway.where.name),
        (insertion(CONTEXT, said, disabled=True),),
    )
    return _envoy_filter(name, gateway, patches, annotations, priority=CHAIN.index(base_of(said)))


def connections_filter(
    listener: Ref, gateway: IngressGateway, patches: tuple[istio.ConfigPatch, ...], annotations: dict[str, str]
) -> istio.EnvoyFilter:
    """Changes, by *patches*, how *gateway* takes the connections of VirtualGateway *listener*."""
    name = object_name(listener.name, "connections", listener.namespace, gateway.where.name)
    return _envoy_filter(name, gateway, patches, annotations)


def _envoy_filter(
    name: str,
    gateway: IngressGateway,
    patches: tuple[istio.ConfigPatch, ...],
    annotations: dict[str, str],
    *,
    priority: int = 0,
) -> istio.EnvoyFilter:
    return istio.EnvoyFilter(
        metadata=metadata(name, gateway.where.namespace, annotations),
        spec=istio.EnvoyFilterSpec(
            workload_selector=istio.ProxySelector(labels=gateway.service.selector),
            config_patches=patches,
            priority=priority,
        ),
    )


def _bound(listener: Ref, gateway: IngressGateway) -> str:
    return f"{gateway.where.namespace}/{gateway_name(listener, gateway.where)}"


def common_names(domains: Iterable[str], names: tuple[str, ...]) -> tuple[str, ...]:
    """What both *domains* and *names* cover, sorted; no *names* cover everything."""
    if not names:
        return tuple(sorted(set(domains)))
    found = {
        narrower
        for domain in domains
        for name in names
        for wider, narrower in ((domain, name), (name, domain))
        if covers(wider, narrower)
    }
    return tuple(sorted(found))


def apart(domains: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """*domains* in as few groups as it takes that in none of them one covers another: Istio refuses such hosts."""
    groups: list[list[str]] = []
    for domain in domains:
        fitting = (group for group in groups if not any(covers(a, domain) or covers(domain, a) for a in group))
        group = next(fitting, None)
        if group is None:
            groups.append([domain])
        else:
            group.append(domain)
    return tuple(map(tuple, groups))


def covers(wider: str, narrower: str) -> bool:
    """Whether every host that *narrower* stands for is one that *wider* stands for."""
    if wider in ("*", narrower):
        return True
    return wider.startswith("*.") and narrower.removeprefix("*").endswith(wider[1:])
