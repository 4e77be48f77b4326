"""The walk-through end to end: API servers, programs as real processes, and the commands as users type them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from isthmus.cli.demo import REGISTER, Clock, running_fleet, set_up
from isthmus.embedded.fleet import Fleet
from tests.unit.cli.meshctl import meshctl

MESHCTL = Path(sys.executable).with_name("meshctl")
pytestmark = pytest.mark.timeout(300)
PATIENCE = 90.0  # seconds; a busy machine takes ten times as long as an idle one


def test_demo_once_checks_itself() -> None:
    ran = subprocess.run([MESHCTL, "demo", "--once"], capture_output=True, text=True, timeout=3 * PATIENCE)

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "✔ cluster1 has the five ServiceEntries of cluster2 as the walk-through lists them" in ran.stdout
    assert "✔ cluster1's entry for reviews is the walk-through's, field by field" in ran.stdout
    assert "cluster1's certificate is ISSUED: istiod restarts, then gateways and workloads" in ran.stdout
    assert "✔ all meshes trust one root" in ran.stdout
    assert "✘" not in ran.stdout
    assert ran.stdout.splitlines()[-1].endswith("all as the walk-through says")


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path, str]]:
    """A demo that runs: its process, its kubeconfig, and what it has said."""
    process = subprocess.Popen(
        [MESHCTL, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if found := re.search(r"export KUBECONFIG=(\S+)", line):
                yield process, Path(found[1]), said
                break
        else:
            pytest.fail(said)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(PATIENCE)
        process.stdout.close()


def children_of(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has ended meanwhile
            found += [int(child) for child in task.read_text().split()]
    return found


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_answers_until_it_is_ended_and_leaves_nothing(
    number: signal.Signals, demo: tuple[subprocess.Popen[str], Path, str]
) -> None:
    process, kubeconfig, said = demo
    listed = meshctl("get", "virtualmeshes", kubeconfig=kubeconfig)
    programs = children_of(process.pid)

    process.send_signal(number)
    process.send_signal(number)  # an impatient user
    assert process.wait(PATIENCE) == 0

    assert f"$ meshctl {REGISTER.format(name='cluster1', address='')}"[:60] in said
    assert "ACCEPTED" in listed.stdout
    assert len(programs) >= 3
    assert all(gone(program) for program in programs)
    assert not kubeconfig.parent.exists()


def test_programs_end_even_when_the_demo_is_killed(demo: tuple[subprocess.Popen[str], Path, str]) -> None:
    process, _, _ = demo
    programs = children_of(process.pid)

    process.kill()
    process.wait(PATIENCE)

    deadline = time.monotonic() + PATIENCE
    while not all(gone(program) for program in programs):
        assert time.monotonic() < deadline, "a program outlived the demo"


# --- what users do after the walk-through ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """The walk-through, set up and federated."""
    clock = Clock()
    with running_fleet(clock) as running:
        set_up(running, clock)
        yield running


def run(fleet: Fleet, words: str) -> tuple[int, str, str]:
    result = meshctl(*words.split(), kubeconfig=fleet.kubeconfig)
    return result.exit_code, result.stdout, result.stderr


def test_check_finds_nothing_to_mend(fleet: Fleet) -> None:
    code, said, _ = run(fleet, "check")

    assert (code, "✘" in said) == (0, False), said
    assert "East-west gateway: Service istio-system/istio-ingressgateway" in said


def test_a_second_registration_is_refused_and_changes_nothing(fleet: Fleet) -> None:
    code, _, error = run(fleet, "cluster register --mgmt-context=mgmt --remote-context=cluster1 enterprise cluster1")

    assert code == 1
    assert "a cluster is already registered as cluster1" in error
    assert run(fleet, "check")[0] == 0


def test_files_of_the_fleet_translate_into_what_the_agents_wrote(fleet: Fleet, tmp_path: Path) -> None:
    """`translate` on what `get` prints is the running management plane without its clusters."""
    kinds = ("meshes", "workloads", "destinations", "kubernetesclusters", "virtualmeshes", "settings")
    for kind in kinds:
        (tmp_path / f"{kind}.yaml").write_text(run(fleet, f"get {kind} -o yaml")[1])

    code, said, error = run(fleet, f"translate -f {tmp_path} -d {tmp_path / 'out'}")

    assert (code, said, error) == (0, "", "")
    for cluster in fleet.managed:
        written = {path.name for path in (tmp_path / "out" / cluster).glob("ServiceEntry.*")}
        assert written == {f"ServiceEntry.{entry}.yaml" for entry in entries_on(fleet, cluster)}


LIST_ENTRIES = """
import asyncio, sys
from pathlib import Path
from isthmus.istio.kinds import SERVICE_ENTRY
from isthmus.kube import KubeClient
async def main():
    async with KubeClient.from_kubeconfig(Path(sys.argv[1]), sys.argv[2]) as cluster:
        for meta in (item["metadata"] for item in (await cluster.list(SERVICE_ENTRY)).items):
            print(f"{meta['namespace']}.{meta['name']}")
asyncio.run(main())
"""


def entries_on(fleet: Fleet, cluster: str) -> set[str]:
    """Namespace and name of each, with a dot between."""
    names = subprocess.run(
        [sys.executable, "-c", LIST_ENTRIES, fleet.kubeconfig, cluster], capture_output=True, text=True, check=True
    )
    return set(names.stdout.split())


def test_a_cluster_leaves_and_comes_back(fleet: Fleet) -> None:
    """Last in this module: it changes the fleet, and brings it back."""
    before = entries_on(fleet, "cluster1")

    code, said, error = run(fleet, "cluster deregister enterprise cluster2 --mgmt-context=mgmt")

    assert (code, error) == (0, ""), said
    assert entries_on(fleet, "cluster2") == set()
    deadline = time.monotonic() + PATIENCE
    while any(name.endswith(".cluster2.global") for name in entries_on(fleet, "cluster1")):
        assert time.monotonic() < deadline, "cluster1 still knows a cluster that has left"

    code, said, error = run(fleet, "cluster register cluster2 --mgmt-context mgmt")

    assert (code, error) == (0, ""), said
    deadline = time.monotonic() + PATIENCE
    while entries_on(fleet, "cluster1") != before:
        assert time.monotonic() < deadline, "cluster1 does not know the cluster that came back"
