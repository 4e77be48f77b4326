"""What the server must remember and no other object says, in ConfigMaps of its namespace.

| ConfigMap            | key              | value                                                                     |
|----------------------|------------------|---------------------------------------------------------------------------|
| federation-addresses | `addresses.json` | host names whose address is not the one of their hash, as one JSON object |
| last-known-state     | cluster name     | uid of the KubernetesCluster all of whose discovered objects are stored   |
| relay-identities     | cluster name     | the certificate request that the token was redeemed for, see `ledger`      |
| shared-trust         | VirtualMesh      | which root is rolled out and which replaces it, see `roots`; no keys       |
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

from isthmus.kube import AlreadyExists, KubeClient, NotFound
from isthmus.model.kinds import CONFIG_MAP

ADDRESSES = "federation-addresses"
LAST_KNOWN = "last-known-state"
IDENTITIES = "relay-identities"
TRUST = "shared-trust"

_ADDRESSES_KEY = "addresses.json"


class Notes:
    """The ConfigMaps of one installation."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def read(self, name: str) -> dict[str, str]:
        """All that *name* holds; nothing if it does not exist."""
        try:
            found = await self._kube.get(CONFIG_MAP, self._namespace, name)
        except NotFound:
            return {}
        return dict(found.get("data") or {})

    async def write(self, name: str, changes: Mapping[str, str | None]) -> None:
        """Change entries of *name*, None to remove one."""
        patch = {"data": dict(changes)}
        try:
            await self._kube.patch(CONFIG_MAP, self._namespace, name, patch)
        except NotFound:
            fresh = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"namespace": self._namespace, "name": name},
                "data": {key: value for key, value in changes.items() if value is not None},
            }
            try:
                await self._kube.create(CONFIG_MAP, fresh)
            except AlreadyExists:
                await self._kube.patch(CONFIG_MAP, self._namespace, name, patch)

    async def addresses(self) -> dict[str, str]:
        """The displaced addresses of federated host names."""
        text = (await self.read(ADDRESSES)).get(_ADDRESSES_KEY)
        return dict(orjson.loads(text)) if text else {}

    async def keep_addresses(self, addresses: Mapping[str, str]) -> None:
        """Remember the displaced addresses."""
        text = orjson.dumps(dict(addresses), option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2).decode()
        await self.write(ADDRESSES, {_ADDRESSES_KEY: text})
