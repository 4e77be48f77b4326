"""What trust reads of meshes, workloads and virtual meshes, and what is wrong with a VirtualMesh's mtlsConfig."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import msgspec

from isthmus.api.common import CertificateRotationState, CommonCertOptions, KeyAlgorithm, VaultCA
from isthmus.api.discovery import Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.api.vault import vault_problems
from isthmus.api.virtual_mesh import MtlsConfig, RotationCondition, SharedTrust, VirtualMesh
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.callers import GATEWAY_LABELS
from isthmus.translate.seniority import Seniority, seniority
from isthmus.translate.trust.vault import PATH as VAULT_PATH
from isthmus.translate.trust.vault import vault_of

DEFAULT_TRUST_DOMAIN = "cluster.local"
DEFAULT_SERVICE_ACCOUNT = "istio-citadel"
DEFAULT_NAMESPACE = "istio-system"
TTL_DAYS = 365
KEY_BITS = 4096
GRACE_RATIO = 0.10
ROOT_ORGANIZATION = "gloo-mesh"
INTERMEDIATE_ORGANIZATION = "Istio"
# Source: reference, certificates, defaults.

LEAST_KEY_BITS, MOST_KEY_BITS = 2048, 8192  # less is refused by current TLS, more takes minutes to make
MOST_TTL_DAYS = 36500


class RootFacts(msgspec.Struct, frozen=True, gc=False):
    """What signs the intermediates of a virtual mesh at present, and how far a change of its root is."""

    secret: Ref | None
    """The Secret with the signing key, on the management cluster. None: Vault has it."""
    trust: str
    """Fingerprint of the signing certificate and of the roots that are trusted, or of what is said of Vault."""
    rotation_state: CertificateRotationState = CertificateRotationState.NOT_ROTATING
    verifying: bool = False
    """Whether a person's word on *rotation_state* is waited for."""
    answered: dict[str, tuple[bool, tuple[str, ...]]] = {}
    """CertificateVerifications that count no more, by identity: whether the rotation followed, and doubts of then."""
    conditions: tuple[RotationCondition, ...] = ()
    warnings: tuple[str, ...] = ()
    """What deserves attention, such as a root that expires soon."""
    deployed: SharedTrust | None = None
    """What the user asked for when the root that is rolled out was chosen."""
    vault: VaultCA | None = None
    """What agents ask to sign; None: the management plane signs."""


class TrustFacts(msgspec.Struct, frozen=True, gc=False):
    """Who an Istio control plane is, and who acts for it on its cluster."""

    cluster: str
    namespace: str
    trust_domain: str
    service_account: str
    pod_labels: dict[str, str]
    agent_namespace: str
    """Empty when no agent has reported the mesh, so that nobody could act."""

    @property
    def host(self) -> str:
        """The SPIFFE id of the control plane."""
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"

    @property
    def place(self) -> tuple[str, str]:
        """Cluster and namespace of the Secret that the control plane reads; two revisions share it."""
        return self.cluster, self.namespace


class TrustSettings(msgspec.Struct, frozen=True, gc=False):
    """What a VirtualMesh says of certificates, with the defaults filled in."""

    seniority: Seniority
    auto_restart: bool
    options: CommonCertOptions


class WorkloadFacts(msgspec.Struct, frozen=True, gc=False):
    """Pods that present certificates of a mesh."""

    mesh: Ref
    namespace: str
    labels: dict[str, str]

    @property
    def is_gateway(self) -> bool:
        """Whether these are gateways, by which others come in."""
        return any(label in self.labels for label in GATEWAY_LABELS)


def trust_facts(_: Ref, mesh: Mesh) -> TrustFacts | None:
    """Facts of an Istio mesh, None for any other kind."""
    istio = mesh.spec.istio
    if istio is None:
        return None
    where = istio.installation
    return TrustFacts(
        cluster=where.cluster,
        namespace=where.namespace or DEFAULT_NAMESPACE,
        trust_domain=istio.trust_domain or DEFAULT_TRUST_DOMAIN,
        service_account=istio.istiod_service_account or DEFAULT_SERVICE_ACCOUNT,
        pod_labels=where.pod_labels,
        agent_namespace=mesh.spec.agent_info.agent_namespace if mesh.spec.agent_info else "",
    )


def certificate_status(_: Ref, mesh: Mesh) -> IssuedCertificateStatus | None:
    """How far the agent is with the certificate of a mesh."""
    return mesh.spec.issued_certificate_status


def vault_facts(_: Ref, virtual_mesh: VirtualMesh) -> RootFacts | None:
    """What stands where a root would if *virtual_mesh* has agents ask Vault.

    Also while something is wrong with that: agents then say so, and keep what they have.
    """
    vault = vault_of(virtual_mesh)
    if vault is None:
        return None
    config = virtual_mesh.spec.mtls_config
    return RootFacts(
        secret=None,
        vault=vault,
        trust=sha256(msgspec.json.encode(vault)).hexdigest(),
        deployed=config.shared if config is not None else None,
    )


