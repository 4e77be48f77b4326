"""Trust in the mesh, read from the proxies themselves."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from isthmus.pki import check_chain
from isthmus.pki.certificates import load_certificates
from tests.lab.running import Json, Lab

PROXIES = {"client": "spiffe://{}/ns/default/sa/client", "reviews": "spiffe://{}/ns/default/sa/bookinfo-reviews"}


@pytest.mark.parametrize("app", PROXIES)
def test_every_proxy_has_a_certificate_of_its_cluster_s_own_authority(lab: Lab, app: str) -> None:
    """The authorities of both clusters differ, lead to one root, and name their own cluster's trust domain."""
    roots, issuers = set(), set()
    for cluster in ("cluster1", "cluster2"):
        chain, root = certificates(lab, cluster, app)
        leaf, issuer = load_certificates(chain)[:2]

        assert check_chain(chain, root, datetime.now(UTC)) is None
        assert PROXIES[app].format(cluster) in str(leaf.extensions)
        assert leaf.issuer == issuer.subject
        issuers.add(issuer)
        roots.update(load_certificates(root))

    assert len(roots) == 1
    assert len(issuers) == 2


def certificates(lab: Lab, cluster: str, app: str) -> tuple[bytes, bytes]:
    """The chain and the root that the sidecar of the first pod of *app* holds now, as PEM."""
    pod = sorted(lab.pods(cluster, f"app={app}"))[0]
    dump: Json = json.loads(lab.run("istioctl", "--context", cluster, "proxy-config", "secret", pod, "-o", "json"))
    secrets: dict[str, Any] = {entry["name"]: entry["secret"] for entry in dump["dynamicActiveSecrets"]}
    chain = secrets["default"]["tlsCertificate"]["certificateChain"]["inlineBytes"]
    root = secrets["ROOTCA"]["validationContext"]["trustedCa"]["inlineBytes"]
    return base64.b64decode(chain), base64.b64decode(root)
