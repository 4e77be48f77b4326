"""How a root replaces another without a lost request: a machine without clock or I/O.

Each step waits until every mesh runs with the certificates of the one before. So at any moment whoever is ahead and
whoever is behind trust each other, and going back a step, as after a crash, is as safe as going on.

| state                        | trusted   | signs | next                                                     |
|------------------------------|-----------|-------|----------------------------------------------------------|
| NOT_ROTATING                 | old       | old   | another root is wanted: ADDING_NEW_ROOT                  |
| PREVIOUS_CA                  | old       | old   | after a rollback, new still wanted: ADDING_NEW_ROOT      |
| ADDING_NEW_ROOT              | old + new | old   | PROPAGATING_NEW_INTERMEDIATE                             |
| PROPAGATING_NEW_INTERMEDIATE | old + new | new   | DELETING_OLD_ROOT                                        |
| DELETING_OLD_ROOT            | new       | new   | done: the state stays, new is the old of the next one    |

A root that is no longer wanted goes the same way back, down to NOT_ROTATING. Once it is the only one trusted, only
naming the old root again turns it back; naming a third waits for its end.

Where a person verifies the steps, every one of these but NOT_ROTATING stops when all meshes run with it, until
somebody's word on that step: CONTINUE goes to the next row, ROLLBACK to the row above. ROLLBACK does not wait for
meshes that have fallen behind meanwhile. PREVIOUS_CA stays until a CONTINUE or another root. A word counts once.

Source: reference, rotation. VERIFYING, VERIFIED and ROLLING_BACK are entries of the log; VERIFIED is followed by the
next state at once.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from isthmus.api.common import CertificateRotationState as State
from isthmus.api.common import ObjectRef
from isthmus.api.virtual_mesh import RotationCondition, SharedTrust
from isthmus.model.ref import Ref
from isthmus.translate.trust.facts import RootFacts

MAX_CONDITIONS = 50  # of the log; some four rotations that are verified by hand

STEPS = (State.PREVIOUS_CA, State.ADDING_NEW_ROOT, State.PROPAGATING_NEW_INTERMEDIATE, State.DELETING_OLD_ROOT)
"""The states in which a root is being replaced, in their order."""


class Root(msgspec.Struct, frozen=True, rename="camel"):
    """One root that signs, or has signed, for a virtual mesh. Public: the key stays in its Secret."""

    secret: ObjectRef
    fingerprint: str
    """Of the signing certificate."""
    certificate: str
    """The root certificate in PEM."""
    trust: SharedTrust
    """What the user asked for when it was chosen."""


class Word(msgspec.Struct, frozen=True):
    """What a person says of a step."""

    identity: str
    """Tells it from every other, also from what the same object said before."""
    name: str
    """For people: the object that says it."""
    step: State
    back: bool = False


class Said(msgspec.Struct, frozen=True):
    """What persons have said of a virtual mesh, and what they should know who say it."""

    words: tuple[Word, ...] = ()
    remark: str = ""
    """For the log: what workloads present."""
    doubts: tuple[str, ...] = ()
    """What of that speaks against going on."""


SILENCE = Said()


class Answer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What became of a word that counts no more."""

    followed: bool
    """Whether the rotation went where it says."""
    doubts: tuple[str, ...] = ()
    """What spoke against it then."""


