"""The files by which a container knows names: /etc/hosts, /etc/hostname and /etc/resolv.conf. Pure."""

from __future__ import annotations

from isthmus.kube.events import Manifest

CLUSTER_DOMAIN = "cluster.local"
_LONGEST_HOSTNAME = 63


def hostname(pod: Manifest, node: str) -> str:
    """What the pod's containers call their machine."""
    if pod["spec"].get("hostNetwork"):
        return node
    return str(pod["spec"].get("hostname") or pod["metadata"]["name"])[:_LONGEST_HOSTNAME].rstrip("-.")


def hosts(pod: Manifest, address: str, name: str) -> str:
    """/etc/hosts."""
    subdomain = pod["spec"].get("subdomain")
    names = name
    if subdomain:
        names = f"{name}.{subdomain}.{pod['metadata']['namespace']}.svc.{CLUSTER_DOMAIN}\t{name}"
    lines = [
        "# Kubernetes-managed hosts file.",
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost ip6-localhost ip6-loopback",
        f"{address}\t{names}",
    ]
    for alias in pod["spec"].get("hostAliases") or ():
        lines.append("\t".join([alias["ip"], *(alias.get("hostnames") or ())]))
    return "\n".join(lines) + "\n"


def resolv_conf(pod: Manifest, dns: str) -> str:
    """/etc/resolv.conf, with *dns* the address of the cluster's name server.

    Without the cluster's names (policy Default) the name server is the same, for the lab has no other.
    """
    spec = pod["spec"]
    policy = spec.get("dnsPolicy", "ClusterFirst")
    if policy == "ClusterFirst" and spec.get("hostNetwork"):
        policy = "Default"
    servers, searches, options = [dns], list[str](), dict[str, str]()
    if policy in ("ClusterFirst", "ClusterFirstWithHostNet"):
        namespace = pod["metadata"]["namespace"]
        searches = [f"{namespace}.svc.{CLUSTER_DOMAIN}", f"svc.{CLUSTER_DOMAIN}", CLUSTER_DOMAIN]
        options = {"ndots": "5"}
    elif policy == "None":
        servers = []
    more = spec.get("dnsConfig") or {}
    servers = list(dict.fromkeys([*servers, *(more.get("nameservers") or ())]))
    searches = list(dict.fromkeys([*searches, *(more.get("searches") or ())]))
    options |= {each["name"]: str(each.get("value") or "") for each in more.get("options") or ()}
    lines = []
    if searches:
        lines.append(f"search {' '.join(searches)}")
    lines += [f"nameserver {server}" for server in servers]
    if options:
        lines.append("options " + " ".join(f"{key}:{value}" if value else key for key, value in options.items()))
    return "\n".join(lines) + "\n"
