"""What the cluster shall have, what it has, and what follows. No I/O.

| desired | on the cluster             | follows                                            |
|---------|----------------------------|----------------------------------------------------|
| yes     | unknown                    | nothing yet                                        |
| yes     | nothing                    | write                                              |
| yes     | ours, the same             | nothing                                            |
| yes     | ours, other                | write                                              |
| yes     | somebody else's            | report, leave alone                                |
| yes     | somebody's for its host    | report; prune ours if it is younger: `conflicts`   |
| no      | ours                       | prune, if the desired state is known to be complete |
| no      | unknown, or somebody's     | nothing                                            |

"Ours" is what carries the labels of `ownership`; "unknown" lasts until the watch of that kind has delivered everything.

Answers to CertificateRequests come with the desired objects. They are no objects to write, and kept for `certify`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
import orjson

from isthmus.agent.access_order import (
    EVERYTHING,
    NOW,
    AccessOrder,
    Guard,
    Noted,
    Step,
    guard_of,
    is_guard,
    standing_for,
    with_rules,
)
from isthmus.agent.conflicts import Claim, Conflicts, claim_of
from isthmus.agent.order import prune_rank, restricts, write_rank
from isthmus.agent.ownership import is_owned, ownership_labels, with_labels
from isthmus.istio.kinds import AUTHORIZATION_POLICY, DESTINATION_RULE, OUTPUT_KINDS
from isthmus.model.kinds import CERTIFICATE_REQUEST
from isthmus.model.ref import Kind, ObjectKey
from isthmus.program.content import content_digest, newer

Manifest = dict[str, Any]
Batch = list[tuple[ObjectKey, int]]
"""Keys to look at again, with their ranks."""

KINDS = {(kind.api_version, kind.kind): kind for kind in OUTPUT_KINDS}
ANSWER = (CERTIFICATE_REQUEST.api_version, CERTIFICATE_REQUEST.kind)
NOBODYS_RANK = 0


class Write(msgspec.Struct, frozen=True):
    """Apply *manifest*, whose content has *digest*."""

    kind: Kind
    manifest: Manifest
    digest: bytes


class Prune(msgspec.Struct, frozen=True):
    """Delete the object if it still is the one that we know."""

    kind: Kind
    uid: str
    resource_version: str


class Blocked(msgspec.Struct, frozen=True):
    """Nothing can be done, and why."""

    reason: str


class Desired(msgspec.Struct, frozen=True):
    """One record from the server. *digest* is that of the content as it will be written."""

    record: str
    payload: bytes
    kind: Kind | None
    digest: bytes
    rank: int
    guard: Guard | None = None
    claim: Claim | None = None


class Seen(msgspec.Struct, frozen=True):
    """One object of ours on the cluster."""

    uid: str
    resource_version: str
    digest: bytes
    restricts: bool
    guard: Guard | None
    created: str


class View:
    """What the cluster has of one kind, as the watch and the answers to our writes tell."""

    def __init__(self) -> None:
        self.known = False
        self.refusal = ""
        self.ours: dict[ObjectKey, Seen] = {}
        self.others: dict[ObjectKey, Claim | None] = {}
        self.guards: dict[ObjectKey, Guard] = {}
        """What others allow."""


class Outputs:
    """The desired and the actual state of one cluster."""

    def __init__(self, cluster: str, namespace: str) -> None:
        self._labels = ownership_labels(cluster, namespace)
        self._desired: dict[ObjectKey, Desired] = {}
        self._answers: dict[str, bytes] = {}
        self._unreadable: dict[str, bytes] = {}
        self._complete = False
        self._views = {kind: View() for kind in OUTPUT_KINDS}
        self._accepted: dict[ObjectKey, tuple[bytes, bytes]] = {}
        self._access = AccessOrder()
        self._conflicts = Conflicts(self._created)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds whose actual state is to be told to `replaced`, `changed` and `removed`."""
        return tuple(self._views)

    @property
    def complete(self) -> bool:
        """Whether what is desired is all that is desired."""
        return self._complete

    def records(self) -> dict[str, bytes]:
        """Every record that the server sent, by its key."""
        return (
            self._unreadable | self._answers | {desired.record: desired.payload for desired in self._desired.values()}
        )

    def answers(self) -> tuple[bytes, ...]:
        """The answers to this cluster's CertificateRequests, in the order of their records."""
        return tuple(payload for _, payload in sorted(self._answers.items()))

    def desired(self, kind: Kind) -> frozenset[ObjectKey]:
        """The objects of *kind* that are desired."""
        return frozenset(key for key, desired in self._desired.items() if desired.kind == kind)

    def __len__(self) -> int:
        """How many objects are desired."""
        return len(self._desired)

    def waiting_for(self) -> tuple[str, ...]:
        """Kinds whose actual state is not known yet, with the reason if there is one."""
        return tuple(
            f"{kind.kind}: {view.refusal}" if view.refusal else kind.kind
            for kind, view in self._views.items()
            if not view.known
        )

    # --- what happens -----------------------------------------------------------------------------------------------

    def receive(self, changes: Mapping[str, bytes | None], *, complete: bool) -> Batch:
        """Take one generation of desired objects. What to look at again."""
        touched: dict[ObjectKey, None] = {}
        for record, payload in changes.items():
            self._unreadable.pop(record, None)
            try:
                key = ObjectKey.parse(record)
            except ValueError:
                if payload is not None:
                    self._unreadable[record] = payload
                continue
            if (key.api_version, key.kind) == ANSWER:
                self._answers.pop(record, None)
                if payload is not None:
                    self._answers[record] = payload
                continue
            touched[key] = None
            if payload is None:
                self._desired.pop(key, None)
            else:
                self._desired[key] = self._read(record, key, payload)
        turned_complete = complete and not self._complete
        self._complete = complete
        if turned_complete:
            touched.update(dict.fromkeys(key for view in self._views.values() for key in view.ours))
        return self._look_again(touched)

    def replaced(self, kind: Kind, items: Iterable[Manifest]) -> Batch:
        """Take the complete actual state of *kind*. What to look at again."""
        view = self._views[kind]
        view.known, view.refusal = True, ""
        gone = (*(view.ours if kind == AUTHORIZATION_POLICY else ()), *view.others)
        view.ours, view.others, view.guards = {}, {}, {}
        for item in items:
            self._see(kind, key_of(kind, item), item)
        for key in gone:
            if key not in view.ours:
                self._access.landed(key)
        desired = (key for key, wanted in self._desired.items() if wanted.kind == kind)
        waiting = self._conflicts.needing_rules() if kind == DESTINATION_RULE else ()
        return self._look_again(dict.fromkeys((*desired, *gone, *view.ours, *view.others, *waiting)))

    def changed(self, kind: Kind, item: Manifest) -> Batch:
        """Take a new state of one object, as the watch or the answer to a write tells it. What to look at again."""
        key = key_of(kind, item)
        before = self._views[kind].ours.get(key)
        if before is not None and not newer(item["metadata"]["resourceVersion"], before.resource_version):
            return []
        self._see(kind, key, item)
        return self._look_again((key,))

    def removed(self, kind: Kind, item: Manifest) -> Batch:
        """Take note that an object is gone. What to look at again."""
        key, view = key_of(kind, item), self._views[kind]
        before = view.ours.get(key)
        if before is not None and newer(before.resource_version, item["metadata"]["resourceVersion"]):
            return []  # it has been made again since, and we know that already from the answer to our write
        view.ours.pop(key, None)
        view.others.pop(key, None)
        view.guards.pop(key, None)
        return self._look_again((key, *self._access.landed(key)))

    def refused(self, kind: Kind, reason: str) -> Batch:
        """Take note that the cluster does not let us see *kind*. What to look at again."""
        view = self._views[kind]
        if view.known or view.refusal == reason:
            return []
        view.refusal = reason
        return [(key, desired.rank) for key, desired in self._desired.items() if desired.kind == kind]

    def wrote(self, key: ObjectKey, write: Write, answer: Manifest) -> Batch:
        """Take the answer to a write. What to look at again.

        What others added to the object stays there; it counts as written from now on, until it changes again.
        """
        written = key_of(write.kind, answer)
        again = self.changed(write.kind, answer)
        self._accepted[written] = (write.digest, content_digest(answer))
        return [*again, *self._look_again((*self._access.landed(key), written))] if is_guard(key) else []

    def failed(self, key: ObjectKey) -> Batch:
        """Take note that *key* could not be written or pruned. What to look at again, beside itself."""
        return list(self._ranked(self._access.landed(key, failed=True)[1:])) if is_guard(key) else []

    def rooted(self, namespaces: frozenset[str]) -> Batch:
        """Take the root namespaces of the cluster's meshes. What to look at again."""
        if not self._access.rooted(namespaces):
            return []
        return self._look_again(
            key for key in (*self._desired, *self._views[AUTHORIZATION_POLICY].ours) if is_guard(key)
        )

    # --- what follows -----------------------------------------------------------------------------------------------

    def decide(self, key: ObjectKey) -> Write | Prune | Blocked | None:
        """What to do about *key*, by the table above."""
        desired = self._desired.get(key)
        if desired is None:
            return self._decide_unwanted(key)
        if desired.kind is None:
            return Blocked("the record of the management plane is not an object that agents write")
        view = self._views[desired.kind]
        if not view.known:
            return Blocked(view.refusal) if view.refusal else None
        if key in view.others:
            return Blocked("an object of this name exists that the management plane did not make; it is left alone")
        if self._conflicts.needs_rules(key) and not self._views[DESTINATION_RULE].known:
            return None
        if (conflict := self._conflicts.about(desired.kind, key)) is not None:
            seen = view.ours.get(key) if conflict.younger else None
            return Prune(desired.kind, seen.uid, seen.resource_version) if seen else Blocked(conflict.reason)
        if self._stands(key, desired):
            return None
        if desired.guard is not None and (step := self._access.step(key)) != NOW:
            return self._detour(key, desired.guard, step, desired.payload)
        return Write(desired.kind, with_labels(orjson.loads(desired.payload), self._labels), desired.digest)

    def _decide_unwanted(self, key: ObjectKey) -> Write | Prune | Blocked | None:
        self._accepted.pop(key, None)
        kind = KINDS.get((key.api_version, key.kind))
        seen = self._views[kind].ours.get(key) if kind is not None else None
        if kind is None or seen is None or not self._complete:
            return None
        if seen.guard is not None and (step := self._access.step(key)) != NOW:
            return self._detour(key, seen.guard, step)
        return Prune(kind, seen.uid, seen.resource_version)

    def _read(self, record: str, key: ObjectKey, payload: bytes) -> Desired:
        kind = KINDS.get((key.api_version, key.kind))
        if kind is not None and key.namespace and key.name:
            try:
                manifest = orjson.loads(payload)
                if key_of(kind, manifest) == key:
                    rank = write_rank(kind, restricts=restricts(manifest))
                    digest = content_digest(with_labels(manifest, self._labels))
                    return Desired(
                        record, payload, kind, digest, rank, guard_of(key, manifest), claim_of(kind, manifest)
                    )
            except (ValueError, TypeError, KeyError, AttributeError):
                pass
        return Desired(record, payload, None, b"", NOBODYS_RANK)

    def _see(self, kind: Kind, key: ObjectKey, item: Manifest) -> None:
        view = self._views[kind]
        view.others.pop(key, None)
        view.guards.pop(key, None)
        if not is_owned(item, self._labels):
            view.ours.pop(key, None)
            view.others[key] = claim_of(kind, item)
            guard = guard_of(key, item)
            if guard is not None and (item.get("spec") or {}).get("action", "ALLOW") == "ALLOW":
                view.guards[key] = guard
            return
        metadata = item["metadata"]
        view.ours[key] = Seen(
            metadata.get("uid", ""),
            metadata["resourceVersion"],
            content_digest(item),
            restricts(item),
            guard_of(key, item),
            metadata.get("creationTimestamp") or "",
        )

    def _stands(self, key: ObjectKey, desired: Desired) -> bool:
        seen = self._views[desired.kind].ours.get(key) if desired.kind is not None else None
        return seen is not None and (
            seen.digest == desired.digest or self._accepted.get(key) == (desired.digest, seen.digest)
        )

    def _look_again(self, keys: Iterable[ObjectKey]) -> Batch:
        """Batch of *keys*, about which something changed, and of what may have waited for them."""
        found = dict.fromkeys(keys)
        for key in tuple(found):
            found.update(dict.fromkeys(self._note_claims(key)))
        for key in tuple(found):
            if is_guard(key):
                found.update(dict.fromkeys(self._note_guard(key)))
        return list(self._ranked(found))

    def _created(self, kind: Kind, key: ObjectKey) -> str:
        seen = self._views[kind].ours.get(key)
        return seen.created if seen is not None else ""

    def _note_claims(self, key: ObjectKey) -> Iterable[ObjectKey]:
        kind, desired = KINDS.get((key.api_version, key.kind)), self._desired.get(key)
        if kind is None:
            return ()
        return self._conflicts.note(kind, key, desired.claim if desired else None, self._views[kind].others.get(key))

    def _note_guard(self, key: ObjectKey) -> Iterable[ObjectKey]:
        view = self._views[AUTHORIZATION_POLICY]
        desired, seen = self._desired.get(key), view.ours.get(key)
        wanted = desired if key not in view.others else None
        stands = wanted is not None and self._stands(key, wanted)
        now = Noted(wanted.guard if wanted else None, seen.guard if seen else None, stands=stands)
        return self._access.note(key, now, view.guards.get(key))

    def _detour(self, key: ObjectKey, guard: Guard, step: Step, payload: bytes = b"") -> Write | Blocked | None:
        """What *step* asks for instead of writing *payload*, which is *guard*, or pruning it."""
        if step.waits_for is not None:
            waits = (key in self._desired and guard.closes) or self._access.is_stuck(key)
            return Blocked(f"{step.waits_for} {self._first(step.waits_for)}") if waits else None
        if step.keeps:
            manifest = with_rules(orjson.loads(payload), step.keeps)
        elif step.copy is not None:
            found = self._views[AUTHORIZATION_POLICY].ours[key].guard or guard
            manifest = standing_for(step.copy, found, found.rules)
        else:
            manifest = standing_for(key, guard, (EVERYTHING,))
        manifest = with_labels(manifest, self._labels)
        return Write(AUTHORIZATION_POLICY, manifest, content_digest(manifest))

    def _first(self, obstacle: ObjectKey) -> str:
        """What has to happen to *obstacle* before what waits for it."""
        what = "there" if obstacle in self._desired else "gone"
        return f"is to be {what} first: both guard some of the same pods"

    def _ranked(self, keys: Iterable[ObjectKey]) -> Iterator[tuple[ObjectKey, int]]:
        for key in keys:
            if (desired := self._desired.get(key)) is not None:
                yield key, desired.rank
            elif (kind := KINDS.get((key.api_version, key.kind))) is not None:
                seen = self._views[kind].ours.get(key)
                yield key, prune_rank(kind, restricts=seen is not None and seen.restricts)


def key_of(kind: Kind, manifest: Manifest) -> ObjectKey:
    """The identity of *manifest*, of which *kind* is known."""
    metadata = manifest["metadata"]
    return ObjectKey(kind.api_version, kind.kind, metadata.get("namespace", ""), metadata["name"])
