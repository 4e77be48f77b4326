"""What `meshctl describe` says about a Mesh."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.api.discovery import Mesh
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.cli.description.parts import Known, Parts, Section, destination_row, gateway_rows, identity


def describe(mesh: Mesh, known: Known) -> Parts:
    """The parts of a mesh, with its workloads and destinations."""
    istio, status = mesh.spec.istio, mesh.status
    applied = status.applied_virtual_mesh if status else None
    facts = {"Virtual mesh": f"{applied.ref.namespace}/{applied.ref.name}" if applied else "none"}
    if istio is not None:
        where = istio.installation
        facts |= {
            "Cluster": where.cluster,
            "Type": f"Istio {where.version}",
            "Installed in": where.namespace,
            "Region": where.region,
            "Trust domain": istio.trust_domain or "cluster.local",
            "DNS proxying": "on" if istio.smart_dns_proxying_enabled else "off",
        }
    if mesh.spec.agent_info is not None:
        facts["Agent"] = f"in namespace {mesh.spec.agent_info.agent_namespace}"
    certificate = mesh.spec.issued_certificate_status
    if certificate is not None:
        facts |= _certificate(certificate)
    here = mesh.ref
    workloads = [workload for workload in known.workloads if workload.spec.mesh and workload.spec.mesh.ref == here]
    destinations = [found for found in known.destinations if found.spec.mesh and found.spec.mesh.ref == here]
    return facts, [
        Section("East-west gateways", ("GATEWAY", "ADDRESS", "PORT"), tuple(gateway_rows(mesh))),
        Section("Workloads", ("WORKLOAD", "IDENTITY"), tuple((w.metadata.name, identity(w, mesh)) for w in workloads)),
        Section(
            "Destinations", ("DESTINATION", "HOST NAME", "ON OTHER MESHES"), tuple(map(destination_row, destinations))
        ),
        *(_doubtful(certificate) if certificate is not None else ()),
    ]


def _certificate(status: IssuedCertificateStatus) -> dict[str, str]:
    """How far the mesh's certificate is, and what its pods present."""
    until = f", valid until {status.not_after}" if status.not_after else ""
    found = status.workloads
    if found is None or found.observed_trust != status.observed_trust:
        presented = "not known"
    else:
        counts = {
            "under the shared root": found.shared,
            "older than the certificate and unseen": found.unknown,
            "with another": found.other,
            "newer than the certificate and unseen": found.presumed,
        }
        presented = ", ".join(f"{count} {text}" for text, count in counts.items() if count) or "no pods"
    return {"Certificate": f"{status.state.value}{until}", "Pods' certificates": presented}


def _doubtful(status: IssuedCertificateStatus) -> Iterable[Section]:
    """Pods that are to be restarted, and those that were seen with something else. Nothing when there are none."""
    outdated, workloads = status.outdated_pods, status.workloads
    if outdated is not None and outdated.count:
        rows = tuple((name,) for name in outdated.names)
        yield Section("Pods with an older certificate", ("POD",), rows, more=outdated.count - len(rows))
    if workloads is not None and workloads.pods and workloads.observed_trust == status.observed_trust:
        pods = tuple((pod.name, "another" if pod.shows_other else "none", pod.reason) for pod in workloads.pods)
        more = max(0, workloads.other + workloads.unknown - len(pods))
        yield Section("Pods not seen on the shared root", ("POD", "SHOWS", "WHY"), pods, more=more)
