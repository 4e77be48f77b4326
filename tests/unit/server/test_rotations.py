"""Roots that replace each other through the whole server: verified by hand, renewed, and while meshes come and go."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.certificate_verification import CertificateVerification
from isthmus.api.common import ObjectRef
from isthmus.api.issued_certificate import DoubtfulPod, IssuedCertificate, WorkloadCertificates
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.kinds import CONFIG_MAP, SECRET
from isthmus.pki import check_chain
from isthmus.server import roots
from isthmus.server.notes import TRUST
from isthmus.translate.trust.wanted import number_in, numbered
from tests.unit.server.authorities import DAY
from tests.unit.server.conftest import Plane, until
from tests.unit.server.trusting import (
    GENERATED,
    ROOT,
    Certifier,
    accepted,
    at,
    exists,
    finished,
    following,
    key_of,
    named,
    noted,
    root_in,
    rotate_to,
    says,
    secret,
    status_of,
    steps_of,
    valid_root,
    virtual_mesh,
)

Manifest = dict[str, Any]
BY_ITSELF = ("ADDING_NEW_ROOT", "PROPAGATING_NEW_INTERMEDIATE", "DELETING_OLD_ROOT", "FINISHED")
BY_HAND: Manifest = {"rotationVerificationMethod": {"manual": {}}}


def verification(name: str, step: str, action: str = "CONTINUE") -> Manifest:
    return {
        "apiVersion": CertificateVerification.KIND.api_version,
        "kind": "CertificateVerification",
        "metadata": {"name": name, "namespace": "gloo-mesh"},
        "spec": {"step": step, "action": action, "virtualMesh": {"name": "vm"}},
    }


async def verify(plane: Plane, name: str, step: str, action: str = "CONTINUE") -> None:
    await plane.kube.create(CertificateVerification.KIND, verification(name, step, action))


async def verdict(plane: Plane, name: str) -> Manifest:
    found = await plane.kube.get(CertificateVerification.KIND, "gloo-mesh", name)
    status: Manifest = found.get("status") or {}
    current = status.get("observedGeneration") == found["metadata"]["generation"]
    return {"state": status.get("state", "PENDING"), **status} if current else {}


async def is_verdict(plane: Plane, name: str, state: str) -> bool:
    return (await verdict(plane, name)).get("state") == state


async def test_steps_wait_for_a_person_also_while_servers_are_killed(plane: Plane) -> None:
    """VERIFYING until somebody says CONTINUE of just that step. What was said counts once, whoever starts again."""
    await plane.register("a", "b")
    old, new = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("old"), **BY_HAND), secret("old", old), secret("new", new)])
    async with plane.agent("a") as a, plane.agent("b") as b, following(Certifier(a, "a"), Certifier(b, "b")) as seen:
        async with plane.server():
            await until(lambda: accepted(plane))
            await rotate_to(plane, named("new"), **BY_HAND)
            await until(at(plane, "VERIFYING"))
            await verify(plane, "early", "DELETING_OLD_ROOT")
            await until(lambda: is_verdict(plane, "early", "PENDING"))
        async with plane.server():
            await until(says(plane, "warnings", "create a CertificateVerification of this step"))
            await until(says(plane, "warnings", "every mesh has run with ADDING_NEW_ROOT"))
            assert (await steps_of(plane)) == ["ADDING_NEW_ROOT", "VERIFYING"]
            await verify(plane, "first", "ADDING_NEW_ROOT")
            await until(at(plane, "VERIFIED", "PROPAGATING_NEW_INTERMEDIATE", "VERIFYING"))
            await until(lambda: is_verdict(plane, "first", "VERIFIED"))
        async with plane.server():
            await until(says(plane, "warnings", "every mesh has run with PROPAGATING_NEW_INTERMEDIATE"))
            assert (await verdict(plane, "first"))["state"] == "VERIFIED"
            await verify(plane, "second", "PROPAGATING_NEW_INTERMEDIATE")
            await until(lambda: finished(plane))
            await until(lambda: accepted(plane))

        # Of what is there from the rotation before nothing counts in the next.
        async with plane.server():
            await rotate_to(plane, named("old"), **BY_HAND)
            await until(at(plane, "VERIFYING"))
            assert (await verdict(plane, "first"))["state"] == "VERIFIED"
            again = {"spec": {"step": "ADDING_NEW_ROOT", "action": "ROLLBACK"}}
            await plane.kube.patch(CertificateVerification.KIND, "gloo-mesh", "first", again)
            await until(at(plane, "ROLLING_BACK", "PREVIOUS_CA", "VERIFYING"))
            await until(lambda: is_verdict(plane, "first", "VERIFIED"))

    both = old["root-cert.pem"] + new["root-cert.pem"]
    wanted = [old["root-cert.pem"], both, new["root-cert.pem"]]
    for answers in seen.values():
        bundles = list(dict.fromkeys(answer.signing_root_ca for answer in answers))
        assert bundles[:3] == wanted
        assert answers[-1].signing_root_ca == new["root-cert.pem"]
    assert (await steps_of(plane))[:10] == [
        "ADDING_NEW_ROOT", "VERIFYING", "VERIFIED",
        "PROPAGATING_NEW_INTERMEDIATE", "VERIFYING", "VERIFIED",
        "DELETING_OLD_ROOT", "VERIFYING", "VERIFIED", "FINISHED",
    ]  # fmt: skip


async def test_rollback_ends_with_the_old_root_and_continue_begins_again(plane: Plane) -> None:
    await plane.register("a")
    old, new = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("old"), "a", **BY_HAND), secret("old", old), secret("new", new)])
    async with plane.agent("a") as a, following(Certifier(a, "a")) as seen:
        async with plane.server():
            await until(lambda: accepted(plane))
            await rotate_to(plane, named("new"), "a", **BY_HAND)
            await verify(plane, "go", "ADDING_NEW_ROOT")
            await until(at(plane, "PROPAGATING_NEW_INTERMEDIATE", "VERIFYING"))
            await verify(plane, "no", "PROPAGATING_NEW_INTERMEDIATE", "ROLLBACK")
            await until(at(plane, "ROLLING_BACK", "ADDING_NEW_ROOT", "VERIFYING"))
        async with plane.server():
            await verify(plane, "still-no", "ADDING_NEW_ROOT", "ROLLBACK")
            await until(at(plane, "ROLLING_BACK", "PREVIOUS_CA", "VERIFYING"))
            assert seen["a"][-1].signing_root_ca == old["root-cert.pem"]
            await until(lambda: is_verdict(plane, "still-no", "VERIFIED"))
            await verify(plane, "after-all", "PREVIOUS_CA")
            await until(at(plane, "PREVIOUS_CA", "VERIFYING", "VERIFIED", "ADDING_NEW_ROOT", "VERIFYING"))
            await rotate_to(plane, named("old"), "a", **BY_HAND)
            await until(at(plane, "ADDING_NEW_ROOT", "VERIFYING", "FINISHED"))
            await until(lambda: accepted(plane))
    assert seen["a"][-1].signing_root_ca == old["root-cert.pem"]


async def test_who_verifies_is_told_what_workloads_present(plane: Plane) -> None:
    """While it is waited for, in the log, and with what was said; to go on all the same is for people to decide."""
    await plane.register("a")
    given = [secret("old", valid_root()), secret("new", valid_root())]
    await plane.mgmt.load([virtual_mesh(named("old"), "a", **BY_HAND), *given])
    async with plane.agent("a") as a, plane.server():
        certifier = Certifier(a, "a")
        certifier.workloads = WorkloadCertificates(shared=7, presumed=1)
        async with following(certifier):
            await until(lambda: accepted(plane))
            await rotate_to(plane, named("new"), "a", **BY_HAND)
            await until(says(plane, "warnings", "VirtualMesh; all 7 workloads that show a certificate show one of the"))
            odd = DoubtfulPod(name="default/odd", shows_other=True, reason="it is under another root")
            certifier.workloads = WorkloadCertificates(shared=7, other=1, pods=(odd,))
            await verify(plane, "go", "ADDING_NEW_ROOT")
            named_in = "1 workloads show no certificate of the shared root: default/odd (it is under another root)"
            await until(says(plane, "warnings", named_in))
            await verify(plane, "all-the-same", "PROPAGATING_NEW_INTERMEDIATE")
            await until(at(plane, "VERIFIED", "DELETING_OLD_ROOT", "VERIFYING"))
            for name in ("go", "all-the-same"):
                await until(partial(is_verdict, plane, name, "VERIFIED"))

    assert any(named_in in line for line in (await verdict(plane, "all-the-same"))["warnings"])
    assert "warnings" not in await verdict(plane, "go")
    log = {entry["state"]: entry["message"] for entry in (await status_of(plane))["conditions"]}
    assert named_in in log["VERIFIED"]
    assert (
        "PROPAGATING_NEW_INTERMEDIATE is verified by CertificateVerification gloo-mesh/all-the-same" in log["VERIFIED"]
    )


async def test_issuance_and_rotation_are_metrics(plane: Plane) -> None:
    await plane.register("a")
    old = valid_root(end=datetime.now(UTC) + 400 * DAY)
    await plane.mgmt.load([virtual_mesh(named("old"), "a", **BY_HAND), secret("old", old), secret("new", valid_root())])
    async with plane.agent("a") as a, plane.server():
        certifier = Certifier(a, "a")

        async def metrics() -> dict[str, float]:
            lines = (await plane.get("/metrics"))[1].splitlines()
            return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}

        async with following(certifier):
            await until(lambda: accepted(plane))
            first = await metrics()
            await rotate_to(plane, named("new"), "a", **BY_HAND)
            await until(at(plane, "ADDING_NEW_ROOT", "VERIFYING"))
        certifier.ask(b"no request")
        await until(certifier.answer)
        await until(lambda: key_of(CertificateRequest, "a") in a.held_records)
        later = await metrics()

    assert first["isthmus_intermediates_signed_total"] == 1
    assert first["isthmus_request_answer_seconds_count"] == 1
    assert first['isthmus_rotation_step{step="NOT_ROTATING",virtual_mesh="gloo-mesh/vm"}'] == 1
    expires = first['isthmus_root_expiry_timestamp_seconds{secret="gloo-mesh/old",virtual_mesh="gloo-mesh/vm"}']
    assert abs(expires - (datetime.now(UTC) + 400 * DAY).timestamp()) < 3600
    assert not any("isthmus_rotation_changed" in name for name in first)

    assert later["isthmus_intermediates_signed_total"] == 2
    assert later["isthmus_requests_refused_total"] == 1
    assert later["isthmus_request_answer_seconds_count"] == 3
    assert later['isthmus_rotation_step{step="ADDING_NEW_ROOT",virtual_mesh="gloo-mesh/vm"}'] == 1
    assert later['isthmus_rotation_step{step="NOT_ROTATING",virtual_mesh="gloo-mesh/vm"}'] == 0
    assert later['isthmus_rotation_verifying{virtual_mesh="gloo-mesh/vm"}'] == 1
    changed = later['isthmus_rotation_changed_timestamp_seconds{virtual_mesh="gloo-mesh/vm"}']
    assert abs(changed - datetime.now(UTC).timestamp()) < 600
    assert later['isthmus_mesh_certificate_state{cluster="a",mesh="mesh-a",state="FINISHED"}'] == 1
    assert 'isthmus_root_expiry_timestamp_seconds{secret="gloo-mesh/new",virtual_mesh="gloo-mesh/vm"}' in later


async def test_a_generated_root_comes_back_after_a_provided_one(plane: Plane) -> None:
    """It is the one that was made first."""
    await plane.register("a")
    await plane.mgmt.load([virtual_mesh(GENERATED, "a"), secret("mine", valid_root())])
    async with plane.agent("a") as a, following(Certifier(a, "a")) as seen, plane.server():
        await until(lambda: accepted(plane))
        made = await root_in(plane, ROOT)
        await rotate_to(plane, named("mine"), "a")
        await until(at(plane, "FINISHED"))
        await rotate_to(plane, GENERATED, "a")
        await until(at(plane, *BY_ITSELF, *BY_ITSELF))
        await until(lambda: accepted(plane))

        assert await root_in(plane, ROOT) == made
        assert seen["a"][-1].signing_root_ca == made["root-cert.pem"]
        assert not await exists(plane, f"{ROOT}.1")


async def test_a_mesh_that_leaves_holds_no_rotation_up(plane: Plane) -> None:
    await plane.register("a", "b")
    await plane.mgmt.load([virtual_mesh(GENERATED), secret("new", valid_root())])
    async with plane.agent("a") as a, plane.agent("b") as b, plane.server():
        stays, leaves = Certifier(a, "a"), Certifier(b, "b")
        async with following(stays):
            async with following(leaves):
                await until(lambda: accepted(plane))
            await rotate_to(plane, named("new"))
            await until(says(plane, "warnings", "certificate of mesh mesh-b.gloo-mesh.: its agent has not taken up"))
            await until(lambda: stays.wanted and stays.wanted["spec"]["trust"] == stays.took)
            assert await steps_of(plane) == ["ADDING_NEW_ROOT"]

            await rotate_to(plane, named("new"), "a")
            await until(lambda: finished(plane))
            await until(lambda: leaves.wanted is None)
            await until(lambda: accepted(plane))


async def test_a_mesh_that_joins_gets_the_trust_of_the_step(plane: Plane) -> None:
    """It trusts both roots at once, its certificate is of the one that signs now, and the next step waits for it."""
    await plane.register("a", "b")
    old, new = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("old"), "a", **BY_HAND), secret("old", old), secret("new", new)])
    async with plane.agent("a") as a, plane.agent("b") as b, plane.server(), following(Certifier(a, "a")):
        joins = Certifier(b, "b")
        await until(lambda: accepted(plane))
        await rotate_to(plane, named("new"), "a", **BY_HAND)
        await until(at(plane, "ADDING_NEW_ROOT", "VERIFYING"))
        await rotate_to(plane, named("new"), "a", "b", **BY_HAND)
        await until(lambda: joins.wanted)
        await verify(plane, "go", "ADDING_NEW_ROOT")
        await until(lambda: is_verdict(plane, "go", "PENDING"))
        assert any("a mesh has fallen behind since" in line for line in (await verdict(plane, "go"))["warnings"])

        async with following(joins) as seen:
            await until(at(plane, "PROPAGATING_NEW_INTERMEDIATE", "VERIFYING"))
        both = old["root-cert.pem"] + new["root-cert.pem"]
        assert [answer.signing_root_ca for answer in seen["b"]] == [both, both]
        for answer, signer in zip(seen["b"], (old, new), strict=True):
            assert check_chain(answer.cert_chain, signer["root-cert.pem"], datetime.now(UTC)) is None


async def test_a_virtual_mesh_made_again_during_a_rotation_goes_on(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What meshes run with counts until none does. A fresh start would have them distrust each other."""
    monkeypatch.setattr(roots, "LOOK_SECONDS", 0.05)
    await plane.register("a")
    old, new = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("old"), "a", **BY_HAND), secret("old", old), secret("new", new)])
    async with plane.agent("a") as a, plane.server():
        certifier = Certifier(a, "a")
        async with following(certifier):
            await until(lambda: accepted(plane))
            await rotate_to(plane, named("new"), "a", **BY_HAND)
            await until(at(plane, "VERIFYING"))
        wanted = certifier.wanted
        await plane.kube.delete(VirtualMesh.KIND, "gloo-mesh", "vm")
        await until(lambda: certifier.wanted is None)
        await plane.kube.create(VirtualMesh.KIND, virtual_mesh(named("new"), "a", **BY_HAND))
        assert await until(lambda: certifier.wanted) == wanted
        await until(at(plane, "VERIFYING"))

        await plane.kube.delete(VirtualMesh.KIND, "gloo-mesh", "vm")
        await until(lambda: certifier.wanted is None)
        assert await noted(plane)
        a.publication.publish({key_of(IssuedCertificate, "a"): None}, complete=True)

        async def forgotten() -> bool:
            return await noted(plane) is None

        await until(forgotten)
        await plane.kube.create(VirtualMesh.KIND, virtual_mesh(named("new"), "a", **BY_HAND))
        async with following(certifier) as seen:
            await until(lambda: accepted(plane))
        assert [answer.signing_root_ca for answer in seen["a"]] == [new["root-cert.pem"]]


