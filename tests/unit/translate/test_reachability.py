"""Who may call whom: the matrix, single answers and differences agree with each other and with one call at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.access_policy import AccessPolicy, AccessPolicySpec
from isthmus.api.base import Resource
from isthmus.api.common import (
    ClusterObjectRef,
    DestinationSelector,
    IdentitySelector,
    KubeIdentityMatcher,
    KubeServiceAccountRefs,
    KubeServiceMatcher,
    RequestIdentityMatcher,
)
from isthmus.api.discovery import Destination, KubernetesWorkload, Mesh, ServicePort, Workload, WorkloadSpec
from isthmus.api.virtual_mesh import Federation, FederationSelector, GlobalAccessPolicy, VirtualMesh
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.access.emission import Emission
from isthmus.translate.access.evaluation import Answer, Call, Effects, Policies, Request, question
from isthmus.translate.access.evaluation import Workload as Pods
from isthmus.translate.access.patterns import matches
from isthmus.translate.access.reachability import (
    Fleet,
    NotFound,
    Reach,
    Reachability,
    Roster,
    difference,
    identities,
    spelled,
)
from tests.unit.translate.fleets import gateway, mesh, mesh_ref, meta, service, virtual_mesh
from tests.unit.translate.slow_authorization import Asked, allowed

ROOT = "istio-system"
CLUSTERS = ("cluster1", "cluster2")
NAMES = ("a", "b", "c")
HTTP, TCP = (
    ServicePort(port=80, name="http", protocol="TCP", target_port_number=8080),
    ServicePort(port=90, name="tcp-x", protocol="TCP", target_port_number=9090),
)


def workload(
    cluster: str, name: str, namespace: str = "default", *, account: str = "", version: str = "v1"
) -> Workload:
    """A Deployment whose pods have a service account of its name, unless another is given."""
    controller = ClusterObjectRef(name=f"{name}-{version}", namespace=namespace, cluster_name=cluster)
    kubernetes = KubernetesWorkload(
        controller=controller, pod_labels={"app": name, "version": version}, service_account_name=account or name
    )
    return Workload(
        metadata=meta(f"{name}-{version}-{namespace}-{cluster}"),
        spec=WorkloadSpec(kubernetes=kubernetes, mesh=mesh_ref(cluster)),
    )


def everything(*more: Resource, stance: GlobalAccessPolicy = GlobalAccessPolicy.ENABLED) -> list[Resource]:
    """Two federated clusters with services a, b and c, of which b has two versions and c an HTTP and a TCP port."""
    found: list[Resource] = []
    for cluster in CLUSTERS:
        found += [mesh(cluster), gateway(cluster)]
        found += [workload(cluster, name) for name in NAMES]
        found.append(workload(cluster, "b", version="v2", account="b2"))
        found += [service(cluster, name, ports=(HTTP, TCP) if name == "c" else (HTTP,)) for name in NAMES]
    joined = virtual_mesh(*CLUSTERS)
    spec = msgspec.structs.replace(joined.spec, global_access_policy=stance)
    return [*found, msgspec.structs.replace(joined, spec=spec), *more]


def fleet(resources: Iterable[Resource], own: dict[str, Sequence[dict[str, Any]]] | None = None) -> Fleet:
    """*resources* translated."""
    emission = Emission()
    found: dict[type[Resource], dict[Ref, Any]] = {Mesh: {}, Destination: {}, Workload: {}}
    for resource in resources:
        emission.set(resource)
        found.setdefault(type(resource), {})[resource.ref] = resource
    roster = Roster(found[Workload].values())
    return Fleet(found[Mesh], roster, found[Destination], emission.run(), own or {})


def access(
    name: str, to: tuple[str, ...], *callers: str, methods: tuple[str, ...] = (), paths: tuple[str, ...] = ()
) -> AccessPolicy:
    """Lets the service accounts *callers* of cluster1 call services *to*."""
    accounts = tuple(ClusterObjectRef(name=each, namespace="default", cluster_name="cluster1") for each in callers)
    return AccessPolicy(
        metadata=meta(name),
        spec=AccessPolicySpec(
            source_selector=(
                IdentitySelector(kube_service_account_refs=KubeServiceAccountRefs(service_accounts=accounts)),
            )
            if accounts
            else (),
            destination_selector=tuple(
                DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"app": each})) for each in to
            ),
            allowed_methods=methods,
            allowed_paths=paths,
        ),
    )


def named(text: str) -> Ref:
    """``a@cluster1`` in the default namespace; a workload with its version, ``a-v1@cluster1``."""
    name, _, cluster = text.partition("@")
    return Ref(cluster, "default", name)


# --- single answers ---------------------------------------------------------------------------------------------------


def test_the_callers_own_identity_decides_across_clusters() -> None:
    reachability = Reachability(fleet(everything(access("p", ("b",), "a"))))

    answers = {
        (caller, callee): reachability.can(named(caller), named(callee)).answer
        for caller in ("a@cluster1", "a@cluster2", "c@cluster1")
        for callee in ("b@cluster1", "b@cluster2")
    }

    assert {pair for pair, answer in answers.items() if answer is Reach.YES} == {
        ("a@cluster1", "b@cluster1"),
        ("a@cluster1", "b@cluster2"),
    }
    assert set(answers.values()) == {Reach.YES, Reach.NO}


def test_an_answer_names_the_policies_and_those_behind_them_that_let_it_pass() -> None:
    """Policies of one destination are merged; another that is merged with the one that counts is not named."""
    merged = access("q", ("b",), "c", methods=("GET",))
    reachability = Reachability(fleet(everything(access("p", ("b",), "a"), merged)))

    yes = reachability.can(named("a@cluster1"), named("b@cluster2"))
    no = reachability.can(named("a@cluster1"), named("c@cluster2"))

    behind = (Ref("", "gloo-mesh", "p"),)
    assert [(each.policy.key, each.behind) for each in yes.grounds[0].policies] == [("default/b", behind)]
    assert '"name":"q"' in yes.grounds[0].policies[0].policy.annotations["parents.networking.mesh.gloo.solo.io"]
    assert [(each.policy.key, each.behind) for each in no.grounds[0].policies] == [
        (f"{ROOT}/global-access-control", ())
    ]


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (Request(), Reach.DEPENDS),
        (Request(method="GET", path="/x/1"), Reach.YES),
        (Request(method="GET"), Reach.DEPENDS),
        (Request(method="POST"), Reach.NO),
        (Request(port=90), Reach.NO),
        (Request(port=80, method="GET", path="/x"), Reach.NO),
        (Request(port=1), Reach.UNKNOWN),
    ],
)
def test_what_is_open_in_a_request_may_be_anything(request_: Request, answer: Reach) -> None:
    """c has a port of TCP, where a rule about methods allows nothing."""
    reachability = Reachability(fleet(everything(access("p", ("c",), "a", methods=("GET",), paths=("/x/*",)))))
    only_http = Request(port=80) if request_.port == 0 and request_.path else request_

    asked = msgspec.structs.replace(request_, port=only_http.port)

    assert reachability.can(named("a@cluster1"), named("c@cluster1"), asked).answer is answer


def test_policies_that_together_allow_every_request_are_a_yes() -> None:
    own = {"cluster1": [user("get", rules=[to(methods=["GET"])]), user("others", rules=[to(notMethods=["GET"])])]}

    verdict = Reachability(fleet(everything(), own)).can(named("a@cluster1"), named("b@cluster1"))

    assert (verdict.answer, verdict.reason) == (Reach.YES, "the policies together let every such request pass")


def test_pods_of_one_service_may_differ() -> None:
    allow = access("p", ("b",), "a")
    own = {"cluster1": [user("v2", action="DENY", selector={"matchLabels": {"version": "v2"}}, rules=[{}])]}

    verdict = Reachability(fleet(everything(allow), own)).can(named("a@cluster1"), named("b@cluster1"))

    assert verdict.answer is Reach.DEPENDS
    assert {ground.about: ground.decision.answer for ground in verdict.grounds} == {
        "pods app=b, version=v1": Answer.YES,
        "pods app=b, version=v2": Answer.NO,
    }


def test_a_service_calls_as_everybody_behind_it() -> None:
    reachability = Reachability(fleet(everything(access("p", ("c",), "b"))))

    assert reachability.can(named("b-v1@cluster1"), named("a@cluster1")).answer is Reach.NO
    assert reachability.can(named("b-v1@cluster1"), named("c@cluster1")).answer is Reach.YES
    assert reachability.can(named("b-v2@cluster1"), named("c@cluster1")).answer is Reach.NO
    assert reachability.can(named("b@cluster1"), named("c@cluster1")).answer is Reach.DEPENDS


def test_a_workload_can_be_called_by_its_own_name() -> None:
    reachability = Reachability(fleet(everything(access("p", ("b",), "a", methods=("GET",)))))

    assert reachability.can(named("a@cluster1"), named("b-v2@cluster2"), Request(method="GET")).answer is Reach.YES
    assert reachability.can(named("a@cluster1"), named("b-v2@cluster2"), Request(method="PUT")).answer is Reach.NO


def test_a_service_without_workloads_is_judged_by_its_selector_and_says_so() -> None:
    orphan = service("cluster1", "d", ports=(HTTP,))

    verdict = Reachability(fleet(everything(access("p", ("d",), "a"), orphan))).can(
        named("a@cluster1"), named("d@cluster1")
    )

    assert verdict.answer is Reach.YES
    assert "no workload is known behind the service" in verdict.reason


def test_a_name_that_nobody_has_is_not_found() -> None:
    reachability = Reachability(fleet(everything()))

    with pytest.raises(NotFound):
        reachability.can(named("x@cluster1"), named("b@cluster1"))
    with pytest.raises(NotFound):
        reachability.can(named("a@cluster1"), named("b@cluster3"))


def _without_federation(resource: Resource) -> Resource:
    if isinstance(resource, VirtualMesh):
        return msgspec.structs.replace(resource, spec=msgspec.structs.replace(resource.spec, federation=None))
    return resource


def _only_c(resource: Resource) -> Resource:
    if isinstance(resource, VirtualMesh):
        chosen = DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"app": "c"}))
        federation = Federation(selectors=(FederationSelector(destination_selectors=(chosen,)),))
        return msgspec.structs.replace(resource, spec=msgspec.structs.replace(resource.spec, federation=federation))
    return resource


def _refusing(resource: Resource) -> Resource:
    if isinstance(resource, Mesh) and resource.spec.istio is not None:
        istio = msgspec.structs.replace(resource.spec.istio, refuses_foreign_trust_domains=True)
        return msgspec.structs.replace(resource, spec=msgspec.structs.replace(resource.spec, istio=istio))
    return resource


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without_federation, "default/b@cluster2 is not federated to other clusters, and the caller is on cluster1"),
        (_only_c, "default/b@cluster2 is not federated to other clusters, and the caller is on cluster1"),
        (_refusing, "proxies of mesh istiod-istio-system-cluster2 refuse callers of trust domain cluster1"),
    ],
)
def test_what_is_not_known_where_the_caller_is_cannot_be_called(change: Any, reason: str) -> None:
    """However open the policies are."""
    reachability = Reachability(fleet(map(change, everything(stance=GlobalAccessPolicy.DISABLED))))

    there = reachability.can(named("a@cluster1"), named("b@cluster2"))
    here = reachability.can(named("a@cluster1"), named("b@cluster1"))

    assert (there.answer, there.reason, here.answer) == (Reach.UNKNOWN, f"not known there: {reason}", Reach.YES)


def test_a_federation_that_failed_says_why() -> None:
    gatewayless = [
        found for found in everything() if found.metadata.name != "istio-ingressgateway-istio-system-cluster2"
    ]

    verdict = Reachability(fleet(gatewayless)).can(named("a@cluster1"), named("b@cluster2"))

    assert verdict.answer is Reach.UNKNOWN
    assert "federation of default/b@cluster2 failed: " in verdict.reason


def test_a_users_policy_that_has_the_name_of_ours_stands_in_its_place() -> None:
    """The agent leaves it alone and reports it."""
    own = {"cluster1": [user("b", rules=[{}])]}
    reachability = Reachability(fleet(everything(access("p", ("b",), "a")), own))

    assert reachability.can(named("c@cluster1"), named("b@cluster1")).answer is Reach.YES
    assert reachability.can(named("c@cluster1"), named("b@cluster2")).answer is Reach.NO


# --- properties -------------------------------------------------------------------------------------------------------


def user(name: str, namespace: str = "default", **spec: Any) -> dict[str, Any]:
    """An AuthorizationPolicy that a user wrote."""
    return {"kind": "AuthorizationPolicy", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def to(**operation: list[str]) -> dict[str, Any]:
    """A rule about an operation."""
    return {"to": [{"operation": operation}]}


def some(*texts: str) -> st.SearchStrategy[list[str]]:
    """One or two of *texts*."""
    return st.lists(st.sampled_from(texts), min_size=1, max_size=2, unique=True)


PRINCIPALS = some(
    "cluster1/ns/default/sa/a", "cluster2/ns/default/sa/b", "cluster1/ns/*", "*/sa/b2", "*", "nowhere/ns/x/sa/y"
)
NAMESPACES = some("default", "def*", "*em", "*", "other")
TOKENS = some("issuer/one", "issuer/*", "*")
SOURCES = st.fixed_dictionaries(
    {},
    optional={
        "principals": PRINCIPALS,
        "notPrincipals": PRINCIPALS,
        "namespaces": NAMESPACES,
        "notNamespaces": NAMESPACES,
    },
)
WITH_TOKENS = st.fixed_dictionaries(
    {}, optional={"principals": PRINCIPALS, "requestPrincipals": TOKENS, "notRequestPrincipals": TOKENS}
)
METHODS = some("GET", "POST", "P*", "*T", "*")
PATHS = some("/a", "/a*", "/a/b", "*b", "*")
TEMPLATES = some("/a*", "/{*}", "/a/{**}", "/a/{*}/b")
PORTS = some("8080", "9090", "80")


def operations(paths: st.SearchStrategy[list[str]]) -> st.SearchStrategy[dict[str, Any]]:
    """Operations with patterns of everything."""
    fields = {"methods": METHODS, "paths": paths, "ports": PORTS}
    negative = {f"not{name[0].upper()}{name[1:]}": found for name, found in fields.items()}
    return st.fixed_dictionaries({}, optional={**fields, **negative})


CONDITIONS = st.one_of(
    st.builds(lambda values: {"key": "source.principal", "values": values}, PRINCIPALS),
    st.builds(lambda values: {"key": "source.namespace", "notValues": values}, NAMESPACES),
    st.builds(lambda values: {"key": "destination.port", "values": values}, PORTS),
)


def rules(loose: bool) -> st.SearchStrategy[dict[str, Any]]:
    """Rules with up to two of everything; *loose* ones also ask for tokens and templates of paths."""
    sources = st.one_of(SOURCES, WITH_TOKENS) if loose else SOURCES
    paths = st.one_of(PATHS, TEMPLATES) if loose else PATHS

    def optional(key: str, each: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(each.filter(bool).map(lambda found: {key: found}), min_size=1, max_size=2)

    return st.fixed_dictionaries(
        {},
        optional={
            "from": optional("source", sources),
            "to": optional("operation", operations(paths)),
            "when": st.lists(CONDITIONS, min_size=1, max_size=2),
        },
    )


@st.composite
def policies(draw: st.DrawFn, loose: bool = False) -> list[dict[str, Any]]:
    """Up to three AuthorizationPolicies of users."""
    found = []
    for number in range(draw(st.integers(0, 3))):
        spec: dict[str, Any] = {"rules": draw(st.lists(rules(loose), max_size=2))}
        if draw(st.booleans()):
            spec["selector"] = {"matchLabels": draw(st.sampled_from([{"app": "b"}, {"version": "v1"}, {"app": "c"}]))}
        if draw(st.booleans()):
            spec["action"] = "DENY"
        found.append(user(f"user-{number}", draw(st.sampled_from(["default", ROOT, "elsewhere"])), **spec))
    return found


CALLS = st.builds(
    Asked,
    principal=st.sampled_from(["", "cluster1/ns/default/sa/a", "cluster2/ns/default/sa/b2", "cluster1/ns/system/sa/b"]),
    port=st.sampled_from([8080, 9090]),
    method=st.sampled_from(["GET", "POST", "PUT"]),
    path=st.sampled_from(["/", "/a", "/a/", "/a/b", "/xb", "/a/b/c", "/b"]),
    token=st.sampled_from(["", "issuer/one", "other/one"]),
    is_http=st.booleans(),
)


@settings(max_examples=250, deadline=None)
@given(policies(loose=True), CALLS, st.sampled_from(["a", "b"]))
def test_one_call_at_a_time_says_the_same(found: list[dict[str, Any]], asked: Asked, app: str) -> None:
    """Of a call of which everything is known the answer is yes or no, and it is that of the plain reading."""
    labels = {"app": app, "version": "v1"}
    tokens = {"issuer/one", "issuer/*", "*"}
    call = Call(
        principal=asked.principal,
        port=asked.port,
        method=asked.method,
        path=asked.path,
        is_http=asked.is_http,
        assumed={question("request.auth.principal", each): matches(each, asked.token) for each in tokens},
    )

    decision = Policies(found, ROOT).decide(Pods("default", labels), call)

    assert decision.answer is (Answer.YES if allowed(found, ROOT, "default", labels, asked) else Answer.NO)


POLICIES = (
    (),
    (access("p", ("b",), "a"),),
    (access("p", ("b",), "a", methods=("GET",)), access("q", ("a", "c"), "nobody")),
    (
        access("p", ("a", "c"), "a", paths=("/a*",)),
        access("q", ("b",), "b", methods=("GET", "POST"), paths=("/a", "*b")),
    ),
    (access("p", ()), access("q", ("c",), "a")),
)
STANCES = st.sampled_from(GlobalAccessPolicy)


@cache
def translated(number: int, stance: GlobalAccessPolicy) -> Fleet:
    """The fleet of `everything` with some of `POLICIES`."""
    return fleet(everything(*POLICIES[number], stance=stance))


@st.composite
def fleets(draw: st.DrawFn, loose: bool = False) -> Fleet:
    """The fleet of `everything` with some policies, ours and users'."""
    own = {cluster: draw(policies(loose)) for cluster in CLUSTERS}
    return msgspec.structs.replace(translated(draw(st.integers(0, len(POLICIES) - 1)), draw(STANCES)), own=own)


