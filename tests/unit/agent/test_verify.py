"""What pods present, asked of real TLS servers that want a certificate of the caller's first, as sidecars do."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.agent import verify
from isthmus.agent.verify import Verifier, ask
from isthmus.agent.workloads import Answer, Finding, InPlace, MeshPod, Outcome, Role, Shown, Silent, judge
from isthmus.api.issued_certificate import DoubtfulPod, WorkloadCertificates
from isthmus.kube import Changed, Removed, Replaced
from isthmus.pki import Authority, make_root, make_signing_authority, new_key
from isthmus.pki.bridge import make_bridge
from isthmus.pki.keys import load_key
from tests.unit.agent.test_apply import until

Manifest = dict[str, Any]

NOW = datetime.now(UTC)
LIFE = timedelta(days=30)
PLAIN = b"HTTP/1.1 400 Bad Request\r\n\r\n"
REVIEWS = "spiffe://cluster1/ns/default/sa/reviews"


def root(name: str) -> Authority:
    return make_root(new_key(), common_name=name, serial=1, now=NOW, life=LIFE)


def below(issuer: Authority) -> Authority:
    return make_signing_authority(issuer, new_key(), common_name="intermediate", serial=2, now=NOW, life=LIFE)


def leaf(issuer: Authority, uri: str = REVIEWS, *, dns: str = "", ended: bool = False) -> bytes:
    """A workload's certificate and its key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    above = x509.load_pem_x509_certificate(issuer.certificate)
    name = x509.DNSName(dns) if dns else x509.UniformResourceIdentifier(uri)
    begin = NOW - timedelta(hours=2)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(above.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(begin)
        .not_valid_after(begin + timedelta(hours=1) if ended else NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([name]), critical=True)
        .sign(load_key(issuer.key), hashes.SHA256())  # type: ignore[arg-type]  # of an elliptic curve, as made here
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    return certificate.public_bytes(serialization.Encoding.PEM) + pem


SHARED, FOREIGN = root("shared"), root("foreign")
OURS, BEFORE, THEIRS = below(SHARED), below(SHARED), below(FOREIGN)


def place(*roots: Authority, written: datetime | None = NOW) -> InPlace:
    return InPlace(
        name="mesh",
        namespace="istio-system",
        fingerprint="one",
        trust="trust-1",
        trust_domains=frozenset({"cluster1"}),
        roots=b"".join(each.certificate for each in roots or (SHARED,)),
        signer=OURS.certificate,
        written=written,
    )


def pod(*ports: int, started: datetime = NOW, hidden: str = "") -> MeshPod:
    return MeshPod("uid", "default", "reviews-1", Role.SIDECAR, "127.0.0.1", ports, "reviews", "", started, hidden)


class Sidecars:
    """Servers, each on a port of its own."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack = stack
        self._folder = folder
        self.protocols: list[str | None] = []
        self.connections = 0

    async def present(self, certificate: bytes, chain: bytes, **options: Any) -> int:
        """One that presents *certificate* and wants one of its callers."""
        path = self._folder / "presented.pem"
        path.write_bytes(certificate + chain)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        path.write_bytes(SHARED.certificate)
        context.load_verify_locations(path)
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(options.get("alpn", ["istio-peer-exchange", "h2"]))
        if "newest" in options:
            context.maximum_version = options["newest"]
        return await self.serve(context)

    async def serve(self, context: ssl.SSLContext | None = None, says: bytes = b"") -> int:
        """One that speaks TLS by *context*, or *says* something else and waits."""

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if says:
                writer.write(says)
            await reader.read()
            writer.transport.abort()

        server = await asyncio.start_server(self._counted(talk), "127.0.0.1", 0, ssl=context)
        self._stack.push_async_callback(server.wait_closed)
        self._stack.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    def _counted(self, talk: Any) -> Any:
        async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.connections += 1
            await talk(reader, writer)

        return counted


@pytest.fixture
async def sidecars(tmp_path: Path) -> AsyncIterator[Sidecars]:
    async with AsyncExitStack() as stack:
        yield Sidecars(stack, tmp_path)


async def answer(of: MeshPod, *roots: Authority) -> Answer:
    [found] = await ask([of], place(*roots).roots)
    return found


async def outcome(of: MeshPod, *roots: Authority) -> tuple[Outcome, str]:
    finding = judge(of, await answer(of, *roots), place(*roots))
    return finding.outcome, finding.reason


async def test_a_certificate_under_the_shared_root_is_shared(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS), OURS.chain)

    assert await outcome(pod(port)) == (Outcome.SHARED, "")


async def test_the_intermediate_before_is_told_from_the_one_in_place(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(BEFORE), BEFORE.chain)

    assert await outcome(pod(port)) == (Outcome.EARLIER, "")


async def test_another_root_is_other_and_says_whose(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(THEIRS), THEIRS.chain)

    found, reason = await outcome(pod(port))

    assert found is Outcome.OTHER
    assert reason == "it is under another root; signed by CN=intermediate"


async def test_a_chain_that_ends_below_its_root_is_under_another_as_well(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(THEIRS), THEIRS.certificate)

    assert await outcome(pod(port)) == (Outcome.OTHER, "it is under another root; signed by CN=intermediate")


async def test_while_a_root_is_replaced_both_do(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(THEIRS), THEIRS.chain)

    assert await outcome(pod(port), SHARED, FOREIGN) == (Outcome.EARLIER, "")


async def test_a_bridge_in_the_chain_leads_to_the_new_root(sidecars: Sidecars) -> None:
    bridge = make_bridge(FOREIGN, SHARED.certificate, serial=9, now=NOW, life=LIFE)
    port = await sidecars.present(leaf(OURS), OURS.certificate + bridge)

    assert await outcome(pod(port)) == (Outcome.SHARED, "")


async def test_one_that_has_expired_is_other(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS, ended=True), OURS.chain)

    found, reason = await outcome(pod(port))

    assert found is Outcome.OTHER
    assert reason == "certificate has expired; signed by CN=intermediate"


async def test_the_identity_of_another_is_other(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS, "spiffe://cluster1/ns/default/sa/ratings"), OURS.chain)

    reason = f"it is for spiffe://cluster1/ns/default/sa/ratings, not {REVIEWS}; signed by CN=intermediate"
    assert await outcome(pod(port)) == (Outcome.OTHER, reason)


def test_what_a_pod_says_is_cut_and_made_printable() -> None:
    """It stands in statuses of a limited size, and on terminals."""
    finding = Finding(Outcome.OTHER, "a\x1b[31m\n" + "b" * 1000)

    assert finding.reason == "a?[31m?" + "b" * 190 + "..."
    assert len(finding.reason) == 200


async def test_plain_text_says_nothing(sidecars: Sidecars) -> None:
    port = await sidecars.serve(says=PLAIN)

    assert await answer(pod(port)) == Silent(f"no certificate on port {port}: wrong version number")


async def test_a_port_that_nobody_listens_on_says_nothing(sidecars: Sidecars) -> None:
    port = await sidecars.serve()
    gone = asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    async with await gone as server:
        free = server.sockets[0].getsockname()[1]

    assert await answer(pod(free)) == Silent(f"no certificate on port {free}: connection refused")
    assert free != port


async def test_who_never_answers_is_left_after_a_while(sidecars: Sidecars, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many ports are left: where one packet is lost, all are."""
    monkeypatch.setattr(verify, "PATIENCE_SECONDS", 0.1)
    ports = [await sidecars.serve(), await sidecars.serve()]

    assert await answer(pod(*ports)) == Silent(f"no answer from port {ports[0]}")
    await until(lambda: sidecars.connections)
    assert sidecars.connections == 1


async def test_an_application_that_speaks_tls_itself_is_not_taken_for_the_sidecar(sidecars: Sidecars) -> None:
    """Where mutual TLS is off, for the pod or for a port, its own certificate comes through."""
    own = await sidecars.present(leaf(FOREIGN, dns="shop.example.com"), b"")
    behind = await sidecars.present(leaf(OURS), OURS.chain)

    assert await outcome(pod(own)) == (Outcome.PRESUMED, "its application answered, not its sidecar")
    assert await outcome(pod(own, behind)) == (Outcome.SHARED, "")


async def test_before_tls_1_3_the_refusal_comes_first(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS), OURS.chain, newest=ssl.TLSVersion.TLSv1_2)

    found, reason = await outcome(pod(port))

    assert found is Outcome.PRESUMED
    assert reason.startswith(f"no certificate on port {port}: ")


