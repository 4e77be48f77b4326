"""Records over a real link: what arrives, what it costs, and what happens when the link or an end fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from isthmus.relay import Publication
from isthmus.relay.frames import WINDOW_BYTES
from isthmus.transport import ClientCredentials, Unreachable

from .fleet import BRISK, Agent, Held, Management, Proxy, Relay, Store, agent, server, until


@pytest.fixture(scope="module")
def relay() -> Relay:
    return Relay()


@pytest.fixture
def store(relay) -> Store:
    return Store(ClientCredentials(root=relay.root, identity=relay.identity("c1")))


@pytest.fixture
async def pair(relay, store) -> AsyncIterator[tuple[Management, Agent, Proxy]]:
    """A server and the agent of c1, connected through a proxy."""
    management = Management()
    async with (
        server(management, relay.server()) as running,
        Proxy(running.port) as proxy,
        agent(proxy.port, store=store) as link,
    ):
        await until(lambda: link.connections)
        yield management, link, proxy


def records(count: int, size: int = 1536, *, salt: int = 0) -> dict[str, bytes]:
    return {
        f"networking.istio.io/v1beta1|ServiceEntry|istio-system|s{n}": (n + salt).to_bytes(8, "big") * (size // 8)
        for n in range(count)
    }


def holds(held: Held, publication: Publication) -> bool:
    return held.records == {key: record.payload for key, record in publication.records.items()}


async def test_both_directions_carry_records(pair):
    management, link, _ = pair

    link.up.publish({"a": b"up"}, complete=True)
    management.down["c1"].publish({"b": b"down"}, complete=True)
    await until(lambda: management.up["c1"].records and link.down.records)

    assert management.up["c1"].records == {"a": b"up"}
    assert link.down.records == {"b": b"down"}
    assert management.up["c1"].deltas[-1].complete
    assert link.client.traffic.connected
    await until(lambda: link.client.traffic.generations_acknowledged == link.client.traffic.generations_sent)
    assert link.client.traffic.records_out == link.client.traffic.records_in == 1


async def test_a_cut_link_is_made_again_and_costs_what_changed(pair):
    """After a break a hundredth of the records has changed; about that much crosses the wire."""
    management, link, proxy = pair
    everything = records(20_000)
    link.up.publish(everything, complete=True)
    await until(lambda: holds(management.up["c1"], link.up))

    proxy.accepting = False
    proxy.cut()
    await until(lambda: link.errors)
    changed = {key: b"changed" + payload for key, payload in list(everything.items())[:200]}
    link.up.publish(changed, complete=True)
    before = proxy.forwarded
    proxy.accepting = True
    await until(lambda: holds(management.up["c1"], link.up))

    cost = proxy.forwarded - before
    assert isinstance(link.errors[0], Unreachable)
    assert len(management.up["c1"].deltas[-1].changes) == 200
    assert cost < 1.5 * sum(map(len, changed.values()))
    assert management.events[1][:2] == ("disconnected", "c1")


async def test_a_link_that_falls_silent_counts_as_broken(pair):
    """Both ends notice, though no connection was closed."""
    management, link, proxy = pair

    proxy.flowing.clear()
    await until(lambda: link.errors and management.events[-1][0] == "disconnected")
    proxy.flowing.set()
    await until(lambda: link.connections >= 2 and management.events[-1][0] == "connected")

    assert isinstance(link.errors[0], Unreachable)
    assert "for 0.8 seconds" in str(link.errors[0])
    assert any("nothing has come from the other side" in event[-1] for event in management.events)


async def test_an_idle_link_stays(pair):
    """Signs of life keep a link that has nothing to carry."""
    management, link, _ = pair

    await asyncio.sleep(3 * BRISK.silence)

    assert link.errors == []
    assert management.events == [("connected", "c1")]


async def test_a_server_restarted_in_the_middle_of_a_stream_loses_nothing(relay, store):
    """The first server dies in the middle of a first, large report; the next one gets all of it."""
    management = Management()
    everything = Publication()
    everything.publish(records(20_000), complete=True)

    first = server(management, relay.server())
    await first.start()
    async with agent(first.port, store=store, up=everything) as link:
        await until(lambda: first.traffic.get("c1") and first.traffic["c1"].bytes_in > 5_000_000)
        await first.close()
        assert management.up["c1"].records == {}
        async with server(management, relay.server(), port=first.port):
            await until(lambda: holds(management.up["c1"], everything))

    assert [type(error) for error in link.errors][:1] == [Unreachable]
    assert "shutting down" in str(link.errors[0])


async def test_a_closed_server_has_no_connections_left():
    """Those that never said a word are ended too; a server in another process would keep them."""
    running = server(Management(), None)
    await running.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
    assert await reader.read(9)  # HTTP/2 settings: it is accepted

    await running.close()

    async with asyncio.timeout(5):
        while await reader.read(1024):
            pass
    writer.close()
    await writer.wait_closed()


async def test_a_server_closes_while_a_client_has_not_agreed_on_tls(relay):
    running = server(Management(), relay.server())
    await running.start()
    _, writer = await asyncio.open_connection("127.0.0.1", running.port)

    async with asyncio.timeout(10):
        await running.close()

    writer.close()
    await writer.wait_closed()


async def test_a_server_closes_while_all_its_agents_come_back(relay):
    """Each is told so, and none has a stream to a server that has gone."""
    names = [f"c{number}" for number in range(20)]
    management = Management(registered=set(names))
    running = server(management, relay.server())
    await running.start()
    stores = [Store(ClientCredentials(root=relay.root, identity=relay.identity(name))) for name in names]
    async with contextlib.AsyncExitStack() as stack:
        links = [
            await stack.enter_async_context(agent(running.port, cluster=name, store=store))
            for name, store in zip(names, stores, strict=True)
        ]
        await until(lambda: all(link.connections for link in links))
        for name in names[::2]:
            running.disconnect(name, "come again")
        await running.close()
        await until(lambda: all(link.errors for link in links))

    connected = {event[1] for event in management.events if event[0] == "connected"}
    assert connected == set(names)
    assert not any(traffic.connected for traffic in running.traffic.values())


async def test_an_agent_started_again_loses_nothing_and_receives_no_record_twice(relay, store):
    management = Management()
    management.down["c1"] = Publication()
    management.down["c1"].publish(records(500), complete=True)
    held = Held()

    async with server(management, relay.server()) as running:
        async with agent(running.port, store=store, down=held):
            await until(lambda: holds(held, management.down["c1"]))
        management.down["c1"].publish({"one": b"more"}, complete=True)
        async with agent(running.port, store=store, down=held) as again:
            await until(lambda: holds(held, management.down["c1"]))

    assert again.client.traffic.records_in == 1


async def test_twenty_thousand_records_arrive_in_seconds(pair):
    management, link, _ = pair
    link.up.publish(records(20_000), complete=True)

    began = time.perf_counter()
    await until(lambda: holds(management.up["c1"], link.up))
    seconds = time.perf_counter() - began

    print(f"20,000 records of 1.5 KiB: {seconds:.2f} s, {link.client.traffic.bytes_out / 2**20:.1f} MiB")  # noqa: T201
    assert seconds < 30  # it takes less than two; not minutes, as record by record it would


async def test_a_change_arrives_in_milliseconds(pair):
    management, link, _ = pair
    link.up.publish(records(2_000), complete=True)
    await until(lambda: holds(management.up["c1"], link.up))
    arrived = asyncio.Event()

    class Clocked(Held):
        async def receive(self, delta):
            arrived.set()

    management.up["c1"].receive = Clocked().receive
    latencies = []
    for n in range(200):
        arrived.clear()
        began = time.perf_counter()
        link.up.publish({"one": n.to_bytes(8, "big") * 192}, complete=True)
        await arrived.wait()
        latencies.append(time.perf_counter() - began)
        await asyncio.sleep(0)

    latencies.sort()
    print(f"one change: p50 {latencies[100] * 1e3:.2f} ms, p99 {latencies[197] * 1e3:.2f} ms")  # noqa: T201
    assert latencies[100] < BRISK.beat / 2  # it waits for no beat


async def test_a_very_large_record_arrives(pair):
    management, link, _ = pair
    big = bytes(range(256)) * 40 * 1024

    link.up.publish({"big": big, "small": b"x"}, complete=True)
    await until(lambda: management.up["c1"].records)

    assert management.up["c1"].records == {"big": big, "small": b"x"}
    assert link.client.traffic.records_out == 2


async def test_a_slow_receiver_holds_the_sender_back(pair):
    """While the server takes nothing, what the agent reports is coalesced on its side and not piled up on the wire."""
    management, link, proxy = pair
    link.up.publish({"a": b"1"}, complete=True)
    await until(lambda: holds(management.up["c1"], link.up))
    gc.collect()
    before, peak = proxy.forwarded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    management.up["c1"].gate.clear()

    for n in range(300):
        link.up.publish(records(700, salt=n), complete=True)
        await asyncio.sleep(0.002)
    crossed = proxy.forwarded - before
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    management.up["c1"].gate.set()
    await until(lambda: holds(management.up["c1"], link.up))

    assert crossed < 2 * WINDOW_BYTES
    assert grown < 100
    assert len(management.up["c1"].deltas) < 20


async def test_clusters_do_not_wait_for_each_other(relay, store):
    management = Management()
    other = Store(ClientCredentials(root=relay.root, identity=relay.identity("c2")))
    management.up["c1"] = Held()
    management.up["c1"].gate.clear()

    async with (
        server(management, relay.server()) as running,
        agent(running.port, store=store) as stuck,
        agent(running.port, cluster="c2", store=other) as free,
    ):
        stuck.up.publish(records(100), complete=True)
        free.up.publish(records(100), complete=True)
        await until(lambda: "c2" in management.up and holds(management.up["c2"], free.up))

        assert management.up["c1"].records == {}


async def test_a_disconnected_cluster_comes_back(pair, relay, store):
    management = Management()
    async with server(management, relay.server()) as running, agent(running.port, store=store) as link:
        await until(lambda: link.connections)
        running.disconnect("c1", "cluster c1 is being moved")
        running.disconnect("unknown", "nobody")
        await until(lambda: link.connections >= 2)

    assert "cluster c1 is being moved" in str(link.errors[0])
    assert management.events[1] == ("disconnected", "c1", "cluster c1 is being moved")


async def test_a_fault_of_the_servers_program_ends_only_that_stream(relay, store, caplog):
    """The fault is logged with its trace; the agent tries again and gets through once it is gone."""
    management = Management()
    management.up["c1"] = Held(fault=RuntimeError("disk full"))

    async with server(management, relay.server()) as running, agent(running.port, store=store) as link:
        link.up.publish({"a": b"1"}, complete=True)
        await until(lambda: link.errors)
        management.up["c1"].fault = None
        await until(lambda: holds(management.up["c1"], link.up))

    assert "disk full" in management.events[1][2]
    assert "disk full" in caplog.text


async def test_a_fault_of_the_agents_program_ends_the_agents_link(relay, store):
    management = Management()
    held = Held(fault=RuntimeError("disk full"))

    async def live() -> None:
        async with server(management, relay.server()) as running, agent(running.port, store=store, down=held) as link:
            await until(lambda: link.connections)
            management.down["c1"].publish({"a": b"1"}, complete=True)
            await until(lambda: management.events[-1][0] == "disconnected")

    with pytest.raises(RuntimeError, match="disk full"):
        await live()


async def test_quick_breaks_are_tried_again_more_slowly(relay, store):
    """A link that never holds for long does not reset the pauses."""
    pace = replace(BRISK, retry_first=0.01, retry_last=0.2, settled=5)
    async with (
        server(Management(), relay.server()) as running,
        agent(running.port, store=store, pace=pace) as link,
    ):
        for n in range(1, 6):
            await until(lambda n=n: link.connections >= n)
            running.disconnect("c1", "again")
        await until(lambda: len(link.pauses) >= 5)

    assert link.pauses[4] >= 0.08