async def test_a_generated_root_is_renewed_before_it_expires(plane: Plane) -> None:
    """In a Secret of its own, by a rotation like any other; once, also when the server starts again."""
    await plane.register("a")
    now = datetime.now(UTC)
    nearly_over = valid_root(begin=now - 95 * DAY, end=now + 5 * DAY)
    await plane.mgmt.load([virtual_mesh(named(ROOT), "a"), secret(ROOT, nearly_over)])
    async with plane.agent("a") as a, following(Certifier(a, "a")) as seen:
        async with plane.server():
            await until(says(plane, "warnings", f"the root of Secret gloo-mesh/{ROOT} expires on"))
            await until(lambda: seen["a"])
            await rotate_to(plane, GENERATED, "a")  # as if it had been made here
            await until(at(plane, *BY_ITSELF))
            await until(lambda: accepted(plane))
        made = await root_in(plane, f"{ROOT}.1")
        await plane.kube.delete(SECRET, "gloo-mesh", ROOT)
        links = a.connections
        async with plane.server():
            await until(lambda: a.connections > links)
            await rotate_to(plane, GENERATED, "a", autoRestartPods=True)  # seen and done by what comes next

            async def observed() -> bool:
                found = await plane.kube.get(VirtualMesh.KIND, "gloo-mesh", "vm")
                return bool(found["status"]["observedGeneration"] == found["metadata"]["generation"])

            await until(observed)
            await until(lambda: accepted(plane))
    assert seen["a"][-1].signing_root_ca == made["root-cert.pem"]
    assert (await noted(plane) or {})["deployed"]["secret"]["name"] == f"{ROOT}.1"
    assert not await exists(plane, ROOT)
    assert not await exists(plane, f"{ROOT}.2")


