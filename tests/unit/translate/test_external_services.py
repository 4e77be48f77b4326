"""External services among others: who knows them, under which name and address, and what policies make of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from isthmus.api.base import Resource
from isthmus.api.common import (
    ApprovalState,
    ClusterObjectRef,
    DestinationOptions,
    DestinationSelector,
    HeaderManipulation,
    KubeDestination,
    KubeServiceRefs,
    ObjectRef,
    TrafficShift,
    WeightedDestination,
)
from isthmus.api.discovery import Destination, DestinationSpec, DestinationStatus, ExternalService, ExternalServicePort
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus
from isthmus.api.virtual_host import Route, RouteAction, VirtualHost, VirtualHostSpec, VirtualHostStatus
from isthmus.istio.objects import (
    HeaderOperations,
    Headers,
    HttpRoute,
    PortSelector,
    RouteTarget,
    ServiceEntry,
    VirtualService,
    WeightedRoute,
)
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.federation.addresses import candidate
from tests.unit.translate.fleets import engine_of, federated_pair, mesh, mesh_ref, meta, service, virtual_mesh
from tests.unit.translate.test_gateways import start
from tests.unit.translate.test_virtual_destinations import virtual

WEB = (ExternalServicePort(80, "http", "HTTP"),)
HOST = "legacy.corp.example"


def external(name: str = "legacy", *hosts: str, mesh: str = "", age: str | None = None, **more: Any) -> Destination:
    """The Destination of an external service, called like *name* by default."""
    said = {"hosts": hosts or (HOST,), "ports": WEB, **more}
    return Destination(
        metadata=meta(name, creation_timestamp=age, generation=3),
        spec=DestinationSpec(external_service=ExternalService(**said), mesh=mesh_ref(mesh) if mesh else None),
    )


def shift(*shares: int, to: str = "legacy", on: str = "reviews") -> TrafficPolicy:
    """Sends requests for a service of cluster1 to an external one, and of two *shares* the second to reviews there."""
    where = ClusterObjectRef(name=on, namespace="default", cluster_name="cluster1")
    reviews = KubeDestination("reviews", "default", "cluster1", {}, 0)
    found = [WeightedDestination(weight=shares[0], static_destination=ObjectRef(name=to, namespace="gloo-mesh"))]
    found += [WeightedDestination(weight=weight, kube_service=reviews) for weight in shares[1:]]
    return TrafficPolicy(
        metadata=meta("shift", generation=1),
        spec=TrafficPolicySpec(
            destination_selector=(DestinationSelector(kube_service_refs=KubeServiceRefs(services=(where,))),),
            policy=Policy(traffic_shift=TrafficShift(destinations=tuple(found))),
        ),
    )


def running(*found: Resource) -> Engine:
    engine = engine_of((*federated_pair(), *found))
    engine.run()
    return engine


def entries(engine: Engine) -> dict[tuple[str, str], ServiceEntry]:
    """The entries of hosts outside any mesh, by cluster and name."""
    return {
        (key.cluster, key.object.name): output.object
        for key, output in engine.outputs().items()
        if isinstance(output.object, ServiceEntry) and output.object.spec.location == "MESH_EXTERNAL"
    }


def shares(engine: Engine, cluster: str = "cluster1") -> dict[str, WeightedRoute]:
    """Where the only route that policies made for cluster1's reviews on *cluster* goes, by host."""
    [found] = [
        output.object
        for key, output in engine.outputs().items()
        if key.cluster == cluster and isinstance(output.object, VirtualService)
    ]
    [route] = found.spec.http
    return {each.destination.host: each for each in route.route}


def status(engine: Engine, name: str = "legacy") -> DestinationStatus:
    found = engine.status(StatusKey(Destination.KIND, "gloo-mesh", name))
    assert isinstance(found, DestinationStatus)
    return found


def verdict(engine: Engine) -> tuple[ApprovalState, str]:
    """What becomes of `shift` on the destination that it selects."""
    found = engine.status(StatusKey(TrafficPolicy.KIND, "gloo-mesh", "shift"))
    assert isinstance(found, TrafficPolicyStatus)
    [outcome] = found.destinations.values()
    assert found.state is outcome.state
    return outcome.state, "; ".join(outcome.errors)


# --- who knows it -----------------------------------------------------------------------------------------------------


def test_who_joins_the_virtual_mesh_knows_it_and_who_leaves_does_not() -> None:
    engine = running(external(), mesh("cluster3"))
    assert set(entries(engine)) == {("cluster1", "legacy"), ("cluster2", "legacy")}

    engine.set(virtual_mesh("cluster2", "cluster3"))
    changed = engine.run().statuses

    assert StatusKey(Destination.KIND, "gloo-mesh", "legacy") in changed
    assert set(entries(engine)) == {("cluster2", "legacy"), ("cluster3", "legacy")}
    known = status(engine).applied_federation
    assert known is not None
    assert known.federated_to_meshes == (mesh_ref("cluster2"), mesh_ref("cluster3"))


