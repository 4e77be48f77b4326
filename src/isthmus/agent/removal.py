"""What an agent leaves behind when its cluster is deregistered; `meshctl cluster deregister` deletes it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from isthmus.agent.order import prune_rank, restricts
from isthmus.agent.ownership import is_owned, ownership_labels, selector
from isthmus.istio.kinds import OUTPUT_KINDS
from isthmus.kube import KubeClient, NotFound
from isthmus.model.ref import Kind

Manifest = dict[str, Any]


class LeftBehind(msgspec.Struct, frozen=True):
    """An object that the agent wrote; delete it with its *uid* as precondition."""

    kind: Kind
    namespace: str
    name: str
    uid: str


def left_behind(found: Iterable[tuple[Kind, Manifest]], cluster: str, namespace: str) -> tuple[LeftBehind, ...]:
    """Those of the *found* objects that *cluster*'s agent wrote, in the order in which it is safe to delete them."""
    labels = ownership_labels(cluster, namespace)
    owned = [(kind, item) for kind, item in found if is_owned(item, labels)]
    owned.sort(key=lambda each: prune_rank(each[0], restricts=restricts(each[1])))
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
    for kind in OUTPUT_KINDS:
        try:
            listed = await kube.list(kind, labels=selector(cluster, namespace))
        except NotFound:
            continue
        found += [(kind, item) for item in listed.items]
    return left_behind(found, cluster, namespace)
