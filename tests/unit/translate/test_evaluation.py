"""Authorization on paper says what Istio's documentation says of the same policies."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.translate.access.evaluation import (
    ANY,
    Answer,
    Call,
    Callers,
    Decision,
    Policies,
    Request,
    Workload,
    judge,
    normal_path,
    open_questions,
)
from isthmus.translate.access.patterns import matches, representatives, template

YES, NO, DEPENDS = Answer.YES, Answer.NO, Answer.DEPENDS
ROOT = "istio-system"
HTTPBIN = Workload("foo", {"app": "httpbin", "version": "v1"})
SLEEP, DEV, TEST = "cluster.local/ns/default/sa/sleep", "cluster.local/ns/dev/sa/any", "cluster.local/ns/test/sa/any"
NOBODY = ""  # without mutual TLS


def policy(name: str = "httpbin", namespace: str = "foo", *, dry: bool = False, **spec: Any) -> dict[str, Any]:
    """An AuthorizationPolicy as its API server gives it."""
    annotations = {"istio.io/dry-run": "true"} if dry else {}
    metadata = {"name": name, "namespace": namespace, "annotations": annotations}
    return {"kind": "AuthorizationPolicy", "metadata": metadata, "spec": spec}


def rule(*, source: Any = None, operation: Any = None, when: Any = None) -> dict[str, Any]:
    """A rule with one source, one operation, one condition, or without."""
    return {
        **({"from": [{"source": source}]} if source is not None else {}),
        **({"to": [{"operation": operation}]} if operation is not None else {}),
        **({"when": [when]} if when is not None else {}),
    }


def decide(*policies: dict[str, Any], workload: Workload = HTTPBIN, **call: Any) -> Decision:
    """What *policies* say of a GET of /info by sleep, or of what *call* makes of it."""
    asked = {"principal": SLEEP, "port": 8000, "method": "GET", "path": "/info", **call}
    return Policies(policies, ROOT, ("cluster.local",)).decide(workload, Call(**asked))


# --- actions ----------------------------------------------------------------------------------------------------------


def test_no_policy_allows() -> None:
    assert decide().answer is YES


@pytest.mark.parametrize(
    ("spec", "answer"),
    [({}, NO), ({"rules": []}, NO), ({"rules": [{}]}, YES), ({"rules": [None]}, NO), ({"action": "AUDIT"}, YES)],
    ids=["nothing", "no-rules", "everything", "null", "audit"],
)
def test_an_allow_policy_allows_what_a_rule_matches_and_nothing_else(spec: dict[str, Any], answer: Answer) -> None:
    assert decide(policy(**spec)).answer is answer


def test_deny_goes_before_allow() -> None:
    decision = decide(policy("allow", rules=[{}]), policy("deny", action="DENY", rules=[{}]))

    assert decision == Decision(NO, "a DENY policy matches", ("foo/deny",))


def test_one_allow_policy_that_matches_is_enough_and_is_named() -> None:
    get = policy("get", rules=[rule(operation={"methods": ["GET"]})])
    post = policy("post", rules=[rule(operation={"methods": ["POST"]})])

    assert decide(get, post) == Decision(YES, "an ALLOW policy matches", ("foo/get",))
    assert decide(get, post, method="PUT") == Decision(NO, "no ALLOW policy matches", ("foo/get", "foo/post"))


def test_what_a_custom_policy_asks_somebody_else_is_open_unless_denied() -> None:
    custom = policy("ask", action="CUSTOM", provider={"name": "opa"}, rules=[rule(operation={"paths": ["/info"]})])
    deny = policy("deny", action="DENY", rules=[rule(operation={"methods": ["DELETE"]})])

    assert decide(custom, deny) == Decision(
        DEPENDS, "a CUSTOM policy asks somebody else", ("foo/ask",), ("provider opa agrees",)
    )
    assert decide(custom, deny, path="/other").answer is YES
    assert decide(custom, deny, method="DELETE").answer is NO
    assert decide(custom, assumed={"provider opa agrees": True}).answer is YES
    assert decide(custom, assumed={"provider opa agrees": False}).answer is NO


def test_a_dry_run_decides_nothing() -> None:
    assert decide(policy(dry=True)).answer is YES
    assert decide(policy("deny", dry=True, action="DENY", rules=[{}])).answer is YES


def test_somebody_else_is_asked_in_a_dry_run_too() -> None:
    """Istio takes the annotation of ALLOW and DENY policies alone."""
    ask = policy("ask", dry=True, action="CUSTOM", provider={"name": "opa"}, rules=[{}])

    assert decide(ask).answer is DEPENDS


def test_a_port_that_there_is_not_is_none() -> None:
    """As a rule with a port that is no number: of an ALLOW policy it is left out, another policy gets wider."""
    beyond = [rule(operation={"ports": ["65536"]})]

    assert decide(policy(rules=[rule(operation={"notPorts": ["65536"]})])).answer is NO
    assert decide(policy(action="DENY", rules=beyond)).answer is NO


def test_an_account_without_a_namespace_is_of_the_policys_own() -> None:
    """Also where another policy says the same in another namespace."""
    only = [rule(source={"serviceAccounts": ["sleep"]})]
    everywhere = (policy(namespace="foo", rules=only), policy(namespace="default", rules=only))

    assert decide(*everywhere).answer is NO
    assert decide(*everywhere, workload=Workload("default", {})).answer is YES


def test_a_policy_of_the_root_namespace_counts_once_there() -> None:
    (found,) = Policies([policy("all", ROOT, rules=[{}])], ROOT).of(Workload(ROOT, {}))

    assert found.key == f"{ROOT}/all"


# --- whom policies are for --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("namespace", "spec", "applies"),
    [
        ("foo", {}, True),
        ("bar", {}, False),
        (ROOT, {}, True),
        ("foo", {"selector": {"matchLabels": {"app": "httpbin"}}}, True),
        ("foo", {"selector": {"matchLabels": {"app": "httpbin", "version": "v2"}}}, False),
        (ROOT, {"selector": {"matchLabels": {"version": "v1"}}}, True),
        (ROOT, {"selector": {"matchLabels": {"istio": "ingressgateway"}}}, False),
        ("bar", {"selector": {"matchLabels": {"app": "httpbin"}}}, False),
        ("foo", {"targetRefs": [{"kind": "Gateway", "name": "web"}]}, False),
        ("foo", {"targetRef": {"kind": "Service", "name": "httpbin"}}, False),
    ],
)
def test_a_policy_is_for_its_namespace_or_all_if_in_the_root_and_for_what_it_selects(
    namespace: str, spec: dict[str, Any], applies: bool
) -> None:
    """Without rules it denies, so that it shows where it applies."""
    assert decide(policy(namespace=namespace, **spec)).answer is (NO if applies else YES)


def test_a_policy_with_a_target_is_for_the_pods_of_that_gateway() -> None:
    gateway = Workload("foo", {"gateway.networking.k8s.io/gateway-name": "web"})
    of = policy(targetRefs=[{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web"}])

    assert decide(of, workload=gateway).answer is NO
    assert decide(of, workload=Workload("bar", gateway.labels)).answer is YES


# --- rules ------------------------------------------------------------------------------------------------------------

REFERENCE = policy(
    rules=[
        {
            "from": [{"source": {"principals": [SLEEP]}}, {"source": {"namespaces": ["dev"]}}],
            "to": [
                {"operation": {"methods": ["GET"], "paths": ["/info*"]}},
                {"operation": {"methods": ["POST"], "paths": ["/data"]}},
            ],
        }
    ]
)
"""The first example of the reference, without its token."""


@pytest.mark.parametrize(
    ("principal", "method", "path", "answer"),
    [
        (SLEEP, "GET", "/info", YES),
        (SLEEP, "GET", "/information?x=1", YES),
        (DEV, "POST", "/data", YES),
        (SLEEP, "POST", "/info", NO),
        (SLEEP, "POST", "/data/1", NO),
        (SLEEP, "get", "/info", NO),
        (TEST, "GET", "/info", NO),
        (NOBODY, "GET", "/info", NO),
        ("cluster.local/ns/dev/sa/sleep", "GET", "/info", YES),
    ],
)
def test_alternatives_are_ored_and_fields_are_anded(principal: str, method: str, path: str, answer: Answer) -> None:
    assert decide(REFERENCE, principal=principal, method=method, path=path).answer is answer


@pytest.mark.parametrize(
    ("source", "matching", "others"),
    [
        ({"principals": ["*"]}, (SLEEP, DEV), (NOBODY,)),
        ({"principals": ["cluster.local/ns/default/*"]}, (SLEEP,), (DEV, NOBODY)),
        ({"principals": ["*/sa/sleep"]}, (SLEEP,), (DEV, NOBODY)),
        ({"principals": [SLEEP.upper()]}, (), (SLEEP,)),
        ({"notPrincipals": [SLEEP]}, (DEV, NOBODY), (SLEEP,)),
        ({"notPrincipals": ["*"]}, (NOBODY,), (SLEEP, DEV)),
        ({"namespaces": ["de*"]}, (SLEEP, DEV), (TEST, NOBODY)),
        ({"namespaces": ["*st"]}, (TEST,), (DEV, NOBODY)),
        ({"namespaces": ["*"]}, (SLEEP, DEV), (NOBODY,)),
        ({"notNamespaces": ["dev"]}, (SLEEP, NOBODY), (DEV,)),
        ({"principals": [SLEEP], "notNamespaces": ["default"]}, (), (SLEEP, DEV)),
        ({"serviceAccounts": ["default/sleep"]}, (SLEEP,), (DEV, NOBODY)),
        ({"serviceAccounts": ["any"]}, ("cluster.local/ns/foo/sa/any",), (DEV,)),
        ({"notServiceAccounts": ["default/sleep"]}, (DEV, NOBODY), (SLEEP,)),
        ({"trustDomains": ["cluster.*"]}, (SLEEP,), ("other/ns/default/sa/sleep", NOBODY)),
        ({"trustDomains": ["other"]}, ("other/ns/default/sa/sleep",), (SLEEP,)),
        ({"notTrustDomains": ["*"]}, (NOBODY,), (SLEEP,)),
        ({}, (SLEEP, NOBODY), ()),
        ({"principals": []}, (SLEEP, NOBODY), ()),
    ],
)
def test_sources(source: dict[str, Any], matching: tuple[str, ...], others: tuple[str, ...]) -> None:
    """A caller without a certificate has no identity: what asks for one misses it, what excludes one does not."""
    allow = policy(rules=[rule(source=source)])

    assert {name: decide(allow, principal=name).answer for name in (*matching, *others)} == {
        **dict.fromkeys(matching, YES),
        **dict.fromkeys(others, NO),
    }


@pytest.mark.parametrize(
    ("operation", "call", "answer"),
    [
        ({"ports": ["8000"]}, {}, YES),
        ({"ports": ["80"]}, {}, NO),
        ({"ports": ["80"]}, {"port": 0}, DEPENDS),
        ({"notPorts": ["8000"]}, {}, NO),
        ({"methods": ["*"]}, {"method": ""}, YES),
        ({"methods": ["P*"]}, {"method": "PATCH"}, YES),
        ({"methods": ["GET"]}, {"method": ""}, DEPENDS),
        ({"notMethods": ["GET"]}, {"method": "HEAD"}, YES),
        ({"paths": ["*/info"]}, {"path": "/v1/info"}, YES),
        ({"paths": ["*"]}, {"path": ""}, YES),
        ({"paths": ["/info"]}, {"path": "/INFO"}, NO),
        ({"paths": ["/info"]}, {"path": "/a/../info#x"}, YES),
        ({"notPaths": ["/info"]}, {"path": "/./info"}, NO),
        ({"paths": ["/a/{*}/c"]}, {"path": "/a/b/c"}, YES),
        ({"paths": ["/a/{*}/c"]}, {"path": "/a/b/b/c"}, NO),
        ({"hosts": ["*.Example.com"]}, {"host": "www.EXAMPLE.com"}, YES),
        ({"hosts": ["example.com"]}, {"host": "example.com:8080"}, NO),
        ({"hosts": ["example.com"]}, {}, DEPENDS),
        ({"notHosts": ["*"]}, {}, NO),
    ],
)
def test_operations(operation: dict[str, Any], call: dict[str, Any], answer: Answer) -> None:
    assert decide(policy(rules=[rule(operation=operation)]), **call).answer is answer


@pytest.mark.parametrize(
    ("when", "call", "answer"),
    [
        ({"key": "source.principal", "values": [SLEEP]}, {}, YES),
        ({"key": "source.namespace", "notValues": ["default"]}, {}, NO),
        ({"key": "source.namespace", "values": ["d*"], "notValues": ["dev"]}, {"principal": DEV}, NO),
        ({"key": "source.serviceAccount", "values": ["default/sleep"]}, {}, YES),
        ({"key": "destination.port", "values": ["8000", "9000"]}, {}, YES),
        ({"key": "source.ip", "values": ["10.0.0.0/8"]}, {}, DEPENDS),
        ({"key": "request.auth.claims[iss]", "values": ["x"]}, {}, DEPENDS),
        ({"key": "request.headers[X-Team]", "values": ["a*"]}, {}, DEPENDS),
        ({"key": "request.headers[X-Team]", "values": ["a*"]}, {"headers": {"x-team": "abc"}}, YES),
        ({"key": "request.headers[X-Team]", "values": ["*"]}, {"headers": {}}, NO),
        ({"key": "request.headers[X-Team]", "notValues": ["abc"]}, {"headers": {}}, YES),
        ({"key": "request.headers[:method]", "values": ["G*"]}, {"headers": {"x-team": "abc"}}, YES),
        ({"key": "request.headers[Host]", "values": ["a.example"]}, {"host": "a.example", "headers": {"x": "y"}}, YES),
        ({"key": "request.headers[:authority]", "values": ["a.example"]}, {"headers": {"x": "y"}}, DEPENDS),
        ({"key": "request.headers[:scheme]", "values": ["https"]}, {"headers": {"x": "y"}}, DEPENDS),
        ({"key": "request.auth.audiences", "values": ["x"]}, {}, DEPENDS),
        ({"key": "source.trustDomain", "values": ["clu*.local"]}, {}, YES),
        ({"key": "source.trustDomain", "values": ["c*x"]}, {}, NO),
        ({"key": "source.trustDomain", "values": ["*"]}, {"principal": NOBODY}, NO),
        ({"key": "no.such.key", "values": ["x"]}, {}, NO),
        ({"key": "request.auth.nothing", "values": ["x"]}, {}, NO),
    ],
)
def test_conditions(when: dict[str, Any], call: dict[str, Any], answer: Answer) -> None:
    """What a call on paper does not tell is open; a rule with a key that Istio does not know is left out."""
    assert decide(policy(rules=[rule(when=when)]), **call).answer is answer


def test_what_is_open_is_named_and_can_be_assumed() -> None:
    deny = policy(
        "deny", action="DENY", rules=[rule(source={"notRequestPrincipals": ["*"]}, operation={"methods": ["POST"]})]
    )

    decision = decide(deny, method="")

    assert decision.depends_on == ("method is POST", "request.auth.principal is *")
    assert decide(deny, method="POST", assumed={"request.auth.principal is *": True}).answer is YES
    assert decide(deny, method="POST", assumed={"request.auth.principal is *": False}).answer is NO


def test_over_tcp_an_allow_rule_that_speaks_of_http_is_left_out_whole() -> None:
    """Even if another of its sources does not."""
    mixed = {"from": [{"source": {"principals": [SLEEP]}}, {"source": {"requestPrincipals": ["*"]}}]}

    assert decide(policy(rules=[mixed]), is_http=False).answer is NO
    assert decide(policy(rules=[mixed, rule(source={"principals": [SLEEP]})]), is_http=False).answer is YES
    assert decide(policy(rules=[rule(operation={"methods": ["GET"]})]), is_http=False).answer is NO


def test_over_tcp_a_deny_rule_loses_what_speaks_of_http_and_denies_more() -> None:
    deny = policy(action="DENY", rules=[rule(operation={"methods": ["GET"], "ports": ["8000"]})])

    assert decide(deny, is_http=False).answer is NO
    assert decide(deny, is_http=False, port=8001).answer is YES


@pytest.mark.parametrize(
    "condition",
    [
        {"key": "request.headers", "values": ["x"]},
        {"key": "request.headers[x", "notValues": ["x"]},
        {"key": "request.auth.claims", "values": ["x"]},
        {"key": "experimental.envoy.filters.a", "values": ["x"]},
        {"key": "source.ip", "values": ["10.0.0.0/99"]},
        {"key": "destination.ip", "notValues": ["here"]},
    ],
    ids=lambda condition: str(condition["key"]),
)
def test_what_cannot_be_read_makes_allow_rules_match_less_and_deny_rules_more(condition: dict[str, Any]) -> None:
    of_sleep = {"from": [{"source": {"principals": [SLEEP]}}], "when": [condition]}

    assert decide(policy(rules=[of_sleep])).answer is NO
    assert decide(policy("deny", action="DENY", rules=[of_sleep])).answer is NO
    assert decide(policy("deny", action="DENY", rules=[of_sleep]), principal=DEV).answer is YES


def test_a_port_that_is_no_number_makes_allow_rules_match_less_and_deny_rules_more() -> None:
    assert decide(policy(rules=[rule(operation={"ports": ["8000", "http"]})])).answer is NO
    assert decide(policy(action="DENY", rules=[rule(operation={"ports": ["http"]})])).answer is NO
    assert decide(policy(action="DENY", rules=[rule(operation={"ports": ["http", "80"]})])).answer is YES


@pytest.mark.parametrize(
    ("named", "principal", "answer"),
    [
        ("cluster.local/ns/default/sa/sleep", "new/ns/default/sa/sleep", YES),
        ("old/ns/default/sa/sleep", "new/ns/default/sa/sleep", YES),
        ("new/ns/default/sa/sleep", "old/ns/default/sa/sleep", YES),
        ("other/ns/default/sa/sleep", "new/ns/default/sa/sleep", NO),
        ("other/ns/default/sa/sleep", "other/ns/default/sa/sleep", YES),
        ("cluster.local/ns/default/sa/sleep", "cluster.local/ns/default/sa/sleep", NO),
        ("old/ns/*", "new/ns/default/sa/sleep", NO),
        ("*/ns/default/sa/sleep", "other/ns/default/sa/sleep", YES),
    ],
)
def test_a_trust_domain_and_its_aliases_pass_for_each_other(named: str, principal: str, answer: Answer) -> None:
    """Mesh ``new``, once ``old``. ``cluster.local`` in a policy is the mesh's own."""
    policies = Policies([policy(rules=[rule(source={"principals": [named]})])], ROOT, ("new", "old"))

    assert policies.decide(HTTPBIN, Call(principal=principal)).answer is answer


