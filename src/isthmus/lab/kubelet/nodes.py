"""The Node objects of a cluster, and the leases by which they stay ready."""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Network
from pathlib import Path

import structlog

from isthmus.kube import KubeClient
from isthmus.kube.errors import AlreadyExists, KubeError, NotFound
from isthmus.kube.events import Manifest
from isthmus.lab.kubelet.status import timestamp
from isthmus.lab.plan import ClusterPlan, NodePlan
from isthmus.model.kinds import LEASE, NODE

LEASES = "kube-node-lease"
LEASE_SECONDS = 40  # Kubernetes' own; a node whose lease is older becomes NotReady
RENEW_SECONDS = 10.0
PODS = "250"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

log = structlog.get_logger("isthmus.lab")


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


async def keep_leases(kube: KubeClient, cluster: ClusterPlan) -> None:
    """Renew the nodes' leases until cancelled; whoever misses one takes the node for lost."""
    while True:
        for node in cluster.nodes:
            try:
                await _renew(kube, node)
            except KubeError as error:
                log.warning("lease not renewed", node=node.name, error=str(error))
        await asyncio.sleep(RENEW_SECONDS)


async def _renew(kube: KubeClient, node: NodePlan) -> None:
    spec = {
        "holderIdentity": node.name,
        "leaseDurationSeconds": LEASE_SECONDS,
        "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    try:
        await kube.patch(LEASE, LEASES, node.name, {"spec": spec})
    except NotFound:
        metadata = {"name": node.name, "namespace": LEASES}
        await kube.create(
            LEASE, {"apiVersion": LEASE.api_version, "kind": LEASE.kind, "metadata": metadata, "spec": spec}
        )
