"""What the engine makes of access alone: the AuthorizationPolicies of every cluster, and who knows which destination.

It is for questions about a fleet on paper, which are not to wait for routes, certificates and statuses. The steps are
those of `translate.engine`, of which a test holds that both come to the same.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.discovery import Destination, Mesh
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.flow import Graph, Source
from isthmus.model.ref import Kind, Ref
from isthmus.translate.access.derivations import Access, Applied
from isthmus.translate.access.rules import Domains
from isthmus.translate.external_services.derivations import ExternalServices
from isthmus.translate.facts import cluster_domain, mesh_facts, service_facts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.gateways.derivations import Gateways
from isthmus.translate.membership import Membership
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.traffic.reach import Reach
from isthmus.translate.virtual_destinations.derivations import VirtualDestinations

INPUTS: tuple[type[Resource], ...] = (
    Mesh, Destination, KubernetesCluster, VirtualMesh, AccessPolicy, VirtualGateway, VirtualDestination,
)  # fmt: skip


class Emitted(msgspec.Struct, frozen=True):
    """What clusters are told about access, at one instant."""

    policies: dict[OutputKey, Output]
    known_to: dict[Ref, frozenset[Ref]]
    """The meshes that know a Destination beside its own, also by the name of a VirtualDestination; absent for none."""
    trouble: dict[Ref, tuple[str, ...]]
    """Why the federation of a Destination failed, for those whose did."""
    applied: dict[Ref, Applied]
    """By Destination, the AccessPolicies that apply to it."""
    domains: dict[Ref, Domains]
    """By mesh, the trust domains of those that can call it."""


class Emission:
    """Translation of access, kept up to date."""

    def __init__(self, kinds: Collection[type[Resource]] = INPUTS, namespace: str = "gloo-mesh") -> None:
        """*kinds* are those of which there are objects, now or later: steps for others are left out.

        *namespace* is the management namespace, whose KubernetesClusters count.
        """
        graph = self._graph = Graph()
        self._sources: dict[Kind, Source[Ref, Any]] = {kind.KIND: graph.source(kind.KIND.plural) for kind in INPUTS}
        meshes = graph.map("mesh facts", self._sources[Mesh.KIND], mesh_facts)
        services = graph.map("services", self._sources[Destination.KIND], service_facts)
        by_identity = graph.index("services by identity", services, lambda _, service: (service.service,))
        virtual_meshes = self._sources[VirtualMesh.KIND]
        membership = Membership(graph, virtual_meshes, meshes, by_identity)
        self._federation = Federation(
            graph,
            membership=membership,
            meshes=meshes,
            services=services,
            services_by_identity=by_identity,
            addresses={},
        )
        # What costs a look at every service is made only where there is something that may select it.
        nothing: Source[Any, Any] = graph.source("what access does not depend on")
        domains = graph.expand(
            "cluster domains", self._sources[KubernetesCluster.KIND], partial(cluster_domain, namespace)
        )
        self._virtual_destinations = VirtualDestinations(
            graph,
            virtual_destinations=self._sources[VirtualDestination.KIND],
            membership=membership,
            services=services if VirtualDestination in kinds else nothing,
            services_by_identity=by_identity,
            cluster_domains=domains,
            federation=self._federation,
        )
        gateways = Gateways(
            graph,
            virtual_gateways=self._sources[VirtualGateway.KIND],
            virtual_hosts=nothing,
            route_tables=nothing,
            policies=nothing,
            services=services if VirtualGateway in kinds else nothing,
            services_by_identity=by_identity,
            reach=Reach(
                graph,
                services_by_identity=by_identity,
                cluster_domains=domains,
                federation=self._federation,
                virtual_destinations=self._virtual_destinations,
                external_services=ExternalServices(
                    graph,
                    destinations=nothing,
                    membership=membership,
                    services_by_identity=by_identity,
                    cluster_domains=domains,
                    federation=self._federation,
                    virtual_destinations=self._virtual_destinations,
                ),
                endpoints=nothing,
            ),
        )
        self._access = Access(
            graph,
            policies=self._sources[AccessPolicy.KIND],
            virtual_meshes=virtual_meshes,
            meshes=meshes,
            services=services,
            services_by_identity=by_identity,
            membership=membership,
            federation=self._federation,
            entrances=gateways.entrances,
        )

    def set(self, resource: Resource) -> None:
        """Put *resource* in place of what had its identity. Kinds that are not in `INPUTS` change nothing."""
        if resource.KIND in self._sources:
            self._sources[resource.KIND].set(resource.ref, resource)

    def remove(self, kind: Kind, ref: Ref) -> None:
        """Take an object away; nothing happens if it is not there."""
        if kind in self._sources:
            self._sources[kind].set(ref, None)

    def run(self) -> Emitted:
        """Bring everything up to date; all of it."""
        self._graph.run(without=(self._federation.addresses, self._access.judged))
        policies: dict[OutputKey, Output] = {}
        for collection in self._access.outputs:
            policies.update(collection.items())
        known: dict[Ref, frozenset[Ref]] = {}
        trouble: dict[Ref, tuple[str, ...]] = {}
        for ref, federated in self._federation.federated.items():
            outcome = self._federation.outcomes.get(ref)
            if outcome is not None and outcome.errors:
                trouble[ref] = outcome.errors
            else:
                known[ref] = frozenset(mesh.ref for mesh in federated.targets)
        for ref, meshes in self._by_virtual_destinations():
            known[ref] = known.get(ref, frozenset()) | meshes
        return Emitted(policies, known, trouble, dict(self._access.applied.items()), dict(self._access.domains.items()))

    def _by_virtual_destinations(self) -> Iterator[tuple[Ref, frozenset[Ref]]]:
        """The services behind VirtualDestinations, and the meshes of other clusters whose calls these lead there."""
        for _, resolved in self._virtual_destinations.resolved.items():
            for backing in resolved.backings if resolved.works else ():
                if resolved.flat_network or self._federation.entries.get(backing.mesh.ref) is not None:
                    others = (mesh.ref for mesh in resolved.meshes if mesh.cluster != backing.mesh.cluster)
                    yield backing.service.ref, frozenset(others)
