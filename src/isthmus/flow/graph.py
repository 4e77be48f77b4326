"""The graph of collections and its evaluation.

Collections are ranked by creation, and a function may only read lower ranks, so that one pass in rank order reaches the
fixed point and a cycle cannot be written.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Container, Hashable, ItemsView, Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
K2 = TypeVar("K2", bound=Hashable)
V2 = TypeVar("V2")

Cells = dict[Any, "_Cell"]


class _Node:
    """One evaluation of a derivation: what it read and, where it names its own keys, what it put."""

    __slots__ = ("cells", "dirty", "key", "outputs")

    def __init__(self, dirty: _Dirty, key: Any) -> None:
        self.dirty = dirty
        self.key = key
        self.cells: tuple[_Cell, ...] = ()
        self.outputs: tuple[Any, ...] = ()


class _Cell:
    """One row or index group that evaluations have read, present or not.

    Most have a single reader, and a set costs three times as much as all the rest of a cell, so it comes with the
    second reader.
    """

    __slots__ = ("home", "key", "others", "reader")

    def __init__(self, home: Cells, key: Any) -> None:
        self.home = home
        self.key = key
        self.reader: _Node | None = None
        self.others: set[_Node] | None = None

    def add(self, node: _Node) -> None:
        if self.reader is None:
            self.reader = node
        elif self.reader is not node:
            if self.others is None:
                self.others = set()
            self.others.add(node)

    def discard(self, node: _Node) -> None:
        if self.reader is node:
            self.reader = self.others.pop() if self.others else None
        elif self.others is not None:
            self.others.discard(node)

    def wake(self) -> None:
        if self.reader is not None:
            self.reader.dirty.keys[self.reader.key] = None
        for node in self.others or ():
            node.dirty.keys[node.key] = None


class _Dirty:
    """Keys that a derivation has to evaluate in this run."""

    __slots__ = ("keys",)

    def __init__(self) -> None:
        self.keys: dict[Any, None] = {}


def _wake(cells: Cells, key: Any) -> None:
    cell = cells.get(key)
    if cell is not None:
        cell.wake()


class Collection(Generic[K, V]):
    """A keyed set of immutable values; read it at any time, change it through its kind's own methods."""

    def __init__(self, graph: Graph, name: str) -> None:
        self.name = name
        self.rank = graph._enrol(self)
        self._rows: dict[K, V] = {}
        self._cells: Cells = {}
        self._dependants: list[_Dirty] = []
        self._indexes: list[Index[Any, K, V]] = []
        self._taps: list[Tap[K, V]] = []

    def get(self, key: K) -> V | None:
        """The row at *key*, if there is one."""
        return self._rows.get(key)

    def items(self) -> ItemsView[K, V]:
        """All rows, in no promised order."""
        return self._rows.items()

    def __iter__(self) -> Iterator[K]:
        return iter(self._rows)

    def __contains__(self, key: object) -> bool:
        return key in self._rows

    def __len__(self) -> int:
        return len(self._rows)

    def tap(self) -> Tap[K, V]:
        """A record of all later changes of this collection, until taken."""
        tap = Tap(self)
        self._taps.append(tap)
        return tap

    def _row(self, key: K) -> V | None:
        return self._rows.get(key)

    def _put(self, key: K, value: V | None) -> None:
        rows = self._rows
        old = rows.get(key)
        if value is None:
            if old is None:
                return
            del rows[key]
        elif old is not None and (old is value or old == value):
            return
        else:
            rows[key] = value
        if self._cells:
            _wake(self._cells, key)
        for dirty in self._dependants:
            dirty.keys[key] = None
        for index in self._indexes:
            index._update(key, old, value)
        for tap in self._taps:
            tap._keys[key] = None

    def _run(self) -> int:
        """Bring the collection up to date with its source; the number of evaluations."""
        return 0


class Source(Collection[K, V]):
    """A collection that the outside sets."""

    def set(self, key: K, value: V | None) -> None:
        """Put *value* at *key*; None removes it. Takes effect on what is derived at the next `Graph.run`."""
        self._put(key, value)

    def replace(self, rows: Mapping[K, V]) -> None:
        """Make *rows* the whole content."""
        for key in [key for key in self._rows if key not in rows]:
            self._put(key, None)
        for key, value in rows.items():
            self._put(key, value)


