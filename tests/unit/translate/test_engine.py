"""The engine's promise: what it ends in depends on the objects, never on how they came."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import ClusterObjectRef as Service
from isthmus.api.common import (
    DestinationSelector,
    IngressGatewaySelector,
    KubeDestination,
    KubeServiceMatcher,
    KubeServiceRefs,
    TrafficShift,
    WeightedDestination,
)
from isthmus.api.kubernetes_cluster import KubernetesCluster, KubernetesClusterSpec
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicySpec
from isthmus.api.virtual_mesh import Federation, FederationSelector
from isthmus.istio.objects import ServiceEntry
from isthmus.model.ref import Ref
from isthmus.translate import Engine, OutputKey, StatusKey
from isthmus.translate.federation.addresses import candidate
from tests.unit.translate.fleets import gateway, mesh, mesh_ref, service, virtual_mesh

CLUSTERS = ("cluster1", "cluster2", "cluster3")
clusters = st.sampled_from(CLUSTERS)
names = st.sampled_from(("reviews", "ratings", "a-b"))
namespaces = st.sampled_from(("default", "b-c"))
destination_selectors = st.builds(
    DestinationSelector,
    kube_service_matcher=st.none()
    | st.builds(
        KubeServiceMatcher,
        labels=st.sampled_from(({}, {"app": "reviews"}, {"tier": "front"})),
        namespaces=st.sampled_from(((), ("default",))),
        clusters=st.sampled_from(((), ("cluster1",))),
    ),
    kube_service_refs=st.none()
    | st.builds(
        KubeServiceRefs,
        services=st.tuples(st.builds(Service, name=names, namespace=namespaces, cluster_name=clusters)),
    ),
)
MARKED_GATEWAY = IngressGatewaySelector(
    destination_selectors=(DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"gate": "yes"})),)
)
federations = st.none() | st.builds(
    Federation,
    selectors=st.lists(
        st.builds(
            FederationSelector,
            destination_selectors=st.lists(destination_selectors, max_size=2).map(tuple),
            meshes=st.lists(clusters, max_size=2, unique=True).map(lambda found: tuple(map(mesh_ref, found))),
        ),
        max_size=2,
    ).map(tuple),
    flat_network=st.booleans(),
    hostname_suffix=st.sampled_from(("", "soloio")),
    ingress_gateway_selectors=st.sampled_from(
        (
            (),
            (
                IngressGatewaySelector(
                    destination_selectors=(
                        DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"gate": "yes"})),
                    )
                ),
            ),
        )
    ),
)
shifts = st.builds(
    lambda name, cluster, version: TrafficPolicy(
        metadata=virtual_mesh(name=f"shift-{name}").metadata,
        spec=TrafficPolicySpec(
            policy=Policy(
                traffic_shift=TrafficShift(
                    destinations=(
                        WeightedDestination(
                            kube_service=KubeDestination(
                                name=name, namespace="default", cluster_name=cluster, subset={"version": version}
                            )
                        ),
                    )
                )
            )
        ),
    ),
    names,
    clusters,
    st.sampled_from(("v1", "v2")),
)
resources: st.SearchStrategy[Resource] = st.one_of(
    st.builds(mesh, clusters, dns=st.booleans()),
    st.builds(gateway, clusters, st.sampled_from((None, "203.0.113.1", "2001:db8::1"))),
    st.builds(
        service,
        clusters,
        names,
        namespace=namespaces,
        pods=st.sampled_from(({"v1": 1}, {"v1": 3, "v2": 1}, {})),
        labels=st.sampled_from(({}, {"app": "reviews"}, {"tier": "front"}, {"gate": "yes"})),
        ports=st.sampled_from(((), (service("x", "x").spec.kube_service.ports))),  # type: ignore[union-attr]
        object_name=st.none() | st.just("impostor"),
    ),
    st.builds(
        virtual_mesh,
        clusters,
        clusters,
        name=st.sampled_from(("virtual-mesh", "rival")),
        federation=federations,
        created=st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")),
    ),
    st.builds(
        lambda name, domain: KubernetesCluster(
            metadata=virtual_mesh(name=name).metadata, spec=KubernetesClusterSpec(cluster_domain=domain)
        ),
        clusters,
        st.sampled_from(("", "corp.example")),
    ),
    shifts,
)
steps = st.tuples(resources, st.sampled_from(("set", "set", "set", "remove")), st.booleans())
histories = st.lists(steps, min_size=1, max_size=40)


def everything(engine: Engine) -> tuple[dict[OutputKey, bytes], dict[StatusKey, ApiStruct | None]]:
    return (
        {key: output.payload() for key, output in engine.outputs().items()},
        {key: engine.status(key) for key in engine.status_keys()},
    )


@given(histories)
@settings(max_examples=300, deadline=None)
def test_incremental_equals_from_scratch(history: list) -> None:
    """Any changes to a working fleet end in the results of a start from scratch, and the deltas add up to them."""
    engine = Engine()
    state: dict[tuple, Resource] = {}
    added_up: dict[OutputKey, bytes] = {}
    history = [(resource, "set", False) for resource in federated_pair()] + history

    for resource, what, run in history:
        identity = (resource.KIND, resource.ref)
        if what == "set":
            engine.set(resource)
            state[identity] = resource
        else:
            engine.remove(resource.KIND, resource.metadata.namespace, resource.metadata.name)
            state.pop(identity, None)
        for key, output in (engine.run().outputs if run else {}).items():
            added_up.pop(key, None)
            if output is not None:
                added_up[key] = output.payload()
    for key, output in engine.run().outputs.items():
        added_up.pop(key, None)
        if output is not None:
            added_up[key] = output.payload()

    fresh = Engine()
    for resource in sorted(state.values(), key=lambda resource: (resource.KIND, resource.ref)):
        fresh.set(resource)
    fresh.run()
    assert everything(engine) == everything(fresh)
    assert added_up == everything(engine)[0]


@given(st.lists(resources, max_size=15))
@settings(max_examples=60, deadline=None)
def test_an_idle_run_changes_nothing(found: list[Resource]) -> None:
    """Setting what is already there returns an empty delta."""
    engine = Engine()
    for resource in found:
        engine.set(resource)
    engine.run()
    final = {(resource.KIND, resource.ref): resource for resource in found}

    for resource in final.values():
        engine.set(resource)
    delta = engine.run()

    assert (delta.outputs, delta.statuses, delta.addresses) == ({}, (), None)


def federated_pair() -> list[Resource]:
    found: list[Resource] = [virtual_mesh("cluster1", "cluster2")]
    for cluster in ("cluster1", "cluster2"):
        found += [mesh(cluster), gateway(cluster), service(cluster, "reviews")]
    return found


def engine_of(found: list[Resource], addresses: Mapping[str, str] = {}) -> Engine:
    engine = Engine(addresses=addresses)
    for resource in found:
        engine.set(resource)
    return engine


def test_a_scaled_deployment_rewrites_nothing_remote() -> None:
    """One more pod changes the local entry of its own cluster and nothing on the others."""
    engine = engine_of(federated_pair())
    engine.run()

    engine.set(service("cluster2", "reviews", pods={"v1": 2}))
    delta = engine.run()

    assert [(key.cluster, key.object.name) for key in delta.outputs] == [
        ("cluster2", "reviews.default.svc.cluster2.global")
    ]


def test_the_cost_of_a_change_does_not_grow_with_the_fleet() -> None:
    """One changed service evaluates as many functions among a thousand as among ten."""
    costs = []
    for size in (10, 1000):
        engine = engine_of(federated_pair())
        for number in range(size):
            engine.set(service("cluster1", f"service-{number}"))
        engine.run()
        before = engine.evaluations
        engine.set(service("cluster1", "service-7", labels={"app": "other"}))
        engine.run()
        costs.append(engine.evaluations - before)

    assert costs[0] == costs[1] > 0


def test_a_failed_write_reaches_the_virtual_mesh_and_leaves_it_again() -> None:
    """What an agent could not write is an error of the destination it was for, until it could."""
    engine = engine_of(federated_pair())
    engine.run()
    key = next(key for key in engine.outputs() if key.object.kind == ServiceEntry.KIND.kind)
    virtual = StatusKey(virtual_mesh().KIND, "gloo-mesh", "virtual-mesh")

    engine.write_error(key, "belongs to somebody else")
    assert virtual in engine.run().statuses
    failed = engine.status(virtual)
    engine.write_error(key, None)
    assert virtual in engine.run().statuses

    assert failed.state.value == "FAILED"  # type: ignore[union-attr]
    assert "belongs to somebody else" in str(failed.destinations)  # type: ignore[union-attr]
    assert engine.status(virtual).state.value == "ACCEPTED"  # type: ignore[union-attr]


def test_colliding_addresses_are_told_apart_and_remembered() -> None:
    """Two names with one hash get two addresses; an engine that is told who moved gives the same ones in any order."""
    first, second = colliding_services()
    engine = engine_of(federated_pair())
    engine.set(service("cluster2", first.name))
    engine.run()
    engine.set(service("cluster2", second.name))

    displaced = engine.run().addresses

    addresses = entry_addresses(engine)
    assert displaced is not None
    assert list(displaced) == [f"{second.name}.default.svc.cluster2.global"]
    assert len(set(addresses.values())) == len(addresses)
    latecomers = [service("cluster2", second.name), service("cluster2", first.name)]
    again = engine_of(latecomers + federated_pair(), displaced)
    assert again.run().addresses is None
    assert entry_addresses(again) == addresses


def entry_addresses(engine: Engine) -> dict[str, str]:
    return {
        output.object.spec.hosts[0]: output.object.spec.addresses[0]
        for output in engine.outputs().values()
        if isinstance(output.object, ServiceEntry) and output.object.spec.addresses
    }


def colliding_services() -> tuple[Ref, Ref]:
    seen: dict[str, Ref] = {}
    for number in range(200_000):
        found = Ref("cluster2", "default", f"svc-{number}")
        other = seen.setdefault(candidate(found, 0), found)
        if other != found:
            return other, found
    raise AssertionError("no two of 200,000 names collide")
