"""A small Kubernetes API server inside the process, for the demo and the fast tests.

It answers as the real one does as far as tests/contract compares the two, and no further: everyone who
authenticates may do everything, built-in kinds have no schema, and nothing runs pods (`fleet.py` and its controllers
play that part).
"""

from isthmus.embedded.cluster import EmbeddedCluster, load_object, merged_kubeconfig

__all__ = ["EmbeddedCluster", "load_object", "merged_kubeconfig"]
