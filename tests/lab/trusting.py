"""What tests of trust ask the lab: who trusts which root, what proxies present, how far certificates are."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from isthmus.agent.certificates import CA_KEY, GENERATION, fingerprint
from tests.lab.running import WALKTHROUGH, Calling, Json, Lab, eventually
from tests.lab.test_walkthrough import CLUSTERS, OTHER

RATE = 10
"""Requests per second of each load."""
ISSUE_SECONDS = 420.0
"""Within which a mesh has its certificate and all its pods run with it, be the machine ever so busy."""
MESH = ("virtualmesh", "virtual-mesh", "-n", "gloo-mesh")
REVIEWS = "outbound_.9080_._.reviews.default.svc.{}.global"

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
            tls.sendall(b"GET /reviews/0 HTTP/1.1\\r\\nHost: reviews\\r\\nConnection: close\\r\\n\\r\\n")
            said = tls.recv(100)
            print(*(("answered", said) if said else ("closed", "without a word")))
    except ssl.SSLError as error:
        print("refused", error.reason)
    except OSError as error:
        print("closed", type(error).__name__)
"""


# --- requests --------------------------------------------------------------------------------------------------------


def across(cluster: str) -> str:
    """A service of the other cluster than *cluster*."""
    return f"http://details.default.svc.{OTHER[cluster]}.global:9080/details/0"


def gateway(lab: Lab, cluster: str) -> str:
    """The address of a cluster's ingress gateway."""
    [service] = lab.objects(cluster, "service", "istio-ingressgateway", "-n", "istio-system")
    return str(service["status"]["loadBalancer"]["ingress"][0]["ip"])


@contextmanager
def from_outside(lab: Lab, cluster: str, path: str) -> Iterator[Calling]:
    """Requests to a cluster's ingress gateway from its nodes' network, that go on beside the test.

    Whoever sends them is no pod, so that no restart ends them.
    """
    call = [sys.executable, "-m", "isthmus.lab.client", "call", f"http://{gateway(lab, cluster)}{path}"]
    argv = ["meshctl", "lab", "exec", cluster, "--", *call, "--rate", str(RATE), "--for", "590", "--timeout", "10"]
    # In a group of its own: who enters the lab waits for a child there, and passes no signal on.
    with subprocess.Popen(
        argv, stdout=subprocess.PIPE, text=True, env=lab.environment, start_new_session=True
    ) as process:
        assert process.stdout is not None
        calling = Calling(process.stdout)
        try:
            yield calling
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            calling.join()


def is_whole(answer: Json) -> bool:
    """Whether it was answered, and so was every call between services on the way, at once."""
    return answer["status"] == 200 and all(call.get("status") == 200 for call in calls_of(answer.get("body")))


def calls_of(body: Any) -> Iterator[Json]:
    """The calls that services made for this answer, and those made for them."""
    for call in (body.get("served") or {}).get("calls", ()) if isinstance(body, dict) else ():
        yield call
        yield from calls_of({"served": call.get("served")})


def brief(answer: Json) -> str:
    """When the request failed, how, and at whose hands."""
    at = datetime.fromtimestamp(answer["at"], UTC).strftime("%H:%M:%S.%f")
    chain = [(call["url"], call.get("status", call.get("error")), call["ms"]) for call in calls_of(answer.get("body"))]
    outcome = f"{answer['status']} {answer.get('error')} in {answer['ms']:.0f} ms by {answer.get('pod')}"
    return f"{at} {outcome}: {chain or answer.get('body')}"


def failures(answers: Iterable[Json]) -> list[str]:
    return [brief(answer) for answer in answers if not is_whole(answer)]


def speak(lab: Lab, name: str, certificate: str) -> str:
    """What becomes of a request to *name* through cluster2's gateway, sent from cluster1's nodes, outside the mesh."""
    here = ("meshctl", "lab", "exec", "cluster1", "--", sys.executable, "-c", SPEAK)
    return lab.run(*here, gateway(lab, "cluster2"), name, certificate, timeout=60).strip()


def verdict(lab: Lab, name: str, certificate: str) -> str:
    """As `speak`, until there is an answer or a refusal.

    Through a gateway a connection may end before its last words, the alert, have come.
    """

    def heard() -> str | None:
        said = speak(lab, name, certificate)
        return None if said.startswith("closed") else said

    return eventually(f"the proxy of {name} says something", heard, within=60)


