"""Pipes and terminals between the kubelet's server and a command that it runs in a container.

asyncio's own pipe transports hide two things that matter here: that a command may end while a child of it keeps the
pipe open, and that a terminal whose last user is gone answers with an error.
"""

from __future__ import annotations

import asyncio
import errno
import os
from types import TracebackType

CHUNK = 2**15  # as Go's io.Copy
QUIET_SECONDS = 0.2  # a command that has ended may have left this much of a pause in its terminal's output


class Descriptor:
    """A file descriptor of ours, without blocking; closed once, on leaving it at the latest."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self.fd = fd

    def __enter__(self) -> Descriptor:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it, unless that has been done."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    async def read(self, writer_ended: asyncio.Future[int]) -> bytes:
        """Some bytes; none at the end: nobody could write any more, or *writer_ended* and all that it wrote is read."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return os.read(self.fd, CHUNK)
            except BlockingIOError:
                pass
            except OSError as error:
                if error.errno == errno.EIO:  # a terminal that nobody has open any more
                    return b""
                raise
            readable: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self.fd, _set, readable)
            try:
                quiet = QUIET_SECONDS if writer_ended.done() else None
                ended = () if writer_ended.done() else (writer_ended,)
                done, _ = await asyncio.wait((readable, *ended), timeout=quiet, return_when=asyncio.FIRST_COMPLETED)
            finally:
                loop.remove_reader(self.fd)
            if not done:
                return b""

    async def write(self, data: bytes) -> None:
        """Write all of *data*. Raises `OSError` when nobody reads any more."""
        loop = asyncio.get_running_loop()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self.fd, rest) :]
            except BlockingIOError:
                writable: asyncio.Future[None] = loop.create_future()
                loop.add_writer(self.fd, _set, writable)
                try:
                    await writable
                finally:
                    loop.remove_writer(self.fd)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
