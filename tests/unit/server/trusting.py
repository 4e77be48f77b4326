"""What the tests of trust through the whole server share: roots, a VirtualMesh, and agents that get certificates."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import (
    CertificateRequest,
    CertificateRequestSpec,
    CertificateRequestState,
    CertificateRequestStatus,
)
from isthmus.api.discovery import AgentInfo, IstioMesh, Mesh, MeshInstallation, MeshSpec
from isthmus.api.issued_certificate import (
    IssuedCertificate,
    IssuedCertificateState,
    IssuedCertificateStatus,
    WorkloadCertificates,
)
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.kube import NotFound
from isthmus.model.kinds import CONFIG_MAP, SECRET
from isthmus.model.ref import ObjectKey
from isthmus.pki import make_intermediate_csr, new_key
from isthmus.program.records import encode
from isthmus.server.notes import TRUST
from isthmus.server.records import CLUSTER_LABEL
from tests.unit.server.authorities import DAY, certificate, ec_key, host, provided
from tests.unit.server.conftest import Agent, Plane, until

Manifest = dict[str, Any]
GENERATED: Manifest = {"generated": {"rsaKeySizeBytes": 2048}}
ROOT = "vm.gloo-mesh"


def virtual_mesh(root: Manifest, *clusters: str, **config: Any) -> Manifest:
    shared = {"rootCertificateAuthority": root, "intermediateCertOptions": {"rsaKeySizeBytes": 2048}}
    return {
        "apiVersion": VirtualMesh.KIND.api_version,
        "kind": "VirtualMesh",
        "metadata": {"name": "vm", "namespace": "gloo-mesh"},
        "spec": {
            "meshes": [{"name": f"mesh-{name}", "namespace": "gloo-mesh"} for name in clusters or ("a", "b")],
            "mtlsConfig": {"shared": shared, **config},
        },
    }


def named(secret: str) -> Manifest:
    return {"secret": {"name": secret, "namespace": "gloo-mesh"}}


def mesh(cluster: str) -> Mesh:
    installation = MeshInstallation(namespace="istio-system", cluster=cluster)
    return Mesh(
        metadata=ObjectMeta(name=f"mesh-{cluster}", namespace="gloo-mesh", labels={CLUSTER_LABEL: cluster}),
        spec=MeshSpec(
            istio=IstioMesh(installation=installation, trust_domain=cluster),
            agent_info=AgentInfo(agent_namespace="gloo-mesh"),
        ),
    )


def valid_root(**changes: Any) -> dict[str, bytes]:
    """The data of a Secret with a root that is valid by the real clock, which the server goes by."""
    key, now = ec_key(), datetime.now(UTC)
    life = {"begin": now - DAY, "end": now + 365 * DAY} | changes
    return provided(key, certificate(key, **life))


def secret(name: str, data: dict[str, bytes]) -> Manifest:
    encoded = {key: b64encode(value).decode() for key, value in data.items()}
    return {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "gloo-mesh"}, "data": encoded,
    }  # fmt: skip


def key_of(kind: type[IssuedCertificate] | type[CertificateRequest], cluster: str) -> str:
    return str(ObjectKey(kind.KIND.api_version, kind.KIND.kind, "gloo-mesh", f"mesh-{cluster}"))


class Certifier:
    """What an agent does about its certificate, with the cluster's objects in memory."""

    def __init__(self, agent: Agent, cluster: str) -> None:
        self.agent = agent
        self.cluster = cluster
        self.request = CertificateRequest()
        self.workloads: WorkloadCertificates | None = None
        """What pods are said to present."""
        self.took = ""
        """The trust of the IssuedCertificate that was acted on last."""
        self.report(mesh(cluster))

    def report(self, found: Mesh | CertificateRequest | IssuedCertificate) -> None:
        self.agent.publication.publish({str(found.key): encode(found)}, complete=True)

    @property
    def wanted(self) -> Manifest | None:
        """The IssuedCertificate that the server wants here."""
        record = self.agent.held_records.get(key_of(IssuedCertificate, self.cluster))
        return msgspec.json.decode(record) if record else None

    def ask(self, csr: bytes | None = None) -> None:
        """Ask for a certificate, by default for a new key and just what is wanted."""
        name = f"mesh-{self.cluster}"
        csr = csr or make_intermediate_csr(new_key(), hosts=[host(self.cluster)], organization="Istio", unit=name)
        meta = ObjectMeta(
            name=name, namespace="gloo-mesh", generation=self.request.metadata.generation + 1, uid=f"uid-{name}"
        )
        self.request = CertificateRequest(metadata=meta, spec=CertificateRequestSpec(certificate_signing_request=csr))
        self.report(self.request)

    def answer(self) -> CertificateRequestStatus | None:
        """The answer to the present request."""
        record = self.agent.held_records.get(key_of(CertificateRequest, self.cluster))
        found = msgspec.json.decode(record, type=CertificateRequest) if record else None
        if found is None or found.metadata != self.request.metadata or found.spec != self.request.spec:
            return None
        return found.status

    def take(self, status: CertificateRequestStatus, trust: str) -> None:
        """Report that the answer is in force and all pods run with it."""
        self.request = msgspec.structs.replace(self.request, status=status)
        self.report(self.request)
        seen = self.workloads and msgspec.structs.replace(self.workloads, observed_trust=trust)
        done = IssuedCertificateStatus(
            observed_generation=1, state=IssuedCertificateState.FINISHED, observed_trust=trust, workloads=seen
        )
        meta = ObjectMeta(name=f"mesh-{self.cluster}", namespace="gloo-mesh", generation=1)
        self.report(IssuedCertificate(metadata=meta, status=done))
        self.took = trust

    async def follow(self, seen: list[CertificateRequestStatus]) -> None:
        """Do what an agent does, for ever; *seen* are the answers in their order."""
        while True:
            wanted = await until(lambda: self.wanted and self.wanted["spec"]["trust"] != self.took and self.wanted)
            self.ask()
            answer = await until(self.answer)
            assert answer.state is CertificateRequestState.FINISHED, answer
            seen.append(answer)
            self.take(answer, wanted["spec"]["trust"])


