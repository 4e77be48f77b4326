"""The HTTPS endpoint of the lab's kubelet: logs, exec and port-forward, as kube-apiserver asks a kubelet for them.

Owns paths, HTTP and who may come in. Whoever runs the pods stands behind `RunningPods`; what happens on a connection
that was upgraded to SPDY/3.1 is in `remote_exec.py` and `port_forward.py`.
Source: k8s.io/kubernetes/pkg/kubelet/server/server.go, for the paths and the texts of errors.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit

import h11
import msgspec
import structlog

from isthmus.lab.kubelet import log_reader, port_forward, remote_exec
from isthmus.lab.kubelet.remote_exec import Command, Container
from isthmus.lab.kubelet.spdy import ProtocolError
from isthmus.lab.kubelet.streams import CHUNK, Session, Stream

log = structlog.get_logger("isthmus.lab")

Manifest = Mapping[str, Any]

ADMINISTRATORS = "system:masters"
SPDY = "SPDY/3.1"
STREAMS_SECONDS = 30.0  # for a client to open its streams, as on a real kubelet
FAREWELL_SECONDS = 5.0  # for a client to leave after the end of its command, so that it reads the exit code


class RunningPods(Protocol):
    """The pods of one node."""

    def process(self, namespace: str, pod: str, container: str) -> Container | None:
        """The running *container*; None when it does not run."""

    def log(self, namespace: str, pod: str, container: str, previous: bool) -> Path | None:
        """The log of the container's latest run, or of the one before; None when there was none."""

    async def connect(self, namespace: str, pod: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to 127.0.0.1:*port* in the pod's network. Raises `OSError`."""


class KubeletServer:
    """Serves *pods* to administrators of the cluster, as kube-apiserver is one; *tls* must ask for a certificate.

    *manifests* are the node's Pods for who asks what the kubelet knows.
    """

    def __init__(
        self, pods: RunningPods, tls: ssl.SSLContext, manifests: Callable[[], Iterable[Manifest]] = tuple
    ) -> None:
        self._pods = pods
        self._tls = tls
        self._manifests = manifests

    async def serve(self, listener: socket.socket) -> None:
        """Serve what connects to *listener* until cancelled."""
        async with asyncio.TaskGroup() as connections:

            def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.create_task(self._connection(reader, writer), name="kubelet connection")

            server = await asyncio.start_server(connected, sock=listener, ssl=self._tls, ssl_shutdown_timeout=2.0)
            try:
                await asyncio.Event().wait()
            finally:
                server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(reader, writer)
        try:
            while request := await client.request():
                try:
                    await self._answer(client, request)
                except Refused as refused:
                    await client.answer(refused.status, str(refused).encode())
                if not client.next():
                    break
        except* (OSError, ProtocolError, h11.ProtocolError) as errors:
            log.debug("kubelet client left", errors=[str(error) for error in errors.exceptions])
        except* Exception:
            log.exception("kubelet request failed")
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, client: _Client, request: h11.Request) -> None:
        if ADMINISTRATORS not in client.groups:
            raise Refused(403, f"only {ADMINISTRATORS} may ask a kubelet")
        url = urlsplit(request.target.decode())
        query = parse_qs(url.query, keep_blank_values=True)
        kind, *names = (unquote(part) for part in url.path.strip("/").split("/"))
        match kind, names:
            case "healthz", []:
                await client.answer(200, b"ok")
            case "pods", []:
                pods = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._manifests())}
                await client.answer(200, msgspec.json.encode(pods), "application/json")
            case "containerLogs", [namespace, pod, container]:
                await self._logs(client, namespace, pod, container, {name: values[0] for name, values in query.items()})
            case "exec", [namespace, pod, *_, container] if len(names) in (3, 4):
                await self._exec(client, request, namespace, pod, container, query)
            case "portForward", [namespace, pod, *_] if len(names) in (2, 3):
                await self._port_forward(client, request, namespace, pod)
            case _:
                raise Refused(404, "404 page not found")

    async def _logs(self, client: _Client, namespace: str, pod: str, container: str, query: Mapping[str, str]) -> None:
        try:
            options = log_reader.LogOptions.of(query, log_reader.now())
        except log_reader.BadOptions as error:
            raise Refused(422, str(error)) from None
        path = self._pods.log(namespace, pod, container, options.previous)
        if path is None or not path.exists():
            which = "previous terminated container" if options.previous else "container"
            problem = "not found" if options.previous else "is not available"
            raise Refused(400, f'{which} "{container}" in pod "{pod}" {problem}')
        running = self._pods.process(namespace, pod, container) if options.follow and not options.previous else None
        ended = asyncio.ensure_future(running.wait()) if running is not None else None
        try:
            await client.stream(log_reader.read_log(path, options, ended))
        finally:
            if ended is not None:
                ended.cancel()

    async def _exec(
        self,
        client: _Client,
        request: h11.Request,
        namespace: str,
        pod: str,
        container: str,
        query: Mapping[str, list[str]],
    ) -> None:
        asked = {name: query.get(name, [""])[0] in ("1", "true") for name in ("input", "output", "error", "tty")}
        command = Command(
            tuple(query.get("command", ())), asked["input"], asked["output"], asked["error"], asked["tty"]
        )
        if not command.argv:
            raise Refused(400, "a command is missing")
        if not (command.stdin or command.stdout or command.stderr):
            raise Refused(400, "you must specify at least 1 of stdin, stdout, stderr")
        process = self._pods.process(namespace, pod, container)
        if process is None:
            raise Refused(404, f'container "{container}" of pod "{pod}" does not run')
        streams: dict[str, Stream] = {}
        complete = asyncio.Event()

        def accept(stream: Stream) -> bool:
            kind = stream.headers.get("streamtype", "")
            if kind not in command.streams or kind in streams:
                return False
            streams[kind] = stream
            if streams.keys() == command.streams:
                complete.set()
            return True

        async def run() -> None:
            await asyncio.wait_for(complete.wait(), STREAMS_SECONDS)
            await remote_exec.run_command(process, command, streams)

        session = await client.upgrade(request, remote_exec.PROTOCOL)
        reading = asyncio.create_task(session.run(accept))
        running = asyncio.create_task(run())
        await _unless_gone(reading, running, FAREWELL_SECONDS)

    async def _port_forward(self, client: _Client, request: h11.Request, namespace: str, pod: str) -> None:
        async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await self._pods.connect(namespace, pod, port)

        session = await client.upgrade(request, port_forward.PROTOCOL)
        async with asyncio.TaskGroup() as tasks:
            await session.run(port_forward.PortForward(f"{namespace}/{pod}", connect, tasks).accept)


