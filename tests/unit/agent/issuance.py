"""A cluster that holds certificates, and a management plane that signs them, without I/O: for histories of both."""

from __future__ import annotations

import copy
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import msgspec

from isthmus.agent.certificates import (
    PRIVATE_KEY,
    TARGET,
    Action,
    Ask,
    Certificates,
    Decision,
    Delete,
    Install,
    MakeKey,
    Progress,
    Slot,
    Tell,
    WriteAnswer,
)
from isthmus.agent.ownership import ownership_labels
from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import (
    CertificateRequest,
    CertificateRequestState,
    CertificateRequestStatus,
)
from isthmus.api.common import CommonCertOptions, KeyAlgorithm, ObjectRef
from isthmus.api.issued_certificate import (
    GlooMeshCa,
    IssuedCertificate,
    IssuedCertificateSpec,
    IssuedCertificateStatus,
    WorkloadCertificates,
)
from isthmus.api.parse import parse
from isthmus.pki import Authority, PemInvalid, make_trust_root, new_key, new_rsa_key, sign_intermediate
from isthmus.pki.trust import CA_CERT, CA_KEY

Manifest = dict[str, Any]
Place = tuple[str, str]

NAMESPACE = "gloo-mesh"
NAME = "istiod-istio-system-cluster1"
ISTIO = "istio-system"
HOST = "spiffe://cluster1/ns/istio-system/sa/istiod"
OURS = ownership_labels("cluster1", NAMESPACE)
START = datetime(2026, 5, 1, 12, tzinfo=UTC)
TARGET_AT = (ISTIO, TARGET)
CACERTS = ObjectRef(name=TARGET, namespace=ISTIO)


@cache
def rsa_key(number: int) -> bytes:
    """The same few keys in every example: making one is what takes long."""
    return new_rsa_key(2048)


@cache
def root(name: str) -> Authority:
    """The root of that name."""
    data = make_trust_root(new_key(), organization=name, serial=7, now=START, life=timedelta(days=3650))
    return Authority(data[CA_CERT], data[CA_KEY])


def spec(
    *,
    trust: str = "one",
    days: int = 30,
    hosts: tuple[str, ...] = (HOST,),
    place: ObjectRef | None = CACERTS,
    bits: int = 2048,
    ratio: float = 0.0,
    algorithm: KeyAlgorithm = KeyAlgorithm.RSA,
    directive: bool = False,
) -> IssuedCertificateSpec:
    """What the management plane may want."""
    return IssuedCertificateSpec(
        hosts=hosts,
        issued_certificate_secret=place,
        cert_options=CommonCertOptions(
            ttl_days=days,
            rsa_key_size_bytes=bits,
            secret_rotation_grace_period_ratio=ratio,
            key_algorithm=algorithm,
        ),
        gloo_mesh_ca=GlooMeshCa(
            signing_certificate_secret=ObjectRef(name="virtual-mesh.gloo-mesh", namespace="gloo-mesh")
        ),
        pod_bounce_directive=ObjectRef(name=NAME, namespace=NAMESPACE) if directive else None,
        trust=trust,
    )


class Refused(Exception):
    """The API server does not take the write."""


