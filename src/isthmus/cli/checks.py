"""What must hold before a fleet works, as plain functions from fetched objects to `Check`s. Called by `meshctl check`.

Every precondition has a name and is reported whether it holds or not. Source: reference, operate §2-§5 and check.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
import yaml

from isthmus.api import crds
from isthmus.api.base import Resource
from isthmus.api.certificate_verification import CertificateVerification
from isthmus.api.discovery import Mesh
from isthmus.api.kinds import CERTIFICATES, DISCOVERED, POLICIES, REGISTRATION
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.install import VERSION
from isthmus.istio.kinds import ISTIO_KINDS, OUTPUT_KINDS
from isthmus.model import kinds
from isthmus.model.ref import Kind
from isthmus.pki import PemInvalid, certificate_facts, check_chain

Manifest = dict[str, Any]
State = Literal["ok", "warning", "error"]

SERVER, AGENT = "enterprise-networking", "enterprise-agent"
ON_MANAGEMENT: tuple[type[Resource], ...] = (*POLICIES, *DISCOVERED, *REGISTRATION)
OPENSHIFT_GROUP = "security.openshift.io"
SECURITY_CONTEXT = Kind(
    OPENSHIFT_GROUP, "v1", "SecurityContextConstraints", "securitycontextconstraints", namespaced=False
)
NETWORK_ATTACHMENT = Kind("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition", "network-attachment-definitions")
OPENSHIFT_KINDS = (SECURITY_CONTEXT, NETWORK_ATTACHMENT, kinds.CLUSTER_ROLE_BINDING, kinds.ROLE_BINDING)
"""What is looked at where OpenShift's security contexts are served."""
SPEC_HASH = "crd.solo.io/specHash"  # annotation by which a definition tells its version

EXPIRY_NOTICE = timedelta(days=30)
GATEWAYS = ("ingressgateway", "eastwestgateway")  # values of the label `istio` that gateways are found by
ROUTER_MODE_IGNORED_FROM = (1, 11)  # https://github.com/istio/istio/issues/33127
AGENT_ADDRESS = "enterprise-agent.{namespace}:9977"


class Check(msgspec.Struct, frozen=True):
    """One precondition: *cluster* is ``management`` or the registered name; *remedy* is empty when it holds."""

    cluster: str
    name: str
    state: State
    message: str
    remedy: str = ""


class Observed(msgspec.Struct, frozen=True):
    """What was fetched of one cluster. *trouble* says why nothing was, *refused* which kinds could not be read."""

    context: str
    namespace: str = "gloo-mesh"
    trouble: str = ""
    version: str = ""
    served: frozenset[Kind] = frozenset()
    objects: Mapping[Kind, tuple[Manifest, ...]] = {}
    refused: Mapping[Kind, str] = {}

    def all(self, kind: Kind, namespace: str | None = None) -> Iterator[Manifest]:
        """Objects of *kind*, of one namespace if given."""
        for item in self.objects.get(kind, ()):
            if namespace is None or item["metadata"].get("namespace", "") == namespace:
                yield item

    def find(self, kind: Kind, name: str, namespace: str = "") -> Manifest | None:
        """One object."""
        return next((item for item in self.all(kind, namespace) if item["metadata"]["name"] == name), None)


class Report:
    """Collects the checks of one cluster."""

    def __init__(self, cluster: str) -> None:
        self.cluster = cluster
        self.checks: list[Check] = []

    def say(self, name: str, problem: str, remedy: str = "", *, good: str = "", warning: bool = False) -> bool:
        """Add check *name*: good when there is no *problem*; whether it is."""
        if not problem:
            self.checks.append(Check(self.cluster, name, "ok", good))
            return True
        self.checks.append(Check(self.cluster, name, "warning" if warning else "error", problem, remedy))
        return False


def check_fleet(management: Observed, clusters: Mapping[str, Observed | None], now: datetime) -> tuple[Check, ...]:
    """Every check of the management cluster and of each registered cluster, None where no context leads to it."""
    checks = list(check_management(management, now))
    root = _root_certificate(management)
    for name, observed in sorted(clusters.items()):
        if observed is None:
            checks.append(
                Check(
                    name,
                    "API server",
                    "warning",
                    f"no context of the kubeconfig is called {name}, so nothing on the cluster was checked",
                    f"say which context it is: --cluster-context {name}=CONTEXT",
                )
            )
        else:
            checks += check_cluster(name, observed, _version_of(management, SERVER), root, now)
    return tuple(checks)


