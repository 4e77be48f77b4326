"""IssuedCertificate: the intermediate certificate that a mesh is to have. On managed clusters."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, OneofStruct, Resource
from isthmus.api.common import CertificateRotationState, CommonCertOptions, ObjectRef, VaultCA
from isthmus.api.scalars import Int64, UInt32
from isthmus.model import kinds
from isthmus.model.ref import Kind


class GlooMeshCa(ApiStruct, frozen=True):
    """The management plane signs."""

    signing_certificate_secret: ObjectRef | None = None
    """Secret of the management cluster that holds the signing certificate and its key."""


class AgentCa(ApiStruct, frozen=True):
    """The agent has the certificate signed elsewhere."""

    vault: VaultCA | None = None
    """HashiCorp Vault signs."""


class IssuedCertificateSpec(OneofStruct, frozen=True):
    """The certificate, who signs it and where it goes."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("gloo_mesh_ca", "agent_ca"),)

    hosts: tuple[str, ...] = ()
    """Subject alternative names; for Istio ``spiffe://<trust domain>/ns/<namespace>/sa/<service account>``."""
    org: str = ""
    """Deprecated: organisation in the subject; see certOptions."""
    signing_certificate_secret: ObjectRef | None = None
    """Deprecated: Secret that holds the signing certificate; see glooMeshCa."""
    issued_certificate_secret: ObjectRef | None = None
    """Secret of the managed cluster that the certificate goes to."""
    pod_bounce_directive: ObjectRef | None = None
    """The PodBounceDirective to follow once the certificate is there."""
    cert_options: CommonCertOptions | None = None
    """Properties of the certificate."""
    gloo_mesh_ca: GlooMeshCa | None = None
    """The management plane signs."""
    agent_ca: AgentCa | None = None
    """The agent has it signed elsewhere."""
    rotation_state: CertificateRotationState = CertificateRotationState.NOT_ROTATING
    """The step of the root rotation that the certificate belongs to."""
    trust: str = ""
    """Fingerprint of what signs and of what is trusted; another one calls for another certificate."""


class IssuedCertificateState(Enum):
    """How far a certificate is. PENDING is the zero value."""

    PENDING = "PENDING"
    REQUESTED = "REQUESTED"
    ISSUED = "ISSUED"
    FINISHED = "FINISHED"
    FAILED = "FAILED"


class OutdatedPods(ApiStruct, frozen=True):
    """Pods that started before the certificate was written, and so may present an older one."""

    count: UInt32 = 0
    """How many there are."""
    names: tuple[str, ...] = ()
    """Some of them, as ``<namespace>/<name>``, sorted."""


class DoubtfulPod(ApiStruct, frozen=True):
    """A pod of the mesh that does not show a certificate under the shared root."""

    name: str = ""
    """``<namespace>/<name>``."""
    shows_other: bool = False
    """Whether it shows another certificate, rather than none."""
    reason: str = ""
    """What it shows, or why nothing was seen."""


class WorkloadCertificates(ApiStruct, frozen=True):
    """What the ready pods of the mesh present, as the agent sees it when it connects to them."""

    observed_trust: str = ""
    """The observedTrust of the certificate that pods were looked at for; look at no number before it is yours."""
    shared: UInt32 = 0
    """Pods that present their own identity under a root that is wanted."""
    earlier: UInt32 = 0
    """How many of these are signed by another intermediate than the one in place now."""
    presumed: UInt32 = 0
    """Pods that show no certificate, such as gateways, but started after the one in place was written."""
    unknown: UInt32 = 0
    """Pods that show no certificate and started before."""
    other: UInt32 = 0
    """Pods that present another root's certificate, another identity, or one that has expired."""
    pods: tuple[DoubtfulPod, ...] = ()
    """The first fifty of other and unknown, others first, then by name."""


class IssuedCertificateStatus(OneofStruct, frozen=True):
    """How far a certificate is."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("applied_gloo_mesh_ca", "applied_agent_ca"),)

    observed_generation: Int64 = 0
    """Generation of the IssuedCertificate that this status speaks of."""
    error: str = ""
    """Why it FAILED."""
    state: IssuedCertificateState = IssuedCertificateState.PENDING
    """REQUESTED: the request is out. ISSUED: the certificate is in its Secret. FINISHED: pods run with it."""
    applied_gloo_mesh_ca: GlooMeshCa | None = None
    """The authority that signed, when it was the management plane."""
    applied_agent_ca: AgentCa | None = None
    """The authority that signed, when it was not."""
    observed_rotation_state: CertificateRotationState = CertificateRotationState.NOT_ROTATING
    """The step of the root rotation that this status speaks of."""
    observed_trust: str = ""
    """The spec's trust that this status speaks of."""
    not_before: str = ""
    """When the certificate in its Secret begins, RFC 3339: shortly before it was signed. Empty when there is none."""
    not_after: str = ""
    """When the certificate in its Secret expires, RFC 3339; empty when there is none."""
    outdated_pods: OutdatedPods | None = None
    """Pods that are still to restart."""
    workloads: WorkloadCertificates | None = None
    """What pods present, which is looked at when the certificate is in its Secret; FINISHED does not wait for it."""


class IssuedCertificate(Resource, frozen=True):
    """The intermediate certificate that a mesh is to have; written by the management plane, acted on by the agent."""

    KIND: ClassVar[Kind] = kinds.ISSUED_CERTIFICATE
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Secret", "string", ".spec.issuedCertificateSecret.name"),
        ("Error", "string", ".status.error"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: certificates.mesh.gloo.solo.io/v1
kind: IssuedCertificate
metadata:
  name: istiod-istio-system-cluster1
  namespace: gloo-mesh
spec:
  hosts:
  - spiffe://cluster1/ns/istio-system/sa/istiod-service-account
  issuedCertificateSecret:
    name: cacerts
    namespace: istio-system
  podBounceDirective:
    name: istiod-istio-system-cluster1
    namespace: gloo-mesh
  glooMeshCa:
    signingCertificateSecret:
      name: virtual-mesh.gloo-mesh
      namespace: gloo-mesh
"""

    spec: IssuedCertificateSpec = IssuedCertificateSpec()
    """What the management plane wants."""
    status: IssuedCertificateStatus | None = None
    """How far the agent is."""
