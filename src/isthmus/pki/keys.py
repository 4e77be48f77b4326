"""Private keys (ECDSA P-256) and certificate requests."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

MAX_COMMON_NAME = 64  # X.520 upper bound; the full name is always among the DNS names

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class PemInvalid(ValueError):
    """Bytes that should be a PEM key, certificate or request and are not, or whose signature does not hold."""


@dataclass(frozen=True)
class Csr:
    """What a certificate request asks for: its common name, its DNS names, and whose key it is (`key_fingerprint`)."""

    common_name: str
    dns_names: tuple[str, ...]
    fingerprint: str


def new_key() -> bytes:
    """A fresh private key, PKCS #8."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes, *, known: bool = False) -> SigningKey:
    """The private key in *pem*; ECDSA, RSA and Ed25519 keys that users bring are taken. Raises `PemInvalid`.

    The numbers of an RSA key are tested, which takes most of a second for 4096 bits, unless it is *known*: one that we
    made, or have tested before.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=known)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PemInvalid(f"not an unencrypted PEM private key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey):
        raise PemInvalid(f"a {type(key).__name__} cannot sign; ECDSA, RSA and Ed25519 keys can")
    return key


def hash_for(key: SigningKey) -> hashes.SHA256 | None:
    """The hash that signatures of *key* use; Ed25519 has its own."""
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def key_fingerprint(key: bytes) -> str:
    """SHA-256, in hex, of the public half of a private key (PEM)."""
    return fingerprint_of(load_key(key).public_key())


def fingerprint_of(public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey) -> str:
    """SHA-256, in hex, of a public key's DER form."""
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return sha256(der).hexdigest()


def make_csr(key: bytes, name: str) -> bytes:
    """A request for a certificate whose common name and only DNS name are *name*."""
    private = load_key(key)
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:MAX_COMMON_NAME])]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(private, hash_for(private))
        .public_bytes(serialization.Encoding.PEM)
    )


def load_csr(pem: bytes) -> x509.CertificateSigningRequest:
    """The request in *pem*, made by the holder of its key. Raises `PemInvalid`."""
    try:
        csr = x509.load_pem_x509_csr(pem)
        genuine = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PemInvalid(f"not a PEM certificate request: {error}") from error
    if not genuine:
        raise PemInvalid("the certificate request is not signed with its own key")
    return csr


def public_key_of(csr: x509.CertificateSigningRequest) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
    """The key that *csr* asks a certificate for. Raises `PemInvalid` for keys too weak or unusual to sign."""
    public = csr.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey) and public.curve.key_size >= 256:
        return public
    if isinstance(public, rsa.RSAPublicKey) and public.key_size >= 2048:
        return public
    raise PemInvalid("the certificate request's key is neither ECDSA of 256 bits or more nor RSA of 2048 or more")


def inspect_csr(pem: bytes) -> Csr:
    """What the request in *pem* asks for. Raises `PemInvalid` if it is none, or not signed with its own key."""
    csr = load_csr(pem)
    names = csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    try:
        alternatives = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        dns_names = tuple(alternatives.get_values_for_type(x509.DNSName))
    except x509.ExtensionNotFound:
        dns_names = ()
    except ValueError as error:
        raise PemInvalid(f"the certificate request's extensions cannot be read: {error}") from error
    return Csr(str(names[0].value) if names else "", dns_names, fingerprint_of(public_key_of(csr)))