async def test_a_root_that_has_expired_is_replaced_at_once(plane: Plane) -> None:
    """Nobody believes its certificates any more, and it signs none, so there is nothing to be careful with."""
    await plane.register("a")
    old, new = valid_root(), valid_root()
    await plane.mgmt.load([virtual_mesh(named("old"), "a"), secret("old", old), secret("new", new)])
    async with plane.agent("a") as a, following(Certifier(a, "a")) as seen:
        async with plane.server():
            await until(lambda: accepted(plane))
        note = await noted(plane)
        assert note is not None
        expired = valid_root(begin=datetime.now(UTC) - 3 * DAY, end=datetime.now(UTC) - DAY)
        note["deployed"] |= {"certificate": expired["root-cert.pem"].decode(), "fingerprint": "of-the-expired"}
        await plane.kube.patch(CONFIG_MAP, "gloo-mesh", TRUST, {"data": {"gloo-mesh_vm": json.dumps(note)}})
        await plane.kube.patch(SECRET, "gloo-mesh", "old", {"data": secret("", expired)["data"]})
        async with plane.server():
            await until(says(plane, "errors", "is invalid: ca-cert.pem: expired on"))
            await rotate_to(plane, named("new"), "a")
            await until(at(plane, "FINISHED"))
            await until(lambda: accepted(plane))
    assert await steps_of(plane) == ["FINISHED"]
    assert seen["a"][-1].signing_root_ca == new["root-cert.pem"]


