"""What translation reads of a VirtualDestination, and what is wrong with it by itself. Source: reference."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from isthmus.api.common import OutlierDetection
from isthmus.api.discovery import ServicePort
from isthmus.api.virtual_destination import (
    FailoverDirective,
    LocalizedFailover,
    StaticFailover,
    VirtualDestination,
    VirtualDestinationPort,
    VirtualDestinationSpec,
)
from isthmus.istio import objects as istio
from isthmus.model.hosts import is_dns_name
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.ports import is_tcp, number_problems, protocol_problems
from isthmus.translate.selectors import wrong_services
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.traffic.fields import outlier_detection, outlier_problems

OUTLIERS = OutlierDetection(
    consecutive_errors=10, interval="5s", base_ejection_time="120s", max_ejection_percent=100
)  # Source: reference, VirtualDestination.
MOST_WEIGHT = 1000


class VirtualPort(msgspec.Struct, frozen=True, gc=False):
    """A port of the host name, and the port of the services behind it: by name, or else by number."""

    number: int
    protocol: str
    target_name: str
    target_number: int

    @property
    def name(self) -> str:
        """Its name in ServiceEntries, unique among the ports of one host name."""
        return f"{self.protocol.lower()}-{self.number}"

    @property
    def target(self) -> str:
        """The port of the services, for people."""
        return self.target_name or str(self.target_number)

    def of(self, ports: tuple[ServicePort, ...]) -> ServicePort | None:
        """The port that is meant among those of a service."""
        for port in ports:
            if is_tcp(port) and (
                port.name == self.target_name if self.target_name else port.port == self.target_number
            ):
                return port
        return None


class StaticTarget(msgspec.Struct, frozen=True, gc=False):
    """A service that has a fixed place behind a host name; weight 0: it has no share, the order counts."""

    service: Ref
    weight: int


class VirtualDestinationFacts(msgspec.Struct, frozen=True, gc=False):
    """A VirtualDestination that has no fault of its own."""

    ref: Ref
    seniority: Seniority
    hostname: str
    ports: tuple[VirtualPort, ...]
    virtual_mesh: Ref | None
    """Whose meshes see it; None: *meshes* do."""
    meshes: tuple[Ref, ...]
    outliers: istio.OutlierDetection
    failover: tuple[tuple[str, tuple[str, ...]], ...]
    """Regions, and those that follow each, in their order; at least one."""
    static: tuple[StaticTarget, ...]
    """In their order; none: the nearest come first."""
    order: tuple[str, ...] = ()
    """The callers' region and those that follow it, where Istio would not know them all; see `seen_from`."""

    @property
    def shared(self) -> bool:
        """Whether calls are shared by weight, so that nothing comes first."""
        return any(target.weight for target in self.static)

    def seen_from(self, region: str) -> VirtualDestinationFacts:
        """The facts for callers in *region*: Istio takes one region that follows theirs, further ones need an order."""
        followers = next((followers for start, followers in self.failover if start == region), ())
        return msgspec.structs.replace(self, order=(region, *followers)) if len(followers) > 1 else self

    def place_of(self, service: Ref) -> int:
        """Where *service* comes among the static destinations, from 0."""
        return next((i for i, target in enumerate(self.static) if target.service == service), 0)


def virtual_destination_facts(virtual: VirtualDestination) -> VirtualDestinationFacts:
    """Facts of *virtual*."""
    spec = virtual.spec
    localized = spec.localized or LocalizedFailover()
    return VirtualDestinationFacts(
        ref=virtual.ref,
        seniority=seniority(virtual),
        hostname=spec.hostname.lower(),
        ports=tuple(_port(port) for port in ports_of(spec)),
        virtual_mesh=spec.virtual_mesh.ref if spec.virtual_mesh is not None else None,
        meshes=tuple(mesh.ref for mesh in spec.mesh_list.meshes) if spec.mesh_list is not None else (),
        outliers=outlier_detection(localized.outlier_detection or OutlierDetection(), OUTLIERS),
        failover=tuple(
            (directive.from_.region, tuple(dict.fromkeys(to.region for to in directive.to)))
            for directive in localized.failover_directives
            if directive.to
        ),
        static=tuple(
            StaticTarget(each.kube_service.ref, each.weight)
            for each in (spec.static.destinations if spec.static is not None else ())
            if each.kube_service is not None
        ),
    )


def ports_of(spec: VirtualDestinationSpec) -> tuple[VirtualDestinationPort, ...]:
    """All ports that *spec* names."""
    return (*((spec.port,) if spec.port is not None else ()), *spec.ports)


