"""Certificates as derived collections: which mesh gets which, and how far each is."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from isthmus.api.discovery import Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificateState, IssuedCertificateStatus
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.flow import Collection, Fetch, Graph, Index
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.membership import Member
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents
from isthmus.translate.trust.domains import DomainFacts, domain_facts, domain_warnings
from isthmus.translate.trust.facts import (
    RootFacts,
    TrustFacts,
    TrustSettings,
    WorkloadFacts,
    certificate_status,
    trust_facts,
    trust_problems,
    trust_settings,
    vault_facts,
    workload_facts,
)
from isthmus.translate.trust.objects import issued_certificate, pod_bounce_directive
from isthmus.translate.trust.verification import Presented, presented

MOST_NAMES = 5  # of pods in one sentence


class Plan(msgspec.Struct, frozen=True, gc=False):
    """The certificate of one mesh. *leader* has it when several control planes share one Secret."""

    virtual_mesh: Ref
    leader: Ref
    peers: tuple[Ref, ...]
    """The meshes that share it, the leader first."""
    issued: bool
    """Whether the certificate is wanted now: its root is known, and an agent is there to act."""


class Progress(msgspec.Struct, frozen=True, gc=False):
    """What became of the certificate of one mesh: errors of it, and what is still to come."""

    virtual_mesh: Ref
    errors: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    settled: bool = False
    """Whether all of the mesh runs with the certificate that is wanted now."""


class Trust:
    """The collections of shared trust."""

    def __init__(
        self,
        graph: Graph,
        *,
        virtual_meshes: Collection[Ref, VirtualMesh],
        member: Collection[Ref, Member],
        meshes: Collection[Ref, Mesh],
        workloads: Collection[Ref, Workload],
        roots: Collection[Ref, RootFacts],
    ) -> None:
        """*roots* are those of virtual meshes, by VirtualMesh."""
        elsewhere = graph.map("authorities elsewhere", virtual_meshes, vault_facts)
        self.roots: Collection[Ref, RootFacts] = graph.derive(
            "roots that count",
            virtual_meshes,
            lambda fetch, ref, _: fetch.get(elsewhere, ref) or fetch.get(roots, ref),
        )
        """What signs for each virtual mesh."""
        self._meshes = graph.map("trust facts", meshes, trust_facts)
        self._certificates = graph.map("certificate statuses", meshes, certificate_status)
        self._settings = graph.map("trust settings", virtual_meshes, trust_settings)
        facts = graph.map("trust workloads", workloads, workload_facts)
        self._workloads = graph.index("trust workloads by mesh", facts, lambda _, workload: (workload.mesh,))
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "trust problems", virtual_meshes, lambda _, virtual_mesh: trust_problems(virtual_mesh) or None
        )
        self._placed: Collection[Ref, _Placed] = graph.derive("meshes that need trust", member, self._place)
        self._by_place: Index[tuple[str, str], Ref, _Placed] = graph.index(
            "trust by place", self._placed, lambda _, placed: (placed.facts.place,)
        )
        self.plans: Collection[Ref, Plan] = graph.derive("trust plans", self._placed, self._plan)
        self._issued = graph.expand("issued certificates", self.plans, self._issue)
        self._directives = graph.expand("pod bounce directives", self.plans, self._direct)
        self._domains = graph.map("trust domains", meshes, domain_facts)
        located: Collection[Ref, _Located] = graph.derive("trust domains of members", member, self._locate)
        self._located: Index[Ref, Ref, _Located] = graph.index(
            "trust domains by virtual mesh", located, lambda _, found: (found.virtual_mesh,)
        )
        self.domains: Collection[Ref, DomainWarnings] = graph.derive("trust domain warnings", located, self._compare)
        """What is wrong with the trust domains of a mesh, whoever signs for it."""
        self.domains_by_virtual_mesh: Index[Ref, Ref, DomainWarnings] = graph.index(
            "trust domain warnings by virtual mesh", self.domains, lambda _, found: (found.virtual_mesh,)
        )
        self.progress: Collection[Ref, Progress] = graph.derive("trust progress", self.plans, self._progress)
        self.progress_by_virtual_mesh: Index[Ref, Ref, Progress] = graph.index(
            "trust progress by virtual mesh", self.progress, lambda _, progress: (progress.virtual_mesh,)
        )
        shown: Collection[Ref, Presented] = graph.derive("what pods present", self.plans, self._present)
        self.presented: Index[Ref, Ref, Presented] = graph.index(
            "what pods present by virtual mesh", shown, lambda _, found: (found.virtual_mesh,)
        )

    @property
    def outputs(self) -> tuple[Collection[OutputKey, Output], ...]:
        """What agents are to act on."""
        return self._issued, self._directives

    def _locate(self, fetch: Fetch, mesh: Ref, member: Member) -> _Located | None:
        facts = fetch.get(self._domains, mesh)
        return _Located(member.virtual_mesh, facts) if facts is not None else None

    def _compare(self, fetch: Fetch, mesh: Ref, located: _Located) -> DomainWarnings | None:
        every = (found.facts for _, found in fetch.group(self._located, located.virtual_mesh))
        warnings = domain_warnings(mesh, located.facts, every)
        return DomainWarnings(located.virtual_mesh, warnings) if warnings else None

    def _place(self, fetch: Fetch, mesh: Ref, member: Member) -> _Placed | None:
        facts, settings = fetch.get(self._meshes, mesh), fetch.get(self._settings, member.virtual_mesh)
        return _Placed(member.virtual_mesh, facts, settings) if facts is not None and settings is not None else None

    def _plan(self, fetch: Fetch, mesh: Ref, placed: _Placed) -> Plan:
        sharing = fetch.group(self._by_place, placed.facts.place)
        ordered = sorted(sharing, key=_precedence)
        leader, first = ordered[0]
        peers = tuple(ref for ref, peer in ordered if peer.virtual_mesh == first.virtual_mesh)
        known = fetch.get(self.roots, first.virtual_mesh) is not None
        return Plan(placed.virtual_mesh, leader, peers, known and bool(first.facts.agent_namespace))

    def _peers(self, fetch: Fetch, plan: Plan) -> list[TrustFacts]:
        placed = (fetch.get(self._placed, peer) for peer in plan.peers)
        return [peer.facts for peer in placed if peer is not None]

    def _issue(self, fetch: Fetch, mesh: Ref, plan: Plan) -> Iterable[tuple[OutputKey, Output]]:
        placed, root = fetch.get(self._placed, mesh), fetch.get(self.roots, plan.virtual_mesh)
        if plan.leader == mesh and plan.issued and placed is not None and root is not None:
            peers = self._peers(fetch, plan)
            wanted = issued_certificate(mesh, plan.virtual_mesh, peers, placed.settings, root)
            yield (
                OutputKey(placed.facts.cluster, wanted.key),
                Output(wanted, parents(VirtualMesh.KIND, plan.virtual_mesh), mesh),
            )

    def _direct(self, fetch: Fetch, mesh: Ref, plan: Plan) -> Iterable[tuple[OutputKey, Output]]:
        placed = fetch.get(self._placed, mesh)
        if plan.leader == mesh and plan.issued and placed is not None and placed.settings.auto_restart:
            workloads: list[WorkloadFacts] = []
            for peer in plan.peers:
                workloads += (workload for _, workload in fetch.group(self._workloads, peer))
            wanted = pod_bounce_directive(mesh, plan.virtual_mesh, self._peers(fetch, plan), workloads)
            yield (
                OutputKey(placed.facts.cluster, wanted.key),
                Output(wanted, parents(VirtualMesh.KIND, plan.virtual_mesh), mesh),
            )

    def _progress(self, fetch: Fetch, mesh: Ref, plan: Plan) -> Progress:
        placed = fetch.get(self._placed, mesh)
        if placed is None:
            return Progress(plan.virtual_mesh)
        facts = placed.facts
        if plan.leader not in plan.peers or mesh not in plan.peers:
            error = (
                f"mesh {mesh.key} reads its certificate from the same Secret as mesh {plan.leader.key} of another "
                "virtual mesh: put both into one"
            )
            return Progress(plan.virtual_mesh, errors=(error,))
        if not facts.agent_namespace:
            return Progress(plan.virtual_mesh, warnings=(f"mesh {mesh.key} has no agent to keep a key",))
        root = fetch.get(self.roots, plan.virtual_mesh)
        status = fetch.get(self._certificates, plan.leader)
        if root is None:
            return Progress(plan.virtual_mesh)
        if status is not None and status.state is IssuedCertificateState.FAILED:
            reason = status.error or "the agent does not say why"
            return Progress(plan.virtual_mesh, failed=(f"certificate of mesh {mesh.key}: {reason}",))
        missing = tuple(_to_come(mesh, status, root))
        warnings = (*missing, *_others(mesh, status, root))
        return Progress(plan.virtual_mesh, warnings=warnings, settled=not missing)

    def _present(self, fetch: Fetch, mesh: Ref, plan: Plan) -> Presented | None:
        root = fetch.get(self.roots, plan.virtual_mesh)
        if root is None or plan.leader != mesh:
            return None
        return presented(plan.virtual_mesh, fetch.get(self._certificates, mesh), root)


class DomainWarnings(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with the trust domains of one mesh."""

    virtual_mesh: Ref
    warnings: tuple[str, ...]


