"""The Node objects of a cluster.

They need no leases: the lab runs no controller that takes a node for lost.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

from isthmus.kube import KubeClient
from isthmus.kube.errors import AlreadyExists
from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.status import timestamp
from isthmus.lab.plan import ClusterPlan, NodePlan
from isthmus.model.kinds import NODE

PODS = "250"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def pod_range(cluster: ClusterPlan, node: NodePlan) -> IPv4Network:
    """The addresses of the pods on *node*."""
    return list(cluster.pods.subnets(new_prefix=24))[cluster.nodes.index(node)]


def allocatable() -> dict[str, str]:
    """What a node has for its pods: all of the machine, since nodes only look like separate ones."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory // 1024}Ki", "pods": PODS}


def node_manifest(cluster: ClusterPlan, node: NodePlan, resources: Mapping[str, str], version: str) -> Manifest:
    """The Node object, without its status."""
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": node.name,
            "labels": {
                "kubernetes.io/hostname": node.name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": machine,
                "topology.kubernetes.io/region": node.region,
                "topology.kubernetes.io/zone": node.zone,
            },
        },
        "spec": {
            "podCIDR": str(pod_range(cluster, node)),
            "podCIDRs": [str(pod_range(cluster, node))],
            "providerID": f"isthmus://{cluster.name}/{node.name}",
        },
        "status": node_status(node, resources, version, datetime.now(UTC)),
    }


def node_status(node: NodePlan, resources: Mapping[str, str], version: str, now: datetime) -> Manifest:
    """The status of a node that is well."""
    machine = _ARCHITECTURES.get(platform.machine(), platform.machine())
    trouble = {
        "MemoryPressure": "KubeletHasSufficientMemory",
        "DiskPressure": "KubeletHasNoDiskPressure",
        "PIDPressure": "KubeletHasSufficientPID",
    }
    times = {"lastHeartbeatTime": timestamp(now), "lastTransitionTime": timestamp(now)}
    return {
        "capacity": dict(resources),
        "allocatable": dict(resources),
        "addresses": [
            {"type": "InternalIP", "address": str(node.address)},
            {"type": "Hostname", "address": node.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": node.kubelet_port}},
        "conditions": [
            *({"type": kind, "status": "False", "reason": reason, **times} for kind, reason in trouble.items()),
            {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "the lab runs pods", **times},
        ],
        "nodeInfo": {
            "architecture": machine,
            "operatingSystem": "linux",
            "kernelVersion": platform.release(),
            "osImage": "isthmus lab",
            "containerRuntimeVersion": "isthmus://1.0.0",
            "kubeletVersion": version,
            "kubeProxyVersion": "",
            "machineID": node.name,
            "systemUUID": node.name,
            "bootID": boot_id(),
        },
    }


def boot_id() -> str:
    """The machine's."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def register(kube: KubeClient, cluster: ClusterPlan) -> None:
    """Let every node of the plan exist and be ready."""
    resources, version = allocatable(), await kube.version()
    for node in cluster.nodes:
        manifest = node_manifest(cluster, node, resources, version)
        try:
            await kube.create(NODE, manifest)
        except AlreadyExists:
            await kube.patch(NODE, "", node.name, {"metadata": {"labels": manifest["metadata"]["labels"]}})
            await kube.patch(NODE, "", node.name, {"status": manifest["status"]}, subresource="status")
