"""Starting and ending a program."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger("isthmus")


class BadOption(Exception):
    """An option has a value that the program can't work with; the text names both."""


def run_program(main: Callable[[], Awaitable[None]], *, expected: tuple[type[Exception], ...]) -> int:
    """Run *main* until SIGTERM or SIGINT; the exit code.

    *expected* are failures whose text is enough for the operator; everything else is our fault and logged whole.
    """
    import uvloop

    async def supervised() -> int:
        loop = asyncio.get_running_loop()
        task = asyncio.ensure_future(main())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        try:
            await task
        except asyncio.CancelledError:
            log.info("stopped")
        return 0

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(supervised())
    except BaseExceptionGroup as group:
        known, ours = group.split(expected)
        for error in _leaves(known):
            log.error("cannot go on", error=str(error))
        if ours is not None:
            log.critical("crashed", exc_info=ours)
        return 1
    except expected as error:
        log.error("cannot go on", error=str(error))
        return 1
    except Exception:
        log.critical("crashed", exc_info=sys.exc_info())
        return 1


def _leaves(group: BaseException | None) -> list[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        return [leaf for each in group.exceptions for leaf in _leaves(each)]
    return [] if group is None else [group]
