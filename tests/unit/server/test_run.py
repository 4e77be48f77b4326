"""The server as a whole, on an embedded management cluster."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from isthmus.api.base import ObjectMeta
from isthmus.api.common import ObjectRef
from isthmus.api.discovery import Destination, IstioMesh, Mesh, MeshInstallation, MeshSpec
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.kube import KubeClient
from isthmus.model.kinds import CONFIG_MAP
from isthmus.model.ref import ObjectKey
from isthmus.program.records import WriteReport, encode, report_key
from isthmus.server.ledger import Ledger
from isthmus.server.notes import IDENTITIES, Notes
from isthmus.server.records import CLUSTER_LABEL
from isthmus.transport import TokenRefused
from tests.unit.server.conftest import Agent, Plane, until
from tests.unit.server.objects import destination as plain_destination
from tests.unit.server.test_fleet import fleet_of

Manifest = dict[str, Any]


def mesh(cluster: str) -> Mesh:
    return Mesh(
        metadata=ObjectMeta(name=f"mesh-{cluster}", namespace="gloo-mesh", labels={CLUSTER_LABEL: cluster}),
        spec=MeshSpec(
            istio=IstioMesh(
                installation=MeshInstallation(namespace="istio-system", cluster=cluster),
                smart_dns_proxying_enabled=True,
            )
        ),
    )


def destination(name: str, cluster: str, port: int = 80) -> Destination:
    found = plain_destination(f"{name}-{cluster}", cluster, port=port)
    spec = msgspec.structs.replace(found.spec, mesh=ObjectRef(name=f"mesh-{cluster}", namespace="gloo-mesh"))
    return msgspec.structs.replace(found, spec=spec)


def gateway(cluster: str) -> Destination:
    from isthmus.api.discovery import ExternalAddress, ServicePort, ServiceType

    found = destination("gateway", cluster)
    assert found.spec.kube_service is not None
    service = msgspec.structs.replace(
        found.spec.kube_service,
        workload_selector_labels={"istio": "ingressgateway"},
        ports=(ServicePort(port=15443, name="tls", protocol="TCP"),),
        external_addresses=(ExternalAddress(ip="192.0.2.1"),),
        service_type=ServiceType.LOAD_BALANCER,
    )
    return msgspec.structs.replace(found, spec=msgspec.structs.replace(found.spec, kube_service=service))


def publish(agent: Agent, *objects: Mesh | Destination, complete: bool = True) -> None:
    agent.publication.publish({str(found.key): encode(found) for found in objects}, complete=complete)


EDIT = {"spec": {"istio": {"smartDnsProxyingEnabled": False}}}
VIRTUAL_MESH: Manifest = {
    "apiVersion": VirtualMesh.KIND.api_version,
    "kind": "VirtualMesh",
    "metadata": {"name": "vm", "namespace": "gloo-mesh"},
    "spec": {
        "meshes": [{"name": f"mesh-{name}", "namespace": "gloo-mesh"} for name in ("a", "b")],
        "federation": {"selectors": [{}]},
    },
}


async def status(plane: Plane, kind: Any, name: str) -> Manifest:
    return (await plane.items(kind)).get(name, {}).get("status") or {}


def accepted(plane: Plane, state: str = "ACCEPTED") -> Callable[[], Awaitable[bool]]:
    async def is_accepted() -> bool:
        return (await status(plane, VirtualMesh.KIND, "vm")).get("state") == state

    return is_accepted


async def test_reports_become_objects_outputs_and_statuses(plane: Plane) -> None:
    await plane.register("a", "b")
    await plane.mgmt.load([VIRTUAL_MESH])
    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        publish(a, mesh("a"), gateway("a"), destination("x", "a"))
        publish(b, mesh("b"), gateway("b"))

        await until(lambda: a.complete and b.complete)
        assert any("x-a.default.svc.a.global" in key for key in b.held_records)
        await until(accepted(plane))
        assert (await status(plane, VirtualMesh.KIND, "vm"))["observedGeneration"] == 1

        async def federated() -> Any:
            return (await status(plane, Destination.KIND, "x-a")).get("appliedFederation")

        assert (await until(federated))["federatedHostname"] == "x-a.default.svc.a.global"
        stored = (await plane.items(Destination.KIND))["x-a"]
        assert stored["status"]["observedGeneration"] == stored["metadata"]["generation"]


async def test_nothing_may_be_pruned_before_every_registered_cluster_is_known(plane: Plane) -> None:
    await plane.register("a", "b")
    async with plane.server(), plane.agent("a") as a:
        publish(a, mesh("a"))
        await until(lambda: plane.items(Mesh.KIND))
        assert not a.complete

        async with plane.agent("b") as b:
            publish(b, mesh("b"), complete=False)
            await until(lambda: has(plane, Mesh, "mesh-b"))
            assert not a.complete

            b.publication.publish({}, complete=True)
            await until(lambda: a.complete)

        await plane.register("c")
        await until(lambda: not a.complete)


async def has(plane: Plane, resource: Any, name: str) -> bool:
    return name in await plane.items(resource.KIND)


async def test_a_restarted_server_knows_what_it_knew_and_writes_nothing(plane: Plane) -> None:
    await plane.register("a", "b")
    await plane.mgmt.load([VIRTUAL_MESH])
    objects = {"a": (mesh("a"), gateway("a"), destination("x", "a")), "b": (mesh("b"), gateway("b"))}

    async def marked() -> bool:
        return set(await Notes(plane.kube, "gloo-mesh").read("last-known-state")) == {"a", "b"}

    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        publish(a, *objects["a"])
        publish(b, *objects["b"])
        await until(lambda: a.complete and b.complete)
        await until(marked)

        async def settled() -> bool:
            return "isthmus_writes_pending 0.0" in (await plane.get("/metrics"))[1]

        await until(settled)
        desired = dict(a.held_records)
    before = await versions(plane)

    async with plane.server(), plane.agent("a") as a:
        publish(a, *objects["a"])
        await until(lambda: a.complete)  # though b is not there
        assert a.held_records == desired
        assert a.client.traffic.records_out == 0  # what it reports was known

        # The server has worked through everything once it has written this.
        publish(a, destination("y", "a"))
        await until(lambda: status(plane, Destination.KIND, "y-a"))
    after = await versions(plane)
    changed = {k for k, v in after.items() if before.get(k, {}).get("metadata") != v["metadata"]}
    assert changed - {("VirtualMesh", "vm")} == {("Destination", "y-a")}


async def versions(plane: Plane) -> dict[tuple[str, str], Manifest]:
    return {
        (resource.KIND.kind, name): item
        for resource in (Mesh, Destination, VirtualMesh)
        for name, item in (await plane.items(resource.KIND)).items()
    }


async def test_an_agent_without_registration_is_refused_until_there_is_one(plane: Plane) -> None:
    async with plane.server(), plane.agent("a") as a:
        await until(lambda: a.errors)
        while "not registered" not in str(a.errors[-1]):
            count = len(a.errors)
            await until(lambda count=count: len(a.errors) > count)
        assert a.connections == 0

        await plane.register("a")

        await until(lambda: a.connections)


async def test_a_deregistered_cluster_is_refused_and_forgotten(plane: Plane) -> None:
    await plane.register("a", "b")
    await plane.mgmt.load([VIRTUAL_MESH])
    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        publish(a, mesh("a"), gateway("a"), destination("x", "a"))
        publish(b, mesh("b"), gateway("b"))
        await until(lambda: a.complete and b.held_records)
        await until(lambda: has(plane, Destination, "x-a"))

        await plane.kube.delete(KubernetesCluster.KIND, "gloo-mesh", "a")

        await until(lambda: b.complete and not b.held_records)

        async def forgotten() -> bool:
            return set(await plane.items(Mesh.KIND)) == {"mesh-b"} and not await has(plane, Destination, "x-a")

        await until(forgotten)
        await until(lambda: a.errors and "not registered" in str(a.errors[-1]))


async def test_a_cluster_deregistered_while_the_server_was_down_is_forgotten(plane: Plane) -> None:
    await plane.register("a")
    async with plane.server(), plane.agent("a") as a:
        publish(a, mesh("a"))
        await until(lambda: has(plane, Mesh, "mesh-a"))
    await plane.kube.delete(KubernetesCluster.KIND, "gloo-mesh", "a")

    async with plane.server():

        async def forgotten() -> bool:
            return not await plane.items(Mesh.KIND)

        await until(forgotten)


async def test_what_an_agent_could_not_write_is_in_the_status(plane: Plane) -> None:
    await plane.register("a", "b")
    await plane.mgmt.load([VIRTUAL_MESH])
    async with plane.server(), plane.agent("a") as a, plane.agent("b") as b:
        publish(a, mesh("a"), gateway("a"), destination("x", "a"))
        publish(b, mesh("b"), gateway("b"))
        wanted = await until(lambda: [key for key in b.held_records if "x-a.default.svc.a.global" in key])
        report = report_key(ObjectKey.parse(wanted[0]))

        b.publication.publish({report: encode(WriteReport("quota exceeded"))}, complete=True)

        await until(accepted(plane, "FAILED"))
        assert "quota exceeded" in json.dumps(await status(plane, VirtualMesh.KIND, "vm"))
        b.publication.publish({report: None}, complete=True)
        await until(accepted(plane))


async def test_somebodys_edit_of_a_discovered_object_is_undone(plane: Plane) -> None:
    await plane.register("a")
    async with plane.server(), plane.agent("a") as a:
        publish(a, mesh("a"))
        await until(lambda: has(plane, Mesh, "mesh-a"))

        await plane.kube.patch(Mesh.KIND, "gloo-mesh", "mesh-a", EDIT)

        async def undone() -> bool:
            item = (await plane.items(Mesh.KIND))["mesh-a"]
            return item["spec"]["istio"]["smartDnsProxyingEnabled"] and item["metadata"]["generation"] > 2

        await until(undone)
        await plane.kube.delete(Mesh.KIND, "gloo-mesh", "mesh-a")
        await until(lambda: has(plane, Mesh, "mesh-a"))


async def test_operators_see_health_metrics_and_snapshots(plane: Plane) -> None:
    await plane.register("a")
    async with plane.server(), plane.agent("a") as a:
        publish(a, mesh("a"))
        await until(lambda: a.complete)

        assert await plane.get("/healthz") == (200, "ok\n")
        assert await plane.get("/ready") == (200, "ok\n")
        code, metrics = await plane.get("/metrics")
        assert code == 200
        assert 'relay_push_clients_connected{cluster="a"} 1.0' in metrics
        assert 'isthmus_cluster_known{cluster="a"} 1.0' in metrics
        assert json.loads((await plane.get("/snapshots/input"))[1])["Mesh"][0]["metadata"]["name"] == "mesh-a"
        assert (await plane.get("/snapshots/output"))[0] == 200
        assert (await plane.get("/snapshots/x"))[0] == 404


async def test_the_ledger_survives_and_can_be_reset(kube: KubeClient) -> None:
    notes = Notes(kube, "gloo-mesh")
    first = Ledger(fleet_of("a", "b"), notes)
    first.token = "secret"
    await first.redeem("a", "secret", "key")
    await first.redeem("b", "secret", "key")

    second = Ledger(fleet_of("a", "b"), notes)
    second.token = "secret"
    second.replace(await notes.read(IDENTITIES))
    with pytest.raises(TokenRefused, match="before"):
        await second.redeem("a", "secret", "another")

    await kube.patch(CONFIG_MAP, "gloo-mesh", IDENTITIES, {"data": {"a": None}})
    second.replace(await notes.read(IDENTITIES))
    await second.redeem("a", "secret", "another")
    assert set(await notes.read(IDENTITIES)) == {"a", "b"}


async def test_addresses_are_remembered(kube: KubeClient) -> None:
    notes = Notes(kube, "gloo-mesh")
    assert await notes.addresses() == {}

    await notes.keep_addresses({"*.x.global": "240.0.0.1"})
    await notes.keep_addresses({"*.x.global": "240.0.0.2", "y.global": "240.0.0.3"})

    assert await notes.addresses() == {"*.x.global": "240.0.0.2", "y.global": "240.0.0.3"}
