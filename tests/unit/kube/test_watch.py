"""A watch tells every change, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

import pytest

from isthmus.kube import Changed, Forbidden, KubeClient, NotFound, Removed, Replaced, WatchEvent
from isthmus.model.kinds import CONFIG_MAP

from .conftest import Kubeconfig
from .peer import DEADLINE, Answer, Peer, answer, config_map, line, listing, status, watching

A3, A5, A6, A9, B4 = (
    config_map("a", 3),
    config_map("a", 5),
    config_map("a", 6),
    config_map("a", 9),
    config_map("b", 4),
)


async def first(client: KubeClient, count: int) -> list[str]:
    """The first *count* events, as words such as ``Changed a@5``."""
    told: list[str] = []
    async with asyncio.timeout(DEADLINE), aclosing(client.watch(CONFIG_MAP, "default", labels="x=y")) as events:
        async for event in events:
            told.append(words(event))
            if len(told) == count:
                return told
    raise AssertionError("a watch never ends")


def words(event: WatchEvent) -> str:
    items = event.items if isinstance(event, Replaced) else (event.item,)
    return " ".join(
        [type(event).__name__, *(f"{i['metadata']['name']}@{i['metadata']['resourceVersion']}" for i in items)]
    )


async def test_list_then_changes(client: KubeClient, peer: Peer) -> None:
    """First the complete state, then changes from exactly there."""
    peer.script = [listing(4, A3, B4), watching(line("MODIFIED", A5) + line("DELETED", B4), line("ADDED", A9))]

    assert await first(client, 4) == ["Replaced a@3 b@4", "Changed a@5", "Removed b@4", "Changed a@9"]

    asked, watched = peer.requests
    assert asked.query == {"labelSelector": "x=y", "limit": "500"}
    seconds = watched.query.pop("timeoutSeconds")
    assert 300 <= int(seconds) <= 600
    assert watched.query == {
        "labelSelector": "x=y",
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": "4",
    }


async def test_events_come_without_managed_fields(client: KubeClient, peer: Peer) -> None:
    """Nobody reads managedFields, and they are a third of an object."""
    peer.script = [listing(2), watching(line("ADDED", A3))]

    async with aclosing(client.watch(CONFIG_MAP)) as events:
        assert await anext(events) == Replaced(())
        event = await anext(events)

    assert isinstance(event, Changed)
    assert event.item["kind"] == "ConfigMap"
    assert "managedFields" not in event.item["metadata"]


@pytest.mark.parametrize("then", ["break", "end"])
async def test_break_amid_an_object(client: KubeClient, peer: Peer, then: str) -> None:
    """What was cut off comes whole from the next connection, which resumes after the last whole event."""
    cut = line("MODIFIED", A6)[:-20]
    peer.script = [
        listing(4, A3),
        watching(line("MODIFIED", A5), cut, then=then),
        *([listing(6)] if then == "break" else []),
        watching(line("MODIFIED", A6), line("MODIFIED", A9)),
    ]

    assert await first(client, 4) == ["Replaced a@3", "Changed a@5", "Changed a@6", "Changed a@9"]
    assert peer.requests[-1].query["resourceVersion"] == "5"


async def test_garbled_line(client: KubeClient, peer: Peer) -> None:
    """A line that is no event counts as a break."""
    peer.script = [
        listing(4),
        watching(line("ADDED", A5), b'{"type":"ADD\n'),
        listing(6),
        watching(line("MODIFIED", A6)),
    ]

    assert await first(client, 3) == ["Replaced", "Changed a@5", "Changed a@6"]
    assert peer.requests[-1].query["resourceVersion"] == "5"


async def test_bookmarks_move_the_resume_point(client: KubeClient, peer: Peer) -> None:
    """A quiet watch resumes from its last bookmark and tells nothing of it."""
    bookmark = {"kind": "ConfigMap", "metadata": {"resourceVersion": "8"}}
    peer.script = [listing(4), watching(line("BOOKMARK", bookmark), then="end"), watching(line("ADDED", A9))]

    assert await first(client, 2) == ["Replaced", "Changed a@9"]
    assert peer.requests[2].query["resourceVersion"] == "8"


async def test_expired_as_an_event(client: KubeClient, peer: Peer) -> None:
    """410 inside the stream: the complete state is told anew."""
    expired = line("ERROR", status(410, "Expired", "too old resource version: 4 (9)"))
    peer.script = [listing(4, A3), watching(line("MODIFIED", A5) + expired), listing(9, A9, B4), watching()]

    assert await first(client, 3) == ["Replaced a@3", "Changed a@5", "Replaced a@9 b@4"]


async def test_expired_as_an_answer(client: KubeClient, peer: Peer) -> None:
    """410 instead of a stream: the complete state is told anew, and watched from there."""
    peer.script = [
        listing(4, A3),
        answer(410, status(410, "Expired")),
        listing(9, A9),
        watching(line("DELETED", A9)),
    ]

    assert await first(client, 3) == ["Replaced a@3", "Replaced a@9", "Removed a@9"]
    assert peer.requests[3].query["resourceVersion"] == "9"


async def test_error_event_of_another_kind(client: KubeClient, peer: Peer) -> None:
    """A watch the server itself gave up is not resumed: it might fail the same way again."""
    failed = line("ERROR", status(500, "InternalError", "etcd event received with PrevKv=nil"))
    peer.script = [listing(4, A3), watching(failed), listing(9, A9), watching()]

    assert await first(client, 2) == ["Replaced a@3", "Replaced a@9"]


async def test_server_restored_from_a_backup(client: KubeClient, peer: Peer) -> None:
    """A server that is behind us after a break is read anew; waiting for it to catch up would miss changes."""
    peer.script = [listing(9, A9), watching(then="break"), listing(4, A3), listing(4, A3), watching()]

    assert await first(client, 2) == ["Replaced a@9", "Replaced a@3"]


async def test_server_errors_do_not_cost_a_list(client: KubeClient, peer: Peer) -> None:
    """5xx and 429 are waited out, then the watch goes on where it was; one object is asked for, for its version."""
    probe = listing(4, A3, more="more")
    peer.script = [
        listing(4, A3),
        Answer(503, b"<html>"),
        probe,
        answer(429, status(429, "TooManyRequests")),
        probe,
        Answer(then="break"),
        Answer(then="break"),
        probe,
        watching(line("MODIFIED", A5)),
    ]

    assert await first(client, 2) == ["Replaced a@3", "Changed a@5"]
    watches = [request.query for request in peer.requests if "watch" in request.query]
    assert [query["resourceVersion"] for query in watches] == ["4", "4", "4", "4"]
    assert [request.query for request in peer.requests if "watch" not in request.query][1:] == [{"limit": "1"}] * 4


async def test_refused_from_the_start(client: KubeClient, peer: Peer) -> None:
    """A kind without CRD is the caller's to know of, at once."""
    peer.script = [Answer(404, b"404 page not found")]

    with pytest.raises(NotFound, match="list ConfigMap objects in default: 404 page not found") as caught:
        await first(client, 1)

    assert caught.value.of_kind


