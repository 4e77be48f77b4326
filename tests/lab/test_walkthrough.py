"""The walk-through on real clusters: what its reader sees, and what istiod and Envoy say about it.

Requests come from the client's pod. An answer counts with its status, its body and a pod that kubectl lists.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from isthmus.cli.demo_checks import check_walkthrough
from tests.lab.running import REQUEST_SECONDS, WALKTHROUGH, Json, Lab, eventually

CLUSTERS = ("cluster1", "cluster2")
OTHER = {"cluster1": "cluster2", "cluster2": "cluster1"}
OURS = "owner.networking.mesh.gloo.solo.io=gloo-mesh"
WRITTEN = (
    "serviceentries,destinationrules,virtualservices,gateways.networking.istio.io,envoyfilters,authorizationpolicies"
)
REVIEWS = "http://reviews.default.svc.cluster2.global:9080/reviews/0"
CHANGE_SECONDS = 2.0  # within which a change on one cluster is seen in the other's answers


def reviews_of(lab: Lab, cluster: str, answers: Sequence[Json]) -> set[str]:
    """The versions of reviews that gave the answers; fails at one that none of its pods on *cluster* gave."""
    pods = {
        item["metadata"]["name"]: item["metadata"]["labels"]["version"]
        for item in lab.objects(cluster, "pods", "-n", "default", "-l", "app=reviews")
    }
    stars = {"v1": None, "v2": {"stars": 5, "color": "black"}, "v3": {"stars": 5, "color": "red"}}
    for answer in answers:
        assert answer["status"] == 200, answer
        assert (answer["service"], answer["cluster"]) == ("reviews", cluster)
        assert answer["version"] == pods[answer["pod"]]
        body = answer["body"]
        assert (body["id"], body["podname"], body["clustername"]) == ("0", answer["pod"], cluster)
        assert [review["reviewer"] for review in body["reviews"]] == ["Reviewer1", "Reviewer2"]
        assert body["reviews"][0].get("rating") == stars[answer["version"]]
    return {answer["version"] for answer in answers}


# --- what the reader sees -------------------------------------------------------------------------------------------


def test_both_meshes_and_their_services_are_discovered(managed: Lab) -> None:
    """Step 3: the management plane knows both meshes, and bookinfo's services on both."""

    def known() -> bool:
        meshes = {item["metadata"]["name"] for item in managed.objects("mgmt", "meshes", "-n", "gloo-mesh")}
        destinations = {item["metadata"]["name"] for item in managed.objects("mgmt", "destinations", "-n", "gloo-mesh")}
        return meshes == {f"istiod-istio-system-{cluster}" for cluster in CLUSTERS} and destinations >= {
            f"{service}-default-{cluster}"
            for service in ("productpage", "details", "reviews", "ratings")
            for cluster in CLUSTERS
        }

    eventually("both meshes and bookinfo's services are known", known)


def test_meshctl_check_finds_nothing(managed: Lab) -> None:
    said = managed.run("meshctl", "check", "--kubecontext", "mgmt")

    assert "✘" not in said, said


def test_service_entries_are_listed_as_in_the_walkthrough(federated: Lab) -> None:
    """Step 5: `kubectl get serviceentries -A` on cluster1 prints what the walk-through shows, but for the age."""
    lines = (WALKTHROUGH / "expected" / "service-entries-on-cluster1.txt").read_text().splitlines()
    expected = {tuple(line.split()[:-1]) for line in lines[1:]}

    printed = federated.table("cluster1", "serviceentries", "-A")

    # Today's API servers print a column of several values as JSON, ["a"], where those of the walk-through printed [a].
    plain = {tuple(cell.replace('"', "") for cell in row) for row in printed}
    assert {row for row in plain if not row[1].endswith(".cluster1.global")} == expected


