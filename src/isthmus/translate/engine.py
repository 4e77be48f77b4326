"""The engine: what users wrote and agents found goes in, Istio objects for every cluster and statuses come out.

Pure: no clock, no I/O. The same objects give the same outputs in whatever order they came, and one change costs what
read it. `Engine.__init__` is the table of steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec

from isthmus.api.access_log_record import AccessLogRecord
from isthmus.api.access_policy import AccessPolicy, AccessPolicyStatus
from isthmus.api.base import ApiStruct, Resource
from isthmus.api.certificate_verification import CertificateVerification, CertificateVerificationStatus
from isthmus.api.common import ApprovalState, ApprovalStatus, RequiredSubsets
from isthmus.api.discovery import Destination, DestinationStatus, Mesh, MeshStatus, Workload, WorkloadStatus
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.rate_limit import RateLimitClientConfig
from isthmus.api.route_table import RouteTable
from isthmus.api.service_dependency import ServiceDependency, ServiceDependencyStatus
from isthmus.api.settings import Settings
from isthmus.api.traffic_policy import TrafficPolicy, TrafficPolicyStatus
from isthmus.api.virtual_destination import VirtualDestination, VirtualDestinationStatus
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_host import VirtualHost
from isthmus.api.virtual_mesh import VirtualMesh, VirtualMeshStatus
from isthmus.flow import Fetch, Graph, Index, Source, Tap
from isthmus.istio.objects import ClientTls
from isthmus.model.problem import Problem
from isthmus.model.ref import Kind, Ref
from isthmus.translate.access.derivations import Access
from isthmus.translate.dependencies.derivations import Dependencies
from isthmus.translate.external_services.derivations import ExternalServices
from isthmus.translate.external_services.facts import Written
from isthmus.translate.external_services.statuses import external_service_status
from isthmus.translate.facts import (
    DEFAULT_CLUSTER_DOMAIN,
    ServiceFacts,
    cluster_domain,
    endpoint_facts,
    local_fqdn,
    mesh_facts,
    reported_warnings,
    service_facts,
)
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.federation.outputs import FederationOutputs
from isthmus.translate.gateways.derivations import Gateways
from isthmus.translate.gateways.doors import Doors
from isthmus.translate.gateways.limits import RateLimits
from isthmus.translate.gateways.outcomes import GatewayOutcomes
from isthmus.translate.gateways.statuses import with_failures, with_routes
from isthmus.translate.listing import MAX_LISTED_DESTINATIONS, approval, required_subsets
from isthmus.translate.membership import DEFAULT_SUFFIX, Membership
from isthmus.translate.output import Output, OutputKey, StatusKey, Translation
from isthmus.translate.policy_statuses import (
    PolicyOutcome,
    access_policy_status,
    policy_outcome,
    service_dependency_status,
    traffic_policy_status,
)
from isthmus.translate.ports import is_tcp
from isthmus.translate.selectors import wrong_services
from isthmus.translate.sources import Sources, callers_of, senders_of
from isthmus.translate.statuses import (
    DestinationApprovals,
    TrustOutcome,
    destination_status,
    mesh_status,
    policy_status,
    settings_status,
    virtual_destination_status,
    virtual_mesh_status,
    workload_status,
)
from isthmus.translate.traffic.derivations import DEFAULT, Traffic
from isthmus.translate.traffic.filter_outputs import FilterOutputs
from isthmus.translate.traffic.reach import Reach
from isthmus.translate.trust.derivations import Trust
from isthmus.translate.trust.facts import RootFacts
from isthmus.translate.trust.vault import vault_warnings
from isthmus.translate.trust.verification import awaited, doubts, remark, verification_status
from isthmus.translate.virtual_destinations.derivations import VirtualDestinations
from isthmus.translate.virtual_destinations.outputs import VirtualDestinationOutputs

INPUTS: tuple[type[Resource], ...] = (
    Mesh, Workload, Destination, KubernetesCluster,
    VirtualMesh, TrafficPolicy, AccessPolicy, VirtualDestination, VirtualGateway, VirtualHost, RouteTable,
    RateLimitClientConfig, ServiceDependency, AccessLogRecord, CertificateVerification, Settings,
)  # fmt: skip
"""The kinds that the engine reads."""

SETTINGS = "settings"
"""Name of the Settings that count, in the management namespace."""


class WriteError(msgspec.Struct, frozen=True):
    """What an agent could not write, and whose statuses say so."""

    parents: tuple[StatusKey, ...]
    subject: Ref
    message: str


def _write_error(output: Output | None, message: str) -> WriteError | None:
    return WriteError(output.parents, output.subject, message) if output is not None else None


def _failure(key: OutputKey, error: WriteError) -> str:
    """What a status says of *error*."""
    what = f"{key.object.kind} {key.object.namespace}/{key.object.name}"
    return f"write error: {what} on cluster {key.cluster}: {error.message}"


class Engine:
    """Translation of a fleet, kept up to date."""

    def __init__(self, namespace: str = "gloo-mesh", addresses: Mapping[str, str] = {}) -> None:
        """*namespace* is the management namespace, whose KubernetesClusters count.

        *addresses* is what an earlier engine returned in `Translation.addresses` last.
        """
        self._namespace = namespace
        graph = self._graph = Graph()
        self._sources: dict[Kind, Source[Ref, Any]] = {kind.KIND: graph.source(kind.KIND.plural) for kind in INPUTS}
        self._errors: Source[OutputKey, WriteError] = graph.source("write errors")
        meshes, destinations = self._sources[Mesh.KIND], self._sources[Destination.KIND]
        self._virtual_meshes = self._sources[VirtualMesh.KIND]
        self._traffic_policies = self._sources[TrafficPolicy.KIND]
        self._access_policies = self._sources[AccessPolicy.KIND]
        self._service_dependencies = self._sources[ServiceDependency.KIND]
        self._roots: Source[Ref, RootFacts] = graph.source("roots")
        self._root_problems: Source[Ref, Problem] = graph.source("root problems")

        # Narrow facts, so that what changes often does not wake what depends on what changes rarely.
        self._mesh_facts = graph.map("mesh facts", meshes, mesh_facts)
        self._services = graph.map("services", destinations, service_facts)
        endpoints = graph.map("endpoints", destinations, endpoint_facts)
        self._mesh_warnings = graph.map("mesh warnings", meshes, reported_warnings)
        self._destination_warnings = graph.map("destination warnings", destinations, reported_warnings)
        self._domains = graph.expand(
            "cluster domains", self._sources[KubernetesCluster.KIND], partial(cluster_domain, namespace)
        )
        by_identity = graph.index("services by identity", self._services, lambda _, service: (service.service,))

        self._membership = Membership(graph, self._virtual_meshes, self._mesh_facts, by_identity)
        self._federation = Federation(
            graph,
            membership=self._membership,
            meshes=self._mesh_facts,
            services=self._services,
            services_by_identity=by_identity,
            addresses=addresses,
        )
        self._virtual_destinations = VirtualDestinations(
            graph,
            virtual_destinations=self._sources[VirtualDestination.KIND],
            membership=self._membership,
            services=self._services,
            services_by_identity=by_identity,
            cluster_domains=self._domains,
            federation=self._federation,
        )
        self._external_services = ExternalServices(
            graph,
            destinations=destinations,
            membership=self._membership,
            services_by_identity=by_identity,
            cluster_domains=self._domains,
            federation=self._federation,
            virtual_destinations=self._virtual_destinations,
        )
        reach = Reach(
            graph,
            services_by_identity=by_identity,
            cluster_domains=self._domains,
            federation=self._federation,
            virtual_destinations=self._virtual_destinations,
            external_services=self._external_services,
            endpoints=endpoints,
        )
        self._traffic = Traffic(
            graph,
            policies=self._traffic_policies,
            services=self._services,
            services_by_identity=by_identity,
            federation=self._federation,
            reach=reach,
            default_tls=graph.expand("default TLS", self._sources[Settings.KIND], self._default_tls),
        )
        self._rate_limits = RateLimits(graph, self._sources[RateLimitClientConfig.KIND])
        gateways = Gateways(
            graph,
            virtual_gateways=self._sources[VirtualGateway.KIND],
            virtual_hosts=self._sources[VirtualHost.KIND],
            route_tables=self._sources[RouteTable.KIND],
            policies=self._traffic_policies,
            services=self._services,
            services_by_identity=by_identity,
            reach=reach,
            shifted=self._traffic.shifted,
            limits=self._rate_limits.of,
        )
        doors = Doors(graph, gateways)
        self._traffic.write(graph, gateways.uses)
        virtual_destination_outputs = VirtualDestinationOutputs(
            graph,
            virtual_destinations=self._virtual_destinations,
            traffic=self._traffic,
            federation=self._federation,
            endpoints=endpoints,
            cluster_domains=self._domains,
        )
        federation_outputs = FederationOutputs(
            graph,
            federation=self._federation,
            traffic=self._traffic,
            membership=self._membership,
            endpoints=endpoints,
        )
        self._access = Access(
            graph,
            policies=self._access_policies,
            virtual_meshes=self._virtual_meshes,
            meshes=self._mesh_facts,
            services=self._services,
            services_by_identity=by_identity,
            membership=self._membership,
            federation=self._federation,
            entrances=gateways.entrances,
        )
        self._dependencies = Dependencies(
            graph,
            dependencies=self._service_dependencies,
            virtual_meshes=self._virtual_meshes,
            workloads=self._sources[Workload.KIND],
            services=self._services,
            services_by_identity=by_identity,
            cluster_domains=self._domains,
            membership=self._membership,
            federation=self._federation,
            virtual_destinations=self._virtual_destinations,
            access=self._access,
        )
        self._trust = Trust(
            graph,
            virtual_meshes=self._virtual_meshes,
            member=self._membership.member,
            meshes=meshes,
            workloads=self._sources[Workload.KIND],
            roots=self._roots,
        )
        self._outputs = (
            *federation_outputs.outputs,
            *self._traffic.outputs,
            *gateways.outputs,
            *doors.outputs,
            *FilterOutputs(graph, traffic=self._traffic, meshes=self._mesh_facts).outputs,
            *virtual_destination_outputs.outputs,
            *self._external_services.outputs,
            *self._access.outputs,
            *self._dependencies.outputs,
            *self._trust.outputs,
        )

        sources = Sources(
            graph, callers=self._dependencies.callers, meshes=self._mesh_facts, membership=self._membership
        )
        self._senders = sources.of("traffic policies", self._traffic_policies, self._traffic.applied, senders_of)
        self._callers = sources.of("access policies", self._access.facts, self._access.applied, callers_of)

        # Statuses are one more output. Those of virtual meshes list all their destinations, so what goes into them is
        # kept up to date here, and put together only when somebody asks.
        self._mesh_statuses = graph.derive("mesh statuses", self._mesh_facts, self._mesh_status)
        self._destination_statuses = graph.derive("destination statuses", self._services, self._destination_status)
        self._external_statuses = graph.derive(
            "external service statuses", self._external_services.written, self._external_status
        )
        self._workload_statuses = graph.derive("workload statuses", self._sources[Workload.KIND], self._workload_status)
        self._gateways = GatewayOutcomes(
            graph,
            gateways=gateways,
            doors=doors,
            virtual_gateways=self._sources[VirtualGateway.KIND],
            virtual_hosts=self._sources[VirtualHost.KIND],
            route_tables=self._sources[RouteTable.KIND],
            policies=self._traffic_policies,
        )
        self._outcomes_by_virtual_mesh = graph.index(
            "outcomes by virtual mesh and success",
            self._federation.outcomes,
            lambda _, outcome: ((outcome.virtual_mesh, not outcome.errors),),
        )
        self._verifications = graph.derive(
            "verification statuses", self._sources[CertificateVerification.KIND], self._verification_status
        )
        self._virtual_subsets = graph.derive(
            "subsets required of virtual destinations", self._sources[VirtualDestination.KIND], self._required_subsets
        )
        self._mesh_approvals = graph.derive("mesh approvals", self._virtual_meshes, self._approve_meshes)
        self._errors_by_parent = graph.index("write errors by parent", self._errors, lambda _, error: error.parents)

        self._output_taps = [collection.tap() for collection in self._outputs]
        self._status_taps: dict[Kind, list[Tap[Ref, Any]]] = {
            Mesh.KIND: [self._mesh_statuses.tap()],
            Destination.KIND: [self._destination_statuses.tap(), self._external_statuses.tap()],
            Workload.KIND: [self._workload_statuses.tap()],
            CertificateVerification.KIND: [self._verifications.tap()],
            **{kind: [self._sources[kind].tap()] for kind in (Settings.KIND, AccessLogRecord.KIND)},
            AccessPolicy.KIND: [
                self._access_policies.tap(),
                self._access.missing.tap(),
                self._access.verdicts.tap(),
                self._callers.tap(),
            ],
            ServiceDependency.KIND: [
                self._service_dependencies.tap(),
                self._dependencies.missing.tap(),
                self._dependencies.verdicts.tap(),
            ],
            RateLimitClientConfig.KIND: [self._sources[RateLimitClientConfig.KIND].tap()],
            VirtualGateway.KIND: [self._gateways.virtual_gateways.tap()],
            VirtualHost.KIND: [self._gateways.virtual_hosts.tap()],
            RouteTable.KIND: [self._gateways.route_tables.tap()],
            VirtualDestination.KIND: [
                self._sources[VirtualDestination.KIND].tap(),
                self._virtual_destinations.resolved.tap(),
                self._virtual_subsets.tap(),
            ],
            TrafficPolicy.KIND: [
                self._traffic_policies.tap(),
                self._traffic.missing.tap(),
                self._traffic.verdicts.tap(),
                self._gateways.policies.tap(),
                self._senders.tap(),
            ],
            VirtualMesh.KIND: [
                self._virtual_meshes.tap(),
                self._membership.facts.tap(),
                self._membership.problems.tap(),
                self._mesh_approvals.tap(),
                self._trust.roots.tap(),
                self._root_problems.tap(),
                self._trust.problems.tap(),
                self._trust.progress_by_virtual_mesh.tap(),
                self._trust.presented.tap(),
                self._trust.domains_by_virtual_mesh.tap(),
            ],
        }
        self._outcomes_tap = self._outcomes_by_virtual_mesh.tap()
        self._errors_tap = self._errors_by_parent.tap()
        self._addresses = dict(addresses)

    @property
    def evaluations(self) -> int:
        """Function evaluations since the start: what the changes so far have cost, in units that no machine changes."""
        return self._graph.evaluations

    def set(self, resource: Resource) -> None:
        """Put *resource* in place of what had its identity. Raises KeyError for a kind not in INPUTS."""
        self._sources[resource.KIND].set(resource.ref, resource)

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Take an object away; nothing happens if it is not there. Raises KeyError for a kind not in INPUTS."""
        self._sources[kind].set(Ref("", namespace, name), None)

    def set_root(self, virtual_mesh: Ref, root: RootFacts | None, problem: Problem | None = None) -> None:
        """What signs for *virtual_mesh*, and what is wrong with it.

        A root that is in use stays while there is a problem with it, so that no certificate is taken away.
        """
        self._roots.set(virtual_mesh, root)
        self._root_problems.set(virtual_mesh, problem)

    def settled(self, virtual_mesh: Ref, root: RootFacts) -> bool:
        """Whether every mesh that *virtual_mesh* names runs with a certificate of *root*, the one set last."""
        found = self._virtual_meshes.get(virtual_mesh)
        if found is None or self._roots.get(virtual_mesh) != root:
            return False
        progress = (self._trust.progress.get(mesh.ref) for mesh in found.spec.meshes)
        return all(p is not None and p.virtual_mesh == virtual_mesh and p.settled for p in progress)

    def presented(self, virtual_mesh: Ref) -> tuple[str, tuple[str, ...]]:
        """Whether its workloads present certificates of the shared root: a sentence for people, and any doubts."""
        meshes = self._trust.presented.get(virtual_mesh) or ()
        return remark(meshes), tuple(doubts(meshes))

    def write_error(self, key: OutputKey, message: str | None) -> None:
        """Note that *key* could not be written to its cluster and why, or with None that it now could.

        An error about what is no longer desired is nobody's and forgotten.
        """
        self._errors.set(key, _write_error(self.output(key), message) if message else None)

    def run(self) -> Translation:
        """Bring everything up to date; what changed since the last run."""
        self._graph.run()
        outputs: dict[OutputKey, Output | None] = {}
        for tap in self._output_taps:
            for key, output in tap.take().items():
                # One collection may give up in this run what another takes: an entry that was local and is now remote.
                if output is not None or key not in outputs:
                    outputs[key] = output
        for key, output in outputs.items():
            error = self._errors.get(key)
            if error is not None:
                self._errors.set(key, _write_error(output, error.message))
        statuses = {
            StatusKey(kind, ref.namespace, ref.name)
            for kind, taps in self._status_taps.items()
            for tap in taps
            for ref in tap.take_keys()
        }
        statuses.update(
            StatusKey(VirtualMesh.KIND, ref.namespace, ref.name) for ref, _ in self._outcomes_tap.take_keys()
        )
        statuses.update(self._errors_tap.take_keys())
        addresses = None
        if self._federation.book.displaced != self._addresses:
            addresses = self._addresses = self._federation.book.displaced
        return Translation(outputs, tuple(sorted(statuses)), addresses)

    def output(self, key: OutputKey) -> Output | None:
        """What is desired at *key*."""
        return next((found for c in self._outputs if (found := c.get(key)) is not None), None)

    def outputs(self) -> dict[OutputKey, Output]:
        """Everything desired, sorted."""
        every: dict[OutputKey, Output] = {}
        for collection in self._outputs:
            every.update(collection.items())
        return {key: every[key] for key in sorted(every)}

    def status_keys(self) -> tuple[StatusKey, ...]:
        """Every object that has a status, sorted."""
        keys = {
            StatusKey(kind, ref.namespace, ref.name)
            for kind in self._status_taps
            for ref in self._sources[kind]
            if self.status(StatusKey(kind, ref.namespace, ref.name)) is not None
        }
        return tuple(sorted(keys))

    def status(self, key: StatusKey) -> ApiStruct | None:
        """The status of one object, None if it is gone or has none. That of a VirtualMesh is put together here."""
        if key.kind == Mesh.KIND:
            return self._mesh_statuses.get(key.ref)
        if key.kind == Destination.KIND:
            external = self._external_statuses.get(key.ref)
            found = self._errors_by_parent.get(key) or ()
            failures = [_failure(output, error) for output, error in found]
            return with_failures(external, failures) if external else self._destination_statuses.get(key.ref)
        if key.kind == VirtualMesh.KIND:
            return self._virtual_mesh_status(key.ref)
        if key.kind == TrafficPolicy.KIND:
            return self._traffic_policy_status(key)
        if key.kind == AccessPolicy.KIND:
            return self._access_policy_status(key)
        if key.kind == VirtualDestination.KIND:
            return self._virtual_destination_status(key)
        if key.kind == ServiceDependency.KIND:
            return self._service_dependency_status(key)
        if key.kind == Workload.KIND:
            return self._workload_statuses.get(key.ref)
        if key.kind in (VirtualGateway.KIND, VirtualHost.KIND, RouteTable.KIND):
            return self._gateway_status(key)
        if key.kind == RateLimitClientConfig.KIND:
            return self._rate_limits.status(key.ref)
        if key.kind == CertificateVerification.KIND:
            return self._verifications.get(key.ref)
        present = self._sources[key.kind].get(key.ref)
        if present is None:
            return None
        return settings_status(present) if key.kind == Settings.KIND else policy_status(present)

    def _default_tls(self, _: Fetch, ref: Ref, settings: Settings) -> tuple[tuple[str, ClientTls], ...]:
        """What the settings that count say. Source: reference, Settings; where they say nothing, Istio decides."""
        mtls = settings.spec.mtls
        if ref != Ref("", self._namespace, SETTINGS) or mtls is None or mtls.istio is None:
            return ()
        return ((DEFAULT, ClientTls(mode=mtls.istio.tls_mode.value)),)

    def _mesh_status(self, fetch: Fetch, ref: Ref, _: object) -> MeshStatus:
        member = fetch.get(self._membership.member, ref)
        applied = fetch.get(self._virtual_meshes, member.virtual_mesh) if member else None
        progress, domains = fetch.get(self._trust.progress, ref), fetch.get(self._trust.domains, ref)
        warnings = (
            *(fetch.get(self._mesh_warnings, ref) or ()),
            *(domains.warnings if domains else ()),
            *(progress.warnings if progress else ()),
        )
        return mesh_status(applied, fetch.get(self._federation.gateways, ref), warnings)

    def _verification_status(
        self, fetch: Fetch, _: Ref, verification: CertificateVerification
    ) -> CertificateVerificationStatus:
        about = verification.about.ref
        return verification_status(
            verification,
            fetch.get(self._virtual_meshes, about),
            fetch.get(self._trust.roots, about),
            fetch.group(self._trust.presented, about),
        )

    def _workload_status(self, fetch: Fetch, ref: Ref, _: Workload) -> WorkloadStatus:
        scoped = fetch.get(self._dependencies.scoped, ref)
        found = (fetch.get(self._service_dependencies, each) for each in (scoped.applied if scoped else ()))
        return workload_status(scoped, tuple(filter(None, found)))

    def _destination_status(self, fetch: Fetch, ref: Ref, service: ServiceFacts) -> DestinationStatus:
        domain = fetch.get(self._domains, service.service.cluster) or DEFAULT_CLUSTER_DOMAIN
        warnings: list[str] = [*(fetch.get(self._destination_warnings, ref) or ())]
        left_out = ", ".join(f"{port.port}/{port.protocol}" for port in service.ports if not is_tcp(port))
        if left_out:
            warnings.append(f"ports that no gateway can carry are not federated: {left_out}")
        if not service.ports:
            warnings.append("the Service has no ports, so it is not federated")
        verdicts = fetch.get(self._traffic.judged, ref) or {}
        accepted = [policy for policy, found in verdicts.items() if found.state is ApprovalState.ACCEPTED]
        judged = fetch.get(self._access.judged, ref) or {}
        allowed = [policy for policy, found in judged.items() if found.state is ApprovalState.ACCEPTED]
        named = sorted({use.who.ref for _, use in fetch.group(self._traffic.uses_by_service, service.service)})
        return destination_status(
            local_fqdn(service.service, domain),
            fetch.get(self._federation.federated, ref),
            fetch.get(self._federation.outcomes, ref),
            tuple(filter(None, (fetch.get(self._traffic_policies, policy) for policy in accepted))),
            tuple(filter(None, (fetch.get(self._traffic_policies, policy) for policy in named))),
            tuple(filter(None, (fetch.get(self._access_policies, policy) for policy in allowed))),
            tuple(dict.fromkeys(warnings)),
        )

    def _external_status(self, fetch: Fetch, ref: Ref, found: Written) -> DestinationStatus:
        problems = [str(problem) for problem in fetch.get(self._external_services.problems, ref) or ()]
        return external_service_status(found, problems, fetch.get(self._external_services.resolved, ref))

    def _required_subsets(self, fetch: Fetch, ref: Ref, _: VirtualDestination) -> tuple[RequiredSubsets, ...] | None:
        naming = sorted({use.who.ref for _, use in fetch.group(self._traffic.uses_by_service, ref)})
        found = (fetch.get(self._traffic_policies, policy) for policy in naming)
        return required_subsets(tuple(filter(None, found))) or None

    def _approve_meshes(self, fetch: Fetch, ref: Ref, virtual_mesh: VirtualMesh) -> dict[Ref, ApprovalStatus]:
        errors = fetch.get(self._membership.mesh_errors, ref) or {}
        facts = fetch.get(self._membership.facts, ref)
        approvals: dict[Ref, ApprovalStatus] = {}
        for mesh in virtual_mesh.spec.meshes:
            found = [errors[mesh.ref]] if mesh.ref in errors else []
            member = fetch.get(self._membership.member, mesh.ref) if not found else None
            if member is None and not found:
                continue
            if facts is not None and facts.federates and member is not None:
                gateways = fetch.get(self._federation.gateways, mesh.ref) or MeshGateways()
                found.extend(gateways.errors)
                if facts.suffix != DEFAULT_SUFFIX and not member.mesh.dns_proxying:
                    found.append(
                        f"mesh {mesh.ref.key} does not have smart DNS proxying enabled, without which host names that "
                        f"end in .{facts.suffix} do not resolve: set meshConfig.defaultConfig.proxyMetadata."
                        'ISTIO_META_DNS_CAPTURE to "true"'
                    )
            progress = fetch.get(self._trust.progress, mesh.ref) if member is not None else None
            if progress is not None and progress.virtual_mesh == ref:
                found.extend(progress.errors)
                if progress.failed and not found:
                    approvals[mesh.ref] = approval(progress.failed, failed=True)
                    continue
            approvals[mesh.ref] = approval(tuple(found))
        return approvals

    def _virtual_mesh_status(self, ref: Ref) -> VirtualMeshStatus | None:
        virtual_mesh = self._virtual_meshes.get(ref)
        if virtual_mesh is None:
            return None
        meshes = dict(self._mesh_approvals.get(ref) or {})
        errors = [str(problem) for problem in self._membership.problems.get(ref) or ()]
        errors += [str(problem) for problem in self._trust.problems.get(ref) or ()]
        if (problem := self._root_problems.get(ref)) is not None:
            errors.append(str(problem))
        # By name, not as listed: equal dictionaries may differ in order, and then the older one is kept.
        amiss = (meshes[mesh] for mesh in sorted(meshes) if meshes[mesh].state is ApprovalState.INVALID)
        errors += dict.fromkeys(error for outcome in amiss for error in outcome.errors)
        failed: dict[Ref, ApprovalStatus] = {}
        for key, error in self._errors_by_parent.get(StatusKey(VirtualMesh.KIND, ref.namespace, ref.name)) or ():
            holder = meshes if error.subject in meshes else failed
            before = holder.get(error.subject)
            if before is None or before.state is not ApprovalState.INVALID:
                earlier = before.errors if before else ()
                holder[error.subject] = approval((*earlier, _failure(key, error)), failed=True)
        facts = self._membership.facts.get(ref)
        members = facts.members if facts and facts.federates else ()
        destinations = self._destinations_of(ref, failed)
        trust = self._trust_of(virtual_mesh, pending=not errors)
        return virtual_mesh_status(virtual_mesh, tuple(errors), members, meshes, destinations, trust)

    def _traffic_policy_status(self, key: StatusKey) -> TrafficPolicyStatus | None:
        policy = self._traffic_policies.get(key.ref)
        if policy is None:
            return None
        problems = self._traffic.problems.get(key.ref) or ()
        outcome = self._policy_outcome(key, problems, self._traffic.missing, self._traffic.verdicts)
        workloads = self._senders.get(key.ref) or ()
        status = traffic_policy_status(policy, outcome, workloads)
        return status if problems else with_routes(status, self._gateways.policies.get(key.ref))

    def _access_policy_status(self, key: StatusKey) -> AccessPolicyStatus | None:
        policy = self._access_policies.get(key.ref)
        if policy is None:
            return None
        problems = self._access.problems.get(key.ref) or ()
        outcome = self._policy_outcome(key, problems, self._access.missing, self._access.verdicts)
        workloads = self._callers.get(key.ref) or ()
        return access_policy_status(policy, outcome, workloads)

    def _service_dependency_status(self, key: StatusKey) -> ServiceDependencyStatus | None:
        dependency = self._service_dependencies.get(key.ref)
        if dependency is None:
            return None
        problems = tuple(wrong_services(dependency.spec.destination_selectors, "spec.destinationSelectors"))
        outcome = self._policy_outcome(key, problems, self._dependencies.missing, self._dependencies.verdicts)
        return service_dependency_status(dependency, outcome)

    def _policy_outcome(
        self,
        key: StatusKey,
        problems: tuple[Problem, ...],
        missing: Index[Ref, tuple[Ref, str], Ref],
        verdicts: Index[Ref, tuple[Ref, Ref], ApprovalStatus],
    ) -> PolicyOutcome:
        """What became of the policy *key* with *problems* of its own; *missing* and *verdicts* are by policy."""
        return policy_outcome(
            problems,
            (service for _, service in missing.get(key.ref) or ()),
            {subject: verdict for (_, subject), verdict in verdicts.get(key.ref) or ()},
            self._failures(key),
        )

    def _failures(self, key: StatusKey) -> dict[Ref, str]:
        """Of what could not be written for *key*, what its status says, by subject."""
        return {error.subject: _failure(output, error) for output, error in self._errors_by_parent.get(key) or ()}

    def _gateway_status(self, key: StatusKey) -> ApiStruct | None:
        status = self._gateways.status(key)
        found = self._errors_by_parent.get(key) or ()
        return with_failures(status, [_failure(output, error) for output, error in found]) if status else None

    def _virtual_destination_status(self, key: StatusKey) -> VirtualDestinationStatus | None:
        virtual = self._sources[VirtualDestination.KIND].get(key.ref)
        if virtual is None:
            return None
        problems = tuple(str(problem) for problem in self._virtual_destinations.problems.get(key.ref) or ())
        resolved = self._virtual_destinations.resolved.get(key.ref)
        required = self._virtual_subsets.get(key.ref) or ()
        return virtual_destination_status(virtual, problems, resolved, required, self._failures(key))

    def _trust_of(self, virtual_mesh: VirtualMesh, *, pending: bool) -> TrustOutcome:
        found = self._trust.domains_by_virtual_mesh.get(virtual_mesh.ref) or ()
        domains = tuple(warning for _, each in found for warning in each.warnings)
        if virtual_mesh.spec.mtls_config is None:
            return TrustOutcome(warnings=domains)
        root = self._trust.roots.get(virtual_mesh.ref)
        progress = self._trust.progress_by_virtual_mesh.get(virtual_mesh.ref) or ()
        warnings = [*domains, *(warning for _, each in progress for warning in each.warnings)]
        if root is not None:
            presented = self._trust.presented.get(virtual_mesh.ref) or ()
            warnings = [*awaited(root, presented), *root.warnings, *warnings]
        if root is None and pending:
            warnings.insert(0, "no certificates are issued yet: the root certificate is not known")
        return TrustOutcome(root, (*vault_warnings(virtual_mesh), *warnings))

    def _destinations_of(self, virtual_mesh: Ref, failed: dict[Ref, ApprovalStatus]) -> DestinationApprovals:
        """Those with errors first; *failed* are those that could not be written. Looks at no more than are listed."""
        outcomes = self._outcomes_by_virtual_mesh
        right, wrong = (virtual_mesh, True), (virtual_mesh, False)
        every = self._federation.outcomes
        failed = {ref: status for ref, status in failed.items() if not ((found := every.get(ref)) and found.errors)}
        amiss = {**failed, **{ref: approval(o.errors) for ref, o in outcomes.first(wrong, MAX_LISTED_DESTINATIONS)}}
        listed = {ref: amiss[ref] for ref in sorted(amiss)[:MAX_LISTED_DESTINATIONS]}
        room = MAX_LISTED_DESTINATIONS - len(listed)
        accepted = [ref for ref, _ in outcomes.first(right, room + len(failed)) if ref not in failed] if room else []
        listed.update((ref, approval(())) for ref in accepted[:room])
        return DestinationApprovals(
            listed=listed,
            accepted=outcomes.size(right) - sum(ref in every for ref in failed),
            invalid=outcomes.size(wrong),
            failed=len(failed),
        )