# --- many callers, and what is open -----------------------------------------------------------------------------------


def test_all_callers_are_judged_at_once() -> None:
    policies = Policies([REFERENCE], ROOT).of(HTTPBIN)
    principals = (SLEEP, DEV, TEST, NOBODY, SLEEP)

    masks = judge((each.effect for each in policies), Callers(principals), Request(method="GET", path="/info"))

    assert masks == (0b10011, 0b10011)


def test_equal_policies_have_one_effect() -> None:
    one, two = Policies([policy("a", rules=[{}]), policy("b", rules=[{}])], ROOT).of(HTTPBIN)

    assert one.effect is two.effect


def test_open_questions_are_those_that_matter_to_what_istio_reads() -> None:
    deny = policy(action="DENY", rules=[rule(operation={"methods": ["GET"], "ports": ["80"]})])
    effects = [each.effect for each in Policies([deny], ROOT).of(HTTPBIN)]

    assert set(open_questions(effects, Request())) == {"method is GET", "destination.port is 80"}
    assert set(open_questions(effects, Request(is_http=False))) == {"destination.port is 80"}
    assert set(open_questions(effects, Request(method="GET", port=1))) == set()


# --- text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "value", "found"),
    [
        ("abc", "abc", True),
        ("abc", "abcd", False),
        ("abc*", "abc", True),
        ("abc*", "abcd", True),
        ("*abc", "xabc", True),
        ("*abc", "abc", True),
        ("*", "x", True),
        ("*", "", False),
        ("a*c", "abc", False),
    ],
)
def test_patterns(pattern: str, value: str, found: bool) -> None:
    assert matches(pattern, value) is found


