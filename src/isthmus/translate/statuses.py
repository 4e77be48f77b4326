"""Statuses of the objects of a virtual mesh, as users read them.

Source: reference, status of VirtualMesh, Mesh, Workload and Destination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from isthmus.api.access_log_record import AccessLogRecord, AccessLogRecordStatus
from isthmus.api.access_policy import AccessPolicy, AccessPolicyStatus, AppliedAccessPolicy
from isthmus.api.base import ApiStruct
from isthmus.api.common import ApprovalState, ApprovalStatus, ClusterObjectRef, ObjectRef, RequiredSubsets, TlsMode
from isthmus.api.discovery import (
    AppliedFederation,
    AppliedServiceDependency,
    AppliedVirtualMesh,
    DestinationStatus,
    MeshStatus,
    ServiceDependencies,
    WorkloadStatus,
)
from isthmus.api.service_dependency import ServiceDependency, ServiceDependencyStatus
from isthmus.api.settings import Settings, SettingsStatus
from isthmus.api.traffic_policy import AppliedTrafficPolicy, Policy, TrafficPolicy, TrafficPolicyStatus
from isthmus.api.virtual_destination import (
    BackingDestination,
    SelectedDestination,
    VirtualDestination,
    VirtualDestinationStatus,
)
from isthmus.api.virtual_mesh import VirtualMesh, VirtualMeshStatus
from isthmus.model.ref import Ref
from isthmus.translate.access.facts import open_sources
from isthmus.translate.dependencies.derivations import Scoped
from isthmus.translate.facts import MeshFacts
from isthmus.translate.federation.derivations import Outcome
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.federation.objects import Federated
from isthmus.translate.sources import MAX_LISTED_WORKLOADS
from isthmus.translate.trust.facts import RootFacts
from isthmus.translate.virtual_destinations.derivations import Resolved

MAX_LISTED_DESTINATIONS = 2000  # an object of etcd holds 1.5 MiB, and the API server stores every key of a map twice

MAX_LISTED_POLICIES = 100  # whose whole specs a destination's status holds
MAX_LISTED_MESSAGES = 20  # about one thing; who reads them mends the first
MAX_LIST_BYTES = 200_000  # of one list: several of them and the object's spec have to fit into an object

MAX_LISTED_HOSTNAMES = 2000  # of what a workload calls; its Sidecar has them all

_UNSERVED = "is accepted but not yet acted on by this version"
_POLICY = f"the policy {_UNSERVED}"

_ENCODE = msgspec.json.Encoder().encode
_P = TypeVar("_P", TrafficPolicy, AccessPolicy)


class DestinationApprovals(msgspec.Struct, frozen=True, gc=False):
    """Outcomes of a virtual mesh's destinations: some of them, those with errors first, and how many there are."""

    listed: dict[Ref, ApprovalStatus]
    accepted: int
    invalid: int
    failed: int


class TrustOutcome(msgspec.Struct, frozen=True, gc=False):
    """How far a virtual mesh's trust is. *root* None: none is known, or none is wanted."""

    root: RootFacts | None = None
    warnings: tuple[str, ...] = ()


def approval(errors: tuple[str, ...], *, failed: bool = False) -> ApprovalStatus:
    """ACCEPTED without errors, else INVALID, or FAILED when the object was right but writing it was not possible."""
    if not errors:
        return ApprovalStatus(state=ApprovalState.ACCEPTED)
    return ApprovalStatus(state=ApprovalState.FAILED if failed else ApprovalState.INVALID, errors=errors)


def object_ref(ref: Ref) -> ObjectRef:
    """*ref* as YAML writes it."""
    return ObjectRef(name=ref.name, namespace=ref.namespace)


def mesh_status(applied: VirtualMesh | None, gateways: MeshGateways | None, warnings: tuple[str, ...]) -> MeshStatus:
    """Status of a mesh, in the virtual mesh *applied* if it is in one."""
    virtual_mesh = None
    if applied is not None:
        virtual_mesh = AppliedVirtualMesh(
            ref=object_ref(applied.ref), observed_generation=applied.metadata.generation, spec=applied.spec
        )
    return MeshStatus(
        applied_virtual_mesh=virtual_mesh,
        applied_east_west_ingress_gateways=tuple(gate.applied() for gate in gateways.gateways) if gateways else (),
        warnings=warnings,
    )


