"""Trust between the clusters, read from the proxies: from a root of each to one root, and on to another.

The order of these tests is that of the story. A lab on which it was told already is taken back to its beginning.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from isthmus.agent.certificates import HOLDER
from isthmus.pki import (
    CA_CERT,
    CA_KEY,
    ROOT_CERT,
    check_chain,
    make_signing_authority,
    make_trust_root,
    new_key,
    new_rsa_key,
    read_signing_root,
)
from isthmus.pki.certificates import load_certificates
from tests.lab.running import Calling, Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OTHER
from tests.lab.test_walkthrough_faults import processes
from tests.lab.trusting import (
    ISSUE_SECONDS,
    MESH,
    REVIEWS,
    across,
    apply_virtual_mesh,
    brief,
    calls_of,
    certificate_of,
    change_trust,
    conditions,
    crossings,
    data_of,
    failures,
    from_outside,
    gateway,
    generations,
    handshake,
    held,
    held_by_all,
    is_in,
    lapses,
    on_both,
    proxies,
    restart_mesh,
    restarted_for,
    roots_given,
    status_of,
    tls_failures,
    unexplained,
    verdict,
    waiting_for,
    write_pem,
    write_secret,
)

PROXIES = {"client": "spiffe://{}/ns/default/sa/client", "reviews": "spiffe://{}/ns/default/sa/bookinfo-reviews"}
GENERATED = "virtual-mesh.gloo-mesh"
STEPS = ("ADDING_NEW_ROOT", "PROPAGATING_NEW_INTERMEDIATE", "DELETING_OLD_ROOT")
PARTS = {"server": "isthmus-server", "agent": "isthmus-agent", "istiod": "pilot-discovery"}
WHERE = {"server": ("mgmt",), "agent": CLUSTERS, "istiod": CLUSTERS}
MOMENTS = ("a certificate is asked for", "istiod restarts", "workloads restart")
KILLS = (("server", "istiod", "agent"), ("agent", "server", "istiod"), ("istiod", "agent", "server"))
"""Who is killed in each step of a rotation at each of `MOMENTS`: each part once in every step and at every moment."""


# --- before ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def apart(bookinfo: Lab) -> Lab:
    """A virtual mesh federates both clusters and leaves their certificates alone: each trusts a root of its own only.

    That of cluster1 is istiod's; on cluster2 somebody has provided one.
    """
    lab = bookinfo
    lab.kubectl("mgmt", "delete", *MESH, "--ignore-not-found")
    other = root_data("somebody else")

    def take_back(cluster: str) -> None:
        lab.kubectl(cluster, "delete", "virtualservice", "reviews-across", "--ignore-not-found")
        eventually(f"nothing is managed on {cluster}", lambda: is_unmanaged(lab, cluster), within=120)
        lab.kubectl(cluster, "delete", "secret", "cacerts", "-n", "istio-system", "--ignore-not-found")
        if cluster == "cluster2":
            write_secret(lab, cluster, "cacerts", "istio-system", other)
            root = other[ROOT_CERT]
        else:
            root = data_of(lab, cluster, "istio-ca-secret", "istio-system")[CA_CERT]
        text = root.decode().strip()
        if set(roots_given(lab, cluster).values()) != {text}:
            restart_mesh(lab, cluster, text)
        lab.kubectl(cluster, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s")

    on_both(take_back)
    apply_virtual_mesh(lab, trust=False)
    for cluster in CLUSTERS:
        eventually(f"{cluster} calls the other", partial(is_refused, lab, cluster))
    return lab


def is_unmanaged(lab: Lab, cluster: str) -> bool:
    """Whether the cluster has nothing of a virtual mesh's trust."""
    secrets = lab.objects(cluster, "secrets", "-n", "istio-system", "--field-selector", "metadata.name=cacerts")
    ours = [each for each in secrets if HOLDER in each["metadata"].get("annotations", {})]
    return not ours and certificate_of(lab, cluster) is None


