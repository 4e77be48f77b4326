"""What is known of every registered cluster, and of which too little. No I/O.

A cluster is known once its agent has reported completely, or from the last known state that the management cluster
keeps. As long as one is not, nothing may be pruned anywhere: what other clusters hold may be for its sake.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

import msgspec

from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.discovery import Mesh
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateStatus
from isthmus.api.kubernetes_cluster import ClusterCondition, ClusterState, KubernetesClusterStatus
from isthmus.model.ref import ObjectKey
from isthmus.program.records import REPORT, BadRecord, encode, read_report
from isthmus.server.records import (
    Discovered,
    is_certificate,
    read_certificate,
    read_discovered,
    read_key,
    with_certificate,
)

STATUS_OWNER = "enterprise-networking"


class Change(msgspec.Struct):
    """What one report changes in the fleet.

    Discovered *objects*, *reports* of objects that can't be written, and *requests* that are to be signed.
    """

    objects: dict[ObjectKey, Discovered | None] = {}
    reports: dict[ObjectKey, str | None] = {}
    requests: dict[ObjectKey, CertificateRequest | None] = {}


class Cluster:
    """One registered cluster. *registration* is the uid of its KubernetesCluster."""

    def __init__(self, name: str, registration: str) -> None:
        self.name = name
        self.registration = registration
        self.records: dict[str, bytes] = {}
        self.objects: dict[ObjectKey, Discovered] = {}
        self.reports: dict[ObjectKey, str] = {}
        self.requests: dict[ObjectKey, CertificateRequest] = {}
        self.certificates: dict[str, IssuedCertificateStatus] = {}
        """How far the certificate of each mesh is, by name of the Mesh."""
        self.remembered: set[str] = set()
        """Those of `certificates` that are last known states, and not reported since the server started."""
        self.bad: dict[str, str] = {}
        self.reported = False
        self.last_known = False
        self.connected = False
        self.lost = ""
        """Why the agent's last stream ended; empty while there has been none."""

    @property
    def known(self) -> bool:
        """Whether everything on the cluster is known, now or as it last was."""
        return self.reported or self.last_known

    def has_mesh(self) -> bool:
        """Whether a control plane has been found on it."""
        return any(isinstance(found, Mesh) for found in self.objects.values())


def cluster_status(cluster: Cluster, generation: int) -> KubernetesClusterStatus:
    """Whether the agent of *cluster* is there, for the status of its KubernetesCluster.

    Source: reference, KubernetesCluster: one entry per writer, ACCEPTED when all is well.
    """
    if cluster.connected:
        state, message = ClusterState.ACCEPTED, "agent connected"
    elif cluster.lost:
        state, message = ClusterState.FAILED, f"agent not connected: {cluster.lost}"
    else:
        state, message = ClusterState.PENDING, "no agent has connected since the server started"
    mine = ClusterCondition(state=state, message=message, observed_generation=generation, owner=STATUS_OWNER)
    return KubernetesClusterStatus(status=(mine,))


