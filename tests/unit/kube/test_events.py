"""The reading of a watch's bytes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.kube.errors import Gone
from isthmus.kube.events import Broken, Changed, EventReader, Removed

from .peer import config_map, line, status

STREAM = b"\n".join(
    [
        line("ADDED", config_map("a", 1)),
        line("MODIFIED", config_map("ä", 2, text="x\\ny")),
        line("BOOKMARK", {"metadata": {"resourceVersion": "3"}}),
        line("DELETED", config_map("a", 4)),
    ]
)


@given(st.lists(st.integers(0, len(STREAM))))
def test_any_cut_reads_the_same(cuts: list[int]) -> None:
    """Where the network cuts the stream makes no difference."""
    edges = [0, *sorted(cuts), len(STREAM)]
    reader = EventReader("0", "here")

    found = [event for a, b in pairwise(edges) for event in reader.feed(STREAM[a:b])]

    assert [(type(event), event.item["metadata"]["name"]) for event in found] == [
        (Changed, "a"),
        (Changed, "ä"),
        (Removed, "a"),
    ]
    assert reader.resource_version == "4"


@given(st.integers(0, len(STREAM)))
def test_resuming_after_a_cut_loses_nothing(cut: int) -> None:
    """The version after a cut is that of the last event told, so that what follows it is sent again."""
    reader = EventReader("0", "here")
    told = [event.item["metadata"]["resourceVersion"] for event in reader.feed(STREAM[:cut])]
    seen = int(reader.resource_version)
    reader.restart()

    rest = b"".join(
        text + b"\n" for version, text in enumerate(filter(None, STREAM.split(b"\n")), start=1) if version > seen
    )
    told += [event.item["metadata"]["resourceVersion"] for event in reader.feed(rest)]

    assert told == ["1", "2", "4"]


def test_events_before_an_error_are_told() -> None:
    """An error ends the stream after what came before it, even in one packet."""
    events = EventReader("0", "here").feed(line("ADDED", config_map("a", 1)) + line("ERROR", status(410, "Expired")))

    assert isinstance(next(events), Changed)
    with pytest.raises(Gone, match="here: said so"):
        next(events)


@pytest.mark.parametrize("text", [b"{", b"[]", b"7", b"{}", b'{"type":"ADDED"}', b'{"type":"ADDED","object":{}}'])
def test_what_is_no_event(text: bytes) -> None:
    """Anything but an event counts as a break."""
    with pytest.raises(Broken, match="here: not an event"):
        list(EventReader("0", "here").feed(text + b"\n"))
