"""Which controllers are in a mesh, and in which.

Source: reference, discovery §3 (the rules of 1.2); https://istio.io/latest/docs/ops/configuration/mesh/injection-concepts/
"""

from __future__ import annotations

import msgspec

from isthmus.api.common import ClusterObjectRef, ObjectRef
from isthmus.api.discovery import KubernetesWorkload, Workload, WorkloadSpec, WorkloadStatus
from isthmus.discovery.facts import ControllerFacts, NamespaceFacts
from isthmus.discovery.meshes import DEFAULT_REVISION, Member, Roster
from isthmus.discovery.naming import Claim, Site
from isthmus.model.problem import Problem

NEVER_INJECTED = frozenset({"kube-system", "kube-public", "kube-node-lease", "local-path-storage"})


class FoundWorkload(msgspec.Struct, frozen=True, gc=False):
    """A controller in a mesh: as the object that is reported, and as services look for it."""

    claim: Claim
    pod_labels: dict[str, str]
    mesh: ObjectRef
    resource: Workload
    problems: tuple[Problem, ...]


def wanted_revision(controller: ControllerFacts, namespace: NamespaceFacts | None) -> str:
    """The revision or tag whose proxies the pods of *controller* run.

    A proxy in the template is not injected, so the template's own label tells. Otherwise the namespace goes before the
    pod, and ``istio-injection`` before ``istio.io/rev``, as in the selectors of Istio's webhooks.
    """
    if not controller.proxied and namespace is not None:
        if namespace.injection == "enabled":
            return DEFAULT_REVISION
        if namespace.revision:
            return namespace.revision
    return controller.revision or DEFAULT_REVISION


def governing_mesh(
    controller: ControllerFacts, namespace: NamespaceFacts | None, roster: Roster
) -> tuple[Member | None, tuple[Problem, ...]]:
    """The mesh that governs *controller* once it is in one; a revision nobody has falls to the default mesh."""
    revision = wanted_revision(controller, namespace)
    member = roster.named(revision)
    if member is not None or revision == DEFAULT_REVISION or len(roster.members) < 2:
        return member or roster.default, ()
    message = f"no control plane of this cluster has the revision or tag {revision!r}; the default one is assumed"
    return roster.default, (Problem("metadata.labels[istio.io/rev]", "RevisionUnknown", message),)


def injected(controller: ControllerFacts, namespace: NamespaceFacts | None, roster: Roster, member: Member) -> bool:
    """Whether the template of *controller* puts its pods into the mesh, by itself or by injection.

    The order of the rules is that of Istio's injector. A namespace labelled ``istio-injection: disabled`` is out
    whatever its pods say, because the webhook is not called for it.
    """
    if controller.proxied:
        return True
    where = controller.claim.namespace
    if controller.host_network or where in NEVER_INJECTED:
        return False
    if namespace is not None and namespace.injection == "disabled":
        return False
    if controller.inject is not None:
        return controller.inject
    labels, rules = controller.pod_labels, member.injector
    if any(selector.selects(labels) for selector in rules.never):
        return False
    asked_for = namespace is not None and (namespace.injection == "enabled" or bool(namespace.revision))
    if asked_for and all(where != other.root_namespace for other in roster.members):
        return True
    return any(selector.selects(labels) for selector in rules.always) or rules.by_default


def find_workload(
    site: Site, kind: str, controller: ControllerFacts, mesh: ObjectRef, problems: tuple[Problem, ...]
) -> FoundWorkload:
    """The Workload of *controller*, a *kind*, governed by *mesh*."""
    claim = controller.claim
    problems = controller.problems + problems
    return FoundWorkload(
        claim=claim,
        pod_labels=controller.pod_labels,
        mesh=mesh,
        resource=Workload(
            metadata=site.metadata(f"{controller.plain_name}-{kind.lower()}", controller.annotations),
            spec=WorkloadSpec(
                kubernetes=KubernetesWorkload(
                    controller=ClusterObjectRef(name=claim.name, namespace=claim.namespace, cluster_name=site.cluster),
                    pod_labels=controller.pod_labels,
                    service_account_name=controller.service_account,
                ),
                mesh=mesh,
            ),
            status=WorkloadStatus(warnings=tuple(str(p) for p in problems)) if problems else None,
        ),
        problems=problems,
    )
