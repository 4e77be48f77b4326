"""What proxies of the lab tell of themselves."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from tests.lab.running import Lab, eventually

DRAINING = ("total_filter_chains_draining", "total_listeners_draining")


def drained(lab: Lab, cluster: str, selectors: Iterable[str], *, namespace: str = "default") -> None:
    """Wait until the pods that *selectors* choose serve no connection by an earlier configuration.

    Envoy applies changed filters to new connections: one that was open before serves a last request as it did, and
    a caller has several open, one a thread of its own proxy, of which a test does not use all while it waits.
    Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/listeners/stats
    """
    has_drained = partial(_has_drained, lab, cluster, tuple(selectors), namespace)
    eventually(f"proxies of {cluster} know one configuration", has_drained, within=180)


def _has_drained(lab: Lab, cluster: str, selectors: tuple[str, ...], namespace: str) -> bool:
    return not any(
        stat(lab, cluster, pod, f"listener_manager.{name}", namespace=namespace)
        for selector in selectors
        for pod in lab.pods(cluster, selector, namespace=namespace)
        for name in DRAINING
    )


def stat(lab: Lab, cluster: str, pod: str, name: str, *, namespace: str = "default") -> int:
    """A number that the proxy of *pod* tells; fails if it does not."""
    asks = ("pilot-agent", "request", "GET", f"stats?filter=^{name}$")
    printed = lab.kubectl(cluster, "exec", "-n", namespace, pod, "-c", "istio-proxy", "--", *asks)
    told = dict(line.split(": ") for line in printed.splitlines() if line)
    return int(told[name])
