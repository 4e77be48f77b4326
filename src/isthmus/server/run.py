"""The server's tasks, and the order in which they start.

First everything is read that the management cluster has, then the engine runs once, and only then agents may connect:
what they hold already is right, and so nothing crosses the wire.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import structlog

from isthmus.api.certificate_verification import CertificateVerification
from isthmus.api.kinds import POLICIES
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.kube import Changed, KubeClient, Removed, Replaced, WatchEvent
from isthmus.model.kinds import CONFIG_MAP, SECRET
from isthmus.model.ref import Kind, ObjectKey, Ref
from isthmus.pki import PemInvalid
from isthmus.program.probes import Probes, listen
from isthmus.program.watching import follow
from isthmus.server.fleet import Change, Fleet
from isthmus.server.hub import FleetHub
from isthmus.server.issuer import Issuer
from isthmus.server.ledger import Ledger
from isthmus.server.metrics import ServerMetrics
from isthmus.server.notes import IDENTITIES, LAST_KNOWN, TRUST, Notes
from isthmus.server.plane import Plane
from isthmus.server.policies import Changes, Policies
from isthmus.server.records import DISCOVERED_KINDS, from_stored
from isthmus.server.roots import Roots
from isthmus.server.secrets import SecretNames, ServerSecrets
from isthmus.server.stored import Stored
from isthmus.server.writer import Writer
from isthmus.translate import INPUTS, Engine, StatusKey
from isthmus.transport import RelayServer

log = structlog.get_logger("isthmus.server")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run; see the command line of `isthmus.server.main`."""

    namespace: str
    host: str = ""
    grpc_port: int = 9900
    metrics_port: int = 9091
    insecure: bool = False
    secrets: SecretNames = SecretNames()


