"""What agents and server are allowed, and what is left when the virtual mesh is deleted."""

from __future__ import annotations

from functools import partial

import pytest

from tests.lab.running import Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS
from tests.lab.trusting import MESH

AGENT = "system:serviceaccount:gloo-mesh:enterprise-agent"
SERVER = "system:serviceaccount:gloo-mesh:enterprise-networking"
MAY = {
    "the agent": (
        ("cluster1", AGENT, "get secret/istio-ca-secret -n istio-system", True),
        ("cluster1", AGENT, "patch secret/cacerts -n istio-system", True),
        ("cluster1", AGENT, "get secrets -n gloo-mesh", True),
        ("cluster1", AGENT, "get secrets -n istio-system", False),
        ("cluster1", AGENT, "get secret/anything -n istio-system", False),
        ("cluster1", AGENT, "list secrets -A", False),
        ("cluster1", AGENT, "get secrets -n default", False),
        ("cluster1", AGENT, "get secrets -n kube-system", False),
        ("cluster1", AGENT, "patch secret/istio-ca-secret -n istio-system", False),
        ("cluster1", AGENT, "patch secret/anything -n default", False),
        ("cluster1", AGENT, "delete pods -n default", False),
        ("cluster1", AGENT, "create pods --subresource=eviction -n default", True),
        ("cluster1", AGENT, "delete deployments.apps -n default", False),
    ),
    "the server": (
        ("mgmt", SERVER, "get secrets -n gloo-mesh", True),
        ("mgmt", SERVER, "create secrets -n gloo-mesh", True),
        ("mgmt", SERVER, "delete secrets -n gloo-mesh", False),
        ("mgmt", SERVER, "patch secrets -n gloo-mesh", False),
        ("mgmt", SERVER, "update secrets -n gloo-mesh", False),
        ("mgmt", SERVER, "get secrets -n default", False),
        ("mgmt", SERVER, "list secrets -A", False),
    ),
}


@pytest.mark.parametrize("who", MAY)
def test_it_may_do_what_it_must_and_no_more(federated: Lab, who: str) -> None:
    """The API servers of the lab are asked, which decide by the roles of our charts."""
    told = {
        f"{cluster}: {what}": federated.attempt(
            "kubectl", "--context", cluster, "auth", "can-i", f"--as={account}", *what.split()
        ).stdout.strip()
        for cluster, account, what, _ in MAY[who]
    }

    assert told == {f"{cluster}: {what}": "yes" if may else "no" for cluster, _, what, may in MAY[who]}


def test_a_deleted_virtual_mesh_leaves_each_mesh_to_itself(federated: Lab) -> None:
    """Certificates, keys, requests and `cacerts` go, the root stays, and requests inside the clusters go on."""
    lab = federated
    assert not any(has_nothing(lab, cluster) for cluster in CLUSTERS)

    lab.kubectl("mgmt", "delete", *MESH)

    for cluster in CLUSTERS:
        eventually(f"{cluster} has nothing of it", partial(has_nothing, lab, cluster), within=120)
    eventually("no root is noted", partial(nothing_is_noted, lab), within=180)  # it looks once a minute
    assert lab.has("mgmt", "secret", "virtual-mesh.gloo-mesh", "-n", "gloo-mesh")
    for cluster in CLUSTERS:
        [answer] = lab.call(cluster, "http://details:9080/details/0")
        assert (answer["status"], answer["cluster"]) == (200, cluster)


def nothing_is_noted(lab: Lab) -> bool:
    """Whether the management plane has no root under way any more."""
    [note] = lab.objects("mgmt", "configmap", "shared-trust", "-n", "gloo-mesh")
    return not note.get("data")


def has_nothing(lab: Lab, cluster: str) -> bool:
    """Whether nothing that a virtual mesh brings of trust is left on the cluster."""
    kinds = "issuedcertificates,certificaterequests,podbouncedirectives"
    keys = [
        secret["metadata"]["name"]
        for secret in lab.objects(cluster, "secrets", "-n", "gloo-mesh")
        if "private-key" in secret.get("data", {})
    ]
    return (
        not keys
        and not lab.has(cluster, kinds, "-n", "gloo-mesh")
        and not lab.has(cluster, "secret", "cacerts", "-n", "istio-system")
    )
