"""The Sidecar of one workload.

Source: reference, ServiceDependency; https://istio.io/latest/docs/reference/config/networking/sidecar/
"""

from __future__ import annotations

from isthmus.istio import objects as istio
from isthmus.translate.callers import CallerFacts
from isthmus.translate.federation.objects import metadata


def imported(host: str) -> str:
    """*host* as a Sidecar names it, in whatever namespace it is declared: federated ones are in the root namespace."""
    return f"*/{host}"


def mesh_services(root_namespace: str, cluster_domain: str) -> str:
    """The Services of a mesh's root namespace, such as collectors of traces, as a Sidecar names them.

    By host name and not by namespace: that also holds the ServiceEntry of every federated service.
    """
    return f"{root_namespace}/*.{root_namespace}.svc.{cluster_domain}"


def sidecar(caller: CallerFacts, name: str, hosts: tuple[str, ...], annotations: dict[str, str]) -> istio.Sidecar:
    """Tells the proxies of *caller* about *hosts*, of which there is at least one, alone."""
    return istio.Sidecar(
        metadata=metadata(name, caller.controller.namespace, annotations),
        spec=istio.SidecarSpec(
            workload_selector=istio.ProxySelector(labels=caller.labels),
            egress=(istio.EgressListener(hosts=hosts),),
        ),
    )