class Refused(Exception):
    """The request is answered with *status* and this text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Client:
    """One connection and the HTTP/1.1 on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.SERVER)
        subject = (writer.get_extra_info("peercert") or {}).get("subject", ())
        self.groups = frozenset(value for part in subject for key, value in part if key == "organizationName")
        """What the client's certificate says, which is how Kubernetes writes a user's groups."""

    async def request(self) -> h11.Request | None:
        """The next request, its body read and dropped: none of ours has one. None at the end."""
        request: h11.Request | None = None
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(await self._reader.read(CHUNK))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage):
                return request
            elif isinstance(event, h11.ConnectionClosed):
                return None

    def next(self) -> bool:
        """Get ready for the next request. Whether there can be one."""
        if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def answer(self, status: int, body: bytes, media_type: str = "text/plain; charset=utf-8") -> None:
        """A whole answer."""
        headers = [("content-type", media_type), ("content-length", str(len(body)))]
        await self._send(h11.Response(status_code=status, headers=headers), h11.Data(data=body), h11.EndOfMessage())

    async def stream(self, pieces: AsyncIterator[bytes]) -> None:
        """An answer that grows while the client stays. Raises `ConnectionError` when it leaves."""
        headers = [("content-type", "text/plain; charset=utf-8"), ("transfer-encoding", "chunked")]
        await self._send(h11.Response(status_code=200, headers=headers))

        async def send() -> None:
            async with aclosing(pieces):  # type: ignore[type-var]
                async for piece in pieces:
                    await self._send(h11.Data(data=piece))

        sending = asyncio.create_task(send())
        leaving = asyncio.create_task(self._reader.read(CHUNK))
        await _unless_gone(leaving, sending)
        await self._send(h11.EndOfMessage())

    async def upgrade(self, request: h11.Request, protocol: str) -> Session:
        """Leave HTTP for SPDY/3.1 with *protocol* on its streams."""
        asked: dict[bytes, list[str]] = {name: [] for name in (b"upgrade", b"x-stream-protocol-version")}
        for name, value in request.headers:
            if name in asked:
                asked[name] += (part.strip() for part in value.decode().split(","))
        if SPDY.lower() not in (value.lower() for value in asked[b"upgrade"]):
            raise Refused(400, f"unable to upgrade: the request does not ask for {SPDY}")
        if protocol not in asked[b"x-stream-protocol-version"]:
            versions = ", ".join(asked[b"x-stream-protocol-version"]) or "none"
            raise Refused(
                403, f"unable to upgrade: of the stream protocols only {protocol} is served; asked: {versions}"
            )
        headers = [("connection", "Upgrade"), ("upgrade", SPDY), ("x-stream-protocol-version", protocol)]
        await self._send(h11.InformationalResponse(status_code=101, headers=headers))
        return Session(self._reader, self._writer, self._http.trailing_data[0])

    async def _send(self, *events: h11.Event) -> None:
        for event in events:
            self._writer.write(self._http.send(event) or b"")
        await self._writer.drain()


async def _unless_gone(leaving: asyncio.Task[Any], work: asyncio.Task[None], farewell_seconds: float = 0.0) -> None:
    """Finish *work*, then give the client time to leave. Raises `ConnectionError` when it leaves before."""
    try:
        await asyncio.wait((leaving, work), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            leaving.result()
            raise ConnectionResetError("the client left")
        work.result()
        await asyncio.wait((leaving,), timeout=farewell_seconds)
    finally:
        leaving.cancel()
        work.cancel()
        await asyncio.gather(leaving, work, return_exceptions=True)
