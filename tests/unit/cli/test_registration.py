"""`meshctl cluster`: both spellings, what is refused and why, and what deregistering leaves."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from isthmus.agent.ownership import ownership_labels
from isthmus.cli.failure import Failure
from isthmus.cli.main import app
from isthmus.cli.registration import check_address
from isthmus.embedded.istio_crds import istio_definitions
from isthmus.install import AgentValues, agent, read_values, registration
from isthmus.istio.kinds import SERVICE_ENTRY
from isthmus.kube import KubeClient
from isthmus.model import kinds
from isthmus.model.ref import Kind
from tests.unit.cli.meshctl import NAMESPACE, Clusters, meshctl, with_our_kinds

Manifest = dict[str, Any]

SEED = (
    "--mgmt-context=mgmt --remote-context=cluster1 --relay-server-address=203.0.113.9:9900 enterprise cluster1 "
    "--cluster-domain cluster.local"
)
SHORT = (
    "cluster1 --mgmt-context mgmt --remote-context cluster1 --relay-server-address 203.0.113.9:9900 "
    "--cluster-domain cluster.local"
)


def parsed(words: str) -> dict[str, Any]:
    """The parameters of `meshctl cluster register` after parsing *words*."""
    command: Any = typer.main.get_command(app)
    register = command.commands["cluster"].commands["register"]
    found: dict[str, Any] = register.make_context("register", words.split()).params
    return found


def test_the_spelling_of_the_walkthrough_and_the_shorter_one_mean_the_same() -> None:
    from isthmus.cli.cluster import cluster_named

    long, short = parsed(SEED), parsed(SHORT)

    assert cluster_named(long.pop("names")) == cluster_named(short.pop("names")) == "cluster1"
    assert long == short
    assert (long["mgmt_context"], long["remote_context"]) == ("mgmt", "cluster1")
    assert (long["relay_server_address"], long["cluster_domain"]) == ("203.0.113.9:9900", "cluster.local")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("enterprise", "the name of the cluster is missing"),
        ("community cluster1", "there is no community edition here"),
        ("cluster1 cluster2", "one name was expected, found cluster1 cluster2"),
        ("", "Missing argument"),
    ],
)
@pytest.mark.parametrize("command", ["register", "deregister"])
def test_other_words_are_not_understood(command: str, words: str, message: str) -> None:
    result = meshctl("cluster", command, *words.split())

    assert result.exit_code == 2
    assert message in result.stderr


@pytest.mark.parametrize(
    "address",
    ["203.0.113.7:9900", "relay.example.com:443", "[2001:db8::1]:9900", "enterprise-networking:9900"],
)
def test_addresses_that_can_be_dialled(address: str) -> None:
    assert check_address(address) == address


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("https://relay:9900", "has a scheme"),
        ("203.0.113.7", "has no port"),
        ("203.0.113.7:http", "has no port"),
        ("203.0.113.7:70000", "has no port"),
        (":9900", "has no host: the Service has no IP address yet, or a host name instead"),
        ("2001:db8::1:9900", "is not in brackets"),
        ("rel ay:9900", "has no host name or IP address"),
    ],
)
def test_addresses_that_cannot(address: str, message: str) -> None:
    with pytest.raises(Failure, match=message) as failure:
        check_address(address)

    assert failure.value.next_step


# --- on clusters ----------------------------------------------------------------------------------------------------


@pytest.fixture
def clusters(tmp_path: Path) -> Iterator[Clusters]:
    """``mgmt`` with our kinds, and ``cluster1`` with Istio's."""
    with Clusters(tmp_path, ["mgmt", "cluster1"]).running() as running:
        with_our_kinds(running, "mgmt")
        running.load("cluster1", NAMESPACE, *istio_definitions())
        yield running


def secret(name: str, **data: bytes) -> Manifest:
    encoded = {key.replace("_", "."): base64.b64encode(value).decode() for key, value in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "gloo-mesh"}, "data": encoded}


def agent_of(name: str) -> tuple[Manifest, ...]:
    values = read_values(AgentValues, [{"relay": {"cluster": name, "serverAddress": "203.0.113.9:9900"}}])
    assert isinstance(values, AgentValues)
    return agent(values)


