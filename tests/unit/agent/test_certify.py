"""The agent issues certificates on a cluster: what it writes, what it leaves alone, and what it tells the server."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from isthmus.agent.certificates import HOLDER, ISSUED_TYPE, PRIVATE_KEY, SELF_SIGNED, TAKE_OVER, Certificates
from isthmus.agent.certify import Certifier, utc_now
from isthmus.agent.outputs import Outputs
from isthmus.agent.ownership import selector
from isthmus.agent.removal import find_left_behind
from isthmus.api import crds
from isthmus.api.certificate_request import CertificateRequest
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.kinds import CERTIFICATES
from isthmus.embedded import EmbeddedCluster
from isthmus.kube import KubeClient, NotFound
from isthmus.model.kinds import SECRET
from isthmus.model.ref import Kind, ObjectKey
from isthmus.pki import CA_CERT, CA_KEY, CERT_CHAIN, ROOT_CERT, check_chain
from isthmus.pki.certificates import load_certificates
from isthmus.pki.issued import own_key_fingerprint, read_issued
from isthmus.program.records import encode
from isthmus.relay import Publication
from tests.unit.agent.issuance import ISTIO, NAME, NAMESPACE, OURS, Pods, Signer, root, secret, spec
from tests.unit.agent.test_apply import until

Manifest = dict[str, Any]

KEY = ObjectKey(IssuedCertificate.KIND.api_version, IssuedCertificate.KIND.kind, NAMESPACE, NAME)
ASKED = ObjectKey(CertificateRequest.KIND.api_version, CertificateRequest.KIND.kind, NAMESPACE, NAME)


class Running:
    """A certifier, its cluster, and a server that answers what is reported."""

    def __init__(self, kube: KubeClient, signer: Signer) -> None:
        self.kube = kube
        self.signer = signer
        self.pods = Pods()
        self.outputs = Outputs("cluster1", NAMESPACE)
        self.publication = Publication()
        self.certifier = Certifier(
            kube,
            Certificates("cluster1", NAMESPACE, self.pods),
            self.outputs,
            self.publication,
            labels=selector("cluster1", NAMESPACE),
            namespace=NAMESPACE,
        )

    def receive(self, changes: dict[str, bytes | None], *, complete: bool = True) -> None:
        self.outputs.receive(changes, complete=complete)
        self.certifier.received()

    def answer(self) -> None:
        """Have the server answer what was reported."""
        reported = self.publication.records.get(str(ASKED))
        if reported is not None:
            self.signer.look(msgspec.json.decode(reported.payload, type=CertificateRequest), utc_now())
            self.receive({str(ASKED): encode(self.signer.answers[NAME])}, complete=self.outputs.complete)

    async def get(self, kind: Kind, namespace: str = NAMESPACE, name: str = NAME) -> Manifest | None:
        try:
            return await self.kube.get(kind, namespace, name)
        except NotFound:
            return None

    async def state(self) -> str:
        found = await self.get(IssuedCertificate.KIND)
        status = (found or {}).get("status", {})
        return str(status.get("state", "")) + (": " + status["error"] if "error" in status else "")

    async def data(self) -> dict[str, bytes]:
        found = await self.get(SECRET, ISTIO, "cacerts")
        return {key: b64decode(value) for key, value in (found or {}).get("data", {}).items()}

    async def comes_to(self, state: str) -> None:
        """Answer until the certificate is in *state*."""

        async def there() -> bool:
            self.answer()
            return (await self.state()).startswith(state)

        await until(there)


@asynccontextmanager
async def certifier(kube: KubeClient, signer: Signer) -> AsyncIterator[Running]:
    running = Running(kube, signer)
    task = asyncio.create_task(running.certifier.run())
    try:
        yield running
    finally:
        task.cancel()
        await asyncio.wait([task])


async def want(kube: KubeClient, **changes: Any) -> None:
    """Write the IssuedCertificate as the agent's outputs do."""
    body: Any = msgspec.json.decode(msgspec.json.encode(spec(**changes)))
    metadata = {"namespace": NAMESPACE, "name": NAME, "labels": OURS}
    kind = IssuedCertificate.KIND
    await kube.apply(
        kind, {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "spec": body}, force=True
    )


def wanted() -> dict[str, bytes | None]:
    return {
        str(KEY): encode(
            IssuedCertificate(spec=spec()).manifest() | {"metadata": {"name": NAME, "namespace": NAMESPACE}}
        )
    }


@pytest.fixture
async def client(bare_cluster: EmbeddedCluster, kube: KubeClient) -> KubeClient:
    await bare_cluster.load(crds.manifests(list(CERTIFICATES)))
    return kube


