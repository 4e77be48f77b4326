"""Federation as derived collections: from services and virtual meshes to names, gateways and outcomes."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from isthmus.api.common import IngressGatewaySelector
from isthmus.flow import Collection, Fetch, Graph, Index
from isthmus.model.hosts import MAX_HOSTNAME, MAX_LABEL
from isthmus.model.ref import Ref
from isthmus.translate.facts import (
    MeshFacts,
    ServiceFacts,
)
from isthmus.translate.federation import objects
from isthmus.translate.federation.addresses import AddressBook
from isthmus.translate.federation.gateways import (
    MeshGateways,
    choose_gateways,
    nothing_selected,
    terms_of_candidate,
    terms_of_selectors,
)
from isthmus.translate.federation.objects import Federated
from isthmus.translate.membership import DEFAULT_SUFFIX, Membership, VirtualMeshFacts
from isthmus.translate.ports import is_tcp
from isthmus.translate.selectors import Term, rules_of, selects, terms_of_service


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How the federation of one destination ended; no errors means accepted."""

    virtual_mesh: Ref
    errors: tuple[str, ...] = ()


class Federation:
    """The collections that say which destinations are known on which meshes, by which names and gateways."""

    def __init__(
        self,
        graph: Graph,
        *,
        membership: Membership,
        meshes: Collection[Ref, MeshFacts],
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        addresses: Mapping[str, str],
    ) -> None:
        self._membership = membership
        self._services_by_identity = services_by_identity
        self.book = AddressBook(addresses)

        self._candidates: Index[tuple[Ref, Term], Ref, ServiceFacts] = graph.index(
            "gateway candidates by mesh and term",
            services,
            lambda _, service: ((service.mesh, term) for term in terms_of_candidate(service)),
        )
        self.gateways: Collection[Ref, MeshGateways] = graph.derive("east-west gateways", meshes, self._gateways)
        # All that a destination reads of its gateways; none is absent.
        self.entries: Collection[Ref, tuple[tuple[str, int], ...]] = graph.map(
            "gateway entries", self.gateways, lambda _, gateways: gateways.entries or None
        )
        self.gateway_namespaces: Collection[Ref, tuple[str, ...]] = graph.map(
            "gateway namespaces", self.gateways, lambda _, gateways: gateways.namespaces or None
        )

        self.federated: Collection[Ref, Federated] = graph.derive("federated services", services, self._federate)
        self.by_hostname: Index[str, Ref, Federated] = graph.index(
            "federated by host name", self.federated, lambda _, federated: (federated.hostname,)
        )
        # Two destinations may claim one host name; the one whose reference sorts first holds it.
        self._holders: Collection[str, tuple[Ref, Ref]] = graph.derive(
            "host name holders", self.by_hostname, lambda _, __, claims: (claims[0][0], claims[0][1].service.service)
        )
        identities = graph.map("host name identities", self._holders, lambda _, holder: holder[1])
        self.addresses: Collection[str, str] = graph.operate("addresses", identities, self.book.update)
        self._by_rule_name: Index[str, str, tuple[Ref, Ref]] = graph.index(
            "host names by rule name", self._holders, lambda _, holder: (objects.rule_name(holder[1]),)
        )
        self.outcomes: Collection[Ref, Outcome] = graph.derive("federation outcomes", self.federated, self._outcome)

    def _gateways(self, fetch: Fetch, ref: Ref, mesh: MeshFacts) -> MeshGateways | None:
        virtual_mesh = self.virtual_mesh_of(fetch, ref)
        if virtual_mesh is None or virtual_mesh.flat_network:
            return None
        selectors = virtual_mesh.gateway_selectors
        # A revision without a gateway of its own uses that of one beside it, or else services that move to a new
        # revision before their gateway does could not be reached.
        for owner in (mesh, *(other for other in virtual_mesh.members if other.ref != ref and _beside(other, mesh))):
            chosen = choose_gateways(selectors, self._gateway_candidates(fetch, owner.ref, selectors))
            if chosen.gateways or chosen.errors:
                return chosen
        return MeshGateways(errors=(nothing_selected(ref, selectors),))

    def _gateway_candidates(
        self, fetch: Fetch, mesh: Ref, selectors: tuple[IngressGatewaySelector, ...]
    ) -> list[ServiceFacts]:
        candidates = {
            service.ref: service
            for term in terms_of_selectors(selectors)
            for _, service in fetch.group(self._candidates, (mesh, term))
        }
        # A service that is chosen by name but cannot be a gateway must be found all the same, to say why.
        named = (rule for each in selectors for rule in rules_of(each.destination_selectors) if isinstance(rule, Ref))
        for service in named:
            for _, found in fetch.group(self._services_by_identity, service):
                if found.mesh == mesh:
                    candidates[found.ref] = found
        return [candidates[service] for service in sorted(candidates)]

    def virtual_mesh_of(self, fetch: Fetch, mesh: Ref) -> VirtualMeshFacts | None:
        """The virtual mesh that federates destinations of *mesh*, None if none does."""
        group = self._membership.group_of(fetch, mesh)
        return group if group is not None and group.federates else None

    def _federate(self, fetch: Fetch, _: Ref, service: ServiceFacts) -> Federated | None:
        virtual_mesh = self.virtual_mesh_of(fetch, service.mesh)
        if virtual_mesh is None or not any(is_tcp(port) for port in service.ports):
            return None
        where = service.service
        home = next(mesh for mesh in virtual_mesh.members if mesh.ref == service.mesh)
        # A revision beside the service's own shares its root namespace, whose gateways must not see an entry for
        # clients too. What lets calls in is in the service's namespace, where no other of its name can be.
        targets = tuple(
            mesh
            for mesh in virtual_mesh.members
            if mesh.ref != service.mesh
            and (mesh.cluster != where.cluster or mesh.root_namespace not in (home.root_namespace, where.namespace))
            and (virtual_mesh.suffix == DEFAULT_SUFFIX or mesh.dns_proxying)
        )
        if not virtual_mesh.everything:
            chosen = self._chosen_meshes(fetch, service, virtual_mesh)
            if chosen is not None:
                targets = tuple(mesh for mesh in targets if mesh.ref in chosen)
        if not targets:
            return None
        return Federated(
            service=service,
            virtual_mesh=virtual_mesh.ref,
            hostname=f"{where.name}.{where.namespace}.svc.{where.cluster}.{virtual_mesh.suffix}",
            suffix=virtual_mesh.suffix,
            home=home,
            targets=targets,
            flat_network=virtual_mesh.flat_network,
            keepalive=virtual_mesh.keepalive,
        )

    def _chosen_meshes(self, fetch: Fetch, service: ServiceFacts, virtual_mesh: VirtualMeshFacts) -> set[Ref] | None:
        """The meshes to which the selectors federate *service*; None means all members."""
        chosen: set[Ref] = set()
        for term in terms_of_service(service):
            for _, rule in fetch.group(self._membership.rules_by_term, (virtual_mesh.ref, term)):
                if selects(rule.rule, service):
                    if rule.meshes is None:
                        return None
                    chosen.update(rule.meshes)
        return chosen

    def known_abroad(self, fetch: Fetch, ref: Ref) -> Federated | None:
        """How destination *ref* is known on other meshes, None if it is not: another one may hold its host name."""
        federated = fetch.get(self.federated, ref)
        if federated is None or _too_long(federated.hostname):
            return None
        holder = fetch.get(self._holders, federated.hostname)
        return federated if holder is not None and holder[0] == ref else None

    def has_way(self, fetch: Fetch, federated: Federated) -> bool:
        """Whether calls of other meshes can come in."""
        return federated.flat_network or fetch.get(self.entries, federated.service.mesh) is not None

    def rule_name(self, fetch: Fetch, federated: Federated) -> str:
        """The reference's name for the rule, unless another host name makes the same of other words."""
        name = objects.rule_name(federated.service.service)
        claims = fetch.group(self._by_rule_name, name)
        return name if claims[0][0] == federated.hostname else federated.hostname

    def _outcome(self, fetch: Fetch, ref: Ref, federated: Federated) -> Outcome:
        errors: list[str] = []
        holder = fetch.get(self._holders, federated.hostname)
        if holder is not None and holder[0] != ref:
            errors.append(
                f"host name {federated.hostname} already belongs to Destination {holder[0].key} "
                "Remove one of the two, or federate only one with federation.selectors"
            )
        if _too_long(federated.hostname):
            errors.append(
                f"host name {federated.hostname} is longer than DNS allows ({MAX_HOSTNAME} characters, {MAX_LABEL} "
                "between dots): shorten federation.hostnameSuffix, or leave the service out with federation.selectors"
            )
        if not self.has_way(fetch, federated):
            errors.append(f"istio mesh {federated.home.ref.key} has no applied east west ingress gateways")
        return Outcome(federated.virtual_mesh, tuple(errors))


def _beside(one: MeshFacts, other: MeshFacts) -> bool:
    """Whether two meshes are revisions that read one root namespace."""
    return (one.cluster, one.root_namespace) == (other.cluster, other.root_namespace)


def _too_long(hostname: str) -> bool:
    return len(hostname) > MAX_HOSTNAME or any(len(label) > MAX_LABEL for label in hostname.split("."))
