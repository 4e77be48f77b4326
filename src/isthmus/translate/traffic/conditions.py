"""Which requests a traffic policy is about: who sends them, and what they look like.

A policy names several senders and several kinds of requests; each pair is one `Condition`, and each condition ends as
one route. Requests match the first route whose condition holds, so routes go from specific to general.
Source: reference, routing; https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPMatchRequest
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import IntEnum

import msgspec

from isthmus.api.common import HttpMatcher, KubeWorkloadMatcher, StringMatch, WorkloadSelector
from isthmus.istio import objects as istio
from isthmus.translate.federation.objects import Pairs

PRESENT = istio.StringMatch()


class Kind(IntEnum):
    """How a path is compared, the most specific first."""

    EXACT = 0
    REGEX = 1
    PREFIX = 2
    ANY = 3


class Path(msgspec.Struct, frozen=True, order=True, gc=False):
    """What a path must be."""

    kind: Kind = Kind.ANY
    text: str = ""
    ignore_case: bool = False

    def covers(self, other: Path) -> bool:
        """Whether every path that *other* allows is allowed here; False where that is not known."""
        if self.kind is Kind.ANY or self == other:
            return True
        if self.ignore_case < other.ignore_case or Kind.REGEX in (self.kind, other.kind):
            return False
        mine, its = (self.text.lower(), other.text.lower()) if self.ignore_case else (self.text, other.text)
        if self.kind is Kind.PREFIX:
            return other.kind is not Kind.ANY and its.startswith(mine)
        return other.kind is Kind.EXACT and its == mine


class Test(msgspec.Struct, frozen=True, order=True, gc=False):
    """A condition on one header or query parameter; without a value, it only has to be there."""

    name: str
    value: str = ""
    regex: bool = False
    invert: bool = False

    def match(self) -> istio.StringMatch:
        """As Istio has it."""
        if not self.value:
            return PRESENT
        return istio.StringMatch(regex=self.value) if self.regex else istio.StringMatch(exact=self.value)


class Request(msgspec.Struct, frozen=True, gc=False):
    """What a request must look like."""

    path: Path = Path()
    method: str = ""
    headers: tuple[Test, ...] = ()
    """Sorted, each once."""
    query: tuple[Test, ...] = ()
    """Sorted, each once."""

    def covers(self, other: Request) -> bool:
        """Whether every request that *other* describes is described here."""
        return (
            self.path.covers(other.path)
            and self.method in ("", other.method)
            and set(self.headers) <= set(other.headers)
            and set(self.query) <= set(other.query)
        )


class Sender(msgspec.Struct, frozen=True, gc=False):
    """Pods that send requests."""

    labels: Pairs = ()
    """Sorted."""
    namespace: str = ""
    """Empty: any."""

    def covers(self, other: Sender) -> bool:
        """Whether every pod that *other* describes is described here."""
        return self.namespace in ("", other.namespace) and set(self.labels) <= set(other.labels)


ANY_REQUEST, ANY_SENDER = Request(), Sender()


class Condition(msgspec.Struct, frozen=True, gc=False):
    """One kind of requests from one kind of senders."""

    sender: Sender = ANY_SENDER
    request: Request = ANY_REQUEST

    def covers(self, other: Condition) -> bool:
        """Whether whatever meets *other* meets this one."""
        return self.sender.covers(other.sender) and self.request.covers(other.request)

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts from specific to general, and conditions of equal weight always in one way. Source: reference."""
        request, sender = self.request, self.sender
        with_headers = [test for test in request.headers if not test.invert]
        return (
            request.path.kind,
            -len(request.path.text),
            request.path.ignore_case,
            request.path,
            -len(with_headers),
            -len(request.query),
            -len(sender.labels),
            not sender.namespace,
            not request.method,
            -(len(request.headers) - len(with_headers)),
            request.headers,
            request.query,
            sender.labels,
            sender.namespace,
            request.method,
        )

    def match(self, port: int) -> istio.HttpMatch:
        """As Istio has it, for requests to *port*; 0 for any."""
        request, path = self.request, self.request.path
        uri = None
        if path.kind is Kind.EXACT:
            uri = istio.StringMatch(exact=path.text)
        elif path.kind is Kind.PREFIX:
            uri = istio.StringMatch(prefix=path.text)
        elif path.kind is Kind.REGEX:
            uri = istio.StringMatch(regex=path.text)
        return istio.HttpMatch(
            uri=uri,
            ignore_uri_case=path.ignore_case,
            method=istio.StringMatch(exact=request.method) if request.method else None,
            headers={test.name: test.match() for test in request.headers if not test.invert},
            without_headers={test.name: test.match() for test in request.headers if test.invert},
            query_params={test.name: test.match() for test in request.query},
            port=port,
            source_labels=dict(self.sender.labels),
            source_namespace=self.sender.namespace,
        )


def path_of(match: StringMatch | None) -> Path:
    """*match* as a `Path`. Istio's paths have no suffix; a regular expression does the same."""
    if match is None:
        return Path()
    if match.exact is not None:
        return Path(Kind.EXACT, match.exact, match.ignore_case)
    if match.prefix is not None:
        return Path() if match.prefix in ("", "/") else Path(Kind.PREFIX, match.prefix, match.ignore_case)
    if match.regex is not None:
        return Path(Kind.REGEX, match.regex)
    if match.suffix is not None:
        flag = "(?i)" if match.ignore_case else ""
        return Path(Kind.REGEX, f"{flag}.*{re.escape(match.suffix)}")
    return Path()


def request_of(matcher: HttpMatcher) -> Request:
    """*matcher* as a `Request`."""
    return Request(
        path=path_of(matcher.uri),
        method=matcher.method,
        headers=tuple(
            sorted({Test(h.name.lower(), h.value, h.regex and bool(h.value), h.invert_match) for h in matcher.headers})
        ),
        query=tuple(sorted({Test(q.name, q.value, q.regex and bool(q.value)) for q in matcher.query_parameters})),
    )


def senders_on(cluster: str, selectors: Iterable[WorkloadSelector]) -> tuple[Sender, ...] | None:
    """The senders on *cluster* that *selectors* select, each once; None if they select nobody there."""
    everybody, found = True, []
    for selector in selectors:
        everybody = False
        matcher = selector.kube_workload_matcher or KubeWorkloadMatcher()
        if matcher.clusters and cluster not in matcher.clusters:
            continue
        labels = tuple(sorted(matcher.labels.items()))
        found += [Sender(labels, namespace) for namespace in matcher.namespaces or ("",)]
    if everybody or ANY_SENDER in found:
        return (ANY_SENDER,)
    return tuple(dict.fromkeys(found)) or None