# --- the management cluster -----------------------------------------------------------------------------------------


def check_management(seen: Observed, now: datetime) -> tuple[Check, ...]:
    """The preconditions on the management cluster."""
    report = Report("management")
    if not _reachable(report, seen):
        return tuple(report.checks)
    install = f"`meshctl install --kubecontext {seen.context}`"
    definitions = _definitions(report, seen, ON_MANAGEMENT, install)
    running = _running(report, seen, "Management plane", SERVER, install)
    if running:
        _not_injected(report, seen)
        _relay_address(report, seen)
        _server_certificates(report, seen, now)
    if definitions:
        _agents(report, seen)
        _policies(report, seen)
        _meshes(report, seen)
    return tuple(report.checks)


def _reachable(report: Report, seen: Observed) -> bool:
    good = f"{seen.context}: Kubernetes {seen.version}"
    remedy = f"try `kubectl --context {seen.context} version`"
    if not report.say("API server", seen.trouble, remedy, good=good):
        return False
    for kind, reason in sorted(seen.refused.items()):
        report.say(f"Right to read {kind.plural}", reason, "use a context with this right", warning=True)
    return True


def _definitions(report: Report, seen: Observed, wanted: Iterable[type[Resource]], remedy: str) -> bool:
    """Whether the definitions of *wanted* are there; an older or newer form is a warning."""
    wanted = tuple(wanted)
    missing = [resource for resource in wanted if resource.KIND not in seen.served]
    different = []
    for resource, ours in zip(wanted, crds.manifests(wanted), strict=True):
        found = seen.find(kinds.CUSTOM_RESOURCE_DEFINITION, ours["metadata"]["name"])
        if found is not None and _hash(found) != _hash(ours):
            different.append(resource)
    name = "Custom resource definitions"
    if missing:
        report.say(name, f"not served: {_kinds(missing)}", remedy)
    elif different:
        report.say(name, f"of another version than this meshctl: {_kinds(different)}", remedy, warning=True)
    else:
        report.say(name, "", good=f"all {len(wanted)} in this version")
    return not missing


def _running(report: Report, seen: Observed, name: str, deployment: str, remedy: str) -> bool:
    found = seen.find(kinds.DEPLOYMENT, deployment, seen.namespace)
    if found is None:
        return report.say(name, f"no Deployment {seen.namespace}/{deployment}", remedy)
    available = found.get("status", {}).get("availableReplicas", 0)
    logs = f"`kubectl --context {seen.context} -n {seen.namespace} logs deployment/{deployment}` says why"
    problem = "" if available else f"Deployment {seen.namespace}/{deployment} has no available pod"
    return report.say(name, problem, logs, good=f"version {_version_of(seen, deployment) or 'unknown'} runs")


def _not_injected(report: Report, seen: Observed) -> None:
    namespace = seen.find(kinds.NAMESPACE, seen.namespace)
    report.say(
        f"No sidecars in {seen.namespace}",
        f"namespace {seen.namespace} is injected; sidecars break the relay's own TLS" if _injected(namespace) else "",
        f"`kubectl --context {seen.context} label namespace {seen.namespace} istio-injection=disabled istio.io/rev- "
        "--overwrite`, then restart its pods",
        good="the namespace is not injected",
    )


def _relay_address(report: Report, seen: Observed) -> None:
    service = seen.find(kinds.SERVICE, SERVER, seen.namespace)
    name = "Relay address"
    if service is None:
        report.say(name, f"no Service {seen.namespace}/{SERVER}", f"`meshctl install --kubecontext {seen.context}`")
        return
    addresses = _external_addresses(service)
    if service["spec"].get("type") == "NodePort":
        ports = [port.get("nodePort") for port in service["spec"].get("ports", ()) if port.get("name") == "grpc"]
        report.say(name, "", good=f"node port {ports[0] if ports else '?'} of every node")
        return
    report.say(
        name,
        "" if addresses else f"Service {seen.namespace}/{SERVER} has no external address",
        "give the cluster a load balancer, or register with --relay-server-address HOST:PORT",
        good=", ".join(addresses),
        warning=True,
    )


