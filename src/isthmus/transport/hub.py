"""What the server program provides to `RelayServer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from isthmus.pki import Authority
from isthmus.relay import Publication, Subscriber


class Refused(Exception):
    """The hub does not want this cluster's agent; the text says why and what would do."""


class TokenRefused(Exception):
    """The token does not admit this cluster; the text says why and what would do."""


class Hub(Protocol):
    """Where the streams of all clusters end. Calls for one cluster never overlap two of its streams."""

    def admit(self, cluster: str) -> None:
        """Return if the cluster is registered; raise `Refused` if not."""
        ...

    def publication(self, cluster: str) -> Publication:
        """What this cluster shall hold."""
        ...

    def subscriber(self, cluster: str) -> Subscriber:
        """Who receives what this cluster reports."""
        ...

    def connected(self, cluster: str) -> None:
        """The agent's stream is open and accepted."""
        ...

    def disconnected(self, cluster: str, reason: str) -> None:
        """The stream that `connected` announced has ended."""
        ...


class IdentityLedger(Protocol):
    """Who decides over registration tokens."""

    async def redeem(self, cluster: str, token: str, key: str) -> None:
        """Accept *token* for *cluster*, once, or raise `TokenRefused`.

        *key* is the fingerprint of the public key that the certificate is for. The same token, cluster and key
        may come again: then the agent has not received the first answer.
        """
        ...


@dataclass(frozen=True)
class ServerCredentials:
    """Who the server is and whose certificates it accepts, all PEM.

    *chain* and *key* are `tls.crt` and `tls.key` of relay-server-tls-secret, *trust* the roots that clients'
    certificates must lead to (`ca.crt`). *signing* signs agents' certificates; None if the server issues none.
    """

    chain: bytes
    key: bytes = field(repr=False)
    trust: bytes
    signing: Authority | None = None