def everything(clusters: Clusters, context: str, *of: Kind) -> set[str]:
    """Kind and name of every object of the kinds *of*."""
    import asyncio

    async def fetch() -> set[str]:
        async with KubeClient.from_kubeconfig(clusters.kubeconfig, context) as cluster:
            found = [await cluster.list(kind) for kind in of]
            return {f"{item['kind']} {item['metadata']['name']}" for items in found for item in items.items}

    return asyncio.run(fetch())


WRITTEN = (kinds.SECRET, kinds.DEPLOYMENT, kinds.SERVICE, kinds.CLUSTER_ROLE)


def refused(clusters: Clusters, words: str) -> tuple[str, str]:
    """Error and next step of a registration that is refused, and has written nothing."""
    before = everything(clusters, "cluster1", *WRITTEN)

    result = meshctl("cluster", "register", *words.split(), kubeconfig=clusters.kubeconfig)

    assert result.exit_code == 1
    assert everything(clusters, "cluster1", *WRITTEN) == before
    error, step = result.stderr.splitlines()
    return error.removeprefix("error: "), step.removeprefix("try:   ")


def test_a_name_that_is_taken_is_refused(clusters: Clusters) -> None:
    clusters.load("mgmt", registration("cluster1"))

    error, step = refused(clusters, SEED)

    assert error.startswith("a cluster is already registered as cluster1, since ")
    assert step == "choose another name, or first `meshctl cluster deregister cluster1`"


def test_a_cluster_that_runs_an_agent_under_another_name_is_refused(clusters: Clusters) -> None:
    clusters.load("cluster1", *agent_of("east"))

    error, step = refused(clusters, SEED)

    assert error == "cluster1 already runs an agent, for a cluster registered as east"
    assert step == "check --remote-context; to rename the cluster, first `meshctl cluster deregister east`"


def test_a_context_that_does_not_exist_is_named_with_those_that_do(clusters: Clusters) -> None:
    error, step = refused(clusters, SEED.replace("remote-context=cluster1", "remote-context=clusterl"))

    assert error == f"{clusters.kubeconfig}: no context 'clusterl'; contexts there: cluster1, mgmt"
    assert "kubectl config get-contexts" in step


def test_a_cluster_without_a_context_of_its_name_needs_one_to_be_named(clusters: Clusters) -> None:
    error, step = refused(clusters, "west --mgmt-context mgmt")
    left = meshctl("cluster", "deregister", "west", "--mgmt-context", "mgmt", kubeconfig=clusters.kubeconfig)

    assert error == "no context is called west, like the cluster; there are: cluster1, mgmt"
    assert step == "name the cluster's context with --remote-context"
    assert left.exit_code == 1
    assert left.stderr.endswith("with --remote-context; --forget if the cluster itself is gone\n")


def test_a_cluster_without_management_plane_says_how_to_get_one(clusters: Clusters) -> None:
    error, step = refused(clusters, "east --mgmt-context cluster1 --remote-context mgmt")

    assert error == "there is no management plane in namespace gloo-mesh on cluster1"
    assert step.startswith("`meshctl install --kubecontext cluster1`")


def test_without_an_address_the_service_must_have_one(clusters: Clusters) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "enterprise-networking", "namespace": "gloo-mesh"},
        "spec": {"type": "LoadBalancer", "ports": [{"name": "grpc", "port": 9900}]},
    }  # fmt: skip
    clusters.load("mgmt", service)

    error, step = refused(clusters, "cluster1 --mgmt-context mgmt")

    assert error == "Service gloo-mesh/enterprise-networking on mgmt has no external address"
    assert "--relay-server-address HOST:PORT" in step


def test_without_the_relay_secrets_the_installation_is_to_be_repeated(clusters: Clusters) -> None:
    error, step = refused(clusters, SEED)

    assert error == "Secret gloo-mesh/relay-root-tls-secret is missing on mgmt"
    assert step == "`meshctl install --kubecontext mgmt` makes the relay's Secrets that are missing"


