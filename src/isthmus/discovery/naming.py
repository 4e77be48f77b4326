"""What discovered objects are called and which labels and annotations they carry.

Source: reference, discovery §1 (names, labels), relay §4 (labels of objects that agents report).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from isthmus.api.base import ObjectMeta
from isthmus.model.names import MAX_NAME, sanitize
from isthmus.model.problem import Problem

MAX_ANNOTATIONS = 16 * 1024  # bytes per object; far above what people write, far below the 1 MiB that etcd takes

# Annotations that tools write about the object they stand on. On a copy they are wrong, and some are dangerous there:
# Argo CD and Helm take an object that carries theirs for their own, and prune it.
MACHINE_ANNOTATIONS = (
    "argocd.argoproj.io/",
    "config.kubernetes.io/",
    "control-plane.alpha.kubernetes.io/",
    "deployment.kubernetes.io/",
    "deprecated.daemonset.template.generation",
    "endpoints.kubernetes.io/",
    "internal.config.kubernetes.io/",
    "kapp.k14s.io/",
    "kubectl.kubernetes.io/",
    "meta.helm.sh/",
    "objectset.rio.cattle.io/",
)


class Site(msgspec.Struct, frozen=True):
    """Where discovery runs and where its results go."""

    cluster: str
    """Registered name of the cluster."""
    agent_namespace: str
    """Namespace of the agent on that cluster."""
    namespace: str
    """Namespace of the management plane, in which the discovered objects are kept."""

    labels: dict[str, str]
    """The labels of every object discovered here."""

    @classmethod
    def of(cls, cluster: str, agent_namespace: str, namespace: str) -> Site:
        """The site with the labels that follow from its names."""
        labels = {
            "cluster.discovery.mesh.gloo.solo.io": cluster,
            "cluster.multicluster.solo.io": "",
            "owner.discovery.mesh.gloo.solo.io": sanitize(f"{agent_namespace}-{cluster}"),
            "relay-agent": cluster,
        }
        return cls(cluster, agent_namespace, namespace, labels)

    def plain_name(self, namespace: str, name: str) -> str:
        """The name of what is discovered from *namespace*/*name*, unless an older object has it already."""
        return sanitize(f"{name}-{namespace}-{self.cluster}")

    def metadata(self, name: str, annotations: dict[str, str]) -> ObjectMeta:
        """Metadata of a discovered object."""
        return ObjectMeta(name=name, namespace=self.namespace, labels=self.labels, annotations=annotations)


class Claim(msgspec.Struct, frozen=True, order=True, gc=False):
    """The wish of one source object for a plain name. The order is that of precedence: the older object wins."""

    created: str
    namespace: str
    name: str


def settle_name(plain: str, mine: Claim, all_claims: Iterable[Claim]) -> str:
    """The name for *mine* among *all_claims* to the name *plain*: plain for the first of them, with a hash for others.

    ``a-b`` in namespace ``c`` and ``a`` in ``b-c`` claim the same name; the one that was there first must not lose it.
    """
    if mine == min(all_claims, default=mine):
        return plain
    digest = hashlib.md5(f"{mine.namespace}/{mine.name}".encode(), usedforsecurity=False).hexdigest()
    return f"{plain[: MAX_NAME - 32 - 1]}-{digest}"


def copied_annotations(source: Mapping[str, str] | None) -> tuple[dict[str, str], tuple[Problem, ...]]:
    """The annotations of *source* that a discovered object takes over, and a problem if they are too many.

    Left out: `MACHINE_ANNOTATIONS`, and of the others, smallest first, what exceeds `MAX_ANNOTATIONS` bytes in all.
    """
    if not source:
        return {}, ()
    kept: dict[str, str] = {}
    left_out: list[str] = []
    room = MAX_ANNOTATIONS
    for size, key in sorted((len(key) + len(value), key) for key, value in source.items()):
        if key.startswith(MACHINE_ANNOTATIONS):
            continue
        room -= size
        if room >= 0:
            kept[key] = source[key]
        else:
            left_out.append(key)
    if not left_out:
        return kept, ()
    named = ", ".join(key[:100] for key in left_out[:3]) + (f" and {len(left_out) - 3} more" if left_out[3:] else "")
    message = f"annotations of more than {MAX_ANNOTATIONS} bytes in all are not copied; left out: {named}"
    return kept, (Problem("metadata.annotations", "AnnotationsTooLarge", message),)