async def test_a_certificate_is_issued_and_reported(client: KubeClient) -> None:
    async with certifier(client, Signer()) as running:
        await want(client)
        await running.comes_to("FINISHED")
        data = await running.data()
        key = await running.get(SECRET)
        records = {name: record.payload for name, record in running.publication.records.items()}

    assert read_issued(data[CA_CERT]).fingerprint == own_key_fingerprint(data[CA_KEY])
    assert check_chain(data[CERT_CHAIN], data[ROOT_CERT], utc_now()) is None
    assert key is not None
    assert b64decode(key["data"][PRIVATE_KEY]) == data[CA_KEY]
    assert set(records) == {str(KEY), str(ASKED)}
    told = msgspec.json.decode(records[str(KEY)], type=IssuedCertificate)
    assert told.status is not None
    assert (told.status.state.value, told.spec) == ("FINISHED", spec())
    assert not any(b"PRIVATE" in payload or b64encode(data[CA_KEY])[:40] in payload for payload in records.values())


async def test_a_new_spec_replaces_key_request_and_certificate(client: KubeClient) -> None:
    """The objects stay; what they hold is replaced, and nobody else's fields are in the way."""
    async with certifier(client, Signer()) as running:
        await want(client)
        await running.comes_to("FINISHED")
        before, request = await running.data(), await running.get(CertificateRequest.KIND)
        await want(client, days=31)

        async def replaced() -> bool:
            running.answer()
            return (await running.data())[CA_KEY] != before[CA_KEY] and await running.state() == "FINISHED"

        await until(replaced)
        after = await running.get(CertificateRequest.KIND)

    assert request is not None
    assert after is not None
    assert after["metadata"]["uid"] == request["metadata"]["uid"]
    assert after["metadata"]["generation"] == 2


async def test_a_restart_writes_nothing(client: KubeClient) -> None:
    signer = Signer()
    async with certifier(client, signer) as first:
        await want(client)
        await first.comes_to("FINISHED")
        before = [
            await first.get(SECRET),
            await first.get(SECRET, ISTIO, "cacerts"),
            await first.get(CertificateRequest.KIND),
        ]
    async with certifier(client, signer) as second:
        await until(lambda: str(KEY) in second.publication.records)
        second.answer()
        await until(lambda: not second.certifier.pending)
        after = [
            await second.get(SECRET),
            await second.get(SECRET, ISTIO, "cacerts"),
            await second.get(CertificateRequest.KIND),
        ]

    assert after == before


async def test_somebody_elses_secrets_are_kept(client: KubeClient) -> None:
    """A `cacerts` until it is given to us, and one that has the name of our key for ever."""
    body = {"apiVersion": "v1", "kind": "Secret"}
    await client.create(SECRET, body | secret((ISTIO, "cacerts"), {CA_CERT: b"theirs", "ca-crl.pem": b"x"}))
    await client.create(SECRET, body | secret((NAMESPACE, NAME), {PRIVATE_KEY: b"theirs"}))
    async with certifier(client, Signer()) as running:
        await want(client)
        await running.comes_to("FAILED: Secret istio-system/cacerts was made by somebody else")
        await client.patch(SECRET, ISTIO, "cacerts", {"metadata": {"annotations": {TAKE_OVER: "true"}}})
        await running.comes_to(f"FAILED: Secret {NAMESPACE}/{NAME} was made by somebody else")
        key = await running.get(SECRET)
        assert key is not None
        assert b64decode(key["data"][PRIVATE_KEY]) == b"theirs"

        await client.delete(SECRET, NAMESPACE, NAME)
        await running.comes_to("FINISHED")
        found = await running.get(SECRET, ISTIO, "cacerts")

    assert found is not None
    assert found["metadata"]["annotations"][HOLDER] == f"{NAMESPACE}/{NAME}"
    assert found["type"] == "Opaque"
    assert b64decode(found["data"]["ca-crl.pem"]) == b"x"


class Overtaken:
    """A client whose next write to `cacerts` comes too late: somebody else has put their own in its place."""

    def __init__(self, kube: KubeClient) -> None:
        self._kube = kube
        self.armed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kube, name)

    async def apply(self, kind: Kind, manifest: Manifest, **how: Any) -> Manifest:
        await self._overtake(kind, manifest["metadata"]["name"])
        return await self._kube.apply(kind, manifest, **how)

    async def delete(self, kind: Kind, namespace: str, name: str, **how: Any) -> None:
        await self._overtake(kind, name)
        await self._kube.delete(kind, namespace, name, **how)

    async def _overtake(self, kind: Kind, name: str) -> None:
        if self.armed and kind == SECRET and name == "cacerts":
            self.armed = False
            await self._kube.delete(SECRET, ISTIO, "cacerts")
            # Of our type, as a copy of another installation's is: the API server would let it be overwritten.
            theirs = secret((ISTIO, "cacerts"), {CA_CERT: b"theirs"}) | {"type": ISSUED_TYPE}
            await self._kube.create(SECRET, {"apiVersion": "v1", "kind": "Secret"} | theirs)


