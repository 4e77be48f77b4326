"""A federated fleet of real processes, and what it should end up with."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from isthmus.agent.ownership import ownership_labels, selector, with_labels
from isthmus.api.access_policy import AccessPolicy
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificate, IssuedCertificateState, IssuedCertificateStatus
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.parse import ParseFailure, parse
from isthmus.api.pod_bounce_directive import PodBounceDirective
from isthmus.api.settings import Settings
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.install import install_management_plane
from isthmus.cli.registration import Registration, register, relay_address
from isthmus.discovery import INPUT_KINDS, discover
from isthmus.embedded.fleet import Fleet, walkthrough
from isthmus.install import ManagementPlaneValues, Release
from isthmus.istio.kinds import OUTPUT_KINDS
from isthmus.kube import KubeClient, NotFound
from isthmus.model.ref import ObjectKey
from isthmus.server.notes import TRUST, Notes
from isthmus.server.records import with_certificate
from isthmus.server.roots import read_rotations
from isthmus.translate import Engine
from tests.system.http_door import open_door
from tests.system.link import Network

T = TypeVar("T")
Manifest = dict[str, Any]
State = dict[tuple[str, ObjectKey], Manifest]
"""What is on each cluster, without what no two fleets share: uids, versions, times."""

SECONDS = 120.0  # a guard; everything here takes a second or two on a machine that is not overloaded
POLL_SECONDS = 0.25
SIZES = {"rsaKeySizeBytes": 2048}
POD_ADDRESS = re.compile(r"\b10\.\d+\.\d+\.\d+\b")
FINGERPRINT = re.compile(r"\b[0-9a-f]{64}\b")
TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
TEMPLATE_HASH = re.compile(r'"pod-template-hash":"\w+"')
ZONE = re.compile(r'"zone":"[\w-]+"')
OBSERVED = re.compile(r'"observedGeneration":\d+')


class Federation:
    """Three clusters, the management plane, two registered agents, one virtual mesh."""

    def __init__(self, fleet: Fleet, kube: Mapping[str, KubeClient], network: Network) -> None:
        self.fleet = fleet
        self.kube = kube
        self.network = network

    @property
    def mgmt(self) -> KubeClient:
        """The management cluster."""
        return self.kube[self.fleet.names[0]]

    def kill(self, cluster: str) -> bool:
        """End the program on *cluster* as a crash would; the node starts it again. False if none runs now."""
        killed = False
        for pid in self.fleet.nodes[cluster].processes.values():
            with suppress(ProcessLookupError):  # it has ended, and the node does not know yet
                os.kill(pid, signal.SIGKILL)
                killed = True
        return killed

    async def restart_api_server(self, cluster: str) -> None:
        """End the API server of *cluster* as a crash would, and start it with what it had."""
        await self.fleet.servers[cluster].kill()
        await self.fleet.servers[cluster].start()

    async def outputs(self, cluster: str) -> State:
        """What agents have written to *cluster*."""
        ours = selector(cluster, "gloo-mesh")
        lists = await asyncio.gather(*(self.kube[cluster].list(kind, labels=ours) for kind in OUTPUT_KINDS))
        return {(cluster, key_of(item)): content(item) for listed in lists for item in listed.items}

    async def actual(self) -> State:
        """What is on the clusters: everything agents write, and discovered objects with their statuses."""
        state: State = {}
        for cluster in self.fleet.managed:
            state |= await self.outputs(cluster)
        for resource in (Mesh, Workload, Destination, VirtualMesh):
            for item in (await self.mgmt.list(resource.KIND)).items:
                state["mgmt", key_of(item)] = content(item) | {"status": status_of(item)}
        return state

    async def unfinished(self) -> list[str]:
        """Meshes that are to trust one root and do not run with their certificates yet, a line for each."""
        lines = []
        for virtual_mesh in (await self.mgmt.list(VirtualMesh.KIND)).items:
            names = (
                [ref["name"] for ref in virtual_mesh["spec"]["meshes"]] if "mtlsConfig" in virtual_mesh["spec"] else ()
            )
            for name in names:
                cluster = next(found for found in self.fleet.managed if name.endswith(f"-{found}"))
                try:
                    found = await self.kube[cluster].get(IssuedCertificate.KIND, "gloo-mesh", name)
                except NotFound:
                    found = {}
                state = (found.get("status") or {}).get("state")
                if state != IssuedCertificateState.FINISHED.value:
                    lines.append(f"unfinished: the certificate of {name} is {state or 'not there'}")
        return lines

    async def certificates(self, cluster: str) -> dict[str, IssuedCertificateStatus]:
        """How far the certificate of each mesh of *cluster* should be, by name: as it is, but done."""
        found = {}
        for item in (await self.kube[cluster].list(IssuedCertificate.KIND)).items:
            status = msgspec.convert(item.get("status") or {}, IssuedCertificateStatus)
            done = msgspec.structs.replace(
                status,
                observed_generation=item["metadata"]["generation"],
                state=IssuedCertificateState.FINISHED,
                observed_trust=item["spec"]["trust"],
                error="",
                outdated_pods=None,
            )
            found[item["metadata"]["name"]] = done
        return found

    async def expected(self) -> State:
        """What the clusters should have, from what users have on them: computed at once, by the pure core alone."""
        engine = Engine("gloo-mesh")
        state: State = {}
        for resource in (KubernetesCluster, Settings, VirtualMesh, AccessPolicy):
            for item in (await self.mgmt.list(resource.KIND)).items:
                status_free = {key: value for key, value in item.items() if key != "status"}
                found = parse(status_free)
                assert not isinstance(found, ParseFailure), found
                engine.set(found)
                if resource is VirtualMesh:
                    state["mgmt", key_of(item)] = content(item)
        for cluster in self.fleet.managed:
            lists = await asyncio.gather(*(self.kube[cluster].list(kind) for kind in INPUT_KINDS))
            certificates = await self.certificates(cluster)
            for found in discover(cluster, [item for listed in lists for item in listed.items])[0]:
                if isinstance(found, Mesh):
                    found = with_certificate(found, certificates.get(found.metadata.name))
                engine.set(found)
                state["mgmt", found.key] = content(found.manifest())
        for virtual_mesh, rotation in read_rotations(await Notes(self.mgmt, "gloo-mesh").read(TRUST)).items():
            engine.set_root(virtual_mesh, rotation.facts)
        engine.run()
        for key, output in engine.outputs().items():
            labels = ownership_labels(key.cluster, "gloo-mesh")
            state[key.cluster, key.object] = content(with_labels(output.manifest(), labels))
        for status_key in engine.status_keys():
            kind = status_key.kind
            place = ("mgmt", ObjectKey(kind.api_version, kind.kind, status_key.namespace, status_key.name))
            if place in state:
                status = msgspec.json.decode(msgspec.json.encode(engine.status(status_key)))
                state[place]["status"] = status_of({"status": status})
        return state

    async def settled(self) -> State:
        """The state once it is what it should be, and all pods run with their certificates.

        Fails with the difference when it does not come to that.
        """
        difference = ["nothing was compared"]

        async def same() -> State | None:
            expected, actual = await self.expected(), await self.actual()
            difference[:] = compare(actual, expected) + await self.unfinished()
            return None if difference else actual

        try:
            return await until(same)
        except TimeoutError:
            waiting = await self.waiting()
            raise AssertionError("\n".join(["the fleet does not settle:", *difference[:20], *waiting])) from None

    async def waiting(self) -> list[str]:
        """What restarts wait for, a line for each."""
        lines = []
        for cluster in self.fleet.managed:
            for item in (await self.kube[cluster].list(PodBounceDirective.KIND)).items:
                status = item.get("status") or {}
                lines += [f"{cluster} waits: {line}" for line in status.get("waiting", ("nobody says for what",))]
        return lines


async def until(condition: Callable[[], Awaitable[T | None]], seconds: float = SECONDS) -> T:
    """What *condition* returns once that is something. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while True:
            found = await condition()
            if found is not None:
                return found
            await asyncio.sleep(POLL_SECONDS)


