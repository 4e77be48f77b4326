"""The server's end of the relay: listens, holds every stream to its certificate's cluster, signs certificates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from isthmus.transport.hub import Hub, IdentityLedger, ServerCredentials
from isthmus.transport.traffic import Traffic


def utc_now() -> datetime:
    """The time of the wall clock."""
    return datetime.now(UTC)


class RelayServer:
    """Listens for agents. Without *tls* in plain text and without identities (insecure mode)."""

    def __init__(
        self,
        *,
        hub: Hub,
        ledger: IdentityLedger | None = None,
        tls: ServerCredentials | None,
        host: str = "0.0.0.0",
        port: int = 9900,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        raise NotImplementedError

    @property
    def port(self) -> int:
        """The port that it listens on."""
        raise NotImplementedError

    @property
    def traffic(self) -> Mapping[str, Traffic]:
        """Counters of every cluster that ever connected."""
        raise NotImplementedError

    async def start(self) -> None:
        """Listen."""
        raise NotImplementedError

    def reload(self, tls: ServerCredentials) -> None:
        """Use *tls* for connections made from now on."""
        raise NotImplementedError

    def disconnect(self, cluster: str, reason: str) -> None:
        """End the cluster's stream, if there is one; the agent is told *reason* and will try again."""
        raise NotImplementedError

    async def close(self) -> None:
        """End all streams and stop listening."""
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