def _shown(policies: Sequence[_P]) -> Sequence[_P]:
    """The first of *policies*, as many as a status can hold with their whole specs."""
    room = MAX_LIST_BYTES
    for count, policy in enumerate(policies[:MAX_LISTED_POLICIES]):
        room -= len(_ENCODE(policy.spec))
        if room < 0:
            return policies[:count]
    return policies[:MAX_LISTED_POLICIES]


def _brief(messages: tuple[str, ...]) -> tuple[str, ...]:
    """The first of *messages*, and how many more there are."""
    more = len(messages) - MAX_LISTED_MESSAGES
    return messages if more <= 0 else (*messages[:MAX_LISTED_MESSAGES], f"and {more} more")


def destination_status(
    fqdn: str,
    federated: Federated | None,
    outcome: Outcome | None,
    applied: Sequence[TrafficPolicy],
    naming: Sequence[TrafficPolicy],
    allowing: Sequence[AccessPolicy],
    warnings: tuple[str, ...],
) -> DestinationStatus:
    """Status of a destination; its federation only if that succeeded.

    *applied* and *allowing* are the policies that it accepted; *naming* those whose traffic shifts name subsets of it.
    """
    federation = None
    if federated is not None and outcome is not None and not outcome.errors:
        federation = AppliedFederation(
            federated_hostname=federated.hostname,
            federated_to_meshes=tuple(object_ref(mesh.ref) for mesh in federated.targets),
            flat_network=federated.flat_network,
            virtual_mesh_ref=object_ref(federated.virtual_mesh),
            tcp_keepalive=federated.keepalive,
        )
    shown, shown_allowing = _shown(applied), _shown(allowing)
    for what, found, listed in (("traffic", applied, shown), ("access", allowing, shown_allowing)):
        if len(found) > len(listed):
            warnings += (f"{len(found)} {what} policies apply; the first {len(listed)} are listed",)
    return DestinationStatus(
        applied_traffic_policies=tuple(
            AppliedTrafficPolicy(
                ref=object_ref(policy.ref), observed_generation=policy.metadata.generation, spec=policy.spec
            )
            for policy in shown
        ),
        applied_access_policies=tuple(
            AppliedAccessPolicy(
                ref=object_ref(allowed.ref), observed_generation=allowed.metadata.generation, spec=allowed.spec
            )
            for allowed in shown_allowing
        ),
        local_fqdn=fqdn,
        applied_federation=federation,
        required_subsets=required_subsets(naming),
        warnings=warnings,
    )


def traffic_policy_status(
    policy: TrafficPolicy,
    problems: tuple[str, ...],
    missing: Sequence[Ref],
    verdicts: Mapping[Ref, ApprovalStatus],
    failures: Mapping[Ref, str],
    workloads: tuple[Ref, ...],
) -> TrafficPolicyStatus:
    """Status of a traffic policy: *problems* of its own, services it names that are not there, and what became of it.

    *workloads* are those whose requests it is about, the first of very many.
    A policy with a problem of its own has no effect at all; one that has a problem on a destination serves the others.
    """
    spec = policy.spec
    outcome = _outcome(problems, missing, verdicts, failures)
    warnings = tuple(
        f"spec.policy.{field} is about routes of gateways alone"
        for field, value in _gateway_fields(spec.policy)
        if value is not None and not spec.route_selector
    )
    if not problems and not outcome.found and not missing and (spec.destination_selector or not spec.route_selector):
        warnings += ("selects no destination",)
    if spec.source_selector and outcome.found and not workloads:
        warnings += ("spec.sourceSelector selects no workload that can call its destinations",)
    return TrafficPolicyStatus(
        observed_generation=policy.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=warnings + outcome.cut() + _cut(workloads),
        destinations=outcome.listed,
        workloads=_listed(workloads),
    )