def test_every_check_of_the_demo_holds_on_real_clusters(federated: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """ServiceEntries field by field, mutual TLS, gateways, addresses and the agents' certificates."""
    monkeypatch.setenv("KUBECONFIG", str(federated.kubeconfig))

    results = asyncio.run(check_walkthrough(CLUSTERS))

    assert len(results) >= 12
    assert [(what, problem) for what, problem in results if problem] == []


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_product_page_is_served_through_the_ingress_gateway(federated: Lab, cluster: str) -> None:
    """Step 4: someone outside the mesh sees the book, its details and its reviews, all of this cluster."""
    [service] = federated.objects(cluster, "service", "istio-ingressgateway", "-n", "istio-system")
    address = service["status"]["loadBalancer"]["ingress"][0]["ip"]

    [answer] = federated.call(OTHER[cluster], f"http://{address}/productpage")

    assert (answer["status"], answer["cluster"], answer["service"]) == (200, cluster, "productpage")
    assert answer["pod"] in federated.pods(cluster, "app=productpage")
    assert "The Comedy of Errors" in answer["body"]
    assert "1234567890" in answer["body"]
    assert f"on cluster {cluster}" in answer["body"]


# --- a request across clusters --------------------------------------------------------------------------------------


def test_reviews_of_cluster2_answer_a_pod_on_cluster1(connecting_anew: Lab) -> None:
    """All three versions do, the third of which cluster1 does not have."""
    answers = connecting_anew.call("cluster1", REVIEWS, "-n", "30")

    assert len(answers) == 30
    assert reviews_of(connecting_anew, "cluster2", answers) == {"v1", "v2", "v3"}


def test_reviews_of_cluster1_answer_a_pod_on_cluster2(federated: Lab) -> None:
    """Federation is mutual."""
    answers = federated.call("cluster2", REVIEWS.replace("cluster2", "cluster1"), "-n", "20")

    assert len(answers) == 20
    assert reviews_of(federated, "cluster1", answers) <= {"v1", "v2"}


def test_the_callees_of_a_called_pod_are_its_own_cluster_s(connecting_anew: Lab) -> None:
    """reviews v3 on cluster2 asks the ratings of cluster2, whoever called it."""
    answers = connecting_anew.call("cluster1", REVIEWS, "-n", "30")

    chains = [call for answer in answers for call in answer["body"]["served"]["calls"]]
    assert {(call["status"], call["served"]["cluster"], call["served"]["service"]) for call in chains} == {
        (200, "cluster2", "ratings")
    }


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_requests_are_mutual_tls_from_sidecar_to_sidecar(federated: Lab, cluster: str) -> None:
    """The callee's sidecar tells the certificates of both ends: the gateway between them cannot have opened the TLS."""
    other = OTHER[cluster]

    [answer] = federated.call(cluster, f"http://details.default.svc.{other}.global:9080/details/0")

    assert (answer["status"], answer["cluster"], answer["body"]["ISBN-10"]) == (200, other, "1234567890")
    assert answer["pod"] in federated.pods(other, "app=details")
    told = answer["body"]["served"]["request"]["x-forwarded-client-cert"]
    ends = dict(part.split("=", 1) for part in told.split(";"))
    assert ends["By"] == f"spiffe://{other}/ns/default/sa/bookinfo-details"
    assert ends["URI"] == f"spiffe://{cluster}/ns/default/sa/client"


def test_requests_go_through_the_other_cluster_s_gateway(federated: Lab) -> None:
    """The only address that cluster1's sidecar knows of cluster2's reviews is the gateway's."""
    [service] = federated.objects("cluster2", "service", "istio-ingressgateway", "-n", "istio-system")
    gateway = service["status"]["loadBalancer"]["ingress"][0]["ip"]

    endpoints = proxy_config(federated, "cluster1", "endpoints", "--cluster", outbound("reviews", "cluster2"))

    [known] = [entry for entry in endpoints if entry["name"] == outbound("reviews", "cluster2")]
    addresses = [host["address"]["socketAddress"] for host in known["hostStatuses"]]
    assert [(address["address"], address["portValue"]) for address in addresses] == [(gateway, 15443)]


def test_no_pod_reaches_the_other_cluster_s_pods_directly(federated: Lab) -> None:
    """The networks are apart, so that whatever is answered across clusters came through a gateway."""
    [pod, *_] = federated.objects("cluster2", "pods", "-l", "app=reviews")

    [answer] = federated.call("cluster1", f"http://{pod['status']['podIP']}:9080/reviews/0", "--timeout", "4")

    assert answer["status"] != 200
    assert "pod" not in answer


# --- what istiod and Envoy say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_object_passes_istiod_s_validation(federated: Lab, cluster: str) -> None:
    """istiod is asked by the API server about each of them, and it does refuse a wrong one."""
    written = federated.objects(cluster, WRITTEN, "-A", "-l", OURS)
    kinds = {item["kind"] for item in written}
    for item in written:
        item["metadata"] = {key: item["metadata"][key] for key in ("name", "namespace", "labels", "annotations")}

    asked = federated.kubectl(
        cluster,
        "replace",
        "--dry-run=server",
        "-f",
        "-",
        stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": written}),
    )
    wrong: Any = next(item for item in written if item["kind"] == "ServiceEntry")
    wrong["spec"]["ports"][0]["number"] = 99999
    refused = federated.attempt(
        "kubectl", "--context", cluster, "replace", "--dry-run=server", "-f", "-", stdin=json.dumps(wrong)
    )

    assert kinds >= {"ServiceEntry", "DestinationRule", "Gateway"}
    assert len(asked.splitlines()) == len(written)
    assert refused.returncode != 0
    assert "validation.istio.io" in refused.stderr or "port" in refused.stderr, refused.stderr


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_istioctl_analyze_finds_nothing(federated: Lab, cluster: str) -> None:
    """Not even a hint, about whatever is on the cluster.

    Except IST0126, which asks for a registry named Kubernetes; the walk-through's file for Istio names its cluster.
    """
    done = federated.attempt(
        "istioctl", "analyze", "--context", cluster, "--all-namespaces",
        "--suppress", "IST0126=MeshNetworks istio-system/meshnetworks",
    )  # fmt: skip

    assert "No validation issues found when analyzing all namespaces." in done.stderr, done.stdout
    assert "IST0" not in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_proxy_is_synced(federated: Lab, cluster: str) -> None:
    """istiod's view: each sidecar and gateway has acknowledged what it was sent last."""
    expected = len(federated.pods(cluster, "security.istio.io/tlsMode=istio")) + 1  # the gateway

    def unsynced() -> list[str] | None:
        proxies = proxy_status(federated, cluster)
        late = [
            f"{proxy} {kind}: {state}"
            for proxy, states in proxies.items()
            for kind, state in states.items()
            if state not in ("SYNCED", "UNKNOWN", "NOT_SENT")
            or (state != "SYNCED" and kind in ("Cluster", "Listener", "ClusterLoadAssignment"))
        ]
        return None if late or len(proxies) != expected else ["all"]

    eventually(f"all {expected} proxies are synced", unsynced)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_no_envoy_rejects_its_configuration(federated: Lab, cluster: str) -> None:
    """Envoy's view: no update of clusters, endpoints, listeners or routes was refused since it started."""
    pods = [(name, "default") for name in federated.pods(cluster, "security.istio.io/tlsMode=istio")]
    pods += [
        (name, "istio-system") for name in federated.pods(cluster, "app=istio-ingressgateway", namespace="istio-system")
    ]

    for pod, namespace in sorted(pods):
        stats = federated.kubectl(
            cluster, "exec", "-n", namespace, pod, "-c", "istio-proxy", "--",
            "pilot-agent", "request", "GET", "stats?filter=(cds|lds)\\.update_(rejected|success)",
        )  # fmt: skip
        found = dict(line.split(": ") for line in stats.splitlines() if ": " in line)
        assert {name: count for name, count in found.items() if name.endswith("rejected")} == {
            "cluster_manager.cds.update_rejected": "0",
            "listener_manager.lds.update_rejected": "0",
        }, pod
        assert int(found["cluster_manager.cds.update_success"]) > 0


def test_the_client_s_envoy_uses_the_federated_service(federated: Lab) -> None:
    """Its cluster asks for the callee by the name that the gateway routes by."""
    name = outbound("reviews", "cluster2")

    clusters = proxy_config(federated, "cluster1", "clusters", "--fqdn", "reviews.default.svc.cluster2.global")

    [found] = [cluster for cluster in clusters if cluster["name"] == name]
    matched = found.get("transportSocketMatches", [])
    sockets = (
        [found["transportSocket"]] if "transportSocket" in found else [match["transportSocket"] for match in matched]
    )
    assert any(
        socket["typedConfig"].get("sni") == "outbound_.9080_._.reviews.default.svc.cluster2.global"
        for socket in sockets
    )


def outbound(service: str, cluster: str) -> str:
    """Envoy's name for a federated service."""
    return f"outbound|9080||{service}.default.svc.{cluster}.global"


def proxy_config(lab: Lab, cluster: str, what: str, *arguments: str) -> list[Json]:
    """What the sidecar of the client on *cluster* has."""
    found: list[Json] = json.loads(
        lab.run("istioctl", "--context", cluster, "proxy-config", what, "deploy/client", *arguments, "-o", "json")
    )
    return found


def proxy_status(lab: Lab, cluster: str) -> dict[str, dict[str, str]]:
    """What istiod says about each proxy, by its name: kind of configuration → state."""
    printed = lab.run("istioctl", "--context", cluster, "proxy-status", "-o", "json")
    return {
        client["node"]["id"]: {
            config["typeUrl"].rpartition(".")[2]: config.get("configStatus", "UNKNOWN")
            for config in client.get("genericXdsConfigs", ())
        }
        for client in json.loads(printed)["resources"]
    }


# --- changes on one cluster, seen on the other ----------------------------------------------------------------------


@pytest.fixture
def late(federated: Lab) -> Iterator[Json]:
    """A Service on cluster2 that is not there yet: reviews v2 under another name. Gone after the test."""
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "late", "namespace": "default", "labels": {"app": "late"}},
        "spec": {"selector": {"app": "reviews", "version": "v2"}, "ports": [{"name": "http", "port": 9080}]},
    }
    federated.kubectl("cluster2", "delete", "service", "late", "--ignore-not-found")
    eventually(
        "cluster1 has forgotten the Service",
        lambda: not federated.has("cluster1", "serviceentry", "-n", "istio-system", "late.default.svc.cluster2.global"),
    )