def key_of(item: Manifest) -> ObjectKey:
    metadata = item["metadata"]
    return ObjectKey(item["apiVersion"], item["kind"], metadata.get("namespace", ""), metadata["name"])


def content(item: Manifest) -> Manifest:
    """What of an object must be the same everywhere."""
    metadata = item["metadata"]
    return {
        "labels": metadata.get("labels") or {},
        "annotations": {k: v for k, v in (metadata.get("annotations") or {}).items() if "last-applied" not in k},
        "spec": item.get("spec"),
    }


def status_of(item: Manifest) -> Manifest:
    """The status, without how often the object was written before."""
    return {key: value for key, value in (item.get("status") or {}).items() if key != "observedGeneration"}


def compare(actual: State, expected: State) -> list[str]:
    """How two states differ, a line for each object."""
    lines = []
    for place in sorted({*actual, *expected}):
        if place not in actual:
            lines.append(f"lost: {place[0]} {place[1]}")
        elif place not in expected:
            lines.append(f"left over: {place[0]} {place[1]}")
        elif actual[place] != expected[place]:
            parts = [k for k in actual[place] if actual[place].get(k) != expected[place].get(k)]
            shown = [f"{k}: {actual[place].get(k)} instead of {expected[place].get(k)}" for k in parts]
            lines.append(f"wrong: {place[0]} {place[1]} {'; '.join(shown)}")
    return lines


