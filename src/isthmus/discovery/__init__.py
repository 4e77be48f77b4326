"""Kubernetes objects of one cluster in, its Mesh, Workload and Destination objects out. Pure; agents run it.

`Discovery` follows changes, `discover` starts from scratch; both end with the same results. What to watch is
`INPUT_KINDS`, narrowed by `reads`.
"""

from isthmus.discovery.engine import Discovery, Finding, discover, manifest_key
from isthmus.discovery.inputs import INPUT_KINDS, reads

__all__ = ["INPUT_KINDS", "Discovery", "Finding", "discover", "manifest_key", "reads"]
