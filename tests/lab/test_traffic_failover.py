"""Failover by locality: reviews of all clusters behind one name, the nearest healthy one answering.

The client of cluster1 is in the zone of reviews v1, and reviews v2 in the other zone of its region; the third place is
cluster2, in a region of its own.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import pytest

from tests.lab.policies import Pod, forget, pods, settle
from tests.lab.running import Calling, Json, Lab, commands, eventually
from tests.lab.test_walkthrough import CLUSTERS, proxy_config, reviews_of

GLOBAL = "http://reviews.global:9080/reviews/0"
PLAIN = "http://reviews:9080/reviews/0"
NAMES = {"reviews.global": GLOBAL, "reviews": PLAIN}
MOVE_SECONDS = 10.0
EJECTION_SECONDS = 120.0  # of virtual-destination.yaml
INTERVAL_SECONDS = 5.0  # after which Envoy looks again whose time is over
RATE = 20  # requests per second and name
WINDOW = 10  # seconds of requests of which one in a hundred may fail, after whatever makes them move
FAILURES = 0.01
PLACES = {"client": "a", "reviews-v1": "a", "reviews-v2": "b"}
"""Deployments of cluster1 and the zone where each is to be."""


@pytest.fixture(scope="module")
def zoned(federated: Lab) -> Iterator[Lab]:
    """Deployments are where the story needs them, by node selectors. Anywhere afterwards."""
    for deployment, letter in PLACES.items():
        place(federated, deployment, {"kubernetes.io/hostname": f"cluster1-{letter}"})
    try:
        wait_for_deployments(federated)
        yield federated
    finally:
        for deployment in PLACES:
            place(federated, deployment, None)
        wait_for_deployments(federated)


def place(lab: Lab, deployment: str, node: dict[str, str] | None) -> None:
    patch = json.dumps({"spec": {"template": {"spec": {"nodeSelector": node}}}})
    lab.kubectl("cluster1", "patch", "deployment", deployment, "-p", patch)


def wait_for_deployments(lab: Lab) -> None:
    for deployment in PLACES:
        lab.kubectl("cluster1", "rollout", "status", "deployment", deployment, "--timeout=180s")
    for deployment in PLACES:
        app, _, version = deployment.partition("-")
        selector = f"app={app},version={version or 'v1'}"
        eventually(f"one pod of {deployment}", partial(has_one_pod, lab, selector))


def has_one_pod(lab: Lab, selector: str) -> bool:
    """Whether the last of the old pods is gone."""
    return len(lab.objects("cluster1", "pods", "-l", selector)) == 1


@pytest.fixture(scope="module")
def failing_over(zoned: Lab) -> Iterator[Lab]:
    """`virtual-destination.yaml` as it is, and a policy that sends calls of `reviews` to it. Undone after the tests."""
    apply, *_, undo = commands("Fail over by locality")
    zoned.shell(apply)
    try:
        written = (("VirtualDestination", "reviews-global"), ("TrafficPolicy", "reviews-failover"))
        settle(zoned, *({"kind": kind, "metadata": {"name": name, "namespace": "gloo-mesh"}} for kind, name in written))
        for url in NAMES.values():
            for cluster in CLUSTERS:
                eventually(f"{url} is answered nearby on {cluster}", partial(is_answered_nearby, zoned, cluster, url))
        yield zoned
    finally:
        zoned.shell(undo)
        forget(zoned)


def is_answered_nearby(lab: Lab, cluster: str, url: str) -> bool:
    answers = lab.call(cluster, url, "-n", "10")
    return all((answer["status"], answer.get("cluster")) == (200, cluster) for answer in answers)


@dataclass
class Story:
    """Requests to both names, and who answers them."""

    lab: Lab
    calls: dict[str, Calling]

    def moves(self, what: str, since: float, *wanted: str) -> None:
        """Wait until both names are answered by one of *wanted*, as cluster/version, and by no other any more."""
        for name, calling in self.calls.items():
            calling.until(f"{what} for {name}", lambda answer: place_of(answer) in wanted, after=since, within=120)
        end = time.time() + WINDOW
        for name, calling in self.calls.items():
            calling.until(f"the rest of the {WINDOW} s", lambda answer: answer["at"] > end, within=WINDOW + 30)
            others = [a for a in calling.seen if a["at"] > since and a["status"] == 200 and place_of(a) not in wanted]
            took = max((a["at"] + a["ms"] / 1000 for a in others), default=since) - since
            self.lab.measure(f"{name}: {what}", took, MOVE_SECONDS)
            made = [a for a in calling.seen if a["at"] > since]
            failed = [a for a in made if a["status"] != 200]
            Lab.measured.append(f"{name}: {len(failed)} of {len(made)} requests failed meanwhile")
            assert len(failed) <= FAILURES * len(made), (what, failed[:3])


@pytest.fixture
def story(failing_over: Lab) -> Iterator[Story]:
    """The client of cluster1 calls both names all the time; v1 answers, which is in its zone."""
    with ExitStack() as stack:
        calls = {
            name: stack.enter_context(failing_over.calling("cluster1", url, rate=RATE, seconds=420))
            for name, url in NAMES.items()
        }
        for name, calling in calls.items():
            calling.until(f"v1 for {name}", lambda answer: place_of(answer) == "cluster1/v1", within=60)
        yield Story(failing_over, calls)


def place_of(answer: Json) -> str:
    """Who answered, as cluster/version; what did not answer has no place."""
    return f"{answer['cluster']}/{answer['version']}" if answer["status"] == 200 else ""


def scale(lab: Lab, deployment: str, replicas: int) -> float:
    """Change the number of pods; the time when that was said."""
    lab.kubectl("cluster1", "scale", "deployment", deployment, f"--replicas={replicas}")
    return time.time()


# --- what answers -----------------------------------------------------------------------------------------------------


def test_the_virtual_destination_is_accepted(failing_over: Lab) -> None:
    [found] = failing_over.objects("mgmt", "virtualdestination", "-n", "gloo-mesh", "reviews-global")

    assert found["status"]["state"] == "ACCEPTED"
    assert {each["ref"]["name"] for each in found["status"]["selectedDestinations"]} == {
        "reviews-default-cluster1",
        "reviews-default-cluster2",
    }


@pytest.mark.parametrize("url", NAMES.values(), ids=NAMES)
def test_the_nearest_answers(failing_over: Lab, url: str) -> None:
    """The pod in the caller's zone, and no other, on either cluster by its own name for the zone."""
    answers = failing_over.call("cluster1", url, "-n", "30")

    assert reviews_of(failing_over, "cluster1", answers) == {"v1"}
    assert {answer["cluster"] for answer in failing_over.call("cluster2", url, "-n", "30")} == {"cluster2"}


