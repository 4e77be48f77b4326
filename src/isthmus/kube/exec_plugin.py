"""Credentials from an exec plug-in (``aws eks get-token``, ``gke-gcloud-auth-plugin``, ...).

Source: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import orjson

from isthmus.kube.errors import KubeconfigError

VERSIONS = tuple(f"client.authentication.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))
PLUGIN_SECONDS = 60  # a plug-in may open a browser or ask a slow cloud, but must not hang us
EARLY = timedelta(seconds=30)  # a token this close to its end is not worth sending


class ExecAuth(httpx2.Auth):
    """Runs the plug-in when there is no credential, when it expires and when the server refuses it."""

    def __init__(self, plugin: dict[str, Any], cluster: dict[str, Any], tls: ssl.SSLContext, at: str) -> None:
        self.at = f"{at}: exec plug-in {plugin.get('command')!r}"
        if plugin.get("apiVersion") not in VERSIONS:
            raise KubeconfigError(
                f"{self.at}: apiVersion {plugin.get('apiVersion')!r} is none of {', '.join(VERSIONS)}"
            )
        if not plugin.get("command"):
            raise KubeconfigError(f"{self.at}: no command")
        self._plugin = plugin
        self._cluster = cluster
        self._tls = tls
        self._lock = asyncio.Lock()
        self._ran = 0  # how often the plug-in ran; tells a task whether another one has refreshed meanwhile
        self._token = ""
        self._certificate = ""
        self._expires: datetime | None = None
        self.on_new_certificate: Callable[[], Awaitable[None]] | None = None
        """Drops the connections there are, so that the next ones present the new certificate."""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send with the credential there is; on 401 once more with a fresh one."""
        seen = await self._refresh(self._ran if self._stale() else -1)
        response = yield self._signed(request)
        if response.status_code == 401:
            await self._refresh(seen)
            yield self._signed(request)

    def _signed(self, request: httpx2.Request) -> httpx2.Request:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def _stale(self) -> bool:
        return not self._ran or (self._expires is not None and self._expires - EARLY <= datetime.now(UTC))

    async def _refresh(self, seen: int) -> int:
        """Run the plug-in unless it ran since run *seen*; the number of its last run."""
        async with self._lock:
            if seen == self._ran:
                await self._take(await self._run())
                self._ran += 1
            return self._ran

    async def _run(self) -> dict[str, Any]:
        command = str(self._plugin["command"])
        if shutil.which(command) is None:
            hint = str(self._plugin.get("installHint") or "").strip()
            raise KubeconfigError(f"{self.at} is not on this machine" + (f": {hint}" if hint else ""))
        given = {str(pair["name"]): str(pair["value"]) for pair in self._plugin.get("env") or ()}
        child = await asyncio.create_subprocess_exec(
            command,
            *(str(argument) for argument in self._plugin.get("args") or ()),
            env={**os.environ, **given, "KUBERNETES_EXEC_INFO": self._exec_info()},
            stdin=None if self._interactive() else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(PLUGIN_SECONDS):
                out, err = await child.communicate()
        except TimeoutError as error:
            raise KubeconfigError(f"{self.at} gave no answer in {PLUGIN_SECONDS} s") from error
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
        if child.returncode:
            said = " ".join(err.decode(errors="replace").split())[-300:]
            raise KubeconfigError(f"{self.at} ended with {child.returncode}: {said or 'no explanation'}")
        try:
            status = orjson.loads(out)["status"]
            if not (status.get("token") or (status.get("clientCertificateData") and status.get("clientKeyData"))):
                raise KeyError("token")
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise KubeconfigError(f"{self.at} printed no ExecCredential with a token or certificate") from error
        return dict(status)

    def _interactive(self) -> bool:
        return self._plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()

    def _exec_info(self) -> str:
        spec: dict[str, Any] = {"interactive": self._interactive()}
        if self._plugin.get("provideClusterInfo"):
            spec["cluster"] = {key: value for key, value in self._cluster.items() if key != "extensions"}
        return orjson.dumps({"apiVersion": self._plugin["apiVersion"], "kind": "ExecCredential", "spec": spec}).decode()

    async def _take(self, status: dict[str, Any]) -> None:
        token = str(status.get("token") or "").strip()
        if not (token.isascii() and token.isprintable()):
            raise KubeconfigError(f"{self.at} printed a token with characters that a token can't have")
        self._token = token
        expires = status.get("expirationTimestamp")
        self._expires = datetime.fromisoformat(expires) if expires else None
        certificate = str(status.get("clientCertificateData") or "")
        if certificate and certificate != self._certificate:
            # OpenSSL takes a key from a file only; the file is ours alone and gone after the next line.
            with tempfile.NamedTemporaryFile("w", suffix=".pem") as pem:
                pem.write(f"{certificate}\n{status['clientKeyData']}\n")
                pem.flush()
                self._tls.load_cert_chain(pem.name)
            if self._certificate and self.on_new_certificate is not None:
                await self.on_new_certificate()
            self._certificate = certificate
