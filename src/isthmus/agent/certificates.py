"""How a mesh of this cluster comes by its intermediate certificate: what there is, and what follows. No I/O.

Everything that counts is on the cluster, so an agent that is killed anywhere goes on where it was:

| on the cluster                                             | follows                                   | state     |
|------------------------------------------------------------|-------------------------------------------|-----------|
| `cacerts` is somebody else's                               | nothing, until told to take it over       | FAILED    |
| no private key, or one for another spec                    | make a key                                | PENDING   |
| no request, or one for another key                         | ask                                       | PENDING   |
| the request has no answer, and Vault is to give it         | ask Vault; after a failure, later again   | REQUESTED |
| the request has no answer                                  | wait                                      | REQUESTED |
| the management plane has answered                          | write the answer into the request         | REQUESTED |
| the answer is a refusal, or not what was asked for         | wait for another                          | FAILED    |
| the answer is valid only from a later time on              | wait for that time                        | REQUESTED |
| the certificate has used up its life but for a share       | make a key                                | PENDING   |
| `cacerts` is missing, or differs from key and answer       | write `cacerts`                           | ISSUED    |
| `cacerts` has a bridge, and pods run with it               | write it without                          | ISSUED    |
| all is as it should be, but pods run with older ones       | wait for the restarts                     | ISSUED    |
| all is as it should be                                     | nothing until the renewal                 | FINISHED  |
| no IssuedCertificate, and the management plane wants none  | delete what was made for it               |           |

The first `cacerts` of a mesh changes its root. So that pods with the old root and pods with the new one go on talking
while they restart, it trusts both, and presents a *bridge*: the new root signed by the old one (`isthmus.pki.bridge`).

Source: reference, certificates, state machines and Secret formats. The private key is in two Secrets and in the memory
of the agent; nothing here puts it anywhere else.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from hashlib import sha256
from typing import Any, Protocol

import msgspec

from isthmus.agent.ownership import is_owned, ownership_labels
from isthmus.agent.workloads import InPlace
from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import (
    CertificateRequest,
    CertificateRequestSpec,
    CertificateRequestState,
    CertificateRequestStatus,
)
from isthmus.api.common import CertificateRotationState, CommonCertOptions, KeyAlgorithm, ObjectRef
from isthmus.api.issued_certificate import (
    IssuedCertificate,
    IssuedCertificateSpec,
    IssuedCertificateState,
    IssuedCertificateStatus,
    OutdatedPods,
    WorkloadCertificates,
)
from isthmus.api.parse import ParseFailure, parse
from isthmus.model.kinds import SECRET
from isthmus.model.ref import Kind
from isthmus.pki import (
    CA_CERT,
    CA_KEY,
    CERT_CHAIN,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    ROOT_CERT,
    Authority,
    PemInvalid,
    check_chain,
    inspect_intermediate_csr,
    make_intermediate_csr,
    renewal_time,
)
from isthmus.pki.bridge import make_bridge, with_roots
from isthmus.pki.issued import (
    IssuedAuthority,
    below_roots,
    bridge_in,
    is_among,
    leads_to,
    own_key_fingerprint,
    read_issued,
    same_certificate,
    valid_from,
)
from isthmus.program.content import digest, newer
from isthmus.program.work import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS

Manifest = dict[str, Any]
State = IssuedCertificateState

TARGET = "cacerts"
"""The only name of Secrets for Istio that the agent has the right to write."""
SELF_SIGNED = "istio-ca-secret"
"""Where istiod keeps the root that it made itself. Source: https://istio.io/latest/docs/tasks/security/cert-management/"""
PRIVATE_KEY = "private-key"
KEY_TYPE = "certificates.mesh.gloo.solo.io/generated_private_key"
ISSUED_TYPE = "certificates.mesh.gloo.solo.io/issued_certificate"
AGENT_LABEL = "agent.certificates.mesh.gloo.solo.io"
"""On everything made here; its value is the agent's namespace. Source: reference, issued certificates."""

SPEC = "isthmus.io/issued-certificate-spec"
"""On a key: `spec_digest` of what it was made for."""
MADE_AT = "isthmus.io/made-at"
HOLDER = "isthmus.io/issued-certificate"
"""On `cacerts`: ``<namespace>/<name>`` of the IssuedCertificate that it is for."""
GENERATION = "isthmus.io/issued-certificate-generation"
ISSUED_AT = "isthmus.io/issued-at"
"""On `cacerts`: when its content last changed."""
BRIDGED = "isthmus.io/bridged"
"""On `cacerts`: whether it trusts the root before as well."""
TAKE_OVER = "isthmus.io/take-over"
"""On somebody else's `cacerts`: ``true`` gives it to us."""
TRUST = "isthmus.io/trust"
"""On a request: the `trust` of the IssuedCertificate that it was made for."""

DEFAULT_BITS = 4096
DEFAULT_ORGANIZATION = "Istio"
DEFAULT_GRACE = 0.10
# Source of the three: reference, certificates, defaults.
SHORTEST_KEY_LIFE = timedelta(minutes=10)
"""However short certificates live, or wrong the clock is, keys are not renewed more often."""
MOST_NAMES = 50
"""Pods that a status names."""


