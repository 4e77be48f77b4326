"""Names that we derive are valid, stable and differ where their origins differ."""

import re

from hypothesis import given
from hypothesis import strategies as st

from isthmus.model.names import sanitize

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
kubernetes_names = st.from_regex(r"[a-z0-9]([-.a-z0-9]{0,250}[a-z0-9])?", fullmatch=True)


def test_short_names_stay_as_they_are():
    assert sanitize("reviews-default-cluster1") == "reviews-default-cluster1"


def test_illegal_characters_are_replaced_or_dropped():
    assert sanitize("*.Reviews_v1/a:b c") == "--reviews-v1-a-b-c"
    assert sanitize('["it\'s"]\n') == "its"


def test_a_name_of_63_bytes_is_kept_and_one_of_64_is_cut_to_63():
    assert sanitize("a" * 63) == "a" * 63
    assert sanitize("a" * 64) == "a" * 31 + "-" + "014842d480b571495a4a0363793f7367"[:31]


def test_long_names_that_differ_only_at_the_end_stay_apart():
    assert sanitize("a" * 100 + "1") != sanitize("a" * 100 + "2")


def test_a_cut_within_a_character_leaves_text():
    assert sanitize("ä" * 40).isprintable()


@given(kubernetes_names)
def test_every_kubernetes_name_becomes_a_dns_label(name: str):
    made = sanitize(name)

    assert len(made) <= 63
    assert DNS_LABEL.fullmatch(made)
    assert sanitize(made) == made
