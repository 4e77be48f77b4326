"""What is to be done next: a queue of keys that coalesces, keeps an order between ranks, and tries again later. No I/O.

A key stands for "look at this object again"; what to do about it is decided when it is taken, so ten changes of one
object while another write runs are one piece of work.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)

FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 60.0


class WorkQueue(Generic[K]):
    """Keys in order of rank within each batch.

    All keys of one `add` are a batch. A key is taken once every key of a lower rank in its own and in earlier batches
    is done; keys of later batches are not waited for, so that a stream of urgent work can't starve the rest. A key
    that failed and is postponed is not waited for either: one bad object harms only itself. One key is never taken
    twice at the same time.
    """

    def __init__(self) -> None:
        self._batch = 0
        self._waiting: dict[K, tuple[int, int]] = {}  # key -> (rank, batch)
        self._lines: dict[int, deque[tuple[int, K]]] = {}  # rank -> (batch, key), oldest first; some outdated
        self._ranks: list[int] = []
        self._running: dict[K, tuple[int, int]] = {}
        self._again: dict[K, tuple[int, int]] = {}  # asked for while it was running
        self._postponed: dict[K, tuple[float, int]] = {}  # key -> (due, rank)
        self._later: list[tuple[float, int, K]] = []  # heap of (due, rank, key); some outdated
        self._resting: dict[K, float] = {}
        self._failures: dict[K, int] = {}

    def __len__(self) -> int:
        """Keys that wait for their turn or are running."""
        return len(self._waiting) + len(self._running)

    @property
    def postponed(self) -> int:
        """Keys that wait for a time."""
        return len(self._postponed)

    def add(self, keys: Iterable[tuple[K, int]], now: float) -> None:
        """Ask for *keys* with their ranks, as one batch.

        A key that waits already keeps its place, unless its rank changed. A key that failed is not waited for any
        longer; one that rests keeps resting.
        """
        self._batch += 1
        for key, rank in keys:
            if key in self._running:
                self._again[key] = (rank, self._batch)
            else:
                self._ask(key, rank, self._batch, now)

    def take(self, now: float) -> K | None:
        """The next key whose turn it is; the taker ends it by `done` or `failed`. None if there is none at *now*."""
        self._wake(now)
        running: dict[int, int] = {}
        for rank, batch in self._running.values():
            running[rank] = min(batch, running.get(rank, batch))
        barrier: float = float("inf")  # the oldest batch that still has work of a lower rank
        for rank in self._ranks:
            line = self._lines[rank]
            while line and self._waiting.get(line[0][1]) != (rank, line[0][0]):
                line.popleft()
            if line and line[0][0] < barrier:
                batch, key = line.popleft()
                del self._waiting[key]
                self._running[key] = (rank, batch)
                return key
            barrier = min(barrier, line[0][0] if line else barrier, running.get(rank, barrier))
        return None

    def done(self, key: K, *, rest_until: float = 0.0) -> None:
        """The work on *key* has ended well; whoever asks for it, it is not taken again before *rest_until*."""
        self._failures.pop(key, None)
        if rest_until:
            self._resting[key] = rest_until
        self._finish(key)

    def failed(self, key: K, now: float) -> float:
        """The work on *key* has failed; it is due again after the returned seconds, or when it is asked for.

        They double from failure to failure.
        """
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        wait = min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2.0 ** min(failures, 16))
        rank, _ = self._running[key]
        self._finish(key)
        if key not in self._waiting:
            self._postpone(key, rank, now + wait)
        return wait

    def next_due(self) -> float | None:
        """When the first postponed key is due."""
        while self._later:
            due, rank, key = self._later[0]
            if self._postponed.get(key) == (due, rank):
                return due
            heapq.heappop(self._later)
        return None

    def _ask(self, key: K, rank: int, batch: int, now: float) -> None:
        rest_until = self._resting.get(key)
        if rest_until is not None and rest_until > now:
            self._postpone(key, rank, rest_until)
            return
        self._resting.pop(key, None)
        self._postponed.pop(key, None)
        place = self._waiting.get(key)
        if place is not None and place[0] == rank:
            return
        self._waiting[key] = (rank, batch)
        line = self._lines.get(rank)
        if line is None:
            line = self._lines[rank] = deque()
            self._ranks = sorted(self._lines)
        line.append((batch, key))

    def _finish(self, key: K) -> None:
        del self._running[key]
        again = self._again.pop(key, None)
        if again is not None:
            self._ask(key, *again, now=float("-inf"))  # a rest that begins now has not ended, whatever the time

    def _postpone(self, key: K, rank: int, until: float) -> None:
        if self._postponed.get(key) != (until, rank):
            self._postponed[key] = (until, rank)
            heapq.heappush(self._later, (until, rank, key))

    def _wake(self, now: float) -> None:
        due: list[tuple[K, int]] = []
        while (at := self.next_due()) is not None and at <= now:
            _, rank, key = heapq.heappop(self._later)
            del self._postponed[key]
            due.append((key, rank))
        if due:
            self.add(due, now)