def _server_certificates(report: Report, seen: Observed, now: datetime) -> None:
    deployment = seen.find(kinds.DEPLOYMENT, SERVER, seen.namespace) or {}
    for name, option, default in (
        ("Relay certificate", "--relay-server-secret-name", "relay-server-tls-secret"),
        ("Relay signing certificate", "--relay-signing-secret-name", "relay-tls-signing-secret"),
    ):
        secret = argument_of(deployment, option) or default
        _certificate(
            report, seen, name, secret, now, f"`meshctl install --kubecontext {seen.context}` makes missing ones"
        )


def _certificate(report: Report, seen: Observed, name: str, secret: str, now: datetime, remedy: str) -> None:
    found = seen.find(kinds.SECRET, secret, seen.namespace)
    where = f"Secret {seen.namespace}/{secret}"
    if found is None:
        report.say(name, f"{where} is missing", remedy)
        return
    chain, trust = data_of(found, "tls.crt"), data_of(found, "ca.crt")
    if (problem := check_chain(chain, trust, now)) is not None:
        report.say(name, f"{where}: {problem}", "replace it; agents and server must share one root")
        return
    until = certificate_facts(chain).not_after
    soon = until - now < EXPIRY_NOTICE
    report.say(
        name,
        f"{where} ends on {until:%Y-%m-%d}" if soon else "",
        "renew it before that day",
        good=f"valid until {until:%Y-%m-%d}",
        warning=True,
    )


def _agents(report: Report, seen: Observed) -> None:
    registered = list(seen.all(KubernetesCluster.KIND, seen.namespace))
    if not registered:
        remedy = "`meshctl cluster register NAME --mgmt-context … --remote-context …`"
        report.say("Registered clusters", "no cluster is registered", remedy, warning=True)
        return
    for cluster in sorted(registered, key=lambda item: str(item["metadata"]["name"])):
        name = cluster["metadata"]["name"]
        conditions = (cluster.get("status") or {}).get("status") or ()
        bad = [found for found in conditions if found.get("state") != "ACCEPTED"]
        logs = f"look at the agent's log: `kubectl --context {name} -n {seen.namespace} logs deployment/{AGENT}`"
        if bad:
            report.say(f"Agent of {name}", "; ".join(found.get("message") or "not connected" for found in bad), logs)
        elif conditions:
            report.say(
                f"Agent of {name}", "", good="; ".join(found.get("message") or "connected" for found in conditions)
            )
        else:
            meshes = [mesh for mesh in seen.all(Mesh.KIND) if _mesh_cluster(mesh) == name]
            report.say(
                f"Agent of {name}",
                "" if meshes else "nothing is discovered: its agent has not reported, or there is no Istio",
                logs,
                good=f"has reported {len(meshes)} mesh{'es' * (len(meshes) > 1)}",
                warning=True,
            )


def _policies(report: Report, seen: Observed) -> None:
    troubles, waiting = [], []
    accepted = 0
    for resource in POLICIES:
        for item in seen.all(resource.KIND):
            metadata, status = item["metadata"], item.get("status") or {}
            about = f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
            state = status.get("state", "PENDING")
            accepted += state in ("ACCEPTED", "VERIFIED")
            if resource is CertificateVerification and state != "INVALID":
                continue  # acted on, or waiting for its step
            if not status:
                if resource is VirtualMesh:
                    troubles.append(f"{about} is not processed yet")
            elif state == "PENDING" and status.get("warnings") and not status.get("errors"):
                waiting.append(about)
            elif state != "ACCEPTED":
                troubles.append(f"{about} is {state}: {'; '.join(status.get('errors', ())) or 'see its status'}")
            elif status.get("observedGeneration", 0) != metadata.get("generation", 0):
                troubles.append(f"{about}: its last change is not processed yet")
    report.say(
        "Policies",
        "; ".join(troubles),
        "`meshctl describe KIND NAME` shows the problems of one of them",
        good=f"{accepted} accepted",
    )
    if waiting:
        report.say(
            "Policies acted on",
            f"this version does not act on {', '.join(waiting)}",
            "`meshctl describe KIND NAME` shows what this means for one of them",
            warning=True,
        )