def test_it_needs_neither_federation_nor_gateways() -> None:
    engine = engine_of([mesh("cluster1"), virtual_mesh("cluster1", federation=None), external()])
    engine.run()

    assert set(entries(engine)) == {("cluster1", "legacy")}
    assert status(engine).state is ApprovalState.ACCEPTED


def test_two_control_planes_of_one_root_namespace_share_the_entry() -> None:
    """Those of different ones have one each."""
    planes = [mesh("cluster1"), mesh("cluster1", plane="istiod-canary"), mesh("cluster1", plane="other", root="other")]
    members = (mesh_ref("cluster1", plane) for plane in ("istiod", "istiod-canary", "other"))
    engine = engine_of([*planes, virtual_mesh(*members), external()])
    engine.run()

    written = [key.object.namespace for key in engine.outputs() if key.object.name == "legacy"]
    assert written == ["istio-system", "other"]


def test_the_address_is_its_own_whatever_else_has_the_name() -> None:
    """A virtual destination of the same name has another, in whatever order the two come."""
    first, second = running(external("reviews"), virtual()), running(virtual())
    second.set(external("reviews"))
    second.run()

    [address] = entries(first)["cluster1", "reviews"].spec.addresses
    assert entries(second)["cluster1", "reviews"].spec.addresses == (address,)
    assert address != candidate(Ref("", "gloo-mesh", "reviews"), 0)
    assert not first.run().addresses


def test_an_address_that_is_taken_is_replaced_and_remembered() -> None:
    [first] = entries(running(external()))["cluster1", "legacy"].spec.addresses
    holder = {"other.default.svc.cluster9.global": first}
    engine = engine_of([*federated_pair(), external()], holder)

    remembered = engine.run().addresses

    [address] = entries(engine)["cluster1", "legacy"].spec.addresses
    assert address != first
    assert remembered == {**holder, "legacy.gloo-mesh.": address}
    again = engine_of([*federated_pair(), external()], {"legacy.gloo-mesh.": address})
    again.run()
    assert entries(again)["cluster1", "legacy"].spec.addresses == (address,)


def test_a_host_name_goes_to_who_is_left() -> None:
    """The younger of two has it once the older is gone."""
    old, young = external("old", age="2026-01-01T00:00:00Z"), external("young", age="2026-02-01T00:00:00Z")
    engine = running(young, old)
    assert [name for _, name in entries(engine)] == ["old", "old"]
    assert status(engine, "young").errors == (
        f"spec.externalService.hosts: {HOST} already belongs to Destination old.gloo-mesh., which is older",
    )

    engine.remove(Destination.KIND, "gloo-mesh", "old")
    engine.run()

    assert [name for _, name in entries(engine)] == ["young", "young"]


def test_meshes_that_do_not_know_each_other_may_have_one_host_name_twice() -> None:
    apart = [*federated_pair(), mesh("cluster3"), virtual_mesh("cluster3", name="apart")]
    engine = engine_of([*apart, external("one", mesh="cluster1"), external("two", mesh="cluster3")])
    engine.run()

    assert set(entries(engine)) == {("cluster1", "one"), ("cluster2", "one"), ("cluster3", "two")}


@pytest.mark.parametrize(
    ("port", "mixed"),
    [
        (ExternalServicePort(80, "web", "HTTP"), False),
        (ExternalServicePort(80, "db", "TCP"), True),
        (ExternalServicePort(81, "db", "TCP"), False),
    ],
)
def test_an_address_is_shared_only_where_calls_are_told_apart(port: ExternalServicePort, mixed: bool) -> None:
    """By the host that requests name."""
    old = external("old", "old.example", age="2026-01-01T00:00:00Z", addresses=("10.0.0.7",))
    young = external("young", "young.example", age="2026-02-01T00:00:00Z", addresses=("10.0.0.7",), ports=(port,))
    engine = running(young, old)

    errors = status(engine, "young").errors

    assert any("10.0.0.7 has the ports of Destination old.gloo-mesh." in error for error in errors) is mixed
    assert status(engine, "old").state is ApprovalState.ACCEPTED


def test_a_service_that_comes_with_the_name_takes_it() -> None:
    name = "ratings.default.svc.cluster2.global"
    engine = running(external("legacy", name))
    assert entries(engine)

    engine.set(service("cluster2", "ratings"))
    engine.run()

    assert not entries(engine)
    assert status(engine).state is ApprovalState.INVALID
    assert f"{name} is the name of a federated service" in status(engine).errors[0]


