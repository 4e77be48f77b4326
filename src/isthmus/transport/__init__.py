"""The relay on the wire: gRPC over mutual TLS on port 9900. The programs' door to `isthmus.relay` and `isthmus.pki`."""

from isthmus.transport.client import DEFAULT_AUTHORITY, LinkObserver, RelayClient
from isthmus.transport.credentials import ClientCredentials, ClientIdentity, CredentialStore
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
from isthmus.transport.hub import Hub, IdentityLedger, Refused, ServerCredentials, TokenRefused
from isthmus.transport.server import RelayServer
from isthmus.transport.stream import Pace
from isthmus.transport.traffic import Traffic

__all__ = [
    "DEFAULT_AUTHORITY",
    "ClientCredentials",
    "ClientIdentity",
    "CredentialStore",
    "Hub",
    "IdentityLedger",
    "IdentityRefused",
    "Incompatible",
    "LinkObserver",
    "NoCredentials",
    "NotRegistered",
    "Pace",
    "Refused",
    "RelayClient",
    "RelayError",
    "RelayServer",
    "Replaced",
    "ServerCredentials",
    "ServerNotTrusted",
    "TokenRefused",
    "Traffic",
    "Unreachable",
]
