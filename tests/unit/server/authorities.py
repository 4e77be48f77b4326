"""Roots, requests and agents that ask, for the tests of issuance. Keys are ECDSA: RSA ones take too long to make."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from isthmus.api.base import ObjectMeta
from isthmus.api.certificate_request import CertificateRequest, CertificateRequestSpec
from isthmus.pki import make_intermediate_csr, new_key

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ec_key(curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(curve or ec.SECP256R1())


def certificate(
    key: PrivateKey,
    name: str = "root",
    *,
    issuer: tuple[x509.Certificate, PrivateKey] | None = None,
    ca: bool | None = True,
    path_length: int | None = None,
    begin: datetime = NOW - DAY,
    end: datetime = NOW + 365 * DAY,
    signs: bool = True,
) -> x509.Certificate:
    """A certificate, self-signed without *issuer*; *ca* None leaves the constraints out."""
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )
    if ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=path_length), critical=True)
    usage = x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)
    return builder.add_extension(usage, critical=True).sign(issuer[1] if issuer else key, hashes.SHA256())


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in certificates)


def provided(key: PrivateKey | None = None, root: x509.Certificate | None = None) -> dict[str, bytes]:
    """The data of a Secret with a provided root."""
    key = key or ec_key()
    root = root or certificate(key)
    return {
        "ca-cert.pem": pem(root),
        "ca-key.pem": pem_of(key),
        "root-cert.pem": pem(root),
        "cert-chain.pem": pem(root),
    }


def host(cluster: str) -> str:
    return f"spiffe://{cluster}/ns/istio-system/sa/istio-citadel"


def odd_csr(
    hosts: Sequence[str],
    *,
    key: PrivateKey | None = None,
    organization: str = "Istio",
    unit: str = "mesh-a",
    common_name: str = "",
    dns: Sequence[str] = (),
    constraints: x509.BasicConstraints | None = None,
) -> bytes:
    """A request that asks for whatever it likes."""
    attributes = [
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
        x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
    ]
    if common_name:
        attributes.append(x509.NameAttribute(NameOID.COMMON_NAME, common_name))
    names = [*map(x509.UniformResourceIdentifier, hosts), *map(x509.DNSName, dns)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if constraints is not None:
        builder = builder.add_extension(constraints, critical=True)
    return builder.sign(key or ec_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def request(name: str, csr: bytes | None = None, *, cluster: str = "a", generation: int = 1) -> CertificateRequest:
    """What the agent of *cluster* reports of a request that nobody has answered."""
    csr = csr or make_intermediate_csr(new_key(), hosts=[host(cluster)], organization="Istio", unit=name)
    return CertificateRequest(
        metadata=ObjectMeta(name=name, namespace="gloo-mesh", generation=generation, uid=f"uid-{name}"),
        spec=CertificateRequestSpec(certificate_signing_request=csr),
    )
