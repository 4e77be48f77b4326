"""One root replaces another: whatever happens and however far each mesh is, all trust each other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.common import CertificateRotationState as State
from isthmus.api.common import ObjectRef
from isthmus.api.virtual_mesh import SharedTrust
from isthmus.translate.trust.rotation import MAX_CONDITIONS, Root, Rotation, advance

MESHES = 3
NOW = "2026-11-23T02:00:00Z"


def root(name: str, secret: str = "") -> Root:
    return Root(ObjectRef(name=secret or name, namespace="gloo-mesh"), name, f"certificate of {name}", SharedTrust())


A, B, C = root("a"), root("b"), root("c")


def step(rotation: Rotation | None, wanted: Root, *, settled: bool = True, at_once: bool = False) -> Rotation:
    return advance(rotation, wanted, settled=settled, at_once=at_once, now=NOW)


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
    adding = step(Rotation(A), B)
    assert run(adding, A) == [State.NOT_ROTATING]

    propagating = step(adding, B)
    assert run(propagating, A) == [State.PREVIOUS_CA, State.NOT_ROTATING]
    assert run(propagating, C)[:3] == [State.PREVIOUS_CA, State.NOT_ROTATING, State.ADDING_NEW_ROOT]

    back = step(propagating, A)
    assert (back.signer, back.trusted) == (A, (A, B))
    assert step(back, A, settled=False) == back
    assert run(back, B)[0] is State.PROPAGATING_NEW_INTERMEDIATE


def test_a_root_that_moves_to_another_secret_is_the_same_root() -> None:
    moved = step(Rotation(A), root("a", secret="elsewhere"))

    assert moved.signer.secret.name == "elsewhere"
    assert (moved.facts.trust, moved.conditions) == (Rotation(A).facts.trust, ())


def test_without_care_a_root_is_replaced_at_once() -> None:
    assert step(Rotation(A), B, settled=False, at_once=True).trusted == (B,)


def test_the_log_stays_short() -> None:
    rotation = Rotation(A)
    for number in range(40):
        wanted = B if number % 2 else C
        while (after := step(rotation, wanted)) != rotation:
            rotation = after
    assert len(rotation.conditions) == MAX_CONDITIONS


events = st.one_of(
    st.tuples(st.just("want"), st.sampled_from((A, B, C))),
    st.tuples(st.sampled_from(("adopt", "restart")), st.integers(0, MESHES - 1)),
    st.tuples(st.just("turn"), st.none()),
)


@given(st.lists(events, max_size=80))
@settings(max_examples=400, deadline=None)
def test_everybody_trusts_everybody_at_any_time(history: list) -> None:
    """However meshes lag and users change their minds, each pod accepts the certificate of every other.

    A mesh adopts what is wanted now, and for a while some of its pods run with that and some with what was before.
    """
    rotation = Rotation(A)
    held = [[rotation] for _ in range(MESHES)]
    wanted = A

    def turn() -> None:
        nonlocal rotation
        settled = all(pods[0].facts.trust == rotation.facts.trust and len(pods) == 1 for pods in held)
        rotation = step(rotation, wanted, settled=settled)

    def adopt(mesh: int) -> None:
        if held[mesh][-1].facts.trust != rotation.facts.trust:
            held[mesh].append(rotation)

    for what, about in history:
        if what == "want":
            wanted = about
        elif what == "adopt":
            adopt(about)
        elif what == "restart":
            held[about] = held[about][-1:]
        else:
            turn()
        running = [pod for pods in held for pod in pods]
        for one in running:
            for other in running:
                assert other.signer.certificate in [trusted.certificate for trusted in one.trusted]

    for _ in range(20):
        turn()
        for mesh in range(MESHES):
            adopt(mesh)
            held[mesh] = held[mesh][-1:]
    assert (rotation.deployed, rotation.successor) == (wanted, None)
