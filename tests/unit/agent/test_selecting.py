"""Which selectors share pods, held to trying all pods."""

from __future__ import annotations

from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from isthmus.agent.selecting import Pods, Selecting, meet, overlap
from isthmus.model.ref import ObjectKey

NAMES = ("app", "role", "zone")
ANYWHERE = ""
PLACES = ("default", "elsewhere")
EVERY_POD = [
    (where, frozenset(pair for pair in zip(NAMES, values, strict=True) if pair[1]))
    for where, values in product(PLACES, product(("", "a", "b"), repeat=len(NAMES)))
]
PODS = st.tuples(
    st.sampled_from((ANYWHERE, *PLACES)),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from("ab")).map(lambda labels: frozenset(labels.items())),
)
KEYS = st.integers(0, 5).map(lambda number: ObjectKey("v1", "Policy", "default", f"p{number}"))
CHANGES = st.lists(st.tuples(KEYS, st.none() | PODS), max_size=12)


def selected(pods: Pods) -> set[Pods]:
    """The pods that there can be, of those that are meant."""
    return {each for each in EVERY_POD if pods[0] in (ANYWHERE, each[0]) and pods[1] <= each[1]}


@given(CHANGES, st.lists(PODS, min_size=1, max_size=3))
def test_what_is_near_shares_a_pod_and_what_covers_has_all(
    changes: list[tuple[ObjectKey, Pods | None]], asked: list[Pods]
) -> None:
    selecting, known = Selecting(), dict[ObjectKey, Pods]()
    for number, (key, pods) in enumerate(changes):
        if pods is None:
            selecting.drop(key)
            known.pop(key, None)
        else:
            selecting.put(key, pods)
            known[key] = pods
        one = asked[number % len(asked)]
        near = {key: other for key, other in known.items() if selected(other) & selected(one)}
        assert sorted(selecting.near(one)) == sorted(near)
        assert selecting.any_near(one) == bool(near)
        assert sorted(selecting.covering(one)) == sorted(k for k, o in known.items() if selected(o) >= selected(one))
        shared = Counter(frozenset(selected(each)) for each in selecting.shared(one))
        assert shared == Counter(frozenset(selected(other) & selected(one)) for other in near.values())


@given(PODS, PODS)
def test_two_selectors_overlap_where_they_have_pods_in_common(one: Pods, other: Pods) -> None:
    assert overlap(one, other) == bool(selected(one) & selected(other))
    if overlap(one, other):
        assert selected(meet(one, other)) == selected(one) & selected(other)
