"""Certificates for many clusters asked for at once: until the last is signed, and how late the event loop is meanwhile.

The server's own fleet, engine, roots and issuer, without the relay in between. Every cluster asks in the same moment.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
from rich.table import Table

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import CertificateRequest, CertificateRequestSpec
from isthmus.api.common import CommonCertOptions, ObjectRef
from isthmus.api.discovery import AgentInfo, IstioMesh, Mesh, MeshInstallation, MeshSpec
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import (
    MtlsConfig,
    RootCertificateAuthority,
    SharedTrust,
    VirtualMesh,
    VirtualMeshSpec,
)
from isthmus.embedded import EmbeddedCluster
from isthmus.install import management_plane
from isthmus.kube import KubeClient
from isthmus.model.kinds import SECRET
from isthmus.model.ref import Ref
from isthmus.pki import check_chain, make_intermediate_csr, make_trust_root, new_rsa_key
from isthmus.program.logs import configure_logs
from isthmus.program.records import encode
from isthmus.server.fleet import Fleet
from isthmus.server.issuer import Issuer
from isthmus.server.notes import Notes
from isthmus.server.plane import Plane
from isthmus.server.policies import Policies
from isthmus.server.records import CLUSTER_LABEL
from isthmus.server.roots import Roots
from isthmus.translate import Engine

CLUSTERS = 200
BITS = 4096
NAMESPACE = "gloo-mesh"
SECONDS = 60.0
PULSE = 0.001
Row = dict[str, Any]


def mesh(cluster: str) -> Mesh:
    """The mesh of *cluster*."""
    installation = MeshInstallation(namespace="istio-system", cluster=cluster)
    istio = IstioMesh(installation=installation, trust_domain=cluster)
    return Mesh(
        metadata=ObjectMeta(name=f"mesh-{cluster}", namespace=NAMESPACE, labels={CLUSTER_LABEL: cluster}),
        spec=MeshSpec(istio=istio, agent_info=AgentInfo(agent_namespace=NAMESPACE)),
    )


def virtual_mesh(clusters: list[str], bits: int) -> VirtualMesh:
    """All of *clusters* below one provided root."""
    root = RootCertificateAuthority(secret=ObjectRef(name="root", namespace=NAMESPACE))
    options = CommonCertOptions(rsa_key_size_bytes=bits)
    return VirtualMesh(
        metadata=ObjectMeta(name="vm", namespace=NAMESPACE),
        spec=VirtualMeshSpec(
            meshes=tuple(ObjectRef(name=f"mesh-{cluster}", namespace=NAMESPACE) for cluster in clusters),
            mtls_config=MtlsConfig(
                shared=SharedTrust(root_certificate_authority=root, intermediate_cert_options=options)
            ),
        ),
    )


def asks(cluster: str, key: bytes) -> CertificateRequest:
    """What the agent of *cluster* asks for; all may have one *key*, which takes a second to make."""
    name = f"mesh-{cluster}"
    hosts = [f"spiffe://{cluster}/ns/istio-system/sa/istio-citadel"]
    csr = make_intermediate_csr(key, hosts=hosts, organization="Istio", unit=name)
    meta = ObjectMeta(name=name, namespace=NAMESPACE, generation=1, uid=f"uid-{name}")
    return CertificateRequest(metadata=meta, spec=CertificateRequestSpec(certificate_signing_request=csr))


async def until(condition: Callable[[], bool]) -> None:
    """Return once *condition* holds."""
    while True:
        if condition():
            return
        await asyncio.sleep(0.01)


async def longest_gap(gaps: list[float]) -> None:
    """Note how late the event loop comes back, for ever."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(PULSE)
        gaps.append(time.perf_counter() - before - PULSE)


