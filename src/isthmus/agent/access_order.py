"""What a write or prune of an AuthorizationPolicy waits for, so that access may stop changing anywhere. No I/O.

Ranks (`order`) put the steps of a change in order while all goes well. A write that fails is tried again later, and the
rest goes on; what must not go on then waits here, by what stands on the cluster and not by what was attempted. Each
single step leaves every call either as it is or as it is to be. Pods without an ALLOW policy are open, and several
allow what any of them allows, so for policies that can select some of the same pods (`selecting`):

| step                          | where others have to do with the same pods                                         |
|-------------------------------|------------------------------------------------------------------------------------|
| write a policy for open pods  | that are to get others: after those that allow more; else it allows everything     |
|                               | until the others are there                                                         |
| take rules from a policy      | once the others allow what they are to                                             |
| prune a policy                | once the others that stay are there; of several that go, those that allow less go  |
|                               | first, and one allows everything until it is the last                              |
| give a policy other pods      | as a prune and a write at once; if the prune has to wait, the policy is written    |
|                               | under a second name as it was, and pruned there                                    |

What denies by default is no special case: it allows nothing, so it comes after all others and goes before them. Of
policies that can select some of the same pods, one is written at a time.

A policy cannot allow everything for a while where some of its pods are closed before and after the change, or users
have policies. If that is so for all that open pods get, or for all that pods lose which are to be open, then those pods
refuse some calls until the last of these policies is written, or pruned. Nothing is ever let pass that is refused
before and after.

Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import count
from typing import Any

import msgspec
import orjson

from isthmus.agent.order import restricts
from isthmus.agent.selecting import Pods, Selecting, meet, overlap
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import ObjectKey

Manifest = dict[str, Any]
EVERYTHING = b"{}"  # a rule that matches every request
ROOTS = frozenset({"istio-system"})  # Istio's root namespace, unless a mesh has another
BEFORE = "before"  # ends the second name of a policy whose selector changes; parts of a policy end in numbers


class Guard(msgspec.Struct, frozen=True):
    """What the order of steps asks of an AuthorizationPolicy."""

    pods: Pods
    rules: frozenset[bytes]
    """In JSON, keys sorted."""
    closes: bool
    """Whether it allows nothing, and selects every pod: without another ALLOW policy, each call is refused."""

    @property
    def opens(self) -> bool:
        """Whether it allows everything."""
        return EVERYTHING in self.rules

    def allows(self, other: Guard) -> bool:
        """Whether it has all the rules of *other*; it may allow what they do and yet not have them."""
        return self.opens or other.rules <= self.rules


class Noted(msgspec.Struct, frozen=True):
    """One policy: as it is wanted, as it is there, and whether that is the same."""

    wanted: Guard | None
    found: Guard | None
    stands: bool

    @property
    def grown(self) -> bool:
        """Whether all that is wanted to be allowed is allowed; what is left to do takes away."""
        wanted, found = self.wanted, self.found
        if wanted is None or self.stands:
            return True
        return found is not None and found.pods == wanted.pods and found.allows(wanted)


NOTHING = Noted(None, None, stands=True)


class Step(msgspec.Struct, frozen=True):
    """How to do what is due for one policy."""

    waits_for: ObjectKey | None = None
    """Not yet: this has to be done first."""
    opens: bool = False
    """Have it allow everything for now."""
    keeps: frozenset[bytes] = frozenset()
    """Rules that it is to have for now beside those that it is to have in the end."""
    copy: ObjectKey | None = None
    """Write it there as it is now, and look at it again then."""


NOW = Step()


def is_guard(key: ObjectKey) -> bool:
    """Whether *key* is that of an AuthorizationPolicy."""
    return (key.api_version, key.kind) == (AUTHORIZATION_POLICY.api_version, AUTHORIZATION_POLICY.kind)


def guard_of(key: ObjectKey, manifest: Manifest) -> Guard | None:
    """The guard that *manifest* is, None if it is no AuthorizationPolicy."""
    if not is_guard(key):
        return None
    spec = manifest.get("spec") or {}
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    rules = frozenset(orjson.dumps(rule, option=orjson.OPT_SORT_KEYS) for rule in spec.get("rules") or ())
    return Guard((key.namespace, frozenset(labels.items())), rules, closes=restricts(manifest) and not labels)


def with_rules(manifest: Manifest, more: Iterable[bytes]) -> Manifest:
    """The policy *manifest* that allows what *more* rules do as well."""
    spec = manifest["spec"]
    return {**manifest, "spec": {**spec, "rules": [*(spec.get("rules") or ()), *map(orjson.loads, sorted(more))]}}


def standing_for(key: ObjectKey, guard: Guard, rules: Iterable[bytes]) -> Manifest:
    """A policy at *key* for the pods of *guard*, with *rules*."""
    return {
        "apiVersion": key.api_version,
        "kind": key.kind,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {
            "selector": {"matchLabels": dict(sorted(guard.pods[1]))},
            "rules": [orjson.loads(rule) for rule in sorted(rules)],
        },
    }


class AccessOrder:
    """The AuthorizationPolicies of one cluster: which of ours are wanted and there, and what waits for what."""

    def __init__(self) -> None:
        self._roots = ROOTS
        self._noted: dict[ObjectKey, Noted] = {}
        self._wanted = Selecting()
        self._opening = Selecting()  # of these, what is to allow everything
        self._growing = Selecting()  # of these, what does not allow yet all that it is to
        self._found = Selecting()
        self._open = Selecting()  # of these, what allows everything
        self._narrow = Selecting()  # and what does not
        self._leaving = Selecting()  # of these, what is not wanted for these pods
        self._theirs = Selecting()
        self._stood: set[ObjectKey] = set()  # wanted, closes everything, and stood once
        self._others: dict[ObjectKey, Guard] = {}
        self._obstacles: dict[ObjectKey, ObjectKey] = {}
        self._waiting: dict[ObjectKey, dict[ObjectKey, None]] = {}  # by obstacle
        self._underway: dict[ObjectKey, tuple[Pods, ...]] = {}  # what was told to be done, and is not known to be
        self._failed: set[ObjectKey] = set()

    # --- what is so -------------------------------------------------------------------------------------------------

    def note(self, key: ObjectKey, now: Noted, theirs: Guard | None = None) -> tuple[ObjectKey, ...]:
        """Take what is so *now* at *key*, and what somebody else's policy there is. What has waited for it.

        What cannot be written since somebody else's object has the name is not to be given as wanted.
        """
        self._wait_no_longer(key)
        if now == self._noted.get(key, NOTHING) and theirs == self._others.get(key):
            return ()
        wanted, found = now.wanted, now.found
        for index, guard in (
            (self._wanted, wanted),
            (self._opening, wanted if wanted is not None and wanted.opens else None),
            (self._growing, wanted if not now.grown else None),
            (self._found, found),
            (self._open, found if found is not None and found.opens else None),
            (self._narrow, found if found is not None and not found.opens else None),
            (self._leaving, found if found is not None and not (wanted and wanted.pods == found.pods) else None),
            (self._theirs, theirs),
        ):
            if guard is None:
                index.drop(key)
            else:
                index.put(key, self._pods(guard))
        if theirs is None:
            self._others.pop(key, None)
        else:
            self._others[key] = theirs
        if wanted is None and found is None:
            self._noted.pop(key, None)
            self._failed.discard(key)
        else:
            self._noted[key] = now
        if wanted is None:
            self._stood.discard(key)
        elif wanted.closes and now.stands:
            self._stood.add(key)
        return tuple(self._waiting.get(key, ()))

    def rooted(self, roots: frozenset[str]) -> bool:
        """Take the root namespaces of the cluster's meshes, where a selector counts for all namespaces.

        Whether they are others than before. While none is known it is Istio's own.
        """
        before, self._roots = self._roots, roots or ROOTS
        if before == self._roots:
            return False
        noted, others, self._noted, self._others = self._noted, self._others, {}, {}
        for key in (*noted, *(others.keys() - noted)):
            self.note(key, noted.get(key, NOTHING), others.get(key))
        return True

    def landed(self, key: ObjectKey, *, failed: bool = False) -> tuple[ObjectKey, ...]:
        """Take note that what `step` told to do for *key* is done, or has *failed*. What waits for it, or for that."""
        self._underway.pop(key, None)
        (self._failed.add if failed else self._failed.discard)(key)
        found: dict[ObjectKey, None] = {key: None}
        todo = [key]
        while todo:
            new = [other for other in self._waiting.get(todo.pop(), ()) if other not in found]
            found.update(dict.fromkeys(new))
            todo += new
        return tuple(found)

    # --- what follows -----------------------------------------------------------------------------------------------

    def step(self, key: ObjectKey) -> Step:
        """What is due for *key*, which does not stand, by the table above; tell by `landed` what came of it.

        Nothing is due while it is not known what becomes of another policy of the same pods. A key that waits is kept,
        and told by `note` and `landed` when what it waits for has changed.
        """
        self._wait_no_longer(key)
        self._underway.pop(key, None)
        noted = self._noted.get(key, NOTHING)
        step = self._step(key, noted)
        if step.waits_for is None:
            pods = tuple(self._pods(guard) for guard in (noted.wanted, noted.found) if guard is not None)
            other = next((other for other, theirs in self._underway.items() if _any_overlap(pods, theirs)), None)
            if other is None:
                self._underway[key] = pods
                return step
            step = Step(waits_for=other)
        if step.waits_for is not None:
            self._obstacles[key] = step.waits_for
            self._waiting.setdefault(step.waits_for, {})[key] = None
        return step

    def is_stuck(self, key: ObjectKey) -> bool:
        """Whether *key* waits for what has failed, or for what waits for that."""
        seen = {key}
        while (key := self._obstacles.get(key, key)) not in seen:
            seen.add(key)
        return key in self._failed

    def _wait_no_longer(self, key: ObjectKey) -> None:
        if (before := self._obstacles.pop(key, None)) is not None:
            waiting = self._waiting[before]
            del waiting[key]
            if not waiting:
                del self._waiting[before]

    def _step(self, key: ObjectKey, noted: Noted) -> Step:
        wanted, found = noted.wanted, noted.found
        if found is None:
            # What somebody deleted comes back at once.
            return self._enter(wanted) if wanted is not None and key not in self._stood else NOW
        if wanted is None:
            return self._leave(key, found)
        if wanted.pods == found.pods:
            return self._change(key, wanted, found)
        if self._leave(key, found) != NOW and not self._is_copied(key, found):
            names = (f"{key.name}.{BEFORE}{number or ''}" for number in count())
            keys = (msgspec.structs.replace(key, name=name) for name in names)
            return Step(copy=next(other for other in keys if other not in self._noted))
        return self._enter(wanted)

    def _enter(self, wanted: Guard) -> Step:
        """Of a policy for pods that it does not guard yet."""
        pods = self._pods(wanted)
        for other in self._growing.near(pods):
            coming = self._noted[other].wanted
            if coming is None or wanted.allows(coming):
                continue
            both = meet(pods, self._pods(coming))
            if self._found.any_covers(both):
                continue
            if (step := self._beside(other, pods, both, self._growing, less=wanted, more=coming)) is not None:
                return step
        return NOW

    def _change(self, key: ObjectKey, wanted: Guard, found: Guard) -> Step:
        """Of a policy whose rules are to be others."""
        growing = next((other for other in self._growing.near(self._pods(wanted)) if other != key), None)
        if growing is None or found.rules <= wanted.rules:
            return NOW
        return Step(waits_for=growing) if found.allows(wanted) else Step(keeps=found.rules - wanted.rules)

    def _leave(self, key: ObjectKey, found: Guard) -> Step:
        """Of a policy that is not to guard its pods any longer."""
        pods = self._pods(found)
        if (growing := next((other for other in self._growing.near(pods) if other != key), None)) is not None:
            return Step(waits_for=growing)
        for other in self._leaving.near(pods):
            going = self._noted[other].found
            if other == key or going is None or going.allows(found):
                continue
            both = meet(pods, self._pods(going))
            if self._wanted.any_covers(both) or self._open.any_covers(both, but=key):
                continue
            if (step := self._beside(other, pods, both, self._leaving, less=going, more=found)) is not None:
                return step
        return NOW

    def _beside(
        self, other: ObjectKey, pods: Pods, both: Pods, among: Selecting, *, less: Guard, more: Guard
    ) -> Step | None:
        """What a policy of *pods* has to do while *other* still comes or goes; None if it need not wait.

        *both* are the pods that the two share. There one allows *less*, and what the other allows *more* has to be
        there as long as the first alone would be.
        """
        if not less.rules or more.opens:
            return Step(waits_for=other)
        if self._may_open(pods):
            return Step(opens=True)
        first = other if more.allows(less) else self._opener(among, both)
        return None if first is None else Step(waits_for=first)

    def _opener(self, among: Selecting, pods: Pods) -> ObjectKey | None:
        """One of *among* that is not in the way of *pods* for long: it has yet to allow everything for now."""
        for other in among.near(pods):
            noted = self._noted[other]
            guard = noted.wanted if among is self._growing else noted.found
            if guard is not None and guard.rules and not guard.opens and self._may_open(self._pods(guard)):
                return other
        return None

    def _may_open(self, pods: Pods) -> bool:
        """Whether all calls of *pods* are allowed, or are to be. Where users have policies, that is not ours to say."""
        return not self._theirs.any_near(pods) and all(map(self._opens, self._narrow.shared(pods)))

    def _opens(self, pods: Pods) -> bool:
        """Whether all calls of *pods*, which all have a policy, are allowed, or are to be."""
        return self._allows_all(pods) or all(map(self._allows_all, self._wanted.shared(pods)))

    def _allows_all(self, pods: Pods) -> bool:
        return self._open.any_covers(pods) or self._opening.any_covers(pods)

    def _is_copied(self, key: ObjectKey, found: Guard) -> bool:
        """Whether another policy does all that *found*, at *key*, does."""
        return any(
            other != key and guard.allows(found)
            for other in self._found.covering(self._pods(found))
            if (guard := self._noted[other].found) is not None
        )

    def _pods(self, guard: Guard) -> Pods:
        namespace, labels = guard.pods
        return ("" if namespace in self._roots else namespace, labels)


def _any_overlap(some: Iterable[Pods], others: Iterable[Pods]) -> bool:
    return any(overlap(one, other) for one in some for other in others)
