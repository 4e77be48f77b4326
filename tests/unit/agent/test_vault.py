"""An authority that agents ask themselves: what becomes of its answers, and of everything else that it may say."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog

from isthmus.agent.certificates import Action, Certificates, Sign, SigningFailed, Tell
from isthmus.agent.certify import Certifier
from isthmus.agent.outputs import Outputs
from isthmus.agent.ownership import selector
from isthmus.agent.vault import AppRoleLogin, KubernetesLogin, Token, VaultSigner
from isthmus.api import crds
from isthmus.api.certificate_request import CertificateRequestState, CertificateRequestStatus
from isthmus.api.common import ObjectRef, VaultAppRoleAuth, VaultCA, VaultKubernetesAuth
from isthmus.api.issued_certificate import AgentCa, IssuedCertificate, IssuedCertificateSpec
from isthmus.api.issued_certificate import IssuedCertificateState as State
from isthmus.api.kinds import CERTIFICATES
from isthmus.api.parse import ParseFailure, parse
from isthmus.embedded import EmbeddedCluster
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import SECRET
from isthmus.pki import (
    CA_CERT,
    CA_KEY,
    CERT_CHAIN,
    ROOT_CERT,
    Authority,
    PemInvalid,
    check_chain,
    make_intermediate_csr,
    make_leaf,
    make_trust_root,
    new_key,
    sign_csr,
    sign_intermediate,
)
from isthmus.pki.issued import chain_to_root
from isthmus.relay import Publication
from tests.unit.agent.issuance import (
    HOST,
    ISTIO,
    NAME,
    NAMESPACE,
    OURS,
    START,
    Agent,
    Cluster,
    Pods,
    Signer,
    root,
    rsa_key,
    spec,
)
from tests.unit.agent.test_apply import until

Json = dict[str, Any]

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJl"
SECRET_ID = "0f6d5c0e-secret-id"
VAULT_TOKEN = "hvs.given-to-somebody"
TEMPORARY = "hvs.given-for-a-login"
SIGNING = "/v1/pki/root/sign-intermediate"
TOKEN_REF = ObjectRef(name="vault-token")
APP_ROLE = VaultAppRoleAuth(role_id="isthmus", secret_id_secret_ref=ObjectRef(name="vault-approle"))


def elsewhere(vault: VaultCA | None = None, *, trust: str = "vault") -> IssuedCertificateSpec:
    """The certificate that the management plane wants of an authority that is not its own."""
    vault = vault or VaultCA(server="https://vault", ca_path="pki/root/sign-intermediate", token_secret_ref=TOKEN_REF)
    return msgspec.structs.replace(spec(trust=trust), gloo_mesh_ca=None, agent_ca=AgentCa(vault=vault))


# --- the way it goes, without I/O -------------------------------------------------------------------------------------


@dataclass
class Elsewhere:
    """An authority that agents ask."""

    trust: str = "vault"
    refuse: str = ""
    hosts: tuple[str, ...] = (HOST,)
    other_key: bool = False
    no_ca: bool = False
    wrong_root: bool = False
    days: int = 30
    late: timedelta = timedelta(0)
    asked: list[datetime] = field(default_factory=list)

    def sign(self, csr: bytes, now: datetime) -> CertificateRequestStatus:
        """The answer. Raises `SigningFailed`."""
        self.asked.append(now)
        if self.refuse:
            raise SigningFailed(self.refuse)
        issuer, life = root(self.trust), timedelta(days=self.days)
        now -= self.late
        if self.other_key:
            csr = make_intermediate_csr(rsa_key(99), hosts=self.hosts, organization="Istio", unit=NAME)
        signed = sign_intermediate(issuer, csr, hosts=self.hosts, serial=7 + len(self.asked), now=now, life=life)
        if self.no_ca:
            signed = sign_csr(issuer, csr, dns_names=["a"], serial=9, now=now, life=life)
        return CertificateRequestStatus(
            state=CertificateRequestState.FINISHED,
            signed_certificate=signed,
            signing_root_ca=root("another").certificate if self.wrong_root else issuer.certificate,
            cert_chain=signed + issuer.certificate,
        )


class AskingAgent(Agent):
    """An agent without I/O that asks *authority*."""

    def __init__(self, cluster: Cluster, authority: Elsewhere, pods: Pods | None = None) -> None:
        super().__init__(cluster, pods)
        self.authority = authority

    def act(self, action: Action, now: datetime) -> None:
        """What `certify` does."""
        if not isinstance(action, Sign):
            super().act(action, now)
            return
        try:
            answer = self.machine.answer_to(action, self.authority.sign(action.csr, now), now)
        except SigningFailed as error:
            self.machine.not_signed(action, str(error), now)
            return
        super().act(answer, now)


@pytest.fixture
def cluster() -> Cluster:
    found = Cluster()
    found.want(elsewhere())
    return found


def is_complete(cluster: Cluster, now: datetime, trust: str = "vault") -> None:
    """What must hold once all is done."""
    request, data = cluster.request(), cluster.data()
    assert request is not None
    assert request.status is not None
    assert b64decode(data[CA_CERT]) == request.status.signed_certificate
    assert b64decode(data[ROOT_CERT]) == root(trust).certificate
    assert data[CA_KEY] == cluster.private_key()
    assert check_chain(b64decode(data[CERT_CHAIN]), b64decode(data[ROOT_CERT]), now) is None
    status = cluster.status()
    assert (status.state, status.error) == (State.FINISHED, "")
    assert status.applied_agent_ca == elsewhere().agent_ca
    assert status.applied_gloo_mesh_ca is None


def test_a_certificate_is_signed_elsewhere_without_the_management_plane(cluster: Cluster) -> None:
    agent = AskingAgent(cluster, Elsewhere())
    told = []
    while agent.step(START):
        if isinstance(agent.last.action, Tell):
            told.append(agent.last.action.status.state)

    assert told == [State.PENDING, State.REQUESTED, State.FINISHED]
    assert len(agent.authority.asked) == 1
    is_complete(cluster, START)


@pytest.mark.parametrize("steps", range(9))
def test_an_agent_that_is_killed_anywhere_goes_on_where_it_was(cluster: Cluster, steps: int) -> None:
    authority = Elsewhere()
    agent = AskingAgent(cluster, authority)
    for _ in range(steps):
        agent.step(START)

    AskingAgent(cluster, authority).settle(START)

    assert cluster.keys_made == 1
    assert len(authority.asked) == 1
    is_complete(cluster, START)


def test_a_refusal_is_told_and_asked_about_again_ever_more_rarely(cluster: Cluster) -> None:
    """Whatever happens on the cluster meanwhile, a sealed Vault is not asked all the time, and one that heals is."""
    authority = Elsewhere(refuse="spec.agentCa.vault.server: https://vault: Vault is sealed; unseal it")
    agent = AskingAgent(cluster, authority)
    now = START
    for _ in range(300):
        agent.settle(now)
        assert agent.last.wake is not None
        now += timedelta(seconds=1)
    waits = [
        (after - before).total_seconds() for before, after in zip(authority.asked, authority.asked[1:], strict=False)
    ]

    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    status = cluster.status()
    assert (status.state, status.error) == (State.FAILED, authority.refuse)
    assert cluster.data() == {}
    request = cluster.request()
    assert request is not None
    assert request.status is None

    authority.refuse = ""
    agent.settle(now + timedelta(seconds=60))
    is_complete(cluster, now)


def test_other_settings_are_tried_at_once(cluster: Cluster) -> None:
    authority = Elsewhere(refuse="spec.agentCa.vault.caPath: permission denied")
    agent = AskingAgent(cluster, authority)
    agent.settle(START)
    authority.refuse = ""

    cluster.want(elsewhere(trust="other settings"))
    agent.settle(START)

    assert len(authority.asked) == 2
    is_complete(cluster, START)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"other_key": True}, "another key"),
        ({"no_ca": True}, "cannot sign others"),
        ({"hosts": ("spiffe://cluster2/ns/istio-system/sa/istiod",)}, f"does not name {HOST}"),
        ({"wrong_root": True}, "not among the certificates"),
        ({"late": timedelta(days=2), "days": 1}, "expired on"),
    ],
)
def test_an_answer_that_was_not_asked_for_is_not_taken(cluster: Cluster, wrong: Json, error: str) -> None:
    """It is asked for again later, and then taken if it is right."""
    agent = AskingAgent(cluster, Elsewhere(**wrong))
    agent.settle(START)

    assert cluster.status().state is State.FAILED
    assert error in cluster.status().error
    assert cluster.data() == {}
    request = cluster.request()
    assert request is not None
    assert request.status is None

    agent.authority = Elsewhere()
    agent.settle(START + timedelta(minutes=1))
    is_complete(cluster, START)


def test_the_management_plane_s_answers_do_not_count(cluster: Cluster) -> None:
    """Nor does what it answered before Vault was to be asked."""
    cluster.want(spec())
    agent = AskingAgent(cluster, Elsewhere())
    agent.settle(START)
    signer = Signer(refuse="no VirtualMesh asks for it")
    signer.look(cluster.request(), START)
    signer.tell(agent)
    agent.settle(START)
    assert cluster.status().error == signer.refuse

    cluster.want(elsewhere())
    agent.see()
    while not isinstance(agent.machine.decide(NAME, START).action, Sign):
        assert agent.step(START)
    Signer.look(signer := Signer(), cluster.request(), START)
    signer.tell(agent)
    agent.settle(START)

    is_complete(cluster, START)


def test_a_certificate_is_renewed_with_a_new_key(cluster: Cluster) -> None:
    agent = AskingAgent(cluster, Elsewhere())
    agent.settle(START)
    due = agent.last.wake
    assert due is not None
    assert due - START > timedelta(days=26)

    agent.settle(due)

    assert cluster.keys_made == 2
    assert len(agent.authority.asked) == 2
    is_complete(cluster, due)


def test_while_a_renewal_is_refused_the_mesh_keeps_what_it_has(cluster: Cluster) -> None:
    agent = AskingAgent(cluster, Elsewhere())
    agent.settle(START)
    before, due = cluster.data(), agent.last.wake
    assert due is not None
    agent.authority.refuse = "sealed"

    agent.settle(due)

    assert cluster.status().state is State.FAILED
    assert cluster.status().not_after == "2026-05-31T12:00:00Z"
    assert cluster.data() == before


def test_a_chain_that_ends_in_no_root_is_refused() -> None:
    """As of an engine that holds an intermediate, and not what is above it."""
    above = root("above")
    key = new_key()
    between = sign_intermediate(
        above,
        make_intermediate_csr(key, hosts=(), organization="between", unit="a"),
        hosts=("spiffe://between",),
        serial=3,
        now=START,
        life=timedelta(days=30),
    )
    csr = make_intermediate_csr(rsa_key(1), hosts=(HOST,), organization="Istio", unit=NAME)
    signed = sign_intermediate(Authority(between, key), csr, hosts=(HOST,), serial=4, now=START, life=timedelta(days=9))

    with pytest.raises(PemInvalid, match="O=above"):
        chain_to_root(signed, between + root("another").certificate)

    assert chain_to_root(signed, above.certificate + between) == (
        signed + between + above.certificate,
        above.certificate,
    )


def test_two_ways_to_log_in_are_refused() -> None:
    found = parse(
        {
            "apiVersion": "networking.mesh.gloo.solo.io/v1",
            "kind": "VirtualMesh",
            "metadata": {"name": "virtual-mesh", "namespace": "gloo-mesh"},
            "spec": {
                "mtlsConfig": {
                    "shared": {
                        "intermediateCertificateAuthority": {
                            "vault": {"kubernetesAuth": {"role": "a"}, "appRoleAuth": {"roleId": "b"}}
                        }
                    }
                }
            },
        }
    )

    assert isinstance(found, ParseFailure)
    [problem] = found.problems
    assert problem.path == "spec.mtlsConfig.shared.intermediateCertificateAuthority.vault"
    assert "kubernetesAuth" in problem.message
    assert "appRoleAuth" in problem.message


# --- what is said over HTTP -------------------------------------------------------------------------------------------


class Stand(ThreadingHTTPServer):
    """Speaks as Vault does; tests of the lab ask a real one."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Said)
        self.calls: list[tuple[str, Json, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, Any]] = {}
        """What is answered instead, by path."""
        self.younger = False

    def answer(self, path: str, body: Json, headers: dict[str, str]) -> tuple[int, Any]:
        """Status and body."""
        self.calls.append((path, body, headers))
        if path in self.answers:
            return self.answers[path]
        if path.endswith("/login"):
            return 200, {"auth": {"client_token": TEMPORARY}}
        if path == SIGNING and self.younger and "not_before_duration" in body:
            return 400, {"errors": ["notBefore before signer's notBefore"]}
        if path == SIGNING:
            issuer = root("vault")
            now = datetime.now(UTC)
            signed = sign_intermediate(
                issuer,
                body["csr"].encode(),
                hosts=(HOST,),
                serial=5,
                now=now,
                life=timedelta(hours=float(body["ttl"][:-1])),
            )
            certificate = issuer.certificate.decode().strip()
            data = {"certificate": signed.decode().strip(), "issuing_ca": certificate, "ca_chain": [certificate]}
            return 200, {"data": data}
        return 204, None

    @property
    def paths(self) -> list[str]:
        return [path for path, _, _ in self.calls]


