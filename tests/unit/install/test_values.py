"""How ``--set`` and values files are read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.install import AgentValues, ManagementPlaneValues, known_keys, read_values
from isthmus.install.reading import merge, parse_setting
from isthmus.model.problem import Problem

SERVER = "enterprise-networking.enterpriseNetworking"


def read(*settings: str, files: tuple[dict[str, Any], ...] = ()) -> ManagementPlaneValues:
    found = read_values(ManagementPlaneValues, files, settings)
    assert isinstance(found, ManagementPlaneValues), found
    return found


@pytest.mark.parametrize(
    "setting", ["licenseKey=${GLOO_MESH_LICENSE_KEY}", "gloo-mesh-ui.GlooMeshDashboard.apiserver.floatingUserId=true"]
)
def test_values_of_the_walk_through_are_accepted(setting: str) -> None:
    """Users keep the command line that they have."""
    assert read(setting) != ManagementPlaneValues()


@pytest.mark.parametrize(
    ("setting", "nearest"),
    [
        ("licenceKey=x", "licenseKey"),
        ("serviceType=NodePort", f"{SERVER}.serviceType"),
        ("enterpriseNetworking.floatingUserId=true", f"{SERVER}.floatingUserId"),
        ("enterprise-networking.enterpriseNetworking.port.grpc=1", f"{SERVER}.ports.grpc"),
    ],
)
def test_an_unknown_value_names_the_nearest_known(setting: str, nearest: str) -> None:
    """A typing mistake never installs something else silently."""
    found = read_values(ManagementPlaneValues, [], [setting])

    assert isinstance(found, Problem)
    assert found.path == setting.partition("=")[0]
    assert found.message.endswith(f"the nearest is {nearest}")


@pytest.mark.parametrize(
    ("setting", "path", "message"),
    [
        (f"{SERVER}.ports.grpc=many", f"{SERVER}.ports.grpc", "Expected `int`, got `str`"),
        (f"{SERVER}.serviceType=Magic", f"{SERVER}.serviceType", "Invalid enum value 'Magic'"),
        (f"{SERVER}=1", SERVER, "Expected `object`, got `str`"),
        ("verbose", "verbose", "'verbose' is not of the form key=value"),
        ("a..b=1", "a..b=1", "'a..b=1' is not of the form key=value"),
    ],
)
def test_a_wrong_value_says_where_and_what(setting: str, path: str, message: str) -> None:
    """The path is the key that the user wrote."""
    assert read_values(ManagementPlaneValues, [], [setting]) == Problem(
        path, "InvalidSetting" if "form" in message else "InvalidValue", message
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("relay.cluster=", "missing"),
        ("relay.cluster=Cluster_1", "'Cluster_1' is not a cluster name"),
        ("relay.serverAddress=", "missing"),
        ("relay.serverAddress=https://a:9900", "'https://a:9900' is not host:port"),
        ("relay.serverAddress=:9900", "':9900' is not host:port"),
        ("relay.serverAddress=::1", "'::1' is not host:port"),
    ],
)
def test_an_agent_needs_a_name_and_an_address(setting: str, message: str) -> None:
    """What an agent cannot do without is asked for before anything is installed."""
    found = read_values(AgentValues, [], ["relay.cluster=a", "relay.serverAddress=[::1]:9900", setting])

    assert isinstance(found, Problem)
    assert found.path == setting.partition("=")[0]
    assert found.message.startswith(f"{message}; ")


def test_later_settings_win_over_earlier_and_over_files() -> None:
    """As with Helm: files in order, then --set in order; objects are merged, anything else replaced."""
    first = {"enterprise-networking": {"verbose": True, "relay": {"additionalSans": ["a", "b"]}}}
    second = {"enterprise-networking": {"relay": {"additionalSans": ["c"]}}}

    found = read("enterprise-networking.verbose=true", "enterprise-networking.verbose=false", files=(first, second))

    assert found.enterprise_networking.verbose is False
    assert found.enterprise_networking.relay.additional_sans == ("c",)


def test_null_in_a_file_goes_back_to_the_default() -> None:
    """As with Helm."""
    found = read(files=({"licenseKey": "x"}, {"licenseKey": None}))

    assert found == ManagementPlaneValues()


def test_text_that_looks_like_a_number_stays_text_where_text_is_wanted() -> None:
    """Helm needs --set-string for this, which is easily forgotten."""
    found = read("licenseKey=0123", f"{SERVER}.image.tag=1.10")

    assert found.license_key == "0123"
    assert found.enterprise_networking.enterprise_networking.image.tag == "1.10"


def test_free_parts_take_any_key_and_yaml_scalars() -> None:
    """Overrides have no type of their own."""
    found = read(f"{SERVER}.deploymentOverrides.spec.replicas=2,{SERVER}.serviceOverrides.metadata.labels.a\\.b/c=x")

    server = found.enterprise_networking.enterprise_networking
    assert server.deployment_overrides == {"spec": {"replicas": 2}}
    assert server.service_overrides == {"metadata": {"labels": {"a.b/c": "x"}}}


@pytest.mark.parametrize(
    ("setting", "document"),
    [
        ("a=b", {"a": "b"}),
        ("a=b=c", {"a": "b=c"}),
        ("a.b=1,a.c=2", {"a": {"b": "1", "c": "2"}}),
        ("a={x,y}", {"a": ["x", "y"]}),
        ("a={}", {"a": []}),
        (r"a\.b=c\,d", {"a.b": "c,d"}),
        ("a=null", {"a": None}),
        ("a=", {"a": ""}),
    ],
)
def test_settings(setting: str, document: dict[str, Any]) -> None:
    """Helm's notation, and a value may hold ``=``."""
    assert parse_setting(setting) == document


@given(st.text(alphabet="ab.,={}\\ ", max_size=12))
def test_any_setting_is_a_document_or_a_problem(setting: str) -> None:
    """No input of a user is a crash."""
    found = read_values(ManagementPlaneValues, [], [setting])

    assert isinstance(found, Problem | ManagementPlaneValues)


documents = st.recursive(
    st.none() | st.integers(0, 3),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
).filter(lambda found: isinstance(found, dict))


@given(documents, documents)
def test_merging_twice_changes_nothing(base: dict[str, Any], over: dict[str, Any]) -> None:
    """Merging is idempotent, and what is merged over is there."""
    once = merge(base, over)

    assert merge(once, over) == once


def test_every_known_key_may_be_set_alone() -> None:
    """The list that errors quote from is the truth, and no value needs another one beside it."""
    for key in known_keys(ManagementPlaneValues):
        problems = [
            read_values(ManagementPlaneValues, [], [f"{key.replace('.*', '.some')}={value}"])
            for value in ("1", "true", "{}", "x", "Always", "SIMPLE", "ClusterIP")
        ]

        assert any(isinstance(found, ManagementPlaneValues) for found in problems), (key, problems)


def test_one_name_may_be_changed_without_the_others() -> None:
    """What is not set keeps its default, at any depth."""
    found = read_values(
        AgentValues,
        [],
        [
            "relay.cluster=a",
            "relay.serverAddress=b:1",
            "relay.rootTlsSecret.namespace=x",
            "enterpriseAgent.image.tag=9",
        ],
    )

    assert isinstance(found, AgentValues)
    assert found.relay.root_tls_secret.name == "relay-root-tls-secret"
    assert found.enterprise_agent.image.repository == "isthmus/isthmus-agent"
