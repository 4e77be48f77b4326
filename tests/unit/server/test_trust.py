"""Roots and requests through the whole server, on an embedded management cluster; agents are their end of the relay."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import (
    CertificateRequest,
    CertificateRequestSpec,
    CertificateRequestState,
    CertificateRequestStatus,
)
from isthmus.api.discovery import Mesh
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.kinds import CONFIG_MAP, SECRET
from isthmus.pki import check_chain, make_intermediate_csr, new_key
from isthmus.pki.keys import load_key
from isthmus.server.notes import TRUST
from tests.unit.server.authorities import ec_key, host, pem_of
from tests.unit.server.conftest import Plane, until
from tests.unit.server.trusting import (
    GENERATED,
    ROOT,
    Certifier,
    Manifest,
    accepted,
    finished,
    key_of,
    named,
    root_in,
    says,
    says_nothing,
    secret,
    status_of,
    valid_root,
    virtual_mesh,
)


@pytest.mark.parametrize(
    ("generated", "key"),
    [(GENERATED, rsa.RSAPrivateKey), ({"generated": {"keyAlgorithm": "ECDSA"}}, ec.EllipticCurvePrivateKey)],
    ids=["rsa", "ecdsa"],
)
async def test_a_generated_root_signs_for_every_mesh_of_its_virtual_mesh(
    plane: Plane, generated: Manifest, key: type
) -> None:
    """One root, made once; each cluster gets the certificate that it may have, and the status says how far it is."""
    await plane.register("a", "b")
    await plane.mgmt.load([virtual_mesh(generated)])
    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        certifiers = Certifier(a, "a"), Certifier(b, "b")
        for certifier in certifiers:
            await until(lambda c=certifier: c.wanted)
        root = await root_in(plane, ROOT)
        assert isinstance(load_key(root["ca-key.pem"]), key)
        await until(says(plane, "warnings", "certificate of mesh mesh-a.gloo-mesh.: its agent has not reported"))

        for certifier in certifiers:
            certifier.ask()
            answer = await until(certifier.answer)
            assert answer.error == ""
            assert answer.signing_root_ca == root["root-cert.pem"]
            assert check_chain(answer.cert_chain, root["root-cert.pem"], datetime.now(UTC)) is None
            assert certifier.wanted is not None
            certifier.take(answer, certifier.wanted["spec"]["trust"])

        await until(lambda: accepted(plane))
        for certifier in certifiers:
            await until(lambda c=certifier: key_of(CertificateRequest, c.cluster) not in c.agent.held_records)
        await until(lambda: tells_finished(plane, "mesh-a"))
        assert (await status_of(plane))["deployedSharedTrust"]["rootCertificateAuthority"] == generated
        assert await root_in(plane, ROOT) == root


async def tells_finished(plane: Plane, mesh: str) -> bool:
    """Whether the Mesh on the management cluster says that its certificate is in place."""
    spec = (await plane.kube.get(Mesh.KIND, "gloo-mesh", mesh))["spec"]
    return (spec.get("issuedCertificateStatus") or {}).get("state") == "FINISHED"


async def test_a_restart_signs_nothing_again_and_keeps_what_is_wanted(plane: Plane) -> None:
    """The same root, the same certificates, no answer to what is answered, no status written anew."""
    await plane.register("a")
    await plane.mgmt.load([virtual_mesh(GENERATED, "a")])
    async with plane.agent("a") as a:
        certifier = Certifier(a, "a")
        async with plane.server():
            await until(lambda: certifier.wanted)
            certifier.ask()
            answer = await until(certifier.answer)
            assert certifier.wanted is not None
            certifier.take(answer, certifier.wanted["spec"]["trust"])
            await until(lambda: accepted(plane))
            await until(lambda: key_of(CertificateRequest, "a") not in a.held_records)
            await until(lambda: tells_finished(plane, "mesh-a"))  # stored later than the status, if it was busy
            before = await plane.kube.get(VirtualMesh.KIND, "gloo-mesh", "vm")
            root = await root_in(plane, ROOT)
        held, links = dict(a.held_records), a.connections
        assert certifier.wanted is not None

        async with plane.server():
            await until(lambda: a.connections > links)
            certifier.ask(odd := make_intermediate_csr(new_key(), hosts=[host("b")], organization="Istio", unit="x"))
            refused = await until(certifier.answer)

            assert refused.state is CertificateRequestState.FAILED
            assert odd not in (answer.signed_certificate,)
            assert {key: value for key, value in a.held_records.items() if "CertificateRequest" not in key} == held
            assert await root_in(plane, ROOT) == root
            after = await plane.kube.get(VirtualMesh.KIND, "gloo-mesh", "vm")
            assert after["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"]


async def test_a_cluster_gets_no_certificate_of_another(plane: Plane) -> None:
    """An agent that asks in the name of another cluster's mesh, or for its identity, is refused; nothing is signed."""
    await plane.register("a", "b")
    await plane.mgmt.load([virtual_mesh(GENERATED)])
    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        one, other = Certifier(a, "a"), Certifier(b, "b")
        await until(lambda: one.wanted and other.wanted)

        one.ask(make_intermediate_csr(new_key(), hosts=[host("b")], organization="Istio", unit="mesh-a"))
        names = await until(one.answer)
        stolen = make_intermediate_csr(new_key(), hosts=[host("b")], organization="Istio", unit="mesh-b")
        request = CertificateRequest(
            metadata=ObjectMeta(name="mesh-b", namespace="gloo-mesh", generation=1, uid="u"),
            spec=CertificateRequestSpec(certificate_signing_request=stolen),
        )
        one.report(request)
        record = await until(lambda: a.held_records.get(key_of(CertificateRequest, "b")))

        assert (names.state, names.signed_certificate) == (CertificateRequestState.FAILED, b"")
        assert "spiffe://b/" in names.error
        verdict = msgspec.json.decode(record, type=CertificateRequest).status
        assert verdict is not None
        assert "no VirtualMesh asks for an IssuedCertificate gloo-mesh/mesh-b on cluster a" in verdict.error
        assert key_of(CertificateRequest, "b") not in b.held_records


