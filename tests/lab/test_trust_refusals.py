"""Who does not belong to the mesh is refused by the callee's sidecar, even where the gateway lets every TLS pass."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isthmus.pki import make_root, make_signing_authority, new_key
from tests.lab.running import Lab
from tests.lab.trusting import REVIEWS as NAMES
from tests.lab.trusting import speak, verdict

REVIEWS = NAMES.format("cluster2")


def test_who_shows_no_certificate_is_refused(federated: Lab) -> None:
    """The gateway found the callee, the callee asked for a certificate: that is the alert's name."""
    assert verdict(federated, REVIEWS, "") == "refused TLSV13_ALERT_CERTIFICATE_REQUIRED"


def test_a_certificate_of_another_root_is_refused(federated: Lab, tmp_path: Path) -> None:
    """However like one of ours it looks."""
    now = datetime.now(UTC)
    root = make_root(new_key(), common_name="isthmus-lab-root", serial=1, now=now, life=timedelta(days=1))
    foreign = make_signing_authority(
        root, new_key(), common_name="isthmus-lab-cluster1", serial=2, now=now, life=timedelta(days=1)
    )
    pem = tmp_path / "foreign.pem"
    pem.write_bytes(foreign.certificate + root.certificate + foreign.key)

    assert verdict(federated, REVIEWS, str(pem)) == "refused TLSV1_ALERT_UNKNOWN_CA"


@pytest.mark.parametrize(
    "name", ["reviews.default.svc.cluster2.global", "outbound_.9080_._.nobody.default.svc.cluster2.global"]
)
def test_the_gateway_passes_only_names_of_the_mesh(federated: Lab, name: str) -> None:
    """To any other server name it closes the connection."""
    assert speak(federated, name, "").split()[0] in ("closed", "refused")
    assert "CERTIFICATE_REQUIRED" not in speak(federated, name, "")