@pytest.mark.parametrize(
    ("pattern", "path", "found"),
    [
        ("/foo/{*}", "/foo/bar", True),
        ("/foo/{*}", "/foo/bar/baz", False),
        ("/foo/{*}", "/foo/", False),
        ("/foo/{**}/", "/foo/bar/", True),
        ("/foo/{**}/", "/foo//", True),
        ("/foo/{**}/", "/foo/bar", False),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/", True),
        ("/foo/{*}/bar/{**}", "/foo/buzz/bar/baz", True),
        ("/store/{**}/cart", "/store/a/b/cart", True),
        ("/a.b/{*}", "/axb/c", False),
    ],
)
def test_templates(pattern: str, path: str, found: bool) -> None:
    expression = template(pattern)

    assert expression is not None
    assert (expression.fullmatch(path) is not None) is found


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/a/b", "/a/b"),
        ("/a?b#c", "/a"),
        ("/a#b?c", "/a"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/../a", "/a"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/a\\b", "/a/b"),
        ("/a//b", "/a//b"),
        ("/.well-known", "/.well-known"),
        ("/", "/"),
    ],
)
def test_paths_are_normal_before_they_are_compared(path: str, normal: str) -> None:
    assert normal_path(path) == normal


PATTERNS = st.one_of(
    st.text("/ab", min_size=1, max_size=3),
    st.text("/ab", max_size=3).map("{}*".format),
    st.text("/ab", max_size=3).map("*{}".format),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(PATTERNS, max_size=5), st.text("/ab", max_size=5), st.sampled_from(["", "/"]))
