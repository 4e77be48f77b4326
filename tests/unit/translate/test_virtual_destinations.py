"""Virtual destinations among others: what names, addresses, gateways and policies there are decides what is written."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.common import (
    ApprovalState,
    ClusterObjectRef,
    DestinationSelector,
    KubeServiceMatcher,
    KubeServiceRefs,
    ObjectRef,
    VirtualDestinationReference,
    WeightedDestination,
)
from isthmus.api.ready_endpoints import OVER_CAPACITY
from isthmus.api.traffic_policy import Policy, TrafficPolicy, TrafficPolicySpec, TrafficPolicyStatus, TrafficShift
from isthmus.api.virtual_destination import (
    FailoverDirective,
    Locality,
    LocalizedFailover,
    VirtualDestination,
    VirtualDestinationPort,
    VirtualDestinationSpec,
    VirtualDestinationStatus,
)
from isthmus.api.virtual_mesh import Federation
from isthmus.istio.objects import DestinationRule, ServiceEntry, VirtualService
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.federation.addresses import AddressBook
from isthmus.translate.output import Output, OutputKey
from tests.unit.translate.fleets import (
    engine_of,
    federated_pair,
    gateway,
    mesh,
    meta,
    service,
    virtual_mesh,
    workload,
)

REVIEWS = (DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"app": "reviews"})),)


def virtual(
    hostname: str = "reviews.global",
    *,
    name: str = "reviews",
    namespace: str = "gloo-mesh",
    selectors: tuple[DestinationSelector, ...] = REVIEWS,
) -> VirtualDestination:
    return VirtualDestination(
        metadata=ObjectMeta(name=name, namespace=namespace),
        spec=VirtualDestinationSpec(
            hostname=hostname,
            port=VirtualDestinationPort(9080, "HTTP"),
            localized=LocalizedFailover(destination_selectors=selectors),
            virtual_mesh=ObjectRef(name="virtual-mesh", namespace="gloo-mesh"),
        ),
    )


def shift(share: int, generation: int = 1) -> TrafficPolicy:
    """Calls of the reviews of cluster1, the *share* of v1 and the rest of v2 to the virtual destination."""
    target = ClusterObjectRef(name="reviews", namespace="default", cluster_name="cluster1")
    return TrafficPolicy(
        metadata=meta("canary", generation=generation),
        spec=TrafficPolicySpec(
            destination_selector=(DestinationSelector(kube_service_refs=KubeServiceRefs((target,))),),
            policy=Policy(
                traffic_shift=TrafficShift(
                    tuple(
                        WeightedDestination(
                            weight=weight,
                            virtual_destination=VirtualDestinationReference(
                                name="reviews", namespace="gloo-mesh", subset={"version": version}
                            ),
                        )
                        for version, weight in (("v1", share), ("v2", 100 - share))
                    )
                )
            ),
        ),
    )


def status(engine: Engine, name: str = "reviews", namespace: str = "gloo-mesh") -> VirtualDestinationStatus:
    found = engine.status(StatusKey(VirtualDestination.KIND, namespace, name))
    assert isinstance(found, VirtualDestinationStatus)
    return found


def entries(engine: Engine, cluster: str, hostname: str = "reviews.global") -> list[ServiceEntry]:
    """The entries by which *cluster* knows *hostname*."""
    return [
        output.object
        for key, output in engine.outputs().items()
        if key.cluster == cluster
        and isinstance(output.object, ServiceEntry)
        and output.object.spec.hosts == (hostname,)
    ]


def routed(outputs: dict[OutputKey, Output]) -> bool:
    """Whether cluster1 has routes."""
    return any(key.cluster == "cluster1" and isinstance(each.object, VirtualService) for key, each in outputs.items())


def test_two_that_make_one_name_are_both_written() -> None:
    """reviews-gloo in mesh and reviews in gloo-mesh have objects of their own, whichever came first."""
    one, other = virtual("a.global"), virtual("b.global", name="reviews-gloo", namespace="mesh")

    engines = [engine_of([*federated_pair(), *order]) for order in ((one, other), (other, one))]
    for engine in engines:
        engine.run()

    assert engines[0].outputs() == engines[1].outputs()
    for kind in (ServiceEntry, DestinationRule):
        names = {key.object.name for key, output in engines[0].outputs().items() if isinstance(output.object, kind)}
        assert {"reviews-gloo-mesh", "b.global"} <= names
    assert entries(engines[0], "cluster2", "a.global")
    assert entries(engines[0], "cluster2", "b.global")


def test_one_alone_has_the_references_name_again() -> None:
    """When the one that had the name goes, the other's objects are called by it."""
    engine = engine_of([*federated_pair(), virtual("a.global"), virtual("b.global", name="r-gloo", namespace="mesh")])
    engine.set(virtual("c.global", name="r", namespace="gloo-mesh"))
    engine.run()

    engine.remove(VirtualDestination.KIND, "mesh", "r-gloo")
    engine.run()

    [entry] = entries(engine, "cluster1", "c.global")
    assert entry.metadata.name == "r-gloo-mesh"


