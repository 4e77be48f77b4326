"""From one root to another without a moment in which half of a mesh distrusts the other half.

Whoever trusts only the old root has to accept what the new one signed: a *bridge* is the new root's name and key in a
certificate signed by the old root. Presented below an intermediate of the new root, it leads to either root. Source:
RFC 4158, section 2.4, cross-certificates; verifiers look among what they trust first, so the bridge misleads nobody.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from cryptography import x509

from isthmus.pki.certificates import Authority, authority_builder, key_id_of, load_certificates, sign, to_pem
from isthmus.pki.keys import PemInvalid, load_key

BRIDGE_SKEW = timedelta(minutes=15)
BELOW = 2  # authorities that follow the old root: the bridge and the intermediate


def make_bridge(old: Authority, new: bytes, *, serial: int, now: datetime, life: timedelta) -> bytes:
    """The first certificate of *new*, a root, signed by *old*; it outlives neither. Raises `PemInvalid`."""
    above, root = load_certificates(old.certificate)[0], load_certificates(new)[0]
    _fit(above, old.key, now)
    begin = max(now - BRIDGE_SKEW, above.not_valid_before_utc)
    end = min(now + life, above.not_valid_after_utc, root.not_valid_after_utc)
    public = root.public_key()
    builder = authority_builder(
        root.subject,
        above.subject,
        public,  # type: ignore[arg-type]
        serial,
        begin,
        end,
        path_length=BELOW - 1,
    )
    return sign(builder.add_extension(key_id_of(above), critical=False), old)


def with_roots(first: bytes, *others: bytes) -> bytes:
    """The certificates of all, each once, in this order."""
    found = dict.fromkeys(certificate for pem in (first, *others) for certificate in load_certificates(pem))
    return b"".join(map(to_pem, found))


def _fit(above: x509.Certificate, key: bytes, now: datetime) -> None:
    if load_key(key, known=True).public_key() != above.public_key():
        raise PemInvalid("the key of the old root is another one's")
    try:
        constraints = above.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise PemInvalid("the old root is no certificate authority") from error
    if not constraints.ca:
        raise PemInvalid("the old root is no certificate authority")
    if constraints.path_length is not None and constraints.path_length < BELOW:
        raise PemInvalid(f"the path length {constraints.path_length} of the old root leaves no room for a bridge")
    if not above.not_valid_before_utc <= now < above.not_valid_after_utc:
        raise PemInvalid(f"the old root is valid until {above.not_valid_after_utc:%Y-%m-%d %H:%M} UTC")
