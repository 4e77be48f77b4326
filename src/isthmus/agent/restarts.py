"""What to restart next when a mesh has a new `cacerts`, so that nobody notices. No I/O: facts in, actions out.

A restart is written on what owns the pods: its template says which `cacerts` they were restarted for. Who looks again,
after a kill at any point, sees what was begun and begins nothing twice. One promise is above all others: no destination
loses its last ready pod. What can't be restarted without that is left to a person, and said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from isthmus.agent.rollouts import Budget, Controller, Owner, Pod, Service
from isthmus.api.pod_bounce_directive import PodSelector

AT_ONCE = 5  # controllers that roll side by side: each may need room for one more pod
PATIENCE = timedelta(minutes=5)  # how long a restarted controller that gets no ready pods holds up others
# How much later than istiod a pod must have been created to count as new: clocks may be that far apart.
CLOCKS_APART = timedelta(minutes=10)
UNLINKED = "is to restart when the management plane, which tells other clusters of its pods, is connected"
MOST_NAMES = 3  # of pods or controllers in one sentence


@dataclass(frozen=True)
class Scene:
    """What a cluster holds of what matters to a restart."""

    pods: tuple[Pod, ...] = ()
    controllers: Mapping[Owner, Controller] = field(default_factory=dict)
    services: tuple[Service, ...] = ()
    budgets: tuple[Budget, ...] = ()
    values: Mapping[tuple[str, str, str, str], str] = field(default_factory=dict)
    """What Secrets and ConfigMaps hold, by kind, namespace, name and key."""
    linked: bool = True
    """Whether the management plane is connected; while it is not, other clusters go on calling pods that have ended."""


@dataclass(frozen=True)
class Roll:
    """Write the fingerprint on the controller's template; its own strategy does the rest, or `Evict` follows."""

    controller: Controller


@dataclass(frozen=True)
class Enlist:
    """Write on the controller which of its pods are to be evicted, one by one: its own way would take too many."""

    controller: Controller
    pods: tuple[str, ...]


@dataclass(frozen=True)
class Evict:
    """Have the API server evict the pod, which obeys PodDisruptionBudgets."""

    pod: Pod


Action = Roll | Enlist | Evict


@dataclass(frozen=True)
class Plan:
    """What to do now, and how far the restart is."""

    actions: tuple[Action, ...] = ()
    old: tuple[Pod, ...] = ()
    """Pods that are still to be replaced."""
    bounced: tuple[tuple[str, ...], ...] = ()
    """Per selector, the old pods that are being replaced now."""
    waiting: tuple[str, ...] = ()
    """What is waited for, one sentence each."""
    left: tuple[str, ...] = ()
    """What is left to a person, one sentence each."""
    look_again: datetime | None = None
    """When time alone changes the plan."""

    @property
    def done(self) -> bool:
        """Whether no pod is old any more."""
        return not self.old and not self.waiting


def plan(selectors: Sequence[PodSelector], fingerprint: str, scene: Scene, now: datetime) -> Plan:
    """What to do *now* so that the pods of *selectors*, in their order, all run with the `cacerts` of *fingerprint*."""
    return _Planner(selectors, fingerprint, scene, now).plan()


def started_before(pods: Iterable[Pod], written: datetime) -> tuple[Pod, ...]:
    """The pods of a mesh that run since before a certificate was *written*, so with an older one."""
    return tuple(p for p in pods if p.meshed and not p.ending and p.started is not None and p.started < written)


