"""Deny by default, allow by policy: `access-policy.yaml` on real clusters, where the callees' proxies enforce it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.lab.accessing import (
    CALLERS,
    DENIED,
    ROOT,
    SERVICES,
    Caller,
    Request,
    access_policy,
    all_drained,
    allows,
    apply,
    ask,
    destination,
    each_service,
    is_refused,
    named,
    nobody_allowed,
    refusals,
    rules,
    settled,
)
from tests.lab.running import WALKTHROUGH, Json, Lab, commands, eventually
from tests.lab.test_walkthrough import CLUSTERS, OTHER, OURS
from tests.lab.trusting import gateway

SECTION = "Deny by default, allow by policy"
ALLOWED = Caller("cluster1", "productpage-v1")
EXPECTED = ("details", "reviews")
MGMT = ("--kubecontext", "mgmt")


@pytest.fixture(scope="module")
def restricted(federated: Lab) -> Iterator[Lab]:
    """Only what `access-policy.yaml` allows is allowed. Everything is, after the tests."""
    *blocks, everybody = commands(SECTION)
    with nobody_allowed(federated):
        for block in blocks:
            federated.shell(block)
        settled(federated, "exactly what the policy allows is answered", [*each_service()], may)
        all_drained(federated)
        yield federated
        federated.shell(everybody)
        settled(federated, "everybody is answered", [*each_service()], lambda caller, request: True)


def may(caller: Caller, request: Request) -> bool:
    """What `access-policy.yaml` says."""
    return caller == ALLOWED and request.service in EXPECTED


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("name", EXPECTED)
def test_the_policies_are_those_of_the_walk_through(restricted: Lab, cluster: str, name: str) -> None:
    expected = yaml.safe_load((WALKTHROUGH / "expected" / f"authorization-policy-{name}.yaml").read_text())
    expected["metadata"]["labels"]["relay-agent"] = cluster

    [found] = restricted.objects(cluster, "authorizationpolicies", "-n", "default", name)

    assert {key: found["metadata"][key] for key in expected["metadata"]} == expected["metadata"]
    assert found["spec"] == expected["spec"]
    assert restricted.pods(cluster, f"app={name}")


def test_exactly_the_allowed_calls_are_answered(restricted: Lab) -> None:
    """Of every caller, callee and cluster: 200 from a pod of the right service, or 403 from the callee's proxy."""
    requests = [*each_service()]
    pods = {(r.cluster, r.service): restricted.pods(r.cluster, f"app={r.service}") for r in requests}
    before = {(r.cluster, r.service): refusals(restricted, r.cluster, r.service) for r in requests}

    answers = ask(restricted, requests)

    refused = dict.fromkeys(before, 0)
    for (caller, request), answer in answers.items():
        place = (request.cluster, request.service)
        if may(caller, request):
            found = (answer["status"], answer.get("cluster"), answer.get("service"))
            assert found == (200, *place), (caller, request, answer)
            assert answer["pod"] in pods[place]
        else:
            assert is_refused(answer), (caller, request, answer)
            refused[place] += 1
    counted = {place: refusals(restricted, *place) - before[place] for place in before}
    for place, count in counted.items():
        more = 2 if place[1] == "ratings" else 0  # those of reviews that were answered have called it
        assert refused[place] <= count <= refused[place] + more, place
    assert len(answers) == len(CALLERS) * len(SERVICES) * len(CLUSTERS)
    restricted.measured.append(f"access: {len(answers)} callers and callees, {sum(refused.values())} refused")


def test_the_rules_on_paper_say_the_same(restricted: Lab) -> None:
    """The evaluator reads from the clusters what the proxies do."""
    found = rules(restricted)

    for caller in CALLERS:
        for request in each_service():
            assert allows(found, caller, request) is may(caller, request), (caller, request)


def test_the_matrix_of_meshctl_is_what_the_proxies_do(restricted: Lab) -> None:
    asked = ("default", "--port", "9080", "--method", "GET", "-o", "json")
    matrix = json.loads(restricted.run("meshctl", "access", "matrix", *asked, *MGMT))

    told = {
        (caller, callee): each["answer"]
        for each in matrix["answers"]
        for caller in each["callers"]
        for callee in each["callees"]
    }
    for caller in CALLERS:
        for request in each_service():
            names = (f"default/{caller.workload}@{caller.cluster}", f"default/{request.service}@{request.cluster}")
            assert told[names] == ("yes" if may(caller, request) else "no"), names


