"""Who may have a certificate: every registered cluster once, for the registration token.

A registration is one KubernetesCluster object: with a new one, or after `meshctl cluster register` has dropped the
entry, the token is good once more.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping

import msgspec
import structlog

from isthmus.kube import KubeError
from isthmus.server.fleet import Fleet
from isthmus.server.notes import IDENTITIES, Notes
from isthmus.transport import TokenRefused

log = structlog.get_logger("isthmus.identity")


class Entry(msgspec.Struct, frozen=True):
    """The token was redeemed for the public key with fingerprint *key*.

    *registration* is the uid of the KubernetesCluster of that time.
    """

    registration: str
    key: str


def read_entries(data: Mapping[str, str]) -> dict[str, Entry]:
    """The entries that the ConfigMap holds, by cluster; what is none is left out, so that it blocks nobody."""
    entries = {}
    for cluster, text in data.items():
        try:
            entries[cluster] = msgspec.json.decode(text, type=Entry)
        except msgspec.MsgspecError:
            continue
    return entries


def decide(
    cluster: str, token: str, key: str, *, registration: str | None, expected: str | None, entry: Entry | None
) -> Entry | None:
    """The entry to write before a certificate may be signed, None if it is there already. Raises `TokenRefused`.

    *registration* is that of the cluster if it is registered, *expected* the token if there is one.
    """
    if expected is None or not hmac.compare_digest(token.strip().encode(), expected.strip().encode()):
        raise TokenRefused("the registration token is not the one of this management plane; register the cluster again")
    if registration is None:
        raise TokenRefused(f"cluster {cluster} is not registered yet: it has no KubernetesCluster object")
    if entry is None or entry.registration != registration:
        return Entry(registration, key)
    if entry.key == key:
        return None
    raise TokenRefused(
        f"the registration token has been used for cluster {cluster} before; "
        "if its agent has lost its certificate, register the cluster again"
    )


class Ledger:
    """The relay's identity ledger."""

    def __init__(self, fleet: Fleet, notes: Notes) -> None:
        self._fleet = fleet
        self._notes = notes
        self._entries: dict[str, Entry] = {}
        self._one_at_a_time = asyncio.Lock()
        self.token: str | None = None

    def replace(self, data: Mapping[str, str]) -> None:
        """Take the content of the ConfigMap."""
        self._entries = read_entries(data)

    async def redeem(self, cluster: str, token: str, key: str) -> None:
        """Accept *token* for *cluster* and remember it, or raise `TokenRefused`."""
        async with self._one_at_a_time:
            registered = self._fleet.clusters.get(cluster)
            entry = decide(
                cluster,
                token,
                key,
                registration=registered.registration if registered is not None else None,
                expected=self.token,
                entry=self._entries.get(cluster),
            )
            if entry is None:
                return
            try:
                await self._notes.write(IDENTITIES, {cluster: msgspec.json.encode(entry).decode()})
            except KubeError as error:
                raise TokenRefused(f"the management plane cannot take note of the token: {error}") from error
            self._entries[cluster] = entry
            log.info("token redeemed", cluster=cluster)
