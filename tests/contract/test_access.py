"""Who is let in: client certificates and bearer tokens of this server, nobody else."""

from __future__ import annotations

import ssl

import httpx2
import pytest

from tests.contract.server import Server

PATH = "/api/v1/namespaces/default/configmaps"


def test_without_credentials(server: Server) -> None:
    """Nobody in particular sees no objects."""
    with server.anonymous() as client:
        answer = client.get(PATH)

    assert answer.status_code in (401, 403)
    assert answer.json()["kind"] == "Status"


def test_with_unknown_token(server: Server) -> None:
    """A token that the server does not know is refused."""
    with server.anonymous(authorization="Bearer nonsense") as client:
        answer = client.get(PATH)

    assert answer.status_code == 401
    assert answer.json()["reason"] == "Unauthorized"


def test_health_is_open(server: Server) -> None:
    """A load balancer may ask whether the server is alive without credentials."""
    with server.anonymous() as client:
        assert client.get("/readyz").text == "ok"


def test_server_shows_its_certificate(server: Server) -> None:
    """A client that trusts other authorities only does not talk to it."""
    stranger = ssl.create_default_context()
    with httpx2.Client(verify=stranger, trust_env=False) as client, pytest.raises(httpx2.ConnectError):
        client.get(server.url + PATH)