def _meshes(report: Report, seen: Observed) -> None:
    domains: dict[str, list[str]] = {}
    for mesh in seen.all(Mesh.KIND):
        istio = (mesh.get("spec") or {}).get("istio") or {}
        domain = istio.get("trustDomain") or "cluster.local"
        domains.setdefault(domain, []).append(mesh["metadata"]["name"])
    shared = {domain: names for domain, names in domains.items() if len(names) > 1}
    if domains:
        report.say(
            "Trust domains",
            "; ".join(f"{', '.join(sorted(names))} share {domain}" for domain, names in sorted(shared.items())),
            "set meshConfig.trustDomain of each Istio to its cluster's name, so that access policies can tell "
            "identities apart",
            good="each mesh has its own",
            warning=True,
        )
    for virtual_mesh in seen.all(VirtualMesh.KIND):
        members = {ref.get("name") for ref in (virtual_mesh.get("spec") or {}).get("meshes", ())}
        without = [
            mesh["metadata"]["name"]
            for mesh in seen.all(Mesh.KIND)
            if mesh["metadata"]["name"] in members
            and not (mesh.get("status") or {}).get("appliedEastWestIngressGateways")
        ]
        report.say(
            f"East-west gateways of {virtual_mesh['metadata']['name']}",
            f"no gateway was found for {', '.join(sorted(without))}" if without else "",
            "a Service that selects the pods of the ingress gateway needs a port `tls` and an external address",
            good="every mesh has one",
            warning=bool(((virtual_mesh.get("spec") or {}).get("federation") or {}).get("flatNetwork")),
        )


# --- a registered cluster -------------------------------------------------------------------------------------------


def check_cluster(name: str, seen: Observed, server: str, root: bytes, now: datetime) -> tuple[Check, ...]:
    """The preconditions on the cluster registered as *name*; *server* is the server's version, *root* the relay's."""
    report = Report(name)
    if not _reachable(report, seen):
        return tuple(report.checks)
    again = f"`meshctl cluster deregister {name}`, then register it again"
    _definitions(report, seen, CERTIFICATES, again)
    if _running(report, seen, "Agent", AGENT, again):
        _agent(report, seen, name, server)
        _not_injected(report, seen)
    _client_certificate(report, seen, name, root, now, again)
    _istio(report, seen, name)
    if any(kind.group == OPENSHIFT_GROUP for kind in seen.served):
        _openshift(report, seen)
    return tuple(report.checks)


def _agent(report: Report, seen: Observed, name: str, server: str) -> None:
    deployment = seen.find(kinds.DEPLOYMENT, AGENT, seen.namespace) or {}
    called = argument_of(deployment, "--cluster")
    report.say(
        "Agent's cluster name",
        f"the agent calls itself {called}, so it gets nothing" if called != name else "",
        f"register this cluster as {called}, or deregister {called} and register {name}",
        good=called,
    )
    version = _version_of(seen, AGENT)
    report.say(
        "Agent's version",
        f"the agent is {version or 'unknown'}, the server {server}" if server and version != server else "",
        "bring both to one version",
        good=version,
        warning=True,
    )


def _client_certificate(report: Report, seen: Observed, name: str, root: bytes, now: datetime, remedy: str) -> None:
    deployment = seen.find(kinds.DEPLOYMENT, AGENT, seen.namespace) or {}
    secret = argument_of(deployment, "--relay-client-cert-secret-name") or "relay-client-tls-secret"
    token = argument_of(deployment, "--relay-identity-token-secret-name") or "relay-identity-token-secret"
    found = seen.find(kinds.SECRET, secret, seen.namespace)
    check = "Client certificate"
    where = f"Secret {seen.namespace}/{secret}"
    if found is None:
        report.say(check, f"{where} is missing: the agent has not got its certificate", remedy)
        return
    chain = data_of(found, "tls.crt")
    try:
        facts = certificate_facts(chain)
    except PemInvalid as error:
        report.say(check, f"{where}: {error}", remedy)
        return
    if name not in facts.dns_names:
        report.say(check, f"{where} is for {', '.join(facts.dns_names)}, not for {name}", remedy)
    elif (problem := check_chain(chain, root or data_of(found, "ca.crt"), now)) is not None:
        report.say(check, f"{where}: {problem}", remedy)
    else:
        report.say(check, "", good=f"for {name}, valid until {facts.not_after:%Y-%m-%d}")
    report.say(
        "Registration token",
        "the token is still on the cluster" if seen.find(kinds.SECRET, token, seen.namespace) else "",
        f"`kubectl --context {seen.context} -n {seen.namespace} delete secret {token}`",
        good="removed after use",
        warning=True,
    )


