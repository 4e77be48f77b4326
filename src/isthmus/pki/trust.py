"""Shared trust of meshes: roots, and the intermediate authorities that they sign. Apart from the relay's own PKI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from isthmus.pki.certificates import (
    Authority,
    authority_builder,
    is_issued_by,
    key_id_of,
    load_certificates,
    to_pem,
)
from isthmus.pki.keys import PemInvalid, fingerprint_of, hash_for, load_csr, load_key, new_key, public_key_of

E = TypeVar("E", bound=x509.ExtensionType)

TRUST_SKEW = timedelta(minutes=15)
"""Trust begins this much earlier: clusters whose clocks are 10 minutes apart believe each other at once."""

CA_CERT, CA_KEY, ROOT_CERT, CERT_CHAIN = "ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"
OLD_KEY = "key.pem"  # beside root-cert.pem, in Secrets of older versions
# Source: reference, secret formats; those of `cacerts` are Istio's own.

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # a larger key takes minutes to make


@dataclass(frozen=True)
class SigningRoot:
    """What a Secret holds that signs intermediates: the authority and the root that its chain ends in."""

    authority: Authority = field(repr=False)
    root: bytes
    fingerprint: str
    """SHA-256, in hex, of the signing certificate."""
    not_before: datetime
    not_after: datetime
    """When the first certificate of the chain expires."""


@dataclass(frozen=True)
class IntermediateCsr:
    """What a request for an intermediate asks for.

    *hosts* are its URI names; *other_names* whether it asks for any other. *path_length* None: it does not say.
    """

    hosts: tuple[str, ...]
    other_names: bool
    organizations: tuple[str, ...]
    units: tuple[str, ...]
    other_subject: bool
    ca: bool | None
    path_length: int | None
    rsa_bits: int | None
    fingerprint: str
    """SHA-256, in hex, of the key that it is for."""


def new_authority_key(rsa_bits: int) -> bytes:
    """A fresh key to sign with: RSA of *rsa_bits*, or with 0 ECDSA on curve P-256."""
    return new_rsa_key(rsa_bits) if rsa_bits else new_key()


def new_rsa_key(bits: int) -> bytes:
    """A fresh RSA key, PKCS #1: the form that Istio and older installations have. Slow: 4096 bits take a second."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def make_trust_root(key: bytes, *, organization: str, serial: int, now: datetime, life: timedelta) -> dict[str, bytes]:
    """A self-signed root as the four entries of its Secret."""
    private = load_key(key)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    begin, end = now - TRUST_SKEW, now + life
    builder = authority_builder(name, name, private.public_key(), serial, begin, end, path_length=None)
    certificate = to_pem(builder.sign(private, hash_for(private)))
    return {CA_CERT: certificate, CA_KEY: key, ROOT_CERT: certificate, CERT_CHAIN: certificate}


def make_intermediate_csr(key: bytes, *, hosts: Sequence[str], organization: str, unit: str) -> bytes:
    """A request for an intermediate named by the SPIFFE ids *hosts*; *unit* tells intermediates apart."""
    private = load_key(key, known=True)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            # X.520 allows 64 characters; names of meshes have at most 63.
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
        ]
    )
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(host) for host in hosts])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(names, critical=False)
    return request.sign(private, hash_for(private)).public_bytes(serialization.Encoding.PEM)


def inspect_intermediate_csr(pem: bytes) -> IntermediateCsr:
    """What the request in *pem* asks for.

    Raises `PemInvalid` if it is none, is not signed with its own key, or its key is too weak.
    """
    csr = load_csr(pem)
    public = public_key_of(csr)
    try:
        names = _extension(csr, x509.SubjectAlternativeName)
        constraints = _extension(csr, x509.BasicConstraints)
    except ValueError as error:
        raise PemInvalid(f"the certificate request's extensions cannot be read: {error}") from error
    hosts = tuple(names.get_values_for_type(x509.UniformResourceIdentifier)) if names is not None else ()
    kept = (NameOID.ORGANIZATION_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME)
    return IntermediateCsr(
        hosts=hosts,
        other_names=names is not None and len(names) != len(hosts),
        organizations=_subject(csr, NameOID.ORGANIZATION_NAME),
        units=_subject(csr, NameOID.ORGANIZATIONAL_UNIT_NAME),
        other_subject=any(attribute.oid not in kept for attribute in csr.subject),
        ca=constraints.ca if constraints is not None else None,
        path_length=constraints.path_length if constraints is not None else None,
        rsa_bits=public.key_size if isinstance(public, rsa.RSAPublicKey) else None,
        fingerprint=fingerprint_of(public),
    )


def sign_intermediate(
    issuer: Authority, csr: bytes, *, hosts: Sequence[str], serial: int, now: datetime, life: timedelta
) -> bytes:
    """An authority for the key of *csr* that signs leaves only, without its chain.

    It is named by *hosts* whatever the request asks for, keeps the request's subject, and never outlives *issuer*.
    Raises `PemInvalid` for a request that is none, is not signed with its own key, or has a weak key.
    """
    request = load_csr(csr)
    above = load_certificates(issuer.certificate)[0]
    end = min(now + life, above.not_valid_after_utc)
    builder = authority_builder(
        request.subject, above.subject, public_key_of(request), serial, now - TRUST_SKEW, end, path_length=0
    )
    builder = builder.add_extension(key_id_of(above), critical=False)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(host) for host in hosts])
    private = load_key(issuer.key, known=True)
    return to_pem(builder.add_extension(names, critical=False).sign(private, hash_for(private)))


