"""Our charts in Helm's hands: the same objects as from `meshctl`, the same values refused.

Theme *charts*. Needs of the lab only its `helm`.
"""

from __future__ import annotations

import json
import subprocess
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from isthmus.install import AgentValues, ManagementPlaneValues, Release, agent, management_plane, read_values
from isthmus.install.chart import AGENT, MANAGEMENT_PLANE, directory
from isthmus.install.values import CLUSTER_NAME, SERVER_ADDRESS, Free, Values
from isthmus.lab.binaries import find

Manifest = dict[str, Any]

MINIMUM = {MANAGEMENT_PLANE: {}, AGENT: {"relay": {"cluster": "cluster1", "serverAddress": "192.0.2.1:9900"}}}
TYPES: dict[str, type[Values]] = {MANAGEMENT_PLANE: ManagementPlaneValues, AGENT: AgentValues}
BROUGHT = "enterprise-networking.selfSigned=false"  # no two runs make the same certificates


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """How Helm ends; it has no kubeconfig, so it asks no cluster."""
    command = [str(find().path("helm")), *map(str, arguments)]
    environment = {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def template(chart: str, values: Path, namespace: str, *more: str) -> subprocess.CompletedProcess[str]:
    return helm("template", "any", directory(chart), "--include-crds", "-n", namespace, "-f", values, *more)


def ours(chart: str, document: Manifest, namespace: str) -> Iterable[Manifest]:
    """What `meshctl` applies, without what it adds to the chart."""
    release = Release(namespace=namespace)
    if chart == AGENT:
        values = read_values(AgentValues, [document])
        assert isinstance(values, AgentValues), values
        found = agent(values, release)
    else:
        chosen = read_values(ManagementPlaneValues, [document])
        assert isinstance(chosen, ManagementPlaneValues), chosen
        found = management_plane(chosen, release)
    return (item for item in found if item["kind"] != "Namespace")


def in_order(items: Iterable[Manifest | None]) -> list[Manifest]:
    def key(item: Manifest) -> tuple[str, ...]:
        metadata = item["metadata"]
        return item["kind"], metadata.get("namespace", ""), metadata["name"]

    return sorted(filter(None, items), key=key)


# What YAML might take for something else, and what would break a template that does not quote.
TRICKY = st.sampled_from(
    ["", "true", "no", "~", "null", "12", "1.50", "1e3", "0x1f", "2026-01-01", "a: b", "- a", " a ", "# a", "{{ .a }}"]
)
# No file of values may hold control characters.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs"))
TEXT = TRICKY | st.text(CHARACTERS, max_size=8).map(lambda text: f"x{text}")
SCALAR = TEXT | st.booleans() | st.integers(-(2**31), 2**31)
NESTED = st.recursive(
    st.none() | SCALAR,
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["a", "cpu", "b/c"]), below, max_size=2)
    ),
    max_leaves=4,
)
FREE = st.dictionaries(
    st.sampled_from(["metadata", "labels", "requests", "limits", "cpu", "x.y/z"]), NESTED, max_size=2
)
# Over a manifest, only with what keeps it one: Helm reads name and kind of what it prints.
OVERRIDES = st.fixed_dictionaries({}, optional={"spec": FREE, "status": FREE | st.none(), "extra": SCALAR | st.none()})
PATTERNS = {"cluster": CLUSTER_NAME, "serverAddress": SERVER_ADDRESS}


def documents(type_: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Values that a user may write for *type_*; any part may be left to the default."""
    if isinstance(type_, type) and issubclass(type_, Values):
        fields = {f.encode_name: documents(f.type, f.encode_name) for f in msgspec.structs.fields(type_)}
        return st.fixed_dictionaries({}, optional=fields)
    if type_ == Free:
        return OVERRIDES if name.endswith("Overrides") else FREE
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if name in PATTERNS:
        return st.from_regex(PATTERNS[name], fullmatch=True)
    if origin is Annotated and arguments[0] is int:
        limits = arguments[1]
        return st.integers(limits.ge, limits.le or 2**31 - 1)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(TEXT, max_size=2)
    return st.booleans() if type_ is bool else TEXT


@pytest.mark.parametrize("chart", TYPES)
def test_helm_finds_nothing_to_complain_about(chart: str) -> None:
    """Not even a warning."""
    ended = helm("lint", "--strict", directory(chart))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[WARNING]" not in ended.stdout


@pytest.mark.parametrize("chart", TYPES)
@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # Helm is slow to start: no shrinking
@given(data=st.data(), namespace=st.sampled_from(["gloo-mesh", "123", "a-b"]))
def test_meshctl_renders_what_helm_renders(
    chart: str, data: st.DataObject, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One installation, whatever the tool: our renderer is Helm's as far as these charts go."""
    document = data.draw(documents(TYPES[chart]))
    if chart == AGENT:
        document["relay"] = {**MINIMUM[AGENT]["relay"], **document.get("relay", {})}
    values = tmp_path_factory.mktemp("helm") / "values.json"
    values.write_text(json.dumps(document, ensure_ascii=False))

    ended = template(chart, values, namespace, *(["--set", BROUGHT] if chart == MANAGEMENT_PLANE else []))

    assert ended.returncode == 0, ended.stderr
    assert in_order(ours(chart, document, namespace)) == in_order(yaml.safe_load_all(ended.stdout))


@pytest.mark.parametrize(
    ("chart", "setting", "path"),
    [
        (MANAGEMENT_PLANE, "licenceKey=x", "licenceKey"),
        (MANAGEMENT_PLANE, "enterprise-networking.enterpriseNetworking.serviceType=Magic", "serviceType"),
        (MANAGEMENT_PLANE, "enterprise-networking.enterpriseNetworking.ports.grpc=0", "grpc"),
        (MANAGEMENT_PLANE, "enterprise-networking.verbose=loud", "verbose"),
        (AGENT, "relay.cluster=Cluster_1", "cluster"),
        (AGENT, "relay.serverAddress=https://a:9900", "serverAddress"),
        (AGENT, "relay.cluster=", "cluster"),
        (AGENT, "enterpriseAgent.runAsUser=0", "runAsUser"),
    ],
)
def test_both_refuse_what_no_chart_can_honour(chart: str, setting: str, path: str, tmp_path: Path) -> None:
    """A typing mistake never installs something else silently, and the error names the value."""
    file = tmp_path / "values.json"
    file.write_text(json.dumps(MINIMUM[chart]))

    ended = template(chart, file, "gloo-mesh", "--set", setting)
    problem = read_values(TYPES[chart], [MINIMUM[chart]], [setting])  # type: ignore[type-var]

    assert ended.returncode != 0
    assert path in ended.stderr
    assert not isinstance(problem, Values)


def test_helm_takes_a_licence_key_of_digits_only() -> None:
    """Helm reads it as a number; the walk-through's command does not quote it."""
    ended = helm("template", "any", directory(MANAGEMENT_PLANE), "--set", f"licenseKey=1234567,{BROUGHT}")

    (secret,) = [item for item in yaml.safe_load_all(ended.stdout) if item and item["kind"] == "Secret"]
    assert secret["data"] == {"key": "MTIzNDU2Nw=="}