def is_refused(lab: Lab, cluster: str) -> bool:
    """Whether a call across clusters finds its way, and is not taken."""
    return bool(lab.call(cluster, across(cluster))[0]["status"] == 503)


def root_data(organization: str) -> dict[str, bytes]:
    """A root as users provide one."""
    return make_trust_root(
        new_rsa_key(2048),
        organization=organization,
        serial=time.time_ns(),
        now=datetime.now(UTC),
        life=timedelta(days=30),
    )


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_before_the_virtual_mesh_gives_one_root_calls_across_clusters_fail_on_tls(apart: Lab, cluster: str) -> None:
    """The caller's proxy says that it can't verify the certificate of the other side."""
    [answer] = apart.call(cluster, across(cluster))

    assert answer["status"] == 503
    eventually("its log says why", partial(is_distrusted, apart, cluster))


def is_distrusted(lab: Lab, cluster: str) -> bool:
    """Whether the client's proxy has logged, for this call or one before, that it distrusts a certificate."""
    lab.call(cluster, across(cluster))
    log = lab.kubectl(cluster, "logs", "deploy/client", "-c", "istio-proxy", "--tail=20")
    return any("CERTIFICATE_VERIFY_FAILED" in line for line in log.splitlines() if f"{OTHER[cluster]}.global" in line)


def test_before_the_virtual_mesh_gives_one_root_each_cluster_has_its_own(apart: Lab) -> None:
    roots = [load_certificates(held(apart, cluster, "deploy/client")[1]) for cluster in CLUSTERS]

    assert [len(found) for found in roots] == [1, 1]
    assert roots[0] != roots[1]
    assert "somebody else" in roots[1][0].subject.rfc4514_string()


# --- how it comes about ---------------------------------------------------------------------------------------------


@dataclass
class Story:
    """The lab, and the requests that were sent while trust came about."""

    lab: Lab
    began: datetime
    answers: dict[str, list[Json]] = field(default_factory=dict)
    report: Json = field(default_factory=dict)
    """What was said of the `cacerts` that is somebody else's, and whether it was as before then."""


@pytest.fixture(scope="module")
def joined(apart: Lab) -> Story:
    """The walk-through's virtual mesh is applied while requests go on inside both clusters; then all pods are new.

    The `cacerts` of cluster2 is given to the agent when it has been reported.
    """
    story = Story(apart, datetime.now(UTC))
    with ExitStack() as stack:
        loads = {
            f"{cluster} {what}": stack.enter_context(from_outside(apart, cluster, path))
            for cluster in CLUSTERS
            for what, path in (("details", "/api/v1/products/0"), ("reviews", "/api/v1/products/0/reviews"))
        }
        for load in loads.values():
            load.until("requests that are answered", lambda answer: answer["status"] == 200)
        before = data_of(apart, "cluster2", "cacerts", "istio-system")
        started = time.monotonic()
        apply_virtual_mesh(apart, trust=True)
        eventually("cluster2's cacerts is reported", lambda: is_in(apart, "cluster2", "FAILED"), within=120)
        [mesh] = eventually("so it is to the user", lambda: reported(apart), within=60)
        story.report = {
            "issued": status_of(apart, "cluster2")["error"],
            "mesh": json.dumps(mesh["status"]),
            "kept": data_of(apart, "cluster2", "cacerts", "istio-system") == before,
        }
        take_over = ("secret", "cacerts", "-n", "istio-system", "isthmus.io/take-over=true")
        apart.kubectl("cluster2", "annotate", *take_over)
        for cluster in CLUSTERS:
            eventually(f"{cluster} is done", partial(is_in, apart, cluster, "FINISHED"), within=ISSUE_SECONDS)
        apart.measured.append(f"one root, and all pods restarted for it: {time.monotonic() - started:.0f} s")
        story.answers = ended(loads)
    return story


