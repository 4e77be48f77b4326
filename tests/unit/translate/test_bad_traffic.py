"""What users get wrong in traffic policies: said with the field and what would do, and harming nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.api.access_policy import AccessPolicyStatus
from isthmus.api.base import Resource
from isthmus.api.common import ApprovalState
from isthmus.api.discovery import ServicePort
from isthmus.api.parse import ParseFailure, parse
from isthmus.api.service_dependency import ServiceDependencyStatus
from isthmus.api.traffic_policy import TrafficPolicy, TrafficPolicyStatus
from isthmus.istio.kinds import DESTINATION_RULE, VIRTUAL_SERVICE
from isthmus.istio.objects import DestinationRule, PortSelector, StringMatch, VirtualService
from isthmus.model.ref import Ref
from isthmus.translate import Engine
from isthmus.translate.federation.objects import subset_name
from isthmus.translate.listing import MAX_LISTED_POLICIES
from isthmus.translate.output import StatusKey
from isthmus.translate.sources import MAX_LISTED_WORKLOADS
from tests.unit.translate.fleets import HTTP, gateway, mesh, service, virtual_mesh, workload

REVIEWS = "reviews-default-cluster1.gloo-mesh."
ONTO_REVIEWS = {
    "kubeServiceRefs": {"services": [{"name": "reviews", "namespace": "default", "clusterName": "cluster1"}]}
}


def policy(
    name: str, age: int = 0, onto: Any = ONTO_REVIEWS, matchers: Any = (), sources: Any = (), **said: Any
) -> Any:
    """A traffic policy on the reviews of cluster1 as parsing yields it; the higher *age*, the younger."""
    return parse(
        {
            "apiVersion": "networking.mesh.gloo.solo.io/v1",
            "kind": "TrafficPolicy",
            "metadata": {
                "name": name,
                "namespace": "gloo-mesh",
                "creationTimestamp": f"2026-01-01T{age // 3600:02}:{age // 60 % 60:02}:{age % 60:02}Z",
            },
            "spec": {
                "sourceSelector": list(sources),
                "destinationSelector": [onto],
                "httpRequestMatchers": list(matchers),
                "policy": said,
            },
        }
    )


def to(cluster: str = "cluster2", **more: Any) -> dict[str, Any]:
    """A traffic shift's target."""
    weight = {"weight": more.pop("weight")} if "weight" in more else {}
    return {"kubeService": {"name": "reviews", "namespace": "default", "clusterName": cluster, **more}, **weight}


def fleet(*more: Resource, remote: bool = True) -> Engine:
    """Two clusters with reviews, on cluster2 only with *remote*, and *more*."""
    engine = Engine()
    for cluster in ("cluster1", "cluster2"):
        for resource in (mesh(cluster), gateway(cluster), workload(cluster, "productpage")):
            engine.set(resource)
    engine.set(virtual_mesh("cluster1", "cluster2"))
    engine.set(service("cluster1", "reviews"))
    if remote:
        engine.set(service("cluster2", "reviews"))
    for resource in more:
        engine.set(resource)
    engine.run()
    return engine


def status(engine: Engine, name: str) -> TrafficPolicyStatus:
    found = engine.status(StatusKey(TrafficPolicy.KIND, "gloo-mesh", name))
    assert isinstance(found, TrafficPolicyStatus)
    return found


