"""Who may speak for a cluster: tokens, certificates, and what agents are told when they are refused."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from isthmus.pki import (
    RELAY_SERVER_SECRET,
    certificate_facts,
    check_chain,
    key_fingerprint,
    make_csr,
    make_leaf,
    new_key,
)
from isthmus.relay.frames import PROTOCOL, Hello
from isthmus.transport import (
    ClientCredentials,
    IdentityRefused,
    Incompatible,
    NoCredentials,
    NotRegistered,
    RelayServer,
    Replaced,
    ServerCredentials,
    ServerNotTrusted,
    Unreachable,
)
from isthmus.transport.codec import encode
from isthmus.transport.dial import Target, dial
from isthmus.wire import relay_pb2 as wire
from isthmus.wire.relay_grpc import IdentityStub, RelayStub

from .fleet import BRISK, TOKEN, Management, Proxy, Relay, Store, agent, server, until


@pytest.fixture(scope="module")
def relay() -> Relay:
    return Relay()


def newcomer(relay: Relay, token: str | None = TOKEN) -> Store:
    return Store(ClientCredentials(root=relay.root, token=token))


async def test_an_agent_with_a_token_gets_a_certificate_and_needs_no_token_again(relay):
    management = Management()
    store = newcomer(relay)

    async with server(management, relay.server()) as running:
        async with agent(running.port, store=store) as first:
            await until(lambda: first.connections)
        async with agent(running.port, store=store) as second:
            await until(lambda: second.connections)

    identity = store.found.identity
    facts = certificate_facts(identity.chain)
    assert (facts.common_name, facts.dns_names) == ("c1", ("c1",))
    assert timedelta(days=364) < facts.not_after - datetime.now(UTC) <= timedelta(days=365)
    assert check_chain(identity.chain, relay.root, datetime.now(UTC)) is None
    assert identity.chain.count(b"BEGIN CERTIFICATE") == 3
    assert identity.ca == relay.root
    assert management.redeemed == {"c1": key_fingerprint(identity.key)}
    assert store.saved == 1
    assert first.errors == second.errors == []


@pytest.mark.parametrize(
    ("used", "token", "text"), [({}, "guessed", "token is wrong"), ({"c1": "another key"}, TOKEN, "used for c1 before")]
)
async def test_a_wrong_or_used_token_is_refused(relay, used, token, text):
    management = Management(redeemed=used)

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=newcomer(relay, token)) as refused,
    ):
        await until(lambda: len(refused.errors) >= 2)

    assert all(isinstance(error, IdentityRefused) for error in refused.errors)
    assert text in str(refused.errors[0])
    assert refused.connections == 0
    assert management.events == []


async def test_an_answer_that_got_lost_is_given_again_to_the_same_key(relay):
    """The token is spent, but the agent never saw its certificate: it asks again with the key that it kept."""
    management = Management(loses_answers=1)
    pace = replace(BRISK, answer=0.3)

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=newcomer(relay), pace=pace) as patient,
    ):
        await until(lambda: patient.connections)

    assert {type(error) for error in patient.errors} == {Unreachable}
    assert list(management.redeemed) == ["c1"]


async def test_an_agent_without_token_and_certificate_says_what_it_lacks(relay):
    async with (
        server(Management(), relay.server()) as running,
        agent(running.port, store=Store(ClientCredentials())) as lost,
    ):
        await until(lambda: lost.errors)

    assert isinstance(lost.errors[0], NoCredentials)
    assert "relay-root-tls-secret (ca.crt) and relay-identity-token-secret (token)" in str(lost.errors[0])


async def test_an_agent_with_the_certificate_of_another_cluster_says_so(relay):
    management = Management()
    mixed_up = Store(ClientCredentials(root=relay.root, identity=relay.identity("c2")))

    async with server(management, relay.server()) as running, agent(running.port, store=mixed_up) as refused:
        await until(lambda: refused.errors)

    assert isinstance(refused.errors[0], IdentityRefused)
    assert "certificate for c2, this agent's cluster is c1" in str(refused.errors[0])
    assert management.events == []


@pytest.mark.parametrize(
    ("certificate", "header", "hello", "status", "text"),
    [
        ("c2", "c1", "c1", Status.PERMISSION_DENIED, "the client certificate is for c2, not for cluster c1"),
        ("c2", "c2", "c1", Status.FAILED_PRECONDITION, "speaks for cluster c1 on the stream of c2"),
        ("c2", "", "c2", Status.INVALID_ARGUMENT, "x-cluster-id with the cluster's name is missing"),
        (None, "c1", "c1", Status.UNAUTHENTICATED, "no client certificate"),
    ],
)
async def test_the_server_holds_every_stream_to_its_certificate(relay, certificate, header, hello, status, text):
    """Whatever an agent claims, in metadata or on the stream."""
    management = Management()
    identity = relay.identity(certificate) if certificate else None

    async def connect(port: int) -> None:
        link = await dial(
            Target("127.0.0.1", port, "enterprise-networking.gloo-mesh"), trust=relay.root, identity=identity, seconds=5
        )
        try:
            async with RelayStub(link).Connect.open(metadata={"x-cluster-id": header} if header else {}) as stream:
                await stream.send_message(wire.ToServer(frame=encode(Hello(PROTOCOL, hello, "test"))))
                await stream.recv_message()
        finally:
            link.abort()

    async with server(management, relay.server()) as running:
        with pytest.raises(GRPCError, match=text) as refused:
            await connect(running.port)

    assert refused.value.status is status
    assert management.events == []


async def test_nobody_renews_without_a_certificate(relay):
    async def renew(port: int) -> None:
        link = await dial(
            Target("127.0.0.1", port, "enterprise-networking.gloo-mesh"), trust=relay.root, identity=None, seconds=5
        )
        try:
            request = wire.RenewRequest(csr=make_csr(new_key(), "c1"))
            await IdentityStub(link).Renew(request, metadata={"x-cluster-id": "c1"})
        finally:
            link.abort()

    async with server(Management(), relay.server()) as running:
        with pytest.raises(GRPCError, match="no client certificate"):
            await renew(running.port)


async def test_an_expired_certificate_is_refused_by_both_ends(relay):
    management = Management()
    past = datetime.now(UTC) - timedelta(days=10)
    store = Store(ClientCredentials(root=relay.root, identity=relay.identity("c1", now=past, life=timedelta(days=5))))

    async with server(management, relay.server()) as running:
        async with agent(running.port, store=store) as knows:
            await until(lambda: knows.errors)
        async with agent(running.port, store=store, now=lambda: past) as slow_clock:
            await until(lambda: slow_clock.errors)

    assert isinstance(knows.errors[0], IdentityRefused)
    assert "the certificate of c1 expired on" in str(knows.errors[0])
    assert isinstance(slow_clock.errors[0], IdentityRefused)
    assert "the client certificate of c1 expired on" in str(slow_clock.errors[0])
    assert "register the cluster again" in str(slow_clock.errors[0])


async def test_an_expired_certificate_is_replaced_when_there_is_a_new_token(relay):
    past = datetime.now(UTC) - timedelta(days=10)
    expired = relay.identity("c1", now=past, life=timedelta(days=5))
    store = Store(ClientCredentials(root=relay.root, token=TOKEN, identity=expired))

    async with server(Management(), relay.server()) as running, agent(running.port, store=store) as back:
        await until(lambda: back.connections)

    assert store.found.identity != expired


async def test_a_certificate_from_another_ca_is_refused_and_replaced_when_there_is_a_token(relay):
    """After a new installation of the server the agents' certificates are worth nothing to it."""
    management = Management()
    foreign = Relay()
    identity = replace(foreign.identity("c1"))
    store = Store(ClientCredentials(root=relay.root, identity=identity))

    async with server(management, relay.server()) as running:
        async with agent(running.port, store=store) as refused:
            await until(lambda: refused.errors)
        store.found = replace(store.found, token=TOKEN)
        async with agent(running.port, store=store) as registered:
            await until(lambda: registered.connections)

    assert isinstance(refused.errors[0], IdentityRefused)
    assert "not from a CA that the server trusts" in str(refused.errors[0])
    assert management.events[0] == ("connected", "c1")


