"""What somebody reads of a certificate that another presents in a TLS handshake."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from isthmus.pki.certificates import is_issued_by, load_certificates
from isthmus.pki.keys import PemInvalid

# What reading may raise: whoever presents a certificate has made it as they like.
MALFORMED = (ValueError, TypeError, x509.DuplicateExtension, x509.InvalidVersion, UnsupportedAlgorithm)


@dataclass(frozen=True)
class Presented:
    """A leaf: who it says it is, and who signed it."""

    uris: tuple[str, ...]
    """Its URI names; one of a mesh has one, a SPIFFE id."""
    issuer: str


def read_presented(der: bytes) -> Presented:
    """The certificate *der*. Raises `PemInvalid`."""
    certificate = _load(der)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    except MALFORMED as error:
        raise PemInvalid(f"the certificate's extensions cannot be read: {error}") from error
    try:
        return Presented(uris, certificate.issuer.rfc4514_string())
    except MALFORMED as error:
        raise PemInvalid(f"the certificate's issuer cannot be read: {error}") from error


def is_signed_by(der: bytes, authority: bytes) -> bool:
    """Whether the first certificate of the PEM text *authority* has signed *der*. Raises `PemInvalid`."""
    try:
        return is_issued_by(_load(der), load_certificates(authority)[0])
    except MALFORMED as error:
        raise PemInvalid(f"the certificate's signature cannot be read: {error}") from error


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except MALFORMED as error:
        raise PemInvalid(f"not a certificate: {error}") from error
