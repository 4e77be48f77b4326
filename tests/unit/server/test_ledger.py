"""Whom the registration token admits."""

from __future__ import annotations

import pytest

from isthmus.server.ledger import Entry, decide, read_entries
from isthmus.transport import TokenRefused


def ask(
    token: str = "secret",
    key: str = "key",
    registration: str | None = "uid",
    expected: str | None = "secret",
    entry: Entry | None = None,
) -> Entry | None:
    return decide("cluster1", token, key, registration=registration, expected=expected, entry=entry)


def test_the_token_is_good_once_and_the_answer_may_get_lost() -> None:
    entry = ask()

    assert entry == Entry("uid", "key")
    assert ask(entry=entry) is None
    with pytest.raises(TokenRefused, match="used for cluster cluster1 before"):
        ask(key="another", entry=entry)


def test_a_new_registration_takes_the_token_again() -> None:
    assert ask(key="another", registration="new uid", entry=Entry("uid", "key")) == Entry("new uid", "another")


@pytest.mark.parametrize(("token", "expected"), [("wrong", "secret"), ("", "secret"), ("secret", None), ("", None)])
def test_a_wrong_token_is_refused(token: str, expected: str | None) -> None:
    with pytest.raises(TokenRefused, match="not the one of this management plane"):
        ask(token=token, expected=expected)


def test_an_unregistered_cluster_is_refused() -> None:
    with pytest.raises(TokenRefused, match="not registered yet"):
        ask(registration=None)


def test_white_space_around_a_token_does_not_matter() -> None:
    assert ask(token="secret\n") == Entry("uid", "key")


def test_a_garbled_entry_blocks_nobody() -> None:
    assert read_entries({"a": "nonsense", "b": '{"registration":"uid","key":"k"}'}) == {"b": Entry("uid", "k")}
