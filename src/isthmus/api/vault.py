"""What is wrong with the settings of Vault, as far as that can be seen without asking it."""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Iterator
from urllib.parse import urlsplit

from isthmus.api.common import ObjectRef, VaultAppRoleAuth, VaultCA, VaultKubernetesAuth
from isthmus.model.problem import Problem

CLUSTER = "{cluster}"
"""In the path of an auth method, the name of the cluster whose agent logs in."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", re.DOTALL)
_FILE_NAME = re.compile(r"[\w.-]*[\w-][\w.-]*")
_API_PATH = re.compile(r"[^\s?#%{}]+")


def vault_problems(vault: VaultCA, path: str) -> Iterator[Problem]:
    """What is wrong with *vault*, which is at *path* of its object."""
    yield from _server_problems(vault, path)
    if not vault.ca_path:
        message = "the path that signs is missing, such as pki/root/sign-intermediate"
        yield Problem(f"{path}.caPath", "MissingField", message)
    elif not _is_api_path(vault.ca_path):
        message = f"{vault.ca_path!r} is no path of Vault's API such as pki/root/sign-intermediate"
        yield Problem(f"{path}.caPath", "InvalidPath", message)
    if not re.fullmatch(r"[!-~]*", vault.namespace):  # it goes into a header
        yield Problem(f"{path}.namespace", "InvalidName", f"{vault.namespace!r} is no namespace such as team-a/")
    if vault.kubernetes_auth is not None:
        yield from _kubernetes_problems(vault.kubernetes_auth, f"{path}.kubernetesAuth")
    elif vault.app_role_auth is not None:
        yield from _app_role_problems(vault.app_role_auth, f"{path}.appRoleAuth")
    elif vault.token_secret_ref is not None:
        yield from _ref_problems(vault.token_secret_ref, f"{path}.tokenSecretRef", "a Secret")
    else:
        message = "says no way to log in: kubernetesAuth, appRoleAuth or tokenSecretRef"
        yield Problem(path, "MissingField", message)


def _server_problems(vault: VaultCA, path: str) -> Iterator[Problem]:
    scheme = ""
    if not vault.server:
        yield Problem(
            f"{path}.server", "MissingField", "Vault's URL is missing, such as https://vault.example.com:8200"
        )
    else:
        try:
            url = urlsplit(vault.server)
            right = url.scheme in ("http", "https") and url.hostname and url.port != 0
            clean = not (url.query or url.fragment or "@" in url.netloc or re.search(r"\s", vault.server))
        except ValueError:  # a port that is none, half a bracket
            right = clean = False
        if not (right and clean):
            message = f"{vault.server!r} is no URL such as https://vault.example.com:8200"
            yield Problem(f"{path}.server", "InvalidUrl", message)
        else:
            scheme = url.scheme
    if vault.ca_bundle:
        if scheme == "http":
            message = "nothing is verified with it where server is http: make that https, or leave caBundle out"
            yield Problem(f"{path}.caBundle", "Unused", message)
        if not _is_bundle(vault.ca_bundle):
            message = "holds no certificates in PEM; it is the base64 of a file that begins with BEGIN CERTIFICATE"
            yield Problem(f"{path}.caBundle", "InvalidCertificate", message)


def _kubernetes_problems(auth: VaultKubernetesAuth, path: str) -> Iterator[Problem]:
    if not auth.role:
        yield Problem(f"{path}.role", "MissingField", "the role of Vault's auth method is missing")
    yield from _mount_problems(auth.mount_path, path, "/v1/auth/kubernetes")
    if auth.secret_token_key and not _FILE_NAME.fullmatch(auth.secret_token_key):
        message = f"{auth.secret_token_key!r} is no key of a Secret such as token"
        yield Problem(f"{path}.secretTokenKey", "InvalidName", message)
    if auth.service_account_ref is not None:
        yield from _ref_problems(auth.service_account_ref, f"{path}.serviceAccountRef", "a service account")
    if auth.mounted_sa_path is not None and not auth.mounted_sa_path.startswith("/"):
        message = f"{auth.mounted_sa_path!r} is no absolute path"
        yield Problem(f"{path}.mountedSaPath", "InvalidPath", message)


def _app_role_problems(auth: VaultAppRoleAuth, path: str) -> Iterator[Problem]:
    if not auth.role_id:
        yield Problem(f"{path}.roleId", "MissingField", "the role id is missing")
    yield from _mount_problems(auth.mount_path, path, "/v1/auth/approle")
    if auth.secret_id_secret_ref is None:
        message = "the Secret with the secret id is missing; it is in the agents' namespace on each cluster"
        yield Problem(f"{path}.secretIdSecretRef", "MissingField", message)
    else:
        yield from _ref_problems(auth.secret_id_secret_ref, f"{path}.secretIdSecretRef", "a Secret")


def _mount_problems(given: str, path: str, usual: str) -> Iterator[Problem]:
    if given and not _is_api_path(given.replace(CLUSTER, "cluster")):
        yield Problem(f"{path}.mountPath", "InvalidPath", f"{given!r} is no path of Vault's API such as {usual}")


def _ref_problems(ref: ObjectRef, path: str, what: str) -> Iterator[Problem]:
    if not ref.name:
        yield Problem(path, "MalformedReference", f"needs the name of {what} in the agents' namespace")


def _is_api_path(path: str) -> bool:
    parts = path.strip("/").split("/")
    return bool(_API_PATH.fullmatch(path)) and all(part not in ("", ".", "..") for part in parts)


def _is_bundle(pem: bytes) -> bool:
    """Whether *pem* looks like certificates; whether they are any is for whoever may look inside."""
    blocks = _CERTIFICATE.findall(pem)
    try:
        return bool(blocks) and all(a2b_base64(block) for block in blocks)
    except NotBase64:
        return False
