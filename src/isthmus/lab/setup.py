"""Brings up what the walk-through starts from: the clusters, Istio on all but the first, and bookinfo.

Istio and bookinfo come the way users bring them: `istioctl install` and `kubectl apply` with the walk-through's files.
Each istiod makes itself a root of its own, as everywhere: only a VirtualMesh gives them one in common.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

from isthmus.embedded.fleet import walkthrough
from isthmus.lab.binaries import Binaries
from isthmus.lab.box import Box

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
        with ThreadPoolExecutor(len(names)) as threads:
            for done in [threads.submit(self._cluster, name, name == names[0]) for name in names]:
                done.result()

    def _cluster(self, name: str, is_first: bool) -> None:
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