def handshake(lab: Lab, cluster: str, address: str, *options: str) -> bytes:
    """The certificates that are presented at *address* to who asks from the cluster's nodes, as PEM."""
    argv = ["openssl", "s_client", "-connect", address, "-alpn", "istio", "-showcerts", *options]
    said = lab.attempt("meshctl", "lab", "exec", cluster, "--", *argv).stdout
    found = re.findall(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", said, flags=re.DOTALL)
    assert found, said
    return "".join(found).encode()


# --- what proxies say ------------------------------------------------------------------------------------------------


def held(lab: Lab, cluster: str, pod: str) -> tuple[bytes, bytes]:
    """The chain and the roots that the proxy of a pod, ``name`` or ``name.namespace``, holds now, as PEM."""
    dump: Json = json.loads(lab.run("istioctl", "--context", cluster, "proxy-config", "secret", pod, "-o", "json"))
    secrets: dict[str, Any] = {entry["name"]: entry["secret"] for entry in dump["dynamicActiveSecrets"]}
    chain = secrets["default"]["tlsCertificate"]["certificateChain"]["inlineBytes"]
    root = secrets["ROOTCA"]["validationContext"]["trustedCa"]["inlineBytes"]
    return base64.b64decode(chain), base64.b64decode(root)


def proxies(lab: Lab, cluster: str) -> list[str]:
    """Every pod of a cluster with a proxy, as ``name.namespace``."""
    return sorted(
        f"{pod['metadata']['name']}.{pod['metadata']['namespace']}"
        for pod in lab.objects(cluster, "pods", "-A")
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            each["name"] == "istio-proxy"
            for each in (*pod["spec"].get("initContainers", ()), *pod["spec"]["containers"])
        )
    )


def held_by_all(lab: Lab, cluster: str) -> dict[str, tuple[bytes, bytes]]:
    """What every proxy of a cluster holds."""
    pods = proxies(lab, cluster)
    with ThreadPoolExecutor(2) as threads:
        return dict(zip(pods, threads.map(partial(held, lab, cluster), pods), strict=True))


def proxy_log(lab: Lab, cluster: str, began: datetime) -> Iterator[tuple[datetime, str]]:
    """What every proxy of the cluster, also of pods that have ended, told since of requests, with the time of each."""
    for path in sorted((lab.directory / cluster / "pods").glob("*/istio-proxy/*.log")):
        for line in path.read_text(errors="replace").splitlines():
            found = re.search(r" \[(\d{4}-\d\d-\d\dT[0-9:.]+Z)\] ", line)
            if found and (at := datetime.fromisoformat(found[1])) >= began:
                yield at, line


def tls_failures(lab: Lab, began: datetime, *, across: bool) -> list[str]:
    """What proxies say of handshakes that failed since; those *across* clusters have names that end in ``.global``."""
    return [
        line
        for cluster in CLUSTERS
        for _, line in proxy_log(lab, cluster, began)
        if "TLS_error" in line and (across or ".global" not in line)
    ]


def lapses(lab: Lab, began: datetime) -> list[float]:
    """When proxies had no endpoints, or had lost a cluster of their own, as the end of an istiod may leave them.

    Source: docs/guide/trust.md, "Restarting by itself"; https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage,
    response flags.
    """
    return [
        at.timestamp()
        for cluster in CLUSTERS
        for at, line in proxy_log(lab, cluster, began)
        if re.search(r'" 503 (UH|NC) ', line)
    ]


def unexplained(answers: Iterable[Json], lapses: Sequence[float]) -> list[str]:
    """The failed ones during which no proxy was without what the end of an istiod takes from it."""
    failed = [answer for answer in answers if not is_whole(answer)]
    return [
        brief(answer)
        for answer in failed
        if not any(answer["at"] - 1 <= at <= answer["at"] + answer["ms"] / 1000 + 1 for at in lapses)
    ]


def crossings(answer: Json) -> list[int | str]:
    """The outcomes of a request and of the calls that it made across clusters."""
    served = (answer.get("body") or {}).get("served") if isinstance(answer.get("body"), dict) else None
    return [answer["status"], *(call.get("status", call.get("error")) for call in (served or {}).get("calls", ()))]


# --- what the clusters hold ------------------------------------------------------------------------------------------


def data_of(lab: Lab, cluster: str, name: str, namespace: str) -> dict[str, bytes]:
    """What a Secret holds."""
    [secret] = lab.objects(cluster, "secret", name, "-n", namespace)
    return {key: base64.b64decode(value) for key, value in secret["data"].items()}


def write_secret(lab: Lab, cluster: str, name: str, namespace: str, data: Mapping[str, bytes]) -> None:
    lab.apply(
        cluster,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": namespace},
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        },
    )


def roots_given(lab: Lab, cluster: str) -> dict[str, str]:
    """The roots that a cluster gives its pods to trust, by namespace."""
    return {
        item["metadata"]["namespace"]: item["data"]["root-cert.pem"].strip()
        for item in lab.objects(cluster, "configmaps", "-A", "--field-selector", "metadata.name=istio-ca-root-cert")
    }


def certificate_of(lab: Lab, cluster: str) -> Json | None:
    """The IssuedCertificate of the cluster's mesh."""
    found = lab.objects(cluster, "issuedcertificates", "-n", "gloo-mesh")
    return found[0] if found else None


