"""A VirtualMesh with certificates that Vault signs, through the whole server: it makes no root and answers nothing."""

from __future__ import annotations

from typing import Any

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import CertificateRequest, CertificateRequestSpec
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.kinds import SECRET
from tests.unit.server.conftest import Plane, until
from tests.unit.server.trusting import GENERATED, ROOT, Certifier, Manifest, key_of, virtual_mesh

VAULT = {
    "server": "https://vault.example.com:8200",
    "caPath": "pki/root/sign-intermediate",
    "kubernetesAuth": {"role": "isthmus"},
}


class Kept(dict[str, bytes]):
    """Records that remember which of them were taken away."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[str] = []

    def pop(self, key: str, default: Any = None) -> Any:
        if key in self:
            self.gone.append(key)
        return super().pop(key, default)


def signed_by_vault(vault: Manifest = VAULT) -> Manifest:
    found = virtual_mesh({}, "a")
    found["spec"]["mtlsConfig"]["shared"] = {"intermediateCertificateAuthority": {"vault": vault}}
    return found


async def to(plane: Plane, manifest: Manifest) -> None:
    """Replace the spec of the VirtualMesh."""
    shared = {"rootCertificateAuthority": None, "intermediateCertificateAuthority": None}
    shared |= manifest["spec"]["mtlsConfig"]["shared"]
    await plane.kube.patch(VirtualMesh.KIND, "gloo-mesh", "vm", {"spec": {"mtlsConfig": {"shared": shared}}})


def vault_of(certifier: Certifier) -> Manifest | None:
    wanted = certifier.wanted
    return wanted["spec"].get("agentCa", {}).get("vault") if wanted is not None else None


async def test_no_root_is_made_and_no_request_answered(plane: Plane) -> None:
    await plane.register("a")
    await plane.mgmt.load([signed_by_vault()])
    async with plane.server(), plane.agent("a") as a:
        certifier = Certifier(a, "a")
        assert await until(lambda: vault_of(certifier)) == VAULT
        certifier.ask()
        other = ObjectMeta(name="mesh-b", namespace="gloo-mesh", generation=1, uid="u")
        certifier.report(CertificateRequest(metadata=other, spec=CertificateRequestSpec()))
        # Requests are looked at in their order: the first was, once the second is refused.
        await until(lambda: key_of(CertificateRequest, "b") in a.held_records)

        assert certifier.answer() is None
        assert ROOT not in await plane.items(SECRET)


async def test_changes_and_restarts_never_take_a_certificate_away(plane: Plane) -> None:
    """From Vault to a mistake about it, over a restart, to a generated root and back."""
    await plane.register("a")
    await plane.mgmt.load([signed_by_vault()])
    async with plane.agent("a") as a:
        kept = a.held_records = Kept()
        certifier = Certifier(a, "a")
        async with plane.server():
            await until(lambda: vault_of(certifier))
            await to(plane, signed_by_vault({**VAULT, "server": "vault"}))
            await until(lambda: (vault_of(certifier) or {}).get("server") == "vault")
        links = a.connections
        async with plane.server():
            await until(lambda: a.connections > links and a.complete)
            await to(plane, virtual_mesh(GENERATED, "a"))
            await until(lambda: certifier.wanted and "glooMeshCa" in certifier.wanted["spec"])
            certifier.ask()
            assert (await until(certifier.answer)).signed_certificate

            await to(plane, signed_by_vault())
            await until(lambda: vault_of(certifier) == VAULT)
        assert not [key for key in kept.gone if "IssuedCertificate" in key]
        assert ROOT in await plane.items(SECRET)
