"""The words by which users name our kinds."""

from __future__ import annotations

import difflib

from isthmus.api.base import Resource
from isthmus.api.kinds import KINDS
from isthmus.cli.failure import Failure

MORE_NAMES = {"vmesh": "VirtualMesh", "vmeshes": "VirtualMesh", "cluster": "KubernetesCluster"}
"""Names besides kind, plural and short names. Source: reference, describe."""


def kind_names() -> dict[str, type[Resource]]:
    """The kind of every name it goes by."""
    names: dict[str, type[Resource]] = {}
    by_kind = {resource.KIND.kind: resource for resource in KINDS}
    for kind, resource in by_kind.items():
        for name in (resource.KIND.plural, kind.lower(), *resource.SHORT_NAMES):
            names[name] = resource
            names[f"{name}.{resource.KIND.group}"] = resource
    return names | {name: by_kind[kind] for name, kind in MORE_NAMES.items()}


def kind_named(word: str) -> type[Resource]:
    """The kind that *word* means, in any case. Raises `Failure`."""
    names = kind_names()
    if (found := names.get(word.lower())) is not None:
        return found
    near = difflib.get_close_matches(word.lower(), names, n=1)
    plurals = ", ".join(sorted(resource.KIND.plural for resource in KINDS))
    raise Failure(
        f"{word!r} is not a kind of Isthmus" + (f"; did you mean {near[0]}?" if near else ""), f"one of {plurals}"
    )