async def issue(kube: KubeClient, clusters: int, bits: int) -> Row:
    """Have *clusters* certificates signed; all are checked."""
    names = [f"c{number:03}" for number in range(clusters)]
    root = make_trust_root(
        new_rsa_key(bits), organization="bench", serial=1, now=datetime.now(UTC), life=timedelta(days=3650)
    )
    await kube.create(
        SECRET,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "root", "namespace": NAMESPACE},
            "data": {key: b64encode(value).decode() for key, value in root.items()},
        },
    )
    fleet, policies, notes = Fleet(NAMESPACE), Policies((VirtualMesh.KIND,)), Notes(kube, NAMESPACE)
    policies.replaced(VirtualMesh.KIND, ())
    plane = Plane(Engine(NAMESPACE), fleet, policies, notes, lambda keys: None)
    roots = Roots(kube, NAMESPACE, notes, plane, fleet, {})
    issuer = Issuer(fleet, plane, roots)
    wanted = virtual_mesh(names, bits)
    plane.change({wanted.key: wanted})
    for name in names:
        registered = KubernetesCluster(metadata=ObjectMeta(name=name, namespace=NAMESPACE))
        fleet.register(name, f"uid-{name}")
        plane.change({registered.key: registered})
        found = mesh(name)
        plane.change_discovered(fleet.receive(name, {str(found.key): encode(found)}, complete=True).objects)
    await plane.turn()
    ref = Ref("", NAMESPACE, "vm")
    roots.take(ref, wanted)
    key = new_rsa_key(bits)
    requests = {name: asks(name, key) for name in names}
    gaps: list[float] = []
    async with asyncio.timeout(SECONDS), asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work) for work in (plane.run(), roots.run(), issuer.run())]
        await until(lambda: roots.signer(ref) is not None and all(plane.publications[name].records for name in names))
        running.append(tasks.create_task(longest_gap(gaps)))
        began = time.perf_counter()
        for name, request in requests.items():
            change = fleet.receive(name, {str(request.key): encode(request)}, complete=True)
            issuer.requests(name, change.requests)
        await until(lambda: all(str(r.key) in plane.publications[name].records for name, r in requests.items()))
        seconds = time.perf_counter() - began
        for task in running:
            task.cancel()
    for name, request in requests.items():
        record = plane.publications[name].records[str(request.key)]
        status = msgspec.json.decode(record.payload, type=CertificateRequest).status
        assert status is not None
        problem = check_chain(status.cert_chain, root["root-cert.pem"], datetime.now(UTC))
        assert problem is None, problem
    return {
        "name": "issuance",
        "clusters": clusters,
        "bits": bits,
        "seconds": round(seconds, 3),
        "longest_gap_ms": round(max(gaps) * 1000, 1),
    }


async def measure(clusters: int = CLUSTERS, bits: int = BITS) -> Row:
    """The row of the table."""
    async with EmbeddedCluster("mgmt") as cluster:
        await cluster.load(item for item in management_plane() if item["kind"] != "Deployment")
        with TemporaryDirectory(prefix="isthmus-bench-") as directory:
            kubeconfig = Path(directory) / "kubeconfig"
            kubeconfig.write_text(json.dumps(cluster.kubeconfig()))
            async with KubeClient.from_kubeconfig(kubeconfig) as kube:
                return await issue(kube, clusters, bits)


def table(rows: list[Row]) -> Table:
    """The figures for people."""
    made = Table(title="Certificates asked for at once", title_justify="left")
    for header in ("clusters", "RSA bits", "all signed", "event loop late by at most"):
        made.add_column(header, justify="right")
    for row in rows:
        made.add_row(
            f"{row['clusters']:,}", f"{row['bits']:,}", f"{row['seconds']:.2f} s", f"{row['longest_gap_ms']:.1f} ms"
        )
    return made


def run() -> list[Row]:
    """Measure; takes some seconds."""
    configure_logs(verbose=False)
    return [asyncio.run(measure())]


if __name__ == "__main__":
    for found in run():
        sys.stdout.write(json.dumps(found) + "\n")
