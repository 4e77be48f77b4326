"""What a cluster's own controllers would write next, as functions of what the cluster holds.

Each plan looks at one object and those around it and yields the writes that bring them nearer to what its spec says;
applied again and again until nothing comes, they settle. They decide as much as discovery, `kubectl` and our programs
can see: pods that run, endpoints that are ready, addresses. Nothing is ever scheduled by resources, rolled out in
small steps or probed.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from isthmus.model.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

HASH_LABEL = "pod-template-hash"
REVISION_LABEL = "controller-revision-hash"
SERVICE_LABEL = "kubernetes.io/service-name"
MAX_ENDPOINTS = 100  # in one EndpointSlice; the default of Kubernetes' own controller
NATIVE_SIDECARS = (1, 27)  # the first Istio that makes the proxy a restartable init container by default
ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of hashes in names: no vowels, so no words


class Create(msgspec.Struct, frozen=True):
    """Create an object."""

    kind: Kind
    manifest: Manifest


class Change(msgspec.Struct, frozen=True):
    """Change *item* by a merge patch."""

    kind: Kind
    item: Manifest
    patch: Manifest
    subresource: str = ""


class Delete(msgspec.Struct, frozen=True):
    """Delete *item*."""

    kind: Kind
    item: Manifest


Planned = Create | Change | Delete


class View(Protocol):
    """What a cluster holds."""

    def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None: ...
    def all(self, kind: Kind, namespace: str = "") -> list[Manifest]:
        """Objects of *kind*, of one namespace if given, by namespace and name."""
        ...

    def owned(self, uid: str, kind: Kind) -> list[Manifest]:
        """Objects of *kind* whose controller has this *uid*, by name."""
        ...


class Surroundings(Protocol):
    """What plans need that the cluster's objects do not say."""

    def now(self) -> str: ...
    def pod_ip(self) -> str:
        """An address that no pod has."""
        ...

    def ingress(self) -> Manifest:
        """An entry of a load balancer's status that no Service has."""
        ...

    def runs_elsewhere(self, pod: Manifest) -> bool:
        """Whether somebody else runs *pod* and writes its status."""
        ...


# --- workloads ----------------------------------------------------------------------------------------------------


