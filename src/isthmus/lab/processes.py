"""Programs of the lab that run as long as it does: started, watched, started again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

RESTART_AFTER = 0.5  # seconds; doubles up to RESTART_AT_MOST while a program ends at once
RESTART_AT_MOST = 8.0
STEADY = 20.0  # seconds after which a program that ends counts as having run well


class Daemon:
    """One program with its output in a file. `run` starts it again whenever it ends, until cancelled."""

    def __init__(self, name: str, argv: Sequence[str], log: Path) -> None:
        self.name = name
        self.pid = 0
        self.starts = 0
        self._argv = tuple(argv)
        self._log = log

    async def run(self) -> None:
        """Run until cancelled; the program is then killed: what it keeps is given up with the lab."""
        delay = RESTART_AFTER
        while True:
            started = time.monotonic()
            with self._log.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
                )
            self.pid, self.starts = process.pid, self.starts + 1
            try:
                await process.wait()
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                raise
            delay = RESTART_AFTER if time.monotonic() - started > STEADY else min(2 * delay, RESTART_AT_MOST)
            await asyncio.sleep(delay)

    def last_lines(self, count: int = 8) -> str:
        """The end of what it printed."""
        if not self._log.exists():
            return ""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-count:])


class NotReady(Exception):
    """A part of the lab did not come up in time; the text names it and shows the end of its log."""


async def until(
    what: str, ready: Callable[[], object], seconds: float, daemon: Daemon | None = None, every: float = 0.1
) -> None:
    """Wait until *ready* (plain or asynchronous, may raise OSError) is true. Raises `NotReady`.

    After *seconds*, or as soon as *daemon* has ended again and again.
    """
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with suppress(OSError):
            answer = ready()
            if asyncio.iscoroutine(answer):
                answer = await answer
            if answer:
                return
        if daemon is not None and daemon.starts > 3:
            break
        await asyncio.sleep(every)
    tail = f":\n{daemon.last_lines()}" if daemon is not None else ""
    raise NotReady(f"{what} is not ready after {time.monotonic() - began:.0f} s{tail}")
