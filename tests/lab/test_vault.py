"""A real Vault signs for both clusters, set up with the guide's commands; the certificates are read from the proxies.

`make lab-test K=vault` builds it and runs these tests; nothing else does.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from isthmus.lab.binaries import EXTRAS, VAULT, BinariesMissing, find
from isthmus.lab.box import Box
from isthmus.lab.plan import WIRE_OF_BOX, plan
from isthmus.pki import CA_KEY, check_chain
from isthmus.pki.certificates import load_certificates
from tests.lab.running import ROOT, WALKTHROUGH, Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OTHER
from tests.lab.trusting import (
    ISSUE_SECONDS,
    MESH,
    across,
    data_of,
    failures,
    from_outside,
    handshake,
    held,
    is_in,
    proxies,
    restarted_for,
    status_of,
)

PORT = 8200
ROOT_TOKEN = "root-token-of-the-tests"
PLUGIN = "vault-plugin-auth-kubernetes"  # in Vault's own builds it is there under the name `kubernetes`
START_SECONDS = 60.0


@dataclass
class Vault:
    """A Vault in development mode, beside the clusters; *folder* has its files and its command."""

    lab: Lab
    folder: Path
    program: Path
    role_id: str = ""
    root: bytes = b""
    told: dict[str, list[str]] = field(default_factory=dict)
    answers: list[Json] = field(default_factory=list)
    """To requests that were sent while the certificates came."""

    @property
    def server(self) -> str:
        return f"https://{WIRE_OF_BOX}:{PORT}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables with which `vault` speaks to it, as the guide's commands expect."""
        own = {
            "VAULT_ADDR": self.server,
            "VAULT_CACERT": str(self.folder / "vault-ca.pem"),
            "VAULT_TOKEN": ROOT_TOKEN,
            "PATH": f"{self.folder}:{self.lab.environment['PATH']}",
        }
        return {**self.lab.environment, **own}

    def attempt(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run *script* as somebody who runs Vault and the clusters."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, script: str) -> str:
        """What *script* prints."""
        done = self.attempt(script)
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Start it in the box's own network, which the clusters' machines reach."""
        plugins = self.folder / "plugins"
        plugins.mkdir()
        (plugins / PLUGIN).hardlink_to(self._own_program())
        command = self.folder / "vault"
        inside = Box(self.lab.directory).inside("", [str(self.program)])
        command.write_text(f'#!/bin/sh\nexec {shlex.join(inside)} "$@"\n')
        command.chmod(0o755)
        address = f"{WIRE_OF_BOX}:{PORT}"
        options = [
            "-dev", "-dev-tls", f"-dev-tls-cert-dir={self.folder}", f"-dev-tls-san={WIRE_OF_BOX}",
            f"-dev-root-token-id={ROOT_TOKEN}", "-dev-no-store-token", f"-dev-listen-address={address}",
            f"-dev-plugin-dir={plugins}",
        ]  # fmt: skip
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [command, "server", *options], stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        eventually("Vault answers", self._answers, within=START_SECONDS)

    def _own_program(self) -> Path:
        """A copy on the same file system: plug-ins are not looked for behind links."""
        copy = self.folder / "program"
        with suppress(OSError):
            copy.hardlink_to(self.program)
            return copy
        copy.write_bytes(self.program.read_bytes())
        copy.chmod(0o755)
        return copy

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")
        return (self.folder / "vault-ca.pem").exists() and self.attempt("vault status").returncode == 0

    def stop(self) -> None:
        """End it, which is the child of who went into the box for it."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in map(int, children):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        self._process.wait(30)

    def seal(self) -> None:
        self.run("vault operator seal")

    def unseal(self) -> None:
        found = re.search(r"^Unseal Key: (\S+)", (self.folder / "log").read_text(), flags=re.MULTILINE)
        assert found is not None
        self.run(f"vault operator unseal {shlex.quote(found[1])}")


def guide(language: str) -> list[str]:
    """The blocks of the guide's section about Vault, in *language*."""
    text = (ROOT / "docs" / "guide" / "trust.md").read_text()
    section = text.partition("\n## An authority of your own: Vault\n")[2].partition("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


def replaced(script: str, changes: dict[str, str]) -> str:
    """*script* with what a user would have changed in it."""
    for before, after in changes.items():
        assert before in script, before
        script = script.replace(before, after)
    return script


@pytest.fixture(scope="module")
def vault(bookinfo: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vault]:
    """Vault with an engine that signs, and a login for the agent of either cluster."""
    try:
        program = find(EXTRAS[VAULT]).path(VAULT)
    except BinariesMissing as missing:
        pytest.fail(f"{missing}; run `make lab-test K=vault`, which builds it")
    found = Vault(bookinfo, tmp_path_factory.mktemp("vault"), program)
    engine, kubernetes, app_role = guide("sh")
    found.start()
    try:
        found.root = _root_in(found.run(engine))
        for cluster in plan():
            if cluster.name in CLUSTERS:
                for left in (("serviceaccount", "vault", "-n", "kube-system"), ("clusterrolebinding", "vault")):
                    bookinfo.kubectl(cluster.name, "delete", *left, "--ignore-not-found")
                changes = {
                    "CLUSTER=cluster1": f"CLUSTER={cluster.name}",
                    "https://api.cluster1.example.com:6443": f"https://{cluster.address}:6443",
                    "kubernetes-$CLUSTER kubernetes\n": f"kubernetes-$CLUSTER {PLUGIN}\n",
                }
                found.run(replaced(kubernetes, changes))
        for line in app_role.partition("for CLUSTER")[0].splitlines():
            found.role_id = found.run(line).strip()
        yield found
    finally:
        bookinfo.kubectl("mgmt", "delete", *MESH, "--ignore-not-found")
        found.stop()


def _root_in(printed: str) -> bytes:
    """The certificate that the engine's setup prints."""
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", printed, flags=re.DOTALL)
    assert found is not None, printed
    return found[0].encode() + b"\n"


def ask_vault(vault: Vault, login: Json) -> None:
    """Apply the walk-through's VirtualMesh with the guide's Vault in it."""
    manifest = yaml.safe_load((WALKTHROUGH / "virtual-mesh.yaml").read_text())
    [example] = guide("yaml")
    shared = yaml.safe_load(example)["spec"]["mtlsConfig"]["shared"]
    settings = shared["intermediateCertificateAuthority"]["vault"]
    settings["server"] = vault.server
    settings["caBundle"] = base64.b64encode((vault.folder / "vault-ca.pem").read_bytes()).decode()
    if login:
        del settings["kubernetesAuth"]
    shared["intermediateCertificateAuthority"]["vault"] = {**settings, **login}
    manifest["spec"]["mtlsConfig"]["shared"] = shared
    vault.lab.apply("mgmt", manifest)


def fails_with(lab: Lab, cluster: str, text: str) -> str:
    status = status_of(lab, cluster)
    return str(status["error"]) if status.get("state") == "FAILED" and text in status.get("error", "") else ""


@pytest.fixture(scope="module")
def signed(vault: Vault) -> Vault:
    """Vault is sealed when the VirtualMesh comes, and unsealed under requests when both agents have said so."""
    lab = vault.lab
    vault.seal()
    ask_vault(vault, {})
    for cluster in CLUSTERS:
        error = eventually(f"{cluster} tells of the seal", partial(fails_with, lab, cluster, "sealed"), within=120)
        vault.told[cluster] = [str(error)]
    said = partial(virtual_mesh_says, lab, "Vault is sealed")
    vault.told["mgmt"] = eventually("the VirtualMesh tells of the seal", said)
    with ExitStack() as stack:
        loads = [stack.enter_context(from_outside(lab, cluster, "/api/v1/products/0/reviews")) for cluster in CLUSTERS]
        for load in loads:
            load.until("requests that are answered", lambda answer: answer["status"] == 200)
        vault.unseal()
        began = time.time()
        for cluster in CLUSTERS:
            eventually(f"{cluster} is done", partial(is_in, lab, cluster, "FINISHED"), within=ISSUE_SECONDS)
        end = time.time()
        for load in loads:
            load.until("a request afterwards", lambda answer: answer["at"] > end, within=60)
            vault.answers += load.seen
    lab.measured.append(f"Vault unsealed to FINISHED: {end - began:.0f} s, {len(vault.answers)} requests meanwhile")
    return vault


def virtual_mesh_says(lab: Lab, text: str) -> list[str]:
    [found] = lab.objects("mgmt", *MESH)
    return [line for line in said_of(found.get("status") or {}) if text in line]


def said_of(status: Json) -> list[str]:
    """Every error and warning in the status of a VirtualMesh."""
    meshes = [line for mesh in (status.get("meshes") or {}).values() for line in mesh.get("errors", ())]
    return [*status.get("errors", ()), *status.get("warnings", ()), *meshes]


def test_a_sealed_vault_is_told_with_what_to_do_and_heals_by_itself(signed: Vault) -> None:
    for cluster in CLUSTERS:
        assert signed.told[cluster] == [
            f"spec.agentCa.vault.server: {signed.server}: Vault is sealed; unseal it, or wait until it is active"
        ]
        assert status_of(signed.lab, cluster)["appliedAgentCa"]["vault"]["kubernetesAuth"]["mountPath"] == (
            f"/v1/auth/kubernetes-{cluster}"
        )
    assert signed.told["mgmt"]
    assert virtual_mesh_says(signed.lab, "certificate") == []


def test_no_request_inside_a_cluster_fails_while_vault_s_root_replaces_istiod_s(signed: Vault) -> None:
    assert len(signed.answers) > 100
    assert failures(signed.answers) == []


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_calls_across_clusters_succeed(signed: Vault, cluster: str) -> None:
    [answer] = signed.lab.call(cluster, across(cluster))

    assert (answer["status"], answer["cluster"]) == (200, OTHER[cluster])


def test_what_proxies_present_leads_to_vault_s_root(signed: Vault) -> None:
    """Of either cluster by an authority of its own, which Vault signed for workloads only."""
    lab, issuers = signed.lab, set()
    for cluster in CLUSTERS:
        [name] = lab.pods(cluster, "app=reviews,version=v1")
        [pod] = lab.objects(cluster, "pod", name)
        presented = handshake(lab, cluster, f"{pod['status']['podIP']}:9080")

        assert check_chain(presented, signed.root, datetime.now(UTC)) is None
        leaf, issuer = load_certificates(presented)[:2]
        assert f"spiffe://{cluster}/ns/default/sa/bookinfo-reviews" in str(leaf.extensions)
        names = issuer.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier)[0].startswith(
            f"spiffe://{cluster}/ns/istio-system/"
        )
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        assert (constraints.ca, constraints.path_length) == (True, 0)
        assert (issuer.not_valid_after_utc - datetime.now(UTC)).days in (89, 90)
        for proxy in proxies(lab, cluster):
            assert load_certificates(held(lab, cluster, proxy)[1]) == load_certificates(signed.root)
        issuers.add(issuer)

    assert len(issuers) == len(CLUSTERS)


def test_the_management_cluster_has_no_part_in_it(signed: Vault) -> None:
    """No Secret there holds Vault's root or a key of a mesh."""
    held_there = [
        base64.b64decode(value)
        for secret in signed.lab.objects("mgmt", "secrets", "-A")
        for value in (secret.get("data") or {}).values()
    ]
    keys = [data_of(signed.lab, cluster, "cacerts", "istio-system")[CA_KEY] for cluster in CLUSTERS]

    assert held_there
    assert len(set(keys)) == len(CLUSTERS)
    assert not any(signed.root.strip() in value or value in keys for value in held_there)


def test_another_login_brings_new_certificates_and_what_is_missing_is_named(signed: Vault) -> None:
    """AppRole, with the secret id on one cluster first: the other keeps what it has and says what it lacks."""
    lab = signed.lab
    before = {cluster: restarted_for(lab, cluster) for cluster in CLUSTERS}
    *_, app_role = guide("sh")
    secrets = "for CLUSTER" + app_role.partition("for CLUSTER")[2]
    for cluster in CLUSTERS:
        lab.kubectl(cluster, "delete", "secret", "vault-approle", "-n", "gloo-mesh", "--ignore-not-found")
    signed.run(replaced(secrets, {"cluster1 cluster2": "cluster1"}))

    ask_vault(signed, {"appRoleAuth": {"roleId": signed.role_id, "secretIdSecretRef": {"name": "vault-approle"}}})
    eventually("cluster1 is done", partial(is_in, lab, "cluster1", "FINISHED"), within=ISSUE_SECONDS)
    assert restarted_for(lab, "cluster1") != before["cluster1"]
    lacks = partial(fails_with, lab, "cluster2", "Secret gloo-mesh/vault-approle does not exist on this cluster")
    assert "spec.agentCa.vault.appRoleAuth.secretIdSecretRef" in eventually("cluster2 says what it lacks", lacks)
    assert restarted_for(lab, "cluster2") == before["cluster2"]
    assert lab.call("cluster1", across("cluster1"))[0]["status"] == 200

    signed.run(replaced(secrets, {"cluster1 cluster2": "cluster2"}))
    eventually("cluster2 is done", partial(is_in, lab, "cluster2", "FINISHED"), within=ISSUE_SECONDS)
    assert restarted_for(lab, "cluster2") != before["cluster2"]
    for cluster in CLUSTERS:
        chain, root = held(lab, cluster, "deploy/client")
        assert check_chain(chain, signed.root, datetime.now(UTC)) is None
        assert load_certificates(root) == load_certificates(signed.root)
        assert lab.call(cluster, across(cluster))[0]["status"] == 200


def test_nobody_s_log_holds_a_credential_or_a_key(signed: Vault) -> None:
    """Nor does what the agents told the server, which keeps it as objects."""
    lab = signed.lab
    secrets = [ROOT_TOKEN]
    for cluster in CLUSTERS:
        secrets.append(data_of(lab, cluster, "vault-approle", "gloo-mesh")["secretId"].decode())
        secrets.append(data_of(lab, cluster, "cacerts", "istio-system")[CA_KEY].decode().splitlines()[1])
    logs = [
        path.read_text(errors="replace")
        for cluster in ("mgmt", *CLUSTERS)
        for path in (lab.directory / cluster / "pods").glob("*gloo-mesh*/**/*.log")
    ]
    told: Any = [lab.objects("mgmt", kind, "-A") for kind in ("meshes", "virtualmeshes")]

    assert len(logs) >= 3
    assert sum("Vault is sealed" in log for log in logs) >= len(CLUSTERS)
    text = "".join([*logs, json.dumps(told)])
    assert not [secret for secret in secrets if secret in text]
