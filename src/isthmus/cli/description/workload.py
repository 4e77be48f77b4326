"""What `meshctl describe` says about a Workload."""

from __future__ import annotations

from isthmus.api.discovery import Workload
from isthmus.cli.description.parts import Known, Parts, Section, destination_row, identity, is_behind, pairs


def describe(workload: Workload, known: Known) -> Parts:
    """The parts of a workload, with the destinations that it answers for."""
    kubernetes, mesh = workload.spec.kubernetes, workload.spec.mesh
    if kubernetes is None:
        return {}, []
    where = kubernetes.controller
    found = next((m for m in known.meshes if mesh and m.ref == mesh.ref), None)
    facts = {
        "Cluster": where.cluster_name,
        "Controller": f"{where.namespace}/{where.name}",
        "Mesh": mesh.name if mesh else "none",
        "Identity": identity(workload, found) if found else "",
        "Pod labels": pairs(kubernetes.pod_labels),
    }
    behind = [destination for destination in known.destinations if is_behind(workload, destination)]
    rows = tuple(destination_row(destination) for destination in behind)
    return facts, [Section("Destinations that it answers for", ("DESTINATION", "HOST NAME", "ON OTHER MESHES"), rows)]
