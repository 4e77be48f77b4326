"""Rules that are too large for one object: their parts allow what the whole allows, and callers keep to their part."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.istio import objects as istio
from isthmus.translate.access.rules import MOST_BYTES, split

SMALL = 400
OPERATIONS = (istio.Operation(), istio.Operation(methods=("GET",)), istio.Operation(paths=("/a/*",), ports=("80",)))


def rule(operation: istio.Operation, *sources: istio.Source) -> istio.AuthorizationRule:
    to = (istio.To(operation=operation),) if operation != istio.Operation() else ()
    return istio.AuthorizationRule(from_=tuple(istio.From(source=source) for source in sources), to=to)


def principal(number: int) -> str:
    return f"cluster1/ns/default/sa/{number}"


def atoms(rules: tuple[istio.AuthorizationRule, ...]) -> set[tuple[object, ...]]:
    """Who may do what, one by one."""
    found: set[tuple[object, ...]] = set()
    for each in rules:
        found |= {(each.to, None)} if not each.from_ else set()
        for caller in each.from_:
            rest = msgspec.structs.replace(caller.source, principals=())
            found |= {(each.to, rest, name) for name in caller.source.principals or ("",)}
    return found


SOURCES = st.builds(
    istio.Source,
    principals=st.lists(st.integers(0, 40).map(principal), max_size=12, unique=True).map(tuple),
    namespaces=st.sampled_from([(), ("default",)]),
)
RULES = st.dictionaries(st.sampled_from(OPERATIONS), st.lists(SOURCES, max_size=3, unique=True), max_size=3).map(
    lambda found: tuple(rule(operation, *sources) for operation, sources in found.items())
)


@settings(deadline=None)
@given(RULES)
def test_parts_allow_what_the_whole_allows(rules: tuple[istio.AuthorizationRule, ...]) -> None:
    parts = split(rules, SMALL)

    assert atoms(tuple(each for part in parts.values() for each in part)) == atoms(rules)
    assert min(parts) >= 0
    assert all(parts.values()) or parts == {0: ()}


@settings(deadline=None)
@given(RULES, RULES)
def test_a_caller_moves_only_as_parts_double_or_halve(
    before: tuple[istio.AuthorizationRule, ...], after: tuple[istio.AuthorizationRule, ...]
) -> None:
    """Then it moves from part i to one that is i again in half as many, so that no order of writes loses it."""
    was, will = split(before, SMALL), split(after, SMALL)

    for caller in atoms(before) & atoms(after):
        old, new = (next(number for number, part in parts.items() if caller in atoms(part)) for parts in (was, will))
        assert min(old, new) in {max(old, new) % 2**power for power in range(8)}


def test_five_thousand_accounts_with_the_longest_names_fit_into_objects() -> None:
    names = tuple(f"cluster1/ns/{'n' * 63}/sa/{number:0253}" for number in range(5000))
    whole = (rule(istio.Operation(), istio.Source(principals=names)),)

    parts = split(whole)

    assert len(parts) > 1
    assert max(len(msgspec.json.encode(part)) for part in parts.values()) <= MOST_BYTES
    assert atoms(tuple(each for part in parts.values() for each in part)) == atoms(whole)


def test_what_fits_stays_one_object() -> None:
    whole = (rule(istio.Operation(), istio.Source(principals=tuple(principal(number) for number in range(5000)))),)

    assert split(whole) == {0: whole}
