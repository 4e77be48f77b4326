"""One connection from an agent to the server, and what its failures mean.

Some names of grpclib that begin with an underscore are used here, and only here: its channel has no public way to set
the authority, to look at the server's certificate, or to learn why a connection was lost.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from asyncio import BaseTransport, Transport
from dataclasses import dataclass
from typing import Self, cast

from grpclib.client import Channel, Handler
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import H2Protocol

from isthmus.pki import PemInvalid
from isthmus.transport.credentials import ClientIdentity
from isthmus.transport.errors import (
    IdentityRefused,
    Incompatible,
    NoCredentials,
    NotRegistered,
    RelayError,
    Replaced,
    ServerNotTrusted,
    Unreachable,
)
from isthmus.transport.stream import keep_watch
from isthmus.transport.tls import client_context, names_in, names_server

# What the server's gRPC status says about the link; any other is a failure that may pass.
ERROR_OF_STATUS: dict[Status, type[RelayError]] = {
    Status.UNAUTHENTICATED: IdentityRefused,
    Status.PERMISSION_DENIED: IdentityRefused,
    Status.NOT_FOUND: NotRegistered,
    Status.ABORTED: Replaced,
    Status.FAILED_PRECONDITION: Incompatible,
    Status.INVALID_ARGUMENT: Incompatible,
    Status.UNIMPLEMENTED: Incompatible,
}


@dataclass(frozen=True)
class Target:
    """Where the server is, and the name that its certificate must have."""

    host: str
    port: int
    authority: str

    @classmethod
    def parse(cls, address: str, authority: str) -> Self:
        """The target at *address*, `host:port` without a scheme. Raises ValueError."""
        found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:/\[\]]+)):(\d{1,5})", address)
        if found is None or not 0 < int(found[3]) < 65536:
            raise ValueError(f"{address!r} is not an address such as relay.example.com:9900 or [2001:db8::1]:9900")
        return cls(found[1] or found[2], int(found[3]), authority)

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class _Protocol(H2Protocol):
    """Remembers whether the server has said anything, and why the connection ended."""

    transport: Transport | None = None
    answered = False
    lost: BaseException | None = None

    def connection_made(self, transport: BaseTransport) -> None:
        self.transport = cast(Transport, transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.answered = True
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost = exc
        super().connection_lost(exc)


class Link(Channel):
    """A connection to *target*: plain text without *context*, with a client certificate if *context* has *identity*."""

    def __init__(self, target: Target, context: ssl.SSLContext | None, identity: ClientIdentity | None) -> None:
        super().__init__(target.host, target.port, ssl=context)
        self._authority = target.authority
        self._target = target
        self._identity = identity
        self._made: _Protocol | None = None

    async def _create_connection(self) -> H2Protocol:
        if self._made is not None:
            raise Unreachable(f"the link to {self._target.address} broke")  # a new one is for the next try
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(
            lambda: _Protocol(Handler(), self._config, self._h2_config),
            self._target.host,
            self._target.port,
            ssl=self._ssl or None,
            server_hostname=self._target.authority if self._ssl else None,
        )
        self._made = protocol
        assert protocol.transport is not None
        keep_watch(protocol.transport.get_extra_info("socket"))
        return protocol

    def server_names(self) -> tuple[str, ...]:
        """The names in the server's certificate."""
        assert self._made is not None
        assert self._made.transport is not None
        return names_in(self._made.transport.get_extra_info("peercert"))

    def abort(self) -> None:
        """End the connection now, whatever is still to be sent."""
        if self._made is not None and self._made.transport is not None:
            self._made.transport.abort()
        self.close()

    def explain(self, error: Exception) -> RelayError:
        """What *error*, on this connection, means."""
        address = self._target.address
        if isinstance(error, RelayError):
            return error
        if isinstance(error, GRPCError):
            text = error.message or error.status.name
            return ERROR_OF_STATUS.get(error.status, Unreachable)(f"{address}: {text}")
        if self._made is not None and not self._made.answered:
            # In TLS 1.3 the client is done first; a server that dislikes its certificate hangs up without a word.
            if self._identity is not None:
                return IdentityRefused(
                    f"{address} hung up when it saw the client certificate: most likely it is not from a CA that the "
                    "server trusts; register the cluster again to give its agent a new token"
                )
            if not self._ssl:
                return Incompatible(
                    f"{address} hung up at the first word; if it expects TLS, insecure mode must be off at this end too"
                )
        reason = self._made.lost if self._made is not None and self._made.lost else error
        return Unreachable(f"the link to {address} broke: {reason}")


async def dial(target: Target, *, trust: bytes | None, identity: ClientIdentity | None, seconds: float) -> Link:
    """A connection to a server that proved to be *target*'s authority under the roots in *trust* (None: plain text).

    `Link.abort` ends it. Raises `RelayError`.
    """
    try:
        context = client_context(trust, identity) if trust is not None else None
    except PemInvalid as error:
        raise NoCredentials(f"relay-root-tls-secret or relay-client-tls-secret: {error}") from error
    link = Link(target, context, identity)
    try:
        async with asyncio.timeout(seconds):
            await link.__connect__()
        if context is not None and not names_server(link.server_names(), target.authority):
            raise ServerNotTrusted(
                f"the certificate of {target.address} is for {', '.join(link.server_names()) or 'no name'}, not for "
                f"{target.authority}; set the relay's authority to a name that the certificate has"
            )
    except TimeoutError as error:
        link.abort()
        raise Unreachable(
            f"{target.address} does not answer within {seconds:g} seconds; can this cluster reach it?"
        ) from error
    except (OSError, RelayError) as error:
        link.abort()
        raise _explain_dial(target, error) from error
    except BaseException:
        link.abort()
        raise
    return link


def _explain_dial(target: Target, error: OSError | RelayError) -> RelayError:
    address = target.address
    match error:
        case RelayError():
            return error
        case ssl.SSLCertVerificationError():
            return ServerNotTrusted(
                f"the certificate of {address} does not lead to the root in relay-root-tls-secret "
                f"({error.verify_message}); put the management cluster's ca.crt there, or register the cluster again"
            )
        case ssl.SSLError() if error.reason in ("WRONG_VERSION_NUMBER", "UNEXPECTED_EOF_WHILE_READING"):
            return Incompatible(f"{address} does not speak TLS; is it the relay, and is it in insecure mode?")
        case ssl.SSLError():
            return Unreachable(f"TLS with {address} failed: {error.reason or error}")
        case socket.gaierror():
            return Unreachable(f"the name {target.host} cannot be resolved: {error.strerror}")
        case _:
            return Unreachable(f"nobody answers at {address}: {error.strerror or error}; can this cluster reach it?")
