"""The lab itself: from nothing to the first answer across clusters, and that it leaves nothing, even when killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from tests.lab.running import Json, Lab, commands, eventually

NAMESPACES = ("net", "mnt", "pid")
UP_SECONDS = 420.0  # beside the lab of the other tests
URL = "http://reviews.default.svc.cluster2.global:9080/reviews/0"


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A lab of this test's own beside the others."""
    yield tmp_path
    Lab(tmp_path).run("meshctl", "lab", "down")


def test_from_nothing_to_the_first_answer_across_clusters(directory: Path) -> None:
    """Every command of the walk-through on a new lab; then its first process is killed, and nothing of it is left."""
    lab = Lab(directory)
    host = things_of_the_host()
    started = time.monotonic()
    lab.run("meshctl", "lab", "up", timeout=UP_SECONDS)
    up = time.monotonic() - started
    for heading in ("The management plane", "Register both clusters", "Federate", "Deny by default, allow by policy"):
        for block in commands(heading):
            lab.shell(block)
    answer = eventually("reviews of cluster2 answer", partial(answered, lab), within=300)
    lab.measured.append(f"lab up: {up:.0f} s; to the first answer across clusters: {time.monotonic() - started:.0f} s")
    lab.measured.append(f"the lab with the virtual mesh: {lab.run('meshctl', 'lab', 'status').splitlines()[-1]}")
    assert answer["cluster"] == "cluster2"
    assert answer["body"]["podname"] in lab.pods("cluster2", "app=reviews")
    inside = everything_inside(lab)
    assert len(inside) > 50

    os.kill(json.loads((directory / "lab.json").read_text())["pid"], signal.SIGKILL)

    eventually("every process has ended", lambda: not still_used(inside), within=20)
    assert things_of_the_host() == host
    assert lab.attempt("meshctl", "lab", "status").returncode == 1
    assert lab.run("meshctl", "lab", "down").startswith("no lab runs")


def test_a_lab_that_is_ended_leaves_nothing(directory: Path) -> None:
    """`lab down` returns when all has ended; another `lab up` in the same place works, and two at once do not."""
    lab = Lab(directory)
    host = things_of_the_host()
    for _ in range(2):
        lab.run("meshctl", "lab", "up", "--bare")
        nodes = {tuple(row[:2]) for row in lab.table("cluster1", "nodes")}
        assert nodes == {("cluster1-a", "Ready"), ("cluster1-b", "Ready")}
        second = lab.attempt("meshctl", "lab", "up", "--bare")
        assert second.returncode == 1
        assert "a lab runs already" in second.stderr
        inside = everything_inside(lab)

        assert lab.run("meshctl", "lab", "down") == "the lab has ended\n"

        assert not still_used(inside)
        assert things_of_the_host() == host
        assert not lab.kubeconfig.exists()


def test_of_two_that_start_at_once_one_does(directory: Path) -> None:
    """The other would run on with nobody to find it."""
    lab = Lab(directory)
    command = ["meshctl", "lab", "up", "--bare"]

    with ThreadPoolExecutor(2) as threads:
        ended = list(threads.map(lambda _: lab.attempt(*command), range(2)))

    assert sorted(each.returncode for each in ended) == [0, 1]
    refused = next(each.stderr for each in ended if each.returncode)
    assert re.search("a lab (is being started|runs already) in ", refused)


def test_no_way_leads_out_of_the_box(directory: Path) -> None:
    """Neither a machine nor the box has a default route, or a link to the host."""
    lab = Lab(directory)
    lab.run("meshctl", "lab", "up", "--bare")
    for machine in ("mgmt", "cluster1", "cluster2"):
        routes = lab.run("meshctl", "lab", "exec", machine, "--", "ip", "route").split("\n")
        assert len(routes) > 3
        assert not [route for route in routes if route.startswith("default")]
        refused = lab.attempt("meshctl", "lab", "exec", machine, "--", "ip", "route", "get", "192.0.2.1")
        assert "Network is unreachable" in refused.stderr
    links = lab.run("meshctl", "lab", "exec", "mgmt", "--", "ip", "-o", "link").splitlines()
    assert [line.split(": ")[1].partition("@")[0] for line in links] == ["lo", "wire"]


def answered(lab: Lab) -> Json | None:
    """An answer across clusters; none while the pod that asks, or the one that is asked, is restarted for its trust."""
    asked = lab.attempt("kubectl", "--context", "cluster1", "exec", "deploy/client", "--", "call", URL)
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    return next((answer for answer in answers if answer.get("status") == 200), None)


def everything_inside(lab: Lab) -> set[tuple[str, int]]:
    """Processes of the lab, by number, and the namespaces that they are in."""
    found = set()
    for row in json.loads(lab.run("meshctl", "lab", "status", "-o", "json")):
        found.add(("process", row["pid"]))
        found.update(("namespace", number) for number in namespaces_of(row["pid"]))
    return found - {("namespace", number) for number in namespaces_of(os.getpid())}


def still_used(inside: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """What of it runs, or is the namespace of something that runs."""
    now = set()
    for pid in (int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        if not is_zombie(pid):
            now.add(("process", pid))
        now.update(("namespace", number) for number in namespaces_of(pid))
    return inside & now


def is_zombie(pid: int) -> bool:
    """Whether the process has ended and its parent, who is not ours, has yet to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def namespaces_of(pid: int) -> set[int]:
    """The inodes of a process' namespaces; none if it has ended."""
    try:
        return {os.stat(f"/proc/{pid}/ns/{kind}").st_ino for kind in NAMESPACES}
    except OSError:
        return set()


def things_of_the_host() -> dict[str, str]:
    """Links, packet filter rules, and mounts of the host."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout
    uncounted = re.sub(r"\[\d+:\d+\]", "", rules)
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return {
        "rules": "\n".join(line for line in uncounted.splitlines() if not line.startswith("#")),
        "links": "\n".join(line.split(": ")[1] for line in links.splitlines()),
        "mounts": Path("/proc/self/mounts").read_text(),
    }