async def test_a_first_root_is_none_whose_life_is_nearly_over(plane: Plane) -> None:
    """A Secret left by an earlier VirtualMesh: what it holds is passed over, and not followed step by step."""
    await plane.register("a")
    now = datetime.now(UTC)
    expired = valid_root(begin=now - 3 * DAY, end=now - DAY)
    nearly_over = valid_root(begin=now - 99 * DAY, end=now + DAY)
    given = [secret(ROOT, expired), secret(f"{ROOT}.1", nearly_over), secret(f"{ROOT}.2", valid_root())]
    await plane.mgmt.load([virtual_mesh(GENERATED, "a"), *given])
    async with plane.agent("a") as a, following(Certifier(a, "a")), plane.server():
        await until(lambda: accepted(plane))
    assert (await noted(plane) or {})["deployed"]["secret"]["name"] == f"{ROOT}.2"
    assert await steps_of(plane) == []


async def test_a_root_that_expires_soon_is_warned_of(plane: Plane) -> None:
    await plane.register("a")
    now = datetime.now(UTC)
    await plane.mgmt.load([virtual_mesh(named("mine"), "a"), secret("mine", valid_root(end=now + timedelta(days=29)))])
    async with plane.agent("a") as a, following(Certifier(a, "a")), plane.server():
        await until(says(plane, "warnings", "the root of Secret gloo-mesh/mine expires on"))
        await until(says(plane, "warnings", "name another one in spec.mtlsConfig.shared.rootCertificateAuthority"))