class Said(BaseHTTPRequestHandler):
    """One request to a `Stand`."""

    server: Stand

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        status, answer = self.server.answer(self.path, body, dict(self.headers))
        text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode() if answer else b""
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_PUT = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def standing(context: ssl.SSLContext | None = None) -> Iterator[Stand]:
    with Stand() as stand:
        if context is not None:
            stand.socket = context.wrap_socket(stand.socket, server_side=True)
        thread = threading.Thread(target=stand.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield stand
        finally:
            stand.shutdown()
            thread.join()


@pytest.fixture
def stand() -> Iterator[Stand]:
    with standing() as found:
        yield found


def vault_at(stand: Stand, **auth: Any) -> VaultCA:
    auth = auth or {"token_secret_ref": TOKEN_REF}
    return VaultCA(server=f"http://127.0.0.1:{stand.server_port}", ca_path="/v1/pki/root/sign-intermediate/", **auth)


CSR = make_intermediate_csr(rsa_key(1), hosts=(HOST,), organization="Istio", unit=NAME)


def entries(name: str, data: dict[str, str], *, kind: str = "Opaque", **annotations: str) -> Json:
    """A Secret in the agent's namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
        "type": kind,
        "data": {key: b64encode(value.encode()).decode() for key, value in data.items()},
    }


@pytest.fixture
async def secrets(bare_cluster: EmbeddedCluster, kube: KubeClient) -> KubeClient:
    """A cluster with what users put there for Vault."""
    account = {"kubernetes.io/service-account.name": "isthmus-vault"}
    await bare_cluster.load(
        [
            entries("vault-token", {"token": f"{VAULT_TOKEN}\n"}),
            entries("vault-approle", {"secretId": SECRET_ID, "other": "another-secret-id"}),
            entries("of-another", {"token": "x.y.z"}, kind="kubernetes.io/service-account-token"),
            entries("isthmus-vault-token", {"token": JWT}, kind="kubernetes.io/service-account-token", **account),
        ]
    )
    return kube


async def test_a_token_that_was_given_is_used_and_not_given_back(secrets: KubeClient, stand: Stand) -> None:
    vault = msgspec.structs.replace(vault_at(stand), namespace="team-a")
    status = await VaultSigner(secrets, NAMESPACE).sign(elsewhere(vault), CSR)

    assert status.state is CertificateRequestState.FINISHED
    assert check_chain(status.cert_chain, status.signing_root_ca, datetime.now(UTC)) is None
    [(path, body, headers)] = stand.calls
    assert (path, headers["X-Vault-Token"], headers["X-Vault-Namespace"]) == (SIGNING, VAULT_TOKEN, "team-a")
    assert body == {
        "csr": CSR.decode(),
        "use_csr_values": True,
        "ttl": "720h",
        "max_path_length": 0,
        "not_before_duration": "15m",
        "format": "pem",
    }


@pytest.mark.parametrize(
    ("auth", "login"),
    [
        ({"app_role_auth": APP_ROLE}, ("/v1/auth/approle/login", {"role_id": "isthmus", "secret_id": SECRET_ID})),
        (
            {"app_role_auth": msgspec.structs.replace(APP_ROLE, mount_path="/v1/auth/a/b", secret_id_key="other")},
            ("/v1/auth/a/b/login", {"role_id": "isthmus", "secret_id": "another-secret-id"}),
        ),
        (
            {
                "kubernetes_auth": VaultKubernetesAuth(
                    role="isthmus", service_account_ref=ObjectRef(name="isthmus-vault")
                )
            },
            ("/v1/auth/kubernetes/login", {"role": "isthmus", "jwt": JWT}),
        ),
    ],
)
async def test_what_a_login_gives_is_given_back(secrets: KubeClient, stand: Stand, auth: Json, login: Any) -> None:
    await VaultSigner(secrets, NAMESPACE).sign(elsewhere(vault_at(stand, **auth)), CSR)

    assert stand.calls[0][:2] == login
    assert "X-Vault-Token" not in stand.calls[0][2]
    assert stand.paths[1:] == [SIGNING, "/v1/auth/token/revoke-self"]
    assert {headers["X-Vault-Token"] for _, _, headers in stand.calls[1:]} == {TEMPORARY}


async def test_a_mounted_token_is_read_anew_each_time(secrets: KubeClient, stand: Stand, tmp_path: Path) -> None:
    """Kubernetes replaces it about every hour."""
    auth = VaultKubernetesAuth(role="isthmus", mounted_sa_path=str(tmp_path), secret_token_key="vault")
    signer = VaultSigner(secrets, NAMESPACE)
    for token in (JWT, f"{JWT}2\n"):
        (tmp_path / "vault").write_text(token)
        await signer.sign(elsewhere(vault_at(stand, kubernetes_auth=auth)), CSR)

    assert [body["jwt"] for path, body, _ in stand.calls if path.endswith("/login")] == [JWT, f"{JWT}2"]


async def failure(kube: KubeClient, vault: VaultCA) -> str:
    """What the signing fails with."""
    with pytest.raises(SigningFailed) as caught:
        await VaultSigner(kube, NAMESPACE).sign(elsewhere(vault), CSR)
    return str(caught.value)


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({"token_secret_ref": ObjectRef(name="none")}, "tokenSecretRef: Secret gloo-mesh/none does not exist"),
        (
            {"token_secret_ref": ObjectRef(name="vault-token", namespace="vault")},
            "tokenSecretRef.namespace: vault is not the agent's namespace on this cluster, gloo-mesh",
        ),
        (
            {"token_secret_ref": ObjectRef(name="vault-approle")},
            "tokenSecretRef: Secret gloo-mesh/vault-approle has no text under 'token'",
        ),
        (
            {"app_role_auth": msgspec.structs.replace(APP_ROLE, secret_id_key="id")},
            "appRoleAuth.secretIdSecretRef: Secret gloo-mesh/vault-approle has no text under 'id'",
        ),
        (
            {"kubernetes_auth": VaultKubernetesAuth(role="a", service_account_ref=ObjectRef(name="default"))},
            "kubernetesAuth.serviceAccountRef: service account gloo-mesh/default has no Secret with a 'token'",
        ),
        (
            {"kubernetes_auth": VaultKubernetesAuth(role="a", mounted_sa_path="/nowhere")},
            "kubernetesAuth.mountedSaPath: the agent cannot read /nowhere/token: No such file or directory",
        ),
        (
            {"kubernetes_auth": VaultKubernetesAuth(role="a", mounted_sa_path="/etc", secret_token_key="hostname")},
            "kubernetesAuth.mountedSaPath: /etc/hostname holds no token",
        ),
        ({"kubernetes_auth": VaultKubernetesAuth()}, "kubernetesAuth.role: the role of Vault's auth method is missing"),
    ],
)
async def test_credentials_that_are_not_there(secrets: KubeClient, stand: Stand, auth: Json, said: str) -> None:
    """Nothing is sent then."""
    assert (await failure(secrets, vault_at(stand, **auth))).startswith(f"spec.agentCa.vault.{said}")
    assert stand.calls == []


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        (
            SIGNING,
            (503, {"errors": ["Vault is sealed"]}),
            "spec.agentCa.vault.server: {}: Vault is sealed; unseal it, or wait until it is active",
        ),
        (
            SIGNING,
            (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]}),
            "spec.agentCa.vault.caPath: {} did not sign: 1 error occurred: * permission denied; give the agent's "
            "policy 'update' on pki/root/sign-intermediate, or check the token",
        ),
        (
            SIGNING,
            (404, {"errors": ["no handler for route"]}),
            "is there a PKI engine that has pki/root/sign-intermediate?",
        ),
        (SIGNING, (400, {"errors": ["TTL would end after the CA's"]}), "did not sign: TTL would end after the CA's"),
        (SIGNING, (502, f"<p>{TEMPORARY}"), "spec.agentCa.vault.server: {} answers: BadGateway without a reason"),
        (SIGNING, (200, {"data": {"certificate": 7}}), "answers without a certificate"),
        (SIGNING, (200, "<p>"), "answers without a certificate"),
        (SIGNING, (200, {"data": {"certificate": "-----BEGIN"}}), "the answer of {} is not usable"),
        (
            "/v1/auth/approle/login",
            (400, {"errors": ["invalid role or secret ID"]}),
            "spec.agentCa.vault.appRoleAuth: {} does not let the agent in: invalid role or secret ID; check mountPath, "
            "roleId and the secret id, which may have been used up",
        ),
        ("/v1/auth/approle/login", (503, {"errors": ["Vault is sealed"]}), "server: {}: Vault is sealed"),
        ("/v1/auth/approle/login", (200, "<p>"), "server: {} does not answer as Vault does"),
        ("/v1/auth/approle/login", (200, {"auth": None}), "server: {} does not answer as Vault does"),
        ("/v1/auth/approle/login", (500, ["no", "object"]), "server: {} does not answer as Vault does"),
        ("/v1/auth/approle/login", (200, {"auth": {"client_token": "令"}}), "server: {} does not answer as Vault does"),
        (SIGNING, (500, ["no", "object"]), "server: {} does not answer as Vault does"),
    ],
)
async def test_what_vault_says_is_told_with_what_to_do(
    secrets: KubeClient, stand: Stand, path: str, answer: tuple[int, Any], said: str
) -> None:
    vault = vault_at(stand, app_role_auth=APP_ROLE)
    stand.answers[path] = answer

    error = await failure(secrets, vault)

    assert said.format(vault.server) in error
    assert TEMPORARY not in error
    assert SECRET_ID not in error
    assert ("/v1/auth/token/revoke-self" in stand.paths) is (path == SIGNING)  # what was given is given back


async def test_a_token_that_cannot_be_given_back_spoils_nothing(secrets: KubeClient, stand: Stand) -> None:
    stand.answers["/v1/auth/token/revoke-self"] = (403, {"errors": ["permission denied"]})

    status = await VaultSigner(secrets, NAMESPACE).sign(elsewhere(vault_at(stand, app_role_auth=APP_ROLE)), CSR)

    assert status.signed_certificate


async def test_an_authority_that_is_younger_than_the_margin_signs_without(secrets: KubeClient, stand: Stand) -> None:
    """Vault refuses what would begin before its own certificate."""
    stand.younger = True

    await VaultSigner(secrets, NAMESPACE).sign(elsewhere(vault_at(stand)), CSR)

    assert [body.get("not_before_duration") for _, body, _ in stand.calls] == ["15m", None]


async def test_a_server_that_is_not_there_is_named(secrets: KubeClient) -> None:
    with standing() as gone:
        vault = vault_at(gone)

    assert await failure(secrets, vault) == (
        f"spec.agentCa.vault.server: {vault.server} cannot be reached from this cluster: Connection refused"
    )


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def served(tmp_path: Path) -> Callable[[str], tuple[ssl.SSLContext, bytes]]:
    """Makes a server's side of TLS under a name, and the root that it is believed with."""

    def make(name: str) -> tuple[ssl.SSLContext, bytes]:
        now, life = datetime.now(UTC), timedelta(days=1)
        data = make_trust_root(new_key(), organization="tls", serial=7, now=now, life=life)
        key = new_key()
        issuer = Authority(data[CA_CERT], data[CA_KEY])
        leaf = make_leaf(issuer, key, common_name=name, dns_names=[name], serial=8, now=now, life=life)
        path = tmp_path / "tls.pem"
        path.write_bytes(key + leaf)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context, data[CA_CERT]

    return make


Served = Callable[[str], tuple[ssl.SSLContext, bytes]]


def over_tls(stand: Stand, bundle: bytes) -> VaultCA:
    server = f"https://localhost:{stand.server_port}"
    return msgspec.structs.replace(vault_at(stand), server=server, ca_bundle=bundle)


async def test_the_bundle_is_what_the_server_is_believed_with(secrets: KubeClient, served: Served) -> None:
    context, bundle = served("localhost")
    with standing(context) as stand:
        status = await VaultSigner(secrets, NAMESPACE).sign(elsewhere(over_tls(stand, bundle)), CSR)

    assert status.signed_certificate


async def test_a_server_of_another_authority_gets_no_token(
    secrets: KubeClient, served: Served, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Nor one that only the environment would believe."""
    context, bundle = served("localhost")
    (tmp_path / "bundle.pem").write_bytes(bundle)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "bundle.pem"))
    with standing(context) as stand:
        error = await failure(secrets, over_tls(stand, root("another").certificate))
        without = await failure(secrets, over_tls(stand, b""))
        assert stand.calls == []

    for said in (error, without):
        assert "shows a certificate that is not trusted" in said
        assert "put its authority into caBundle" in said


async def test_a_server_of_another_name_gets_no_token(secrets: KubeClient, served: Served) -> None:
    context, bundle = served("vault.example.com")
    with standing(context) as stand:
        error = await failure(secrets, over_tls(stand, bundle))
        assert stand.calls == []

    assert "Hostname mismatch" in error


@pytest.mark.parametrize(
    ("pem", "said"),
    [
        (b"nothing", "spec.agentCa.vault.caBundle: holds no certificates in PEM"),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "spec.agentCa.vault.caBundle: holds a certificate that cannot be read",
        ),
    ],
)
async def test_a_bundle_that_is_none_is_named(secrets: KubeClient, pem: bytes, said: str) -> None:
    vault = VaultCA(
        server="https://127.0.0.1:1", ca_path="pki/root/sign-intermediate", token_secret_ref=TOKEN_REF, ca_bundle=pem
    )

    assert said in await failure(secrets, vault)


# --- on a cluster -----------------------------------------------------------------------------------------------------


async def test_an_agent_issues_with_vault_and_tells_nobody_its_secrets(
    bare_cluster: EmbeddedCluster, secrets: KubeClient, stand: Stand
) -> None:
    """Vault is sealed first; then it is not, and neither logs nor what the server is told hold a token or a key."""
    await bare_cluster.load(crds.manifests(list(CERTIFICATES)))
    publication = Publication()
    certifier = Certifier(
        secrets,
        Certificates("cluster1", NAMESPACE, Pods()),
        Outputs("cluster1", NAMESPACE),
        publication,
        labels=selector("cluster1", NAMESPACE),
        namespace=NAMESPACE,
    )
    stand.answers[SIGNING] = (503, {"errors": ["Vault is sealed"]})
    wanted = elsewhere(vault_at(stand, app_role_auth=APP_ROLE))
    kind = IssuedCertificate.KIND
    manifest = {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": OURS},
        "spec": msgspec.json.decode(msgspec.json.encode(wanted)),
    }

    async def state() -> str:
        found = (await secrets.get(kind, NAMESPACE, NAME)).get("status", {})
        return f"{found.get('state')} {found.get('error', '')}"

    async def has(text: str) -> bool:
        return text in await state()

    async def written() -> Json | None:
        try:
            return await secrets.get(SECRET, ISTIO, "cacerts")
        except NotFound:
            return None

    with structlog.testing.capture_logs() as logs:
        task = asyncio.create_task(certifier.run())
        try:
            await secrets.apply(kind, manifest, force=True)
            await until(lambda: has("FAILED spec.agentCa.vault.server"))
            assert await written() is None
            del stand.answers[SIGNING]
            await until(lambda: has("FINISHED"))
            found = await until(written)
        finally:
            task.cancel()
            await asyncio.wait([task])

    assert b64decode(found["data"][ROOT_CERT]) == root("vault").certificate
    told = [record.payload for record in publication.records.values()]
    said = repr(logs) + repr(told)
    assert len(told) == 2
    assert any("not signed" in entry["event"] for entry in logs)
    key = b64decode(found["data"][CA_KEY]).decode().splitlines()[1]
    for secret in (SECRET_ID, TEMPORARY, VAULT_TOKEN, key):
        assert secret not in said


def test_nothing_that_is_printed_shows_a_credential() -> None:
    shown = repr([Token(VAULT_TOKEN), KubernetesLogin("kubernetes", "a", JWT), AppRoleLogin("approle", "a", SECRET_ID)])

    assert not any(secret in shown for secret in (VAULT_TOKEN, JWT, SECRET_ID))
