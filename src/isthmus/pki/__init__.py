"""Keys, certificate requests, signing and the decisions about them. Pure: time and serial numbers are passed in.

Everything goes in and out as PEM, the form that Secrets hold. Only making a key or a signature draws random numbers.
"""

from isthmus.pki.certificates import (
    Authority,
    CertificateFacts,
    certificate_facts,
    check_chain,
    make_leaf,
    make_root,
    make_signing_authority,
    sign_csr,
)
from isthmus.pki.keys import Csr, PemInvalid, inspect_csr, key_fingerprint, make_csr, new_key
from isthmus.pki.relay import (
    RELAY_ROOT_SECRET,
    RELAY_SERVER_SECRET,
    RELAY_SIGNING_SECRET,
    authority_of,
    make_relay_secrets,
    sign_agent,
)
from isthmus.pki.rotation import rotation_due, rotation_time
from isthmus.pki.trust import (
    CA_CERT,
    CA_KEY,
    CERT_CHAIN,
    MAX_RSA_BITS,
    MIN_RSA_BITS,
    ROOT_CERT,
    IntermediateCsr,
    SigningRoot,
    certificate_fingerprint,
    certificate_is_for,
    inspect_intermediate_csr,
    make_intermediate_csr,
    make_trust_root,
    new_rsa_key,
    read_signing_root,
    sign_intermediate,
)

__all__ = [
    "CA_CERT",
    "CA_KEY",
    "CERT_CHAIN",
    "MAX_RSA_BITS",
    "MIN_RSA_BITS",
    "RELAY_ROOT_SECRET",
    "RELAY_SERVER_SECRET",
    "RELAY_SIGNING_SECRET",
    "ROOT_CERT",
    "Authority",
    "CertificateFacts",
    "Csr",
    "IntermediateCsr",
    "PemInvalid",
    "SigningRoot",
    "authority_of",
    "certificate_facts",
    "certificate_fingerprint",
    "certificate_is_for",
    "check_chain",
    "inspect_csr",
    "inspect_intermediate_csr",
    "key_fingerprint",
    "make_csr",
    "make_intermediate_csr",
    "make_leaf",
    "make_relay_secrets",
    "make_root",
    "make_signing_authority",
    "make_trust_root",
    "new_key",
    "new_rsa_key",
    "read_signing_root",
    "rotation_due",
    "rotation_time",
    "sign_agent",
    "sign_csr",
    "sign_intermediate",
]