def routes(engine: Engine) -> VirtualService | None:
    """The routes of reviews on its own cluster."""
    for key, output in engine.outputs().items():
        if key.cluster == "cluster1" and isinstance(output.object, VirtualService) and key.object.name == "reviews":
            return output.object
    return None


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (
            {"trafficShift": {"destinations": [to(weight=0), to("cluster1", weight=0)]}},
            "spec.policy.trafficShift.destinations: all weights are 0",
        ),
        (
            {"trafficShift": {"destinations": [to(weight=75), to("cluster1", weight=15)]}},
            "spec.policy.trafficShift.destinations: the weights are 75 + 15 = 90, and have to sum to 100",
        ),
        ({"requestTimeout": "0s"}, "spec.policy.requestTimeout: 0s is not a whole number of milliseconds"),
        ({"retries": {"attempts": -1}}, "spec.policy.retries.attempts: -1 is negative; 0 is no retry"),
        (
            {"headerManipulation": {"appendRequestHeaders": {"x y": "z"}}},
            "spec.policy.headerManipulation.appendRequestHeaders['x y']: 'x y' is no name that HTTP allows",
        ),
        (
            {"headerManipulation": {"appendResponseHeaders": {"x": "a\r\nb: c"}}},
            "spec.policy.headerManipulation.appendResponseHeaders['x']: holds control characters",
        ),
        (
            {"corsPolicy": {"allowOrigins": [{"regex": "(?<=a)b"}]}},
            "spec.policy.corsPolicy.allowOrigins[0].regex: '(?<=a)b' is no regular expression of RE2",
        ),
        (
            {"headerManipulation": {"appendRequestHeaders": {"x": "%UPSTREAM_CLUSTER% %FOO%"}}},
            "spec.policy.headerManipulation.appendRequestHeaders['x']: '%UPSTREAM_CLUSTER% %FOO%': Envoy reads",
        ),
        (
            {"headerManipulation": {"appendRequestHeaders": {"x": "%REQ%"}}},
            "spec.policy.headerManipulation.appendRequestHeaders['x']: '%REQ%': Envoy reads",
        ),
        (
            {"corsPolicy": {"allowOrigins": [{"regex": r"https://a\C"}]}},
            "spec.policy.corsPolicy.allowOrigins[0].regex: 'https://a\\\\C': Istio does not know",
        ),
        (
            {"corsPolicy": {"allowOrigins": [{"regex": r"\pL{100}"}]}},
            "spec.policy.corsPolicy.allowOrigins[0].regex: '\\\\pL{100}' needs",
        ),
        (
            {"headerManipulation": {"appendRequestHeaders": {"x": "a" * 16385}}},
            "spec.policy.headerManipulation.appendRequestHeaders['x']: has more than 16384 bytes",
        ),
        (
            {"headerManipulation": {"appendResponseHeaders": {f"x{i}": "a" for i in range(1001)}}},
            "spec.policy.headerManipulation.appendResponseHeaders: has more than 1000 headers",
        ),
        ({"requestTimeout": "2562047h47m16s"}, "spec.policy.requestTimeout: 9223372036s is more than 9223372035s"),
        (
            {"faultInjection": {"abort": {"httpStatus": 503}, "percentage": 0.00001}},
            "spec.policy.faultInjection.percentage: 1e-05 is less than 0.0001",
        ),
        (
            {"trafficShift": {"destinations": [to(subset={"a b": "v1"})]}},
            "spec.policy.trafficShift.destinations[0].kubeService.subset: 'a b' is no key of a label",
        ),
        (
            {"trafficShift": {"destinations": [to(subset={"version": "v/1"})]}},
            "spec.policy.trafficShift.destinations[0].kubeService.subset: version can't be 'v/1'",
        ),
        (
            {"corsPolicy": {"allowOrigins": [{"suffix": "." * 600}]}},
            "spec.policy.corsPolicy.allowOrigins[0]: has 1202 characters, where Istio takes 1024",
        ),
        (
            {"trafficShift": {"destinations": [{"virtualDestination": {"name": "reviews-global"}}]}},
            "spec.policy.trafficShift.destinations[0].virtualDestination: malformed virtualDestination: needs name and",
        ),
    ],
)
def test_a_fault_of_its_own_is_said_and_harms_nobody_else(said: Any, text: str) -> None:
    engine = fleet(policy("bad", age=0, **said), policy("good", age=1, requestTimeout="2s"))

    found = status(engine, "bad")

    assert found.state is ApprovalState.INVALID
    assert any(error.startswith(text) for error in found.errors), found.errors
    assert not found.destinations
    assert status(engine, "good").state is ApprovalState.ACCEPTED
    made = routes(engine)
    assert made is not None
    assert [route.timeout for route in made.spec.http] == ["2s"]


