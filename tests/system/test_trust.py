"""Certificates for two clusters by real processes: whole, without a private key on the way, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from isthmus.agent.certificates import PRIVATE_KEY, TAKE_OVER
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.applying import apply_all
from isthmus.cli.install import install_management_plane
from isthmus.cli.registration import relay_address
from isthmus.embedded.fleet import Fleet
from isthmus.install import AgentValues, ManagementPlaneValues, Release, agent, read_values, registration
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import POD, REPLICA_SET, SECRET
from isthmus.model.problem import Problem
from isthmus.pki import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, check_chain, key_fingerprint
from isthmus.pki.issued import read_issued
from tests.system.federation import until
from tests.system.link import Network

Manifest = dict[str, Any]

pytestmark = pytest.mark.timeout(400)

SECONDS = 120.0
NAMESPACE = "gloo-mesh"
CLUSTERS = ("cluster1", "cluster2")
BEGIN = re.compile("-----BEGIN CERTIFICATE-----")
CHUNK = 24  # bytes of a key that are looked for at once: long enough for no accident, short enough for no frame's edge


@dataclass
class Trusting:
    """A fleet whose relay is without TLS, so that what goes over it can be looked at."""

    fleet: Fleet
    kube: Mapping[str, KubeClient]
    network: Network

    @property
    def mgmt(self) -> KubeClient:
        return self.kube["mgmt"]

    async def want(self, *, clusters: tuple[str, ...] = CLUSTERS, days: int = 30, restart: bool = False) -> None:
        """Apply a virtual mesh of *clusters*; keys are small, for the machine's sake."""
        sizes = {"ttlDays": days, "rsaKeySizeBytes": 2048}
        await self.mgmt.apply(
            VirtualMesh.KIND,
            {
                "apiVersion": VirtualMesh.KIND.api_version,
                "kind": "VirtualMesh",
                "metadata": {"name": "virtual-mesh", "namespace": NAMESPACE},
                "spec": {
                    "mtlsConfig": {
                        "autoRestartPods": restart,
                        "shared": {
                            "rootCertificateAuthority": {"generated": {"rsaKeySizeBytes": 2048}},
                            "intermediateCertOptions": sizes,
                        },
                    },
                    "federation": {},
                    "meshes": [{"name": mesh(cluster), "namespace": NAMESPACE} for cluster in clusters],
                },
            },
            force=True,
        )

    async def certificate(self, cluster: str) -> Manifest:
        """The IssuedCertificate, empty if there is none."""
        return await self._get(cluster, IssuedCertificate.KIND, NAMESPACE, mesh(cluster))

    async def state(self, cluster: str) -> str:
        """The state of the IssuedCertificate as it is wanted now."""
        found = await self.certificate(cluster)
        status = found.get("status", {})
        current = found and status.get("observedGeneration") == found["metadata"]["generation"]
        return str(status.get("state", "")) if current else ""

    async def secret(self, cluster: str, namespace: str, name: str) -> dict[str, bytes]:
        """What a Secret holds, nothing if there is none."""
        found = await self._get(cluster, SECRET, namespace, name)
        return {key: b64decode(value) for key, value in found.get("data", {}).items()}

    async def _get(self, cluster: str, kind: Any, namespace: str, name: str) -> Manifest:
        try:
            return await self.kube[cluster].get(kind, namespace, name)
        except NotFound:
            return {}

    async def issued(self, *states: str, days: int = 30) -> dict[str, dict[str, bytes]]:
        """`cacerts` of both clusters, once their certificates are as wanted and in one of *states*."""

        async def done() -> dict[str, dict[str, bytes]] | None:
            found = {}
            for cluster in CLUSTERS:
                spec = (await self.certificate(cluster)).get("spec", {})
                if await self.state(cluster) not in states or spec["certOptions"]["ttlDays"] != days:
                    return None
                found[cluster] = await self.secret(cluster, "istio-system", "cacerts")
            return found

        return await until(done, SECONDS)

    async def outdated(self, cluster: str) -> Manifest | None:
        """Pods that are known to have an older certificate; they are looked at once it is issued."""
        found: Manifest | None = (await self.certificate(cluster)).get("status", {}).get("outdatedPods")
        return found

    async def alone(self, cluster: str) -> dict[str, bytes] | None:
        """`cacerts` of *cluster* once it is issued."""
        issued = await self.state(cluster) in ("ISSUED", "FINISHED")
        return await self.secret(cluster, "istio-system", "cacerts") if issued else None

    async def replace_pods(self, cluster: str) -> None:
        """Restart what is in the mesh, as a user does."""
        for pod in (await self.kube[cluster].list(POD)).items:
            if pod["metadata"]["namespace"] != NAMESPACE:
                await self.kube[cluster].delete(POD, pod["metadata"]["namespace"], pod["metadata"]["name"])

    def kill(self, cluster: str) -> None:
        """End the program on *cluster* as a crash would; the node starts it again."""
        for pid in self.fleet.nodes[cluster].processes.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def logs(self) -> bytes:
        """Everything that the programs have logged."""
        return b"".join(path.read_bytes() for path in sorted(self.fleet.directory.rglob("*.log")))