def reported(lab: Lab) -> list[Json]:
    """The virtual mesh, once its status speaks of a `cacerts`."""
    found = lab.objects("mgmt", *MESH)
    return found if "cacerts" in json.dumps(found[0].get("status")) else []


def ended(loads: dict[str, Calling]) -> dict[str, list[Json]]:
    """Every answer so far, and one that was asked for after now."""
    end = time.time()
    for load in loads.values():
        load.until("a request afterwards", lambda answer: answer["at"] > end, within=60)
    return {name: load.seen for name, load in loads.items()}


def test_a_cacerts_of_somebody_else_is_kept_and_reported_until_it_is_given(joined: Story) -> None:
    assert joined.report["kept"]
    assert "istio-system/cacerts" in joined.report["issued"]
    assert "isthmus.io/take-over" in joined.report["issued"]
    assert "istiod-istio-system-cluster2" in joined.report["mesh"]
    assert "istio-system/cacerts" in joined.report["mesh"]


def test_no_request_inside_a_cluster_fails_while_its_root_is_replaced(joined: Story) -> None:
    """Requests go from the gateway to the product page and on to details, reviews and ratings, all by mutual TLS.

    Not for want of trust, at least: what the end of an istiod takes from proxies is Istio's.
    """
    sent = [answer for answers in joined.answers.values() for answer in answers]

    failed = failures(sent)

    joined.lab.measured.append(
        f"both roots replaced: {len(sent)} requests inside the clusters meanwhile, {len(failed)} failed"
    )
    assert unexplained(sent, lapses(joined.lab, joined.began)) == []
    assert len(failed) < len(sent) / 100
    assert len(sent) > 1000
    assert tls_failures(joined.lab, joined.began, across=False) == []


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_pod_of_the_mesh_was_restarted_for_the_certificate_in_place(joined: Story, cluster: str) -> None:
    lab = joined.lab

    pods = [
        pod
        for namespace in ("default", "istio-system")
        for pod in lab.objects(cluster, "pods", "-n", namespace)
        if "deletionTimestamp" not in pod["metadata"]
    ]

    assert len(pods) >= 7
    assert {pod["metadata"]["annotations"].get("isthmus.io/restarted-for") for pod in pods} == {
        restarted_for(lab, cluster)
    }


# --- afterwards -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_calls_across_clusters_succeed_under_identities_of_both(joined: Story, cluster: str) -> None:
    """The callee's proxy tells the names in the certificates of both ends."""
    other = OTHER[cluster]

    [answer] = joined.lab.call(cluster, across(cluster))

    assert (answer["status"], answer["cluster"]) == (200, other)
    told = answer["body"]["served"]["request"]["x-forwarded-client-cert"]
    ends = dict(part.split("=", 1) for part in told.split(";"))
    assert ends["By"] == f"spiffe://{other}/ns/default/sa/bookinfo-details"
    assert ends["URI"] == f"spiffe://{cluster}/ns/default/sa/client"