class Rotation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is rolled out, and what is to replace it. All that the machine remembers."""

    deployed: Root
    successor: Root | None = None
    state: State = State.NOT_ROTATING
    conditions: tuple[RotationCondition, ...] = ()
    verifying: bool = False
    """Whether every mesh has run with *state*, so that a person's word on it is waited for."""
    returning: bool = False
    """Whether *state* was come back to, so that some mesh may be a step ahead."""
    answered: dict[str, Answer] = {}
    """Words that count no more, by identity."""

    @property
    def signer(self) -> Root:
        """The root whose Secret signs now."""
        if self.successor is not None and self.state in (State.PROPAGATING_NEW_INTERMEDIATE, State.DELETING_OLD_ROOT):
            return self.successor
        return self.deployed

    @property
    def trusted(self) -> tuple[Root, ...]:
        """The roots that every mesh is to trust now."""
        if self.successor is None or self.state is State.PREVIOUS_CA:
            return (self.deployed,)
        if self.state is State.DELETING_OLD_ROOT:
            return (self.successor,)
        return self.deployed, self.successor

    @property
    def bundle(self) -> str:
        """The certificates of `trusted`, in PEM."""
        certificates = dict.fromkeys(root.certificate.rstrip("\n") + "\n" for root in self.trusted)
        return "".join(certificates)

    @property
    def facts(self) -> RootFacts:
        """What translation reads."""
        return RootFacts(
            secret=Ref("", self.signer.secret.namespace, self.signer.secret.name),
            trust=self.trust,
            rotation_state=self.state,
            verifying=self.verifying,
            answered={identity: (a.followed, a.doubts) for identity, a in self.answered.items()},
            conditions=self.conditions,
            deployed=self.deployed.trust,
        )

    @property
    def trust(self) -> str:
        """Fingerprint of what signs and of what is trusted. It names an IssuedCertificate's trust."""
        text = "\n".join((self.signer.fingerprint, *sorted(root.certificate.strip() for root in self.trusted)))
        return sha256(text.encode()).hexdigest()

    @property
    def trusts(self) -> frozenset[str]:
        """`trust` in every step: what meshes may run with."""
        return frozenset(msgspec.structs.replace(self, state=state).trust for state in STEPS)


def advance(
    rotation: Rotation | None,
    wanted: Root,
    *,
    settled: bool,
    at_once: bool,
    now: str,
    manual: bool = False,
    said: Said = SILENCE,
) -> Rotation:
    """The next step towards *wanted*, or *rotation* itself when there is none to take.

    *settled* tells whether every mesh runs with the certificates of *rotation*; *at_once* whether a root may be
    replaced without care (rotationStrategy NONE); *now* is in RFC 3339; *manual* whether a person verifies each step.
    """
    if rotation is None:  # what was said before was of another rotation
        return Rotation(wanted, answered={word.identity: Answer(False) for word in said.words})
    if (moved := _moved(rotation, wanted)) != rotation:
        return moved
    successor, state = rotation.successor, rotation.state
    if at_once and wanted not in (rotation.deployed, successor):
        return _ended(rotation, wanted, f"replaced at once by {_called(wanted)}", said, now)
    if successor is None:
        if wanted == rotation.deployed:
            return rotation
        return _to(rotation, State.ADDING_NEW_ROOT, wanted, f"{_called(wanted)} is added to the trusted roots", now)
    if at_once:
        if wanted == successor:
            return _ended(rotation, wanted, f"replaced at once by {_called(wanted)}", said, now)
        return _ended(rotation, wanted, f"{_called(wanted)} is the only root again", said, now)
    if wanted == successor or (state is State.DELETING_OLD_ROOT and wanted != rotation.deployed):
        if not manual:
            return _onward(rotation, said, now) if settled else rotation
        return _verified(rotation, successor, said, now, settled=settled)
    if rotation.returning and not settled:
        return rotation
    if state in (State.PROPAGATING_NEW_INTERMEDIATE, State.DELETING_OLD_ROOT):
        return _back(rotation, successor, f"{_called(successor)} is no longer wanted", now)
    # Nobody has a certificate of the successor, so trust in it may go at any time.
    message = f"{_called(successor)} is not trusted any more; {_called(rotation.deployed)} is the only root again"
    return _ended(rotation, rotation.deployed, message, said, now)


def _moved(rotation: Rotation, wanted: Root) -> Rotation:
    """*rotation*, in which *wanted* is where it is now: the same root may have moved to another Secret."""
    if wanted.fingerprint == rotation.deployed.fingerprint:
        return msgspec.structs.replace(rotation, deployed=wanted)
    if rotation.successor is not None and wanted.fingerprint == rotation.successor.fingerprint:
        return msgspec.structs.replace(rotation, successor=wanted)
    return rotation


