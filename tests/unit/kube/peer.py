"""The other end of the wire: a small HTTP/1.1 server that answers by script, and may break off anywhere."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

DEADLINE = 30.0  # seconds a test waits for anything


@dataclass
class Request:
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    client: str = ""
    """Common name in the client's certificate."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """What goes back. With *chunks* the body is sent chunked, and *then* is its end: ``end``, ``break`` or ``hold``."""

    code: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: tuple[bytes, ...] | None = None
    then: str = "end"


def answer(code: int, body: Any, **headers: str) -> Answer:
    """A JSON answer; underscores in names of *headers* stand for dashes."""
    return Answer(code, json.dumps(body).encode(), {name.replace("_", "-"): text for name, text in headers.items()})


def status(code: int, reason: str, message: str = "said so", **details: Any) -> dict[str, Any]:
    """A ``Status`` object."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "code": code,
        "reason": reason,
        "message": message,
        "details": details,
    }


def config_map(name: str, version: int, **data: str) -> dict[str, Any]:
    """A ConfigMap at resource version *version*."""
    metadata = {
        "name": name,
        "namespace": "default",
        "resourceVersion": str(version),
        "managedFields": [{"manager": "x"}],
    }
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def listing(version: int, *items: dict[str, Any], more: str = "") -> Answer:
    """A list as API servers send it: items of built-in kinds without apiVersion and kind."""
    bare = [{key: value for key, value in item.items() if key not in ("apiVersion", "kind")} for item in items]
    metadata = {"resourceVersion": str(version), **({"continue": more} if more else {})}
    return answer(200, {"kind": "ConfigMapList", "apiVersion": "v1", "metadata": metadata, "items": bare})


def line(verb: str, item: dict[str, Any]) -> bytes:
    """One event of a watch."""
    return json.dumps({"type": verb, "object": item}).encode() + b"\n"


def watching(*chunks: bytes, then: str = "hold") -> Answer:
    """A watch."""
    return Answer(chunks=chunks, then=then)


class Peer:
    """Answers request after request from `script`; the last entry answers for ever."""

    def __init__(self) -> None:
        self.script: list[Answer | Callable[[Request], Answer]] = []
        self.requests: list[Request] = []
        self.connections = 0
        self.running = 0
        self.most_running = 0
        self.gate: asyncio.Event | None = None
        """If set, no request is answered before it."""
        self.url = ""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until *what* holds; it is looked at with every request."""
        async with asyncio.timeout(DEADLINE), self._changed:
            await self._changed.wait_for(what)

    async def left(self) -> None:
        """Wait until the clients have closed all their connections."""
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self._tasks)

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=tls)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return False
        first, *rest = head.strip().split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.lower(): text for name, _, text in (entry.partition(": ") for entry in rest)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        parts = urlsplit(target)
        request = Request(method, parts.path, dict(parse_qsl(parts.query)), headers, body, common_name(writer))
        reply = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        found = reply(request) if callable(reply) else reply
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        if self.gate is not None:
            await self.gate.wait()
        self.running -= 1
        return await self._send(writer, found)

    async def _send(self, writer: asyncio.StreamWriter, found: Answer) -> bool:
        lines = [f"HTTP/1.1 {found.code} Said", *(f"{name}: {text}" for name, text in found.headers.items())]
        if found.chunks is None:
            if found.then == "break":
                return False
            writer.write("\r\n".join([*lines, f"Content-Length: {len(found.body)}", "", ""]).encode() + found.body)
            await writer.drain()
            return True
        writer.write("\r\n".join([*lines, "Transfer-Encoding: chunked", "", ""]).encode())
        for chunk in found.chunks:
            writer.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
            await writer.drain()
        if found.then == "hold":
            await asyncio.Event().wait()
        if found.then == "break":
            writer.close()  # sends what is buffered, then ends amid the body
            await writer.wait_closed()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def common_name(writer: asyncio.StreamWriter) -> str:
    """Who the client's certificate says it is."""
    certificate = writer.get_extra_info("peercert") or {}
    names = {name: text for ((name, text),) in certificate.get("subject", ())}
    return names.get("commonName", "")


class Proxy:
    """An HTTP proxy that knows CONNECT."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Proxy]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.split("\r\n")[0])
            host, _, port = head.split(" ")[1].rpartition(":")
            there, back = await asyncio.open_connection(host, int(port))
            writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            async with asyncio.TaskGroup() as pipes:
                pipes.create_task(_pipe(reader, back))
                pipes.create_task(_pipe(there, writer))
        except (ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def _pipe(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while chunk := await source.read(65536):
            sink.write(chunk)
            await sink.drain()
    finally:
        sink.close()