@pytest.mark.parametrize("duration", ["-1s", "2", "two seconds"])
def test_what_is_no_duration_is_not_even_read(duration: str) -> None:
    found = policy("bad", requestTimeout=duration)

    assert isinstance(found, ParseFailure)
    assert f"spec.policy.requestTimeout: '{duration}' is not a duration such as 2s" in str(found)


@pytest.mark.parametrize(
    ("matcher", "text"),
    [
        ({"labels": {"app": "a/b"}}, "labels: app can't be 'a/b'"),
        ({"labels": {"a/b/c": "x"}}, "labels: 'a/b/c' is no key of a label"),
        ({"namespaces": ["default", "*"]}, "namespaces[1]: '*' is no name of a namespace"),
        ({"namespaces": [""]}, "namespaces[0]: '' is no name of a namespace"),
    ],
)
def test_senders_that_cannot_be_are_said(matcher: Any, text: str) -> None:
    engine = fleet(
        policy("bad", sources=[{"kubeWorkloadMatcher": matcher}], requestTimeout="2s"),
        policy("good", age=1, requestTimeout="1s"),
    )

    (error,) = status(engine, "bad").errors
    assert error.startswith(f"spec.sourceSelector[0].kubeWorkloadMatcher.{text}")
    made = routes(engine)
    assert made is not None
    assert [route.timeout for route in made.spec.http] == ["1s"]


def test_what_envoy_fills_in_is_let_through() -> None:
    said = {"x": "100 %% of %REQ(X-A?:PATH):10% at %START_TIME(%s)%, %UPSTREAM_CLUSTER%%PROTOCOL%"}

    engine = fleet(policy("good", headerManipulation={"appendRequestHeaders": said}))

    assert status(engine, "good").state is ApprovalState.ACCEPTED


def test_a_parameter_that_envoy_refuses_is_said() -> None:
    engine = fleet(policy("bad", matchers=[{"queryParameters": [{"name": "q" * 1025}]}], requestTimeout="2s"))

    (error,) = status(engine, "bad").errors
    assert error.startswith("spec.httpRequestMatchers[0].queryParameters[0].name: has more than 1024 bytes")


def test_a_matcher_that_re2_refuses_is_said() -> None:
    engine = fleet(policy("bad", matchers=[{"uri": {"regex": "(?!x)"}}], requestTimeout="2s"))

    assert "spec.httpRequestMatchers[0].uri.regex" in status(engine, "bad").errors[0]
    assert routes(engine) is None


def test_a_suffix_that_is_too_long_as_a_regular_expression_is_said() -> None:
    engine = fleet(policy("bad", matchers=[{"uri": {"suffix": "." * 600}}], requestTimeout="2s"))

    assert status(engine, "bad").errors == (
        "spec.httpRequestMatchers[0].uri.suffix: has 1202 characters, where Istio takes 1024: shorten it, or use "
        "several matchers",
    )
    assert routes(engine) is None


def test_a_destination_named_without_its_cluster_is_said_and_not_waited_for() -> None:
    nowhere = {"kubeServiceRefs": {"services": [{"name": "reviews", "namespace": "default"}]}}
    engine = fleet(policy("bad", onto=nowhere, requestTimeout="2s"))

    found = status(engine, "bad")

    assert found.state is ApprovalState.INVALID
    assert found.errors[0] == (
        "spec.destinationSelector[0].kubeServiceRefs.services[0]: Invalid Destination selector: malformed "
        "kubeServiceRef: needs name, namespace and clusterName"
    )


def test_a_shift_of_a_port_that_speaks_no_http_leaves_the_others() -> None:
    """The port is the service's own, so the shift is about calls of that port, which are no requests."""
    ports = (HTTP, ServicePort(port=9999, name="tcp-x", protocol="TCP", target_port_number=9999))
    shift = {"destinations": [to("cluster1", port=9999)]}
    engine = fleet(service("cluster1", "reviews", ports=ports), policy("mute", trafficShift=shift, requestTimeout="2s"))

    made = routes(engine)

    assert made is not None
    assert [target.destination.port for route in made.spec.http for target in route.route] == [PortSelector(9080)]
    assert status(engine, "mute").destinations[REVIEWS].warnings == (
        "spec.policy.trafficShift: port 9999 speaks no HTTP, so calls of it stay as they are",
    )