def istio_namespaces(deployments: Iterable[Manifest]) -> list[str]:
    """Namespaces in which an istiod runs, sorted."""
    return sorted({item["metadata"]["namespace"] for item in deployments if _is_istiod(item)})


# --- Istio ----------------------------------------------------------------------------------------------------------


def _istio(report: Report, seen: Observed, name: str) -> None:
    planes = [item for item in seen.all(kinds.DEPLOYMENT) if _is_istiod(item)]
    versions = ", ".join(f"{item['metadata']['name']} {_image_tag(item)}" for item in planes)
    no_istio = "install Istio; examples/walkthrough/istio-operator-cluster1.yaml has the settings"
    if not report.say("Istio", "" if planes else "no istiod was found", no_istio, good=versions):
        return
    served = {kind.group + kind.kind for kind in seen.served}
    written = [kind for kind in OUTPUT_KINDS if kind in ISTIO_KINDS]
    missing = [kind.kind for kind in written if kind not in seen.served and kind.group + kind.kind in served]
    absent = [kind.kind for kind in written if kind.group + kind.kind not in served]
    report.say(
        "Istio's definitions",
        f"not served: {', '.join(absent)}" if absent else f"no v1beta1 of {', '.join(missing)}" if missing else "",
        "install Istio's custom resource definitions, 1.9 or newer",
        good=", ".join(kind.kind for kind in written),
    )
    for plane in planes:
        _mesh_config(report, seen, name, plane)
    _gateway(report, seen, min(_version(plane) for plane in planes))


def _mesh_config(report: Report, seen: Observed, name: str, plane: Manifest) -> None:
    namespace, deployment = plane["metadata"]["namespace"], plane["metadata"]["name"]
    suffix = deployment.replace("istiod", "", 1)
    of = f" ({deployment})" if suffix else ""
    config_map = seen.find(kinds.CONFIG_MAP, f"istio{suffix}", namespace)
    try:
        config = yaml.safe_load((config_map or {}).get("data", {}).get("mesh") or "")
    except yaml.YAMLError:
        config = None
    if not report.say(
        f"Mesh config{of}",
        "" if isinstance(config, dict) else f"ConfigMap {namespace}/istio{suffix} has no readable key `mesh`",
        "mend it: the mesh is not discovered without",
        good=f"ConfigMap {namespace}/istio{suffix}",
    ):
        return
    proxies = config.get("defaultConfig") or {}
    metadata = proxies.get("proxyMetadata") or {}
    where = "meshConfig.defaultConfig"
    settings: tuple[tuple[str, object, object, bool, str], ...] = (
        (
            "DNS capture",
            metadata.get("ISTIO_META_DNS_CAPTURE"),
            "true",
            False,
            f"{where}.proxyMetadata.ISTIO_META_DNS_CAPTURE",
        ),
        (
            "Access logs",
            _address(proxies, "envoyAccessLogService"),
            _agent_address(seen),
            True,
            f"{where}.envoyAccessLogService.address",
        ),
        (
            "Metrics",
            _address(proxies, "envoyMetricsService"),
            _agent_address(seen),
            True,
            f"{where}.envoyMetricsService.address",
        ),
        (
            "Cluster name in proxies",
            metadata.get("GLOO_MESH_CLUSTER_NAME"),
            name,
            True,
            f"{where}.proxyMetadata.GLOO_MESH_CLUSTER_NAME",
        ),
        ("Mutual TLS", str(config.get("enableAutoMtls", True)).lower(), "true", False, "meshConfig.enableAutoMtls"),
    )
    for check, found, wanted, warning, setting in settings:
        report.say(
            f"{check}{of}",
            "" if str(found or "") == wanted else f"{setting} is {found!r}" if found else f"{setting} is not set",
            f"set {setting} to {wanted!r} and restart the proxies",
            good=str(found),
            warning=warning,
        )
    domain = config.get("trustDomain") or "cluster.local"
    report.say(
        f"Trust domain{of}",
        "the trust domain is cluster.local, which every other Istio has too" if domain == "cluster.local" else "",
        f"set meshConfig.trustDomain to {name!r}",
        good=domain,
        warning=True,
    )


