"""What is measured of meshes' certificates, and how durations are counted."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client.core import Metric

from isthmus.api.issued_certificate import (
    IssuedCertificateState,
    IssuedCertificateStatus,
    OutdatedPods,
    WorkloadCertificates,
)
from isthmus.program.certificate_metrics import certificate_metrics, timestamp
from isthmus.program.durations import Durations


def samples(*metrics: Metric) -> dict[tuple[str, ...], float]:
    return {(s.name, *s.labels.values()): s.value for metric in metrics for s in metric.samples}


def test_each_certificate_has_its_times_state_and_pods() -> None:
    status = IssuedCertificateStatus(
        state=IssuedCertificateState.ISSUED,
        not_before="2026-11-23T02:00:00Z",
        not_after="2027-11-23T02:00:00Z",
        outdated_pods=OutdatedPods(count=7, names=("default/a",)),
        workloads=WorkloadCertificates(shared=3, presumed=1, other=2),
    )
    found = samples(*certificate_metrics([("a", "mesh-a", status)]))

    assert found["isthmus_mesh_certificate_state", "a", "mesh-a", "ISSUED"] == 1
    assert found["isthmus_mesh_certificate_state", "a", "mesh-a", "FINISHED"] == 0
    begins = datetime(2026, 11, 23, 2, tzinfo=UTC).timestamp()
    assert found["isthmus_mesh_certificate_begin_timestamp_seconds", "a", "mesh-a"] == begins
    assert found["isthmus_mesh_certificate_expiry_timestamp_seconds", "a", "mesh-a"] == begins + 365 * 86400
    assert found["isthmus_mesh_certificate_outdated_pods", "a", "mesh-a"] == 7
    shown = [found["isthmus_mesh_certificate_pods", "a", "mesh-a", what] for what in ("shared", "presumed", "other")]
    assert shown == [3, 1, 2]


def test_what_is_not_known_has_no_sample() -> None:
    found = samples(*certificate_metrics([("a", "mesh-a", IssuedCertificateStatus())]))

    assert found["isthmus_mesh_certificate_state", "a", "mesh-a", "PENDING"] == 1
    assert found["isthmus_mesh_certificate_outdated_pods", "a", "mesh-a"] == 0
    assert not any("timestamp" in key[0] or "certificate_pods" in key[0] for key in found)
    assert timestamp("") is None


def test_durations_are_counted_up_to_each_bound() -> None:
    durations = Durations()
    for seconds in (0.001, 0.01, 0.2, 500.0):
        durations.observe(seconds)
    found = samples(durations.metric("x_seconds", "X."))

    counts = [found["x_seconds_bucket", bound] for bound in ("0.01", "0.1", "0.3", "100.0", "+Inf")]
    assert counts == [2, 2, 3, 3, 4]
    assert (found["x_seconds_count",], round(found["x_seconds_sum",], 3)) == (4, 500.211)