@pytest.mark.parametrize("leaving", [False, True])
async def test_a_write_that_comes_too_late_changes_nothing_of_somebody_else(client: KubeClient, leaving: bool) -> None:
    """What is written over or deleted is what was seen, or nothing."""
    late = Overtaken(client)
    async with certifier(cast("KubeClient", late), Signer()) as running:
        running.receive(wanted(), complete=True)
        await want(client)
        await running.comes_to("FINISHED")

        late.armed = True
        if leaving:
            running.receive({str(KEY): None}, complete=True)
            await client.delete(IssuedCertificate.KIND, NAMESPACE, NAME)
            await until(lambda: not running.publication.records)
        else:
            await want(client, days=31)
            await running.comes_to("FAILED: Secret istio-system/cacerts was made by somebody else")

        assert not late.armed
        assert await running.data() == {CA_CERT: b"theirs"}


async def test_the_root_before_vouches_until_pods_have_restarted(client: KubeClient) -> None:
    """istiod's own root is read once, and leaves `cacerts` when nobody needs it."""
    own = {CA_CERT: root("istio").certificate, CA_KEY: root("istio").key}
    await client.create(SECRET, {"apiVersion": "v1", "kind": "Secret"} | secret((ISTIO, SELF_SIGNED), own))
    async with certifier(client, Signer()) as running:
        running.pods.done = False
        await want(client, directive=True)
        await running.comes_to("ISSUED")
        data = await running.data()
        assert check_chain(data[CERT_CHAIN], own[CA_CERT], utc_now()) is None
        assert check_chain(data[CERT_CHAIN], root("one").certificate, utc_now()) is None
        assert len(load_certificates(data[ROOT_CERT])) == 2

        running.pods.done = True
        running.certifier.look()
        await running.comes_to("FINISHED")
        data = await running.data()

    assert data[ROOT_CERT] == root("one").certificate


async def test_leaving_deletes_what_was_made_once_the_server_has_said_all(client: KubeClient) -> None:
    async with certifier(client, Signer()) as running:
        running.receive(wanted(), complete=True)
        await want(client)
        await running.comes_to("FINISHED")
        before = await running.data()
        running.receive({str(KEY): None}, complete=False)
        await client.delete(IssuedCertificate.KIND, NAMESPACE, NAME)
        await until(lambda: str(KEY) not in running.publication.records)
        assert await running.data() == before

        running.receive({}, complete=True)
        await until(lambda: not running.publication.records)

        async def gone() -> bool:
            return not await running.data() and await running.get(SECRET) is None

        await until(gone)


async def test_a_report_is_not_whole_before_everything_was_read(
    bare_cluster: EmbeddedCluster, kube: KubeClient
) -> None:
    """A cluster without our definitions has nothing to tell, which is as good as having read it."""
    running = Running(kube, Signer())
    assert not running.certifier.known
    async with certifier(kube, Signer()) as running:
        await until(lambda: running.certifier.known)
        await bare_cluster.load(crds.manifests(list(CERTIFICATES)))
        await want(kube)
        await running.comes_to("FINISHED")


async def test_a_key_is_made_off_the_event_loop(client: KubeClient) -> None:
    """Making one of 4096 bits takes a second or more, in which the agent has other things to do."""
    longest = 0.0
    async with certifier(client, Signer()) as running:
        await want(client, bits=4096)
        loop = asyncio.get_running_loop()
        task = asyncio.create_task(running.comes_to("FINISHED"))
        while not task.done():
            began = loop.time()
            await asyncio.sleep(0.01)
            longest = max(longest, loop.time() - began)
        await task

    assert longest < 1.0


async def test_a_deregistered_cluster_keeps_what_its_mesh_signs_with(client: KubeClient) -> None:
    async with certifier(client, Signer()) as running:
        await want(client)
        await running.comes_to("FINISHED")

    left = await find_left_behind(client, "cluster1", NAMESPACE)

    assert [(each.kind, each.name) for each in left] == [
        (IssuedCertificate.KIND, NAME),
        (CertificateRequest.KIND, NAME),
        (SECRET, NAME),
    ]
