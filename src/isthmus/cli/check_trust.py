"""What must hold before meshes trust each other, as plain functions beside `checks`. Called by `meshctl check`.

What agents report is on the management cluster too, so most is said also of clusters that no context leads to.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from isthmus.api.base import Resource
from isthmus.api.common import CommonCertOptions, ObjectRef
from isthmus.api.discovery import Mesh
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateStatus
from isthmus.api.issued_certificate import IssuedCertificateState as State
from isthmus.api.parse import parse
from isthmus.api.pod_bounce_directive import PodBounceDirective
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.checks import AGENT, EXPIRY_NOTICE, SERVER, Check, Observed, Report, argument_of, data_of
from isthmus.model import kinds
from isthmus.pki import CA_CERT, ROOT_CERT, PemInvalid, certificate_facts, certificate_fingerprint
from isthmus.pki.certificates import load_certificates, to_pem
from isthmus.translate.trust.domains import domain_facts, domain_warnings
from isthmus.translate.trust.facts import trust_settings
from isthmus.translate.trust.wanted import Wanted, number_in, wanted_root

R = TypeVar("R", bound=Resource)

ROOT_MAP = "istio-ca-root-cert"  # where istiod puts the roots that it hands out
MOST_NAMES = 10  # of pods in one line; `meshctl describe mesh` has more
SHOWN_DIGITS = 16  # of a fingerprint


class Member(msgspec.Struct, frozen=True):
    """The certificate of the meshes that read it from one Secret."""

    mesh: Mesh
    cluster: str
    namespace: str
    """Istio's."""
    status: IssuedCertificateStatus | None
    created: str | None = None
    waiting: tuple[str, ...] = ()
    """What restarts wait for."""


def check_trust(management: Observed, clusters: Mapping[str, Observed | None], now: datetime) -> tuple[Check, ...]:
    """Every check of roots, certificates and trust domains."""
    reports: dict[str, Report] = {}
    meshes = {mesh.ref: mesh for mesh in _typed(management, Mesh)}
    for virtual_mesh in _typed(management, VirtualMesh):
        found = [meshes[ref.ref] for ref in virtual_mesh.spec.meshes if ref.ref in meshes]
        members = list(_members(found, clusters))
        report = reports.setdefault("management", Report("management"))
        _domains(report, virtual_mesh, found)
        _one_root(report, virtual_mesh, members, clusters)
        config = virtual_mesh.spec.mtls_config
        if config is None or config.shared is None:
            continue
        _root(report, virtual_mesh, management, now)
        for member in members:
            report = reports.setdefault(member.cluster, Report(member.cluster))
            _certificate(report, virtual_mesh, member, now)
            if member.status is not None and member.status.state in (State.ISSUED, State.FINISHED):
                _restarts(report, virtual_mesh, member, member.status)
                _workloads(report, member, member.status, clusters.get(member.cluster))
    return tuple(check for report in reports.values() for check in report.checks)


def _members(meshes: Iterable[Mesh], clusters: Mapping[str, Observed | None]) -> Iterator[Member]:
    places: dict[tuple[str, str], list[Mesh]] = {}
    for mesh in meshes:
        if mesh.spec.istio is not None:
            where = mesh.spec.istio.installation
            places.setdefault((where.cluster, where.namespace), []).append(mesh)
    for (cluster, namespace), sharing in sorted(places.items()):
        # Of several revisions in one namespace one has the certificate.
        mesh = next((mesh for mesh in sharing if mesh.spec.issued_certificate_status is not None), sharing[0])
        seen = clusters.get(cluster)
        status, created = mesh.spec.issued_certificate_status, None
        waiting: tuple[str, ...] = ()
        if seen is not None:
            names = {mesh.metadata.name for mesh in sharing}
            for certificate in _typed(seen, IssuedCertificate):
                if certificate.metadata.name in names:
                    status, created = certificate.status, certificate.metadata.creation_timestamp
            for directive in _typed(seen, PodBounceDirective):
                if directive.metadata.name in names and directive.status is not None:
                    waiting = directive.status.waiting
        yield Member(mesh, cluster, namespace, status, created, waiting)


# --- the virtual mesh -------------------------------------------------------------------------------------------------


