"""Discovery follows changes: it ends where a start from scratch would, and does no more than a change calls for."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.discovery import Mesh
from isthmus.discovery import Discovery, manifest_key
from isthmus.model import kinds
from tests.unit.discovery.clusters import (
    Manifest,
    controller,
    endpoint,
    endpoint_slice,
    injected_namespace,
    istiod,
    mesh_config,
    namespace,
    node,
    pod,
    service,
)
from tests.unit.discovery.follower import Follower, identity

names, places = st.sampled_from(["a", "b", "a-b"]), st.sampled_from(["c", "b-c"])
ages = st.sampled_from(["", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"])
versions = st.fixed_dictionaries({"app": names}, optional={"version": st.sampled_from(["v1", "v2"])})
metadata = st.fixed_dictionaries({}, optional={"creationTimestamp": ages})
addresses = st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])


@st.composite
def controllers(draw: st.DrawFn) -> Manifest:
    kind = draw(st.sampled_from(["Deployment", "StatefulSet", "ReplicaSet"]))
    made = controller(draw(names), draw(places), kind, draw(versions), **draw(metadata))
    template = made["spec"]["template"]
    inject = draw(st.sampled_from(["", "true", "false"]))
    if inject:
        template["metadata"]["annotations"] = {"sidecar.istio.io/inject": inject}
    if draw(st.booleans()):
        template["metadata"]["labels"]["istio.io/rev"] = draw(st.sampled_from(["next", "prod"]))
    return made


@st.composite
def services(draw: st.DrawFn) -> Manifest:
    made = service(draw(names), draw(places), draw(versions), type=draw(st.sampled_from(["ClusterIP", "NodePort"])))
    made["metadata"].update(draw(metadata))
    if draw(st.booleans()):
        made["metadata"]["annotations"] = {"discovery.mesh.gloo.solo.io/enabled": "true"}
    return made


@st.composite
def slices(draw: st.DrawFn) -> Manifest:
    made = [
        endpoint(
            a,
            draw(st.sampled_from(["", "a-5d4f-1", "b-5d4f-1"])),
            draw(st.sampled_from(["", "n1"])),
            draw(st.booleans()),
        )
        for a in draw(st.lists(addresses, max_size=3, unique=True))
    ]
    found = endpoint_slice(draw(names), draw(st.sampled_from([1, 2])), made, draw(places))
    found["metadata"]["labels"]["kubernetes.io/service-name"] = draw(names)
    return found


def revision_tag(revision: str) -> Manifest:
    labels = {"istio.io/tag": "prod", "istio.io/rev": revision}
    metadata = {"name": "istio-revision-tag-prod", "labels": labels}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": metadata,
    }


objects = st.one_of(
    controllers(),
    services(),
    slices(),
    st.builds(pod, names, st.just(1), places),
    st.builds(
        node, st.just("n1"), st.sampled_from(["us-east-1a", "us-east-1b"]), st.sampled_from([(), ("192.0.2.1",)])
    ),
    st.builds(istiod, st.sampled_from(["", "-next"]), st.sampled_from(["istio-system", "b-c"])),
    st.builds(
        mesh_config,
        st.sampled_from(["trustDomain: x", "{}"]),
        st.sampled_from(["", "-next"]),
        st.sampled_from(["istio-system", "b-c"]),
    ),
    st.builds(mesh_config, st.just("]"), st.just("-broken")),
    st.builds(istiod, st.just("-broken")),
    st.builds(injected_namespace, places),
    st.builds(namespace, places),
    st.builds(revision_tag, st.sampled_from(["default", "next"])),
    st.just({**service("a"), "spec": {"ports": 7}}),
)
changes = st.lists(st.tuples(objects, st.sampled_from(["set", "set", "set", "remove", "run"])), max_size=40)


@given(st.lists(objects, max_size=15), changes)
def test_any_sequence_of_changes_ends_like_a_start_from_scratch(first: list[Manifest], history: list[tuple[Any, str]]):
    follower = Follower()
    follower.set(istiod(), mesh_config(), injected_namespace("c"), injected_namespace("b-c"), *first)

    for manifest, action in history:
        if action == "remove":
            follower.remove(manifest)
        else:
            follower.set(manifest)
        if action == "run":
            follower.run()
    follower.run()

    follower.assert_as_from_scratch()
    assert follower.run() == {}


@given(st.lists(objects, max_size=30))
def test_what_is_fed_and_then_taken_away_leaves_nothing(manifests: list[Manifest]):
    follower = Follower()
    follower.set(*manifests)
    follower.run()

    for manifest in manifests:
        follower.remove(manifest)
    follower.run()

    assert follower.reported == {}
    assert follower.discovery.problems() == ()


def test_a_list_replaces_what_was_there():
    follower = Follower()
    follower.set(istiod(), mesh_config(), injected_namespace(), controller("a"), service("a"), service("b"))
    follower.run()

    follower.discovery.replace(kinds.SERVICE, [service("b", selector={"app": "a"})])
    follower.run()

    assert [key.name for key in follower.reported if key.kind == "Destination"] == ["b-default-cluster1"]


def test_one_changed_slice_of_many_services_costs_that_slice_and_its_service():
    follower = Follower()
    follower.set(istiod(), mesh_config(), injected_namespace())
    for number in range(50):
        name = f"s{number}"
        follower.set(controller(name), service(name), pod(name, 1), pod(name, 2))
        follower.set(endpoint_slice(name, 1, [endpoint(f"10.0.{number}.1", f"{name}-5d4f-1")]))
    follower.run()
    before = follower.discovery.evaluations

    both = [endpoint("10.0.7.1", "s7-5d4f-1"), endpoint("10.0.7.2", "s7-5d4f-2")]
    follower.set(endpoint_slice("s7", 1, both))
    changed = follower.run()

    assert [key.name for key in changed] == ["s7-default-cluster1"]
    assert follower.discovery.evaluations - before == 2


def test_a_pod_whose_facts_stay_costs_nothing():
    follower = Follower()
    follower.set(istiod(), mesh_config(), injected_namespace(), controller("a"), service("a"), pod("a", 1), node("n1"))
    follower.run()
    before = follower.discovery.evaluations

    follower.set({**pod("a", 1), "status": {"phase": "Running", "startTime": "2024-01-01T00:00:00Z"}})
    follower.set({**node("n1"), "status": {"conditions": [{"type": "Ready", "status": "True"}]}})

    assert follower.run() == {}
    assert follower.discovery.evaluations == before


def test_other_kinds_and_names_are_ignored():
    follower = Follower()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "istio", "namespace": "istio-system"}}

    follower.discovery.feed(kinds.SECRET, manifest_key(kinds.SECRET, secret), secret)
    follower.set({**mesh_config("]"), "metadata": {"name": "app", "namespace": "istio-system"}})

    assert follower.run() == {}
    assert follower.discovery.problems() == ()


def test_a_mesh_keeps_its_last_readable_config():
    """A slip in one cluster's config must not take its services away from all others."""
    follower = Follower()
    follower.set(istiod(), mesh_config("trustDomain: mine"))
    follower.run()

    follower.set(mesh_config("trustDomain: ]"))
    follower.run()

    (mesh,) = follower.reported.values()
    assert isinstance(mesh, Mesh)
    assert mesh.spec.istio is not None
    assert mesh.spec.istio.trust_domain == "mine"
    assert mesh.status is not None
    assert "not a mesh config" in mesh.status.warnings[0]
    assert follower.discovery.complete

    follower.set(mesh_config("trustDomain: mine"))
    follower.run()
    assert follower.discovery.problems() == ()


def test_the_root_namespace_of_a_mesh_is_that_of_its_control_plane():
    follower = Follower()
    assert follower.discovery.root_namespaces == frozenset()

    follower.set(istiod(), mesh_config("{}"))
    follower.run()

    assert follower.discovery.root_namespaces == {"istio-system"}


def test_discovery_is_incomplete_while_a_mesh_config_was_never_readable():
    follower = Follower()
    follower.set(istiod(), mesh_config("]"))
    follower.run()
    assert not follower.discovery.complete

    follower.set(mesh_config("{}"))
    follower.run()
    assert follower.discovery.complete


def test_the_management_namespace_may_differ_from_the_agents():
    discovery = Discovery("cluster1", "agents", "management")
    for manifest in (istiod(), mesh_config()):
        discovery.feed(*identity(manifest), manifest)

    (mesh,) = discovery.run().values()

    assert isinstance(mesh, Mesh)
    assert mesh.metadata.namespace == "management"
    assert mesh.metadata.labels["owner.discovery.mesh.gloo.solo.io"] == "agents-cluster1"
    assert mesh.spec.agent_info is not None
    assert mesh.spec.agent_info.agent_namespace == "agents"