class Tap(Generic[K, V]):
    """Which rows of a collection changed since the last `take`, however often."""

    def __init__(self, collection: Collection[K, V]) -> None:
        self._collection = collection
        self._keys: dict[K, None] = {}

    def take(self) -> dict[K, V | None]:
        """The changed rows as they are now, None for those that are gone, and a fresh start."""
        row = self._collection._row
        return {key: row(key) for key in self.take_keys()}

    def take_keys(self) -> Iterable[K]:
        """The keys alone: for an index this spares looking at whole groups."""
        keys, self._keys = self._keys, {}
        return keys


class Index(Collection[K2, tuple[tuple[K, V], ...]], Generic[K2, K, V]):
    """Rows of a collection by group: at each group the (key, value) pairs in it, sorted by key. No group is empty."""

    def __init__(
        self, graph: Graph, name: str, source: Collection[K, V], groups: Callable[[K, V], Iterable[K2]]
    ) -> None:
        super().__init__(graph, name)
        self._groups = groups
        self._members: dict[K2, dict[K, V]] = {}
        source._indexes.append(self)
        for key, value in source.items():
            self._update(key, None, value)

    def get(self, key: K2) -> tuple[tuple[K, V], ...] | None:
        """The members of group *key*, None for an empty group."""
        return self._row(key)

    def items(self) -> ItemsView[K2, tuple[tuple[K, V], ...]]:
        """All groups with their members."""
        return {group: self._row(group) or () for group in self._members}.items()

    def __iter__(self) -> Iterator[K2]:
        return iter(self._members)

    def __contains__(self, key: object) -> bool:
        return key in self._members

    def __len__(self) -> int:
        return len(self._members)

    def size(self, key: K2) -> int:
        """How many members group *key* has; not tracked, so only for choosing between ways to one result."""
        return len(self._members.get(key, ()))

    def first(self, key: K2, count: int) -> tuple[tuple[K, V], ...]:
        """The *count* members of group *key* with the lowest keys, in order, without sorting all; not tracked."""
        return tuple(heapq.nsmallest(count, self._members.get(key, {}).items(), key=_first))

    def _row(self, key: K2) -> tuple[tuple[K, V], ...] | None:
        # _rows is only a cache here: filled when a group is read, emptied when it changes.
        row = self._rows.get(key)
        if row is None:
            members = self._members.get(key)
            if members is None:
                return None
            row = tuple(sorted(members.items(), key=_first)) if len(members) > 1 else tuple(members.items())
            self._rows[key] = row
        return row

    def _update(self, key: K, old: V | None, new: V | None) -> None:
        before = () if old is None else tuple(self._groups(key, old))
        after = () if new is None else tuple(self._groups(key, new))
        for group in before:
            if group not in after:
                members = self._members[group]
                members.pop(key, None)
                if not members:
                    del self._members[group]
                self._touch(group)
        if new is not None:
            for group in after:
                self._members.setdefault(group, {})[key] = new
                self._touch(group)

    def _touch(self, group: K2) -> None:
        self._rows.pop(group, None)
        if self._cells:
            _wake(self._cells, group)
        for dirty in self._dependants:
            dirty.keys[group] = None
        for tap in self._taps:
            tap._keys[group] = None


def first_part(key: tuple[K, *tuple[Any, ...]], _: object) -> tuple[K]:
    """For an `Index` of rows by the first part of their keys."""
    return (key[0],)


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]


class Fetch:
    """What an evaluation reads beside its own row. Valid only during that evaluation."""

    __slots__ = ("_cells", "_rank")

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._cells: list[_Cell] = []

    def get(self, collection: Collection[K, V], key: K) -> V | None:
        """The row at *key* of an earlier collection; the result now depends on it, present or not."""
        if collection.rank >= self._rank:
            raise ValueError(f"{collection.name} is not earlier than the collection that reads it")
        cells = collection._cells
        cell = cells.get(key)
        if cell is None:
            cell = cells[key] = _Cell(cells, key)
        self._cells.append(cell)
        return collection._row(key)

    def group(self, index: Index[K2, K, V], key: K2) -> tuple[tuple[K, V], ...]:
        """The (key, value) pairs of one group of *index*, empty if it has none."""
        return self.get(index, key) or ()


