"""The CustomResourceDefinitions of all kinds, as `isthmus.api.generate` wrote them beside this module."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files
from typing import Any

import yaml

from isthmus.api.base import Resource
from isthmus.api.kinds import KINDS

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # C where PyYAML was built with it: ten times as fast


def manifests(types: Iterable[type[Resource]] = KINDS) -> tuple[dict[str, Any], ...]:
    """The CustomResourceDefinitions of *types*, in their order."""
    return tuple(yaml.load(text(cls), LOADER) for cls in types)


def text(cls: type[Resource]) -> str:
    """The CustomResourceDefinition of *cls* as YAML."""
    return (files(__name__) / file_name(cls)).read_text(encoding="utf-8")


def file_name(cls: type[Resource]) -> str:
    """``<plural>.<group>.yaml``."""
    return f"{cls.KIND.plural}.{cls.KIND.group}.yaml"
