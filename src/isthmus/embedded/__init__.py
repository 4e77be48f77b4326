"""A small Kubernetes API server inside the process, for the demo and the fast tests.

It answers as the real one does as far as tests/contract compares the two. Known differences, each on purpose:

- Whoever authenticates may do everything; nobody else may do anything but ask for its health.
- Built-in kinds have no schema: wrong types are found in the fields that this project reads (decoding.py), unknown
  fields are kept. CEL rules of custom resources are not evaluated, and their versions differ in nothing but the name.
- Columns whose value is a list print as in the walk-through, ``[a b]``; servers since Kubernetes 1.18 print JSON.
- Owner references and the end of a namespace, elsewhere the work of kube-controller-manager, are done here, at once.
- No admission plug-ins or webhooks, no OpenAPI v2, no protobuf answers. Protobuf requests are read where kubectl's own
  builders send them (protobuf.py).

Nothing here runs pods; `fleet.py` and its controllers play that part.
"""

from isthmus.embedded.cluster import EmbeddedCluster, load_object, merged_kubeconfig

__all__ = ["EmbeddedCluster", "load_object", "merged_kubeconfig"]
