"""Policies on many services: four clusters in one virtual mesh, with traffic policies, virtual and access policies.

``python -m bench.policies SERVICES`` measures one size in a process of its own and prints a JSON object a line.
SERVICES are those of all clusters; for every ten there is a TrafficPolicy and an AccessPolicy, for every fifty a
VirtualDestination.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Sequence

import msgspec

from bench import fleet
from bench.engine import Row, Server, cold, timed
from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.common import (
    ClusterObjectRef,
    DestinationSelector,
    HttpMatcher,
    IdentitySelector,
    KubeDestination,
    KubeServiceAccountRefs,
    KubeServiceMatcher,
    KubeServiceRefs,
    ObjectRef,
    OutlierDetection,
    StringMatch,
    TrafficShift,
    VirtualDestinationReference,
    WeightedDestination,
)
from isthmus.api.traffic_policy import FaultInjection, Policy, RetryPolicy, TrafficPolicy, TrafficPolicySpec
from isthmus.api.virtual_destination import (
    LocalizedFailover,
    VirtualDestination,
    VirtualDestinationPort,
    VirtualDestinationSpec,
)
from isthmus.api.virtual_mesh import GlobalAccessPolicy
from isthmus.server.collector import tame_garbage_collector

CLUSTERS = ("cluster1", "cluster2", "cluster3", "cluster4")
SERVICES_PER_POLICY = 10
POLICIES_PER_VIRTUAL = 5
CHANGES = 500
FANOUTS = 5


def named(policy: int) -> int:
    """The service that policy number *policy* is about, of those on each cluster."""
    return policy * SERVICES_PER_POLICY // len(CLUSTERS)


def replicas(number: int) -> tuple[DestinationSelector, ...]:
    """Service *number* on every cluster."""
    return (DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"app": f"service-{number}"})),)


def traffic_policy(policy: int, *, timeout: int = 2) -> TrafficPolicy:
    """What is said of one service: by all kinds of policies in turn, so that every step has its share."""
    number = named(policy)
    namespace, cluster = fleet.namespace_of(number), CLUSTERS[policy % len(CLUSTERS)]
    here = KubeDestination(f"service-{number}", namespace, cluster, {"version": "v1"})
    there = KubeDestination(f"service-{number}", namespace, CLUSTERS[(policy + 1) % len(CLUSTERS)], {"version": "v2"})
    shift = TrafficShift(
        (WeightedDestination(weight=75, kube_service=here), WeightedDestination(weight=25, kube_service=there))
    )
    failover = TrafficShift(
        (WeightedDestination(virtual_destination=VirtualDestinationReference(f"virtual-{policy}", fleet.NAMESPACE)),)
    )
    kinds = (
        Policy(traffic_shift=shift, request_timeout=f"{timeout}s"),
        Policy(retries=RetryPolicy(3, f"{timeout}s")),
        Policy(fault_injection=FaultInjection(fixed_delay=f"{timeout}s", percentage=10.0)),
        Policy(request_timeout=f"{timeout}s", outlier_detection=OutlierDetection(consecutive_errors=5)),
    )
    said = kinds[policy % len(kinds)]
    if policy % POLICIES_PER_VIRTUAL == 0:
        said = Policy(traffic_shift=failover, request_timeout=f"{timeout}s")
    one = KubeServiceRefs((ClusterObjectRef(f"service-{number}", namespace, cluster),))
    return TrafficPolicy(
        metadata=ObjectMeta(name=f"traffic-{policy}", namespace=fleet.NAMESPACE),
        spec=TrafficPolicySpec(
            destination_selector=(DestinationSelector(kube_service_refs=one),) if policy % 2 else replicas(number),
            http_request_matchers=(HttpMatcher(uri=StringMatch(prefix="/api")),) if policy % 3 == 0 else (),
            policy=said,
        ),
    )


def virtual_destination(policy: int, *, errors: int = 5) -> VirtualDestination:
    """One host name for the service of *policy* on every cluster."""
    number = named(policy)
    return VirtualDestination(
        metadata=ObjectMeta(name=f"virtual-{policy}", namespace=fleet.NAMESPACE),
        spec=VirtualDestinationSpec(
            hostname=f"service-{number}.global",
            port=VirtualDestinationPort(9080, "HTTP"),
            virtual_mesh=ObjectRef(name="virtual-mesh", namespace=fleet.NAMESPACE),
            localized=LocalizedFailover(
                replicas(number), outlier_detection=OutlierDetection(consecutive_errors=errors)
            ),
        ),
    )


def access_policy(policy: int, *, caller: int = 0) -> AccessPolicy:
    """One service account of every cluster may call the service of *policy*."""
    number = named(policy)
    account = ClusterObjectRef(f"caller-{number}-{caller}", fleet.namespace_of(number), "")
    return AccessPolicy(
        metadata=ObjectMeta(name=f"access-{policy}", namespace=fleet.NAMESPACE),
        spec=AccessPolicySpec(
            source_selector=(IdentitySelector(kube_service_account_refs=KubeServiceAccountRefs((account,))),),
            destination_selector=replicas(number),
            allowed_methods=("GET",),
        ),
    )


def whole(services: int) -> Iterator[Resource]:
    """The fleet of *services* services in all, and its policies."""
    yield from fleet.fleet(services // len(CLUSTERS), CLUSTERS)
    yield fleet.virtual_mesh(CLUSTERS, GlobalAccessPolicy.ENABLED)
    for policy in range(services // SERVICES_PER_POLICY):
        yield traffic_policy(policy)
        yield access_policy(policy)
        if policy % POLICIES_PER_VIRTUAL == 0:
            yield virtual_destination(policy)


def measure(services: int) -> Iterator[Row]:
    """All rows for *services* services on four clusters."""
    tame_garbage_collector()
    server = Server(CLUSTERS)
    size: Row = {"services": services, "clusters": len(CLUSTERS)}
    yield {**cold("policies-cold", server, whole(services)), **size}

    chance = random.Random(services)
    chosen = [chance.randrange(services // SERVICES_PER_POLICY) for _ in range(CHANGES)]
    virtual = [policy - policy % POLICIES_PER_VIRTUAL for policy in chosen]
    changes: dict[str, Iterator[Sequence[Resource]]] = {
        "change-traffic-policy": ([traffic_policy(policy, timeout=3 + i)] for i, policy in enumerate(chosen)),
        "change-virtual-destination": ([virtual_destination(policy, errors=6 + i)] for i, policy in enumerate(virtual)),
        "change-access-policy": ([access_policy(policy, caller=1 + i)] for i, policy in enumerate(chosen)),
        "change-endpoint": (
            [fleet.service("cluster1", named(policy), shift=1 + i)] for i, policy in enumerate(virtual)
        ),
        "fanout-access-mode": (
            [fleet.virtual_mesh(CLUSTERS, mode)] for mode in (*GlobalAccessPolicy, *GlobalAccessPolicy)
        ),
        "fanout-gateway": ([fleet.gateway("cluster1", f"198.51.100.{i + 1}")] for i in range(FANOUTS)),
        "new-service": ([fleet.service("cluster1", services + i)] for i in range(CHANGES)),
    }
    for name, batches in changes.items():
        yield {**timed(name, server, batches), **size}


def main() -> None:
    for row in measure(int(sys.argv[1])):
        sys.stdout.write(msgspec.json.encode(row).decode() + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
