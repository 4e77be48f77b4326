"""What is signed and what is refused."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from isthmus.api.certificate_request import CertificateRequest, CertificateRequestState, CertificateRequestStatus
from isthmus.api.common import CommonCertOptions, KeyAlgorithm, ObjectRef
from isthmus.api.issued_certificate import IssuedCertificateSpec
from isthmus.pki import SigningRoot, certificate_is_for, check_chain, make_trust_root, new_rsa_key, read_signing_root
from isthmus.server.issuer import is_answered, refusal, sign
from tests.unit.server.authorities import (
    DAY,
    NOW,
    certificate,
    ec_key,
    host,
    odd_csr,
    pem,
    pem_of,
    provided,
    request,
)
from tests.unit.server.conftest import Plane, until
from tests.unit.server.trusting import GENERATED, ROOT, Certifier, root_in, virtual_mesh

WANTED = IssuedCertificateSpec(
    hosts=(host("a"),),
    org="Istio",
    issued_certificate_secret=ObjectRef(name="cacerts", namespace="istio-system"),
    cert_options=CommonCertOptions(ttl_days=90, rsa_key_size_bytes=4096, org_name="Istio"),
)


def signer(data: dict[str, bytes] | None = None) -> SigningRoot:
    return read_signing_root(data or provided(), NOW)


def signed(asked: CertificateRequest, root: SigningRoot, serial: int = 7) -> CertificateRequestStatus:
    return sign(asked, WANTED, root, root.root, serial=serial, now=NOW)


def test_a_request_for_just_what_is_wanted_is_signed() -> None:
    """CA with path length 0, the mesh's SPIFFE id, the request's subject, its own key, begun early, ended in time."""
    asked = request("mesh-a")
    root = signer()

    assert refusal(asked, WANTED, "a") is None
    status = signed(asked, root)

    (found,) = x509.load_pem_x509_certificates(status.signed_certificate)
    csr = x509.load_pem_x509_csr(asked.spec.certificate_signing_request)
    constraints = found.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, 0)
    assert found.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [host("a")]
    assert found.subject == csr.subject
    assert found.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)[0].value == "mesh-a"
    assert found.public_key() == csr.public_key()
    assert found.serial_number == 7
    assert found.not_valid_before_utc == NOW - timedelta(minutes=15)
    assert found.not_valid_after_utc == NOW + 90 * DAY
    assert status.cert_chain == status.signed_certificate + root.root
    assert check_chain(status.cert_chain, status.signing_root_ca, NOW) is None


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (request("mesh-a", cluster="b"), "the request is for spiffe://b/"),
        (request("mesh-a", odd_csr([host("a"), host("b")])), "only spiffe://a/"),
        (request("mesh-a", odd_csr([])), "is for nobody"),
        (request("mesh-a", odd_csr([host("a")], dns=["istiod.istio-system.svc"])), "names of other kinds"),
        (request("mesh-a", odd_csr([host("a")], unit="mesh-b")), "OU=mesh-a"),
        (request("mesh-a", odd_csr([host("a")], organization="Else")), "O=Istio"),
        (request("mesh-a", odd_csr([host("a")], common_name="root")), "nothing else"),
        (
            request("mesh-a", odd_csr([host("a")], constraints=x509.BasicConstraints(ca=True, path_length=1))),
            "path length 1",
        ),
        (
            request("mesh-a", odd_csr([host("a")], constraints=x509.BasicConstraints(ca=False, path_length=None))),
            "CA=False",
        ),
        (request("mesh-a", odd_csr([host("a")], key=ec_key(ec.SECP224R1()))), "256 bits or more"),
        (request("mesh-a", odd_csr([host("a")], key=rsa.generate_private_key(65537, 1024))), "RSA of 2048 or more"),
        (request("mesh-a", odd_csr([host("a")], key=rsa.generate_private_key(65537, 2048))), "4096 are asked for"),
        (request("mesh-a", b"no request"), "not a PEM certificate request"),
    ],
)
def test_a_request_beyond_its_due_is_refused(asked: CertificateRequest, reason: str) -> None:
    """Another cluster's name, one more name, another subject, a longer path, a weak key: none is signed."""
    assert reason in (refusal(asked, WANTED, "a") or "")


