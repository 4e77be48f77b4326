"""Certificates and tokens: what the Secrets of the management cluster say holds, also after they change."""

from __future__ import annotations

import asyncio
import itertools
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from isthmus.pki import make_relay_secrets
from isthmus.server.secrets import SecretNames, ServerSecrets
from isthmus.transport import ClientCredentials, ClientIdentity, RelayClient
from tests.unit.server.conftest import Agent, Plane, until


class Memory:
    """An agent's credential store."""

    def __init__(self, root: bytes, token: str) -> None:
        self.credentials = ClientCredentials(root=root, token=token)

    async def load(self) -> ClientCredentials:
        return self.credentials

    async def save_pending(self, key: bytes) -> None:
        self.credentials = ClientCredentials(self.credentials.root, self.credentials.token, None, key)

    async def save(self, identity: ClientIdentity) -> None:
        self.credentials = ClientCredentials(self.credentials.root, None, identity, None)


def secret(name: str, data: dict[str, bytes]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": "gloo-mesh"},
        "data": {key: b64encode(value).decode() for key, value in data.items()},
    }


def certificates() -> dict[str, dict[str, bytes]]:
    return make_relay_secrets(now=datetime.now(UTC), serials=itertools.count(1))


class SecureAgent(Agent):
    """An agent with a token."""

    def __init__(self, cluster: str, address: str, store: Memory) -> None:
        super().__init__(cluster, address)
        self.client = RelayClient(
            cluster=cluster,
            address=address,
            publication=self.publication,
            subscriber=self,
            credentials=store,
            observer=self,
        )


async def test_a_token_buys_one_certificate_and_certificates_are_reloaded(plane: Plane) -> None:
    made = certificates()
    plane.options = msgspec.structs.replace(plane.options, insecure=False)
    address = f"127.0.0.1:{plane.options.grpc_port}"
    root = made["relay-root-tls-secret"]["ca.crt"]
    await plane.register("a")
    async with plane.server(), asyncio.TaskGroup() as tasks:
        # The server waits for its Secrets.
        await plane.mgmt.load(secret(name, data) for name, data in made.items())
        await plane.mgmt.load([secret("relay-identity-token-secret", {"token": b"secret"})])

        first = SecureAgent("a", address, Memory(root, "secret"))
        running = [tasks.create_task(first.client.run())]
        await until(lambda: first.connections)

        thief = SecureAgent("a", address, Memory(root, "secret"))
        running.append(tasks.create_task(thief.client.run()))
        await until(lambda: any("used for cluster a before" in str(error) for error in thief.errors))
        guesser = SecureAgent("a", address, Memory(root, "guess"))
        running.append(tasks.create_task(guesser.client.run()))
        await until(lambda: any("not the one" in str(error) for error in guesser.errors))

        await plane.mgmt.load(secret(name, data) for name, data in certificates().items())
        late = SecureAgent("a", address, Memory(root, "secret"))
        running.append(tasks.create_task(late.client.run()))
        await until(lambda: any(type(error).__name__ == "ServerNotTrusted" for error in late.errors))
        for task in running:
            task.cancel()


def test_what_is_wrong_with_the_secrets_is_named() -> None:
    made = certificates()
    secrets = ServerSecrets(SecretNames())
    with pytest.raises(ValueError, match="relay-server-tls-secret does not exist"):
        secrets.credentials()

    data = dict(made["relay-server-tls-secret"])
    del data["tls.key"]
    secrets.take("relay-server-tls-secret", secret("", data))
    with pytest.raises(ValueError, match=r"relay-server-tls-secret lacks tls\.key"):
        secrets.credentials()

    secrets.take("relay-server-tls-secret", secret("", made["relay-server-tls-secret"]))
    assert secrets.credentials().signing is None

    secrets.take("relay-tls-signing-secret", secret("", {"tls.crt": b"nonsense"}))
    with pytest.raises(ValueError, match="relay-tls-signing-secret: tls"):
        secrets.credentials()

    secrets.take("relay-tls-signing-secret", secret("", made["relay-tls-signing-secret"]))
    assert secrets.credentials().signing is not None
    assert secrets.token is None
