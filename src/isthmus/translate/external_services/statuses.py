"""What users read of the Destinations that they wrote. Source: reference, Destination."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from isthmus.api.common import ApprovalState
from isthmus.api.discovery import AppliedFederation, DestinationStatus
from isthmus.translate.external_services.derivations import Resolved
from isthmus.translate.external_services.facts import Written
from isthmus.translate.listing import object_ref


def external_service_status(found: Written, problems: Sequence[str], resolved: Resolved | None) -> DestinationStatus:
    """Status of *found*, with *problems* of its own, or else *resolved* among others: where it is known, by which name.

    The virtual mesh is named where there is only one.
    """
    if resolved is None:
        return _status(found, ApprovalState.INVALID, tuple(problems))
    if resolved.errors:
        return _status(found, ApprovalState.INVALID, resolved.errors)
    if not resolved.works:
        return _status(found, ApprovalState.PENDING, resolved.later)
    placed = resolved.placed
    owners = placed.virtual_meshes
    known = AppliedFederation(
        federated_hostname=placed.facts.host or placed.facts.hosts[0],
        federated_to_meshes=tuple(object_ref(mesh.ref) for mesh in placed.meshes),
        virtual_mesh_ref=object_ref(owners[0]) if len(owners) == 1 else None,
    )
    status = _status(found, ApprovalState.ACCEPTED, ())
    return msgspec.structs.replace(status, applied_federation=known, warnings=resolved.warnings)


def _status(found: Written, state: ApprovalState, errors: tuple[str, ...]) -> DestinationStatus:
    return DestinationStatus(observed_generation=found.generation, state=state, errors=errors)
