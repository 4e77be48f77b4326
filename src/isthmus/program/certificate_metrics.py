"""Metrics of meshes' certificates, which the agent has of its own cluster and the server of all."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from isthmus.api.issued_certificate import IssuedCertificateState, IssuedCertificateStatus

LABELS = ("cluster", "mesh")


def certificate_metrics(rows: Iterable[tuple[str, str, IssuedCertificateStatus]]) -> list[Metric]:
    """Of each certificate: *rows* are cluster, mesh and how far it is."""
    state = GaugeMetricFamily(
        "isthmus_mesh_certificate_state",
        "1 for the state that the mesh's certificate is in.",
        labels=(*LABELS, "state"),
    )
    begins = _gauge("begin_timestamp_seconds", "When the certificate in place begins: shortly before it was signed.")
    ends = _gauge("expiry_timestamp_seconds", "When the certificate in place expires.")
    outdated = _gauge("outdated_pods", "Pods that are older than the certificate in place.")
    shown = GaugeMetricFamily(
        "isthmus_mesh_certificate_pods", "Pods by the certificate that they present.", labels=(*LABELS, "presents")
    )
    for cluster, mesh, status in rows:
        for known in IssuedCertificateState:
            state.add_metric([cluster, mesh, known.value], known is status.state)
        for family, moment in ((begins, status.not_before), (ends, status.not_after)):
            if (seconds := timestamp(moment)) is not None:
                family.add_metric([cluster, mesh], seconds)
        outdated.add_metric([cluster, mesh], status.outdated_pods.count if status.outdated_pods else 0)
        if (seen := status.workloads) is not None:
            counts = {"shared": seen.shared, "presumed": seen.presumed, "unknown": seen.unknown, "other": seen.other}
            for presents, count in counts.items():
                shown.add_metric([cluster, mesh, presents], count)
    return [state, begins, ends, outdated, shown]


def timestamp(moment: str) -> float | None:
    """Seconds since 1970 of *moment*, in RFC 3339; None if it is none."""
    try:
        return datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None


def _gauge(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"isthmus_mesh_certificate_{name}", text, labels=LABELS)
