"""Small discovered objects for the tests of the server."""

from __future__ import annotations

from typing import Any

from isthmus.api.base import ObjectMeta
from isthmus.api.common import ClusterObjectRef, ObjectRef
from isthmus.api.discovery import Destination, DestinationSpec, KubeService, ServicePort
from isthmus.program.records import encode
from isthmus.server.records import CLUSTER_LABEL


def destination(name: str, cluster: str, *, port: int = 80, namespace: str = "gloo-mesh") -> Destination:
    return Destination(
        metadata=ObjectMeta(
            name=name,
            namespace=namespace,
            labels={"relay-agent": cluster, CLUSTER_LABEL: cluster},
            annotations={"z": "1", "a": "2"},
        ),
        spec=DestinationSpec(
            kube_service=KubeService(
                ref=ClusterObjectRef(name=name, namespace="default", cluster_name=cluster),
                labels={"b": "1", "a": "2"},
                ports=(ServicePort(port=port, name="http", protocol="TCP"),),
            ),
            mesh=ObjectRef(name="mesh", namespace="gloo-mesh"),
        ),
    )


def record(found: Destination) -> dict[str, bytes | None]:
    return {str(found.key): encode(found)}


def stored(found: Destination, version: int = 1, **extra: Any) -> dict[str, Any]:
    """*found* as an API server would give it back: keys sorted, metadata filled in."""
    import orjson

    manifest: dict[str, Any] = orjson.loads(orjson.dumps(found.manifest(), option=orjson.OPT_SORT_KEYS))
    manifest["metadata"] |= {
        "uid": f"uid-{found.metadata.name}",
        "resourceVersion": str(version),
        "generation": 3,
        "creationTimestamp": "2024-01-01T00:00:00Z",
    }
    return {**manifest, **extra}
