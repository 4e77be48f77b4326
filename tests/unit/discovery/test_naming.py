"""Discovered objects have names of their own, and carry of the source's annotations what a copy may carry."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from isthmus.discovery.naming import MAX_ANNOTATIONS, Claim, Site, copied_annotations, settle_name

SITE = Site.of("cluster1", "gloo-mesh", "gloo-mesh")
kubernetes_names = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)
places = st.tuples(kubernetes_names, kubernetes_names)


@given(st.lists(places, min_size=1, max_size=8, unique=True))
def test_names_are_valid_and_never_shared(found: list[tuple[str, str]]):
    claims: dict[str, list[Claim]] = {}
    for namespace, name in found:
        claims.setdefault(SITE.plain_name(namespace, name), []).append(Claim("", namespace, name))

    names = [settle_name(plain, mine, all_claims) for plain, all_claims in claims.items() for mine in all_claims]

    assert len(set(names)) == len(found)
    assert all(len(name) <= 63 and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


def test_the_older_object_keeps_the_plain_name():
    old, new = Claim("2024-01-01T00:00:00Z", "z", "a"), Claim("2024-01-02T00:00:00Z", "a", "z")

    assert settle_name("x", old, [new, old]) == "x"
    assert settle_name("x", new, [new, old]) == settle_name("x", new, [old, new]) != "x"


def test_labels_stay_within_their_limit():
    site = Site.of("c" * 63, "n" * 63, "n" * 63)

    assert all(len(value) <= 63 for value in site.labels.values())


def test_huge_annotations_are_left_out_and_named():
    source = {"note": "short", "z": "y" * 2**20, "last": "x"}

    copied, problems = copied_annotations(source)

    assert copied == {"note": "short", "last": "x"}
    assert [problem.reason for problem in problems] == ["AnnotationsTooLarge"]
    assert "left out: z" in problems[0].message


@given(st.dictionaries(st.text(max_size=300).map("example.com/{}".format), st.text(max_size=9000), max_size=8))
def test_what_is_copied_stays_within_the_limit(source: dict[str, str]):
    copied, problems = copied_annotations(source)

    assert copied.items() <= source.items()
    assert sum(len(key) + len(value) for key, value in copied.items()) <= MAX_ANNOTATIONS
    assert bool(problems) == (len(copied) < len(source))


def test_many_annotations_too_many_are_not_all_named():
    source = {f"key-{number:03}": "x" * 8000 for number in range(10)}

    _, problems = copied_annotations(source)

    assert problems[0].message.endswith("key-002, key-003, key-004 and 5 more")