def test_no_calls_are_shifted_to_what_cannot_be_reached() -> None:
    """A shift to services of clusters that no gateway lets calls into waits for one."""
    there = KubeServiceRefs((ClusterObjectRef(name="reviews", namespace="default", cluster_name="cluster2"),))
    found = [each for each in federated_pair() if each != gateway("cluster2")]
    shifted = virtual(selectors=(DestinationSelector(kube_service_refs=there),))
    engine = engine_of([*found, service("cluster2", "reviews", pods={"v1": 1, "v2": 1}), shifted, shift(50)])
    engine.run()
    before = engine.outputs()
    waiting = engine.status(StatusKey(TrafficPolicy.KIND, "gloo-mesh", "canary"))

    engine.set(gateway("cluster2"))
    engine.run()

    assert not routed(before)
    assert isinstance(waiting, TrafficPolicyStatus)
    assert "no gateway lets calls into its clusters yet" in str(waiting)
    assert routed(engine.outputs())


def test_a_name_without_a_dot_is_refused() -> None:
    """Istio would look for it in the namespace of the object."""
    engine = engine_of([*federated_pair(), virtual("ratings")])
    engine.run()

    assert status(engine).state is ApprovalState.INVALID
    assert status(engine).errors == (
        "spec.hostname: Istio takes 'ratings' for a service of whoever calls: choose a name with a dot, such as "
        "ratings.global",
    )


def test_a_name_that_ends_in_a_number_is_refused() -> None:
    """Istio refuses it with both objects."""
    engine = engine_of([*federated_pair(), virtual("10.0.0.1")])
    engine.run()

    (error,) = status(engine).errors
    assert error.startswith("spec.hostname: '10.0.0.1' ends in a number")
    assert not entries(engine, "cluster1", "10.0.0.1")


@pytest.mark.parametrize(
    ("hostname", "text"),
    [
        ("reviews.default", "is the name of a service on cluster cluster1"),
        ("reviews.default.svc", "is the name of a service on cluster cluster1"),
        ("reviews.default.svc.cluster.local", "is the name of a service on cluster cluster1"),
        ("kubernetes.default.svc.cluster.local", "is the name of what may be a service on cluster cluster1"),
        ("b.gloo-mesh.backing.global", "is a name by which gateways know"),
    ],
)
def test_names_that_proxies_know_something_else_by_are_refused(hostname: str, text: str) -> None:
    engine = engine_of([*federated_pair(), virtual(hostname), virtual("b.global", name="b")])
    engine.run()

    (error,) = status(engine).errors
    assert error.startswith(f"spec.hostname: {hostname} {text}")
    assert not any(entry.metadata.name == "reviews-gloo-mesh" for entry in entries(engine, "cluster1", hostname))
    assert status(engine, "b").state is ApprovalState.ACCEPTED


def test_a_name_of_no_service_may_look_like_one() -> None:
    engine = engine_of([*federated_pair(), virtual("reviews.other")])
    engine.run()

    assert status(engine).state is ApprovalState.ACCEPTED