@pytest.mark.parametrize("app", PROXIES)
def test_every_proxy_has_a_certificate_of_its_cluster_s_own_authority(joined: Story, app: str) -> None:
    """The authorities of both clusters differ, lead to one root, and name their own cluster's trust domain."""
    roots, issuers = set(), set()
    for cluster in CLUSTERS:
        chain, root = held(joined.lab, cluster, sorted(joined.lab.pods(cluster, f"app={app}"))[0])
        leaf, issuer = load_certificates(chain)[:2]

        assert check_chain(chain, root, datetime.now(UTC)) is None
        assert PROXIES[app].format(cluster) in str(leaf.extensions)
        assert f"spiffe://{cluster}/ns/istio-system/sa/" in str(issuer.extensions)
        assert leaf.issuer == issuer.subject
        issuers.add(issuer)
        roots.update(load_certificates(root))

    assert len(roots) == 1
    assert len(issuers) == 2


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_what_proxies_present_in_a_handshake_leads_to_the_root_on_mgmt(joined: Story, cluster: str) -> None:
    """Asked for as any peer does, by a client that is no proxy: beside the pod, and from the other cluster."""
    lab = joined.lab
    root = data_of(lab, "mgmt", GENERATED, "gloo-mesh")[ROOT_CERT]
    [pod] = [pod for pod in lab.objects(cluster, "pods", "-l", "app=reviews,version=v1") if is_ready(pod)]
    through = f"{gateway(lab, cluster)}:15443"

    beside = handshake(lab, cluster, f"{pod['status']['podIP']}:9080")
    afar = handshake(lab, OTHER[cluster], through, "-servername", REVIEWS.format(cluster))

    for presented in (beside, afar):
        assert check_chain(presented, root, datetime.now(UTC)) is None
        assert PROXIES["reviews"].format(cluster) in str(load_certificates(presented)[0].extensions)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_agent_sees_what_every_pod_presents(joined: Story, cluster: str) -> None:
    """Sidecars and istiod show it. A gateway shows the certificates of its own servers, if any, but is new."""
    lab = joined.lab

    def all_seen() -> bool:
        gateways = lab.pods(cluster, "app=istio-ingressgateway", namespace="istio-system")
        istiods = lab.pods(cluster, "app=istiod", namespace="istio-system")
        shared = len(proxies(lab, cluster)) - len(gateways) + len(istiods)
        seen: Json = status_of(lab, cluster).get("workloads") or {}
        counts = {name: number for name, number in seen.items() if isinstance(number, int)}
        return counts == {"shared": shared, "presumed": len(gateways)}

    eventually("the agent has seen every pod", all_seen)
    said = lab.attempt("meshctl", "check", "--kubecontext", "mgmt").stdout
    assert "✔ One root for virtual-mesh" in said, said
    assert f"✔ Workloads of istiod-istio-system-{cluster}" in said, said


def is_ready(pod: Json) -> bool:
    found = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return "deletionTimestamp" not in pod["metadata"] and found.get("Ready") == "True"


def test_no_private_key_of_a_mesh_is_on_the_management_cluster(joined: Story) -> None:
    """And the root's is nowhere else."""
    keys = {
        where: [
            value
            for secret in joined.lab.objects(where, "secrets", "-A")
            for key, value in (secret.get("data") or {}).items()
            if key in (CA_KEY, "private-key")
        ]
        for where in ("mgmt", *CLUSTERS)
    }

    assert all(keys.values())
    assert not set(keys["mgmt"]) & {*keys["cluster1"], *keys["cluster2"]}
    assert not set(keys["cluster1"]) & set(keys["cluster2"])


# --- another root ---------------------------------------------------------------------------------------------------


@dataclass
class Rotation:
    """A root that replaced another, and the requests across clusters meanwhile."""

    lab: Lab
    began: datetime
    secret: str
    old: bytes
    new: bytes
    conditions: list[Json] = field(default_factory=list)
    answers: dict[str, list[Json]] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    """How often each Deployment had been changed."""


