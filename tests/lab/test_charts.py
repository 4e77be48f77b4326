"""Our charts in Helm's hands: the same objects as from `meshctl`, the same values refused, and programs that run.

Theme *charts*. All but the last tests need of the lab only its `helm`.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
import typing
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from isthmus.install import AgentValues, ManagementPlaneValues, Release, agent, management_plane, read_values
from isthmus.install.chart import AGENT, MANAGEMENT_PLANE, directory
from isthmus.install.values import CLUSTER_NAME, SERVER_ADDRESS, Free, Values
from isthmus.lab.binaries import find
from isthmus.pki import authority_of, certificate_facts, check_chain
from tests.lab.running import COMMAND_SECONDS, ROOT, Lab, eventually

Manifest = dict[str, Any]

MINIMUM = {MANAGEMENT_PLANE: {}, AGENT: {"relay": {"cluster": "cluster1", "serverAddress": "192.0.2.1:9900"}}}
TYPES: dict[str, type[Values]] = {MANAGEMENT_PLANE: ManagementPlaneValues, AGENT: AgentValues}
BROUGHT = "enterprise-networking.selfSigned=false"  # no two runs make the same certificates


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """How Helm ends; it has no kubeconfig, so it asks no cluster."""
    command = [str(find().path("helm")), *map(str, arguments)]
    environment = {"KUBECONFIG": "/dev/null", "HOME": "/nonexistent"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)


def template(chart: str, values: Path, namespace: str, *more: str) -> subprocess.CompletedProcess[str]:
    return helm("template", "any", directory(chart), "--include-crds", "-n", namespace, "-f", values, *more)


def ours(chart: str, document: Manifest, namespace: str) -> Iterable[Manifest]:
    """What `meshctl` applies, without what it adds to the chart."""
    release = Release(namespace=namespace)
    if chart == AGENT:
        values = read_values(AgentValues, [document])
        assert isinstance(values, AgentValues), values
        found = agent(values, release)
    else:
        chosen = read_values(ManagementPlaneValues, [document])
        assert isinstance(chosen, ManagementPlaneValues), chosen
        found = management_plane(chosen, release)
    return (item for item in found if item["kind"] != "Namespace")


def in_order(items: Iterable[Manifest | None]) -> list[Manifest]:
    def key(item: Manifest) -> tuple[str, ...]:
        metadata = item["metadata"]
        return item["kind"], metadata.get("namespace", ""), metadata["name"]

    return sorted(filter(None, items), key=key)


# What YAML might take for something else, and what would break a template that does not quote.
TRICKY = st.sampled_from(
    ["", "true", "no", "~", "null", "12", "1.50", "1e3", "0x1f", "2026-01-01", "a: b", "- a", " a ", "# a", "{{ .a }}"]
)
# No file of values may hold control characters.
CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Cn", "Cs"))
TEXT = TRICKY | st.text(CHARACTERS, max_size=8).map(lambda text: f"x{text}")
SCALAR = TEXT | st.booleans() | st.integers(-(2**31), 2**31)
NESTED = st.recursive(
    st.none() | SCALAR,
    lambda below: (
        st.lists(below, max_size=2) | st.dictionaries(st.sampled_from(["a", "cpu", "b/c"]), below, max_size=2)
    ),
    max_leaves=4,
)
FREE = st.dictionaries(
    st.sampled_from(["metadata", "labels", "requests", "limits", "cpu", "x.y/z"]), NESTED, max_size=2
)
# Over a manifest, only with what keeps it one: Helm reads name and kind of what it prints.
OVERRIDES = st.fixed_dictionaries({}, optional={"spec": FREE, "status": FREE | st.none(), "extra": SCALAR | st.none()})
PATTERNS = {"cluster": CLUSTER_NAME, "serverAddress": SERVER_ADDRESS}


def documents(type_: Any, name: str = "") -> st.SearchStrategy[Any]:
    """Values that a user may write for *type_*; any part may be left to the default."""
    if isinstance(type_, type) and issubclass(type_, Values):
        fields = {f.encode_name: documents(f.type, f.encode_name) for f in msgspec.structs.fields(type_)}
        return st.fixed_dictionaries({}, optional=fields)
    if type_ == Free:
        return OVERRIDES if name.endswith("Overrides") else FREE
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if name in PATTERNS:
        return st.from_regex(PATTERNS[name], fullmatch=True)
    if origin is Annotated and arguments[0] is int:
        limits = arguments[1]
        return st.integers(limits.ge, limits.le or 2**31 - 1)
    if origin is typing.Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.lists(TEXT, max_size=2)
    return st.booleans() if type_ is bool else TEXT


@pytest.mark.parametrize("chart", TYPES)
def test_helm_finds_nothing_to_complain_about(chart: str) -> None:
    """Not even a warning."""
    ended = helm("lint", "--strict", directory(chart))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "[WARNING]" not in ended.stdout


@pytest.mark.parametrize("chart", TYPES)
@settings(max_examples=40, phases=(Phase.explicit, Phase.reuse, Phase.generate))  # Helm is slow to start: no shrinking
@given(data=st.data(), namespace=st.sampled_from(["gloo-mesh", "123", "a-b"]))
def test_meshctl_renders_what_helm_renders(
    chart: str, data: st.DataObject, namespace: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One installation, whatever the tool: our renderer is Helm's as far as these charts go."""
    document = data.draw(documents(TYPES[chart]))
    if chart == AGENT:
        document["relay"] = {**MINIMUM[AGENT]["relay"], **document.get("relay", {})}
    values = tmp_path_factory.mktemp("helm") / "values.json"
    values.write_text(json.dumps(document, ensure_ascii=False))

    ended = template(chart, values, namespace, *(["--set", BROUGHT] if chart == MANAGEMENT_PLANE else []))

    assert ended.returncode == 0, ended.stderr
    assert in_order(ours(chart, document, namespace)) == in_order(yaml.safe_load_all(ended.stdout))