class Fleet:
    """All registered clusters. *namespace* is that of the installation."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self._clusters: dict[str, Cluster] = {}
        self._claims: dict[ObjectKey, tuple[str, ...]] = {}  # clusters that report an object of this key, sorted

    @property
    def clusters(self) -> Mapping[str, Cluster]:
        """The registered clusters by name."""
        return MappingProxyType(self._clusters)

    def unknown(self) -> tuple[str, ...]:
        """Registered clusters of which nothing complete is known, sorted."""
        return tuple(sorted(name for name, cluster in self._clusters.items() if not cluster.known))

    def get(self, key: ObjectKey) -> Discovered | None:
        """The discovered object at *key*."""
        claims = self._claims.get(key)
        return self._clusters[claims[0]].objects[key] if claims else None

    def register(self, name: str, registration: str) -> Change | None:
        """Take note of a KubernetesCluster; what is forgotten if another cluster had the name until now.

        None when nothing is new.
        """
        before = self._clusters.get(name)
        if before is not None and before.registration == registration:
            return None
        change = self.deregister(name)
        self._clusters[name] = Cluster(name, registration)
        return change

    def deregister(self, name: str) -> Change:
        """Forget a cluster; what is forgotten with it."""
        change = Change()
        cluster = self._clusters.get(name)
        if cluster is not None:
            for key in tuple(cluster.objects):
                self._remove(cluster, key, change)
            change.reports = dict.fromkeys(cluster.reports)
            change.requests = dict.fromkeys(cluster.requests)
            del self._clusters[name]
        return change

    def load(self, name: str, objects: Iterable[Discovered], *, complete: bool) -> Change:
        """Take the last known state of a cluster that has not reported yet; *complete* if nothing of it was lost."""
        change = Change()
        cluster = self._clusters[name]
        if cluster.reported:
            return change
        for found in objects:
            reported: Discovered = found
            if isinstance(found, Mesh) and found.spec.issued_certificate_status is not None:
                cluster.certificates[found.metadata.name] = found.spec.issued_certificate_status
                cluster.remembered.add(found.metadata.name)
                reported = with_certificate(found, None)
            cluster.records[str(found.key)] = encode(reported)
            self._put(cluster, found.key, found, change)
        cluster.last_known = complete
        return change

    def receive(self, name: str, changes: Mapping[str, bytes | None], *, complete: bool) -> Change:
        """Take what a cluster's agent reports.

        A record that can't be taken is noted in `Cluster.bad`; what was known before at its key stays in force.
        """
        change = Change()
        cluster = self._clusters[name]
        for record, payload in changes.items():
            cluster.bad.pop(record, None)
            if payload is None:
                cluster.records.pop(record, None)
            else:
                cluster.records[record] = payload
            try:
                self._take(cluster, record, payload, change)
            except BadRecord as error:
                if payload is not None:
                    cluster.bad[record] = str(error)
        if complete:
            cluster.reported = True
            for mesh in tuple(cluster.remembered):
                self._certify(cluster, mesh, None, change)
        return change

    def _take(self, cluster: Cluster, record: str, payload: bytes | None, change: Change) -> None:
        if record.startswith(REPORT):
            about, message = read_report(record, payload)
            change.reports[about] = message
            if message is None:
                cluster.reports.pop(about, None)
            else:
                cluster.reports[about] = message
            return
        key = read_key(record)
        if is_certificate(key):
            self._take_certificate(cluster, key, payload, change)
        elif payload is None:
            self._remove(cluster, key, change)
        else:
            found = read_discovered(key, payload, cluster.name, self.namespace)
            if isinstance(found, Mesh):
                found = with_certificate(found, cluster.certificates.get(found.metadata.name))
            self._put(cluster, key, found, change)

    def _take_certificate(self, cluster: Cluster, key: ObjectKey, payload: bytes | None, change: Change) -> None:
        found = read_certificate(key, payload) if payload is not None else None
        if key.kind == IssuedCertificate.KIND.kind:
            status = found.status or IssuedCertificateStatus() if isinstance(found, IssuedCertificate) else None
            self._certify(cluster, key.name, status, change)
        elif isinstance(found, CertificateRequest):
            cluster.requests[key] = change.requests[key] = found
        else:
            cluster.requests.pop(key, None)
            change.requests[key] = None

    def _certify(self, cluster: Cluster, mesh: str, status: IssuedCertificateStatus | None, change: Change) -> None:
        cluster.remembered.discard(mesh)
        if status is None:
            cluster.certificates.pop(mesh, None)
        else:
            cluster.certificates[mesh] = status
        key = ObjectKey(Mesh.KIND.api_version, Mesh.KIND.kind, self.namespace, mesh)
        found = cluster.objects.get(key)
        if isinstance(found, Mesh):
            self._put(cluster, key, with_certificate(found, status), change)

    # Two clusters can come to report one name: `a` in namespace `b` of cluster `c-d`, and in `b-c` of `d`. The first
    # cluster by name has it, whoever came first, so that every order of events ends in the same state.

    def _put(self, cluster: Cluster, key: ObjectKey, found: Discovered, change: Change) -> None:
        cluster.objects[key] = found
        claims = self._claims.get(key, ())
        if cluster.name not in claims:
            claims = self._claims[key] = tuple(sorted((*claims, cluster.name)))
        if claims[0] == cluster.name:
            change.objects[key] = found

    def _remove(self, cluster: Cluster, key: ObjectKey, change: Change) -> None:
        if cluster.objects.pop(key, None) is None:
            return
        claims = tuple(name for name in self._claims[key] if name != cluster.name)
        if claims:
            self._claims[key] = claims
        else:
            del self._claims[key]
        change.objects[key] = self.get(key)