def access_policy_status(
    policy: AccessPolicy,
    problems: tuple[str, ...],
    missing: Sequence[Ref],
    verdicts: Mapping[Ref, ApprovalStatus],
    failures: Mapping[Ref, str],
    workloads: tuple[Ref, ...],
) -> AccessPolicyStatus:
    """Status of an access policy: *problems* of its own, services it names that are not there, and what became of it.

    *workloads* are those that it allows to call, the first of very many.
    A policy with a problem of its own allows nobody.
    """
    outcome = _outcome(problems, missing, verdicts, failures)
    open_ = () if problems else open_sources(policy.spec)
    warnings = tuple(f"{path} is empty: everybody may call, also without an identity" for path in open_)
    if problems:
        warnings += ("allows nobody until that is mended",)
    if not outcome.found and not missing:
        warnings += ("selects no destination",)
    elif outcome.found and not (problems or open_ or workloads):
        warnings += ("names no workload that is known: nobody may call by it yet",)
    return AccessPolicyStatus(
        observed_generation=policy.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=warnings + outcome.cut() + _cut(workloads),
        destinations=outcome.listed,
        workloads=_listed(workloads),
    )


def service_dependency_status(
    dependency: ServiceDependency,
    missing: Sequence[Ref],
    verdicts: Mapping[Ref, ApprovalStatus],
    failures: Mapping[Ref, str],
) -> ServiceDependencyStatus:
    """Status of a service dependency: services it names that are not there, and what became of it on each workload."""
    outcome = _outcome((), missing, verdicts, failures)
    return ServiceDependencyStatus(
        observed_generation=dependency.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=outcome.cut("workloads") if outcome.found else ("selects no workload",),
        workloads=outcome.listed,
    )


def workload_status(scoped: Scoped | None, dependencies: Sequence[ServiceDependency]) -> WorkloadStatus:
    """Status of a workload whose proxies are told what *scoped* says, because of *dependencies* and access policies."""
    if scoped is None or not scoped.hosts:
        return WorkloadStatus()
    hostnames = scoped.hostnames
    shown = hostnames[:MAX_LISTED_HOSTNAMES]
    return WorkloadStatus(
        service_dependencies=ServiceDependencies(
            applied_service_dependencies=tuple(
                AppliedServiceDependency(
                    service_dependency_ref=object_ref(each.ref), observed_generation=each.metadata.generation
                )
                for each in dependencies
            ),
            destination_hostnames=shown,
        ),
        warnings=(f"destinationHostnames lists {len(shown)} of {len(hostnames)}",) if shown != hostnames else (),
    )


def _listed(workloads: tuple[Ref, ...]) -> tuple[str, ...]:
    return tuple(workload.key for workload in workloads[:MAX_LISTED_WORKLOADS])


def _cut(workloads: tuple[Ref, ...]) -> tuple[str, ...]:
    if len(workloads) <= MAX_LISTED_WORKLOADS:
        return ()
    return (f"status.workloads lists the first {MAX_LISTED_WORKLOADS} workloads",)


class _Outcome(msgspec.Struct, frozen=True):
    """What became of a policy: on each destination, or workload, and all in all."""

    state: ApprovalState
    errors: tuple[str, ...]
    found: dict[Ref, ApprovalStatus]

    @property
    def listed(self) -> dict[str, ApprovalStatus]:
        """What a status lists, those with errors first if not all are."""
        return {ref.key: self.found[ref] for ref in sorted(self._chosen())}

    def cut(self, what: str = "destinations") -> tuple[str, ...]:
        """A warning if not all are listed; *what* they are, as the status names them."""
        chosen = self._chosen()
        if len(chosen) == len(self.found):
            return ()
        return (f"status.{what} lists {len(chosen)} of {len(self.found)} {what}, those with errors first",)

    def _chosen(self) -> list[Ref]:
        def errors_first(ref: Ref) -> tuple[bool, Ref]:
            return self.found[ref].state is ApprovalState.ACCEPTED, ref

        chosen = sorted(self.found, key=errors_first)[:MAX_LISTED_DESTINATIONS]
        room = 2 * MAX_LIST_BYTES
        for count, ref in enumerate(chosen):
            room -= len(ref.key) + sum(map(len, (*self.found[ref].errors, *self.found[ref].warnings)))
            if room < 0:
                return chosen[:count]
        return chosen