async def test_refused_for_a_moment(client: KubeClient, peer: Peer) -> None:
    """A restarted API server may forbid until it has read its rules."""
    forbidden = answer(403, status(403, "Forbidden"))
    peer.script = [listing(4, A3), forbidden, forbidden, listing(5, A5), watching(line("MODIFIED", A6))]

    assert await first(client, 3) == ["Replaced a@3", "Replaced a@5", "Changed a@6"]


async def test_refusals_with_service_between(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """Patience is for refusals in a row; a watch that opened, even one that told nothing, ends the row."""
    forbidden = answer(403, status(403, "Forbidden"))
    peer.script = [
        *(listing(4, A3), forbidden, listing(5, A5), watching(then="end")),
        *(forbidden, listing(6, A6), watching()),
    ]

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}), patience=0.04) as client:
        assert await first(client, 3) == ["Replaced a@3", "Replaced a@5", "Replaced a@6"]


async def test_refused_for_good(client: KubeClient, peer: Peer) -> None:
    """A watch that may list but not watch ends with the refusal, not in a loop of lists."""

    def reply(request: object) -> Answer:
        watched = "watch" in request.query  # type: ignore[attr-defined]
        return answer(403, status(403, "Forbidden", "cannot watch")) if watched else listing(4, A3)

    peer.script = [reply]

    started = time.monotonic()
    with pytest.raises(Forbidden, match="cannot watch"):
        await first(client, 1000)

    assert time.monotonic() - started >= 2


async def test_a_watch_takes_no_place_in_the_queue(client: KubeClient, peer: Peer) -> None:
    """Requests pass while watches run, however few may be in flight."""
    peer.script = [listing(4), watching(), listing(4), watching(), answer(200, {"gitVersion": "v1.30.2"})]
    narrow = KubeClient(client.connection, in_flight=1)

    async with narrow, asyncio.timeout(DEADLINE), asyncio.TaskGroup() as tasks:
        watches = []
        for count in (2, 4):
            watches.append(tasks.create_task(drain(narrow)))
            await peer.until(lambda count=count: len(peer.requests) == count)
        assert await narrow.version() == "v1.30.2"
        for watch in watches:
            watch.cancel()


async def drain(client: KubeClient) -> None:
    async for _ in client.watch(CONFIG_MAP):
        pass


async def test_removed_is_the_last_state(client: KubeClient, peer: Peer) -> None:
    """Who cleans up after an object needs to know what it was."""
    last = config_map("a", 6, color="blue")
    peer.script = [listing(4, A3), watching(line("DELETED", last))]

    async with aclosing(client.watch(CONFIG_MAP)) as events:
        await anext(events)
        event = await anext(events)

    assert isinstance(event, Removed)
    assert event.item["data"] == {"color": "blue"}
