"""A container's environment is what its pod says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.kubelet.environment import PATH, environment, expand, service_environment
from isthmus.lab.kubelet.fields import Unresolved
from tests.unit.lab.kubelet.pods import Held, container, pod, setting


def env_of(*variables: dict[str, Any], sources: Held | None = None, **more: Any) -> dict[str, str]:
    own = container(env=list(variables), **more)
    return environment(own, setting(pod(own)), sources or Held(), image={}, services={"SVC": "10.96.0.1"})


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)", "1"),
        ("a$(A)b$(B)", "a1b2"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
        ("$()", "$()"),
    ],
)
def test_references_are_expanded(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expanded


@given(st.text())
def test_text_without_dollars_stays(text: str) -> None:
    plain = text.replace("$", "")

    assert expand(plain, {"A": "1"}) == plain


def test_values_may_refer_to_what_comes_before_them() -> None:
    found = env_of(
        {"name": "FIRST", "value": "one"},
        {"name": "SECOND", "value": "$(FIRST)-$(SVC)-$(THIRD)"},
        {"name": "THIRD", "value": "three"},
    )

    assert found["SECOND"] == "one-10.96.0.1-$(THIRD)"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("metadata.labels['tier']", "front"),
        ("metadata.labels['none']", ""),
        ("metadata.annotations['note']", 'a "quoted"\nline'),
        ("spec.nodeName", "node-a"),
        ("spec.serviceAccountName", "shopper"),
        ("status.podIP", "10.10.0.5"),
        ("status.podIPs", "10.10.0.5"),
        ("status.hostIP", "172.31.0.1"),
    ],
)
def test_fields_of_the_pod(path: str, value: str) -> None:
    assert env_of({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}})["X"] == value


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(Unresolved, match=r"spec\.hostname"):
        env_of({"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}})


@pytest.mark.parametrize(
    ("resources", "reference", "value"),
    [
        ({"limits": {"cpu": "2"}}, {"resource": "limits.cpu"}, "2"),
        ({"limits": {"memory": "1Gi"}}, {"resource": "limits.memory", "divisor": "1Mi"}, "1024"),
        ({}, {"resource": "limits.cpu", "divisor": "1"}, "4"),  # without a limit the node's
        ({"requests": {"cpu": "100m"}}, {"resource": "requests.cpu"}, "1"),
        ({}, {"resource": "requests.cpu"}, "0"),
    ],
)
def test_resources(resources: dict[str, Any], reference: dict[str, str], value: str) -> None:
    found = env_of({"name": "X", "valueFrom": {"resourceFieldRef": reference}}, resources=resources)

    assert found["X"] == value


def test_keys_of_config_maps_and_secrets() -> None:
    held = Held(ConfigMap_shown={"key": "open"}, Secret_hidden={"key": "closed"})

    found = env_of(
        {"name": "SHOWN", "valueFrom": {"configMapKeyRef": {"name": "shown", "key": "key"}}},
        {"name": "HIDDEN", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "key"}}},
        sources=held,
    )

    assert (found["SHOWN"], found["HIDDEN"]) == ("open", "closed")


@pytest.mark.parametrize("name", ["gone", "shown"])
def test_what_is_missing_keeps_the_container_waiting_unless_optional(name: str) -> None:
    """Both a missing object and a missing key."""
    held = Held(ConfigMap_shown={"other": ""})
    reference = {"name": name, "key": "key"}

    with pytest.raises(Unresolved, match=name):
        env_of({"name": "X", "valueFrom": {"configMapKeyRef": reference}}, sources=held)
    found = env_of({"name": "X", "valueFrom": {"configMapKeyRef": {**reference, "optional": True}}}, sources=held)

    assert "X" not in found


def test_everything_of_an_object_gives_way_to_single_variables() -> None:
    held = Held(ConfigMap_all={"A": "map", "B": "map"}, Secret_more={"C": "secret"})

    found = env_of(
        {"name": "A", "value": "own"},
        {"name": "D", "value": "$(PRE_C)"},
        sources=held,
        envFrom=[{"configMapRef": {"name": "all"}}, {"prefix": "PRE_", "secretRef": {"name": "more"}}],
    )

    assert {key: found[key] for key in ("A", "B", "PRE_C", "D")} == {
        "A": "own",
        "B": "map",
        "PRE_C": "secret",
        "D": "secret",
    }


def test_the_container_overrides_what_image_and_cluster_say() -> None:
    own = container(env=[{"name": "IMAGE", "value": "mine"}, {"name": "KUBERNETES_SERVICE_HOST", "value": "there"}])
    services = service_environment("10.96.0.1", 443)

    found = environment(own, setting(), Held(), image={"IMAGE": "its", "OTHER": "its"}, services=services)

    assert found["IMAGE"] == "mine"
    assert found["OTHER"] == "its"
    assert found["KUBERNETES_SERVICE_HOST"] == "there"
    assert found["KUBERNETES_SERVICE_PORT"] == "443"
    assert found["KUBERNETES_PORT_443_TCP"] == "tcp://10.96.0.1:443"
    assert found["PATH"] == PATH
