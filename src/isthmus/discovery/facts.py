"""One Kubernetes object in, the small fact that discovery needs of it out.

A Node changes every few seconds, its zone almost never: what is derived from facts sleeps until a fact changes. Facts
also are what an agent keeps in memory of tens of thousands of objects, so they hold no more than is used.
"""

from __future__ import annotations

import sys

import msgspec

from isthmus.api.common import ClusterObjectRef
from isthmus.api.discovery import EndpointPort, ExternalAddress, ServicePort, ServiceType, SubLocality
from isthmus.discovery import inputs
from isthmus.discovery.naming import Claim, Site, copied_annotations
from isthmus.model.kinds import DEPLOYMENT, REPLICA_SET
from isthmus.model.problem import Problem

YES = frozenset({"y", "yes", "true", "on"})  # what Istio's injector takes for yes, in any case

REGION_LABELS = ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region")
ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")
SUB_ZONE_LABEL = "topology.istio.io/subzone"

SERVICE_TYPES = {
    "ClusterIP": ServiceType.CLUSTER_IP,
    "NodePort": ServiceType.NODE_PORT,
    "LoadBalancer": ServiceType.LOAD_BALANCER,
    "ExternalName": ServiceType.EXTERNAL_NAME,
}


class NodeFacts(msgspec.Struct, frozen=True, gc=False):
    """Where a node is and how it is reached from outside."""

    region: str
    sub_locality: SubLocality | None
    addresses: tuple[str, ...]


class NamespaceFacts(msgspec.Struct, frozen=True, gc=False):
    """What a namespace says about injection."""

    injection: str
    """Value of the label ``istio-injection``."""
    revision: str
    """Value of the label ``istio.io/rev``."""


class PodFacts(msgspec.Struct, frozen=True, gc=False):
    """Which controller runs a pod, and whether it runs with a proxy."""

    controller: tuple[str, str]
    """Kind and name."""
    proxied: bool


class ControllerFacts(msgspec.Struct, frozen=True, gc=False):
    """A controller of pods, by its template."""

    claim: Claim
    plain_name: str
    annotations: dict[str, str]
    pod_labels: dict[str, str]
    service_account: str
    proxied: bool
    """Whether the template itself holds the proxy: gateways, manual injection."""
    inject: bool | None
    """What the template says about injection, None if nothing."""
    host_network: bool
    revision: str
    """Label ``istio.io/rev`` of the template."""
    problems: tuple[Problem, ...]


class ServiceFacts(msgspec.Struct, frozen=True, gc=False):
    """A Service, without its endpoints."""

    claim: Claim
    plain_name: str
    ref: ClusterObjectRef
    labels: dict[str, str]
    annotations: dict[str, str]
    selector: dict[str, str]
    ports: tuple[ServicePort, ...]
    service_type: ServiceType
    external_addresses: tuple[ExternalAddress, ...]
    """External IPs and those of a load balancer; what follows from nodes is added later."""
    ip_family: str
    """The family that the Service prefers, ``IPv4`` or ``IPv6``; empty if it does not say."""
    enabled: bool
    """Whether it is annotated to be a Destination although no workload stands behind it."""
    problems: tuple[Problem, ...]


class SliceEndpoint(msgspec.Struct, frozen=True, gc=False):
    """One ready address of an EndpointSlice."""

    address: str
    pod: str
    node: str
    zone: str


class SliceFacts(msgspec.Struct, frozen=True, gc=False):
    """The ready endpoints of one EndpointSlice."""

    service: str
    ip_family: str
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[SliceEndpoint, ...]


def node_facts(node: inputs.NodeView) -> NodeFacts:
    """Locality and outside addresses of *node*.

    The addresses are its external IPs; a node of a kind cluster has none that work, there the internal ones do.
    """
    labels = node.metadata.labels or {}
    zone, sub_zone = _first_label(labels, ZONE_LABELS), labels.get(SUB_ZONE_LABEL, "")
    wanted = "InternalIP" if _on_kind(node) else "ExternalIP"
    return NodeFacts(
        region=_first_label(labels, REGION_LABELS),
        sub_locality=SubLocality(zone=zone, sub_zone=sub_zone) if zone or sub_zone else None,
        addresses=tuple(a.address for a in node.status.addresses or () if a.type == wanted and a.address),
    )


def namespace_facts(namespace: inputs.MetadataView) -> NamespaceFacts | None:
    """What *namespace* says about injection, None if nothing."""
    labels = namespace.metadata.labels or {}
    facts = NamespaceFacts(injection=labels.get("istio-injection", ""), revision=labels.get("istio.io/rev", ""))
    return facts if facts.injection or facts.revision else None


def pod_facts(pod: inputs.PodView) -> PodFacts | None:
    """The controller of *pod*; None for a pod that no workload can stand behind."""
    owner = pod.metadata.controller
    if owner is None:
        return None
    kind, name = owner.kind, owner.name
    if kind == REPLICA_SET.kind:
        # A Deployment names its ReplicaSets <deployment>-<hash> and writes that hash on their pods.
        pod_hash = (pod.metadata.labels or {}).get("pod-template-hash", "")
        if pod_hash and name.endswith(f"-{pod_hash}"):
            kind, name = DEPLOYMENT.kind, name.removesuffix(f"-{pod_hash}")
    if kind not in _CONTROLLERS:
        return None
    running = pod.status.phase == "Running"
    return PodFacts(controller=(sys.intern(kind), sys.intern(name)), proxied=running and pod.spec.proxied)