async def test_a_provided_root_is_checked_and_waited_for(plane: Plane) -> None:
    """Missing, a leaf, with another's key, right: the status says which, and certificates come with the right one."""
    await plane.register("a")
    await plane.mgmt.load([virtual_mesh(named("mine"), "a")])
    async with plane.server(), plane.agent("a") as a:
        certifier = Certifier(a, "a")
        await until(says(plane, "errors", "Could not find provided ca signing secret (mine.gloo-mesh.)."))
        assert certifier.wanted is None

        await plane.kube.create(SECRET, secret("mine", valid_root(ca=False)))
        await until(says(plane, "errors", "Provided CA (mine.gloo-mesh.) is invalid: ca-cert.pem: is no certificate"))
        await plane.kube.patch(
            SECRET, "gloo-mesh", "mine", {"data": secret("", {"ca-key.pem": pem_of(ec_key())})["data"]}
        )
        await until(says(plane, "errors", "ca-key.pem: is not the key"))
        assert certifier.wanted is None

        good = valid_root()
        await plane.kube.patch(SECRET, "gloo-mesh", "mine", {"data": secret("", good)["data"]})
        await until(lambda: certifier.wanted)
        certifier.ask()
        answer = await until(certifier.answer)

        assert answer.signing_root_ca == good["root-cert.pem"]
        await until(lambda: says_nothing(plane))


async def test_a_root_that_is_spoilt_or_swapped_takes_no_certificate_away(plane: Plane) -> None:
    """A Secret changed under way: what is wanted stays, nothing is signed with the new one, the status says why."""
    await plane.register("a")
    first, second = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("mine"), "a"), secret("mine", first)])
    async with plane.agent("a") as a:
        certifier = Certifier(a, "a")
        async with plane.server():
            wanted = await until(lambda: certifier.wanted)

            await plane.kube.patch(SECRET, "gloo-mesh", "mine", {"data": secret("", second)["data"]})
            await until(says(plane, "errors", "holds another root than the one that is rolled out"))
            certifier.ask()
            await plane.kube.delete(SECRET, "gloo-mesh", "mine")
            await until(says(plane, "errors", "Could not find provided ca signing secret"))
            assert certifier.wanted == wanted
            assert certifier.answer() is None
        links = a.connections
        async with plane.server():  # also one that starts while the Secret is missing
            await until(lambda: a.connections > links)
            await until(says(plane, "errors", "Could not find provided ca signing secret"))
            assert certifier.wanted == wanted

            await plane.kube.create(SECRET, secret("mine", first))
            answer = await until(certifier.answer)
            assert answer.signing_root_ca == first["root-cert.pem"]


