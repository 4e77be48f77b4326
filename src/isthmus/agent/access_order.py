"""What a write or prune of an AuthorizationPolicy waits for, so that access may stop changing anywhere. No I/O.

Ranks (`order`) put the steps of a change in order while all goes well. A write that fails is tried again later, and the
rest goes on; what must not go on then waits here, by what stands on the cluster and not by what was attempted:

| step                                 | waits until                                                               |
|--------------------------------------|---------------------------------------------------------------------------|
| write what closes everything, new    | every other policy that is wanted stands                                  |
| take rules from a policy             | what others of the same pods are to gain is there                         |
| prune what closes everything         | every policy that is wanted stands                                        |
| prune any other                      | those wanted for the same pods, and what closes everything, stand;        |
|                                      | what closed everything, and is no longer wanted, is gone                  |

Pods without an ALLOW policy are open, and several allow what any of them allows. So a policy that has to wait with what
it loses is written with old and new rules first; open pods that get several policies get them allowing everything
first, and pods that are to lose several keep one that does so until last.

So calls that are allowed before and after a change are allowed all the while, and what is refused before and after is
refused all the while, whatever fails and whenever an agent or server ends.

Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import orjson

from isthmus.agent.order import restricts
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import ObjectKey

Manifest = dict[str, Any]
EVERYTHING = b"{}"  # a rule that matches every request
Pods = tuple[str, frozenset[tuple[str, str]]]
"""A namespace and the labels that select pods there; no labels select all."""


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
        return found is not None and found.pods == wanted.pods and (found.opens or wanted.rules <= found.rules)


NOTHING = Noted(None, None, stands=True)


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


def opened(key: ObjectKey, pods: Pods) -> Manifest:
    """A policy at *key* that allows every call of *pods*."""
    return {
        "apiVersion": key.api_version,
        "kind": key.kind,
        "metadata": {"name": key.name, "namespace": key.namespace},
        "spec": {"selector": {"matchLabels": dict(sorted(pods[1]))}, "rules": [{}]},
    }


class AccessOrder:
    """The AuthorizationPolicies of one cluster that are ours: which are wanted and there, and what waits for what."""

    def __init__(self) -> None:
        self._noted: dict[ObjectKey, Noted] = {}
        self._alike: dict[Pods, set[ObjectKey]] = {}
        self._unsettled: set[ObjectKey] = set()  # wanted, and does not stand yet
        self._closing: set[ObjectKey] = set()  # of these, what closes everything
        self._closed: set[ObjectKey] = set()  # closes everything, and is there
        self._stood: set[ObjectKey] = set()  # wanted, closes everything, and stood once
        self._waiting: dict[ObjectKey, None] = {}

    def note(self, key: ObjectKey, now: Noted) -> None:
        """Take what is so *now* at *key*.

        What cannot be written since somebody else's object has the name is not to be given as wanted.
        """
        before = self._noted.pop(key, NOTHING)
        for guard in (before.wanted, before.found):
            if guard is not None and (members := self._alike.get(guard.pods)) is not None:
                members.discard(key)
                if not members:
                    del self._alike[guard.pods]
        for keys in (self._unsettled, self._closing, self._closed):
            keys.discard(key)
        wanted, found = now.wanted, now.found
        if wanted is None:
            self._stood.discard(key)
            if found is None:
                return
        self._noted[key] = now
        for guard in (wanted, found):
            if guard is not None:
                self._alike.setdefault(guard.pods, set()).add(key)
        if found is not None and found.closes:
            self._closed.add(key)
        if wanted is None:
            return
        if not now.stands:
            self._unsettled.add(key)
            if wanted.closes:
                self._closing.add(key)
        elif wanted.closes:
            self._stood.add(key)

    def obstacle(self, key: ObjectKey) -> ObjectKey | None:
        """An object that *key* has to wait for, by the table above; None if its turn has come.

        A key that waits is kept, and `waiting` tells it again.
        """
        self._waiting.pop(key, None)
        found = next(iter(self._obstacles(key)), None)
        if found is not None:
            self._waiting[key] = None
        return found

    def waiting(self) -> tuple[ObjectKey, ...]:
        """The keys that wait, to be asked again when anything has changed."""
        return tuple(self._waiting)

    def opens(self, key: ObjectKey) -> bool:
        """Whether *key*, whose turn has come, is to allow everything for now.

        It is one of several of the same pods, of which either none is there yet or none is wanted any longer, and
        nothing of ours closes them.
        """
        noted = self._noted.get(key, NOTHING)
        guard = noted.wanted or noted.found
        if guard is None or self._closed or len(self._alike[guard.pods]) < 2:
            return False
        alike = [self._noted[other] for other in self._alike[guard.pods]]
        if noted.wanted is not None:
            return all(other.found is None for other in alike)
        return all(other.wanted is None and not (other.found and other.found.opens) for other in alike)

    def kept(self, key: ObjectKey) -> frozenset[bytes]:
        """The rules that *key*, whose turn has come, is to keep for now beside those that it is to have."""
        noted = self._noted.get(key, NOTHING)
        wanted, found = noted.wanted, noted.found
        if wanted is None or found is None or found.pods != wanted.pods or not self._growing(key):
            return frozenset()
        return found.rules - wanted.rules

    def _obstacles(self, key: ObjectKey) -> Iterable[ObjectKey]:
        noted = self._noted.get(key, NOTHING)
        wanted, found = noted.wanted, noted.found
        if wanted is not None and found is None:
            if wanted.closes and key not in self._stood:  # what somebody deleted comes back at once
                yield from (other for other in self._unsettled if other not in self._closing)
        elif wanted is not None:
            if noted.grown:
                yield from self._growing(key)
        elif found is not None and found.closes:
            yield from self._unsettled
        elif found is not None:
            alike = self._alike[found.pods]
            yield from alike & self._unsettled
            yield from self._closing
            yield from (other for other in self._closed if self._noted[other].wanted is None)
            if found.opens:
                yield from (other for other in alike if self._narrows(other))

    def _growing(self, key: ObjectKey) -> tuple[ObjectKey, ...]:
        """Others of the same pods that are to gain something that is not there yet."""
        wanted = self._noted[key].wanted
        alike = self._alike[wanted.pods] if wanted is not None else ()
        return tuple(other for other in alike if other != key and not self._noted[other].grown)

    def _narrows(self, key: ObjectKey) -> bool:
        noted = self._noted[key]
        return noted.wanted is None and noted.found is not None and not noted.found.opens
