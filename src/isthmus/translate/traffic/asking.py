"""What routes of gateways say to the servers that external authorisation and rate limits ask.

Source: reference, TrafficPolicy and RateLimitClientConfig; Envoy's API, ExtAuthzPerRoute, RateLimitPerRoute and
config.route.v3.RateLimit: https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from isthmus.api.rate_limit import RateLimitAction, RateLimitActions, RateLimitHeaderMatcher, RouteRateLimit
from isthmus.api.traffic_policy import RouteExtauth
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.traffic.filters import RouteFilter

EXTAUTH, RATE_LIMIT = "envoy.filters.http.ext_authz", "envoy.filters.http.ratelimit"
TYPE = "type.googleapis.com/envoy.extensions.filters.http."
_ON_ROUTE = {"@type": f"{TYPE}ext_authz.v3.ExtAuthzPerRoute"}

_SET = {"generic_key": {"descriptor_value": "solo.setDescriptor.uniqueValue"}}
"""Tells the older product's rate limiter, which Gloo Edge has as well, that descriptors are a set."""

ASKED = RouteFilter(EXTAUTH, {**_ON_ROUTE, "check_settings": {}})
"""What is said of routes that say nothing of authorisation."""


def extauth(said: RouteExtauth) -> RouteFilter:
    """*said* as Envoy has it. An AuthConfig is told to the server by its name, as ``config_id``."""
    if said.disable:
        return RouteFilter(EXTAUTH, {**_ON_ROUTE, "disabled": True})
    extensions = dict(said.custom_auth.context_extensions) if said.custom_auth is not None else {}
    if said.config_ref is not None:
        extensions["config_id"] = f"{said.config_ref.namespace}.{said.config_ref.name}"
    return RouteFilter(
        EXTAUTH, {**_ON_ROUTE, "check_settings": {"context_extensions": extensions} if extensions else {}}
    )


def is_free(said: RouteFilter) -> bool:
    """Whether *said* is that requests are not authorised."""
    return bool(said.config.get("disabled"))


class Referred(msgspec.Struct, frozen=True):
    """Rate limits that are those of a RateLimitClientConfig."""

    config: Ref


def limits_of(said: RouteRateLimit) -> RouteFilter | Referred:
    """*said* as Envoy has it, or whose limits it means."""
    if said.ratelimit_client_config_ref is not None:
        return Referred(said.ratelimit_client_config_ref.ref)
    return rate_limits(said.raw.rate_limits if said.raw is not None else ())


def rate_limits(limits: Iterable[RateLimitActions]) -> RouteFilter:
    """*limits* as Envoy has them."""
    config = {
        "@type": f"{TYPE}ratelimit.v3.RateLimitPerRoute",
        "rate_limits": [{"actions": actions} for each in limits for actions in _tuples(each)],
    }
    return RouteFilter(RATE_LIMIT, config)


def actions_problems(limits: Iterable[RateLimitActions], path: str) -> Iterator[Problem]:
    """What is wrong with the actions of *limits*, which are at field path *path*, but for regular expressions."""
    for i, each in enumerate(limits):
        at = f"{path}[{i}]"
        if not (each.actions or each.set_actions):
            yield Problem(f"{at}.actions", "MissingField", "is empty: say what the server is told of a request")
        for where, action in _each_action(each, at):
            yield from _action_problems(action, where)


def regexes_of(limits: Iterable[RateLimitActions], path: str) -> Iterator[tuple[str, str]]:
    """Field path and text of each regular expression in *limits*, which are at field path *path*."""
    for i, each in enumerate(limits):
        for at, action in _each_action(each, f"{path}[{i}]"):
            match = action.header_value_match
            for k, header in enumerate(match.headers if match is not None else ()):
                if header.regex_match is not None:
                    yield f"{at}.headerValueMatch.headers[{k}].regexMatch", header.regex_match


def _each_action(limit: RateLimitActions, path: str) -> Iterator[tuple[str, RateLimitAction]]:
    """The actions of *limit*, which is at field path *path*, each with its own."""
    for field, actions in (("actions", limit.actions), ("setActions", limit.set_actions)):
        yield from ((f"{path}.{field}[{i}]", action) for i, action in enumerate(actions))


