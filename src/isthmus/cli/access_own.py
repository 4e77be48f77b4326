"""AuthorizationPolicies in files: what an API server with Istio's definitions would refuse, or would leave out.

A field that is spelled wrong is left out there, and a rule without fields matches every call; so it is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from isthmus.translate.access.evaluation import OPERATION_FIELDS, SOURCE_FIELDS

Patterns = dict[str, list[str] | None]


class _Strict(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    """Fields that are known."""


class _Source(_Strict):
    source: Patterns | None = None


class _Operation(_Strict):
    operation: Patterns | None = None


class _Condition(_Strict):
    key: str
    values: list[str] | None = None
    not_values: list[str] | None = None


class _Rule(_Strict):
    from_: list[_Source] | None = msgspec.field(default=None, name="from")
    to: list[_Operation] | None = None
    when: list[_Condition] | None = None


class _Selector(_Strict):
    match_labels: dict[str, str] | None = None


class _Spec(_Strict):
    action: Literal["ALLOW", "DENY", "AUDIT", "CUSTOM"] = "ALLOW"
    rules: list[_Rule | None] | None = None
    selector: _Selector | None = None
    target_ref: dict[str, str] | None = None
    target_refs: list[dict[str, str]] | None = None
    provider: dict[str, str] | None = None


class _Metadata(msgspec.Struct):
    name: str
    annotations: dict[str, str] | None = None


class _Policy(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None


def fault_of(manifest: Mapping[str, Any]) -> str | None:
    """What is wrong with an AuthorizationPolicy, None if nothing is."""
    try:
        policy = msgspec.convert(manifest, _Policy)
    except msgspec.ValidationError as error:
        return str(error)
    return next(_unknown(policy.spec), None) if policy.spec is not None else None


def _unknown(spec: _Spec) -> Iterator[str]:
    """Fields of sources and operations that Istio does not know."""
    for number, rule in enumerate(spec.rules or ()):
        if rule is None:
            continue
        sources = [("from", "source", each.source, SOURCE_FIELDS) for each in rule.from_ or ()]
        operations = [("to", "operation", each.operation, OPERATION_FIELDS) for each in rule.to or ()]
        for place, what, patterns, known in (*sources, *operations):
            for name in patterns or ():
                plain = name[3:4].lower() + name[4:] if name.startswith("not") and name[3:4].isupper() else name
                if plain not in known:
                    yield f"Object contains unknown field `{name}` - at `$.spec.rules[{number}].{place}[...].{what}`"
