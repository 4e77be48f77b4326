"""A port is kept for a server that is not there yet, or away."""

from __future__ import annotations

import socket

import pytest

from isthmus.embedded.ports import held_port


def test_a_held_port_is_its_servers_alone() -> None:
    """The server may come twice; who connects in between is refused, and nobody else is given the port."""
    with held_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        for _ in range(2):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
