"""The relay's own small PKI: root, server certificate, signing CA, and the agents' certificates.

It is apart from the roots of meshes. Names of Secrets and keys are those that installations have today.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from isthmus.pki.certificates import (
    Authority,
    load_certificates,
    make_leaf,
    make_root,
    make_signing_authority,
    sign_csr,
)
from isthmus.pki.keys import PemInvalid, inspect_csr, load_key, new_key

RELAY_ROOT_SECRET = "relay-root-tls-secret"
RELAY_SERVER_SECRET = "relay-server-tls-secret"
RELAY_SIGNING_SECRET = "relay-tls-signing-secret"

# RFC 1123, as Kubernetes has it: a KubernetesCluster is an object of that name.
CLUSTER_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

ROOT_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=3650)  # as long as its root: nothing but a new installation renews a self-signed server
AGENT_LIFE = timedelta(days=365)


def make_relay_secrets(
    *,
    now: datetime,
    serials: Iterator[int],
    namespace: str = "gloo-mesh",
    additional_sans: Sequence[str] = (),
    root_common_name: str = "enterprise-networking-ca",
    server_common_name: str = "enterprise-networking",
) -> dict[str, dict[str, bytes]]:
    """The data of the three Secrets of a self-signed relay, by Secret name.

    *serials* yields the three serial numbers. The server's DNS names are `*.<namespace>` and *additional_sans*.
    """
    root = make_root(new_key(), common_name=root_common_name, serial=next(serials), now=now, life=ROOT_LIFE)
    server_key = new_key()
    server = make_leaf(
        root,
        server_key,
        common_name=server_common_name,
        dns_names=(f"*.{namespace}", *additional_sans),
        serial=next(serials),
        now=now,
        life=SERVER_LIFE,
    )
    signing = make_signing_authority(
        root, new_key(), common_name=f"{server_common_name}-signing-ca", serial=next(serials), now=now, life=ROOT_LIFE
    )
    return {
        RELAY_ROOT_SECRET: {"ca.crt": root.certificate, "tls.key": root.key},
        RELAY_SERVER_SECRET: {"tls.crt": server, "tls.key": server_key, "ca.crt": root.certificate},
        RELAY_SIGNING_SECRET: {"tls.crt": signing.certificate, "tls.key": signing.key, "ca.crt": root.certificate},
    }


def authority_of(secret: Mapping[str, bytes]) -> Authority:
    """The signing CA in the data of relay-tls-signing-secret. Raises `PemInvalid`, naming the key that is wrong."""
    for name in ("tls.crt", "tls.key", "ca.crt"):
        if name not in secret:
            raise PemInvalid(f"{name}: missing")
        try:
            load_key(secret[name]) if name == "tls.key" else load_certificates(secret[name])
        except PemInvalid as error:
            raise PemInvalid(f"{name}: {error}") from error
    certificate = load_certificates(secret["tls.crt"])[0]
    if load_key(secret["tls.key"]).public_key() != certificate.public_key():
        raise PemInvalid("tls.key: is not the key of the certificate in tls.crt")
    is_root = certificate in load_certificates(secret["ca.crt"])
    return Authority(secret["tls.crt"], secret["tls.key"], b"" if is_root else secret["ca.crt"])


def sign_agent(
    csr: bytes, cluster: str, authority: Authority, *, serial: int, now: datetime, life: timedelta = AGENT_LIFE
) -> bytes:
    """The certificate chain (leaf, signing CA, root) of *cluster*'s agent.

    The request must ask for that cluster and nothing else, and the cluster be named as Kubernetes names objects; raises
    `PemInvalid` if not.
    """
    if len(cluster) > 253 or not CLUSTER_NAME.fullmatch(cluster):
        raise PemInvalid(f"{cluster!r} cannot name a cluster: lower-case letters, digits, '-' and '.' can")
    asked = inspect_csr(csr)
    if asked.dns_names != (cluster,):
        names = ", ".join(asked.dns_names) or "nothing"
        raise PemInvalid(f"the certificate request is for {names}; only {cluster} can be asked for")
    return sign_csr(authority, csr, dns_names=(cluster,), serial=serial, now=now, life=life) + authority.chain
