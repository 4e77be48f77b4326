"""Parsing: every spelling that users have comes in, every fault comes out with its path and what was expected."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isthmus.api.base import Resource
from isthmus.api.kinds import BY_KIND, KINDS
from isthmus.api.parse import ParseFailure, examine, parse
from isthmus.api.spellings import SPELLINGS
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.problem import Problem
from tests.strategies import json_values, resources

WALKTHROUGH = Path(__file__).parents[3] / "examples" / "walkthrough"
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])

each_kind = pytest.mark.parametrize("cls", KINDS, ids=lambda cls: cls.KIND.kind)


def policy(spec: Any, kind: str = "TrafficPolicy", **metadata: Any) -> dict[str, Any]:
    """A manifest of *kind* with this spec."""
    (cls,) = (cls for cls in KINDS if cls.KIND.kind == kind)
    metadata = {"name": "simple", "namespace": "gloo-mesh", **metadata}
    return {"apiVersion": cls.KIND.api_version, "kind": kind, "metadata": metadata, "spec": spec}


def problems(manifest: Any) -> list[str]:
    """Path and message of each problem with *manifest*."""
    found = parse(manifest)
    assert isinstance(found, ParseFailure), found
    return [str(problem) for problem in found.problems]


def accepted(manifest: Any) -> dict[str, Any]:
    """The spec of *manifest* in the normal form."""
    found = parse(manifest)
    assert isinstance(found, Resource), str(found)
    spec: dict[str, Any] = found.manifest().get("spec", {})
    return spec


def warnings(manifest: Any) -> list[str]:
    """Path and message of each warning about *manifest*."""
    return [str(warning) for warning in examine(manifest)[1]]


# -- What comes in -----------------------------------------------------------------------------------------------------


@each_kind
def test_an_object_parses_to_itself(cls: type[Resource]) -> None:
    @FEW
    @given(resources(cls))
    def check(resource: Resource) -> None:
        assert parse(resource.manifest()) == resource

    check()


@each_kind
def test_snake_case_means_the_same(cls: type[Resource]) -> None:
    @FEW
    @given(resources(cls))
    def check(resource: Resource) -> None:
        manifest = resource.manifest()

        parts = {part: snake_case(manifest[part], cls, part) for part in ("spec", "status") if part in manifest}

        assert parse({**manifest, **parts}) == resource

    check()


def snake_case(value: Any, cls: type[Resource], part: str) -> Any:
    """*value* with the field names of its messages, but not the keys of its maps, in snake_case."""
    from isthmus.api.shape import ListOf, MapOf, Message, Shape, fields_of

    def rewritten(shape: Shape, value: Any) -> Any:
        match shape:
            case Message(inner):
                by_name = {field.name: field for field in fields_of(inner)}
                return {
                    re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name): rewritten(
                        by_name[name].shape, member
                    )
                    for name, member in value.items()
                }
            case ListOf(item):
                return [rewritten(item, member) for member in value]
            case MapOf(item):
                return {key: rewritten(item, member) for key, member in value.items()}
        return value

    return rewritten(next(field.shape for field in fields_of(cls) if field.name == part), value)


@each_kind
def test_the_example_on_the_reference_page_parses(cls: type[Resource]) -> None:
    found = examine(yaml.safe_load(cls.EXAMPLE))

    assert isinstance(found[0], cls)
    assert found[1] == ()


@pytest.mark.parametrize("path", sorted(WALKTHROUGH.rglob("*.yaml")), ids=lambda path: path.name)
def test_the_walkthrough_parses(path: Path) -> None:
    """Every object of ours that the walk-through applies is read as it stands, without a warning."""
    for manifest in yaml.safe_load_all(path.read_text()):
        if manifest and (manifest.get("apiVersion"), manifest.get("kind")) in BY_KIND:
            assert isinstance(parse(manifest), Resource)
            assert warnings(manifest) == []


def test_a_present_but_empty_message_is_kept() -> None:
    assert accepted(policy({"federation": {}}, "VirtualMesh")) == {"federation": {}}


def test_enums_may_be_numbers() -> None:
    assert accepted(policy({"globalAccessPolicy": 1}, "VirtualMesh")) == {"globalAccessPolicy": "ENABLED"}


def test_durations_may_be_written_in_any_unit() -> None:
    spec = {"policy": {"requestTimeout": "1m30s", "retries": {"perTryTimeout": "150ms"}}}

    assert accepted(policy(spec)) == {"policy": {"requestTimeout": "90s", "retries": {"perTryTimeout": "0.150s"}}}


def test_numbers_may_be_strings() -> None:
    spec = {"policy": {"retries": {"attempts": "3"}}}

    assert accepted(policy(spec)) == {"policy": {"retries": {"attempts": 3}}}


def test_wrapped_scalars_may_be_wrapped() -> None:
    spec = {"policy": {"corsPolicy": {"allowCredentials": {"value": False}}}}

    assert accepted(policy(spec)) == {"policy": {"corsPolicy": {"allowCredentials": False}}}


def test_protocols_may_be_lower_case() -> None:
    spec = {"port": {"number": 80, "protocol": "http"}}

    assert accepted(policy(spec, "VirtualDestination")) == {"port": {"number": 80, "protocol": "HTTP"}}


def test_an_explicit_zero_of_an_optional_number_is_kept() -> None:
    spec = {"policy": {"mirror": {"percentage": 0}}}

    assert accepted(policy(spec)) == {"policy": {"mirror": {"percentage": 0}}}


def test_null_is_as_if_the_field_were_not_there() -> None:
    assert accepted(policy({"destinationSelector": None, "policy": {"requestTimeout": None}})) == {"policy": {}}


def test_null_for_a_message_is_warned_of() -> None:
    """``generated:`` without a value looks like ``generated: {}`` and is not."""
    spec = {"mtlsConfig": {"shared": {"rootCertificateAuthority": {"generated": None}}}}

    path = "spec.mtlsConfig.shared.rootCertificateAuthority.generated"
    assert warnings(policy(spec, "VirtualMesh")) == [
        f"{path}: null means that the field is not set; write {{}} for an object with default values"
    ]


def test_large_annotations_are_kept() -> None:
    text = "x" * 2**20

    found = parse(policy({"polcy": {}, "policy": {}}, annotations={"note": text}))
    assert isinstance(found, ParseFailure)
    assert len(str(found)) < 200

    found = parse(policy({"policy": {"requestTimeout": "1m"}}, annotations={"note": text}))
    assert isinstance(found, TrafficPolicy)
    assert found.metadata.annotations == {"note": text}


def test_names_may_be_as_long_as_kubernetes_allows() -> None:
    assert isinstance(parse(policy({}, name="a" * 253, namespace="b" * 63)), TrafficPolicy)


# -- Other spellings ---------------------------------------------------------------------------------------------------


def test_the_path_may_stand_right_on_the_matcher() -> None:
    spec = {"httpRequestMatchers": [{"prefix": "/a"}, {"exact": "/b"}, {"regex": "/c"}]}

    assert accepted(policy(spec)) == {
        "httpRequestMatchers": [{"uri": {"prefix": "/a"}}, {"uri": {"exact": "/b"}}, {"uri": {"regex": "/c"}}]
    }


def test_uri_wins_over_the_path_on_the_matcher() -> None:
    manifest = policy({"httpRequestMatchers": [{"prefix": "/a", "uri": {"exact": "/b"}}]})

    assert accepted(manifest) == {"httpRequestMatchers": [{"uri": {"exact": "/b"}}]}
    assert warnings(manifest) == ["spec.httpRequestMatchers[0].prefix: is not used, since uri is set"]


def test_two_paths_on_one_matcher_are_a_problem() -> None:
    spec = {"httpRequestMatchers": [{"prefix": "/a", "exact": "/b"}]}

    assert problems(policy(spec)) == ["spec.httpRequestMatchers[0].uri: only one of exact and prefix may be set"]


def test_a_flat_workload_selector_selects_what_it_says_with_a_warning() -> None:
    manifest = policy({"sourceSelector": [{"labels": {"app": "a"}, "namespaces": ["default"]}]})

    assert accepted(manifest) == {
        "sourceSelector": [{"kubeWorkloadMatcher": {"labels": {"app": "a"}, "namespaces": ["default"]}}]
    }
    assert [warning.split(":")[0] for warning in warnings(manifest)] == [
        "spec.sourceSelector[0].labels",
        "spec.sourceSelector[0].namespaces",
    ]


@pytest.mark.parametrize(
    ("kind", "written", "read"),
    [
        ("TrafficPolicy", {"destinationSelectors": [{}]}, {"destinationSelector": [{}]}),
        ("TrafficPolicy", {"source_selectors": [{}]}, {"sourceSelector": [{}]}),
        ("TrafficPolicy", {"routeSelectors": [{}]}, {"routeSelector": [{}]}),
        ("AccessPolicy", {"sourceSelectors": [{}]}, {"sourceSelector": [{}]}),
        ("AccessPolicy", {"destinationSelectors": [{}]}, {"destinationSelector": [{}]}),
        (
            "VirtualDestination",
            {"localized": {"destinationSelector": [{}]}},
            {"localized": {"destinationSelectors": [{}]}},
        ),
        (
            "VirtualMesh",
            {"federation": {"eastWestIngressGatewaySelectors": [{"gatewayTlsPortName": "tls"}]}},
            {"federation": {"ingressGatewaySelectors": [{"portName": "tls"}]}},
        ),
        (
            "TrafficPolicy",
            {"policy": {"trafficShift": {"destinations": [{"failoverService": {"name": "a"}}]}}},
            {"policy": {"trafficShift": {"destinations": [{"virtualDestination": {"name": "a"}}]}}},
        ),
    ],
)
def test_renamed_fields_are_read(kind: str, written: Any, read: Any) -> None:
    assert accepted(policy(written, kind)) == read
    assert warnings(policy(written, kind)) == []


@pytest.mark.parametrize("name", ["consecutiveGatewayErrors", "consecutive5xxErrors", "consecutive_5xx_errors"])
def test_istios_words_for_outlier_detection_are_read_with_a_warning(name: str) -> None:
    manifest = policy({"policy": {"outlierDetection": {name: 3}}})

    assert accepted(manifest) == {"policy": {"outlierDetection": {"consecutiveErrors": 3}}}
    assert warnings(manifest)[0].startswith(f"spec.policy.outlierDetection.{name}: read as consecutiveErrors")


@pytest.mark.parametrize(("enforced", "stance"), [(True, "ENABLED"), (False, "DISABLED")])
def test_enforced_access_control_is_a_global_access_policy(enforced: bool, stance: str) -> None:
    manifest = policy({"enforceAccessControl": enforced}, "VirtualMesh")

    assert accepted(manifest) == {"globalAccessPolicy": stance}
    assert len(warnings(manifest)) == 1


def test_two_spellings_of_one_field_must_agree() -> None:
    spec = {"destinationSelector": [{"kubeServiceMatcher": {}}], "destinationSelectors": [{}]}

    assert problems(policy(spec)) == [
        "spec.destinationSelectors: is another spelling of destinationSelector, "
        "which is set to something else; keep one"
    ]


def test_one_field_in_camel_and_snake_case_must_agree() -> None:
    spec = {"traffic": 1, "http_request_matchers": [], "httpRequestMatchers": [{}]}

    assert "spec.httpRequestMatchers: is the same field as spec.http_request_matchers; keep one of them" in problems(
        policy(spec)
    )


def test_an_arm_in_another_spelling_still_excludes_the_others() -> None:
    shift = {"destinations": [{"failoverService": {"name": "a"}, "kubeService": {"name": "b"}}]}

    assert problems(policy({"policy": {"trafficShift": shift}})) == [
        "spec.policy.trafficShift.destinations[0]: only one of kubeService and virtualDestination may be set"
    ]


def test_no_row_hides_a_field_of_today() -> None:
    from isthmus.api.shape import fields_of

    for row in SPELLINGS:
        names = {field.name for field in fields_of(row.message)}
        assert row.old not in names
        assert row.new.partition(".")[0] in names


# -- What does not come in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "spec", "expected"),
    [
        ("TrafficPolicy", {"polcy": {}}, "spec.polcy: unknown field; did you mean policy?"),
        (
            "AccessPolicy",
            {"xyzzy": 1, "allowedPorts": []},
            "spec.xyzzy: unknown field; expected one of allowedMethods, allowedPaths, allowedPorts, "
            "destinationSelector, sourceSelector",
        ),
        (
            "VirtualMesh",
            {"mtlsConfig": {"limited": {"a": 1}}},
            "spec.mtlsConfig.limited.a: unknown field; expected an empty object, {}",
        ),
        ("AccessPolicy", {"allowedPorts": [80, "http"]}, "spec.allowedPorts[1]: expected a whole number, found 'http'"),
        (
            "AccessPolicy",
            {"allowedPorts": [80.5]},
            "spec.allowedPorts[0]: expected a whole number, found the number 80.5",
        ),
        ("AccessPolicy", {"allowedPorts": [True]}, "spec.allowedPorts[0]: expected a whole number, found true"),
        (
            "AccessPolicy",
            {"allowedPorts": [-1]},
            "spec.allowedPorts[0]: expected a whole number from 0 to 4294967295, found -1",
        ),
        ("AccessPolicy", {"allowedMethods": "GET"}, "spec.allowedMethods: expected a list, found 'GET'"),
        ("AccessPolicy", {"allowedMethods": [None]}, "spec.allowedMethods[0]: expected a string, found null"),
        ("TrafficPolicy", {"policy": []}, "spec.policy: expected an object, found a list"),
        ("TrafficPolicy", {"policy": "none"}, "spec.policy: expected an object, found 'none'"),
        (
            "TrafficPolicy",
            {"policy": {"csrf": {"filterEnabled": "yes"}}},
            "spec.policy.csrf.filterEnabled: expected true or false, found 'yes'",
        ),
        (
            "TrafficPolicy",
            {"policy": {"mirror": {"percentage": "50%"}}},
            "spec.policy.mirror.percentage: expected a number, found '50%'",
        ),
        (
            "TrafficPolicy",
            {"policy": {"mirror": {"percentage": float("nan")}}},
            "spec.policy.mirror.percentage: expected a number, found the number nan",
        ),
        (
            "TrafficPolicy",
            {"policy": {"mirror": {"percentage": 10**400}}},
            "spec.policy.mirror.percentage: expected a number, found a number beyond 64 bits",
        ),
        (
            "IssuedCertificate",
            {"certOptions": {"secretRotationGracePeriodRatio": 1e39}},
            "spec.certOptions.secretRotationGracePeriodRatio: expected a number, found the number 1e+39",
        ),
        (
            "TrafficPolicy",
            {"policy": {"requestTimeout": "2 sec"}},
            "spec.policy.requestTimeout: '2 sec' is not a duration such as 2s, 150ms or 1m30s",
        ),
        (
            "TrafficPolicy",
            {"policy": {"requestTimeout": 2}},
            "spec.policy.requestTimeout: expected a string, found the number 2",
        ),
        (
            "VirtualMesh",
            {"globalAccessPolicy": "enabled"},
            "spec.globalAccessPolicy: expected one of MESH_DEFAULT, ENABLED, DISABLED, found 'enabled'; "
            "did you mean ENABLED?",
        ),
        (
            "VirtualMesh",
            {"globalAccessPolicy": 3},
            "spec.globalAccessPolicy: expected one of MESH_DEFAULT, ENABLED, DISABLED, found the number 3",
        ),
        (
            "VirtualMesh",
            {"mtlsConfig": {"shared": {"rootCertificateAuthority": {"generated": {}, "secret": {}}}}},
            "spec.mtlsConfig.shared.rootCertificateAuthority: only one of generated and secret may be set",
        ),
        (
            "VirtualDestination",
            {"static": {}, "localized": {}, "virtualMesh": {}},
            "spec: only one of static and localized may be set",
        ),
        (
            "TrafficPolicy",
            {"destinationSelector": [{"kubeServiceMatcher": {"labels": {"version": 1}}}]},
            "spec.destinationSelector[0].kubeServiceMatcher.labels[version]: expected a string, found the number 1",
        ),
        (
            "TrafficPolicy",
            {"destinationSelector": [{"kubeServiceMatcher": {"labels": {1: "a"}}}]},
            "spec.destinationSelector[0].kubeServiceMatcher.labels: expected only strings as keys, found the number 1",
        ),
        (
            "CertificateRequest",
            {"certificateSigningRequest": "-----BEGIN"},
            "spec.certificateSigningRequest: expected base64, found '-----BEGIN'",
        ),
    ],
)
def test_a_fault_is_named_with_its_path_and_what_was_expected(kind: str, spec: Any, expected: str) -> None:
    assert problems(policy(spec, kind)) == [expected]


def test_all_faults_of_an_object_are_reported_at_once() -> None:
    spec = {"sourceSelectr": [], "policy": {"requestTimeout": "x", "retries": {"attempts": []}}}

    assert [problem.split(":")[0] for problem in problems(policy(spec))] == [
        "spec.sourceSelectr",
        "spec.policy.requestTimeout",
        "spec.policy.retries.attempts",
    ]


def test_a_failure_names_file_and_object() -> None:
    found = parse(policy({"polcy": {}}), source="policies.yaml")

    assert isinstance(found, ParseFailure)
    assert (found.source, found.kind, found.namespace, found.name) == (
        "policies.yaml",
        "TrafficPolicy",
        "gloo-mesh",
        "simple",
    )
    assert str(found) == (
        "policies.yaml: TrafficPolicy gloo-mesh/simple spec.polcy: unknown field; did you mean policy?"
    )


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"name": ""}, "metadata.name: an object needs a name"),
        ({"name": None}, "metadata.name: an object needs a name"),
        ({"name": "Simple"}, "metadata.name: 'Simple' is not made of a-z, 0-9, '-' and '.' (RFC 1123)"),
        ({"name": "a" * 254}, "metadata.name: 254 characters are too many; at most 253 will do"),
        ({"namespace": "a" * 64}, "metadata.namespace: 64 characters are too many; at most 63 will do"),
        ({"namespace": "a.b"}, "metadata.namespace: 'a.b' is not made of a-z, 0-9 and '-' (RFC 1123)"),
        ({"labels": {"a": 1}}, "metadata.labels[a]: expected a string, found the number 1"),
    ],
)
def test_metadata_must_be_what_kubernetes_takes(metadata: Any, expected: str) -> None:
    assert problems(policy({}, **metadata)) == [expected]


def test_other_metadata_is_left_alone() -> None:
    assert isinstance(parse(policy({}, managedFields=[{}], finalizers=["a"])), TrafficPolicy)


@pytest.mark.parametrize(
    ("manifest", "expected"),
    [
        (None, "expected an object, found null"),
        ([], "expected an object, found a list"),
        ({}, "apiVersion: expected a string, found null"),
        ({"apiVersion": "v1", "kind": 5}, "kind: expected a string, found the number 5"),
        (
            {"apiVersion": "networking.mesh.gloo.solo.io/v1", "kind": "TrafficPolice"},
            "kind: networking.mesh.gloo.solo.io/v1 TrafficPolice is not a kind of Isthmus; did you mean TrafficPolicy?",
        ),
        (
            {"apiVersion": "networking.enterprise.mesh.gloo.solo.io/v1alpha1", "kind": "VirtualDestination"},
            "apiVersion: 'networking.enterprise.mesh.gloo.solo.io/v1alpha1' has no VirtualDestination; "
            "'networking.enterprise.mesh.gloo.solo.io/v1beta1' has",
        ),
    ],
)
def test_what_is_no_object_of_ours_is_named(manifest: Any, expected: str) -> None:
    assert problems(manifest) == [expected]


def test_a_misplaced_spec_field_is_unknown() -> None:
    manifest = {**policy({}), "policy": {}}

    assert problems(manifest) == ["policy: unknown field; expected one of metadata, spec, status"]


def test_an_unreadable_status_does_not_spoil_the_object() -> None:
    manifest = {**policy({}), "status": {"state": "PONDERING", "observedGeneration": 3}}

    found = parse(manifest)

    assert isinstance(found, TrafficPolicy)
    assert found.status is None
    assert warnings(manifest)[0].startswith("status.state: expected one of PENDING")


def test_unknown_fields_of_a_status_are_passed_over() -> None:
    manifest = {**policy({}, "VirtualMesh"), "status": {"observedGeneration": "3", "pending": {}}}

    found = parse(manifest)

    assert isinstance(found, VirtualMesh)
    assert found.status is not None
    assert found.status.observed_generation == 3


@each_kind
def test_nothing_that_a_file_can_hold_makes_parsing_crash(cls: type[Resource]) -> None:
    @FEW
    @given(resources(cls), st.data())
    def check(resource: Resource, data: st.DataObject) -> None:
        manifest = resource.manifest()
        inside: Any = manifest
        while data.draw(st.booleans()):
            parts = [
                v for v in (inside.values() if isinstance(inside, dict) else inside) if isinstance(v, dict | list) and v
            ]
            if not parts:
                break
            inside = data.draw(st.sampled_from(parts))
        keys = list(inside) if isinstance(inside, dict) else list(range(len(inside)))
        inside[data.draw(st.sampled_from(keys))] = data.draw(json_values())

        found = parse(manifest)

        if isinstance(found, Resource):
            assert parse(found.manifest()) == found
        else:
            assert all(isinstance(problem, Problem) and problem.message for problem in found.problems)

    check()
