"""Exchanges with an API server written as data: what is sent, what must come back, what is kept for later.

A step is a mapping: ``do`` (method and path), ``type`` (content type), ``accept``, ``agent``, ``send`` (body; text is
sent as it is), ``answer`` (status code), ``body`` (a pattern), ``header`` (patterns), ``keep`` (variable: path into the
body) and ``until`` (repeat until the step holds). ``<name>`` stands for a variable: ``<ns>`` is a fresh namespace,
``<id>`` a fresh word; ``<long>``, ``<big>``, ``<larger>``, ``<largest>`` and ``<beyond>`` are texts of growing length;
the others are what was kept.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from tests.contract.server import DEADLINE_SECONDS, Server

ABSENT = "<absent>"
ANY = "<any>"

_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}


def run(server: Server, steps: list[dict[str, Any]]) -> None:
    """Carry out the steps of one exchange; fails at the first that does not hold."""
    variables: dict[str, str] = {
        "ns": server.new_namespace(),
        "id": server.new_name("x").replace("-", ""),
        "big": "x" * 300_000,
        "larger": "x" * 1_100_000,
        "largest": "x" * 1_800_000,
        "beyond": "x" * 3_200_000,
        "long": "x" * 250,
    }
    for number, raw in enumerate(steps, 1):
        step = _fill(raw, variables)
        end = time.monotonic() + (DEADLINE_SECONDS if step.get("until") else 0)
        while True:
            fault, body = _try(server, step)
            if not fault or time.monotonic() >= end:
                break
            time.sleep(0.05)
        assert not fault, f"step {number}, {step['do']}: {fault}\nanswer: {json.dumps(body, indent=1)[:3000]}"
        for name, path in step.get("keep", {}).items():
            variables[name] = str(_at(body, path))


def _try(server: Server, step: dict[str, Any]) -> tuple[str, Any]:
    method, path = step["do"].split(" ", 1)
    headers = {}
    if "accept" in step:
        headers["accept"] = step["accept"]
    if "agent" in step:
        headers["user-agent"] = step["agent"]
    content = None
    if "send" in step:
        given = step["send"]
        content = given if isinstance(given, str) else json.dumps(given)
        headers["content-type"] = _TYPES.get(step.get("type", ""), step.get("type", "application/json"))
    response = server.http.request(method, path, content=content, headers=headers)
    try:
        body = response.json()
    except ValueError:
        body = response.text
    if response.status_code != step.get("answer", 200):
        return f"status {response.status_code}, not {step.get('answer', 200)}", body
    for name, wanted in step.get("header", {}).items():
        fault = mismatch(wanted, response.headers.get(name, ABSENT), f"header {name}")
        if fault:
            return fault, body
    return mismatch(step.get("body", ANY), body, ""), body


def _fill(value: Any, variables: dict[str, str]) -> Any:
    if isinstance(value, str):
        return re.sub(r"<(\w+)>", lambda found: variables.get(found[1], found[0]), value)
    if isinstance(value, dict):
        return {_fill(key, variables): _fill(below, variables) for key, below in value.items()}
    if isinstance(value, list):
        return [_fill(item, variables) for item in value]
    return value


def _at(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body[int(part)] if isinstance(body, list) else body[part]
    return body


def mismatch(wanted: Any, found: Any, at: str) -> str:
    """Why *found* does not fit the pattern *wanted*; empty if it does.

    Maps need the named keys only, lists every item; ``<any>``, ``<absent>``, and ``~`` before a regular expression.
    """
    if wanted == ANY:
        return ""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return f"{at}: {found!r} is not a map"
        for key, below in wanted.items():
            if below == ABSENT:
                if key in found:
                    return f"{at}.{key}: {found[key]!r} should be absent"
            elif key not in found:
                return f"{at}.{key}: is absent"
            elif fault := mismatch(below, found[key], f"{at}.{key}"):
                return fault
        return ""
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(wanted) != len(found):
            return f"{at}: {found!r} does not have {len(wanted)} items"
        faults = (mismatch(one, other, f"{at}[{n}]") for n, (one, other) in enumerate(zip(wanted, found, strict=True)))
        return next((fault for fault in faults if fault), "")
    if isinstance(wanted, str) and wanted.startswith("~"):
        return "" if re.search(wanted[1:], str(found)) else f"{at}: {found!r} does not match {wanted[1:]!r}"
    if isinstance(wanted, str) and isinstance(found, int) and not isinstance(found, bool):
        return "" if wanted == str(found) else f"{at}: {found!r} is not {wanted!r}"
    return "" if wanted == found and type(wanted) is type(found) else f"{at}: {found!r} is not {wanted!r}"
