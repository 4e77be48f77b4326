"""`kubectl logs`: what a container has printed, from a log file in the CRI's format.

A line of the file is ``2016-10-06T00:17:09.669794202Z stdout F text``: when, which stream, F for a full line or P for
the part of one that the next continues, and the text.
Source: k8s.io/cri-client/pkg/logs, whose order of options is kept: tail counts lines of the file, then *since* filters.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

BLOCK = 2**16
POLL_SECONDS = 0.1  # of a log that is followed: what a person takes for at once
STREAMS = {"All": b"", "Stdout": b"stdout", "Stderr": b"stderr"}


class BadOptions(ValueError):
    """The request asks for what is none; the text says what."""


@dataclass(frozen=True)
class LogOptions:
    """What to show of a log; the fields of Kubernetes' PodLogOptions."""

    follow: bool = False
    previous: bool = False
    timestamps: bool = False
    tail: int | None = None
    since: datetime | None = None
    limit: int | None = None
    stream: bytes = b""

    @classmethod
    def of(cls, query: Mapping[str, str], now: datetime) -> LogOptions:
        """As the query parameters say. Raises `BadOptions`."""

        def number(name: str) -> int | None:
            text = query.get(name)
            if text is not None and not text.isdecimal():
                raise BadOptions(f"{name}: {text!r} is not a count")
            return None if text is None else int(text)

        try:
            since = datetime.fromisoformat(query["sinceTime"]) if "sinceTime" in query else None
            if since is not None and since.tzinfo is None:
                raise ValueError
        except ValueError:
            raise BadOptions(f"sinceTime: {query['sinceTime']!r} is not a time such as {now.isoformat()}") from None
        seconds = number("sinceSeconds")
        stream = query.get("stream", "All")
        if stream not in STREAMS:
            raise BadOptions(f"stream: {stream!r} is none of {', '.join(STREAMS)}")
        return cls(
            follow=_true(query.get("follow")),
            previous=_true(query.get("previous")),
            timestamps=_true(query.get("timestamps")),
            tail=number("tailLines"),
            since=now - timedelta(seconds=seconds) if seconds is not None else since,
            limit=number("limitBytes"),
            stream=STREAMS[stream],
        )


async def read_log(path: Path, options: LogOptions, ended: asyncio.Future[int] | None) -> AsyncIterator[bytes]:
    """What *options* ask for of the log at *path*, in pieces.

    Followed until *ended*, the container's end; None when it has ended already. The runtime starts a new file when one
    has grown large; only what follows continues there.
    """
    shown = _Shown(options)
    with ExitStack() as opened:
        file = opened.enter_context(path.open("rb"))
        if options.tail is not None:
            file.seek(tail_start(file, options.tail))
        rest = b""
        while not shown.enough:
            last = not options.follow or ended is None or ended.done()
            complete = last or _is_another(path, file)
            block = file.read(BLOCK)
            if block:
                *lines, rest = (rest + block).split(b"\n")
                if piece := b"".join(shown.texts(lines)):
                    yield piece
                await asyncio.sleep(0)  # a long log must not hold up the other pods
            elif complete and _is_another(path, file):
                file, rest = opened.enter_context(path.open("rb")), b""
            elif last or ended is None:
                return
            else:
                await asyncio.wait((ended,), timeout=POLL_SECONDS)


def _is_another(path: Path, file: IO[bytes]) -> bool:
    """Whether *file* was moved away and its writer goes on in a new one at *path*."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:  # not yet there, or no more
        return False


def tail_start(file: IO[bytes], count: int) -> int:
    """Where the last *count* lines of *file* start. What follows the last line's end counts for nothing."""
    right = file.seek(0, 2)
    wanted = count + 1  # the line end before the first of them
    while right > 0:
        left = max(0, right - BLOCK)
        file.seek(left)
        block = file.read(right - left)
        found = block.count(b"\n")
        if found >= wanted:
            at = len(block)
            for _ in range(wanted):
                at = block.rfind(b"\n", 0, at)
            return left + at + 1
        wanted -= found
        right = left
    return 0


class _Shown:
    """Turns lines of the file into what is printed, until there is enough of it."""

    def __init__(self, options: LogOptions) -> None:
        self._options = options
        self._left = options.limit
        self._waiting = options.since is not None
        self._continues = False

    @property
    def enough(self) -> bool:
        return self._left is not None and self._left <= 0

    def texts(self, lines: Iterable[bytes]) -> Iterable[bytes]:
        for line in lines:
            when, stream, tag, text = (*line.split(b" ", 3), b"", b"", b"")[:4]
            if self._options.stream and stream != self._options.stream:
                continue
            if self._waiting and self._too_old(when):
                continue
            prefix = when + b" " if self._options.timestamps and not self._continues else b""
            self._continues = tag.split(b":", 1)[0] == b"P"
            shown = prefix + text + (b"" if self._continues else b"\n")
            if self._left is not None:
                shown = shown[: self._left]
                self._left -= len(shown)
            yield shown

    def _too_old(self, when: bytes) -> bool:
        assert self._options.since is not None
        try:
            self._waiting = datetime.fromisoformat(when.decode()) < self._options.since
        except (ValueError, TypeError):  # not ours to judge, so it is shown
            return False
        return self._waiting


def _true(text: str | None) -> bool:
    return text is not None and text.lower() in ("1", "t", "true")


def now() -> datetime:
    """The time that *since* counts from."""
    return datetime.now(UTC)
