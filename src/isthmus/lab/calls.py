"""HTTP requests as the lab's pods send them: one by one, each on a connection of its own, every outcome a value.

Bookinfo calls its callees through `ask`; `call` prints what came of many of them, for `kubectl exec`. Nothing is
pooled: what balances the load between pods shall see every request. Standard library only: a container starts with it.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

MAX_CALLS = 100_000
MAX_SECONDS = 600.0
"""No call of `call` sends more or lasts longer, whatever it was told: nobody waits for a test that forgot to stop."""

SERVED_HEADERS = {
    "service": "x-served-service",
    "cluster": "x-served-cluster",
    "pod": "x-served-pod",
    "version": "x-served-version",
}
"""Response headers in which a server of the lab says who answered."""

_HEADERS_OF_INTEREST = (
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-max-age",
    "content-type",
    "location",
    "server",
    "set-cookie",
    "via",
    "www-authenticate",
    "x-envoy-attempt-count",
    "x-envoy-overloaded",
    "x-envoy-upstream-service-time",
)


@dataclass(frozen=True)
class Reply:
    """What came of one request: an answer with its status, or the error that prevented one."""

    status: int | None
    headers: Mapping[str, str] = field(default_factory=dict)
    """By names in lower case."""
    body: Any = None
    """Parsed when it is JSON, else text."""
    error: str | None = None
    milliseconds: float = 0.0

    @property
    def served(self) -> dict[str, str]:
        """Who answered: service, cluster, pod and version; empty unless a server of the lab did."""
        return {key: self.headers[name] for key, name in SERVED_HEADERS.items() if name in self.headers}


def ask(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    data: str | None = None,
    timeout: float = 10.0,
) -> Reply:
    """Send one request and wait *timeout* seconds at most for each of: connection, answer, rest of its body."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname is None:
        return Reply(None, error=f"{url!r} is not a URL such as http://reviews:9080/reviews/0")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    started = time.perf_counter()
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
    try:
        connection.request(method, target, body=data, headers={"Connection": "close"} | dict(headers or {}))
        answer = connection.getresponse()
        status, text = answer.status, answer.read().decode("utf-8", "replace")
        received = {name.lower(): value for name, value in answer.getheaders()}
    except (OSError, HTTPException) as error:
        return Reply(None, error=f"{type(error).__name__}: {error}", milliseconds=_since(started))
    finally:
        connection.close()
    return Reply(status, received, _body(received, text), milliseconds=_since(started))


def _body(headers: Mapping[str, str], text: str) -> Any:
    if headers.get("content-type", "").startswith("application/json"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)


def call(argv: Sequence[str]) -> int:
    """The command `call`: print one JSON line for each request, and a summary after several. 2 when misused, else 0."""
    options = _parser().parse_args(argv)
    headers = dict(options.header)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    tally = _Tally()
    count = options.count or (1 if options.seconds is None else MAX_CALLS)
    for turn in _turns(count, options.rate, options.seconds or MAX_SECONDS, stop):
        at = time.time()
        reply = ask(options.url, method=options.method, headers=headers, data=options.data, timeout=options.timeout)
        tally.add(reply)
        if not options.summary or reply.status is None or reply.status >= 400:
            _print(_line(turn, at, options.url, reply))
    if count > 1:
        _print({"summary": tally.summary()})
    return 0


def _turns(count: int, rate: float | None, seconds: float, stop: threading.Event) -> Iterator[int]:
    """1, 2, 3 … each at its time, until *count* or *seconds* are reached or *stop* is set."""
    started = time.monotonic()
    end = started + min(seconds, MAX_SECONDS)
    due = started
    for turn in range(1, min(count, MAX_CALLS) + 1):
        if stop.wait(max(0.0, min(due, end) - time.monotonic())) or time.monotonic() >= end:
            return
        yield turn
        # A slow answer delays the next request; the ones after it do not hurry to catch up.
        due = max(due + 1 / rate, time.monotonic()) if rate else time.monotonic()


@dataclass
class _Tally:
    """What many replies have in common."""

    statuses: Counter[str] = field(default_factory=Counter)
    pods: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    milliseconds: list[float] = field(default_factory=list)

    def add(self, reply: Reply) -> None:
        self.statuses[str(reply.status or "error")] += 1
        self.milliseconds.append(reply.milliseconds)
        if reply.error is not None:
            self.errors[reply.error] += 1
        if served := reply.served:
            self.pods[f"{served.get('cluster', '')}/{served.get('pod', '')}"] += 1
            self.versions[f"{served.get('cluster', '')}/{served.get('service', '')}-{served.get('version', '')}"] += 1

    def summary(self) -> dict[str, Any]:
        times = sorted(self.milliseconds) or [0.0]
        return {
            "calls": len(self.milliseconds),
            "statuses": dict(sorted(self.statuses.items())),
            "pods": dict(sorted(self.pods.items())),
            "versions": dict(sorted(self.versions.items())),
            "errors": dict(sorted(self.errors.items())),
            "ms": {"median": times[len(times) // 2], "p99": times[len(times) * 99 // 100], "max": times[-1]},
        }


def _line(turn: int, at: float, url: str, reply: Reply) -> dict[str, Any]:
    line: dict[str, Any] = {"n": turn, "at": round(at, 3), "url": url, "status": reply.status, "ms": reply.milliseconds}
    if reply.error is not None:
        return line | {"error": reply.error}
    headers = {name: reply.headers[name] for name in _HEADERS_OF_INTEREST if name in reply.headers}
    return line | reply.served | {"headers": headers, "body": reply.body}


def _print(line: object) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not a header such as end-user:jason")
    return name.strip(), value.strip()


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not greater than 0")
    return value


def _count(text: str) -> int:
    return int(_positive(text))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="call", description="Send requests to URL and print one JSON line for each.")
    parser.add_argument("url", metavar="URL", help="such as http://reviews:9080/reviews/0")
    parser.add_argument(
        "-n", dest="count", type=_count, help=f"how many; 1, or with --for as many as fit, {MAX_CALLS} at most"
    )
    parser.add_argument(
        "--rate", type=_positive, help="requests per second; without it each follows the answer before it"
    )
    parser.add_argument("--for", dest="seconds", type=_positive, help=f"how long to send, {MAX_SECONDS:g} at most")
    parser.add_argument("--timeout", type=_positive, default=10.0, help="seconds to wait for an answer (10)")
    parser.add_argument(
        "--header", type=_header, action="append", default=[], metavar="NAME:VALUE", help="of the request"
    )
    parser.add_argument("--method", default="GET", help="of the request (GET)")
    parser.add_argument("--data", help="body of the request")
    parser.add_argument("--summary", action="store_true", help="print failures and the summary only")
    return parser
