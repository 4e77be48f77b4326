"""The door to HashiCorp Vault. Calls block: for a thread.

Source: https://developer.hashicorp.com/vault/api-docs/secret/pki#sign-intermediate
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from typing import Any

import requests
from hvac import Client
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, Unauthorized, VaultDown, VaultError
from requests.adapters import HTTPAdapter

from isthmus.agent.certificates import SigningFailed
from isthmus.agent.vault import FIELD, AppRoleLogin, Credential, KubernetesLogin, Signed, Token
from isthmus.api.common import VaultCA

SECONDS = 15.0  # for each of the three calls
EARLIER = "15m"
"""Trust begins this much earlier, as with roots of the management plane, for clusters whose clocks are apart."""
STRANGE = (AttributeError, KeyError, TypeError, ValueError)
"""What hvac comes to when it is answered by somebody who is not Vault."""
MOST_TEXT = 500  # of what Vault says, in a status


def ask(vault: VaultCA, credential: Credential, csr: bytes, days: int) -> Signed:
    """Have *vault* sign *csr* for *days*, with a token that is given back afterwards. Raises `SigningFailed`."""
    with requests.Session() as session:
        session.mount("https://", _Trusting(vault))
        # Anything not said here would be taken from the environment, as the token.
        client = Client(
            url=vault.server,
            token="",
            verify=True,
            timeout=SECONDS,
            session=session,
            namespace=vault.namespace or None,
        )
        try:
            _log_in(client, credential)
        except (VaultError, requests.RequestException) as error:
            raise SigningFailed(_login_refused(error, vault, credential)) from error
        except STRANGE as error:
            raise SigningFailed(_stranger(vault)) from error
        try:
            answer = _signed(client, _path(vault), _request(csr, days))
        except (VaultError, requests.RequestException) as error:
            raise SigningFailed(_not_signed(error, vault)) from error
        except STRANGE as error:
            raise SigningFailed(_stranger(vault)) from error
        finally:
            if not isinstance(credential, Token):
                with suppress(VaultError, requests.RequestException, *STRANGE):  # it ends by itself
                    client.auth.token.revoke_self()
        return _read(answer, vault)


class _Trusting(HTTPAdapter):
    """Believes the certificates of *vault*'s caBundle, or else the system's, whatever the environment says."""

    def __init__(self, vault: VaultCA) -> None:
        try:
            bundle = vault.ca_bundle.decode("ascii") if vault.ca_bundle else None
            self._context = ssl.create_default_context(cadata=bundle)
        except (ssl.SSLError, ValueError) as error:
            raise SigningFailed(f"{FIELD}.caBundle: holds a certificate that cannot be read: {error}") from error
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        return super().proxy_manager_for(*args, ssl_context=self._context, **kwargs)

    def build_connection_pool_key_attributes(
        self, request: requests.PreparedRequest, verify: Any, cert: Any = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        return super().build_connection_pool_key_attributes(request, True, cert)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """The context says it all."""


def _log_in(client: Client, credential: Credential) -> None:
    match credential:
        case Token(value):
            client.token = value
        case KubernetesLogin(mount, role, jwt):
            client.auth.kubernetes.login(role=role, jwt=jwt, mount_point=mount)
        case AppRoleLogin(mount, role_id, secret_id):
            client.auth.approle.login(role_id=role_id, secret_id=secret_id, mount_point=mount)


def _signed(client: Client, path: str, request: dict[str, Any]) -> Any:
    try:
        return client.write_data(path, data={**request, "not_before_duration": EARLIER})
    except InvalidRequest as error:
        if "notBefore" not in str(error):
            raise
        return client.write_data(path, data=request)  # its authority is younger than that


def _path(vault: VaultCA) -> str:
    return vault.ca_path.strip("/").removeprefix("v1/")


def _request(csr: bytes, days: int) -> dict[str, Any]:
    return {
        "csr": csr.decode("ascii"),
        "use_csr_values": True,  # subject and SPIFFE ids; whether these are right is checked afterwards
        "ttl": f"{days * 24}h",
        "max_path_length": 0,
        "format": "pem",
    }


def _read(answer: Any, vault: VaultCA) -> Signed:
    data = answer.get("data") if isinstance(answer, dict) else None
    found = data.get("certificate") if isinstance(data, dict) else None
    if not isinstance(found, str) or not isinstance(data, dict):
        raise SigningFailed(f"{FIELD}.caPath: {_path(vault)} of {vault.server} answers without a certificate")
    chain = data.get("ca_chain")
    above = [*(chain if isinstance(chain, list) else ()), data.get("issuing_ca")]
    return Signed(_lines(found), b"".join(_lines(pem) for pem in above if isinstance(pem, str)))


def _lines(pem: str) -> bytes:
    return pem.strip().encode("ascii", "replace") + b"\n"


# --- what went wrong --------------------------------------------------------------------------------------------------


def _login_refused(error: Exception, vault: VaultCA, credential: Credential) -> str:
    who = {
        KubernetesLogin: "role, and the service accounts and namespaces that Vault binds to it",
        AppRoleLogin: "roleId and the secret id, which may have been used up",
    }.get(type(credential), "token")
    if isinstance(error, (Forbidden, InvalidPath, InvalidRequest, Unauthorized)):
        return f"{credential.at}: {vault.server} does not let the agent in: {_said(error)}; check mountPath, {who}"
    return _trouble(error, vault)


def _not_signed(error: Exception, vault: VaultCA) -> str:
    at = f"{FIELD}.caPath: {vault.server} did not sign"
    match error:
        case Forbidden() | Unauthorized():
            return f"{at}: {_said(error)}; give the agent's policy 'update' on {_path(vault)}, or check the token"
        case InvalidPath():
            return f"{at}: {_said(error)}; is there a PKI engine that has {_path(vault)}?"
        case InvalidRequest():
            return f"{at}: {_said(error)}"
        case _:
            return _trouble(error, vault)


def _stranger(vault: VaultCA) -> str:
    return f"{FIELD}.server: {vault.server} does not answer as Vault does; is it one?"


def _trouble(error: Exception, vault: VaultCA) -> str:
    at = f"{FIELD}.server: {vault.server}"
    match error:
        case VaultDown():
            return f"{at}: {_said(error)}; unseal it, or wait until it is active"
        case VaultError():
            return f"{at} answers: {_said(error)}; its log says more"
        case requests.exceptions.SSLError():
            return f"{at} shows a certificate that is not trusted: {_cause(error)}; put its authority into caBundle"
        case _:
            return f"{at} cannot be reached from this cluster: {_cause(error)}"


def _said(error: VaultError) -> str:
    """Vault's own words, which name neither tokens nor ids."""
    words = error.errors if isinstance(error.errors, list) else ()
    text = (
        "; ".join(" ".join(str(word).split()) for word in words if word) or f"{type(error).__name__} without a reason"
    )
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}..."


def _cause(error: BaseException) -> str:
    """The innermost reason, without the addresses of objects that libraries print."""
    found: BaseException = error
    while (inner := found.__cause__ or found.__context__) is not None:
        found = inner
    if isinstance(found, ssl.SSLCertVerificationError):
        return found.verify_message
    if isinstance(found, OSError) and found.strerror:
        return found.strerror
    return str(found) or type(found).__name__