class Slot(Enum):
    """What is watched."""

    CERTIFICATES = "IssuedCertificates"
    REQUESTS = "CertificateRequests"
    KEYS = "Secrets with private keys"
    TARGETS = f"Secrets {TARGET}"

    @property
    def kind(self) -> Kind:
        """The kind of its objects."""
        match self:
            case Slot.CERTIFICATES:
                return IssuedCertificate.KIND
            case Slot.REQUESTS:
                return CertificateRequest.KIND
            case _:
                return SECRET


# --- what is seen -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """An IssuedCertificate that the management plane wants."""

    resource: IssuedCertificate

    @property
    def name(self) -> str:
        return self.resource.metadata.name

    @property
    def spec(self) -> IssuedCertificateSpec:
        return self.resource.spec

    @property
    def target(self) -> ObjectRef:
        """Where the certificate goes."""
        return self.spec.issued_certificate_secret or ObjectRef()


@dataclass(frozen=True)
class Version:
    """Which state of an object was seen."""

    uid: str
    resource_version: str


@dataclass(frozen=True)
class Request:
    """A CertificateRequest. *wanted* tells what it asks for, None if that is unreadable."""

    version: Version
    resource: CertificateRequest
    owned: bool
    fingerprint: str | None
    asks: tuple[object, ...]


@dataclass(frozen=True)
class Key:
    """A private key; *fingerprint* is None if it is none."""

    version: Version
    spec: str
    made_at: datetime | None
    pem: bytes = field(repr=False)
    fingerprint: str | None


@dataclass(frozen=True)
class Target:
    """A Secret `cacerts`."""

    version: Version
    owned: bool
    take_over: bool
    bridged: bool
    type: str
    holder: str
    generation: str
    issued_at: str
    data: Mapping[str, bytes] = field(repr=False)


Seen = Certificate | Request | Key | Target


# --- what follows -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MakeKey:
    """Make an RSA key of *bits*, or with 0 an ECDSA key, and write it: `key_manifest` says how."""

    name: str
    bits: int
    spec: str
    replaces: Version | None


@dataclass(frozen=True)
class Ask:
    """Write the request for the private key *pem*: `request_manifest` says how."""

    name: str
    pem: bytes = field(repr=False)
    spec: IssuedCertificateSpec
    replaces: Version | None


@dataclass(frozen=True)
class WriteAnswer:
    """Write *status* into the request."""

    name: str
    version: Version
    status: CertificateRequestStatus


@dataclass(frozen=True)
class Install:
    """Apply *manifest*, the Secret `cacerts`; by force if it *replaces* one.

    The *first* one changes the mesh's root: `bridged_manifest` is to be applied instead. What *before* holds, somebody
    else's `cacerts`, is what the mesh has now; if that is empty, it is what `SELF_SIGNED` holds.
    """

    manifest: Manifest = field(repr=False)
    replaces: Version | None
    first: bool = False
    before: Mapping[str, bytes] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Tell:
    """Write *status* into the IssuedCertificate."""

    name: str
    version: Version
    status: IssuedCertificateStatus


@dataclass(frozen=True)
class Delete:
    """Delete the object in *slot* if it still is the one that was seen."""

    slot: Slot
    namespace: str
    name: str
    version: Version


@dataclass(frozen=True)
class Sign:
    """Have *csr* signed by the authority elsewhere that *spec* names; `answer_to` says what follows."""

    name: str
    version: Version
    generation: int
    csr: bytes
    spec: IssuedCertificateSpec


class SigningFailed(Exception):
    """No certificate came of it: which field is in question, what was found, and what would do. Holds no secret."""


@dataclass(frozen=True)
class Failure:
    """Why *request*, a uid and a generation, was not signed, how often in a row, and when to ask again."""

    request: tuple[str, int]
    error: str
    count: int
    again: datetime


Action = MakeKey | Ask | Sign | WriteAnswer | Install | Tell | Delete


@dataclass(frozen=True)
class Progress:
    """How far the restarts are that follow a new certificate; *waiting* says what for."""

    done: bool
    waiting: str = ""


@dataclass(frozen=True)
class Decision:
    """What to do about one IssuedCertificate: at most one *action*, then look again; and look again at *wake* too."""

    action: Action | None = None
    wake: datetime | None = None
    waiting: str = ""


class Restarts(Protocol):
    """What is asked of those who restart pods; `isthmus.agent.restart` answers."""

    def progress(self, namespace: str, name: str, fingerprint: str) -> Progress:
        """How far the PodBounceDirective is for the `cacerts` of *fingerprint*."""
        ...

    def old_pods(self, name: str, fingerprint: str) -> tuple[str, ...] | None:
        """Pods that still run with an older `cacerts` than that of *fingerprint*, sorted; None until they were seen."""
        ...

    def waiting_for(self) -> tuple[str, ...]:
        """What has not been read yet; until then nothing can be said."""
        ...


