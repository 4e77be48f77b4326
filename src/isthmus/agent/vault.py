"""HashiCorp Vault as what signs: the credentials that this cluster has for it, and what becomes of its answers.

`isthmus.agent.vault_api` speaks to Vault, and is imported when there is something to ask. Tokens and secret ids are
read when they are needed and kept no longer; they are in no log, no status and nothing that leaves for the server.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from isthmus.agent.certificates import SigningFailed, data_of
from isthmus.api.certificate_request import CertificateRequestState, CertificateRequestStatus
from isthmus.api.common import ObjectRef, VaultAppRoleAuth, VaultCA, VaultKubernetesAuth
from isthmus.api.issued_certificate import IssuedCertificateSpec
from isthmus.api.vault import vault_problems
from isthmus.kube import KubeClient, KubeError, NotFound
from isthmus.model.kinds import SECRET
from isthmus.pki import PemInvalid
from isthmus.pki.issued import chain_to_root

FIELD = "spec.agentCa.vault"
TOKEN_KEY = "token"
SECRET_ID_KEY = "secretId"
MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
ACCOUNT_TOKEN = "kubernetes.io/service-account-token"
ACCOUNT = "kubernetes.io/service-account.name"
# Source: https://kubernetes.io/docs/concepts/configuration/secret/#serviceaccount-token-secrets
DEFAULT_DAYS = 365

_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


@dataclass(frozen=True)
class Token:
    """A token that Vault gave somebody, who put it into a Secret."""

    value: str = field(repr=False)
    at: str = f"{FIELD}.tokenSecretRef"


@dataclass(frozen=True)
class KubernetesLogin:
    """A service account's token, for which Vault gives one of its own."""

    mount: str
    role: str
    jwt: str = field(repr=False)
    at: str = f"{FIELD}.kubernetesAuth"


@dataclass(frozen=True)
class AppRoleLogin:
    """An AppRole's ids, for which Vault gives a token."""

    mount: str
    role_id: str
    secret_id: str = field(repr=False)
    at: str = f"{FIELD}.appRoleAuth"


Credential = Token | KubernetesLogin | AppRoleLogin


@dataclass(frozen=True)
class Signed:
    """What Vault has signed, and the certificates that it names above, each in PEM."""

    certificate: bytes
    above: bytes


class Signer(Protocol):
    """An authority that is asked from this cluster."""

    async def sign(self, spec: IssuedCertificateSpec, csr: bytes) -> CertificateRequestStatus:
        """The answer to *csr*, which was made for *spec*. Raises `SigningFailed`."""
        ...