async def test_a_server_that_the_root_did_not_sign_is_not_trusted(relay):
    store = newcomer(Relay())
    management = Management()

    async with server(management, relay.server()) as running, agent(running.port, store=store) as wary:
        await until(lambda: wary.errors)

    assert isinstance(wary.errors[0], ServerNotTrusted)
    assert "does not lead to the root in relay-root-tls-secret" in str(wary.errors[0])
    assert management.redeemed == {}


async def test_a_server_with_another_name_is_not_trusted(relay):
    """Not even with the token: it goes only to the server that the certificate names."""
    management = Management()

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=newcomer(relay), authority="relay.example.com") as wary,
    ):
        await until(lambda: wary.errors)

    assert isinstance(wary.errors[0], ServerNotTrusted)
    assert "is for *.gloo-mesh, not for relay.example.com" in str(wary.errors[0])
    assert management.redeemed == {}


async def test_a_request_larger_than_any_is_refused_before_it_is_read(relay):
    """Anybody can ask for a certificate; nobody can fill the server's memory with it."""
    management = Management()

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=newcomer(relay, "x" * 1_000_000)) as greedy,
    ):
        await until(lambda: greedy.errors)

    assert "up to 65536 are taken" in str(greedy.errors[0])
    assert management.redeemed == {}