def test_an_rsa_key_is_not_signed_where_ecdsa_is_asked_for() -> None:
    options = CommonCertOptions(ttl_days=90, org_name="Istio", key_algorithm=KeyAlgorithm.ECDSA)
    wanted = msgspec.structs.replace(WANTED, cert_options=options)

    assert "where an ECDSA key is asked for" in (
        refusal(request("mesh-a", odd_csr([host("a")], key=rsa.generate_private_key(65537, 2048))), wanted, "a") or ""
    )
    assert refusal(request("mesh-a", odd_csr([host("a")], key=ec_key(ec.SECP256R1()))), wanted, "a") is None


def test_a_request_with_somebody_elses_signature_is_refused() -> None:
    """Who does not hold the key gets no certificate for it."""
    csr = x509.load_pem_x509_csr(odd_csr([host("a")])).public_bytes(serialization.Encoding.DER)
    at = len(csr) - 1
    broken = csr[:at] + bytes([csr[at] ^ 1])
    text = x509.load_der_x509_csr(broken).public_bytes(serialization.Encoding.PEM)

    assert "not signed with its own key" in (refusal(request("mesh-a", text), WANTED, "a") or "")


def test_a_request_that_no_virtual_mesh_asks_for_is_refused() -> None:
    assert "no VirtualMesh asks for" in (refusal(request("mesh-a"), None, "b") or "")


def test_no_intermediate_outlives_what_signed_it() -> None:
    key = ec_key()
    root = signer(provided(key, certificate(key, end=NOW + 3 * DAY)))

    (found,) = x509.load_pem_x509_certificates(signed(request("mesh-a"), root).signed_certificate)

    assert found.not_valid_after_utc == NOW + 3 * DAY


def test_a_provided_intermediate_signs_below_its_root() -> None:
    """The chain has every authority up to the root, and the root alone is trusted."""
    above, key = ec_key(), ec_key()
    top = certificate(above, "top", path_length=2)
    middle = certificate(key, "middle", issuer=(top, above), path_length=1)
    data = {**provided(key, middle), "root-cert.pem": pem(top), "cert-chain.pem": pem(middle, top)}

    status = signed(request("mesh-a"), signer(data))

    chain = x509.load_pem_x509_certificates(status.cert_chain)
    assert [c.subject for c in chain[1:]] == [middle.subject, top.subject]
    assert x509.load_pem_x509_certificates(status.signing_root_ca) == [top]
    assert check_chain(status.cert_chain, status.signing_root_ca, NOW) is None


def finished(asked: CertificateRequest, status: CertificateRequestStatus, generation: int = 1) -> CertificateRequest:
    return msgspec.structs.replace(asked, status=msgspec.structs.replace(status, observed_generation=generation))


def test_what_is_answered_is_left_alone_until_it_no_longer_holds() -> None:
    """Not for another generation, not for another key, not under another root, not past its end."""
    asked, root, other = request("mesh-a"), signer(), signer()
    status = signed(asked, root)

    assert is_answered(finished(asked, status), root.root, NOW)
    assert is_answered(finished(asked, status), other.root + root.root, NOW)
    assert not is_answered(asked, root.root, NOW)
    assert not is_answered(finished(asked, status, generation=0), root.root, NOW)
    assert not is_answered(finished(request("mesh-a"), status), root.root, NOW)
    assert not is_answered(finished(asked, status), other.root, NOW)
    assert not is_answered(finished(asked, status), root.root, NOW + 91 * DAY)
    refused = msgspec.structs.replace(status, state=CertificateRequestState.FAILED)
    assert not is_answered(finished(asked, refused), root.root, NOW)


def test_a_generated_root_can_sign() -> None:
    data = make_trust_root(new_rsa_key(2048), organization="gloo-mesh", serial=1, now=NOW, life=10 * DAY)

    root = signer(data)

    assert set(data) == {"ca-cert.pem", "ca-key.pem", "root-cert.pem", "cert-chain.pem"}
    assert data["ca-key.pem"].startswith(b"-----BEGIN RSA PRIVATE KEY-----")
    assert root.not_after == NOW + 10 * DAY
    assert check_chain(signed(request("mesh-a"), root).cert_chain, root.root, NOW + timedelta(minutes=-10)) is None


