"""The objects for agents: which certificate a mesh is to have, and what restarts for it. Source: reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from isthmus.api.base import ObjectMeta
from isthmus.api.common import ObjectRef
from isthmus.api.issued_certificate import AgentCa, GlooMeshCa, IssuedCertificate, IssuedCertificateSpec
from isthmus.api.pod_bounce_directive import PodBounceDirective, PodBounceDirectiveSpec, PodSelector, RootCertSync
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.ref import Ref
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.trust.facts import RootFacts, TrustFacts, TrustSettings, WorkloadFacts
from isthmus.translate.trust.vault import vault_for

TARGET = "cacerts"
"""The Secret that Istio reads. Source: https://istio.io/latest/docs/tasks/security/cert-management/plugin-ca-cert/"""
ROOT_KEY = "root-cert.pem"
ROOT_CONFIG_MAP = "istio-ca-root-cert"  # in every namespace, by istiod, with the root that it serves


def issued_certificate(
    mesh: Ref, virtual_mesh: Ref, peers: Sequence[TrustFacts], settings: TrustSettings, root: RootFacts
) -> IssuedCertificate:
    """The certificate of *mesh*; *peers* are the control planes that share it, the first is its own."""
    first = peers[0]
    signer = ObjectRef(name=root.secret.name, namespace=root.secret.namespace) if root.secret is not None else None
    directive = ObjectRef(name=mesh.name, namespace=first.agent_namespace)
    return IssuedCertificate(
        metadata=_metadata(mesh, virtual_mesh, first),
        spec=IssuedCertificateSpec(
            hosts=tuple(dict.fromkeys(peer.host for peer in peers)),
            org=settings.options.org_name,
            signing_certificate_secret=signer,
            issued_certificate_secret=ObjectRef(name=TARGET, namespace=first.namespace),
            pod_bounce_directive=directive if settings.auto_restart else None,
            cert_options=settings.options,
            gloo_mesh_ca=GlooMeshCa(signing_certificate_secret=signer) if root.vault is None else None,
            agent_ca=AgentCa(vault=vault_for(root.vault, first.cluster)) if root.vault is not None else None,
            rotation_state=root.rotation_state,
            trust=root.trust,
        ),
    )


def pod_bounce_directive(
    mesh: Ref, virtual_mesh: Ref, peers: Sequence[TrustFacts], workloads: Iterable[WorkloadFacts]
) -> PodBounceDirective:
    """Control planes first, then gateways, by which others come in, then all other workloads."""
    first = peers[0]
    selectors = [
        PodSelector(namespace=peer.namespace, labels=peer.pod_labels, wait_for_replicas=1)
        for peer in peers
        if peer.pod_labels
    ]
    ordered = sorted(workloads, key=lambda w: (not w.is_gateway, w.namespace, sorted(w.labels.items())))
    for workload in ordered:
        sync = RootCertSync(
            secret_ref=ObjectRef(name=TARGET, namespace=first.namespace),
            secret_key=ROOT_KEY,
            config_map_ref=ObjectRef(name=ROOT_CONFIG_MAP, namespace=workload.namespace),
            config_map_key=ROOT_KEY,
        )
        selector = PodSelector(namespace=workload.namespace, labels=workload.labels, root_cert_sync=sync)
        if selector not in selectors[-1:]:
            selectors.append(selector)
    return PodBounceDirective(
        metadata=_metadata(mesh, virtual_mesh, first), spec=PodBounceDirectiveSpec(pods_to_bounce=tuple(selectors))
    )


def _metadata(mesh: Ref, virtual_mesh: Ref, facts: TrustFacts) -> ObjectMeta:
    return ObjectMeta(
        name=mesh.name,
        namespace=facts.agent_namespace,
        annotations=parents_annotation(parents(VirtualMesh.KIND, virtual_mesh)),
    )