async def test_an_expired_certificate_beside_the_root_does_no_harm(plane: Plane) -> None:
    """A bundle may hold what nobody uses; the root that signs is the one that counts."""
    await plane.register("a")
    now = datetime.now(UTC)
    old, expired = valid_root(), valid_root(begin=now - 3 * DAY, end=now - DAY)
    bundle = old | {"root-cert.pem": old["root-cert.pem"] + expired["root-cert.pem"]}
    await plane.mgmt.load([virtual_mesh(named("old"), "a"), secret("old", bundle), secret("new", valid_root())])
    async with plane.agent("a") as a, following(Certifier(a, "a")), plane.server():
        await until(lambda: accepted(plane))
        await rotate_to(plane, named("new"), "a")
        await until(at(plane, *BY_ITSELF))


def test_numbered_secrets_are_told_from_others() -> None:
    first = ObjectRef(name="vm.ns", namespace="gloo-mesh")
    for number in (0, 1, 12):
        assert number_in(first, numbered(first, number)) == number
    for name in ("vm.ns.", "vm.ns.01", "vm.ns.x", "vm.ns.-1", "vm.ns.\u0661", "vm", "other.1", "vm.ns1"):
        assert number_in(first, ObjectRef(name=name, namespace="gloo-mesh")) is None
    assert number_in(first, ObjectRef(name="vm.ns.1", namespace="elsewhere")) is None


def test_a_new_root_is_not_about_to_be_renewed() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    assert roots.renewal_due(begin, begin + 100 * DAY, 0.1) == begin + 90 * DAY
    assert roots.renewal_due(begin, begin + 100 * DAY, 0.99) == begin + 50 * DAY


async def test_without_care_a_root_whose_key_is_lost_is_replaced(plane: Plane) -> None:
    """Kept until then: a new root that nobody trusts would cut every call."""
    await plane.register("a")
    await plane.mgmt.load([virtual_mesh(GENERATED, "a")])
    async with plane.agent("a") as a, following(Certifier(a, "a")) as seen, plane.server():
        await until(lambda: accepted(plane))
        lost = await root_in(plane, ROOT)
        await plane.kube.delete(SECRET, "gloo-mesh", ROOT)
        await until(says(plane, "errors", "restore it, or name another root"))
        assert not await exists(plane, ROOT)
        await rotate_to(plane, GENERATED, "a", rotationStrategy="NONE")
        await until(lambda: finished(plane))
        await until(lambda: accepted(plane))
        assert await root_in(plane, ROOT) != lost
        assert seen["a"][-1].signing_root_ca == (await root_in(plane, ROOT))["root-cert.pem"]