@pytest.mark.parametrize(
    ("chart", "setting", "path"),
    [
        (MANAGEMENT_PLANE, "licenceKey=x", "licenceKey"),
        (MANAGEMENT_PLANE, "enterprise-networking.enterpriseNetworking.serviceType=Magic", "serviceType"),
        (MANAGEMENT_PLANE, "enterprise-networking.enterpriseNetworking.ports.grpc=0", "grpc"),
        (MANAGEMENT_PLANE, "enterprise-networking.verbose=loud", "verbose"),
        (AGENT, "relay.cluster=Cluster_1", "cluster"),
        (AGENT, "relay.serverAddress=https://a:9900", "serverAddress"),
        (AGENT, "relay.cluster=", "cluster"),
        (AGENT, "enterpriseAgent.runAsUser=0", "runAsUser"),
    ],
)
def test_both_refuse_what_no_chart_can_honour(chart: str, setting: str, path: str, tmp_path: Path) -> None:
    """A typing mistake never installs something else silently, and the error names the value."""
    file = tmp_path / "values.json"
    file.write_text(json.dumps(MINIMUM[chart]))

    ended = template(chart, file, "gloo-mesh", "--set", setting)
    problem = read_values(TYPES[chart], [MINIMUM[chart]], [setting])  # type: ignore[type-var]

    assert ended.returncode != 0
    assert path in ended.stderr
    assert not isinstance(problem, Values)


def test_helm_takes_a_licence_key_of_digits_only() -> None:
    """Helm reads it as a number; the walk-through's command does not quote it."""
    ended = helm("template", "any", directory(MANAGEMENT_PLANE), "--set", f"licenseKey=1234567,{BROUGHT}")

    (secret,) = [item for item in yaml.safe_load_all(ended.stdout) if item and item["kind"] == "Secret"]
    assert secret["data"] == {"key": "MTIzNDU2Nw=="}


# --- on clusters ----------------------------------------------------------------------------------------------------

