"""Clusters that roll, evict and fail as Kubernetes' controllers do, one small step at a time, for `test_restarts`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count

from isthmus.agent.restarts import Enlist, Evict, Plan, Roll, Scene
from isthmus.agent.rollouts import Budget, Controller, Owner, Pod, Service
from isthmus.api.common import ObjectRef
from isthmus.api.pod_bounce_directive import PodSelector, RootCertSync

START = datetime(2026, 1, 1, tzinfo=UTC)
NEW = "fingerprint"
ISTIOD = Owner("Deployment", "istio-system", "istiod")
ROOT = ("ConfigMap", "default", "istio-ca-root-cert", "root-cert.pem")
Step = Callable[[], None]


@dataclass
class Set:
    """A controller and how it behaves."""

    controller: Controller
    app: str
    surge: int = 0
    broken: bool = False
    """Its new pods never get ready."""
    recreates: bool = False
    template: str = ""

    @property
    def owner(self) -> Owner:
        return self.controller.owner


@dataclass
class Cluster:
    """Pods, controllers and budgets, and what has been done to them."""

    sets: list[Set]
    services: tuple[Service, ...]
    guards: dict[str, int] = field(default_factory=dict)
    """By app: how many ready pods its PodDisruptionBudget asks for."""
    bare: tuple[str, ...] = ()
    """Apps of pods without a controller."""
    pods: dict[str, Pod] = field(default_factory=dict)
    now: datetime = START
    synchronised: bool = False
    begun: list[Owner] = field(default_factory=list)
    evicted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = count()
        for each in self.sets:
            for index in range(each.controller.replicas):
                self._create(each, index, ready=True)
        for app in self.bare:
            pod = Pod("default", f"bare-{next(self._numbers)}", labels={"app": app}, ready=True, created=START)
            self.pods[pod.name] = replace(pod, uid=pod.name)
        self.served = frozenset(pod.labels["app"] for pod in self.pods.values())
        """Apps that had a ready pod in the beginning."""

    # --- what the planner is told, and what it does -----------------------------------------------------------------

    @property
    def selectors(self) -> tuple[PodSelector, ...]:
        """The control plane, then every app."""
        sync = RootCertSync(
            secret_ref=ObjectRef(name="cacerts", namespace="istio-system"),
            secret_key="root-cert.pem",
            config_map_ref=ObjectRef(name="istio-ca-root-cert", namespace="default"),
            config_map_key="root-cert.pem",
        )
        apps = sorted({each.app for each in self.sets if each.owner != ISTIOD} | set(self.bare))
        return (
            PodSelector(namespace="istio-system", labels={"app": "istiod"}, wait_for_replicas=1),
            *(PodSelector(namespace="default", labels={"app": app}, root_cert_sync=sync) for app in apps),
        )

    @property
    def scene(self) -> Scene:
        root = "new root"
        return Scene(
            tuple(self.pods.values()),
            {each.owner: each.controller for each in self.sets},
            self.services,
            tuple(
                Budget("default", f"guard-{app}", {"app": app}, allowed=max(0, self.ready(app) - wanted))
                for app, wanted in self.guards.items()
            ),
            {
                ("Secret", "istio-system", "cacerts", "root-cert.pem"): root,
                ROOT: root if self.synchronised else "old root",
            },
        )

    def act(self, plan: Plan, first: int | None = None) -> None:
        """Do the *first* actions of *plan*, or all of them."""
        for action in plan.actions[:first]:
            match action:
                case Roll(controller):
                    each = self._set(controller.owner)
                    self.begun.append(each.owner)
                    each.template = NEW
                    each.controller = replace(each.controller, restarted_for=NEW, restarted_at=self.now)
                case Enlist(controller, pods):
                    each = self._set(controller.owner)
                    self.begun.append(each.owner)
                    each.controller = replace(
                        each.controller, enlisted_for=NEW, enlisted=frozenset(pods), restarted_at=self.now
                    )
                case Evict(pod):
                    self.evicted.append(pod.uid)
                    guard = self.guards.get(pod.labels["app"])
                    if pod.ready and guard is not None and self.ready(pod.labels["app"]) <= guard:
                        continue  # the API server refuses
                    self._end(pod.uid)

    # --- what the cluster does --------------------------------------------------------------------------------------

    def steps(self) -> list[Step]:
        """Everything that may happen next, in a stable order."""
        found: list[Step] = []
        for each in self.sets:
            found += self._controller_steps(each)
        for uid, pod in sorted(self.pods.items()):
            if pod.ending:
                found.append(partial(self.pods.pop, uid))
            elif not pod.ready and not (self._is_broken(pod)):
                found.append(partial(self._get_ready, uid))
        if not self.synchronised and any(p.restarted_for == NEW and p.ready for p in self._of(ISTIOD)):
            found.append(self._synchronise)
        return found

    def ready(self, app: str) -> int:
        return sum(1 for pod in self.pods.values() if pod.labels["app"] == app and pod.ready and not pod.ending)

    def _controller_steps(self, each: Set) -> Iterator[Step]:
        controller = each.controller
        pods = [pod for pod in self._of(each.owner) if not pod.ending]
        old = [pod for pod in pods if pod.restarted_for != each.template] if controller.rolls else []
        ready = sum(1 for pod in pods if pod.ready)
        stable_names = controller.owner.kind == "StatefulSet"
        if each.recreates and old:
            yield from (partial(self._end, pod.uid) for pod in old)
            return
        if stable_names:
            taken = {pod.name for pod in self._of(each.owner)}
            for index in range(controller.replicas):
                if f"{controller.owner.name}-{index}" not in taken:
                    yield partial(self._create, each, index)
        elif len(pods) < controller.replicas + (each.surge if old else 0):
            yield partial(self._create, each, 0)
        for pod in old:
            if not pod.ready or ready - 1 >= controller.replicas - controller.most_taken:
                yield partial(self._end, pod.uid)

    def _create(self, each: Set, index: int, *, ready: bool = False) -> None:
        number = next(self._numbers)
        owner = each.owner
        name = f"{owner.name}-{index}" if owner.kind == "StatefulSet" else f"{owner.name}-{number:03}"
        self.pods[f"uid-{number:03}"] = Pod(
            owner.namespace,
            name,
            f"uid-{number:03}",
            {"app": each.app},
            owner,
            ready,
            self.now if ready else None,
            created=self.now,
            restarted_for=each.template,
        )

    def _get_ready(self, uid: str) -> None:
        self.pods[uid] = replace(self.pods[uid], ready=True, ready_since=self.now)

    def _end(self, uid: str) -> None:
        self.pods[uid] = replace(self.pods[uid], ending=True)

    def _synchronise(self) -> None:
        self.synchronised = True

    def _is_broken(self, pod: Pod) -> bool:
        return pod.owner is not None and self._set(pod.owner).broken

    def _set(self, owner: Owner) -> Set:
        return next(each for each in self.sets if each.owner == owner)

    def _of(self, owner: Owner) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.owner == owner]