def _root(report: Report, virtual_mesh: VirtualMesh, management: Observed, now: datetime) -> None:
    wanted = wanted_root(virtual_mesh, management.namespace)
    if not isinstance(wanted, Wanted) or kinds.SECRET in management.refused:
        return
    check = f"Root of {virtual_mesh.metadata.name}"
    ref = _newest(wanted, management)
    where = f"Secret {ref.namespace}/{ref.name}"
    secret = management.find(kinds.SECRET, ref.name, ref.namespace)
    if secret is None:
        report.say(check, f"{where} is missing: nothing can be signed", "restore it from its backup")
        return
    try:
        ends = certificate_facts(data_of(secret, CA_CERT) or data_of(secret, ROOT_CERT)).not_after
    except PemInvalid as error:
        report.say(check, f"{where}: {error}", "restore it from its backup, or name another root")
        return
    gone, made = ends <= now, wanted.generated
    report.say(
        check,
        f"{where} {'has expired' if gone else 'ends'} on {ends:%Y-%m-%d}" if ends - now < _notice(made) else "",
        "name another root in spec.mtlsConfig.shared.rootCertificateAuthority; it is rolled out step by step"
        if made is None
        else f"another should have been made: `kubectl --context {management.context} -n {management.namespace} logs "
        f"deployment/{SERVER}` says why not",
        good=f"{where}, valid until {ends:%Y-%m-%d}",
        warning=not gone,
    )


def _newest(wanted: Wanted, management: Observed) -> ObjectRef:
    """The Secret of the root: of generated ones the one that was made last."""
    if wanted.generated is None:
        return wanted.secret
    refs = (
        ObjectRef(name=item["metadata"]["name"], namespace=item["metadata"]["namespace"])
        for item in management.all(kinds.SECRET, wanted.secret.namespace)
    )
    found = [(number, ref) for ref in refs if (number := number_in(wanted.secret, ref)) is not None]
    return max(found)[1] if found else wanted.secret


def _domains(report: Report, virtual_mesh: VirtualMesh, meshes: Sequence[Mesh]) -> None:
    facts = {mesh.ref: found for mesh in meshes if (found := domain_facts(mesh.ref, mesh)) is not None}
    problems = [problem for ref, found in facts.items() for problem in domain_warnings(ref, found, facts.values())]
    report.say(
        f"Trust domains within {virtual_mesh.metadata.name}",
        "; ".join(problems),
        "change the mesh config or istiod's env as said, and restart istiod",
        good="none passes for another, none is refused",
        warning=True,
    )


def _one_root(
    report: Report, virtual_mesh: VirtualMesh, members: Sequence[Member], clusters: Mapping[str, Observed | None]
) -> None:
    """Whether what istiod hands out leads to one root everywhere; while a root is replaced it hands out two."""
    roots: dict[str, list[str]] = {}
    for member in members:
        seen = clusters.get(member.cluster)
        config_map = seen.find(kinds.CONFIG_MAP, ROOT_MAP, member.namespace) if seen is not None else None
        text = ((config_map or {}).get("data") or {}).get(ROOT_CERT)
        if text:
            try:
                found = [certificate_fingerprint(to_pem(each)) for each in load_certificates(text.encode())]
            except PemInvalid:
                found = []
            roots[f"{member.cluster}/{member.namespace}"] = found
    if len(roots) < 2:
        return
    common = set.intersection(*map(set, roots.values()))
    told = "; ".join(f"{place}: {', '.join(each[:SHOWN_DIGITS] for each in found)}" for place, found in roots.items())
    config = virtual_mesh.spec.mtls_config
    on_its_way = any(member.status is None or member.status.state is not State.FINISHED for member in members)
    if config is not None:
        remedy = "the checks of the certificates below say what is still to come"
    else:
        remedy = "set spec.mtlsConfig, or bring the meshes under one root yourself"
    report.say(
        f"One root for {virtual_mesh.metadata.name}",
        "" if common else f"istiod hands out different roots, so calls between clusters fail; {told}",
        remedy,
        good=", ".join(sorted(each[:SHOWN_DIGITS] for each in common)),
        warning=config is None or on_its_way,
    )


# --- a certificate ----------------------------------------------------------------------------------------------------


def _certificate(report: Report, virtual_mesh: VirtualMesh, member: Member, now: datetime) -> None:
    name, status = member.mesh.metadata.name, member.status
    check = f"Certificate of {name}"
    logs = f"`kubectl --context {member.cluster} -n {_agent_namespace(member)} logs deployment/{AGENT}` says more"
    if status is None:
        remedy = f"`meshctl describe virtualmesh {virtual_mesh.metadata.name}` says what stands in the way"
        report.say(check, "its agent has not reported one yet", remedy, warning=True)
        return
    made = _moment(member.created)
    age = f", {_span(now - made)} old" if made is not None else ""
    ends = _moment(status.not_after)
    if status.state is State.FAILED:
        report.say(check, status.error or "FAILED", f"it is tried again when that has changed; {logs}")
    elif ends is not None and ends <= now:
        report.say(check, f"{status.state.value}{age}; it expired on {ends:%Y-%m-%d %H:%M} UTC", logs)
    elif ends is not None and ends - now < _notice(_options(virtual_mesh)):
        problem = f"{status.state.value}{age}; it ends in {_span(ends - now)}, and should have been renewed"
        report.say(check, problem, logs, warning=True)
    elif status.state in (State.PENDING, State.REQUESTED):
        report.say(check, f"{status.state.value}{age}: it is not there yet", logs, warning=True)
    else:
        until = f", valid until {ends:%Y-%m-%d}" if ends is not None else ""
        report.say(check, "", good=f"{status.state.value}{age}{until}")