def plan_deployment(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """One ReplicaSet per pod template: the current one has all replicas, others none once it may be so."""
    spec = it["spec"]
    replicas = spec.get("replicas", 1)
    digest = hash_of(spec["template"])
    sets = view.owned(it["metadata"]["uid"], REPLICA_SET)
    current = next((item for item in sets if item["metadata"]["labels"].get(HASH_LABEL) == digest), None)
    old = [item for item in sets if item is not current]
    recreate = spec.get("strategy", {}).get("type") == "Recreate"
    ready = current is not None and current.get("status", {}).get("readyReplicas", 0) >= replicas
    if recreate or ready:
        for item in old:
            yield from _scaled(REPLICA_SET, item, 0)
    waits = recreate and any(view.owned(item["metadata"]["uid"], POD) for item in old)
    if current is None and not waits:
        yield Create(REPLICA_SET, _replica_set(it, digest, replicas))
    elif current is not None and not waits:
        yield from _scaled(REPLICA_SET, current, replicas)
    counts = [item.get("status", {}) for item in sets]
    available = sum(count.get("availableReplicas", 0) for count in counts)
    updated = 0 if current is None else current.get("status", {}).get("replicas", 0)
    total = sum(count.get("replicas", 0) for count in counts)
    done = available >= replicas and updated == total == replicas
    status = {
        "observedGeneration": it["metadata"].get("generation", 0),
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": sum(count.get("readyReplicas", 0) for count in counts),
        "availableReplicas": available,
        "unavailableReplicas": max(0, replicas - available),
        "conditions": _conditions(
            it,
            around.now(),
            ("Available", available >= replicas, "MinimumReplicasAvailable", "MinimumReplicasUnavailable"),
            ("Progressing", True, "NewReplicaSetAvailable" if done else "ReplicaSetUpdated", ""),
        ),
    }
    yield from _status(DEPLOYMENT, it, status)


def plan_replica_set(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """As many pods as the spec says, made from its template."""
    pods = view.owned(it["metadata"]["uid"], POD)
    wanted = it["spec"].get("replicas", 1)
    for index in range(len(pods), wanted):
        yield Create(POD, _pod(view, REPLICA_SET, it, node=node_for(view, it, index)))
    # As the real controller: first those that are not ready, then the youngest.
    surplus = sorted(pods, key=lambda pod: (is_ready(pod), _age_rank(pod)))
    for pod in surplus[: max(0, len(pods) - wanted)]:
        yield Delete(POD, pod)
    ready = sum(is_ready(pod) for pod in pods)
    counts = {"replicas": len(pods), "fullyLabeledReplicas": len(pods), "readyReplicas": ready}
    yield from _status(REPLICA_SET, it, {**_generation(it), **counts, "availableReplicas": ready})


def plan_stateful_set(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """Pods named by ordinal, all at once; those of an older template are replaced."""
    pods = {pod["metadata"]["name"]: pod for pod in view.owned(it["metadata"]["uid"], POD)}
    digest = hash_of(it["spec"]["template"])
    names = [f"{it['metadata']['name']}-{index}" for index in range(it["spec"].get("replicas", 1))]
    for index, name in enumerate(names):
        if name not in pods:
            node = node_for(view, it, index)
            yield Create(POD, _pod(view, STATEFUL_SET, it, node=node, name=name, revision=digest))
    current = [pod for pod in pods.values() if pod["metadata"]["labels"].get(REVISION_LABEL) == digest]
    for name, pod in pods.items():
        if name not in names or pod not in current:
            yield Delete(POD, pod)
    ready = sum(is_ready(pod) for pod in pods.values())
    revision = f"{it['metadata']['name']}-{digest}"
    yield from _status(
        STATEFUL_SET,
        it,
        {
            **_generation(it),
            "replicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "currentReplicas": len(current),
            "updatedReplicas": len(current),
            "currentRevision": revision,
            "updateRevision": revision,
        },
    )


def plan_daemon_set(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """One pod on every node; those of an older template are replaced."""
    pods = {pod["spec"].get("nodeName", ""): pod for pod in view.owned(it["metadata"]["uid"], POD)}
    digest = hash_of(it["spec"]["template"])
    nodes = [node["metadata"]["name"] for node in view.all(NODE)]
    for node in nodes:
        if node not in pods:
            yield Create(POD, _pod(view, DAEMON_SET, it, node=node, revision=digest))
    current = [pod for pod in pods.values() if pod["metadata"]["labels"].get(REVISION_LABEL) == digest]
    for node, pod in pods.items():
        if node not in nodes or pod not in current:
            yield Delete(POD, pod)
    ready = sum(is_ready(pod) for pod in pods.values())
    yield from _status(
        DAEMON_SET,
        it,
        {
            **_generation(it),
            "desiredNumberScheduled": len(nodes),
            "currentNumberScheduled": len(pods),
            "updatedNumberScheduled": len(current),
            "numberMisscheduled": 0,
            "numberReady": ready,
            "numberAvailable": ready,
            "numberUnavailable": len(nodes) - ready,
        },
    )


def plan_pod(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """A node for the pod, and the status of one that runs, unless somebody else runs it."""
    node_name = it["spec"].get("nodeName") or node_for(view, it, 0)
    if not node_name:
        return  # as on a cluster without nodes: pending
    if not it["spec"].get("nodeName"):
        yield Change(POD, it, {"spec": {"nodeName": node_name}})
    if around.runs_elsewhere(it) or it.get("status", {}).get("podIP"):
        return
    now = around.now()
    node = view.get(NODE, "", node_name) or {}
    addresses = node.get("status", {}).get("addresses") or ()
    host = next((address["address"] for address in addresses if address["type"] == "InternalIP"), "")
    yield Change(POD, it, {"status": running_status(it, around.pod_ip(), host, now)}, "status")


def running_status(pod: Manifest, ip: str, host_ip: str, now: str) -> Manifest:
    """The status of a pod all of whose containers run and are ready since *now*."""

    def started(container: Manifest) -> Manifest:
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": True,
            "started": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": now}},
        }

    sidecars = [item for item in pod["spec"].get("initContainers") or () if item.get("restartPolicy") == "Always"]
    status = {
        "phase": "Running",
        "podIP": ip,
        "podIPs": [{"ip": ip}],
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "containerStatuses": [started(container) for container in pod["spec"]["containers"]],
    }
    if host_ip:
        status["hostIP"] = host_ip
    if sidecars:
        status["initContainerStatuses"] = [started(container) for container in sidecars]
    return status


# --- services -----------------------------------------------------------------------------------------------------


def plan_service(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """EndpointSlices of the selected pods, and an address for a load balancer."""
    pods = _selected(view, it)
    if it["spec"].get("selector") and it["spec"].get("type") != "ExternalName":
        yield from _plan_slices(view, it, pods)
    yield from _plan_load_balancer(around, it, pods)


def _selected(view: View, service: Manifest) -> list[Manifest]:
    """Pods with an address that *service* selects."""
    selector = service["spec"].get("selector")
    if not selector:
        return []
    pods = view.all(POD, service["metadata"]["namespace"])
    return [pod for pod in pods if selects(selector, pod) and pod.get("status", {}).get("podIP")]


def selects(selector: Mapping[str, str], item: Manifest) -> bool:
    """Whether the labels of *item* have all of *selector*."""
    labels = item["metadata"].get("labels") or {}
    return all(labels.get(key) == value for key, value in selector.items())


def _plan_slices(view: View, service: Manifest, pods: list[Manifest]) -> Iterator[Planned]:
    """Endpoints stay in the slice they are in; a slice takes new ones up to its limit.

    Pods for which a named target port is another number have slices of their own, since ports belong to the slice.
    """
    wanted: dict[str, dict[str, Manifest]] = defaultdict(dict)
    for pod in pods:
        wanted[_dump(_ports(service, pod))][pod["metadata"]["uid"]] = _endpoint(view, pod)
    slices = view.owned(service["metadata"]["uid"], ENDPOINT_SLICE)
    contents: list[tuple[Manifest, list[Manifest]]] = []
    for item in slices:
        left = wanted.get(_dump(item.get("ports") or []), {})
        uids = [endpoint.get("targetRef", {}).get("uid", "") for endpoint in item.get("endpoints") or ()]
        contents.append((item, [left.pop(uid) for uid in uids if uid in left]))
    for ports, left in wanted.items():
        fresh = list(left.values())
        for item, endpoints in contents:
            if _dump(item.get("ports") or []) == ports:
                room = MAX_ENDPOINTS - len(endpoints)
                endpoints += fresh[:room]
                fresh = fresh[room:]
        for start in range(0, len(fresh), MAX_ENDPOINTS):
            yield Create(ENDPOINT_SLICE, _slice(service, json.loads(ports), fresh[start : start + MAX_ENDPOINTS]))
    for item, endpoints in contents:
        if not endpoints and (pods or len(contents) > 1):
            yield Delete(ENDPOINT_SLICE, item)
        elif endpoints != (item.get("endpoints") or []):
            yield Change(ENDPOINT_SLICE, item, {"endpoints": endpoints})


def _slice(service: Manifest, ports: list[Manifest], endpoints: list[Manifest]) -> Manifest:
    metadata = service["metadata"]
    version = "IPv6" if ":" in endpoints[0]["addresses"][0] else "IPv4"
    return {
        "apiVersion": ENDPOINT_SLICE.api_version,
        "kind": ENDPOINT_SLICE.kind,
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
            "labels": {
                SERVICE_LABEL: metadata["name"],
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
            "ownerReferences": [_owner(SERVICE, service)],
        },
        "addressType": version,
        "endpoints": endpoints,
        "ports": ports,
    }


def _endpoint(view: View, pod: Manifest) -> Manifest:
    ready = is_ready(pod)
    node = pod["spec"].get("nodeName", "")
    labels = ((view.get(NODE, "", node) or {}).get("metadata") or {}).get("labels") or {}
    endpoint = {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": ready, "serving": ready, "terminating": False},
        "targetRef": {
            "kind": POD.kind,
            "name": pod["metadata"]["name"],
            "namespace": pod["metadata"]["namespace"],
            "uid": pod["metadata"]["uid"],
        },
    }
    if node:
        endpoint["nodeName"] = node
    if zone := labels.get("topology.kubernetes.io/zone"):
        endpoint["zone"] = zone
    return endpoint


def _ports(service: Manifest, pod: Manifest) -> list[Manifest]:
    """The ports of *service* as *pod* listens on them; a named target port that no container has is left out."""
    named = {
        port["name"]: port["containerPort"]
        for container in (*pod["spec"]["containers"], *(pod["spec"].get("initContainers") or ()))
        for port in container.get("ports") or ()
        if "name" in port
    }
    ports = []
    for port in service["spec"].get("ports") or ():
        target = port.get("targetPort", port["port"])
        number = named.get(target) if isinstance(target, str) else target
        if number is not None:
            found = {"name": port.get("name", ""), "port": number, "protocol": port.get("protocol", "TCP")}
            ports.append({**found, **({"appProtocol": port["appProtocol"]} if "appProtocol" in port else {})})
    return ports


def _plan_load_balancer(around: Surroundings, service: Manifest, pods: list[Manifest]) -> Iterator[Planned]:
    """An address stays for good, but pods that run elsewhere are reached at their own; without pods nobody answers."""
    present = service.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    if service["spec"].get("type") != "LoadBalancer":
        wanted: list[Manifest] = []
    elif elsewhere := sorted(pod["status"]["podIP"] for pod in pods if around.runs_elsewhere(pod)):
        wanted = [{"ip": ip, "ipMode": "VIP"} for ip in elsewhere]
    elif pods and not present:
        wanted = [around.ingress()]
    else:
        wanted = present
    if wanted != present:
        yield Change(SERVICE, service, {"status": {"loadBalancer": {"ingress": wanted or None}}}, "status")


# --- namespaces ---------------------------------------------------------------------------------------------------


def plan_namespace(view: View, around: Surroundings, it: Manifest) -> Iterator[Planned]:
    """A service account ``default``."""
    name = it["metadata"]["name"]
    if "deletionTimestamp" not in it["metadata"] and view.get(SERVICE_ACCOUNT, name, "default") is None:
        yield Create(SERVICE_ACCOUNT, _object(SERVICE_ACCOUNT, {"name": "default", "namespace": name}))


PLANS: dict[Kind, Callable[[View, Surroundings, Manifest], Iterator[Planned]]] = {
    NAMESPACE: plan_namespace,
    DEPLOYMENT: plan_deployment,
    REPLICA_SET: plan_replica_set,
    STATEFUL_SET: plan_stateful_set,
    DAEMON_SET: plan_daemon_set,
    POD: plan_pod,
    SERVICE: plan_service,
}
"""The plan of each kind. NODE, ENDPOINT_SLICE and SERVICE_ACCOUNT are only looked at."""


# --- pieces -------------------------------------------------------------------------------------------------------


def is_ready(pod: Manifest) -> bool:
    """Whether *pod* has the condition Ready."""
    conditions = pod.get("status", {}).get("conditions") or ()
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def hash_of(template: Manifest) -> str:
    """The hash of a pod template that names and labels carry."""
    number = int.from_bytes(hashlib.sha256(_dump(template).encode()).digest()[:8], "big")
    digits = []
    for _ in range(10):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(digits)


def node_for(view: View, it: Manifest, index: int) -> str:
    """The node of the *index*-th pod of *it*: pods of one owner are spread, and owners start at different nodes."""
    nodes = view.all(NODE)
    if not nodes:
        return ""
    start = int.from_bytes(hashlib.sha256(it["metadata"]["name"].encode()).digest()[:4], "big")
    return str(nodes[(start + index) % len(nodes)]["metadata"]["name"])


def _replica_set(deployment: Manifest, digest: str, replicas: int) -> Manifest:
    metadata, spec = deployment["metadata"], deployment["spec"]
    template = spec["template"]
    labels = {**(template["metadata"].get("labels") or {}), HASH_LABEL: digest}
    selector = spec["selector"]
    return _object(
        REPLICA_SET,
        {
            "name": f"{metadata['name']}-{digest}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [_owner(DEPLOYMENT, deployment)],
        },
        spec={
            "replicas": replicas,
            "selector": {**selector, "matchLabels": {**(selector.get("matchLabels") or {}), HASH_LABEL: digest}},
            "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
        },
    )


def _pod(view: View, kind: Kind, owner: Manifest, *, node: str, name: str = "", revision: str = "") -> Manifest:
    template = owner["spec"]["template"]
    metadata = {
        **template["metadata"],
        "namespace": owner["metadata"]["namespace"],
        "labels": dict(template["metadata"].get("labels") or {}),
        "ownerReferences": [_owner(kind, owner)],
        **({"name": name} if name else {"generateName": f"{owner['metadata']['name']}-"}),
    }
    if revision:
        metadata["labels"][REVISION_LABEL] = revision
    spec = {**template["spec"], **({"nodeName": node} if node else {})}
    return injected(view, _object(POD, metadata, spec=spec))


def injected(view: View, pod: Manifest) -> Manifest:
    """*pod* with Istio's proxy where the cluster's istiod would put it: by namespace label, unless the pod says no.

    Source: https://istio.io/latest/docs/setup/additional-setup/sidecar-injection/
    """
    metadata = pod["metadata"]
    namespace = (view.get(NAMESPACE, "", metadata["namespace"]) or {"metadata": {}})["metadata"].get("labels") or {}
    own = {**(metadata.get("annotations") or {}), **metadata["labels"]}.get("sidecar.istio.io/inject")
    wanted = namespace.get("istio-injection") == "enabled" or "istio.io/rev" in namespace
    image = _proxy_image(view)
    names = {container["name"] for container in pod["spec"]["containers"]}
    if not image or "istio-proxy" in names or own == "false" or not (wanted or own == "true"):
        return pod
    proxy: Manifest = {
        "name": "istio-proxy",
        "image": image,
        "args": ["proxy", "sidecar"],
        "ports": [{"name": "http-envoy-prom", "containerPort": 15090, "protocol": "TCP"}],
    }
    spec = pod["spec"]
    version = tuple(int(part) for part in image.rpartition(":")[2].split(".")[:2] if part.isdecimal())
    if version >= NATIVE_SIDECARS:
        added = {"initContainers": [{**proxy, "restartPolicy": "Always"}, *(spec.get("initContainers") or ())]}
    else:
        added = {"containers": [*spec["containers"], proxy]}
    return {**pod, "spec": {**spec, **added}}


def _proxy_image(view: View) -> str:
    """The proxy's image beside istiod's own; empty on a cluster without Istio."""
    for deployment in view.all(DEPLOYMENT, "istio-system"):
        for container in deployment["spec"]["template"]["spec"]["containers"]:
            repository, slash, name = container["image"].rpartition("/")
            if deployment["metadata"]["name"].startswith("istiod") and name.startswith("pilot:"):
                return f"{repository}{slash}proxyv2:{name.partition(':')[2]}"
    return ""


def _scaled(kind: Kind, item: Manifest, replicas: int) -> Iterator[Planned]:
    if item["spec"].get("replicas", 1) != replicas:
        yield Change(kind, item, {"spec": {"replicas": replicas}})


def _status(kind: Kind, it: Manifest, status: Manifest) -> Iterator[Planned]:
    """The write that makes *status* the status of *it*, if it is not."""
    present = it.get("status") or {}
    if present != status:
        removed = dict.fromkeys(key for key in present if key not in status)
        yield Change(kind, it, {"status": {**removed, **status}}, "status")


def _conditions(it: Manifest, now: str, *rows: tuple[str, bool, str, str]) -> list[Manifest]:
    """Conditions (type, whether it holds, reason if so, reason if not), with the time of the last transition."""
    before = {condition["type"]: condition for condition in it.get("status", {}).get("conditions") or ()}
    conditions = []
    for kind, holds, yes, no in rows:
        status = "True" if holds else "False"
        was = before.get(kind, {})
        since = was.get("lastTransitionTime", now) if was.get("status") == status else now
        reason = yes if holds else no
        updated = was.get("lastUpdateTime", now) if (was.get("status"), was.get("reason")) == (status, reason) else now
        conditions.append(
            {
                "type": kind,
                "status": status,
                "reason": reason,
                "message": "",
                "lastTransitionTime": since,
                "lastUpdateTime": updated,
            }
        )
    return conditions


def _generation(it: Manifest) -> Manifest:
    return {"observedGeneration": it["metadata"].get("generation", 0)}


def _age_rank(pod: Manifest) -> int:
    """Younger pods first."""
    return -int(pod["metadata"].get("resourceVersion", 0))


def _owner(kind: Kind, owner: Manifest) -> Manifest:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _object(kind: Kind, metadata: Manifest, **fields: Any) -> Manifest:
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
