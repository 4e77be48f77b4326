"""Which pods of a mesh are looked at, and where."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.agent.workloads import EXCLUDE, INCLUDE, InPlace, Role, pods_of, read_mesh_pod

Manifest = dict[str, Any]


def pod(
    name: str = "reviews-1",
    *,
    proxy: str = "sidecar",
    ports: tuple[Manifest, ...] = ({"containerPort": 9080},),
    notes: dict[str, str] | None = None,
    namespace: str = "default",
    revision: str = "default",
    ready: str = "True",
    **spec: Any,
) -> Manifest:
    container = {"name": "istio-proxy", "args": ["proxy", proxy], "ports": [{"containerPort": 15090}]}
    if proxy == "istiod":
        container = {"name": "discovery", "ports": [{"containerPort": 15017}]}
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": name,
            "labels": {"istio.io/rev": revision},
            "annotations": notes or {},
        },
        "spec": {"containers": [{"name": "app", "ports": list(ports)}, container], **spec},
        "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": ready}]},
    }


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (pod(), (9080,)),
        (pod(ports=()), (80,)),
        (pod(ports=({"containerPort": 53, "protocol": "UDP"},)), (80,)),
        (pod(ports=tuple({"containerPort": port} for port in (4, 3, 3, 2, 1))), (4, 3, 2)),
        (pod(notes={EXCLUDE: "9080, 9081"}), (80,)),
        (pod(notes={EXCLUDE: "9080,80"}), ()),
        (pod(notes={INCLUDE: "7000,6000"}), (6000, 7000)),
        (pod(notes={INCLUDE: "9080,7000"}), (9080,)),
        (pod(notes={INCLUDE: ""}), ()),
        (pod(notes={INCLUDE: "*"}), (9080,)),
        (pod(proxy="istiod"), (15012,)),
        (pod(proxy="router"), ()),
        (pod(proxy="waypoint"), ()),
        (pod(hostNetwork=True), ()),
    ],
)
def test_where_a_pod_is_looked_at(manifest: Manifest, expected: tuple[int, ...]) -> None:
    found = read_mesh_pod(manifest)

    assert found is not None
    assert found.ports == expected
    assert bool(found.hidden) == (not expected)


def test_a_native_sidecar_is_one() -> None:
    manifest = pod()
    manifest["spec"]["initContainers"] = [manifest["spec"]["containers"].pop()]

    found = read_mesh_pod(manifest)

    assert found is not None
    assert (found.role, found.ports, found.service_account) == (Role.SIDECAR, (9080,), "default")


@pytest.mark.parametrize("wrong", ["not ready", "ending", "no proxy", "no address"])
def test_who_cannot_answer_is_not_asked(wrong: str) -> None:
    manifest = pod(ready="False" if wrong == "not ready" else "True")
    if wrong == "ending":
        manifest["metadata"]["deletionTimestamp"] = "2026-05-01T00:00:00Z"
    if wrong == "no proxy":
        manifest["spec"]["containers"].pop()
    if wrong == "no address":
        del manifest["status"]["podIP"]

    assert read_mesh_pod(manifest) is None


def place(name: str, namespace: str) -> InPlace:
    return InPlace(name, namespace, name, "", frozenset({"cluster1"}), b"", b"", None)


ONE, TWO = place("one", "istio-system"), place("two", "istio-two")


def belonging(places: tuple[InPlace, ...], *manifests: Manifest) -> dict[str, list[str]]:
    read = [found for each in manifests if (found := read_mesh_pod(each)) is not None]
    return {name: [each.name for each in found] for name, found in pods_of(read, places).items()}


def test_a_pod_belongs_to_the_istiod_of_its_revision() -> None:
    planes = (
        pod("istiod-1", proxy="istiod", namespace="istio-system", revision="one"),
        pod("istiod-2", proxy="istiod", namespace="istio-two", revision="two"),
    )
    workloads = (pod("a", revision="one"), pod("b", revision="two"))

    assert belonging((ONE, TWO), *planes, *workloads) == {"one": ["a", "istiod-1"], "two": ["b", "istiod-2"]}
    # The other mesh may have a root of its own.
    assert belonging((ONE,), *planes, *workloads) == {"one": ["a", "istiod-1"]}


def test_a_pod_whose_istiod_is_not_found_is_the_only_meshs() -> None:
    stray = pod("a", revision="gone")

    assert belonging((ONE,), stray) == {"one": ["a"]}
    assert belonging((ONE, TWO), stray) == {"one": [], "two": []}
