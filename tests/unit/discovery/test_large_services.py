"""A Service with tens of thousands of endpoints stays small, right in its shares, and cheap to change."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.api.discovery import Destination
from isthmus.api.ready_endpoints import MAX_LISTED_ENDPOINTS, OVER_CAPACITY, READY_ENDPOINTS, ready_endpoints
from isthmus.discovery import discover
from tests.unit.discovery.clusters import (
    Manifest,
    controller,
    endpoint,
    endpoint_slice,
    injected_namespace,
    istiod,
    mesh_config,
    pod,
    service,
)


def web(versions: dict[str, int], per_slice: int = 100) -> list[Manifest]:
    """A Service ``web`` with so many ready pods of each version, in slices of one version after the other."""
    made = [istiod(), mesh_config(), injected_namespace(), service("web")]
    endpoints = []
    for version, count in versions.items():
        made.append(controller(f"web-{version}", labels={"app": "web", "version": version}))
        for number in range(count):
            one = pod(f"web-{version}", number)
            made.append(one)
            address = f"10.{len(endpoints) >> 16}.{len(endpoints) >> 8 & 255}.{len(endpoints) & 255}"
            endpoints.append(endpoint(address, one["metadata"]["name"]))
    for start in range(0, len(endpoints), per_slice):
        made.append(endpoint_slice("web", f"{start:06}", endpoints[start : start + per_slice]))
    return made


def destination(manifests: list[Manifest]) -> Destination:
    resources, problems = discover("cluster1", manifests)
    assert problems == ()
    (found,) = (resource for resource in resources if isinstance(resource, Destination))
    return found


def listed(found: Destination) -> dict[str, int]:
    assert found.spec.kube_service is not None
    versions: dict[str, int] = {}
    for subset in found.spec.kube_service.endpoint_subsets:
        for one in subset.endpoints:
            versions[one.labels["version"]] = versions.get(one.labels["version"], 0) + 1
    return versions


def counts(found: Destination) -> dict[str, int]:
    return {dict(labels)["version"]: count for labels, count in ready_endpoints(found).items()}


def test_up_to_the_limit_all_endpoints_are_listed():
    found = destination(web({"v1": MAX_LISTED_ENDPOINTS - 1, "v2": 1}))

    assert listed(found) == counts(found) == {"v1": 999, "v2": 1}
    assert found.metadata.annotations == {}


def test_above_the_limit_every_version_is_listed_by_its_share_and_counted():
    found = destination(web({"v1": 3000, "v2": 996, "v3": 4}))

    assert found.metadata.annotations[OVER_CAPACITY] == "truncated"
    assert counts(found) == {"v1": 3000, "v2": 996, "v3": 4}
    shares = listed(found)
    assert sum(shares.values()) <= MAX_LISTED_ENDPOINTS
    assert shares["v3"] >= 1
    assert shares["v1"] / shares["v2"] == pytest.approx(3, rel=0.05)


def test_one_pod_more_among_thousands_changes_nothing():
    before, after = destination(web({"v1": 3001, "v2": 100})), destination(web({"v1": 3002, "v2": 100}))

    assert before.metadata.annotations == after.metadata.annotations
    assert counts(before) == {"v1": 3000, "v2": 100}


def test_an_address_in_two_slices_counts_once():
    manifests = web({"v1": 1200})
    slices = [m for m in manifests if m["kind"] == "EndpointSlice"]
    moved = endpoint_slice("web", "moved", slices[3]["endpoints"])

    assert destination([*manifests, moved]) == destination(manifests)


def test_another_port_on_one_address_is_another_endpoint():
    canary = endpoint_slice("web", "canary", [endpoint("10.0.0.0", "web-v1-5d4f-0")], port=9090)

    found = destination([*web({"v1": 2}), canary])

    assert found.spec.kube_service is not None
    assert [
        ([one.ip_address for one in subset.endpoints], [port.port for port in subset.ports])
        for subset in found.spec.kube_service.endpoint_subsets
    ] == [(["10.0.0.0", "10.0.0.1"], [8080]), (["10.0.0.0"], [9090])]


def test_a_large_service_stays_a_small_object():
    found = destination(web({"v1": 20_000}))

    assert len(msgspec.json.encode(found)) < 150_000


def test_counts_that_somebody_else_wrote_are_not_trusted():
    found = destination(web({"v1": 2}))
    spoilt = msgspec.structs.replace(
        found, metadata=msgspec.structs.replace(found.metadata, annotations={READY_ENDPOINTS: "many"})
    )

    assert counts(spoilt) == {"v1": 2}
