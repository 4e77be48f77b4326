"""An authority in HashiCorp Vault in place of a root of the management plane. Agents ask it; nothing here does."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from isthmus.api.common import VaultAppRoleAuth, VaultCA, VaultKubernetesAuth
from isthmus.api.vault import CLUSTER
from isthmus.api.virtual_mesh import VirtualMesh

PATH = "spec.mtlsConfig.shared.intermediateCertificateAuthority.vault"

Auth = TypeVar("Auth", VaultKubernetesAuth, VaultAppRoleAuth)


def vault_of(virtual_mesh: VirtualMesh) -> VaultCA | None:
    """The Vault that *virtual_mesh* names, an empty one if it names none yet, None if it wants no such thing."""
    config = virtual_mesh.spec.mtls_config
    shared = config.shared if config is not None else None
    elsewhere = shared.intermediate_certificate_authority if shared is not None else None
    return (elsewhere.vault or VaultCA()) if elsewhere is not None else None


def vault_for(vault: VaultCA, cluster: str) -> VaultCA:
    """*vault* as the agent of *cluster* is to ask it: API servers vouch for their own, so logins may differ."""
    return msgspec.structs.replace(
        vault,
        kubernetes_auth=_mounted(vault.kubernetes_auth, cluster),
        app_role_auth=_mounted(vault.app_role_auth, cluster),
    )


def _mounted(auth: Auth | None, cluster: str) -> Auth | None:
    if auth is None:
        return None
    return msgspec.structs.replace(auth, mount_path=auth.mount_path.replace(CLUSTER, cluster))


def vault_warnings(virtual_mesh: VirtualMesh) -> tuple[str, ...]:
    """What deserves attention in the settings of Vault."""
    vault = vault_of(virtual_mesh)
    if vault is None:
        return ()
    warnings = []
    if vault.csr_path:
        warnings.append(f"{PATH}.csrPath is not used: each agent makes its key and request itself, so no key travels")
    if vault.server.lower().startswith("http:"):
        warnings.append(f"{PATH}.server: tokens go over the network in the clear; use https")
    return tuple(warnings)