def test_the_only_port_of_a_service_is_shifted_to_a_port_of_another_number() -> None:
    port = ServicePort(port=80, name="http", protocol="TCP", target_port_number=80)
    engine = fleet(
        service("cluster2", "reviews", ports=(port,)), policy("other", trafficShift={"destinations": [to(port=80)]})
    )

    made = routes(engine)

    assert made is not None
    assert [route.route[0].destination.port for route in made.spec.http] == [PortSelector(80)]


@pytest.mark.parametrize(
    ("field", "what"), [("trafficShift", "traffic shift"), ("mirror", "mirror")], ids=("shift", "mirror")
)
def test_requests_go_to_no_port_that_is_not_tcp(field: str, what: str) -> None:
    """A port number that both have counts once, and one that only UDP has not at all."""
    dns = tuple(
        ServicePort(port=port, name=f"{protocol.lower()}-{port}", protocol=protocol)
        for port, protocol in ((53, "UDP"), (80, "TCP"), (80, "UDP"))
    )

    def said(**more: Any) -> Any:
        return {"destinations": [to(**more)]} if field == "trafficShift" else {**to(), **more}

    engine = fleet(
        service("cluster2", "reviews", ports=dns),
        policy("udp", 0, matchers=[{"uri": {"exact": "/udp"}}], **{field: said(port=53)}),
        policy("tcp", 1, matchers=[{"uri": {"exact": "/tcp"}}], **{field: said()}),
    )

    assert status(engine, "udp").destinations[REVIEWS].errors == (
        f"spec.policy.{field}: specified port 53 does not exist for {what} destination service "
        "reviews.default.cluster2",
    )
    assert status(engine, "tcp").state is ApprovalState.ACCEPTED
    made = routes(engine)
    assert made is not None
    (tcp,) = (route for route in made.spec.http if route.match and route.match[0].uri == StringMatch(exact="/tcp"))
    target = tcp.route[0].destination if field == "trafficShift" else tcp.mirror
    assert target is not None
    assert target.port == PortSelector(80)


def test_headers_of_one_share_of_a_shift_are_warned_of() -> None:
    options = {"headerManipulation": {"appendRequestHeaders": {"x": "y"}}}
    engine = fleet(policy("headers", trafficShift={"destinations": [{**to(), "options": options}]}))

    found = status(engine, "headers").destinations[REVIEWS]

    assert found.state is ApprovalState.ACCEPTED
    assert found.warnings == (
        "spec.policy.trafficShift: options.headerManipulation of destinations has no effect: use "
        "spec.policy.headerManipulation, which is for all of them",
    )


def test_a_path_goes_before_the_same_path_in_any_case() -> None:
    engine = fleet(
        policy("any", 0, matchers=[{"uri": {"exact": "/A", "ignoreCase": True}}], requestTimeout="2s"),
        policy("one", 1, matchers=[{"uri": {"exact": "/a"}}], requestTimeout="1s"),
    )

    made = routes(engine)

    assert made is not None
    assert [route.timeout for route in made.spec.http] == ["1s", "2s", ""]


def test_subsets_have_names_of_their_own_however_alike_their_labels() -> None:
    labels = (
        (("version", "1.0"),),
        (("version", "1-0"),),
        (("0", "2"), ("version", "1")),
        (("0", "2-version-1"),),
        (("version", "v1"),),
        (("version", "V1"),),
    )

    names = [subset_name(each) for each in labels]

    assert len(set(names)) == len(labels)
    assert names[4] == "version-v1"


def test_a_destination_that_does_not_exist_yet_is_waited_for() -> None:
    engine = fleet(policy("early", trafficShift={"destinations": [to()]}), remote=False)
    waiting = status(engine, "early")

    engine.set(service("cluster2", "reviews"))
    engine.run()

    assert waiting.state is ApprovalState.PENDING
    assert "invalid traffic shift destination reviews.default.cluster2" in waiting.destinations[REVIEWS].errors[0]
    assert status(engine, "early").state is ApprovalState.ACCEPTED
    made = routes(engine)
    assert made is not None
    assert made.spec.http[0].route[0].destination.host == "reviews.default.svc.cluster2.global"


