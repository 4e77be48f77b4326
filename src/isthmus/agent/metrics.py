"""The agent's metrics, brought up to date when they are asked for. Some names are the reference's."""

from __future__ import annotations

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from isthmus.agent.apply import Applier
from isthmus.agent.certify import Certifier
from isthmus.agent.outputs import Outputs
from isthmus.agent.report import Reporter
from isthmus.program.certificate_metrics import certificate_metrics
from isthmus.transport import RelayClient


class AgentMetrics(Collector):
    """Reads the counters that the parts of the agent keep."""

    def __init__(
        self,
        cluster: str,
        reporter: Reporter,
        outputs: Outputs,
        applier: Applier,
        certifier: Certifier,
        relay: RelayClient,
    ) -> None:
        self._cluster = cluster
        self._certifier = certifier
        self._reporter = reporter
        self._outputs = outputs
        self._applier = applier
        self._relay = relay

    def collect(self) -> list[Metric]:
        """All metrics."""
        counts, traffic, certified = self._reporter.counts, self._relay.traffic, self._certifier.counts
        state = 0 if self._reporter.waiting_for() else 2
        return [
            gauge("gloo_mesh_discovery_reconciling_state", "0 while the cluster is read, then 2.", state),
            counter("gloo_mesh_discovery_reconciles", "Runs of discovery.", counts.runs),
            counter("isthmus_watch_events", "Events of the watches that discovery reads.", counts.events),
            counter("isthmus_reported_records", "Changed discovered objects that were published.", counts.published),
            gauge("isthmus_findings", "Objects of the cluster with problems.", len(self._reporter.findings())),
            gauge("isthmus_desired_objects", "Objects that the management plane wants here.", len(self._outputs)),
            gauge(
                "isthmus_desired_complete", "Whether these are all, so that others are pruned.", self._outputs.complete
            ),
            gauge("isthmus_writes_pending", "Objects that wait to be written or pruned.", self._applier.pending),
            gauge("isthmus_write_problems", "Objects that cannot be written.", len(self._applier.problems)),
            counter("isthmus_writes", "Objects written.", self._applier.writes),
            counter("isthmus_prunes", "Objects pruned.", self._applier.prunes),
            counter("isthmus_certificates_requested", "Certificate requests made.", certified.requested),
            counter("isthmus_certificates_written", "Certificates written for Istio.", certified.written),
            counter("isthmus_certificates_renewed", "Those of them that replace an earlier one.", certified.renewed),
            counter("isthmus_certificates_failed", "Attempts at a certificate that failed.", certified.failed),
            *certificate_metrics((self._cluster, name, status) for name, status in self._certifier.statuses()),
            gauge("isthmus_relay_connected", "Whether the server is connected.", traffic.connected),
            counter("isthmus_relay_connections", "Streams opened to the server.", traffic.connections),
            counter("isthmus_relay_bytes_in", "Bytes of relay messages received.", traffic.bytes_in),
            counter("isthmus_relay_bytes_out", "Bytes of relay messages sent.", traffic.bytes_out),
        ]


def counter(name: str, text: str, value: float) -> Metric:
    """A counter without labels."""
    return CounterMetricFamily(name, text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)