def without_pod_addresses(state: State) -> Any:
    """*state* with one word for all pod addresses: pods get theirs in the order in which they happen to start.

    So for fingerprints and times of certificates, which no two fleets share, for the hashes of pod templates, which
    have a fingerprint in them, for the zones that pods come to by that hash, and for how often a certificate was asked.
    """
    data = msgspec.json.encode([(cluster, str(key), found) for (cluster, key), found in sorted(state.items())])
    text = POD_ADDRESS.sub("pod", data.decode())
    text = ZONE.sub('"zone":"zone"', TEMPLATE_HASH.sub('"pod-template-hash":"hash"', text))
    text = OBSERVED.sub('"observedGeneration":1', TIME.sub("time", FINGERPRINT.sub("fingerprint", text)))
    return msgspec.json.decode(text)


@asynccontextmanager
async def federation(directory: Path, *, own_processes: bool) -> AsyncIterator[Federation]:
    """A running federation in *directory*; its API servers are processes of their own if they are to be killed."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(
            Fleet(directory, own_processes=own_processes, open_door=open_door if own_processes else None)
        )
        kube = {
            name: await stack.enter_async_context(KubeClient.from_kubeconfig(fleet.kubeconfig, name))
            for name in fleet.names
        }
        mgmt = kube[fleet.names[0]]
        await install_management_plane(mgmt, ManagementPlaneValues(), Release(), SECONDS)
        network = await stack.enter_async_context(Network(await relay_address(mgmt, "gloo-mesh")))
        async with asyncio.TaskGroup() as tasks:
            for name in fleet.managed:
                wanted = Registration(name=name, relay_address=network.address, seconds=SECONDS)
                tasks.create_task(register(mgmt, kube[name], wanted))
        virtual_mesh = yaml.safe_load(walkthrough("virtual-mesh.yaml").read_text())
        shared = virtual_mesh["spec"]["mtlsConfig"]["shared"]
        shared["rootCertificateAuthority"]["generated"] = dict(SIZES)  # keys of the default size take a second each
        shared["intermediateCertOptions"] = dict(SIZES)
        await mgmt.apply(VirtualMesh.KIND, virtual_mesh)
        yield Federation(fleet, kube, network)
