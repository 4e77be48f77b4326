"""What the holder of a key reads of the certificate that it was issued."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from isthmus.pki.certificates import is_issued_by, load_certificates, to_pem
from isthmus.pki.keys import PemInvalid, fingerprint_of, load_key


@dataclass(frozen=True)
class IssuedAuthority:
    """An intermediate's certificate. *hosts* are its URI names; *fingerprint* tells whose key it is for."""

    hosts: tuple[str, ...]
    fingerprint: str
    is_ca: bool
    not_before: datetime
    not_after: datetime


def read_issued(pem: bytes) -> IssuedAuthority:
    """The first certificate in *pem*. Raises `PemInvalid`."""
    certificate = load_certificates(pem)[0]
    public = certificate.public_key()
    if not isinstance(public, ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey):
        raise PemInvalid(f"a certificate for a {type(public).__name__}, which is no key of ours")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        hosts = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        hosts = ()
    except ValueError as error:
        raise PemInvalid(f"the certificate's extensions cannot be read: {error}") from error
    try:
        is_ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_ca = False
    return IssuedAuthority(
        hosts, fingerprint_of(public), is_ca, certificate.not_valid_before_utc, certificate.not_valid_after_utc
    )


def own_key_fingerprint(pem: bytes) -> str:
    """As `key_fingerprint`, of a key that we made. Raises `PemInvalid`."""
    return fingerprint_of(load_key(pem, known=True).public_key())


def valid_from(pem: bytes) -> datetime:
    """When the last of the certificates in *pem* begins to be valid. Raises `PemInvalid`."""
    return max(certificate.not_valid_before_utc for certificate in load_certificates(pem))


def same_certificate(pem: bytes, other: bytes) -> bool:
    """Whether two PEM texts begin with the same certificate. Raises `PemInvalid`."""
    return load_certificates(pem)[0] == load_certificates(other)[0]


def below_roots(chain: bytes, roots: bytes) -> bytes:
    """The certificates of *chain* that are not among *roots*. Raises `PemInvalid`."""
    trusted = load_certificates(roots)
    return b"".join(to_pem(certificate) for certificate in load_certificates(chain) if certificate not in trusted)


def bridge_in(chain: bytes, roots: bytes) -> tuple[bytes, bytes] | None:
    """The bridge (see `isthmus.pki.bridge`) at the end of *chain*, and the old root among *roots* that signed it."""
    bridge = load_certificates(chain)[-1]
    for root in load_certificates(roots):
        if root.subject != bridge.subject and is_issued_by(bridge, root):
            return to_pem(bridge), to_pem(root)
    return None


def leads_to(bridge: bytes, roots: bytes) -> bool:
    """Whether *bridge* stands for one of *roots*: has its name and its key. Raises `PemInvalid`."""
    found = load_certificates(bridge)[0]
    return any(
        (root.subject, root.public_key()) == (found.subject, found.public_key()) for root in load_certificates(roots)
    )


def is_among(certificate: bytes, roots: bytes) -> bool:
    """Whether the first of *certificate* is one of *roots*. Raises `PemInvalid`."""
    return load_certificates(certificate)[0] in load_certificates(roots)


def chain_to_root(certificate: bytes, others: bytes) -> tuple[bytes, bytes]:
    """The first of *certificate* and those that signed it, found among *others*; and the root in which they end.

    Raises `PemInvalid` if none of *others* is a root above it.
    """
    path, issuers = [load_certificates(certificate)[0]], load_certificates(others)
    while not is_issued_by(path[-1], path[-1]):
        above = next((issuer for issuer in issuers if issuer not in path and is_issued_by(path[-1], issuer)), None)
        if above is None:
            name = path[-1].issuer.rfc4514_string()
            raise PemInvalid(f"the chain ends in a certificate of {name!r}, which is not there, and in no root")
        path.append(above)
    return b"".join(map(to_pem, path)), to_pem(path[-1])
