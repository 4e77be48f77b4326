"""The server's certificates and the registration token, out of Secrets. No I/O."""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import Any

import msgspec

from isthmus.pki import PemInvalid, authority_of
from isthmus.transport import ServerCredentials

Manifest = dict[str, Any]


class SecretNames(msgspec.Struct, frozen=True):
    """Names of the server's Secrets; *token_key* is the key of the token in its Secret."""

    server: str = "relay-server-tls-secret"
    signing: str = "relay-tls-signing-secret"
    token: str = "relay-identity-token-secret"
    token_key: str = "token"


class ServerSecrets:
    """The present content of the server's Secrets.

    Without a signing CA the server issues no certificates, without a token it admits no new agents; both may be on
    purpose. Without its own certificate it can't listen.
    """

    def __init__(self, names: SecretNames) -> None:
        self._names = names
        self._data: dict[str, Mapping[str, bytes]] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The Secrets to be told to `take`."""
        return self._names.server, self._names.signing, self._names.token

    def take(self, name: str, secret: Manifest | None) -> None:
        """Take the present state of a Secret, None if there is none."""
        if secret is None:
            self._data.pop(name, None)
            return
        data = {}
        for key, value in (secret.get("data") or {}).items():
            try:
                data[key] = b64decode(value)
            except NotBase64:
                continue  # counts as missing, and is named as such
        self._data[name] = data

    @property
    def token(self) -> str | None:
        """The registration token."""
        token = self._data.get(self._names.token, {}).get(self._names.token_key)
        return token.decode(errors="replace").strip() if token else None

    def credentials(self) -> ServerCredentials:
        """What the relay listens with. Raises `PemInvalid`, naming the Secret and the key that is wrong."""
        name = self._names.server
        server = self._data.get(name)
        if server is None:
            raise PemInvalid(f"Secret {name} does not exist")
        if missing := [key for key in ("tls.crt", "tls.key", "ca.crt") if not server.get(key)]:
            raise PemInvalid(f"Secret {name} lacks {', '.join(missing)}")
        signing = self._data.get(self._names.signing)
        try:
            authority = authority_of(signing) if signing is not None else None
        except PemInvalid as error:
            raise PemInvalid(f"Secret {self._names.signing}: {error}") from error
        return ServerCredentials(server["tls.crt"], server["tls.key"], server["ca.crt"], authority)
