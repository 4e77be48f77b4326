"""Doing what `certificates` decides: watches in, keys, requests and `cacerts` out, and reports of it to the server."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
import structlog

from isthmus.agent.certificates import (
    SELF_SIGNED,
    TARGET,
    Action,
    Ask,
    Certificates,
    Delete,
    Install,
    MakeKey,
    Manifest,
    Sign,
    SigningFailed,
    Slot,
    Tell,
    WriteAnswer,
    data_of,
)
from isthmus.agent.outputs import Outputs
from isthmus.agent.vault import Signer, VaultSigner
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateState, IssuedCertificateStatus
from isthmus.kube import (
    AlreadyExists,
    Changed,
    Conflict,
    Forbidden,
    KubeClient,
    KubeError,
    NotFound,
    Removed,
    Replaced,
    WatchEvent,
)
from isthmus.model.kinds import SECRET
from isthmus.model.ref import ObjectKey
from isthmus.pki import PemInvalid, new_authority_key
from isthmus.program.crew import Crew
from isthmus.program.records import encode
from isthmus.program.watching import follow
from isthmus.relay import Publication

WORKERS = 2  # a cluster has one mesh, seldom a few; keys of several are made side by side
SERIAL_BITS = 127  # positive, and beyond guessing
LONGEST_SLEEP = 3600.0  # seconds; a clock that is put right is noticed by then

log = structlog.get_logger("isthmus.certificates")


@dataclass
class Counts:
    """What has been done for certificates, for metrics."""

    requested: int = 0
    written: int = 0
    renewed: int = 0
    """Of those written, how many took the place of an earlier one of ours."""
    failed: int = 0
    """How often a certificate has come to a state of FAILED."""


_DECODER = msgspec.json.Decoder(CertificateRequest)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Certifier:
    """Brings certificates to this cluster's meshes.

    *outputs* holds what the server wants and has answered; call `received` when that changed, and `look` when pods have
    restarted. *changed* is called whenever a certificate may have changed. *signer* is asked for what the management
    plane does not sign; Vault by default. Keys are made off the event loop.
    """

    def __init__(
        self,
        kube: KubeClient,
        certificates: Certificates,
        outputs: Outputs,
        publication: Publication,
        *,
        labels: str,
        namespace: str,
        ready: Callable[[], None] = lambda: None,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], datetime] = utc_now,
        signer: Signer | None = None,
    ) -> None:
        self._kube = kube
        self._certificates = certificates
        self._outputs = outputs
        self._publication = publication
        self._labels = labels
        self._namespace = namespace
        self._ready = ready
        self._changed = changed
        self._clock = clock
        self._signer = signer if signer is not None else VaultSigner(kube, namespace)
        self._crew: Crew[str] = Crew(self._act, WORKERS)
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._reported: set[str] = set()
        self.waiting: dict[str, str] = {}
        self.counts = Counts()

    @property
    def known(self) -> bool:
        """Whether everything was read that is reported; False holds up the report's completeness."""
        return not self._certificates.waiting_for()

    @property
    def pending(self) -> int:
        """Certificates that wait to be looked at, now or at a time."""
        return len(self._crew.queue) + self._crew.queue.postponed

    def statuses(self) -> list[tuple[str, IssuedCertificateStatus]]:
        """How far each certificate is, by name of its mesh."""
        found = ((name, self._certificates.reports(name)[1]) for name in sorted(self._certificates.names()))
        return [(name, certificate.status) for name, certificate in found if certificate and certificate.status]

    def received(self) -> None:
        """Take what the server has sent."""
        answers = []
        for payload in self._outputs.answers():
            try:
                answers.append(_DECODER.decode(payload))
            except (msgspec.MsgspecError, ValueError) as error:
                log.warning("an answer cannot be read", error=str(error))
        kind = IssuedCertificate.KIND
        wanted = {(key.namespace, key.name) for key in self._outputs.desired(kind)}
        self._look(self._certificates.received(answers, wanted, complete=self._outputs.complete))

    def look(self) -> None:
        """Look at everything again."""
        self._look(self._certificates.names())

    async def run(self) -> None:
        """Work until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for slot in Slot:
                    tasks.create_task(self._watch(slot), name=f"watch {slot.value}")
                tasks.create_task(self._crew.run(), name="certify")
        finally:
            for timer in self._timers.values():
                timer.cancel()

    def _look(self, names: Iterable[str]) -> None:
        self._changed()
        self._crew.add((name, 0) for name in sorted({*names, *self._reported}))

    async def _watch(self, slot: Slot) -> None:
        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._look(self._certificates.replaced(slot, items))
                    self._ready()
                case Changed(item):
                    self._look(self._certificates.changed(slot, item))
                case Removed(item):
                    self._look(self._certificates.removed(slot, item))

        def refused(error: KubeError) -> None:
            self._look(self._certificates.refused(slot, str(error)))
            self._ready()

        # Rights to list and watch objects of one name in all namespaces ask for this selector.
        # Source: https://kubernetes.io/docs/reference/access-authn-authz/rbac/#referring-to-resources
        fields = f"metadata.name={TARGET}" if slot is Slot.TARGETS else ""
        namespace = "" if slot is Slot.TARGETS else self._namespace
        labels = self._labels if slot is Slot.KEYS else ""
        await follow(self._kube, slot.kind, take, namespace=namespace, labels=labels, fields=fields, refused=refused)

    async def _act(self, name: str) -> bool:
        while True:
            decision = self._certificates.decide(name, self._clock())
            self.waiting[name] = decision.waiting
            if decision.action is None:
                break
            try:
                await self._do(decision.action)
            except Conflict:
                return False  # somebody else wrote; the watch tells what
            except (KubeError, PemInvalid) as error:
                await self._fail(name, decision.action, str(error))
                return False
            except SigningFailed as error:
                assert isinstance(decision.action, Sign)
                log.warning("certificate not signed", certificate=name, error=str(error))
                self._certificates.not_signed(decision.action, str(error), self._clock())
            self._report(name)
        self._report(name)
        self._wake(name, decision.wake)
        return True

    async def _do(self, action: Action) -> None:
        match action:
            case MakeKey():
                if action.replaces is None and (found := await self._in_the_way(Slot.KEYS, action.name)) is not None:
                    self._take(Slot.KEYS, found)
                    return
                pem = await asyncio.to_thread(new_authority_key, action.bits)
                manifest = self._certificates.key_manifest(action, pem, self._clock())
                self._take(Slot.KEYS, await self._write(Slot.KEYS, manifest))
                log.info("key made", certificate=action.name, rsa_bits=action.bits or None)
            case Ask():
                manifest = await asyncio.to_thread(self._certificates.request_manifest, action)
                self._take(Slot.REQUESTS, await self._write(Slot.REQUESTS, manifest))
                self.counts.requested += 1
                log.info("certificate requested", certificate=action.name)
            case Sign():
                status = await self._signer.sign(action.spec, action.csr)
                await self._do(self._certificates.answer_to(action, status, self._clock()))
                log.info("certificate signed", certificate=action.name)
            case WriteAnswer():
                manifest = self._certificates.status_manifest(action)
                self._take(Slot.REQUESTS, await self._kube.apply_status(Slot.REQUESTS.kind, manifest))
            case Install():
                place = action.manifest["metadata"]
                manifest = await self._bridged(action) if action.first else action.manifest
                self._take(Slot.TARGETS, await self._kube.apply(SECRET, manifest, force=action.replaces is not None))
                self.counts.written += 1
                self.counts.renewed += action.replaces is not None and not action.first
                log.info("certificate written", secret=f"{place['namespace']}/{place['name']}")
            case Tell():
                manifest = self._certificates.status_manifest(action)
                self._take(Slot.CERTIFICATES, await self._kube.apply_status(IssuedCertificate.KIND, manifest))
                told = action.status
                self.counts.failed += told.state is IssuedCertificateState.FAILED
                log.info("certificate", certificate=action.name, state=told.state.value, error=told.error or None)
            case Delete(slot, namespace, name, version):
                await self._kube.delete(
                    slot.kind, namespace, name, uid=version.uid, resource_version=version.resource_version
                )
                self._certificates.gone(slot, namespace, name)
                log.info("deleted", kind=slot.kind.kind, namespace=namespace, name=name)

    async def _bridged(self, install: Install) -> Manifest:
        """What to apply so that pods under the mesh's root before go on talking to those under the new one."""
        namespace = install.manifest["metadata"]["namespace"]
        before = install.before
        try:
            if not before:
                before = data_of(await self._kube.get(SECRET, namespace, SELF_SIGNED))
            serial = secrets.randbits(SERIAL_BITS)
            return await asyncio.to_thread(
                self._certificates.bridged_manifest, install, before, serial=serial, now=self._clock()
            )
        except NotFound:
            return install.manifest  # nothing has been signed here yet
        except (Forbidden, PemInvalid) as error:
            log.warning("pods will distrust each other until all have restarted", namespace=namespace, error=str(error))
            return install.manifest

    async def _write(self, slot: Slot, manifest: Manifest) -> Manifest:
        """Create what is new, so that nothing of somebody else is joined; replace what is ours."""
        if "resourceVersion" in manifest["metadata"]:
            return await self._kube.apply(slot.kind, manifest, force=True)
        try:
            return await self._kube.create(slot.kind, manifest)
        except AlreadyExists as error:
            found = await self._in_the_way(slot, manifest["metadata"]["name"])
            if found is None:
                raise KubeError(str(error)) from error  # it is gone again
            return found

    async def _in_the_way(self, slot: Slot, name: str) -> Manifest | None:
        """The object of ours that is there although no watch has told, None if there is none.

        Another agent was faster: one that this one replaces, or that replaces this one. Raises `KubeError` when the
        object is somebody else's.
        """
        try:
            found = await self._kube.get(slot.kind, self._namespace, name)
        except NotFound:
            return None
        if self._certificates.is_ours(slot, found):
            return found
        kind = slot.kind.kind
        raise KubeError(f"{kind} {self._namespace}/{name} was made by somebody else; delete it if it is not needed")

    def _take(self, slot: Slot, answer: Manifest) -> None:
        self._certificates.changed(slot, answer)

    async def _fail(self, name: str, action: Action, error: str) -> None:
        log.warning("certificate cannot be brought on", certificate=name, step=type(action).__name__, error=error)
        tell = self._certificates.failed(name, error)
        if tell is None or isinstance(action, Tell):
            return
        try:
            await self._do(tell)
        except KubeError as trouble:
            log.warning("status cannot be written", certificate=name, error=str(trouble))

    def _report(self, name: str) -> None:
        changes: dict[str, bytes | None] = {}
        for kind, found in zip(
            (CertificateRequest.KIND, IssuedCertificate.KIND), self._certificates.reports(name), strict=True
        ):
            key = ObjectKey(kind.api_version, kind.kind, self._namespace, name)
            changes[str(key)] = encode(found) if found is not None else None
        if any(changes.values()):
            self._reported.add(name)
        else:
            self._reported.discard(name)
            self.waiting.pop(name, None)
        self._publication.publish(changes, complete=self._publication.complete)

    def _wake(self, name: str, at: datetime | None) -> None:
        if (timer := self._timers.pop(name, None)) is not None:
            timer.cancel()
        if at is not None:
            seconds = min(max(1.0, (at - self._clock()).total_seconds()), LONGEST_SLEEP)
            loop = asyncio.get_running_loop()
            self._timers[name] = loop.call_later(seconds, self._crew.add, [(name, 0)])
