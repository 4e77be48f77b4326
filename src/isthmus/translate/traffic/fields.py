"""What a traffic policy sets, field by field, as Istio has it, and what is wrong with it by itself.

Source: reference, TrafficPolicy field translation; limits are those of Istio's own validation, since what Istio refuses
must never reach it: https://istio.io/latest/docs/reference/config/networking/virtual-service/
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum

import msgspec
import re2

from isthmus.api.common import (
    HeaderManipulation,
    HeaderMatcher,
    HttpMatcher,
    ObjectRef,
    OutlierDetection,
    QueryParameterMatcher,
    StringMatch,
    TrafficShift,
    VirtualDestinationReference,
    WeightedDestination,
)
from isthmus.api.duration import as_timedelta
from isthmus.api.rate_limit import RawRateLimits, RouteRateLimit
from isthmus.api.traffic_policy import CorsPolicy, FaultInjection, Mirror, Policy, RetryPolicy, TrafficPolicySpec
from isthmus.istio import objects as istio
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.federation.objects import Pairs
from isthmus.translate.labels import label_problems, namespace_problems
from isthmus.translate.selectors import wrong_services
from isthmus.translate.traffic.asking import Referred, actions_problems, regexes_of
from isthmus.translate.traffic.conditions import path_of
from isthmus.translate.traffic.filters import RouteFilter, csrf, csrf_problems
from isthmus.translate.traffic.variables import is_value

POLICY = "spec.policy"
LONGEST_REGEX = 1024  # characters; Istio refuses more
LARGEST_REGEX = 32768  # instructions; Envoy refuses routes with more, as Istio sets it up (re2.max_program_size)
LONGEST_TIME = 9_223_372_035  # seconds; Envoy counts nanoseconds in 64 bits, and refuses all routes with more
LONGEST_HEADER = 16_384  # bytes of a name or value that is added; Envoy refuses all routes with more
MOST_HEADERS = 1000  # added to requests or responses of one route; as above
LONGEST_PARAMETER = 1024  # bytes of a query parameter's name; as above
SMALLEST_SHARE = 0.0001  # per cent; Istio refuses less, except 0
RETRIED = "gateway-error,connect-failure,refused-stream,unavailable,cancelled"
"""What is tried again. By default Istio leaves out what a user who asks for retries means: an attempt that takes too
long, and answers 502, 503 (until 1.9 it had that) and 504.

Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter#x-envoy-retry-on
"""
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*")
PSEUDO_HEADERS = (":method", ":scheme", ":authority", ":path", ":status")
OUTLIERS = OutlierDetection(
    consecutive_errors=5, interval="10s", base_ejection_time="30s", max_ejection_percent=100
)  # Source: reference, DestinationRule.

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_NOT_OF_GO = re.compile(r"(?<!\\)(?:\\\\)*\\C")  # one byte, which istiod's regular expressions do not know


class Field(Enum):
    """What one policy of a route or destination sets; the value is its name in the spec."""

    SHIFT = "trafficShift"
    FAULT = "faultInjection"
    TIMEOUT = "requestTimeout"
    RETRIES = "retries"
    CORS = "corsPolicy"
    MIRROR = "mirror"
    HEADERS = "headerManipulation"
    CSRF = "csrf"
    RATE_LIMIT = "rateLimit"
    EXTAUTH = "extauth"
    OUTLIERS = "outlierDetection"
    TLS = "mtls"


OF_DESTINATION = (Field.OUTLIERS, Field.TLS)
"""Fields that are of a destination as a whole, whatever the request."""


class Target(msgspec.Struct, frozen=True, gc=False):
    """A share of the requests and where it goes; port 0 where none was named.

    *service* without a cluster is a VirtualDestination, or the Destination of an *external* service.
    """

    service: Ref
    subset: Pairs
    """Labels, sorted; none for all of it."""
    port: int
    weight: int
    external: bool = False


class Copies(msgspec.Struct, frozen=True, gc=False):
    """Where copies of requests go; port 0 where none was named."""

    service: Ref
    port: int
    percentage: float


Value = (
    tuple[Target, ...]
    | Copies
    | istio.HttpFault
    | istio.HttpRetry
    | istio.CorsPolicy
    | istio.Headers
    | istio.OutlierDetection
    | istio.ClientTls
    | RouteFilter
    | Referred
    | str
)


def fields_of(policy: Policy | None) -> dict[Field, Value]:
    """What *policy* sets. Meaningless parts of it are left out; `problems_of` names them."""
    if policy is None:
        return {}
    found: dict[Field, Value | None] = {
        Field.SHIFT: _targets(policy.traffic_shift) if policy.traffic_shift else None,
        Field.FAULT: _fault(policy.fault_injection) if policy.fault_injection else None,
        Field.TIMEOUT: policy.request_timeout or None,
        Field.RETRIES: _retries(policy.retries) if policy.retries else None,
        Field.CORS: _cors(policy.cors_policy) if policy.cors_policy else None,
        Field.MIRROR: _copies(policy.mirror) if policy.mirror else None,
        Field.HEADERS: headers_of(policy.header_manipulation) if policy.header_manipulation else None,
        Field.CSRF: csrf(policy.csrf) if policy.csrf else None,
        Field.OUTLIERS: outlier_detection(policy.outlier_detection) if policy.outlier_detection else None,
        Field.TLS: istio.ClientTls(mode=policy.mtls.istio.tls_mode.value)
        if policy.mtls and policy.mtls.istio
        else None,
    }
    return {field: value for field, value in found.items() if value is not None}


def ignored_in(policy: Policy) -> Iterator[str]:
    """What *policy* says that has no effect on services."""
    shift = policy.traffic_shift
    if shift is not None and any(each.options and each.options.header_manipulation for each in shift.destinations):
        yield (
            f"{POLICY}.trafficShift: options.headerManipulation of destinations has no effect: use "
            f"{POLICY}.headerManipulation, which is for all of them"
        )


def problems_of(spec: TrafficPolicySpec) -> tuple[Problem, ...]:
    """What is wrong with *spec* whatever destinations there are."""
    found: list[Problem] = []
    for i, source in enumerate(spec.source_selector):
        if source.kube_workload_matcher is not None:
            at = f"spec.sourceSelector[{i}].kubeWorkloadMatcher"
            found += label_problems(source.kube_workload_matcher.labels, f"{at}.labels")
            found += namespace_problems(source.kube_workload_matcher.namespaces, f"{at}.namespaces")
    found += wrong_services(spec.destination_selector, "spec.destinationSelector")
    for i, matcher in enumerate(spec.http_request_matchers):
        found += matcher_problems(matcher, f"spec.httpRequestMatchers[{i}]")
    if spec.policy is not None:
        found += policy_problems(spec.policy, POLICY)
    return tuple(found)


def policy_problems(policy: Policy, path: str) -> Iterator[Problem]:
    """What is wrong with *policy*, which is at field path *path*."""
    if policy.traffic_shift is not None:
        yield from _shift_problems(policy.traffic_shift, f"{path}.trafficShift")
        yield from subset_problems(policy.traffic_shift.destinations, f"{path}.trafficShift")
    if policy.fault_injection is not None:
        yield from _fault_problems(policy.fault_injection, f"{path}.faultInjection")
    yield from duration_problems(policy.request_timeout, f"{path}.requestTimeout")
    if policy.retries is not None:
        yield from _retry_problems(policy.retries, f"{path}.retries")
    if policy.cors_policy is not None:
        yield from _cors_problems(policy.cors_policy, f"{path}.corsPolicy")
    if policy.mirror is not None:
        yield from _mirror_problems(policy.mirror, f"{path}.mirror")
    if policy.header_manipulation is not None:
        yield from header_problems(policy.header_manipulation, f"{path}.headerManipulation")
    if policy.csrf is not None:
        yield from csrf_problems(policy.csrf, f"{path}.csrf")
        for i, origin in enumerate(policy.csrf.additional_origins):
            if origin.regex:
                yield from _regex_problems(origin.regex, f"{path}.csrf.additionalOrigins[{i}].regex")
    if policy.rate_limit is not None:
        yield from _rate_limit_problems(policy.rate_limit, f"{path}.rateLimit")
    if policy.outlier_detection is not None:
        yield from outlier_problems(policy.outlier_detection, f"{path}.outlierDetection")


# --- values -----------------------------------------------------------------------------------------------------------


def _targets(shift: TrafficShift) -> tuple[Target, ...] | None:
    targets: list[Target] = []
    for each in shift.destinations:
        if each.kube_service is not None:
            service = each.kube_service
            targets.append(Target(service.ref, _pairs(service.subset), service.port, each.weight))
        elif each.virtual_destination is not None:
            virtual = each.virtual_destination
            targets.append(Target(Ref("", virtual.namespace, virtual.name), _pairs(virtual.subset), 0, each.weight))
        elif each.static_destination is not None:
            targets.append(Target(each.static_destination.ref, (), 0, each.weight, external=True))
    return tuple(targets) or None


def _pairs(labels: dict[str, str]) -> Pairs:
    return tuple(sorted(labels.items()))


def _copies(mirror: Mirror) -> Copies | None:
    if mirror.kube_service is None:
        return None
    return Copies(mirror.kube_service.ref, mirror.port, _share(mirror.percentage))


def _share(percentage: float | None) -> float:
    """Omitted means 100. Source: reference; Istio takes 0 for omitted in an object."""
    return 100.0 if percentage is None else percentage


def _fault(fault: FaultInjection) -> istio.HttpFault | None:
    share = istio.Percent(value=_share(fault.percentage))
    if fault.fixed_delay is not None:
        return istio.HttpFault(delay=istio.Delay(fixed_delay=fault.fixed_delay, percentage=share))
    if fault.abort is not None:
        return istio.HttpFault(abort=istio.Abort(http_status=fault.abort.http_status, percentage=share))
    return None


def _retries(retries: RetryPolicy) -> istio.HttpRetry:
    return istio.HttpRetry(
        attempts=retries.attempts,
        per_try_timeout=retries.per_try_timeout,
        retry_on=RETRIED if retries.attempts else "",  # Istio refuses it beside no attempts
    )


def _cors(cors: CorsPolicy) -> istio.CorsPolicy:
    return istio.CorsPolicy(
        allow_origins=tuple(_origin(origin) for origin in cors.allow_origins),
        allow_methods=cors.allow_methods,
        allow_headers=cors.allow_headers,
        expose_headers=cors.expose_headers,
        max_age=cors.max_age,
        allow_credentials=cors.allow_credentials,
    )


def _origin(origin: StringMatch) -> istio.StringMatch:
    """*origin* as Istio has it: it knows neither suffixes nor a way to ignore case; regular expressions do the same."""
    flag = "(?i)" if origin.ignore_case else ""
    if origin.suffix is not None:
        return istio.StringMatch(regex=f"{flag}.*{re.escape(origin.suffix)}")
    if origin.regex is not None:
        return istio.StringMatch(regex=origin.regex)
    if flag and origin.exact is not None:
        return istio.StringMatch(regex=flag + re.escape(origin.exact))
    if flag and origin.prefix is not None:
        return istio.StringMatch(regex=f"{flag}{re.escape(origin.prefix)}.*")
    return istio.StringMatch(exact=origin.exact, prefix=origin.prefix)


def headers_of(headers: HeaderManipulation) -> istio.Headers | None:
    """*headers* as Istio has them, None if they say nothing."""
    request = _operations(headers.append_request_headers, headers.remove_request_headers)
    response = _operations(headers.append_response_headers, headers.remove_response_headers)
    return istio.Headers(request=request, response=response) if request or response else None


def _operations(add: dict[str, str], remove: tuple[str, ...]) -> istio.HeaderOperations | None:
    return istio.HeaderOperations(add=add, remove=remove) if add or remove else None


def outlier_detection(outliers: OutlierDetection, defaults: OutlierDetection = OUTLIERS) -> istio.OutlierDetection:
    """*outliers* as Istio has it, with *defaults* where it says nothing."""
    return istio.OutlierDetection(
        consecutive_5xx_errors=outliers.consecutive_errors or defaults.consecutive_errors,
        interval=outliers.interval or defaults.interval,
        base_ejection_time=outliers.base_ejection_time or defaults.base_ejection_time,
        max_ejection_percent=outliers.max_ejection_percent or defaults.max_ejection_percent,
    )


# --- problems ---------------------------------------------------------------------------------------------------------


def matcher_problems(matcher: HttpMatcher, path: str) -> Iterator[Problem]:
    """What is wrong with *matcher*, which is at field path *path*."""
    if matcher.uri is not None:
        yield from _match_problems(matcher.uri, f"{path}.uri")
    if matcher.method and not _TOKEN.fullmatch(matcher.method):
        yield Problem(f"{path}.method", "InvalidMethod", f"{matcher.method!r} is no HTTP method such as GET")
    yield from _test_problems(matcher.headers, f"{path}.headers")
    yield from _test_problems(matcher.query_parameters, f"{path}.queryParameters")


def _test_problems(tests: tuple[HeaderMatcher | QueryParameterMatcher, ...], path: str) -> Iterator[Problem]:
    names: set[tuple[str, bool]] = set()
    for i, test in enumerate(tests):
        of_header = isinstance(test, HeaderMatcher)
        name = test.name.lower() if of_header else test.name
        identity = (name, isinstance(test, HeaderMatcher) and test.invert_match)
        if not name:
            yield Problem(f"{path}[{i}].name", "MissingField", "needs a name")
        elif of_header and name not in PSEUDO_HEADERS and not _TOKEN.fullmatch(name):
            message = f"{test.name!r} is no name that HTTP allows for a header"
            yield Problem(f"{path}[{i}].name", "InvalidName", message)
        elif not of_header and len(name.encode()) > LONGEST_PARAMETER:
            message = f"has more than {LONGEST_PARAMETER} bytes, which Envoy refuses"
            yield Problem(f"{path}[{i}].name", "TooLong", message)
        elif identity in names:
            message = f"{test.name} is tested twice: Istio holds one test of a name"
            yield Problem(f"{path}[{i}].name", "Duplicate", message)
        names.add(identity)
        if test.regex and test.value:
            yield from _regex_problems(test.value, f"{path}[{i}].value")


def _match_problems(match: StringMatch, path: str) -> Iterator[Problem]:
    if match.regex is not None:
        yield from _regex_problems(match.regex, f"{path}.regex")
    elif match.exact == "":
        yield Problem(f"{path}.exact", "MissingField", "is empty: no path is; leave uri out to match every path")
    elif match.suffix == "":
        yield Problem(f"{path}.suffix", "MissingField", "is empty: leave uri out to match every path")
    elif match.suffix is not None:
        yield from _regex_problems(path_of(match).text, f"{path}.suffix")


def _regex_problems(regex: str, path: str) -> Iterator[Problem]:
    if not regex:
        yield Problem(path, "MissingField", "is empty: a regular expression says what matches")
        return
    if len(regex) > LONGEST_REGEX:
        message = f"has {len(regex)} characters, where Istio takes {LONGEST_REGEX}: shorten it, or use several matchers"
        yield Problem(path, "TooLong", message)
        return
    options = re2.Options()
    options.log_errors = False
    try:
        size = re2.compile(regex, options=options).programsize
        if size > LARGEST_REGEX:
            message = (
                f"{regex!r} needs {size} instructions, where Envoy takes {LARGEST_REGEX}: repeat less, or less of it"
            )
            yield Problem(path, "TooLarge", message)
        elif _NOT_OF_GO.search(regex):
            yield Problem(path, "InvalidRegex", f"{regex!r}: Istio does not know \\C, a single byte; use . instead")
    except re2.error as error:
        why = error.args[0].decode() if isinstance(error.args[0], bytes) else str(error)
        message = f"{regex!r} is no regular expression of RE2, which Envoy uses: {why}"
        yield Problem(path, "InvalidRegex", message)


def duration_problems(duration: str, path: str) -> Iterator[Problem]:
    """What Istio or Envoy would refuse of *duration*, which is at field path *path*; nothing if it is empty."""
    length = as_timedelta(duration)
    if length is None:
        return
    if length.total_seconds() < 0.001 or length.microseconds % 1000:
        yield Problem(path, "InvalidDuration", f"{duration} is not a whole number of milliseconds, of at least 1ms")
    elif length.total_seconds() > LONGEST_TIME:
        yield Problem(path, "InvalidDuration", f"{duration} is more than {LONGEST_TIME}s, the most that Envoy takes")


def _percentage_problems(percentage: float | None, path: str) -> Iterator[Problem]:
    if percentage is None:
        return
    if not 0 <= percentage <= 100:
        yield Problem(path, "OutOfRange", f"{percentage:g} is not from 0 to 100")
    elif 0 < percentage < SMALLEST_SHARE:
        yield Problem(path, "OutOfRange", f"{percentage:g} is less than {SMALLEST_SHARE:g}, the least that Istio takes")


def _shift_problems(shift: TrafficShift, path: str) -> Iterator[Problem]:
    if not shift.destinations:
        yield Problem(f"{path}.destinations", "MissingField", "is empty: name at least one destination")
        return
    for i, each in enumerate(shift.destinations):
        at = f"{path}.destinations[{i}]"
        if each.cluster_header is not None:
            yield Problem(at, "Unsupported", "unsupported traffic shift destination type: use kubeService")
        elif each.virtual_destination is None and each.kube_service is None and each.static_destination is None:
            message = (
                "must set a destination type on traffic shift destination: kubeService, virtualDestination or "
                "staticDestination"
            )
            yield Problem(at, "MissingField", message)
        elif each.kube_service is not None:
            yield from service_problems(each.kube_service.ref, f"{at}.kubeService")
        elif each.virtual_destination is not None:
            yield from reference_problems(each.virtual_destination, at, "virtualDestination")
        elif each.static_destination is not None:
            yield from reference_problems(each.static_destination, at, "staticDestination")
    weights = [each.weight for each in shift.destinations]
    if len(weights) == 1:
        if weights[0] not in (0, 100):
            message = f"the only destination has weight {weights[0]}: it gets all requests; say 100, or leave it out"
            yield Problem(f"{path}.destinations[0].weight", "InvalidWeights", message)
    elif not any(weights):
        yield Problem(f"{path}.destinations", "InvalidWeights", "all weights are 0: give them shares that sum to 100")
    elif sum(weights) != 100:
        listed = " + ".join(map(str, weights))
        message = f"the weights are {listed} = {sum(weights)}, and have to sum to 100"
        yield Problem(f"{path}.destinations", "InvalidWeights", message)


def subset_problems(destinations: tuple[WeightedDestination, ...], path: str) -> Iterator[Problem]:
    """What is wrong with the labels of subsets in *destinations* of what is at field path *path*."""
    for i, each in enumerate(destinations):
        for name, found in (("kubeService", each.kube_service), ("virtualDestination", each.virtual_destination)):
            if found is not None:
                yield from label_problems(found.subset, f"{path}.destinations[{i}].{name}.subset")


def _rate_limit_problems(said: RouteRateLimit, path: str) -> Iterator[Problem]:
    if said.ratelimit_client_config_ref is not None:
        yield from reference_problems(said.ratelimit_client_config_ref, path, "ratelimitClientConfigRef")
    if said.raw is not None:
        yield from raw_limit_problems(said.raw, f"{path}.raw")


def raw_limit_problems(raw: RawRateLimits, path: str) -> Iterator[Problem]:
    """What is wrong with *raw*, which is at field path *path*."""
    yield from actions_problems(raw.rate_limits, f"{path}.rateLimits")
    for at, regex in regexes_of(raw.rate_limits, f"{path}.rateLimits"):
        yield from _regex_problems(regex, at)


def service_problems(service: Ref, path: str) -> Iterator[Problem]:
    """What is wrong with the reference *service*, which is at field path *path*."""
    if not (service.name and service.namespace and service.cluster):
        yield Problem(path, "MalformedReference", "malformed kubeService: needs name, namespace and clusterName")


def reference_problems(found: ObjectRef | VirtualDestinationReference, path: str, field: str) -> Iterator[Problem]:
    """What is wrong with the reference *found* in *field* of what is at field path *path*."""
    if not (found.name and found.namespace):
        yield Problem(f"{path}.{field}", "MalformedReference", f"malformed {field}: needs name and namespace")


def _fault_problems(fault: FaultInjection, path: str) -> Iterator[Problem]:
    yield from _percentage_problems(fault.percentage, f"{path}.percentage")
    if fault.fixed_delay is not None:
        if not fault.fixed_delay:
            yield Problem(f"{path}.fixedDelay", "MissingField", "is empty: say how long, such as 5s")
        yield from duration_problems(fault.fixed_delay, f"{path}.fixedDelay")
    elif fault.abort is None:
        yield Problem(path, "MissingField", "FaultInjection type must be specified: fixedDelay or abort")
    elif not 200 <= fault.abort.http_status <= 599:
        message = f"{fault.abort.http_status} is no HTTP status from 200 to 599"
        yield Problem(f"{path}.abort.httpStatus", "OutOfRange", message)


def _retry_problems(retries: RetryPolicy, path: str) -> Iterator[Problem]:
    if retries.attempts < 0:
        yield Problem(f"{path}.attempts", "OutOfRange", f"{retries.attempts} is negative; 0 is no retry")
    if retries.attempts == 0 and retries.per_try_timeout:
        message = "is set without a retry: say how many attempts, or use requestTimeout"
        yield Problem(f"{path}.perTryTimeout", "Contradiction", message)
    yield from duration_problems(retries.per_try_timeout, f"{path}.perTryTimeout")


def _cors_problems(cors: CorsPolicy, path: str) -> Iterator[Problem]:
    for i, origin in enumerate(cors.allow_origins):
        at = f"{path}.allowOrigins[{i}]"
        if not (origin.exact or origin.prefix or origin.regex or origin.suffix):
            yield Problem(at, "MissingField", "needs exact, prefix, suffix or regex, and not empty")
        elif (regex := _origin(origin).regex) is not None:
            yield from _regex_problems(regex, f"{at}.regex" if origin.regex is not None else at)
    for i, method in enumerate(cors.allow_methods):
        if method not in METHODS:
            message = f"{method!r} is no HTTP method; known are {', '.join(METHODS)}"
            yield Problem(f"{path}.allowMethods[{i}]", "InvalidMethod", message)
    for name, headers in (("allowHeaders", cors.allow_headers), ("exposeHeaders", cors.expose_headers)):
        for i, header in enumerate(headers):
            if header != "*" and not _TOKEN.fullmatch(header):
                message = f"{header!r} is no name that HTTP allows for a header"
                yield Problem(f"{path}.{name}[{i}]", "InvalidName", message)
    age = as_timedelta(cors.max_age)
    if age is not None and (age.microseconds or age.total_seconds() < 1):
        yield Problem(f"{path}.maxAge", "InvalidDuration", f"{cors.max_age} is not a whole number of seconds")


def _mirror_problems(mirror: Mirror, path: str) -> Iterator[Problem]:
    yield from _percentage_problems(mirror.percentage, f"{path}.percentage")
    if mirror.kube_service is None:
        yield Problem(path, "MissingField", "must provide mirror destination: kubeService")
    else:
        yield from service_problems(mirror.kube_service.ref, f"{path}.kubeService")


def header_problems(headers: HeaderManipulation, path: str) -> Iterator[Problem]:
    """What is wrong with *headers*, which are at field path *path*."""
    request = ("appendRequestHeaders", headers.append_request_headers, "removeRequestHeaders")
    response = ("appendResponseHeaders", headers.append_response_headers, "removeResponseHeaders")
    for (append, added, remove), removed, may_set_host in (
        (request, headers.remove_request_headers, True),
        (response, headers.remove_response_headers, False),
    ):
        if len(added) > MOST_HEADERS:
            yield Problem(f"{path}.{append}", "TooMany", f"has more than {MOST_HEADERS} headers, which Envoy refuses")
        for name, value in added.items():
            yield from name_problems(name, f"{path}.{append}[{name!r}]", may_be_host=may_set_host)
            if not _VALUE.fullmatch(value):
                message = "holds control characters, which HTTP forbids in a header"
                yield Problem(f"{path}.{append}[{name!r}]", "InvalidValue", message)
            elif not is_value(value):
                message = f"{value!r}: Envoy reads %…% as a variable; write %% for a per cent sign"
                yield Problem(f"{path}.{append}[{name!r}]", "InvalidValue", message)
            elif max(len(name), len(value.encode())) > LONGEST_HEADER:
                message = f"has more than {LONGEST_HEADER} bytes, which Envoy refuses"
                yield Problem(f"{path}.{append}[{name[:40]!r}]", "TooLong", message)
        for i, name in enumerate(removed):
            yield from name_problems(name, f"{path}.{remove}[{i}]", may_be_host=False)


def name_problems(name: str, path: str, *, may_be_host: bool) -> Iterator[Problem]:
    """What is wrong with *name*, which is at field path *path*, as that of a header."""
    if not may_be_host and name.lower() == "host":
        yield Problem(path, "InvalidName", "the host header can be neither removed nor added to a response")
    elif not _TOKEN.fullmatch(name):
        yield Problem(path, "InvalidName", f"{name!r} is no name that HTTP allows for a header")


def outlier_problems(outliers: OutlierDetection, path: str) -> Iterator[Problem]:
    """What Istio would refuse of *outliers*."""
    yield from duration_problems(outliers.interval, f"{path}.interval")
    yield from duration_problems(outliers.base_ejection_time, f"{path}.baseEjectionTime")
    if outliers.max_ejection_percent > 100:
        message = f"{outliers.max_ejection_percent} is not from 0 to 100"
        yield Problem(f"{path}.maxEjectionPercent", "OutOfRange", message)
