"""Brings up what the walk-through starts from: the clusters, Istio on all but the first, and bookinfo.

Istio and bookinfo come the way users bring them: `istioctl install` and `kubectl apply` with the walk-through's files.
Until Isthmus itself issues the intermediate CAs, both istiods are given one below a shared test root.
"""

from __future__ import annotations

import json
import os
import subprocess
from base64 import b64encode
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from secrets import randbits

from isthmus.embedded.fleet import walkthrough
from isthmus.lab.binaries import Binaries
from isthmus.lab.box import Box
from isthmus.pki import make_root, make_signing_authority, new_key

LIFE = timedelta(days=30)
COMMAND_SECONDS = 420.0  # istioctl itself waits 300 s for istiod and the gateway
# Which of bookinfo runs on the first Istio cluster: the walk-through's two `kubectl apply -l`. Others run all of it.
FIRST = ("app,version notin (v3)", "account")


class CommandFailed(Exception):
    """One of the commands failed; the text holds the command and what it printed."""


class Setup:
    """Runs the commands against the clusters of *box* and tells *report* each."""

    def __init__(self, box: Box, binaries: Binaries, report: Callable[[str], None]) -> None:
        self._box = box
        self._binaries = binaries
        self._report = report

    def clusters(self, names: Sequence[str]) -> None:
        """Istio and bookinfo on all clusters *names*, side by side. Raises `CommandFailed`."""
        roots = _authorities(names)
        with ThreadPoolExecutor(len(names)) as threads:
            for done in [threads.submit(self._cluster, name, name == names[0], roots[name]) for name in names]:
                done.result()

    def _cluster(self, name: str, is_first: bool, authority: dict[str, bytes]) -> None:
        self.kubectl(name, "apply", "-f", "-", stdin=json.dumps(_namespace_and_authority(authority)))
        self._istio(name)
        self.kubectl(name, "label", "namespace", "default", "istio-injection=enabled", "--overwrite")
        for selector in FIRST if is_first else ("",):
            chosen = ("-l", selector) if selector else ()
            self.kubectl(name, "apply", "-f", str(walkthrough("bookinfo.yaml")), *chosen)
        self.kubectl(name, "apply", "-f", str(walkthrough("bookinfo-gateway.yaml")))
        self.kubectl(name, "apply", "-f", str(files("isthmus.lab") / "client.yaml"))
        self.kubectl(name, "wait", "--for=condition=Available", "deployment", "--all", "--timeout=300s")
        self._report(f"{name}: bookinfo is ready")

    def _istio(self, name: str) -> None:
        self._run(
            str(self._binaries.path("istioctl")),
            "install",
            "--context",
            name,
            "-f",
            str(walkthrough(f"istio-operator-{name}.yaml")),
            "-f",
            str(files("isthmus.lab") / "istio.yaml"),
            "--set",
            f"meshConfig.trustDomain={name}",  # current charts no longer read the walk-through's global.trustDomain
            "--manifests",
            str(self._binaries.istio_source / "manifests"),
            "--force",
            "--skip-confirmation",
        )
        self._report(f"{name}: Istio is ready")

    def kubectl(self, context: str, *arguments: str, stdin: str = "") -> str:
        """Run the lab's kubectl. Raises `CommandFailed`."""
        return self._run(str(self._binaries.path("kubectl")), "--context", context, *arguments, stdin=stdin)

    def _run(self, *argv: str, stdin: str = "") -> str:
        own = {"KUBECONFIG": str(self._box.kubeconfig), "KUBECACHEDIR": str(self._box.kubectl_cache)}
        try:
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
                env={**os.environ, **own},
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandFailed(f"{' '.join(argv)}\ndid not end within {COMMAND_SECONDS:g} s") from error
        if done.returncode:
            raise CommandFailed(f"{' '.join(argv)}\n{done.stdout}{done.stderr}".strip())
        return done.stdout


def _authorities(names: Sequence[str]) -> dict[str, dict[str, bytes]]:
    now = datetime.now(UTC)
    root = make_root(new_key(), common_name="isthmus-lab-root", serial=randbits(120), now=now, life=LIFE)
    made = {}
    for name in names:
        own = make_signing_authority(
            root, new_key(), common_name=f"isthmus-lab-{name}", serial=randbits(120), now=now, life=LIFE
        )
        made[name] = {
            "ca-cert.pem": own.certificate,
            "ca-key.pem": own.key,
            "cert-chain.pem": own.certificate + root.certificate,
            "root-cert.pem": root.certificate,
        }
    return made


def _namespace_and_authority(authority: dict[str, bytes]) -> dict[str, object]:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "cacerts", "namespace": "istio-system"},
        "data": {key: b64encode(value).decode() for key, value in authority.items()},
    }
    return {"apiVersion": "v1", "kind": "List", "items": [namespace, secret]}