def test_a_port_that_the_service_has_not_is_said() -> None:
    engine = fleet(policy("bad", trafficShift={"destinations": [to(port=81)]}))

    error = status(engine, "bad").destinations[REVIEWS].errors[0]

    assert "specified port 81 does not exist for traffic shift destination service reviews.default.cluster2" in error
    assert routes(engine) is None


def test_a_subset_that_no_pod_has_is_warned_of() -> None:
    engine = fleet(policy("nobody", trafficShift={"destinations": [to(subset={"version": "v9"})]}))

    found = status(engine, "nobody").destinations[REVIEWS]

    assert found.state is ApprovalState.ACCEPTED
    assert "no ready pod of reviews.default.cluster2 has version: v9" in found.warnings[0]


def test_selectors_that_match_nothing_are_warned_of() -> None:
    nothing = {"kubeServiceMatcher": {"labels": {"app": "no-such"}}}
    nobody = [{"kubeWorkloadMatcher": {"labels": {"app": "no-such"}}}]
    engine = fleet(
        policy("no-destination", onto=nothing, requestTimeout="2s"),
        policy("no-caller", sources=nobody, requestTimeout="2s"),
    )

    assert status(engine, "no-destination").warnings == ("selects no destination",)
    no_caller = status(engine, "no-caller")
    assert no_caller.warnings == ("spec.sourceSelector selects no workload that can call its destinations",)
    assert no_caller.state is ApprovalState.ACCEPTED

    engine.set(workload("cluster2", "no-such"))
    engine.run()

    assert status(engine, "no-caller").warnings == ()
    assert status(engine, "no-caller").workloads == ("no-such-default-cluster2.gloo-mesh.",)


def test_a_policy_that_says_nothing_writes_nothing() -> None:
    engine = fleet(policy("nothing"))

    kinds = {key.object.kind for key in engine.outputs() if key.object.name == "reviews"}

    assert not kinds & {VIRTUAL_SERVICE.kind, DESTINATION_RULE.kind}


def test_a_thousand_policies_on_one_destination() -> None:
    """Each has its route, the most specific first, the status stays small, and one more costs no more than one."""
    many = [
        policy(f"p{n:04}", age=n, matchers=[{"uri": {"prefix": f"/{n:04}"}}], requestTimeout="2s") for n in range(999)
    ]
    engine = fleet(*many, policy("all", age=5000, retries={"attempts": 2}, outlierDetection={"consecutiveErrors": 3}))

    made = routes(engine)
    assert made is not None
    assert len(made.spec.http) == 1000
    assert made.spec.http[-1].match == ()
    assert all(route.retries is not None for route in made.spec.http)
    assert len(made.payload()) < 2**20
    destination: Any = engine.status(StatusKey(service("cluster1", "reviews").KIND, "gloo-mesh", REVIEWS.split(".")[0]))
    assert len(destination.applied_traffic_policies) == MAX_LISTED_POLICIES
    assert any("1000 traffic policies apply" in warning for warning in destination.warnings)

    before = engine.evaluations
    engine.set(policy("p0500", age=500, matchers=[{"uri": {"prefix": "/0500"}}], requestTimeout="3s"))
    engine.run()
    assert engine.evaluations - before < 2100
    assert status(engine, "p0500").state is ApprovalState.ACCEPTED


def test_of_a_thousand_that_contradict_each_other_the_oldest_counts() -> None:
    engine = fleet(*(policy(f"p{n:04}", age=n, requestTimeout=f"{n + 1}s") for n in range(1000)))

    made = routes(engine)

    assert made is not None
    assert [route.timeout for route in made.spec.http] == ["1s"]
    assert status(engine, "p0000").state is ApprovalState.ACCEPTED
    for name in ("p0001", "p0999"):
        (error,) = status(engine, name).destinations[REVIEWS].errors
        assert (
            error
            == "spec.policy.requestTimeout is set otherwise by TrafficPolicy p0000.gloo-mesh, which is older and has it"
        )


