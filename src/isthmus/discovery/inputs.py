"""What discovery reads of a cluster: the kinds, and of each kind the few fields that matter.

A manifest is narrowed by `msgspec.convert` to one of these views, so that whatever else it holds costs nothing, and a
field of a wrong type is an error that names its path. Agents watch `INPUT_KINDS`; their RBAC rules follow from it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from isthmus.model.kinds import (
    CONFIG_MAP,
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    MUTATING_WEBHOOK_CONFIGURATION,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    STATEFUL_SET,
)
from isthmus.model.ref import Kind

Manifest = dict[str, Any]

CONTROLLER_KINDS: tuple[Kind, ...] = (DEPLOYMENT, STATEFUL_SET, DAEMON_SET, REPLICA_SET)
"""Kinds that run pods and become Workloads, a ReplicaSet only where no Deployment stands behind it."""

INPUT_KINDS: tuple[Kind, ...] = (
    NAMESPACE,
    NODE,
    CONFIG_MAP,
    MUTATING_WEBHOOK_CONFIGURATION,
    *CONTROLLER_KINDS,
    POD,
    SERVICE,
    ENDPOINT_SLICE,
)
"""Every kind that `Discovery.feed` takes, in an order that is good to read in: what others refer to comes first.

Secrets are not among them, and of ConfigMaps and MutatingWebhookConfigurations only what `reads` names is looked at.
"""


def reads(kind: Kind, name: str) -> bool:
    """Whether discovery looks at objects of this name; the others need not be fed."""
    if kind == CONFIG_MAP:
        return name == "istio" or name.startswith("istio-")
    if kind == MUTATING_WEBHOOK_CONFIGURATION:
        return name.startswith("istio-revision-tag-")
    return True


class View(msgspec.Struct, frozen=True, rename="camel", gc=False):
    """Base of all views. A field may be null wherever Kubernetes writes null for an empty one."""


class OwnerReference(View, frozen=True, gc=False):
    kind: str = ""
    name: str = ""
    controller: bool | None = None


class Metadata(View, frozen=True, gc=False):
    name: str = ""
    namespace: str | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    creation_timestamp: str | None = None
    owner_references: tuple[OwnerReference, ...] | None = None

    @property
    def controller(self) -> OwnerReference | None:
        """The owner that manages the object, if it has one."""
        return next((owner for owner in self.owner_references or () if owner.controller), None)


class Container(View, frozen=True, gc=False):
    name: str = ""
    image: str | None = None
    restart_policy: str | None = None


class PodSpec(View, frozen=True, gc=False):
    containers: tuple[Container, ...] | None = None
    init_containers: tuple[Container, ...] | None = None
    host_network: bool | None = None
    service_account_name: str | None = None

    @property
    def proxied(self) -> bool:
        """Whether Istio's proxy is among the containers, ordinary or native sidecar (a restartable init container)."""
        return any(c.name == "istio-proxy" for c in self.containers or ()) or any(
            c.name == "istio-proxy" and c.restart_policy == "Always" for c in self.init_containers or ()
        )


class Variable(View, frozen=True, gc=False):
    """An environment variable; without a value it comes from elsewhere."""

    name: str = ""
    value: str | None = None


class TemplateContainer(Container, frozen=True, gc=False):
    env: tuple[Variable, ...] | None = None


class TemplateSpec(PodSpec, frozen=True, gc=False):
    """Of controllers only: pods are many, and their sidecars have long environments."""

    containers: tuple[TemplateContainer, ...] | None = None


class PodTemplate(View, frozen=True, gc=False):
    metadata: Metadata | None = None
    spec: TemplateSpec | None = None


class Selector(View, frozen=True, gc=False):
    match_labels: dict[str, str] | None = None


class ControllerSpec(View, frozen=True, gc=False):
    template: PodTemplate | None = None
    selector: Selector | None = None
    replicas: int | None = None


class ControllerView(View, frozen=True, gc=False):
    """A Deployment, StatefulSet, DaemonSet or ReplicaSet."""

    metadata: Metadata
    spec: ControllerSpec = ControllerSpec()


class NodeAddress(View, frozen=True, gc=False):
    type: str = ""
    address: str = ""


class NodeImage(View, frozen=True, gc=False):
    names: tuple[str, ...] | None = None


class NodeSpec(View, frozen=True, gc=False):
    provider_id: str | None = msgspec.field(default=None, name="providerID")


class NodeStatus(View, frozen=True, gc=False):
    addresses: tuple[NodeAddress, ...] | None = None
    images: tuple[NodeImage, ...] | None = None


class NodeView(View, frozen=True, gc=False):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()


class PodStatus(View, frozen=True, gc=False):
    phase: str = ""


class PodView(View, frozen=True, gc=False):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()


class MetadataView(View, frozen=True, gc=False):
    """An object of which only the metadata matters: Namespace, MutatingWebhookConfiguration."""

    metadata: Metadata


class ConfigMapView(View, frozen=True, gc=False):
    metadata: Metadata
    data: dict[str, str] | None = None


class ServicePortView(View, frozen=True, gc=False):
    port: int
    name: str | None = None
    protocol: str | None = None
    app_protocol: str | None = None
    node_port: int | None = None
    target_port: int | str | None = None


class ServiceSpec(View, frozen=True, gc=False):
    type: str | None = None
    selector: dict[str, str] | None = None
    ports: tuple[ServicePortView, ...] | None = None
    external_ips: tuple[str, ...] | None = msgspec.field(default=None, name="externalIPs")
    ip_families: tuple[str, ...] | None = None


class LoadBalancerIngress(View, frozen=True, gc=False):
    ip: str | None = None
    hostname: str | None = None


class LoadBalancerStatus(View, frozen=True, gc=False):
    ingress: tuple[LoadBalancerIngress, ...] | None = None


class ServiceStatus(View, frozen=True, gc=False):
    load_balancer: LoadBalancerStatus | None = None


class ServiceView(View, frozen=True, gc=False):
    metadata: Metadata
    spec: ServiceSpec = ServiceSpec()
    status: ServiceStatus = ServiceStatus()


class EndpointConditions(View, frozen=True, gc=False):
    ready: bool | None = None


class TargetRef(View, frozen=True, gc=False):
    kind: str = ""
    name: str = ""


class EndpointView(View, frozen=True, gc=False):
    addresses: tuple[str, ...] | None = None
    conditions: EndpointConditions | None = None
    target_ref: TargetRef | None = None
    node_name: str | None = None
    zone: str | None = None


class EndpointPortView(View, frozen=True, gc=False):
    name: str | None = None
    port: int | None = None
    protocol: str | None = None
    app_protocol: str | None = None


class EndpointSliceView(View, frozen=True, gc=False):
    metadata: Metadata
    address_type: str = ""
    endpoints: tuple[EndpointView, ...] | None = None
    ports: tuple[EndpointPortView, ...] | None = None
