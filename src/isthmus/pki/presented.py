"""What somebody reads of a certificate that another presents in a TLS handshake."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509

from isthmus.pki.certificates import is_issued_by, load_certificates
from isthmus.pki.keys import PemInvalid


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
    except ValueError as error:
        raise PemInvalid(f"the certificate's extensions cannot be read: {error}") from error
    return Presented(uris, certificate.issuer.rfc4514_string())


def is_signed_by(der: bytes, authority: bytes) -> bool:
    """Whether the first certificate of the PEM text *authority* has signed *der*. Raises `PemInvalid`."""
    return is_issued_by(_load(der), load_certificates(authority)[0])


def _load(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except ValueError as error:
        raise PemInvalid(f"not a certificate: {error}") from error
