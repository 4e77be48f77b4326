"""What the engine makes of access alone: the AuthorizationPolicies of every cluster, and who knows which destination.

It is for questions about a fleet on paper, which are not to wait for routes, certificates and statuses. The steps are
those of `translate.engine`, of which a test holds that both come to the same.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.discovery import Destination, Mesh
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.flow import Graph, Source
from isthmus.model.ref import Kind, Ref
from isthmus.translate.access.derivations import Access, Applied
from isthmus.translate.access.rules import Domains
from isthmus.translate.facts import mesh_facts, service_facts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.membership import Membership
from isthmus.translate.output import Output, OutputKey

INPUTS: tuple[type[Resource], ...] = (Mesh, Destination, VirtualMesh, AccessPolicy)


class Emitted(msgspec.Struct, frozen=True):
    """What clusters are told about access, at one instant."""

    policies: dict[OutputKey, Output]
    known_to: dict[Ref, frozenset[Ref]]
    """The meshes that know a Destination beside its own; absent for those that are not federated."""
    trouble: dict[Ref, tuple[str, ...]]
    """Why the federation of a Destination failed, for those whose did."""
    applied: dict[Ref, Applied]
    """By Destination, the AccessPolicies that apply to it."""
    domains: dict[Ref, Domains]
    """By mesh, the trust domains of those that can call it."""


class Emission:
    """Translation of access, kept up to date."""

    def __init__(self) -> None:
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
        self._access = Access(
            graph,
            policies=self._sources[AccessPolicy.KIND],
            virtual_meshes=virtual_meshes,
            meshes=meshes,
            services=services,
            services_by_identity=by_identity,
            membership=membership,
            federation=self._federation,
            entrances=graph.source("entrances"),  # VirtualGateways are not read here, see INPUTS
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
        self._graph.run()
        policies: dict[OutputKey, Output] = {}
        for collection in self._access.outputs:
            policies.update(collection.items())
        known, trouble = {}, {}
        for ref, federated in self._federation.federated.items():
            outcome = self._federation.outcomes.get(ref)
            if outcome is not None and outcome.errors:
                trouble[ref] = outcome.errors
            else:
                known[ref] = frozenset(mesh.ref for mesh in federated.targets)
        return Emitted(policies, known, trouble, dict(self._access.applied.items()), dict(self._access.domains.items()))
