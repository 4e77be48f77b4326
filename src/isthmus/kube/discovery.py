"""Which kinds an API server serves, read from its discovery documents.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from isthmus.model.ref import Kind

JSON = "application/json"
# The aggregated document in the forms servers from 1.27 on know, else what every server knows.
ACCEPT = ",".join(
    [f"{JSON};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")] + [JSON]
)


def is_aggregated(document: dict[str, Any]) -> bool:
    """Whether *document* lists the kinds themselves, not only where to ask for them."""
    return document.get("kind") == "APIGroupDiscoveryList"


def aggregated_kinds(document: dict[str, Any]) -> Iterator[Kind]:
    """The kinds in an APIGroupDiscoveryList."""
    for group in document.get("items") or ():
        name = group.get("metadata", {}).get("name", "")
        for version in group.get("versions") or ():
            for resource in version.get("resources") or ():
                # A kind that aggregation could not reach has no responseKind.
                kind = (resource.get("responseKind") or {}).get("kind")
                if kind:
                    yield Kind(name, version["version"], kind, resource["resource"], resource["scope"] == "Namespaced")


def resource_list_paths(document: dict[str, Any]) -> Iterator[str]:
    """Where the APIResourceLists of an APIVersions or APIGroupList document are."""
    for version in document.get("versions") or ():
        yield f"/api/{version}"
    for group in document.get("groups") or ():
        for served in group["versions"]:
            yield f"/apis/{served['groupVersion']}"


def listed_kinds(document: dict[str, Any]) -> Iterator[Kind]:
    """The kinds in an APIResourceList, subresources left out."""
    group, _, version = document["groupVersion"].rpartition("/")
    for resource in document.get("resources") or ():
        if "/" not in resource["name"]:
            yield Kind(group, version, resource["kind"], resource["name"], bool(resource["namespaced"]))
