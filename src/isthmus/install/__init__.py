"""What an installation puts on a cluster: values in, manifests out.

`meshctl install` and `cluster register` apply these manifests. They come from the Helm charts in ``charts/``, which
`template` renders; see ADR 7. Secrets and their certificates are made by the caller.
"""

from isthmus.install.manifests import (
    COMPONENT,
    PART_OF,
    VERSION,
    agent,
    created_once,
    helm_release,
    management_plane,
    registration,
    secrets_to_make,
)
from isthmus.install.reading import known_keys, read_values
from isthmus.install.values import AgentValues, ManagementPlaneValues, Release

__all__ = [
    "COMPONENT",
    "PART_OF",
    "VERSION",
    "AgentValues",
    "ManagementPlaneValues",
    "Release",
    "agent",
    "created_once",
    "helm_release",
    "known_keys",
    "management_plane",
    "read_values",
    "registration",
    "secrets_to_make",
]