class Certificates:
    """What one cluster holds of certificates for its meshes.

    *presented* tells, once it is known, what pods present under the `cacerts` of an IssuedCertificate and fingerprint.
    """

    def __init__(
        self,
        cluster: str,
        namespace: str,
        restarts: Restarts,
        presented: Callable[[str, str], WorkloadCertificates | None] = lambda name, fingerprint: None,
    ) -> None:
        self._namespace = namespace
        self._labels = {**ownership_labels(cluster, namespace), AGENT_LABEL: namespace}
        self._ownership = ownership_labels(cluster, namespace)
        self._restarts = restarts
        self._presented = presented
        self._seen: dict[Slot, dict[tuple[str, str], Seen]] = {slot: {} for slot in Slot}
        self._versions: dict[Slot, dict[tuple[str, str], str]] = {slot: {} for slot in Slot}
        self._known: set[Slot] = set()
        self._refusals: dict[Slot, str] = {}
        self._answers: dict[str, CertificateRequest] = {}
        self._failures: dict[str, Failure] = {}
        self._wanted: frozenset[str] = frozenset()
        self._complete = False

    # --- what happens -------------------------------------------------------------------------------------------------

    def replaced(self, slot: Slot, items: Iterable[Manifest]) -> set[str]:
        """Take the complete state of *slot*. Names of IssuedCertificates to look at again."""
        self._known.add(slot)
        self._refusals.pop(slot, None)
        self._seen[slot], self._versions[slot] = {}, {}
        for item in items:
            self._see(slot, item)
        return self.names()

    def changed(self, slot: Slot, item: Manifest) -> set[str]:
        """Take a new state of one object, as a watch or the answer to a write tells it."""
        place, version = _place(item), item["metadata"]["resourceVersion"]
        before = self._versions[slot].get(place)
        if before is not None and not newer(version, before):
            return set()
        self._see(slot, item)
        return self.names()

    def removed(self, slot: Slot, item: Manifest) -> set[str]:
        """Take note that an object is gone."""
        place, version = _place(item), item["metadata"]["resourceVersion"]
        before = self._versions[slot].get(place)
        if before is not None and newer(before, version):
            return set()  # it has been made again since, and we know that from the answer to our write
        names = self.names()
        self._seen[slot].pop(place, None)
        self._versions[slot].pop(place, None)
        return names

    def gone(self, slot: Slot, namespace: str, name: str) -> None:
        """Take note that we have deleted an object."""
        self._seen[slot].pop((namespace, name), None)
        self._versions[slot].pop((namespace, name), None)

    def refused(self, slot: Slot, reason: str) -> set[str]:
        """Take note that the cluster does not let us see *slot*."""
        if slot not in self._known:
            self._refusals[slot] = reason
        return self.names()

    def received(
        self, answers: Iterable[CertificateRequest], wanted: Collection[tuple[str, str]], *, complete: bool
    ) -> set[str]:
        """Take what the management plane says: answers, the IssuedCertificates that it wants, and if these are all."""
        here = self._namespace
        self._answers = {answer.metadata.name: answer for answer in answers if answer.metadata.namespace == here}
        self._wanted = frozenset(name for namespace, name in wanted if namespace == here)
        self._complete = complete
        return self.names()

    # --- what is known ------------------------------------------------------------------------------------------------

    def names(self) -> set[str]:
        """Every IssuedCertificate that is there or has left something behind."""
        found = {name for namespace, name in self._seen[Slot.CERTIFICATES] if namespace == self._namespace}
        found |= {name for _, name in self._seen[Slot.KEYS]}
        found |= {
            name for (_, name), seen in self._seen[Slot.REQUESTS].items() if isinstance(seen, Request) and seen.owned
        }
        for target in self._seen[Slot.TARGETS].values():
            if isinstance(target, Target) and target.owned and target.holder:
                found.add(target.holder.rpartition("/")[2])
        return found

    def is_ours(self, slot: Slot, item: Manifest) -> bool:
        """Whether *item*, just read, was made here."""
        return is_owned(item, self._ownership) and (slot is not Slot.KEYS or item.get("type") == KEY_TYPE)

    def waiting_for(self) -> tuple[str, ...]:
        """What has not been read yet, and is not refused either."""
        return tuple(slot.value for slot in Slot if slot not in self._known and slot not in self._refusals)

    def reports(self, name: str) -> tuple[CertificateRequest | None, IssuedCertificate | None]:
        """What the management plane is told of *name*: its request and its IssuedCertificate, as they are."""
        request, certificate = self._request(name), self._certificate(name)
        return (
            _reported(request.resource) if request is not None and request.owned else None,
            _reported(certificate.resource) if certificate is not None else None,
        )

    def installed(self, name: str) -> IssuedAuthority | None:
        """The certificate in `cacerts`."""
        certificate = self._certificate(name)
        target = self._target(certificate) if certificate is not None else None
        try:
            return read_issued(target.data[CA_CERT]) if target is not None and self._holds(target, name) else None
        except (PemInvalid, KeyError):
            return None

    def in_place(self) -> tuple[InPlace, ...]:
        """The certificates that are in their `cacerts` as they are wanted now, by name."""
        found = []
        for name in sorted(self.names()):
            certificate, request = self._certificate(name), self._request(name)
            target = self._target(certificate) if certificate is not None else None
            status = _current(request) if request is not None else None
            if certificate is None or target is None or status is None or not self._holds(target, name):
                continue
            generation = str(certificate.resource.metadata.generation)
            if target.generation != generation or target.data.get(CA_CERT) != status.signed_certificate:
                continue
            found.append(
                InPlace(
                    name=name,
                    namespace=certificate.target.namespace,
                    fingerprint=fingerprint(target.data),
                    trust=certificate.spec.trust,
                    trust_domains=frozenset(map(_trust_domain, certificate.spec.hosts)),
                    # Not those of `cacerts`: these may hold the root that goes away, for those who still trust it.
                    roots=status.signing_root_ca,
                    signer=status.signed_certificate,
                    written=_moment(target.issued_at),
                )
            )
        return tuple(found)

    # --- what follows -------------------------------------------------------------------------------------------------

    def decide(self, name: str, now: datetime) -> Decision:
        """What to do about the IssuedCertificate *name*, by the table above."""
        certificate = self._certificate(name)
        if len(self._known) < len(Slot):
            if certificate is None or not self._refusals or not certificate.target.name:
                return Decision()
            reason = "; ".join(f"{slot.value} cannot be read: {why}" for slot, why in sorted_refusals(self._refusals))
            return self._tell(certificate, State.FAILED, error=reason)
        leftover = self._leftover(name, certificate)
        if leftover is not None:
            return Decision(leftover)
        if certificate is None or not certificate.target.name:
            return Decision()
        problem = self._problem(certificate)
        if problem:
            return self._tell(certificate, State.FAILED, error=problem)
        return self._issue(certificate, now)

    def failed(self, name: str, error: str) -> Tell | None:
        """What to write into the IssuedCertificate after an action for it has failed."""
        certificate = self._certificate(name)
        decision = self._tell(certificate, State.FAILED, error=error) if certificate is not None else Decision()
        return decision.action if isinstance(decision.action, Tell) else None

    def _problem(self, certificate: Certificate) -> str:
        """Why nothing can be done."""
        spec, place = certificate.spec, certificate.target
        if place.name != TARGET:
            return f"spec.issuedCertificateSecret.name: agents write Secrets named {TARGET} only, not {place.name!r}"
        if not spec.hosts:
            return "spec.hosts: a certificate must name somebody, such as spiffe://cluster1/ns/istio-system/sa/istiod"
        if _bits(spec) and not MIN_RSA_BITS <= _bits(spec) <= MAX_RSA_BITS:
            return (
                f"spec.certOptions.rsaKeySizeBytes: a key of {_bits(spec)} bits; "
                f"keys have {MIN_RSA_BITS} to {MAX_RSA_BITS}, and despite its name the field is in bits"
            )
        target = self._target(certificate)
        if target is not None and not target.owned and not target.take_over:
            return (
                f"Secret {place.namespace}/{place.name} was made by somebody else and is left alone; "
                f"delete it, or annotate it {TAKE_OVER}=true to have it overwritten"
            )
        if target is not None and target.owned and not self._holds(target, certificate.name):
            other = target.holder.rpartition("/")[2]
            if self._certificate(other) is not None:
                return (
                    f"Secret {place.namespace}/{place.name} holds the certificate of IssuedCertificate {target.holder}"
                )
        request = self._request(certificate.name)
        if request is not None and not request.owned:
            return f"CertificateRequest {self._namespace}/{certificate.name} was made by somebody else; delete it"
        return ""

    def _issue(self, certificate: Certificate, now: datetime) -> Decision:
        name, spec = certificate.name, certificate.spec
        key, request = self._key(name), self._request(name)
        wanted = spec_digest(spec)
        if key is None or key.fingerprint is None or key.spec != wanted:
            return self._begin(certificate, key)
        if request is None or request.fingerprint != key.fingerprint or request.asks != _asks(spec, name):
            return self._told(certificate) or Decision(Ask(name, key.pem, spec, request.version if request else None))
        status = _current(request)
        if spec.agent_ca is not None:
            if status is None or status.state is not CertificateRequestState.FINISHED:
                return self._ask_elsewhere(certificate, request, now)
            return self._install(certificate, key, status, now)
        answer = self._answer(request)
        if answer is not None and answer != status:
            return Decision(WriteAnswer(name, request.version, answer))
        if status is None or status.state is CertificateRequestState.PENDING:
            return self._tell(certificate, State.REQUESTED, waiting="the answer of the management plane")
        if status.state is CertificateRequestState.FAILED:
            return self._tell(certificate, State.FAILED, error=status.error or "refused without a reason")
        return self._install(certificate, key, status, now)

    def _ask_elsewhere(self, certificate: Certificate, request: Request, now: datetime) -> Decision:
        asked = (request.version.uid, request.resource.metadata.generation)
        failure = self._failures.get(certificate.name)
        if failure is not None and failure.request == asked and now < failure.again:
            return self._tell(certificate, State.FAILED, error=failure.error, wake=failure.again)
        csr = request.resource.spec.certificate_signing_request
        sign = Sign(certificate.name, request.version, asked[1], csr, certificate.spec)
        return self._told(certificate, State.REQUESTED) or Decision(sign, waiting="the answer of Vault")

    def answer_to(self, sign: Sign, status: CertificateRequestStatus, now: datetime) -> WriteAnswer:
        """What to do with the answer *status*. Raises `SigningFailed` if it is not what was asked for."""
        try:
            begins = max(valid_from(status.cert_chain), valid_from(status.signing_root_ca))
            asked = inspect_intermediate_csr(sign.csr).fingerprint
            problem = _unfit(status, asked, sign.spec, max(now, begins))
        except PemInvalid as error:
            problem = f"the answer is unreadable: {error}"
        if problem:
            raise SigningFailed(problem)
        self._failures.pop(sign.name, None)
        return WriteAnswer(
            sign.name, sign.version, msgspec.structs.replace(status, observed_generation=sign.generation)
        )

    def not_signed(self, sign: Sign, error: str, now: datetime) -> None:
        """Take note that *sign* failed: the next try comes later from time to time."""
        asked = (sign.version.uid, sign.generation)
        before = self._failures.get(sign.name)
        count = before.count + 1 if before is not None and before.request == asked else 1
        seconds = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(count, 16))
        self._failures[sign.name] = Failure(asked, error, count, now + timedelta(seconds=seconds))

    def _install(self, certificate: Certificate, key: Key, status: CertificateRequestStatus, now: datetime) -> Decision:
        try:
            issued = read_issued(status.signed_certificate)
            begins = max(valid_from(status.cert_chain or status.signed_certificate), valid_from(status.signing_root_ca))
            problem = _unfit(status, key.fingerprint, certificate.spec, max(now, begins))
        except PemInvalid as error:
            return self._tell(certificate, State.FAILED, error=f"the answer is unreadable: {error}")
        due = renewal_time(issued.not_before, issued.not_after, _grace(certificate.spec))
        renew = max(due, _replaceable_from(key, now))
        if now >= renew and (not problem or now >= issued.not_after):
            return self._begin(certificate, key)
        if problem:
            wake = renew if now >= issued.not_after else None
            return self._tell(certificate, State.FAILED, error=problem, wake=wake)
        if now < begins:
            waiting = f"this cluster's clock to reach {begins:%Y-%m-%d %H:%M:%S} UTC, when the certificate begins"
            return self._tell(certificate, State.REQUESTED, waiting=waiting, wake=begins)
        target = self._target(certificate)
        data = {
            CA_CERT: status.signed_certificate,
            CA_KEY: key.pem,
            CERT_CHAIN: status.cert_chain or status.signed_certificate,
            ROOT_CERT: status.signing_root_ca,
        }
        bridged = _bridged(data, target) if target is not None and target.owned and target.bridged else None
        install = self._differs(certificate, target, bridged or data, now, bridged=bridged is not None)
        if install is not None:
            return Decision(install)
        if self._restarts.waiting_for():
            return Decision(wake=renew)
        old = self._restarts.old_pods(certificate.name, fingerprint(bridged or data))
        directive = certificate.spec.pod_bounce_directive
        if directive is None:
            # What was not seen yet is not done: a bridge that goes too early cuts off whoever needs it.
            waiting = (
                "pods to be looked at" if old is None else "pods with an older certificate to be restarted" * bool(old)
            )
            progress = Progress(done=not waiting, waiting=waiting)
        else:
            progress = self._restarts.progress(directive.namespace, directive.name, fingerprint(bridged or data))
        if progress.done and bridged is not None:
            # Those who restart pods by hand are not asked to do it once more: the old root goes when pods do.
            since = target.issued_at if target is not None and directive is None else ""
            return Decision(self._differs(certificate, target, data, now, since=since))
        state = State.FINISHED if progress.done else State.ISSUED
        workloads = self._presented(certificate.name, fingerprint(bridged or data))
        return self._tell(
            certificate,
            state,
            waiting=progress.waiting,
            wake=renew,
            issued=issued,
            old=old or (),
            workloads=workloads,
        )

    def _begin(self, certificate: Certificate, key: Key | None) -> Decision:
        """Start with a new key."""
        make = MakeKey(
            certificate.name, _bits(certificate.spec), spec_digest(certificate.spec), key.version if key else None
        )
        return self._told(certificate) or Decision(make)

    def _differs(
        self,
        certificate: Certificate,
        target: Target | None,
        data: Mapping[str, bytes],
        now: datetime,
        *,
        bridged: bool = False,
        since: str = "",
    ) -> Install | None:
        """What makes `cacerts` hold *data*, or None if it does. *since* stands for the time of the change."""
        place = certificate.target
        holder = f"{self._namespace}/{certificate.name}"
        generation = str(certificate.resource.metadata.generation)
        owned = target is not None and target.owned
        same = target is not None and all(target.data.get(key) == value for key, value in data.items())
        issued_at = target.issued_at if target is not None and owned and same and target.issued_at else ""
        if issued_at and target is not None and (target.holder, target.generation) == (holder, generation):
            return None
        annotations = {
            HOLDER: holder,
            GENERATION: generation,
            ISSUED_AT: issued_at or since or _time(now),
            BRIDGED: "true" if bridged else "false",
        }
        # The type of a Secret never changes; one that was taken over keeps its own.
        kind = ISSUED_TYPE if target is None else target.type
        version = target.version if target is not None else None
        manifest = _based_on(self._secret(place.namespace, place.name, kind, annotations, data), version)
        return Install(manifest, version, not owned, target.data if target is not None and not owned else {})

    def _leftover(self, name: str, certificate: Certificate | None) -> Delete | None:
        """What of us is there for nobody any more."""
        if certificate is None and (not self._complete or name in self._wanted):
            return None
        place = (certificate.target.namespace, certificate.target.name) if certificate is not None else None
        targets = sorted(self._seen[Slot.TARGETS].items())
        for where, target in targets:
            if isinstance(target, Target) and target.owned and self._holds(target, name) and where != place:
                return Delete(Slot.TARGETS, *where, target.version)
        if certificate is not None and place != ("", ""):
            return None
        request, key = self._request(name), self._key(name)
        if request is not None and request.owned:
            return Delete(Slot.REQUESTS, self._namespace, name, request.version)
        if key is not None:
            return Delete(Slot.KEYS, self._namespace, name, key.version)
        return None

    def _told(self, certificate: Certificate, state: State = State.PENDING) -> Decision | None:
        """The decision to say how far the work is, unless that was said, or that an attempt failed."""
        status = certificate.resource.status
        if (
            status is not None
            and status.state is State.FAILED
            and status.observed_generation == certificate.resource.metadata.generation
        ):
            return None
        decision = self._tell(certificate, state)
        return decision if decision.action is not None else None

    def _tell(
        self,
        certificate: Certificate,
        state: State,
        *,
        error: str = "",
        waiting: str = "",
        wake: datetime | None = None,
        issued: IssuedAuthority | None = None,
        old: tuple[str, ...] = (),
        workloads: WorkloadCertificates | None = None,
    ) -> Decision:
        resource, spec = certificate.resource, certificate.spec
        present = issued if issued is not None else self.installed(certificate.name)
        status = IssuedCertificateStatus(
            observed_generation=resource.metadata.generation,
            error=error,
            state=state,
            applied_gloo_mesh_ca=spec.gloo_mesh_ca if issued is not None else None,
            applied_agent_ca=spec.agent_ca if issued is not None else None,
            observed_rotation_state=spec.rotation_state,
            observed_trust=spec.trust,
            not_before=_time(present.not_before) if present is not None else "",
            not_after=_time(present.not_after) if present is not None else "",
            outdated_pods=OutdatedPods(count=len(old), names=old[:MOST_NAMES]) if old else None,
            workloads=workloads,
        )
        version = Version(resource.metadata.uid, resource.metadata.resource_version)
        action = None if status == resource.status else Tell(certificate.name, version, status)
        return Decision(action, wake, waiting)

    # --- manifests ----------------------------------------------------------------------------------------------------

    def key_manifest(self, make: MakeKey, pem: bytes, now: datetime) -> Manifest:
        """The Secret for the private key *pem*."""
        annotations = {SPEC: make.spec, MADE_AT: _time(now)}
        manifest = self._secret(self._namespace, make.name, KEY_TYPE, annotations, {PRIVATE_KEY: pem})
        return _based_on(manifest, make.replaces)

    def bridged_manifest(
        self, install: Install, before: Mapping[str, bytes], *, serial: int, now: datetime
    ) -> Manifest:
        """What to apply for a first *install* where the mesh's authority *before* is in these entries of a Secret.

        Raises `PemInvalid` where no bridge can be made. Takes a moment: it is signed.
        """
        data = data_of(install.manifest)
        root = before.get(CA_CERT, b"")
        if before.get(ROOT_CERT) and not is_among(root, before[ROOT_CERT]):
            raise PemInvalid("the authority that the mesh has now is no root")
        if is_among(root, data[ROOT_CERT]):
            return install.manifest
        life = read_issued(data[CA_CERT]).not_after - now
        bridge = make_bridge(
            Authority(root, before.get(CA_KEY, b"")), data[ROOT_CERT], serial=serial, now=now, life=life
        )
        entries = _with_bridge(data, bridge, root)
        metadata = install.manifest["metadata"]
        annotations = {**metadata["annotations"], BRIDGED: "true"}
        encoded = {key: b64encode(value).decode() for key, value in entries.items()}
        return {**install.manifest, "metadata": {**metadata, "annotations": annotations}, "data": encoded}

    def request_manifest(self, ask: Ask) -> Manifest:
        """The CertificateRequest. Takes a moment: it is signed. Raises `PemInvalid`."""
        spec = ask.spec
        try:
            csr = make_intermediate_csr(ask.pem, hosts=spec.hosts, organization=_organization(spec), unit=ask.name)
        except ValueError as error:  # a name that no certificate can hold
            raise PemInvalid(f"no request can be made for this spec: {error}") from error
        annotations = {TRUST: spec.trust} if spec.trust else {}
        resource = CertificateRequest(
            metadata=ObjectMeta(name=ask.name, namespace=self._namespace, labels=self._labels, annotations=annotations),
            spec=CertificateRequestSpec(certificate_signing_request=csr),
        )
        return _based_on(resource.manifest(), ask.replaces)

    def status_manifest(self, action: WriteAnswer | Tell) -> Manifest:
        """The object with its new status."""
        known = {"uid": action.version.uid, "resourceVersion": action.version.resource_version}
        metadata = {"namespace": self._namespace, "name": action.name, **known}
        status: Any = msgspec.json.decode(msgspec.json.encode(action.status))
        return {"metadata": metadata, "status": status}

    def _secret(
        self, namespace: str, name: str, kind: str, annotations: Mapping[str, str], data: Mapping[str, bytes]
    ) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": namespace, "name": name, "labels": self._labels, "annotations": annotations},
            "type": kind,
            "data": {key: b64encode(value).decode() for key, value in data.items()},
        }

    # --- reading ------------------------------------------------------------------------------------------------------

    def _see(self, slot: Slot, item: Manifest) -> None:
        place = _place(item)
        self._versions[slot][place] = item["metadata"]["resourceVersion"]
        seen = self._read(slot, item)
        if seen is None:
            self._seen[slot].pop(place, None)
        else:
            self._seen[slot][place] = seen

    def _read(self, slot: Slot, item: Manifest) -> Seen | None:
        metadata = item["metadata"]
        owned = is_owned(item, self._ownership)
        version = Version(metadata.get("uid", ""), metadata["resourceVersion"])
        annotations: Mapping[str, str] = metadata.get("annotations") or {}
        match slot:
            case Slot.CERTIFICATES:
                found = parse(item) if owned and metadata["namespace"] == self._namespace else None
                return Certificate(found) if isinstance(found, IssuedCertificate) else None
            case Slot.REQUESTS:
                read = parse(item)
                if isinstance(read, ParseFailure) or not isinstance(read, CertificateRequest):
                    read = CertificateRequest(
                        metadata=ObjectMeta(name=metadata["name"], namespace=metadata["namespace"])
                    )
                return _read_request(read, version, owned=owned)
            case Slot.KEYS:
                if not owned or item.get("type") != KEY_TYPE:
                    return None
                pem = data_of(item).get(PRIVATE_KEY, b"")
                try:
                    whose = own_key_fingerprint(pem)
                except PemInvalid:
                    whose = None
                return Key(version, annotations.get(SPEC, ""), _moment(annotations.get(MADE_AT, "")), pem, whose)
            case Slot.TARGETS:
                return Target(
                    version,
                    owned,
                    annotations.get(TAKE_OVER) == "true",
                    annotations.get(BRIDGED) == "true",
                    item.get("type", "Opaque"),
                    annotations.get(HOLDER, ""),
                    annotations.get(GENERATION, ""),
                    annotations.get(ISSUED_AT, ""),
                    data_of(item),
                )

    def _certificate(self, name: str) -> Certificate | None:
        found = self._seen[Slot.CERTIFICATES].get((self._namespace, name))
        return found if isinstance(found, Certificate) else None

    def _request(self, name: str) -> Request | None:
        found = self._seen[Slot.REQUESTS].get((self._namespace, name))
        return found if isinstance(found, Request) else None

    def _key(self, name: str) -> Key | None:
        found = self._seen[Slot.KEYS].get((self._namespace, name))
        return found if isinstance(found, Key) else None

    def _target(self, certificate: Certificate) -> Target | None:
        found = self._seen[Slot.TARGETS].get((certificate.target.namespace, certificate.target.name))
        return found if isinstance(found, Target) else None

    def _holds(self, target: Target, name: str) -> bool:
        return target.holder == f"{self._namespace}/{name}"

    def _answer(self, request: Request) -> CertificateRequestStatus | None:
        """The answer to *request* as it is now."""
        answer = self._answers.get(request.resource.metadata.name)
        if answer is None or answer.status is None or answer.metadata.uid != request.version.uid:
            return None
        generation = request.resource.metadata.generation
        if (answer.metadata.generation, answer.status.observed_generation) != (generation, generation):
            return None
        return answer.status if answer.spec == request.resource.spec else None


