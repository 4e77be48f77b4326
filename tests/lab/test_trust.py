"""Trust between the clusters, from two roots of istiod's own to one root of the virtual mesh: read from the proxies.

The order of these tests is that of the story. A lab on which it was told already is taken back to its beginning.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from isthmus.pki import check_chain
from isthmus.pki.certificates import load_certificates
from tests.lab.running import WALKTHROUGH, Calling, Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OTHER
from tests.lab.test_walkthrough_faults import processes

PROXIES = {"client": "spiffe://{}/ns/default/sa/client", "reviews": "spiffe://{}/ns/default/sa/bookinfo-reviews"}
APPS = {"details": "v1", "productpage": "v1", "ratings": "v1", "reviews": "v1"}
RATE = 10
ISSUE_SECONDS = 300.0
"""Within which a mesh has its certificate and all its pods run with it."""
PARTS = {
    "the server": ("mgmt", "isthmus-server"),
    "cluster1's agent": ("cluster1", "isthmus-agent"),
    "cluster1's istiod": ("cluster1", "pilot-discovery"),
}
PHASES: dict[str, Callable[[str], bool]] = {
    "the certificate is asked for": lambda told: not told.startswith("FINISHED"),
    "istiod restarts": lambda told: "istiod is restarting" in told or "restarted pods in istio-system" in told,
    "workloads restart": lambda told: "Deployment default/" in told,
}


def across(cluster: str) -> str:
    """A service of the other cluster than *cluster*."""
    return f"http://details.default.svc.{OTHER[cluster]}.global:9080/details/0"


@dataclass
class Story:
    """The lab, and the requests that were sent while trust came about."""

    lab: Lab
    began: datetime
    answers: dict[str, list[Json]] = field(default_factory=dict)


@pytest.fixture(scope="module")
def apart(bookinfo: Lab) -> Lab:
    """A virtual mesh federates both clusters and leaves their certificates alone: each trusts its own root only."""
    bookinfo.kubectl("mgmt", "delete", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh", "--ignore-not-found")
    for cluster in CLUSTERS:
        secret = ("secret", "cacerts", "-n", "istio-system")
        eventually(f"{cluster}'s certificate is gone", partial(is_gone, bookinfo, cluster, *secret))
        for app, version in APPS.items():
            give_readiness(bookinfo, cluster, f"{app}-{version}", app)
        if not has_root(bookinfo, cluster, "default", own_root(bookinfo, cluster)):
            restart_everything(bookinfo, cluster)
        bookinfo.kubectl(cluster, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=120s")
    apply_virtual_mesh(bookinfo, trust=False)
    for cluster in CLUSTERS:
        eventually(f"{cluster} calls the other", partial(is_refused, bookinfo, cluster))
    return bookinfo


@pytest.fixture(scope="module")
def joined(apart: Lab) -> Story:
    """The walk-through's virtual mesh is applied while requests go on inside both clusters; then all pods are new."""
    story = Story(apart, datetime.now(UTC))
    with ExitStack() as stack:
        loads = {
            f"{cluster} {what}": stack.enter_context(from_outside(apart, cluster, path))
            for cluster in CLUSTERS
            for what, path in (("details", "/api/v1/products/0"), ("reviews", "/api/v1/products/0/reviews"))
        }
        for load in loads.values():
            load.until("requests that are answered", lambda answer: answer["status"] == 200)
        started = time.monotonic()
        apply_virtual_mesh(apart, trust=True)
        for cluster in CLUSTERS:
            eventually(f"{cluster} is done", partial(is_finished, apart, cluster), within=ISSUE_SECONDS)
        apart.measured.append(f"one root, and all pods restarted for it: {time.monotonic() - started:.0f} s")
        end = time.time()
        for name, load in loads.items():
            load.until("a request afterwards", lambda answer: answer["at"] > end, within=60)
            story.answers[name] = load.seen
    return story


