"""What the lab's clusters are called and which addresses they have. Pure.

Every cluster is one network namespace, its *machine*, which holds all nodes of the cluster; a pod has a network
namespace beside it. Machines meet on one bridge, the *wire*, and route to each other only addresses of load balancers;
on a flat network those of pods as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

NAMES = ("mgmt", "cluster1", "cluster2")
WIRE = IPv4Network("172.30.0.0/24")
WIRE_OF_BOX = WIRE[254]  # the lab's own processes, among them the one that kubectl comes through
SERVICES = IPv4Network("10.96.0.0/16")
"""ClusterIPs; the same on every cluster, as with clusters that nobody planned together."""
API_SERVICE = SERVICES[1]
DNS_SERVICE = SERVICES[10]
API_PORT = 6443
KUBELET_PORT = 10250  # of a cluster's first node; the next has the next

_REGIONS = ("eu-central-1", "us-east-1", "us-west-2")


@dataclass(frozen=True)
class NodePlan:
    """One Node of a cluster."""

    name: str
    region: str
    zone: str
    address: IPv4Address
    kubelet_port: int


@dataclass(frozen=True)
class ClusterPlan:
    """One cluster: its machine's name is the cluster's."""

    name: str
    index: int
    nodes: tuple[NodePlan, ...]

    @property
    def pods(self) -> IPv4Network:
        """Addresses of pods: apart from every other cluster's, so that a flat network can route them."""
        return IPv4Network(f"10.{10 + self.index}.0.0/16")

    @property
    def load_balancers(self) -> IPv4Network:
        """Addresses of Services of type LoadBalancer, reached from every machine."""
        return IPv4Network(f"203.0.113.{16 * self.index}/28")

    @property
    def machine(self) -> IPv4Network:
        """Addresses of the machine itself: one per node."""
        return IPv4Network(f"172.31.{self.index}.0/24")

    @property
    def wire(self) -> IPv4Address:
        """The machine's address on the wire."""
        return WIRE[1 + self.index]

    @property
    def address(self) -> IPv4Address:
        """Where the API server and DNS listen: the first node."""
        return self.nodes[0].address


def plan(names: tuple[str, ...] = NAMES) -> tuple[ClusterPlan, ...]:
    """The clusters of a lab. Each of the Istio clusters has a region of its own, with two zones of one node each."""
    clusters = []
    for index, name in enumerate(names):
        region = _REGIONS[index % len(_REGIONS)]
        nodes = tuple(
            NodePlan(
                name=f"{name}-{letter}",
                region=region,
                zone=f"{region}{letter}",
                address=IPv4Network(f"172.31.{index}.0/24")[1 + place],
                kubelet_port=KUBELET_PORT + place,
            )
            for place, letter in enumerate("a" if index == 0 else "ab")
        )
        clusters.append(ClusterPlan(name=name, index=index, nodes=nodes))
    return tuple(clusters)