def fingerprint(data: Mapping[str, bytes]) -> str:
    """What tells one content of `cacerts` from another: its certificate and its roots."""
    return sha256(data.get(CA_CERT, b"") + b"\0" + data.get(ROOT_CERT, b"")).hexdigest()[:16]


def spec_digest(spec: IssuedCertificateSpec) -> str:
    """What of *spec* calls for a new certificate when it changes: all but what happens with it afterwards.

    The step of a rotation calls for none either: where it changes what is trusted or who signs, `trust` changes too.
    """
    options = spec.cert_options
    if options is not None:
        options = msgspec.structs.replace(options, secret_rotation_grace_period_ratio=0.0)
    asked = msgspec.structs.replace(
        spec, pod_bounce_directive=None, cert_options=options, rotation_state=CertificateRotationState.NOT_ROTATING
    )
    return digest(msgspec.to_builtins(asked)).hex()[:16]


def _replaceable_from(key: Key, now: datetime) -> datetime:
    """When *key* has lived long enough, whatever its certificate says."""
    if key.made_at is None or key.made_at > now:  # the clock was put back, so its age is unknown
        return now
    return key.made_at + SHORTEST_KEY_LIFE


def sorted_refusals(refusals: Mapping[Slot, str]) -> list[tuple[Slot, str]]:
    """*refusals* in the order of the slots."""
    return sorted(refusals.items(), key=lambda each: each[0].value)