@pytest.mark.parametrize(
    ("directives", "text"),
    [
        ([("eu", "us*")], "failoverDirectives[0]: takes regions by name"),
        ([("eu/a", "us")], "failoverDirectives[0]: takes regions by name"),
        ([("eu", "us"), ("eu", "asia")], "failoverDirectives[1].from: region eu is named twice"),
    ],
)
def test_directives_that_istio_would_refuse_or_ignore_are_said(directives: list[tuple[str, str]], text: str) -> None:
    made = virtual()
    localized = LocalizedFailover(
        destination_selectors=REVIEWS,
        failover_directives=tuple(
            FailoverDirective(from_=Locality(region=start), to=(Locality(region=to),)) for start, to in directives
        ),
    )
    engine = engine_of(
        [
            *federated_pair(),
            msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, localized=localized)),
        ]
    )
    engine.run()

    (error,) = status(engine).errors
    assert error.startswith(f"spec.localized.{text}")


def far_apart(*directives: tuple[str, ...]) -> Engine:
    """Reviews in eu, us, asia and africa, each region a cluster, whose calls go on as *directives* say."""
    regions = ("eu", "us", "asia", "africa")
    made = virtual()
    localized = LocalizedFailover(
        destination_selectors=REVIEWS,
        failover_directives=tuple(
            FailoverDirective(from_=Locality(region=start), to=tuple(Locality(region=region) for region in to))
            for start, *to in directives
        ),
    )
    found: list[Resource] = [
        virtual_mesh(*regions),
        msgspec.structs.replace(made, spec=msgspec.structs.replace(made.spec, localized=localized)),
    ]
    for number, region in enumerate(regions):
        reviews = service(region, "reviews")
        assert reviews.spec.kube_service is not None
        placed = msgspec.structs.replace(reviews.spec.kube_service, region=region)
        found += [
            mesh(region, region=region),
            gateway(region, f"203.0.113.{number}"),
            msgspec.structs.replace(reviews, spec=msgspec.structs.replace(reviews.spec, kube_service=placed)),
        ]
    engine = engine_of(found)
    engine.run()
    return engine


def order_on(engine: Engine, cluster: str) -> list[list[str]]:
    """The regions in the order in which Istio takes them by their labels alone, as callers of *cluster* see them."""
    (rule,) = (
        output.object
        for key, output in engine.outputs().items()
        if key.cluster == cluster
        and isinstance(output.object, DestinationRule)
        and output.object.spec.host == "reviews.global"
    )
    assert rule.spec.traffic_policy is not None
    assert rule.spec.traffic_policy.load_balancer is not None
    setting = rule.spec.traffic_policy.load_balancer.locality_lb_setting
    assert setting is not None
    (entry,) = entries(engine, cluster)
    found: dict[int, list[str]] = {}
    for endpoint in entry.spec.endpoints:
        has = [endpoint.labels.get(mark.partition("=")[0]) == "true" for mark in setting.failover_priority]
        place = len(has) - has.index(False) if False in has else 0
        found.setdefault(place, []).append(endpoint.locality)
    return [found[place] for place in sorted(found)]


def test_several_regions_follow_one_in_their_order() -> None:
    """Istio takes one region that follows another; for those behind it endpoints are marked."""
    engine = far_apart(("eu", "us", "asia"), ("us", "eu"))

    assert order_on(engine, "eu") == [["eu"], ["us"], ["asia"], ["africa"]]
    assert order_on(engine, "us") == [["africa", "asia", "eu", "us"]]
    assert not status(engine).warnings


def test_a_region_that_is_not_known_is_said_where_it_counts() -> None:
    engine = far_apart(("eu", "us", "asia"))
    engine.set(mesh("eu"))
    engine.run()

    (warning,) = status(engine).warnings
    assert warning.startswith("spec.localized.failoverDirectives: the region of cluster eu is not known")
    assert len(order_on(engine, "eu")) == 1