async def test_an_agent_does_not_pass_for_the_server(relay):
    """A token does not buy a certificate with a name of the server."""
    management = Management()
    name = "enterprise-networking.gloo-mesh"

    async with (
        server(management, relay.server()) as running,
        agent(running.port, cluster=name, store=newcomer(relay)) as impostor,
    ):
        await until(lambda: impostor.errors)

    assert f"{name} is a name of the server" in str(impostor.errors[0])
    assert management.redeemed == {}


async def test_a_cluster_that_is_not_registered_is_told_so_and_let_in_later(relay):
    management = Management(registered=set())

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=newcomer(relay)) as early,
    ):
        await until(lambda: early.errors)
        management.registered.add("c1")
        await until(lambda: early.connections)

    assert isinstance(early.errors[0], NotRegistered)
    assert "cluster c1 is not registered; meshctl cluster register c1" in str(early.errors[0])


async def test_a_newer_stream_of_a_cluster_replaces_the_older(relay):
    management = Management()
    store = Store(ClientCredentials(root=relay.root, identity=relay.identity("c1")))
    patient = replace(BRISK, retry_first=30, retry_last=30)

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=store, pace=patient) as older,
    ):
        await until(lambda: older.connections)
        async with agent(running.port, store=store) as newer:
            await until(lambda: newer.connections and older.errors)
            assert running.traffic["c1"].connected

    assert isinstance(older.errors[0], Replaced)
    assert newer.errors == []
    assert [event[0] for event in management.events][:3] == ["connected", "disconnected", "connected"]
    assert "took over" in management.events[1][2]


async def test_a_certificate_is_renewed_over_the_live_link_before_it_expires(relay):
    """With two thirds of its life gone the agent gets the next certificate and goes on with that."""
    management = Management()
    start = datetime.now(UTC)
    old = relay.identity("c1", now=start - timedelta(days=200), life=timedelta(days=290))
    store = Store(ClientCredentials(root=relay.root, identity=old))
    clock = [start - timedelta(days=100)]

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=store, now=lambda: clock[0]) as link,
    ):
        await until(lambda: link.connections)
        assert store.saved == 0
    clock[0] = start
    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=store, now=lambda: clock[0]) as link,
    ):
        await until(lambda: link.connections >= 2)

    assert store.saved == 1
    assert link.errors == []
    assert store.found.identity.key != old.key
    assert certificate_facts(store.found.identity.chain).not_after > start + timedelta(days=364)
    assert link.expiries == [certificate_facts(store.found.identity.chain).not_after]


async def test_a_renewal_that_fails_leaves_the_link_alone_and_is_tried_again(relay):
    management = Management()
    start = datetime.now(UTC)
    old = relay.identity("c1", now=start - timedelta(days=200), life=timedelta(days=290))
    store = Store(ClientCredentials(root=relay.root, identity=old))

    async with server(management, relay.server(signing=False)) as running, agent(running.port, store=store) as link:
        await until(lambda: link.connections)
        await asyncio.sleep(0.05)
        assert (link.connections, store.saved) == (1, 0)
        running.reload(relay.server())
        await until(lambda: store.saved)

    assert link.errors == []


async def test_a_live_stream_ends_with_its_certificate(relay):
    management = Management()
    identity = relay.identity("c1", life=timedelta(hours=1))
    end = certificate_facts(identity.chain).not_after
    store = Store(ClientCredentials(root=relay.root, identity=identity))

    async with (
        server(management, relay.server(signing=False), now=lambda: end - timedelta(seconds=0.5)) as running,
        agent(running.port, store=store) as link,
    ):
        await until(lambda: link.connections)
        await until(lambda: link.errors)

    assert isinstance(link.errors[0], IdentityRefused)
    assert "the client certificate of c1 has expired" in str(link.errors[0])


