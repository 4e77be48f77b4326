"""The port for operators: health, metrics and what the program holds.

Paths as users know them. Source: reference, relay, health and metrics.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from prometheus_client.registry import Collector
    from starlette.applications import Starlette

Snapshot = Callable[[], Mapping[str, Any]]


class Probes:
    """What the port shows.

    *ready* gives what the program still waits for, nothing when it is ready.
    """

    def __init__(
        self,
        *,
        collectors: Sequence[Collector],
        ready: Callable[[], tuple[str, ...]],
        snapshots: Mapping[str, Snapshot],
    ) -> None:
        self.collectors = collectors
        self.ready = ready
        self.snapshots = snapshots

    def app(self) -> Starlette:
        """The pages as an ASGI application."""
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, ProcessCollector, generate_latest
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, Response
        from starlette.routing import Route

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        for collector in self.collectors:
            registry.register(collector)

        async def healthz(_: Request) -> Response:
            return PlainTextResponse("ok\n")

        async def readyz(_: Request) -> Response:
            missing = self.ready()
            text = "".join(f"waiting for {what}\n" for what in missing) or "ok\n"
            return PlainTextResponse(text, status_code=503 if missing else 200)

        async def metrics(_: Request) -> Response:
            return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

        async def snapshot(request: Request) -> Response:
            found = self.snapshots.get(request.path_params["name"])
            if found is None:
                return PlainTextResponse(f"there are snapshots of {', '.join(self.snapshots)}\n", status_code=404)
            return Response(msgspec.json.encode(found()), media_type="application/json")

        return Starlette(
            routes=[
                Route("/healthz", healthz),
                Route("/ready", readyz),
                Route("/readyz", readyz),
                Route("/metrics", metrics),
                Route("/snapshots/{name}", snapshot),
            ]
        )

    async def serve(self, listener: socket.socket) -> None:
        """Answer on *listener* until cancelled."""
        import uvicorn

        class Server(uvicorn.Server):
            @contextmanager
            def capture_signals(self) -> Iterator[None]:
                yield  # signals are the program's

        config = uvicorn.Config(self.app(), lifespan="off", log_config=None, access_log=False, ws="none")
        server = Server(config)
        serving = asyncio.ensure_future(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = server.force_exit = True
            await serving
            raise


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; an OSError that names the address if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listener