def test_names_that_need_dns_are_said_where_proxies_do_not_answer() -> None:
    engine = engine_of([*federated_pair(), mesh("cluster2", dns=False), virtual("reviews.corp")])
    engine.run()

    assert status(engine).warnings == (
        "mesh istiod-istio-system-cluster2.gloo-mesh. does not have smart DNS proxying enabled: reviews.corp needs "
        "other DNS there",
    )


@pytest.mark.parametrize("lacking", ["name", "namespace", "cluster_name"])
def test_a_reference_that_lacks_a_field_is_refused(lacking: str) -> None:
    """Nothing would be selected by it, ever."""
    fields = {"name": "reviews", "namespace": "default", "cluster_name": "cluster1", lacking: ""}
    refs = KubeServiceRefs((ClusterObjectRef(**fields),))
    engine = engine_of([*federated_pair(), virtual(selectors=(DestinationSelector(kube_service_refs=refs),))])
    engine.run()

    assert status(engine).state is ApprovalState.INVALID
    assert status(engine).errors == (
        "spec.localized.destinationSelectors[0].kubeServiceRefs.services[0]: Invalid Destination selector: "
        "malformed kubeServiceRef: needs name, namespace and clusterName",
    )


def test_its_status_follows_the_policies_that_name_its_subsets() -> None:
    """What changes in a shift between subsets is in the status, and the status is said to have changed."""
    pods = [service(cluster, "reviews", pods={"v1": 1, "v2": 1}) for cluster in ("cluster1", "cluster2")]
    engine = engine_of([*federated_pair(), workload("cluster1", "productpage"), *pods, virtual(), shift(50)])
    engine.run()

    engine.set(shift(90, generation=2))
    changed = engine.run().statuses

    assert StatusKey(VirtualDestination.KIND, "gloo-mesh", "reviews") in changed
    [required] = status(engine).required_subsets
    assert required.observed_generation == 2
    assert required.traffic_shift is not None
    assert [each.weight for each in required.traffic_shift.destinations] == [90, 10]


def test_another_cluster_of_a_flat_network_holds_the_pods_of_a_large_service() -> None:
    """Its name is known on its own cluster alone."""
    found: list[Resource] = [virtual_mesh("cluster1", "cluster2", federation=Federation(flat_network=True))]
    found += [mesh("cluster1"), mesh("cluster2"), virtual()]
    engine = engine_of([*found, service("cluster1", "reviews", annotations={OVER_CAPACITY: "truncated"})])
    engine.run()

    [at_home], [abroad] = entries(engine, "cluster1"), entries(engine, "cluster2")

    assert [each.address for each in at_home.spec.endpoints] == ["reviews.default.svc.cluster.local"]
    assert [each.address for each in abroad.spec.endpoints] == ["10.0.0.1"]
    assert abroad.spec.resolution == "STATIC"


def test_a_name_that_passed_to_a_service_keeps_its_address() -> None:
    """When a virtual destination loses its host name to a federated service, the service's address stays taken."""
    name, one, other = "reviews.global", Ref("", "gloo-mesh", "reviews"), Ref("cluster1", "default", "reviews")
    book = AddressBook()
    book.update({name: one}, virtual=True)
    taken = book.update({name: other})

    assert book.update({name: None}, virtual=True) == {name: None}

    assert book.update({name: None}) == {name: None}
    assert book.update({name: other}) == taken


def test_a_long_name_makes_an_alias_that_dns_allows() -> None:
    """Two objects with names that differ after the longest label have aliases that differ."""
    names = ("x" * 64 + "a", "x" * 64 + "b")
    engine = engine_of(federated_pair())
    for name in names:
        engine.set(virtual(f"{name[-1]}.global", name=name))
    engine.run()

    hosts = {
        host
        for output in engine.outputs().values()
        if isinstance(output.object, ServiceEntry)
        for host in output.object.spec.hosts
    }
    aliases = {host for host in hosts if ".backing." in host}
    assert len(aliases) == 2
    assert all(len(label) <= 63 for host in hosts for label in host.split("."))
