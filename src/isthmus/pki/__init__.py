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

__all__ = [
    "RELAY_ROOT_SECRET",
    "RELAY_SERVER_SECRET",
    "RELAY_SIGNING_SECRET",
    "Authority",
    "CertificateFacts",
    "Csr",
    "PemInvalid",
    "authority_of",
    "certificate_facts",
    "check_chain",
    "inspect_csr",
    "key_fingerprint",
    "make_csr",
    "make_leaf",
    "make_relay_secrets",
    "make_root",
    "make_signing_authority",
    "new_key",
    "rotation_due",
    "rotation_time",
    "sign_agent",
    "sign_csr",
]
