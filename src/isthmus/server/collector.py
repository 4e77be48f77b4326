"""Python's garbage collector, set for a process whose memory is a large, acyclic, long-lived set of values."""

from __future__ import annotations

import gc

# The young generation is collected after this many more allocations than releases. Python's 700 suits scripts; here
# a run makes tens of thousands of objects that stay, and looking at them all again and again costs a third of it.
YOUNG_OBJECTS = 50_000


def tame_garbage_collector() -> None:
    """Collect rarely. References are counted all the same, so what is dropped is freed at once."""
    gc.set_threshold(YOUNG_OBJECTS, 50, 100)
