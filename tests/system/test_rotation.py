"""One root replaces another on a fleet of real processes, which are killed meanwhile."""

from __future__ import annotations

import asyncio
import random
from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.kinds import SECRET
from isthmus.pki import make_trust_root, new_rsa_key
from tests.system.federation import Federation, federation, until

pytestmark = pytest.mark.timeout(500)

VM = ("gloo-mesh", "virtual-mesh")
PAUSE_SECONDS = 6.0


async def states(fleet: Federation) -> list[str]:
    """The log of the rotation so far."""
    status = (await fleet.mgmt.get(VirtualMesh.KIND, *VM)).get("status") or {}
    return [entry["state"] for entry in status.get("conditions", ())]


async def kill_now_and_then(fleet: Federation, seed: int) -> None:
    dice = random.Random(seed)
    while True:
        await asyncio.sleep(dice.uniform(0, PAUSE_SECONDS))
        fleet.kill(dice.choice(fleet.fleet.names))


async def finished(fleet: Federation) -> list[str] | None:
    found = await states(fleet)
    return found if found[-1:] == ["FINISHED"] else None


async def test_a_provided_root_replaces_the_generated_one_whoever_is_killed(tmp_path: Path) -> None:
    """Each step once and in order; in the end every mesh signs below the new root, and trusts no other."""
    async with federation(tmp_path, own_processes=False) as fleet:
        await fleet.settled()
        new = make_trust_root(
            new_rsa_key(2048), organization="new", serial=1, now=datetime.now(UTC), life=timedelta(days=30)
        )
        data = {key: b64encode(value).decode() for key, value in new.items()}
        secret: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "new-root", "namespace": "gloo-mesh"},
            "data": data,
        }
        await fleet.mgmt.create(SECRET, secret)
        authority = {"generated": None, "secret": {"name": "new-root", "namespace": "gloo-mesh"}}
        config = {"mtlsConfig": {"shared": {"rootCertificateAuthority": authority}}}

        killing = asyncio.create_task(kill_now_and_then(fleet, 1))
        try:
            await fleet.mgmt.patch(VirtualMesh.KIND, *VM, {"spec": config})
            logged = await until(lambda: finished(fleet), seconds=300.0)
        finally:
            killing.cancel()
            await asyncio.wait([killing])

        assert logged == ["ADDING_NEW_ROOT", "PROPAGATING_NEW_INTERMEDIATE", "DELETING_OLD_ROOT", "FINISHED"]
        await fleet.settled()
        for cluster in fleet.fleet.managed:
            cacerts = (await fleet.kube[cluster].get(SECRET, "istio-system", "cacerts"))["data"]
            assert b64decode(cacerts["root-cert.pem"]) == new["root-cert.pem"]