def controller_facts(site: Site, kind: str, controller: inputs.ControllerView) -> ControllerFacts | None:
    """What the template of *controller* says; None for a ReplicaSet that is only another controller's means.

    A ReplicaSet stands for itself when nobody manages it, and for its manager when that is something else than a
    Deployment (such as an Argo Rollout), as long as it is to have pods.
    """
    metadata = controller.metadata
    owner = metadata.controller
    if (
        kind == REPLICA_SET.kind
        and owner is not None
        and (owner.kind == DEPLOYMENT.kind or controller.spec.replicas == 0)
    ):
        return None
    template = controller.spec.template or inputs.PodTemplate()
    pod, spec = template.metadata or inputs.Metadata(), template.spec or inputs.PodSpec()
    labels = pod.labels or {}
    namespace = metadata.namespace or "default"
    annotations, problems = copied_annotations(metadata.annotations)
    return ControllerFacts(
        claim=Claim(metadata.creation_timestamp or "", namespace, metadata.name),
        plain_name=site.plain_name(namespace, metadata.name),
        annotations=annotations,
        pod_labels=labels,
        service_account=spec.service_account_name or "",
        proxied=spec.proxied,
        inject=_said(labels.get("sidecar.istio.io/inject") or (pod.annotations or {}).get("sidecar.istio.io/inject")),
        host_network=bool(spec.host_network),
        revision=labels.get("istio.io/rev", ""),
        problems=problems,
    )


def service_facts(site: Site, service: inputs.ServiceView) -> ServiceFacts:
    """What *service* says of itself."""
    metadata, spec = service.metadata, service.spec
    namespace = metadata.namespace or "default"
    annotations, problems = copied_annotations(metadata.annotations)
    service_type = SERVICE_TYPES.get(spec.type or "ClusterIP", ServiceType.CLUSTER_IP)
    return ServiceFacts(
        claim=Claim(metadata.creation_timestamp or "", namespace, metadata.name),
        plain_name=site.plain_name(namespace, metadata.name),
        ref=ClusterObjectRef(name=metadata.name, namespace=namespace, cluster_name=site.cluster),
        labels=metadata.labels or {},
        annotations=annotations,
        selector=spec.selector or {},
        ports=tuple(_service_port(port) for port in spec.ports or ()),
        service_type=service_type,
        external_addresses=_external_addresses(service, service_type),
        ip_family=next(iter(spec.ip_families or ()), ""),
        enabled=(metadata.annotations or {}).get("discovery.mesh.gloo.solo.io/enabled") == "true",
        problems=problems,
    )


def slice_facts(endpoint_slice: inputs.EndpointSliceView) -> SliceFacts | None:
    """The ready endpoints of *endpoint_slice*; None if it belongs to no Service or holds no IP addresses."""
    service = (endpoint_slice.metadata.labels or {}).get("kubernetes.io/service-name", "")
    if not service or endpoint_slice.address_type not in ("IPv4", "IPv6"):
        return None
    ports = {
        EndpointPort(
            port=port.port, name=port.name or "", protocol=port.protocol or "TCP", app_protocol=port.app_protocol or ""
        )
        for port in endpoint_slice.ports or ()
        if port.port is not None  # null stands for all ports, which no load balancer can be told
    }
    endpoints: dict[str, SliceEndpoint] = {}
    for endpoint in endpoint_slice.endpoints or ():
        # Unknown readiness counts as ready: EndpointConditions in the Kubernetes API reference.
        if not endpoint.addresses or (endpoint.conditions is not None and endpoint.conditions.ready is False):
            continue
        address = endpoint.addresses[0]  # more than one are interchangeable, clients take the first
        target = endpoint.target_ref
        endpoints[address] = SliceEndpoint(
            address=address,
            pod=target.name if target is not None and target.kind == "Pod" else "",
            node=endpoint.node_name or "",
            zone=endpoint.zone or "",
        )
    return SliceFacts(
        service=service,
        ip_family=endpoint_slice.address_type,
        ports=tuple(sorted(ports, key=lambda port: (port.port, port.name, port.protocol))),
        endpoints=tuple(endpoints.values()),
    )


_CONTROLLERS = frozenset(kind.kind for kind in inputs.CONTROLLER_KINDS)


def _first_label(labels: dict[str, str], keys: tuple[str, ...]) -> str:
    return next((labels[key] for key in keys if labels.get(key)), "")


def _on_kind(node: inputs.NodeView) -> bool:
    """Whether *node* is a container of a kind cluster. Source: reference, discovery §5 (the kindnetd image)."""
    return (node.spec.provider_id or "").startswith("kind://") or any(
        "kindnetd" in name for image in node.status.images or () for name in image.names or ()
    )


def _said(inject: str | None) -> bool | None:
    return inject.lower() in YES if inject else None


def _service_port(port: inputs.ServicePortView) -> ServicePort:
    target = port.port if port.target_port is None else port.target_port
    named = isinstance(target, str) and not target.isdecimal()
    return ServicePort(
        port=port.port,
        name=port.name or "",
        protocol=port.protocol or "TCP",
        app_protocol=port.app_protocol or "",
        node_port=port.node_port or 0,
        target_port_name=str(target) if named else None,
        target_port_number=None if named else int(target) or port.port,
    )


def _external_addresses(service: inputs.ServiceView, service_type: ServiceType) -> tuple[ExternalAddress, ...]:
    """External IPs first, then what the load balancer got. Source: reference, discovery §5."""
    addresses = [ExternalAddress(ip=ip) for ip in service.spec.external_ips or ()]
    if service_type == ServiceType.LOAD_BALANCER and service.status.load_balancer is not None:
        for ingress in service.status.load_balancer.ingress or ():
            if ingress.ip:
                addresses.append(ExternalAddress(ip=ingress.ip))
            elif ingress.hostname:
                addresses.append(ExternalAddress(dns_name=ingress.hostname))
    return tuple(dict.fromkeys(addresses))
