"""PodBounceDirective: which pods restart, in which order, when a certificate changed. On managed clusters."""

from __future__ import annotations

from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ObjectRef
from isthmus.api.scalars import UInt32
from isthmus.model import kinds
from isthmus.model.ref import Kind

BY_HAND = "isthmus.io/restart-by-hand"
"""Annotation: the IssuedCertificate for which a person wants this once, as `meshctl mesh restart` writes it."""


class RootCertSync(ApiStruct, frozen=True):
    """Two places that must hold the same root certificate before pods restart."""

    secret_ref: ObjectRef | None = None
    """The Secret."""
    secret_key: str = ""
    """Key of the root certificate in it."""
    config_map_ref: ObjectRef | None = None
    """The ConfigMap."""
    config_map_key: str = ""
    """Key of the root certificate in it."""


class PodSelector(ApiStruct, frozen=True):
    """Pods to restart."""

    namespace: str = ""
    """Namespace of the pods."""
    labels: dict[str, str] = {}
    """Labels of the pods, every pair of which must match."""
    wait_for_replicas: UInt32 = 0
    """Ready replacements that are needed before the next selector."""
    root_cert_sync: RootCertSync | None = None
    """What must be equal before they restart."""


class PodBounceDirectiveSpec(ApiStruct, frozen=True):
    """Pods to restart."""

    pods_to_bounce: tuple[PodSelector, ...] = ()
    """The pods, in this order."""


class BouncedPods(ApiStruct, frozen=True):
    """Pods that were restarted for one selector."""

    bounced_pods: tuple[str, ...] = ()
    """Their names."""


class PodBounceDirectiveStatus(ApiStruct, frozen=True):
    """How far the restart is."""

    pods_bounced: tuple[BouncedPods, ...] = ()
    """One entry per selector of the spec, in its order, as far as the restart is."""
    observed_certificate: str = ""
    """Fingerprint of the certificate that the pods are restarted for."""
    finished: bool = False
    """Whether no pod is left that runs with an older one."""
    waiting: tuple[str, ...] = ()
    """What is waited for, and what is left to a person: pods that can't be restarted without harm."""


class PodBounceDirective(Resource, frozen=True):
    """Which pods restart when a certificate changed; of the same name as its IssuedCertificate."""

    KIND: ClassVar[Kind] = kinds.POD_BOUNCE_DIRECTIVE
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (("Age", "date", ".metadata.creationTimestamp"),)
    EXAMPLE: ClassVar[str] = """\
apiVersion: certificates.mesh.gloo.solo.io/v1
kind: PodBounceDirective
metadata:
  name: istiod-istio-system-cluster1
  namespace: gloo-mesh
spec:
  podsToBounce:
  - namespace: istio-system
    labels:
      istio: pilot
    waitForReplicas: 1
  - namespace: default
    labels:
      app: reviews
    rootCertSync:
      secretRef:
        name: cacerts
        namespace: istio-system
      secretKey: root-cert.pem
      configMapRef:
        name: istio-ca-root-cert
        namespace: default
      configMapKey: root-cert.pem
"""

    spec: PodBounceDirectiveSpec = PodBounceDirectiveSpec()
    """What the management plane wants."""
    status: PodBounceDirectiveStatus | None = None
    """How far the agent is."""
