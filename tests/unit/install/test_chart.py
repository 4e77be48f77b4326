"""The charts as files: what Helm reads of them says the same as our types and tables."""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from isthmus import __version__
from isthmus.agent.certificates import SELF_SIGNED, TARGET
from isthmus.agent.rollouts import CONTROLLERS
from isthmus.api.written import stale
from isthmus.discovery import INPUT_KINDS
from isthmus.install import AgentValues, ManagementPlaneValues, agent, read_values
from isthmus.install.chart import AGENT, DEFINED, MANAGEMENT_PLANE, directory
from isthmus.install.schema import generated, present
from isthmus.install.template import TemplateError
from isthmus.istio.kinds import OUTPUT_KINDS
from isthmus.model.kinds import POD_DISRUPTION_BUDGET

CHARTS = {MANAGEMENT_PLANE: ManagementPlaneValues(), AGENT: AgentValues()}


def load(chart: str, name: str) -> Any:
    return yaml.safe_load((directory(chart) / name).read_text())


def test_generated_files_are_up_to_date() -> None:
    assert stale(generated(), present()) == []


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_has_the_version_of_the_package(chart: str) -> None:
    """Images and labels follow from it."""
    described = load(chart, "Chart.yaml")

    assert (described["version"], described["appVersion"]) == (__version__, __version__)


@pytest.mark.parametrize("chart", CHARTS)
def test_helms_defaults_are_ours_and_keep_to_the_schema(chart: str) -> None:
    defaults = load(chart, "values.yaml")

    assert defaults == msgspec.json.decode(msgspec.json.encode(CHARTS[chart]))
    jsonschema.validate(defaults, load(chart, "values.schema.json"), jsonschema.Draft7Validator)


@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_brings_its_definitions_and_no_other(chart: str) -> None:
    """Helm installs whatever lies there."""
    found = {path.name for path in (directory(chart) / "crds").iterdir()}

    assert found == {f"{cls.KIND.plural}.{cls.KIND.group}.yaml" for cls in DEFINED[chart]}


def test_both_charts_merge_overrides_alike() -> None:
    """They share no files, since each is installed by itself."""
    first, second = ((directory(chart) / "templates" / "_merge.tpl").read_text() for chart in CHARTS)

    assert first == second


def test_the_agent_may_do_on_the_cluster_exactly_what_it_does() -> None:
    """Reads what discovery reads, reads and writes what translation puts out, and brings meshes their certificates."""
    values = read_values(AgentValues, [], ["relay.cluster=a", "relay.serverAddress=b:1"])
    assert isinstance(values, AgentValues)
    (role,) = [item for item in agent(values) if item["kind"] == "ClusterRole"]
    read, write = {"get", "list", "watch"}, {"create", "delete", "patch"}

    granted: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for rule in role["rules"]:
        for group, resource, name in product(rule["apiGroups"], rule["resources"], rule.get("resourceNames", [""])):
            granted[group, resource, name].update(rule["verbs"])

    expected: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for kinds, verbs in (
        ((*INPUT_KINDS, POD_DISRUPTION_BUDGET), read),
        (OUTPUT_KINDS, read | write),
        (tuple(CONTROLLERS.values()), {"patch"}),
    ):
        for kind in kinds:
            expected[kind.group, kind.plural, ""] |= verbs
    expected["", "pods/eviction", ""] = {"create"}
    expected["", "secrets", TARGET] = read | write
    expected["", "secrets", SELF_SIGNED] = {"get"}
    assert granted == expected


def test_a_chart_asks_for_what_an_agent_cannot_do_without() -> None:
    """Values that were not read by `read_values` end there, too."""
    with pytest.raises(TemplateError, match=r"isthmus-agent/templates/deployment\.yaml:\d+: required: relay\.cluster"):
        agent(AgentValues())


def test_resources_are_merged_over_the_defaults_as_helm_does() -> None:
    """Null takes a default away."""
    key = "enterprise-networking.enterpriseNetworking.resources"

    values = read_values(ManagementPlaneValues, [], [f"{key}.limits.memory=1Gi,{key}.requests.cpu=null"])

    assert isinstance(values, ManagementPlaneValues)
    assert values.enterprise_networking.enterprise_networking.resources == {
        "requests": {"memory": "256Mi"},
        "limits": {"memory": "1Gi"},
    }
