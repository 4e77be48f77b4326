"""Certificates: making them, reading them, and checking that a chain leads to a trusted root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from isthmus.model.problem import Problem
from isthmus.pki.keys import MAX_COMMON_NAME, PemInvalid, hash_for, load_csr, load_key, public_key_of

CLOCK_SKEW = timedelta(minutes=5)  # certificates begin this much earlier, for clocks that are behind

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True)
class Authority:
    """A CA that can sign, all PEM: its certificate, private key, and issuers up to the root (empty for a root)."""

    certificate: bytes
    key: bytes = field(repr=False)
    issuers: bytes = b""

    @property
    def chain(self) -> bytes:
        """The certificates that go below a leaf: this CA's, then its issuers'."""
        return _with_newline(self.certificate) + self.issuers

    @property
    def root(self) -> bytes:
        """The last certificate of `chain`."""
        return to_pem(load_certificates(self.chain)[-1])


@dataclass(frozen=True)
class CertificateFacts:
    """What people and decisions need of a certificate."""

    common_name: str
    dns_names: tuple[str, ...]
    issuer: str
    serial: int
    not_before: datetime
    not_after: datetime
    is_ca: bool


def load_certificates(pem: bytes) -> list[x509.Certificate]:
    """The certificates in *pem*, at least one. Raises `PemInvalid`."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise PemInvalid(f"not a PEM certificate: {error}") from error


def certificate_facts(pem: bytes) -> CertificateFacts:
    """The facts of the first certificate in *pem*. Raises `PemInvalid`."""
    return _facts(load_certificates(pem)[0])


def make_root(
    key: bytes, *, common_name: str, serial: int, now: datetime, life: timedelta, organization: str = ""
) -> Authority:
    """A self-signed CA."""
    private = load_key(key)
    name = _name(common_name, organization)
    certificate = _builder(name, name, private.public_key(), serial, now, life)
    certificate = _as_authority(certificate, path_length=None)
    certificate = certificate.add_extension(_key_id(private.public_key()), critical=False)
    return Authority(to_pem(certificate.sign(private, hash_for(private))), key)


def make_signing_authority(
    issuer: Authority, key: bytes, *, common_name: str, serial: int, now: datetime, life: timedelta
) -> Authority:
    """A CA below *issuer* that signs leaves only."""
    certificate = _issued(issuer, _name(common_name), load_key(key).public_key(), serial, now, life)
    certificate = _as_authority(certificate, path_length=0)
    certificate = certificate.add_extension(_usages(), critical=False)
    return Authority(sign(certificate, issuer), key, issuer.chain)


def make_leaf(
    issuer: Authority,
    key: bytes,
    *,
    common_name: str,
    dns_names: Sequence[str],
    serial: int,
    now: datetime,
    life: timedelta,
) -> bytes:
    """A certificate for *key* that serves as client's and as server's, without its chain."""
    return _leaf(issuer, load_key(key).public_key(), common_name, dns_names, serial, now, life)


def sign_csr(
    issuer: Authority, csr: bytes, *, dns_names: Sequence[str], serial: int, now: datetime, life: timedelta
) -> bytes:
    """A leaf for the key of *csr*, named by *dns_names* whatever the request asks for, without its chain.

    Raises `PemInvalid` for a request that is none, is not signed with its own key, or has a weak key.
    """
    return _leaf(issuer, public_key_of(load_csr(csr)), dns_names[0], dns_names, serial, now, life)


