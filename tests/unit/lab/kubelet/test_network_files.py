"""Containers know names as on Kubernetes."""

from __future__ import annotations

from typing import Any

import pytest

from isthmus.lab.kubelet.network_files import hostname, hosts, resolv_conf
from tests.unit.lab.kubelet.pods import pod

CLUSTER = ["search shop.svc.cluster.local svc.cluster.local cluster.local", "nameserver 10.96.0.10", "options ndots:5"]


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ({}, CLUSTER),
        ({"dnsPolicy": "ClusterFirst", "hostNetwork": True}, ["nameserver 10.96.0.10"]),
        ({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": True}, CLUSTER),
        ({"dnsPolicy": "Default"}, ["nameserver 10.96.0.10"]),
        ({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["10.0.0.9"]}}, ["nameserver 10.0.0.9"]),
        (
            {"dnsConfig": {"searches": ["global"], "options": [{"name": "ndots", "value": "2"}, {"name": "rotate"}]}},
            [f"{CLUSTER[0]} global", CLUSTER[1], "options ndots:2 rotate"],
        ),
    ],
)
def test_resolv_conf(spec: dict[str, Any], lines: list[str]) -> None:
    assert resolv_conf(pod(**spec), "10.96.0.10").splitlines() == lines


def test_hosts() -> None:
    aliases = [{"ip": "10.0.0.7", "hostnames": ["a", "b.example"]}]

    plain = hosts(pod(hostAliases=aliases), "10.10.0.5", "web").splitlines()
    in_subdomain = hosts(pod(subdomain="pods"), "10.10.0.5", "web").splitlines()

    assert plain[-2:] == ["10.10.0.5\tweb", "10.0.0.7\ta\tb.example"]
    assert in_subdomain[-1] == "10.10.0.5\tweb.pods.shop.svc.cluster.local\tweb"


def test_hostname() -> None:
    long = pod()
    long["metadata"]["name"] = f"{'x' * 62}-abc"

    assert hostname(pod(), "node-a") == "web"
    assert hostname(pod(hostname="own"), "node-a") == "own"
    assert hostname(pod(hostNetwork=True), "node-a") == "node-a"
    assert hostname(long, "node-a") == "x" * 62
