"""Running meshctl in tests, and clusters for it to talk to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from typer.testing import CliRunner, Result

from isthmus.api import crds
from isthmus.cli.main import app
from isthmus.embedded import EmbeddedCluster, merged_kubeconfig

T = TypeVar("T")
Manifest = dict[str, Any]

SECONDS = 60.0  # a guard; everything here takes milliseconds
NAMESPACE = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gloo-mesh"}}


def meshctl(*words: str, kubeconfig: Path | None = None, input: str | None = None, **environment: str) -> Result:
    """What `meshctl` *words* prints and how it ends. Exceptions that are no `Failure` are raised."""
    if kubeconfig is not None:
        environment["KUBECONFIG"] = str(kubeconfig)
    result = CliRunner().invoke(
        app, list(words), prog_name="meshctl", env={"COLUMNS": "100", **environment}, input=input
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


class Clusters:
    """Embedded clusters in a thread of their own, so that commands may run event loops of their own."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self._clusters = {name: EmbeddedCluster(name) for name in names}
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="clusters")

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # ends what is still under way
            runner.run(self._over.wait())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of *work*, done where the clusters run."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=SECONDS)

    def cluster(self, name: str) -> EmbeddedCluster:
        """One of them, for what runs beside it; to be used in `do` only."""
        return self._clusters[name]

    def load(self, name: str, *manifests: Manifest) -> None:
        """Put objects on a cluster, their statuses too."""
        self.do(self._clusters[name].load(manifests))

    @contextmanager
    def running(self) -> Iterator[Clusters]:
        """The clusters run inside."""
        self._thread.start()
        try:
            for cluster in self._clusters.values():
                self.do(cluster.start())
            self.kubeconfig.write_text(yaml.safe_dump(merged_kubeconfig(self._clusters.values())))
            yield self
        finally:
            for cluster in self._clusters.values():
                self.do(cluster.stop())
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join(timeout=SECONDS)


def with_our_kinds(clusters: Clusters, name: str) -> None:
    """Install the definitions of our kinds and the management namespace."""
    clusters.load(name, NAMESPACE, *crds.manifests())
