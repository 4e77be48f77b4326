"""What the pods of a mesh present to whoever connects to them, and what that says. No I/O: answers in, counts out.

A sidecar takes over every port of its pod, also those on which nobody listens, and presents the pod's certificate
before it has seen the caller's. So it can be seen without one. A gateway presents the certificates of its own servers,
which are not the mesh's: of those, and of what cannot be reached, only the time of their start tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from isthmus.agent.rollouts import moment
from isthmus.api.issued_certificate import DoubtfulPod, WorkloadCertificates
from isthmus.pki.keys import PemInvalid
from isthmus.pki.presented import is_signed_by, read_presented

Manifest = dict[str, Any]

PROXY, CONTROL_PLANE = "istio-proxy", "discovery"  # Istio's names for their containers
SERVES_PROXIES = 15012  # istiod's port with a certificate of its own
# Any port does where a pod declares none: sidecars answer on all.
ANY_PORT = 80
MOST_PORTS = 3  # looked at per pod
MOST_NAMES = 50  # of pods in a status
LONGEST_REASON = 200  # letters
ISTIO_ALPN = ("istio-peer-exchange", "istio")
"""By these a sidecar tells callers of the mesh from others where it takes both.

Source: https://github.com/istio/istio/blob/master/pilot/pkg/networking/core/listener_inbound.go
"""
REVISION = "istio.io/rev"
INCLUDE, EXCLUDE = "traffic.sidecar.istio.io/includeInboundPorts", "traffic.sidecar.istio.io/excludeInboundPorts"
# Source of both: https://istio.io/latest/docs/reference/config/annotations/


@dataclass(frozen=True)
class InPlace:
    """A certificate that is in its `cacerts`, and so to be seen at the pods of its mesh."""

    name: str
    """Of the IssuedCertificate."""
    namespace: str
    """Istio's."""
    fingerprint: str
    """Tells one content of `cacerts` from another."""
    trust: str
    trust_domains: frozenset[str]
    roots: bytes
    """The wanted ones, PEM."""
    signer: bytes
    """The intermediate, PEM."""
    written: datetime | None


class Role(Enum):
    """What of a mesh runs in a pod."""

    SIDECAR = "sidecar"
    GATEWAY = "gateway"
    CONTROL_PLANE = "control plane"


@dataclass(frozen=True)
class MeshPod:
    """A ready pod of a mesh."""

    uid: str
    namespace: str
    name: str
    role: Role
    address: str
    ports: tuple[int, ...]
    """Where to look, in this order."""
    service_account: str
    revision: str
    """Empty if unknown."""
    started: datetime | None
    hidden: str = ""
    """Why it can't be seen what it presents; empty if it can."""

    @property
    def called(self) -> str:
        """``<namespace>/<name>``."""
        return f"{self.namespace}/{self.name}"

    @property
    def alpn(self) -> tuple[str, ...]:
        """The protocols to offer."""
        return ("h2",) if self.role is Role.CONTROL_PLANE else ISTIO_ALPN


@dataclass(frozen=True)
class Shown:
    """A certificate that a pod presented, DER; *problem* says why it leads to no wanted root, empty if it does."""

    certificate: bytes
    problem: str = ""


@dataclass(frozen=True)
class Silent:
    """Nothing was presented, for this *reason*."""

    reason: str


Answer = Shown | Silent


class Outcome(Enum):
    """What an answer says of a pod."""

    SHARED = "shared"
    EARLIER = "earlier"
    PRESUMED = "presumed"
    UNKNOWN = "unknown"
    OTHER = "other"


@dataclass(frozen=True)
class Finding:
    """What is known of one pod. Parts of *reason* may be what the pod says: they are cut, and made printable."""

    outcome: Outcome
    reason: str = ""

    def __post_init__(self) -> None:
        plain = "".join(letter if letter.isprintable() else "?" for letter in self.reason[: LONGEST_REASON + 1])
        cut = plain if len(plain) <= LONGEST_REASON else f"{plain[: LONGEST_REASON - 3]}..."
        object.__setattr__(self, "reason", cut)

    @property
    def doubtful(self) -> bool:
        """Whether another look may say something else though nothing of the pod has changed."""
        return self.outcome in (Outcome.EARLIER, Outcome.UNKNOWN, Outcome.OTHER)