class _Derivation(Collection[K2, V2], Generic[K, V, K2, V2]):
    """Shared evaluation of `Graph.derive` and `Graph.expand`."""

    def __init__(self, graph: Graph, name: str, source: Collection[K, V]) -> None:
        super().__init__(graph, name)
        self._source = source
        self._dirty = _Dirty()
        self._nodes: dict[K, _Node] = {}
        self._fetch = Fetch(self.rank)
        source._dependants.append(self._dirty)
        self._dirty.keys = dict.fromkeys(source)

    def _run(self) -> int:
        keys = self._dirty.keys
        if not keys:
            return 0
        self._dirty.keys = {}
        source, fetch, nodes = self._source, self._fetch, self._nodes
        for key in keys:
            value = source._row(key)
            node = nodes.get(key)
            if value is None:
                if node is not None:
                    self._withdraw(node)
                    _release(node, node.cells)
                    del nodes[key]
                continue
            if node is None:
                node = nodes[key] = _Node(self._dirty, key)
            fetch._cells = []
            try:
                self._evaluate(node, key, value)
            except Exception as error:
                error.add_note(f"while deriving {self.name} of {key}")
                raise
            cells = tuple(fetch._cells)
            if cells != node.cells:
                _release(node, node.cells)
                for cell in cells:
                    cell.add(node)
                    # A cell that had lost its last reader during this evaluation has left its home; bring it back.
                    cell.home[cell.key] = cell
                node.cells = cells
        return len(keys)

    def _evaluate(self, node: _Node, key: K, value: V) -> None:
        raise NotImplementedError

    def _withdraw(self, node: _Node) -> None:
        raise NotImplementedError


def _release(node: _Node, cells: tuple[_Cell, ...]) -> None:
    for cell in cells:
        cell.discard(node)
        if cell.reader is None:
            cell.home.pop(cell.key, None)


class _Mapped(Collection[K, V2], Generic[K, V, V2]):
    """Rows that depend on nothing but their source row: no reads to remember."""

    def __init__(
        self, graph: Graph, name: str, source: Collection[K, V], function: Callable[[K, V], V2 | None]
    ) -> None:
        super().__init__(graph, name)
        self._source = source
        self._function = function
        self._dirty = _Dirty()
        source._dependants.append(self._dirty)
        self._dirty.keys = dict.fromkeys(source)

    def _run(self) -> int:
        keys, self._dirty.keys = self._dirty.keys, {}
        for key in keys:
            value = self._source._row(key)
            self._put(key, None if value is None else self._function(key, value))
        return len(keys)


class _Derived(_Derivation[K, V, K, V2]):
    def __init__(
        self, graph: Graph, name: str, source: Collection[K, V], function: Callable[[Fetch, K, V], V2 | None]
    ) -> None:
        super().__init__(graph, name, source)
        self._function = function

    def _evaluate(self, node: _Node, key: K, value: V) -> None:
        self._put(key, self._function(self._fetch, key, value))

    def _withdraw(self, node: _Node) -> None:
        self._put(node.key, None)


