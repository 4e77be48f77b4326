"""What derived collections promise, whatever the order of changes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.flow import Collection, Fetch, Graph, Source


class Shop:
    """A graph with every kind of collection: lines refer to prices by name, totals sum lines by customer."""

    def __init__(self) -> None:
        graph = self.graph = Graph()
        self.prices: Source[str, int] = graph.source("prices")
        self.lines: Source[int, tuple[str, str]] = graph.source("lines")  # number -> (customer, article)
        self.cheap = graph.map("cheap", self.prices, lambda _, price: price if price < 3 else None)
        self.by_customer = graph.index("by-customer", self.lines, lambda _, line: (line[0],))
        self.by_article = graph.index("by-article", self.lines, lambda _, line: (line[1],))
        self.totals = graph.derive("totals", self.by_customer, self._total)
        self.rivals = graph.derive("rivals", self.lines, self._rivals)
        self.labels = graph.expand("labels", self.lines, self._labels)
        self.ranks = graph.operate("ranks", self.cheap, lambda changes: changes)

    def _total(self, fetch: Fetch, _: str, lines: tuple[tuple[int, tuple[str, str]], ...]) -> int:
        return sum(fetch.get(self.prices, article) or 0 for _, (_, article) in lines)

    def _rivals(self, fetch: Fetch, key: int, line: tuple[str, str]) -> tuple[int, ...] | None:
        rivals = tuple(other for other, _ in fetch.group(self.by_article, line[1]) if other != key)
        return rivals if fetch.get(self.cheap, line[1]) else None

    def _labels(self, fetch: Fetch, key: int, line: tuple[str, str]) -> Iterable[tuple[str, int]]:
        yield line[1], key
        if fetch.get(self.prices, line[1]):
            yield f"{line[0]}/{line[1]}", key

    def rows(self) -> dict[str, dict[object, object]]:
        collections: tuple[Collection[object, object], ...] = (
            self.cheap, self.totals, self.rivals, self.labels, self.ranks, self.by_customer, self.by_article,
        )  # fmt: skip
        return {collection.name: dict(collection.items()) for collection in collections}


articles = st.sampled_from("abc")
price_change = st.tuples(st.just("price"), articles, st.none() | st.integers(1, 5))
line_change = st.tuples(
    st.just("line"), st.integers(0, 6), st.none() | st.tuples(st.sampled_from(["ann", "bob"]), articles)
)


@given(st.lists(st.tuples(price_change | line_change, st.booleans())))
def test_incremental_equals_from_scratch(history: list) -> None:
    """Whatever changes come, in whatever batches, the rows are those of a graph that only saw the final state."""
    shop = Shop()
    prices: dict[str, int] = {}
    lines: dict[int, tuple[str, str]] = {}

    for (what, key, value), run in history:
        (shop.prices if what == "price" else shop.lines).set(key, value)
        state = prices if what == "price" else lines
        state.pop(key, None)
        if value is not None:
            state[key] = value
        if run:
            shop.graph.run()
    shop.graph.run()

    fresh = Shop()
    fresh.prices.replace(prices)
    fresh.lines.replace(lines)
    fresh.graph.run()
    assert shop.rows() == fresh.rows()
    assert shop.graph.run() == 0


def test_a_change_evaluates_only_what_read_it() -> None:
    """One price among many wakes the total that summed it and the line that named it, nothing else."""
    shop = Shop()
    for number in range(1000):
        shop.prices.set(f"article-{number}", 9)
        shop.lines.set(number, (f"customer-{number}", f"article-{number}"))
    shop.graph.run()

    shop.prices.set("article-7", 8)

    assert shop.graph.run() == 3  # cheap, customer-7's total, line 7's labels
    assert shop.totals.get("customer-7") == 8


def test_an_equal_result_stops_the_wave() -> None:
    """A source row that changes without changing the narrow fact wakes nobody beyond it."""
    graph = Graph()
    numbers: Source[str, int] = graph.source("numbers")
    parity = graph.map("parity", numbers, lambda _, number: number % 2 + 1)
    words = graph.derive("words", parity, lambda fetch, key, value: f"{key}{value}")
    tap = words.tap()
    numbers.set("n", 1)
    graph.run()
    tap.take()

    numbers.set("n", 3)

    assert graph.run() == 1
    assert tap.take() == {}


def test_reading_an_absent_row_is_remembered() -> None:
    """A row or a group that did not exist when it was looked up wakes the reader when it appears."""
    shop = Shop()
    shop.lines.set(1, ("ann", "a"))
    shop.graph.run()
    assert shop.totals.get("ann") == 0

    shop.prices.set("a", 5)
    shop.graph.run()

    assert shop.totals.get("ann") == 5


def test_a_tap_holds_the_newest_value_of_each_changed_row() -> None:
    """A tap coalesces: several changes of one row are one, and a row that went is None."""
    graph = Graph()
    numbers: Source[str, int] = graph.source("numbers")
    tap = numbers.tap()

    numbers.set("a", 1)
    numbers.set("a", 2)
    numbers.set("b", 1)
    numbers.set("b", None)

    assert tap.take() == {"a": 2, "b": None}
    assert tap.take() == {}


def test_reading_a_later_collection_is_refused() -> None:
    """A function cannot read what is derived after it, so a cycle cannot be written; the error names the row."""
    graph = Graph()
    numbers: Source[str, int] = graph.source("numbers")
    late: list[Collection[str, int]] = []
    graph.derive("early", numbers, lambda fetch, key, _: fetch.get(late[0], key))
    late.append(graph.map("late", numbers, lambda _, number: number))
    numbers.set("a", 1)

    with pytest.raises(ValueError, match="late is not earlier") as caught:
        graph.run()
    assert caught.value.__notes__ == ["while deriving early of a"]


def test_cells_leave_with_their_last_reader() -> None:
    """Memory follows the rows: when the readers are gone, nothing remembers what they read."""
    shop = Shop()
    for number in range(50):
        shop.lines.set(number, ("ann", f"article-{number}"))
    shop.graph.run()

    shop.lines.replace({})
    shop.graph.run()

    assert not shop.prices._cells
    assert not shop.by_article._cells
    assert not shop.rivals._nodes  # type: ignore[attr-defined]