class _Located(msgspec.Struct, frozen=True, gc=False):
    """The trust domains of a mesh, and which virtual mesh it is in."""

    virtual_mesh: Ref
    facts: DomainFacts


class _Placed(msgspec.Struct, frozen=True, gc=False):
    """A mesh whose virtual mesh has a say in certificates."""

    virtual_mesh: Ref
    facts: TrustFacts
    settings: TrustSettings


def _precedence(row: tuple[Ref, _Placed]) -> tuple[object, ...]:
    """How meshes that share a Secret are ordered, so that one that comes later, as a canary does, takes nothing over.

    The older virtual mesh, as with membership; in it the shorter name, which is that of the revision without a name.
    """
    mesh, placed = row
    return placed.settings.seniority, len(mesh.name), mesh


def _to_come(mesh: Ref, status: IssuedCertificateStatus | None, root: RootFacts) -> Iterable[str]:
    """What is still missing until all pods of *mesh* run with the certificate that is wanted."""
    if status is None:
        yield f"certificate of mesh {mesh.key}: its agent has not reported one yet"
    elif status.observed_trust != root.trust:
        yield f"certificate of mesh {mesh.key}: its agent has not taken up the present one yet"
    elif status.state is not IssuedCertificateState.FINISHED:
        outdated = status.outdated_pods
        if outdated is None or not outdated.count:
            yield f"certificate of mesh {mesh.key}: {status.state.value}"
        else:
            some = ", ".join(outdated.names[:MOST_NAMES])
            more = ", ..." if outdated.count > MOST_NAMES else ""
            yield (
                f"certificate of mesh {mesh.key}: {status.state.value}; {outdated.count} pods started before it was "
                f"written and are to be restarted: {some}{more}"
            )


def _others(mesh: Ref, status: IssuedCertificateStatus | None, root: RootFacts) -> Iterable[str]:
    """Which pods of *mesh* were seen to present another certificate, though none is to be restarted for its age."""
    workloads = status.workloads if status is not None and status.outdated_pods is None else None
    if workloads is not None and workloads.observed_trust == root.trust and workloads.other:
        named = [f"{pod.name} ({pod.reason})" for pod in workloads.pods if pod.shows_other][:MOST_NAMES]
        more = ", ..." if workloads.other > len(named) else ""
        yield (
            f"certificate of mesh {mesh.key}: {workloads.other} of its pods present another one, restart them: "
            f"{', '.join(named)}{more}"
        )
