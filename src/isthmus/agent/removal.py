"""What an agent leaves behind when its cluster is deregistered; `meshctl cluster deregister` deletes it.

Not so Istio's `cacerts`: what the mesh's certificates depend on stays with the mesh.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from isthmus.agent.certificates import KEY_TYPE
from isthmus.agent.order import prune_rank, restricts
from isthmus.agent.ownership import is_owned, ownership_labels, selector
from isthmus.istio.kinds import OUTPUT_KINDS
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import CERTIFICATE_REQUEST, SECRET
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

MADE = (CERTIFICATE_REQUEST, SECRET)
"""Of these kinds agents make objects themselves, with private keys in the Secrets; they are deleted after the rest."""
LAST = 1_000


class LeftBehind(msgspec.Struct, frozen=True):
    """An object that the agent wrote; delete it with its *uid* as precondition."""

    kind: Kind
    namespace: str
    name: str
    uid: str


def left_behind(found: Iterable[tuple[Kind, Manifest]], cluster: str, namespace: str) -> tuple[LeftBehind, ...]:
    """Those of the *found* objects that *cluster*'s agent wrote, in the order in which it is safe to delete them."""
    labels = ownership_labels(cluster, namespace)
    owned = [(kind, item) for kind, item in found if is_owned(item, labels) and item.get("type", KEY_TYPE) == KEY_TYPE]
    owned.sort(key=lambda each: prune_rank(each[0], restricts=restricts(each[1])) if each[0] in OUTPUT_KINDS else LAST)
    return tuple(
        LeftBehind(kind, meta.get("namespace", ""), meta["name"], meta.get("uid", ""))
        for kind, item in owned
        if (meta := item["metadata"])
    )


async def find_left_behind(kube: KubeClient, cluster: str, namespace: str) -> tuple[LeftBehind, ...]:
    """What *cluster*'s agent has written for the installation in *namespace*.

    Of kinds that the cluster does not serve there is nothing.
    """
    found: list[tuple[Kind, Manifest]] = []
    for kind in (*OUTPUT_KINDS, *MADE):
        try:
            listed = await kube.list(kind, labels=selector(cluster, namespace))
        except NotFound:
            continue
        found += [(kind, item) for item in listed.items]
    return left_behind(found, cluster, namespace)