@settings(max_examples=40, deadline=None)
@given(
    fleets(loose=True),
    st.sampled_from([Request(), Request(method="GET"), Request(port=80, path="/a")]),
)
def test_the_matrix_says_of_every_pair_what_a_single_answer_does(found: Fleet, request_: Request) -> None:
    reachability = Reachability(found)

    matrix = reachability.matrix(reachability.services, reachability.callers, request_)

    single = Reachability(found)
    pairs = 0
    for callees, row in zip(matrix.callees, matrix.cells, strict=True):
        for callers, cell in zip(matrix.callers, row, strict=True):
            for callee, caller in itertools.product(callees, callers):
                assert single.can(caller, callee, request_).answer is cell, (spelled(caller), spelled(callee))
                pairs += 1
    assert pairs == len(reachability.services) * len(reachability.callers)


EVERY_METHOD = ("GET", "POST", "PUT", "PATCH", "XT", "X")
EVERY_PATH = (
    "/",
    "/a",
    "/ab",
    "/ax",
    "/a/b",
    "/a/bx",
    "/a/x/b",
    "/xb",
    "/x",
    "/a/xx",
    "/x/b",
    "/x/x",
    "/a/x/x",
    "/axb",
    "/a/bxb",
)
"""Together they fall under every combination of the patterns that policies here are made of."""


