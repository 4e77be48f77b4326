"""Between two roots: who trusts either accepts what the new one signed."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isthmus.pki import PemInvalid, check_chain, make_leaf, make_root, make_signing_authority, new_key
from isthmus.pki.bridge import make_bridge, with_roots
from isthmus.pki.certificates import Authority, load_certificates

NOW = datetime.now(UTC)
LIFE = timedelta(days=30)


def root(name: str) -> Authority:
    return make_root(new_key(), common_name=name, serial=1, now=NOW, life=LIFE)


def below(issuer: Authority) -> Authority:
    return make_signing_authority(issuer, new_key(), common_name="intermediate", serial=2, now=NOW, life=LIFE)


def bridge(old: Authority, new: Authority) -> bytes:
    return make_bridge(old, new.certificate, serial=3, now=NOW, life=timedelta(days=7))


def leaf(issuer: Authority) -> bytes:
    return make_leaf(issuer, new_key(), common_name="x", dns_names=["x"], serial=4, now=NOW, life=timedelta(days=1))


@pytest.mark.parametrize("trusted", ["old", "new", "both"])
def test_whoever_trusts_either_root_accepts_the_chain(trusted: str, tmp_path: Path) -> None:
    """So says OpenSSL, and so do we."""
    old, new = root("old"), root("new")
    intermediate = below(new)
    chain = intermediate.certificate + bridge(old, new)
    certificate = leaf(intermediate)
    trust = {"old": old.certificate, "new": new.certificate, "both": new.certificate + old.certificate}[trusted]
    for name, pem in (("leaf", certificate), ("chain", chain), ("trust", trust)):
        (tmp_path / name).write_bytes(pem)

    said = subprocess.run(
        ["openssl", "verify", "-CAfile", "trust", "-untrusted", "chain", "leaf"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert said.stdout == "leaf: OK\n", said
    assert check_chain(certificate + chain, trust, NOW) is None


def test_without_the_bridge_the_old_root_does_not_do() -> None:
    old, new = root("old"), root("new")
    intermediate = below(new)

    assert check_chain(leaf(intermediate) + intermediate.certificate, old.certificate, NOW) is not None


def test_a_bridge_ends_with_the_first_of_what_it_joins() -> None:
    old = make_root(new_key(), common_name="old", serial=1, now=NOW, life=timedelta(days=2))

    [made] = load_certificates(bridge(old, root("new")))

    assert made.not_valid_after_utc == load_certificates(old.certificate)[0].not_valid_after_utc


@pytest.mark.parametrize("wrong", ["another key", "no room", "expired", "leaf"])
def test_what_cannot_sign_a_bridge_is_refused(wrong: str) -> None:
    old, new = root("old"), root("new")
    broken = {
        "another key": Authority(old.certificate, new_key()),
        "no room": below(old),
        "expired": make_root(new_key(), common_name="old", serial=1, now=NOW - 2 * LIFE, life=LIFE),
        "leaf": Authority(leaf(old), old.key),
    }[wrong]

    with pytest.raises(PemInvalid):
        bridge(broken, new)


def test_roots_are_told_once_each_in_their_order() -> None:
    old, new = root("old").certificate, root("new").certificate

    assert with_roots(new, old, new + old) == new + old
