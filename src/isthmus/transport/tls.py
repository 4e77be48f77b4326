"""TLS contexts of both ends, and the names in the other end's certificate."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isthmus.pki import PemInvalid
from isthmus.transport.credentials import ClientIdentity
from isthmus.transport.hub import ServerCredentials

# X509_V_FLAG_NO_CHECK_TIME of OpenSSL. The server reads the dates itself, so that an agent with an expired certificate
# gets an answer in words; a failed handshake would only break the link.
_NO_CHECK_TIME = 0x200000


def server_context(credentials: ServerCredentials) -> ssl.SSLContext:
    """A context that asks for client certificates, and also lets agents in that have none yet. Raises `PemInvalid`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME)
    # A resumed session would carry an identity past a change of trust.
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    _common(context)
    _load(context, credentials.chain, credentials.key)
    _trust(context, credentials.trust)
    return context


def client_context(root: bytes, identity: ClientIdentity | None) -> ssl.SSLContext:
    """A context that trusts *root* and shows *identity*. The caller checks the server's name. Raises `PemInvalid`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # OpenSSL does not take *.gloo-mesh, the name that relay-server-tls-secret has, for a wildcard; `names_server` does.
    context.check_hostname = False
    context.verify_flags |= ssl.VerifyFlags(ssl.VERIFY_X509_PARTIAL_CHAIN)
    _common(context)
    if identity is not None:
        _load(context, identity.chain, identity.key)
    _trust(context, root)
    return context


def names_in(certificate: dict[str, Any] | None) -> tuple[str, ...]:
    """The DNS names and addresses of a certificate as `ssl.SSLSocket.getpeercert` returns it."""
    names = (certificate or {}).get("subjectAltName", ())
    return tuple(value for kind, value in names if kind in ("DNS", "IP Address"))


def dns_names_in(certificate: dict[str, Any] | None) -> tuple[str, ...]:
    """The DNS names of a certificate as `ssl.SSLSocket.getpeercert` returns it."""
    return tuple(value for kind, value in (certificate or {}).get("subjectAltName", ()) if kind == "DNS")


def names_server(names: tuple[str, ...], authority: str) -> bool:
    """Whether a certificate with *names* is one for *authority*; `*` stands for one whole label, the first.

    Source: RFC 9525, section 6.3.
    """
    wanted = authority.lower().rstrip(".")
    _, dot, parent = wanted.partition(".")
    return any(name.lower().rstrip(".") in (wanted, f"*{dot}{parent}" if dot else wanted) for name in names)


def _common(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])


def _trust(context: ssl.SSLContext, roots: bytes) -> None:
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise PemInvalid(f"ca.crt: not PEM certificates: {error}") from error


def _load(context: ssl.SSLContext, chain: bytes, key: bytes) -> None:
    try:
        with _as_file(chain.rstrip() + b"\n" + key) as path:
            context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise PemInvalid(f"tls.crt and tls.key: not a PEM certificate and its key: {error}") from error


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """A path under which *content* can be read meanwhile: `ssl` takes keys only from files."""
    if hasattr(os, "memfd_create"):
        # In memory: a container's file system may be read-only, and a disk is no place for a key.
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
