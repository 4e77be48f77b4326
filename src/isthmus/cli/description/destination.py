"""What `meshctl describe` says about a Destination."""

from __future__ import annotations

from isthmus.api.discovery import Destination
from isthmus.cli.description.access_policy import callers
from isthmus.cli.description.parts import Known, Parts, Section, is_behind, pairs

MAX_ENDPOINTS = 50  # lines that a person still reads; `meshctl get -o yaml` has them all


def describe(destination: Destination, known: Known) -> Parts:
    """The parts of a destination, with its ports, endpoints and the meshes that know it."""
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
            "Labels": pairs(service.labels),
            "Pod selector": pairs(service.workload_selector_labels),
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
                pairs(endpoint.labels),
            )
            for subset in service.endpoint_subsets
            for endpoint in subset.endpoints
        ]
        shown = tuple(endpoints[:MAX_ENDPOINTS])
        columns = ("ADDRESS", "PORTS", "ZONE", "LABELS")
        sections.append(Section("Endpoints", columns, shown, more=len(endpoints) - len(shown)))
        workloads = tuple((w.metadata.name,) for w in known.workloads if is_behind(w, destination))
        sections.append(Section("Workloads behind it", ("WORKLOAD",), workloads))
    meshes = tuple((ref.name,) for ref in applied.federated_to_meshes) if applied else ()
    sections.append(Section("Federated to", ("MESH",), meshes))
    allowing = tuple(
        (f"{found.ref.namespace}/{found.ref.name}", callers(found.spec) if found.spec is not None else "")
        for found in (status.applied_access_policies if status else ())
    )
    sections.append(Section("Access policies", ("POLICY", "CALLERS"), allowing))
    return facts, sections
