"""The agent's tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
import structlog

from isthmus.agent.apply import Applier
from isthmus.agent.certificates import Certificates
from isthmus.agent.certify import Certifier
from isthmus.agent.credentials import SecretNames, SecretStore
from isthmus.agent.metrics import AgentMetrics
from isthmus.agent.outputs import Outputs
from isthmus.agent.ownership import selector
from isthmus.agent.report import Reporter
from isthmus.agent.restart import Restarter
from isthmus.agent.verify import Verifier
from isthmus.discovery import Discovery
from isthmus.kube import KubeClient
from isthmus.program.lifecycle import BadOption
from isthmus.program.probes import Probes, listen
from isthmus.transport import RelayClient, RelayError

log = structlog.get_logger("isthmus.agent")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run; see the command line of `isthmus.agent.main`."""

    cluster: str
    namespace: str
    relay_address: str
    relay_authority: str
    secrets: SecretNames | None
    """None in insecure mode."""
    host: str = ""
    metrics_port: int = 9091
    verify_workloads: bool = True
    """Whether to connect to pods, to see what they present."""


class Link:
    """Whether the server is connected. Tells the log, the same trouble once, and *changed*."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._said = ""
        self._changed = changed
        self.up = False

    def connected(self) -> None:
        """The server has accepted the stream."""
        self._said = ""
        self.up = True
        log.info("connected to the management plane")
        self._changed()

    def disconnected(self, error: RelayError, retry_in: float) -> None:
        """The stream ended, or none came about."""
        text = f"{type(error).__name__}: {error}"
        tell = log.debug if text == self._said else log.warning
        tell("not connected to the management plane", error=text, retry_seconds=round(retry_in, 2))
        self._said = text
        self.up = False
        self._changed()

    def issued(self, not_after: datetime) -> None:
        """A new client certificate has been saved."""
        log.info("client certificate issued", not_after=not_after.isoformat())


async def run_agent(kube: KubeClient, options: Options) -> None:
    """Run the agent of the cluster that *kube* speaks to, until cancelled. Raises `BadOption`."""
    outputs = Outputs(options.cluster, options.namespace)
    verifier = Verifier()
    reporter = Reporter(
        kube,
        Discovery(options.cluster, options.namespace),
        lambda: certifier.known,
        pods=verifier.see,
        roots=lambda namespaces: applier.rooted(namespaces),
    )
    link = Link(lambda: restarter.look())
    restarter = Restarter(kube, options.namespace, linked=lambda: link.up)
    certificates = Certificates(options.cluster, options.namespace, restarter, verifier.presented)
    certifier = Certifier(
        kube,
        certificates,
        outputs,
        reporter.publication,
        labels=selector(options.cluster, options.namespace),
        namespace=options.namespace,
        ready=reporter.look,
        changed=verifier.look,
    )
    restarter.changed(certifier.look)
    applier = Applier(kube, outputs, reporter.write_report, certifier.received)
    try:
        relay = RelayClient(
            cluster=options.cluster,
            address=options.relay_address,
            authority=options.relay_authority,
            publication=reporter.publication,
            subscriber=applier,
            credentials=SecretStore(kube, options.secrets) if options.secrets is not None else None,
            observer=link,
        )
    except ValueError as error:
        raise BadOption(f"--relay-address: {error}") from error

    def missing() -> tuple[str, ...]:
        return (*reporter.waiting_for(), *outputs.waiting_for())

    def inputs() -> Mapping[str, Any]:
        return {key: msgspec.Raw(record.payload) for key, record in sorted(reporter.publication.records.items())}

    def desired() -> Mapping[str, Any]:
        return {key: msgspec.Raw(payload) for key, payload in sorted(outputs.records().items())}

    async def serve_probes() -> None:
        probes = Probes(
            collectors=[AgentMetrics(options.cluster, reporter, outputs, applier, certifier, relay)],
            ready=missing,
            snapshots={"input": inputs, "output": desired},
        )
        await probes.serve(listen(options.host or "0.0.0.0", options.metrics_port))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reporter.run(), name="report")
        tasks.create_task(applier.run(), name="apply")
        tasks.create_task(certifier.run(), name="certify")
        tasks.create_task(restarter.run(), name="restart")
        if options.verify_workloads:
            tasks.create_task(verifier.run(certificates.in_place, certifier.look), name="verify")
        tasks.create_task(relay.run(), name="relay")
        if options.metrics_port:
            tasks.create_task(serve_probes(), name="probes")
