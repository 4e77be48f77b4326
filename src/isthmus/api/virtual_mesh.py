"""VirtualMesh: meshes grouped for shared trust, federation and a default access stance."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Empty, OneofStruct, Resource
from isthmus.api.common import (
    ApprovalState,
    ApprovalStatus,
    CertificateRotationState,
    CommonCertOptions,
    DestinationSelector,
    IngressGatewaySelector,
    ObjectRef,
    TcpKeepalive,
    VaultCA,
)
from isthmus.api.scalars import Int64
from isthmus.model.ref import Kind

GROUP = "networking.mesh.gloo.solo.io"


class RootCertificateAuthority(OneofStruct, frozen=True):
    """Where the root certificate comes from; ``{}`` generates one."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("generated", "secret"),)

    generated: CommonCertOptions | None = None
    """A self-signed root, made once and kept in a Secret of the management cluster; ``{}`` takes the defaults."""
    secret: ObjectRef | None = None
    """A root that the user provides in a Secret of the management cluster."""


class IntermediateCertificateAuthority(ApiStruct, frozen=True):
    """Where the intermediate certificates come from when no root is kept on the management cluster."""

    vault: VaultCA | None = None
    """HashiCorp Vault signs."""


class SharedTrust(OneofStruct, frozen=True):
    """All meshes trust one root."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("root_certificate_authority", "intermediate_certificate_authority"),
    )

    root_certificate_authority: RootCertificateAuthority | None = None
    """A root on the management cluster, which signs an intermediate for each mesh."""
    intermediate_certificate_authority: IntermediateCertificateAuthority | None = None
    """An authority elsewhere, which signs an intermediate for each mesh."""
    intermediate_cert_options: CommonCertOptions | None = None
    """Properties of the intermediate certificates."""


class RotationVerificationMethod(OneofStruct, frozen=True):
    """How a step of a root rotation is verified before the next one begins."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("none", "manual"),)

    none: Empty | None = None
    """Not at all."""
    manual: Empty | None = None
    """By a CertificateVerification object that a person creates."""


class RotationStrategy(Enum):
    """How a root is replaced. MULTI_ROOT is the zero value."""

    MULTI_ROOT = "MULTI_ROOT"
    NONE = "NONE"


class MtlsConfig(OneofStruct, frozen=True):
    """What the meshes trust, and what happens to their pods when that changes."""

    ONEOFS: ClassVar[tuple[tuple[str, ...], ...]] = (("shared", "limited"),)

    shared: SharedTrust | None = None
    """All meshes trust one root."""
    limited: Empty | None = None
    """Trust between gateways only. Not implemented: a VirtualMesh with it is INVALID."""
    auto_restart_pods: bool = False
    """Whether the control planes and all workloads restart when certificates change."""
    rotation_verification_method: RotationVerificationMethod | None = None
    """How a step of a root rotation is verified; omitted means not at all."""
    rotation_strategy: RotationStrategy = RotationStrategy.MULTI_ROOT
    """MULTI_ROOT trusts old and new root while certificates change; NONE replaces the root at once."""


class FederationSelector(ApiStruct, frozen=True):
    """Destinations, and the meshes that they are made known to."""

    destination_selectors: tuple[DestinationSelector, ...] = ()
    """The destinations; omitted means all."""
    meshes: tuple[ObjectRef, ...] = ()
    """The meshes, which must be members; omitted means all."""


class Federation(ApiStruct, frozen=True):
    """Which destinations are known on other meshes, and how they are reached. ``{}`` federates everything."""

    selectors: tuple[FederationSelector, ...] = ()
    """What is federated where; without any, everything is federated everywhere."""
    permissive: Empty | None = None
    """Deprecated: everything is federated everywhere. Ignored next to selectors."""
    ingress_gateway_selectors: tuple[IngressGatewaySelector, ...] = ()
    """The east-west gateways; omitted takes the service whose pod selector has ``istio: ingressgateway``."""
    flat_network: bool = False
    """Whether clients connect to the pods directly instead of to gateways."""
    hostname_suffix: str = ""
    """End of the federated host names; ``global`` by default."""
    tcp_keepalive: TcpKeepalive | None = None
    """Keep-alive of connections between clusters."""


