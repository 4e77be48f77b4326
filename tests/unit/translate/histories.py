"""Strategies for fleets and what happens to them: objects come, change and go in any order, and policies meet.

The universe is small on purpose, so that things collide, name what is not there, and heal.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from hypothesis import strategies as st

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.base import Resource
from isthmus.api.common import (
    ClusterObjectRef,
    CommonCertOptions,
    DestinationSelector,
    HeaderManipulation,
    HeaderMatcher,
    HttpMatcher,
    IdentitySelector,
    IngressGatewaySelector,
    IstioMtls,
    KubeDestination,
    KubeIdentityMatcher,
    KubeServiceAccountRefs,
    KubeServiceMatcher,
    KubeServiceRefs,
    KubeWorkloadMatcher,
    MtlsPolicy,
    ObjectRef,
    OutlierDetection,
    QueryParameterMatcher,
    RequestIdentityMatcher,
    StringMatch,
    TlsMode,
    TrafficShift,
    VirtualDestinationReference,
    WeightedDestination,
    WorkloadSelector,
)
from isthmus.api.discovery import (
    Destination,
    DestinationSpec,
    ExternalEndpoint,
    ExternalService,
    ExternalServicePort,
    ServicePort,
)
from isthmus.api.issued_certificate import IssuedCertificateState, IssuedCertificateStatus, OutdatedPods
from isthmus.api.kubernetes_cluster import KubernetesCluster, KubernetesClusterSpec
from isthmus.api.service_dependency import ServiceDependency, ServiceDependencySpec
from isthmus.api.traffic_policy import (
    Abort,
    CorsPolicy,
    CsrfPolicy,
    FaultInjection,
    Mirror,
    Policy,
    RetryPolicy,
    TrafficPolicy,
    TrafficPolicySpec,
)
from isthmus.api.virtual_destination import (
    FailoverDirective,
    Locality,
    LocalizedFailover,
    MeshList,
    StaticDestination,
    StaticFailover,
    VirtualDestination,
    VirtualDestinationPort,
    VirtualDestinationSpec,
)
from isthmus.api.virtual_mesh import (
    Federation,
    FederationSelector,
    GlobalAccessPolicy,
    MtlsConfig,
    ProxyScope,
    RootCertificateAuthority,
    SharedTrust,
)
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate import RootFacts
from tests.strategies import messages
from tests.unit.translate.fleets import (
    HTTP,
    federated_pair,
    gateway,
    mesh,
    mesh_ref,
    meta,
    service,
    three_clusters,
    two_planes,
    virtual_mesh,
    workload,
)

CLUSTERS = ("cluster1", "cluster2", "cluster3")
ADMIN = ServicePort(port=9090, name="http-admin", protocol="TCP", target_port_number=9090)
DATABASE = ServicePort(port=3306, name="tcp", protocol="TCP", target_port_number=3306)
LOOKUP = ServicePort(port=53, name="dns", protocol="UDP", target_port_number=53)
AGES = (None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")

clusters = st.sampled_from(CLUSTERS)
planes = st.sampled_from(("istiod", "istiod", "istiod-canary"))
names = st.sampled_from(("reviews", "ratings", "a-b"))
namespaces = st.sampled_from(("default", "b-c"))
ports = st.sampled_from(((HTTP,), (HTTP,), (HTTP, ADMIN), (HTTP, DATABASE), (DATABASE,), (LOOKUP,), ()))


def some(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """A few of *strategy*, or none."""
    return st.lists(strategy, max_size=2).map(tuple)


# --- what there is ----------------------------------------------------------------------------------------------------

services = st.builds(
    service,
    clusters,
    names,
    namespace=namespaces,
    pods=st.sampled_from(({"v1": 1}, {"v1": 3, "v2": 1}, {})),
    labels=st.sampled_from(({}, {"app": "reviews"}, {"tier": "front"}, {"gate": "yes"})),
    selector=st.sampled_from((None, None, None, {}, {"istio": "ingressgateway"})),
    ports=ports,
    object_name=st.none() | st.just("impostor"),
    plane=planes,
)
meshes = st.builds(
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
)
registrations = st.builds(
    lambda name, domain: KubernetesCluster(metadata=meta(name), spec=KubernetesClusterSpec(cluster_domain=domain)),
    clusters,
    st.sampled_from(("", "corp.example")),
)
discovered: st.SearchStrategy[Resource] = st.one_of(
    meshes,
    st.builds(workload, clusters, names, plane=planes),
    st.builds(gateway, clusters, st.sampled_from((None, "203.0.113.1", "2001:db8::1")), plane=planes),
    services,
    services,
    registrations,
)

# --- selectors --------------------------------------------------------------------------------------------------------


def service_ref(name: str, cluster: str, namespace: str = "default") -> ClusterObjectRef:
    """A service, which may not be there."""
    return ClusterObjectRef(name=name, namespace=namespace, cluster_name=cluster)


def matching(**fields: Any) -> DestinationSelector:
    """Services by what they are."""
    return DestinationSelector(kube_service_matcher=KubeServiceMatcher(**fields))


def naming(*services: ClusterObjectRef) -> DestinationSelector:
    """Services by reference."""
    return DestinationSelector(kube_service_refs=KubeServiceRefs(services=services))


def sending(**fields: Any) -> WorkloadSelector:
    """Workloads by what they are."""
    return WorkloadSelector(kube_workload_matcher=KubeWorkloadMatcher(**fields))


def calling(name: str, namespace: str, cluster: str) -> IdentitySelector:
    """A service account."""
    account = ClusterObjectRef(name=name, namespace=namespace, cluster_name=cluster)
    return IdentitySelector(kube_service_account_refs=KubeServiceAccountRefs(service_accounts=(account,)))


REVIEWS = matching(labels={"app": "reviews"}, namespaces=("default",))
destination_selectors = st.sampled_from(
    (
        (REVIEWS,),
        (naming(service_ref("reviews", "cluster1")),),
        (),
        (matching(labels={"app": "ratings"}),),
        (matching(clusters=("cluster1",)), naming(service_ref("ratings", "cluster2"))),
        (matching(namespaces=("default",)),),
        (matching(labels={"tier": "front"}),),
        (naming(service_ref("a-b", "cluster3", "b-c")),),
        (DestinationSelector(),),
    )
)
senders = st.sampled_from(
    (
        (),
        (),
        (sending(labels={"app": "productpage"}),),
        (sending(labels={"app": "productpage", "version": "v1"}, namespaces=("default", "b-c")),),
        (sending(clusters=("cluster1",)), sending(namespaces=("b-c",))),
        (sending(clusters=("cluster2", "cluster3")),),
        (WorkloadSelector(), sending(labels={"app": "productpage"})),
    )
)
callers = st.sampled_from(
    (
        (calling("productpage", "default", "cluster1"),),
        (),
        (calling("", "default", "cluster2"), calling("productpage", "", "nowhere")),
        (calling("productpage", "default", ""),),
        (IdentitySelector(kube_identity_matcher=KubeIdentityMatcher(namespaces=("default",))),),
        (IdentitySelector(kube_identity_matcher=KubeIdentityMatcher(clusters=("cluster3", "nowhere"))),),
        (IdentitySelector(kube_identity_matcher=KubeIdentityMatcher()),),
        (IdentitySelector(request_identity_matcher=RequestIdentityMatcher(request_principals=("iss/sub",))),),
    )
)

# --- policies ---------------------------------------------------------------------------------------------------------

# Most are chosen from lists that are written out: a drawn value costs little then, so that a history can be long.

_places = [
    KubeDestination(name, "default", cluster, subset, port)
    for subset in ({"version": "v2"}, {}, {"app": "reviews", "version": "v9"})
    for name in ("reviews", "ratings")
    for cluster in CLUSTERS
    for port in (0, 9080)
]
places = st.sampled_from(
    (
        *_places,
        KubeDestination("reviews", "default", "cluster1", {}, 3306),
        *(
            VirtualDestinationReference(name, "gloo-mesh", subset)
            for name in ("one", "two")
            for subset in ({}, {"version": "v2"})
        ),
        *(ObjectRef(name=name, namespace="gloo-mesh") for name in ("one", "one", "two", "three", "")),
    )
)
shares = st.sampled_from(((100,), (0,), (75, 25), (75, 15, 10), (0, 100), (50, 50), (75, 20)))


@st.composite
def shifts(draw: st.DrawFn) -> TrafficShift:
    """Traffic shifts to services of any cluster, to virtual destinations, and to hosts outside any mesh."""
    found = []
    for weight in draw(shares):
        place = draw(places)
        if isinstance(place, KubeDestination):
            found.append(WeightedDestination(weight=weight, kube_service=place))
        elif isinstance(place, ObjectRef):
            found.append(WeightedDestination(weight=weight, static_destination=place))
        else:
            found.append(WeightedDestination(weight=weight, virtual_destination=place))
    return TrafficShift(destinations=tuple(found))


effects = st.builds(dict[str, Any], traffic_shift=shifts()) | st.sampled_from(
    (
        {},
        {"request_timeout": "2s"},
        {"request_timeout": "0.100s"},
        {"request_timeout": "0.000001s"},
        {"retries": RetryPolicy(3, "2s")},
        {"retries": RetryPolicy(0)},
        {"fault_injection": FaultInjection(fixed_delay="2s", percentage=12.5)},
        {"fault_injection": FaultInjection(abort=Abort(503))},
        {"mirror": Mirror(service_ref("ratings", "cluster2"), 50.0)},
        {"mirror": Mirror(service_ref("reviews", "cluster3"), None, 9080)},
        {"cors_policy": CorsPolicy(allow_origins=(StringMatch(suffix="example.com", ignore_case=True),))},
        {"header_manipulation": HeaderManipulation(append_request_headers={"x-who": "%HOSTNAME%"})},
        {"csrf": CsrfPolicy(filter_enabled=True, additional_origins=(StringMatch(suffix="example.com"),))},
        {"csrf": CsrfPolicy()},
        {"outlier_detection": OutlierDetection()},
        {"outlier_detection": OutlierDetection(3, "2s", "0.100s", 50)},
        {"mtls": MtlsPolicy(IstioMtls(TlsMode.ISTIO_MUTUAL))},
        {"mtls": MtlsPolicy(IstioMtls(TlsMode.DISABLE))},
    )
)
requests = st.sampled_from(
    (
        (),
        (),
        (HttpMatcher(uri=StringMatch(prefix="/api")),),
        (HttpMatcher(uri=StringMatch(prefix="/API", ignore_case=True)), HttpMatcher(method="GET")),
        (HttpMatcher(uri=StringMatch(exact="/api/v1")), HttpMatcher(uri=StringMatch(suffix="/v1"))),
        (HttpMatcher(uri=StringMatch(regex="/api/.*"), headers=(HeaderMatcher("end-user", "jason"),)),),
        (HttpMatcher(headers=(HeaderMatcher("End-User", "j.*", regex=True, invert_match=True),)),),
        (HttpMatcher(query_parameters=(QueryParameterMatcher("user"),)), HttpMatcher()),
        (HttpMatcher(uri=StringMatch(regex="(")),),
    )
)
traffic_policies = st.builds(
    lambda name, age, sent, selected, matched, one, another: TrafficPolicy(
        metadata=meta(name, creation_timestamp=age),
        spec=TrafficPolicySpec(
            source_selector=sent,
            destination_selector=selected,
            http_request_matchers=matched,
            policy=Policy(**{**one, **another}),
        ),
    ),
    st.sampled_from(("p0", "p1", "p2", "p3")),
    st.sampled_from(AGES),
    senders,
    destination_selectors,
    requests,
    effects,
    effects,
)
virtual_ports = st.sampled_from(
    (
        {"port": VirtualDestinationPort(9080, "HTTP")},
        {"port": VirtualDestinationPort(80, "HTTP", target_name="http")},
        {"ports": (VirtualDestinationPort(9080, "TCP"), VirtualDestinationPort(80, "HTTP", target_number=9080))},
        {"port": VirtualDestinationPort(9090, "HTTP")},
        {"port": VirtualDestinationPort(0)},
    )
)
virtual_destinations = st.builds(
    lambda name, age, hostname, ports, seen, behind: VirtualDestination(
        metadata=meta(name, creation_timestamp=age),
        spec=VirtualDestinationSpec(hostname=hostname, **ports, **seen, **behind),
    ),
    st.sampled_from(("one", "two")),
    st.sampled_from(AGES),
    st.sampled_from(
        ("reviews.global", "ratings.global", "reviews.default.svc.cluster2.global", "ratings.default.svc.cluster.local")
    ),
    virtual_ports,
    st.sampled_from(
        (
            {"virtual_mesh": ObjectRef(name="virtual-mesh", namespace="gloo-mesh")},
            {"mesh_list": MeshList((mesh_ref("cluster1"),))},
            {"mesh_list": MeshList((mesh_ref("cluster2"), mesh_ref("cluster3")))},
        )
    ),
    st.sampled_from(
        (
            {"localized": LocalizedFailover((REVIEWS,))},
            {"localized": LocalizedFailover((matching(labels={"app": "ratings"}, namespaces=("default",)),))},
            {
                "localized": LocalizedFailover(
                    (naming(service_ref("reviews", "cluster2")),),
                    (FailoverDirective(Locality("east"), (Locality("west"),)),),
                    OutlierDetection(2, "2s"),
                )
            },
            {"localized": LocalizedFailover((matching(labels={"tier": "front"}),))},
            {
                "static": StaticFailover(
                    tuple(StaticDestination(service_ref("reviews", cluster)) for cluster in ("cluster2", "cluster1"))
                )
            },
            {
                "static": StaticFailover(
                    (
                        StaticDestination(service_ref("ratings", "cluster3"), 1),
                        StaticDestination(service_ref("reviews", "cluster1"), 9),
                    )
                )
            },
        )
    ),
)
external_services = st.builds(
    lambda name, age, called, hosts, where, placed: Destination(
        metadata=meta(name, creation_timestamp=age),
        spec=DestinationSpec(external_service=ExternalService(name=called, hosts=hosts, **where), mesh=placed),
    ),
    st.sampled_from(("one", "one", "two", "three", "reviews-default-cluster1")),
    st.sampled_from(AGES),
    st.sampled_from(
        ("", "", "legacy", "one-gloo-mesh", "reviews.default.svc.cluster2.global", "two.gloo-mesh.external")
    ),
    st.sampled_from(
        (
            ("legacy.corp.example",),
            ("legacy.corp.example",),
            ("Old.corp.example", "legacy.corp.example"),
            ("*.corp.example",),
            ("reviews.global",),
            ("reviews.default.svc.cluster2.global",),
            ("reviews.default.svc.cluster.local", "x"),
        )
    ),
    st.sampled_from(
        (
            {"ports": (ExternalServicePort(80, "http", "HTTP"),)},
            {"ports": (ExternalServicePort(9080, "", "HTTP2"), ExternalServicePort(9090, "b", "HTTP"))},
            {"ports": (ExternalServicePort(443, "", "TLS"),), "addresses": ("10.0.0.7",)},
            {
                "ports": (ExternalServicePort(80, "http", "HTTP"),),
                "endpoints": (ExternalEndpoint("192.0.2.7", {"http": 8080}),),
            },
            {"ports": (ExternalServicePort(0),)},
            {},
        )
    ),
    st.none() | clusters.map(mesh_ref),
)
access_policies = st.builds(
    lambda name, age, called, selected, fields: AccessPolicy(
        metadata=meta(name, creation_timestamp=age),
        spec=AccessPolicySpec(source_selector=called, destination_selector=selected, **fields),
    ),
    st.sampled_from(("a0", "a1", "a2")),
    st.sampled_from(AGES),
    callers,
    destination_selectors,
    st.sampled_from(
        (
            {},
            {"allowed_methods": ("GET",), "allowed_paths": ("/api/*", "*/v1")},
            {"allowed_ports": (9080, 9090)},
            {"allowed_methods": ("get",)},
            {"allowed_paths": ("/a*b",)},
        )
    ),
)
service_dependencies = st.builds(
    lambda name, sent, selected: ServiceDependency(
        metadata=meta(name), spec=ServiceDependencySpec(source_selectors=sent, destination_selectors=selected)
    ),
    st.sampled_from(("d0", "d1")),
    senders | st.sampled_from(((sending(labels={"app": "reviews"}),), (sending(namespaces=("default",)),))),
    destination_selectors,
)
odd_policies: st.SearchStrategy[Resource] = st.one_of(
    st.builds(lambda spec: TrafficPolicy(metadata=meta("odd"), spec=spec), messages(TrafficPolicySpec)),
    st.builds(lambda spec: VirtualDestination(metadata=meta("odd"), spec=spec), messages(VirtualDestinationSpec)),
    st.builds(lambda spec: AccessPolicy(metadata=meta("odd"), spec=spec), messages(AccessPolicySpec)),
    st.builds(
        lambda service: Destination(metadata=meta("odd"), spec=DestinationSpec(external_service=service)),
        messages(ExternalService),
    ),
)
"""Whatever the API server lets through."""
policies: st.SearchStrategy[Resource] = st.one_of(
    traffic_policies,
    traffic_policies,
    traffic_policies,
    virtual_destinations,
    virtual_destinations,
    external_services,
    external_services,
    access_policies,
    service_dependencies,
    odd_policies,
)

# --- virtual meshes ---------------------------------------------------------------------------------------------------

MARKED_GATEWAY = IngressGatewaySelector(destination_selectors=(matching(labels={"gate": "yes"}),))
federations = st.none() | st.builds(
    Federation,
    selectors=some(
        st.builds(
            FederationSelector,
            destination_selectors=destination_selectors,
            meshes=st.lists(clusters, max_size=2, unique=True).map(lambda found: tuple(map(mesh_ref, found))),
        )
    ),
    flat_network=st.booleans(),
    hostname_suffix=st.sampled_from(("", "soloio")),
    ingress_gateway_selectors=st.sampled_from(((), (MARKED_GATEWAY,))),
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
virtual_meshes = st.builds(
    virtual_mesh,
    clusters,
    st.builds(mesh_ref, clusters, planes),
    name=st.sampled_from(("virtual-mesh", "rival")),
    federation=federations,
    mtls=trusts,
    access=st.sampled_from(GlobalAccessPolicy),
    scope=st.sampled_from(ProxyScope),
    created=st.sampled_from(AGES),
)
stances = st.builds(
    virtual_mesh,
    *map(st.just, CLUSTERS),
    federation=st.sampled_from(
        (
            Federation(),
            Federation(),
            Federation(flat_network=True),
            Federation(selectors=(FederationSelector(destination_selectors=(REVIEWS,)),)),
        )
    ),
    access=st.sampled_from(GlobalAccessPolicy),
    scope=st.sampled_from(ProxyScope),
)
"""What one virtual mesh of all clusters may be changed to."""


class Given(NamedTuple):
    """What the server tells the engine of a root, which is no object."""

    virtual_mesh: Ref
    root: RootFacts | None
    problem: Problem | None


roots = st.builds(
    Given,
    st.sampled_from(("virtual-mesh", "rival")).map(lambda name: Ref("", "gloo-mesh", name)),
    st.none() | st.builds(RootFacts, st.just(Ref("", "gloo-mesh", "root")), st.sampled_from(("one", "two"))),
    st.sampled_from((None, Problem("spec.mtlsConfig", "NotFound", "gone"))),
)

# --- what happens -----------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """An object that is put in place or taken away, and whether the engine runs before the next one."""

    found: Resource | Given
    remove: bool
    run: bool


resources: st.SearchStrategy[Resource] = discovered | policies | policies | virtual_meshes
steps = st.builds(Step, resources | resources | roots, st.sampled_from((False, False, False, True)), st.booleans())
policy_steps = st.builds(
    Step,
    st.one_of(*[policies] * 8, services, stances),
    st.sampled_from((False,) * 7 + (True,)),
    st.booleans(),
)
histories = st.lists(steps, min_size=1, max_size=40) | st.lists(policy_steps, min_size=16, max_size=30)
"""What happens to a fleet; in half of them, almost only to its policies."""


starts = st.one_of(
    st.builds(federated_pair),
    st.builds(two_planes, root=st.sampled_from(("istio-system", "other"))),
    st.builds(three_clusters),
    st.builds(three_clusters),
)
