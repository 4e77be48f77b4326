"""Looking at what the pods of this cluster's meshes present: TLS connections out, what `workloads` makes of it in.

Nothing waits for this: it follows what has changed, a few seconds behind, and a status tells what came of it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from isthmus.agent.workloads import (
    Answer,
    Finding,
    InPlace,
    MeshPod,
    Shown,
    Silent,
    is_of_a_mesh,
    judge,
    pods_of,
    read_mesh_pod,
    summary,
)
from isthmus.api.issued_certificate import WorkloadCertificates
from isthmus.kube import Changed, Removed, Replaced, WatchEvent

Manifest = dict[str, Any]

AT_ONCE = 10  # connections
PATIENCE_SECONDS = 2.0  # for one pod to answer
REST_SECONDS = 5.0  # between two rounds
DOUBT_SECONDS = 60.0  # after which a doubtful pod is looked at again: proxies renew their certificates by themselves
# Codes of X509_verify_cert for chains that end elsewhere. Source: https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/
UNTRUSTED = (2, 18, 19, 20, 21)

log = structlog.get_logger("isthmus.verify")


class Verifier:
    """Knows what pods present. Give it the events of pods with `see`, and call `look` when certificates changed."""

    def __init__(self, *, rest: float = REST_SECONDS, doubt: float = DOUBT_SECONDS) -> None:
        self._rest = rest
        self._doubt = doubt
        self._pods: dict[tuple[str, str], MeshPod] = {}
        self._findings: dict[tuple[str, str], Finding] = {}
        """By fingerprint of `cacerts` and uid of the pod."""
        self._summaries: dict[tuple[str, str], WorkloadCertificates] = {}
        """By name and fingerprint."""
        self._wake = asyncio.Event()

    def see(self, event: WatchEvent) -> None:
        """Take an event of pods."""
        before = dict(self._pods) if isinstance(event, Replaced) else None
        match event:
            case Replaced(items):
                self._pods = {}
                for item in items:
                    self._put(item)
                if self._pods != before:
                    self.look()
            case Changed(item):
                if self._put(item):
                    self.look()
            case Removed(item):
                if self._pods.pop(_place(item), None) is not None:
                    self.look()

    def look(self) -> None:
        """Look at pods again if one is new, or a certificate is."""
        self._wake.set()

    def presented(self, name: str, fingerprint: str) -> WorkloadCertificates | None:
        """What pods present under the `cacerts` of *fingerprint*; None until all were looked at."""
        return self._summaries.get((name, fingerprint))

    async def run(self, in_place: Callable[[], Sequence[InPlace]], changed: Callable[[], None]) -> None:
        """Work until cancelled. *in_place* tells of which certificates; *changed* is called when `presented` did."""
        loop = asyncio.get_running_loop()
        again: float | None = None
        while True:
            try:
                async with asyncio.timeout_at(again):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if again is not None and loop.time() >= again:
                again = None
                self._findings = {key: found for key, found in self._findings.items() if not found.doubtful}
            before = self._summaries
            self._summaries = await self._round(in_place())
            if self._summaries != before:
                changed()
            if again is None and any(finding.doubtful for finding in self._findings.values()):
                again = loop.time() + self._doubt
            await asyncio.sleep(self._rest)

    def _put(self, item: Manifest) -> bool:
        """Whether the pod is another than it was."""
        place, pod = _place(item), read_mesh_pod(item)
        before = self._pods.pop(place, None)
        if pod is not None:
            self._pods[place] = pod
        return pod != before

    async def _round(self, places: Sequence[InPlace]) -> dict[tuple[str, str], WorkloadCertificates]:
        """Look at whatever is not known yet."""
        pods = pods_of(self._pods.values(), places)
        known = {(place.fingerprint, pod.uid) for place in places for pod in pods[place.name]}
        self._findings = {key: finding for key, finding in self._findings.items() if key in known}
        summaries = {}
        for place in places:
            new = [pod for pod in pods[place.name] if (place.fingerprint, pod.uid) not in self._findings]
            answers = await ask(new, place.roots)
            for pod, answer in zip(new, answers, strict=True):
                await asyncio.sleep(0)  # thousands of signatures are not checked in one go
                finding = self._findings[place.fingerprint, pod.uid] = judge(pod, answer, place)
                log.debug("looked at", pod=pod.called, outcome=finding.outcome.value, reason=finding.reason or None)
            findings = {uid: finding for (mark, uid), finding in self._findings.items() if mark == place.fingerprint}
            summaries[place.name, place.fingerprint] = summary(pods[place.name], findings, place)
        return summaries


async def ask(pods: Sequence[MeshPod], roots: bytes) -> list[Answer]:
    """What each of *pods* presents to who trusts *roots*, PEM."""
    if not pods:
        return []
    try:
        trusting = {alpn: _context(roots, alpn) for alpn in {pod.alpn for pod in pods}}
    except ssl.SSLError as error:
        return [Silent(f"the wanted roots cannot be used: {error}")] * len(pods)
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(pod: MeshPod) -> Answer:
        async with turns:
            return await _answer(pod, trusting[pod.alpn])

    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(one(pod)) for pod in pods]
    return [task.result() for task in asked]


async def _answer(pod: MeshPod, trusting: ssl.SSLContext) -> Answer:
    """What the first port says behind which the mesh answers, or else what the first says."""
    first: Answer | None = None
    for port in pod.ports:
        answer: Answer
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await _knock(pod, port, trusting)
        except TimeoutError:
            return Silent(f"no answer from port {port}")
        except (ssl.SSLError, OSError, EOFError) as error:
            answer = Silent(f"no certificate on port {port}: {_why(error)}")
        if is_of_a_mesh(pod, answer):
            return answer
        first = first or answer
    return first or Silent(pod.hidden)


async def _knock(pod: MeshPod, port: int, trusting: ssl.SSLContext) -> Shown:
    try:
        return Shown(await _handshake(pod, port, trusting))
    except ssl.SSLCertVerificationError as error:
        # Who it is that is not trusted: a failed handshake does not tell.
        problem = "it is under another root" if error.verify_code in UNTRUSTED else error.verify_message
        return Shown(await _handshake(pod, port, _context(b"", pod.alpn)), problem or "not trusted")


async def _handshake(pod: MeshPod, port: int, context: ssl.SSLContext) -> bytes:
    """The certificate, DER. With TLS 1.3 it is there before the server has missed ours."""
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol, pod.address, port, ssl=context, server_hostname=pod.address
    )
    try:
        found = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        transport.abort()
    if not found:
        raise EOFError("the connection ended")
    return bytes(found)


def _context(roots: bytes, alpn: Sequence[str]) -> ssl.SSLContext:
    """Trusts *roots*, or without any whomever."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.set_alpn_protocols(list(alpn))
    if roots:
        # A root that is wanted is one, also if somebody else has signed it too.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=roots.decode("ascii", "replace"))
    else:
        context.verify_mode = ssl.CERT_NONE
    return context


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return str(error) or "the connection ended"


def _place(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]
