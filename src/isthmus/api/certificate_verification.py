"""CertificateVerification: a person's word on a step of a root rotation."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import CertificateRotationState, ObjectRef
from isthmus.api.scalars import Int64
from isthmus.model.ref import Kind

GROUP = "networking.enterprise.mesh.gloo.solo.io"


class VerificationAction(Enum):
    """Where a rotation goes from the step. CONTINUE is the zero value."""

    CONTINUE = "CONTINUE"
    ROLLBACK = "ROLLBACK"


class CertificateVerificationSpec(ApiStruct, frozen=True):
    """A step of a rotation, and where the rotation goes from there."""

    step: CertificateRotationState = CertificateRotationState.NOT_ROTATING
    """The step that was verified: PREVIOUS_CA, ADDING_NEW_ROOT, PROPAGATING_NEW_INTERMEDIATE or DELETING_OLD_ROOT."""
    action: VerificationAction = VerificationAction.CONTINUE
    """CONTINUE goes on to the next step, ROLLBACK returns to the one before."""
    virtual_mesh: ObjectRef = ObjectRef()
    """The VirtualMesh whose root is replaced; its namespace is that of this object by default."""


class VerificationState(Enum):
    """What became of a verification. PENDING is the zero value."""

    PENDING = "PENDING"
    VERIFIED = "VERIFIED"
    INVALID = "INVALID"


class CertificateVerificationStatus(ApiStruct, frozen=True):
    """What became of a verification."""

    observed_generation: Int64 = 0
    """Generation of the CertificateVerification that this status speaks of."""
    errors: tuple[str, ...] = ()
    """Why it is INVALID."""
    state: VerificationState = VerificationState.PENDING
    """PENDING: the step does not wait for it yet. VERIFIED: the rotation went where it says."""
    warnings: tuple[str, ...] = ()
    """What it waits for, and which workloads present a certificate that is not of the shared root."""


class CertificateVerification(Resource, frozen=True):
    """Lets a root rotation that is verified by hand go on from a step, or back. It counts once."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1beta1", "CertificateVerification", "certificateverifications")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("cv", "cvs")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Step", "string", ".spec.step"),
        ("Action", "string", ".spec.action"),
        ("State", "string", ".status.state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.enterprise.mesh.gloo.solo.io/v1beta1
kind: CertificateVerification
metadata:
  name: new-root-ok
  namespace: gloo-mesh
spec:
  step: ADDING_NEW_ROOT
  action: CONTINUE
  virtualMesh:
    name: virtual-mesh
    namespace: gloo-mesh
"""

    spec: CertificateVerificationSpec = CertificateVerificationSpec()
    """What the user wants."""
    status: CertificateVerificationStatus | None = None
    """What became of it."""

    @property
    def identity(self) -> str:
        """This object in this form: what makes it count once."""
        return f"{self.metadata.uid}/{self.metadata.generation}"

    @property
    def about(self) -> ObjectRef:
        """The VirtualMesh that it speaks of."""
        given = self.spec.virtual_mesh
        return ObjectRef(name=given.name, namespace=given.namespace or self.metadata.namespace)