def test_a_root_of_an_older_version_can_sign() -> None:
    """`root-cert.pem` and `key.pem`, as older guides have it."""
    key = ec_key()
    root = pem(certificate(key))

    assert signer({"root-cert.pem": root, "key.pem": pem_of(key)}).root == root


KEY, OTHER = ec_key(), ec_key()
TOP = certificate(OTHER, "top")
WEAK = rsa.generate_private_key(65537, 1024)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ({}, "ca-cert.pem: missing"),
        ({"root-cert.pem": pem(TOP)}, "ca-cert.pem: missing"),
        ({**provided(), "ca-key.pem": b""}, "ca-key.pem: missing"),
        ({**provided(), "ca-cert.pem": b"nothing"}, "ca-cert.pem: not a PEM certificate"),
        ({**provided(), "ca-key.pem": b"nothing"}, "ca-key.pem: not an unencrypted PEM private key"),
        ({**provided(), "ca-key.pem": pem_of(KEY)}, "ca-key.pem: is not the key of the certificate in ca-cert.pem"),
        (provided(KEY, certificate(KEY, ca=False)), "is no certificate authority"),
        (provided(KEY, certificate(KEY, ca=None)), "is no certificate authority"),
        (provided(KEY, certificate(KEY, signs=False)), "key usage does not allow"),
        (provided(KEY, certificate(KEY, path_length=0)), "path length 0 leaves no room for an intermediate"),
        (provided(KEY, certificate(KEY, end=NOW)), "ca-cert.pem: expired on 2026-11-23 02:00 UTC"),
        (provided(KEY, certificate(KEY, begin=NOW + DAY)), "is valid from 2026-11-24"),
        ({**provided(KEY, certificate(KEY)), "root-cert.pem": pem(TOP)}, "does not lead to a certificate in root-cert"),
        (
            {
                **provided(KEY, certificate(KEY, "mid", issuer=(certificate(OTHER, "top", path_length=1), OTHER))),
                "root-cert.pem": pem(certificate(OTHER, "top", path_length=1)),
            },
            "root-cert.pem: its path length 1 leaves no room",
        ),
        (provided(WEAK, certificate(WEAK)), "neither ECDSA of 256 bits or more nor RSA of 2048"),
    ],
)
def test_what_cannot_sign_is_said_by_key(data: dict[str, bytes], reason: str) -> None:
    """A leaf as root, an expired one, a key that does not fit, a path too short: named by the Secret's key."""
    with pytest.raises(ValueError, match=reason):
        read_signing_root(data, NOW)


async def test_of_many_clusters_that_ask_at_once_each_gets_its_own(plane: Plane) -> None:
    """Forty agents on the relay; `bench.issuance` says how long it takes for more of them, with longer keys."""
    names = [f"c{number:02}" for number in range(40)]
    await plane.register(*names)
    await plane.mgmt.load([virtual_mesh(GENERATED, *names)])
    async with AsyncExitStack() as stack:
        asking = [Certifier(await stack.enter_async_context(plane.agent(name)), name) for name in names]
        await stack.enter_async_context(plane.server())
        await until(lambda: all(one.wanted for one in asking))

        for one in asking:
            one.ask()
        await until(lambda: all(one.answer() for one in asking))

        root = (await root_in(plane, ROOT))["root-cert.pem"]
        serials = set()
        for one in asking:
            status = one.answer()
            assert status is not None
            assert status.state is CertificateRequestState.FINISHED, status.error
            assert status.signing_root_ca == root
            assert check_chain(status.cert_chain, root, datetime.now(UTC)) is None
            assert certificate_is_for(status.signed_certificate, one.request.spec.certificate_signing_request)
            (found,) = x509.load_pem_x509_certificates(status.signed_certificate)
            names_of = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names_of.get_values_for_type(x509.UniformResourceIdentifier) == [host(one.cluster)]
            serials.add(found.serial_number)
        assert len(serials) == len(names)