def passing(found: Fleet, caller: Ref, callee: Ref, *, tokens: Sequence[str] = ("",)) -> set[tuple[Any, ...]]:
    """By the plain reading, the requests that reach all pods of a service; empty if its cluster is not known."""
    reachability = Reachability(found)
    policies = [
        output.manifest()
        for key, output in found.emitted.policies.items()
        if key.cluster == callee.cluster and key.object.kind == AUTHORIZATION_POLICY.kind
    ]
    policies += found.own.get(callee.cluster, ())
    number = reachability.callers[caller]
    target = reachability.find_callee(callee)
    passed = set()
    for port, method, path, token, labels in itertools.product(
        target.ports, EVERY_METHOD, EVERY_PATH, tokens, target.pods
    ):
        asked = Asked(reachability.principal_of(number), port.target, method, path, token, port.is_http)
        if allowed(policies, ROOT, callee.namespace, dict(labels), asked):
            passed.add((port, method, path, token, labels["version"]))
    return passed


@settings(max_examples=80, deadline=None)
@given(fleets(), st.sampled_from(NAMES))
def test_an_open_answer_is_what_all_requests_come_to(found: Fleet, name: str) -> None:
    reachability = Reachability(found)
    caller, callee = named("a-v1@cluster1"), named(f"{name}@cluster2")
    target = reachability.find_callee(callee)

    passed = passing(found, caller, callee)

    every = len(target.ports) * len(EVERY_METHOD) * len(EVERY_PATH) * len(target.pods)
    expected = Reach.YES if len(passed) == every else Reach.DEPENDS if passed else Reach.NO
    assert reachability.can(caller, callee).answer is expected