def _outcome(
    problems: tuple[str, ...],
    missing: Sequence[Ref],
    verdicts: Mapping[Ref, ApprovalStatus],
    failures: Mapping[Ref, str],
) -> _Outcome:
    found = {destination: _brief_verdict(verdict) for destination, verdict in verdicts.items()}
    for destination, failure in failures.items():
        before = found.get(destination, ApprovalStatus())
        if before.state in (ApprovalState.ACCEPTED, ApprovalState.PENDING):
            found[destination] = approval((*before.errors, failure), failed=True)
    states = {verdict.state for verdict in found.values()}
    if problems or ApprovalState.INVALID in states:
        state = ApprovalState.INVALID
    elif ApprovalState.FAILED in states:
        state = ApprovalState.FAILED
    elif missing or ApprovalState.PENDING in states:
        state = ApprovalState.PENDING
    else:
        state = ApprovalState.ACCEPTED
    errors = (*problems, *(f"Destination {service.key} not found" for service in sorted(missing)))
    return _Outcome(state, _brief(errors), found)


def _brief_verdict(verdict: ApprovalStatus) -> ApprovalStatus:
    if max(len(verdict.errors), len(verdict.warnings)) <= MAX_LISTED_MESSAGES:
        return verdict
    return msgspec.structs.replace(verdict, errors=_brief(verdict.errors), warnings=_brief(verdict.warnings))


def virtual_destination_status(
    virtual: VirtualDestination,
    problems: tuple[str, ...],
    resolved: Resolved | None,
    required: tuple[RequiredSubsets, ...],
    failures: Mapping[Ref, str],
) -> VirtualDestinationStatus:
    """Status of a virtual destination; *required* are the policies whose traffic shifts name subsets of it."""
    errors = (*problems, *(resolved.errors if resolved is not None else ()))
    later = resolved.later if resolved is not None else ()
    shown = resolved if resolved is not None and resolved.works else None
    meshes = {mesh.ref: approval(()) for mesh in (shown.meshes if shown is not None else ())}
    meshes.update((mesh, approval((failure,), failed=True)) for mesh, failure in failures.items())
    if errors:
        state = ApprovalState.INVALID
    elif failures:
        state = ApprovalState.FAILED
    else:
        state = ApprovalState.PENDING if later else ApprovalState.ACCEPTED
    return VirtualDestinationStatus(
        observed_generation=virtual.metadata.generation,
        state=state,
        errors=(*errors, *later),
        warnings=resolved.warnings if resolved is not None else (),
        meshes={ref.key: meshes[ref] for ref in sorted(meshes)},
        selected_destinations=tuple(
            SelectedDestination(
                ref=_cluster_ref(backing.service.ref),
                destination=BackingDestination(kube_service=_cluster_ref(backing.service.service)),
            )
            for backing in (shown.backings if shown is not None else ())
        ),
        required_subsets=required,
    )


def required_subsets(naming: Sequence[TrafficPolicy]) -> tuple[RequiredSubsets, ...]:
    """The policies *naming*, whose traffic shifts name subsets; the first of them where there are very many."""
    return tuple(
        RequiredSubsets(
            traffic_policy_ref=object_ref(policy.ref),
            observed_generation=policy.metadata.generation,
            traffic_shift=policy.spec.policy.traffic_shift if policy.spec.policy else None,
        )
        for policy in _shown(naming)
    )


def _cluster_ref(ref: Ref) -> ClusterObjectRef:
    return ClusterObjectRef(name=ref.name, namespace=ref.namespace, cluster_name=ref.cluster)


def _gateway_fields(policy: Policy | None) -> tuple[tuple[str, object], ...]:
    return (("rateLimit", policy.rate_limit), ("extauth", policy.extauth)) if policy is not None else ()


