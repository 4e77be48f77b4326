"""An API server under contract, reached by plain HTTP with the TLS of its kubeconfig."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import yaml

Json = dict[str, Any]

KUBECONFIG = "ISTHMUS_CONTRACT_KUBECONFIG"
"""Names the kubeconfig of a real kube-apiserver that shall keep the same contract."""

HISTORY = 200
"""Events that the embedded server keeps of one kind: few, so that a test can outrun them."""

DEADLINE_SECONDS = 60.0
_NUMBERS = itertools.count(1)


class Server:
    """One API server: a client with its administrator's certificate, and names that no other test uses."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.url: str = cluster["server"]
        self._authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self.http = self._client(self.trust(user))
        self._run = secrets.token_hex(3)

    def trust(self, user: Json | None) -> ssl.SSLContext:
        """TLS that knows the server's authority, and presents the client certificate of *user* if there is one."""
        context = ssl.create_default_context(cadata=self._authority)
        if user is not None:
            with tempfile.NamedTemporaryFile() as file:
                for name in ("client-certificate-data", "client-key-data"):
                    file.write(base64.b64decode(user[name]))
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def _client(self, context: ssl.SSLContext) -> httpx2.Client:
        return httpx2.Client(
            base_url=self.url,
            verify=context,
            trust_env=False,
            timeout=30,
            headers={"user-agent": "contract/1", "accept": "application/json"},
        )

    def anonymous(self, **headers: str) -> httpx2.Client:
        """A client without a certificate."""
        client = self._client(self.trust(None))
        client.headers.update(headers)
        return client

    def new_name(self, prefix: str = "c") -> str:
        """A name that nothing else on the server has."""
        return f"{prefix}-{self._run}-{next(_NUMBERS)}"

    def new_namespace(self) -> str:
        """A namespace of this test's own."""
        name = self.new_name()
        answer = self.http.post("/api/v1/namespaces", json={"metadata": {"name": name}})
        assert answer.status_code == 201, answer.text
        return name

    @contextlib.contextmanager
    def watch(self, path: str, **query: str) -> Iterator[Events]:
        """A watch of *path*; ends when the block does."""
        params = {"watch": "true", "timeoutSeconds": "20", **query}
        with self.http.stream("GET", path, params=params) as response:
            yield Events(response)

    def close(self) -> None:
        self.http.close()


class Events:
    """The events of one watch in their order."""

    def __init__(self, response: httpx2.Response) -> None:
        self.code = response.status_code
        self._lines = response.iter_lines()

    def next(self) -> Json:
        """The next event; bookmarks too."""
        event: Json = json.loads(next(self._lines))
        return event

    def next_change(self) -> tuple[str, Json]:
        """Type and object of the next event that isn't a bookmark."""
        while True:
            event = self.next()
            if event["type"] != "BOOKMARK":
                return event["type"], event["object"]

    def rest(self) -> list[Json]:
        """All events until the server ends the watch."""
        return [json.loads(line) for line in self._lines]


@contextlib.contextmanager
def embedded(folder: Path, *arguments: str, name: str = "embedded") -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """An embedded API server as a process of its own, and its kubeconfig."""
    command = [sys.executable, "-m", "isthmus.embedded", "--name", name, "--credentials", str(folder), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            yield process, Path(ready["kubeconfig"])
        finally:
            process.terminate()
            process.wait(timeout=DEADLINE_SECONDS)


def real_kubeconfig() -> str:
    """Path of the real server's kubeconfig; empty when there is none to test."""
    return os.environ.get(KUBECONFIG, "")


def until(what: str, check: Any) -> Any:
    """Call *check* until it returns something true; fails with *what* at the deadline."""
    end = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < end:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not in {DEADLINE_SECONDS} s: {what}")