def _unfit(
    status: CertificateRequestStatus, fingerprint: str | None, spec: IssuedCertificateSpec, now: datetime
) -> str:
    """Why the answer *status* is not what was asked for with the key of *fingerprint*. Raises `PemInvalid`."""
    issued = read_issued(status.signed_certificate)
    chain = status.cert_chain or status.signed_certificate
    if issued.fingerprint != fingerprint:
        return "the answer is a certificate for another key"
    if not issued.is_ca:
        return "the answer is a certificate that cannot sign others"
    if missing := sorted(set(spec.hosts) - set(issued.hosts)):
        return f"the answer is a certificate that does not name {missing[0]}"
    if not same_certificate(chain, status.signed_certificate):
        return "the answer's certChain does not begin with its signedCertificate"
    problem = check_chain(chain, status.signing_root_ca, now)
    return f"the answer's certificate is not usable: {problem.message}" if problem is not None else ""


def _bridged(data: Mapping[str, bytes], target: Target) -> dict[str, bytes] | None:
    """*data* with the bridge that *target* has, None if that leads elsewhere."""
    try:
        found = bridge_in(target.data.get(CERT_CHAIN, b""), target.data.get(ROOT_CERT, b""))
        if found is None or not leads_to(found[0], data[ROOT_CERT]):
            return None
        return _with_bridge(data, *found)
    except PemInvalid:
        return None


