"""One root replaces another: whatever happens and however far each mesh is, all trust each other."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.common import CertificateRotationState as State
from isthmus.api.common import ObjectRef
from isthmus.api.virtual_mesh import SharedTrust
from isthmus.translate.trust.rotation import MAX_CONDITIONS, STEPS, Answer, Root, Rotation, Said, Word, advance

MESHES = 3
NOW = "2026-11-23T02:00:00Z"


def root(name: str, secret: str = "") -> Root:
    return Root(ObjectRef(name=secret or name, namespace="gloo-mesh"), name, f"certificate of {name}", SharedTrust())


A, B, C = root("a"), root("b"), root("c")


def step(rotation: Rotation | None, wanted: Root, *, settled: bool = True, at_once: bool = False) -> Rotation:
    return advance(rotation, wanted, settled=settled, at_once=at_once, now=NOW)


def by_hand(rotation: Rotation, wanted: Root, *words: Word, settled: bool = True) -> Rotation:
    return advance(
        rotation,
        wanted,
        settled=settled,
        at_once=False,
        now=NOW,
        manual=True,
        said=Said(words, "all is well", ("not b",)),
    )


def word(step: State, number: int = 1, *, back: bool = False) -> Word:
    return Word(f"uid-{step.value}-{back}/{number}", f"gloo-mesh/{step.value.lower()}", step, back)


def log(rotation: Rotation) -> list[State]:
    return [entry.state for entry in rotation.conditions]


def run(rotation: Rotation, wanted: Root) -> list[State]:
    """The states until nothing follows any more, each mesh always settled at once."""
    states = []
    while (after := step(rotation, wanted)) != rotation:
        rotation = after
        states.append(rotation.state)
        assert len(states) < 20
    assert (rotation.deployed, rotation.successor) == (wanted, None)
    return states


def test_the_first_root_is_rolled_out_at_once() -> None:
    """Nobody has a certificate yet, so nobody is lost."""
    assert step(None, A) == Rotation(A)
    assert step(Rotation(A), A) == Rotation(A)


def test_a_rotation_goes_through_its_steps() -> None:
    """Both trusted, then the new one signs, then the old one goes; what is in force at the end asks for nothing new."""
    rotation = step(Rotation(A), B, settled=False)
    assert (rotation.state, rotation.signer, rotation.trusted) == (State.ADDING_NEW_ROOT, A, (A, B))
    assert step(rotation, B, settled=False) == rotation

    rotation = step(rotation, B)
    assert (rotation.state, rotation.signer, rotation.trusted) == (State.PROPAGATING_NEW_INTERMEDIATE, B, (A, B))
    assert step(rotation, B, settled=False) == rotation

    rotation = step(rotation, B)
    assert (rotation.state, rotation.signer, rotation.trusted) == (State.DELETING_OLD_ROOT, B, (B,))
    assert step(rotation, B, settled=False) == rotation

    done = step(rotation, B)
    assert (done.deployed, done.successor) == (B, None)
    assert (done.facts.trust, done.facts.rotation_state) == (rotation.facts.trust, rotation.facts.rotation_state)
    assert [entry.state for entry in done.conditions] == [
        State.ADDING_NEW_ROOT,
        State.PROPAGATING_NEW_INTERMEDIATE,
        State.DELETING_OLD_ROOT,
        State.FINISHED,
    ]


def test_a_change_of_mind_goes_back_the_way_it_came() -> None:
    """Before the new root signs it is dropped; after that the old one signs again first."""
    adding = step(Rotation(A), B, settled=False)
    assert step(adding, A, settled=False).trusted == (A,)
    assert run(adding, A) == [State.NOT_ROTATING]

    propagating = step(adding, B)
    assert run(propagating, A) == [State.ADDING_NEW_ROOT, State.NOT_ROTATING]
    assert run(propagating, C)[:3] == [State.ADDING_NEW_ROOT, State.NOT_ROTATING, State.ADDING_NEW_ROOT]
    assert log(step(propagating, A))[-2:] == [State.ROLLING_BACK, State.ADDING_NEW_ROOT]

    back = step(propagating, A, settled=False)
    assert (back.signer, back.trusted) == (A, (A, B))
    assert step(back, A, settled=False) == back  # some mesh may have a certificate of B
    assert run(back, B)[0] is State.PROPAGATING_NEW_INTERMEDIATE


def test_the_old_root_named_when_it_is_taken_away_is_trusted_again_first() -> None:
    """A third root waits instead until the second is the only one."""
    deleting = step(step(step(Rotation(A), B), B), B)
    assert deleting.state is State.DELETING_OLD_ROOT

    back = step(deleting, A, settled=False)
    assert (back.signer, back.trusted) == (B, (A, B))
    assert step(back, A, settled=False) == back  # some mesh may trust B alone
    assert run(back, A) == [State.ADDING_NEW_ROOT, State.NOT_ROTATING]

    assert step(deleting, C, settled=False) == deleting
    assert step(deleting, C).deployed == B
    assert run(deleting, C)[:2] == [State.DELETING_OLD_ROOT, State.ADDING_NEW_ROOT]


def test_a_root_that_moves_to_another_secret_is_the_same_root() -> None:
    moved = step(Rotation(A), root("a", secret="elsewhere"))

    assert moved.signer.secret.name == "elsewhere"
    assert (moved.facts.trust, moved.conditions) == (Rotation(A).facts.trust, ())

    adding = step(Rotation(A), B)
    elsewhere = root("b", secret="elsewhere")
    assert step(adding, elsewhere, settled=False).successor == elsewhere
    assert step(adding, elsewhere, settled=False).facts == adding.facts


def test_without_care_a_root_is_replaced_at_once() -> None:
    assert step(Rotation(A), B, settled=False, at_once=True).trusted == (B,)

    rotation = Rotation(A)
    for _ in range(3):
        rotation = step(rotation, B)
        for wanted in (A, B, C):
            ended = step(rotation, wanted, settled=False, at_once=True)
            assert (ended.trusted, ended.successor, step(ended, wanted)) == ((wanted,), None, ended)


def test_the_log_stays_short() -> None:
    rotation = Rotation(A)
    for number in range(40):
        wanted = B if number % 2 else C
        while (after := step(rotation, wanted)) != rotation:
            rotation = after
    assert len(rotation.conditions) == MAX_CONDITIONS


def test_each_step_waits_for_a_word_on_it() -> None:
    """VERIFYING when every mesh runs with it, VERIFIED and the next step on CONTINUE; each is in the log."""
    rotation = by_hand(Rotation(A), B)
    for number, (active, after) in enumerate(zip(STEPS[1:], (*STEPS[2:], State.FINISHED), strict=True)):
        assert rotation.state is active
        said = word(active)
        assert by_hand(rotation, B, said, settled=False) == rotation

        waiting = by_hand(rotation, B)
        assert (waiting.verifying, waiting.state, waiting.facts.trust) == (True, active, rotation.facts.trust)
        assert waiting.conditions[-1].state is State.VERIFYING
        assert "all is well" in waiting.conditions[-1].message
        others = [word(step) for step in STEPS if step is not active]
        assert by_hand(waiting, B, *others) == waiting
        assert by_hand(waiting, B, said, settled=False) == waiting  # one has fallen behind

        rotation = by_hand(waiting, B, said)
        assert log(rotation)[3 * number + 1 :] == [State.VERIFYING, State.VERIFIED, after]
        assert f"CertificateVerification {said.name}" in rotation.conditions[-2].message
        assert rotation.answered == {said.identity: Answer(True, ("not b",))}
    assert (rotation.deployed, rotation.successor) == (B, None)


def test_a_word_counts_once() -> None:
    """Not for a later rotation, nor when a step is come back to. What was said of a rotation ends with it."""
    words = [word(step) for step in STEPS]
    rotation = Rotation(A)
    for _ in range(20):
        rotation = by_hand(rotation, B, *words)
    assert (rotation.deployed, rotation.successor) == (B, None)
    followed = {identity: found.followed for identity, found in rotation.answered.items()}
    assert followed == {w.identity: w.step is not State.PREVIOUS_CA for w in words}

    again = by_hand(by_hand(rotation, C, *words), C, *words)
    assert (again.state, again.verifying) == (State.ADDING_NEW_ROOT, True)
    assert by_hand(again, C, *words) == again
    assert by_hand(again, C, *words, word(State.ADDING_NEW_ROOT, 2)).state is State.PROPAGATING_NEW_INTERMEDIATE
    assert list(by_hand(again, C, word(State.ADDING_NEW_ROOT, 2)).answered) == [word(State.ADDING_NEW_ROOT, 2).identity]


def test_without_verification_a_rotation_that_waited_for_it_goes_on() -> None:
    waiting = by_hand(by_hand(Rotation(A), B), B)

    assert step(waiting, B, settled=False) == waiting
    assert step(waiting, B).state is State.PROPAGATING_NEW_INTERMEDIATE
    assert not step(waiting, B).verifying


def test_rollback_returns_a_step_and_voids_what_was_said_in_advance() -> None:
    """Back in a step, it is verified anew; back before the first, the old root is the only one until CONTINUE."""
    rotation = Rotation(A)
    for active in STEPS[1:]:
        rotation = by_hand(by_hand(rotation, B), B, word(active))
    deleting = by_hand(by_hand(by_hand(Rotation(A), B), B), B, word(STEPS[1]))
    deleting = by_hand(by_hand(deleting, B), B, word(STEPS[2]))
    assert deleting.state is STEPS[3]

    rotation, early = by_hand(deleting, B), word(STEPS[3])
    for active, before in ((STEPS[3], STEPS[2]), (STEPS[2], STEPS[1]), (STEPS[1], STEPS[0])):
        back = word(active, back=True)
        assert rotation.verifying
        rotation = by_hand(rotation, B, early, back, settled=False)
        assert log(rotation)[-2:] == [State.ROLLING_BACK, before]
        assert rotation.answered == {back.identity: Answer(True), early.identity: Answer(False)}
        rotation = by_hand(rotation, B, early, back)
        assert log(rotation)[-1] is State.VERIFYING
    assert (rotation.state, rotation.trusted, rotation.deployed) == (State.PREVIOUS_CA, (A,), A)

    assert by_hand(rotation, B, word(State.PREVIOUS_CA, back=True)) == rotation
    assert by_hand(rotation, A).successor is None
    assert by_hand(by_hand(rotation, C), C).successor == C
    again = by_hand(rotation, B, word(State.PREVIOUS_CA))
    assert (again.state, again.trusted) == (State.ADDING_NEW_ROOT, (A, B))


class Fleet:
    """Meshes that lag: each adopts what is wanted now, and for a while some of its pods run with what was before."""

    def __init__(self) -> None:
        self.rotation = Rotation(A)
        self.held = [[self.rotation] for _ in range(MESHES)]
        self.wanted = A
        self.manual = False
        self.words: dict[State, Word] = {}
        self.said = 0

    @property
    def settled(self) -> bool:
        return all(len(pods) == 1 and pods[0].trust == self.rotation.trust for pods in self.held)

    def say(self, about: State, *, back: bool) -> None:
        """An object per step, edited each time."""
        self.said += 1
        self.words[about] = word(about, self.said, back=back)

    def turn(self) -> None:
        before = self.rotation
        self.rotation = advance(
            before,
            self.wanted,
            settled=self.settled,
            at_once=False,
            now=NOW,
            manual=self.manual,
            said=Said(tuple(self.words.values())),
        )
        if (after := self.place(self.rotation)) is not (state := self.place(before)):
            assert after in FOLLOWS[state], (before, self.rotation)

    @staticmethod
    def place(rotation: Rotation) -> State:
        return rotation.state if rotation.successor is not None else State.FINISHED

    def adopt(self, mesh: int) -> None:
        if self.held[mesh][-1].trust != self.rotation.trust:
            self.held[mesh].append(self.rotation)

    def restart(self, mesh: int) -> None:
        self.held[mesh] = self.held[mesh][-1:]

    def join(self, mesh: int) -> None:
        """Another mesh takes the place of one that leaves: it gets what is wanted now, whatever was before."""
        self.held[mesh] = [self.rotation]

    def reload(self) -> None:
        """The server is killed; what it noted is read."""
        self.rotation = msgspec.json.decode(msgspec.json.encode(self.rotation), type=Rotation)

    def rest(self) -> None:
        """Until nothing follows any more."""
        for _ in range(20):
            self.turn()
            self.settle()

    def settle(self) -> None:
        for mesh in range(MESHES):
            self.adopt(mesh)
            self.restart(mesh)

    def check(self) -> None:
        running = [pod for pods in self.held for pod in pods]
        for one in running:
            for other in running:
                assert other.signer.certificate in [trusted.certificate for trusted in one.trusted]


FOLLOWS = {
    State.FINISHED: {State.ADDING_NEW_ROOT},
    State.PREVIOUS_CA: {State.ADDING_NEW_ROOT, State.FINISHED},
    State.ADDING_NEW_ROOT: {State.PREVIOUS_CA, State.PROPAGATING_NEW_INTERMEDIATE, State.FINISHED},
    State.PROPAGATING_NEW_INTERMEDIATE: {State.ADDING_NEW_ROOT, State.DELETING_OLD_ROOT},
    State.DELETING_OLD_ROOT: {State.PROPAGATING_NEW_INTERMEDIATE, State.FINISHED},
}

events = st.one_of(
    st.tuples(st.just("want"), st.sampled_from((A, B, C))),
    st.tuples(st.sampled_from(("adopt", "restart", "join")), st.integers(0, MESHES - 1)),
    st.tuples(st.sampled_from(("turn", "onward", "onward", "reload")), st.none()),
    st.tuples(st.just("by hand"), st.booleans()),
    st.tuples(st.sampled_from(("continue", "roll back")), st.sampled_from(STEPS)),
)


def happen(fleet: Fleet, what: str, about: Any) -> None:
    match what:
        case "want":
            fleet.wanted = about
        case "by hand":
            fleet.manual = about
        case "continue" | "roll back":
            fleet.say(about, back=what == "roll back")
        case "adopt":
            fleet.adopt(about)
        case "restart":
            fleet.restart(about)
        case "join":
            fleet.join(about)
        case "turn":
            fleet.turn()
        case "onward":
            fleet.settle()
            fleet.turn()
        case _:
            fleet.reload()


@given(st.lists(events, max_size=80))
@settings(max_examples=400, deadline=None)
def test_everybody_trusts_everybody_at_any_time(history: list) -> None:
    """However meshes lag, users change their minds and persons verify, each pod accepts the certificate of every other.

    No step is skipped, and in the end what is wanted is the only root.
    """
    fleet = Fleet()
    for what, about in history:
        happen(fleet, what, about)
        fleet.check()
    fleet.manual = False
    fleet.rest()
    assert (fleet.rotation.deployed, fleet.rotation.successor) == (fleet.wanted, None)


@given(st.lists(events.filter(lambda event: event[0] != "reload"), max_size=60), st.sets(st.integers(0, 60)))
@settings(max_examples=200, deadline=None)
def test_kills_change_nothing(history: list, killed_before: set[int]) -> None:
    """A server that is killed and started again at any moments ends where one ends that was not."""
    spared, killed = Fleet(), Fleet()
    for number, (what, about) in enumerate(history):
        happen(spared, what, about)
        if number in killed_before:
            killed.reload()
        happen(killed, what, about)
    for fleet in (spared, killed):
        fleet.rest()
    assert killed.rotation == spared.rotation


@given(st.integers(1, 3), st.lists(st.integers(0, MESHES - 1), max_size=40))
@settings(max_examples=200, deadline=None)
def test_rolling_back_at_any_step_leaves_the_old_root_alone(steps: int, lagging: list[int]) -> None:
    """From each step, ROLLBACK upon ROLLBACK while meshes lag: all trust all, and the old root is left."""
    fleet = Fleet()
    fleet.wanted, fleet.manual = B, True
    for active in STEPS[1 : steps + 1]:
        fleet.rest()
        assert (fleet.rotation.state, fleet.rotation.verifying) == (active, True)
        if active is not STEPS[steps]:
            fleet.say(active, back=False)
    for active in reversed(STEPS[1 : steps + 1]):
        fleet.say(active, back=True)
    for mesh in lagging:
        fleet.turn()
        fleet.adopt(mesh)
        fleet.check()
        fleet.restart(mesh)
        fleet.check()
    fleet.rest()
    assert (fleet.rotation.state, fleet.rotation.trusted) == (State.PREVIOUS_CA, (A,))
    assert all(pods[0].trusted == (A,) for pods in fleet.held)
    fleet.wanted = A
    fleet.rest()
    assert (fleet.rotation.deployed, fleet.rotation.successor) == (A, None)


lags = st.lists(st.tuples(st.sampled_from(("turn", "adopt", "restart")), st.integers(0, MESHES - 1)), max_size=30)


@given(st.integers(1, 3), st.sampled_from((A, C)), lags, lags)
@settings(max_examples=300, deadline=None)
def test_a_change_of_mind_at_any_step_is_as_safe(steps: int, wanted: Root, before: list, after: list) -> None:
    """While the step is being rolled out, another root is named, or the old one again: all trust all on the way."""
    fleet = Fleet()
    fleet.wanted = B
    fleet.turn()
    for active in STEPS[2 : steps + 1]:
        happen(fleet, "onward", None)
        assert fleet.rotation.state is active
    for what, about in before:
        happen(fleet, what, about)
        fleet.check()
    fleet.wanted = wanted
    for what, about in after:
        happen(fleet, what, about)
        fleet.check()
    fleet.rest()
    assert (fleet.rotation.deployed, fleet.rotation.successor) == (wanted, None)