NAMESPACE = "helm-mesh"
GUIDE = ROOT / "docs" / "guide" / "installing.md"
WALKTHROUGH = (
    "helm install gloo-mesh-enterprise gloo-mesh-enterprise/gloo-mesh-enterprise --namespace gloo-mesh "
    "--kube-context mgmt --set licenseKey=${GLOO_MESH_LICENSE_KEY} "
    "--set gloo-mesh-ui.GlooMeshDashboard.apiserver.floatingUserId=true"
)


class Helm:
    """A shell in which the lab's clusters have other names and our charts are in the folder *folder*.

    What the guide calls ``mgmt`` and ``cluster1`` is cluster1 and cluster2, and the namespace is one that nothing else
    uses: so this management plane and its agent do not meet those of other tests.
    """

    def __init__(self, lab: Lab, folder: Path) -> None:
        config = yaml.safe_load(lab.kubeconfig.read_text())
        for context in config["contexts"]:
            context["name"] = {"cluster1": "mgmt", "cluster2": "cluster1"}.get(context["name"], "unused")
        (folder / "kubeconfig").write_text(json.dumps(config))
        (folder / "charts").symlink_to(directory(MANAGEMENT_PLANE).parent)
        (folder / "gloo-mesh-enterprise").mkdir()
        (folder / "gloo-mesh-enterprise" / "gloo-mesh-enterprise").symlink_to(directory(MANAGEMENT_PLANE))
        more = {"KUBECONFIG": str(folder / "kubeconfig"), "GLOO_MESH_LICENSE_KEY": "1234567"}
        self._environment = {**lab.environment, **more, "HOME": str(folder)}
        self._folder = folder

    def shell(self, script: str, *, good: bool = True) -> str:
        """What *script* prints, with its namespace exchanged for ours."""
        ours = re.sub(r"\bgloo-mesh\b(?!-)", NAMESPACE, script)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", ours],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert (done.returncode == 0) is good, f"{ours}\n{done.stdout}{done.stderr}exit code {done.returncode}"
        return done.stdout if good else done.stderr

    def objects(self, context: str, what: str) -> list[Manifest]:
        """What `kubectl get` finds in our namespace."""
        found = json.loads(self.shell(f"kubectl --context {context} -n gloo-mesh get {what} -o json"))
        items: list[Manifest] = found.get("items", [found])
        return items

    def secret(self, context: str, name: str) -> dict[str, bytes]:
        (found,) = self.objects(context, f"secret/{name}")
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    def secrets(self) -> dict[str, Manifest]:
        """The relay's Secrets of the management plane."""
        items = self.objects("mgmt", "secret -l app=enterprise-networking")
        return {item["metadata"]["name"]: item["data"] for item in items if item["metadata"]["name"] != LICENSE}


LICENSE = "gloo-mesh-enterprise-license"
RELAY = {
    "relay-root-tls-secret", "relay-server-tls-secret", "relay-tls-signing-secret", "relay-identity-token-secret"
}  # fmt: skip


@pytest.fixture
def installed(lab: Lab, tmp_path: Path) -> Iterator[Helm]:
    """The management plane, installed with the walk-through's command to the letter."""
    shell = Helm(lab, tmp_path)
    contexts = ("mgmt", "cluster1")
    before = {context: shell.shell(f"kubectl --context {context} get crd -o name").split() for context in contexts}
    try:
        shell.shell("kubectl --context mgmt create namespace gloo-mesh")
        shell.shell(WALKTHROUGH)
        yield shell
    finally:
        for context in contexts:
            shell.shell(
                f"helm list --kube-context {context} -n gloo-mesh -q |"
                f"  xargs -rn1 helm uninstall --kube-context {context} -n gloo-mesh\n"
                f"kubectl --context {context} delete namespace gloo-mesh --ignore-not-found"
            )
            now = shell.shell(f"kubectl --context {context} get crd -o name").split()
            for name in sorted({*now} - {*before[context]}):
                shell.shell(f"kubectl --context {context} delete {name}")