def virtual_mesh_status(
    virtual_mesh: VirtualMesh,
    errors: tuple[str, ...],
    members: tuple[MeshFacts, ...],
    meshes: dict[Ref, ApprovalStatus],
    destinations: DestinationApprovals,
    trust: TrustOutcome,
) -> VirtualMeshStatus:
    """Status of a virtual mesh from the outcomes of its meshes and destinations; a warning if not all are listed.

    *members* are the meshes that it federates, none if it does not.
    """
    states = {status.state for status in meshes.values()}
    if errors or destinations.invalid or ApprovalState.INVALID in states:
        state = ApprovalState.INVALID
    elif destinations.failed or ApprovalState.FAILED in states:
        state = ApprovalState.FAILED
    else:
        state = ApprovalState.ACCEPTED
    warnings = _unserved(virtual_mesh) + trust.warnings + _shared_roots(members)
    listed = destinations.listed
    wrong = destinations.invalid + destinations.failed
    if len(listed) < destinations.accepted + wrong:
        warnings += (
            f"status.destinations lists {len(listed)} of {destinations.accepted + wrong} destinations, "
            f"those with errors first; of the others {max(0, wrong - len(listed))} have errors",
        )
    return VirtualMeshStatus(
        observed_generation=virtual_mesh.metadata.generation,
        state=state,
        errors=errors,
        warnings=warnings,
        meshes={ref.key: meshes[ref] for ref in sorted(meshes)},
        destinations={ref.key: listed[ref] for ref in sorted(listed)},
        conditions=trust.root.conditions if trust.root else (),
        deployed_shared_trust=trust.root.deployed if trust.root else None,
    )


def settings_status(settings: Settings) -> SettingsStatus:
    """Status of the settings; warnings name those that have no effect."""
    spec = settings.spec
    mode = spec.mtls.istio.tls_mode if spec.mtls and spec.mtls.istio else TlsMode.ISTIO_MUTUAL
    detectors = spec.discovery.istio.ingress_gateway_detectors if spec.discovery and spec.discovery.istio else {}
    warnings = []
    if mode is not TlsMode.ISTIO_MUTUAL:
        warnings.append(
            f"spec.mtls: {mode.value} counts for calls within a cluster; those between clusters stay ISTIO_MUTUAL, or "
            "else no gateway could tell where to"
        )
    if spec.networking_extension_servers:
        warnings.append(f"spec.networkingExtensionServers {_UNSERVED}: nobody is asked")
    if detectors:
        warnings.append(
            f"spec.discovery.istio.ingressGatewayDetectors {_UNSERVED}: use federation.ingressGatewaySelectors of the "
            "VirtualMesh"
        )
    return SettingsStatus(
        observed_generation=settings.metadata.generation, state=ApprovalState.ACCEPTED, warnings=tuple(warnings)
    )


def _shared_roots(members: tuple[MeshFacts, ...]) -> tuple[str, ...]:
    roots: dict[tuple[str, str], list[str]] = {}
    for mesh in members:
        roots.setdefault((mesh.cluster, mesh.root_namespace), []).append(f"{mesh.ref.name}.{mesh.ref.namespace}")
    return tuple(
        f"Meshes {' and '.join(names)} share root namespace {namespace} of cluster {cluster}: "
        "services are not federated between them, their own names already reach them"
        for (cluster, namespace), names in roots.items()
        if len(names) > 1
    )


def _unserved(virtual_mesh: VirtualMesh) -> tuple[str, ...]:
    spec = virtual_mesh.spec
    warnings = []
    if spec.federation is not None and len(set(spec.meshes)) < 2:
        warnings.append("a virtual mesh of fewer than two meshes federates nothing")
    return tuple(warnings)


def policy_status(policy: AccessLogRecord) -> ApiStruct:
    """Status of a policy that was read and is not acted on: PENDING, with a warning that says so."""
    effect = "no proxy logs because of it"
    return AccessLogRecordStatus(observed_generation=policy.metadata.generation, warnings=(f"{_POLICY}: {effect}",))
