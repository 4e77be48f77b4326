"""The demo checks itself: each way in which clusters may differ from the walk-through is told."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

from isthmus.cli.demo_checks import (
    different_roots,
    differing,
    expected_rows,
    missing_own_entries,
    missing_rows,
    no_passthrough,
    root_of,
    row_of,
    shared_addresses,
    unfinished,
    without_mutual_tls,
    wrong_secrets,
)

Manifest = dict[str, Any]

EXPECTED = Path(__file__).parents[3] / "examples" / "walkthrough" / "expected"
GATEWAYS = ["203.0.113.2"]


def reviews() -> Manifest:
    """The walk-through's entry with addresses in place of the masks."""
    text = (EXPECTED / "service-entry-reviews.yaml").read_text()
    found: Manifest = yaml.safe_load(text.replace("x.x.x.x", "242.1.2.3").replace("y.y.y.y", GATEWAYS[0]))
    return found


def entries(other: str = "cluster2") -> list[Manifest]:
    """An entry for each row of the walk-through."""
    found = []
    for row in expected_rows():
        name = row.name.replace("cluster2", other)
        spec = {"hosts": [name], "location": row.location, "resolution": row.resolution, "addresses": ["242.1.2.3"]}
        found.append({"metadata": {"namespace": row.namespace, "name": name}, "spec": spec})
    return found


def test_the_rows_of_the_walkthrough_are_five() -> None:
    names = [row.name.split(".")[0] for row in expected_rows()]

    assert names == ["details", "istio-ingressgateway", "productpage", "ratings", "reviews"]


def test_the_list_of_kubectl_is_the_rows() -> None:
    assert tuple(row_of(entry) for entry in entries()) == expected_rows()


def test_all_rows_of_the_other_cluster_and_own_entries_beside_them_are_good() -> None:
    assert missing_rows(entries() + entries("cluster1"), "cluster1", "cluster2") == ""
    assert missing_rows(entries() + entries("cluster1"), "cluster2", "cluster1") == ""


def test_missing_and_unexpected_rows_are_told() -> None:
    changed = entries()
    changed[0]["spec"]["resolution"] = "STATIC"

    told = missing_rows(changed, "cluster1", "cluster2")

    assert "missing Row(namespace='istio-system', name='details.default.svc.cluster2.global'" in told
    assert "unexpected Row(namespace='istio-system', name='details.default.svc.cluster2.global'" in told


def test_the_entry_of_the_walkthrough_is_good_whatever_its_addresses() -> None:
    assert differing(reviews(), GATEWAYS) == ""


def test_each_difference_of_an_entry_is_told() -> None:
    label, endpoint, address, gateway = (deepcopy(reviews()) for _ in range(4))
    label["metadata"]["labels"]["relay-agent"] = "cluster2"
    endpoint["spec"]["endpoints"][0]["labels"] = {"version": "v1"}
    address["spec"]["addresses"] = ["10.0.0.1"]
    gateway["spec"]["endpoints"][0]["address"] = "198.51.100.1"

    assert "relay-agent" in differing(label, GATEWAYS)
    assert "'version': 'v1'" in differing(endpoint, GATEWAYS)
    assert differing(address, GATEWAYS) == "10.0.0.1 is not in 240.0.0.0/4"
    assert differing(gateway, GATEWAYS) == "198.51.100.1 is not an address of the other cluster's gateway"


def test_an_address_that_two_host_names_share_is_told() -> None:
    same = {"cluster1": tuple(entries()[:2])}

    assert shared_addresses(same).startswith("242.1.2.3: details.default.svc.cluster2.global, istio-ingressgateway")
    assert shared_addresses({"cluster1": tuple(entries()[:1]), "cluster2": tuple(entries()[:1])}) == ""


def test_what_else_is_missing_is_told() -> None:
    tls = {"tls": {"mode": "ISTIO_MUTUAL"}}
    rules = [{"spec": {"host": row.name, "trafficPolicy": tls}} for row in expected_rows()]

    assert without_mutual_tls(rules, "cluster2") == ""
    assert without_mutual_tls(rules[1:], "cluster2") == "not for details.default.svc.cluster2.global"
    assert missing_own_entries(entries("cluster1"), "cluster1") == ""
    assert missing_own_entries(entries("cluster1")[1:], "cluster1") == "missing details.default.svc.cluster1.global"
    assert no_passthrough([]) == "no Gateway with AUTO_PASSTHROUGH for *.global"
    assert wrong_secrets({"relay-client-tls-secret"}) == ""
    assert wrong_secrets({"relay-identity-token-secret"}) == (
        "no relay-client-tls-secret; relay-identity-token-secret is still there"
    )


def test_certificates_that_are_not_in_force_are_told() -> None:
    def certificate(name: str, **status: str) -> Manifest:
        return {"metadata": {"name": name}, "status": status}

    assert unfinished([certificate("a", state="FINISHED")]) == ""
    assert unfinished([]) == "there is no IssuedCertificate"
    found = [certificate("a", state="FAILED", error="no key"), {"metadata": {"name": "b"}}]
    assert unfinished(found) == "a is FAILED no key; b is PENDING"


def test_meshes_that_trust_another_root_are_told() -> None:
    secrets = [
        {"metadata": {"name": "other"}},
        {"metadata": {"name": "cacerts"}, "data": {"root-cert.pem": "cm9vdA=="}},
    ]

    assert (root_of(secrets), root_of(secrets[:1])) == ("cm9vdA==", "")
    assert different_roots({"cluster1": "a", "cluster2": "a"}) == ""
    assert different_roots({"cluster1": "a", "cluster2": "b"}) == "cluster2 has another root than cluster1"
    assert different_roots({"cluster1": "", "cluster2": ""}) == "cluster1 has no cacerts; cluster2 has no cacerts"
