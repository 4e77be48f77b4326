"""Access to Kubernetes clusters: the only place that speaks to an API server."""

from isthmus.kube.client import KubeClient
from isthmus.kube.errors import (
    AlreadyExists,
    BadRequest,
    Cause,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeconfigError,
    KubeError,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
    Untrusted,
)
from isthmus.kube.events import Changed, Manifest, ObjectList, Removed, Replaced, WatchEvent
from isthmus.kube.kubeconfig import Connection

__all__ = [
    "AlreadyExists",
    "BadRequest",
    "Cause",
    "Changed",
    "Conflict",
    "Connection",
    "Forbidden",
    "Gone",
    "Invalid",
    "KubeClient",
    "KubeError",
    "KubeconfigError",
    "Manifest",
    "NotFound",
    "ObjectList",
    "Removed",
    "Replaced",
    "TooLarge",
    "Unauthorized",
    "Unavailable",
    "Untrusted",
    "WatchEvent",
]
