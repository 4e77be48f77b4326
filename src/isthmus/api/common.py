"""References, selectors and small messages that several kinds share.

Source of every field: the reference's shared types.
"""

from __future__ import annotations

from enum import Enum

from isthmus.api.base import ApiStruct
from isthmus.model.ref import Ref


class ObjectRef(ApiStruct, frozen=True, order=True):
    """An object of the management cluster, unless said otherwise."""

    name: str = ""
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""

    @property
    def ref(self) -> Ref:
        """The same identity as a `Ref`."""
        return Ref("", self.namespace, self.name)


class ClusterObjectRef(ApiStruct, frozen=True, order=True):
    """An object of a registered cluster."""

    name: str = ""
    """Name of the object."""
    namespace: str = ""
    """Namespace of the object."""
    cluster_name: str = ""
    """Name of the registered KubernetesCluster."""

    @property
    def ref(self) -> Ref:
        """The same identity as a `Ref`."""
        return Ref(self.cluster_name, self.namespace, self.name)


class ApprovalState(Enum):
    """How far an object was processed. PENDING is the zero value, so it is seen as no ``state`` at all."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    INVALID = "INVALID"
    FAILED = "FAILED"


class ApprovalStatus(ApiStruct, frozen=True):
    """Outcome of one object on one destination, workload or mesh."""

    acceptance_order: int = 0
    """Position among the accepted policies of the target, from 0."""
    state: ApprovalState = ApprovalState.PENDING
    """Outcome for this target."""
    errors: tuple[str, ...] = ()
    """Why the outcome is not ACCEPTED."""
    warnings: tuple[str, ...] = ()
    """What deserves attention although it was accepted."""


class KubeServiceMatcher(ApiStruct, frozen=True):
    """Selects Kubernetes services by what they are; fields are ANDed, an omitted field matches anything."""

    labels: dict[str, str] = {}
    """Labels of the Service object (not of its pods), every pair of which must match."""
    namespaces: tuple[str, ...] = ()
    """Namespaces, one of which must match."""
    clusters: tuple[str, ...] = ()
    """Registered cluster names, one of which must match."""


class KubeServiceRefs(ApiStruct, frozen=True):
    """Selects Kubernetes services by identity."""

    services: tuple[ClusterObjectRef, ...] = ()
    """The services; name, namespace and clusterName are all needed."""


class DestinationSelector(ApiStruct, frozen=True):
    """Selects destinations; both keys together select the union."""

    kube_service_matcher: KubeServiceMatcher | None = None
    """Services by labels, namespaces and clusters."""
    kube_service_refs: KubeServiceRefs | None = None
    """Services by reference."""


class IngressGatewaySelector(ApiStruct, frozen=True):
    """Selects ingress gateways by their services."""

    destination_selectors: tuple[DestinationSelector, ...] = ()
    """The gateway services; omitted selects the default gateway of the mesh."""
    port_name: str = ""
    """Name of the service port for mesh traffic; omitted means ``tls``."""


class TcpKeepalive(ApiStruct, frozen=True):
    """TCP keep-alive of connections between clusters."""

    probes: int = 0
    """Unanswered probes before the connection is dead; 0 takes the system's."""
    time: str = ""
    """Idle time before the first probe, a duration such as ``300s``."""
    interval: str = ""
    """Time between probes, a duration such as ``30s``."""


class AppliedIngressGateway(ApiStruct, frozen=True):
    """An east-west gateway in use."""

    destination_ref: ObjectRef = ObjectRef()
    """The gateway's Destination."""
    external_addresses: tuple[str, ...] = ()
    """IP addresses or DNS names at which other clusters reach it."""
    port: int = 0
    """Service port."""
    external_port: int = 0
    """Port at the external addresses: the service port of a LoadBalancer, the node port of a NodePort service."""
