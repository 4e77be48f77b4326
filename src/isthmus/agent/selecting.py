"""Which policies select some of the same pods, told from their selectors alone. No I/O.

Two selectors by labels can select one pod unless they ask for two values of one label; whether there is such a pod now
does not matter, since it may come at any time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isthmus.model.ref import ObjectKey

Labels = frozenset[tuple[str, str]]
Pods = tuple[str, Labels]
"""A namespace, empty for all of them, and the labels that select pods there; no labels select all."""
Names = frozenset[str]


def meet(one: Pods, other: Pods) -> Pods:
    """The pods that both select, of two that do not contradict each other."""
    return one[0] or other[0], one[1] | other[1]


def overlap(one: Pods, other: Pods) -> bool:
    """Whether they do not contradict each other."""
    labels = one[1] | other[1]
    return (not one[0] or other[0] in ("", one[0])) and len(dict(labels)) == len(labels)


class Selecting:
    """Keys by the pods that they select.

    Selectors that name the same labels are kept together, by the values of those of their labels that were ever asked
    for: a question costs as much as there are sets of names, of which namespaces have few, and what it finds.
    """

    def __init__(self) -> None:
        self._pods: dict[ObjectKey, Pods] = {}
        self._places: dict[str, dict[Names, _Alike]] = {}

    def put(self, key: ObjectKey, pods: Pods) -> None:
        """*key* selects *pods*."""
        self.drop(key)
        self._pods[key] = pods
        namespace, labels = pods
        alike = self._places.setdefault(namespace, {}).setdefault(names(labels), _Alike())
        alike.put(key, labels)

    def drop(self, key: ObjectKey) -> None:
        """Forget *key*, if it is there."""
        pods = self._pods.pop(key, None)
        if pods is None:
            return
        namespace, labels = pods
        place = self._places[namespace]
        alike = place[names(labels)]
        alike.drop(key, labels)
        if not alike.labels:
            del place[names(labels)]
        if not place:
            del self._places[namespace]

    def near(self, pods: Pods) -> Iterator[ObjectKey]:
        """The keys that can select some of *pods*."""
        namespace, labels = pods
        for place in dict.fromkeys(("", namespace)) if namespace else self._places:
            for asked, alike in self._places.get(place, {}).items():
                yield from alike.like(only(labels, asked))

    def shared(self, pods: Pods) -> Iterator[Pods]:
        """Those of *pods* that each of these keys can select."""
        return (meet(pods, self._pods[key]) for key in self.near(pods))

    def any_near(self, pods: Pods) -> bool:
        """Whether a key can select some of *pods*."""
        return next(self.near(pods), None) is not None

    def covering(self, pods: Pods) -> Iterator[ObjectKey]:
        """The keys that select all of *pods*."""
        namespace, labels = pods
        for place in dict.fromkeys(("", namespace)):
            for asked, alike in self._places.get(place, {}).items():
                values = only(labels, asked)
                if len(values) == len(asked):
                    yield from alike.like(values)

    def any_covers(self, pods: Pods, *, but: ObjectKey | None = None) -> bool:
        """Whether one key, other than *but*, selects all of *pods*."""
        return any(key != but for key in self.covering(pods))


class _Alike:
    """Keys whose selectors name the same labels."""

    def __init__(self) -> None:
        self.labels: dict[ObjectKey, Labels] = {}
        self._by: dict[Names, dict[Labels, dict[ObjectKey, None]]] = {}

    def put(self, key: ObjectKey, labels: Labels) -> None:
        self.labels[key] = labels
        for asked, found in self._by.items():
            found.setdefault(only(labels, asked), {})[key] = None

    def drop(self, key: ObjectKey, labels: Labels) -> None:
        del self.labels[key]
        for asked, found in self._by.items():
            values = only(labels, asked)
            del found[values][key]
            if not found[values]:
                del found[values]

    def like(self, values: Labels) -> Iterable[ObjectKey]:
        """The keys whose labels have these *values*."""
        if not values:
            return self.labels
        asked = names(values)
        if (found := self._by.get(asked)) is None:
            found = self._by[asked] = {}
            for key, labels in self.labels.items():
                found.setdefault(only(labels, asked), {})[key] = None
        return found.get(values, ())


def names(labels: Labels) -> Names:
    """The labels without their values."""
    return frozenset(name for name, _ in labels)


def only(labels: Labels, asked: Names) -> Labels:
    """Those of *labels* that have these names."""
    return frozenset(pair for pair in labels if pair[0] in asked)
