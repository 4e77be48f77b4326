"""A discovery that is fed like an agent's, and what its deltas add up to."""

from __future__ import annotations

import copy

from isthmus.api.base import Resource
from isthmus.discovery import INPUT_KINDS, Discovery, discover, manifest_key
from isthmus.model.ref import Kind, ObjectKey
from tests.unit.discovery.clusters import Manifest

KINDS = {(kind.api_version, kind.kind): kind for kind in INPUT_KINDS}


def is_read(manifest: Manifest) -> bool:
    return (manifest["apiVersion"], manifest["kind"]) in KINDS


def identity(manifest: Manifest) -> tuple[Kind, ObjectKey]:
    kind = KINDS[manifest["apiVersion"], manifest["kind"]]
    return kind, manifest_key(kind, manifest)


class Follower:
    """Keeps beside the discovery what is in the cluster and what was reported of it."""

    def __init__(self) -> None:
        self.discovery = Discovery("cluster1", "gloo-mesh")
        self.present: dict[ObjectKey, Manifest] = {}
        self.reported: dict[ObjectKey, Resource] = {}

    def set(self, *manifests: Manifest) -> None:
        for manifest in manifests:
            kind, key = identity(manifest)
            self.present[key] = manifest
            self.discovery.feed(kind, key, copy.deepcopy(manifest))

    def remove(self, manifest: Manifest) -> None:
        kind, key = identity(manifest)
        self.present.pop(key, None)
        self.discovery.feed(kind, key, None)

    def run(self) -> dict[ObjectKey, Resource | None]:
        changes = self.discovery.run()
        for key, resource in changes.items():
            if resource is None:
                self.reported.pop(key, None)
            else:
                assert resource.key == key
                self.reported[key] = resource
        return changes

    def assert_as_from_scratch(self) -> None:
        resources, problems = discover("cluster1", reversed(self.present.values()))
        assert self.reported == {resource.key: resource for resource in resources}
        assert self.discovery.problems() == problems
