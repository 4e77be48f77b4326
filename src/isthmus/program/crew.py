"""Doing the work of a queue, several pieces at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

from isthmus.program.work import WorkQueue

K = TypeVar("K", bound=Hashable)

LONGEST_REST_SECONDS = 1.0  # a write that waited for its API server took long, but was not costly


class Crew(Generic[K]):
    """Runs *act* on the keys of a queue, at most *size* at a time.

    *act* returns whether it went well; if not, the key is tried again later. An exception from it ends the crew. A
    key rests after it was done, *rest* times as long as that took, though never longer than `LONGEST_REST_SECONDS`:
    what is costly and changes all the time then takes a bounded share of the time.
    """

    def __init__(self, act: Callable[[K], Awaitable[bool]], size: int, *, rest: float = 0.0) -> None:
        self.queue: WorkQueue[K] = WorkQueue()
        self._act = act
        self._size = size
        self._rest = rest
        self._wake = asyncio.Event()

    def add(self, keys: Iterable[tuple[K, int]]) -> None:
        """Ask for *keys* with their ranks; see `WorkQueue.add`."""
        self.queue.add(keys, asyncio.get_running_loop().time())
        self._wake.set()  # also for a key that only waits for a time: when to wake up next may have changed

    async def run(self) -> None:
        """Work until cancelled."""
        loop = asyncio.get_running_loop()
        running = 0

        async def work(key: K) -> None:
            nonlocal running
            began = loop.time()
            if await self._act(key):
                now = loop.time()
                rest = min(LONGEST_REST_SECONDS, self._rest * (now - began))
                self.queue.done(key, rest_until=now + rest if rest else 0.0)
            else:
                self.queue.failed(key, loop.time())
            running -= 1
            self._wake.set()

        async with asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                while running < self._size and (key := self.queue.take(loop.time())) is not None:
                    running += 1
                    tasks.create_task(work(key))
                due = self.queue.next_due()
                try:
                    async with asyncio.timeout_at(due):
                        await self._wake.wait()
                except TimeoutError:
                    continue
