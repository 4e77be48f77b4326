"""What a server says it serves: versions, groups and resources, also in the aggregated form that kubectl asks for.

Source: https://kubernetes.io/docs/concepts/overview/kubernetes-api/#discovery-api
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from isthmus.embedded.resources import Resource, version_priority

Manifest = dict[str, Any]

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
STATUS_VERBS = ["get", "patch", "update"]

VERSION: Manifest = {
    "major": "1",
    "minor": "32",
    "gitVersion": "v1.32.0+isthmus",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
"""The answer of /version. 1.32 is the release whose behaviour is followed; the suffix says that it isn't a real one."""

# Kinds that are answered at once and never stored: (group, kind, plural).
REVIEWS = (
    ("authorization.k8s.io", "SelfSubjectAccessReview", "selfsubjectaccessreviews"),
    ("authentication.k8s.io", "SelfSubjectReview", "selfsubjectreviews"),
)

# Groups in the order in which a real server lists them; groups of custom resources follow in name order.
_GROUP_ORDER = (
    "",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "networking.k8s.io",
)


def groups(resources: Iterable[Resource]) -> dict[str, list[str]]:
    """The versions of every group, preferred first; the core group is the empty name."""
    found: dict[str, set[str]] = {group: {"v1"} for group, _, _ in REVIEWS}
    for resource in resources:
        found.setdefault(resource.group, set()).update(resource.versions)
    order = sorted(found, key=lambda group: (_rank(group), group))
    return {group: sorted(found[group], key=version_priority) for group in order}


def _rank(group: str) -> int:
    if group in _GROUP_ORDER:
        return _GROUP_ORDER.index(group)
    return len(_GROUP_ORDER) + (0 if group.endswith(".k8s.io") else 1)


def api_versions(address: str) -> Manifest:
    """The answer of /api."""
    server = {"clientCIDR": "0.0.0.0/0", "serverAddress": address}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [server]}


def group_list(resources: Sequence[Resource]) -> Manifest:
    """The answer of /apis."""
    listed = [group(name, versions) for name, versions in groups(resources).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": listed}


def group(name: str, versions: Sequence[str]) -> Manifest:
    entries = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": entries, "preferredVersion": entries[0]}


def resource_list(resources: Sequence[Resource], name: str, version: str) -> Manifest:
    """The answer of /api/v1 and /apis/<group>/<version>."""
    listed: list[Manifest] = []
    for resource in resources:
        if resource.group != name or version not in resource.versions:
            continue
        entry: Manifest = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        for sub, (kind, verbs) in subresources(resource, version).items():
            below = {"name": f"{resource.plural}/{sub}", "singularName": "", "namespaced": resource.namespaced}
            below |= {"kind": kind[2], "verbs": verbs}
            if kind[:2] != (name, version):
                below |= {"group": kind[0], "version": kind[1]}
            listed.append(below)
    for group_name, kind_name, plural in REVIEWS:
        if (group_name, "v1") == (name, version):
            review = {"name": plural, "singularName": kind_name.lower(), "namespaced": False, "kind": kind_name}
            listed.append(review | {"verbs": ["create"]})
    api_version = f"{name}/{version}" if name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": listed}


def subresources(resource: Resource, version: str) -> dict[str, tuple[tuple[str, str, str], list[str]]]:
    """Subresources by name: (group, version, kind) of what they exchange, and the verbs."""
    found: dict[str, tuple[tuple[str, str, str], list[str]]] = {}
    if version in resource.has_status:
        found["status"] = ((resource.group, version, resource.kind), STATUS_VERBS)
    if resource.has_scale:
        found["scale"] = (("autoscaling", "v1", "Scale"), STATUS_VERBS)
    if resource.key == "namespaces":
        found["finalize"] = (("", "v1", "Namespace"), ["update"])
    if resource.key == "pods":
        found["eviction"] = (("policy", "v1", "Eviction"), ["create"])
    return found


def aggregated(resources: Sequence[Resource], *, core: bool, api_version: str) -> Manifest:
    """The APIGroupDiscoveryList of the core group or of all others."""
    items = []
    for name, versions in groups(resources).items():
        if bool(name) is core:
            continue
        entries = [_discovered_version(resources, name, version) for version in versions]
        items.append({"metadata": {"name": name} if name else {}, "versions": entries})
    return {"kind": "APIGroupDiscoveryList", "apiVersion": api_version, "metadata": {}, "items": items}


def _discovered_version(resources: Sequence[Resource], name: str, version: str) -> Manifest:
    listed = []
    for resource in resources:
        if resource.group != name or version not in resource.versions:
            continue
        entry: Manifest = {
            "resource": resource.plural,
            "responseKind": {"group": name, "version": version, "kind": resource.kind},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": VERBS,
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        below = [
            {
                "subresource": sub,
                "responseKind": {"group": kind[0], "version": kind[1], "kind": kind[2]},
                "verbs": verbs,
            }
            for sub, (kind, verbs) in subresources(resource, version).items()
        ]
        if below:
            entry["subresources"] = below
        listed.append(entry)
    for group_name, kind_name, plural in REVIEWS:
        if (group_name, "v1") == (name, version):
            listed.append(
                {
                    "resource": plural,
                    "responseKind": {"group": name, "version": version, "kind": kind_name},
                    "scope": "Cluster",
                    "singularResource": kind_name.lower(),
                    "verbs": ["create"],
                }
            )
    return {"version": version, "resources": listed, "freshness": "Current"}