def read_signing_root(data: Mapping[str, bytes], now: datetime) -> SigningRoot:
    """The root, or intermediate of one, in the data of a Secret, fit to sign intermediates *now*.

    Raises `PemInvalid`, naming the key of the Secret that is wrong.
    """
    old = CA_CERT not in data and CA_KEY not in data
    cert_key, private_key = (ROOT_CERT, OLD_KEY) if old and OLD_KEY in data else (CA_CERT, CA_KEY)
    for name in dict.fromkeys((cert_key, private_key, ROOT_CERT)):
        if not data.get(name):
            raise PemInvalid(f"{name}: missing")
    signer = _certificates(data, cert_key)[0]
    roots = _certificates(data, ROOT_CERT)
    chain = _certificates(data, CERT_CHAIN) if data.get(CERT_CHAIN) and not old else []
    try:
        private = load_key(data[private_key])
    except PemInvalid as error:
        raise PemInvalid(f"{private_key}: {error}") from error
    if private.public_key() != signer.public_key():
        raise PemInvalid(f"{private_key}: is not the key of the certificate in {cert_key}")
    _strong(signer, cert_key)
    path = _path(signer, [*chain, *roots], roots, cert_key)
    for below, certificate in enumerate(path):
        _fit(certificate, below, cert_key if below == 0 else ROOT_CERT if certificate in roots else CERT_CHAIN, now)
    issuers = b"".join(to_pem(certificate) for certificate in path[1:])
    return SigningRoot(
        authority=Authority(to_pem(signer), data[private_key], issuers),
        root=to_pem(path[-1]),
        fingerprint=certificate_fingerprint(to_pem(signer)),
        not_before=max(certificate.not_valid_before_utc for certificate in path),
        not_after=min(certificate.not_valid_after_utc for certificate in path),
    )


def renewal_time(not_before: datetime, not_after: datetime, ratio: float) -> datetime:
    """When only the share *ratio* of a certificate's life is left."""
    return not_after - (not_after - not_before) * ratio


def certificate_fingerprint(pem: bytes) -> str:
    """SHA-256, in hex, of the first certificate in *pem*. Raises `PemInvalid`."""
    return sha256(load_certificates(pem)[0].public_bytes(serialization.Encoding.DER)).hexdigest()


def expiry(pem: bytes) -> datetime:
    """When the first of the certificates in *pem* to expire does. Raises `PemInvalid`."""
    return min(certificate.not_valid_after_utc for certificate in load_certificates(pem))


def certificate_is_for(certificate: bytes, csr: bytes) -> bool:
    """Whether *certificate* is for the key of *csr*. Raises `PemInvalid`."""
    return load_certificates(certificate)[0].public_key() == load_csr(csr).public_key()


def _certificates(data: Mapping[str, bytes], name: str) -> list[x509.Certificate]:
    try:
        return load_certificates(data[name])
    except PemInvalid as error:
        raise PemInvalid(f"{name}: {error}") from error


def _path(
    signer: x509.Certificate, issuers: list[x509.Certificate], roots: list[x509.Certificate], name: str
) -> list[x509.Certificate]:
    """From *signer* to one of *roots*, both included."""
    path = [signer]
    while path[-1] not in roots:
        above = next((i for i in issuers if i not in path and is_issued_by(path[-1], i)), None)
        if above is None:
            raise PemInvalid(f"{name}: the chain does not lead to a certificate in {ROOT_CERT}")
        path.append(above)
    if not is_issued_by(path[-1], path[-1]):
        raise PemInvalid(f"{ROOT_CERT}: is not self-signed, so it is no root")
    return path


def _fit(certificate: x509.Certificate, below: int, name: str, now: datetime) -> None:
    """Raise `PemInvalid` unless *certificate* may have *below* authorities and one intermediate more under it."""
    try:
        constraints = _extension(certificate, x509.BasicConstraints)
        usage = _extension(certificate, x509.KeyUsage)
    except ValueError as error:
        raise PemInvalid(f"{name}: extensions cannot be read: {error}") from error
    if constraints is None or not constraints.ca:
        raise PemInvalid(f"{name}: is no certificate authority, it cannot sign intermediates")
    if usage is not None and not usage.key_cert_sign:
        raise PemInvalid(f"{name}: its key usage does not allow it to sign certificates")
    if constraints.path_length is not None and constraints.path_length <= below:
        raise PemInvalid(
            f"{name}: its path length {constraints.path_length} leaves no room for an intermediate; "
            f"{below + 1} or none would do"
        )
    if now >= certificate.not_valid_after_utc:
        raise PemInvalid(f"{name}: expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
    if now + TRUST_SKEW < certificate.not_valid_before_utc:
        raise PemInvalid(f"{name}: is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC")


def _strong(certificate: x509.Certificate, name: str) -> None:
    public = certificate.public_key()
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= MIN_RSA_BITS:
        return
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= 256:
        return
    # Istio takes no other kinds of keys. Source: Istio, plug in CA certificates.
    raise PemInvalid(f"{name}: its key is neither ECDSA of 256 bits or more nor RSA of {MIN_RSA_BITS} or more")


def _extension(holder: x509.Certificate | x509.CertificateSigningRequest, kind: type[E]) -> E | None:
    try:
        return holder.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _subject(csr: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(attribute.value) for attribute in csr.subject.get_attributes_for_oid(oid))