def test_a_federated_call_is_judged_by_its_caller_not_by_the_gateway(restricted: Lab) -> None:
    """What reaches the callee across clusters shows the caller's own certificate."""
    answers = restricted.call(
        "cluster1", "http://reviews.default.svc.cluster2.global:9080/reviews/0", "-n", "5", workload="productpage-v1"
    )

    assert {(answer["status"], answer["cluster"]) for answer in answers} == {(200, "cluster2")}
    told = {answer["body"]["served"]["request"]["x-forwarded-client-cert"] for answer in answers}
    assert all("URI=spiffe://cluster1/ns/default/sa/bookinfo-productpage" in one for one in told)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_the_ingress_gateway_is_reachable_and_what_is_behind_it_as_policies_say(restricted: Lab, cluster: str) -> None:
    """From outside: the product page's proxy refuses the gateway, until a policy allows the gateway's identity."""
    url = f"http://{gateway(restricted, cluster)}/productpage"
    before = refusals(restricted, cluster, "productpage")

    [answer] = restricted.call(OTHER[cluster], url)

    assert (answer["status"], answer["body"]) == (403, DENIED)
    assert refusals(restricted, cluster, "productpage") == before + 1

    source = {
        "kubeServiceAccountRefs": {
            "serviceAccounts": [
                {
                    "name": "istio-ingressgateway-service-account",
                    "namespace": "istio-system",
                    "clusterName": cluster,
                }
            ]
        }
    }
    selected = [destination("productpage", cluster)]
    apply(restricted, access_policy("from-outside", sourceSelector=[source], destinationSelector=selected))
    try:
        page = eventually("the page is served", lambda: all_served(restricted, OTHER[cluster], url))
        assert (page["cluster"], page["service"]) == (cluster, "productpage")
    finally:
        restricted.kubectl("mgmt", "delete", "accesspolicy", "-n", "gloo-mesh", "from-outside")
        eventually("it is refused again", lambda: all_refused(restricted, OTHER[cluster], url))


def all_served(lab: Lab, cluster: str, url: str) -> Json | None:
    answers = lab.call(cluster, url, "-n", "10")
    return answers[0] if {answer["status"] for answer in answers} == {200} else None


def all_refused(lab: Lab, cluster: str, url: str) -> bool:
    return {answer["status"] for answer in lab.call(cluster, url, "-n", "10")} == {403}


def test_the_policy_tells_whom_it_selects(restricted: Lab) -> None:
    """Destinations and callers, on the object and as `meshctl describe` prints them; destinations name the policy."""
    status: Any = eventually("the status is written", lambda: policy_status(restricted))
    described = json.loads(restricted.run("meshctl", "describe", "ap", "productpage", "-o", "json", *MGMT))

    selected = {f"{name}-default-{cluster}" for name in EXPECTED for cluster in CLUSTERS}
    assert status["state"] == "ACCEPTED"
    assert {key.partition(".")[0] for key in status["destinations"]} == selected
    assert [key.partition(".")[0] for key in status["workloads"]] == ["productpage-v1-default-cluster1-deployment"]
    assert {row["destination"] for row in described["selectedDestinations"]} == selected
    for name in selected:
        found = json.loads(restricted.run("meshctl", "describe", "destination", name, "-o", "json", *MGMT))
        assert [row["policy"] for row in found["accessPolicies"]] == ["gloo-mesh/productpage"]


def policy_status(lab: Lab) -> Json | None:
    [policy] = lab.objects("mgmt", "accesspolicies", "-n", "gloo-mesh", "productpage")
    status: Json | None = policy.get("status")
    return status


def test_a_mesh_without_istiod_keeps_its_rules_for_when_it_is_back(restricted: Lab) -> None:
    """Its cluster keeps every policy; pods that start once istiod is back are guarded from their first request."""
    cluster, lab = "cluster1", restricted
    [istiod] = lab.objects(cluster, "deployments", "-n", ROOT, "istiod")
    metadata = {key: istiod["metadata"][key] for key in ("name", "namespace", "labels")}
    again = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": istiod["spec"]}
    policies = names_of_policies(lab, cluster)

    lab.kubectl(cluster, "delete", "deployment", "-n", ROOT, "istiod")
    try:
        eventually("the mesh is gone", lambda: mesh_errors(lab, cluster))
        assert names_of_policies(lab, cluster) == policies
    finally:
        lab.apply(cluster, again)
    lab.kubectl(cluster, "rollout", "status", "deployment/istiod", "-n", ROOT)
    eventually("the mesh is back", lambda: not mesh_errors(lab, cluster))
    lab.kubectl(cluster, "rollout", "restart", "deployment/details-v1")
    lab.kubectl(cluster, "rollout", "status", "deployment/details-v1")

    assert names_of_policies(lab, cluster) == policies
    settled(lab, "exactly what the policy allows is answered", [*each_service()], may)


def mesh_errors(lab: Lab, cluster: str) -> list[str]:
    """What the status of the VirtualMesh says of the mesh of *cluster*."""
    [virtual_mesh] = lab.objects("mgmt", "virtualmeshes", "-n", "gloo-mesh")
    meshes = virtual_mesh["status"].get("meshes", {})
    return [error for key, found in meshes.items() if cluster in key for error in found.get("errors", ())]


def names_of_policies(lab: Lab, cluster: str) -> set[str]:
    """What our policies on *cluster* are called."""
    return {named(policy) for policy in lab.objects(cluster, "authorizationpolicies", "-A", "-l", OURS)}
