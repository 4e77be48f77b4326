"""The store keeps objects, history and watches; a file keeps the objects over a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.embedded import store as stores
from isthmus.embedded.store import Compacted, Store
from isthmus.model.kinds import CONFIG_MAP


def thing(name: str, namespace: str = "ns", **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, "uid": f"uid-{namespace}-{name}"}, **more}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


@pytest.fixture
def reopened(path: Path) -> Iterator[list[Store]]:
    """Stores that a test opens; closed after it."""
    opened: list[Store] = []
    yield opened
    for store in opened:
        store.close()


async def test_revisions_grow_with_every_change() -> None:
    """One counter for the whole server, as etcd has it."""
    store = Store()

    first = store.put("things", thing("a"))
    second = store.put("others", thing("a"))
    last = store.remove("things", first)

    assert first.revision < second.revision < last.revision == store.revision
    assert store.get("things", "ns", "a") is None


async def test_history_is_bounded_per_resource() -> None:
    """What fell out of the history of its resource cannot be resumed from; other resources are not affected."""
    store = Store(history=2)
    store.put("others", thing("x"))
    start = store.revision
    for name in "abc":
        store.put("things", thing(name))

    with pytest.raises(Compacted):
        store.watch("things", "", start)

    watch = store.watch("things", "", start + 1)
    assert [event.object.name for event in watch.take()] == ["b", "c"]
    assert store.watch("others", "", start).take() == []


async def test_watcher_that_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher may lag only so far; then its stream ends and it resumes on its own."""
    monkeypatch.setattr(stores, "WATCH_BACKLOG", 3)
    store = Store()
    watch = store.watch("things", "", None)

    for name in "abcde":
        store.put("things", thing(name))

    assert watch.ended
    assert [event.object.name for event in watch.take()] == ["a", "b", "c"]


async def test_file_keeps_objects_and_revisions(path: Path, reopened: list[Store]) -> None:
    """After a restart everything that was answered is there, and revisions go on where they were."""
    store = Store(path)
    kept = store.put("things", thing("a", data={"k": "v"}))
    store.put("things", thing("a", data={"k": "w"}))
    store.remove("things", store.put("things", thing("b")))
    revision = store.revision
    store.close()

    again = Store(path)
    reopened.append(again)

    assert again.revision == revision
    [found] = again.list("things")
    assert found.manifest(CONFIG_MAP)["data"] == {"k": "w"}
    assert found.revision == kept.revision + 1
    assert again.put("things", thing("c")).revision > revision


async def test_resume_after_restart(path: Path, reopened: list[Store]) -> None:
    """Whoever saw the last change of a resource resumes; whoever missed one learns it by 410."""
    store = Store(path)
    seen = store.put("things", thing("a"))
    missed = store.put("things", thing("b"))
    store.put("others", thing("x"))
    store.close()

    again = Store(path)
    reopened.append(again)

    with pytest.raises(Compacted):
        again.watch("things", "", seen.revision)
    assert again.watch("things", "", missed.revision).take() == []


async def test_unanswered_change_leaves_no_trace(path: Path) -> None:
    """A file that cannot be written leaves memory and file as they were."""
    store = Store(path)
    store.put("things", thing("a"))
    store.close()

    with pytest.raises(Exception, match="closed"):
        store.put("things", thing("b"))

    assert [stored.name for stored in store.list("things")] == ["a"]
    again = Store(path)
    assert [stored.name for stored in again.list("things")] == ["a"]
    again.close()


CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=30)


@given(CHANGES, st.integers(0, 30))
async def test_list_and_watch_equal_the_state(changes: list[tuple[str, bool]], cut: int) -> None:
    """Whoever lists at any moment and follows the events from there ends with the store's own state."""
    store = Store()
    held: dict[str, int] = {}
    since = -1
    for number, (name, exists) in enumerate(changes):
        if number == cut:
            held = {stored.name: stored.revision for stored in store.list("things")}
            since = store.revision
        present = store.get("things", "ns", name)
        if exists:
            store.put("things", thing(name, data={"n": number}))
        elif present is not None:
            store.remove("things", present)
    if since < 0:
        held = {stored.name: stored.revision for stored in store.list("things")}
        since = store.revision

    for event in store.watch("things", "", since).take():
        if event.deleted:
            del held[event.object.name]
        else:
            held[event.object.name] = event.revision

    assert held == {stored.name: stored.revision for stored in store.list("things")}