class GlobalAccessPolicy(Enum):
    """What happens to a call that no access policy speaks of. MESH_DEFAULT is the zero value."""

    MESH_DEFAULT = "MESH_DEFAULT"
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class ProxyScope(Enum):
    """What proxies are told about where no ServiceDependency says it. EVERYTHING is the zero value."""

    EVERYTHING = "EVERYTHING"
    ACCESS_POLICIES = "ACCESS_POLICIES"


class VirtualMeshSpec(ApiStruct, frozen=True):
    """Meshes, their trust, their federation and their access stance."""

    meshes: tuple[ObjectRef, ...] = ()
    """The Mesh objects, by name and namespace. A mesh may be in one virtual mesh only."""
    mtls_config: MtlsConfig | None = None
    """What the meshes trust; omitted leaves their certificates alone."""
    federation: Federation | None = None
    """Which destinations are known on other meshes."""
    global_access_policy: GlobalAccessPolicy = GlobalAccessPolicy.MESH_DEFAULT
    """ENABLED refuses every call that no AccessPolicy allows; MESH_DEFAULT and DISABLED do not."""
    proxy_scope: ProxyScope = ProxyScope.EVERYTHING
    """ACCESS_POLICIES tells a proxy only what AccessPolicies let it call and ServiceDependencies add. An addition of
    ours."""


class RotationCondition(ApiStruct, frozen=True):
    """One step in the log of a root rotation."""

    timestamp: str = ""
    """When the step was reached, RFC 3339."""
    state: CertificateRotationState = CertificateRotationState.NOT_ROTATING
    """The step."""
    message: str = ""
    """What happened."""
    errors: tuple[str, ...] = ()
    """What went wrong."""


class VirtualMeshStatus(ApiStruct, frozen=True):
    """What became of a virtual mesh."""

    observed_generation: Int64 = 0
    """Generation of the VirtualMesh that this status speaks of."""
    state: ApprovalState = ApprovalState.PENDING
    """ACCEPTED only if every mesh and destination below is."""
    errors: tuple[str, ...] = ()
    """Why it is not accepted."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""
    meshes: dict[str, ApprovalStatus] = {}
    """Outcome per member mesh, by ``<name>.<namespace>.``."""
    destinations: dict[str, ApprovalStatus] = {}
    """Outcome per federated destination, by ``<name>.<namespace>.``."""
    conditions: tuple[RotationCondition, ...] = ()
    """Log of root rotations, oldest first."""
    deployed_shared_trust: SharedTrust | None = None
    """The trust that is rolled out; a different spec starts a rotation."""


class VirtualMesh(Resource, frozen=True):
    """Groups meshes for shared trust, federation and a default access stance."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1", "VirtualMesh", "virtualmeshes")
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("vm", "vms")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("State", "string", ".status.state"),
        ("Access", "string", ".spec.globalAccessPolicy"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: networking.mesh.gloo.solo.io/v1
kind: VirtualMesh
metadata:
  name: virtual-mesh
  namespace: gloo-mesh
spec:
  mtlsConfig:
    autoRestartPods: true
    shared:
      rootCertificateAuthority:
        generated: {}
  federation:
    selectors:
    - {}
  globalAccessPolicy: ENABLED
  meshes:
  - name: istiod-istio-system-cluster1
    namespace: gloo-mesh
  - name: istiod-istio-system-cluster2
    namespace: gloo-mesh
"""

    spec: VirtualMeshSpec = VirtualMeshSpec()
    """What the user wants."""
    status: VirtualMeshStatus | None = None
    """What became of it."""
