"""HTTP for bookinfo's services: requests in, answers out, calls in between, and who served noted on all of them.

A thread per connection is enough for what a proxy sends to one pod, and starts in half the time of an ASGI server.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import responses
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from isthmus.lab.calls import SERVED_HEADERS, Reply, ask

PORT = 9080

DRAIN_SECONDS = 25.0
"""How long a server that was told to stop goes on at most, while others still send to it.

They do while nobody tells them of its end: when an istiod, or the management plane, is just starting again.
"""
QUIET_SECONDS = 2.0
"""How long without a request until it ends: by then callers of all clusters know that it does."""

PROPAGATED = frozenset(
    {
        "x-request-id",
        "x-ot-span-context",
        "x-datadog-trace-id",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "traceparent",
        "tracestate",
        "x-cloud-trace-context",
        "grpc-trace-bin",
        "x-b3-traceid",
        "x-b3-spanid",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-flags",
        "sw8",
        "end-user",
        "user-agent",
        "cookie",
        "authorization",
        "jwt",
    }
)
"""Request headers that a service passes on to its callees: those of tracing, and the sample's own.

Source: https://istio.io/latest/docs/tasks/observability/distributed-tracing/overview/
"""

_TOLD = (
    "host",
    "end-user",
    "user-agent",
    "x-request-id",
    "x-b3-traceid",
    "traceparent",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-client-cert",  # by the proxy: the caller that it authenticated
    "x-envoy-attempt-count",
)
"""Request headers that an answer repeats."""


@dataclass(frozen=True)
class Identity:
    """Who serves."""

    service: str
    version: str
    cluster: str
    pod: str

    @classmethod
    def of_environment(cls, service: str, version: str) -> Identity:
        """The service in the pod that this process runs in; the lab's kubelet sets ISTHMUS_LAB_CLUSTER."""
        cluster = os.environ.get("ISTHMUS_LAB_CLUSTER", "")
        return cls(service, version, cluster, os.environ.get("HOSTNAME") or os.uname().nodename)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    """By names in lower case."""
    body: bytes = b""
    query: str = ""

    @property
    def form(self) -> Mapping[str, str]:
        """The fields of a submitted form; the first value of each."""
        return {name: values[0] for name, values in parse_qs(self.body.decode("utf-8", "replace")).items()}


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    """Text, or what is sent as JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"


@dataclass
class Exchange:
    """One request being served, and the calls that it causes."""

    identity: Identity
    request: Request
    calls: list[dict[str, Any]] = field(default_factory=list)

    def get(self, url: str, *, timeout: float, headers: Mapping[str, str]) -> Reply:
        """Ask another service on behalf of this request; *headers* come on top of those passed on."""
        passed_on = {name: value for name, value in self.request.headers.items() if name in PROPAGATED}
        reply = ask(url, headers=passed_on | dict(headers), timeout=timeout)
        made: dict[str, Any] = {"url": url, "ms": reply.milliseconds}
        made |= {"status": reply.status} if reply.error is None else {"error": reply.error}
        if isinstance(reply.body, dict) and isinstance(reply.body.get("served"), dict):
            made["served"] = reply.body.pop("served")
        elif reply.served:
            made["served"] = reply.served
        self.calls.append(made)
        return reply

    @property
    def served(self) -> dict[str, Any]:
        """Who serves this request, and whom it asked so far."""
        told = {name: self.request.headers[name] for name in _TOLD if name in self.request.headers}
        return self.identity_fields | {"request": told, "calls": self.calls}

    @property
    def identity_fields(self) -> dict[str, str]:
        return {key: str(getattr(self.identity, key)) for key in SERVED_HEADERS}


Service = Callable[[Exchange], Answer]


def run(service: Service, identity: Identity, *, host: str, port: int) -> int:
    """Serve until SIGTERM, then until nobody asks any more; the exit code. The first line printed names the port."""
    server = _Server(service, identity, host, port)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 60}, daemon=True).start()
    server.say(f"{identity.service} {identity.version} listens on port {server.socket.getsockname()[1]}")
    stop.wait()
    server.drain()
    return 0


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, service: Service, identity: Identity, host: str, port: int) -> None:
        self.service = service
        self.identity = identity
        self.draining = False
        self.open = 0
        self.latest = 0.0
        self.lock = threading.Lock()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # IPv4 comes in on the same socket
        super().server_bind()

    def drain(self) -> None:
        """Answer whoever has not heard yet that this pod ends; each answer closes its connection."""
        self.draining = True
        told = time.monotonic()
        while time.monotonic() < told + DRAIN_SECONDS:
            with self.lock:
                rest = max(self.latest, told) + QUIET_SECONDS - time.monotonic()
                if self.open == 0 and rest <= 0:
                    return
            time.sleep(max(rest, 0.02))

    def say(self, line: str) -> None:
        with self.lock:
            sys.stdout.write(line + "\n")
            sys.stdout.flush()


class _Handler(BaseHTTPRequestHandler):
    """Reads one request after the other from a connection, and writes what the service answers."""

    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True  # the peer left; whether it got its answer only it knows

    def respond(self) -> None:
        """Serve one request that has been read up to its body."""
        with self.server.lock:
            self.server.open += 1
            self.server.latest = time.monotonic()
        try:
            self._respond()
            self.wfile.flush()
        finally:
            with self.server.lock:
                self.server.open -= 1

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = respond

    def _respond(self) -> None:
        started = time.perf_counter()
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = headers.get("content-length", "0")
        if "transfer-encoding" in headers or not length.isdecimal():
            self.send_error(411)
            return
        target = urlsplit(self.path)
        request = Request(self.command, target.path, headers, self.rfile.read(int(length)), target.query)
        exchange = Exchange(self.server.identity, request)
        answer = self.server.service(exchange)
        body = answer.body
        if isinstance(body, dict):
            body = body | {"served": exchange.served}
        payload = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response_only(answer.status, responses.get(answer.status))
        self.send_header("Content-Type", answer.content_type)
        self.send_header("Content-Length", str(len(payload)))
        for key, value in exchange.identity_fields.items():
            self.send_header(SERVED_HEADERS[key], value)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if self.server.draining:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(payload)
        if request.path != "/health":
            took = (time.perf_counter() - started) * 1000
            self.server.say(f"{self.command} {self.path} {answer.status} {took:.0f} ms")

    def log_message(self, format: str, *args: object) -> None:
        self.server.say(format % args)