def _with_bridge(data: Mapping[str, bytes], bridge: bytes, old: bytes) -> dict[str, bytes]:
    chain = below_roots(data[CERT_CHAIN], data[ROOT_CERT]) + bridge
    return {**data, CERT_CHAIN: chain, ROOT_CERT: with_roots(data[ROOT_CERT], old)}


def _read_request(resource: CertificateRequest, version: Version, *, owned: bool) -> Request:
    annotations = resource.metadata.annotations
    try:
        csr = inspect_intermediate_csr(resource.spec.certificate_signing_request)
    except PemInvalid:
        return Request(version, resource, owned, None, ())
    asks = (tuple(sorted(csr.hosts)), csr.organizations, csr.units, annotations.get(TRUST, ""))
    return Request(version, resource, owned, csr.fingerprint, asks)


def _asks(spec: IssuedCertificateSpec, name: str) -> tuple[object, ...]:
    """What the request for *spec* asks for; see `_read_request`."""
    return (tuple(sorted(spec.hosts)), (_organization(spec),), (name,), spec.trust)


def _current(request: Request) -> CertificateRequestStatus | None:
    """The answer on the cluster, unless it is one to an earlier request."""
    status = request.resource.status
    if status is None or status.observed_generation != request.resource.metadata.generation:
        return None
    return status


