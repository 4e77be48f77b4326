"""One part after the other is killed while requests cross the clusters: nobody notices who does not ask that part.

Requests come from the cluster whose API server is left alone, since kubectl holds the client through it.
"""

from __future__ import annotations

import json
import os
import signal
import time
from functools import partial
from typing import Any

import pytest

from tests.lab.running import REQUEST_SECONDS, Json, Lab, eventually
from tests.lab.test_walkthrough import OTHER, OURS, WRITTEN

RATE = 20
SECONDS = 300
PARTS = {
    "the server": ("mgmt", "isthmus-server"),
    "cluster1's agent": ("cluster1", "isthmus-agent"),
    "cluster2's agent": ("cluster2", "isthmus-agent"),
    "mgmt's API server": ("mgmt", "kube-apiserver"),
    "cluster1's API server": ("cluster1", "kube-apiserver"),
    "cluster2's API server": ("cluster2", "kube-apiserver"),
    "cluster1's istiod": ("cluster1", "pilot-discovery"),
    "cluster2's istiod": ("cluster2", "pilot-discovery"),
}
MANAGING = (
    ("mgmt", "enterprise-networking", "isthmus-server"),
    ("cluster1", "enterprise-agent", "isthmus-agent"),
    ("cluster2", "enterprise-agent", "isthmus-agent"),
)
"""What a cluster lives without while nothing changes: cluster, Deployment, program."""


@pytest.mark.parametrize("part", PARTS)
def test_no_request_fails_while_a_part_is_killed(federated: Lab, part: str) -> None:
    """Requests go on before, while and after; then the configuration is what it was, and changes take effect again."""
    cluster, program = PARTS[part]
    caller = OTHER.get(cluster, "cluster1")
    callee = OTHER[caller]
    before = configuration(federated)
    [killed] = processes(federated, cluster, program)

    url = f"http://reviews.default.svc.{callee}.global:9080/reviews/0"
    with federated.calling(caller, url, rate=RATE, seconds=SECONDS, timeout=REQUEST_SECONDS) as calling:
        calling.until("requests that are answered", lambda answer: answer["status"] == 200)
        os.kill(killed, signal.SIGKILL)
        eventually(f"{part} runs again", lambda: set(processes(federated, cluster, program)) - {killed})
        eventually(f"{cluster}'s API server is ready", partial(serves, federated, cluster))
        change_takes_effect(federated, caller, callee)
        end = time.time() + 3
        calling.until("3 s of it afterwards", lambda answer: answer["at"] > end)

    failed = [answer for answer in calling.seen if answer["status"] != 200]
    assert failed == []
    assert {answer["cluster"] for answer in calling.seen} == {callee}
    assert all(answer["body"]["podname"] == answer["pod"] for answer in calling.seen)
    eventually("the configuration is what it was", lambda: configuration(federated) == before)
    federated.measured.append(f"{part} killed: {len(calling.seen)} requests meanwhile, {len(failed)} failed")


def test_restarted_pods_are_reached_while_nobody_manages(connecting_anew: Lab) -> None:
    """Server and agents are stopped, then all pods of a service restart: calls of the other cluster reach the new ones.

    Its own istiod tells the gateway of them, so that none of those requests fails.
    """
    lab, url = connecting_anew, "http://reviews.default.svc.cluster2.global:9080/reviews/0"
    before, old = configuration(lab), lab.pods("cluster2", "app=reviews")
    try:
        for cluster, name, _ in MANAGING:
            lab.kubectl(cluster, "scale", "deployment", name, "-n", "gloo-mesh", "--replicas=0")
        eventually("nobody manages", lambda: not managing(lab))
        with lab.calling("cluster1", url, rate=RATE, seconds=SECONDS, timeout=REQUEST_SECONDS) as calling:
            calling.until("requests that are answered", lambda answer: answer["status"] == 200)
            lab.kubectl("cluster2", "rollout", "restart", "deployment", "-l", "app=reviews")
            lab.kubectl("cluster2", "rollout", "status", "deployment", "-l", "app=reviews", "--timeout=240s")
            eventually("the old pods are gone", lambda: not old & names_of_pods(lab, "cluster2", "app=reviews"))
            end = time.time() + 5
            calling.until("5 s of it afterwards", lambda answer: answer["at"] > end, within=SECONDS)
        assert managing(lab) == []
    finally:
        for cluster, name, _ in MANAGING:
            lab.kubectl(cluster, "scale", "deployment", name, "-n", "gloo-mesh", "--replicas=1")
    for cluster, name, _ in MANAGING:
        lab.kubectl(cluster, "rollout", "status", "deployment", name, "-n", "gloo-mesh", "--timeout=120s")

    new = lab.pods("cluster2", "app=reviews")
    failed = [answer for answer in calling.seen if answer["status"] != 200]
    assert failed == []
    assert {answer["pod"] for answer in calling.seen if answer["at"] > end - 5} == new
    assert configuration(lab) == before
    change_takes_effect(lab, "cluster1", "cluster2")
    lab.measured.append(f"pods restarted while nobody manages: {len(calling.seen)} requests, {len(failed)} failed")


def managing(lab: Lab) -> list[int]:
    """The processes of the management plane and of its agents."""
    return [pid for cluster, _, program in MANAGING for pid in processes(lab, cluster, program)]


def names_of_pods(lab: Lab, cluster: str, selector: str) -> set[str]:
    """Names of all pods that there are, whatever their state."""
    return {item["metadata"]["name"] for item in lab.objects(cluster, "pods", "-l", selector)}


def processes(lab: Lab, cluster: str, program: str) -> list[int]:
    """Those of a program that belong to a cluster."""
    rows: list[Json] = json.loads(lab.run("meshctl", "lab", "status", "-o", "json"))
    return [
        row["pid"]
        for row in rows
        if row["where"].split("/")[0] == cluster
        and program in (os.path.basename(w) for w in row["command"].split()[:2])
    ]


def configuration(lab: Lab) -> dict[str, Any]:
    """Everything that agents wrote, without what API servers add."""
    return {
        f"{cluster} {item['kind']} {item['metadata']['namespace']}/{item['metadata']['name']}": item["spec"]
        for cluster in OTHER
        for item in lab.objects(cluster, WRITTEN, "-A", "-l", OURS)
    }


def serves(lab: Lab, cluster: str) -> bool:
    """Whether the API server of *cluster* is ready for everything, not only to answer."""
    return lab.attempt("kubectl", "--context", cluster, "get", "--raw", "/readyz").returncode == 0


def change_takes_effect(lab: Lab, caller: str, callee: str) -> None:
    """A Service comes and goes on one cluster, and the other has its entry and no longer: every part does its work."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "after", "namespace": "default"},
        "spec": {"selector": {"app": "details"}, "ports": [{"name": "http", "port": 9080}]},
    }
    entry = ("serviceentry", "-n", "istio-system", f"after.default.svc.{callee}.global")
    lab.apply(callee, service)
    try:
        eventually("a new Service is federated", lambda: lab.has(caller, *entry), within=90)
    finally:
        lab.kubectl(callee, "delete", "service", "after")
    eventually("a deleted Service is forgotten", lambda: not lab.has(caller, *entry), within=90)
