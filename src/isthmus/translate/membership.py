"""Which meshes belong to which virtual mesh, and what is wrong with a VirtualMesh.

A mesh belongs to one virtual mesh: of several that name it, the oldest has it. What is wrong with one member does not
stop the others: they stay federated, and the status says which one is not.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from isthmus.api.common import IngressGatewaySelector, TcpKeepalive
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.hosts import is_dotted
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.facts import MeshFacts, ServiceFacts
from isthmus.translate.selection import named_in_vain
from isthmus.translate.selectors import Rule, rules_of, terms_of_rule, wrong_services
from isthmus.translate.seniority import Seniority, seniority

DEFAULT_SUFFIX = "global"


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A VirtualMesh that names a mesh."""

    virtual_mesh: Ref
    seniority: Seniority


class Member(msgspec.Struct, frozen=True, gc=False):
    """A mesh and the virtual mesh it belongs to."""

    virtual_mesh: Ref
    mesh: MeshFacts


class VirtualMeshFacts(msgspec.Struct, frozen=True, gc=False):
    """What federation reads of a VirtualMesh, apart from its selectors."""

    ref: Ref
    members: tuple[MeshFacts, ...]
    federates: bool
    everything: bool
    """Whether every destination is federated to every member, without looking at selectors."""
    suffix: str
    flat_network: bool
    keepalive: TcpKeepalive | None
    gateway_selectors: tuple[IngressGatewaySelector, ...]


class FederationRule(msgspec.Struct, frozen=True, gc=False):
    """One alternative of a federation selector; *meshes* None means all members."""

    virtual_mesh: Ref
    rule: Rule
    meshes: tuple[Ref, ...] | None