def both(before: Fleet, after: Fleet) -> tuple[Reachability, Reachability]:
    """Two fleets to be compared."""
    numbered, effects = identities(before, after), Effects()
    return Reachability(before, numbered, effects), Reachability(after, numbered, effects)


@settings(max_examples=50, deadline=None)
@given(fleets(), fleets(), st.sampled_from(NAMES))
def test_a_difference_is_that_of_the_requests_that_pass(before: Fleet, after: Fleet, name: str) -> None:
    caller, callee = named("a-v1@cluster1"), named(f"{name}@cluster2")

    changes = difference(*both(before, after), [callee], [caller])

    was, is_ = passing(before, caller, callee), passing(after, caller, callee)
    assert [(change.opens, change.closes) for change in changes] == (
        [(bool(is_ - was), bool(was - is_))] if is_ != was else []
    )


@settings(max_examples=50, deadline=None)
@given(fleets(loose=True), fleets(loose=True), st.sampled_from(NAMES))
def test_with_tokens_and_templates_too_no_opening_is_missed(before: Fleet, after: Fleet, name: str) -> None:
    """What tokens hold cannot be known, so it may report an opening for a token or a path that there is not."""
    caller, callee = named("a-v1@cluster1"), named(f"{name}@cluster2")
    tokens = ("", "issuer/one", "issuer/two", "other/one")

    changes = difference(*both(before, after), [callee], [caller])

    was = passing(before, caller, callee, tokens=tokens)
    is_ = passing(after, caller, callee, tokens=tokens)
    assert not (is_ - was) or any(change.opens for change in changes)
    assert not (was - is_) or any(change.closes for change in changes)


