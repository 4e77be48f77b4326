"""What of a policy Istio's own kinds have no field for, as EnvoyFilters: csrf, external authorisation, rate limits.

A filter stands in the chain of every proxy that has such a route and does nothing there by itself; what it does is said
route by route. A route is found by its name, which is made of what is said (`route_name`): so equal routes share one
EnvoyFilter, and a route never meets what was said of another, in whatever order objects are written.
Source: reference, Policy; https://istio.io/latest/docs/reference/config/networking/envoy-filter/
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from isthmus.api.common import StringMatch
from isthmus.api.traffic_policy import CsrfPolicy
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem

ROUTER = "envoy.filters.http.router"
CONNECTION_MANAGER = "envoy.filters.network.http_connection_manager"
CSRF = "envoy.filters.http.csrf"
_CSRF_TYPE = "type.googleapis.com/envoy.extensions.filters.http.csrf.v3.CsrfPolicy"
_PARTS_OF_A_PERCENT = 10_000  # Envoy counts in millionths

_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class RouteFilter(msgspec.Struct, frozen=True, gc=False):
    """What the *filter* of that name does with the requests of a route: a message of Envoy's API as JSON."""

    filter: str
    config: dict[str, Any]


def route_name(*said: RouteFilter) -> str:
    """A name for routes of which *said* is said, the same wherever it is."""
    return f"{base_of(said[0])}-{sha256(_ENCODE(said)).hexdigest()[:16]}"


def base_of(said: RouteFilter) -> str:
    """What kind of filter it is, such as ``csrf``, whatever else is in its name."""
    return said.filter.split(".")[3]


def insertion(context: str, said: RouteFilter, *, disabled: bool = False) -> istio.ConfigPatch:
    """Puts a filter before the router of every HTTP chain of *context*; *disabled* where no route enables it."""
    value: dict[str, Any] = {"name": said.filter, "typed_config": said.config}
    return istio.ConfigPatch(
        apply_to="HTTP_FILTER",
        match=istio.ConfigMatch(
            context=context,
            listener=istio.ListenerMatch(
                filter_chain=istio.FilterChainMatch(
                    filter=istio.FilterMatch(name=CONNECTION_MANAGER, sub_filter=istio.FilterMatch(name=ROUTER))
                )
            ),
        ),
        patch=istio.Patch(operation="INSERT_BEFORE", value={**value, "disabled": True} if disabled else value),
    )


def on_route(context: str, name: str, *said: RouteFilter) -> istio.ConfigPatch:
    """Says *said* of the routes called *name*."""
    configs = {each.filter: each.config for each in said}
    return istio.ConfigPatch(
        apply_to="HTTP_ROUTE",
        match=istio.ConfigMatch(
            context=context,
            route_configuration=istio.RouteConfigurationMatch(
                vhost=istio.VirtualHostMatch(route=istio.RouteMatch(name=name))
            ),
        ),
        patch=istio.Patch(operation="MERGE", value={"typed_per_filter_config": configs}),
    )


def csrf(policy: CsrfPolicy) -> RouteFilter:
    """*policy* as Envoy's CsrfPolicy; with nothing enabled, an order to let everything pass.

    Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/csrf_filter
    """
    share = 100.0 if policy.percentage is None else policy.percentage
    config: dict[str, Any] = {
        "@type": _CSRF_TYPE,
        "filter_enabled": _share(share if policy.filter_enabled else 0.0),
    }
    if policy.shadow_enabled and not policy.filter_enabled:
        config["shadow_enabled"] = _share(share)
    if policy.additional_origins:
        config["additional_origins"] = [_string(origin) for origin in policy.additional_origins]
    return RouteFilter(CSRF, config)


def idle() -> RouteFilter:
    """What stands in chains, for routes of which nothing is said."""
    return csrf(CsrfPolicy())


def csrf_problems(policy: CsrfPolicy, path: str) -> Iterator[Problem]:
    """What is wrong with *policy*, apart from regular expressions."""
    if policy.percentage is not None and not 0 <= policy.percentage <= 100:
        yield Problem(f"{path}.percentage", "OutOfRange", f"{policy.percentage:g} is not from 0 to 100")
    for i, origin in enumerate(policy.additional_origins):
        if not (origin.exact or origin.prefix or origin.regex or origin.suffix):
            message = "needs exact, prefix, suffix or regex, and not empty"
            yield Problem(f"{path}.additionalOrigins[{i}]", "MissingField", message)
        elif "://" in (origin.exact or origin.prefix or ""):
            message = "is without a scheme: Envoy compares host and port, such as shop.example.com or localhost:8080"
            yield Problem(f"{path}.additionalOrigins[{i}]", "InvalidOrigin", message)


def _share(percent: float) -> dict[str, Any]:
    within = min(max(percent, 0.0), 100.0)  # policies with others are refused, but may be looked at all the same
    return {"default_value": {"numerator": round(within * _PARTS_OF_A_PERCENT), "denominator": "MILLION"}}


def _string(match: StringMatch) -> dict[str, Any]:
    """*match* as Envoy's StringMatcher, in which a regular expression is for the whole string, too."""
    if match.regex is not None:
        return {"safe_regex": {"regex": match.regex}}
    text = {"exact": match.exact or ""}
    if match.prefix is not None:
        text = {"prefix": match.prefix}
    elif match.suffix is not None:
        text = {"suffix": match.suffix}
    return {**text, "ignore_case": True} if match.ignore_case else {**text}
