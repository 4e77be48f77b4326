"""CertificateRequest: an agent asks the management plane to sign. On managed clusters."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.scalars import Int64
from isthmus.model import kinds
from isthmus.model.ref import Kind


class CertificateRequestSpec(ApiStruct, frozen=True):
    """What is to be signed."""

    certificate_signing_request: bytes = b""
    """Certificate signing request in PEM, base64."""


class CertificateRequestState(Enum):
    """How far a request is. PENDING is the zero value."""

    PENDING = "PENDING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


class CertificateRequestStatus(ApiStruct, frozen=True):
    """The answer."""

    observed_generation: Int64 = 0
    """Generation of the CertificateRequest that this status speaks of."""
    error: str = ""
    """Why it FAILED."""
    state: CertificateRequestState = CertificateRequestState.PENDING
    """FINISHED: the certificate is below."""
    signed_certificate: bytes = b""
    """The certificate in PEM, base64."""
    signing_root_ca: bytes = b""
    """The root certificate in PEM, base64."""
    cert_chain: bytes = b""
    """The certificate followed by those that signed it, in PEM, base64."""


class CertificateRequest(Resource, frozen=True):
    """A signing request of an agent; of the same name as its IssuedCertificate, answered in its status."""

    KIND: ClassVar[Kind] = kinds.CERTIFICATE_REQUEST
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Error", "string", ".status.error"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: certificates.mesh.gloo.solo.io/v1
kind: CertificateRequest
metadata:
  name: istiod-istio-system-cluster1
  namespace: gloo-mesh
spec:
  certificateSigningRequest: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
"""

    spec: CertificateRequestSpec = CertificateRequestSpec()
    """What is to be signed."""
    status: CertificateRequestStatus | None = None
    """The answer."""
