"""Gateways: what is written holds together however it came, and the small rules by themselves."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import Resource
from isthmus.api.common import (
    ClusterObjectRef,
    DestinationOptions,
    DestinationSelector,
    HeaderManipulation,
    HttpMatcher,
    IngressGatewaySelector,
    KubeDestination,
    KubeServiceMatcher,
    KubeServiceRefs,
    ObjectRef,
    ObjectSelector,
    SelectorExpression,
    SelectorOperator,
    StringMatch,
    TrafficShift,
    VirtualDestinationReference,
    WeightedDestination,
)
from isthmus.api.discovery import Destination, ExternalAddress, ServicePort, ServiceType
from isthmus.api.parse import parse
from isthmus.api.rate_limit import (
    GenericKeyAction,
    RateLimitAction,
    RateLimitActions,
    RateLimitClientConfig,
    RateLimitClientConfigSpec,
    RateLimits,
    RawRateLimits,
    RouteRateLimit,
)
from isthmus.api.route_table import RouteTable, RouteTableSpec
from isthmus.api.traffic_policy import Mirror, Policy, RetryPolicy, RouteSelector, TrafficPolicy, TrafficPolicySpec
from isthmus.api.virtual_gateway import (
    ConnectionHandler,
    ConnectionMatch,
    ConnectionOptions,
    GatewayOptions,
    GatewayRateLimit,
    HttpHandler,
    RouteConfig,
    RouteOptions,
    ServerTlsMode,
    SslConfig,
    SslParameters,
    TcpAction,
    TcpHandler,
    TcpHost,
    TcpOptions,
    TcpProxySettings,
    TlsVersion,
    VirtualGateway,
    VirtualGatewaySpec,
)
from isthmus.api.virtual_host import (
    DelegateAction,
    DirectResponseAction,
    RedirectAction,
    Route,
    RouteAction,
    SortMethod,
    VirtualHost,
    VirtualHostOptions,
    VirtualHostSpec,
)
from isthmus.istio.objects import DestinationRule, Gateway, HttpRoute, ServiceEntry, VirtualService
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.gateways.delegation import appended, cycle_from
from isthmus.translate.gateways.listeners import listener_problems
from isthmus.translate.gateways.objects import apart, common_names, covers, object_name
from isthmus.translate.gateways.routes import route_problems
from isthmus.translate.gateways.routing import proportions
from isthmus.translate.gateways.selection import selects_object
from isthmus.translate.listing import MAX_LIST_BYTES
from isthmus.translate.traffic.conditions import Kind
from isthmus.translate.traffic.conditions import Path as Uri
from tests.strategies import messages
from tests.unit.translate.fleets import meta, service, three_clusters
from tests.unit.translate.histories import AGES, CLUSTERS, Step, discovered, external_services, some
from tests.unit.translate.test_properties import Followed, said, written

clusters = st.sampled_from(CLUSTERS)
names = st.sampled_from(("a", "b", "c"))
labels = st.sampled_from(({}, {"app": "shop"}, {"kind": "slow"}))
ages = st.sampled_from(AGES)


LOCAL = (".svc.cluster.local", ".svc.corp.example")  # as `histories` names clusters
GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "gateways.md"


def entrance(cluster: str) -> Destination:
    """The ingress gateway of *cluster* with ports for requests too."""
    ports = (
        ServicePort(port=80, name="http2", protocol="TCP"),
        ServicePort(port=443, name="https", protocol="TCP"),
        ServicePort(port=15443, name="tls", protocol="TCP"),
    )
    return service(
        cluster,
        "istio-ingressgateway",
        namespace="istio-system",
        labels={"istio": "ingressgateway"},
        selector={"istio": "ingressgateway"},
        ports=ports,
        type=ServiceType.LOAD_BALANCER,
        addresses=(ExternalAddress(ip="203.0.113.1"),),
    )


destinations = (
    st.builds(
        WeightedDestination,
        weight=st.sampled_from((0, 1, 3, 50)),
        kube_service=st.builds(
            KubeDestination,
            name=st.sampled_from(("reviews", "ratings", "nobody")),
            namespace=st.just("default"),
            cluster_name=clusters,
            subset=st.sampled_from(({}, {}, {"version": "v1"})),
        ),
    )
    | st.builds(
        WeightedDestination,
        virtual_destination=st.just(VirtualDestinationReference(name="v0", namespace="gloo-mesh")),
    )
    | st.builds(
        WeightedDestination,
        weight=st.sampled_from((0, 1, 3)),
        static_destination=st.builds(ObjectRef, name=st.sampled_from(("one", "two")), namespace=st.just("gloo-mesh")),
        options=st.sampled_from(
            (
                None,
                DestinationOptions(
                    header_manipulation=HeaderManipulation(append_request_headers={"Host": "x.example"})
                ),
            )
        ),
    )
)
selectors = st.builds(ObjectSelector, labels=labels, namespaces=st.sampled_from(((), ("*",), ("gloo-mesh", "other"))))
refs = st.builds(ObjectRef, name=names, namespace=st.just("gloo-mesh"))
actions = st.one_of(
    st.builds(
        lambda chosen, rewrite: {"route_action": RouteAction(destinations=chosen, path_rewrite=rewrite)},
        st.lists(destinations, min_size=1, max_size=3).map(tuple),
        st.sampled_from(("", "", "/x")),
    ),
    st.just({"redirect_action": RedirectAction(https_redirect=True)}),
    st.just({"direct_response_action": DirectResponseAction(status=200)}),
    st.builds(
        lambda found, selector, method: {
            "delegate_action": DelegateAction(refs=found, selector=selector, sort_method=method)
        },
        some(refs),
        st.none() | selectors,
        st.sampled_from(SortMethod),
    ),
    st.just({}),
)
uris = st.sampled_from(
    (
        None,
        StringMatch(prefix="/a"),
        StringMatch(prefix="/a/b", ignore_case=True),
        StringMatch(exact="/x"),
        StringMatch(regex="/[0-9]+"),
    )
)


def limited(config: str) -> Policy:
    """Says that rate limits are those of *config*."""
    return Policy(rate_limit=RouteRateLimit(ratelimit_client_config_ref=ObjectRef(name=config, namespace="gloo-mesh")))


options = st.sampled_from(
    (
        None,
        limited("c0"),
        limited("c1"),
        Policy(request_timeout="1s"),
        Policy(retries=RetryPolicy(attempts=2)),
        Policy(request_timeout="2s", traffic_shift=TrafficShift()),
        Policy(
            mirror=Mirror(kube_service=ClusterObjectRef(name="ratings", namespace="default", cluster_name="cluster2"))
        ),
    )
)
routes = st.builds(
    lambda uri, method, action, said, tags: Route(
        matchers=(HttpMatcher(uri=uri, method=method),) if uri or method else (), options=said, labels=tags, **action
    ),
    uris,
    st.sampled_from(("", "", "GET", "POST")),
    actions,
    options,
    labels,
)
domains = st.lists(
    st.sampled_from(("a.example.com", "A.example.com", "*.example.com", "*", "b.example.com", "example.*")), max_size=3
).map(tuple)
host_specs = st.builds(
    VirtualHostSpec,
    domains=domains,
    routes=st.lists(routes, max_size=3).map(tuple),
    options=st.none() | st.builds(VirtualHostOptions, traffic_policy=options),
)
handlers = st.one_of(
    st.builds(
        lambda found, tls, around: ConnectionHandler(
            http=HttpHandler(route_config=found, route_options=around), connection_options=tls
        ),
        st.lists(
            st.builds(RouteConfig, virtual_host_selector=selectors) | st.builds(RouteConfig, virtual_host=host_specs),
            min_size=1,
            max_size=2,
        ).map(tuple),
        st.sampled_from(
            (
                None,
                None,
                ConnectionOptions(https_redirect=True),
                ConnectionOptions(enable_proxy_protocol=True),
                ConnectionOptions(ssl_config=SslConfig(secret_name="tls", tls_mode=ServerTlsMode.SIMPLE)),
            )
        ),
        st.sampled_from((None, RouteOptions(rate_limit=GatewayRateLimit()))),
    ),
    st.builds(
        lambda cluster, names, said: ConnectionHandler(
            connection_match=ConnectionMatch(server_names=names),
            connection_options=ConnectionOptions(ssl_config=SslConfig()) if names else None,
            tcp=TcpHandler(
                options=said,
                tcp_hosts=(
                    TcpHost(
                        destination=TcpAction(
                            kube=ClusterObjectRef(name="reviews", namespace="default", cluster_name=cluster)
                        )
                    ),
                ),
            ),
        ),
        clusters,
        st.sampled_from(((), ("a.example.com",))),
        st.sampled_from((None, TcpOptions(TcpProxySettings(max_connect_attempts=2)))),
    ),
)
chosen = st.builds(
    IngressGatewaySelector,
    port_name=st.sampled_from(("http2", "http2", "https", "")),
    destination_selectors=st.sampled_from(
        (
            (),
            (DestinationSelector(kube_service_matcher=KubeServiceMatcher(clusters=("cluster1",))),),
            (
                DestinationSelector(
                    kube_service_refs=KubeServiceRefs(
                        services=(
                            ClusterObjectRef(
                                name="istio-ingressgateway", namespace="istio-system", cluster_name="cluster2"
                            ),
                        )
                    )
                ),
            ),
        )
    ),
)
virtual_gateways = st.builds(
    lambda name, age, found, handler, said: VirtualGateway(
        metadata=meta(name, creation_timestamp=age),
        spec=VirtualGatewaySpec(ingress_gateway_selectors=found, connection_handlers=(handler,), options=said),
    ),
    names,
    ages,
    st.lists(chosen, min_size=1, max_size=2).map(tuple),
    handlers,
    st.sampled_from((None, None, GatewayOptions(per_connection_buffer_limit_bytes=1024))),
)
virtual_hosts = st.builds(
    lambda name, age, tags, spec: VirtualHost(metadata=meta(name, creation_timestamp=age, labels=tags), spec=spec),
    names,
    ages,
    labels,
    host_specs,
)
route_tables = st.builds(
    lambda name, age, tags, found, weight: RouteTable(
        metadata=meta(name, creation_timestamp=age, labels=tags), spec=RouteTableSpec(routes=found, weight=weight)
    ),
    names,
    ages,
    labels,
    st.lists(routes, max_size=2).map(tuple),
    st.sampled_from((0, 0, 5)),
)
route_policies = st.builds(
    lambda name, age, selector, says: TrafficPolicy(
        metadata=meta(name, creation_timestamp=age),
        spec=TrafficPolicySpec(route_selector=(selector,), policy=says),
    ),
    st.sampled_from(("p0", "p1", "p2")),
    ages,
    st.builds(
        RouteSelector,
        virtual_host_refs=some(refs),
        virtual_host_selector=st.none() | selectors,
        route_table_refs=some(refs),
        route_label_matcher=labels,
    ),
    options,
)
rate_limits = st.builds(
    lambda name, value: RateLimitClientConfig(
        metadata=meta(name),
        spec=RateLimitClientConfigSpec(
            RateLimits(RawRateLimits((RateLimitActions((RateLimitAction(generic_key=GenericKeyAction(value)),)),)))
        ),
    ),
    st.sampled_from(("c0", "c1")),
    st.sampled_from(("all", "some", "")),
)
odd = st.one_of(
    st.builds(lambda spec: VirtualGateway(metadata=meta("a"), spec=spec), messages(VirtualGatewaySpec)),
    st.builds(lambda spec: VirtualHost(metadata=meta("a"), spec=spec), messages(VirtualHostSpec)),
    st.builds(lambda spec: RouteTable(metadata=meta("a"), spec=spec), messages(RouteTableSpec)),
)
"""Whatever the API server lets through."""
ours: st.SearchStrategy[Resource] = st.one_of(
    virtual_gateways,
    virtual_hosts,
    virtual_hosts,
    route_tables,
    route_tables,
    route_policies,
    rate_limits,
    external_services,
    external_services,
    odd,
)
steps = st.builds(Step, ours | ours | ours | discovered, st.sampled_from((False, False, False, True)), st.booleans())
histories = st.lists(steps, min_size=4, max_size=24)


def start() -> list[Resource]:
    """Three federated clusters with an ingress gateway and a rate limiter each, and a virtual gateway."""
    port = ServicePort(port=18081, name="grpc", protocol="TCP")
    limiters = (service(cluster, "rate-limiter", ports=(port,)) for cluster in CLUSTERS)
    found = [*three_clusters(), *map(entrance, CLUSTERS), *limiters]
    selector = ObjectSelector()
    found.append(
        VirtualGateway(
            metadata=meta("a", creation_timestamp=AGES[0]),
            spec=VirtualGatewaySpec(
                ingress_gateway_selectors=(IngressGatewaySelector(port_name="http2"),),
                connection_handlers=(
                    ConnectionHandler(
                        http=HttpHandler(
                            route_config=(RouteConfig(virtual_host_selector=selector),),
                            route_options=RouteOptions(rate_limit=GatewayRateLimit()),
                        )
                    ),
                ),
            ),
        )
    )
    return found


@given(histories)
@settings(max_examples=60, deadline=None)
def test_gateways_end_as_a_start_from_scratch_does(history: list[Step]) -> None:
    """Whatever changes, and in whatever order, ends as the last state alone would, byte by byte."""
    followed = Followed(start())

    followed.follow(history)

    fresh = followed.from_scratch()
    assert written(followed.engine) == written(fresh)
    assert said(followed.engine) == said(fresh)
    assert followed.outputs == written(fresh)
    assert followed.statuses == said(fresh)


@given(histories)
@settings(max_examples=60, deadline=None)
def test_what_gateways_get_holds_together(history: list[Step]) -> None:
    """Whatever users write, no gateway gets an object that points nowhere, or that Istio would refuse or ignore."""
    followed = Followed(start())

    followed.follow(history)

    assert list(_faults(followed.engine)) == []


def _faults(engine: Engine) -> Iterator[str]:
    gateways: dict[tuple[str, str], Gateway] = {}
    hosts: dict[tuple[str, str], set[str]] = {}
    taken: dict[tuple[str, str, int, str], str] = {}
    outputs = engine.outputs()
    for key, output in outputs.items():
        match output.object:
            case Gateway() as found:
                gateways[key.cluster, f"{found.metadata.namespace}/{found.metadata.name}"] = found
            case ServiceEntry() as entry:
                for host in entry.spec.hosts:
                    hosts.setdefault((key.cluster, host), set())
            case DestinationRule() as rule:
                subsets = hosts.setdefault((key.cluster, rule.spec.host), set())
                subsets.update(subset.name for subset in rule.spec.subsets)
    for key, output in outputs.items():
        if not isinstance(output.object, VirtualService) or not output.object.spec.gateways:
            continue
        found, (name,) = output.object, output.object.spec.gateways
        gateway = gateways.get((key.cluster, name))
        if gateway is None:
            yield f"{key} is bound to {name}, which is not there"
            continue
        (server,) = gateway.spec.servers
        for domain in found.spec.hosts:
            if domain not in server.hosts:
                yield f"{key} serves {domain}, and {name} does not listen for it"
            place = (key.cluster, str(sorted(gateway.spec.selector.items())), server.port.number, domain)
            if taken.setdefault(place, str(key)) != str(key):
                yield f"{key} and {taken[place]} both serve {domain}"
        for one, other in itertools.permutations(found.spec.hosts, 2):
            if covers(one, other):
                yield f"{key} has hosts {one} and {other}, one of which covers the other"
        if not (found.spec.http or found.spec.tcp or found.spec.tls):
            yield f"{key} has no route"
        for route in found.spec.http:
            yield from (f"{key} route {route.name}: {fault}" for fault in _route_faults(route))
        weighted = [each for route in (*found.spec.http, *found.spec.tcp, *found.spec.tls) for each in route.route]
        for each in weighted:
            target, known = each.destination, hosts.get((key.cluster, each.destination.host))
            if known is None and not target.host.endswith(LOCAL):
                yield f"{key} goes to {target.host}, which {key.cluster} does not know"
            if target.subset and target.subset not in (known or ()):
                yield f"{key} goes to subset {target.subset} of {target.host}, which is nowhere said"


def _route_faults(route: HttpRoute) -> Iterator[str]:
    if sum((bool(route.route), route.redirect is not None, route.direct_response is not None)) != 1:
        yield "does not do exactly one thing"
    if not route.route and (route.fault or route.rewrite or route.mirror or route.retries or route.timeout):
        yield "sends nothing on, and has options of what is"
    if len(route.route) > 1 and not sum(each.weight for each in route.route):
        yield "has no weight"
    for match in route.match:
        if route.rewrite is not None and match.uri is not None and match.uri.regex is not None:
            yield "rewrites what a regular expression matched"


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parent", "child", "both"),
    [
        (Uri(), Uri(Kind.EXACT, "/v1"), Uri(Kind.EXACT, "/v1")),
        (Uri(Kind.PREFIX, "/reviews"), Uri(), Uri(Kind.PREFIX, "/reviews")),
        (Uri(Kind.PREFIX, "/reviews"), Uri(Kind.PREFIX, "/v1"), Uri(Kind.PREFIX, "/reviews/v1")),
        (Uri(Kind.PREFIX, "/reviews/"), Uri(Kind.EXACT, "/v1"), Uri(Kind.EXACT, "/reviews/v1")),
        (Uri(Kind.PREFIX, "/a.b"), Uri(Kind.REGEX, "/x|/y"), Uri(Kind.REGEX, r"/a\.b(?:/x|/y)")),
        (Uri(Kind.PREFIX, "/api"), Uri(Kind.REGEX, "^/v[0-9]+"), Uri(Kind.REGEX, "/api(?:/v[0-9]+)")),
        (Uri(Kind.PREFIX, "/a", True), Uri(Kind.PREFIX, "/b"), Uri(Kind.REGEX, "(?i:/a)/b.*")),
        (Uri(Kind.PREFIX, "/a"), Uri(Kind.EXACT, "/b", True), Uri(Kind.REGEX, "/a(?i:/b)")),
        (Uri(Kind.PREFIX, "/a", True), Uri(Kind.EXACT, "/b", True), Uri(Kind.EXACT, "/a/b", True)),
    ],
)
def test_what_a_table_matches_is_appended(parent: Uri, child: Uri, both: Uri) -> None:
    assert appended(parent, child) == both


@pytest.mark.parametrize(
    ("weights", "made"),
    [([3, 1], [75, 25]), ([1, 1, 1], [1, 1, 1]), ([40, 60], [40, 60]), ([0, 7], [0, 100]), ([2, 3, 0], [40, 60, 0])],
)
def test_weights_keep_their_proportions(weights: list[int], made: list[int]) -> None:
    assert proportions(weights) == made


@given(st.lists(st.sampled_from(("*", "*.com", "*.a.com", "a.com", "b.a.com", "org")), unique=True))
def test_groups_of_domains_lose_none_and_overlap_nowhere(found: list[str]) -> None:
    groups = apart(found)

    assert sorted(itertools.chain(*groups)) == sorted(found)
    assert not any(covers(a, b) for group in groups for a, b in itertools.permutations(group, 2))


@pytest.mark.parametrize(
    ("domains", "server_names", "common"),
    [
        (("a.com", "b.com"), (), ("a.com", "b.com")),
        (("*",), ("a.com",), ("a.com",)),
        (("*.com",), ("a.com", "*.org"), ("a.com",)),
        (("a.com",), ("*.com",), ("a.com",)),
        (("com",), ("*.com",), ()),
    ],
)
def test_hosts_are_those_that_clients_may_ask_for(
    domains: tuple[str, ...], server_names: tuple[str, ...], common: tuple[str, ...]
) -> None:
    assert common_names(domains, server_names) == common


@given(st.lists(st.text("ab-.", max_size=70), min_size=1, max_size=3), st.lists(st.text("ab-."), max_size=3))
def test_names_fit_and_never_collide(parts: list[str], others: list[str]) -> None:
    """Labels of at most 63 characters; of different parts, different ones."""
    name = object_name(*parts)

    assert len(name) <= 63
    assert "." not in name
    if others and others != parts:
        assert object_name(*others) != name


@pytest.mark.parametrize(
    ("operator", "values", "found"),
    [
        (SelectorOperator.EQUALS, ("5",), True),
        (SelectorOperator.NOT_EQUALS, ("5",), False),
        (SelectorOperator.IN, ("4", "5"), True),
        (SelectorOperator.NOT_IN, ("4",), True),
        (SelectorOperator.EXISTS, (), True),
        (SelectorOperator.DOES_NOT_EXIST, (), False),
        (SelectorOperator.GREATER_THAN, ("4",), True),
        (SelectorOperator.LESS_THAN, ("5",), False),
        (SelectorOperator.GREATER_THAN, ("5",), False),
        (SelectorOperator.GREATER_THAN, ("many",), False),
    ],
)
def test_operators_compare_labels(operator: SelectorOperator, values: tuple[str, ...], found: bool) -> None:
    selector = ObjectSelector(expressions=(SelectorExpression(key="size", operator=operator, values=values),))

    assert selects_object(selector, "here", Ref("", "here", "x"), {"size": "5"}) is found


@pytest.mark.parametrize(
    ("operator", "values", "found"),
    [
        (SelectorOperator.NOT_EQUALS, ("5",), True),
        (SelectorOperator.NOT_IN, ("4", "5"), True),
        (SelectorOperator.IN, ("5",), False),
        (SelectorOperator.DOES_NOT_EXIST, (), True),
        (SelectorOperator.LESS_THAN, ("5",), False),
    ],
)
def test_a_label_that_is_not_there_has_no_value(
    operator: SelectorOperator, values: tuple[str, ...], found: bool
) -> None:
    selector = ObjectSelector(expressions=(SelectorExpression(key="size", operator=operator, values=values),))

    assert selects_object(selector, "here", Ref("", "here", "x"), {"weight": "5"}) is found


def test_selectors_stay_in_their_namespace_unless_told_otherwise() -> None:
    there = Ref("", "there", "x")

    assert not selects_object(ObjectSelector(), "here", there, {})
    assert selects_object(ObjectSelector(namespaces=("*",)), "here", there, {})
    assert selects_object(ObjectSelector(namespaces=("there",)), "here", there, {})
    assert not selects_object(
        ObjectSelector(labels={"a": "b"}, expressions=(SelectorExpression(key="a"),)), "there", there, {"a": "b"}
    )


def test_the_shortest_way_back_is_found() -> None:
    edges = {"a": "bd", "b": "c", "c": "ab", "d": "e", "e": "", "f": "a"}

    def leads_to(ref: Ref) -> list[Ref]:
        return [Ref("", "", name) for name in edges[ref.name]]

    def way(name: str) -> str:
        return "".join(ref.name for ref in cycle_from(Ref("", "", name), leads_to))

    assert {name: way(name) for name in edges} == {"a": "abca", "b": "bcb", "c": "cbc", "d": "", "e": "", "f": ""}


def status_key(resource: Resource) -> StatusKey:
    return StatusKey(resource.KIND, resource.metadata.namespace, resource.metadata.name)


def to_table(number: int, **matcher: str) -> Route:
    uri = StringMatch(**matcher) if matcher else None
    ref = ObjectRef(name=f"t{number}", namespace="gloo-mesh")
    return Route(matchers=(HttpMatcher(uri=uri),) if uri else (), delegate_action=DelegateAction(refs=(ref,)))


@pytest.mark.parametrize(
    ("matchers", "count", "owner", "error"),
    [
        (({},), 600, "t31", "spec.routes[0].delegateAction: more than 32 tables on the way from shop"),
        (
            ({"prefix": "/a"}, {"prefix": "/b"}), 20, "shop",
            "spec.routes: routes of tables match in more than 10000 ways; some get 503",
        ),
    ],
)  # fmt: skip
def test_delegation_ends(matchers: tuple[dict[str, str], ...], count: int, owner: str, error: str) -> None:
    """However many tables lead to the next, what is left out gets 503 and is told of."""
    engine = Engine()
    tables = [
        RouteTable(
            metadata=meta(f"t{i}"), spec=RouteTableSpec(routes=tuple(to_table(i + 1, **each) for each in matchers))
        )
        for i in range(count)
    ]
    answer = Route(direct_response_action=DirectResponseAction(status=200))
    last = RouteTable(metadata=meta(f"t{count}"), spec=RouteTableSpec(routes=(answer,)))
    host = VirtualHost(
        metadata=meta("shop"), spec=VirtualHostSpec(domains=("shop.example.com",), routes=(to_table(0), answer))
    )
    for resource in (*start(), host, *tables, last):
        engine.set(resource)

    engine.run()

    written, *_ = [o.object for o in engine.outputs().values() if isinstance(o.object, VirtualService)]
    answers = [route.direct_response.status for route in written.spec.http if route.direct_response]
    told = {key.name: msgspec.to_builtins(engine.status(key)).get("errors", ()) for key in engine.status_keys()}
    assert answers[-2:] == [503, 200]
    assert len(answers) < 10_000
    assert {name: errors for name, errors in told.items() if errors} == {owner: (error,)}


def test_what_istio_would_refuse_of_a_share_is_said() -> None:
    """Or else the whole host would be served as it was before."""
    (problem, other) = route_problems(
        Route(
            route_action=RouteAction(
                destinations=(
                    WeightedDestination(
                        kube_service=KubeDestination("reviews", "default", "cluster1", subset={"a b": "v1"}),
                        options=DestinationOptions(HeaderManipulation(append_request_headers={"x y": "z"})),
                    ),
                )
            )
        ),
        "spec.routes[0]",
    )

    path = "spec.routes[0].routeAction.destinations[0]"
    assert str(problem).startswith(f"{path}.options.headerManipulation.appendRequestHeaders['x y']: 'x y' is no name")
    assert str(other).startswith(f"{path}.kubeService.subset: 'a b' is no key of a label")


def half(version: str) -> WeightedDestination:
    """Half of the requests, for *version* of the reviews of cluster2."""
    return WeightedDestination(
        weight=50, kube_service=KubeDestination("reviews", "default", "cluster2", subset={"version": version})
    )


@pytest.mark.parametrize(
    ("route", "text"),
    [
        (Route(route_action=RouteAction((half("v1"),), "reviews")), "routeAction.pathRewrite: 'reviews' is no path"),
        (
            Route(redirect_action=RedirectAction(host_redirect="a\nb")),
            "redirectAction.hostRedirect: 'a\\nb' is no host",
        ),
        (
            Route(redirect_action=RedirectAction(path_redirect="/a b")),
            "redirectAction.pathRedirect: '/a b' is no path",
        ),
        (
            Route(redirect_action=RedirectAction(prefix_rewrite="/\r")),
            "redirectAction.prefixRewrite: '/\\r' is no path",
        ),
    ],
)
def test_paths_and_hosts_that_http_does_not_know_are_said(route: Route, text: str) -> None:
    assert [
        str(problem).startswith(f"spec.routes[0].{text}") for problem in route_problems(route, "spec.routes[0]")
    ] == [True]


def test_versions_of_tls_that_leave_none_are_said() -> None:
    parameters = SslParameters(TlsVersion.TLSV1_3, TlsVersion.TLSV1_2)
    ssl = SslConfig(secret_name="shop", tls_mode=ServerTlsMode.SIMPLE, parameters=parameters)
    handler = ConnectionHandler(
        http=HttpHandler(route_config=(RouteConfig(virtual_host_selector=ObjectSelector()),)),
        connection_options=ConnectionOptions(ssl_config=ssl),
    )

    (problem,) = listener_problems(
        VirtualGatewaySpec(
            ingress_gateway_selectors=(IngressGatewaySelector(port_name="https"),), connection_handlers=(handler,)
        )
    )

    assert "minimumProtocolVersion: TLSv1_3 is later than maximumProtocolVersion, TLSv1_2" in str(problem)


def routed_at_gateway(shift: tuple[WeightedDestination, ...], **selected: Any) -> list[tuple[str, str, int]]:
    """Host, subset and weight of where a route goes with 40 for ratings and 60 for reviews of which *shift* is said."""
    reviews = ClusterObjectRef("reviews", "default", "cluster2")
    policy = TrafficPolicy(
        metadata=meta("shift"),
        spec=TrafficPolicySpec(
            destination_selector=(DestinationSelector(kube_service_refs=KubeServiceRefs((reviews,))),),
            policy=Policy(traffic_shift=TrafficShift(shift)),
            **selected,
        ),
    )
    destinations = (
        WeightedDestination(weight=40, kube_service=KubeDestination("ratings", "default", "cluster1")),
        WeightedDestination(weight=60, kube_service=KubeDestination("reviews", "default", "cluster2")),
    )
    host = VirtualHost(
        metadata=meta("host"),
        spec=VirtualHostSpec(
            domains=("a.example",), routes=(Route(route_action=RouteAction(destinations=destinations)),)
        ),
    )
    gateway = VirtualGateway(
        metadata=meta("gateway"),
        spec=VirtualGatewaySpec(
            ingress_gateway_selectors=(
                IngressGatewaySelector(
                    destination_selectors=(
                        DestinationSelector(
                            kube_service_matcher=KubeServiceMatcher(
                                labels={"istio": "ingressgateway"}, clusters=("cluster1",)
                            )
                        ),
                    ),
                    port_name="http2",
                ),
            ),
            connection_handlers=(
                ConnectionHandler(
                    http=HttpHandler(route_config=(RouteConfig(virtual_host_selector=ObjectSelector()),))
                ),
            ),
        ),
    )
    engine = Engine()
    for resource in (*three_clusters(), entrance("cluster1"), gateway, host, policy):
        engine.set(resource)
    engine.run()
    (made,) = [
        output.object
        for key, output in engine.outputs().items()
        if isinstance(output.object, VirtualService) and output.object.spec.gateways
    ]
    return [
        (each.destination.host, each.destination.subset, each.weight)
        for route in made.spec.http
        for each in route.route
    ]


def test_a_shift_splits_what_routes_send_to_its_service() -> None:
    """Source: reference, VirtualGateway: 40/60 with 60 split 50/50 is 40/30/30."""
    assert routed_at_gateway((half("v1"), half("v2"))) == [
        ("ratings.default.svc.cluster.local", "", 40),
        ("reviews.default.svc.cluster2.global", "version-v1", 30),
        ("reviews.default.svc.cluster2.global", "version-v2", 30),
    ]


def test_a_shift_of_some_requests_splits_nothing_at_gateways() -> None:
    some = (HttpMatcher(uri=StringMatch(prefix="/v1")),)

    assert routed_at_gateway((half("v1"), half("v2")), http_request_matchers=some) == [
        ("ratings.default.svc.cluster.local", "", 40),
        ("reviews.default.svc.cluster2.global", "", 60),
    ]


def test_a_method_that_one_of_two_matchers_has_is_enough() -> None:
    engine = Engine()
    both = tuple(HttpMatcher(uri=StringMatch(prefix="/api"), method=method) for method in ("GET", "POST"))
    way = DelegateAction(refs=(ObjectRef(name="t", namespace="gloo-mesh"),))
    host = VirtualHost(
        metadata=meta("shop"),
        spec=VirtualHostSpec(domains=("shop.example.com",), routes=(Route(matchers=both, delegate_action=way),)),
    )
    answer = Route(matchers=(HttpMatcher(method="GET"),), direct_response_action=DirectResponseAction(status=200))
    table = RouteTable(metadata=meta("t"), spec=RouteTableSpec(routes=(answer,)))
    for resource in (*start(), host, table):
        engine.set(resource)

    engine.run()

    written, *_ = [o.object for o in engine.outputs().values() if isinstance(o.object, VirtualService)]
    (route,) = written.spec.http
    assert [match.method.exact for match in route.match if match.method] == ["GET"]
    assert msgspec.to_builtins(engine.status(status_key(table)))["state"] == "ACCEPTED"


def test_the_guides_example_works() -> None:
    """Its objects are accepted, and come to the routes that it tells of."""
    blocks = re.findall(r"^```yaml\n(apiVersion.*?)^```", GUIDE.read_text(), flags=re.MULTILINE | re.DOTALL)
    parsed = [parse(each) for block in blocks for each in yaml.safe_load_all(block)]
    objects = [each for each in parsed if isinstance(each, Resource)]
    assert objects == parsed
    engine = Engine()
    newest = service("cluster2", "reviews", pods={"v3": 1})
    for resource in (*three_clusters(), entrance("cluster1"), newest, *objects):
        engine.set(resource)
    engine.run()

    found = {status_key(each): msgspec.to_builtins(engine.status(status_key(each))) for each in objects}

    assert [status["state"] for status in found.values()] == ["ACCEPTED"] * 4
    assert not any("warnings" in status for status in found.values())
    (written,) = [o.object for o in engine.outputs().values() if isinstance(o.object, VirtualService)]
    routes = {route.name: route for route in written.spec.http}
    assert list(routes) == ["shop.newest", "shop.old-shop", "shop.api.reviews.shared", "shop.others"]
    assert [each.weight for each in routes["shop.api.reviews.shared"].route] == [75, 25]
    assert routes["shop.newest"].retries is not None


def test_policies_of_a_host_are_listed_as_far_as_their_specs_fit() -> None:
    """Or else the status would be too large for etcd."""
    long = HeaderManipulation(append_request_headers={f"x-{i}": "y" * (MAX_LIST_BYTES // 400) for i in range(100)})
    policies = [
        TrafficPolicy(
            metadata=meta(f"p{number}"),
            spec=TrafficPolicySpec(route_selector=(RouteSelector(),), policy=Policy(header_manipulation=long)),
        )
        for number in range(10)
    ]
    answer = Route(direct_response_action=DirectResponseAction(status=200))
    host = VirtualHost(metadata=meta("shop"), spec=VirtualHostSpec(domains=("shop.example.com",), routes=(answer,)))
    engine = Engine()
    for resource in (*start(), host, *policies):
        engine.set(resource)

    engine.run()

    found = msgspec.to_builtins(engine.status(status_key(host)))["appliedTrafficPolicies"]
    assert [each["ref"]["name"] for each in found] == ["p0", "p1", "p2"]


def test_a_failed_write_is_in_the_statuses_of_those_who_asked() -> None:
    engine = Engine()
    host = VirtualHost(
        metadata=meta("shop"),
        spec=VirtualHostSpec(
            domains=("shop.example.com",), routes=(Route(direct_response_action=DirectResponseAction(status=200)),)
        ),
    )
    for resource in (*start(), host):
        engine.set(resource)
    engine.run()
    key = next(key for key, each in engine.outputs().items() if isinstance(each.object, VirtualService))

    engine.write_error(key, "no room")
    told = {status.name: msgspec.to_builtins(engine.status(status)) for status in engine.run().statuses}

    assert {name: status["state"] for name, status in told.items()} == {"a": "FAILED", "shop": "FAILED"}
    assert all("no room" in status["errors"][-1] for status in told.values())
