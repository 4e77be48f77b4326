"""What tells the objects that an agent wrote from everybody else's.

Objects that lack one of these labels are never changed or deleted. Source: reference, relay, labels on every object an
agent writes.
"""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]

OWNER = "owner.networking.mesh.gloo.solo.io"
"""Namespace of the installation that wants the object."""
MULTICLUSTER = "cluster.multicluster.solo.io"
"""Always present and empty."""
AGENT = "relay-agent"
"""Cluster of the agent that wrote the object."""


def ownership_labels(cluster: str, namespace: str) -> dict[str, str]:
    """The labels of everything that *cluster*'s agent writes for the installation in *namespace*."""
    return {MULTICLUSTER: "", OWNER: namespace, AGENT: cluster}


def selector(cluster: str, namespace: str) -> str:
    """The label selector for what *cluster*'s agent wrote."""
    return ",".join(f"{key}={value}" for key, value in ownership_labels(cluster, namespace).items())


def is_owned(manifest: Manifest, labels: dict[str, str]) -> bool:
    """Whether *manifest* carries all of the ownership *labels*."""
    found = manifest["metadata"].get("labels") or {}
    return all(found.get(key) == value for key, value in labels.items())


def with_labels(manifest: Manifest, labels: dict[str, str]) -> Manifest:
    """*manifest* with *labels* added."""
    metadata = manifest["metadata"]
    return {**manifest, "metadata": {**metadata, "labels": {**(metadata.get("labels") or {}), **labels}}}