def check_chain(chain: bytes, trust: bytes, now: datetime) -> Problem | None:
    """What is wrong with a certificate chain (leaf first), or None if it leads to one of *trust* and is valid *now*."""
    try:
        certificates = load_certificates(chain)
    except PemInvalid as error:
        return Problem("tls.crt", "InvalidCertificate", str(error))
    try:
        roots = load_certificates(trust)
    except PemInvalid as error:
        return Problem("ca.crt", "InvalidCertificate", str(error))
    current, issuers = certificates[0], [*roots, *certificates[1:]]  # what is trusted first: RFC 4158, 2.4
    for _ in range(len(issuers) + 1):
        facts = _facts(current)
        if now < facts.not_before:
            return Problem(
                "tls.crt", "NotYetValid", f"{_called(facts)} is valid from {facts.not_before:%Y-%m-%d %H:%M} UTC"
            )
        if now >= facts.not_after:
            return Problem("tls.crt", "Expired", f"{_called(facts)} expired on {facts.not_after:%Y-%m-%d %H:%M} UTC")
        if current in roots:
            return None
        issuer = next((i for i in issuers if i != current and is_issued_by(current, i)), None)
        if issuer is None:
            return Problem(
                "tls.crt",
                "UnknownIssuer",
                f"{_called(facts)} is issued by {facts.issuer!r}, which is not among the certificates of ca.crt",
            )
        if not _facts(issuer).is_ca:
            return Problem("tls.crt", "NotAnAuthority", f"{_called(_facts(issuer))} signs others but is no CA")
        current = issuer
    return Problem("tls.crt", "UnknownIssuer", "the chain goes in a circle")


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = tuple(alternatives.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns_names = ()
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    return CertificateFacts(
        common_name=str(names[0].value) if names else "",
        dns_names=dns_names,
        issuer=certificate.issuer.rfc4514_string(),
        serial=certificate.serial_number,
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        is_ca=is_ca,
    )


def _called(facts: CertificateFacts) -> str:
    return f"the certificate of {facts.common_name or ', '.join(facts.dns_names) or 'nobody'}"


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether *issuer* has signed *certificate*."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _leaf(
    issuer: Authority,
    public: PublicKey,
    common_name: str,
    dns_names: Sequence[str],
    serial: int,
    now: datetime,
    life: timedelta,
) -> bytes:
    certificate = _issued(issuer, _name(common_name), public, serial, now, life)
    certificate = certificate.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    certificate = certificate.add_extension(_key_usage(signs=False), critical=True)
    certificate = certificate.add_extension(_usages(), critical=False)
    certificate = certificate.add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in dns_names]), critical=False
    )
    return sign(certificate, issuer)


def _issued(
    issuer: Authority, name: x509.Name, public: PublicKey, serial: int, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    """A certificate of *name* below *issuer*, which it never outlives."""
    above = load_certificates(issuer.certificate)[0]
    builder = _builder(name, above.subject, public, serial, now, min(life, above.not_valid_after_utc - now))
    return builder.add_extension(_key_id(public), critical=False).add_extension(key_id_of(above), critical=False)


def key_id_of(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """How what *issuer* signs names its key."""
    try:
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)


def _builder(
    name: x509.Name, issuer: x509.Name, public: PublicKey, serial: int, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + life)
    )


def authority_builder(
    name: x509.Name,
    issuer: x509.Name,
    public: PublicKey,
    serial: int,
    begin: datetime,
    end: datetime,
    *,
    path_length: int | None,
) -> x509.CertificateBuilder:
    """An authority's certificate, valid from *begin* to *end*, that is still to be signed."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    return _as_authority(builder, path_length).add_extension(_key_id(public), critical=False)


def _as_authority(builder: x509.CertificateBuilder, path_length: int | None) -> x509.CertificateBuilder:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return builder.add_extension(constraints, critical=True).add_extension(_key_usage(signs=True), critical=True)


def _key_id(public: PublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public)


def _key_usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _usages() -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])


def _name(common_name: str, organization: str = "") -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_COMMON_NAME])]
    if organization:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    return x509.Name(attributes)


def sign(builder: x509.CertificateBuilder, issuer: Authority) -> bytes:
    """What *builder* describes, signed by *issuer*."""
    private = load_key(issuer.key)
    return to_pem(builder.sign(private, hash_for(private)))


def to_pem(certificate: x509.Certificate) -> bytes:
    """*certificate* as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def _with_newline(pem: bytes) -> bytes:
    return pem if pem.endswith(b"\n") else pem + b"\n"
