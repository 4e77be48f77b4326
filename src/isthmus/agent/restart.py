"""Restarting the pods of a mesh that has a new `cacerts`: watches in, what `restarts` decides out.

Pods, their controllers, services and budgets are watched only while a restart is under way, or while somebody waits to
hear which pods still hold an older certificate.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import structlog

from isthmus.agent.certificates import GENERATION, HOLDER, ISSUED_AT, TARGET, Progress, Restarts, fingerprint
from isthmus.agent.restarts import Action, Enlist, Evict, Plan, Roll, Scene, plan, started_before
from isthmus.agent.rollouts import (
    ENLISTED,
    RESTARTED_AT,
    RESTARTED_FOR,
    Budget,
    Controller,
    Owner,
    Pod,
    Service,
    read_budget,
    read_controller,
    read_pod,
    read_service,
)
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.parse import ParseFailure, parse
from isthmus.api.pod_bounce_directive import BY_HAND, BouncedPods, PodBounceDirective, PodBounceDirectiveStatus
from isthmus.kube import Changed, Conflict, KubeClient, KubeError, Removed, Replaced, WatchEvent
from isthmus.model.kinds import (
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
    POD,
    POD_DISRUPTION_BUDGET,
    REPLICA_SET,
    SECRET,
    SERVICE,
    STATEFUL_SET,
)
from isthmus.model.ref import Kind
from isthmus.program.content import newer
from isthmus.program.watching import follow

Manifest = dict[str, Any]
Place = tuple[str, str]

ROOT_MAP = "istio-ca-root-cert"  # where istiod puts its root, in every namespace
REST_SECONDS = 0.2  # between two looks; a rollout changes pods and controllers dozens of times a second
RETRY_SECONDS = 5.0
CONTROLLERS = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET)

log = structlog.get_logger("isthmus.restart")


@dataclass(frozen=True)
class Job:
    """One `cacerts` and the pods that are to run with it."""

    certificate: str
    """Name of the IssuedCertificate."""
    fingerprint: str
    written: datetime | None
    directive: Place | None
    """None when pods are only looked at."""


class Restarter(Restarts):
    """Follows the PodBounceDirectives of the agent's namespace.

    *linked* tells whether the management plane is connected (call `look` when that changed), *now* the time.
    """

    def __init__(
        self,
        kube: KubeClient,
        namespace: str,
        *,
        linked: Callable[[], bool] = lambda: True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._linked = linked
        self._namespace = namespace
        self._now = now
        self._certificates: dict[Place, IssuedCertificate] = {}
        self._directives: dict[Place, PodBounceDirective] = {}
        self._secrets: dict[Place, Manifest] = {}
        self._known: set[Kind] = set()
        self._sessions: dict[Job, _Session] = {}
        self._wake = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    def changed(self, wake: Callable[[], None]) -> None:
        """Have *wake* called whenever another answer may be given."""
        self._listeners.append(wake)

    def waiting_for(self) -> tuple[str, ...]:
        """What has not been read since the start; until then answers may be too cautious."""
        kinds = (IssuedCertificate.KIND, PodBounceDirective.KIND, SECRET)
        return tuple(kind.plural for kind in kinds if kind not in self._known)

    def progress(self, namespace: str, name: str, fingerprint: str) -> Progress:
        """How far the PodBounceDirective is for the `cacerts` of *fingerprint*."""
        directive = self._directives.get((namespace, name))
        if directive is None:
            return Progress(done=False, waiting=f"PodBounceDirective {namespace}/{name} is not there")
        if _finished(directive, fingerprint):
            return Progress(done=True)
        for job, session in self._sessions.items():
            if job.directive == (namespace, name) and job.fingerprint == fingerprint and session.trouble:
                return Progress(done=False, waiting=session.trouble)
        return Progress(done=False, waiting="the restart of pods is about to begin")

    def old_pods(self, name: str, fingerprint: str) -> tuple[str, ...] | None:
        """Pods that still run with an older `cacerts` of the IssuedCertificate, as ``<namespace>/<name>``.

        None until it is known, and when nobody looks any more since a PodBounceDirective is finished.
        """
        for job, session in self._sessions.items():
            if (job.certificate, job.fingerprint) == (name, fingerprint) and session.looked:
                return session.old
        return None

    def look(self) -> None:
        """Look at everything again."""
        for session in self._sessions.values():
            session.wake()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for kind, namespace, fields in (
                (IssuedCertificate.KIND, self._namespace, ""),
                (PodBounceDirective.KIND, self._namespace, ""),
                (SECRET, "", f"metadata.name={TARGET}"),
            ):
                tasks.create_task(self._watch(kind, namespace, fields), name=f"watch {kind.plural}")
            running: dict[Job, asyncio.Task[None]] = {}
            while True:
                self._wake.clear()
                wanted = self._jobs()
                for job in [job for job in running if job not in wanted]:
                    running.pop(job).cancel()
                    del self._sessions[job]
                for job in sorted(wanted - set(running), key=lambda job: job.certificate):
                    session = self._sessions[job] = _Session(self._kube, job, self._linked, self._now, self._tell)
                    running[job] = tasks.create_task(session.run(), name=f"restart for {job.certificate}")
                for session in self._sessions.values():
                    session.look(self._directives, self._secrets)
                self._tell()
                await self._wake.wait()

    def _jobs(self) -> set[Job]:
        """What is under way: every `cacerts` that is in place for the present generation of its IssuedCertificate."""
        if self.waiting_for():
            return set()
        jobs = set()
        for certificate in self._certificates.values():
            target = certificate.spec.issued_certificate_secret
            secret = self._secrets.get((target.namespace, target.name)) if target is not None else None
            if secret is None:
                continue
            notes = secret["metadata"].get("annotations") or {}
            metadata = certificate.metadata
            if (notes.get(HOLDER), notes.get(GENERATION)) != (
                f"{metadata.namespace}/{metadata.name}",
                str(metadata.generation),
            ):
                continue
            ref = certificate.spec.pod_bounce_directive
            place = (ref.namespace, ref.name) if ref is not None else self._by_hand(metadata.name)
            mark = fingerprint(_data(secret))
            if place is not None and (place not in self._directives or _finished(self._directives[place], mark)):
                continue
            jobs.add(Job(metadata.name, mark, _moment(notes.get(ISSUED_AT, "")), place))
        return jobs

    def _by_hand(self, certificate: str) -> Place | None:
        """The PodBounceDirective that a person has written; one that is finished counts no more, whatever comes."""
        for place, directive in sorted(self._directives.items()):
            finished = directive.status is not None and directive.status.finished
            if directive.metadata.annotations.get(BY_HAND) == certificate and not finished:
                return place
        return None

    async def _watch(self, kind: Kind, namespace: str, fields: str) -> None:
        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._known.add(kind)
                    self._objects(kind).clear()
                    for item in items:
                        self._see(kind, item)
                case Changed(item):
                    self._see(kind, item)
                case Removed(item):
                    self._objects(kind).pop(_place(item), None)
            self._wake.set()

        await follow(self._kube, kind, take, namespace=namespace, fields=fields)

    def _objects(self, kind: Kind) -> dict[Place, Any]:
        if kind == SECRET:
            return self._secrets
        return self._directives if kind == PodBounceDirective.KIND else self._certificates

    def _see(self, kind: Kind, item: Manifest) -> None:
        if kind == SECRET:
            public = {key: value for key, value in (item.get("data") or {}).items() if not key.endswith("key.pem")}
            self._secrets[_place(item)] = {**item, "data": public}
            return
        read = parse(item)
        if isinstance(read, ParseFailure):
            log.warning("unreadable", error=str(read))
            self._objects(kind).pop(_place(item), None)
        else:
            self._objects(kind)[_place(item)] = read

    def _tell(self) -> None:
        for wake in self._listeners:
            wake()


class _Session:
    """Carries out one job."""

    def __init__(
        self,
        kube: KubeClient,
        job: Job,
        linked: Callable[[], bool],
        now: Callable[[], datetime],
        tell: Callable[[], None],
    ) -> None:
        self._kube = kube
        self._job = job
        self._linked = linked
        self._now = now
        self._tell = tell
        self._directive: PodBounceDirective | None = None
        self._secrets: Mapping[Place, Manifest] = {}
        self._seen: dict[Kind, dict[Place, Any]] = {}
        self._written: dict[tuple[Kind, Place], str] = {}
        """Versions of what was written here, until the watch shows them."""
        self._evicted: set[str] = set()
        self._bounced: list[set[str]] = []
        self._wake = asyncio.Event()
        self.trouble = ""
        """What is waited for, and what is left to a person."""
        self.old: tuple[str, ...] = ()
        self.looked = False
        """Whether *old* is known."""

    def look(self, directives: Mapping[Place, PodBounceDirective], secrets: Mapping[Place, Manifest]) -> None:
        """Take what may have changed since."""
        directive = directives.get(self._job.directive) if self._job.directive is not None else None
        if directive != self._directive or secrets != self._secrets:
            self._directive, self._secrets = directive, dict(secrets)
            self._wake.set()

    def wake(self) -> None:
        """Look again."""
        self._wake.set()

    async def run(self) -> None:
        """Restart pods, or look at them, until none is old."""
        kinds = (POD,) if self._job.directive is None else (POD, SERVICE, POD_DISRUPTION_BUDGET, *CONTROLLERS)
        watches = [self._watch(kind) for kind in kinds]
        if self._job.directive is not None:
            watches.append(self._watch(CONFIG_MAP, f"metadata.name={ROOT_MAP}"))
        step = self._observe if self._job.directive is None else self._advance
        async with asyncio.TaskGroup() as tasks:
            watching = [tasks.create_task(watch) for watch in watches]
            while True:
                self._wake.clear()
                again: float | None = None
                if len(self._seen) == len(watches) and not self._written:
                    again = await step()
                    if again is not None and again < 0:
                        break
                try:
                    async with asyncio.timeout(again):
                        await self._wake.wait()
                except TimeoutError:
                    continue
                await asyncio.sleep(REST_SECONDS)
            for task in watching:
                task.cancel()

    async def _observe(self) -> float | None:
        """Note which pods started too early; negative when none did, for that can't change any more."""
        before = (self.looked, self.old)
        if self._job.written is not None:
            self.old = tuple(sorted(pod.called for pod in started_before(self._pods(), self._job.written)))
        self.looked = True
        if before != (self.looked, self.old):
            self._tell()
        return None if self.old or self._job.written is None else -1.0

    async def _advance(self) -> float | None:
        """Do what is due; seconds after which to look again even if nothing changes, negative when all is done."""
        directive = self._directive
        if directive is None:
            return None
        now = self._now()
        made = plan(directive.spec.pods_to_bounce, self._job.fingerprint, self._scene(), now)
        problems = [problem for action in made.actions if (problem := await self._act(action, now))]
        trouble = "; ".join((*problems, *made.left, *made.waiting))
        old = tuple(sorted(pod.called for pod in made.old))
        try:
            await self._report(directive, made)
        except KubeError as error:
            problems.append(str(error))
        else:
            if made.done:
                self.looked, self.old, self.trouble = True, (), ""
                log.info("pods restarted", certificate=self._job.certificate, fingerprint=self._job.fingerprint)
                return None  # the watch brings the status that ends this job
        if (True, trouble, old) != (self.looked, self.trouble, self.old):
            self.looked, self.trouble, self.old = True, trouble, old
            self._tell()
        if problems:
            return RETRY_SECONDS
        return None if made.look_again is None else max(0.1, (made.look_again - now).total_seconds())

    def _scene(self) -> Scene:
        values = {
            (kind, place[0], place[1], key): value
            for kind, items in (("Secret", self._secret_values()), ("ConfigMap", self._seen[CONFIG_MAP]))
            for place, data in items.items()
            for key, value in data.items()
        }
        controllers: dict[Owner, Controller] = {
            controller.owner: controller for kind in CONTROLLERS for controller in self._seen[kind].values()
        }
        services: tuple[Service, ...] = tuple(self._seen[SERVICE].values())
        budgets: tuple[Budget, ...] = tuple(self._seen[POD_DISRUPTION_BUDGET].values())
        return Scene(self._pods(), controllers, services, budgets, values, self._linked())

    def _secret_values(self) -> dict[Place, dict[str, str]]:
        return {
            place: {key: value.decode("utf-8", "replace") for key, value in _data(secret).items()}
            for place, secret in self._secrets.items()
        }

    def _pods(self) -> tuple[Pod, ...]:
        pods: list[Pod] = list(self._seen[POD].values())
        return tuple(replace(pod, ending=True) if pod.uid in self._evicted else pod for pod in pods)

    async def _act(self, action: Action, now: datetime) -> str:
        """Do it; why it did not work, empty if it did or if the next look will tell."""
        try:
            match action:
                case Roll(controller):
                    mark = {"metadata": {"annotations": {RESTARTED_FOR: self._job.fingerprint}}}
                    await self._patch(controller, {RESTARTED_AT: _time(now), ENLISTED: None}, {"template": mark})
                case Enlist(controller, pods):
                    await self._patch(
                        controller, {RESTARTED_AT: _time(now), ENLISTED: " ".join((self._job.fingerprint, *pods))}
                    )
                case Evict(pod):
                    log.info("evicting", pod=pod.called)
                    await self._evict(pod)
        except Conflict:
            return ""  # it changed; the watch tells how
        except KubeError as error:
            return str(error)
        return ""

    async def _patch(
        self, controller: Controller, notes: Mapping[str, str | None], spec: Manifest | None = None
    ) -> None:
        _, namespace, name = controller.owner
        log.info("restarting", controller=str(controller.owner), fingerprint=self._job.fingerprint)
        patch: Manifest = {"metadata": {"resourceVersion": controller.resource_version, "annotations": dict(notes)}}
        if spec is not None:
            patch["spec"] = spec
        answer = await self._kube.patch(controller.kind, namespace, name, patch)
        version = answer["metadata"]["resourceVersion"]
        seen: Controller | None = self._seen[controller.kind].get((namespace, name))
        # The watch may have been faster: it has told this version, or that the controller is gone since.
        if seen is not None and newer(version, seen.resource_version):
            self._written[controller.kind, (namespace, name)] = version

    async def _evict(self, pod: Pod) -> None:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"namespace": pod.namespace, "name": pod.name},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        await self._kube.create(POD, eviction, subresource="eviction")
        self._evicted.add(pod.uid)

    async def _report(self, directive: PodBounceDirective, made: Plan) -> None:
        before = directive.status or PodBounceDirectiveStatus()
        names = [set(bounced) for bounced in made.bounced]
        if before.observed_certificate == self._job.fingerprint:
            for known, told in zip(names, before.pods_bounced, strict=False):
                known.update(told.bounced_pods)
        status = PodBounceDirectiveStatus(
            pods_bounced=tuple(BouncedPods(bounced_pods=tuple(sorted(known))) for known in names),
            observed_certificate=self._job.fingerprint,
            finished=made.done,
            waiting=(*made.left, *made.waiting),
        )
        if status == before:
            return
        manifest = {
            "metadata": {
                "name": directive.metadata.name,
                "namespace": directive.metadata.namespace,
                "uid": directive.metadata.uid,
            },
            "status": msgspec.to_builtins(status),
        }
        await self._kube.apply_status(PodBounceDirective.KIND, manifest)

    async def _watch(self, kind: Kind, fields: str = "") -> None:
        def see(item: Manifest) -> None:
            place = _place(item)
            known = self._seen.setdefault(kind, {})
            read = _read(kind, item)
            if read is None:
                known.pop(place, None)
            else:
                known[place] = read
            written = self._written.get((kind, place))
            if written is not None and not newer(written, item["metadata"]["resourceVersion"]):
                del self._written[kind, place]

        def take(event: WatchEvent) -> None:
            match event:
                case Replaced(items):
                    self._seen[kind] = {}
                    self._written = {key: version for key, version in self._written.items() if key[0] != kind}
                    for item in items:
                        see(item)
                case Changed(item):
                    see(item)
                case Removed(item):
                    self._seen.setdefault(kind, {}).pop(_place(item), None)
                    self._written.pop((kind, _place(item)), None)
            self._wake.set()

        await follow(self._kube, kind, take, fields=fields)


def _read(kind: Kind, item: Manifest) -> Any:
    if kind == POD:
        return read_pod(item)
    if kind == SERVICE:
        return read_service(item)
    if kind == POD_DISRUPTION_BUDGET:
        return read_budget(item)
    if kind == CONFIG_MAP:
        return item.get("data") or {}
    return read_controller(kind, item)


def _finished(directive: PodBounceDirective, fingerprint: str) -> bool:
    status = directive.status
    return status is not None and status.finished and status.observed_certificate == fingerprint


def _place(item: Manifest) -> Place:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def _data(secret: Manifest) -> dict[str, bytes]:
    return {key: b64decode(value) for key, value in (secret.get("data") or {}).items()}


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None
