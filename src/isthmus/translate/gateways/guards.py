"""External authorisation and rate limits: the servers that gateways ask.

Such a filter stands in the chain disabled, under a name made of what it says, so that several VirtualGateways at one
gateway may ask different servers; a route enables it by saying something of it.
Source: reference, VirtualGateway; Envoy's API, ExtAuthz and RateLimit of extensions.filters.http:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/api
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from isthmus.api.common import ObjectRef
from isthmus.api.discovery import ServicePort
from isthmus.api.traffic_policy import Policy
from isthmus.api.virtual_gateway import ExtauthHttpService, GatewayExtauth, GatewayRateLimit, RouteOptions
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.ports import protocol_of
from isthmus.translate.traffic.asking import EXTAUTH, RATE_LIMIT, TYPE
from isthmus.translate.traffic.fields import Field, name_problems, policy_problems
from isthmus.translate.traffic.filters import RouteFilter

STATUSES = frozenset((
    *range(200, 209), 226, *range(300, 306), 307, 308, *range(400, 418), *range(421, 425), 426, 428, 429, 431,
    *range(500, 509), 510, 511,
))  # fmt: skip
"""Source: Envoy's API, type.v3.StatusCode."""
EXTAUTH_SERVICE, RATE_LIMIT_SERVICE = "ext-auth-service", "rate-limiter"
RATE_LIMIT_DOMAIN = "solo.io"  # of what the older product's rate limiter serves
_ENCODE = msgspec.json.Encoder(order="deterministic").encode


class Guard(msgspec.Struct, frozen=True, gc=False):
    """A server that a VirtualGateway wants to be asked, and all that its filter says but where the server is."""

    field: Field
    service: Ref
    """Without a cluster: it is looked for on the gateway's. Without a namespace: in any."""
    config: dict[str, Any]
    timeout: str
    http: bool
    closed: bool
    """Whether requests are refused without it."""


def guards_of(options: RouteOptions) -> tuple[Guard, ...]:
    """The servers that *options* want to be asked."""
    found = []
    if options.extauth is not None:
        found.append(_extauth_guard(options.extauth))
    if options.rate_limit is not None:
        found.append(_rate_limit_guard(options.rate_limit))
    return tuple(found)


def guard_problems(options: RouteOptions, path: str) -> Iterator[Problem]:
    """What Envoy would refuse of *options*, which are at field path *path*: a gateway would then stay as it was."""
    if options.rate_limit is not None:
        yield from policy_problems(Policy(request_timeout=options.rate_limit.request_timeout), f"{path}.rateLimit")
        yield from _ref_problems(options.rate_limit.ratelimit_server_ref, f"{path}.rateLimit.ratelimitServerRef")
    said, at = options.extauth, f"{path}.extauth"
    if said is None:
        return
    yield from policy_problems(Policy(request_timeout=said.request_timeout), at)
    yield from _ref_problems(said.extauthz_ref, f"{at}.extauthzRef")
    if said.status_on_error and said.status_on_error not in STATUSES:
        yield Problem(f"{at}.statusOnError", "OutOfRange", f"{said.status_on_error} is no HTTP status that Envoy knows")
    http = said.http_service
    if http is not None and http.path_prefix and not http.path_prefix.startswith("/"):
        yield Problem(f"{at}.httpService.pathPrefix", "InvalidPath", f"{http.path_prefix!r} does not begin with /")
    for name in http.request.headers_to_add if http is not None and http.request is not None else ():
        yield from name_problems(name, f"{at}.httpService.request.headersToAdd[{name!r}]", may_be_host=False)


def _ref_problems(ref: ObjectRef | None, path: str) -> Iterator[Problem]:
    if ref is not None and not (ref.name and ref.namespace):
        yield Problem(path, "MalformedReference", "malformed ref: needs both name and namespace")