def read_mesh_pod(manifest: Manifest) -> MeshPod | None:
    """The pod; None unless it is ready and of a mesh."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or ()}
    address = status.get("podIP") or ""
    if "deletionTimestamp" in metadata or conditions.get("Ready") != "True" or not address:
        return None
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    proxy = next((each for each in containers if each.get("name") in (PROXY, CONTROL_PLANE)), None)
    if proxy is None:
        return None
    role = _role(proxy)
    notes, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    hidden = ""
    ports: tuple[int, ...] = ()
    if role is Role.GATEWAY:
        hidden = "a gateway presents its servers' certificates"
    elif spec.get("hostNetwork"):
        hidden = "it is on its node's network, where no sidecar answers"
    elif role is Role.CONTROL_PLANE:
        ports = (SERVES_PROXIES,)
    else:
        ports = _ports(containers, notes)
        hidden = "" if ports else "its annotations keep every port from the sidecar"
    return MeshPod(
        uid=metadata.get("uid", ""),
        namespace=metadata["namespace"],
        name=metadata["name"],
        role=role,
        address=address,
        ports=ports,
        service_account=spec.get("serviceAccountName") or "default",
        revision=notes.get(REVISION) or labels.get(REVISION) or "",
        started=moment(status.get("startTime")),
        hidden=hidden,
    )


def pods_of(pods: Iterable[MeshPod], places: Iterable[InPlace]) -> dict[str, tuple[MeshPod, ...]]:
    """The *pods* of each mesh that has one of the certificates *places*, by the certificate's name.

    A pod belongs to the istiod of its revision; if that is not found, to the only mesh, if there is just one.
    """
    known, wanted = sorted(pods, key=lambda pod: pod.called), {place.namespace: place.name for place in places}
    revisions: dict[str, set[str]] = {}
    for pod in known:
        if pod.role is Role.CONTROL_PLANE:
            revisions.setdefault(pod.revision, set()).add(pod.namespace)
    found: dict[str, list[MeshPod]] = {name: [] for name in wanted.values()}
    for pod in known:
        homes = {pod.namespace} if pod.role is Role.CONTROL_PLANE else revisions.get(pod.revision) or set(wanted)
        if len(homes) == 1 and (name := wanted.get(next(iter(homes)))) is not None:
            found[name].append(pod)
    return {name: tuple(pods) for name, pods in found.items()}


def is_of_a_mesh(pod: MeshPod, answer: Answer) -> bool:
    """Whether *answer* is the word of the mesh; else it came from the application behind the sidecar."""
    if isinstance(answer, Silent):
        return False
    if pod.role is Role.CONTROL_PLANE:
        return True
    try:
        return any(uri.startswith("spiffe://") for uri in read_presented(answer.certificate).uris)
    except PemInvalid:
        return False


def judge(pod: MeshPod, answer: Answer, place: InPlace) -> Finding:
    """What *answer* says of *pod*, whose mesh has the certificate of *place*."""
    if isinstance(answer, Silent) or not is_of_a_mesh(pod, answer):
        reason = answer.reason if isinstance(answer, Silent) else "its application answered, not its sidecar"
        later = place.written is not None and pod.started is not None and pod.started >= place.written
        return Finding(Outcome.PRESUMED if later else Outcome.UNKNOWN, reason)
    try:
        presented = read_presented(answer.certificate)
        identities = {
            f"spiffe://{domain}/ns/{pod.namespace}/sa/{pod.service_account}" for domain in place.trust_domains
        }
        wrong = [answer.problem] if answer.problem else []
        if pod.role is not Role.CONTROL_PLANE and not identities & set(presented.uris):
            wrong.append(f"it is for {' and '.join(presented.uris)}, not {min(identities)}")
        if wrong:
            return Finding(Outcome.OTHER, f"{'; '.join(wrong)}; signed by {presented.issuer}")
        return Finding(Outcome.SHARED if is_signed_by(answer.certificate, place.signer) else Outcome.EARLIER)
    except PemInvalid as error:
        return Finding(Outcome.OTHER, str(error))


def summary(pods: Sequence[MeshPod], findings: Mapping[str, Finding], place: InPlace) -> WorkloadCertificates:
    """The numbers of the mesh of *place*, by what was found of its *pods*, by uid."""
    found = [(pod, findings[pod.uid]) for pod in pods if pod.uid in findings]
    count = {outcome: sum(finding.outcome is outcome for _, finding in found) for outcome in Outcome}
    doubtful = sorted(
        (finding.outcome is not Outcome.OTHER, pod.called, finding.reason)
        for pod, finding in found
        if finding.outcome in (Outcome.OTHER, Outcome.UNKNOWN)
    )
    return WorkloadCertificates(
        observed_trust=place.trust,
        shared=count[Outcome.SHARED] + count[Outcome.EARLIER],
        earlier=count[Outcome.EARLIER],
        presumed=count[Outcome.PRESUMED],
        unknown=count[Outcome.UNKNOWN],
        other=count[Outcome.OTHER],
        pods=tuple(
            DoubtfulPod(name=name, shows_other=not silent, reason=reason)
            for silent, name, reason in doubtful[:MOST_NAMES]
        ),
    )


def _role(container: Manifest) -> Role:
    if container["name"] == CONTROL_PLANE:
        return Role.CONTROL_PLANE
    args = container.get("args") or ()
    # pilot-agent's own words: proxy sidecar, proxy router, proxy waypoint, proxy ztunnel.
    return Role.SIDECAR if list(args[:1]) != ["proxy"] or "sidecar" in args[1:2] else Role.GATEWAY


def _ports(containers: Iterable[Manifest], notes: Mapping[str, str]) -> tuple[int, ...]:
    """Ports that the sidecar takes over, declared ones if there are: there it need not turn to the application."""
    declared = [
        port["containerPort"]
        for container in containers
        if container.get("name") != PROXY
        for port in container.get("ports") or ()
        if port.get("protocol", "TCP") == "TCP"
    ]
    included = notes.get(INCLUDE, "*")
    allowed = None if included == "*" else _numbers(included)
    excluded = _numbers(notes.get(EXCLUDE, ""))
    others = sorted(allowed) if allowed is not None else [ANY_PORT]
    for ports in (declared, others):
        taken = [port for port in dict.fromkeys(ports) if (allowed is None or port in allowed) and port not in excluded]
        if taken:
            return tuple(taken[:MOST_PORTS])
    return ()


def _numbers(text: str) -> frozenset[int]:
    return frozenset(int(word) for word in text.replace(",", " ").split() if word.isdigit())
