"""A crew works in parallel, tries again, and ends with its owner."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from isthmus.program.crew import Crew


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def test_at_most_so_many_at_a_time() -> None:
    running, most, done = 0, 0, asyncio.Event()
    left = set(range(20))

    async def act(key: int) -> bool:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        left.discard(key)
        if not left:
            done.set()
        return True

    crew = Crew(act, 4)
    task = asyncio.create_task(crew.run())
    crew.add((key, 0) for key in range(20))
    await asyncio.wait_for(done.wait(), 10)
    await end(task)

    assert most == 4


async def test_an_exception_is_our_fault_and_ends_the_crew() -> None:
    async def act(key: int) -> bool:
        raise ZeroDivisionError

    crew = Crew(act, 4)
    task = asyncio.create_task(crew.run())
    crew.add([(1, 0)])

    with pytest.raises(ExceptionGroup) as group:
        await asyncio.wait_for(task, 10)
    assert group.group_contains(ZeroDivisionError)


async def test_what_is_asked_for_while_it_runs_runs_again() -> None:
    started, go_on, runs = asyncio.Event(), asyncio.Event(), []

    async def act(key: int) -> bool:
        runs.append(key)
        started.set()
        if len(runs) == 1:
            await go_on.wait()
        else:
            again.set()
        return True

    again = asyncio.Event()
    crew = Crew(act, 4)
    task = asyncio.create_task(crew.run())
    crew.add([(1, 0)])
    await asyncio.wait_for(started.wait(), 10)
    crew.add([(1, 0)])
    go_on.set()
    await asyncio.wait_for(again.wait(), 10)
    await end(task)

    assert runs == [1, 1]


async def test_what_is_asked_for_while_it_rests_runs_when_the_rest_ends() -> None:
    """Without anything else happening that would wake the crew."""
    runs, ran = [], asyncio.Event()

    async def act(key: int) -> bool:
        await asyncio.sleep(0.01)
        runs.append(key)
        ran.set()
        return True

    crew = Crew(act, 4, rest=3.0)
    task = asyncio.create_task(crew.run())
    crew.add([(1, 0)])
    await asyncio.wait_for(ran.wait(), 10)
    ran.clear()
    await asyncio.sleep(0)  # the crew has gone to sleep
    await asyncio.sleep(0)
    crew.add([(1, 0)])
    await asyncio.wait_for(ran.wait(), 10)
    await end(task)

    assert runs == [1, 1]


async def test_what_fails_is_tried_again_by_itself() -> None:
    runs, done = [], asyncio.Event()

    async def act(key: int) -> bool:
        runs.append(key)
        if len(runs) == 2:
            done.set()
        return len(runs) == 2

    crew = Crew(act, 4)
    task = asyncio.create_task(crew.run())
    crew.add([(1, 0)])
    await asyncio.wait_for(done.wait(), 10)
    await end(task)

    assert runs == [1, 1]