def problems_of(spec: VirtualDestinationSpec) -> tuple[Problem, ...]:
    """What is wrong with *spec* whatever services there are."""
    return tuple(_problems(spec))


def _port(port: VirtualDestinationPort) -> VirtualPort:
    return VirtualPort(
        number=port.number,
        protocol=port.protocol or "HTTP",
        target_name=port.target_name or "",
        target_number=port.target_number or port.number,
    )


def _problems(spec: VirtualDestinationSpec) -> Iterator[Problem]:
    name = spec.hostname.lower()
    if not name:
        yield Problem("spec.hostname", "MissingField", "a host name is required, such as reviews.global")
    elif not is_dns_name(name):
        yield Problem("spec.hostname", "InvalidName", f"{spec.hostname!r} is no DNS name such as reviews.global")
    elif name.rpartition(".")[2].isdigit():
        message = f"{spec.hostname!r} ends in a number, which Istio refuses: choose a name such as reviews.global"
        yield Problem("spec.hostname", "InvalidName", message)
    elif "." not in name:
        message = (
            f"Istio takes {name!r} for a service of whoever calls: choose a name with a dot, such as {name}.global"
        )
        yield Problem("spec.hostname", "InvalidName", message)
    if not ports_of(spec):
        yield Problem("spec.port", "MissingField", "a port is required: its number, and the protocol")
    numbers: set[int] = set()
    for i, port in enumerate(ports_of(spec)):
        path = "spec.port" if spec.port is not None and i == 0 else f"spec.ports[{i - (spec.port is not None)}]"
        yield from number_problems(port.number, path, numbers)
        numbers.add(port.number)
        yield from protocol_problems(port.protocol, path)
    if spec.virtual_mesh is None and not (spec.mesh_list is not None and spec.mesh_list.meshes):
        message = "nobody would see the host name: name a virtualMesh, or meshes in meshList"
        yield Problem("spec", "MissingField", message)
    if spec.static is not None:
        yield from _static_problems(spec.static)
    elif spec.localized is None:
        yield Problem("spec.localized", "MissingField", "nothing is behind the host name: say which destinations are")
    elif not spec.localized.destination_selectors:
        message = "is empty: select the destinations that are behind the host name"
        yield Problem("spec.localized.destinationSelectors", "MissingField", message)
    else:
        yield from wrong_services(spec.localized.destination_selectors, "spec.localized.destinationSelectors")
        if spec.localized.outlier_detection is not None:
            yield from outlier_problems(spec.localized.outlier_detection, "spec.localized.outlierDetection")
        yield from _directive_problems(spec.localized.failover_directives)


def _directive_problems(directives: tuple[FailoverDirective, ...]) -> Iterator[Problem]:
    starts: set[str] = set()
    for i, directive in enumerate(directives):
        path = f"spec.localized.failoverDirectives[{i}]"
        start, regions = directive.from_.region, [directive.from_.region, *(to.region for to in directive.to)]
        if not directive.to or not all(regions):
            yield Problem(path, "MissingField", "needs a region in from, and in each of at least one to")
        elif start in regions[1:]:
            yield Problem(path, "Contradiction", f"region {start} cannot follow itself")
        elif any("*" in region or "/" in region for region in regions):
            message = "takes regions by name, without a zone behind / and without *"
            yield Problem(path, "InvalidName", message)
        elif start in starts:
            message = f"region {start} is named twice: write what follows it into one directive"
            yield Problem(f"{path}.from", "Duplicate", message)
        starts.add(start)


def _static_problems(static: StaticFailover) -> Iterator[Problem]:
    path = "spec.static.destinations"
    if not static.destinations:
        yield Problem(path, "MissingField", "is empty: name the destinations that are behind the host name, in order")
    named: set[Ref] = set()
    for i, each in enumerate(static.destinations):
        found = each.kube_service.ref if each.kube_service is not None else Ref("", "", "")
        if not (found.name and found.namespace and found.cluster):
            message = "malformed kubeService: needs name, namespace and clusterName"
            yield Problem(f"{path}[{i}].kubeService", "MalformedReference", message)
        elif found in named:
            yield Problem(f"{path}[{i}].kubeService", "Duplicate", f"{found.key} is named twice")
        named.add(found)
        if each.weight > MOST_WEIGHT:
            yield Problem(f"{path}[{i}].weight", "OutOfRange", f"{each.weight} is more than {MOST_WEIGHT}")
    if len({bool(each.weight) for each in static.destinations}) > 1:
        message = "some have a weight and some have none: give one to each, or to none for a fixed order"
        yield Problem(path, "InvalidWeights", message)