def test_what_cannot_be_written_is_said() -> None:
    engine = running(external())
    key = next(key for key in engine.outputs() if key.object.name == "legacy")

    engine.write_error(key, "conflict: another has the name")
    changed = engine.run().statuses

    assert StatusKey(Destination.KIND, "gloo-mesh", "legacy") in changed
    assert status(engine).state is ApprovalState.FAILED
    assert "ServiceEntry istio-system/legacy on cluster cluster1: conflict" in status(engine).errors[0]
    engine.write_error(key, None)
    engine.run()
    assert (status(engine).state, status(engine).errors) == (ApprovalState.ACCEPTED, ())


def test_a_change_of_one_is_the_only_thing_looked_at() -> None:
    """Of two hundred others, and the policies that name them, nothing is made anew."""
    many = [external(f"e{i}", f"e{i}.example") for i in range(200)]
    engine = running(*many, shift(100, to="e7"))
    before = engine.evaluations

    engine.set(external("e8", "e8.example", ports=(ExternalServicePort(81, "http", "HTTP"),)))
    delta = engine.run()

    assert len(delta.outputs) == 2
    assert engine.evaluations - before < 20


def test_names_by_which_gateways_know_others_are_refused() -> None:
    engine = running(external("legacy", "x.gloo-mesh.backing.global"), external("fine", "x.backing.example"))

    assert {name for _, name in entries(engine)} == {"fine"}
    assert "is how gateways name what is behind virtual destinations" in status(engine).errors[0]


# --- what policies make of it -----------------------------------------------------------------------------------------


def test_requests_go_there_beside_a_service_of_the_mesh() -> None:
    """Also those of the other cluster, and under the name that the host outside knows."""
    engine = running(external(), shift(30, 70))

    for cluster, own in (("cluster1", "svc.cluster.local"), ("cluster2", "svc.cluster1.global")):
        found = shares(engine, cluster)
        assert {host: each.weight for host, each in found.items()} == {HOST: 30, f"reviews.default.{own}": 70}
        assert found[HOST].destination.port == PortSelector(number=80)
        assert found[HOST].headers == Headers(request=HeaderOperations(add={"host": HOST}))
        assert found[f"reviews.default.{own}"].headers is None
    assert verdict(engine) == (ApprovalState.ACCEPTED, "")


def test_a_policy_waits_for_the_destination_and_for_nothing_else() -> None:
    engine = running(shift(100))
    state, why = verdict(engine)
    assert state is ApprovalState.PENDING
    assert "there is no Destination of an external service with this name yet" in why
    assert not any(isinstance(each.object, VirtualService) for each in engine.outputs().values())

    engine.set(external())
    engine.run()
    assert verdict(engine)[0] is ApprovalState.ACCEPTED
    assert set(shares(engine)) == {HOST}

    engine.set(external(ports=()))
    engine.run()
    assert verdict(engine)[0] is ApprovalState.INVALID
    assert not any(isinstance(each.object, VirtualService) for each in engine.outputs().values())


def test_a_host_name_that_is_lost_to_another_gets_no_requests() -> None:
    """Not those that are shifted to it, although somebody has the name."""
    engine = running(external(age="2026-02-01T00:00:00Z"), external("older", age="2026-01-01T00:00:00Z"), shift(100))

    state, why = verdict(engine)

    assert (state, "the Destination is INVALID, see its status" in why) == (ApprovalState.INVALID, True)
    assert not any(isinstance(each.object, VirtualService) for each in engine.outputs().values())


def test_a_service_of_that_name_is_no_external_one() -> None:
    """The Destination of a service of the mesh is named by kubeService."""
    engine = running(shift(100, to="reviews-default-cluster1"))

    assert verdict(engine)[0] is ApprovalState.PENDING


def test_a_policy_of_a_cluster_that_does_not_know_it_is_refused() -> None:
    apart = (mesh("cluster3"), virtual_mesh("cluster3", name="apart"))
    engine = running(*apart, external(mesh="cluster3"), shift(100))

    state, why = verdict(engine)

    assert state is ApprovalState.INVALID
    assert "not known on cluster cluster1" in why
    assert "the VirtualMesh of its spec.mesh, istiod-istio-system-cluster3.gloo-mesh." in why
    assert not any(isinstance(each.object, VirtualService) for each in engine.outputs().values())


