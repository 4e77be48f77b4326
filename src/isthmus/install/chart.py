"""The charts, and what they make of values: the objects that Helm would install.

Reads the files of the package, nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from isthmus.api.base import Resource
from isthmus.api.crds import file_name
from isthmus.api.kinds import CERTIFICATES, DISCOVERED, POLICIES, REGISTRATION
from isthmus.install.functions import LOADER
from isthmus.install.template import Templates
from isthmus.install.values import Release

Manifest = dict[str, Any]

MANAGEMENT_PLANE = "isthmus"
AGENT = "isthmus-agent"

DEFINED: dict[str, tuple[type[Resource], ...]] = {
    MANAGEMENT_PLANE: (*POLICIES, *DISCOVERED, *REGISTRATION),
    AGENT: CERTIFICATES,
}
"""The kinds whose definitions each chart brings. One cluster may have both charts, so none is in two."""

ORDER = (
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "Secret",
    "Settings",
    "Service",
    "Deployment",
)
"""Kinds in the order in which to create them: whoever starts finds what it needs."""


def directory(chart: str) -> Path:
    """The files of *chart*: in an installed package beside the code, in a checkout in ``charts/``."""
    packaged = Path(str(files("isthmus"))) / "charts" / chart
    return packaged if packaged.exists() else Path(__file__).parents[3] / "charts" / chart


def render(chart: str, values: Mapping[str, Any], release: Release) -> list[Manifest]:
    """The objects of *chart*, complete *values* given, in the order of `ORDER`. Raises `TemplateError`."""
    templates = _templates(chart)
    data = {
        "Values": values,
        "Chart": {"AppVersion": app_version(chart)},
        "Release": {"Namespace": release.namespace},
        "Capabilities": {"APIVersions": {"Has": lambda api: False}},
    }
    found = definitions(chart)
    for name in templates.files:
        found.extend(filter(None, yaml.load_all(templates.render(name, data), LOADER)))
    return in_order(found)


def in_order(items: Iterable[Manifest]) -> list[Manifest]:
    """*items* in the order of `ORDER`, those of a kind as they come."""
    return sorted(items, key=lambda item: ORDER.index(item["kind"]))


def app_version(chart: str) -> str:
    """The version of the programs that *chart* installs."""
    return str(_described(chart)["appVersion"])


def definitions(chart: str) -> list[Manifest]:
    """The CustomResourceDefinitions of *chart*."""
    folder = directory(chart) / "crds"
    return [yaml.load((folder / file_name(cls)).read_text(encoding="utf-8"), LOADER) for cls in DEFINED[chart]]


@cache
def _described(chart: str) -> Manifest:
    described: Manifest = yaml.load((directory(chart) / "Chart.yaml").read_text(encoding="utf-8"), LOADER)
    return described


@cache
def _templates(chart: str) -> Templates:
    folder = directory(chart)
    paths = [path for path in folder.glob("templates/*") if path.suffix in (".yaml", ".tpl")]
    return Templates({path.relative_to(folder.parent).as_posix(): path.read_text(encoding="utf-8") for path in paths})
