"""Small manifests for the tests of discovery."""

from __future__ import annotations

from typing import Any

Manifest = dict[str, Any]


def meta(name: str, namespace: str = "", **fields: Any) -> dict[str, Any]:
    return {"name": name, **({"namespace": namespace} if namespace else {}), **fields}


def namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": meta(name, labels=labels)}


def injected_namespace(name: str = "default") -> Manifest:
    return namespace(name, **{"istio-injection": "enabled"})


def istiod(suffix: str = "", namespace: str = "istio-system", **metadata: Any) -> Manifest:
    template = {
        "metadata": {"labels": {"app": "istiod"}},
        "spec": {"containers": [{"name": "discovery", "image": "docker.io/istio/pilot:1.31.1"}]},
    }
    spec = {"selector": {"matchLabels": {"app": "istiod"}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta(f"istiod{suffix}", namespace, **metadata),
        "spec": spec,
    }


def mesh_config(text: str = "trustDomain: cluster1", suffix: str = "", namespace: str = "istio-system") -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": meta(f"istio{suffix}", namespace),
        "data": {"mesh": text},
    }


def controller(
    name: str,
    namespace: str = "default",
    kind: str = "Deployment",
    labels: dict[str, str] | None = None,
    **metadata: Any,
) -> Manifest:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": "example/app"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": meta(name, namespace, **metadata),
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }


def service(name: str, namespace: str = "default", selector: dict[str, str] | None = None, **spec: Any) -> Manifest:
    body = {"selector": selector or {"app": name}, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, namespace), "spec": body}


def pod(workload: str, number: object, namespace: str = "default", kind: str = "ReplicaSet") -> Manifest:
    owner, labels = {"kind": kind, "name": workload, "controller": True}, {}
    if kind == "ReplicaSet":
        owner["name"], labels = f"{workload}-5d4f", {"pod-template-hash": "5d4f"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(f"{owner['name']}-{number}", namespace, labels=labels, ownerReferences=[owner]),
        "spec": {"containers": [{"name": "app"}]},
        "status": {"phase": "Running"},
    }


def endpoint(address: str, pod: str = "", node: str = "", ready: bool = True) -> Manifest:
    made: Manifest = {"addresses": [address], "conditions": {"ready": ready}}
    if pod:
        made["targetRef"] = {"kind": "Pod", "name": pod}
    if node:
        made["nodeName"] = node
    return made


def endpoint_slice(
    service: str, number: object, endpoints: list[Manifest], namespace: str = "default", port: int = 8080
) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": meta(f"{service}-{number}", namespace, labels={"kubernetes.io/service-name": service}),
        "addressType": "IPv6" if endpoints and ":" in endpoints[0]["addresses"][0] else "IPv4",
        "endpoints": endpoints,
        "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
    }


def node(name: str, zone: str = "us-east-1a", external: tuple[str, ...] = ()) -> Manifest:
    labels = {"topology.kubernetes.io/region": zone[:-1], "topology.kubernetes.io/zone": zone}
    addresses = [{"type": "ExternalIP", "address": address} for address in external]
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(name, labels=labels),
        "status": {"addresses": addresses},
    }
