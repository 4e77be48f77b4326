"""What two ends of a relay stream promise each other."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from isthmus.relay import MAX_RECORD_BYTES, Publication, RecordTooLarge
from isthmus.relay.frames import (
    SLICE_BYTES,
    Ack,
    Changes,
    Compare,
    Entry,
    Hello,
    Offer,
    Part,
    ProtocolFault,
    Resync,
    Table,
    Want,
    window_units,
)
from isthmus.relay.records import digest_of
from isthmus.relay.sender import MAX_RESYNCS

from .wire import End, Link, records_in

SMALL_WINDOW = 200  # of a few records, so that senders often have to wait

keys = st.sampled_from([f"k{n}" for n in range(8)])
payloads = st.binary(min_size=0, max_size=60)
changes = st.dictionaries(keys, st.none() | payloads, max_size=4)
ends = st.sampled_from([0, 1])
steps = st.one_of(
    st.tuples(st.just("publish"), ends, changes, st.booleans()),
    st.tuples(st.just("send"), ends),
    st.tuples(st.just("deliver"), ends),
    st.tuples(st.just("apply"), ends),
    st.tuples(st.just("settle")),
    st.tuples(st.just("cut")),
    st.tuples(st.just("corrupt"), ends),
    st.tuples(st.just("restart"), ends),
)


class Story:
    """Takes random steps and checks after each what must hold at every moment."""

    def __init__(self, held: tuple[dict[str, bytes], dict[str, bytes]]) -> None:
        self.left, self.right = End(held=held[0]), End(held=held[1])
        self.link = Link(self.left, self.right, window=SMALL_WINDOW)

    def take(self, step: tuple) -> None:
        match step:
            case ("publish", end, found, complete):
                self.link.ends[end].publish(found, complete=complete)
            case ("send", end):
                self.link.send(end)
            case ("deliver", end):
                self.link.deliver(end)
            case ("apply", end):
                self.apply(end)
            case ("settle",):
                self.settle()
            case ("cut",):
                self.link.cut()
                self.link.connect()
            case ("corrupt", end):
                self.corrupt(end)
            case ("restart", end):
                self.link.cut()
                before = self.link.ends[end]
                before.publication, before.history = Publication(), [{}]
                self.link.connect()

    def settle(self) -> None:
        while any(
            [
                *(self.link.send(n) for n in (0, 1)),
                *(self.link.deliver(n) for n in (0, 1)),
                *(self.apply(n) for n in (0, 1)),
            ]
        ):
            pass

    def apply(self, end: int) -> bool:
        taker, giver = self.link.ends[end], self.link.ends[1 - end]
        before = dict(taker.held)
        if not taker.apply():
            return False
        delta = taker.deltas[-1]
        if delta.complete:
            assert taker.held in giver.history
        else:
            assert any(state.items() <= taker.held.items() for state in giver.history)
            dropped = before.keys() - taker.held.keys()
            assert all(any(key in state for state in giver.history) for key in dropped)
        return True

    def corrupt(self, end: int) -> None:
        inbox = self.link.ends[end].inbox
        for at, frame in enumerate(inbox):
            if isinstance(frame, Changes) and frame.entries:
                spoilt = replace(frame.entries[0], payload=frame.entries[0].payload + b"!")
                inbox[at] = replace(frame, entries=(spoilt, *frame.entries[1:]))
                return


@settings(max_examples=400, deadline=None)
@given(
    st.tuples(st.dictionaries(keys, payloads), st.dictionaries(keys, payloads)),
    st.lists(steps, max_size=60),
)
def test_both_ends_end_equal(held, story):
    """Whatever is published, lost or spoilt, each end comes to hold what the other publishes, by generations."""
    run = Story(held)

    for step in story:
        run.take(step)
    run.settle()

    for taker, giver in ((run.left, run.right), (run.right, run.left)):
        if giver.publication.complete:
            assert taker.held == giver.published
        else:
            assert giver.published.items() <= taker.held.items()
        assert taker.deltas[-1].complete == giver.publication.complete
        assert giver.session.generations_acknowledged == giver.session.generations_sent


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, payloads), st.lists(st.dictionaries(keys, payloads, max_size=4), max_size=6))
def test_nothing_is_removed_before_the_sender_says_it_is_complete(held, published):
    """An end that has just begun and publishes bit by bit costs the other end nothing that it held."""
    left, right = End(), End(held=held)
    link = Link(left, right)

    for found in published:
        left.publish(found, complete=False)
        link.settle()

    assert right.held == held | left.published
    assert not any(delta.complete for delta in right.deltas)
    assert not any(payload is None for delta in right.deltas for payload in delta.changes.values())


def filled(count: int, size: int = 1500) -> dict[str, bytes]:
    return {f"apps/v1|Deployment|default|app-{n}": n.to_bytes(4, "big") * (size // 4) for n in range(count)}


def test_what_a_restarted_sender_publishes_again_is_not_sent_again():
    """Records that the receiver still holds are confirmed by digest; what is not confirmed goes once all is said."""
    records = filled(1000)
    left, right = End(), End(held=records)
    link = Link(left, right)
    link.settle()

    kept = dict(list(records.items())[:900])
    for at in range(0, 900, 100):
        left.publish(dict(list(kept.items())[at : at + 100]), complete=False)
        link.settle()
    assert right.held == records
    left.publish({}, complete=True)
    link.settle()

    assert right.held == kept
    assert link.weight < 60_000
    assert right.deltas[-1].complete
    assert sum(len(delta.changes) for delta in right.deltas) == 100


def test_equal_ends_exchange_only_their_digest():
    records = filled(2000)
    left, right = End(), End(held=records)
    left.publish(records)

    link = Link(left, right)
    link.settle()

    assert link.weight < 400
    assert [delta.changes for delta in right.deltas] == [{}]
    assert right.deltas[0].complete


@pytest.mark.parametrize("changed", [1, 20, 200])
def test_a_reconnect_costs_what_changed(changed):
    """The weight of a reconnect is that of the changed records plus a small part of what did not change."""
    records = filled(20_000)
    left, right = End(), End(held=records)
    left.publish(records)
    link = Link(left, right)
    link.settle()
    link.cut()

    left.publish({key: b"new" + records[key] for key in list(records)[:changed]})
    link.connect()
    link.settle()

    assert right.held == left.published
    assert len(records_in(link.frames)) == changed
    assert link.weight < changed * 2100 + 20_000


def test_a_generation_arrives_whole_or_not_at_all():
    """A link that breaks in the middle of a generation leaves the receiver as it was."""
    left, right = End(), End()
    link = Link(left, right)
    link.settle()
    left.publish(filled(3000))
    for _ in range(5):
        link.send(0)
        link.deliver(1)
        right.apply()

    link.cut()
    assert right.held == {}

    link.connect()
    link.settle()
    assert right.held == left.published


def test_changes_of_one_key_are_coalesced_while_the_receiver_is_busy():
    """Between two generations only the latest form of a record is sent, and never more than the window."""
    left, right = End(), End()
    link = Link(left, right, window=10_000)
    link.settle()
    left.publish({"a": b"0" * 9_000})
    while link.send(0) or link.deliver(1):
        pass

    in_flight = 0
    for n in range(1, 200):
        left.publish({"a": str(n).encode() * 3000})
        while link.send(0):
            in_flight += window_units(link.frames[-1])
        while link.deliver(1):
            pass
    assert in_flight < 20_000
    link.settle()

    assert right.held == left.published
    assert len(right.deltas) <= 5


def test_a_receiver_that_applies_slowly_holds_the_sender_back():
    """Not more than a window arrives while a generation is being applied, however many are published."""
    left, right = End(), End()
    link = Link(left, right, window=10_000)
    link.settle()
    started = len(link.frames)

    for n in range(500):
        left.publish({f"k{n}": b"x" * 1000})
        while link.send(0) or link.deliver(1) or link.send(1) or link.deliver(0):
            pass

    arrived = sum(window_units(frame) for frame in link.frames[started:] if isinstance(frame, Changes))
    assert arrived < 12_000
    link.settle()
    assert right.held == left.published


def test_a_record_larger_than_a_message_is_split():
    left, right = End(), End()
    left.publish({"big": b"x" * (10 * 2**20), "small": b"y"})

    link = Link(left, right)
    link.settle()

    assert right.held == left.published
    assert len([frame for frame in link.frames if isinstance(frame, Part)]) == 20
    assert all(len(frame.slice) <= SLICE_BYTES for frame in link.frames if isinstance(frame, Part))


def test_a_record_beyond_all_bounds_is_refused_before_anything_is_published():
    publication = Publication()

    with pytest.raises(RecordTooLarge, match=r"record v1\|Secret\|a\|b has 67108865 bytes"):
        publication.publish({"ok": b"1", "v1|Secret|a|b": bytes(MAX_RECORD_BYTES + 1)}, complete=True)

    assert not publication.records
    assert not publication.complete


def test_publishing_what_is_published_sends_nothing():
    left, right = End(), End()
    left.publish({"a": b"1"})
    link = Link(left, right)
    link.settle()
    frames = len(link.frames)

    left.publish({"a": b"1", "never": None})
    link.settle()

    assert len(link.frames) == frames
    assert left.wakes == 0


def test_a_record_removed_is_removed():
    left, right = End(), End(held={"gone": b"1"})
    left.publish({"a": b"1", "b": b"2"}, complete=False)
    link = Link(left, right)
    link.settle()

    left.publish({"a": None}, complete=False)
    link.settle()

    assert right.deltas[-1].changes == {"a": None}
    assert right.held == {"gone": b"1", "b": b"2"}


def greeted(held: dict[str, bytes] | None = None) -> End:
    end = End(held=held)
    end.open(10_000)
    assert end.session is not None
    end.session.receive(Hello(1, "c1", "peer"))
    return end


ENTRY = Entry("a", digest_of("a", b"1"), b"1")


@pytest.mark.parametrize(
    ("hello", "text"),
    [
        (Hello(2, "c1", "9.9"), "version 9.9\\) speaks relay protocol 2, this end 1: bring agent and server"),
        (Hello(1, "c2", "0.1"), "speaks for cluster c2 on the stream of c1"),
        (Offer(bytes(16), True), "does not say hello first"),
    ],
)
def test_a_stranger_is_refused(hello, text):
    end = End()
    end.open(10_000)

    with pytest.raises(ProtocolFault, match=text):
        end.session.receive(hello)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([Hello(1, "c1", "again")], "hello twice"),
        ([Table(b"", b"", True)], None),
        ([Offer(bytes(16), True), Table(b"\xff", b"", True)], "not asked for"),
        ([Offer(bytes(16), True), Part("big", bytes(16), MAX_RECORD_BYTES + 1, b"x")], "record big has 67108865 bytes"),
        ([Offer(bytes(16), True), Part("a", bytes(16), 9, b"x"), Part("b", bytes(16), 9, b"x")], "b begins before a"),
        ([Offer(bytes(16), True), Part("a", bytes(16), 2, b"xyz")], "do not add up to 2"),
        ([Offer(bytes(16), True), Part("a", bytes(16), 2, b"x"), Changes(end=True)], "a was not sent to its end"),
        ([Compare(1, b"x")], "was not offered"),
        ([Want(bytes(16), b"", True)], "not offered"),
        ([Ack(99, 0)], None),
    ],
)
def test_a_peer_that_breaks_the_rules_is_told(frames, text):
    """Frames that could not come from a peer of ours end the stream; such as a late one may send are passed over."""
    end = greeted()

    def receive() -> None:
        for frame in frames:
            end.session.receive(frame)

    if text is None:
        receive()
    else:
        with pytest.raises(ProtocolFault, match=text):
            receive()


def test_a_spoilt_record_starts_the_comparison_again_and_in_the_end_gives_up():
    """A receiver whose records never match asks again a few times; then the sender ends the stream and says why."""
    left, right = End(), End()
    left.publish({"a": b"1"})
    link = Link(left, right)

    def spoil() -> None:
        while any([link.send(0), link.send(1), link.deliver(0)]) or right.inbox:
            if right.inbox and isinstance(right.inbox[0], Changes):
                right.inbox[0] = replace(right.inbox[0], entries=(replace(ENTRY, payload=b"2"),))
            link.deliver(1)

    with pytest.raises(ProtocolFault, match="again 4 times: record a does not match its digest"):
        spoil()

    assert right.held == {}
    assert len([frame for frame in link.frames if isinstance(frame, Resync)]) == MAX_RESYNCS + 1