def _gateway(report: Report, seen: Observed, version: tuple[int, ...]) -> None:
    name = "East-west gateway"
    example = "examples/walkthrough/istio-operator-cluster1.yaml has one"
    services = [
        item
        for item in seen.all(kinds.SERVICE)
        if (item["spec"].get("selector") or {}).get("istio") in GATEWAYS
        and any(port.get("name") == "tls" for port in item["spec"].get("ports", ()))
    ]
    if not services:
        problem = "no Service selects `istio: ingressgateway` and has a port `tls`"
        report.say(name, problem, f"give the ingress gateway a port `tls`, 15443; {example}")
        return
    usable = [item for item in services if _external_addresses(item) or item["spec"].get("type") == "NodePort"]
    report.say(
        name,
        "" if usable else f"{_services(services)} has no external address",
        "make it a LoadBalancer or NodePort Service that the other clusters reach",
        good="; ".join(
            f"{_services([item])}, {', '.join(_external_addresses(item)) or 'node port'}" for item in usable
        ),
    )
    pods = [
        deployment
        for service in services
        for deployment in seen.all(kinds.DEPLOYMENT, service["metadata"]["namespace"])
        if _selects(service, deployment)
    ]
    modes = {_environment(item).get("ISTIO_META_ROUTER_MODE") for item in pods}
    needed = version < ROUTER_MODE_IGNORED_FROM and pods and modes != {"sni-dnat"}
    report.say(
        "Gateway's router mode",
        f"ISTIO_META_ROUTER_MODE of {_services(services)} is not sni-dnat, so it passes no mesh traffic"
        if needed
        else "",
        f"set it in the gateway's env; {example}",
        good="sni-dnat" if modes == {"sni-dnat"} else "not needed from Istio 1.11 on",
    )


def _services(items: Iterable[Manifest]) -> str:
    names = (f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in items)
    return f"Service {', '.join(names)}"


# --- OpenShift ------------------------------------------------------------------------------------------------------


def _openshift(report: Report, seen: Observed) -> None:
    existing = {item["metadata"]["name"] for item in seen.all(kinds.NAMESPACE)}
    system = istio_namespaces(seen.all(kinds.DEPLOYMENT))
    system += ["istio-operator"] if "istio-operator" in existing else []
    for namespace in system:
        _allowed(report, seen, namespace, ("anyuid",))
    injected = sorted(
        item["metadata"]["name"]
        for item in seen.all(kinds.NAMESPACE)
        if _injected(item) and item["metadata"]["name"] not in system
    )
    for namespace in injected:
        _allowed(report, seen, namespace, ("anyuid", "privileged"))
        report.say(
            f"Istio's network attachment in {namespace}",
            "" if seen.find(NETWORK_ATTACHMENT, "istio-cni", namespace) else "no NetworkAttachmentDefinition istio-cni",
            f"`oc --context {seen.context} -n {namespace} apply -f "
            "examples/walkthrough/network-attachment-definition.yaml` before the pods start",
            good="istio-cni",
        )


def _allowed(report: Report, seen: Observed, namespace: str, contexts: tuple[str, ...]) -> None:
    group = f"system:serviceaccounts:{namespace}"
    having = [context for context in contexts if group in _granted(seen, context, namespace)]
    report.say(
        f"Security context of {namespace}",
        "" if having else f"group {group} has none of the security contexts {' and '.join(contexts)}",
        f"`oc --context {seen.context} adm policy add-scc-to-group {contexts[0]} {group}`",
        good=", ".join(having),
    )


