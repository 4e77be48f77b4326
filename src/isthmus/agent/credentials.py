"""The agent's identity, kept in Secrets of its own cluster.

| Secret                  | keys                         | who writes it                                   |
|-------------------------|------------------------------|-------------------------------------------------|
| root (`ca.crt`)         | `ca.crt`                     | registration, or the user                       |
| token                   | `token`, or as configured    | registration, or the user                       |
| client                  | `tls.crt`, `tls.key`, `ca.crt` | the agent, once it has a certificate            |
| client name + `-pending` | `tls.key`                    | the agent, between request and answer           |

Source: reference, relay, secrets. The last one is ours: an answer that got lost is asked for again with the same key.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

import msgspec

from isthmus.kube import KubeClient, KubeError, NotFound
from isthmus.model.kinds import SECRET
from isthmus.transport import ClientCredentials, ClientIdentity, NoCredentials


class SecretAt(msgspec.Struct, frozen=True):
    """Where a Secret is."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class SecretNames(msgspec.Struct, frozen=True):
    """Where the agent's secrets are; *token_key* is the key of the token in its Secret."""

    client: SecretAt
    root: SecretAt
    token: SecretAt
    token_key: str = "token"

    @property
    def pending(self) -> SecretAt:
        """Where a key waits for its certificate."""
        return SecretAt(self.client.namespace, f"{self.client.name}-pending")


class SecretStore:
    """The relay client's credential store. Raises `NoCredentials` when the cluster does not answer."""

    def __init__(self, kube: KubeClient, names: SecretNames) -> None:
        self._kube = kube
        self._names = names

    async def load(self) -> ClientCredentials:
        """What is there now."""
        names = self._names
        client, root, token, pending = await asyncio.gather(
            self._read(names.client), self._read(names.root), self._read(names.token), self._read(names.pending)
        )
        identity = None
        ca = client.get("ca.crt") or root.get("ca.crt")
        if (chain := client.get("tls.crt")) and (key := client.get("tls.key")) and ca:
            identity = ClientIdentity(chain=chain, key=key, ca=ca)
        secret = token.get(names.token_key)
        return ClientCredentials(
            root=root.get("ca.crt"),
            token=secret.decode(errors="replace").strip() if secret else None,
            identity=identity,
            pending_key=pending.get("tls.key"),
        )

    async def save_pending(self, key: bytes) -> None:
        """Keep a private key until its certificate has come."""
        await self._write(self._names.pending, {"tls.key": key})

    async def save(self, identity: ClientIdentity) -> None:
        """Keep an identity, and drop the pending key, which is the identity's own."""
        await self._write(
            self._names.client, {"tls.crt": identity.chain, "tls.key": identity.key, "ca.crt": identity.ca}
        )
        try:
            await self._kube.delete(SECRET, self._names.pending.namespace, self._names.pending.name)
        except KubeError as error:
            raise NoCredentials(f"the pending key cannot be deleted: {error}") from error

    async def _read(self, at: SecretAt) -> Mapping[str, bytes]:
        try:
            secret = await self._kube.get(SECRET, at.namespace, at.name)
        except NotFound:
            return {}
        except KubeError as error:
            raise NoCredentials(f"Secret {at} cannot be read: {error}") from error
        try:
            return {key: b64decode(value) for key, value in (secret.get("data") or {}).items()}
        except NotBase64 as error:
            raise NoCredentials(f"Secret {at} holds a value that is not base64") from error

    async def _write(self, at: SecretAt, data: Mapping[str, bytes]) -> None:
        manifest = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": at.namespace, "name": at.name},
            "type": "Opaque",
            "data": {key: b64encode(value).decode() for key, value in data.items()},
        }
        try:
            await self._kube.apply(SECRET, manifest, force=True)
        except KubeError as error:
            raise NoCredentials(f"Secret {at} cannot be written: {error}") from error
