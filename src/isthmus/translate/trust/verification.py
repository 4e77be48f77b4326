"""What becomes of a CertificateVerification, and what those who write one want to know: what workloads present."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from isthmus.api.certificate_verification import (
    CertificateVerification,
    CertificateVerificationStatus,
    VerificationAction,
    VerificationState,
)
from isthmus.api.common import CertificateRotationState
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.api.virtual_mesh import RotationStrategy, VirtualMesh
from isthmus.model.ref import Ref
from isthmus.translate.trust.facts import RootFacts
from isthmus.translate.trust.rotation import STEPS

MOST_NAMES = 5  # of pods in one message; the Mesh has more
MOST_MESHES = 5  # in one message; fifty of these are kept


class Presented(msgspec.Struct, frozen=True, gc=False):
    """What the pods of one mesh present. *looked* tells whether that was seen since the mesh runs with its trust."""

    virtual_mesh: Ref
    looked: bool
    shared: int = 0
    """Pods whose certificate leads to the shared root."""
    presumed: int = 0
    """Pods that show none, but have started since."""
    doubtful: int = 0
    """All others."""
    named: tuple[str, ...] = ()
    """Some of these, and why."""


def presented(virtual_mesh: Ref, status: IssuedCertificateStatus | None, root: RootFacts) -> Presented:
    """What *status* says of a mesh's pods."""
    seen = status.workloads if status is not None else None
    if seen is None or status is None or not seen.observed_trust == status.observed_trust == root.trust:
        return Presented(virtual_mesh, looked=False)
    named = tuple(f"{pod.name} ({pod.reason})" if pod.reason else pod.name for pod in seen.pods[:MOST_NAMES])
    return Presented(virtual_mesh, True, seen.shared, seen.presumed, seen.other + seen.unknown, named)


def doubts(meshes: Iterable[tuple[Ref, Presented]]) -> Iterator[str]:
    """What a person should know who is about to say that all is well."""
    doubtful = [row for row in sorted(meshes, key=itemgetter(0)) if row[1].doubtful or not row[1].looked]
    for mesh, found in doubtful[:MOST_MESHES]:
        if not found.looked:
            yield f"mesh {mesh.key}: what its workloads present has not been looked at yet"
        else:
            more = ", ..." if found.doubtful > len(found.named) else ""
            yield (
                f"mesh {mesh.key}: {found.doubtful} workloads show no certificate of the shared root: "
                f"{', '.join(found.named)}{more}"
            )
    if len(doubtful) > MOST_MESHES:
        yield f"so it is with {len(doubtful) - MOST_MESHES} other meshes"


def remark(meshes: Iterable[tuple[Ref, Presented]]) -> str:
    """For the log of a rotation: whether all workloads present certificates of the shared root."""
    rows = list(meshes)
    if found := list(doubts(rows)):
        return "; ".join(found)
    shared, presumed = (sum(row.shared for _, row in rows), sum(row.presumed for _, row in rows))
    others = f", and {presumed} that show none have started since" if presumed else ""
    return f"all {shared} workloads that show a certificate show one of the shared root{others}" if rows else ""


def awaited(root: RootFacts, meshes: Iterable[tuple[Ref, Presented]]) -> Iterator[str]:
    """Says that a rotation goes on only when somebody says so, and what there is to know before."""
    if root.verifying:
        said = remark(meshes)
        yield (
            f"every mesh has run with {root.rotation_state.value}: to go on, create a CertificateVerification of this "
            f"step for this VirtualMesh{f'; {said}' if said else ''}"
        )


def verification_status(
    verification: CertificateVerification,
    virtual_mesh: VirtualMesh | None,
    root: RootFacts | None,
    meshes: Iterable[tuple[Ref, Presented]],
) -> CertificateVerificationStatus:
    """The status of *verification*; *meshes* are those of the virtual mesh."""
    generation = verification.metadata.generation
    followed, warnings = root.answered.get(verification.identity, (None, ())) if root is not None else (None, ())
    if virtual_mesh is not None and followed:
        return CertificateVerificationStatus(
            observed_generation=generation, state=VerificationState.VERIFIED, warnings=warnings
        )
    errors = tuple(_errors(verification, virtual_mesh, over=followed is False))
    if errors:
        return CertificateVerificationStatus(
            observed_generation=generation, state=VerificationState.INVALID, errors=errors
        )
    step = verification.spec.step
    if root is not None and root.verifying and root.rotation_state is step:
        why = "a mesh has fallen behind since, or the root has a problem; the VirtualMesh says which"
        warnings = (f"{step.value} is not left yet: {why}",)
    else:
        at = root.conditions[-1].state if root is not None and root.conditions else root and root.rotation_state
        present = at.value if at else CertificateRotationState.NOT_ROTATING.value
        warnings = (f"{step.value} does not wait for verification yet: the virtual mesh is at {present}",)
    if root is not None and root.rotation_state is step:
        warnings += tuple(doubts(meshes))
    return CertificateVerificationStatus(observed_generation=generation, warnings=warnings)


def _errors(verification: CertificateVerification, virtual_mesh: VirtualMesh | None, *, over: bool) -> Iterator[str]:
    """Why *verification* says nothing to anybody."""
    spec, about = verification.spec, verification.about
    if spec.step not in STEPS:
        steps = ", ".join(step.value for step in STEPS)
        given = "is missing" if spec.step is CertificateRotationState.NOT_ROTATING else f"{spec.step.value} is none"
        yield f"spec.step: {given}; set one of {steps}"
    elif spec.action is VerificationAction.ROLLBACK and spec.step is STEPS[0]:
        yield (
            f"spec.action: nothing comes before {spec.step.value}; set CONTINUE, or name the old root in the "
            "VirtualMesh to end the rotation"
        )
    if not about.name:
        yield "spec.virtualMesh.name: is missing; set it to the VirtualMesh whose root is replaced"
        return
    name = f"VirtualMesh {about.namespace}/{about.name}"
    if virtual_mesh is None:
        yield f"spec.virtualMesh: {name} does not exist; name one that does, or create it"
        return
    config = virtual_mesh.spec.mtls_config
    if config is None:
        yield f"spec.virtualMesh: {name} has no spec.mtlsConfig, so it has no root; set one there, or name another"
        return
    method = config.rotation_verification_method
    if config.rotation_strategy is RotationStrategy.NONE:
        yield (
            f"spec.virtualMesh: {name} has spec.mtlsConfig.rotationStrategy NONE, which replaces a root without "
            "steps; set MULTI_ROOT there, or delete this object"
        )
    if method is None or method.manual is None:
        yield (
            f"spec.virtualMesh: rotations of {name} go on without verification; set "
            "spec.mtlsConfig.rotationVerificationMethod.manual there, or delete this object"
        )
    if over:
        yield (
            "spec.step: what this object says was for a rotation that has ended or was rolled back, and counts no "
            "more; delete it and create another"
        )