def _trust_domain(host: str) -> str:
    return host.removeprefix("spiffe://").partition("/")[0]


def _bits(spec: IssuedCertificateSpec) -> int:
    """Size of the RSA key, 0 for an ECDSA key."""
    options = spec.cert_options or CommonCertOptions()
    return 0 if options.key_algorithm is KeyAlgorithm.ECDSA else options.rsa_key_size_bytes or DEFAULT_BITS


def _organization(spec: IssuedCertificateSpec) -> str:
    return (spec.cert_options.org_name if spec.cert_options else "") or spec.org or DEFAULT_ORGANIZATION


def _grace(spec: IssuedCertificateSpec) -> float:
    ratio = spec.cert_options.secret_rotation_grace_period_ratio if spec.cert_options else 0.0
    return ratio if 0.0 < ratio < 1.0 else DEFAULT_GRACE


def _reported(resource: Any) -> Any:
    """*resource* as the management plane is told of it: what only this cluster's API server needs is left out."""
    known = resource.metadata
    trust = {TRUST: known.annotations[TRUST]} if TRUST in known.annotations else {}
    metadata = ObjectMeta(
        name=known.name, namespace=known.namespace, uid=known.uid, generation=known.generation, annotations=trust
    )
    return msgspec.structs.replace(resource, metadata=metadata)


def _based_on(manifest: Manifest, version: Version | None) -> Manifest:
    """*manifest*, written only over the state *version*."""
    if version is None:
        return manifest
    known = {"uid": version.uid, "resourceVersion": version.resource_version}
    return {**manifest, "metadata": {**manifest["metadata"], **known}}


def _place(item: Manifest) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def data_of(item: Manifest) -> dict[str, bytes]:
    """What a Secret holds; nothing if that is unreadable."""
    try:
        return {key: b64decode(value, validate=True) for key, value in (item.get("data") or {}).items()}
    except (NotBase64, TypeError, ValueError):
        return {}


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