LATE = "http://late.default.svc.cluster2.global:9080/reviews/0"


def test_an_added_a_changed_and_a_deleted_service_are_seen(connecting_anew: Lab, late: Json) -> None:
    """While cluster1 keeps calling it: first unknown, then v2, then v3, then unknown."""
    federated = connecting_anew
    with federated.calling("cluster1", LATE) as calling:
        calling.until("that nobody answers yet", lambda answer: answer["status"] != 200)

        federated.apply("cluster2", late)
        done = time.time()
        took = calling.until("the added Service", lambda answer: answer["status"] == 200, after=done)
        assert reviews_of(federated, "cluster2", calling.seen[-1:]) == {"v2"}
        federated.measure("a Service added on cluster2 answers on cluster1", took, CHANGE_SECONDS)

        federated.kubectl("cluster2", "patch", "service", "late", "-p", '{"spec": {"selector": {"version": "v3"}}}')
        done = time.time()
        took = calling.until("the changed Service", lambda answer: answer.get("version") == "v3", after=done)
        assert reviews_of(federated, "cluster2", calling.seen[-1:]) == {"v3"}
        federated.measure("a changed selector on cluster2 answers on cluster1", took, CHANGE_SECONDS)

        federated.kubectl("cluster2", "delete", "service", "late", "--wait=false")
        done = time.time()
        took = calling.until("the deleted Service", lambda answer: answer["status"] != 200, after=done)
        federated.measure("a Service deleted on cluster2 is unknown on cluster1", took, CHANGE_SECONDS)