async def status_of(plane: Plane) -> Manifest:
    found: Manifest = (await plane.kube.get(VirtualMesh.KIND, "gloo-mesh", "vm")).get("status") or {}
    return found


def says(plane: Plane, part: str, text: str) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return any(text in line for line in (await status_of(plane)).get(part, ()))

    return check


async def says_nothing(plane: Plane) -> bool:
    return not (await status_of(plane)).get("errors")


async def root_in(plane: Plane, name: str) -> dict[str, bytes]:
    found = await plane.kube.get(SECRET, "gloo-mesh", name)
    return {key: b64decode(value) for key, value in found["data"].items()}


async def exists(plane: Plane, name: str) -> bool:
    try:
        await plane.kube.get(SECRET, "gloo-mesh", name)
    except NotFound:
        return False
    return True


async def accepted(plane: Plane) -> bool:
    status = await status_of(plane)
    return status.get("state") == "ACCEPTED" and not status.get("warnings")


async def finished(plane: Plane) -> bool:
    return any(entry["state"] == "FINISHED" for entry in (await status_of(plane)).get("conditions", ()))


async def rotate_to(plane: Plane, root: Manifest, *clusters: str, **config: Any) -> None:
    """Edit the VirtualMesh: another root, other meshes, other options."""
    authority = {"generated": None, "secret": None} | root
    spec = virtual_mesh(authority, *clusters, **config)["spec"]
    await plane.kube.patch(VirtualMesh.KIND, "gloo-mesh", "vm", {"spec": spec})


async def steps_of(plane: Plane) -> list[str]:
    """The states in the log of rotations."""
    return [entry["state"] for entry in (await status_of(plane)).get("conditions", ())]


def at(plane: Plane, *states: str) -> Callable[[], Awaitable[bool]]:
    """Whether the log ends with *states*."""

    async def check() -> bool:
        return (await steps_of(plane))[-len(states) :] == list(states)

    return check


async def noted(plane: Plane) -> Manifest | None:
    """The note of the virtual mesh."""
    try:
        found = (await plane.kube.get(CONFIG_MAP, "gloo-mesh", TRUST)).get("data") or {}
    except NotFound:
        return None
    note: Manifest | None = msgspec.json.decode(found["gloo-mesh_vm"]) if "gloo-mesh_vm" in found else None
    return note


@asynccontextmanager
async def following(*certifiers: Certifier) -> AsyncIterator[dict[str, list[CertificateRequestStatus]]]:
    """Agents that do as they are told, while the context lasts; their answers by cluster."""
    seen: dict[str, list[CertificateRequestStatus]] = {certifier.cluster: [] for certifier in certifiers}
    tasks = [asyncio.create_task(certifier.follow(seen[certifier.cluster])) for certifier in certifiers]
    try:
        yield seen
        assert not any(task.done() for task in tasks), tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
