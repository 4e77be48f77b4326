"""Statuses of what is there and of virtual meshes, as users read them.

Source: reference, status of VirtualMesh, Mesh, Workload, Destination and VirtualDestination.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from isthmus.api.access_log_record import AccessLogRecord, AccessLogRecordStatus
from isthmus.api.access_policy import AccessPolicy, AppliedAccessPolicy
from isthmus.api.base import ApiStruct
from isthmus.api.common import ApprovalState, ApprovalStatus, ClusterObjectRef, RequiredSubsets, TlsMode
from isthmus.api.discovery import (
    AppliedFederation,
    AppliedServiceDependency,
    AppliedVirtualMesh,
    DestinationStatus,
    MeshStatus,
    ServiceDependencies,
    WorkloadStatus,
)
from isthmus.api.service_dependency import ServiceDependency
from isthmus.api.settings import Settings, SettingsStatus
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_destination import (
    BackingDestination,
    SelectedDestination,
    VirtualDestination,
    VirtualDestinationStatus,
)
from isthmus.api.virtual_mesh import VirtualMesh, VirtualMeshStatus
from isthmus.model.ref import Ref
from isthmus.translate.dependencies.derivations import Scoped
from isthmus.translate.facts import MeshFacts
from isthmus.translate.federation.derivations import Outcome
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.federation.objects import Federated
from isthmus.translate.listing import applied_traffic_policy, approval, object_ref, required_subsets, shown
from isthmus.translate.trust.facts import RootFacts
from isthmus.translate.virtual_destinations.derivations import Resolved

MAX_LISTED_HOSTNAMES = 2000  # of what a workload calls; its Sidecar has them all

_UNSERVED = "is accepted but not yet acted on by this version"
_POLICY = f"the policy {_UNSERVED}"


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
    shown_applied, shown_allowing = shown(applied), shown(allowing)
    for what, found, listed in (("traffic", applied, shown_applied), ("access", allowing, shown_allowing)):
        if len(found) > len(listed):
            warnings += (f"{len(found)} {what} policies apply; the first {len(listed)} are listed",)
    return DestinationStatus(
        applied_traffic_policies=tuple(map(applied_traffic_policy, shown_applied)),
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


def workload_status(scoped: Scoped | None, dependencies: Sequence[ServiceDependency]) -> WorkloadStatus:
    """Status of a workload whose proxies are told what *scoped* says, because of *dependencies* and access policies."""
    if scoped is None or not scoped.hosts:
        return WorkloadStatus()
    hostnames = scoped.hostnames
    listed = hostnames[:MAX_LISTED_HOSTNAMES]
    return WorkloadStatus(
        service_dependencies=ServiceDependencies(
            applied_service_dependencies=tuple(
                AppliedServiceDependency(
                    service_dependency_ref=object_ref(each.ref), observed_generation=each.metadata.generation
                )
                for each in dependencies
            ),
            destination_hostnames=listed,
        ),
        warnings=(f"destinationHostnames lists {len(listed)} of {len(hostnames)}",) if listed != hostnames else (),
    )


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
    works = resolved if resolved is not None and resolved.works else None
    meshes = {mesh.ref: approval(()) for mesh in (works.meshes if works is not None else ())}
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
            for backing in (works.backings if works is not None else ())
        ),
        required_subsets=required,
    )


def _cluster_ref(ref: Ref) -> ClusterObjectRef:
    return ClusterObjectRef(name=ref.name, namespace=ref.namespace, cluster_name=ref.cluster)


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
