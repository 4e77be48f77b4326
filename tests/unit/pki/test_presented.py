"""Certificates as whoever made them likes: read, or refused, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.pki import PemInvalid, make_root, new_key
from isthmus.pki.presented import is_signed_by, read_presented

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def made(*extensions: x509.ExtensionType) -> bytes:
    """A certificate that is signed by itself, DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "mesh")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def unknown(last: int) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(f"1.2.3.4.5.6.{last}"), b"x")


def test_names_and_issuer_are_read() -> None:
    uri = x509.UniformResourceIdentifier("spiffe://cluster1/ns/default/sa/a")

    found = read_presented(made(x509.SubjectAlternativeName([uri, x509.DNSName("a")])))

    assert (found.uris, found.issuer) == ((uri.value,), "O=mesh")
    assert read_presented(made()).uris == ()


def test_who_signed_is_told_by_the_signature() -> None:
    """Not by the name, which both authorities have."""
    one, two = (make_root(new_key(), common_name="x", serial=1, now=NOW, life=timedelta(days=1)) for _ in "ab")
    der = x509.load_pem_x509_certificate(one.certificate).public_bytes(serialization.Encoding.DER)

    assert is_signed_by(der, one.certificate)
    assert not is_signed_by(der, two.certificate)


def twice() -> bytes:
    """One that has an extension twice."""
    first, second = (bytes.fromhex("06062a0304050600")[:-1] + bytes([last]) for last in (7, 8))
    der = made(unknown(7), unknown(8))
    assert first in der
    assert second in der
    return der.replace(second, first)


def no_names() -> bytes:
    """One whose alternative names are none."""
    return made(x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), b"none"))


@pytest.mark.parametrize("der", [b"", b"none", made()[:-40], twice(), no_names()])
def test_what_is_none_is_refused(der: bytes) -> None:
    with pytest.raises(PemInvalid):
        read_presented(der)
