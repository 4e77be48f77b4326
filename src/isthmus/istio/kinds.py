"""Istio's kinds. Networking and security are written in v1beta1, which Istio 1.9 to today serve.

Source: https://istio.io/latest/docs/reference/config/
"""

from __future__ import annotations

from isthmus.model.kinds import ISSUED_CERTIFICATE, POD_BOUNCE_DIRECTIVE
from isthmus.model.ref import Kind

NETWORKING_GROUP = "networking.istio.io"
SECURITY_GROUP = "security.istio.io"
TELEMETRY_GROUP = "telemetry.istio.io"
EXTENSIONS_GROUP = "extensions.istio.io"
INSTALL_GROUP = "install.istio.io"

SERVICE_ENTRY = Kind(NETWORKING_GROUP, "v1beta1", "ServiceEntry", "serviceentries")
DESTINATION_RULE = Kind(NETWORKING_GROUP, "v1beta1", "DestinationRule", "destinationrules")
VIRTUAL_SERVICE = Kind(NETWORKING_GROUP, "v1beta1", "VirtualService", "virtualservices")
GATEWAY = Kind(NETWORKING_GROUP, "v1beta1", "Gateway", "gateways")
SIDECAR = Kind(NETWORKING_GROUP, "v1beta1", "Sidecar", "sidecars")
WORKLOAD_ENTRY = Kind(NETWORKING_GROUP, "v1beta1", "WorkloadEntry", "workloadentries")
WORKLOAD_GROUP = Kind(NETWORKING_GROUP, "v1beta1", "WorkloadGroup", "workloadgroups")
PROXY_CONFIG = Kind(NETWORKING_GROUP, "v1beta1", "ProxyConfig", "proxyconfigs")
ENVOY_FILTER = Kind(NETWORKING_GROUP, "v1alpha3", "EnvoyFilter", "envoyfilters")  # never left v1alpha3
AUTHORIZATION_POLICY = Kind(SECURITY_GROUP, "v1beta1", "AuthorizationPolicy", "authorizationpolicies")
PEER_AUTHENTICATION = Kind(SECURITY_GROUP, "v1beta1", "PeerAuthentication", "peerauthentications")
REQUEST_AUTHENTICATION = Kind(SECURITY_GROUP, "v1beta1", "RequestAuthentication", "requestauthentications")
TELEMETRY = Kind(TELEMETRY_GROUP, "v1alpha1", "Telemetry", "telemetries")
WASM_PLUGIN = Kind(EXTENSIONS_GROUP, "v1alpha1", "WasmPlugin", "wasmplugins")
ISTIO_OPERATOR = Kind(INSTALL_GROUP, "v1alpha1", "IstioOperator", "istiooperators")

ISTIO_KINDS = (
    SERVICE_ENTRY,
    DESTINATION_RULE,
    VIRTUAL_SERVICE,
    GATEWAY,
    SIDECAR,
    WORKLOAD_ENTRY,
    WORKLOAD_GROUP,
    PROXY_CONFIG,
    ENVOY_FILTER,
    AUTHORIZATION_POLICY,
    PEER_AUTHENTICATION,
    REQUEST_AUTHENTICATION,
    TELEMETRY,
    WASM_PLUGIN,
)

OUTPUT_KINDS = (
    SERVICE_ENTRY,
    DESTINATION_RULE,
    GATEWAY,
    VIRTUAL_SERVICE,
    SIDECAR,
    ENVOY_FILTER,
    AUTHORIZATION_POLICY,
    POD_BOUNCE_DIRECTIVE,
    ISSUED_CERTIFICATE,
)
"""What translation writes; apply, prune and the agent's rights read this table."""
