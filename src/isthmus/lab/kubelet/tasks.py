"""Ending tasks, and not ending them half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def cancelled(task: asyncio.Task[Any]) -> None:
    """End *task* and wait for that. Raises nothing of what it raises."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # seen, so that nobody complains


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of *work*, which is carried through even if the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller hears of the cancelling instead
        raise
