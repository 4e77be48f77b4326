"""What an installation puts on a cluster: values in, manifests out, nothing else read.

`meshctl install` and `cluster register` apply these manifests; charts render the same ones. Secrets and their
certificates are made by the caller.
"""

from isthmus.install.on_managed import agent
from isthmus.install.on_management import management_plane, registration, secrets_to_make
from isthmus.install.parts import COMPONENT, PART_OF, VERSION, created_once
from isthmus.install.values import AgentValues, ManagementPlaneValues, Release, known_keys, read_values

__all__ = [
    "COMPONENT",
    "PART_OF",
    "VERSION",
    "AgentValues",
    "ManagementPlaneValues",
    "Release",
    "agent",
    "created_once",
    "known_keys",
    "management_plane",
    "read_values",
    "registration",
    "secrets_to_make",
]