@dataclass
class Cluster:
    """What an API server holds of the four slots, and who is to be told of changes."""

    objects: dict[Slot, dict[Place, Manifest]] = field(default_factory=lambda: {slot: {} for slot in Slot})
    events: list[tuple[Slot, Manifest, bool]] = field(default_factory=list)
    version: int = 0
    keys_made: int = 0
    self_signed: dict[str, bytes] = field(default_factory=dict)
    """What istiod has in `istio-ca-secret`."""

    def put(self, slot: Slot, manifest: Manifest, *, status: bool = False) -> Manifest:
        """Write *manifest*, or only its status. Raises `Refused` unless it is based on what is there."""
        place = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        before = self.objects[slot].get(place)
        asked = manifest["metadata"]
        for name in ("uid", "resourceVersion"):
            if name in asked and (before is None or before["metadata"][name] != asked[name]):
                raise Refused(name)
        if status and before is None:
            raise Refused("not found")
        self.version += 1
        found = copy.deepcopy(manifest if not status else {**(before or {}), "status": manifest["status"]})
        found["apiVersion"], found["kind"] = slot.kind.api_version, slot.kind.kind
        known = before["metadata"] if before else {"uid": f"uid-{self.version}", "generation": 1}
        if before is not None and not status:
            if "status" in before:
                found["status"] = before["status"]
            changed = before.get("spec") != found.get("spec")
            known = {**known, "generation": known["generation"] + changed}
            labels = {**(before["metadata"].get("labels") or {}), **(asked.get("labels") or {})}
            notes = {**(before["metadata"].get("annotations") or {}), **(asked.get("annotations") or {})}
            found["metadata"] = {**found["metadata"], "labels": labels, "annotations": notes}
        found["metadata"] = {
            **found["metadata"],
            "uid": known["uid"],
            "generation": known["generation"],
            "resourceVersion": str(self.version),
        }
        self.objects[slot][place] = found
        self.events.append((slot, copy.deepcopy(found), False))
        return copy.deepcopy(found)

    def delete(self, slot: Slot, place: Place) -> None:
        """Delete the object at *place*, if there is one."""
        found = self.objects[slot].pop(place, None)
        if found is not None:
            self.version += 1
            found["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((slot, found, True))

    def want(self, wanted: IssuedCertificateSpec, *, labels: Mapping[str, str] = OURS, name: str = NAME) -> None:
        """Apply the IssuedCertificate as the agent does with what the management plane wants."""
        body: Any = msgspec.json.decode(msgspec.json.encode(wanted))
        metadata = {"namespace": NAMESPACE, "name": name, "labels": dict(labels)}
        self.put(Slot.CERTIFICATES, {"metadata": metadata, "spec": body})

    def get(self, slot: Slot, place: Place = (NAMESPACE, NAME)) -> Manifest | None:
        """The object at *place*."""
        return self.objects[slot].get(place)

    def request(self) -> CertificateRequest | None:
        """The request."""
        found = self.get(Slot.REQUESTS)
        read = parse(found) if found is not None else None
        return read if isinstance(read, CertificateRequest) else None

    def status(self, name: str = NAME) -> IssuedCertificateStatus:
        """The status of the IssuedCertificate."""
        found = self.get(Slot.CERTIFICATES, (NAMESPACE, name))
        assert found is not None
        read = parse(found)
        assert isinstance(read, IssuedCertificate)
        return read.status or IssuedCertificateStatus()

    def data(self, place: Place = TARGET_AT) -> dict[str, str]:
        """What the Secret at *place* holds."""
        found = self.get(Slot.TARGETS, place)
        return dict(found["data"]) if found is not None else {}

    def private_key(self) -> str:
        """What the Secret with the private key holds, base64."""
        found = self.get(Slot.KEYS)
        return str(found["data"][PRIVATE_KEY]) if found is not None else ""


@dataclass
class Pods:
    """How far restarts are, and what pods present, as told."""

    done: bool = True
    old: tuple[str, ...] | None = ()
    presented: dict[tuple[str, str], WorkloadCertificates] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def progress(self, namespace: str, name: str, fingerprint: str) -> Progress:
        """As told."""
        self.asked.append(fingerprint)
        return Progress(done=self.done, waiting="" if self.done else "istiod")

    def old_pods(self, name: str, fingerprint: str) -> tuple[str, ...] | None:
        """As told."""
        return self.old

    def waiting_for(self) -> tuple[str, ...]:
        """Nothing."""
        return ()


class Agent:
    """An agent without I/O: acts on *cluster*, and sees its changes when `see` says so."""

    def __init__(self, cluster: Cluster, pods: Pods | None = None) -> None:
        self.cluster = cluster
        pods = pods or Pods()
        self.machine = Certificates("cluster1", NAMESPACE, pods, lambda *which: pods.presented.get(which))
        self.unseen: list[tuple[Slot, Manifest, bool]] = []
        self.last = Decision()
        for slot in Slot:
            self.machine.replaced(
                slot, [copy.deepcopy(item) for item in cluster.objects[slot].values() if visible(slot, item)]
            )
        self._from = len(cluster.events)

    def see(self, most: int = 1000) -> None:
        """Take at most so many events."""
        for slot, item, gone in self.cluster.events[self._from : self._from + most]:
            self._from += 1
            if gone or not visible(slot, item):
                self.machine.removed(slot, item)
            else:
                self.machine.changed(slot, item)

    def step(self, now: datetime, name: str = NAME) -> bool:
        """Decide and act once; whether there was anything to do that worked."""
        self.last = self.machine.decide(name, now)
        if self.last.action is None:
            return False
        try:
            self.act(self.last.action, now)
        except Refused:
            return False
        return True

    def act(self, action: Action, now: datetime) -> None:
        """What `certify` does. Raises `Refused`."""
        cluster, machine = self.cluster, self.machine
        match action:
            case MakeKey():
                cluster.keys_made += 1
                manifest = machine.key_manifest(
                    action, rsa_key(cluster.keys_made % 5) if action.bits else new_key(), now
                )
                if action.replaces is None and cluster.get(Slot.KEYS) is not None:
                    raise Refused("exists")
                machine.changed(Slot.KEYS, cluster.put(Slot.KEYS, manifest))
            case Ask():
                if action.replaces is None and cluster.get(Slot.REQUESTS, (NAMESPACE, action.name)) is not None:
                    raise Refused("exists")
                machine.changed(Slot.REQUESTS, cluster.put(Slot.REQUESTS, machine.request_manifest(action)))
            case WriteAnswer():
                answer = cluster.put(Slot.REQUESTS, machine.status_manifest(action), status=True)
                machine.changed(Slot.REQUESTS, answer)
            case Install(manifest, replaces, first, before):
                before = before or cluster.self_signed
                if first and before:
                    with suppress(PemInvalid):
                        manifest = machine.bridged_manifest(action, before, serial=5, now=now)
                place = (manifest["metadata"]["namespace"], manifest["metadata"]["name"])
                if replaces is None and cluster.get(Slot.TARGETS, place) is not None:
                    raise Refused("exists")
                machine.changed(Slot.TARGETS, cluster.put(Slot.TARGETS, manifest))
            case Tell():
                answer = cluster.put(Slot.CERTIFICATES, machine.status_manifest(action), status=True)
                machine.changed(Slot.CERTIFICATES, answer)
            case Delete(slot, namespace, name, version):
                found = cluster.get(slot, (namespace, name))
                if found is not None:
                    if found["metadata"]["resourceVersion"] != version.resource_version:
                        raise Refused("changed")
                    cluster.delete(slot, (namespace, name))
                machine.gone(slot, namespace, name)

    def settle(self, now: datetime, name: str = NAME, most: int = 60) -> None:
        """See everything and act until nothing is left to do."""
        for _ in range(most):
            self.see()
            if not self.step(now, name):
                self.see()
                if not self.step(now, name):
                    return
        raise AssertionError(f"does not come to rest: {self.last.action}")


def visible(slot: Slot, item: Manifest) -> bool:
    """Whether the watch of *slot* selects *item*."""
    labels = item["metadata"].get("labels") or {}
    return slot is not Slot.KEYS or all(labels.get(key) == value for key, value in OURS.items())


@dataclass
class Signer:
    """The management plane: signs what it is shown with the root of that name, *days* long."""

    trust: str = "one"
    days: int = 30
    refuse: str = ""
    skew: timedelta = timedelta(0)
    serial: int = 100
    answers: dict[str, CertificateRequest] = field(default_factory=dict)

    def look(self, request: CertificateRequest | None, now: datetime, hosts: tuple[str, ...] = (HOST,)) -> None:
        """Answer *request*."""
        if request is None:
            return
        generation = request.metadata.generation
        status = CertificateRequestStatus(
            observed_generation=generation, state=CertificateRequestState.FAILED, error=self.refuse
        )
        if not self.refuse:
            issuer = root(self.trust)
            before = self.answers.get(request.metadata.name)
            if (
                before is not None
                and before.status is not None
                and before.spec == request.spec
                and before.metadata.generation == generation
                and before.metadata.uid == request.metadata.uid
                and before.status.signing_root_ca == issuer.certificate
            ):
                return
            self.serial += 1
            try:
                signed = sign_intermediate(
                    issuer,
                    request.spec.certificate_signing_request,
                    hosts=hosts,
                    serial=self.serial,
                    now=now + self.skew,
                    life=timedelta(days=self.days),
                )
            except PemInvalid:
                return
            status = CertificateRequestStatus(
                observed_generation=generation,
                state=CertificateRequestState.FINISHED,
                signed_certificate=signed,
                signing_root_ca=issuer.certificate,
                cert_chain=signed + issuer.certificate,
            )
        self.answers[request.metadata.name] = CertificateRequest(
            metadata=ObjectMeta(
                name=request.metadata.name,
                namespace=request.metadata.namespace,
                uid=request.metadata.uid,
                generation=generation,
            ),
            spec=request.spec,
            status=status,
        )

    def tell(self, agent: Agent, *, wants: bool = True, complete: bool = True) -> None:
        """Send everything to *agent*."""
        wanted = [(NAMESPACE, NAME)] if wants else []
        agent.machine.received(list(self.answers.values()), wanted, complete=complete)


def secret(place: Place, data: Mapping[str, bytes], *, kind: str = "Opaque", **metadata: Any) -> Manifest:
    """A Secret as somebody else makes it."""
    return {
        "metadata": {"namespace": place[0], "name": place[1], **metadata},
        "type": kind,
        "data": {key: b64encode(value).decode() for key, value in data.items()},
    }