def guide(heading: str) -> str:
    """The commands of a section of the guide."""
    section = next(part for part in GUIDE.read_text().split("\n## ") if part.startswith(heading))
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL))


def test_the_guides_commands_install_what_runs(installed: Helm) -> None:
    """The server and an agent, on certificates that Helm made, with the charts' rights and any user id."""
    installed.shell(
        "kubectl --context mgmt -n gloo-mesh rollout status --timeout=120s deployment/enterprise-networking"
    )
    eventually(
        "the relay has an address",
        lambda: installed.objects("mgmt", "svc/enterprise-networking")[0]["status"]["loadBalancer"].get("ingress"),
    )
    installed.shell(guide("A cluster"))

    def connected() -> bool:
        (cluster,) = installed.objects("mgmt", "kubernetesclusters/cluster1")
        return [found["message"] for found in cluster.get("status", {}).get("status", ())] == ["agent connected"]

    eventually("the agent is connected", connected)
    signing, client = (
        installed.secret("mgmt", "relay-tls-signing-secret"),
        installed.secret("cluster1", "relay-client-tls-secret"),
    )
    assert check_chain(client["tls.crt"], authority_of(signing).root, datetime.now(UTC)) is None
    assert certificate_facts(client["tls.crt"]).dns_names == ("cluster1",)
    for context, name in (("mgmt", "enterprise-networking"), ("cluster1", "enterprise-agent")):
        log = installed.shell(f"kubectl --context {context} -n gloo-mesh logs deployment/{name}")
        assert "forbidden" not in log.lower(), log
    assert "runAsUser" not in json.dumps(installed.objects("mgmt", "deployment/enterprise-networking"))


def test_upgrade_rollback_and_uninstallation_keep_what_is_made_once(installed: Helm) -> None:
    """Agents trust the relay's Secrets, and Settings are the users'."""
    made = installed.secrets()
    tls = '{"spec": {"mtls": {"istio": {"tlsMode": "SIMPLE"}}}}'
    chart = "gloo-mesh-enterprise charts/isthmus --namespace gloo-mesh --kube-context mgmt"

    installed.shell(f"kubectl --context mgmt -n gloo-mesh patch settings settings --type merge -p '{tls}'")
    for command in (
        f"helm upgrade {chart} --set enterprise-networking.verbose=true",
        "helm rollback gloo-mesh-enterprise 1 --namespace gloo-mesh --kube-context mgmt",
        f"helm upgrade {chart}",
        "helm uninstall gloo-mesh-enterprise --namespace gloo-mesh --kube-context mgmt",
        f"helm install {chart}",
    ):
        installed.shell(command)

        assert installed.secrets() == made, command
        (settings_,) = installed.objects("mgmt", "settings")
        assert settings_["spec"] == json.loads(tls)["spec"], command
    assert set(made) == RELAY


def test_half_a_set_of_certificates_is_not_completed_with_another_root(installed: Helm) -> None:
    """A lost signing CA is the user's to restore; a lost token is just made anew."""
    upgrade = "helm upgrade gloo-mesh-enterprise charts/isthmus --namespace gloo-mesh --kube-context mgmt"
    delete = "kubectl --context mgmt -n gloo-mesh delete secret"
    made = installed.secrets()
    installed.shell(f"{delete} relay-identity-token-secret && {upgrade}")
    again = installed.secrets()
    installed.shell(f"{delete} relay-tls-signing-secret")

    refused = installed.shell(upgrade, good=False)

    assert "of the relay's certificates only some are there, such as relay-root-tls-secret" in refused
    assert {name for name in RELAY if again[name] != made[name]} == {"relay-identity-token-secret"}


def test_meshctl_leaves_to_helm_what_helm_installed(installed: Helm) -> None:
    """And says which command of Helm does it."""
    refused = installed.shell("meshctl install --kubecontext mgmt --namespace gloo-mesh", good=False)

    assert "`helm upgrade gloo-mesh-enterprise charts/isthmus --namespace helm-mesh`" in refused
