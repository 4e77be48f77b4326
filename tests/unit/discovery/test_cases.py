"""Golden cases: a cluster's objects in, what is discovered and what is wrong with it out."""

from pathlib import Path

import pytest

from isthmus.discovery import discover
from tests.golden import Golden, case_id, cases, dump_yaml, load_yaml


@pytest.mark.parametrize("case", cases("discovery"), ids=case_id)
def test_discovery(case: Path, golden: Golden):
    found, problems = discover("cluster1", load_yaml(case / "in.yaml"))

    report = {"problems": [str(problem) for problem in problems]}
    golden.check(case / "out.yaml", dump_yaml([*(resource.manifest() for resource in found), report]))