@pytest.mark.parametrize(("later", "expected"), [(True, Outcome.PRESUMED), (False, Outcome.UNKNOWN)])
async def test_of_who_shows_nothing_the_start_tells(later: bool, expected: Outcome) -> None:
    gateway = pod(started=NOW + timedelta(seconds=1 if later else -1), hidden="a gateway")

    assert await outcome(gateway) == (expected, "a gateway")


async def test_roots_that_are_none_hold_nothing_up() -> None:
    [found] = await ask([pod(1)], b"-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")

    assert isinstance(found, Silent)
    assert "the wanted roots cannot be used" in found.reason


def test_the_agents_own_event_loop_does_as_well(tmp_path: Path) -> None:
    async def look() -> list[Answer]:
        async with AsyncExitStack() as stack:
            sidecars = Sidecars(stack, tmp_path)
            ports = [
                await sidecars.present(leaf(OURS), OURS.chain),
                await sidecars.present(leaf(THEIRS), THEIRS.chain),
                await sidecars.serve(says=PLAIN),
            ]
            return await ask([pod(port) for port in ports], SHARED.certificate)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ours, theirs, plain = runner.run(look())

    assert isinstance(ours, Shown)
    assert not ours.problem
    assert isinstance(theirs, Shown)
    assert theirs.problem == "it is under another root"
    assert isinstance(plain, Silent)


# --- the verifier -----------------------------------------------------------------------------------------------------


