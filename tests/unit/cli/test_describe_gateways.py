"""`meshctl describe` of gateways' kinds, with the statuses that the engine gives them."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.api.base import Resource
from isthmus.api.parse import parse
from isthmus.api.virtual_host import Route
from isthmus.cli.description import describe_object
from isthmus.cli.description.gateways import done, matched
from isthmus.cli.description.parts import Description, Known
from isthmus.translate import Engine, StatusKey
from tests.golden import CASES, load_yaml


def described(case: str, kind: str, name: str, namespace: str = "gloo-mesh", theme: str = "gateways") -> Description:
    """What is said of an object of a case, once it is translated."""
    engine = Engine()
    found: Resource | None = None
    for manifest in load_yaml(CASES / theme / case / "in.yaml"):
        resource = parse(manifest)
        assert isinstance(resource, Resource)
        engine.set(resource)
        if (resource.KIND.kind, resource.metadata.namespace, resource.metadata.name) == (kind, namespace, name):
            found = resource
    engine.run()
    assert found is not None
    status = engine.status(StatusKey(found.KIND, namespace, name))
    return describe_object(msgspec.structs.replace(found, status=status), Known())


def rows(description: Description, title: str) -> tuple[tuple[str, ...], ...]:
    return next(section.rows for section in description.sections if section.title == title)


def test_a_gateway_tells_where_it_listens_and_for_whom() -> None:
    found = described("routes-are-delegated", "VirtualGateway", "shop")

    assert found.facts == {"State": "ACCEPTED", "Ports": "http2", "Takes": "requests"}
    assert rows(found, "Ingress gateways") == (("istio-ingressgateway-istio-system-cluster1", "203.0.113.1", "80"),)
    assert rows(found, "Virtual hosts") == (("gloo-mesh/shop",),)
    assert ("shop/deep",) in rows(found, "Route tables")
    assert [row[:2] for row in rows(found, "Istio gateways")] == [("cluster1", "istio-system")]


def test_a_host_tells_its_routes_in_order_and_the_policies_on_them() -> None:
    found = described("options-and-policies-of-routes", "VirtualHost", "shop")

    assert found.facts["Domains"] == "shop.example.com"
    assert rows(found, "Routes") == (
        ("inline", "prefix /inline", "default/reviews on cluster1"),
        ("inherited", "prefix /inherited", "default/reviews on cluster1"),
        ("below", "prefix /below", "delegate to gloo-mesh/below"),
        ("gone", "anything", "answer 410"),
    )
    assert rows(found, "Traffic policies") == (
        ("gloo-mesh/all-of-the-host", "*"),
        ("gloo-mesh/younger", "inline, inherited"),
    )
    assert "outlierDetection" in rows(found, "Problems")[0][1]


def test_a_policy_tells_what_it_sets_for_routes_of_gateways_and_which() -> None:
    found = described("limits-that-several-routes-share", "TrafficPolicy", "limits", theme="filters")

    assert rows(found, "Sets") == (("rateLimit", "RateLimitClientConfig gloo-mesh/everybody"),)
    assert rows(found, "Routes of gateways") == (("shop.gloo-mesh (VirtualHost)", "*"),)


def test_a_table_tells_what_leads_to_it() -> None:
    found = described("routes-are-delegated", "RouteTable", "deep", "shop")

    assert rows(found, "Selected by") == (("RouteTable", "shop/old"), ("VirtualGateway", "gloo-mesh/shop"))


@pytest.mark.parametrize(
    ("case", "name", "taken"),
    [
        ("tls-ends-at-the-gateway", "https", "requests with TLS SIMPLE"),
        ("tls-ends-at-the-gateway", "to-https", "requests, sent to https"),
        ("connections-are-passed-on", "mongo", "connections"),
    ],
)
def test_a_gateway_tells_what_it_takes(case: str, name: str, taken: str) -> None:
    assert described(case, "VirtualGateway", name).facts["Takes"] == taken


@pytest.mark.parametrize(
    ("route", "requests", "action"),
    [
        ({"matchers": [{}]}, "anything", "nothing"),
        (
            {
                "matchers": [{"method": "GET", "uri": {"regex": "/x"}, "headers": [{"name": "a", "value": "b"}]}],
                "redirectAction": {"hostRedirect": "example.com", "pathRedirect": "/y", "httpsRedirect": True},
            },
            "GET regex /x header a=b",
            "redirect to https://example.com/y",
        ),
        (
            {
                "matchers": [
                    {"headers": [{"name": "a", "invertMatch": True}], "queryParameters": [{"name": "q", "value": "1"}]}
                ],
                "routeAction": {
                    "destinations": [
                        {"virtualDestination": {"name": "v", "namespace": "n"}, "weight": 3},
                        {"staticDestination": {"name": "s", "namespace": "n"}},
                    ]
                },
            },
            "no header a query q=1",
            "virtual destination n/v 3, destination n/s",
        ),
        (
            {"matchers": [{"uri": {"prefix": "/p"}}], "delegateAction": {"selector": {"labels": {"a": "b"}}}},
            "prefix /p",
            "delegate to tables with a=b",
        ),
    ],
)
def test_routes_are_told_in_a_few_words(route: dict[str, object], requests: str, action: str) -> None:
    found = msgspec.convert(route, Route)

    assert (matched(found.matchers[0]), done(found)) == (requests, action)