class Membership:
    """The collections that say who belongs where."""

    def __init__(
        self,
        graph: Graph,
        virtual_meshes: Collection[Ref, VirtualMesh],
        meshes: Collection[Ref, MeshFacts],
        services: Index[Ref, Ref, ServiceFacts],
    ) -> None:
        """*services* indexes services by their identity on their cluster."""
        self._meshes = meshes
        self._services = services
        self._claims = graph.expand("mesh claims", virtual_meshes, _claims)
        self._claims_by_mesh: Index[Ref, tuple[Ref, Ref], Claim] = graph.index(
            "mesh claims by mesh", self._claims, first_part
        )
        self.member: Collection[Ref, Member] = graph.derive("members", self._claims_by_mesh, self._member)
        self._by_virtual_mesh: Index[Ref, Ref, Member] = graph.index(
            "members by virtual mesh", self.member, lambda _, member: (member.virtual_mesh,)
        )
        self.facts: Collection[Ref, VirtualMeshFacts] = graph.derive("virtual meshes", virtual_meshes, self._facts)
        self._rules = graph.expand("federation rules", virtual_meshes, _federation_rules)
        self.rules_by_term = graph.index(
            "federation rules by term",
            self._rules,
            lambda _, rule: ((rule.virtual_mesh, term) for term in terms_of_rule(rule.rule)),
        )
        # Row by row: a long list of references is not looked through again whenever one of its services changes.
        missing = graph.derive("references to no service", self._rules, self._missing)
        self._missing_by_virtual_mesh = graph.index("references to no service by virtual mesh", missing, first_part)
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.derive(
            "virtual mesh problems", virtual_meshes, self._problems
        )
        self.mesh_errors: Collection[Ref, dict[Ref, str]] = graph.derive(
            "virtual mesh member errors", virtual_meshes, self._mesh_errors
        )

    def group_of(self, fetch: Fetch, mesh: Ref) -> VirtualMeshFacts | None:
        """The virtual mesh that *mesh* is in, None if it is in none."""
        member = fetch.get(self.member, mesh)
        return fetch.get(self.facts, member.virtual_mesh) if member is not None else None

    def _member(self, fetch: Fetch, mesh: Ref, claims: tuple[tuple[tuple[Ref, Ref], Claim], ...]) -> Member | None:
        facts = fetch.get(self._meshes, mesh)
        if facts is None:
            return None
        oldest = min((claim for _, claim in claims), key=lambda claim: claim.seniority)
        return Member(oldest.virtual_mesh, facts)

    def _facts(self, fetch: Fetch, ref: Ref, virtual_mesh: VirtualMesh) -> VirtualMeshFacts:
        members = tuple(member.mesh for _, member in fetch.group(self._by_virtual_mesh, ref))
        federation = virtual_mesh.spec.federation
        suffix = (federation.hostname_suffix if federation else "") or DEFAULT_SUFFIX
        return VirtualMeshFacts(
            ref=ref,
            members=members,
            federates=federation is not None and len(members) > 1 and is_dotted(suffix),
            everything=federation is not None and not federation.selectors,
            suffix=suffix,
            flat_network=federation.flat_network if federation else False,
            keepalive=federation.tcp_keepalive if federation else None,
            gateway_selectors=federation.ingress_gateway_selectors if federation else (),
        )

    def _mesh_errors(self, fetch: Fetch, ref: Ref, virtual_mesh: VirtualMesh) -> dict[Ref, str]:
        errors: dict[Ref, str] = {}
        for mesh in virtual_mesh.spec.meshes:
            if not mesh.name or not mesh.namespace:
                continue
            member = fetch.get(self.member, mesh.ref)
            if member is None:
                errors[mesh.ref] = f"Mesh {mesh.name}.{mesh.namespace} not found"
            elif member.virtual_mesh != ref:
                other = member.virtual_mesh
                errors[mesh.ref] = (
                    f"Includes a Mesh ({mesh.name}.{mesh.namespace}) that already is grouped in a VirtualMesh "
                    f"({other.name}.{other.namespace})"
                )
        return errors

    def _missing(self, fetch: Fetch, _: object, rule: FederationRule) -> Ref | None:
        return named_in_vain(fetch, rule.rule, self._services)

    def _problems(self, fetch: Fetch, ref: Ref, virtual_mesh: VirtualMesh) -> tuple[Problem, ...]:
        problems: list[Problem] = []
        for i, mesh in enumerate(virtual_mesh.spec.meshes):
            if not mesh.name or not mesh.namespace:
                message = f"malformed meshRef: needs both name and namespace, has name {mesh.name!r} and namespace "
                problems.append(Problem(f"spec.meshes[{i}]", "MalformedReference", f"{message}{mesh.namespace!r}"))
        federation = virtual_mesh.spec.federation
        if federation is not None:
            members = {mesh.ref for mesh in virtual_mesh.spec.meshes}
            suffix = federation.hostname_suffix
            if suffix and not is_dotted(suffix):
                message = f"{suffix!r} is not a DNS name in lower case such as {DEFAULT_SUFFIX}; nothing is federated"
                problems.append(Problem("spec.federation.hostnameSuffix", "InvalidName", message))
            missing = {service for _, service in fetch.group(self._missing_by_virtual_mesh, ref)}
            for i, selector in enumerate(federation.selectors):
                path = f"spec.federation.selectors[{i}]"
                services = wrong_services(
                    selector.destination_selectors, f"{path}.destinationSelectors", is_missing=missing.__contains__
                )
                problems.extend(services)
                problems.extend(
                    Problem(
                        f"{path}.meshes[{j}]",
                        "NotAMember",
                        f"Mesh {mesh.name}.{mesh.namespace} is not one of spec.meshes: add it there, or drop it here",
                    )
                    for j, mesh in enumerate(selector.meshes)
                    if mesh.ref not in members
                )
            for i, gateway in enumerate(federation.ingress_gateway_selectors):
                path = f"spec.federation.ingressGatewaySelectors[{i}]"
                services = wrong_services(
                    gateway.destination_selectors,
                    f"{path}.destinationSelectors",
                    is_missing=lambda service: not fetch.group(self._services, service),
                )
                problems.extend(services)
        return tuple(problems)


def _claims(_: Fetch, ref: Ref, virtual_mesh: VirtualMesh) -> Iterable[tuple[tuple[Ref, Ref], Claim]]:
    for mesh in virtual_mesh.spec.meshes:
        yield (mesh.ref, ref), Claim(ref, seniority(virtual_mesh))


def _federation_rules(
    _: Fetch, ref: Ref, virtual_mesh: VirtualMesh
) -> Iterable[tuple[tuple[Ref, int, str], FederationRule]]:
    federation = virtual_mesh.spec.federation
    for i, selector in enumerate(federation.selectors if federation else ()):
        meshes = tuple(mesh.ref for mesh in selector.meshes) or None
        for j, rule in enumerate(rules_of(selector.destination_selectors)):
            # A reference is keyed by what it names: one more in the middle of a long list is one more row, no other.
            yield (ref, i, rule.key if isinstance(rule, Ref) else f"{j}"), FederationRule(ref, rule, meshes)