def status_of(lab: Lab, cluster: str) -> Json:
    """The status of the IssuedCertificate if it is that of what is wanted now; else nothing."""
    certificate = certificate_of(lab, cluster)
    if certificate is None:
        return {}
    status: Json = certificate.get("status") or {}
    is_present = (
        status.get("observedGeneration") == certificate["metadata"]["generation"]
        and status.get("observedTrust") == certificate["spec"]["trust"]
    )
    return status if is_present else {}


def is_in(lab: Lab, cluster: str, state: str) -> bool:
    return bool(status_of(lab, cluster).get("state") == state)


def waiting_for(lab: Lab, cluster: str) -> tuple[str, ...]:
    """What the restarts for the `cacerts` that is wanted now wait for; nothing while there is none."""
    certificate = certificate_of(lab, cluster)
    directives = lab.objects(cluster, "podbouncedirectives", "-n", "gloo-mesh")
    if certificate is None or not directives:
        return ()
    [secret] = lab.objects(cluster, "secret", "cacerts", "-n", "istio-system")
    public = {key: base64.b64decode(value) for key, value in secret["data"].items() if key != CA_KEY}
    status = directives[0].get("status") or {}
    is_present = secret["metadata"]["annotations"][GENERATION] == str(
        certificate["metadata"]["generation"]
    ) and status.get("observedCertificate") == fingerprint(public)
    return tuple(status.get("waiting", ())) if is_present else ()


def restarted_for(lab: Lab, cluster: str) -> str:
    """The `cacerts` that pods were restarted for last."""
    [directive] = lab.objects(cluster, "podbouncedirectives", "-n", "gloo-mesh")
    return str((directive.get("status") or {}).get("observedCertificate", ""))


def generations(lab: Lab) -> dict[str, int]:
    """How often each Deployment with pods of a mesh was changed."""
    return {
        f"{cluster} {namespace}/{item['metadata']['name']}": item["metadata"]["generation"]
        for cluster in CLUSTERS
        for namespace in ("default", "istio-system")
        for item in lab.objects(cluster, "deployments", "-n", namespace)
    }


def is_gone(lab: Lab, cluster: str, *arguments: str) -> bool:
    return not lab.has(cluster, *arguments)


# --- what is changed -------------------------------------------------------------------------------------------------


def apply_virtual_mesh(lab: Lab, *, trust: bool) -> None:
    """The walk-through's file, or what it says of everything but trust."""
    text = (WALKTHROUGH / "virtual-mesh.yaml").read_text()
    if not trust:
        text = re.sub(r"^  mtlsConfig:\n(?:    .*\n)+", "", text, flags=re.MULTILINE)
        assert "mtls" not in text
    lab.kubectl("mgmt", "apply", "-f", "-", stdin=text)


def change_trust(lab: Lab, change: Json) -> None:
    """Merge *change* into the `mtlsConfig` of the virtual mesh."""
    patch = json.dumps({"spec": {"mtlsConfig": change}})
    lab.kubectl("mgmt", "patch", *MESH, "--type=merge", "-p", patch)


def conditions(lab: Lab) -> list[Json]:
    """The log of rotations that the virtual mesh's status holds."""
    [mesh] = lab.objects("mgmt", *MESH)
    found: list[Json] = (mesh.get("status") or {}).get("conditions", [])
    return found


def restart_mesh(lab: Lab, cluster: str, root: str) -> None:
    """By hand, as the guide says: istiod, then gateways, then workloads, for *root*."""
    lab.kubectl(cluster, "rollout", "restart", "deployment/istiod", "-n", "istio-system")
    lab.kubectl(cluster, "rollout", "status", "deployment/istiod", "-n", "istio-system", "--timeout=300s")
    eventually(f"{cluster} gives istiod's root", lambda: set(roots_given(lab, cluster).values()) == {root}, within=300)
    for namespace, chosen in (("istio-system", ["deployment/istio-ingressgateway"]), ("default", ["deployment"])):
        lab.kubectl(cluster, "rollout", "restart", *chosen, "-n", namespace)
        for deployment in lab.objects(cluster, "deployments", "-n", namespace):
            name = f"deployment/{deployment['metadata']['name']}"
            lab.kubectl(cluster, "rollout", "status", name, "-n", namespace, "--timeout=300s")


def on_both(act: Callable[[str], object]) -> None:
    """Do the same on both clusters, side by side."""
    with ThreadPoolExecutor(len(CLUSTERS)) as threads:
        for done in [threads.submit(act, cluster) for cluster in CLUSTERS]:
            done.result()


def write_pem(folder: Path, *parts: bytes) -> str:
    """A file with *parts*, for programs that take certificates from files."""
    path = folder / "certificate.pem"
    path.write_bytes(b"".join(parts))
    return str(path)