@settings(max_examples=40, deadline=None)
@given(fleets(), fleets())
def test_the_difference_holds_every_pair_of_which_the_matrices_differ(before: Fleet, after: Fleet) -> None:
    first, second = both(before, after)

    changes = difference(first, second, first.services, first.callers)

    changed = {
        pair: (change.before, change.after)
        for change in changes
        for pair in itertools.product(change.callers, change.callees)
    }
    for caller, callee in itertools.product(first.callers, first.services):
        answers = first.can(caller, callee).answer, second.can(caller, callee).answer
        if answers[0] is not answers[1]:
            assert changed[caller, callee] == answers
        elif (caller, callee) in changed:
            assert changed[caller, callee] == answers == (Reach.DEPENDS, Reach.DEPENDS)


def test_a_fleet_does_not_differ_from_itself() -> None:
    found = fleet(everything(access("p", ("b",), "a")))

    assert difference(*both(found, found), Reachability(found).services, Reachability(found).callers) == ()


def test_another_path_opens_though_the_answer_stays_that_it_depends() -> None:
    before = fleet(everything(access("p", ("b",), "a", paths=("/x*",))))
    after = fleet(everything(access("p", ("b",), "a", paths=("/y*",))))

    changes = difference(*both(before, after), [named("b@cluster1")], [named("a-v1@cluster1")])

    assert [(change.before, change.after, change.opens, change.closes) for change in changes] == [
        (Reach.DEPENDS, Reach.DEPENDS, True, True)
    ]