class _Planner:
    def __init__(self, selectors: Sequence[PodSelector], fingerprint: str, scene: Scene, now: datetime) -> None:
        self._fingerprint = fingerprint
        self._scene = scene
        self._now = now
        self._selectors = selectors
        self._chosen = _chosen(selectors, scene.pods)
        self._pods_of: dict[Owner, list[Pod]] = defaultdict(list)
        for pod in scene.pods:
            if pod.owner is not None:
                self._pods_of[pod.owner].append(pod)
        self._serving_since = self._when_served()
        self._actions: list[Action] = []
        self._planned: dict[Owner, int] = {}
        """How many ready pods the actions so far take at once."""
        self._waiting: list[str] = []
        self._left: list[str] = []
        self._look_again: datetime | None = None
        self._busy: set[Owner] = {
            pod.owner
            for pods in self._chosen
            for pod in pods
            if pod.owner is not None and self._in_flight(scene.controllers.get(pod.owner))
        }

    def plan(self) -> Plan:
        old = tuple(pod for pods in self._chosen for pod in pods if self._is_old(pod))
        for selector, pods in zip(self._selectors, self._chosen, strict=True):
            if not self._advance(selector, pods):
                break
        bounced = tuple(tuple(pod.name for pod in pods if self._is_bounced(pod)) for pods in self._chosen)
        waiting, left = tuple(dict.fromkeys(self._waiting)), tuple(sorted(set(self._left)))
        return Plan(tuple(self._actions), old, bounced, waiting, left, self._look_again)

    def _advance(self, selector: PodSelector, pods: Sequence[Pod]) -> bool:
        """Plan for the *pods* of one selector; whether the next selector may follow."""
        if any(self._is_old(pod) or pod.owner in self._busy for pod in pods):
            if problem := self._unsynchronised(selector):
                self._waiting.append(problem)
                return not selector.wait_for_replicas
            for owner in sorted({pod.owner for pod in pods if pod.owner is not None}):
                self._restart(owner, serves=not selector.wait_for_replicas)
            self._left.extend(
                f"{pod.called} has no controller that would replace it"
                for pod in pods
                if self._is_old(pod) and pod.owner is None
            )
        if not selector.wait_for_replicas:
            return True
        ready = sum(1 for pod in pods if pod.ready and not self._is_old(pod))
        # An ending istiod still signs, with what it began with.
        if ready < selector.wait_for_replicas or any(self._is_outdated(pod) for pod in pods):
            self._waiting.append(
                f"{ready} of {selector.wait_for_replicas} restarted pods in {selector.namespace} with "
                f"{_labels(selector.labels)} are ready"
            )
            return False
        return True

    def _restart(self, owner: Owner, *, serves: bool) -> None:
        """Begin or continue with the pods of *owner*; *serves* says whether requests depend on them."""
        controller = self._scene.controllers.get(owner)
        old = [pod for pod in self._pods_of[owner] if self._is_old(pod)]
        if controller is None:
            if old:
                self._left.append(f"{_some(old)}: nothing is known of {owner}")
            return
        if self._is_begun(controller):
            if old and not self._rolls_by_itself(controller):
                self._replace_one(controller, old, serves=serves)
            if owner in self._busy:
                self._waiting.append(f"{owner} is restarting")
            elif old:
                self._left.append(f"{owner} was restarted, and its new pods do not get ready")
            return
        if not old:
            return
        if controller.unmovable:
            self._left.append(f"{owner} {controller.unmovable}")
        elif serves and not self._scene.linked:
            self._waiting.append(f"{owner} {UNLINKED}")
        elif len(self._busy) >= AT_ONCE or self._has_busy_neighbour(owner):
            self._waiting.append(f"{owner} is to restart after others")
        elif controller.rolls and not (refusal := self._refusal(owner, controller.most_taken, serves=serves)):
            self._begin(Roll(controller))
        elif not controller.replaces_evicted or (refusal := self._refusal(owner, 1, serves=serves)):
            self._left.append(f"{owner} {refusal}")
        elif controller.rolls:
            self._begin(Enlist(controller, tuple(sorted(pod.name for pod in old))))
        else:
            self._begin(Roll(controller))

    def _begin(self, action: Roll | Enlist) -> None:
        self._actions.append(action)
        controller = action.controller
        self._planned[controller.owner] = controller.most_taken if isinstance(action, Roll) and controller.rolls else 0
        self._busy.add(action.controller.owner)
        self._waiting.append(f"{action.controller.owner} is restarting")

    def _replace_one(self, controller: Controller, old: Sequence[Pod], *, serves: bool) -> None:
        """Evict one of the *old* pods, once the successor of the one before is ready."""
        owner = controller.owner
        if serves and not self._scene.linked:
            self._waiting.append(f"{owner} {UNLINKED}")
            return
        ready = sum(1 for pod in self._pods_of[owner] if pod.ready and not pod.ending)
        idle = [pod for pod in old if not pod.ready]
        if idle or ready >= controller.replicas:
            if not idle and (refusal := self._refusal(owner, 1, serves=serves)):
                self._left.append(f"{owner} {refusal}")
            else:
                self._actions.append(Evict(min(idle or old, key=lambda pod: pod.name)))
                self._planned[owner] = 0 if idle else 1

    # --- what would harm --------------------------------------------------------------------------------------------

    def _refusal(self, owner: Owner, taken: int, *, serves: bool) -> str:
        """Why *taken* of the owner's pods may not be away at once; empty if they may."""
        own = [pod for pod in self._pods_of[owner] if pod.ready and not pod.ending]
        kept = max(0, self._scene.controllers[owner].replicas - taken)
        lost = max(0, len(own) - kept)
        if not lost:
            return ""
        for budget in self._scene.budgets:
            if not any(budget.selects(pod) for pod in own):
                continue
            allowed = max(0, budget.allowed - self._going(budget, owner))
            if allowed < lost:
                return f"may not be restarted now: PodDisruptionBudget {budget.name} allows {allowed} pods away"
        if not serves:
            return ""
        for service in self._scene.services:
            mine = sum(1 for pod in own if service.selects(pod))
            if mine and mine - lost + self._ready_elsewhere(service, owner) < 1:
                return f"has the last ready pod of service {service.name}"
        return ""

    def _ready_elsewhere(self, service: Service, owner: Owner) -> int:
        """How many ready pods of *service* other controllers are sure to keep."""
        return sum(
            max(0, number - self._at_risk(other)) if other is not None else number
            for other, number in self._ready_pods(service, owner).items()
        )

    def _ready_pods(self, group: Service | Budget, besides: Owner) -> dict[Owner | None, int]:
        """How many ready pods of *group* each of the others has."""
        ready: dict[Owner | None, int] = defaultdict(int)
        for pod in self._scene.pods:
            if pod.ready and not pod.ending and pod.owner != besides and group.selects(pod):
                ready[pod.owner] += 1
        return ready

    def _going(self, budget: Budget, besides: Owner) -> int:
        """How many ready pods of *budget* others may still take by what was begun, and is no longer asked for."""
        return sum(
            min(number, self._more(owner))
            for owner, number in self._ready_pods(budget, besides).items()
            if owner is not None
        )

    def _more(self, owner: Owner) -> int:
        """How many more of its ready pods the controller may take."""
        controller = self._scene.controllers.get(owner)
        if owner in self._planned:
            return self._planned[owner]
        if controller is None or not self._rolls_by_itself(controller):
            return 0  # pods are evicted one by one, as planned
        pods = self._pods_of[owner]
        ready = sum(1 for pod in pods if pod.ready and not pod.ending)
        is_done = not any(self._is_old(pod) for pod in pods)
        return 0 if is_done else max(0, ready - max(0, controller.replicas - controller.most_taken))

    def _at_risk(self, owner: Owner) -> int:
        controller = self._scene.controllers.get(owner)
        if owner in self._planned:
            return self._planned[owner]
        if controller is None or not self._is_begun(controller):
            return 0
        return controller.most_taken if self._rolls_by_itself(controller) else 1

    def _has_busy_neighbour(self, owner: Owner) -> bool:
        """Whether another controller with pods of the same destination, or budget, is restarting."""
        own = self._pods_of[owner]
        everything: tuple[Service | Budget, ...] = (*self._scene.services, *self._scene.budgets)
        groups = [group for group in everything if any(group.selects(pod) for pod in own)]
        return any(
            group.selects(pod)
            for other in self._busy
            if other != owner
            for pod in self._pods_of[other]
            for group in groups
        )

    # --- how far things are -----------------------------------------------------------------------------------------

    def _is_begun(self, controller: Controller) -> bool:
        return self._fingerprint in (controller.restarted_for, controller.enlisted_for)

    def _rolls_by_itself(self, controller: Controller) -> bool:
        return controller.rolls and controller.restarted_for == self._fingerprint

    def _in_flight(self, controller: Controller | None) -> bool:
        """Whether the controller has begun and has not as many ready new pods as it should have; not for ever."""
        if controller is None or not self._is_begun(controller):
            return False
        pods = self._pods_of[controller.owner]
        new = sum(1 for pod in pods if pod.ready and not pod.ending and not self._is_old(pod))
        if new >= controller.replicas and not any(self._is_old(pod) for pod in pods):
            return False
        if controller.restarted_at is None:
            return True
        until = controller.restarted_at + PATIENCE * max(1, controller.replicas)
        if until > self._now:
            self._look_again = min(self._look_again or until, until)
        return until > self._now

    def _is_old(self, pod: Pod) -> bool:
        return not pod.ending and self._is_outdated(pod)

    def _is_outdated(self, pod: Pod) -> bool:
        if pod.restarted_for == self._fingerprint:
            return False
        controller = self._scene.controllers.get(pod.owner) if pod.owner is not None else None
        if controller is not None and self._is_begun(controller):
            if controller.restarted_for == self._fingerprint:
                return True
            return pod.name in controller.enlisted
        margin = CLOCKS_APART if controller is not None else timedelta(0)
        return self._serving_since is None or pod.created is None or pod.created <= self._serving_since + margin

    def _is_bounced(self, pod: Pod) -> bool:
        controller = self._scene.controllers.get(pod.owner) if pod.owner is not None else None
        begins = any(not isinstance(action, Evict) and action.controller == controller for action in self._actions)
        return controller is not None and (begins or self._is_begun(controller)) and self._is_outdated(pod)

    def _when_served(self) -> datetime | None:
        """Since when the restarted control plane signs; None if that is not known, so that every pod counts as old."""
        since = [
            pod.ready_since
            for selector, pods in zip(self._selectors, self._chosen, strict=True)
            if selector.wait_for_replicas
            for pod in pods
            if pod.restarted_for == self._fingerprint and pod.ready
        ]
        known = [moment for moment in since if moment is not None]
        return max(known) if known and len(known) == len(since) else None

    def _unsynchronised(self, selector: PodSelector) -> str:
        """Why the pods of *selector* would not yet get the new root; empty if they would."""
        sync = selector.root_cert_sync
        if sync is None or sync.secret_ref is None or sync.config_map_ref is None:
            return ""
        secret, config = sync.secret_ref, sync.config_map_ref
        wanted = self._scene.values.get(("Secret", secret.namespace, secret.name, sync.secret_key), "").strip()
        given = self._scene.values.get(("ConfigMap", config.namespace, config.name, sync.config_map_key), "").strip()
        if wanted and wanted == given:
            return ""
        return f"ConfigMap {config.namespace}/{config.name} does not have the new root yet"


def _chosen(selectors: Sequence[PodSelector], pods: Iterable[Pod]) -> tuple[tuple[Pod, ...], ...]:
    """The pods of each selector; one that several select is the first one's."""
    chosen: list[list[Pod]] = [[] for _ in selectors]
    places: dict[str, list[int]] = defaultdict(list)
    for place, selector in enumerate(selectors):
        places[selector.namespace].append(place)
    for pod in sorted(pods, key=lambda pod: (pod.namespace, pod.name)):
        for place in places.get(pod.namespace, ()):
            wanted = selectors[place].labels
            if wanted and wanted.items() <= pod.labels.items():
                chosen[place].append(pod)
                break
    return tuple(map(tuple, chosen))


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def _some(pods: Sequence[Pod]) -> str:
    names = sorted(pod.called for pod in pods)
    rest = len(names) - MOST_NAMES
    return ", ".join(_with_rest(names[:MOST_NAMES], rest))


def _with_rest(names: Sequence[str], rest: int) -> Iterator[str]:
    yield from names
    if rest > 0:
        yield f"{rest} more"
