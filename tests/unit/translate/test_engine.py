"""What a change of the engine's inputs reaches, and what it costs."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from isthmus.api.common import (
    ApprovalState,
    DestinationSelector,
    KubeServiceRefs,
)
from isthmus.api.common import ClusterObjectRef as Service
from isthmus.api.discovery import Destination, ServiceType
from isthmus.api.virtual_mesh import (
    Federation,
    FederationSelector,
    VirtualMesh,
)
from isthmus.istio.objects import ServiceEntry
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.federation.addresses import candidate
from tests.unit.translate.fleets import engine_of, federated_pair, gateway, mesh_ref, service, two_planes, virtual_mesh


def test_a_scaled_deployment_rewrites_nothing() -> None:
    """One more pod changes neither what other clusters know nor what its own gateway does: istiod follows pods."""
    engine = engine_of(federated_pair())
    engine.run()

    engine.set(service("cluster2", "reviews", pods={"v1": 2}))
    delta = engine.run()

    assert delta.outputs == {}


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


def written(engine: Engine) -> dict[tuple[str, str, str], bytes]:
    return {
        (key.cluster, key.object.namespace, key.object.name): output.payload()
        for key, output in engine.outputs().items()
        if key.object.kind == ServiceEntry.KIND.kind
    }


def test_two_control_planes_of_one_root_namespace_write_one_entry() -> None:
    """A revision beside another reads the same root namespace: the entry that lets calls in is alone."""
    engine = engine_of(two_planes(root="istio-system"))
    engine.run()
    place = ("cluster1", "default", "reviews.default.svc.cluster1.global")
    before = written(engine)[place]

    engine.set(gateway("cluster1", "203.0.113.9"))
    delta = engine.run()

    assert b'"exportTo":["istio-system"]' in before
    assert written(engine)[place] == before
    assert ("cluster1", "istio-system", place[2]) not in written(engine)
    assert not [key for key in delta.outputs if (key.cluster, key.object.namespace, key.object.name) == place]
    known = engine.status(StatusKey(Destination.KIND, "gloo-mesh", "reviews-default-cluster1"))
    assert known.applied_federation.federated_to_meshes == (mesh_ref("cluster2"),)  # type: ignore[union-attr]


def test_two_control_planes_of_two_root_namespaces_know_each_other() -> None:
    """A mesh beside another on its cluster, with its own root namespace, gets a remote entry like any other mesh."""
    engine = engine_of(two_planes(root="istio-canary"))
    engine.run()

    entries = written(engine)

    host = "reviews.default.svc.cluster1.global"
    assert b'"exportTo":["istio-system"]' in entries["cluster1", "default", host]
    assert b'"resolution":"DNS"' in entries["cluster1", "istio-canary", host]


def test_the_entry_that_lets_calls_in_keeps_its_place() -> None:
    """A mesh whose root namespace is the service's, on its cluster, would have its remote entry where that one is."""
    engine = engine_of(two_planes(root="default"))
    engine.run()

    entries = written(engine)

    host = "reviews.default.svc.cluster1.global"
    known = engine.status(StatusKey(Destination.KIND, "gloo-mesh", "reviews-default-cluster1"))
    assert b'"workloadSelector"' in entries["cluster1", "default", host]
    assert b'"resolution":"DNS"' in entries["cluster2", "istio-system", host]
    assert known.applied_federation.federated_to_meshes == (mesh_ref("cluster2"),)  # type: ignore[union-attr]


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
