"""Certificates of the relay: what they say, what they refuse to say, and that other implementations agree."""

from __future__ import annotations

import itertools
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from isthmus.pki import (
    RELAY_ROOT_SECRET,
    RELAY_SERVER_SECRET,
    RELAY_SIGNING_SECRET,
    Authority,
    PemInvalid,
    authority_of,
    certificate_facts,
    check_chain,
    inspect_csr,
    key_fingerprint,
    make_csr,
    make_leaf,
    make_relay_secrets,
    make_root,
    make_signing_authority,
    new_key,
    rotation_due,
    rotation_time,
    sign_agent,
)

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
YEAR = timedelta(days=365)


@pytest.fixture(scope="module")
def secrets() -> dict[str, dict[str, bytes]]:
    return make_relay_secrets(now=NOW, serials=itertools.count(1), additional_sans=("relay.example.com",))


@pytest.fixture(scope="module")
def signing(secrets) -> Authority:
    return authority_of(secrets[RELAY_SIGNING_SECRET])


def agent(signing: Authority, cluster: str = "c1", *, now: datetime = NOW, life: timedelta = YEAR) -> bytes:
    return sign_agent(make_csr(new_key(), cluster), cluster, signing, serial=7, now=now, life=life)


def extension(pem: bytes, kind: type[x509.ExtensionType]) -> x509.ExtensionType:
    return x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(kind).value


def test_the_secrets_have_the_keys_and_names_that_installations_have(secrets):
    assert {name: sorted(data) for name, data in secrets.items()} == {
        "relay-root-tls-secret": ["ca.crt", "tls.key"],
        "relay-server-tls-secret": ["ca.crt", "tls.crt", "tls.key"],
        "relay-tls-signing-secret": ["ca.crt", "tls.crt", "tls.key"],
    }
    root = certificate_facts(secrets[RELAY_ROOT_SECRET]["ca.crt"])
    server = certificate_facts(secrets[RELAY_SERVER_SECRET]["tls.crt"])
    signing = certificate_facts(secrets[RELAY_SIGNING_SECRET]["tls.crt"])
    assert (root.common_name, root.is_ca, root.serial) == ("enterprise-networking-ca", True, 1)
    assert (server.common_name, server.is_ca) == ("enterprise-networking", False)
    assert server.dns_names == ("*.gloo-mesh", "relay.example.com")
    assert signing.is_ca
    assert root.not_after - NOW == timedelta(days=3650)
    for secret in (RELAY_SERVER_SECRET, RELAY_SIGNING_SECRET):
        assert check_chain(secrets[secret]["tls.crt"], secrets[RELAY_ROOT_SECRET]["ca.crt"], NOW) is None


def test_an_agents_certificate_says_its_cluster_and_nothing_more(secrets, signing):
    chain = agent(signing)

    facts = certificate_facts(chain)
    assert (facts.common_name, facts.dns_names, facts.is_ca, facts.serial) == ("c1", ("c1",), False, 7)
    assert facts.not_after == NOW + YEAR
    assert facts.not_before < NOW
    assert set(extension(chain, x509.ExtendedKeyUsage)) == {
        ExtendedKeyUsageOID.CLIENT_AUTH,
        ExtendedKeyUsageOID.SERVER_AUTH,
    }
    assert not extension(chain, x509.KeyUsage).key_cert_sign
    assert chain.endswith(secrets[RELAY_ROOT_SECRET]["ca.crt"])
    assert len(x509.load_pem_x509_certificates(chain)) == 3


@pytest.mark.parametrize("key", ["ecdsa", "rsa"])
def test_openssl_agrees_in_its_strict_mode(tmp_path: Path, key):
    """Both directions of a handshake, with keys of either kind for the CA."""
    root_key = new_key() if key == "ecdsa" else rsa_key(2048)
    now = datetime.now(UTC)
    root = make_root(root_key, common_name="root", serial=1, now=now, life=YEAR)
    signing = make_signing_authority(root, new_key(), common_name="signing", serial=2, now=now, life=YEAR)
    server_key, client_key = new_key(), new_key()
    server = make_leaf(root, server_key, common_name="s", dns_names=["relay.example.com"], serial=3, now=now, life=YEAR)
    client = sign_agent(make_csr(client_key, "c1"), "c1", signing, serial=4, now=now)
    ends = []
    for name, chain, private in (("server", server, server_key), ("client", client, client_key)):
        (tmp_path / name).write_bytes(chain + private)
        side = ssl.PROTOCOL_TLS_SERVER if name == "server" else ssl.PROTOCOL_TLS_CLIENT
        context = ssl.SSLContext(side)
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(tmp_path / name)
        context.load_verify_locations(cadata=root.certificate.decode())
        ends.append(context)
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    listening = ends[0].wrap_bio(there, back, server_side=True)
    dialling = ends[1].wrap_bio(back, there, server_hostname="relay.example.com")

    for end in (dialling, listening, dialling, listening):
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue

    assert listening.getpeercert()["subjectAltName"] == (("DNS", "c1"),)
    assert dialling.getpeercert()["subjectAltName"] == (("DNS", "relay.example.com"),)


def rsa_key(bits: int) -> bytes:
    return rsa.generate_private_key(65537, bits).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def test_no_certificate_outlives_its_ca(signing):
    late = certificate_facts(signing.certificate).not_after - timedelta(days=10)

    assert certificate_facts(agent(signing, now=late)).not_after == late + timedelta(days=10)


