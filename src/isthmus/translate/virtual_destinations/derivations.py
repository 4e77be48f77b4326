"""Virtual destinations as derived collections: what is behind a host name, who sees it, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec

from isthmus.api.discovery import ServicePort
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.facts import MeshFacts, ServiceFacts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.hostnames import ServiceNames
from isthmus.translate.membership import DEFAULT_SUFFIX, Membership, VirtualMeshFacts
from isthmus.translate.selection import Selection
from isthmus.translate.selectors import Rule, rules_of
from isthmus.translate.traffic.routes import Reachable, Unreachable
from isthmus.translate.virtual_destinations.facts import (
    VirtualDestinationFacts,
    problems_of,
    virtual_destination_facts,
)
from isthmus.translate.virtual_destinations.objects import Backing, alias_of, is_alias, object_name


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """A virtual destination among the meshes and services that there are. With errors it has no effect."""

    facts: VirtualDestinationFacts
    virtual_mesh: Ref | None
    alias: str
    flat_network: bool
    meshes: tuple[MeshFacts, ...]
    """Who sees the host name."""
    backings: tuple[Backing, ...]
    """Those of a fixed order in that order."""
    errors: tuple[str, ...]
    later: tuple[str, ...]
    """What is not there yet."""
    warnings: tuple[str, ...]

    @property
    def works(self) -> bool:
        """Whether there is anything to write."""
        return not self.errors and bool(self.backings)


class VirtualDestinations:
    """The collections that say what virtual destinations are; `outputs` writes them."""

    def __init__(
        self,
        graph: Graph,
        *,
        virtual_destinations: Collection[Ref, VirtualDestination],
        membership: Membership,
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        cluster_domains: Collection[str, str],
        federation: Federation,
    ) -> None:
        self._membership = membership
        self._service_names = ServiceNames(services_by_identity, cluster_domains, federation)
        self._federation = federation
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "virtual destination problems", virtual_destinations, lambda _, each: problems_of(each.spec) or None
        )
        self._facts: Collection[Ref, VirtualDestinationFacts] = graph.derive(
            "virtual destinations", virtual_destinations, self._read
        )
        self._selection = Selection(
            graph, "virtual destination", virtual_destinations, rules_behind, services_by_identity
        )
        selected = graph.expand("services behind virtual destinations", services, self._select)
        self._selected: Index[Ref, tuple[Ref, Ref], ServiceFacts] = graph.index(
            "services by virtual destination", selected, first_part
        )
        self._by_hostname: Index[str, Ref, VirtualDestinationFacts] = graph.index(
            "virtual destinations by host name", self._facts, lambda _, facts: (facts.hostname,)
        )
        self.resolved: Collection[Ref, Resolved] = graph.derive(
            "resolved virtual destinations", self._facts, self._resolve
        )
        names = graph.expand("virtual host names", self.resolved, _names)
        self.addresses: Collection[str, str] = graph.operate(
            "virtual addresses", names, partial(federation.book.update, virtual=True)
        )
        self._by_object_name: Index[str, str, Ref] = graph.index(
            "virtual host names by object name", names, lambda _, virtual: (object_name(virtual),)
        )

    def object_name(self, fetch: Fetch, facts: VirtualDestinationFacts) -> str:
        """The reference's name for the objects, unless another host name's destination makes the same of other words.

        Only of what works: anything else has no objects.
        """
        name = object_name(facts.ref)
        claims = fetch.group(self._by_object_name, name)
        return name if claims[0][0] == facts.hostname else facts.hostname

    def holder(self, fetch: Fetch, hostname: str) -> Ref | None:
        """The virtual destination that *hostname* belongs to."""
        claims = fetch.group(self._by_hostname, hostname)
        return min(claims, key=lambda claim: claim[1].seniority)[0] if claims else None

    def has_object(self, fetch: Fetch, name: str) -> bool:
        """Whether objects of a virtual destination are called *name*."""
        return bool(fetch.group(self._by_object_name, name) or fetch.group(self._by_hostname, name))

    def known_on(self, fetch: Fetch, virtual: Ref, cluster: str) -> Reachable | Unreachable:
        """The host name of *virtual* as proxies of *cluster* know it."""
        resolved = fetch.get(self.resolved, virtual)
        if resolved is None:
            if fetch.get(self.problems, virtual):
                return Unreachable("VirtualDestination is INVALID")
            return Unreachable("VirtualDestination not found", later=True)
        if not resolved.works:
            return Unreachable("VirtualDestination has nothing behind it, see its status", later=True)
        if all(mesh.cluster != cluster for mesh in resolved.meshes):
            return Unreachable(f"VirtualDestination is not seen on cluster {cluster}: name its mesh in meshList")
        if not resolved.flat_network and not any(
            backing.mesh.cluster == cluster or fetch.get(self._federation.entries, backing.mesh.ref) is not None
            for backing in resolved.backings
        ):
            return Unreachable("no gateway lets calls into its clusters yet", later=True)
        ports = tuple(ServicePort(port=port.number, name=port.name, protocol="TCP") for port in resolved.facts.ports)
        return Reachable(resolved.facts.hostname, ports)

    def behind(self, fetch: Fetch, virtual: Ref) -> Iterable[Ref]:
        """The destinations behind *virtual*."""
        resolved = fetch.get(self.resolved, virtual)
        return (backing.service.ref for backing in resolved.backings) if resolved is not None else ()

    def _read(self, fetch: Fetch, ref: Ref, virtual: VirtualDestination) -> VirtualDestinationFacts | None:
        return None if fetch.get(self.problems, ref) else virtual_destination_facts(virtual)

    def _select(self, fetch: Fetch, ref: Ref, service: ServiceFacts) -> Iterable[tuple[tuple[Ref, Ref], ServiceFacts]]:
        for virtual in self._selection.of(fetch, service):
            yield (virtual, ref), service

    def _resolve(self, fetch: Fetch, ref: Ref, facts: VirtualDestinationFacts) -> Resolved:
        errors: list[str] = []
        later: list[str] = [f"Destination {s.key} not found" for _, s in fetch.group(self._selection.missing, ref)]
        warnings: list[str] = []
        group, meshes = self._group(fetch, facts, errors, later)
        backings = self._backings(fetch, ref, facts, group, errors, later, warnings) if group is not None else ()
        seen = {mesh.ref: mesh for mesh in (*meshes, *(backing.mesh for backing in backings))}
        self._claim(fetch, ref, facts, seen.values(), errors)
        if group is not None and is_alias(facts.hostname, group.suffix):
            errors.append(
                f"spec.hostname: {facts.hostname} is a name by which gateways know what is behind virtual "
                "destinations: choose another"
            )
        if any(len(followers) > 1 for _, followers in facts.failover):
            warnings += (
                f"spec.localized.failoverDirectives: the region of cluster {cluster} is not known, so of several that "
                "follow one only the first counts for calls from there"
                for cluster in sorted({mesh.cluster for mesh in seen.values() if not mesh.region})
            )
        if not facts.hostname.endswith(f".{DEFAULT_SUFFIX}"):
            warnings += (
                f"mesh {mesh.ref.key} does not have smart DNS proxying enabled: {facts.hostname} needs other DNS there"
                for mesh in seen.values()
                if not mesh.dns_proxying
            )
        if group is not None and not group.flat_network:
            for backing in backings:
                others = any(mesh.cluster != backing.mesh.cluster for mesh in seen.values())
                if others and fetch.get(self._federation.entries, backing.mesh.ref) is None:
                    where = backing.service.service
                    warnings.append(
                        f"no gateway lets calls of other clusters in to {where.name}.{where.namespace} on cluster "
                        f"{where.cluster}"
                    )
        return Resolved(
            facts=facts,
            virtual_mesh=group.ref if group is not None else None,
            alias=alias_of(ref, group.suffix) if group is not None else "",
            flat_network=group.flat_network if group is not None else False,
            meshes=tuple(seen[mesh] for mesh in sorted(seen)),
            backings=backings,
            errors=tuple(errors),
            later=tuple(later),
            warnings=tuple(warnings),
        )

    def _group(
        self, fetch: Fetch, facts: VirtualDestinationFacts, errors: list[str], later: list[str]
    ) -> tuple[VirtualMeshFacts | None, tuple[MeshFacts, ...]]:
        """The virtual mesh, and those of its meshes that are to see the host name."""
        if facts.virtual_mesh is not None:
            group = fetch.get(self._membership.facts, facts.virtual_mesh)
            if group is None:
                later.append(f"VirtualMesh {facts.virtual_mesh.key} not found")
            return group, group.members if group is not None else ()
        found = {mesh: fetch.get(self._membership.member, mesh) for mesh in facts.meshes}
        for mesh, member in found.items():
            if member is None:
                later.append(f"Mesh {mesh.key} is in no VirtualMesh")
        members = [member for member in found.values() if member is not None]
        owners = sorted({member.virtual_mesh for member in members})
        if len(owners) > 1:
            listed = " and ".join(owner.key for owner in owners)
            errors.append(f"the meshes of meshList are in different virtual meshes, {listed}")
        if not owners:
            return None, ()
        return fetch.get(self._membership.facts, owners[0]), tuple(member.mesh for member in members)

    def _backings(
        self,
        fetch: Fetch,
        ref: Ref,
        facts: VirtualDestinationFacts,
        group: VirtualMeshFacts,
        errors: list[str],
        later: list[str],
        warnings: list[str],
    ) -> tuple[Backing, ...]:
        members = {mesh.ref: mesh for mesh in group.members}
        found: list[Backing] = []
        for _, service in fetch.group(self._selected, ref):
            where = service.service
            name = f"{where.name}.{where.namespace} on cluster {where.cluster}"
            if service.mesh not in members:
                warnings.append(f"service {name} is left out, since its mesh is not in VirtualMesh {group.ref.key}")
                continue
            lacking = [port.target for port in facts.ports if port.of(service.ports) is None]
            if lacking:
                errors.append(f"service {name} has no port {' and no port '.join(lacking)}")
            found.append(Backing(service, members[service.mesh]))
        by_cluster: dict[str, list[str]] = {}
        for backing in found:
            where = backing.service.service
            by_cluster.setdefault(where.cluster, []).append(f"{where.name}.{where.namespace}")
        for cluster, names in by_cluster.items():
            if len(names) > 1:
                errors.append(
                    f"selects {len(names)} services on cluster {cluster}, where one may be: {', '.join(names)}"
                )
        if len(by_cluster) > 1 and not group.federates:
            errors.append(f"VirtualMesh {group.ref.key} does not federate, so clusters do not reach each other")
        if not found:
            later.append("selects no destination")
        return tuple(sorted(found, key=lambda each: (facts.place_of(each.service.service), each.service.ref)))

    def _claim(
        self,
        fetch: Fetch,
        ref: Ref,
        facts: VirtualDestinationFacts,
        meshes: Iterable[MeshFacts],
        errors: list[str],
    ) -> None:
        """Find who else has the host name: an older virtual destination, or a service."""
        claims = fetch.group(self._by_hostname, facts.hostname)
        holder = min((other for _, other in claims), key=lambda other: other.seniority, default=facts)
        if holder.ref != ref:
            errors.append(f"spec.hostname: {facts.hostname} already belongs to VirtualDestination {holder.ref.key}")
        owner = self._service_names.owner(fetch, facts.hostname, meshes)
        if owner is not None:
            errors.append(
                f"spec.hostname: {facts.hostname} is the name of {owner}: choose another, and send calls of the "
                "service there with a TrafficPolicy's trafficShift"
            )


def rules_behind(virtual: VirtualDestination) -> Iterable[Rule]:
    """What selects the services behind *virtual*."""
    localized, static = virtual.spec.localized, virtual.spec.static
    if static is not None:
        return (each.kube_service.ref for each in static.destinations if each.kube_service is not None)
    selectors = localized.destination_selectors if localized is not None else ()
    return rules_of(selectors) if selectors else ()


def _names(_: Fetch, ref: Ref, resolved: Resolved) -> Iterable[tuple[str, Ref]]:
    if resolved.works:
        yield resolved.facts.hostname, ref