def test_representatives_fall_under_every_combination_of_patterns(patterns: list[str], text: str, least: str) -> None:
    """Whatever text there is, one of them falls under the same patterns."""

    def under(each: str) -> tuple[bool, ...]:
        return tuple(matches(pattern, each) for pattern in patterns)

    assert under(f"{least}{text}x") in map(under, representatives(patterns, "?", least))
    if least + text:
        assert under(least + text) in map(under, representatives(patterns, "?", least))


def test_there_are_few_representatives() -> None:
    patterns = ("/a*", "/a/b*", "*.txt", "/a/b", "*", "/{*}", "x")

    found = set(representatives(patterns, "?", "/"))

    assert found == {"/a/b", "/?", "/?.txt", "/a?", "/a?.txt", "/a/b?", "/a/b?.txt"}


def test_of_a_template_only_what_is_between_its_ends_is_open() -> None:
    allow = policy(rules=[rule(operation={"paths": ["/a/{*}/b"]})])

    answers = {path: decide(allow, path=path).answer for path in representatives(["/a/{*}/b", "/c*"], ANY, "/")}

    assert answers == {f"{head}{ANY}{tail}": NO for head in ("/", "/a/", "/c") for tail in ("", "/b")} | {
        f"/a/{ANY}/b": DEPENDS
    }
