"""Ports for servers that are told theirs before they start, or come back to it."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def held_port() -> Iterator[int]:
    """A port of 127.0.0.1 that nobody else is given meanwhile; a server may listen on it, and go, and come back.

    Linux lets a socket listen on the port of one that only holds it, if both allow the reuse of addresses.
    """
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]
