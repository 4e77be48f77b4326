"""External services as derived collections: which meshes know them, by which address, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

import msgspec

from isthmus.api.discovery import Destination, ServicePort
from isthmus.flow import Collection, Fetch, Graph, Index
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.external_services import objects
from isthmus.translate.external_services.facts import ExternalFacts, Written, external_facts, problems_of, written
from isthmus.translate.facts import MeshFacts, ServiceFacts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.hostnames import ServiceNames
from isthmus.translate.membership import Member, Membership
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.traffic.routes import Reachable, Unreachable
from isthmus.translate.virtual_destinations.derivations import VirtualDestinations
from isthmus.translate.virtual_destinations.objects import is_alias


class Placed(msgspec.Struct, frozen=True, gc=False):
    """An external service and the meshes that are to know it, sorted."""

    facts: ExternalFacts
    meshes: tuple[MeshFacts, ...]
    virtual_meshes: tuple[Ref, ...]


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """An external service among others. With errors no mesh knows it."""

    placed: Placed
    name: str
    """Of its objects."""
    errors: tuple[str, ...]
    later: tuple[str, ...]
    """What is not there yet."""
    warnings: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether there is anything to write."""
        return not self.errors and bool(self.placed.meshes)


class ExternalServices:
    """The collections that say what external services are, and the objects by which meshes know them."""

    def __init__(
        self,
        graph: Graph,
        *,
        destinations: Collection[Ref, Destination],
        membership: Membership,
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        cluster_domains: Collection[str, str],
        federation: Federation,
        virtual_destinations: VirtualDestinations,
    ) -> None:
        self._membership = membership
        self._service_names = ServiceNames(services_by_identity, cluster_domains, federation)
        self._federation = federation
        self._virtual_destinations = virtual_destinations
        self._members: Index[tuple[()], Ref, Member] = graph.index(
            "members of all virtual meshes", membership.member, lambda _, __: ((),)
        )
        self.written: Collection[Ref, Written] = graph.map("external services", destinations, written)
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "external service problems", self.written, lambda _, found: problems_of(found) or None
        )
        self._placed: Collection[Ref, Placed] = graph.derive("placed external services", self.written, self._place)
        self._by_host: Index[str, Ref, Placed] = graph.index(
            "external services by host name", self._placed, lambda _, placed: placed.facts.hosts
        )
        self._by_address: Index[str, Ref, Placed] = graph.index(
            "external services by address", self._placed, lambda _, placed: placed.facts.addresses
        )
        self._by_name: Index[str, Ref, Placed] = graph.index(
            "external services by name", self._placed, lambda _, placed: (placed.facts.name,)
        )
        self.resolved: Collection[Ref, Resolved] = graph.derive(
            "resolved external services", self._placed, self._resolve
        )
        holders = graph.expand("external services with an address", self.resolved, _holders)
        self._addresses: Collection[str, str] = graph.operate(
            "addresses of external services", holders, partial(federation.book.update, virtual=True)
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("entries of external services", self.resolved, self._write),
        )

    def known_on(self, fetch: Fetch, ref: Ref, cluster: str, *, requests: bool) -> Reachable | Unreachable:
        """*ref* as proxies of *cluster* know it, with the ports for *requests*, or else those for connections."""
        if fetch.get(self.written, ref) is None:
            return Unreachable("there is no Destination of an external service with this name yet", later=True)
        resolved = fetch.get(self.resolved, ref)
        if resolved is None or resolved.errors:
            return Unreachable("the Destination is INVALID, see its status")
        facts = resolved.placed.facts
        if all(mesh.cluster != cluster for mesh in resolved.placed.meshes):
            which = f"the VirtualMesh of its spec.mesh, {facts.mesh.key}" if facts.mesh is not None else "a VirtualMesh"
            return Unreachable(
                f"it is not known on cluster {cluster}, from where it would be called: no mesh there is in {which}"
            )
        if facts.host is None:
            return Unreachable("it has no host name without *, so that nothing tells where requests go")
        ports = facts.ports_of_requests() if requests else facts.ports
        if not ports:
            spoken = ", ".join(f"{port.number} ({port.protocol})" for port in facts.ports)
            return Unreachable(
                f"none of its ports takes plain requests, {spoken}: give it one that speaks HTTP, which endpoints lead "
                "to another number where it has to be, and a DestinationRule of yours to TLS"
            )
        # Requests can be sent to all of these, whatever else they speak.
        return Reachable(facts.host, tuple(ServicePort(port=port.number, name=port.name) for port in ports))

    def _place(self, fetch: Fetch, ref: Ref, found: Written) -> Placed | None:
        if fetch.get(self.problems, ref):
            return None
        if found.mesh is None:
            members = fetch.group(self._members, ())
            owners = sorted({member.virtual_mesh for _, member in members})
            return Placed(external_facts(found), tuple(member.mesh for _, member in members), tuple(owners))
        home = fetch.get(self._membership.member, found.mesh)
        group = fetch.get(self._membership.facts, home.virtual_mesh) if home is not None else None
        if group is None:
            return Placed(external_facts(found), (), ())
        return Placed(external_facts(found), group.members, (group.ref,))

    def _resolve(self, fetch: Fetch, ref: Ref, placed: Placed) -> Resolved:
        facts = placed.facts
        errors: list[str] = []
        for host in facts.hosts:
            said = f"spec.externalService.hosts: {host}"
            virtual = self._virtual_destinations.holder(fetch, host)
            owner = self._service_names.owner(fetch, host, placed.meshes)
            groups = (fetch.get(self._membership.facts, owner) for owner in placed.virtual_meshes)
            if any(group is not None and is_alias(host, group.suffix) for group in groups):
                errors.append(f"{said} is how gateways name what is behind virtual destinations: choose another")
            if virtual is not None:
                errors.append(f"{said} is the name of VirtualDestination {virtual.key}: choose one of the two")
            if owner is not None:
                errors.append(
                    f"{said} is the name of {owner}: choose another, and send calls of the service there with a "
                    "TrafficPolicy's trafficShift"
                )
            older = self._older(placed, fetch.group(self._by_host, host))
            if older is not None:
                errors.append(f"{said} already belongs to Destination {older.key}, which is older")
        for address in facts.addresses:
            claims = fetch.group(self._by_address, address)
            older = self._older(placed, [claim for claim in claims if claim[1].facts.mixes_with(facts)])
            if older is not None:
                errors.append(
                    f"spec.externalService.addresses: {address} has the ports of Destination {older.key}, which is "
                    "older, and calls of ports that do not speak HTTP are not told apart: leave the address out"
                )
        later: tuple[str, ...] = ()
        if not placed.meshes:
            what = (
                f"Mesh {facts.mesh.key} is in no VirtualMesh" if facts.mesh is not None else "there is no VirtualMesh"
            )
            later = (f"{what}, so no mesh knows it yet",)
        warnings = _warnings(placed)
        return Resolved(placed, self._name(fetch, placed), tuple(errors), later, tuple(warnings))

    def _name(self, fetch: Fetch, placed: Placed) -> str:
        """The reference's name for the objects, unless others make the same of other words."""
        name = placed.facts.name
        claims = fetch.group(self._by_name, name)
        taken = (
            objects.may_be_own(name)
            or self._virtual_destinations.has_object(fetch, name)
            or bool(fetch.group(self._federation.by_hostname, name))
            or self._older(placed, claims) is not None
        )
        return objects.own_name(placed.facts.ref) if taken else name

    def _older(self, placed: Placed, claims: Iterable[tuple[Ref, Placed]]) -> Ref | None:
        """The oldest of *claims* that is older than *placed* and known where that is."""
        where = {(mesh.cluster, mesh.root_namespace) for mesh in placed.meshes}
        older = [
            other.facts
            for _, other in claims
            if other.facts.seniority < placed.facts.seniority
            and any((mesh.cluster, mesh.root_namespace) in where for mesh in other.meshes)
        ]
        return min(older, key=lambda facts: facts.seniority).ref if older else None

    def _write(self, fetch: Fetch, ref: Ref, resolved: Resolved) -> Iterable[tuple[OutputKey, Output]]:
        if not resolved.works:
            return
        facts = resolved.placed.facts
        address = fetch.get(self._addresses, _holder(facts)) if facts.needs_address else None
        whose = parents(Destination.KIND, ref)
        places: dict[tuple[str, str], Ref] = {}
        for mesh in resolved.placed.meshes:
            places.setdefault((mesh.cluster, mesh.root_namespace), mesh.ref)
        for (cluster, namespace), mesh_ref in places.items():
            addresses = (address,) if address is not None else facts.addresses
            made = objects.entry(resolved.name, facts, namespace, addresses, parents_annotation(whose))
            yield OutputKey(cluster, made.key), Output(made, whose, mesh_ref)


def _holder(facts: ExternalFacts) -> str:
    """What holds the address: no host name, of which meshes that do not know each other may have the same."""
    return facts.ref.key


def _warnings(placed: Placed) -> Iterator[str]:
    """Where the generated address does not lead callers of a name to the ports that need it."""
    facts = placed.facts
    mute = [str(port.number) for port in facts.ports if port.protocol not in ("HTTP", "HTTP2", "GRPC")]
    for mesh in placed.meshes if facts.needs_address and mute else ():
        if not mesh.dns_proxying:
            yield (
                f"mesh {mesh.ref.key} does not have smart DNS proxying enabled, so that its proxies do not see that "
                f"calls of port {', '.join(mute)} are for the host name"
            )


def _holders(_: Fetch, ref: Ref, resolved: Resolved) -> Iterable[tuple[str, Ref]]:
    if resolved.works and resolved.placed.facts.needs_address:
        # Not the name alone, from which a VirtualDestination of that name has its address.
        yield _holder(resolved.placed.facts), msgspec.structs.replace(ref, name=f"{ref.name}/external")
