"""What the agent program provides to `RelayClient`: where its secrets are kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True)
class ClientIdentity:
    """A client certificate: *chain* (leaf, signing CA, root), its private *key* and the root *ca*, all PEM.

    They are `tls.crt`, `tls.key` and `ca.crt` of relay-client-tls-secret.
    """

    chain: bytes
    key: bytes = field(repr=False)
    ca: bytes


@dataclass(frozen=True)
class ClientCredentials:
    """What the agent has at the moment.

    *root* (PEM) is what the server's certificate must lead to while there is no *identity*; *token* buys the first
    identity. *pending_key* is the private key (PEM) of a certificate that was asked for and has not arrived.
    """

    root: bytes | None = None
    token: str | None = field(default=None, repr=False)
    identity: ClientIdentity | None = None
    pending_key: bytes | None = field(default=None, repr=False)


class CredentialStore(Protocol):
    """The agent's secrets, on its own cluster."""

    async def load(self) -> ClientCredentials:
        """What is there now; asked before every connection."""
        ...

    async def save_pending(self, key: bytes) -> None:
        """Keep the private key (PEM) whose certificate is about to be asked for.

        With it an answer that got lost can be asked for again.
        """
        ...

    async def save(self, identity: ClientIdentity) -> None:
        """Keep the identity; the pending key and the token have done their work."""
        ...