def mesh(cluster: str) -> str:
    return f"istiod-istio-system-{cluster}"


@asynccontextmanager
async def trusting(directory: Path) -> AsyncIterator[Trusting]:
    """Server and agents as Helm's users install them, with all they can log, and no virtual mesh yet."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(Fleet(directory))
        kube = {
            name: await stack.enter_async_context(KubeClient.from_kubeconfig(fleet.kubeconfig, name))
            for name in fleet.names
        }
        mgmt = kube["mgmt"]
        plane = {"global": {"insecure": True}, "enterprise-networking": {"verbose": True}}
        values = read_values(ManagementPlaneValues, [plane], ())
        assert not isinstance(values, Problem), values
        await install_management_plane(mgmt, values, Release(), SECONDS)
        address = await relay_address(mgmt, NAMESPACE)
        network = await stack.enter_async_context(Network(address, record=True))
        for cluster in CLUSTERS:
            relay = {"cluster": cluster, "serverAddress": network.address}
            settings = read_values(AgentValues, [{"global": {"insecure": True}, "relay": relay, "verbose": True}], ())
            assert not isinstance(settings, Problem), settings
            await mgmt.create(KubernetesCluster.KIND, registration(cluster))
            await apply_all(kube[cluster], agent(settings, Release()))
        yield Trusting(fleet, kube, network)


def check(cluster: str, data: Mapping[str, bytes]) -> None:
    """*data* is a `cacerts` that istiod of *cluster* can sign with."""
    issued = read_issued(data[CA_CERT])
    assert issued.is_ca
    account = {"cluster1": "istiod-service-account", "cluster2": "istiod"}[cluster]  # an older and a newer Istio
    assert issued.hosts == (f"spiffe://{cluster}/ns/istio-system/sa/{account}",)
    assert issued.fingerprint == key_fingerprint(data[CA_KEY])
    assert check_chain(data[CERT_CHAIN], data[ROOT_CERT], datetime.now(UTC)) is None


def shared_roots(found: Mapping[str, Mapping[str, bytes]]) -> set[str]:
    """The roots that all clusters trust; beside them each trusts the one that its istiod made, until pods restart."""
    return set.intersection(*(set(BEGIN.split(data[ROOT_CERT].decode())[1:]) for data in found.values()))


def pieces(key: bytes) -> Iterator[bytes]:
    """What a private key looks like on a wire or in a log.

    PEM and its lines, which are base64 of DER; base64 of PEM; the private numbers as DER has them, the other way round,
    in base64 of whatever they are part of, in hex and in digits.
    """
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, rsa.RSAPrivateKey)
    numbers = private.private_numbers()
    # The first lines hold the modulus, which certificates hold as well. Source: RFC 8017, A.1.2.
    public = (private.key_size // 8 + 20) * 4 // 3 // 64 + 1
    lines = key.strip().splitlines()[1:-1][public:]
    yield b"PRIVATE KEY"
    yield b64encode(b"-----BEGIN RSA PRIVATE KEY-----")[:36]
    for line in lines:
        yield line[:CHUNK]
    yield from in_base64(b"\n".join(lines))
    for number in (numbers.d, numbers.p, numbers.q, numbers.dmp1, numbers.dmq1, numbers.iqmp):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        for text in (raw, raw[::-1], raw.hex().encode(), raw.hex().upper().encode(), str(number).encode()):
            yield from chunks(text)
        yield raw.hex(":").encode()[: 3 * CHUNK]
        yield from in_base64(raw)


def in_base64(text: bytes) -> Iterator[bytes]:
    """Parts of *text* in base64, which looks different at each of three offsets; also as URLs have it."""
    for before in (b"", b"x", b"xx"):
        encoded = b64encode(before + text)[4 : -CHUNK // 4]  # without what its neighbours have a share in
        yield from chunks(encoded)
        yield from chunks(encoded.replace(b"+", b"-").replace(b"/", b"_"))


def chunks(text: bytes) -> Iterator[bytes]:
    yield from (text[at : at + CHUNK] for at in range(0, len(text) - CHUNK, CHUNK))


def seen(haystack: bytes, key: bytes) -> list[bytes]:
    """Pieces of *key* that *haystack* holds."""
    return [piece for piece in pieces(key) if piece in haystack]


async def test_no_private_key_leaves_its_cluster(tmp_path: Path) -> None:
    """Two clusters get intermediates of one root. No key gets on the relay, to the management cluster, or to a log."""
    async with trusting(tmp_path) as fleet:
        await fleet.want()
        found = await fleet.issued("ISSUED", "FINISHED")
        for cluster, data in found.items():
            check(cluster, data)
        assert len(shared_roots(found)) == 1
        assert len({data[CA_CERT] for data in found.values()}) == 2

        # What was restarted, and what not, is known; and afterwards all is done.
        assert (await until(lambda: fleet.outdated("cluster1"), SECONDS))["count"] > 0
        await asyncio.sleep(1.1)  # the times of pods have seconds; these must be later than that of the certificate
        for cluster in CLUSTERS:
            await fleet.replace_pods(cluster)
        await fleet.issued("FINISHED")

        # A second round, with everything that a change of the spec sends.
        await fleet.want(days=60)
        again = await fleet.issued("ISSUED", "FINISHED", days=60)
        keys = [data[CA_KEY] for data in (*found.values(), *again.values())]
        for cluster in CLUSTERS:
            assert (await fleet.secret(cluster, NAMESPACE, mesh(cluster)))[PRIVATE_KEY] == again[cluster][CA_KEY]
        root_key = (await fleet.secret("mgmt", NAMESPACE, f"virtual-mesh.{NAMESPACE}"))[CA_KEY]
        assert fleet.network.recorded is not None
        there, back = (b"\n".join(map(bytes, fleet.network.recorded[way::2])) for way in (0, 1))
        relay = there + b"\n" + back
        logs = fleet.logs()
        held = {
            name: repr((await fleet.kube[name].list(SECRET)).items).encode()
            + repr((await fleet.kube[name].list(CertificateRequest.KIND)).items if name != "mgmt" else ()).encode()
            for name in fleet.kube
        }

    # The way of looking finds what is there: requests on the way there, certificates on the way back.
    assert b"-----BEGIN CERTIFICATE REQUEST-----" in decoded(there)
    assert again["cluster1"][CA_CERT].splitlines()[3][:CHUNK] in decoded(back)
    assert b"certificate requested" in logs
    assert seen(held["cluster1"], again["cluster1"][CA_KEY])
    assert len({*keys, root_key}) == 5
    for key in (*keys, root_key):
        assert seen(decoded(relay), key) == []
        assert seen(logs, key) == []
    for cluster, other in (("cluster1", "cluster2"), ("cluster2", "cluster1")):
        assert seen_of(again[cluster][CA_KEY], held[other] + held["mgmt"]) == []
    for cluster in CLUSTERS:
        assert seen_of(root_key, held[cluster]) == []


def seen_of(key: bytes, haystack: bytes) -> list[bytes]:
    """As `seen`, without what all private keys have in common."""
    return [piece for piece in list(pieces(key))[2:] if piece in haystack]


def decoded(relay: bytes) -> bytes:
    """The bytes of the relay, and once more with what is base64 in its JSON decoded: PEM in bytes fields."""
    texts = [relay]
    for found in re.findall(rb"[A-Za-z0-9+/]{64,}", relay):
        for start in range(4):
            part = found[start : start + (len(found) - start) // 4 * 4]
            with suppress(ValueError):
                texts.append(b64decode(part))
    return b"\n".join(texts)


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_killed_the_same_is_issued(tmp_path: Path, seed: int) -> None:
    """Server and agents are killed at random moments of two issuances, and Secrets deleted: it ends whole."""
    dice = random.Random(seed)
    async with trusting(tmp_path) as fleet:
        for days in (30, 60):
            await fleet.want(days=days)
            for _ in range(6):
                await asyncio.sleep(dice.uniform(0.02, 0.4))  # the moments are what varies; nothing waits for them
                match dice.choice(["agent", "agent", "server", "cut", "key", "request"]):
                    case "agent":
                        fleet.kill(dice.choice(CLUSTERS))
                    case "server":
                        fleet.kill("mgmt")
                    case "cut":
                        fleet.network.cut()
                    case "key":
                        cluster = dice.choice(CLUSTERS)
                        await fleet.kube[cluster].delete(SECRET, NAMESPACE, mesh(cluster))
                    case "request":
                        cluster = dice.choice(CLUSTERS)
                        await fleet.kube[cluster].delete(CertificateRequest.KIND, NAMESPACE, mesh(cluster))
            found = await until(lambda days=days: whole(fleet, days), SECONDS)  # type: ignore[misc]
        assert len(shared_roots(found)) == 1


async def whole(fleet: Trusting, days: int) -> dict[str, dict[str, bytes]] | None:
    """`cacerts` of both clusters once they are of the key and the answer that are there."""
    found = {}
    for cluster in CLUSTERS:
        spec = (await fleet.certificate(cluster)).get("spec", {})
        if await fleet.state(cluster) not in ("ISSUED", "FINISHED") or spec["certOptions"]["ttlDays"] != days:
            return None
        requests = (await fleet.kube[cluster].list(CertificateRequest.KIND)).items
        data = await fleet.secret(cluster, "istio-system", "cacerts")
        key = await fleet.secret(cluster, NAMESPACE, mesh(cluster))
        if len(requests) != 1 or not data or not key or data[CA_KEY] != key[PRIVATE_KEY]:
            return None
        status = requests[0].get("status", {})
        if b64decode(status.get("signedCertificate", "")) != data[CA_CERT]:
            return None
        check(cluster, data)
        found[cluster] = data
    return found


async def test_joining_later_leaving_and_what_is_somebody_elses(tmp_path: Path) -> None:
    """Who joins later gets the root that is there, and nobody else another certificate; leaving deletes what was made.

    Somebody else's `cacerts` is kept until it is given to us.
    """
    theirs = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "istio-system", "name": "cacerts"},
        "type": "Opaque",
        "data": {CA_CERT: b64encode(b"theirs").decode()},
    }
    async with trusting(tmp_path) as fleet:
        second = fleet.kube["cluster2"]
        await second.create(SECRET, theirs)
        await fleet.want(clusters=("cluster1",))
        alone = await until(lambda: fleet.alone("cluster1"), SECONDS)
        assert await fleet.secret("cluster2", "istio-system", "cacerts") == {CA_CERT: b"theirs"}
        assert not await fleet.certificate("cluster2")

        await fleet.want()

        async def refused() -> bool | None:
            error = (await fleet.certificate("cluster2")).get("status", {}).get("error", "")
            return True if "made by somebody else" in error else None

        await until(refused, SECONDS)
        assert await fleet.secret("cluster2", "istio-system", "cacerts") == {CA_CERT: b"theirs"}

        async def told() -> bool | None:
            status = (await fleet.mgmt.get(VirtualMesh.KIND, NAMESPACE, "virtual-mesh")).get("status", {})
            return True if "made by somebody else" in repr(status) else None

        await until(told, SECONDS)
        await second.patch(SECRET, "istio-system", "cacerts", {"metadata": {"annotations": {TAKE_OVER: "true"}}})
        found = await fleet.issued("ISSUED", "FINISHED")
        check("cluster2", found["cluster2"])
        assert found["cluster1"] == alone
        assert len(shared_roots(found)) == 1

        await fleet.want(clusters=("cluster1",))

        async def left() -> bool | None:
            places = (("istio-system", "cacerts"), (NAMESPACE, mesh("cluster2")))
            secrets = [await fleet.secret("cluster2", *place) for place in places]
            requests = (await second.list(CertificateRequest.KIND)).items
            return None if any(secrets) or requests or await fleet.certificate("cluster2") else True

        await until(left, SECONDS)
        assert await fleet.secret("cluster1", "istio-system", "cacerts") == found["cluster1"]


async def test_pods_restart_over_kills_of_the_agent(tmp_path: Path) -> None:
    """All pods of the meshes are replaced by agents that are killed on the way, no workload more often than need be."""
    async with trusting(tmp_path) as fleet:
        before = {cluster: await pods(fleet, cluster) for cluster in CLUSTERS}
        await fleet.want(restart=True)
        await fleet.issued("ISSUED", "FINISHED")
        for cluster in CLUSTERS:
            fleet.kill(cluster)
        await fleet.issued("FINISHED")

        for cluster in CLUSTERS:
            after = await pods(fleet, cluster)
            assert not {uid for uids in before[cluster].values() for uid in uids} & {
                uid for uids in after.values() for uid in uids
            }
            assert {name: len(uids) for name, uids in after.items()} == {
                name: len(uids) for name, uids in before[cluster].items()
            }
            # One ReplicaSet for each template that a Deployment ever had: as it came, and with our notes of the
            # certificate that its mesh's root before vouches for, and of the one without that root.
            sets = (await fleet.kube[cluster].list(REPLICA_SET)).items
            counts = Counter(item["metadata"]["ownerReferences"][0]["uid"] for item in sets)
            assert max(counts.values()) == 3


async def pods(fleet: Trusting, cluster: str) -> dict[str, list[str]]:
    """The pods of the mesh that are not about to end, by app."""
    found: dict[str, list[str]] = {}
    for pod in (await fleet.kube[cluster].list(POD)).items:
        metadata = pod["metadata"]
        if metadata["namespace"] != NAMESPACE and "deletionTimestamp" not in metadata:
            found.setdefault(metadata["labels"].get("app", ""), []).append(metadata["uid"])
    return found
