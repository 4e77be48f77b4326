"""Makes the lab's networks inside the box: a machine per cluster, the wire between them, and the routes.

Pods get their addresses later, routed and not bridged: a bridge would carry a pod's answer past the packet filter that
has to translate it back from behind a ClusterIP.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from isthmus.lab.plan import SERVICES, WIRE, WIRE_OF_BOX, ClusterPlan

NETNS = Path("/run/netns")
ALL_PODS = "10.0.0.0/8"
BRIDGE = "wire"


class NetworkFailed(Exception):
    """A command that changes the box's network failed; the text says which and why."""


async def run(*argv: str, stdin: str = "") -> str:
    """Run a command to its end and return what it printed. Raises `NetworkFailed`."""
    # A file, not a pipe: uvloop hides the command's own error behind that of a pipe nobody reads any more.
    with os.fdopen(os.memfd_create("stdin"), "w+") as given:
        given.write(stdin)
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    out, error = await process.communicate()
    if process.returncode:
        raise NetworkFailed(f"{' '.join(argv)} failed: {error.decode().strip() or process.returncode}\n{stdin}".strip())
    return out.decode()


def in_machine(name: str, *argv: str) -> tuple[str, ...]:
    """The command *argv* in the network of machine *name*; it becomes the process, nothing stands in between."""
    return ("nsenter", f"--net={NETNS / name}", "--", *argv)


async def make_networks(clusters: Sequence[ClusterPlan]) -> None:
    """Everything but pods. Raises `NetworkFailed`."""
    await run("mkdir", "-p", str(NETNS))
    await _ip(
        [
            "link set lo up",
            f"link add {BRIDGE} type bridge",
            f"addr add {WIRE_OF_BOX}/{WIRE.prefixlen} dev {BRIDGE}",
            f"link set {BRIDGE} up",
            *(f"netns add {cluster.name}" for cluster in clusters),
        ]
    )
    for cluster in clusters:
        leg = f"wire{cluster.index}"
        await _ip(
            [
                f"link add {leg} type veth peer name wire netns {cluster.name}",
                f"link set {leg} master {BRIDGE}",
                f"link set {leg} up",
            ]
        )
    await asyncio.gather(*(_make_machine(cluster, clusters) for cluster in clusters))
    await _ip(
        [f"route add {network} via {c.wire}" for c in clusters for network in (c.machine, c.pods, c.load_balancers)]
    )


async def _make_machine(cluster: ClusterPlan, clusters: Sequence[ClusterPlan]) -> None:
    others = [other for other in clusters if other is not cluster]
    await _ip(
        [
            "link set lo up",
            f"addr add {cluster.wire}/{WIRE.prefixlen} dev wire",
            "link set wire up",
            *(f"addr add {node.address}/32 dev lo" for node in cluster.nodes),
            # So that the machine's own processes find a route to what kube-proxy then redirects.
            f"route add {SERVICES} dev wire src {cluster.address}",
            f"route add {cluster.load_balancers} dev wire src {cluster.address}",
            *(f"route add {other.load_balancers} via {other.wire}" for other in others),
        ],
        machine=cluster.name,
    )
    settings = {"ip_forward": 1, "conf/all/rp_filter": 0, "conf/default/rp_filter": 0}
    script = "; ".join(f"echo {value} > /proc/sys/net/ipv4/{key}" for key, value in settings.items())
    await run(*in_machine(cluster.name, "sh", "-ec", script))
    # What leaves a cluster comes from its machine: the other side has no route to its pods.
    rule = f"-A POSTROUTING -s {cluster.pods} ! -d {ALL_PODS} -o wire -j MASQUERADE"
    await run(*in_machine(cluster.name, "iptables-restore", "--noflush"), stdin=f"*nat\n{rule}\nCOMMIT\n")


async def set_flat(clusters: Sequence[ClusterPlan], *, flat: bool, enter: Sequence[str] = ()) -> None:
    """Let the Istio clusters reach each other's pods, or no longer. The first cluster stays apart.

    *enter* is the command that runs others inside the box; none if this already is.
    """
    for cluster in clusters[1:]:
        verb = "replace" if flat else "flush"  # which is content if there is no such route
        lines = [f"route {verb} {other.pods} via {other.wire}" for other in clusters[1:] if other is not cluster]
        await _ip(lines, machine=cluster.name, enter=enter)


async def _ip(lines: Iterable[str], *, machine: str = "", enter: Sequence[str] = ()) -> None:
    into = ("-n", machine) if machine else ()
    await run(*enter, "ip", *into, "-batch", "-", stdin="".join(f"{line}\n" for line in lines))
