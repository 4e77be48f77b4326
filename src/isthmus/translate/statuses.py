"""Statuses of the objects of a virtual mesh, as users read them.

Source: reference, status of VirtualMesh, Mesh, Workload and Destination.
"""

from __future__ import annotations

from isthmus.api.common import ApprovalState, ApprovalStatus, ObjectRef
from isthmus.api.discovery import (
    AppliedFederation,
    AppliedVirtualMesh,
    DestinationStatus,
    MeshStatus,
)
from isthmus.api.virtual_mesh import GlobalAccessPolicy, VirtualMesh, VirtualMeshStatus
from isthmus.model.ref import Ref
from isthmus.translate.federation.derivations import Outcome
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.federation.objects import Federated

MAX_LISTED_DESTINATIONS = 2000  # an object of etcd holds 1.5 MiB, and the API server stores every key of a map twice

_UNSERVED = "is accepted but not yet acted on by this version"


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


def destination_status(
    fqdn: str, federated: Federated | None, outcome: Outcome | None, warnings: tuple[str, ...]
) -> DestinationStatus:
    """Status of a destination; its federation only if that succeeded."""
    applied = None
    if federated is not None and outcome is not None and not outcome.errors:
        applied = AppliedFederation(
            federated_hostname=federated.hostname,
            federated_to_meshes=tuple(object_ref(mesh.ref) for mesh in federated.targets),
            flat_network=federated.flat_network,
            virtual_mesh_ref=object_ref(federated.virtual_mesh),
            tcp_keepalive=federated.keepalive,
        )
    return DestinationStatus(local_fqdn=fqdn, applied_federation=applied, warnings=warnings)


def virtual_mesh_status(
    virtual_mesh: VirtualMesh,
    errors: tuple[str, ...],
    meshes: dict[Ref, ApprovalStatus],
    destinations: dict[Ref, ApprovalStatus],
) -> VirtualMeshStatus:
    """Status of a virtual mesh from the outcomes of its meshes and destinations.

    At most `MAX_LISTED_DESTINATIONS` destinations are listed, those with errors first; a warning says how many are not.
    """
    every = [*meshes.values(), *destinations.values()]
    states = {status.state for status in every}
    if errors or ApprovalState.INVALID in states:
        state = ApprovalState.INVALID
    elif ApprovalState.FAILED in states:
        state = ApprovalState.FAILED
    else:
        state = ApprovalState.ACCEPTED
    warnings = _unserved(virtual_mesh)
    listed = sorted(destinations)
    if len(listed) > MAX_LISTED_DESTINATIONS:
        listed.sort(key=lambda ref: destinations[ref].state is ApprovalState.ACCEPTED)
        cut = listed[MAX_LISTED_DESTINATIONS:]
        wrong = sum(destinations[ref].state is not ApprovalState.ACCEPTED for ref in cut)
        warnings += (
            f"status.destinations lists {MAX_LISTED_DESTINATIONS} of {len(destinations)} destinations, "
            f"those with errors first; of the others {wrong} have errors",
        )
        listed = sorted(listed[:MAX_LISTED_DESTINATIONS])
    return VirtualMeshStatus(
        observed_generation=virtual_mesh.metadata.generation,
        state=state,
        errors=errors,
        warnings=warnings,
        meshes={ref.key: meshes[ref] for ref in sorted(meshes)},
        destinations={ref.key: destinations[ref] for ref in listed},
    )


def _unserved(virtual_mesh: VirtualMesh) -> tuple[str, ...]:
    spec = virtual_mesh.spec
    warnings = []
    if spec.mtls_config is not None:
        warnings.append(f"spec.mtlsConfig {_UNSERVED}: no certificates are issued and no pods restarted")
    if spec.global_access_policy is GlobalAccessPolicy.ENABLED:
        warnings.append(f"spec.globalAccessPolicy {_UNSERVED}: calls are not denied by default")
    if spec.federation is not None and len(spec.meshes) < 2:
        warnings.append("a virtual mesh of fewer than two meshes federates nothing")
    return tuple(warnings)