def port_of(guard: Guard, ports: tuple[ServicePort, ...]) -> ServicePort | None:
    """The one of a server's *ports* at which it is asked; None if none says that it speaks what gRPC needs."""
    wanted = ("HTTP",) if guard.http else ("GRPC", "HTTP2")
    fitting = (port for spoken in wanted for port in ports if protocol_of(port) == spoken)
    return next(fitting, ports[0] if guard.http else None)


def in_chain(guard: Guard, host: str, port: int) -> RouteFilter:
    """The filter that asks *guard*'s server, which is at *host* and *port*."""
    cluster = f"outbound|{port}||{host}"
    grpc = {"envoy_grpc": {"cluster_name": cluster}}
    config = {"@type": f"{TYPE}{_KINDS[guard.field]}", **guard.config}
    if guard.field is Field.RATE_LIMIT:
        config |= {"timeout": guard.timeout}
        config["rate_limit_service"] = {"transport_api_version": "V3", "grpc_service": grpc}
    elif guard.http:
        uri = {"uri": f"http://{host}:{port}", "cluster": cluster, "timeout": guard.timeout}
        config["http_service"] = {"server_uri": uri, **config.get("http_service", {})}
    else:
        config["grpc_service"] = {**grpc, "timeout": guard.timeout}
    base = EXTAUTH if guard.field is Field.EXTAUTH else RATE_LIMIT
    return RouteFilter(f"{base}.{sha256(_ENCODE(config)).hexdigest()[:16]}", config)


def _extauth_guard(said: GatewayExtauth) -> Guard:
    config: dict[str, Any] = {
        "transport_api_version": "V3",
        "failure_mode_allow": said.failure_mode_allow,
        "clear_route_cache": said.clear_route_cache,
        "status_on_error": {"code": said.status_on_error or 403},
    }
    if said.stat_prefix:
        config["stat_prefix"] = said.stat_prefix
    if said.request_body is not None:
        config["with_request_body"] = {
            "max_request_bytes": said.request_body.max_request_bytes or 4096,
            "allow_partial_message": said.request_body.allow_partial_message,
            "pack_as_bytes": said.request_body.pack_as_bytes,
        }
    if said.http_service is not None:
        config |= _over_http(said.http_service)
    where = said.extauthz_ref.ref if said.extauthz_ref is not None else Ref("", "", EXTAUTH_SERVICE)
    return Guard(
        Field.EXTAUTH, where, config, said.request_timeout or "2s", said.http_service is not None,
        closed=not said.failure_mode_allow,
    )  # fmt: skip


def _over_http(said: ExtauthHttpService) -> dict[str, Any]:
    http: dict[str, Any] = {"path_prefix": said.path_prefix} if said.path_prefix else {}
    config: dict[str, Any] = {"http_service": http}
    if said.request is not None:
        if said.request.allowed_headers:
            config["allowed_headers"] = _names(said.request.allowed_headers)
        if said.request.headers_to_add:
            added = [{"key": name, "value": value} for name, value in sorted(said.request.headers_to_add.items())]
            http["authorization_request"] = {"headers_to_add": added}
    if said.response is not None:
        lists = {
            "allowed_upstream_headers": said.response.allowed_upstream_headers,
            "allowed_client_headers": said.response.allowed_client_headers,
        }
        http["authorization_response"] = {name: _names(each) for name, each in lists.items() if each}
    return config


def _names(headers: tuple[str, ...]) -> dict[str, Any]:
    return {"patterns": [{"exact": header, "ignore_case": True} for header in headers]}


def _rate_limit_guard(said: GatewayRateLimit) -> Guard:
    where = said.ratelimit_server_ref.ref if said.ratelimit_server_ref is not None else Ref("", "", RATE_LIMIT_SERVICE)
    config = {"domain": RATE_LIMIT_DOMAIN, "failure_mode_deny": said.deny_on_fail}
    return Guard(Field.RATE_LIMIT, where, config, said.request_timeout or "0.100s", False, said.deny_on_fail)


_KINDS = {Field.EXTAUTH: "ext_authz.v3.ExtAuthz", Field.RATE_LIMIT: "ratelimit.v3.RateLimit"}
