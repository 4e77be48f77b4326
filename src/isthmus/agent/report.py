"""Reporting what the cluster has: watches in, discovered objects out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import structlog

from isthmus.discovery import INPUT_KINDS, Discovery, Finding, manifest_key
from isthmus.kube import Changed, KubeClient, KubeError, Removed, Replaced, WatchEvent
from isthmus.model.kinds import POD
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.records import WriteReport, encode, report_key
from isthmus.program.watching import follow
from isthmus.relay import Publication

log = structlog.get_logger("isthmus.discovery")


@dataclass
class Counts:
    """What discovery has done, for metrics."""

    events: int = 0
    runs: int = 0
    published: int = 0


class Reporter:
    """Publishes what discovery finds, and what could not be written.

    Nothing is published before every kind was read, and it counts as complete only while discovery says so, and
    *others*, who publish beside it; call `look` when their answer has changed. *pods* is told what happens to pods, so
    that they are watched but once, and *roots* the root namespaces of the meshes.
    """

    def __init__(
        self,
        kube: KubeClient,
        discovery: Discovery,
        others: Callable[[], bool] = lambda: True,
        pods: Callable[[WatchEvent], None] = lambda event: None,
        roots: Callable[[frozenset[str]], None] = lambda namespaces: None,
    ) -> None:
        self.publication = Publication()
        self.counts = Counts()
        self._kube = kube
        self._discovery = discovery
        self._others = others
        self._pods = pods
        self._roots = roots
        self._unread: dict[Kind, str] = dict.fromkeys(INPUT_KINDS, "")
        self._wake = asyncio.Event()
        self._findings: tuple[Finding, ...] = ()

    def waiting_for(self) -> tuple[str, ...]:
        """Kinds that have not been read yet, with the reason if there is one."""
        return tuple(f"{kind.kind}: {reason}" if reason else kind.kind for kind, reason in self._unread.items())

    def findings(self) -> tuple[Finding, ...]:
        """What is wrong in the cluster."""
        return self._findings

    def write_report(self, key: ObjectKey, problem: str | None) -> None:
        """Publish that *key* cannot be written and why, or with None that it can."""
        payload = None if problem is None else msgspec.json.encode(WriteReport(problem))
        self.publication.publish({report_key(key): payload}, complete=self.publication.complete)

    def look(self) -> None:
        """See again whether the report is complete."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in INPUT_KINDS:
                tasks.create_task(self._watch(kind), name=f"watch {kind.plural}")
            tasks.create_task(self._discover(), name="discover")

    async def _watch(self, kind: Kind) -> None:
        def take(event: WatchEvent) -> None:
            self.counts.events += 1
            if kind == POD:
                self._pods(event)
            match event:
                case Replaced(items):
                    self._discovery.replace(kind, items)
                    self._unread.pop(kind, None)
                case Changed(item):
                    self._discovery.feed(kind, manifest_key(kind, item), item)
                case Removed(item):
                    self._discovery.feed(kind, manifest_key(kind, item), None)
            self._wake.set()

        def refused(error: KubeError) -> None:
            if kind in self._unread:
                self._unread[kind] = str(error)

        await follow(self._kube, kind, take, refused=refused)

    async def _discover(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._unread:
                continue
            changes = self._discovery.run()
            self.counts.runs += 1
            self._roots(self._discovery.root_namespaces)
            records = {str(key): None if found is None else encode(found) for key, found in changes.items()}
            complete = self._discovery.complete and self._others()
            if records or complete != self.publication.complete:
                self.counts.published += len(records)
                self.publication.publish(records, complete=complete)
                log.debug("reported", changes=len(records), complete=complete)
            self._tell_findings()

    def _tell_findings(self) -> None:
        before, self._findings = set(self._findings), self._discovery.problems()
        for finding in self._findings:
            if finding not in before:
                log.warning("problem found", object=str(finding.object), problem=str(finding.problem))