# --- before ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_before_the_virtual_mesh_gives_one_root_calls_across_clusters_fail_on_tls(apart: Lab, cluster: str) -> None:
    """The caller's proxy says that it can't verify the certificate of the other side."""
    [answer] = apart.call(cluster, across(cluster))

    assert answer["status"] == 503
    log = apart.kubectl(cluster, "logs", "deploy/client", "-c", "istio-proxy", "--tail=20")
    assert any("CERTIFICATE_VERIFY_FAILED" in line for line in log.splitlines() if f"{OTHER[cluster]}.global" in line)


def test_before_the_virtual_mesh_gives_one_root_each_istiod_has_its_own(apart: Lab) -> None:
    roots = [
        certificate for cluster in CLUSTERS for certificate in load_certificates(held(apart, cluster, "client")[1])
    ]

    assert len(set(roots)) == len(CLUSTERS)


# --- how it comes about ---------------------------------------------------------------------------------------------


def test_no_request_inside_a_cluster_fails_while_its_root_is_replaced(joined: Story) -> None:
    """Requests go from the gateway to the product page and on to details, reviews and ratings, all by mutual TLS."""
    sent = [answer for answers in joined.answers.values() for answer in answers]

    failed = unexplained(joined.lab, sent, joined.began, "both roots replaced")

    assert failed == []
    assert len(sent) > 1000
    assert {cluster: tls_failures(joined.lab, cluster, joined.began) for cluster in CLUSTERS} == {
        cluster: [] for cluster in CLUSTERS
    }


def unexplained(lab: Lab, sent: list[Json], began: datetime, what: str) -> list[str]:
    """Requests that failed for another reason than that an istiod, on its way out, took a listener's cluster away.

    istiod of 1.31.0-alpha does that in some of its ends, whoever restarts it: it pushes once more when it has forgotten
    its pods already, and the proxy of the callee answers ``cluster_not_found`` until another istiod has told it better.
    """
    failed = [answer for answer in sent if not is_whole(answer)]
    excuses = [at for cluster in CLUSTERS for at, line in proxy_log(lab, cluster, began) if "cluster_not_found" in line]
    left = [answer for answer in failed if not any(abs(answer["at"] - at.timestamp()) < 1 for at in excuses)]
    lab.measured.append(f"{what}: {len(sent)} requests inside the clusters meanwhile, {len(failed)} failed")
    if len(failed) > len(left):
        lab.measured[-1] += f", {len(failed) - len(left)} of them since an ending istiod took the callee's cluster away"
    return list(map(brief, left))


def tls_failures(lab: Lab, cluster: str, began: datetime) -> list[str]:
    """What proxies say of handshakes inside the cluster that failed since; those across end in ``.global``."""
    log = proxy_log(lab, cluster, began)
    return [line for _, line in log if "TLS_error" in line and ".global" not in line]


def proxy_log(lab: Lab, cluster: str, began: datetime) -> Iterator[tuple[datetime, str]]:
    """What every proxy of the cluster, also of pods that have ended, told since of requests, with the time of each."""
    for path in sorted((lab.directory / cluster / "pods").glob("*/istio-proxy/*.log")):
        for line in path.read_text(errors="replace").splitlines():
            found = re.search(r" \[(\d{4}-\d\d-\d\dT[0-9:.]+Z)\] ", line)
            if found and (at := datetime.fromisoformat(found[1])) >= began:
                yield at, line


def is_whole(answer: Json) -> bool:
    """Whether every service on the way answered."""
    return answer["status"] == 200 and "error" not in json.dumps(answer["body"])