def _tuples(limit: RateLimitActions) -> Iterator[list[dict[str, Any]]]:
    """The tuples of descriptors that *limit* means: one in its order, and one that the server takes for a set."""
    if limit.actions:
        yield [_action(action) for action in limit.actions]
    if limit.set_actions:
        yield [_SET, *(_if_there(_action(action)) for action in limit.set_actions)]


def _if_there(action: dict[str, Any]) -> dict[str, Any]:
    """*action*, of a set: without the header that it reads, the others are sent all the same."""
    headers = action.get("request_headers")
    return {"request_headers": {**headers, "skip_if_absent": True}} if headers else action


def _action(action: RateLimitAction) -> dict[str, Any]:
    if action.request_headers is not None:
        headers = action.request_headers
        return {"request_headers": {"header_name": headers.header_name, "descriptor_key": headers.descriptor_key}}
    if action.generic_key is not None:
        return {"generic_key": {"descriptor_value": action.generic_key.descriptor_value}}
    if action.header_value_match is not None:
        match = action.header_value_match
        return {
            "header_value_match": {
                "descriptor_value": match.descriptor_value,
                "expect_match": match.expect_match is not False,
                "headers": [_header(header) for header in match.headers],
            }
        }
    if action.metadata is not None:
        found = action.metadata
        key = found.metadata_key
        path = [{"key": segment.key} for segment in (key.path if key is not None else ())]
        made: dict[str, Any] = {
            "descriptor_key": found.descriptor_key,
            "metadata_key": {"key": key.key if key is not None else "", "path": path},
            "source": found.source.value,
        }
        return {"metadata": {**made, "default_value": found.default_value} if found.default_value else made}
    if action.remote_address is not None:
        return {"remote_address": {}}
    return {"destination_cluster": {}} if action.destination_cluster is not None else {"source_cluster": {}}


def _header(matcher: RateLimitHeaderMatcher) -> dict[str, Any]:
    made: dict[str, Any] = {"name": matcher.name}
    if matcher.range_match is not None:
        made["range_match"] = {"start": matcher.range_match.start, "end": matcher.range_match.end}
    elif matcher.present_match is not None or not _compares(matcher):
        made["present_match"] = matcher.present_match is not False
    else:
        made["string_match"] = (
            {"safe_regex": {"regex": matcher.regex_match}} if matcher.regex_match is not None
            else {"prefix": matcher.prefix_match} if matcher.prefix_match is not None
            else {"suffix": matcher.suffix_match} if matcher.suffix_match is not None
            else {"exact": matcher.exact_match}
        )  # fmt: skip
    return {**made, "invert_match": True} if matcher.invert_match else made


def _compares(matcher: RateLimitHeaderMatcher) -> bool:
    texts = (matcher.exact_match, matcher.regex_match, matcher.prefix_match, matcher.suffix_match)
    return any(text is not None for text in texts)


def _action_problems(action: RateLimitAction, path: str) -> Iterator[Problem]:
    needed: dict[str, str] = {}
    if action == RateLimitAction():
        yield Problem(path, "MissingField", "says nothing: set one of its fields")
    if action.request_headers is not None:
        headers = action.request_headers
        needed = {
            "requestHeaders.headerName": headers.header_name,
            "requestHeaders.descriptorKey": headers.descriptor_key,
        }
    elif action.generic_key is not None:
        needed = {"genericKey.descriptorValue": action.generic_key.descriptor_value}
    elif action.header_value_match is not None:
        match = action.header_value_match
        needed = {"headerValueMatch.descriptorValue": match.descriptor_value}
        needed |= {f"headerValueMatch.headers[{i}].name": header.name for i, header in enumerate(match.headers)}
        if not match.headers:
            yield Problem(f"{path}.headerValueMatch.headers", "MissingField", "is empty: name at least one header")
    elif action.metadata is not None:
        key = action.metadata.metadata_key
        needed = {
            "metadata.descriptorKey": action.metadata.descriptor_key,
            "metadata.metadataKey.key": key.key if key else "",
        }
        if key is None or not key.path or not all(segment.key for segment in key.path):
            yield Problem(f"{path}.metadata.metadataKey.path", "MissingField", "is empty: say the way to the value")
    for name, value in needed.items():
        if not value:
            yield Problem(f"{path}.{name}", "MissingField", "is empty")
