"""CRDs: structural, complete, and as strict as a schema can be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings

from isthmus.api import crds
from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.crd import crd
from isthmus.api.discovery import Destination
from isthmus.api.kinds import KINDS
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.settings import Settings
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.api.virtual_mesh import VirtualMesh
from tests.strategies import resources

each_kind = pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.KIND.kind)


def schema_of(cls: type[Resource]) -> dict[str, Any]:
    """The OpenAPI schema in the CRD of *cls*."""
    schema: dict[str, Any] = crd(cls)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Path and schema of every value that *schema* speaks of."""
    yield at, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{at}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from nodes(schema[name], f"{at}[]")


def conditions(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every schema below oneOf, anyOf, allOf and not."""
    inner = [*schema.get("oneOf", []), *schema.get("anyOf", []), *schema.get("allOf", [])]
    for condition in [*inner, *([schema["not"]] if "not" in schema else [])]:
        yield condition
        yield from conditions(condition)


def faults(cls: type[Resource], manifest: dict[str, Any]) -> list[str]:
    """What an API server would hold against *manifest*, a path each."""
    validator = jsonschema.Draft7Validator(as_json_schema(schema_of(cls)))
    return sorted(".".join(str(part) for part in error.absolute_path) for error in validator.iter_errors(manifest))


def as_json_schema(schema: Any) -> Any:
    """*schema* with OpenAPI's ``nullable`` in the words of JSON Schema."""
    if isinstance(schema, list):
        return [as_json_schema(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    inner = {key: as_json_schema(value) for key, value in schema.items()}
    return {**inner, "type": [inner["type"], "null"]} if inner.get("nullable") is True else inner


def pruned(value: Any, schema: dict[str, Any]) -> Any:
    """*value* without the fields that *schema* does not know, as an API server stores it."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, list):
        return [pruned(member, schema["items"]) for member in value]
    if isinstance(value, dict) and "additionalProperties" in schema:
        return {key: pruned(member, schema["additionalProperties"]) for key, member in value.items()}
    if isinstance(value, dict):
        known = schema.get("properties", {})
        return {key: pruned(member, known[key]) for key, member in value.items() if key in known}
    return value


@each_kind
def test_the_schema_is_structural(cls: type[Resource]) -> None:
    """Every value has a type, and no condition says anything but what must be there.

    Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
    """
    for path, schema in nodes(schema_of(cls)):
        assert isinstance(schema.get("type"), str), path
        assert not ("properties" in schema and "additionalProperties" in schema), path
        for condition in conditions(schema):
            assert condition.keys() <= {"required", "oneOf", "anyOf", "allOf", "not"}, path
            assert set(condition.get("required", [])) <= schema["properties"].keys(), path


@each_kind
def test_every_field_is_described(cls: type[Resource]) -> None:
    for path, schema in nodes(schema_of(cls)):
        for name, inner in schema.get("properties", {}).items():
            assert inner.get("description"), f"{path}.{name}"


@each_kind
def test_the_schema_takes_every_object(cls: type[Resource]) -> None:
    """What we write passes the API server's validation, and comes back as it was."""
    schema = schema_of(cls)

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(resources(cls))
    def check(resource: Resource) -> None:
        manifest = {part: value for part, value in resource.manifest().items() if part in ("spec", "status")}

        assert faults(cls, manifest) == []
        assert pruned(manifest, schema) == manifest

    check()


@each_kind
def test_columns_name_fields_that_exist(cls: type[Resource]) -> None:
    paths = {path for path, _ in nodes(schema_of(cls))}

    for column in crd(cls)["spec"]["versions"][0]["additionalPrinterColumns"]:
        path = column["jsonPath"].replace("[0]", "[]")
        assert path == ".metadata.creationTimestamp" or path in paths


@each_kind
def test_the_packaged_manifest_is_the_generated_one(cls: type[Resource]) -> None:
    assert crds.manifests([cls]) == (crd(cls),)


@each_kind
def test_status_is_a_subresource_and_one_version_is_stored(cls: type[Resource]) -> None:
    spec = crd(cls)["spec"]

    assert [version["subresources"] for version in spec["versions"]] == [{"status": {}}]
    assert [(version["served"], version["storage"]) for version in spec["versions"]] == [(True, True)]
    assert spec["scope"] == "Namespaced"


@pytest.mark.parametrize(
    ("cls", "names"),
    [
        (VirtualMesh, ("virtualmeshes", "virtualmesh", ["vm", "vms"])),
        (TrafficPolicy, ("trafficpolicies", "trafficpolicy", ["tp", "tps"])),
        (AccessPolicy, ("accesspolicies", "accesspolicy", ["ap", "aps"])),
        (VirtualDestination, ("virtualdestinations", "virtualdestination", ["vd", "vds"])),
        (Settings, ("settings", "settings", ["s"])),
        (Destination, ("destinations", "destination", ["dest", "dests"])),
        (KubernetesCluster, ("kubernetesclusters", "kubernetescluster", None)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_kubectl_knows_the_names_of_the_reference(
    cls: type[Resource], names: tuple[str, str, list[str] | None]
) -> None:
    found = crd(cls)["spec"]["names"]

    assert (found["plural"], found["singular"], found.get("shortNames")) == names


def test_labels_are_those_of_the_reference() -> None:
    assert crd(TrafficPolicy)["metadata"]["labels"] == {"app": "gloo-mesh", "app.kubernetes.io/name": "gloo-mesh"}
    assert crd(KubernetesCluster)["metadata"]["labels"]["app.kubernetes.io/name"] == "skv2"


def test_a_schema_has_a_hash_of_its_own() -> None:
    hashes = {crd(cls)["metadata"]["annotations"]["crd.solo.io/specHash"] for cls in KINDS}

    assert len(hashes) == len(KINDS)


@pytest.mark.parametrize(
    ("cls", "spec", "path"),
    [
        (
            TrafficPolicy,
            {"policy": {"faultInjection": {"fixedDelay": "1s", "abort": {}}}},
            "spec.policy.faultInjection",
        ),
        (VirtualDestination, {"static": {}, "localized": {}}, "spec"),
        (VirtualDestination, {"virtualMesh": {}, "meshList": {}, "static": {}}, "spec"),
        (VirtualMesh, {"mtlsConfig": {"limited": {"a": 1}}}, "spec.mtlsConfig.limited"),
        (VirtualMesh, {"globalAccessPolicy": "ON"}, "spec.globalAccessPolicy"),
        (TrafficPolicy, {"policy": {"requestTimeout": 5}}, "spec.policy.requestTimeout"),
        (TrafficPolicy, {"policy": {"mirror": {"port": -1}}}, "spec.policy.mirror.port"),
        (TrafficPolicy, {"policy": {"mirror": {"port": 2**32}}}, "spec.policy.mirror.port"),
    ],
)
def test_the_schema_refuses(cls: type[Resource], spec: Any, path: str) -> None:
    assert faults(cls, {"spec": spec}) == [path]


def test_wrapped_scalars_may_be_null() -> None:
    assert faults(TrafficPolicy, {"spec": {"policy": {"corsPolicy": {"allowCredentials": None}}}}) == []


@pytest.mark.parametrize(
    ("cls", "spec"),
    [
        (
            TrafficPolicy,
            """
            sourceSelector: [{labels: {app: a}, namespaces: [default], clusters: [cluster1]}]
            destinationSelectors: [{kubeServiceMatcher: {}}]
            httpRequestMatchers: [{prefix: /a}, {exact: /b}, {regex: /c}]
            policy:
              outlierDetection: {consecutiveGatewayErrors: 1, consecutive5xxErrors: 1}
              trafficShift: {destinations: [{failoverService: {name: a, namespace: b, subset: {c: d}}}]}
            """,
        ),
        (
            VirtualMesh,
            """
            enforceAccessControl: true
            federation: {eastWestIngressGatewaySelectors: [{gatewayTlsPortName: tls}]}
            """,
        ),
        (VirtualDestination, "localized: {destinationSelector: [{kubeServiceMatcher: {labels: {a: b}}}]}"),
        (AccessPolicy, "{sourceSelectors: [{kubeIdentityMatcher: {}}], destinationSelectors: [{}]}"),
    ],
)
def test_other_spellings_survive_the_api_server(cls: type[Resource], spec: str) -> None:
    manifest = {"spec": yaml.safe_load(spec)}

    assert faults(cls, manifest) == []
    assert pruned(manifest, schema_of(cls)) == manifest


def test_applied_policies_are_stored_as_they_are() -> None:
    manifest = {"status": {"appliedTrafficPolicies": [{"spec": {"ofTheFuture": 1}}]}}

    assert pruned(manifest, schema_of(Destination)) == manifest


def test_bytes_are_checked_by_the_api_server() -> None:
    schema = schema_of(CertificateRequest)["properties"]["spec"]["properties"]["certificateSigningRequest"]

    assert (schema["type"], schema["format"]) == ("string", "byte")
