"""What the agent measures of certificates, while it issues and renews one."""

from __future__ import annotations

from isthmus.agent.apply import Applier
from isthmus.agent.metrics import AgentMetrics
from isthmus.agent.report import Reporter
from isthmus.api import crds
from isthmus.api.kinds import CERTIFICATES
from isthmus.discovery import Discovery
from isthmus.embedded import EmbeddedCluster
from isthmus.kube import KubeClient
from isthmus.pki import CA_CERT, CA_KEY
from isthmus.pki.issued import read_issued
from isthmus.transport import RelayClient
from tests.unit.agent.issuance import NAME, NAMESPACE, Signer
from tests.unit.agent.test_apply import until
from tests.unit.agent.test_certify import Running, certifier, want


def measured(running: Running) -> dict[tuple[str, ...], float]:
    """The samples of an agent of which only the certifier has run."""
    reporter = Reporter(running.kube, Discovery("cluster1", NAMESPACE), lambda: True)
    applier = Applier(running.kube, running.outputs, reporter.write_report, running.certifier.received)
    relay = RelayClient(
        cluster="cluster1",
        address="localhost:1",
        publication=reporter.publication,
        subscriber=applier,
        credentials=None,
    )
    metrics = AgentMetrics("cluster1", reporter, running.outputs, applier, running.certifier, relay)
    return {(s.name, *s.labels.values()): s.value for metric in metrics.collect() for s in metric.samples}


async def test_certificates_are_counted_and_have_their_times(bare_cluster: EmbeddedCluster, kube: KubeClient) -> None:
    await bare_cluster.load(crds.manifests(list(CERTIFICATES)))
    async with certifier(kube, Signer()) as running:
        await want(kube)
        await running.comes_to("FINISHED")
        first = measured(running)
        issued = read_issued((await running.data())[CA_CERT])
        before = (await running.data())[CA_KEY]
        await want(kube, days=31)

        async def replaced() -> bool:
            running.answer()
            return (await running.data())[CA_KEY] != before and await running.state() == "FINISHED"

        await until(replaced)
        later = measured(running)
        await want(kube, hosts=())
        await running.comes_to("FAILED")
        await until(lambda: running.certifier.counts.failed)
        failed = measured(running)

    names = ("requested", "written", "renewed", "failed")
    counts = [[found[f"isthmus_certificates_{name}_total",] for name in names] for found in (first, later, failed)]
    assert counts == [[1, 1, 0, 0], [2, 2, 1, 0], [2, 2, 1, 1]]
    begins, expires = (
        first[f"isthmus_mesh_certificate_{name}_timestamp_seconds", "cluster1", NAME] for name in ("begin", "expiry")
    )
    assert (begins, expires) == (issued.not_before.timestamp(), issued.not_after.timestamp())
    assert later["isthmus_mesh_certificate_state", "cluster1", NAME, "FINISHED"] == 1
    assert failed["isthmus_mesh_certificate_state", "cluster1", NAME, "FAILED"] == 1
