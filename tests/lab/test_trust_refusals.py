"""Who does not belong to the mesh is refused by the callee's sidecar, even where the gateway lets every TLS pass."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isthmus.pki import make_root, make_signing_authority, new_key
from tests.lab.running import Lab

# Speaks TLS to the gateway as a sidecar does, and prints what comes of a request.
SPEAK = """
import socket, ssl, sys
address, name, certificate = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.set_alpn_protocols(["istio"])
if certificate:
    context.load_cert_chain(certificate)
with socket.create_connection((address, 15443), timeout=10) as plain:
    try:
        with context.wrap_socket(plain, server_hostname=name) as tls:
            peer = ssl.DER_cert_to_PEM_cert(tls.getpeercert(True))
            tls.sendall(b"GET /reviews/0 HTTP/1.1\\r\\nHost: reviews\\r\\nConnection: close\\r\\n\\r\\n")
            print("answered", tls.recv(100))
    except ssl.SSLError as error:
        print("refused", error.reason)
    except OSError as error:
        print("closed", type(error).__name__)
"""


def speak(lab: Lab, name: str, certificate: str) -> str:
    """What becomes of a request to *name* through cluster2's gateway, sent from cluster1's nodes, outside the mesh."""
    [service] = lab.objects("cluster2", "service", "istio-ingressgateway", "-n", "istio-system")
    gateway = service["status"]["loadBalancer"]["ingress"][0]["ip"]
    return lab.run(
        "meshctl", "lab", "exec", "cluster1", "--", sys.executable, "-c", SPEAK, gateway, name, certificate, timeout=30
    ).strip()


REVIEWS = "outbound_.9080_._.reviews.default.svc.cluster2.global"


def test_who_shows_no_certificate_is_refused(federated: Lab) -> None:
    """The gateway found the callee, the callee asked for a certificate: that is the alert's name."""
    assert speak(federated, REVIEWS, "") == "refused TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_certificate_of_another_root_is_refused(federated: Lab, tmp_path: Path) -> None:
    """However like one of ours it looks."""
    now = datetime.now(UTC)
    root = make_root(new_key(), common_name="isthmus-lab-root", serial=1, now=now, life=timedelta(days=1))
    foreign = make_signing_authority(
        root, new_key(), common_name="isthmus-lab-cluster1", serial=2, now=now, life=timedelta(days=1)
    )
    pem = tmp_path / "foreign.pem"
    pem.write_bytes(foreign.certificate + root.certificate + foreign.key)

    assert speak(federated, REVIEWS, str(pem)) == "refused TLSV1_ALERT_UNKNOWN_CA"


@pytest.mark.parametrize(
    "name", ["reviews.default.svc.cluster2.global", "outbound_.9080_._.nobody.default.svc.cluster2.global"]
)
def test_the_gateway_passes_only_names_of_the_mesh(federated: Lab, name: str) -> None:
    """To any other server name it closes the connection."""
    assert speak(federated, name, "").split()[0] in ("closed", "refused")
    assert "CERTIFICATE_REQUIRED" not in speak(federated, name, "")
