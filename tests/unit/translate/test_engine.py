"""The engine's promise: what it ends in depends on the objects, never on how they came."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import ApiStruct, Resource
from isthmus.api.common import (
    ApprovalState,
    CommonCertOptions,
    DestinationSelector,
    IngressGatewaySelector,
    KubeDestination,
    KubeServiceMatcher,
    KubeServiceRefs,
    TrafficShift,
    WeightedDestination,
)
from isthmus.api.common import ClusterObjectRef as Service
from isthmus.api.discovery import Destination, ServiceType
from isthmus.api.issued_certificate import IssuedCertificateState, IssuedCertificateStatus, OutdatedPods
from isthmus.api.kubernetes_cluster import KubernetesCluster, KubernetesClusterSpec
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicySpec
from isthmus.api.virtual_mesh import (
    Federation,
    FederationSelector,
    MtlsConfig,
    RootCertificateAuthority,
    SharedTrust,
    VirtualMesh,
)
from isthmus.istio.objects import ServiceEntry
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate import Engine, OutputKey, RootFacts, StatusKey
from isthmus.translate.federation.addresses import candidate
from tests.unit.translate.fleets import gateway, mesh, mesh_ref, service, virtual_mesh, workload

CLUSTERS = ("cluster1", "cluster2", "cluster3")
clusters = st.sampled_from(CLUSTERS)
planes = st.sampled_from(("istiod", "istiod", "istiod-canary"))
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
trusts = st.none() | st.builds(
    MtlsConfig,
    auto_restart_pods=st.booleans(),
    shared=st.none()
    | st.builds(
        SharedTrust,
        root_certificate_authority=st.sampled_from((None, RootCertificateAuthority())),
        intermediate_cert_options=st.sampled_from((None, CommonCertOptions(ttl_days=10, rsa_key_size_bytes=512))),
    ),
)


class Given(NamedTuple):
    """What the server tells the engine of a root, which is no object."""

    virtual_mesh: Ref
    root: RootFacts | None
    problem: Problem | None


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
    st.builds(
        mesh,
        clusters,
        dns=st.booleans(),
        plane=planes,
        root=st.sampled_from(("istio-system", "istio-system", "other")),
        aliases=st.sampled_from(((), ("cluster1", "old"))),
        agent=st.sampled_from(("gloo-mesh", "gloo-mesh", "")),
        certificate=st.none()
        | st.builds(
            IssuedCertificateStatus,
            state=st.sampled_from(IssuedCertificateState),
            observed_trust=st.sampled_from(("one", "two")),
            outdated_pods=st.sampled_from((None, OutdatedPods(count=1, names=("default/pod",)))),
        ),
    ),
    st.builds(workload, clusters, names, plane=planes),
    st.builds(gateway, clusters, st.sampled_from((None, "203.0.113.1", "2001:db8::1")), plane=planes),
    st.builds(
        service,
        clusters,
        names,
        namespace=namespaces,
        pods=st.sampled_from(({"v1": 1}, {"v1": 3, "v2": 1}, {})),
        labels=st.sampled_from(({}, {"app": "reviews"}, {"tier": "front"}, {"gate": "yes"})),
        ports=st.sampled_from(((), (service("x", "x").spec.kube_service.ports))),  # type: ignore[union-attr]
        object_name=st.none() | st.just("impostor"),
        plane=planes,
    ),
    st.builds(
        virtual_mesh,
        clusters,
        st.builds(mesh_ref, clusters, planes),
        name=st.sampled_from(("virtual-mesh", "rival")),
        federation=federations,
        mtls=trusts,
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
roots = st.builds(
    Given,
    st.sampled_from(("virtual-mesh", "rival")).map(lambda name: Ref("", "gloo-mesh", name)),
    st.none() | st.builds(RootFacts, st.just(Ref("", "gloo-mesh", "root")), st.sampled_from(("one", "two"))),
    st.sampled_from((None, Problem("spec.mtlsConfig", "NotFound", "gone"))),
)
steps = st.tuples(resources | resources | roots, st.sampled_from(("set", "set", "set", "remove")), st.booleans())
histories = st.lists(steps, min_size=1, max_size=40)


def everything(engine: Engine) -> tuple[dict[OutputKey, bytes], dict[StatusKey, ApiStruct | None]]:
    return (
        {key: output.payload() for key, output in engine.outputs().items()},
        {key: engine.status(key) for key in engine.status_keys()},
    )


@given(histories, st.sampled_from((None, "istio-system", "other")))
@settings(max_examples=300, deadline=None)
def test_incremental_equals_from_scratch(history: list, canary_root: str | None) -> None:
    """Any changes to a working fleet end in the results of a start from scratch, and the deltas add up to them."""
    engine = Engine()
    state: dict[tuple, Resource] = {}
    added_up: dict[OutputKey, bytes] = {}
    start = two_planes(root=canary_root) if canary_root else federated_pair()
    history = [(resource, "set", False) for resource in start] + history

    roots: dict[Ref, Given] = {}
    for resource, what, run in history:
        if isinstance(resource, Given):
            found = resource if what == "set" else Given(resource.virtual_mesh, None, None)
            engine.set_root(*found)
            roots[found.virtual_mesh] = found
            continue
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
    for _, found in sorted(roots.items()):
        fresh.set_root(*found)
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


def named_one_by_one(size: int) -> Federation:
    services = tuple(Service(name=f"service-{n}", namespace="default", cluster_name="cluster1") for n in range(size))
    references = DestinationSelector(kube_service_refs=KubeServiceRefs(services=services))
    return Federation(selectors=(FederationSelector(destination_selectors=(references,)),))


def calls(work: Callable[[], object]) -> int:
    """Functions called by *work*, those written in C included."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("type", [ServiceType.CLUSTER_IP, ServiceType.NODE_PORT])
