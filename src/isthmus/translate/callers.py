"""Workloads as callers: who they are, and which selectors choose them."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from isthmus.api.common import KubeWorkloadMatcher, WorkloadSelector
from isthmus.api.discovery import Workload
from isthmus.model.ref import Ref

DEFAULT_SERVICE_ACCOUNT = "default"
GATEWAY_LABELS = ("istio", "gateway.networking.k8s.io/gateway-name")
"""Labels that gateways' pods carry: for Gateway objects of Istio to select them, and of those made by the Gateway API.

Source: Istio's gateway chart, https://istio.io/latest/docs/tasks/traffic-management/ingress/gateway-api/
"""


class CallerFacts(msgspec.Struct, frozen=True, gc=False):
    """The pods of one controller of a mesh."""

    ref: Ref
    """The Workload."""
    controller: Ref
    mesh: Ref
    labels: dict[str, str]
    """Of its pods."""
    service_account: str

    @property
    def is_gateway(self) -> bool:
        """Whether the pods are a gateway of Istio's."""
        return any(label in self.labels for label in GATEWAY_LABELS)


def caller_facts(ref: Ref, workload: Workload) -> CallerFacts | None:
    """Facts of a Kubernetes workload in a mesh, None for any other."""
    found, mesh = workload.spec.kubernetes, workload.spec.mesh
    if found is None or mesh is None:
        return None
    account = found.service_account_name or DEFAULT_SERVICE_ACCOUNT
    return CallerFacts(ref, found.controller.ref, mesh.ref, found.pod_labels, account)


def matchers_of(selectors: tuple[WorkloadSelector, ...]) -> Iterator[KubeWorkloadMatcher]:
    """The alternatives of *selectors*; an empty list, and an item without a matcher, match any workload."""
    if not selectors:
        yield KubeWorkloadMatcher()
    for selector in selectors:
        yield selector.kube_workload_matcher or KubeWorkloadMatcher()
