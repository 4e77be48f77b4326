"""Routes of VirtualHosts and RouteTables as written: what they say, and what is wrong with them by themselves.

Source: reference, VirtualHost; limits are those of Istio's validation, since what Istio refuses must never reach it:
https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from isthmus.api.common import HttpMatcher, ObjectSelector, WeightedDestination
from isthmus.api.traffic_policy import Policy
from isthmus.api.virtual_host import DelegateAction, RedirectAction, RedirectCode, Route, RouteAction, SortMethod
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.federation.objects import Pairs
from isthmus.translate.gateways.selection import selector_problems
from isthmus.translate.traffic.asking import extauth, limits_of
from isthmus.translate.traffic.conditions import ANY_REQUEST, Request, request_of
from isthmus.translate.traffic.fields import (
    Field,
    Value,
    fields_of,
    header_problems,
    headers_of,
    matcher_problems,
    policy_problems,
    reference_problems,
    service_problems,
    subset_problems,
)

NOT_OF_ROUTES = (Field.SHIFT, Field.OUTLIERS, Field.TLS)
"""Fields of a policy that are of destinations. Source: reference, VirtualHost."""

LARGEST_WEIGHT = 1_000_000  # parts of 100 of up to 20 such weights still fit Istio's 32 bits
LARGEST_BODY = 1_000_000  # bytes; Istio refuses more
_HOST = re.compile(r"[A-Za-z0-9\-._:\[\]]+")
_PATH = re.compile(r"/[^\s\x00-\x1f\x7f]*")
_CODES = {
    RedirectCode.MOVED_PERMANENTLY: 301,
    RedirectCode.FOUND: 302,
    RedirectCode.SEE_OTHER: 303,
    RedirectCode.TEMPORARY_REDIRECT: 307,
    RedirectCode.PERMANENT_REDIRECT: 308,
}


class Share(msgspec.Struct, frozen=True, gc=False):
    """A share of the requests and where it goes; port 0 where none was named.

    *service* without a cluster is a VirtualDestination, or with *external* a Destination outside any mesh.
    """

    service: Ref
    subset: Pairs
    port: int
    weight: int
    headers: istio.Headers | None = None
    external: bool = False


class Forward(msgspec.Struct, frozen=True, gc=False):
    """Requests are sent on, with *rewrite* in place of the path or prefix that matched if it is not empty."""

    shares: tuple[Share, ...]
    rewrite: str


class Delegate(msgspec.Struct, frozen=True, gc=False):
    """RouteTables decide."""

    refs: tuple[Ref, ...]
    selector: ObjectSelector | None
    by_specificity: bool


Answer = istio.HttpRedirect | istio.DirectResponse
"""What a gateway answers itself."""

UNREACHABLE = istio.DirectResponse(status=503)
"""What requests get that nothing can be done with: without it they would fall to a more general route."""


class RouteFacts(msgspec.Struct, frozen=True, gc=False):
    """A route without a fault of its own; *path* is where it is written."""

    path: str
    name: str
    requests: tuple[Request, ...]
    """Each once; never empty."""
    action: Forward | Delegate | Answer
    fields: dict[Field, Value]
    labels: dict[str, str]


def route_facts(route: Route, path: str, number: int) -> RouteFacts:
    """Facts of *route*, which is at field path *path* and without a problem; it is named by *number* if by nothing."""
    return RouteFacts(
        path=path,
        name=route.name or f"{number}",
        requests=tuple(dict.fromkeys(request_of(matcher) for matcher in route.matchers)) or (ANY_REQUEST,),
        action=_action(route),
        fields=fields_of_route(route.options),
        labels=route.labels,
    )


def fields_of_route(options: Policy | None) -> dict[Field, Value]:
    """What *options* set for the requests of a route."""
    of_routes = {field: value for field, value in fields_of(options).items() if field not in NOT_OF_ROUTES}
    if options is not None and options.extauth is not None:
        of_routes[Field.EXTAUTH] = extauth(options.extauth)
    if options is not None and options.rate_limit is not None:
        of_routes[Field.RATE_LIMIT] = limits_of(options.rate_limit)
    return of_routes


def _action(route: Route) -> Forward | Delegate | Answer:
    if route.redirect_action is not None:
        return _redirect(route.redirect_action)
    if route.direct_response_action is not None:
        answer = route.direct_response_action
        return istio.DirectResponse(
            status=answer.status, body=istio.HttpBody(string=answer.body) if answer.body else None
        )
    if route.delegate_action is not None:
        delegate = route.delegate_action
        by_specificity = delegate.sort_method is SortMethod.ROUTE_SPECIFICITY
        return Delegate(tuple(dict.fromkeys(ref.ref for ref in delegate.refs)), delegate.selector, by_specificity)
    assert route.route_action is not None, route
    even = not any(each.weight for each in route.route_action.destinations)
    return Forward(
        tuple(_share(each, even=even) for each in route.route_action.destinations), route.route_action.path_rewrite
    )


def _share(destination: WeightedDestination, *, even: bool) -> Share:
    weight = 1 if even else destination.weight
    options = destination.options
    headers = headers_of(options.header_manipulation) if options and options.header_manipulation else None
    if destination.kube_service is not None:
        service = destination.kube_service
        return Share(service.ref, tuple(sorted(service.subset.items())), service.port, weight, headers)
    if destination.virtual_destination is not None:
        virtual = destination.virtual_destination
        subset = tuple(sorted(virtual.subset.items()))
        return Share(Ref("", virtual.namespace, virtual.name), subset, 0, weight, headers)
    assert destination.static_destination is not None, destination
    return Share(destination.static_destination.ref, (), 0, weight, headers, external=True)


def _redirect(redirect: RedirectAction) -> istio.HttpRedirect:
    return istio.HttpRedirect(
        uri=redirect.path_redirect or "",
        prefix_rewrite=redirect.prefix_rewrite or "",
        authority=redirect.host_redirect,
        scheme="https" if redirect.https_redirect else "",
        redirect_code=_CODES[redirect.response_code],
    )


# --- problems ---------------------------------------------------------------------------------------------------------


def route_problems(route: Route, path: str) -> Iterator[Problem]:
    """What is wrong with *route*, which is at field path *path*."""
    for i, matcher in enumerate(route.matchers):
        yield from matcher_problems(matcher, f"{path}.matchers[{i}]")
    if route.options is not None:
        yield from policy_problems(route.options, f"{path}.options")
    if route.route_action is not None:
        yield from _forward_problems(route.route_action, route.matchers, f"{path}.routeAction")
    elif route.redirect_action is not None:
        yield from _redirect_problems(route.redirect_action, route.matchers, f"{path}.redirectAction")
    elif route.direct_response_action is not None:
        answer = route.direct_response_action
        if not 200 <= answer.status <= 599:
            message = f"{answer.status} is no HTTP status from 200 to 599"
            yield Problem(f"{path}.directResponseAction.status", "OutOfRange", message)
        if len(answer.body.encode()) > LARGEST_BODY:
            yield Problem(f"{path}.directResponseAction.body", "TooLong", f"has more than {LARGEST_BODY} bytes")
    elif route.delegate_action is not None:
        yield from _delegate_problems(route.delegate_action, route.matchers, path)
    else:
        message = "needs one of routeAction, redirectAction, directResponseAction and delegateAction"
        yield Problem(path, "MissingField", message)


def _forward_problems(action: RouteAction, matchers: tuple[HttpMatcher, ...], path: str) -> Iterator[Problem]:
    if not action.destinations:
        yield Problem(f"{path}.destinations", "MissingField", "is empty: name at least one destination")
    for i, each in enumerate(action.destinations):
        at = f"{path}.destinations[{i}]"
        if each.cluster_header is not None:
            yield Problem(f"{at}.clusterHeader", "Unsupported", "is not implemented: use kubeService")
        elif each.kube_service is None and each.virtual_destination is None and each.static_destination is None:
            message = "must set a destination type: kubeService, virtualDestination or staticDestination"
            yield Problem(at, "MissingField", message)
        elif each.kube_service is not None:
            yield from service_problems(each.kube_service.ref, f"{at}.kubeService")
        elif each.virtual_destination is not None:
            yield from reference_problems(each.virtual_destination, at, "virtualDestination")
        elif each.static_destination is not None:
            yield from reference_problems(each.static_destination, at, "staticDestination")
        if each.weight > LARGEST_WEIGHT:
            yield Problem(f"{at}.weight", "OutOfRange", f"{each.weight} is more than {LARGEST_WEIGHT}")
        if each.options is not None and each.options.header_manipulation is not None:
            yield from header_problems(each.options.header_manipulation, f"{at}.options.headerManipulation")
    yield from subset_problems(action.destinations, path)
    yield from _path_problems(action.path_rewrite, f"{path}.pathRewrite")
    if action.path_rewrite:
        for i, matcher in enumerate(matchers):
            if matcher.uri is not None and (matcher.uri.regex is not None or matcher.uri.suffix is not None):
                message = f"replaces a prefix or an exact path, and matchers[{i}] has neither: use one of these"
                yield Problem(f"{path}.pathRewrite", "Unsupported", message)
                break


def _redirect_problems(action: RedirectAction, matchers: tuple[HttpMatcher, ...], path: str) -> Iterator[Problem]:
    if not (action.host_redirect or action.path_redirect or action.prefix_rewrite or action.https_redirect):
        message = "says nowhere: set hostRedirect, pathRedirect, prefixRewrite or httpsRedirect"
        yield Problem(path, "MissingField", message)
    if action.host_redirect and not _HOST.fullmatch(action.host_redirect):
        yield Problem(
            f"{path}.hostRedirect", "InvalidName", f"{action.host_redirect!r} is no host, such as example.com"
        )
    yield from _path_problems(action.path_redirect or "", f"{path}.pathRedirect")
    yield from _path_problems(action.prefix_rewrite or "", f"{path}.prefixRewrite")
    if action.prefix_rewrite and not all(_is_prefix(matcher) for matcher in matchers):
        message = "replaces a prefix, and not all matchers of the route are prefixes"
        yield Problem(f"{path}.prefixRewrite", "Unsupported", message)


def _path_problems(text: str, path: str) -> Iterator[Problem]:
    if text and not _PATH.fullmatch(text):
        yield Problem(path, "InvalidPath", f"{text!r} is no path: it begins with /, and has no spaces")


def _delegate_problems(action: DelegateAction, matchers: tuple[HttpMatcher, ...], path: str) -> Iterator[Problem]:
    at = f"{path}.delegateAction"
    if not action.refs and action.selector is None:
        yield Problem(at, "MissingField", "names no RouteTable: set refs or selector")
    for i, ref in enumerate(action.refs):
        if not ref.name or not ref.namespace:
            yield Problem(f"{at}.refs[{i}]", "MalformedReference", "malformed ref: needs both name and namespace")
    if action.selector is not None:
        yield from selector_problems(action.selector, f"{at}.selector")
    for i, matcher in enumerate(matchers):
        if not _is_prefix(matcher):
            message = "a route that delegates matches by prefix: what its tables match is appended to that"
            yield Problem(f"{path}.matchers[{i}].uri", "Unsupported", message)


def _is_prefix(matcher: HttpMatcher) -> bool:
    return matcher.uri is None or matcher.uri.prefix is not None


# --- warnings ---------------------------------------------------------------------------------------------------------


def route_warnings(route: Route, path: str) -> Iterator[str]:
    """What of *route*, which is at field path *path*, has no effect."""
    if route.options is not None:
        yield from options_warnings(route.options, f"{path}.options")
    if route.redirect_action is not None and route.redirect_action.strip_query:
        yield f"{path}.redirectAction.stripQuery has no effect: Istio keeps the query"


def options_warnings(options: Policy, path: str) -> Iterator[str]:
    """What of *options*, which are at field path *path*, has no effect on routes of gateways."""
    for field in fields_of(options):
        if field in NOT_OF_ROUTES:
            yield f"{path}.{field.value} has no effect on routes of gateways: it is about destinations"
    if options.rate_limit is not None and options.rate_limit.ratelimit_server_config_selector is not None:
        yield f"{path}.rateLimit.ratelimitServerConfigSelector has no effect: the rate limit server has its own limits"