def test_the_root_of_another_management_plane_is_not_overwritten(clusters: Clusters) -> None:
    clusters.load("mgmt", secret("relay-root-tls-secret", ca_crt=b"ours", tls_key=b"key"))
    clusters.load("cluster1", secret("relay-root-tls-secret", ca_crt=b"theirs"))

    error, step = refused(clusters, SEED)

    assert error == "Secret gloo-mesh/relay-root-tls-secret on cluster1 holds the root of another management plane"
    assert step.endswith("`kubectl --context cluster1 -n gloo-mesh delete secret relay-root-tls-secret`")


@pytest.mark.parametrize("name", ["Cluster1", "cluster_1", "-a", "a" * 64, "a.b"])
def test_a_name_that_no_host_can_have_is_refused(clusters: Clusters, name: str) -> None:
    error, step = refused(clusters, f"--mgmt-context=mgmt --remote-context=cluster1 -- {name}")

    assert error == f"{name!r} can't be the name of a cluster"
    assert step.startswith("use at most 63 of")


def test_a_value_that_does_not_exist_is_refused_with_the_nearest(clusters: Clusters) -> None:
    error, _ = refused(clusters, f"{SEED} --set enterpriseAgent.floatingUser=true")

    assert error.startswith("enterpriseAgent.floatingUser: no value has this name")
    assert "enterpriseAgent.floatingUserId" in error


def test_an_agent_that_gets_no_certificate_in_time_is_an_error_and_the_token_is_gone(clusters: Clusters) -> None:
    """Nothing runs pods here, so the agent never starts."""
    clusters.load("mgmt", secret("relay-root-tls-secret", ca_crt=b"root", tls_key=b"key"))
    clusters.load("mgmt", secret("relay-identity-token-secret", token=b"once"))

    result = meshctl("cluster", "register", *SEED.split(), "--timeout", "0.3", kubeconfig=clusters.kubeconfig)

    assert result.exit_code == 1
    assert "error: the agent on cluster1 got no client certificate within 0 s" in result.stderr
    assert "`meshctl cluster deregister cluster1` and register again" in result.stderr
    left = everything(clusters, "cluster1", *WRITTEN)
    assert "Secret relay-identity-token-secret" not in left
    assert {"Secret relay-root-tls-secret", "Deployment enterprise-agent"} <= left


def test_only_the_certificate_of_the_root_leaves_the_management_cluster(clusters: Clusters) -> None:
    import asyncio

    clusters.load("mgmt", secret("relay-root-tls-secret", ca_crt=b"root", tls_key=b"key"))
    clusters.load("mgmt", secret("relay-identity-token-secret", token=b"once"))
    meshctl("cluster", "register", *SEED.split(), "--timeout", "0.2", kubeconfig=clusters.kubeconfig)

    async def fetch() -> Manifest:
        async with KubeClient.from_kubeconfig(clusters.kubeconfig, "cluster1") as cluster:
            return await cluster.get(kinds.SECRET, "gloo-mesh", "relay-root-tls-secret")

    assert asyncio.run(fetch())["data"] == {"ca.crt": base64.b64encode(b"root").decode()}


def entry(name: str, labels: dict[str, str]) -> Manifest:
    metadata = {"name": name, "namespace": "istio-system", "labels": labels}
    spec = {"hosts": [f"{name}.example"], "ports": [{"name": "http", "number": 80, "protocol": "HTTP"}]}
    return {"apiVersion": SERVICE_ENTRY.api_version, "kind": "ServiceEntry", "metadata": metadata, "spec": spec}


def registered(clusters: Clusters) -> None:
    """``cluster1`` as registration and its agent leave it, beside objects of others."""
    clusters.load("mgmt", registration("cluster1"))
    own = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}
    clusters.load("cluster1", *agent_of("cluster1"), own, secret("relay-client-tls-secret"), secret("users"))
    ours = ownership_labels("cluster1", "gloo-mesh")
    clusters.load(
        "cluster1", entry("ours", ours), entry("users", {}), entry("other", {**ours, "relay-agent": "cluster2"})
    )