class _Expanded(_Derivation[K, V, K2, V2]):
    def __init__(
        self,
        graph: Graph,
        name: str,
        source: Collection[K, V],
        function: Callable[[Fetch, K, V], Iterable[tuple[K2, V2]]],
    ) -> None:
        super().__init__(graph, name, source)
        self._function = function
        self._owners: dict[K2, K] = {}
        self._claims: dict[K2, dict[K, V2]] = {}

    def _evaluate(self, node: _Node, key: K, value: V) -> None:
        outputs = dict(self._function(self._fetch, key, value))
        for output in node.outputs:
            if output not in outputs:
                self._give_up(output, key)
        for output, result in outputs.items():
            self._claim(output, key, result)
        node.outputs = tuple(outputs)

    def _withdraw(self, node: _Node) -> None:
        for output in node.outputs:
            self._give_up(output, node.key)

    # Two rows may name one output: the lower source key has it, whichever came first. Claims are kept only where that
    # happens; everywhere else an owner is enough.

    def _claim(self, output: K2, key: K, value: V2) -> None:
        owner = self._owners.setdefault(output, key)
        claims = self._claims.get(output)
        if claims is None:
            if owner == key:
                self._put(output, value)
                return
            claims = self._claims[output] = {owner: self._rows[output]}
        claims[key] = value
        self._settle(output, claims)

    def _give_up(self, output: K2, key: K) -> None:
        claims = self._claims.get(output)
        if claims is None:
            del self._owners[output]
            self._put(output, None)
            return
        del claims[key]
        self._settle(output, claims)
        if len(claims) == 1:
            del self._claims[output]

    def _settle(self, output: K2, claims: dict[K, V2]) -> None:
        owner = min(claims)  # type: ignore[type-var]
        self._owners[output] = owner
        self._put(output, claims[owner])


class _Operated(Collection[K2, V2], Generic[K, V, K2, V2]):
    def __init__(
        self,
        graph: Graph,
        name: str,
        source: Collection[K, V],
        operator: Callable[[Mapping[K, V | None]], Mapping[K2, V2 | None]],
    ) -> None:
        super().__init__(graph, name)
        self._operator = operator
        self._tap = source.tap()
        self._tap._keys = dict.fromkeys(source)

    def _run(self) -> int:
        changes = self._tap.take()
        if changes:
            for key, value in self._operator(changes).items():
                self._put(key, value)
        return len(changes)


class Graph:
    """Collections in order of rank, and the one pass that brings them up to date."""

    def __init__(self) -> None:
        self._collections: list[Collection[Any, Any]] = []
        self.evaluations = 0
        """Function evaluations since the graph was made."""

    def source(self, name: str) -> Source[Any, Any]:
        """A collection that the outside sets."""
        return Source(self, name)

    def map(self, name: str, source: Collection[K, V], function: Callable[[K, V], V2 | None]) -> Collection[K, V2]:
        """One row, or none, for each row of *source*, from that row alone: the cheapest way to a narrow fact."""
        return _Mapped(self, name, source, function)

    def derive(
        self, name: str, source: Collection[K, V], function: Callable[[Fetch, K, V], V2 | None]
    ) -> Collection[K, V2]:
        """One row, or none, for each row of *source*, at the same key."""
        return _Derived(self, name, source, function)

    def expand(
        self, name: str, source: Collection[K, V], function: Callable[[Fetch, K, V], Iterable[tuple[K2, V2]]]
    ) -> Collection[K2, V2]:
        """Any number of rows for each row of *source*, at keys that *function* names.

        Where two source rows name one key, the row of the lower source key stands.
        """
        return _Expanded(self, name, source, function)

    def index(self, name: str, source: Collection[K, V], groups: Callable[[K, V], Iterable[K2]]) -> Index[K2, K, V]:
        """The rows of *source* by the groups that *groups* puts each of them in; a collection like any other."""
        return Index(self, name, source, groups)

    def operate(
        self,
        name: str,
        source: Collection[K, V],
        operator: Callable[[Mapping[K, V | None]], Mapping[K2, V2 | None]],
    ) -> Collection[K2, V2]:
        """A collection kept by a function with a memory: all changes of *source* in a run go in, changes come out.

        For what cannot be said row by row, such as handing out unique numbers; what comes out has keys of its own.
        Whoever writes the operator answers for its result not depending on the order of changes.
        """
        return _Operated(self, name, source, operator)

    def run(self, without: Container[Collection[Any, Any]] = ()) -> int:
        """Bring every collection up to date, *without* some that nobody reads; the number of evaluations it took."""
        count = 0
        for collection in self._collections:
            if collection not in without:
                count += collection._run()
        self.evaluations += count
        return count

    def _enrol(self, collection: Collection[Any, Any]) -> int:
        self._collections.append(collection)
        return len(self._collections)
