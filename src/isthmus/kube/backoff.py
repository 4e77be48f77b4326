"""How long to wait before the next try."""

from __future__ import annotations

import random


class BackOff:
    """Waits that double from *first* to *longest* seconds, each cut at random by up to a half.

    The cut keeps many clients that lost one server from coming back in step.
    """

    def __init__(self, first: float = 0.1, longest: float = 10.0) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def wait(self, at_least: float | None = None) -> float:
        """Seconds to wait now; not less than *at_least*, what the server asked for."""
        wait = self._next * random.uniform(0.5, 1.0)
        self._next = min(self._next * 2, self._longest)
        if at_least is None:
            return wait
        return at_least + random.uniform(0, 0.1 * at_least + 0.05)

    def reset(self) -> None:
        """Start small again: something went well."""
        self._next = self._first
