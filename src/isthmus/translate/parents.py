"""Which user's object caused an output: an annotation for people, and the way back for errors."""

from __future__ import annotations

from functools import lru_cache

import msgspec

from isthmus.model.ref import Kind, Ref

ANNOTATION = "parents.networking.mesh.gloo.solo.io"


@lru_cache(maxsize=4096)
def parents_annotation(kind: Kind, parent: Ref) -> dict[str, str]:
    """The annotation that names *parent*. Source: reference, labels and annotations of outputs."""
    who = {f"{kind.api_version}, Kind={kind.kind}": [{"name": parent.name, "namespace": parent.namespace}]}
    return {ANNOTATION: msgspec.json.encode(who).decode()}