@pytest.fixture(scope="module")
def crossing(joined: Story) -> Iterator[Lab]:
    """Product pages ask for reviews of the other cluster. A gateway that passes TLS on can't end a connection between
    two requests, so a request that it cuts off is sent once more, as a route's `retryOn: reset` says.
    """
    lab = joined.lab
    for cluster, other in OTHER.items():
        route = {"destination": {"host": f"reviews.default.svc.{other}.global"}}
        retries = {"attempts": 5, "retryOn": "connect-failure,refused-stream,unavailable,cancelled,503,reset"}
        spec = {"hosts": ["reviews.default.svc.cluster.local"], "http": [{"route": [route], "retries": retries}]}
        metadata = {"name": "reviews-across", "namespace": "default"}
        kind = {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService"}
        lab.apply(cluster, {**kind, "metadata": metadata, "spec": spec})
    try:
        yield lab
    finally:
        for cluster in CLUSTERS:
            lab.kubectl(cluster, "delete", "virtualservice", "reviews-across", "--ignore-not-found")


def rotate(lab: Lab, secret: str, stack: ExitStack) -> tuple[Rotation, dict[str, Calling]]:
    """Name a new root for the virtual mesh while requests cross the clusters in both directions."""
    [mesh] = lab.objects("mgmt", *MESH)
    authority = mesh["spec"]["mtlsConfig"]["shared"]["rootCertificateAuthority"]
    before = data_of(lab, "mgmt", authority.get("secret", {}).get("name", GENERATED), "gloo-mesh")
    provided = root_data(secret)
    write_secret(lab, "mgmt", secret, "gloo-mesh", provided)
    loads = {cluster: stack.enter_context(from_outside(lab, cluster, PRODUCT)) for cluster in CLUSTERS}
    for cluster, load in loads.items():
        load.until("reviews of the other cluster", partial(is_served_by, OTHER[cluster]))
        load.seen.clear()
    rotation = Rotation(lab, datetime.now(UTC), secret, before[ROOT_CERT], provided[ROOT_CERT])
    rotation.before = generations(lab)
    named = {"generated": None, "secret": {"name": secret, "namespace": "gloo-mesh"}}
    rotation.conditions = conditions(lab)
    change_trust(lab, {"shared": {"rootCertificateAuthority": named}})
    return rotation, loads


PRODUCT = "/api/v1/products/0/reviews"


def is_served_by(cluster: str, answer: Json) -> bool:
    return bool(answer["status"] == 200 and answer["body"].get("clustername") == cluster)


def finish(rotation: Rotation, loads: dict[str, Calling]) -> None:
    """Wait for the end of the rotation, and take what was seen of it."""
    lab, past = rotation.lab, len(rotation.conditions)
    eventually("the root is replaced", lambda: [each["state"] for each in conditions(lab)[past:]][3:], within=600)
    rotation.conditions = conditions(lab)[past:]
    for cluster in CLUSTERS:
        eventually(f"{cluster} is done", partial(is_in, lab, cluster, "FINISHED"), within=ISSUE_SECONDS)
    rotation.answers = ended(loads)


def measure(rotation: Rotation, what: str) -> None:
    """Note how long each step took, and how many requests were sent and failed meanwhile."""
    times = [datetime.fromisoformat(each["timestamp"]).timestamp() for each in rotation.conditions]
    sent = [answer for answers in rotation.answers.values() for answer in answers]
    parts = []
    for state, start, end in zip(STEPS, times, times[1:], strict=False):
        there = [answer for answer in sent if start <= answer["at"] < end]
        parts.append(f"{state} {end - start:.0f} s, {len(there)} sent, {len(failures(there))} failed")
    again = sum(
        1
        for answer in sent
        for call in calls_of(answer.get("body"))
        if (call.get("served") or {}).get("request", {}).get("x-envoy-attempt-count", "1") != "1"
    )
    total = f"{len(sent)} requests across clusters, {len(failures(sent))} failed, {again} at the second attempt"
    rotation.lab.measured.append(f"{what}: {times[-1] - times[0]:.0f} s, {total}; {'; '.join(parts)}")


@pytest.fixture(scope="module")
def accepted(crossing: Lab, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A certificate below the generated root, in a file, that proxies accept."""
    certificate = signed_by(crossing, GENERATED, tmp_path_factory.mktemp("old"))
    assert verdict(crossing, REVIEWS.format("cluster2"), certificate).startswith("answered b'HTTP/1.1 200")
    return certificate


def signed_by(lab: Lab, secret: str, folder: Path) -> str:
    """A file with a certificate, and its key, that the root in a Secret of mgmt has signed."""
    now = datetime.now(UTC)
    root = read_signing_root(data_of(lab, "mgmt", secret, "gloo-mesh"), now).authority
    signed = make_signing_authority(
        root, new_key(), common_name="caller", serial=time.time_ns(), now=now, life=timedelta(days=1)
    )
    return write_pem(folder, signed.certificate, root.certificate, signed.key)


@pytest.fixture(scope="module")
def rotated(crossing: Lab, accepted: str) -> Rotation:
    """A provided root has replaced the generated one while requests crossed the clusters."""
    with ExitStack() as stack:
        rotation, loads = rotate(crossing, "provided-root", stack)
        finish(rotation, loads)
    measure(rotation, "root rotated")
    return rotation


def test_no_request_across_clusters_fails_while_a_root_replaces_another(rotated: Rotation) -> None:
    """Nor does any handshake, across clusters or inside."""
    sent = [answer for answers in rotated.answers.values() for answer in answers]

    assert [brief(answer) for answer in sent if set(crossings(answer)) != {200}] == []
    assert unexplained(sent, lapses(rotated.lab, rotated.began)) == []
    assert {cluster for cluster, answers in rotated.answers.items() if len(answers) > 300} == set(CLUSTERS)
    for cluster, answers in rotated.answers.items():
        assert {answer["body"]["clustername"] for answer in answers} == {OTHER[cluster]}
    assert tls_failures(rotated.lab, rotated.began, across=True) == []


def test_the_steps_of_a_rotation_are_told_in_their_order(rotated: Rotation) -> None:
    told = [each["state"] for each in rotated.conditions]

    assert told == [*STEPS, "FINISHED"]
    assert sorted(times := [each["timestamp"] for each in rotated.conditions]) == times


def test_after_a_rotation_the_old_root_is_trusted_nowhere(rotated: Rotation, accepted: str, tmp_path: Path) -> None:
    """Not by any proxy, nor by what new pods are given; who shows a certificate of it is refused."""
    assert_only_root(rotated)
    assert verdict(rotated.lab, REVIEWS.format("cluster2"), accepted) == "refused TLSV1_ALERT_UNKNOWN_CA"
    new = signed_by(rotated.lab, rotated.secret, tmp_path)
    assert verdict(rotated.lab, REVIEWS.format("cluster2"), new).startswith("answered b'HTTP/1.1 200")


def assert_only_root(rotation: Rotation) -> None:
    """Every proxy, istiod and new pod of both clusters trusts the new root alone, and all certificates lead to it."""
    lab, new = rotation.lab, load_certificates(rotation.new)
    for cluster in CLUSTERS:
        found = held_by_all(lab, cluster)
        assert len(found) >= 7
        assert {pod for pod, (_, roots) in found.items() if load_certificates(roots) != new} == set()
        now = datetime.now(UTC)
        assert {pod for pod, (chain, _) in found.items() if check_chain(chain, rotation.new, now)} == set()
        assert load_certificates(data_of(lab, cluster, "cacerts", "istio-system")[ROOT_CERT]) == new
        given = roots_given(lab, cluster)
        assert {namespace for namespace, text in given.items() if load_certificates(text.encode()) != new} == set()


def test_a_rotation_restarts_every_pod_once_in_each_step(rotated: Rotation) -> None:
    assert generations(rotated.lab) == {name: number + len(STEPS) for name, number in rotated.before.items()}


# --- who is killed --------------------------------------------------------------------------------------------------


def test_whoever_is_killed_in_whichever_step_of_a_rotation_its_end_is_the_same(rotated: Rotation) -> None:
    """Server, agents and istiods are killed in every step, each at another of its moments: no pod restarts in vain,
    the steps are the same, and so is what is trusted in the end.
    """
    lab, killed, past = rotated.lab, 0, len(conditions(rotated.lab))
    with ExitStack() as stack:
        rotation, loads = rotate(lab, "another-root", stack)
        for index, (step, parts) in enumerate(zip(STEPS, KILLS, strict=True)):
            eventually(step, lambda: len(conditions(lab)) > past + index, within=ISSUE_SECONDS)  # noqa: B023
            for moment, part in zip(MOMENTS, parts, strict=True):
                eventually(f"{step}: {moment}", partial(has_come, lab, "cluster1", moment), within=ISSUE_SECONDS)
                killed += kill(lab, part)
        finish(rotation, loads)
    measure(rotation, f"root rotated, {killed} processes killed")

    assert [each["state"] for each in rotation.conditions] == [*STEPS, "FINISHED"]
    assert generations(lab) == {name: number + len(STEPS) for name, number in rotation.before.items()}
    assert_only_root(rotation)
    assert {cluster: lab.call(cluster, across(cluster))[0]["status"] for cluster in CLUSTERS} == dict.fromkeys(
        CLUSTERS, 200
    )
    assert tls_failures(lab, rotation.began, across=True) == []


def has_come(lab: Lab, cluster: str, moment: str) -> bool:
    """Whether the certificate of the step has come so far on a cluster."""
    if moment == "a certificate is asked for":
        return status_of(lab, cluster).get("state") != "FINISHED"
    told = "; ".join(waiting_for(lab, cluster))
    if moment == "istiod restarts":
        return "istiod is restarting" in told or "restarted pods in istio-system" in told
    return "Deployment default/" in told


def kill(lab: Lab, part: str) -> int:
    """Kill every process of a part, of which there is one at least; how many."""
    found = [pid for cluster in WHERE[part] for pid in processes(lab, cluster, PARTS[part])]
    for pid in found:
        with suppress(ProcessLookupError):  # an istiod that was about to end
            os.kill(pid, signal.SIGKILL)
    assert found
    return len(found)


# --- who may not be restarted ---------------------------------------------------------------------------------------


CAREFUL = """
apiVersion: v1
kind: Namespace
metadata:
  name: careful
  labels: {istio-injection: enabled}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: alone, namespace: careful}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: alone}}
  template:
    metadata: {labels: {app: alone}}
    spec:
      containers: [{name: client, image: isthmus/lab-client, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: alone, namespace: careful}
spec:
  selector: {app: alone}
  ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: guarded, namespace: careful}
