"""Golden cases: a cluster's objects in, what is discovered and what is wrong with it out.

Their inputs serve a second test, in which every single object leaves and comes back.
"""

from pathlib import Path

import pytest

from isthmus.discovery import discover
from tests.golden import Golden, case_id, cases, dump_yaml, load_yaml
from tests.unit.discovery.follower import Follower, is_read


@pytest.mark.parametrize("case", cases("discovery"), ids=case_id)
def test_discovery(case: Path, golden: Golden):
    found, problems = discover("cluster1", load_yaml(case / "in.yaml"))

    report = {"problems": [str(problem) for problem in problems]}
    golden.check(case / "out.yaml", dump_yaml([*(resource.manifest() for resource in found), report]))


@pytest.mark.parametrize("case", cases("discovery"), ids=case_id)
def test_every_object_may_leave_and_come_back(case: Path):
    follower = Follower()
    manifests = [manifest for manifest in load_yaml(case / "in.yaml") if is_read(manifest)]
    follower.set(*manifests)
    follower.run()
    whole = dict(follower.reported)

    for manifest in manifests:
        follower.remove(manifest)
        follower.run()
        follower.assert_as_from_scratch()
        follower.set(manifest)
        follower.run()
        assert follower.reported == whole
