"""Credentials from a real child process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isthmus.kube import KubeClient, KubeconfigError, Unauthorized

from .certificates import Authority
from .conftest import Kubeconfig
from .peer import Answer, Peer, Request, answer, status

VERSION = answer(200, {"gitVersion": "v1.30.2"})
API = "client.authentication.k8s.io/v1"
# Prints the file next to it, notes each run and what it was told.
PLUGIN = f"""#!{sys.executable}
import os, pathlib, sys
here = pathlib.Path(__file__).parent
with (here / "runs").open("a") as runs:
    runs.write(os.environ["KUBERNETES_EXEC_INFO"] + "\\n")
sys.stdout.write((here / "says").read_text())
sys.stderr.write(os.environ.get("COMPLAINT", ""))
sys.exit(int(sys.argv[1]))
"""


class Plugin:
    """A plug-in on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / "plugin"
        path.write_text(PLUGIN)
        path.chmod(0o755)

    def says(self, **credential: Any) -> None:
        """What it prints from now on."""
        (self.folder / "says").write_text(
            json.dumps({"apiVersion": API, "kind": "ExecCredential", "status": credential})
        )

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What each run so far was told."""
        path = self.folder / "runs"
        return [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []

    def user(self, code: int = 0, **more: Any) -> dict[str, Any]:
        """The kubeconfig's user; the command is relative to the kubeconfig."""
        return {"exec": {"apiVersion": API, "command": "./plugin", "args": [str(code)], **more}}


@pytest.fixture
def plugin(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


def only(bearer: str) -> list[Answer | Callable[[Request], Answer]]:
    def reply(request: Request) -> Answer:
        known = request.headers.get("authorization") == f"Bearer {bearer}"
        return VERSION if known else answer(401, status(401, "Unauthorized"))

    return [reply]


@pytest.mark.parametrize("version", ["v1", "v1beta1", "v1alpha1"])
async def test_token(peer: Peer, kubeconfig: Kubeconfig, plugin: Plugin, version: str) -> None:
    """The plug-in runs once for many requests, at the same time too."""
    plugin.says(token="one")
    peer.script = only("one")
    user = plugin.user(apiVersion=f"client.authentication.k8s.io/{version}", provideClusterInfo=True)

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url, "tls-server-name": "x"}, user)) as client:
        await asyncio.gather(*(client.version() for _ in range(5)))

    [told] = plugin.runs
    assert told["kind"] == "ExecCredential"
    assert told["apiVersion"] == f"client.authentication.k8s.io/{version}"
    assert told["spec"]["cluster"] == {"server": peer.url, "tls-server-name": "x"}


async def test_refused_token_is_renewed(peer: Peer, kubeconfig: Kubeconfig, plugin: Plugin) -> None:
    """On 401 the plug-in runs again, once however many requests were refused; then the refusal counts."""
    plugin.says(token="one")
    peer.script = only("one")

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}, plugin.user())) as client:
        await client.version()
        plugin.says(token="two")
        peer.script = only("two")
        await asyncio.gather(*(client.version() for _ in range(5)))
        assert len(plugin.runs) == 2

        peer.script = only("three")
        with pytest.raises(Unauthorized):
            await client.version()
        assert len(plugin.runs) == 3


async def test_expiry(peer: Peer, kubeconfig: Kubeconfig, plugin: Plugin) -> None:
    """A token at its end is not sent; one with time left is kept."""
    plugin.says(token="one", expirationTimestamp="2020-01-01T00:00:00Z")
    peer.script = [VERSION]

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}, plugin.user())) as client:
        await client.version()
        plugin.says(token="two", expirationTimestamp="2999-01-01T00:00:00Z")
        await client.version()
        await client.version()

    assert [request.headers["authorization"] for request in peer.requests] == ["Bearer one", "Bearer two", "Bearer two"]
    assert len(plugin.runs) == 2


async def test_certificate_is_rotated(authority: Authority, kubeconfig: Kubeconfig, plugin: Plugin) -> None:
    """A plug-in may give a certificate; a new one is presented on new connections."""

    def credential(name: str, expires: str) -> dict[str, str]:
        identity = authority.issue(name)
        return {
            "clientCertificateData": identity.certificate.read_text(),
            "clientKeyData": identity.key.read_text(),
            "expirationTimestamp": expires,
        }

    def reply(request: Request) -> Answer:
        return VERSION if request.client == "bob" else answer(401, status(401, "Unauthorized"))

    plugin.says(**credential("bob", "2999-01-01T00:00:00Z"))
    async with Peer().serving(authority.serving("127.0.0.1", clients=True)) as peer:
        peer.script = [reply]
        cluster = {"server": peer.url, "certificate-authority": str(authority.certificate)}
        async with KubeClient.from_kubeconfig(kubeconfig(cluster, plugin.user())) as client:
            await client.version()
            plugin.says(**credential("carol", "2999-01-01T00:00:00Z"))
            peer.script = [
                lambda request: reply(Request(**{**vars(request), "client": {"carol": "bob"}.get(request.client, "")}))
            ]
            await client.version()
            await client.version()

    assert [request.client for request in peer.requests] == ["bob", "bob", "carol", "carol"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apiVersion": "client.authentication.k8s.io/v9"}, "apiVersion 'client.authentication.k8s.io/v9' is none of"),
        ({"command": ""}, "no command"),
    ],
)
def test_wrong_entry(kubeconfig: Kubeconfig, plugin: Plugin, change: dict[str, Any], message: str) -> None:
    """An entry that can't work is told when the kubeconfig is read."""
    with pytest.raises(KubeconfigError, match=message):
        KubeClient.from_kubeconfig(kubeconfig({"server": "https://x"}, plugin.user(**change)))


@pytest.mark.parametrize(
    ("code", "change", "message"),
    [
        (3, {"env": [{"name": "COMPLAINT", "value": "please\nlog in"}]}, "ended with 3: please log in"),
        (0, {"command": "no-such-plugin", "installHint": "get it here\n"}, "is not on this machine: get it here"),
        (0, {}, "printed no ExecCredential with a token or certificate"),
    ],
)
async def test_plugin_fails(
    peer: Peer, kubeconfig: Kubeconfig, plugin: Plugin, code: int, change: dict[str, Any], message: str
) -> None:
    """What the plug-in has to say reaches the user; what it printed as a credential does not."""
    plugin.says(note="hidden")
    peer.script = [VERSION]

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}, plugin.user(code, **change))) as client:
        with pytest.raises(KubeconfigError, match=message) as caught:
            await client.version()

    assert "hidden" not in str(caught.value)
    assert not peer.requests