def test_of_very_many_workloads_the_first_are_listed() -> None:
    engine = fleet(policy("everybody", requestTimeout="2s"), *(workload("cluster1", f"w{n:03}") for n in range(150)))
    found = status(engine, "everybody")

    engine.set(workload("cluster1", "z-last"))
    engine.run()

    assert len(found.workloads) == MAX_LISTED_WORKLOADS
    assert f"status.workloads lists the first {MAX_LISTED_WORKLOADS} workloads" in found.warnings
    assert status(engine, "everybody") == found


def test_only_workloads_that_reach_a_destination_are_listed() -> None:
    """Those of its mesh, and of the meshes in one virtual mesh with it."""
    engine = fleet(policy("everybody", requestTimeout="2s"), mesh("alone"), workload("alone", "productpage"))

    assert status(engine, "everybody").workloads == (
        "productpage-default-cluster1.gloo-mesh.",
        "productpage-default-cluster2.gloo-mesh.",
    )


def test_a_rule_is_not_written_for_nothing() -> None:
    engine = fleet(policy("timeout", requestTimeout="2s"))

    rules = [
        key
        for key, output in engine.outputs().items()
        if isinstance(output.object, DestinationRule) and output.subject == Ref("", "gloo-mesh", REVIEWS.split(".")[0])
    ]

    assert [key.cluster for key in rules] == ["cluster2"]


def test_a_conflict_with_a_users_own_object_is_said_of_that_destination_until_it_is_gone() -> None:
    """The agent says which; see `isthmus.agent.conflicts`."""
    both = {"kubeServiceMatcher": {"labels": {"app": "reviews"}}}
    engine = fleet(policy("simple", onto=both, requestTimeout="2s"))
    key = next(
        key
        for key, output in engine.outputs().items()
        if key.cluster == "cluster1" and isinstance(output.object, VirtualService) and key.object.name == "reviews"
    )

    engine.write_error(key, "conflict: already configured by the existing VirtualService default/mine")
    engine.run()
    found = status(engine, "simple")

    assert found.state is ApprovalState.FAILED
    assert [outcome.state for outcome in found.destinations.values()] == [ApprovalState.FAILED, ApprovalState.ACCEPTED]
    assert found.destinations[REVIEWS].errors == (
        "write error: VirtualService default/reviews on cluster cluster1: conflict: already configured by the existing "
        "VirtualService default/mine",
    )

    engine.write_error(key, None)
    engine.run()

    assert status(engine, "simple").state is ApprovalState.ACCEPTED


@pytest.mark.parametrize(
    ("group", "kind", "field"),
    [
        ("networking.enterprise.mesh.gloo.solo.io/v1beta1", "ServiceDependency", "destinationSelectors"),
        ("networking.mesh.gloo.solo.io/v1", "AccessPolicy", "destinationSelector"),
        ("networking.mesh.gloo.solo.io/v1", "TrafficPolicy", "destinationSelector"),
    ],
)
def test_a_reference_that_lacks_a_field_is_said_of_every_kind(group: str, kind: str, field: str) -> None:
    """It is not waited for, as what does not exist yet is."""
    selectors = [{"kubeServiceRefs": {"services": [{"name": "reviews", "namespace": "default"}]}}]
    found = parse(
        {
            "apiVersion": group,
            "kind": kind,
            "metadata": {"name": "bad", "namespace": "gloo-mesh"},
            "spec": {field: selectors},
        }
    )
    assert isinstance(found, Resource)

    engine = fleet(found)

    said = engine.status(StatusKey(found.KIND, "gloo-mesh", "bad"))
    assert isinstance(said, ServiceDependencyStatus | AccessPolicyStatus | TrafficPolicyStatus)
    assert said.state is ApprovalState.INVALID
    (error,) = said.errors
    assert error.startswith(f"spec.{field}[0].kubeServiceRefs.services[0]: Invalid Destination selector: malformed")