def _options(virtual_mesh: VirtualMesh) -> CommonCertOptions | None:
    settings = trust_settings(virtual_mesh.ref, virtual_mesh)
    return settings.options if settings is not None else None


def _notice(options: CommonCertOptions | None) -> timedelta:
    """How long before its end a certificate is overdue: half of the time that renewal has, which may be minutes.

    Without *options* nobody renews it but a person.
    """
    if options is None:
        return EXPIRY_NOTICE
    grace = timedelta(days=options.ttl_days) * options.secret_rotation_grace_period_ratio
    return EXPIRY_NOTICE if grace > EXPIRY_NOTICE else grace / 2


def _restarts(report: Report, virtual_mesh: VirtualMesh, member: Member, status: IssuedCertificateStatus) -> None:
    name, outdated = member.mesh.metadata.name, status.outdated_pods
    config = virtual_mesh.spec.mtls_config
    by_itself = config is not None and config.auto_restart_pods
    count = outdated.count if outdated is not None else 0
    problem = ""
    if count and outdated is not None:
        problem = f"{_pods(count)} with an older certificate: {_some(outdated.names, count)}"
    elif status.state is State.ISSUED:
        problem = "restarts are under way"
    if problem and member.waiting:
        problem += f"; {'; '.join(member.waiting[:MOST_NAMES])}"
    remedy = f"`meshctl mesh restart --mesh-name {name}` restarts them, istiod first"
    report.say(
        f"Restarts of {name}",
        problem,
        "they go on by themselves; what is left to you is named here" if by_itself else remedy,
        good="no pod runs with an older certificate",
        warning=True,
    )


def _workloads(report: Report, member: Member, status: IssuedCertificateStatus, seen: Observed | None) -> None:
    name, found = member.mesh.metadata.name, status.workloads
    check = f"Workloads of {name}"
    deployment = seen.find(kinds.DEPLOYMENT, AGENT, seen.namespace) if seen is not None else None
    if found is None or found.observed_trust != status.observed_trust:
        off = argument_of(deployment or {}, "--verify-workloads") == "false"
        report.say(
            check,
            "" if off else "it is not known yet what they present",
            "the agent looks within seconds of a new certificate; it must be allowed to connect to the mesh's pods",
            good="not looked at: the agent runs with enterpriseAgent.verifyWorkloads=false",
            warning=True,
        )
        return
    restart = f"restart them; `meshctl describe mesh {name}` names more"
    if found.other:
        others = [f"{pod.name}: {pod.reason}" for pod in found.pods if pod.shows_other]
        problem = f"{_pods(found.other)} with another certificate: {_some(others, found.other, '; ')}"
        # Before they have restarted that is how it goes.
        report.say(check, problem, restart, warning=status.state is not State.FINISHED)
    elif found.unknown:
        silent = [f"{pod.name}: {pod.reason}" for pod in found.pods if not pod.shows_other]
        problem = f"{_pods(found.unknown)} older than the certificate and not seen to present it"
        report.say(check, f"{problem}: {_some(silent, found.unknown, '; ')}", restart, warning=True)
    else:
        rest = f"; {found.presumed} more show none, but started later than it was written" if found.presumed else ""
        report.say(check, "", good=f"{found.shared} pods present certificates under the shared root{rest}")


# --- words ------------------------------------------------------------------------------------------------------------


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _some(names: Sequence[str], count: int, between: str = ", ") -> str:
    shown = names[:MOST_NAMES]
    return between.join(shown) + (f"{between}{count - len(shown)} more" if count > len(shown) else "")


def _span(span: timedelta) -> str:
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        number = int(span.total_seconds() // seconds)
        if number:
            return f"{number} {unit}{'s' * (number > 1)}"
    return "less than a minute"


def _agent_namespace(member: Member) -> str:
    return member.mesh.spec.agent_info.agent_namespace if member.mesh.spec.agent_info else "gloo-mesh"


def _moment(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


def _typed(seen: Observed, kind: type[R]) -> Iterator[R]:
    """Objects of *kind* that can be read; others are named by the check of policies."""
    for manifest in seen.all(kind.KIND):
        found = parse(manifest)
        if isinstance(found, kind):
            yield found