class VaultSigner:
    """Has requests signed by the Vault that their IssuedCertificate names. *namespace* is the agent's."""

    def __init__(self, kube: KubeClient, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace

    async def sign(self, spec: IssuedCertificateSpec, csr: bytes) -> CertificateRequestStatus:
        """See `Signer.sign`."""
        vault = spec.agent_ca.vault if spec.agent_ca is not None else None
        vault = vault or VaultCA()
        for problem in vault_problems(vault, FIELD):
            raise SigningFailed(str(problem))
        credential = await self._credential(vault)
        days = (spec.cert_options.ttl_days if spec.cert_options is not None else 0) or DEFAULT_DAYS
        return await asyncio.to_thread(_sign, vault, credential, csr, days)

    async def _credential(self, vault: VaultCA) -> Credential:
        if vault.kubernetes_auth is not None:
            auth = vault.kubernetes_auth
            return KubernetesLogin(_mount(auth.mount_path, "kubernetes"), auth.role, await self._jwt(auth))
        if vault.app_role_auth is not None:
            role = vault.app_role_auth
            secret_id = await self._secret_id(role)
            return AppRoleLogin(_mount(role.mount_path, "approle"), role.role_id, secret_id)
        at = f"{FIELD}.tokenSecretRef"
        return Token(await self._entry(vault.token_secret_ref or ObjectRef(), TOKEN_KEY, at))

    async def _secret_id(self, auth: VaultAppRoleAuth) -> str:
        at = f"{FIELD}.appRoleAuth.secretIdSecretRef"
        return await self._entry(auth.secret_id_secret_ref or ObjectRef(), auth.secret_id_key or SECRET_ID_KEY, at)

    async def _jwt(self, auth: VaultKubernetesAuth) -> str:
        key = auth.secret_token_key or TOKEN_KEY
        if auth.service_account_ref is not None:
            return await self._account_token(auth.service_account_ref, key)
        at = f"{FIELD}.kubernetesAuth.mountedSaPath"
        path = Path(auth.mounted_sa_path or MOUNTED) / key
        try:
            text = (await asyncio.to_thread(path.read_text)).strip()
        except (OSError, UnicodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "is no text"
            raise SigningFailed(
                f"{at}: the agent cannot read {path}: {why}; mount a service account's token there"
            ) from error
        if not _JWT.fullmatch(text):  # nothing else that the agent can read is for Vault to see
            raise SigningFailed(f"{at}: {path} holds no token of a service account")
        return text

    async def _account_token(self, account: ObjectRef, key: str) -> str:
        at = f"{FIELD}.kubernetesAuth.serviceAccountRef"
        self._own(account, at)
        try:
            found = await self._kube.list(SECRET, self._namespace, fields=f"type={ACCOUNT_TOKEN}")
        except KubeError as error:
            raise SigningFailed(f"{at}: Secrets cannot be read: {error}") from error
        for secret in found.items:
            annotations = secret["metadata"].get("annotations") or {}
            token = data_of(secret).get(key)
            if secret.get("type") == ACCOUNT_TOKEN and annotations.get(ACCOUNT) == account.name and token:
                return token.decode("ascii", "replace")
        raise SigningFailed(
            f"{at}: service account {self._namespace}/{account.name} has no Secret with a {key!r}; create one of type "
            f"{ACCOUNT_TOKEN} with annotation {ACCOUNT}={account.name}"
        )

    async def _entry(self, ref: ObjectRef, key: str, at: str) -> str:
        self._own(ref, at)
        name = f"{self._namespace}/{ref.name}"
        try:
            data = data_of(await self._kube.get(SECRET, self._namespace, ref.name))
        except NotFound as error:
            raise SigningFailed(f"{at}: Secret {name} does not exist on this cluster; create it") from error
        except KubeError as error:
            raise SigningFailed(f"{at}: Secret {name} cannot be read: {error}") from error
        text = data.get(key, b"").decode("ascii", "replace").strip()
        if not text or not text.isprintable() or not text.isascii():
            raise SigningFailed(f"{at}: Secret {name} has no text under {key!r}; put what Vault gave you there")
        return text

    def _own(self, ref: ObjectRef, at: str) -> None:
        if ref.namespace not in ("", self._namespace):
            raise SigningFailed(
                f"{at}.namespace: {ref.namespace} is not the agent's namespace on this cluster, {self._namespace}, and "
                "the agent reads no others'; leave it out or change it"
            )


def _mount(path: str, usual: str) -> str:
    """The mount of an auth method, as in ``kubernetes`` of ``/v1/auth/kubernetes``."""
    parts = path.strip("/").removeprefix("v1/").removeprefix("auth/")
    return parts or usual


def _sign(vault: VaultCA, credential: Credential, csr: bytes, days: int) -> CertificateRequestStatus:
    from isthmus.agent.vault_api import ask  # brings an HTTP client of its own, which few agents need

    signed = ask(vault, credential, csr, days)
    try:
        chain, root = chain_to_root(signed.certificate, signed.above)
    except PemInvalid as error:
        raise SigningFailed(
            f"{FIELD}.caPath: the answer of {vault.server} is not usable: {error}; if that mount is an intermediate, "
            "import the certificates above it, up to the root, into it"
        ) from error
    return CertificateRequestStatus(
        state=CertificateRequestState.FINISHED,
        signed_certificate=signed.certificate,
        signing_root_ca=root,
        cert_chain=chain,
    )
