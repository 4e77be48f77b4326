"""AuthorizationPolicies in files: what an API server with Istio's definitions takes, and what it would drop."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.cli.access_own import fault_of

Rule = dict[str, Any] | None


def policy(*rules: Rule) -> dict[str, Any]:
    return {"metadata": {"name": "mine"}, "spec": {"rules": list(rules)}}


@pytest.mark.parametrize(
    "rule",
    [
        None,
        {},
        {"to": [{"operation": {"paths": ["/a"], "notPaths": ["/a/b"], "notMethods": ["PUT"], "notPorts": ["80"]}}]},
        {"from": [{"source": {"notPrincipals": ["*"], "notIpBlocks": ["10.0.0.0/8"], "serviceAccounts": ["a/b"]}}]},
        {"when": [{"key": "request.headers[x]", "notValues": ["a"]}]},
    ],
)
def test_what_istio_knows_is_no_fault(rule: Rule) -> None:
    assert fault_of(policy(rule)) is None


@pytest.mark.parametrize(
    ("rule", "field", "place"),
    [
        ({"to": [{"operation": {"path": ["/a"]}}]}, "path", "$.spec.rules[1].to[...].operation"),
        ({"from": [{"source": {"notPaths": ["/a"]}}]}, "notPaths", "$.spec.rules[1].from[...].source"),
        ({"to": [{"operation": {"notpaths": ["/a"]}}]}, "notpaths", "$.spec.rules[1].to[...].operation"),
    ],
)
def test_a_field_that_istio_does_not_know_is_one(rule: Rule, field: str, place: str) -> None:
    """An API server would drop it, and the rule would match more."""
    assert fault_of(policy(None, rule)) == f"Object contains unknown field `{field}` - at `{place}`"
