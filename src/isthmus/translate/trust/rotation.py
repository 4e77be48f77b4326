"""How a root replaces another without a lost request: a machine without clock or I/O.

Each step waits until every mesh runs with the certificates of the one before. So at any moment whoever is ahead and
whoever is behind trust each other, and going back a step, as after a crash, is as safe as going on.

| state                        | trusted   | signs | next                                                     |
|------------------------------|-----------|-------|----------------------------------------------------------|
| NOT_ROTATING                 | old       | old   | another root is wanted: ADDING_NEW_ROOT                  |
| ADDING_NEW_ROOT              | old + new | old   | PROPAGATING_NEW_INTERMEDIATE                             |
| PROPAGATING_NEW_INTERMEDIATE | old + new | new   | DELETING_OLD_ROOT; no longer wanted: PREVIOUS_CA         |
| PREVIOUS_CA                  | old + new | old   | NOT_ROTATING with the old root, or ADDING of another one |
| DELETING_OLD_ROOT            | new       | new   | done: the state stays, new is the old of the next one    |

Source: reference, rotation. Without a manual verification VERIFYING and VERIFIED are not entered.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from isthmus.api.common import CertificateRotationState as State
from isthmus.api.common import ObjectRef
from isthmus.api.virtual_mesh import RotationCondition, SharedTrust
from isthmus.model.ref import Ref
from isthmus.translate.trust.facts import RootFacts

MAX_CONDITIONS = 50  # of the log; some eight rotations


class Root(msgspec.Struct, frozen=True, rename="camel"):
    """One root that signs, or has signed, for a virtual mesh. Public: the key stays in its Secret."""

    secret: ObjectRef
    fingerprint: str
    """Of the signing certificate."""
    certificate: str
    """The root certificate in PEM."""
    trust: SharedTrust
    """What the user asked for when it was chosen."""


class Rotation(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What is rolled out, and what is to replace it. All that the machine remembers."""

    deployed: Root
    successor: Root | None = None
    state: State = State.NOT_ROTATING
    conditions: tuple[RotationCondition, ...] = ()

    @property
    def signer(self) -> Root:
        """The root whose Secret signs now."""
        if self.successor is not None and self.state in (State.PROPAGATING_NEW_INTERMEDIATE, State.DELETING_OLD_ROOT):
            return self.successor
        return self.deployed

    @property
    def trusted(self) -> tuple[Root, ...]:
        """The roots that every mesh is to trust now."""
        if self.successor is None:
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
        signer = self.signer
        text = "\n".join((signer.fingerprint, *sorted(root.certificate.strip() for root in self.trusted)))
        return RootFacts(
            secret=Ref("", signer.secret.namespace, signer.secret.name),
            trust=sha256(text.encode()).hexdigest(),
            rotation_state=self.state,
            conditions=self.conditions,
            deployed=self.deployed.trust,
        )


def advance(rotation: Rotation | None, wanted: Root, *, settled: bool, at_once: bool, now: str) -> Rotation:
    """The next step towards *wanted*, or *rotation* itself when there is none to take.

    *settled* tells whether every mesh runs with the certificates of *rotation*; *at_once* whether a root may be
    replaced without care (rotationStrategy NONE); *now* is in RFC 3339.
    """
    if rotation is None:
        return Rotation(wanted)
    successor, state = rotation.successor, rotation.state
    if successor is None:
        if wanted.fingerprint == rotation.deployed.fingerprint:
            # The same root may have moved to another Secret.
            return rotation if wanted == rotation.deployed else msgspec.structs.replace(rotation, deployed=wanted)
        if at_once:
            replaced = Rotation(wanted, None, State.NOT_ROTATING, rotation.conditions)
            return _noted(replaced, State.FINISHED, f"replaced at once by {_called(wanted)}", now)
        return _to(rotation, State.ADDING_NEW_ROOT, wanted, f"{_called(wanted)} is added to the trusted roots", now)
    if wanted.fingerprint == successor.fingerprint:
        return _onward(rotation, wanted, settled=settled, now=now)
    if state is State.PROPAGATING_NEW_INTERMEDIATE:
        message = f"{_called(successor)} is no longer wanted: {_called(rotation.deployed)} signs again"
        back = _noted(rotation, State.ROLLING_BACK, message, now)
        return _to(back, State.PREVIOUS_CA, successor, message, now)
    if state is State.DELETING_OLD_ROOT:
        return _onward(rotation, successor, settled=settled, now=now)
    if state is State.PREVIOUS_CA and not settled:
        return rotation
    # Nobody has a certificate of the successor, so trust in it may go at any time.
    dropped = msgspec.structs.replace(rotation, successor=None, state=State.NOT_ROTATING)
    return _noted(dropped, State.NOT_ROTATING, f"{_called(successor)} is not trusted any more", now)


def _onward(rotation: Rotation, wanted: Root, *, settled: bool, now: str) -> Rotation:
    if not settled:
        return rotation
    match rotation.state:
        case State.ADDING_NEW_ROOT | State.PREVIOUS_CA:
            message = f"every mesh trusts both roots; {_called(wanted)} signs"
            return _to(rotation, State.PROPAGATING_NEW_INTERMEDIATE, wanted, message, now)
        case State.PROPAGATING_NEW_INTERMEDIATE:
            message = f"every mesh has a certificate of {_called(wanted)}; {_called(rotation.deployed)} is taken away"
            return _to(rotation, State.DELETING_OLD_ROOT, wanted, message, now)
        case _:
            done = msgspec.structs.replace(rotation, deployed=wanted, successor=None)
            return _noted(done, State.FINISHED, f"{_called(wanted)} is the only root", now)


def _to(rotation: Rotation, state: State, successor: Root, message: str, now: str) -> Rotation:
    return _noted(msgspec.structs.replace(rotation, state=state, successor=successor), state, message, now)


def _noted(rotation: Rotation, state: State, message: str, now: str) -> Rotation:
    entry = RotationCondition(timestamp=now, state=state, message=message)
    conditions = (*rotation.conditions, entry)[-MAX_CONDITIONS:]
    return msgspec.structs.replace(rotation, conditions=conditions)


def _called(root: Root) -> str:
    return f"the root of Secret {root.secret.namespace}/{root.secret.name} ({root.fingerprint[:12]})"
