"""What `meshctl describe` says about an object: plain functions from typed objects to a `Description`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.common import ApprovalStatus, DestinationSelector, ObjectRef
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificateStatus
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.translate.facts import service_facts
from isthmus.translate.selectors import rules_of, selects

MAX_ENDPOINTS = 50  # lines that a person still reads; `meshctl get -o yaml` has them all


class Section(msgspec.Struct, frozen=True):
    """A titled table. Without rows it still says that there is nothing."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0
    """Rows that are left out."""


class Description(msgspec.Struct, frozen=True):
    """An object: one-line facts, what it selects and is selected by, and its problems."""

    kind: str
    namespace: str
    name: str
    facts: dict[str, str]
    sections: tuple[Section, ...]


class Known(msgspec.Struct, frozen=True):
    """The objects of the management cluster, as far as a description looks at them."""

    meshes: tuple[Mesh, ...] = ()
    workloads: tuple[Workload, ...] = ()
    destinations: tuple[Destination, ...] = ()

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Known:
        """Those of *resources* that descriptions look at."""
        found = tuple(resources)
        return cls(
            meshes=tuple(item for item in found if isinstance(item, Mesh)),
            workloads=tuple(item for item in found if isinstance(item, Workload)),
            destinations=tuple(item for item in found if isinstance(item, Destination)),
        )


NEEDED: dict[type[Resource], tuple[type[Resource], ...]] = {
    VirtualMesh: (Mesh, Destination),
    Mesh: (Workload, Destination),
    Workload: (Mesh, Destination),
    Destination: (Workload,),
    KubernetesCluster: (Mesh, Workload, Destination),
    TrafficPolicy: (Destination,),
    AccessPolicy: (Destination,),
}
"""What the description of a kind reads besides the object itself."""


def describe_object(resource: Resource, known: Known) -> Description:
    """Everything `meshctl describe` shows about *resource*."""
    match resource:
        case VirtualMesh():
            facts, sections = _virtual_mesh(resource, known)
        case Mesh():
            facts, sections = _mesh(resource, known)
        case Workload():
            facts, sections = _workload(resource, known)
        case Destination():
            facts, sections = _destination(resource, known)
        case KubernetesCluster():
            facts, sections = _cluster(resource, known)
        case _:
            facts, sections = _policy(resource, known)
    problems = Section("Problems", ("OBJECT", "PROBLEM"), tuple(_problems(resource)))
    return Description(
        resource.KIND.kind,
        resource.metadata.namespace,
        resource.metadata.name,
        {name: value for name, value in facts.items() if value},
        (*sections, problems) if problems.rows else tuple(sections),
    )


Parts = tuple[dict[str, str], list[Section]]


def _virtual_mesh(virtual_mesh: VirtualMesh, known: Known) -> Parts:
    spec, status = virtual_mesh.spec, virtual_mesh.status
    meshes = {mesh.metadata.name: mesh for mesh in known.meshes}
    outcomes = status.meshes if status else {}
    rows, gateways = [], []
    for ref in spec.meshes:
        mesh = meshes.get(ref.name)
        istio = mesh.spec.istio if mesh else None
        rows.append(
            (
                ref.name,
                istio.installation.cluster if istio else "",
                istio.installation.version if istio else "",
                istio.trust_domain if istio else "",
                _state(outcomes.get(ref.ref.key)) if mesh else "not discovered",
            )
        )
        if mesh and mesh.status:
            gateways += [(ref.name, *row) for row in _gateway_rows(mesh)]
    federated = []
    for destination in known.destinations:
        applied = destination.status.applied_federation if destination.status else None
        if applied is not None and applied.virtual_mesh_ref == ObjectRef(
            name=virtual_mesh.metadata.name, namespace=virtual_mesh.metadata.namespace
        ):
            federated.append(
                (destination.metadata.name, applied.federated_hostname, _listed(applied.federated_to_meshes))
            )
    federation = spec.federation
    facts = {
        **_outcome_facts(virtual_mesh),
        "Federation": _federation_stance(virtual_mesh),
        "Host names end in": "." + (federation.hostname_suffix or "global") if federation else "",
        "Access": spec.global_access_policy.value,
        "Trust": _trust(virtual_mesh),
    }
    return facts, [
        Section("Meshes", ("MESH", "CLUSTER", "ISTIO", "TRUST DOMAIN", "STATE"), tuple(rows)),
        Section("East-west gateways", ("MESH", "GATEWAY", "ADDRESS", "PORT"), tuple(gateways)),
        Section("Federated destinations", ("DESTINATION", "HOST NAME", "KNOWN TO"), tuple(sorted(federated))),
    ]


