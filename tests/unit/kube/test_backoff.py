"""Waits before the next try."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from isthmus.kube.backoff import BackOff


def test_waits_double_up_to_the_longest() -> None:
    """Each wait lies between half and all of its turn's length."""
    back_off = BackOff(first=1, longest=5)

    waits = [back_off.wait() for _ in range(5)]

    assert all(turn / 2 <= wait <= turn for wait, turn in zip(waits, (1, 2, 4, 5, 5), strict=True))
    back_off.reset()
    assert back_off.wait() <= 1


@given(st.integers(0, 3600))
def test_at_least_what_the_server_asks(seconds: int) -> None:
    """A wait the server asked for is kept, and little exceeded."""
    assert seconds <= BackOff().wait(seconds) <= seconds * 1.1 + 0.05


def test_waits_differ() -> None:
    """Clients that lost one server do not come back in step."""
    assert len({BackOff().wait() for _ in range(10)}) > 1
