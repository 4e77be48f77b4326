"""The certificates of one embedded server: its own authority, its server certificate, its users' certificates.

Elliptic keys, because they are made in a fraction of a millisecond. Nothing else in the package touches `cryptography`.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

VALID_FOR = timedelta(days=3650)
CLOCK_SKEW = timedelta(hours=1)


class KeyPair(msgspec.Struct, frozen=True):
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


class Credentials(msgspec.Struct, frozen=True):
    """All that a server and its first user need."""

    authority: KeyPair
    server: KeyPair
    admin: KeyPair
    token: str
    """A bearer token of the same user."""


def issue_credentials(token: str, hosts: tuple[str, ...]) -> Credentials:
    """New credentials for a server that is reached under *hosts* (names and addresses)."""
    now = datetime.now(UTC)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    name = _name("isthmus-embedded-ca")
    authority = (
        _builder(name, name, authority_key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )

    def leaf(subject: x509.Name, purpose: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None) -> KeyPair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(subject, name, key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(ca=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
            )
        )
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        return _pem(builder.sign(authority_key, hashes.SHA256()), key)

    return Credentials(
        authority=_pem(authority, authority_key),
        server=leaf(_name("kube-apiserver"), ExtendedKeyUsageOID.SERVER_AUTH, _alternatives(hosts)),
        admin=leaf(_name("admin", "system:masters"), ExtendedKeyUsageOID.CLIENT_AUTH, None),
        token=token,
    )


def save_credentials(credentials: Credentials, folder: Path) -> None:
    """Write them as PEM files into *folder*, readable by their owner only."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name, content in _files(credentials).items():
        path = folder / name
        path.touch(mode=0o600)
        path.write_bytes(content)


def load_credentials(folder: Path) -> Credentials | None:
    """What `save_credentials` wrote; None if there is none."""
    if not (folder / "token").exists():
        return None

    def pair(name: str) -> KeyPair:
        return KeyPair((folder / f"{name}.crt").read_bytes(), (folder / f"{name}.key").read_bytes())

    token = (folder / "token").read_text()
    return Credentials(pair("ca"), pair("server"), pair("admin"), token)


def _files(credentials: Credentials) -> dict[str, bytes]:
    files = {}
    for name, pair in (("ca", credentials.authority), ("server", credentials.server), ("admin", credentials.admin)):
        files[f"{name}.crt"], files[f"{name}.key"] = pair.certificate, pair.key
    return {**files, "token": credentials.token.encode()}  # last, so that a folder with a token is complete


def _name(common: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)] if organization else []
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + VALID_FOR)
    )


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _alternatives(hosts: tuple[str, ...]) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    return x509.SubjectAlternativeName(names)


def _pem(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
