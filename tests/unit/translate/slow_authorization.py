"""Istio's authorization, one call at a time, as plainly as it can be said: what `evaluation` is held against.

It shares nothing with it: policies are read as they are written, for each call anew, and every attribute is known.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

Manifest = dict[str, Any]


class Asked(msgspec.Struct, frozen=True):
    """One call of which everything is known."""

    principal: str = ""
    port: int = 80
    method: str = "GET"
    path: str = "/"
    token: str = ""
    """``<issuer>/<subject>`` of the caller's token, empty without one."""
    is_http: bool = True


def allowed(policies: list[Manifest], root: str, namespace: str, labels: dict[str, str], call: Asked) -> bool:
    """Whether *call* passes pods with *labels* in *namespace*."""
    mine = [policy for policy in policies if applies(policy, root, namespace, labels)]
    deny = [policy for policy in mine if policy["spec"].get("action") == "DENY"]
    allow = [policy for policy in mine if policy["spec"].get("action", "ALLOW") == "ALLOW"]
    if any(policy_matches(policy, call) for policy in deny):
        return False
    return not allow or any(policy_matches(policy, call) for policy in allow)


def applies(policy: Manifest, root: str, namespace: str, labels: dict[str, str]) -> bool:
    if policy["metadata"]["namespace"] not in (root, namespace):
        return False
    wanted = policy["spec"].get("selector", {}).get("matchLabels", {})
    return all(labels.get(key) == value for key, value in wanted.items())


def policy_matches(policy: Manifest, call: Asked) -> bool:
    denies = policy["spec"].get("action") == "DENY"
    return any(rule_matches(rule, call, denies) for rule in policy["spec"].get("rules", []))


def rule_matches(rule: Manifest, call: Asked, denies: bool) -> bool:
    sources = [each["source"] for each in rule.get("from", [])]
    operations = [each["operation"] for each in rule.get("to", [])]
    conditions = rule.get("when", [])
    if not call.is_http and not denies and any(speaks_of_http(each) for each in [*sources, *operations]):
        return False
    return (
        (not sources or any(fields_match(each, call) for each in sources))
        and (not operations or any(fields_match(each, call) for each in operations))
        and all(condition_matches(each, call) for each in conditions)
    )


HTTP = ("methods", "notMethods", "paths", "notPaths", "requestPrincipals", "notRequestPrincipals")


def speaks_of_http(fields: Manifest) -> bool:
    return any(name in HTTP for name in fields)


def fields_match(fields: Manifest, call: Asked) -> bool:
    for name, patterns in fields.items():
        if name in HTTP and not call.is_http:
            continue  # in DENY rules only, see rule_matches
        found = any(field_matches(name.removeprefix("not").lower(), pattern, call) for pattern in patterns)
        if found is name.startswith("not"):
            return False
    return True


def condition_matches(condition: Manifest, call: Asked) -> bool:
    field = {"source.principal": "principals", "source.namespace": "namespaces", "destination.port": "ports"}
    name = field[condition["key"]]
    return (
        "values" not in condition or any(field_matches(name, pattern, call) for pattern in condition["values"])
    ) and not any(field_matches(name, pattern, call) for pattern in condition.get("notValues", []))


def field_matches(field: str, pattern: str, call: Asked) -> bool:
    if field == "principals":
        return call.principal != "" and text_matches(pattern, call.principal)
    if field == "namespaces":
        return call.principal != "" and text_matches(pattern, call.principal.split("/")[2])
    if field == "ports":
        return pattern == str(call.port)
    if field == "methods":
        return text_matches(pattern, call.method)
    if field == "paths":
        if "{" in pattern:
            expression = re.escape(pattern).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
            return re.fullmatch(expression, call.path) is not None
        return text_matches(pattern, call.path)
    assert field == "requestprincipals"
    return call.token != "" and text_matches(pattern, call.token)


def text_matches(pattern: str, text: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*" if pattern != "*" else ".+"), text) is not None