@pytest.mark.parametrize("federation", [lambda _: Federation(), named_one_by_one], ids=["everything", "named"])
def test_the_cost_of_a_change_does_not_grow_with_the_fleet(
    type: ServiceType, federation: Callable[[int], Federation]
) -> None:
    """One changed service calls as many functions among a thousand as among ten, and evaluates as many."""
    costs = []
    for size in (10, 1000):
        engine = engine_of(federated_pair())
        engine.set(virtual_mesh("cluster1", "cluster2", federation=federation(size)))
        for number in range(size):
            engine.set(service("cluster1", f"service-{number}", type=type))
        engine.run()
        before = engine.evaluations
        engine.set(service("cluster1", "service-7", type=type, labels={"app": "other"}))
        called = calls(engine.run)
        costs.append((called, engine.evaluations - before))

    (few_calls, few), (many_calls, many) = costs
    assert few == many > 0
    assert many_calls < 1.2 * few_calls  # not equal: the garbage collector's callbacks count too


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


def test_a_failed_write_follows_its_object_to_another_virtual_mesh() -> None:
    """When an object passes to another virtual mesh, so does the report that it could not be written."""
    engine = engine_of(federated_pair())
    engine.run()
    engine.write_error(next(key for key in engine.outputs() if key.object.kind == "Gateway"), "denied")
    engine.run()

    engine.set(virtual_mesh("cluster1", "cluster2", name="heir"))
    engine.remove(VirtualMesh.KIND, "gloo-mesh", "virtual-mesh")
    delta = engine.run()

    heir = StatusKey(VirtualMesh.KIND, "gloo-mesh", "heir")
    assert heir in delta.statuses
    assert engine.status(heir).state is ApprovalState.FAILED  # type: ignore[union-attr]


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


CANARY = mesh_ref("cluster1", "istiod-canary")


def two_planes(*, root: str) -> list[Resource]:
    """Two control planes on cluster1, the second in namespace *root*, and one on cluster2."""
    found = [resource for resource in federated_pair() if resource.KIND != VirtualMesh.KIND]
    return [
        *found,
        virtual_mesh("cluster1", CANARY, "cluster2"),
        mesh("cluster1", plane="istiod-canary", root=root),
        service("cluster1", "ratings", plane="istiod-canary"),
    ]


def written(engine: Engine) -> dict[tuple[str, str, str], bytes]:
    return {
        (key.cluster, key.object.namespace, key.object.name): output.payload()
        for key, output in engine.outputs().items()
        if key.object.kind == ServiceEntry.KIND.kind
    }


def test_two_control_planes_of_one_root_namespace_write_one_entry() -> None:
    """A revision beside another reads the same root namespace: the entry that lets calls in is alone there."""
    engine = engine_of(two_planes(root="istio-system"))
    engine.run()
    place = ("cluster1", "istio-system", "reviews.default.svc.cluster1.global")
    before = written(engine)[place]

    engine.set(gateway("cluster1", "203.0.113.9"))
    delta = engine.run()

    assert b'"exportTo":["."]' in before
    assert written(engine)[place] == before
    assert not [key for key in delta.outputs if (key.cluster, key.object.namespace, key.object.name) == place]
    known = engine.status(StatusKey(Destination.KIND, "gloo-mesh", "reviews-default-cluster1"))
    assert known.applied_federation.federated_to_meshes == (mesh_ref("cluster2"),)  # type: ignore[union-attr]


def test_two_control_planes_of_two_root_namespaces_know_each_other() -> None:
    """A mesh beside another on its cluster, with its own root namespace, gets a remote entry like any other mesh."""
    engine = engine_of(two_planes(root="istio-canary"))
    engine.run()

    entries = written(engine)

    host = "reviews.default.svc.cluster1.global"
    assert b'"exportTo":["."]' in entries["cluster1", "istio-system", host]
    assert b'"resolution":"DNS"' in entries["cluster1", "istio-canary", host]


def test_an_object_that_changes_hands_within_one_run_stays() -> None:
    """A key that one collection gives up and another takes is in the delta with its new object, not as removed."""
    engine = engine_of(two_planes(root="istio-canary"))
    engine.set(gateway("cluster1", "203.0.113.2", plane="istiod-canary", object_name="canary-gateway"))
    engine.run()

    engine.set(service("cluster1", "reviews", plane="istiod-canary"))
    delta = engine.run()

    desired = engine.outputs()
    assert delta.outputs
    assert all(delta.outputs[key] == desired.get(key) for key in delta.outputs)


def test_a_new_revision_is_reached_through_the_gateway_beside_it() -> None:
    """Services move to a new revision one by one; the gateway of the old one, which knows them all, serves them."""
    engine = engine_of(two_planes(root="istio-system"))
    engine.run()
    before = written(engine)

    engine.set(service("cluster1", "reviews", plane="istiod-canary"))
    delta = engine.run()

    assert b"203.0.113.1" in before["cluster2", "istio-system", "ratings.default.svc.cluster1.global"]
    assert written(engine) == before
    assert None not in delta.outputs.values()
