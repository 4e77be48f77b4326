"""A mesh's first root, and the one that replaces it, on a fleet whose parts are killed in every phase."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest

from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.model.kinds import SECRET
from isthmus.pki import make_trust_root, new_rsa_key
from tests.system.federation import Federation, federation, until

pytestmark = pytest.mark.timeout(700)  # five times all pods are replaced; some seconds each, if nobody else works here

VM = ("gloo-mesh", "virtual-mesh")
SECONDS = 500.0
STEPS = ["ADDING_NEW_ROOT", "PROPAGATING_NEW_INTERMEDIATE", "DELETING_OLD_ROOT", "FINISHED"]


async def rotation(fleet: Federation) -> list[str]:
    """The log of the rotation so far."""
    status = (await fleet.mgmt.get(VirtualMesh.KIND, *VM)).get("status") or {}
    return [entry["state"] for entry in status.get("conditions", ())]


async def certificates(fleet: Federation) -> list[tuple[str, str]]:
    """The state of each certificate, and for which trust that is."""
    found = []
    for cluster in fleet.fleet.managed:
        for item in (await fleet.kube[cluster].list(IssuedCertificate.KIND)).items:
            status = item.get("status") or {}
            current = status.get("observedGeneration") == item["metadata"]["generation"]
            found.append((status.get("state", "PENDING") if current else "PENDING", item["spec"]["trust"]))
    return found


class Striker:
    """Kills one part whenever a phase begins that it has not seen; every part has its turn."""

    def __init__(self, fleet: Federation) -> None:
        names = fleet.fleet.names
        kills = [partial(self._kill, fleet, name) for name in names]
        restarts = [partial(fleet.restart_api_server, name) for name in names]
        self._blows = cycle([blow for pair in zip(kills, restarts, strict=True) for blow in pair])
        self._fleet = fleet
        self.phases: list[tuple[Any, ...]] = []

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Strike until *condition* holds."""

        async def holds() -> bool | None:
            phase = (tuple(await rotation(self._fleet)), *await certificates(self._fleet))
            if phase not in self.phases:
                self.phases.append(phase)
                await next(self._blows)()
            return True if await condition() else None

        await until(holds, SECONDS)

    @staticmethod
    async def _kill(fleet: Federation, name: str) -> None:
        fleet.kill(name)


async def test_whoever_is_killed_in_whatever_phase_the_end_is_the_same(tmp_path: Path) -> None:
    """From no root to a generated one and on to a provided one; each step once and in order, nothing lost.

    In the end every mesh signs below the new root and trusts no other, all its pods run with that, and the fleet is
    what its users' objects call for.
    """
    async with federation(tmp_path, own_processes=True) as fleet:
        striker = Striker(fleet)
        await striker.until(lambda: first_root_is_in_force(fleet))
        first = len(striker.phases)
        new = make_trust_root(
            new_rsa_key(2048), organization="new", serial=1, now=datetime.now(UTC), life=timedelta(days=3650)
        )
        await fleet.mgmt.create(SECRET, secret("new-root", new))
        authority = {"generated": None, "secret": {"name": "new-root", "namespace": "gloo-mesh"}}
        config = {"mtlsConfig": {"shared": {"rootCertificateAuthority": authority}}}
        await fleet.mgmt.patch(VirtualMesh.KIND, *VM, {"spec": config})
        await striker.until(lambda: rotation_is_done(fleet))

        # A phase may pass while the blow of the one before falls.
        assert first >= 3
        assert len({phase[0][-1] for phase in striker.phases if phase[0]} & set(STEPS[:-1])) >= 2
        await fleet.settled()
        assert await rotation(fleet) == STEPS
        for cluster in fleet.fleet.managed:
            cacerts = (await fleet.kube[cluster].get(SECRET, "istio-system", "cacerts"))["data"]
            assert b64decode(cacerts["root-cert.pem"]) == new["root-cert.pem"]


def secret(name: str, data: dict[str, bytes]) -> dict[str, Any]:
    encoded = {key: b64encode(value).decode() for key, value in data.items()}
    metadata = {"name": name, "namespace": "gloo-mesh"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded}


async def first_root_is_in_force(fleet: Federation) -> bool:
    states = [state for state, _ in await certificates(fleet)]
    return states == ["FINISHED", "FINISHED"]


async def rotation_is_done(fleet: Federation) -> bool:
    return (await rotation(fleet))[-1:] == ["FINISHED"]