async def test_leaving_takes_the_certificate_back_and_keeps_the_root(plane: Plane) -> None:
    """Without mtlsConfig nothing is wanted; asked again later, the same root signs."""
    await plane.register("a")
    await plane.mgmt.load([virtual_mesh(GENERATED, "a")])
    async with plane.server(), plane.agent("a") as a:
        certifier = Certifier(a, "a")
        wanted = await until(lambda: certifier.wanted)

        await plane.kube.patch(VirtualMesh.KIND, "gloo-mesh", "vm", {"spec": {"mtlsConfig": None}})
        await until(lambda: certifier.wanted is None)
        await plane.kube.patch(VirtualMesh.KIND, "gloo-mesh", "vm", {"spec": virtual_mesh(GENERATED, "a")["spec"]})
        again = await until(lambda: certifier.wanted)

        assert again == wanted


async def test_a_root_is_replaced_step_by_step_also_by_servers_that_are_killed(plane: Plane) -> None:
    """From generated to provided: at every moment each mesh trusts the signer of every other; each step is logged."""
    await plane.register("a", "b")
    new = valid_root()
    await plane.mgmt.load([virtual_mesh(GENERATED), secret("new", new)])
    seen: dict[str, list[CertificateRequestStatus]] = {"a": [], "b": []}
    async with plane.agent("a") as a, plane.agent("b") as b, asyncio.TaskGroup() as tasks:
        following = [
            tasks.create_task(Certifier(agent, name).follow(seen[name])) for name, agent in (("a", a), ("b", b))
        ]
        async with plane.server():
            await until(lambda: accepted(plane))
        edit = {"spec": {"mtlsConfig": virtual_mesh(named("new"))["spec"]["mtlsConfig"]}}
        edit["spec"]["mtlsConfig"]["shared"]["rootCertificateAuthority"]["generated"] = None
        await plane.kube.patch(VirtualMesh.KIND, "gloo-mesh", "vm", edit)
        kills = 0
        while not await finished(plane):
            async with plane.server():  # killed whenever a certificate more is there
                so_far = sum(map(len, seen.values()))
                await until(lambda: sum(map(len, seen.values())) > so_far or finished(plane))  # noqa: B023
            kills += 1
        assert kills >= 3  # as many as there are steps
        async with plane.server():
            await until(lambda: finished(plane))
            await until(lambda: accepted(plane))
        for task in following:
            task.cancel()

    old = (await root_in(plane, ROOT))["root-cert.pem"]
    both = old + new["root-cert.pem"]
    for answers in seen.values():
        bundles = [answer.signing_root_ca for answer in answers]
        assert list(dict.fromkeys(bundles)) == [old, both, new["root-cert.pem"]]
    now = datetime.now(UTC)
    for mine, theirs in (("a", "b"), ("b", "a")):
        for step, answer in enumerate(seen[mine]):
            for other in seen[theirs][max(0, step - 1) : step + 2]:
                assert check_chain(answer.cert_chain, other.signing_root_ca, now) is None
    conditions = [entry["state"] for entry in (await status_of(plane))["conditions"]]
    assert conditions == [
        "ADDING_NEW_ROOT", "PROPAGATING_NEW_INTERMEDIATE", "DELETING_OLD_ROOT", "FINISHED",
    ]  # fmt: skip
    noted = await plane.kube.get(CONFIG_MAP, "gloo-mesh", TRUST)
    assert "PRIVATE KEY" not in str(noted)