def test_a_long_name_is_whole_in_the_dns_names(signing):
    """Common names end at 64 characters; names of Kubernetes objects do not."""
    name = "c" * 63 + "." + "d" * 63

    facts = certificate_facts(agent(signing, name))

    assert facts.dns_names == (name,)
    assert facts.common_name == name[:64]


@pytest.mark.parametrize("name", ["", "*", "*.gloo-mesh", "Cluster", "a b", "-a", "a..b", "é", "a" * 254])
def test_a_name_that_no_cluster_has_is_refused(signing, name):
    with pytest.raises(PemInvalid, match="cannot name a cluster"):
        sign_agent(make_csr(new_key(), "c1"), name, signing, serial=1, now=NOW)


def test_a_request_for_another_cluster_is_refused(signing):
    with pytest.raises(PemInvalid, match="is for c2; only c1 can be asked for"):
        sign_agent(make_csr(new_key(), "c2"), "c1", signing, serial=1, now=NOW)


def test_a_request_that_was_tampered_with_is_refused(signing):
    first, second = make_csr(new_key(), "c1"), make_csr(new_key(), "c1")
    genuine = x509.load_pem_x509_csr(first).public_bytes(serialization.Encoding.DER)
    other = x509.load_pem_x509_csr(second).public_bytes(serialization.Encoding.DER)
    forged = ssl.DER_cert_to_PEM_cert(genuine[:-20] + other[-20:]).replace("CERTIFICATE", "CERTIFICATE REQUEST")

    with pytest.raises(PemInvalid):
        sign_agent(forged.encode(), "c1", signing, serial=1, now=NOW)


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n"])
def test_what_is_no_request_is_refused(pem):
    with pytest.raises(PemInvalid, match="not a PEM certificate request"):
        inspect_csr(pem)


def test_a_weak_key_is_not_certified(signing):
    with pytest.raises(PemInvalid, match="RSA of 2048 or more"):
        sign_agent(make_csr(rsa_key(1024), "c1"), "c1", signing, serial=1, now=NOW)


def test_a_request_names_its_key():
    key = new_key()

    asked = inspect_csr(make_csr(key, "c1"))

    assert asked.fingerprint == key_fingerprint(key)
    assert (asked.common_name, asked.dns_names) == ("c1", ("c1",))


@pytest.mark.parametrize(
    ("when", "reason", "text"),
    [
        (NOW - timedelta(days=1), "NotYetValid", "the certificate of c1 is valid from 2026-05-01"),
        (NOW + YEAR, "Expired", "the certificate of c1 expired on 2027-05-01 12:00 UTC"),
    ],
)
def test_a_chain_out_of_its_time_is_a_problem(signing, when, reason, text):
    problem = check_chain(agent(signing), signing.root, when)

    assert problem.reason == reason
    assert text in problem.message


def test_a_chain_of_another_root_is_a_problem(signing):
    """Even of one that has the same name."""
    stranger = make_root(new_key(), common_name="enterprise-networking-ca", serial=1, now=NOW, life=YEAR)

    problem = check_chain(agent(signing), stranger.certificate, NOW)

    assert (problem.path, problem.reason) == ("tls.crt", "UnknownIssuer")
    assert "not among the certificates of ca.crt" in problem.message


def test_a_leaf_cannot_certify(signing):
    key = new_key()
    chain = sign_agent(make_csr(key, "c1"), "c1", signing, serial=7, now=NOW)
    forged = agent(Authority(chain, key, b""), "c2")

    problem = check_chain(forged, signing.root, NOW)

    assert problem.reason == "NotAnAuthority"
    assert "the certificate of c1 signs others" in problem.message


@pytest.mark.parametrize(("chain", "trust", "path"), [(b"x", None, "tls.crt"), (None, b"x", "ca.crt")])
def test_what_is_no_certificate_is_a_problem(signing, chain, trust, path):
    problem = check_chain(chain or agent(signing), trust or signing.root, NOW)

    assert (problem.path, problem.reason) == (path, "InvalidCertificate")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tls.key": None}, "tls.key: missing"),
        ({"tls.crt": b"x"}, "tls.crt: not a PEM certificate"),
        ({"tls.key": b"x"}, "tls.key: not an unencrypted PEM private key"),
        ({"tls.key": new_key()}, "tls.key: is not the key of the certificate in tls.crt"),
    ],
)
def test_a_signing_secret_that_does_not_fit_is_named(secrets, changes, text):
    found = {key: value for key, value in (secrets[RELAY_SIGNING_SECRET] | changes).items() if value is not None}

    with pytest.raises(PemInvalid, match=text):
        authority_of(found)


def test_a_root_that_signs_agents_itself_will_do(secrets):
    """Some installations have no signing CA between."""
    root = secrets[RELAY_ROOT_SECRET]
    authority = authority_of({"tls.crt": root["ca.crt"], "tls.key": root["tls.key"], "ca.crt": root["ca.crt"]})

    chain = agent(authority)

    assert check_chain(chain, root["ca.crt"], NOW) is None
    assert len(x509.load_pem_x509_certificates(chain)) == 2


def test_keys_do_not_show_in_a_representation(signing):
    assert "PRIVATE" not in repr(signing)


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_rotation_is_due_after_two_thirds_of_a_life(seconds, used):
    end = NOW + timedelta(seconds=seconds)
    now = NOW + timedelta(seconds=seconds) * used

    assert rotation_due(NOW, end, now) == (now >= rotation_time(NOW, end))
    assert NOW < rotation_time(NOW, end) < end