def manifest(name: str, port: int, *, uid: str = "", started: datetime = NOW) -> Manifest:
    return {
        "metadata": {"namespace": "default", "name": name, "uid": uid or name},
        "spec": {
            "serviceAccountName": "reviews",
            "containers": [
                {"name": "reviews", "ports": [{"containerPort": port}]},
                {"name": "istio-proxy", "args": ["proxy", "sidecar"]},
            ],
        },
        "status": {
            "podIP": "127.0.0.1",
            "startTime": started.isoformat(),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


class Watched:
    """A verifier at work, and how often it said that something is new."""

    def __init__(self, places: Sequence[InPlace], *, doubt: float = 3600.0) -> None:
        self.places = list(places)
        self.verifier = Verifier(rest=0.0, doubt=doubt)
        self.told: list[WorkloadCertificates | None] = []
        self.task = asyncio.create_task(self.verifier.run(lambda: self.places, self._changed))

    @property
    def last(self) -> WorkloadCertificates | None:
        return self.told[-1] if self.told else None

    def _changed(self) -> None:
        self.told.append(self.verifier.presented("mesh", self.places[0].fingerprint) if self.places else None)

    async def __aenter__(self) -> Watched:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


async def test_pods_are_counted_and_the_odd_ones_named(sidecars: Sidecars) -> None:
    good = await sidecars.present(leaf(OURS), OURS.chain)
    bad = await sidecars.present(leaf(THEIRS), THEIRS.chain)
    mute = await sidecars.serve(says=PLAIN)
    async with Watched([place()]) as watched:
        watched.verifier.see(
            Replaced(
                (
                    manifest("a", mute, started=NOW - timedelta(days=1)),
                    manifest("b", good),
                    manifest("c", bad),
                    manifest("d", good),
                )
            )
        )
        await until(lambda: watched.told)

    found = watched.last
    assert found is not None
    assert (found.observed_trust, found.shared, found.earlier) == ("trust-1", 2, 0)
    assert (found.presumed, found.unknown, found.other) == (0, 1, 1)
    assert found.pods == (
        DoubtfulPod(
            name="default/c",
            shows_other=True,
            reason="it is under another root; signed by CN=intermediate",
        ),
        DoubtfulPod(name="default/a", reason=f"no certificate on port {mute}: wrong version number"),
    )


async def test_who_is_known_is_not_asked_again(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS), OURS.chain)
    async with Watched([place()]) as watched:
        watched.verifier.see(Replaced((manifest("a", port),)))
        await until(lambda: watched.told)
        for name in ("b", "c"):
            watched.verifier.see(Changed(manifest(name, port)))
        await until(lambda: watched.last is not None and watched.last.shared == 3)
        watched.verifier.see(Removed(manifest("b", port)))
        await until(lambda: watched.last is not None and watched.last.shared == 2)
        assert sidecars.connections <= 3  # a server notices some callers only after they are gone

        # The same name, another pod.
        watched.verifier.see(Changed(manifest("a", await sidecars.present(leaf(THEIRS), THEIRS.chain), uid="new")))
        await until(lambda: watched.last is not None and watched.last.other == 1)


async def test_another_cacerts_is_another_question(sidecars: Sidecars) -> None:
    """What was found for the one before is no answer, not even for a moment."""
    port = await sidecars.present(leaf(BEFORE), BEFORE.chain)
    async with Watched([place()]) as watched:
        watched.verifier.see(Replaced((manifest("a", port),)))
        await until(lambda: watched.told)
        assert watched.last is not None
        assert watched.last.earlier == 1

        other = InPlace(
            "mesh", "istio-system", "two", "trust-2", frozenset({"cluster1"}), *[FOREIGN.certificate] * 2, NOW
        )
        watched.places = [other]
        assert watched.verifier.presented("mesh", "two") is None
        watched.verifier.look()
        await until(lambda: watched.last is not None and watched.last.observed_trust == "trust-2")
        assert watched.last.other == 1


async def test_a_doubtful_pod_is_looked_at_again_by_itself(sidecars: Sidecars) -> None:
    """A proxy renews its certificate without a word to anybody."""
    path = sidecars._folder / "presented.pem"
    path.write_bytes(leaf(THEIRS) + THEIRS.chain)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    port = await sidecars.serve(context)
    async with Watched([place()], doubt=0.05) as watched:
        watched.verifier.see(Replaced((manifest("a", port),)))
        await until(lambda: watched.last is not None and watched.last.other == 1)

        path.write_bytes(leaf(OURS) + OURS.chain)
        context.load_cert_chain(path)
        await until(lambda: watched.last is not None and watched.last.shared == 1)


async def test_without_a_certificate_in_place_nobody_is_asked(sidecars: Sidecars) -> None:
    port = await sidecars.present(leaf(OURS), OURS.chain)
    async with Watched([]) as watched:
        watched.verifier.see(Replaced((manifest("a", port),)))
        watched.places = [place()]
        watched.verifier.look()
        await until(lambda: watched.last is not None)
        watched.places = []
        watched.verifier.look()
        await until(lambda: watched.last is None)