class Server:
    """The management plane on the cluster that *kube* speaks to."""

    def __init__(
        self,
        kube: KubeClient,
        options: Options,
        addresses: dict[str, str],
        noted: dict[str, str],
        noted_trust: dict[str, str],
    ) -> None:
        """*addresses*, *noted* and *noted_trust* are the notes `ADDRESSES`, `LAST_KNOWN` and `TRUST`."""
        self._kube = kube
        self._options = options
        engine_kinds = {t.KIND for t in INPUTS}
        self._user_kinds = tuple(
            kind for kind in (KubernetesCluster.KIND, *(t.KIND for t in POLICIES)) if kind in engine_kinds
        )
        self._fleet = Fleet(options.namespace)
        self._policies = Policies((*self._user_kinds, *DISCOVERED_KINDS))
        self._stored = Stored((*self._user_kinds, *DISCOVERED_KINDS))
        self._notes = Notes(kube, options.namespace)
        self._writer = Writer(kube, self._stored, self._fleet, self._policies, self._notes, noted)
        engine = Engine(options.namespace, addresses)
        self._plane = Plane(
            engine, self._fleet, self._policies, self._notes, self._statuses_changed, self._outputs_changed
        )
        self._roots = Roots(kube, options.namespace, self._notes, self._plane, self._fleet, noted_trust)
        self._issuer = Issuer(self._fleet, self._plane, self._roots)
        self._roots.changed = self._issuer.roots_changed
        self._hub = FleetHub(self._fleet, self._plane, self._writer, self._issuer.requests)
        self._ledger = Ledger(self._fleet, self._notes)
        self._secrets = ServerSecrets(options.secrets)
        self._unread_secrets = dict.fromkeys(self._secrets.names)
        self._metrics = ServerMetrics(self._fleet, self._plane, self._writer, self._issuer, self._roots)
        self._relay: RelayServer | None = None
        self._last_known: dict[ObjectKey, Any] = {}
        self._progress = asyncio.Event()
        self._started = False

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind in (*self._user_kinds, *DISCOVERED_KINDS):
                tasks.create_task(follow(self._kube, kind, self._taker(kind)), name=f"watch {kind.plural}")
            for name in self._secrets.names:
                tasks.create_task(self._watch_secret(name), name=f"watch Secret {name}")
            tasks.create_task(self._watch_identities(), name="watch identities")
            if self._options.metrics_port:
                tasks.create_task(self._serve_probes(), name="probes")
            await self._until(self._everything_read)
            self._load()
            await self._plane.turn()
            tasks.create_task(self._plane.run(), name="plane")
            tasks.create_task(self._writer.run(self._plane), name="writer")
            tasks.create_task(self._roots.run(), name="roots")
            tasks.create_task(self._issuer.run(), name="issuer")
            await self._listen()

    # --- reading ----------------------------------------------------------------------------------------------------

    def _everything_read(self) -> str:
        unread = [kind.kind for kind in (*self._policies.unread(), *self._stored.unread())]
        unread += [f"Secret {name}" for name in self._unread_secrets]
        return ", ".join(dict.fromkeys(unread))

    async def _until(self, waiting_for: Callable[[], str]) -> None:
        """Wait until *waiting_for* names nothing any more."""
        said = ""
        while what := waiting_for():
            if what != said:
                said = what
                log.debug("waiting", for_=what)
            self._progress.clear()
            await self._progress.wait()

    def _taker(self, kind: Kind) -> Callable[[WatchEvent], None]:
        """What happens with each event of *kind*."""

        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    changes = self._policies.replaced(kind, items)
                    if kind in DISCOVERED_KINDS and not self._started:
                        self._keep_last_known(kind, items)
                    keys = self._stored.replaced(kind, items)
                case Changed(item):
                    changes = self._policies.changed(kind, item)
                    if kind in DISCOVERED_KINDS and not self._started:
                        self._keep_last_known(kind, (item,))
                    keys = self._keys(kind, item) if self._stored.changed(kind, item) else ()
                case Removed(item):
                    changes = self._policies.removed(kind, item)
                    keys = self._keys(kind, item) if self._stored.removed(kind, item) else ()
            if kind == KubernetesCluster.KIND:
                changes = self._register(changes)
            if kind == VirtualMesh.KIND:
                for key, found in changes.items():
                    virtual_mesh = found if isinstance(found, VirtualMesh) else None
                    self._roots.take(Ref("", key.namespace, key.name), virtual_mesh)
            if kind == CertificateVerification.KIND:
                for key, found in changes.items():
                    self._roots.hear(key, found if isinstance(found, CertificateVerification) else None)
            self._plane.change(self._not_hidden(changes))
            if self._started:
                self._writer.look_again(keys)
            self._progress.set()

        return take

    def _keys(self, kind: Kind, item: dict[str, Any]) -> tuple[ObjectKey, ...]:
        metadata = item["metadata"]
        return (ObjectKey(kind.api_version, kind.kind, metadata.get("namespace", ""), metadata["name"]),)

    def _not_hidden(self, changes: Changes) -> Changes:
        """*changes* of users' objects, in which a removed one uncovers the discovered object of its name."""
        return {key: found if found is not None else self._fleet.get(key) for key, found in changes.items()}

    def _statuses_changed(self, keys: Iterable[StatusKey]) -> None:
        changed = tuple(keys)
        self._writer.statuses(changed)
        self._roots.look_again(key.ref for key in changed if key.kind == VirtualMesh.KIND)

    def _outputs_changed(self, cluster: str, keys: Iterable[ObjectKey]) -> None:
        self._issuer.outputs(cluster, keys)

    # --- clusters ---------------------------------------------------------------------------------------------------

    def _register(self, changes: Changes) -> Changes:
        ours = {key: found for key, found in changes.items() if key.namespace == self._options.namespace}
        for key, found in ours.items():
            name = key.name
            if found is None:
                self._forget(name, self._fleet.deregister(name), "the cluster was deregistered")
            else:
                change = self._fleet.register(name, found.metadata.uid)
                if change is not None:
                    self._forget(name, change, "the cluster was registered again")
                    log.info("cluster registered", cluster=name)
                    if self._started:
                        self._writer.cluster(name)
        return changes

    def _forget(self, name: str, change: Change, reason: str) -> None:
        if self._relay is not None:
            self._relay.disconnect(name, reason)
        self._hub.pass_on(name, change)
        if self._started:
            self._writer.deregistered(name)

    def _keep_last_known(self, kind: Kind, items: tuple[dict[str, Any], ...]) -> None:
        for item in items:
            found = from_stored(kind, item)
            if found is not None:
                self._last_known[found.key] = found

    def _load(self) -> None:
        """Take what is stored as the last known state of the clusters, and tidy up what is of none."""
        by_cluster: dict[str, list[Any]] = {name: [] for name in self._fleet.clusters}
        for key, seen in self._stored.discovered():
            found = self._last_known.get(key)
            if seen.cluster in by_cluster and found is not None:
                by_cluster[seen.cluster].append(found)
        for name, objects in by_cluster.items():
            cluster = self._fleet.clusters[name]
            complete = self._writer.noted.get(name) == cluster.registration
            change = self._fleet.load(name, objects, complete=complete)
            self._plane.change_discovered(change.objects)
            log.info("last known state", cluster=name, objects=len(objects), complete=complete)
            self._writer.cluster(name)
        self._last_known = {}
        self._started = True
        for name in {seen.cluster for _, seen in self._stored.discovered()} | set(self._writer.noted):
            if name not in self._fleet.clusters:
                self._writer.deregistered(name)

    # --- relay ------------------------------------------------------------------------------------------------------

    async def _watch_secret(self, name: str) -> None:
        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._secrets.take(name, items[0] if items else None)
                case Changed(item):
                    self._secrets.take(name, item)
                case Removed():
                    self._secrets.take(name, None)
            self._unread_secrets.pop(name, None)
            self._ledger.token = self._secrets.token
            self._reload()
            self._progress.set()

        await follow(self._kube, SECRET, take, namespace=self._options.namespace, fields=f"metadata.name={name}")

    async def _watch_identities(self) -> None:
        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._ledger.replace((items[0].get("data") or {}) if items else {})
                case Changed(item):
                    self._ledger.replace(item.get("data") or {})
                case Removed():
                    self._ledger.replace({})

        await follow(
            self._kube, CONFIG_MAP, take, namespace=self._options.namespace, fields=f"metadata.name={IDENTITIES}"
        )

    def _reload(self) -> None:
        if self._relay is None or self._options.insecure:
            return
        try:
            self._relay.reload(self._secrets.credentials())
            log.info("certificates reloaded")
        except PemInvalid as error:
            log.error("certificates not reloaded", error=str(error))

    def _no_credentials(self) -> str:
        try:
            self._secrets.credentials()
        except PemInvalid as error:
            return str(error)
        return ""

    async def _listen(self) -> None:
        options = self._options
        if not options.insecure:
            if trouble := self._no_credentials():
                log.error("cannot listen for agents yet", error=trouble)
            await self._until(self._no_credentials)
        tls = None if options.insecure else self._secrets.credentials()
        ledger = None if options.insecure else self._ledger
        relay = RelayServer(hub=self._hub, ledger=ledger, tls=tls, host=options.host, port=options.grpc_port)
        async with relay:
            self._relay = relay
            self._metrics.traffic = relay.traffic
            log.info("listening for agents", host=options.host, port=relay.port, insecure=options.insecure)
            await asyncio.Event().wait()

    # --- operators --------------------------------------------------------------------------------------------------

    def _missing(self) -> tuple[str, ...]:
        if unread := self._everything_read():
            return (unread,)
        return () if self._relay is not None else (self._no_credentials() or "the first run of the engine",)

    def _inputs(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for kind in self._policies.kinds:
            found[kind.kind] = [resource.manifest() for resource in self._policies.objects(kind)]
        for cluster in self._fleet.clusters.values():
            for key, resource in sorted(cluster.objects.items()):
                found[key.kind].append(resource.manifest())
        return found

    def _outputs(self) -> dict[str, Any]:
        return {
            cluster: {key: msgspec.Raw(record.payload) for key, record in sorted(publication.records.items())}
            for cluster, publication in sorted(self._plane.publications.items())
        }

    async def _serve_probes(self) -> None:
        probes = Probes(
            collectors=[self._metrics],
            ready=self._missing,
            snapshots={"input": self._inputs, "output": self._outputs},
        )
        await probes.serve(listen(self._options.host or "0.0.0.0", self._options.metrics_port))


async def run_server(kube: KubeClient, options: Options) -> None:
    """Run the management plane on the cluster that *kube* speaks to, until cancelled."""
    notes = Notes(kube, options.namespace)
    addresses, noted, trust = await asyncio.gather(notes.addresses(), notes.read(LAST_KNOWN), notes.read(TRUST))
    await Server(kube, options, addresses, noted, trust).run()
