"""Where the agents' streams end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import structlog

from isthmus.model.ref import ObjectKey
from isthmus.relay import Delta, Publication
from isthmus.server.fleet import Change, Cluster, Fleet
from isthmus.server.plane import Plane
from isthmus.server.writer import Writer
from isthmus.transport import Refused

log = structlog.get_logger("isthmus.relay")


class Reports:
    """What one cluster's agent reports, for as long as the registration lasts that it connected under."""

    def __init__(self, cluster: Cluster, hub: FleetHub) -> None:
        self._cluster = cluster
        self._hub = hub

    def held(self) -> Mapping[str, bytes]:
        """What the agent has reported, or what was stored of that."""
        return self._cluster.records

    async def receive(self, delta: Delta) -> None:
        """Take one generation."""
        self._hub.receive(self._cluster, delta)


class FleetHub:
    """The relay's hub: joins streams to the fleet, and the fleet to engine and writer.

    *requests* is told of certificate requests of a cluster that changed.
    """

    def __init__(
        self,
        fleet: Fleet,
        plane: Plane,
        writer: Writer,
        requests: Callable[[str, Iterable[ObjectKey]], None] = lambda cluster, keys: None,
    ) -> None:
        self._fleet = fleet
        self._plane = plane
        self._writer = writer
        self._requests = requests

    def admit(self, cluster: str) -> None:
        """Raise `Refused` for a cluster that is not registered."""
        if cluster not in self._fleet.clusters:
            raise Refused(f"cluster {cluster} is not registered yet: it has no KubernetesCluster object")

    def publication(self, cluster: str) -> Publication:
        """What the cluster shall have."""
        return self._plane.publications[cluster]

    def subscriber(self, cluster: str) -> Reports:
        """Who takes what the cluster reports."""
        return Reports(self._fleet.clusters[cluster], self)

    def connected(self, cluster: str) -> None:
        """Take note that the agent is there."""
        if (known := self._fleet.clusters.get(cluster)) is not None:
            known.connected = True
            self._writer.cluster(cluster)
        log.info("agent connected", cluster=cluster)

    def disconnected(self, cluster: str, reason: str) -> None:
        """Take note that the agent is gone; what it reported stays known."""
        if (known := self._fleet.clusters.get(cluster)) is not None:
            known.connected = False
            known.lost = reason
            self._writer.cluster(cluster)
        log.warning("agent disconnected", cluster=cluster, reason=reason)

    def receive(self, cluster: Cluster, delta: Delta) -> None:
        """Take one generation of *cluster*'s reports."""
        if self._fleet.clusters.get(cluster.name) is not cluster:
            return  # deregistered; the stream is about to end
        log.debug("report received", cluster=cluster.name, changes=len(delta.changes), complete=delta.complete)
        first = delta.complete and not cluster.reported
        change = self._fleet.receive(cluster.name, delta.changes, complete=delta.complete)
        for record, reason in cluster.bad.items():
            if record in delta.changes:
                log.warning("report refused", cluster=cluster.name, record=record, error=reason)
        self.pass_on(cluster.name, change)
        if first:
            log.info("cluster known", cluster=cluster.name, objects=len(cluster.objects))
            self._writer.reported(cluster)

    def pass_on(self, cluster: str, change: Change) -> None:
        """Give engine and writer what changed in the fleet."""
        self._plane.change_discovered(change.objects)
        self._plane.report(cluster, change.reports)
        self._writer.objects(change.objects)
        self._requests(cluster, change.requests)
