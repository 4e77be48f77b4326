"""The server's metrics, brought up to date when they are asked for.

Names of the first two as users know them. Source: reference, relay, health and metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from isthmus.api.common import CertificateRotationState
from isthmus.program.certificate_metrics import certificate_metrics, timestamp
from isthmus.server.fleet import Fleet
from isthmus.server.issuer import Issuer
from isthmus.server.plane import Plane
from isthmus.server.roots import Roots
from isthmus.server.writer import Writer
from isthmus.translate.trust.rotation import STEPS
from isthmus.transport import Traffic


class ServerMetrics(Collector):
    """Reads the counters that the parts of the server keep."""

    def __init__(self, fleet: Fleet, plane: Plane, writer: Writer, issuer: Issuer, roots: Roots) -> None:
        self._fleet = fleet
        self._plane = plane
        self._writer = writer
        self._issuer = issuer
        self._roots = roots
        self.traffic: Mapping[str, Traffic] = {}

    def collect(self) -> list[Metric]:
        """All metrics."""
        turns, plane = self._plane.turns, self._plane
        return [
            *self._clusters(),
            *self._traffic(),
            counter("isthmus_engine_runs", "Runs of the engine.", turns.runs),
            counter("isthmus_engine_changes", "Changed objects and reports that the engine took.", turns.changes),
            counter("isthmus_engine_evaluations", "Functions that the engine evaluated.", plane.engine.evaluations),
            counter("isthmus_engine_seconds", "Time spent in the engine.", turns.seconds),
            gauge("isthmus_engine_last_run_seconds", "Duration of the last run of the engine.", turns.last_seconds),
            counter("isthmus_outputs_published", "Changed desired objects that were published.", turns.outputs),
            gauge("isthmus_unknown", "What is unknown, so that nothing is pruned.", len(plane.missing())),
            gauge("isthmus_held_clusters", "Where nothing is pruned, since their mesh is gone.", len(plane.held())),
            counter("isthmus_writes", "Writes to the management cluster.", self._writer.writes),
            gauge("isthmus_writes_pending", "Objects and statuses that wait to be written.", self._writer.pending),
            gauge("isthmus_write_problems", "Objects that cannot be written now.", len(self._writer.problems)),
            *self._issuance(),
            *self._rotations(),
        ]

    def _issuance(self) -> list[Metric]:
        issuer = self._issuer
        return [
            counter("isthmus_intermediates_signed", "Intermediate certificates signed.", issuer.signed),
            counter("isthmus_intermediates_renewed", "Those of them that replace an earlier one.", issuer.renewed),
            counter("isthmus_requests_refused", "Certificate requests refused.", issuer.refused),
            counter("isthmus_signings_failed", "Certificate requests that could not be signed.", issuer.failed),
            issuer.durations.metric(
                "isthmus_request_answer_seconds", "Time from the arrival of a certificate request to its answer."
            ),
            *certificate_metrics(
                (name, mesh, status)
                for name, cluster in self._fleet.clusters.items()
                for mesh, status in sorted(cluster.certificates.items())
            ),
        ]

    def _rotations(self) -> list[Metric]:
        expiry = GaugeMetricFamily(
            "isthmus_root_expiry_timestamp_seconds",
            "When a root expires that meshes trust.",
            labels=["virtual_mesh", "secret"],
        )
        step = GaugeMetricFamily(
            "isthmus_rotation_step",
            "1 for the step that the rotation of the root is at.",
            labels=["virtual_mesh", "step"],
        )
        verifying = GaugeMetricFamily(
            "isthmus_rotation_verifying", "Whether the step waits to be verified.", labels=["virtual_mesh"]
        )
        since = GaugeMetricFamily(
            "isthmus_rotation_changed_timestamp_seconds",
            "When the rotation of the root last changed; nothing if there was none.",
            labels=["virtual_mesh"],
        )
        for ref, rotation in self._roots.rotations.items():
            name = f"{ref.namespace}/{ref.name}"
            for root in rotation.trusted:
                secret = f"{root.secret.namespace}/{root.secret.name}"
                expiry.add_metric([name, secret], self._roots.expires(root).timestamp())
            idle = CertificateRotationState.NOT_ROTATING
            present = rotation.state if rotation.successor is not None else idle
            for state in (idle, *STEPS):
                step.add_metric([name, state.value], state is present)
            verifying.add_metric([name], rotation.verifying)
            moment = timestamp(rotation.conditions[-1].timestamp) if rotation.conditions else None
            if moment is not None:
                since.add_metric([name], moment)
        return [expiry, step, verifying, since]

    def _clusters(self) -> list[Metric]:
        push = GaugeMetricFamily("relay_push_clients_connected", "Agents that report, by cluster.", labels=["cluster"])
        pull = GaugeMetricFamily("relay_pull_clients_connected", "Agents that receive, by cluster.", labels=["cluster"])
        known = GaugeMetricFamily(
            "isthmus_cluster_known", "Whether the cluster has reported or has a last known state.", labels=["cluster"]
        )
        objects = GaugeMetricFamily("isthmus_cluster_objects", "Discovered objects, by cluster.", labels=["cluster"])
        failures = GaugeMetricFamily(
            "isthmus_cluster_write_problems", "Desired objects that the agent could not write.", labels=["cluster"]
        )
        refused = GaugeMetricFamily(
            "isthmus_cluster_refused_reports", "Records of the agent that the server does not take.", labels=["cluster"]
        )
        for name, cluster in self._fleet.clusters.items():
            push.add_metric([name], cluster.connected)
            pull.add_metric([name], cluster.connected)
            known.add_metric([name], cluster.known)
            objects.add_metric([name], len(cluster.objects))
            failures.add_metric([name], len(cluster.reports))
            refused.add_metric([name], len(cluster.bad))
        return [push, pull, known, objects, failures, refused]

    def _traffic(self) -> list[Metric]:
        octets = CounterMetricFamily(
            "isthmus_relay_bytes", "Bytes of relay messages, by cluster.", labels=["cluster", "direction"]
        )
        records = CounterMetricFamily(
            "isthmus_relay_records", "Records that crossed the relay, by cluster.", labels=["cluster", "direction"]
        )
        connections = CounterMetricFamily(
            "isthmus_relay_connections", "Streams that agents opened, by cluster.", labels=["cluster"]
        )
        for name, traffic in self.traffic.items():
            octets.add_metric([name, "in"], traffic.bytes_in)
            octets.add_metric([name, "out"], traffic.bytes_out)
            records.add_metric([name, "in"], traffic.records_in)
            records.add_metric([name, "out"], traffic.records_out)
            connections.add_metric([name], traffic.connections)
        return [octets, records, connections]


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels."""
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)
