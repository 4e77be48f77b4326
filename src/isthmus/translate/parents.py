"""Which users' objects caused an output: an annotation for people."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from isthmus.model.ref import Kind, Ref
from isthmus.translate.output import StatusKey

ANNOTATION = "parents.networking.mesh.gloo.solo.io"
MOST_NAMED = 100  # all annotations of an object have 256 KiB


def parents(kind: Kind, *found: Ref) -> tuple[StatusKey, ...]:
    """Objects *found* of *kind* as parents."""
    return tuple(StatusKey(kind, ref.namespace, ref.name) for ref in found)


@lru_cache(maxsize=4096)
def parents_annotation(named: tuple[StatusKey, ...]) -> dict[str, str]:
    """The annotation that names *named*, the first hundred of them. Source: reference, annotations of outputs."""
    who: dict[str, list[dict[str, str]]] = {}
    for parent in named[:MOST_NAMED]:
        kind = f"{parent.kind.api_version}, Kind={parent.kind.kind}"
        who.setdefault(kind, []).append({"name": parent.name, "namespace": parent.namespace})
    return {ANNOTATION: msgspec.json.encode(who).decode()}
