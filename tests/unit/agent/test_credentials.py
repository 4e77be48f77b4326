"""The agent's identity survives in Secrets."""

from __future__ import annotations

from base64 import b64encode

import pytest

from isthmus.agent.credentials import SecretAt, SecretNames, SecretStore
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import SECRET
from isthmus.transport import ClientCredentials, ClientIdentity

NAMES = SecretNames(
    client=SecretAt("gloo-mesh", "relay-client-tls-secret"),
    root=SecretAt("gloo-mesh", "relay-root-tls-secret"),
    token=SecretAt("gloo-mesh", "relay-identity-token-secret"),
)


async def put(kube: KubeClient, name: str, data: dict[str, bytes]) -> None:
    await kube.create(
        SECRET,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"namespace": "gloo-mesh", "name": name},
            "data": {key: b64encode(value).decode() for key, value in data.items()},
        },
    )


async def test_without_secrets_there_is_nothing(kube: KubeClient) -> None:
    assert await SecretStore(kube, NAMES).load() == ClientCredentials()


async def test_what_registration_put_there_is_found(kube: KubeClient) -> None:
    await put(kube, "relay-root-tls-secret", {"ca.crt": b"root"})
    await put(kube, "relay-identity-token-secret", {"token": b"secret\n"})

    assert await SecretStore(kube, NAMES).load() == ClientCredentials(root=b"root", token="secret")


async def test_an_identity_is_kept_and_its_pending_key_dropped(kube: KubeClient) -> None:
    store = SecretStore(kube, NAMES)
    await store.save_pending(b"key")
    assert (await store.load()).pending_key == b"key"

    identity = ClientIdentity(chain=b"chain", key=b"key", ca=b"ca")
    await store.save(identity)

    found = await store.load()
    assert found.identity == identity
    assert found.pending_key is None
    with pytest.raises(NotFound):
        await kube.get(SECRET, "gloo-mesh", "relay-client-tls-secret-pending")


async def test_a_renewed_identity_takes_the_place_of_the_old_one(kube: KubeClient) -> None:
    store = SecretStore(kube, NAMES)
    await store.save(ClientIdentity(chain=b"1", key=b"1", ca=b"1"))

    await store.save(ClientIdentity(chain=b"2", key=b"2", ca=b"2"))

    assert (await store.load()).identity == ClientIdentity(chain=b"2", key=b"2", ca=b"2")
