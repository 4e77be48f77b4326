"""The agent's end of the relay: gets an identity, keeps a stream to the server open, renews the identity in time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from isthmus.relay import Publication, Subscriber
from isthmus.transport.credentials import CredentialStore
from isthmus.transport.errors import RelayError
from isthmus.transport.server import utc_now
from isthmus.transport.traffic import Traffic

DEFAULT_AUTHORITY = "enterprise-networking.gloo-mesh"


class LinkObserver(Protocol):
    """Who is told how the link fares, for logs and metrics."""

    def connected(self) -> None:
        """The server has accepted the stream."""
        ...

    def disconnected(self, error: RelayError, retry_in: float) -> None:
        """The stream ended, or none came about; the next try is in *retry_in* seconds."""
        ...

    def issued(self, not_after: datetime) -> None:
        """A new client certificate has been saved."""
        ...


class RelayClient:
    """Keeps one cluster's link to the server at *address* (`host:port`).

    Without *credentials* in plain text and without an identity (insecure mode).
    """

    def __init__(
        self,
        *,
        cluster: str,
        address: str,
        publication: Publication,
        subscriber: Subscriber,
        credentials: CredentialStore | None,
        authority: str = DEFAULT_AUTHORITY,
        observer: LinkObserver | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        raise NotImplementedError

    @property
    def traffic(self) -> Traffic:
        """Counters of this link."""
        raise NotImplementedError

    async def run(self) -> None:
        """Keep the link up until cancelled; trouble goes to the observer and is tried again with growing pauses."""
        raise NotImplementedError
