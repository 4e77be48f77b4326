"""The queue keeps its order, never runs a key twice at once, and forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from isthmus.program.work import FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS, WorkQueue


def test_lower_ranks_of_a_batch_come_first_and_are_waited_for() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("rule", 1), ("entry", 0)], now=0)

    assert queue.take(0) == "entry"
    assert queue.take(0) is None
    queue.done("entry")
    assert queue.take(0) == "rule"


def test_urgent_work_of_later_batches_does_not_hold_up_earlier_ones() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("entry", 0), ("rule", 1)], now=0)
    assert queue.take(0) == "entry"

    queue.add([("other entry", 0)], now=0)
    queue.done("entry")
    taken = [queue.take(0), queue.take(0)]

    assert sorted(filter(None, taken)) == ["other entry", "rule"]


def test_a_key_that_fails_is_not_waited_for() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("entry", 0), ("rule", 1)], now=0)
    assert queue.take(0) == "entry"

    queue.failed("entry", now=0)

    assert queue.take(0) == "rule"


def test_failures_are_tried_again_with_growing_pauses_and_at_once_when_asked_for() -> None:
    queue: WorkQueue[str] = WorkQueue()
    now, waits = 0.0, []
    queue.add([("entry", 0)], now)
    for _ in range(9):
        assert queue.take(now) == "entry"
        waits.append(queue.failed("entry", now))
        assert queue.take(now) is None
        assert queue.next_due() == now + waits[-1]
        now += waits[-1]

    assert waits[:3] == [FIRST_RETRY_SECONDS, 2 * FIRST_RETRY_SECONDS, 4 * FIRST_RETRY_SECONDS]
    assert waits[-1] == LONGEST_RETRY_SECONDS

    queue.take(now)
    queue.failed("entry", now)
    queue.add([("entry", 0)], now)
    assert queue.take(now) == "entry"
    assert queue.next_due() is None


def test_success_resets_the_pauses() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("entry", 0)], 0)
    queue.take(0)
    queue.failed("entry", 0)
    queue.take(10)
    queue.done("entry")
    queue.add([("entry", 0)], 10)
    queue.take(10)

    assert queue.failed("entry", 10) == FIRST_RETRY_SECONDS


def test_a_key_that_rests_is_taken_when_the_rest_ends() -> None:
    queue: WorkQueue[str] = WorkQueue()
    queue.add([("status", 0)], 0)
    queue.take(0)
    queue.add([("status", 0)], 1)
    queue.done("status", rest_until=5)
    queue.add([("status", 0)], 2)

    assert queue.take(4) is None
    assert queue.next_due() == 5
    assert queue.take(5) == "status"


class Queue(RuleBasedStateMachine):
    """Any sequence of calls: what was asked for after it was last taken is taken again in the end."""

    KEYS = st.sampled_from("abcd")

    def __init__(self) -> None:
        super().__init__()
        self.queue: WorkQueue[str] = WorkQueue()
        self.now = 0.0
        self.asked: set[str] = set()
        self.running: set[str] = set()

    @rule(keys=st.dictionaries(KEYS, st.integers(0, 2)))
    def add(self, keys: dict[str, int]) -> None:
        self.queue.add(keys.items(), self.now)
        self.asked |= set(keys)

    @rule()
    def take(self) -> None:
        key = self.queue.take(self.now)
        if key is not None:
            assert key in self.asked
            assert key not in self.running
            self.asked.discard(key)
            self.running.add(key)

    @rule(data=st.data(), rest=st.sampled_from([0.0, 3.0]))
    def done(self, data: st.DataObject, rest: float) -> None:
        if self.running:
            key = data.draw(st.sampled_from(sorted(self.running)))
            self.queue.done(key, rest_until=self.now + rest if rest else 0.0)
            self.running.discard(key)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        if self.running:
            key = data.draw(st.sampled_from(sorted(self.running)))
            self.queue.failed(key, self.now)
            self.running.discard(key)
            self.asked.add(key)

    @rule(seconds=st.floats(0.1, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def nothing_runs_that_was_not_taken(self) -> None:
        assert len(self.queue) >= len(self.running)

    def teardown(self) -> None:
        for key in self.running:
            self.queue.done(key)
        now = self.now + LONGEST_RETRY_SECONDS
        while (key := self.queue.take(now)) is not None:
            self.asked.discard(key)
            self.queue.done(key)
        assert not self.asked
        assert len(self.queue) == 0
        assert self.queue.next_due() is None


TestQueue = Queue.TestCase


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), unique_by=lambda pair: pair[0]))
def test_one_batch_is_taken_in_order_of_rank(batch: list[tuple[int, int]]) -> None:
    queue: WorkQueue[int] = WorkQueue()
    queue.add(batch, 0)
    ranks = dict(batch)

    taken = []
    while (key := queue.take(0)) is not None:
        taken.append(ranks[key])
        queue.done(key)

    assert taken == sorted(ranks.values())
