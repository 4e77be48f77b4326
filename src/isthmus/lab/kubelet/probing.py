"""Asks a container whether it is well: by HTTP, TCP, gRPC or a command in it. Called by the pod's keeper."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.probes import port_number

Run = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
"""Runs a command in the container; its exit code and what it said."""

_LONGEST_LINE = 4096


class ProbeFailed(Exception):
    """The answer is no, or there is none; the text says what came instead."""


async def ask(action: Mapping[str, Any], container: Manifest, address: str, run: Run, seconds: float) -> None:
    """Carry out *action*, a probe or a lifecycle hook. Raises `ProbeFailed`."""
    try:
        async with asyncio.timeout(seconds):
            if "httpGet" in action:
                await _http(action["httpGet"], container, address)
            elif "tcpSocket" in action:
                await _tcp(action["tcpSocket"], container, address)
            elif "grpc" in action:
                await _grpc(action["grpc"], address)
            elif "exec" in action:
                code, said = await run(action["exec"]["command"])
                if code:
                    raise ProbeFailed(said.strip() or f"exit code {code}")
            elif "sleep" in action:
                await asyncio.sleep(action["sleep"]["seconds"])
            else:
                raise ProbeFailed(f"the lab knows no action {', '.join(action)}")
    except TimeoutError as error:
        raise ProbeFailed(f"no answer within {seconds:g} s") from error
    except (OSError, ValueError) as error:
        raise ProbeFailed(str(error) or type(error).__name__) from error


async def _http(get: Mapping[str, Any], container: Manifest, address: str) -> None:
    port = port_number(get["port"], container)
    host = get.get("host") or address
    tls = _unverified() if get.get("scheme") == "HTTPS" else None
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.36", "Accept": "*/*", "Connection": "close"}
    for each in get.get("httpHeaders") or ():
        for name in [known for known in headers if known.lower() == each["name"].lower()]:
            del headers[name]
        headers[each["name"]] = each["value"]
    path = get.get("path") or "/"
    request = [f"GET {path if path.startswith('/') else f'/{path}'} HTTP/1.1"]
    request += [f"{name}: {value}" for name, value in headers.items()]
    reader, writer = await asyncio.open_connection(host, port, ssl=tls, limit=_LONGEST_LINE)
    try:
        writer.write("\r\n".join([*request, "", ""]).encode())
        words = (await reader.readline()).split()
    finally:
        writer.close()
    if len(words) < 2 or not words[1].isdigit():
        raise ProbeFailed("no HTTP answer")
    # A redirect counts as success. Source: kubelet, probe/http.
    if not 200 <= int(words[1]) < 400:
        raise ProbeFailed(f"HTTP probe failed with statuscode: {int(words[1])}")


async def _tcp(target: Mapping[str, Any], container: Manifest, address: str) -> None:
    _, writer = await asyncio.open_connection(target.get("host") or address, port_number(target["port"], container))
    writer.close()


async def _grpc(target: Mapping[str, Any], address: str) -> None:
    from grpclib import GRPCError  # only for pods that have such a probe
    from grpclib.client import Channel
    from grpclib.exceptions import StreamTerminatedError
    from grpclib.health.v1.health_grpc import HealthStub
    from grpclib.health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

    async with Channel(address, int(target["port"])) as channel:
        try:
            answer = await HealthStub(channel).Check(HealthCheckRequest(service=target.get("service") or ""))
        except (GRPCError, StreamTerminatedError) as error:
            raise ProbeFailed(str(error)) from error
    if answer.status != HealthCheckResponse.SERVING:
        raise ProbeFailed(f"service unhealthy (status {answer.status})")


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
