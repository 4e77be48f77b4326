"""A change beforehand, as the guide says: what is on the management cluster, and what would be applied to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.unit.cli.meshctl import Clusters, meshctl

GUIDE = Path(__file__).parents[3] / "docs" / "guide" / "traffic.md"
CHANGE = """\
apiVersion: networking.mesh.gloo.solo.io/v1
kind: TrafficPolicy
metadata: {name: a-new-one, namespace: gloo-mesh}
spec:
  destinationSelector:
  - kubeServiceMatcher: {labels: {app: reviews}, clusters: [cluster1]}
  policy:
    requestTimeout: 9s
    corsPolicy: {maxAge: 60s}
"""


def kinds() -> list[str]:
    """The kinds that the guide's loop gets."""
    found = re.search(r"for kind in (.*?); do", GUIDE.read_text(), re.DOTALL)
    assert found is not None
    return found[1].replace("\\\n", " ").split()


def routes(folder: Path) -> list[dict[str, Any]]:
    """The routes of reviews in *folder*."""
    found = (yaml.safe_load(path.read_text()) for path in folder.rglob("*.yaml"))
    made: list[dict[str, Any]] = next(
        each["spec"]["http"]
        for each in found
        if (each["kind"], each["metadata"]["name"]) == ("VirtualService", "reviews")
    )
    return made


def test_what_is_not_applied_yet_would_be_the_youngest(traffic: Clusters, tmp_path: Path) -> None:
    """Though it comes first by name: what older policies say stays, and its status tells so."""
    fleet, change = tmp_path / "fleet", tmp_path / "change.yaml"
    fleet.mkdir()
    change.write_text(CHANGE)
    for kind in kinds():
        got = meshctl("get", kind, "-A", "-o", "json", kubeconfig=traffic.kubeconfig)
        assert (got.exit_code, got.stderr) == (0, ""), kind
        (fleet / f"{kind}.json").write_text(got.stdout)

    meshctl("translate", "-f", str(fleet), "-d", str(tmp_path / "before"))
    after = meshctl("translate", "-f", str(fleet), "-f", str(change), "-d", str(tmp_path / "after"))

    assert after.exit_code == 1
    before, then = (routes(tmp_path / when / "cluster1") for when in ("before", "after"))
    assert [route["timeout"] for route in before] == ["2s", "2s"]
    assert [(route["timeout"], route["corsPolicy"]["maxAge"]) for route in then] == [("2s", "60s"), ("2s", "60s")]
    status = next((tmp_path / "after" / "_statuses").rglob("*a-new-one*")).read_text()
    assert "is set otherwise by TrafficPolicy patience.gloo-mesh" in status