def test_a_rule_of_another_caller_changes_nothing_for_one_with_a_token() -> None:
    """What stays open on both sides is assumed to be the same on both."""
    token = AccessPolicy(
        metadata=meta("token"),
        spec=AccessPolicySpec(
            source_selector=(
                IdentitySelector(
                    kube_identity_matcher=KubeIdentityMatcher(clusters=("cluster2",)),
                    request_identity_matcher=RequestIdentityMatcher(request_principals=("issuer/*",)),
                ),
            )
        ),
    )
    before, after = fleet(everything(token)), fleet(everything(token, access("p", ("b",), "a")))

    changes = difference(*both(before, after), Reachability(before).services, Reachability(before).callers)

    assert {caller for change in changes for caller in change.callers} == {named("a-v1@cluster1")}


def test_a_service_that_comes_opens_and_one_that_goes_closes() -> None:
    found = everything(stance=GlobalAccessPolicy.DISABLED)
    without = [each for each in found if each.metadata.name != "c-default-cluster1"]
    callee, caller = named("c@cluster1"), named("a-v1@cluster1")

    comes = difference(*both(fleet(without), fleet(found)), [callee], [caller])
    goes = difference(*both(fleet(found), fleet(without)), [callee], [caller])

    assert [(change.opens, change.closes) for change in comes + goes] == [(True, False), (False, True)]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(POLICIES), STANCES)
def test_access_alone_is_translated_as_the_engine_does(
    found: tuple[AccessPolicy, ...], stance: GlobalAccessPolicy
) -> None:
    resources = [*everything(*found, stance=stance), gateway("cluster3"), mesh("cluster3"), service("cluster3", "a")]
    engine, emission = Engine(), Emission()
    for resource in resources:
        engine.set(resource)
        emission.set(resource)
    engine.run()

    emitted = emission.run()

    assert {key: output.payload() for key, output in emitted.policies.items()} == {
        key: output.payload()
        for key, output in engine.outputs().items()
        if key.object.kind == AUTHORIZATION_POLICY.kind
    }
    for resource in resources:
        if isinstance(resource, Destination):
            key = StatusKey(Destination.KIND, resource.metadata.namespace, resource.metadata.name)
            status: Any = engine.status(key)
            applied = status.applied_federation
            known = {each.ref for each in applied.federated_to_meshes} if applied else set()
            assert emitted.known_to.get(resource.ref, frozenset()) == known