@pytest.mark.parametrize(
    ("ports", "chosen"),
    [
        ([(443, "HTTPS"), (8080, "HTTP")], 8080),
        ([(5000, "TCP"), (8080, "GRPC")], 8080),
        ([(5000, "")], 5000),
        ([(8080, "HTTP"), (9080, "HTTP2")], 9080),
        ([(8080, "HTTP"), (8081, "HTTP")], None),
        ([(443, "TLS")], None),
        ([(27017, "MONGO")], None),
    ],
)
def test_the_port_is_the_one_that_takes_requests(ports: list[tuple[int, str]], chosen: int | None) -> None:
    """Of several the one with the number that callers use, 9080; none is guessed."""
    said = tuple(ExternalServicePort(number, "", protocol) for number, protocol in ports)
    engine = running(external(ports=said), shift(100))

    state, why = verdict(engine)

    if chosen is None:
        assert state is ApprovalState.INVALID
        assert all(str(number) in why for number, _ in ports)
    else:
        assert state is ApprovalState.ACCEPTED
        assert shares(engine)[HOST].destination.port == PortSelector(number=chosen)


@pytest.mark.parametrize("reference", [ObjectRef(name="legacy"), ObjectRef(namespace="gloo-mesh"), ObjectRef()])
def test_a_reference_needs_both_parts(reference: ObjectRef) -> None:
    target = WeightedDestination(static_destination=reference)
    policy = shift(100)
    told = msgspec.structs.replace(policy.spec, policy=Policy(traffic_shift=TrafficShift(destinations=(target,))))
    engine = running(external(), msgspec.structs.replace(policy, spec=told))

    found = engine.status(StatusKey(TrafficPolicy.KIND, "gloo-mesh", "shift"))

    assert isinstance(found, TrafficPolicyStatus)
    [error] = found.errors
    assert error.endswith("destinations[0].staticDestination: malformed staticDestination: needs name and namespace")


# --- what gateways make of it -----------------------------------------------------------------------------------------


def shop(**options: str) -> VirtualHost:
    """All requests go to the external service; *options* are headers that the share of it adds."""
    headers = DestinationOptions(header_manipulation=HeaderManipulation(append_request_headers=options))
    target = WeightedDestination(
        static_destination=ObjectRef(name="legacy", namespace="gloo-mesh"), options=headers if options else None
    )
    action = RouteAction(destinations=(target,))
    return VirtualHost(
        metadata=meta("shop"), spec=VirtualHostSpec(domains=("*",), routes=(Route(route_action=action),))
    )


def served(*found: Resource) -> Engine:
    """Three clusters whose gateways serve what *found* says."""
    engine = engine_of((*start(), *found))
    engine.run()
    return engine


def gateway_routes(engine: Engine) -> dict[str, HttpRoute]:
    """The only route of `shop`, by the cluster of the gateway."""
    found = {
        key.cluster: output.object.spec.http
        for key, output in engine.outputs().items()
        if isinstance(output.object, VirtualService) and output.object.spec.gateways
    }
    return {cluster: route for cluster, [route] in found.items()}


def said_of_shop(engine: Engine) -> tuple[str, ...]:
    found = engine.status(StatusKey(VirtualHost.KIND, "gloo-mesh", "shop"))
    assert isinstance(found, VirtualHostStatus)
    return found.errors


def test_gateways_use_the_one_entry_and_the_name_outside() -> None:
    engine = served(external(), shop())

    assert {name for _, name in entries(engine)} == {"legacy"}
    for route in gateway_routes(engine).values():
        [only] = route.route
        assert only.destination == RouteTarget(host=HOST, port=PortSelector(number=80))
        assert only.headers == Headers(request=HeaderOperations(add={"host": HOST}))
    assert not said_of_shop(engine)


def test_a_host_that_the_route_names_counts_instead() -> None:
    engine = served(external(), shop(Host="other.example"))

    [only] = gateway_routes(engine)["cluster1"].route
    assert only.headers == Headers(request=HeaderOperations(add={"Host": "other.example"}))


def test_a_gateway_guesses_no_port() -> None:
    ports = (ExternalServicePort(8080, "a", "HTTP"), ExternalServicePort(8081, "b", "HTTP"))
    engine = served(external(ports=ports), shop())

    assert all(not route.route for route in gateway_routes(engine).values())
    [error] = said_of_shop(engine)
    assert "legacy.gloo-mesh. has several ports for requests, 8080, 8081" in error


def test_a_gateway_of_no_virtual_mesh_does_not_know_it() -> None:
    engine = served(external(), shop())

    engine.set(virtual_mesh("cluster2", "cluster3"))
    engine.run()

    found = gateway_routes(engine)
    assert not found["cluster1"].route
    assert found["cluster2"].route
    assert any("it is not known on cluster cluster1" in error for error in said_of_shop(engine))