def test_a_changed_port_is_seen(federated: Lab, late: Json) -> None:
    """cluster1 calls the new port before it exists."""
    federated.apply("cluster2", late)
    with federated.calling("cluster1", LATE.replace("9080", "9081"), timeout=0.3) as calling:
        calling.until("that the port is unknown", lambda answer: answer["status"] != 200)

        late["spec"]["ports"] = [{"name": "http", "port": 9081, "targetPort": 9080}]
        federated.apply("cluster2", late)
        done = time.time()
        took = calling.until("the new port", lambda answer: answer["status"] == 200, after=done)

        assert reviews_of(federated, "cluster2", calling.seen[-1:]) == {"v2"}
        federated.measure("a changed port on cluster2 answers on cluster1", took, CHANGE_SECONDS)


def test_a_scaled_service_is_seen_and_fails_nobody(connecting_anew: Lab) -> None:
    """A second pod of ratings answers once it is ready, and neither then nor when it goes again a request is lost."""
    federated = connecting_anew
    url = "http://ratings.default.svc.cluster2.global:9080/ratings/0"
    before = federated.pods("cluster2", "app=ratings")
    try:
        with federated.calling("cluster1", url, seconds=300, timeout=REQUEST_SECONDS) as calling:
            calling.until("the pod that is there", lambda answer: answer.get("pod") in before)

            federated.kubectl("cluster2", "scale", "deployment", "ratings-v1", "--replicas=2")
            federated.kubectl("cluster2", "rollout", "status", "deployment", "ratings-v1", "--timeout=180s")
            done = time.time()
            [added] = federated.pods("cluster2", "app=ratings") - before
            took = calling.until("the second pod", lambda answer: answer.get("pod") == added, after=done)
            assert calling.seen[-1]["body"]["ratings"] == {"Reviewer1": 5, "Reviewer2": 4}
            federated.measure("a pod added on cluster2 answers on cluster1", took, CHANGE_SECONDS)

            federated.kubectl("cluster2", "scale", "deployment", "ratings-v1", "--replicas=1")
            done = time.time()
            calling.until("the requests of the next 5 s", lambda answer: answer["at"] > done + 5)
    finally:
        federated.kubectl("cluster2", "scale", "deployment", "ratings-v1", "--replicas=1")

    ended = before | {added}
    ended -= federated.pods("cluster2", "app=ratings")
    last = max((answer["at"] for answer in calling.seen if answer.get("pod") in ended), default=done)
    federated.measure("a pod removed on cluster2 is no longer asked from cluster1", last - done, CHANGE_SECONDS)
    assert [answer for answer in calling.seen if answer["status"] != 200] == []