def _granted(seen: Observed, context: str, namespace: str) -> set[str]:
    """Groups that may use the security context: by its own list, or (since OpenShift 4) by a role binding."""
    constraint = seen.find(SECURITY_CONTEXT, context) or {}
    groups = set(constraint.get("groups") or ())
    role = f"system:openshift:scc:{context}"
    for binding in (*seen.all(kinds.CLUSTER_ROLE_BINDING), *seen.all(kinds.ROLE_BINDING, namespace)):
        if binding["roleRef"]["name"] == role:
            groups |= {subject["name"] for subject in binding.get("subjects") or () if subject["kind"] == "Group"}
    return groups


# --- reading objects ------------------------------------------------------------------------------------------------


def _hash(definition: Manifest) -> str:
    return str((definition["metadata"].get("annotations") or {}).get(SPEC_HASH, ""))


def _kinds(resources: Iterable[type[Resource]]) -> str:
    return ", ".join(resource.KIND.kind for resource in resources)


def _version_of(seen: Observed, deployment: str) -> str:
    found = seen.find(kinds.DEPLOYMENT, deployment, seen.namespace)
    return str(((found or {}).get("metadata", {}).get("labels") or {}).get(VERSION, ""))


def _root_certificate(management: Observed) -> bytes:
    secret = management.find(kinds.SECRET, "relay-root-tls-secret", management.namespace)
    return data_of(secret, "ca.crt") if secret else b""


def data_of(secret: Manifest, key: str) -> bytes:
    """What *secret* holds under *key*; nothing if that is missing or unreadable."""
    try:
        return base64.b64decode((secret.get("data") or {}).get(key) or "")
    except ValueError:
        return b""


def _injected(namespace: Manifest | None) -> bool:
    labels = ((namespace or {}).get("metadata") or {}).get("labels") or {}
    injection = labels.get("istio-injection")
    return injection == "enabled" or ("istio.io/rev" in labels and injection != "disabled")


def _external_addresses(service: Manifest) -> list[str]:
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    found = [entry.get("ip") or entry.get("hostname") for entry in ingress]
    return [address for address in (*found, *(service["spec"].get("externalIPs") or ())) if address]


def _containers(deployment: Manifest) -> list[Manifest]:
    return list((((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}).get("containers") or ())


def argument_of(deployment: Manifest, option: str) -> str:
    """The value of a command line's *option*, as ``--option=value``; empty if it is not given."""
    for container in _containers(deployment):
        for argument in container.get("args") or ():
            if argument.startswith(f"{option}="):
                return str(argument.partition("=")[2])
    return ""


def _environment(deployment: Manifest) -> dict[str, str]:
    return {
        entry["name"]: str(entry.get("value", ""))
        for container in _containers(deployment)
        for entry in container.get("env") or ()
    }


def _selects(service: Manifest, deployment: Manifest) -> bool:
    labels = (deployment["spec"]["template"].get("metadata") or {}).get("labels") or {}
    selector: dict[str, str] = service["spec"].get("selector") or {}
    return selector.items() <= labels.items()


def _is_istiod(deployment: Manifest) -> bool:
    images = [str(container.get("image", "")) for container in _containers(deployment)]
    return str(deployment["metadata"]["name"]).startswith("istiod") and any(
        "istio" in image and "pilot" in image for image in images
    )


def _image_tag(deployment: Manifest) -> str:
    for container in _containers(deployment):
        if "pilot" in container.get("image", ""):
            return str(container["image"]).partition("@")[0].rpartition("/")[2].partition(":")[2]
    return ""


def _version(deployment: Manifest) -> tuple[int, ...]:
    """Major and minor version; one that an image does not tell counts as new."""
    found = re.match(r"(\d+)\.(\d+)", _image_tag(deployment))
    return (int(found[1]), int(found[2])) if found else (999, 0)


def _address(proxies: Manifest, service: str) -> str:
    return str((proxies.get(service) or {}).get("address") or "")


def _agent_address(seen: Observed) -> str:
    return AGENT_ADDRESS.format(namespace=seen.namespace)


def _mesh_cluster(mesh: Manifest) -> str:
    istio = (mesh.get("spec") or {}).get("istio") or {}
    return str((istio.get("installation") or {}).get("cluster", ""))