def workload_facts(_: Ref, workload: Workload) -> WorkloadFacts | None:
    """Facts of a Kubernetes workload in a mesh, None for any other, or for one whose pods nothing selects."""
    kubernetes, mesh = workload.spec.kubernetes, workload.spec.mesh
    if kubernetes is None or mesh is None or not kubernetes.pod_labels:
        return None
    return WorkloadFacts(mesh.ref, kubernetes.controller.namespace, kubernetes.pod_labels)


def trust_settings(_: Ref, virtual_mesh: VirtualMesh) -> TrustSettings | None:
    """What *virtual_mesh* says of certificates, None if it leaves them alone."""
    config = virtual_mesh.spec.mtls_config
    if config is None:
        return None
    given = config.shared.intermediate_cert_options if config.shared else None
    return TrustSettings(
        seniority(virtual_mesh), config.auto_restart_pods, with_defaults(given, INTERMEDIATE_ORGANIZATION)
    )


def with_defaults(given: CommonCertOptions | None, organization: str) -> CommonCertOptions:
    """*given* with defaults for what is left out, and for what `option_problems` finds wrong."""
    given = given or CommonCertOptions()
    wrong = {problem.path for problem in option_problems(given, "")}
    bits = given.rsa_key_size_bytes if given.rsa_key_size_bytes and "rsaKeySizeBytes" not in wrong else KEY_BITS
    return CommonCertOptions(
        ttl_days=given.ttl_days if given.ttl_days and "ttlDays" not in wrong else TTL_DAYS,
        rsa_key_size_bytes=bits if given.key_algorithm is KeyAlgorithm.RSA else 0,
        org_name=given.org_name if given.org_name and "orgName" not in wrong else organization,
        secret_rotation_grace_period_ratio=given.secret_rotation_grace_period_ratio
        if given.secret_rotation_grace_period_ratio and "secretRotationGracePeriodRatio" not in wrong
        else GRACE_RATIO,
        key_algorithm=given.key_algorithm,
    )


def option_problems(options: CommonCertOptions | None, path: str) -> Iterator[Problem]:
    """What is wrong with *options* at *path*, which ends in a dot or is empty. The default is used instead."""
    if options is None:
        return
    if options.ttl_days > MOST_TTL_DAYS:
        yield Problem(f"{path}ttlDays", "OutOfRange", f"{options.ttl_days} is more than {MOST_TTL_DAYS} days")
    bits = options.rsa_key_size_bytes
    if bits and options.key_algorithm is not KeyAlgorithm.RSA:
        message = "is the size of an RSA key, and keyAlgorithm is ECDSA: leave one of the two out"
        yield Problem(f"{path}rsaKeySizeBytes", "Contradiction", message)
    elif bits and not (LEAST_KEY_BITS <= bits <= MOST_KEY_BITS and bits % 8 == 0):
        message = f"{bits} is no key size in bits from {LEAST_KEY_BITS} to {MOST_KEY_BITS}; {KEY_BITS} is used"
        yield Problem(f"{path}rsaKeySizeBytes", "OutOfRange", message)
    if len(options.org_name) > 64:  # X.520 upper bound
        yield Problem(f"{path}orgName", "TooLong", f"{len(options.org_name)} characters, where 64 are allowed")
    ratio = options.secret_rotation_grace_period_ratio
    if ratio and not 0 < ratio < 1:
        message = f"{ratio} is no share of the lifetime between 0 and 1; {GRACE_RATIO} is used"
        yield Problem(f"{path}secretRotationGracePeriodRatio", "OutOfRange", message)


def trust_problems(virtual_mesh: VirtualMesh) -> tuple[Problem, ...]:
    """What is wrong with the mtlsConfig of *virtual_mesh*. Source of messages: reference, shared trust."""
    config = virtual_mesh.spec.mtls_config
    return tuple(_config_problems(config, virtual_mesh.ref.key)) if config is not None else ()


def _config_problems(config: MtlsConfig, key: str) -> Iterator[Problem]:
    path = "spec.mtlsConfig"
    if config.limited is not None:
        message = "limited trust is not implemented: use shared, or leave mtlsConfig out"
        yield Problem(f"{path}.limited", "NotImplemented", message)
        return
    if config.shared is None:
        message = "must specify trust model to use for issuing certificates: shared"
        yield Problem(path, "MissingField", message)
        return
    path = f"{path}.shared"
    elsewhere = config.shared.intermediate_certificate_authority
    if elsewhere is not None and elsewhere.vault is None:
        message = "names no authority: vault is one"
        yield Problem(f"{path}.intermediateCertificateAuthority", "MissingField", message)
    elif elsewhere is not None and elsewhere.vault is not None:
        yield from vault_problems(elsewhere.vault, VAULT_PATH)
    elif config.shared.root_certificate_authority is None:
        message = f"No ca source specified for Virtual Mesh ({key}): rootCertificateAuthority is one"
        yield Problem(path, "MissingField", message)
    else:
        root = config.shared.root_certificate_authority
        yield from option_problems(root.generated, f"{path}.rootCertificateAuthority.generated.")
        if root.secret is not None and not (root.secret.name and root.secret.namespace):
            message = "needs both name and namespace of a Secret on the management cluster"
            yield Problem(f"{path}.rootCertificateAuthority.secret", "MalformedReference", message)
    yield from option_problems(config.shared.intermediate_cert_options, f"{path}.intermediateCertOptions.")
