"""HTTP with one API server: connections, retries, and its refusals as exceptions of ours."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Iterator
from typing import TYPE_CHECKING, Any

import orjson

from isthmus.kube.backoff import BackOff
from isthmus.kube.errors import KubeconfigError, KubeError, Unavailable, Untrusted, error_for

if TYPE_CHECKING:
    import httpx2

    from isthmus.kube.kubeconfig import Connection

KEEP_ALIVE = 64  # idle connections kept: some 20 watches and the requests of a burst
KEEP_ALIVE_SECONDS = 60.0  # below the 90 s after which API servers close an idle connection
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0  # API servers end a request that is no watch after as long
WATCH_SECONDS = (300, 600)  # watches end now and then, at different times, so that they spread over API servers again
# A peer that vanished without a word (a node switched off) is noticed after a minute, by a silent watch too.
SOCKET_OPTIONS = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, option), value)
        for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, option)
    ),
]
JSON = "application/json"


class Session:
    """Sends requests to one API server; see `KubeClient` for *patience* and *in_flight*."""

    def __init__(self, connection: Connection, patience: float, in_flight: int) -> None:
        import httpx2
        from lightkube import ConfigError

        from isthmus.kube.connections import Connections

        self.connection = connection
        self.patience = patience
        self._slots = asyncio.Semaphore(in_flight)
        try:
            transport = httpx2.AsyncHTTPTransport(
                verify=connection.tls,
                trust_env=False,
                limits=httpx2.Limits(
                    max_connections=None, max_keepalive_connections=KEEP_ALIVE, keepalive_expiry=KEEP_ALIVE_SECONDS
                ),
                proxy=connection.proxy,
                socket_options=SOCKET_OPTIONS,
            )
        except (ValueError, ImportError, httpx2.InvalidURL) as error:  # ImportError: SOCKS without the package socksio
            raise KubeconfigError(f"{connection}: proxy {connection.proxy_host}: {error}") from error
        self._connections = transport._pool._network_backend = Connections()  # httpx passes none on
        self._transport = transport
        if connection.exec_auth is not None:
            connection.exec_auth.on_new_certificate = self._drop_connections
        self._http = httpx2.AsyncClient(
            base_url=connection.server,
            transport=transport,
            auth=connection.auth,
            trust_env=False,  # no ~/.netrc; the environment's proxy is in the connection already
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS, pool=None),
            # Compressing costs the API server and us more than it saves within a cluster.
            headers={"User-Agent": "isthmus", "Accept": JSON, "Accept-Encoding": "identity"},
        )
        self._extensions = {"sni_hostname": connection.server_name} if connection.server_name else {}
        self._http_error = httpx2.RequestError
        self._config_error = ConfigError  # from lightkube's token file

    async def close(self) -> None:
        """Close every connection."""
        try:
            await self._http.aclose()
        finally:
            await self._connections.close()

    async def _drop_connections(self) -> None:
        """Close every connection there is; requests under way break, the next ones open others."""
        try:
            await self._transport.aclose()
        finally:
            await self._connections.close()

    def at(self, about: str) -> str:
        """How messages begin: what was asked, and whom."""
        return f"{self.connection}: {about}"

    async def json(
        self,
        method: str,
        path: str,
        about: str,
        *,
        params: dict[str, str] | None = None,
        body: dict[str, Any] | None = None,
        content_type: str = JSON,
        accept: str = JSON,
    ) -> dict[str, Any]:
        """The answer to one request, tried again on 429, 5xx and broken connections."""
        headers = {"Accept": accept}
        content = None
        if body is not None:
            headers["Content-Type"] = content_type
            content = orjson.dumps(body)
        back_off = BackOff()
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return await self._once(method, path, about, params=params, content=content, headers=headers)
            except Untrusted:
                raise
            except Unavailable as error:
                wait = back_off.wait(error.retry_after)
                if time.monotonic() + wait > deadline:
                    raise
            await asyncio.sleep(wait)

    async def _once(self, method: str, path: str, about: str, **request: Any) -> dict[str, Any]:
        try:
            async with self._slots:
                response = await self._http.request(method, path, extensions=self._extensions, **request)
        except self._http_error as error:
            raise self._unreachable(error, about) from error
        except self._config_error as error:
            raise KubeconfigError(f"{self.at(about)}: {error}") from error
        if not response.is_success:
            raise self._refusal(response, response.content, about)
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            # A proxy's page, or an answer cut where nobody noticed: worth another try.
            raise Unavailable(f"{self.at(about)}: the answer is not JSON: {response.content[:80]!r}") from error
        if not isinstance(answer, dict):
            raise Unavailable(f"{self.at(about)}: the answer is not an object: {response.content[:80]!r}")
        return answer

    async def stream(self, path: str, about: str, *, params: dict[str, str]) -> AsyncGenerator[bytes, None]:
        """The bytes of one watch, first none at all: it is open. Ends when the server ends it.

        Raises `Unavailable` when the connection breaks.
        """
        seconds = random.randint(*WATCH_SECONDS)
        params = {**params, "watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        timeout = {"connect": CONNECT_SECONDS, "read": seconds + ANSWER_SECONDS, "write": ANSWER_SECONDS, "pool": None}
        try:
            async with self._http.stream(
                "GET", path, params=params, extensions={**self._extensions, "timeout": timeout}
            ) as response:
                if response.status_code != 200:
                    raise self._refusal(response, await response.aread(), about)
                yield b""
                async for chunk in response.aiter_raw():
                    yield chunk
        except self._http_error as error:
            raise self._unreachable(error, about) from error
        except self._config_error as error:
            raise KubeconfigError(f"{self.at(about)}: {error}") from error

    def _refusal(self, response: httpx2.Response, body: bytes, about: str) -> KubeError:
        return error_for(response.status_code, body, self.at(about), response.headers.get("Retry-After", ""))

    def _unreachable(self, error: Exception, about: str) -> Unavailable:
        causes = list(_causes(error))
        said = next(filter(None, map(_system_text, reversed(causes))), "")
        text = f"{self.at(about)}: {said or str(error) or type(error).__name__}"
        if self.connection.proxy:
            text += f" (through proxy {self.connection.proxy_host})"
        untrusted = any(isinstance(cause, ssl.SSLError) and "CERTIFICATE" in (cause.reason or "") for cause in causes)
        return Untrusted(text) if untrusted else Unavailable(text)


def _system_text(error: BaseException) -> str:
    """What the system says, such as ``Connection refused``; it tells more than what is wrapped around it."""
    if isinstance(error, ConnectionError) and error.errno:
        return os.strerror(error.errno)  # asyncio puts "Connect call failed" into strerror
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLWantReadError | ssl.SSLWantWriteError):
        return error.strerror or ""
    return ""


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """*error*, what caused it, and so on; of several at once the first."""
    while error is not None:
        yield error
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error.__context__
