"""Answers certificate requests of agents: signs what a VirtualMesh asks for, and nothing else.

An answer is a record to the agent, of the same key as its request. It is there until the agent reports that it has
it, and is for one generation of one request.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec
import structlog

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import CertificateRequest, CertificateRequestState, CertificateRequestStatus
from isthmus.api.common import KeyAlgorithm
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateSpec
from isthmus.model.ref import ObjectKey, Ref
from isthmus.pki import (
    PemInvalid,
    SigningRoot,
    certificate_is_for,
    check_chain,
    inspect_intermediate_csr,
    sign_intermediate,
)
from isthmus.program.crew import Crew
from isthmus.program.durations import Durations
from isthmus.program.records import encode
from isthmus.server.fleet import Fleet
from isthmus.server.plane import Plane
from isthmus.server.roots import Roots
from isthmus.translate import OutputKey

SIGNERS = 2  # at once; a signature with 4096 bits takes some milliseconds, in a thread
DEFAULT_LIFE_DAYS = 365

TRUST = "isthmus.io/trust"
"""Annotation of a request: the trust of the IssuedCertificate that it was made for."""

log = structlog.get_logger("isthmus.trust")

Asked = tuple[str, ObjectKey]
"""A cluster, and a request of its agent."""


def refusal(request: CertificateRequest, wanted: IssuedCertificateSpec | None, cluster: str) -> str | None:
    """Why *request* of *cluster* may not be signed; *wanted* is the certificate of its name that is to be there."""
    name = f"{request.metadata.namespace}/{request.metadata.name}"
    if wanted is None:
        return f"no VirtualMesh asks for an IssuedCertificate {name} on cluster {cluster}"
    try:
        asked = inspect_intermediate_csr(request.spec.certificate_signing_request)
    except PemInvalid as error:
        return str(error)
    if sorted(asked.hosts) != sorted(wanted.hosts) or asked.other_names:
        names = ", ".join(asked.hosts) or "nobody"
        more = " and names of other kinds" if asked.other_names else ""
        return f"the request is for {names}{more}; only {', '.join(wanted.hosts)} can be asked for"
    organization = wanted.cert_options.org_name if wanted.cert_options else wanted.org
    if asked.organizations != (organization,) or asked.units != (request.metadata.name,) or asked.other_subject:
        return f"the request's subject is not O={organization}, OU={request.metadata.name} and nothing else"
    if asked.ca is False or asked.path_length not in (None, 0):
        return (
            f"the request asks for CA={asked.ca} with path length {asked.path_length}; an authority that signs "
            "workloads only, with path length 0, can be asked for"
        )
    if wanted.cert_options and wanted.cert_options.key_algorithm is KeyAlgorithm.ECDSA and asked.rsa_bits is not None:
        return "the request's key is an RSA key, where an ECDSA key is asked for"
    least = wanted.cert_options.rsa_key_size_bytes if wanted.cert_options else 0
    if asked.rsa_bits is not None and asked.rsa_bits < least:
        return f"the request's RSA key has {asked.rsa_bits} bits, where {least} are asked for"
    return None


def is_answered(request: CertificateRequest, trusted: bytes, now: datetime) -> bool:
    """Whether the agent has a certificate for this generation of *request* that leads to one of *trusted* (PEM)."""
    status = request.status
    if status is None or not _is_finished(request) or not status.signed_certificate:
        return False
    try:
        return certificate_is_for(
            status.signed_certificate, request.spec.certificate_signing_request
        ) and not check_chain(status.cert_chain or status.signed_certificate, trusted, now)
    except PemInvalid:
        return False


def _is_finished(request: CertificateRequest) -> bool:
    status = request.status
    return (
        status is not None
        and status.state is CertificateRequestState.FINISHED
        and status.observed_generation == request.metadata.generation
    )


def answer(request: CertificateRequest, status: CertificateRequestStatus) -> bytes:
    """The record that answers *request*."""
    meta = request.metadata
    same = ObjectMeta(name=meta.name, namespace=meta.namespace, generation=meta.generation, uid=meta.uid)
    status = msgspec.structs.replace(status, observed_generation=meta.generation)
    return encode(CertificateRequest(metadata=same, spec=request.spec, status=status))


def sign(
    request: CertificateRequest,
    wanted: IssuedCertificateSpec,
    signer: SigningRoot,
    trusted: bytes,
    *,
    serial: int,
    now: datetime,
) -> CertificateRequestStatus:
    """The certificate that *request* asks for. Slow: to be called in a thread. Raises `PemInvalid`."""
    days = (wanted.cert_options.ttl_days if wanted.cert_options else 0) or DEFAULT_LIFE_DAYS
    life = min(timedelta(days=days), signer.not_after - now)
    csr = request.spec.certificate_signing_request
    signed = sign_intermediate(signer.authority, csr, hosts=wanted.hosts, serial=serial, now=now, life=life)
    return CertificateRequestStatus(
        state=CertificateRequestState.FINISHED,
        signed_certificate=signed,
        signing_root_ca=trusted,
        cert_chain=signed + signer.authority.chain,
    )


class _Arrival(NamedTuple):
    """When a generation of a request came; *at* None once it is answered."""

    uid: str
    generation: int
    at: float | None


class Issuer:
    """Answers the requests of all clusters."""

    def __init__(
        self, fleet: Fleet, plane: Plane, roots: Roots, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._fleet = fleet
        self._plane = plane
        self._roots = roots
        self._now = now
        self._crew: Crew[Asked] = Crew(self._act, SIGNERS)
        self._answers: dict[Asked, tuple[bytes, bytes]] = {}
        """What was signed (request, certificate wanted, trust) and the answer to it."""
        self._arrived: dict[Asked, _Arrival] = {}
        self.signed = 0
        self.renewed = 0
        """How many of those signed are for meshes that had a certificate."""
        self.refused = 0
        self.failed = 0
        """How many could not be signed although they ask for the right thing."""
        self.durations = Durations()
        """From the arrival of a request to its answer."""

    def requests(self, cluster: str, keys: Iterable[ObjectKey]) -> None:
        """Look at requests of *cluster* that came, changed or went."""
        asked = [(cluster, key) for key in keys]
        for one in asked:
            self._note_arrival(one)
        self._crew.add((one, 0) for one in asked)

    def outputs(self, cluster: str, keys: Iterable[ObjectKey]) -> None:
        """Look at the requests for those of *keys* that are certificates and are now wanted otherwise."""
        kind = CertificateRequest.KIND
        self.requests(
            cluster,
            [
                ObjectKey(kind.api_version, kind.kind, key.namespace, key.name)
                for key in keys
                if key.kind == IssuedCertificate.KIND.kind and key.api_version == kind.api_version
            ],
        )

    def roots_changed(self, _: Ref) -> None:
        """Look at all requests, since something else may sign now."""
        for name, cluster in self._fleet.clusters.items():
            self.requests(name, cluster.requests)

    async def run(self) -> None:
        """Work until cancelled."""
        await self._crew.run()

    async def _act(self, asked: Asked) -> bool:
        cluster, key = asked
        known = self._fleet.clusters.get(cluster)
        request = known.requests.get(key) if known is not None else None
        if request is None:
            self._publish(asked, None)
            return True
        wanted, virtual_mesh = await self._wanted(asked)
        if wanted is None and _is_finished(request):
            self._publish(asked, None)  # the agent takes away what it has once it may; no verdict hurries it
            return True
        if wanted is None and self._plane.missing():
            return True  # it may be wanted by what is not read yet; outputs tells
        if wanted is not None and wanted.agent_ca is not None:
            self._publish(asked, None)  # the agent has it signed elsewhere
            return True
        signer = self._roots.signer(virtual_mesh) if virtual_mesh is not None else None
        trusted = signer[1] if signer is not None else b""
        if wanted is not None and signer is not None and is_answered(request, trusted, self._now()):
            self._publish(asked, None)
            return True
        if wanted is not None and request.metadata.annotations.get(TRUST, wanted.trust) != wanted.trust:
            self._publish(asked, None)  # of the step before; the agent is about to ask anew
            return True
        if (reason := refusal(request, wanted, cluster)) is not None:
            self._refuse(asked, request, reason)
            return True
        if wanted is None or signer is None:
            return True  # the status of the VirtualMesh says what is wrong with its root
        basis = encode([request.metadata.uid, request.metadata.generation, request.spec, wanted, trusted])
        if self._answers.get(asked, (b"", b""))[0] != basis:
            serial, now = secrets.randbits(127) + 1, self._now()
            try:
                status = await asyncio.to_thread(sign, request, wanted, *signer, serial=serial, now=now)
            except PemInvalid as error:
                self._refuse(asked, request, str(error), failed=True)
                return True
            self._answers[asked] = (basis, answer(request, status))
            self.signed += 1
            self.renewed += self._has_one(asked)
            log.info("intermediate signed", cluster=cluster, request=str(key), serial=f"{serial:x}")
        if self._is_current(asked, request):
            self._publish(asked, self._answers[asked][1])
            self._note_answer(asked)
        return True

    def _has_one(self, asked: Asked) -> bool:
        cluster = self._fleet.clusters.get(asked[0])
        status = cluster.certificates.get(asked[1].name) if cluster is not None else None
        return status is not None and bool(status.not_after)

    def _note_arrival(self, asked: Asked) -> None:
        cluster = self._fleet.clusters.get(asked[0])
        request = cluster.requests.get(asked[1]) if cluster is not None else None
        if request is None:
            self._arrived.pop(asked, None)
            return
        meta, before = request.metadata, self._arrived.get(asked)
        if not _is_finished(request) and (before is None or before[:2] != (meta.uid, meta.generation)):
            self._arrived[asked] = _Arrival(meta.uid, meta.generation, time.monotonic())

    def _note_answer(self, asked: Asked) -> None:
        arrival = self._arrived.get(asked)
        if arrival is not None and arrival.at is not None:
            self.durations.observe(time.monotonic() - arrival.at)
            self._arrived[asked] = arrival._replace(at=None)

    def _is_current(self, asked: Asked, request: CertificateRequest) -> bool:
        """Whether *request* still is what the agent asks for; if not, it is looked at again anyway."""
        cluster = self._fleet.clusters.get(asked[0])
        return cluster is not None and cluster.requests.get(asked[1]) == request

    async def _wanted(self, asked: Asked) -> tuple[IssuedCertificateSpec | None, Ref | None]:
        cluster, key = asked
        kind = IssuedCertificate.KIND
        output_key = OutputKey(cluster, ObjectKey(kind.api_version, kind.kind, key.namespace, key.name))
        async with self._plane.lock:
            output = self._plane.engine.output(output_key)
        if output is None or not isinstance(output.object, IssuedCertificate):
            return None, None
        return output.object.spec, output.parents[0].ref

    def _refuse(self, asked: Asked, request: CertificateRequest, reason: str, *, failed: bool = False) -> None:
        status = CertificateRequestStatus(state=CertificateRequestState.FAILED, error=reason)
        record = answer(request, status)
        if self._answers.get(asked, (b"", b""))[1] != record:
            self.failed += failed
            self.refused += not failed
            log.warning("certificate request refused", cluster=asked[0], request=str(asked[1]), error=reason)
        self._answers[asked] = (b"", record)
        self._publish(asked, record)
        self._note_answer(asked)

    def _publish(self, asked: Asked, record: bytes | None) -> None:
        cluster, key = asked
        if record is None:
            self._answers.pop(asked, None)
            if cluster not in self._plane.publications:
                return
        publication = self._plane.publications[cluster]
        publication.publish({str(key): record}, complete=publication.complete)