async def test_a_server_without_its_ca_says_so(relay):
    async with (
        server(Management(), relay.server(signing=False)) as running,
        agent(running.port, store=newcomer(relay)) as refused,
    ):
        await until(lambda: refused.errors)

    assert isinstance(refused.errors[0], Incompatible)
    assert "issues no agent certificates" in str(refused.errors[0])


async def test_new_server_certificates_are_used_without_a_restart(relay):
    """A server certificate of a new root: links of before stay, those from now on are under the new root."""
    management = Management()
    store = Store(ClientCredentials(root=relay.root, identity=relay.identity("c1")))
    later = Relay()

    async with server(management, relay.server()) as running, agent(running.port, store=store) as old:
        await until(lambda: old.connections)
        running.reload(later.server())
        async with agent(running.port, cluster="c2", store=newcomer(later)) as new:
            await until(lambda: new.connections)
        async with agent(running.port, cluster="c2", store=newcomer(relay)) as stale:
            await until(lambda: stale.errors)
        assert old.errors == []

    assert isinstance(stale.errors[0], ServerNotTrusted)


async def test_credentials_that_cannot_be_used_change_nothing(relay):
    broken = replace(relay.server(), key=new_key())

    async with server(Management(), relay.server()) as running:
        with pytest.raises(ValueError, match=r"tls\.crt and tls\.key"):
            running.reload(broken)
        async with agent(running.port, store=newcomer(relay)) as link:
            await until(lambda: link.connections)


async def test_a_certificate_with_exactly_the_authority_will_do(relay):
    """Users bring certificates of their own; the wildcard is only what ours have."""
    key = new_key()
    leaf = make_leaf(
        relay.authority,
        key,
        common_name="relay",
        dns_names=("other", "relay.example.com"),
        serial=99,
        now=datetime.now(UTC),
        life=timedelta(days=1),
    )
    secret = relay.secrets[RELAY_SERVER_SECRET]
    tls = ServerCredentials(leaf + relay.authority.chain, key, secret["ca.crt"], relay.authority)

    async with (
        server(Management(), tls) as running,
        agent(running.port, store=newcomer(relay), authority="relay.example.com") as link,
    ):
        await until(lambda: link.connections)


async def test_insecure_mode_needs_no_certificates():
    management = Management()

    async with server(management, None) as running, agent(running.port, store=None) as plain:
        await until(lambda: plain.connections)

    assert ("connected", "c1") in management.events


async def test_one_end_insecure_is_told_so(relay):
    async with server(Management(), None) as running, agent(running.port, store=newcomer(relay)) as secure:
        await until(lambda: secure.errors)
    async with server(Management(), relay.server()) as running, agent(running.port, store=None) as plain:
        await until(lambda: plain.errors)

    assert isinstance(secure.errors[0], Incompatible)
    assert "does not speak TLS" in str(secure.errors[0])
    assert isinstance(plain.errors[0], Incompatible)
    assert "expects TLS" in str(plain.errors[0])


async def test_nobody_there_is_said_and_tried_again_ever_more_slowly(relay):
    async with server(Management(), relay.server()) as running:
        port = running.port
    pace = replace(BRISK, retry_first=0.01, retry_last=0.04)

    async with agent(port, store=newcomer(relay), pace=pace) as alone:
        await until(lambda: len(alone.errors) >= 6)

    assert all(isinstance(error, Unreachable) for error in alone.errors)
    assert f"nobody answers at 127.0.0.1:{port}" in str(alone.errors[0])
    assert 0.005 <= alone.pauses[0] <= 0.01
    assert all(0.02 <= pause <= 0.04 for pause in alone.pauses[3:])


async def test_a_door_that_opens_onto_nothing_is_unreachable(relay):
    """A load balancer without a server behind it accepts connections and drops them."""
    async with Proxy(1) as proxy, agent(proxy.port, store=newcomer(relay)) as alone:
        proxy.accepting = False
        await until(lambda: alone.errors)

    assert isinstance(alone.errors[0], Unreachable | Incompatible)


async def test_a_port_that_is_taken_is_an_error(relay):
    async with server(Management(), relay.server()) as running:
        second = RelayServer(hub=Management(), tls=relay.server(), host="127.0.0.1", port=running.port)
        with pytest.raises(OSError, match="in use"):
            await second.start()