LOOKED_AT = (*WRITTEN, kinds.CLUSTER_ROLE_BINDING, kinds.ROLE, kinds.SERVICE_ACCOUNT, SERVICE_ENTRY)


def test_deregistering_removes_what_it_made_and_says_what_it_left(clusters: Clusters) -> None:
    registered(clusters)

    result = meshctl("cluster", "deregister", "cluster1", "--mgmt-context", "mgmt", kubeconfig=clusters.kubeconfig)

    assert (result.exit_code, result.stderr) == (0, "")
    left = everything(clusters, "cluster1", *LOOKED_AT)
    assert {name for name in left if "default" not in name and "kubernetes" not in name} == {
        "Secret users", "ServiceEntry users", "ServiceEntry other"
    }  # fmt: skip
    assert "Deleted the Istio objects that it wrote there (1 objects)" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("Left on cluster1: namespace gloo-mesh, ")
    assert meshctl("cluster", "list", "-o", "name", kubeconfig=clusters.kubeconfig).stdout == ""


def of_helm(items: Iterable[Manifest]) -> Iterator[Manifest]:
    """*items* as Helm leaves them."""
    for item in items:
        kept = {"meta.helm.sh/release-name": "agent", "meta.helm.sh/release-namespace": "gloo-mesh"}
        annotations = {**item["metadata"].get("annotations", {}), **kept}
        yield {**item, "metadata": {**item["metadata"], "annotations": annotations}}


def test_an_agent_that_helm_installed_is_not_installed_over(clusters: Clusters) -> None:
    """Helm would go on to believe in what it installed."""
    clusters.load("cluster1", *of_helm(agent_of("cluster1")))

    error, step = refused(clusters, SEED)

    assert error == "Helm installed the agent on cluster1, as release agent"
    assert "`helm uninstall agent --namespace gloo-mesh --kube-context cluster1`" in step


def test_deregistering_an_agent_that_helm_installed_names_what_helm_still_believes(clusters: Clusters) -> None:
    clusters.load("mgmt", registration("cluster1"))
    clusters.load("cluster1", *of_helm(agent_of("cluster1")))

    result = meshctl("cluster", "deregister", "cluster1", "--mgmt-context", "mgmt", kubeconfig=clusters.kubeconfig)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == (
        "Helm still lists it: `helm uninstall agent --namespace gloo-mesh --kube-context cluster1`"
    )


def test_a_cluster_that_is_gone_can_be_forgotten(clusters: Clusters) -> None:
    registered(clusters)
    before = everything(clusters, "cluster1", *LOOKED_AT)

    result = meshctl(
        "cluster",
        "deregister",
        "enterprise",
        "cluster1",
        "--mgmt-context=mgmt",
        "--forget",
        kubeconfig=clusters.kubeconfig,
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert everything(clusters, "cluster1", *LOOKED_AT) == before
    assert "Left on the cluster: its agent, and what the agent wrote" in result.stdout


@pytest.mark.parametrize("how", ["--forget", "--remote-context=cluster1"])
def test_a_cluster_that_nobody_knows_is_an_error(clusters: Clusters, how: str) -> None:
    result = meshctl("cluster", "deregister", "west", "--mgmt-context", "mgmt", how, kubeconfig=clusters.kubeconfig)

    assert result.exit_code == 1
    assert "try:   `meshctl cluster list` shows those that are" in result.stderr


def test_deregistering_through_the_wrong_context_stops_before_any_harm(clusters: Clusters) -> None:
    registered(clusters)
    clusters.load("mgmt", registration("cluster2"))

    result = meshctl(
        "cluster", "deregister", "cluster2", "--mgmt-context=mgmt", "--remote-context=cluster1",
        kubeconfig=clusters.kubeconfig,
    )  # fmt: skip

    assert result.exit_code == 1
    assert "cluster1 already runs an agent, for a cluster registered as cluster1" in result.stderr
    names = meshctl("cluster", "list", "-o", "name", kubeconfig=clusters.kubeconfig).stdout.split()
    assert names == [f"kubernetescluster.multicluster.solo.io/cluster{n}" for n in (1, 2)]
