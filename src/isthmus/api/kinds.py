"""The table of all kinds; CRDs, reference pages, parsing and the command line read it."""

from __future__ import annotations

from isthmus.api.access_log_record import AccessLogRecord
from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.certificate_verification import CertificateVerification
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.pod_bounce_directive import PodBounceDirective
from isthmus.api.rate_limit import RateLimitClientConfig
from isthmus.api.route_table import RouteTable
from isthmus.api.service_dependency import ServiceDependency
from isthmus.api.settings import Settings
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_host import VirtualHost
from isthmus.api.virtual_mesh import VirtualMesh

POLICIES: tuple[type[Resource], ...] = (
    VirtualMesh, TrafficPolicy, AccessPolicy, VirtualDestination, VirtualGateway, VirtualHost, RouteTable,
    RateLimitClientConfig, ServiceDependency, AccessLogRecord, CertificateVerification, Settings,
)  # fmt: skip
"""What users write on the management cluster."""

DISCOVERED: tuple[type[Resource], ...] = (Mesh, Workload, Destination)
"""What agents find; on the management cluster. Users may write Destinations of external services."""

REGISTRATION: tuple[type[Resource], ...] = (KubernetesCluster,)
"""What `meshctl cluster register` writes on the management cluster."""

CERTIFICATES: tuple[type[Resource], ...] = (IssuedCertificate, CertificateRequest, PodBounceDirective)
"""How certificates reach a managed cluster; on that cluster."""

KINDS: tuple[type[Resource], ...] = (*POLICIES, *DISCOVERED, *REGISTRATION, *CERTIFICATES)

BY_KIND: dict[tuple[str, str], type[Resource]] = {(t.KIND.api_version, t.KIND.kind): t for t in KINDS}
"""The type of (apiVersion, kind)."""