spec:
  replicas: 2
  strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 1}}
  selector: {matchLabels: {app: guarded}}
  template:
    metadata: {labels: {app: guarded}}
    spec:
      containers: [{name: client, image: isthmus/lab-client, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Service
metadata: {name: guarded, namespace: careful}
spec:
  selector: {app: guarded}
  ports: [{name: http, port: 80}]
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guarded, namespace: careful}
spec:
  minAvailable: 2
  selector: {matchLabels: {app: guarded}}
"""


@pytest.fixture
def careful(joined: Story) -> Iterator[Lab]:
    """On cluster1, a Service with one pod that would be replaced in place, and one whose budget lets none go."""
    lab = joined.lab
    lab.kubectl("cluster1", "apply", "-f", "-", stdin=CAREFUL)
    try:
        for name in ("alone", "guarded"):
            lab.kubectl("cluster1", "rollout", "status", f"deployment/{name}", "-n", "careful", "--timeout=300s")
        yield lab
    finally:
        lab.kubectl("cluster1", "delete", "namespace", "careful", "--ignore-not-found")


def test_pods_restart_only_when_told_and_only_if_nobody_misses_them(careful: Lab) -> None:
    """Without `autoRestartPods` the status lists them. With it, the last ready pod of a Service and those of a budget
    that allows none away are left, and said; when there is room, they follow one by one.
    """
    lab, before = careful, generations(careful)
    options = {"ttlDays": 90, "keyAlgorithm": "ECDSA"}
    change_trust(lab, {"autoRestartPods": False, "shared": {"intermediateCertOptions": options}})

    for cluster in CLUSTERS:
        eventually(f"{cluster} waits for restarts", partial(lists_outdated, lab, cluster), within=ISSUE_SECONDS)
    listed = status_of(lab, "cluster1")["outdatedPods"]
    meshed = {"/".join(reversed(pod.rsplit(".", 1))) for pod in proxies(lab, "cluster1")}
    istiods = {f"istio-system/{pod}" for pod in lab.pods("cluster1", "app=istiod", namespace="istio-system")}
    assert set(listed["names"]) == meshed | istiods
    assert listed["count"] == len(listed["names"])
    assert generations(lab) == before

    with ready_pods(lab, "careful") as seen:
        change_trust(lab, {"autoRestartPods": True})
        left = eventually("only what may not be restarted is left", partial(left_over, lab), within=ISSUE_SECONDS)
        assert set(left) == {
            "Deployment careful/alone has the last ready pod of service alone",
            "Deployment careful/guarded may not be restarted now: PodDisruptionBudget guarded allows 0 pods away",
        }
        assert is_in(lab, "cluster1", "ISSUED")
        eventually("only those are outdated", lambda: outdated(lab) == {"careful/alone", "careful/guarded"})

        for name, replicas in (("alone", 2), ("guarded", 3)):
            lab.kubectl("cluster1", "scale", "deployment", name, "-n", "careful", f"--replicas={replicas}")
        for cluster in CLUSTERS:
            eventually(f"{cluster} is done", partial(is_in, lab, cluster, "FINISHED"), within=ISSUE_SECONDS)

    assert min(seen["alone"]) >= 1
    assert min(seen["guarded"]) >= 2
    assert max(seen["alone"]) == 2
    assert generations(lab) == {name: number + 1 for name, number in before.items()}


def outdated(lab: Lab) -> set[str]:
    """The workloads whose pods the status lists as running with an older certificate."""
    listed = status_of(lab, "cluster1").get("outdatedPods") or {}
    return {name.rsplit("-", 2)[0] for name in listed.get("names", ())}


def lists_outdated(lab: Lab, cluster: str) -> bool:
    """Whether the status says that all is there but that pods run with an older certificate."""
    status = status_of(lab, cluster)
    return status.get("state") == "ISSUED" and bool(status.get("outdatedPods"))


def left_over(lab: Lab) -> tuple[str, ...]:
    """What is waited for on cluster1 once nothing restarts any more."""
    waiting = waiting_for(lab, "cluster1")
    left = ("has the last ready pod", "allows 0 pods away")
    return waiting if all(any(words in each for words in left) for each in waiting) else ()


@contextmanager
def ready_pods(lab: Lab, namespace: str) -> Iterator[dict[str, list[int]]]:
    """By Service, how many ready pods there were after every change of cluster1 meanwhile."""
    seen: dict[str, list[int]] = defaultdict(list)
    service, ready = r"{.metadata.labels.kubernetes\.io/service-name}", "{.endpoints[*].conditions.ready}"
    argv = ["kubectl", "--context", "cluster1", "get", "endpointslices", "-n", namespace, "--watch"]
    argv += ["-o", f"jsonpath={service} {ready}{{'\\n'}}"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, env=lab.environment) as process:
        assert process.stdout is not None
        try:
            yield seen
        finally:
            process.terminate()
            for line in process.stdout:
                name, *states = line.split()
                seen[name].append(states.count("true"))


# --- all of that ----------------------------------------------------------------------------------------------------


def test_nothing_that_server_and_agents_tried_was_forbidden(joined: Story) -> None:
    """Their rights are enough: since the story began no API server has refused them anything.

    Except what nobody may: to write into a namespace that is being deleted, while its Services are still there.
    """
    lab = joined.lab
    logs = [
        path
        for cluster in ("mgmt", *CLUSTERS)
        for path in (lab.directory / cluster / "pods").glob("gloo-mesh_enterprise-*/*/*.log")
    ]
    lines = [line for path in logs for line in path.read_text(errors="replace").splitlines()]

    since = [line for line in lines if datetime.fromisoformat(line.split(" ", 1)[0]) >= joined.began]

    assert any("certificate written" in line for line in since)
    refused = [line for line in since if "forbidden" in line.lower()]
    assert [line for line in refused if "because it is being terminated" not in line] == []