def brief(answer: Json) -> str:
    """When the request failed, how, and at whose hands."""
    at = datetime.fromtimestamp(answer["at"], UTC).strftime("%H:%M:%S.%f")
    body = answer.get("body")
    calls = body.get("served", {}).get("calls", ()) if isinstance(body, dict) else ()
    chain = [(call["url"], call.get("status", call.get("error")), call["ms"]) for call in calls]
    outcome = f"{answer['status']} {answer.get('error')} in {answer['ms']:.0f} ms by {answer.get('pod')}"
    return f"{at} {outcome}: {chain or body}"


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_pod_of_the_mesh_was_restarted_for_the_certificate_in_place(joined: Story, cluster: str) -> None:
    lab = joined.lab
    [directive] = lab.objects(cluster, "podbouncedirectives", "-n", "gloo-mesh")
    fingerprint = directive["status"]["observedCertificate"]

    pods = [*lab.objects(cluster, "pods", "-n", "default"), *lab.objects(cluster, "pods", "-n", "istio-system")]

    assert len(pods) >= 7
    assert {pod["metadata"]["annotations"].get("isthmus.io/restarted-for") for pod in pods} == {fingerprint}


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
        chain, root = held(joined.lab, cluster, app)
        leaf, issuer = load_certificates(chain)[:2]

        assert check_chain(chain, root, datetime.now(UTC)) is None
        assert PROXIES[app].format(cluster) in str(leaf.extensions)
        assert f"spiffe://{cluster}/ns/istio-system/sa/" in str(issuer.extensions)
        assert leaf.issuer == issuer.subject
        issuers.add(issuer)
        roots.update(load_certificates(root))

    assert len(roots) == 1
    assert len(issuers) == 2


def test_what_proxies_present_in_a_handshake_leads_to_the_root_on_mgmt(joined: Story) -> None:
    """Asked for as any peer does, by a client that is no proxy."""
    lab = joined.lab
    [secret] = lab.objects("mgmt", "secret", "virtual-mesh.gloo-mesh", "-n", "gloo-mesh")
    root = base64.b64decode(secret["data"]["root-cert.pem"])
    for cluster in CLUSTERS:
        [pod] = [pod for pod in lab.objects(cluster, "pods", "-l", "app=reviews,version=v1") if is_ready(pod)]

        presented = handshake(lab, cluster, pod["status"]["podIP"])

        assert check_chain(presented, root, datetime.now(UTC)) is None
        assert PROXIES["reviews"].format(cluster) in str(load_certificates(presented)[0].extensions)


def test_no_private_key_of_a_mesh_is_on_the_management_cluster(joined: Story) -> None:
    """And the root's is nowhere else."""
    keys = {
        where: [
            value
            for secret in joined.lab.objects(where, "secrets", "-A")
            for key, value in (secret.get("data") or {}).items()
            if key in ("ca-key.pem", "private-key")
        ]
        for where in ("mgmt", *CLUSTERS)
    }

    assert all(keys.values())
    assert not set(keys["mgmt"]) & {*keys["cluster1"], *keys["cluster2"]}
    assert not set(keys["cluster1"]) & set(keys["cluster2"])


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_is_killed_in_every_phase_of_a_reissue_changes_nothing_of_its_end(joined: Story, part: str) -> None:
    """All intermediates are replaced; the part is killed thrice; each pod restarts once, and calls across go on."""
    lab = joined.lab
    cluster, program = PARTS[part]
    before = {each: generations(lab, each) for each in CLUSTERS}
    issued = {each: fingerprint_of(lab, each) for each in CLUSTERS}
    watched = "cluster1" if cluster == "mgmt" else cluster
    days = 100 + list(PARTS).index(part) + int(time.time()) % 100

    began = datetime.now(UTC)
    with from_outside(lab, "cluster1", "/api/v1/products/0/reviews") as load:
        load.until("requests that are answered", lambda answer: answer["status"] == 200)
        reissue(lab, days)
        for phase, holds in PHASES.items():
            eventually(phase, partial(is_in, lab, watched, issued[watched], holds), within=ISSUE_SECONDS)
            for pid in processes(lab, cluster, program):
                with suppress(ProcessLookupError):  # istiod was about to end
                    os.kill(pid, signal.SIGKILL)
        for each in CLUSTERS:
            done = partial(is_finished, lab, each, other_than=issued[each])
            eventually(f"{each} is done after {part} was killed", done, within=ISSUE_SECONDS)
        end = time.time()
        load.until("a request afterwards", lambda answer: answer["at"] > end, within=60)

    failed = unexplained(lab, load.seen, began, f"{part} killed thrice")
    if program != "pilot-discovery":  # while none runs, nobody tells proxies which pods have ended
        assert failed == []
    assert {each: tls_failures(lab, each, began) for each in CLUSTERS} == {each: [] for each in CLUSTERS}
    for each in CLUSTERS:
        assert generations(lab, each) == {name: number + 1 for name, number in before[each].items()}
        chain, root = held(lab, each, "client")
        assert check_chain(chain, root, datetime.now(UTC)) is None
        assert lab.call(each, across(each))[0]["status"] == 200


