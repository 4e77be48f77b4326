"""East-west gateways: through which services, at which addresses and ports, other meshes enter a mesh.

Source: reference, VirtualMesh behaviour, east-west gateways. Beyond it: Istio's own multi-cluster installation labels
its gateway ``istio: eastwestgateway``, so a mesh without a usable ingress gateway is served by that one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from isthmus.api.common import AppliedIngressGateway, IngressGatewaySelector, ObjectRef
from isthmus.api.discovery import ServiceType
from isthmus.model.names import sanitize
from isthmus.model.ref import Ref
from isthmus.translate.facts import ServiceFacts
from isthmus.translate.selectors import Term, rules_of, selects, terms_of_rule, terms_of_service

DEFAULT_PORT_NAME = "tls"
_GATEWAY_LABEL = "istio"
_GATEWAY_VALUES = ("ingressgateway", "eastwestgateway")  # in order of preference
_LABELLED: Term = ("gateway",)


class EastWestGateway(msgspec.Struct, frozen=True, gc=False):
    """A gateway in use: its service, and where other meshes reach it."""

    destination: Ref
    namespace: str
    """Of the service, and so of its pods."""
    selector: dict[str, str]
    port: int
    addresses: tuple[str, ...]
    external_port: int

    @property
    def object_name(self) -> str:
        """Name of its Istio Gateway. Source: reference, VirtualMesh behaviour, Istio objects."""
        return sanitize(f"{self.destination.name}-{self.destination.namespace}")

    def applied(self) -> AppliedIngressGateway:
        """The gateway as the Mesh's status shows it."""
        return AppliedIngressGateway(
            destination_ref=ObjectRef(name=self.destination.name, namespace=self.destination.namespace),
            external_addresses=self.addresses,
            port=self.port,
            external_port=self.external_port,
        )


class MeshGateways(msgspec.Struct, frozen=True, gc=False):
    """The gateways of one mesh, by destination, and what is wrong with those that cannot be used."""

    gateways: tuple[EastWestGateway, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def entries(self) -> tuple[tuple[str, int], ...]:
        """Every (address, port) at which the mesh is entered, each once, sorted."""
        return tuple(sorted({(address, gate.external_port) for gate in self.gateways for address in gate.addresses}))

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Where the gateways' pods are; sorted."""
        return tuple(sorted({gateway.namespace for gateway in self.gateways}))


def terms_of_candidate(service: ServiceFacts) -> Iterator[Term]:
    """Terms by which `terms_of_selectors` finds *service*; none for most: neither labelled nor fit to be a gateway."""
    labelled = _is_labelled(service)
    if labelled:
        yield _LABELLED
    if (
        labelled
        or service.type in (ServiceType.LOAD_BALANCER, ServiceType.NODE_PORT)
        or bool(service.external_addresses)
    ):
        yield from terms_of_service(service)


def terms_of_selectors(selectors: tuple[IngressGatewaySelector, ...]) -> Iterator[Term]:
    """Terms of which every service that *selectors* may choose has at least one."""
    if not selectors:
        yield _LABELLED
    for selector in selectors:
        if not selector.destination_selectors:
            yield _LABELLED
        else:
            for rule in rules_of(selector.destination_selectors):
                yield from terms_of_rule(rule)


def choose_gateways(selectors: tuple[IngressGatewaySelector, ...], candidates: Iterable[ServiceFacts]) -> MeshGateways:
    """The gateways among *candidates*, given in a fixed order.

    With selectors every selected service is a gateway and must be usable; without, the first usable one that carries a
    gateway's label. Errors name the service and what it lacks; there are none where nothing was selected.
    """
    found = _selected(selectors, candidates) if selectors else _default(candidates)
    gateways: list[EastWestGateway] = []
    errors: list[str] = []
    for service, port_name in found:
        outcome = _gateway(service, port_name)
        if isinstance(outcome, EastWestGateway):
            gateways.append(outcome)
        else:
            errors.append(outcome)
    if gateways and not selectors:
        return MeshGateways((gateways[0],))
    return MeshGateways(tuple(gateways), tuple(errors))


def nothing_selected(mesh: Ref, selectors: tuple[IngressGatewaySelector, ...]) -> str:
    """The error of a mesh without any gateway."""
    return f"no Destinations selected as ingress gateway for mesh {mesh.key} At least one must be selected: " + (
        "no service of the mesh matches federation.ingressGatewaySelectors"
        if selectors
        else f"no service selects pods labelled {_GATEWAY_LABEL}: {' or '.join(_GATEWAY_VALUES)}"
    )


def _selected(
    selectors: tuple[IngressGatewaySelector, ...], candidates: Iterable[ServiceFacts]
) -> Iterable[tuple[ServiceFacts, str]]:
    for service in candidates:
        for selector in selectors:
            if selector.destination_selectors:
                chosen = any(selects(rule, service) for rule in rules_of(selector.destination_selectors))
            else:
                chosen = _is_labelled(service)
            if chosen:
                yield service, selector.port_name or DEFAULT_PORT_NAME
                break


def _default(candidates: Iterable[ServiceFacts]) -> Iterable[tuple[ServiceFacts, str]]:
    labelled = [service for service in candidates if _is_labelled(service)]
    labelled.sort(key=lambda service: _GATEWAY_VALUES.index(service.selector[_GATEWAY_LABEL]))
    return ((service, DEFAULT_PORT_NAME) for service in labelled)


def _is_labelled(service: ServiceFacts) -> bool:
    return service.selector.get(_GATEWAY_LABEL) in _GATEWAY_VALUES


def _gateway(service: ServiceFacts, port_name: str) -> EastWestGateway | str:
    key = service.ref.key
    if not service.selector:
        return f"attempting to select ingress gateway destination {key} with no selector labels"
    port = next((port for port in service.ports if port.name == port_name), None)
    if port is None:
        names = ", ".join(port.name for port in service.ports if port.name) or "none has a name"
        return (
            f"ingress gateway destination ports info could not be determined for tls port name: {port_name}. "
            f"Service {service.service.key} has these ports: {names}"
        )
    if not service.external_addresses:
        return (
            f"ingress gateway Service {service.service.key} has no external address yet: "
            + ("its load balancer has assigned none" if service.type is ServiceType.LOAD_BALANCER else
               "it must be of type LoadBalancer or NodePort, or list externalIPs")
        )  # fmt: skip
    if service.type is ServiceType.NODE_PORT and not port.node_port:
        return f"ingress gateway Service {service.service.key} has no node port yet for its port {port_name}"
    return EastWestGateway(
        destination=service.ref,
        namespace=service.service.namespace,
        selector=service.selector,
        port=port.port,
        addresses=service.external_addresses,
        external_port=port.node_port if service.type is ServiceType.NODE_PORT else port.port,
    )
