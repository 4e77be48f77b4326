"""Every precondition of a fleet: good when all is as the walk-through sets it up, and found when one thing is not."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml

from isthmus.api import crds
from isthmus.api.certificate_verification import CertificateVerification
from isthmus.api.kinds import CERTIFICATES
from isthmus.cli.checks import (
    NETWORK_ATTACHMENT,
    ON_MANAGEMENT,
    SECURITY_CONTEXT,
    Check,
    Observed,
    check_cluster,
    check_fleet,
    check_management,
)
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.install import ManagementPlaneValues, agent, management_plane, read_values, registration
from isthmus.install.values import AgentValues
from isthmus.istio.kinds import OUTPUT_KINDS
from isthmus.model import kinds
from isthmus.model.ref import Kind
from isthmus.pki import authority_of, make_csr, make_relay_secrets, new_key, sign_agent
from isthmus.pki.relay import AGENT_LIFE
from tests.golden import CASES, load_yaml
from tests.unit.cli.meshctl import Clusters, meshctl, with_our_kinds

Manifest = dict[str, Any]

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EXAMPLES = Path(__file__).parents[3] / "examples" / "walkthrough"
SERIALS = count(1)
RELAY = make_relay_secrets(now=NOW, serials=SERIALS)
ROOT = RELAY["relay-root-tls-secret"]["ca.crt"]


def client_secret(cluster: str = "cluster1", issued: datetime = NOW) -> Manifest:
    key = new_key()
    authority = authority_of(RELAY["relay-tls-signing-secret"])
    chain = sign_agent(make_csr(key, cluster), cluster, authority, serial=next(SERIALS), now=issued)
    data = {name: base64.b64encode(value).decode() for name, value in {"tls.crt": chain, "ca.crt": ROOT}.items()}
    metadata = {"name": "relay-client-tls-secret", "namespace": "gloo-mesh"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data}


CLIENT = client_secret()


def by_kind(items: Iterable[Manifest], known: Iterable[Kind]) -> dict[Kind, tuple[Manifest, ...]]:
    found: dict[Kind, tuple[Manifest, ...]] = {}
    names = {(kind.api_version, kind.kind): kind for kind in known}
    for item in deepcopy(list(items)):
        kind = names.get((item["apiVersion"], item["kind"]))
        if kind is not None:
            found[kind] = (*found.get(kind, ()), item)
    return found


BUILT_IN = [value for value in vars(kinds).values() if isinstance(value, Kind)]


def running(items: Iterable[Manifest]) -> Iterable[Manifest]:
    """*items* as they are once their pods run."""
    for item in items:
        if item["kind"] == "Deployment":
            yield {**item, "status": {"availableReplicas": 1}}
        else:
            yield item


@cache
def management_items() -> tuple[Manifest, ...]:
    installed = running(management_plane(ManagementPlaneValues(), secrets=RELAY))
    return (*installed, *load_yaml(CASES / "cli" / "walkthrough" / "in.yaml"))


@cache
def cluster_items(name: str) -> tuple[Manifest, ...]:
    values = read_values(AgentValues, [{"relay": {"cluster": name, "serverAddress": "203.0.113.9:9900"}}])
    assert isinstance(values, AgentValues)
    istio = yaml.safe_load_all((EXAMPLES / f"istio-{name}.yaml").read_text())
    return (*running(agent(values)), CLIENT, *filter(None, istio))


def management() -> Observed:
    ours = [resource.KIND for resource in ON_MANAGEMENT]
    objects = by_kind(management_items(), [*BUILT_IN, *ours])
    for item in objects[kinds.SERVICE]:
        if item["metadata"]["name"] == "enterprise-networking":
            item["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
    objects[next(kind for kind in ours if kind.kind == "Settings")][0]["status"] = {"state": "ACCEPTED"}
    return Observed("mgmt", version="v1.32.0", served=frozenset([*BUILT_IN, *ours]), objects=objects)


def cluster(name: str = "cluster1", *more: Manifest) -> Observed:
    known = [*BUILT_IN, *(resource.KIND for resource in CERTIFICATES), *OUTPUT_KINDS]
    openshift = [SECURITY_CONTEXT, NETWORK_ATTACHMENT] if more else []
    items = [*cluster_items(name), *more]
    return Observed(
        name,
        version="v1.32.0",
        served=frozenset([*known, *openshift]),
        objects=by_kind(items, [*known, *openshift]),
    )


def found(checks: Iterable[Check]) -> dict[str, str]:
    """What does not hold, by name."""
    return {check.name: f"{check.state}: {check.message}" for check in checks if check.state != "ok"}


def check_one(seen: Observed, now: datetime = NOW) -> dict[str, str]:
    return found(check_cluster("cluster1", seen, "0.1.0", ROOT, now))


def test_the_walkthrough_is_good_everywhere() -> None:
    checks = check_fleet(management(), {"cluster1": cluster()}, NOW)

    assert found(checks) == {}
    assert len(checks) > 30
    assert all(check.message for check in checks)
    assert not any(check.remedy for check in checks)


def test_current_istio_needs_no_router_mode_and_is_good() -> None:
    seen = cluster("cluster2")
    for deployment in seen.objects[kinds.DEPLOYMENT]:
        if deployment["metadata"]["name"] == "istio-ingressgateway":
            deployment["spec"]["template"]["spec"]["containers"][0]["env"] = []

    names = found(check_cluster("cluster2", seen, "0.1.0", ROOT, NOW))

    assert names == {
        "Client certificate": "error: Secret gloo-mesh/relay-client-tls-secret is for cluster1, not for cluster2"
    }


def test_a_cluster_that_no_context_leads_to_is_a_warning() -> None:
    checks = check_fleet(management(), {"cluster9": None}, NOW)

    (check,) = (check for check in checks if check.cluster == "cluster9")
    assert check.state == "warning"
    assert check.remedy == "say which context it is: --cluster-context cluster9=CONTEXT"


def test_an_unreachable_api_server_ends_the_checks_of_its_cluster() -> None:
    seen = Observed("mgmt", trouble="mgmt (https://203.0.113.1): no answer")

    assert check_management(seen, NOW) == (
        Check(
            "management",
            "API server",
            "error",
            "mgmt (https://203.0.113.1): no answer",
            "try `kubectl --context mgmt version`",
        ),
    )


def test_what_may_not_be_read_is_named() -> None:
    seen = management()
    refused = Observed(
        seen.context,
        version=seen.version,
        served=seen.served,
        objects=seen.objects,
        refused={kinds.SECRET: "forbidden"},
    )

    assert found(check_management(refused, NOW)) == {"Right to read secrets": "warning: forbidden"}


# --- one thing is not as it should be -------------------------------------------------------------------------------


def item_of(seen: Observed, kind: str, name: str) -> Manifest:
    return next(
        item
        for items in seen.objects.values()
        for item in items
        if (item["kind"], item["metadata"]["name"]) == (kind, name)
    )


def without(seen: Observed, kind: str, name: str) -> None:
    for of_kind, items in dict(seen.objects).items():
        left = tuple(item for item in items if (item["kind"], item["metadata"]["name"]) != (kind, name))
        seen.objects[of_kind] = left  # type: ignore[index]  # a test's own dict


def mesh_config(seen: Observed, change: Callable[[Manifest], None]) -> None:
    config_map = item_of(seen, "ConfigMap", "istio")
    config = yaml.safe_load(config_map["data"]["mesh"])
    change(config)
    config_map["data"]["mesh"] = yaml.safe_dump(config)


MANAGEMENT_FAULTS: dict[str, tuple[Callable[[Observed], None], dict[str, str]]] = {
    "no-server": (
        lambda seen: without(seen, "Deployment", "enterprise-networking"),
        {"Management plane": "error: no Deployment gloo-mesh/enterprise-networking"},
    ),
    "server-does-not-run": (
        lambda seen: item_of(seen, "Deployment", "enterprise-networking").update(status={}),
        {"Management plane": "error: Deployment gloo-mesh/enterprise-networking has no available pod"},
    ),
    "namespace-is-injected": (
        lambda seen: item_of(seen, "Namespace", "gloo-mesh")["metadata"].update(labels={"istio-injection": "enabled"}),
        {"No sidecars in gloo-mesh": "error: namespace gloo-mesh is injected; sidecars break the relay's own TLS"},
    ),
    "no-external-address": (
        lambda seen: item_of(seen, "Service", "enterprise-networking").update(status={}),
        {"Relay address": "warning: Service gloo-mesh/enterprise-networking has no external address"},
    ),
    "certificate-missing": (
        lambda seen: without(seen, "Secret", "relay-server-tls-secret"),
        {"Relay certificate": "error: Secret gloo-mesh/relay-server-tls-secret is missing"},
    ),
    "certificate-garbled": (
        lambda seen: item_of(seen, "Secret", "relay-tls-signing-secret")["data"].update({"tls.crt": "bm9uZQ=="}),
        {"Relay signing certificate": "error: Secret gloo-mesh/relay-tls-signing-secret: tls.crt: not a PEM"},
    ),
    "definition-of-another-version": (
        lambda seen: item_of(seen, "CustomResourceDefinition", "meshes.discovery.mesh.gloo.solo.io")["metadata"].update(
            annotations={}
        ),
        {"Custom resource definitions": "warning: of another version than this meshctl: Mesh"},
    ),
    "nobody-registered": (
        lambda seen: [without(seen, "KubernetesCluster", name) for name in ("cluster1", "cluster2")],
        {"Registered clusters": "warning: no cluster is registered"},
    ),
    "agent-silent": (
        lambda seen: [without(seen, "Mesh", "istiod-istio-system-cluster1")],
        {"Agent of cluster1": "warning: nothing is discovered: its agent has not reported, or there is no Istio"},
    ),
    "agent-disconnected": (
        lambda seen: item_of(seen, "KubernetesCluster", "cluster1").update(
            status={"status": [{"state": "FAILED", "message": "not connected"}]}
        ),
        {"Agent of cluster1": "error: not connected"},
    ),
    "policy-rejected": (
        lambda seen: item_of(seen, "VirtualMesh", "virtual-mesh")["status"].update(state="INVALID", errors=["no mesh"]),
        {"Policies": "error: VirtualMesh gloo-mesh/virtual-mesh is INVALID: no mesh"},
    ),
    "policy-changed-meanwhile": (
        lambda seen: item_of(seen, "VirtualMesh", "virtual-mesh")["metadata"].update(generation=9),
        {"Policies": "error: VirtualMesh gloo-mesh/virtual-mesh: its last change is not processed yet"},
    ),
    "policy-not-processed": (
        lambda seen: item_of(seen, "VirtualMesh", "virtual-mesh").pop("status"),
        {"Policies": "error: VirtualMesh gloo-mesh/virtual-mesh is not processed yet"},
    ),
    "policy-not-acted-on": (
        lambda seen: item_of(seen, "VirtualMesh", "virtual-mesh").update(status={"warnings": ["not acted on"]}),
        {"Policies acted on": "warning: this version does not act on VirtualMesh gloo-mesh/virtual-mesh"},
    ),
    "trust-domain-shared": (
        lambda seen: item_of(seen, "Mesh", "istiod-istio-system-cluster2")["spec"]["istio"].update(
            trustDomain="cluster1"
        ),
        {"Trust domains": "warning: istiod-istio-system-cluster1, istiod-istio-system-cluster2 share cluster1"},
    ),
    "no-gateway": (
        lambda seen: item_of(seen, "Mesh", "istiod-istio-system-cluster2")["status"].pop(
            "appliedEastWestIngressGateways"
        ),
        {"East-west gateways of virtual-mesh": "error: no gateway was found for istiod-istio-system-cluster2"},
    ),
}


@pytest.mark.parametrize("fault", MANAGEMENT_FAULTS)
def test_a_fault_of_the_management_cluster_is_found(fault: str) -> None:
    seen = management()
    change, wanted = MANAGEMENT_FAULTS[fault]
    change(seen)

    trouble = found(check_management(seen, NOW))

    assert set(trouble) == set(wanted)
    for name, text in wanted.items():
        assert trouble[name].startswith(text)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ({}, None),
        ({"warnings": ["ADDING_NEW_ROOT does not wait for verification yet"]}, None),
        ({"state": "VERIFIED"}, None),
        (
            {"state": "INVALID", "errors": ["spec.step: is missing"]},
            "error: CertificateVerification gloo-mesh/ok is INVALID: spec.step: is missing",
        ),
    ],
)
def test_a_verification_that_waits_for_its_step_is_no_fault(status: Manifest, said: str | None) -> None:
    seen = management()
    verification = {"kind": "CertificateVerification", "metadata": {"name": "ok", "namespace": "gloo-mesh"}}
    seen.objects.update({CertificateVerification.KIND: (verification | {"status": status},)})  # type: ignore[attr-defined]

    assert found(check_management(seen, NOW)).get("Policies") == said


def metadata_of(config: Manifest) -> Manifest:
    found: Manifest = config["defaultConfig"]["proxyMetadata"]
    return found


CLUSTER_FAULTS: dict[str, tuple[Callable[[Observed], Any], dict[str, str]]] = {
    "agent-of-another-name": (
        lambda seen: item_of(seen, "Deployment", "enterprise-agent")["spec"]["template"]["spec"]["containers"][
            0
        ].update(args=["--cluster=cluster7"]),
        {"Agent's cluster name": "error: the agent calls itself cluster7, so it gets nothing"},
    ),
    "agent-of-another-version": (
        lambda seen: item_of(seen, "Deployment", "enterprise-agent")["metadata"]["labels"].update(
            {"app.kubernetes.io/version": "0.0.9"}
        ),
        {"Agent's version": "warning: the agent is 0.0.9, the server 0.1.0"},
    ),
    "no-client-certificate": (
        lambda seen: without(seen, "Secret", "relay-client-tls-secret"),
        {"Client certificate": "error: Secret gloo-mesh/relay-client-tls-secret is missing"},
    ),
    "token-left": (
        lambda seen: (
            item_of(seen, "Secret", "relay-client-tls-secret")
            and seen.objects.update(  # type: ignore[attr-defined]
                {
                    kinds.SECRET: (
                        CLIENT,
                        {
                            "kind": "Secret",
                            "metadata": {"name": "relay-identity-token-secret", "namespace": "gloo-mesh"},
                        },
                    )
                }
            )
        ),
        {"Registration token": "warning: the token is still on the cluster"},
    ),
    "no-istio": (
        lambda seen: without(seen, "Deployment", "istiod"),
        {"Istio": "error: no istiod was found"},
    ),
    "mesh-config-is-no-yaml": (
        lambda seen: item_of(seen, "ConfigMap", "istio")["data"].update(mesh="{"),
        {"Mesh config": "error: ConfigMap istio-system/istio has no readable key `mesh`"},
    ),
    "no-dns-capture": (
        lambda seen: mesh_config(seen, lambda config: metadata_of(config).pop("ISTIO_META_DNS_CAPTURE")),
        {"DNS capture": "error: meshConfig.defaultConfig.proxyMetadata.ISTIO_META_DNS_CAPTURE is not set"},
    ),
    "access-logs-elsewhere": (
        lambda seen: mesh_config(
            seen, lambda config: config["defaultConfig"]["envoyAccessLogService"].update(address="elsewhere:1")
        ),
        {"Access logs": "warning: meshConfig.defaultConfig.envoyAccessLogService.address is 'elsewhere:1'"},
    ),
    "no-metrics": (
        lambda seen: mesh_config(seen, lambda config: config["defaultConfig"].pop("envoyMetricsService")),
        {"Metrics": "warning: meshConfig.defaultConfig.envoyMetricsService.address is not set"},
    ),
    "another-cluster-name": (
        lambda seen: mesh_config(seen, lambda config: metadata_of(config).update(GLOO_MESH_CLUSTER_NAME="east")),
        {"Cluster name in proxies": "warning: meshConfig.defaultConfig.proxyMetadata.GLOO_MESH_CLUSTER_NAME is 'east'"},
    ),
    "no-automatic-mtls": (
        lambda seen: mesh_config(seen, lambda config: config.update(enableAutoMtls=False)),
        {"Mutual TLS": "error: meshConfig.enableAutoMtls is 'false'"},
    ),
    "common-trust-domain": (
        lambda seen: mesh_config(seen, lambda config: config.pop("trustDomain")),
        {"Trust domain": "warning: the trust domain is cluster.local"},
    ),
    "gateway-without-tls-port": (
        lambda seen: item_of(seen, "Service", "istio-ingressgateway")["spec"].update(
            ports=[{"name": "http2", "port": 80}]
        ),
        {"East-west gateway": "error: no Service selects `istio: ingressgateway` and has a port `tls`"},
    ),
    "gateway-without-address": (
        lambda seen: item_of(seen, "Service", "istio-ingressgateway").update(status={}),
        {"East-west gateway": "error: Service istio-system/istio-ingressgateway has no external address"},
    ),
    "gateway-in-the-wrong-mode": (
        lambda seen: item_of(seen, "Deployment", "istio-ingressgateway")["spec"]["template"]["spec"]["containers"][
            0
        ].update(env=[{"name": "ISTIO_META_ROUTER_MODE", "value": "standard"}]),
        {"Gateway's router mode": "error: ISTIO_META_ROUTER_MODE of Service istio-system/istio-ingressgateway is not"},
    ),
}


@pytest.mark.parametrize("fault", CLUSTER_FAULTS)
def test_a_fault_of_a_cluster_is_found(fault: str) -> None:
    seen = cluster()
    change, wanted = CLUSTER_FAULTS[fault]
    change(seen)

    trouble = check_one(seen)

    assert set(trouble) == set(wanted)
    for name, text in wanted.items():
        assert trouble[name].startswith(text)


def test_a_certificate_near_its_end_is_a_warning_and_past_it_an_error() -> None:
    soon = found(check_management(management(), NOW + timedelta(days=3650 - 20)))
    over = check_one(cluster(), NOW + AGENT_LIFE + timedelta(days=1))

    assert soon["Relay certificate"].startswith("warning: Secret gloo-mesh/relay-server-tls-secret ends on ")
    assert over["Client certificate"].startswith("error: Secret gloo-mesh/relay-client-tls-secret: tls.crt: ")
    assert "expired" in over["Client certificate"]


def test_a_certificate_of_another_management_plane_is_found() -> None:
    other = make_relay_secrets(now=NOW, serials=SERIALS)["relay-root-tls-secret"]["ca.crt"]

    trouble = found(check_cluster("cluster1", cluster(), "0.1.0", other, NOW))

    assert set(trouble) == {"Client certificate"}


def test_kinds_that_are_not_served_are_named() -> None:
    seen = Observed("mgmt", version="v1.32.0", served=frozenset(BUILT_IN), objects=management().objects)

    trouble = found(check_management(seen, NOW))

    assert trouble["Custom resource definitions"].startswith("error: not served: VirtualMesh, ")


# --- OpenShift ------------------------------------------------------------------------------------------------------


def constraint(name: str, *groups: str) -> Manifest:
    return {
        "apiVersion": "security.openshift.io/v1", "kind": "SecurityContextConstraints",
        "metadata": {"name": name}, "groups": list(groups),
    }  # fmt: skip


def binding(name: str, group: str) -> Manifest:
    """What `oc adm policy add-scc-to-group` makes on OpenShift 4."""
    role = f"system:openshift:scc:{name}"
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": role},
        "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": [{"kind": "Group", "name": group}],
    }  # fmt: skip


INJECTED = {
    "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default", "labels": {"istio-injection": "enabled"}}
}  # fmt: skip
ATTACHMENT = yaml.safe_load((EXAMPLES / "network-attachment-definition.yaml").read_text())


def test_openshift_as_the_walkthrough_sets_it_up_is_good() -> None:
    istio, default = "system:serviceaccounts:istio-system", "system:serviceaccounts:default"

    by_list = check_one(
        cluster("cluster1", INJECTED, ATTACHMENT, constraint("anyuid", istio), constraint("privileged", default))
    )
    by_binding = check_one(
        cluster(
            "cluster1", INJECTED, ATTACHMENT, constraint("anyuid"), binding("anyuid", istio), binding("anyuid", default)
        )
    )

    assert by_list == {}
    assert by_binding == {}


def test_openshift_without_rights_says_what_is_missing_and_how_to_grant_it() -> None:
    operator = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-operator"}}

    checks = check_cluster(
        "cluster1", cluster("cluster1", INJECTED, operator, constraint("anyuid")), "0.1.0", ROOT, NOW
    )

    missing = {check.name: check.remedy for check in checks if check.state == "error"}
    assert missing == {
        "Security context of istio-system": "`oc --context cluster1 adm policy add-scc-to-group anyuid "
        "system:serviceaccounts:istio-system`",
        "Security context of istio-operator": "`oc --context cluster1 adm policy add-scc-to-group anyuid "
        "system:serviceaccounts:istio-operator`",
        "Security context of default": "`oc --context cluster1 adm policy add-scc-to-group anyuid "
        "system:serviceaccounts:default`",
        "Istio's network attachment in default": "`oc --context cluster1 -n default apply -f "
        "examples/walkthrough/network-attachment-definition.yaml` before the pods start",
    }


def test_plain_kubernetes_needs_no_security_contexts() -> None:
    names = {check.name for check in check_cluster("cluster1", cluster(), "0.1.0", ROOT, NOW)}

    assert not any("Security context" in name for name in names)


def test_definitions_compare_by_content() -> None:
    """What the checks compare is in every definition that we install."""
    assert all("crd.solo.io/specHash" in found["metadata"]["annotations"] for found in crds.manifests())


# --- the command ----------------------------------------------------------------------------------------------------


def test_the_command_looks_at_every_cluster_that_a_context_leads_to(tmp_path: Path) -> None:
    """Without an installation nearly everything is missing, and is named; the walk-through's Istio is good."""
    files = [EXAMPLES / "istio-cluster1.yaml", EXAMPLES / "bookinfo-gateway.yaml"]
    istio = [item for file in files for item in load_yaml(file)]
    with Clusters(tmp_path, ["mgmt", "cluster1"]).running() as clusters:
        with_our_kinds(clusters, "mgmt")
        clusters.load("mgmt", registration("cluster1"), registration("west"))
        clusters.load("cluster1", *istio_definitions(), *istio)

        result = meshctl("check", "-o", "json", kubeconfig=clusters.kubeconfig)
        shown = meshctl("check", kubeconfig=clusters.kubeconfig)
        renamed = meshctl("check", "--cluster-context", "west=cluster1", "-o", "json", kubeconfig=clusters.kubeconfig)

    checks = json.loads(result.stdout)
    states = {(check["cluster"], check["name"]): check["state"] for check in checks}
    assert (result.exit_code, shown.exit_code, renamed.exit_code) == (1, 1, 1)
    assert states["management", "Management plane"] == "error"
    assert states["cluster1", "Agent"] == "error"
    assert states["west", "API server"] == "warning"
    assert states["cluster1", "DNS capture"] == states["cluster1", "Cluster name in proxies"] == "ok"
    assert "  ✘ Management plane: no Deployment gloo-mesh/enterprise-networking\n" in shown.stdout
    assert "    → `meshctl install --kubecontext mgmt`\n" in shown.stdout
    wrong = [check for check in json.loads(renamed.stdout) if check["name"] == "Cluster name in proxies"]
    assert [(check["cluster"], check["state"]) for check in wrong] == [("cluster1", "ok"), ("west", "warning")]


def test_a_context_that_is_no_pair_is_not_understood() -> None:
    result = meshctl("check", "--cluster-context", "cluster1")

    assert result.exit_code == 2
    assert "'cluster1' is not of the form NAME=CONTEXT" in result.stderr


def test_without_a_kubeconfig_the_next_step_is_named(tmp_path: Path) -> None:
    result = meshctl("check", kubeconfig=tmp_path / "none")

    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: no kubeconfig at {tmp_path / 'none'}\ntry:   ")