# --- helpers --------------------------------------------------------------------------------------------------------


def apply_virtual_mesh(lab: Lab, *, trust: bool) -> None:
    """The walk-through's file, or what it says of everything but trust."""
    text = (WALKTHROUGH / "virtual-mesh.yaml").read_text()
    if not trust:
        text = re.sub(r"^  mtlsConfig:\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
        assert "mtls" not in text
    lab.kubectl("mgmt", "apply", "-f", "-", stdin=text)


def is_refused(lab: Lab, cluster: str) -> bool:
    """Whether a call across clusters finds its way, and is not taken."""
    return bool(lab.call(cluster, across(cluster))[0]["status"] == 503)


def reissue(lab: Lab, days: int) -> None:
    """Ask for intermediates that live for another number of days: they are all replaced."""
    shared = {"intermediateCertOptions": {"ttlDays": days}}
    patch = json.dumps({"spec": {"mtlsConfig": {"shared": shared}}})
    lab.kubectl("mgmt", "patch", "virtualmesh", "virtual-mesh", "-n", "gloo-mesh", "--type=merge", "-p", patch)


def give_readiness(lab: Lab, cluster: str, name: str, container: str) -> None:
    """Let the pods of a Deployment be ready when they listen: without it every rolling restart loses requests."""
    probe = {"name": container, "readinessProbe": {"tcpSocket": {"port": 9080}, "periodSeconds": 1}}
    patch = json.dumps({"spec": {"template": {"spec": {"containers": [probe]}}}})
    for each in (name,) if container != "reviews" else ("reviews-v1", "reviews-v2", "reviews-v3"):
        if lab.has(cluster, "deployment", each):
            lab.kubectl(cluster, "patch", "deployment", each, "-p", patch)
            lab.kubectl(cluster, "rollout", "status", f"deployment/{each}", "--timeout=120s")


def restart_everything(lab: Lab, cluster: str) -> None:
    """By hand, as one does who leaves a virtual mesh: istiod makes itself a root again, then all others."""
    lab.kubectl(cluster, "rollout", "restart", "deployment/istiod", "-n", "istio-system")
    lab.kubectl(cluster, "rollout", "status", "deployment/istiod", "-n", "istio-system", "--timeout=120s")
    root = own_root(lab, cluster)
    for namespace in ("istio-system", "default"):
        eventually(f"{namespace} has istiod's root", partial(has_root, lab, cluster, namespace, root), within=120)
    for namespace, chosen in (("istio-system", ["deployment/istio-ingressgateway"]), ("default", ["deployment"])):
        lab.kubectl(cluster, "rollout", "restart", *chosen, "-n", namespace)
        for deployment in lab.objects(cluster, "deployments", "-n", namespace):
            name = f"deployment/{deployment['metadata']['name']}"
            lab.kubectl(cluster, "rollout", "status", name, "-n", namespace, "--timeout=180s")


def own_root(lab: Lab, cluster: str) -> str:
    """The root that istiod makes itself."""
    [own] = lab.objects(cluster, "secret", "istio-ca-secret", "-n", "istio-system")
    return base64.b64decode(own["data"]["ca-cert.pem"]).decode().strip()


def has_root(lab: Lab, cluster: str, namespace: str, root: str) -> bool:
    [given] = lab.objects(cluster, "configmap", "istio-ca-root-cert", "-n", namespace)
    return bool(given["data"]["root-cert.pem"].strip() == root)


def is_gone(lab: Lab, cluster: str, *arguments: str) -> bool:
    return not lab.has(cluster, *arguments)


def is_in(lab: Lab, cluster: str, old: str, holds: Callable[[str], bool]) -> bool:
    return holds(told_of(lab, cluster, old))


def told_of(lab: Lab, cluster: str, old: str) -> str:
    """The state of the certificate, and what is waited for once pods restart for another one than *old*."""
    [certificate] = lab.objects(cluster, "issuedcertificates", "-n", "gloo-mesh")
    [directive] = lab.objects(cluster, "podbouncedirectives", "-n", "gloo-mesh")
    status = directive.get("status") or {}
    waiting = status.get("waiting", ()) if status.get("observedCertificate") != old else ()
    return "; ".join(((certificate.get("status") or {}).get("state", "PENDING"), *waiting))


def is_finished(lab: Lab, cluster: str, *, other_than: str = "") -> bool:
    """Whether all pods run with the certificate in place."""
    for certificate in lab.objects(cluster, "issuedcertificates", "-n", "gloo-mesh"):
        status = certificate.get("status") or {}
        return (
            status.get("state") == "FINISHED"
            and status.get("observedGeneration") == certificate["metadata"]["generation"]
            and fingerprint_of(lab, cluster) != other_than
        )
    return False


def fingerprint_of(lab: Lab, cluster: str) -> str:
    """The `cacerts` that pods were restarted for last."""
    [directive] = lab.objects(cluster, "podbouncedirectives", "-n", "gloo-mesh")
    return str((directive.get("status") or {}).get("observedCertificate", ""))


def generations(lab: Lab, cluster: str) -> dict[str, int]:
    """How often each Deployment was changed."""
    return {
        item["metadata"]["name"]: item["metadata"]["generation"]
        for namespace in ("default", "istio-system")
        for item in lab.objects(cluster, "deployments", "-n", namespace)
    }


def is_ready(pod: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return "deletionTimestamp" not in pod["metadata"] and conditions.get("Ready") == "True"


@contextmanager
def from_outside(lab: Lab, cluster: str, path: str) -> Iterator[Calling]:
    """Requests to a cluster's ingress gateway from its nodes' network, that go on beside the test.

    Whoever sends them is no pod, so that no restart ends them.
    """
    [service] = lab.objects(cluster, "service", "istio-ingressgateway", "-n", "istio-system")
    url = f"http://{service['status']['loadBalancer']['ingress'][0]['ip']}{path}"
    call = [sys.executable, "-m", "isthmus.lab.client", "call", url, "--rate", str(RATE), "--for", "590"]
    argv = ["meshctl", "lab", "exec", cluster, "--", *call, "--timeout", "5"]
    # Its last words are that nobody reads any more.
    quiet = subprocess.DEVNULL
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=quiet, text=True, env=lab.environment) as process:
        assert process.stdout is not None
        calling = Calling(process.stdout)
        try:
            yield calling
        finally:
            process.terminate()
            calling.join()


def handshake(lab: Lab, cluster: str, address: str) -> bytes:
    """The certificates that the proxy of the pod with this *address* presents, as PEM."""
    argv = ["openssl", "s_client", "-connect", f"{address}:9080", "-alpn", "istio", "-showcerts"]
    said = lab.attempt("meshctl", "lab", "exec", cluster, "--", *argv).stdout
    found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", said, flags=re.DOTALL)
    assert found, said
    return "".join(found).encode()


def held(lab: Lab, cluster: str, app: str) -> tuple[bytes, bytes]:
    """The chain and the root that the sidecar of the first pod of *app* holds now, as PEM."""
    pod = sorted(lab.pods(cluster, f"app={app}"))[0]
    dump: Json = json.loads(lab.run("istioctl", "--context", cluster, "proxy-config", "secret", pod, "-o", "json"))
    secrets: dict[str, Any] = {entry["name"]: entry["secret"] for entry in dump["dynamicActiveSecrets"]}
    chain = secrets["default"]["tlsCertificate"]["certificateChain"]["inlineBytes"]
    root = secrets["ROOTCA"]["validationContext"]["trustedCa"]["inlineBytes"]
    return base64.b64decode(chain), base64.b64decode(root)