def test_the_client_s_envoy_has_all_places_in_order(failing_over: Lab) -> None:
    """Its zone first, its region next, then the other cluster's gateway, in the region of the pods behind it."""
    here, there = (pods(failing_over, cluster, "reviews") for cluster in ("cluster1", "cluster2"))
    gateway = address_of_gateway(failing_over)
    near, far = (next(iter(found.values())).zone.rstrip("ab") for found in (here, there))

    known = hosts(failing_over)

    assert {
        (host["address"]["socketAddress"]["address"], host["locality"]["region"], host.get("priority", 0))
        for host in known
    } == {(here["v1"].address, near, 0), (here["v2"].address, near, 1), (gateway, far, 2)}


def hosts(lab: Lab) -> list[Json]:
    name = "outbound|9080||reviews.global"
    [known] = [each for each in proxy_config(lab, "cluster1", "endpoints", "--cluster", name) if each["name"] == name]
    found: list[Json] = known["hostStatuses"]
    return found


def address_of_gateway(lab: Lab) -> str:
    [found] = lab.objects("cluster2", "service", "istio-ingressgateway", "-n", "istio-system")
    address: str = found["status"]["loadBalancer"]["ingress"][0]["ip"]
    return address


def test_the_walkthrough_shows_it(failing_over: Lab) -> None:
    """Its commands: cluster1 answers, then, without pods there, cluster2."""
    _, shown, moved, undo = commands("Fail over by locality")
    back = "\n".join(line for line in undo.splitlines() if "delete" not in line)

    state, *near = failing_over.shell(shown).splitlines()
    try:
        far = [line for line in failing_over.shell(moved).splitlines() if line.startswith("{")]
    finally:
        failing_over.shell(back)
        wait_for_deployments(failing_over)

    assert state == "ACCEPTED"
    assert [json.loads(line)["clustername"] for line in near] == ["cluster1"] * 20
    assert [json.loads(line)["clustername"] for line in far] == ["cluster2"] * 20


# --- requests move, and come back -------------------------------------------------------------------------------------


def test_requests_leave_pods_that_go_and_come_back(story: Story) -> None:
    """Scaled to zero: the next zone, then the other cluster; scaled up again: back, the nearest first."""
    lab = story.lab
    try:
        story.moves("without v1, the next zone", scale(lab, "reviews-v1", 0), "cluster1/v2")
        gone = scale(lab, "reviews-v2", 0)
        story.moves("without v2, the other cluster", gone, *(f"cluster2/v{n}" for n in (1, 2, 3)))
        scale(lab, "reviews-v2", 1)
        lab.kubectl("cluster1", "rollout", "status", "deployment", "reviews-v2", "--timeout=180s")
        story.moves("with v2, back in the region", time.time(), "cluster1/v2")
    finally:
        for deployment in ("reviews-v1", "reviews-v2"):
            scale(lab, deployment, 1)
            lab.kubectl("cluster1", "rollout", "status", "deployment", deployment, "--timeout=180s")
    story.moves("with v1, back in the zone", time.time(), "cluster1/v1")


def test_requests_leave_pods_that_answer_500_and_come_back(story: Story) -> None:
    """A failure of each pod is seen; soon after it gets no request until its 120 s are over."""
    lab = story.lab
    callees = pods(lab, "cluster1", "reviews")
    try:
        story.moves("with v1 failing, the next zone", fail(callees["v1"]), "cluster1/v2")
        failed = fail(callees["v2"])
        story.moves("with v2 failing, the other cluster", failed, *(f"cluster2/v{n}" for n in (1, 2, 3)))
        for callee in callees.values():
            # Requests to both names may be on their way at once, and Envoy tells its threads a little later.
            assert 1 <= [each["status"] for each in callee.requests()].count(500) < 3 * len(NAMES)
    finally:
        for callee in callees.values():
            callee.heal()
    for name, calling in story.calls.items():
        took = calling.until(
            f"v1 again for {name}", lambda answer: place_of(answer) == "cluster1/v1", after=failed, within=180
        )
        lab.measure(f"{name}: v1 answers again", took, EJECTION_SECONDS + INTERVAL_SECONDS)


def fail(callee: Pod) -> float:
    """Let a pod answer 500; the time before that."""
    since = time.time()
    callee.fail(status=500)
    return since
