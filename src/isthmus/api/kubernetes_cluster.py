"""KubernetesCluster: a registered cluster."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.scalars import Int64, Timestamp
from isthmus.model.ref import Kind

GROUP = "multicluster.solo.io"


class EksProvider(ApiStruct, frozen=True):
    """A cluster of Amazon's Elastic Kubernetes Service."""

    arn: str = ""
    """Amazon resource name of the cluster."""
    account_id: str = ""
    """Account that owns it."""
    region: str = ""
    """Region that it runs in."""
    name: str = ""
    """Name in EKS."""


class ProviderInfo(ApiStruct, frozen=True):
    """Who runs a cluster."""

    eks: EksProvider | None = None
    """Amazon's Elastic Kubernetes Service."""


class KubernetesClusterSpec(ApiStruct, frozen=True):
    """How a cluster is reached and what its names look like."""

    secret_name: str = ""
    """Secret that holds a kubeconfig for direct access; empty when an agent dials in."""
    cluster_domain: str = ""
    """End of the cluster's service names; ``cluster.local`` by default."""
    provider_info: ProviderInfo | None = None
    """Who runs the cluster."""


class ClusterState(Enum):
    """How far a registration was processed. PENDING is the zero value."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    INVALID = "INVALID"
    FAILED = "FAILED"
    ACCEPTED = "ACCEPTED"


class ClusterCondition(ApiStruct, frozen=True):
    """What one writer says of a cluster."""

    state: ClusterState = ClusterState.PENDING
    """How far the registration was processed."""
    message: str = ""
    """Why."""
    observed_generation: Int64 = 0
    """Generation of the KubernetesCluster that this entry speaks of."""
    processing_time: Timestamp | None = None
    """When it was written."""
    owner: str | None = None
    """Who wrote it."""


class PolicyRule(ApiStruct, frozen=True):
    """Rights on a cluster, as in a Kubernetes role."""

    verbs: tuple[str, ...] = ()
    """Verbs."""
    api_groups: tuple[str, ...] = ()
    """API groups."""
    resources: tuple[str, ...] = ()
    """Resources."""
    resource_names: tuple[str, ...] = ()
    """Names; omitted means any."""
    non_resource_urls: tuple[str, ...] = ()
    """Paths that are not resources."""


class KubernetesClusterStatus(ApiStruct, frozen=True):
    """What became of a registration."""

    status: tuple[ClusterCondition, ...] = ()
    """One entry per writer."""
    namespace: str = ""
    """Namespace of what registration made on the cluster."""
    policy_rules: tuple[PolicyRule, ...] = ()
    """Rights that were granted at registration."""


class KubernetesCluster(Resource, frozen=True):
    """A registered cluster; the object's name is the cluster name that every other object uses."""

    KIND: ClassVar[Kind] = Kind(GROUP, "v1alpha1", "KubernetesCluster", "kubernetesclusters")
    COLUMNS: ClassVar[tuple[tuple[str, str, str], ...]] = (
        ("Domain", "string", ".spec.clusterDomain"),
        ("State", "string", ".status.status[0].state"),
        ("Age", "date", ".metadata.creationTimestamp"),
    )
    EXAMPLE: ClassVar[str] = """\
apiVersion: multicluster.solo.io/v1alpha1
kind: KubernetesCluster
metadata:
  name: cluster1
  namespace: gloo-mesh
spec:
  clusterDomain: cluster.local
"""

    spec: KubernetesClusterSpec = KubernetesClusterSpec()
    """How the cluster is reached."""
    status: KubernetesClusterStatus | None = None
    """What became of the registration."""