def _verified(rotation: Rotation, successor: Root, said: Said, now: str, *, settled: bool) -> Rotation:
    """One step, if somebody has verified that every mesh is well in the present one."""
    step = rotation.state
    remark = f"; {said.remark}" if said.remark else ""
    if not rotation.verifying:
        if not settled:
            return rotation
        stopped = msgspec.structs.replace(rotation, verifying=True, returning=False)
        message = f"every mesh runs with {step.value}{remark}: a CertificateVerification of this step is waited for"
        return _noted(stopped, State.VERIFYING, message, now)
    given = [word for word in said.words if word.step is step and word.identity not in rotation.answered]
    for word in given:
        if word.back and step is not State.PREVIOUS_CA:
            spent = {other.identity: Answer(False) for other in said.words if not other.back}
            spent.update((other.identity, Answer(other.back)) for other in given)
            why = f"CertificateVerification {word.name} rolls {step.value} back{remark}"
            return _back(_answered(rotation, spent, said), successor, why, now)
    for word in given:
        if not word.back and settled:
            spent = {other.identity: Answer(not other.back, said.doubts) for other in given}
            message = f"{step.value} is verified by CertificateVerification {word.name}{remark}"
            after = _noted(_answered(rotation, spent, said), State.VERIFIED, message, now)
            return _onward(after, said, now)
    return rotation


def _onward(rotation: Rotation, said: Said, now: str) -> Rotation:
    """The step after the present one."""
    wanted, old = rotation.successor or rotation.deployed, rotation.deployed
    match rotation.state:
        case State.PREVIOUS_CA:
            message = f"{_called(wanted)} is added to the trusted roots again"
            return _to(rotation, State.ADDING_NEW_ROOT, wanted, message, now)
        case State.ADDING_NEW_ROOT:
            message = f"every mesh trusts both roots; {_called(wanted)} signs"
            return _to(rotation, State.PROPAGATING_NEW_INTERMEDIATE, wanted, message, now)
        case State.PROPAGATING_NEW_INTERMEDIATE:
            message = f"every mesh has a certificate of {_called(wanted)}; {_called(old)} is taken away"
            return _to(rotation, State.DELETING_OLD_ROOT, wanted, message, now)
        case _:
            message = f"{_called(wanted)} is the only root"
            return _ended(rotation, wanted, message, said, now, state=rotation.state)


def _back(rotation: Rotation, successor: Root, why: str, now: str) -> Rotation:
    """The step before the present one."""
    old = _called(rotation.deployed)
    match rotation.state:
        case State.DELETING_OLD_ROOT:
            state, message = State.PROPAGATING_NEW_INTERMEDIATE, f"{old} is trusted again"
        case State.PROPAGATING_NEW_INTERMEDIATE:
            state, message = State.ADDING_NEW_ROOT, f"{old} signs again"
        case _:
            state, message = State.PREVIOUS_CA, f"{_called(successor)} is not trusted any more"
    after = _to(_noted(rotation, State.ROLLING_BACK, why, now), state, successor, message, now)
    return msgspec.structs.replace(after, returning=state is not State.PREVIOUS_CA)


def _ended(
    rotation: Rotation,
    root: Root,
    message: str,
    said: Said,
    now: str,
    *,
    state: State = State.NOT_ROTATING,
) -> Rotation:
    """No rotation any more: *root* is the only one. What was said of this rotation is not for the next."""
    spent = {word.identity: Answer(False) for word in said.words}
    ended = msgspec.structs.replace(
        _answered(rotation, spent, said), deployed=root, successor=None, state=state, verifying=False, returning=False
    )
    return _noted(ended, State.FINISHED, message, now)


def _answered(rotation: Rotation, spent: dict[str, Answer], said: Said) -> Rotation:
    """*rotation* for which the words in *spent* count no more; it forgets those that nobody says any more."""
    answered = {**spent, **rotation.answered}
    present = {word.identity: answered[word.identity] for word in said.words if word.identity in answered}
    return msgspec.structs.replace(rotation, answered=present)


def _to(rotation: Rotation, state: State, successor: Root, message: str, now: str) -> Rotation:
    after = msgspec.structs.replace(rotation, state=state, successor=successor, verifying=False, returning=False)
    return _noted(after, state, message, now)


def _noted(rotation: Rotation, state: State, message: str, now: str) -> Rotation:
    entry = RotationCondition(timestamp=now, state=state, message=message)
    conditions = (*rotation.conditions, entry)[-MAX_CONDITIONS:]
    return msgspec.structs.replace(rotation, conditions=conditions)


def _called(root: Root) -> str:
    return f"the root of Secret {root.secret.namespace}/{root.secret.name} ({root.fingerprint[:12]})"