def _federation_stance(virtual_mesh: VirtualMesh) -> str:
    federation = virtual_mesh.spec.federation
    if federation is None:
        return "none"
    if not federation.selectors:
        return "every destination, to every mesh"
    return f"what {len(federation.selectors)} selector{'s' * (len(federation.selectors) > 1)} choose"


def _trust(virtual_mesh: VirtualMesh) -> str:
    shared = virtual_mesh.spec.mtls_config.shared if virtual_mesh.spec.mtls_config else None
    if shared is None:
        return "as each mesh has it"
    root = shared.root_certificate_authority
    if root is not None and root.secret is not None:
        return f"shared, root in Secret {root.secret.namespace}/{root.secret.name}"
    if shared.intermediate_certificate_authority is not None:
        return "shared, signed by Vault"
    return "shared, generated root"


def _mesh(mesh: Mesh, known: Known) -> Parts:
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
        Section("East-west gateways", ("GATEWAY", "ADDRESS", "PORT"), tuple(_gateway_rows(mesh))),
        Section("Workloads", ("WORKLOAD", "IDENTITY"), tuple((w.metadata.name, _identity(w, mesh)) for w in workloads)),
        Section(
            "Destinations", ("DESTINATION", "HOST NAME", "ON OTHER MESHES"), tuple(map(_destination_row, destinations))
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


def _workload(workload: Workload, known: Known) -> Parts:
    kubernetes, mesh = workload.spec.kubernetes, workload.spec.mesh
    if kubernetes is None:
        return {}, []
    where = kubernetes.controller
    found = next((m for m in known.meshes if mesh and m.ref == mesh.ref), None)
    facts = {
        "Cluster": where.cluster_name,
        "Controller": f"{where.namespace}/{where.name}",
        "Mesh": mesh.name if mesh else "none",
        "Identity": _identity(workload, found) if found else "",
        "Pod labels": _pairs(kubernetes.pod_labels),
    }
    behind = [destination for destination in known.destinations if _is_behind(workload, destination)]
    rows = tuple(_destination_row(destination) for destination in behind)
    return facts, [Section("Destinations that it answers for", ("DESTINATION", "HOST NAME", "ON OTHER MESHES"), rows)]


def _destination(destination: Destination, known: Known) -> Parts:
    status, service, external = destination.status, destination.spec.kube_service, destination.spec.external_service
    applied = status.applied_federation if status else None
    facts = {
        "Host name": status.local_fqdn if status else "",
        "On other meshes": applied.federated_hostname if applied else "not federated",
        "Mesh": destination.spec.mesh.name if destination.spec.mesh else "none",
    }
    sections = []
    if external is not None:
        facts |= {"Type": "external service", "Host name": ", ".join(external.hosts)}
        sections.append(
            Section(
                "Ports",
                ("PORT", "NAME", "PROTOCOL"),
                tuple((str(p.number), p.name, p.protocol) for p in external.ports),
            )
        )
    if service is not None:
        facts |= {
            "Cluster": service.ref.cluster_name,
            "Service": f"{service.ref.namespace}/{service.ref.name}",
            "Type": service.service_type.value,
            "Region": service.region,
            "Labels": _pairs(service.labels),
            "Pod selector": _pairs(service.workload_selector_labels),
            "Subsets": "; ".join(f"{label} = {', '.join(v.values)}" for label, v in sorted(service.subsets.items())),
            "External addresses": ", ".join(found.ip or found.dns_name or "" for found in service.external_addresses),
        }
        ports = tuple((str(p.port), p.name, p.protocol, p.app_protocol) for p in service.ports)
        sections.append(Section("Ports", ("PORT", "NAME", "PROTOCOL", "APPLICATION"), ports))
        endpoints = [
            (
                endpoint.ip_address,
                ",".join(str(port.port) for port in subset.ports),
                endpoint.sub_locality.zone if endpoint.sub_locality else "",
                _pairs(endpoint.labels),
            )
            for subset in service.endpoint_subsets
            for endpoint in subset.endpoints
        ]
        shown = tuple(endpoints[:MAX_ENDPOINTS])
        columns = ("ADDRESS", "PORTS", "ZONE", "LABELS")
        sections.append(Section("Endpoints", columns, shown, more=len(endpoints) - len(shown)))
        workloads = tuple((w.metadata.name,) for w in known.workloads if _is_behind(w, destination))
        sections.append(Section("Workloads behind it", ("WORKLOAD",), workloads))
    meshes = tuple((ref.name,) for ref in applied.federated_to_meshes) if applied else ()
    sections.append(Section("Federated to", ("MESH",), meshes))
    return facts, sections


def _cluster(cluster: KubernetesCluster, known: Known) -> Parts:
    name = cluster.metadata.name
    meshes = tuple(
        (mesh.metadata.name, mesh.spec.istio.installation.version)
        for mesh in known.meshes
        if mesh.spec.istio and mesh.spec.istio.installation.cluster == name
    )
    workloads = sum(
        w.spec.kubernetes is not None and w.spec.kubernetes.controller.cluster_name == name for w in known.workloads
    )
    destinations = sum(
        d.spec.kube_service is not None and d.spec.kube_service.ref.cluster_name == name for d in known.destinations
    )
    conditions = tuple(
        (found.owner or "", found.state.value, found.message)
        for found in (cluster.status.status if cluster.status else ())
    )
    facts = {
        "Cluster domain": cluster.spec.cluster_domain or "cluster.local",
        "Workloads": str(workloads),
        "Destinations": str(destinations),
    }
    return facts, [
        Section("Meshes", ("MESH", "ISTIO"), meshes),
        Section("Conditions", ("WRITTEN BY", "STATE", "MESSAGE"), conditions),
    ]


def _policy(resource: Resource, known: Known) -> Parts:
    """A kind without a description of its own: its outcome, and the destinations that its selector chooses."""
    status: Any = getattr(resource, "status", None)
    selectors = getattr(resource.spec, "destination_selector", None)  # type: ignore[attr-defined]  # every kind has one
    sections = []
    if isinstance(selectors, tuple):
        outcomes = getattr(status, "destinations", {}) if status else {}
        chosen = tuple(
            (found.metadata.name, _state(outcomes.get(found.ref.key)))
            for found in selected(selectors, known.destinations)
        )
        sections.append(Section("Selected destinations", ("DESTINATION", "STATE"), chosen))
    if workloads := tuple((key,) for key in getattr(status, "workloads", ())):
        sections.append(Section("Workloads", ("WORKLOAD",), workloads))
    return _outcome_facts(resource), sections


def selected(selectors: tuple[DestinationSelector, ...], destinations: Iterable[Destination]) -> list[Destination]:
    """The *destinations* that *selectors* choose; no selectors choose all."""
    rules = list(rules_of(selectors))
    chosen = []
    for destination in destinations:
        facts = service_facts(destination.ref, destination)
        if facts is not None and any(selects(rule, facts) for rule in rules):
            chosen.append(destination)
    return chosen


def _outcome_facts(resource: Resource) -> dict[str, str]:
    status: Any = getattr(resource, "status", None)
    state = getattr(status, "state", None)
    if status is None or state is None:
        return {"State": "not processed yet"} if hasattr(resource, "status") else {}
    stale = status.observed_generation != resource.metadata.generation
    return {"State": state.value + (" (of an older version of the object)" if stale else "")}


def _problems(resource: Resource) -> Iterable[tuple[str, str]]:
    status: Any = getattr(resource, "status", None)
    if status is None:
        return
    own = [*getattr(status, "errors", ()), *getattr(status, "warnings", ())]
    if error := getattr(status, "error", ""):
        own.append(error)
    for text in dict.fromkeys(own):
        yield resource.metadata.name, text
    for part in ("meshes", "destinations"):
        outcomes: Mapping[str, ApprovalStatus] = getattr(status, part, {})
        for key, outcome in sorted(outcomes.items()):
            for text in (*outcome.errors, *outcome.warnings):
                if text not in own:
                    yield key.split(".")[0], text


def _state(outcome: ApprovalStatus | None) -> str:
    return outcome.state.value if outcome else ""


def _identity(workload: Workload, mesh: Mesh) -> str:
    kubernetes = workload.spec.kubernetes
    if kubernetes is None:
        return ""
    domain = (mesh.spec.istio.trust_domain if mesh.spec.istio else "") or "cluster.local"
    return f"spiffe://{domain}/ns/{kubernetes.controller.namespace}/sa/{kubernetes.service_account_name or 'default'}"


def _gateway_rows(mesh: Mesh) -> Iterable[tuple[str, str, str]]:
    for gateway in mesh.status.applied_east_west_ingress_gateways if mesh.status else ():
        yield gateway.destination_ref.name, ", ".join(gateway.external_addresses), str(gateway.external_port)


def _destination_row(destination: Destination) -> tuple[str, str, str]:
    status = destination.status
    applied = status.applied_federation if status else None
    return destination.metadata.name, status.local_fqdn if status else "", applied.federated_hostname if applied else ""


def _is_behind(workload: Workload, destination: Destination) -> bool:
    kubernetes, service = workload.spec.kubernetes, destination.spec.kube_service
    if kubernetes is None or service is None or not service.workload_selector_labels:
        return False
    where = kubernetes.controller
    return (where.cluster_name, where.namespace) == (service.ref.cluster_name, service.ref.namespace) and (
        service.workload_selector_labels.items() <= kubernetes.pod_labels.items()
    )


def _listed(refs: Iterable[ObjectRef]) -> str:
    return ", ".join(ref.name for ref in refs)


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
