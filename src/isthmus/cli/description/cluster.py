"""What `meshctl describe` says about a KubernetesCluster."""

from __future__ import annotations

from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.cli.description.parts import Known, Parts, Section


def describe(cluster: KubernetesCluster, known: Known) -> Parts:
    """The parts of a registered cluster, with its meshes."""
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
