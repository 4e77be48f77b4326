"""Every way a kubeconfig or a service account says where a cluster is and who we are."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from isthmus.kube import KubeClient, KubeconfigError, Unauthorized, Untrusted
from isthmus.kube.kubeconfig import environment_proxy, in_cluster, kubeconfig_paths, load
from isthmus.model.kinds import CONFIG_MAP

from .certificates import Authority
from .conftest import Kubeconfig
from .peer import Answer, Peer, Proxy, Request, answer, status

VERSION = answer(200, {"gitVersion": "v1.30.2"})
REFUSED = answer(401, status(401, "Unauthorized", "Unauthorized"))


def only(bearer: str) -> list[object]:
    """A server that lets in who sends *bearer*."""

    def reply(request: Request) -> Answer:
        return VERSION if request.headers.get("authorization") == f"Bearer {bearer}" else REFUSED

    return [reply]


async def version(path: Path, context: str | None = None) -> str:
    async with KubeClient.from_kubeconfig(path, context, patience=0.5) as client:
        return await client.version()


async def test_certificate_authority_inline_and_as_file(authority: Authority, kubeconfig: Kubeconfig) -> None:
    """The server is trusted by the authority that the kubeconfig names, and by no other."""
    inline = base64.b64encode(authority.certificate.read_bytes()).decode()
    stranger = Authority(authority.folder, "stranger").certificate

    async with Peer().serving(authority.serving("127.0.0.1")) as peer:
        peer.script = [VERSION]
        for trust in (
            {"certificate-authority": str(authority.certificate)},
            {"certificate-authority": authority.certificate.name},
            {"certificate-authority-data": inline},
            {"certificate-authority-data": inline, "certificate-authority": "not-looked-at"},
            {"insecure-skip-tls-verify": True},
        ):
            assert await version(kubeconfig({"server": peer.url, **trust})) == "v1.30.2"

        for distrust in ({"certificate-authority": str(stranger)}, {}):
            with pytest.raises(Untrusted, match=r"get the version: .*certificate"):
                await version(kubeconfig({"server": peer.url, **distrust}))


async def test_server_name(authority: Authority, kubeconfig: Kubeconfig) -> None:
    """A certificate for another name than the address is accepted if the kubeconfig gives that name."""
    async with Peer().serving(authority.serving("api.example")) as peer:
        peer.script = [VERSION]
        cluster = {"server": peer.url, "certificate-authority": str(authority.certificate)}

        with pytest.raises(Untrusted):
            await version(kubeconfig(cluster))
        assert await version(kubeconfig({**cluster, "tls-server-name": "api.example"})) == "v1.30.2"


async def test_client_certificate(authority: Authority, kubeconfig: Kubeconfig) -> None:
    """A client certificate is presented, from files beside the kubeconfig or inline."""
    alice = authority.issue("alice")
    certificate, key = alice.inline

    async with Peer().serving(authority.serving("127.0.0.1", clients=True)) as peer:
        peer.script = [VERSION]
        cluster = {"server": peer.url, "certificate-authority": str(authority.certificate)}
        await version(kubeconfig(cluster, {"client-certificate": "alice.crt", "client-key": "alice.key"}))
        await version(kubeconfig(cluster, {"client-certificate-data": certificate, "client-key-data": key}))

    assert [request.client for request in peer.requests] == ["alice", "alice"]


async def test_token(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """A token is sent as bearer, and a wrong one is told as such, without the token."""
    peer.script = only("secret-1")

    assert await version(kubeconfig({"server": peer.url}, {"token": "secret-1\n"})) == "v1.30.2"
    with pytest.raises(Unauthorized) as caught:
        await version(kubeconfig({"server": peer.url}, {"token": "secret-2"}))

    assert "secret-2" not in str(caught.value)


async def test_token_file_is_read_again(peer: Peer, kubeconfig: Kubeconfig, tmp_path: Path) -> None:
    """A token that was rotated on disk replaces the one the server refuses."""
    token = tmp_path / "token"
    token.write_text("one\n")
    peer.script = only("one")

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}, {"tokenFile": "token"})) as client:
        await client.version()
        token.write_text("two\n")
        peer.script = only("two")
        await client.version()
        await client.version()

        token.unlink()
        peer.script = only("three")
        with pytest.raises(KubeconfigError, match=r"get the version: Token file .*token not found"):
            await client.version()

    bearers = [request.headers["authorization"][len("Bearer ") :] for request in peer.requests]
    assert bearers == ["one", "one", "two", "two", "two"]


async def test_password(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """User name and password, as some test clusters have."""
    peer.script = [VERSION]

    await version(kubeconfig({"server": peer.url}, {"username": "u", "password": "p"}))

    assert peer.requests[0].headers["authorization"] == "Basic " + base64.b64encode(b"u:p").decode()


async def test_proxy(authority: Authority, kubeconfig: Kubeconfig) -> None:
    """``proxy-url`` is used, TLS goes through it to the server, and messages leave its password out."""
    async with Peer().serving(authority.serving("127.0.0.1")) as peer, Proxy().serving() as proxy:
        peer.script = [VERSION]
        cluster = {"server": peer.url, "certificate-authority": str(authority.certificate)}
        path = kubeconfig({**cluster, "proxy-url": proxy.url.replace("//", "//me:hidden@")})
        assert await version(path) == "v1.30.2"
        await version(kubeconfig(cluster))
        with pytest.raises(Untrusted) as caught:
            await version(kubeconfig({"server": peer.url, "proxy-url": proxy.url.replace("//", "//me:hidden@")}))

    host = peer.url.removeprefix("https://")
    assert proxy.asked == [f"CONNECT {host} HTTP/1.1"] * 2
    assert f"(through proxy {proxy.url.removeprefix('http://')})" in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The usual variables count, but never for this machine."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", "inside.example")

    assert environment_proxy("https://outside.example:6443") == "http://proxy:3128"
    assert environment_proxy("https://inside.example:6443") is None
    assert environment_proxy("https://127.0.0.1:6443") is None
    assert environment_proxy("https://localhost:6443") is None


def test_missing_file_names_its_path(tmp_path: Path) -> None:
    """Whoever mistyped a path sees the path."""
    with pytest.raises(KubeconfigError, match=rf"no kubeconfig at {tmp_path}/nowhere"):
        KubeClient.from_kubeconfig(tmp_path / "nowhere")


def test_missing_context_lists_what_is_there(tmp_path: Path) -> None:
    """Whoever mistyped a context sees the contexts."""
    path = tmp_path / "config"
    contexts = [{"name": name, "context": {"cluster": "c"}} for name in ("west", "east")]
    path.write_text(
        yaml.safe_dump({"clusters": [{"name": "c", "cluster": {"server": "http://x"}}], "contexts": contexts})
    )

    with pytest.raises(KubeconfigError, match=r"config: no context 'wset'; contexts there: east, west"):
        KubeClient.from_kubeconfig(path, "wset")
    with pytest.raises(
        KubeconfigError, match="no context given and no current-context set; contexts there: east, west"
    ):
        KubeClient.from_kubeconfig(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not YAML"),
        ("just text", "is not a kubeconfig"),
        ("", "contexts there: none"),
        ("contexts: [{name: here}]", "an entry of contexts lacks its name or context"),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: gone}}]",
            "context 'x' names cluster 'gone', which is not there; clusters there: none",
        ),
        (
            "current-context: x\nclusters: [{name: c, cluster: {server: 'http://x'}}]\n"
            "contexts: [{name: x, context: {cluster: c, user: gone}}]",
            "context 'x' names user 'gone', which is not there; users there: none",
        ),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    """A kubeconfig that can't be used says where and why."""
    path = tmp_path / "config"
    path.write_text(text)

    with pytest.raises(KubeconfigError) as caught:
        KubeClient.from_kubeconfig(path)

    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("cluster", "user", "message"),
    [
        ({}, {}, "server '' is not an http(s) address"),
        ({"server": "10.0.0.1:6443"}, {}, "server '10.0.0.1:6443' is not an http(s) address"),
        ({"server": "https://x", "certificate-authority": "gone.crt"}, {}, "gone.crt: no such file"),
        ({"server": "https://x", "certificate-authority": "config"}, {}, "no certificate"),
        ({"server": "https://x", "certificate-authority-data": "QQ"}, {}, "certificate-authority-data is not base64"),
        (
            {"server": "https://x"},
            {"client-certificate": "gone.crt", "client-key": "gone.key"},
            "gone.crt: no such file",
        ),
        ({"server": "https://x"}, {"auth-provider": {"name": "gcp"}}, "auth-provider not supported"),
        ({"server": "https://x"}, {"token": 7}, "Expected `str"),
        ({"server": "https://x"}, {"token": "hidden\nline"}, "token holds characters that a token can't have"),
        ({"server": "https://[::1:6443"}, {}, "is not an http(s) address"),
        ({"server": "https://x:port"}, {}, "is not an http(s) address"),
        ({"server": "https://x", "proxy-url": "ftp://p:hidden@y"}, {}, "proxy y: "),
        ({"server": "https://x", "proxy-url": "://"}, {}, "proxy "),
    ],
)
def test_broken_entries(
    kubeconfig: Kubeconfig, cluster: dict[str, object], user: dict[str, object], message: str
) -> None:
    """An entry that can't be used says what is wrong with it."""
    path = kubeconfig(cluster, user)

    with pytest.raises(KubeconfigError) as caught:
        KubeClient.from_kubeconfig(path)

    assert message in str(caught.value)
    assert "here" in str(caught.value)
    assert "hidden" not in str(caught.value)


async def test_merged_files(
    peer: Peer, kubeconfig: Kubeconfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries of several files add up, the first of a name wins, and relative paths count from their own file."""
    folder = tmp_path / "second"
    folder.mkdir()
    (folder / "token").write_text("two")
    users = [
        {"name": "the-user", "user": {"token": "ignored"}},
        {"name": "second", "user": {"tokenFile": "token"}},
    ]
    there = {"name": "there", "context": {"cluster": "the-cluster", "user": "second", "namespace": "mine"}}
    (folder / "config").write_text(yaml.safe_dump({"current-context": "there", "users": users, "contexts": [there]}))
    first = kubeconfig({"server": peer.url}, {"token": "one"})
    monkeypatch.setenv("KUBECONFIG", f"{first}:{tmp_path}/missing:{folder / 'config'}")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    peer.script = only("one")
    async with KubeClient.from_environment(patience=0.5) as client:
        await client.version()
        assert client.namespace == "default"
    peer.script = only("two")
    async with KubeClient.from_kubeconfig(context="there", patience=0.5) as client:
        await client.version()
        assert client.namespace == "mine"


def test_default_path() -> None:
    """Without KUBECONFIG, kubectl's own place."""
    assert kubeconfig_paths({}) == (Path.home() / ".kube/config",)
    assert kubeconfig_paths({"KUBECONFIG": "/a::/b"}) == (Path("/a"), Path("/b"))


async def test_in_cluster(authority: Authority, tmp_path: Path) -> None:
    """A pod's service account: address from the environment, authority, token and namespace from its folder."""
    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text("pod-token")
    (tmp_path / "namespace").write_text("gloo-mesh")

    async with Peer().serving(authority.serving("127.0.0.1")) as peer:
        peer.script = only("pod-token")
        port = peer.url.rpartition(":")[2]
        place = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": port}
        async with KubeClient(in_cluster(tmp_path, place)) as client:
            assert await client.version() == "v1.30.2"
            assert client.namespace == "gloo-mesh"


def test_in_cluster_elsewhere(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named; an IPv6 address is put in brackets."""
    with pytest.raises(KubeconfigError, match="KUBERNETES_SERVICE_HOST is not set"):
        in_cluster(tmp_path, {})
    with pytest.raises(KubeconfigError, match=rf"no service account token at {tmp_path}/token"):
        in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1"})
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    with pytest.raises(KubeconfigError, match="no service account token at /var/run/secrets"):
        KubeClient.from_environment()

    (tmp_path / "ca.crt").write_bytes(authority.certificate.read_bytes())
    (tmp_path / "token").write_text("t")
    assert in_cluster(tmp_path, {"KUBERNETES_SERVICE_HOST": "fd00::1"}).server == "https://[fd00::1]:443"


async def test_path_in_the_server_address(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """A server behind a path, as Rancher serves its clusters."""
    peer.script = [VERSION]

    async with KubeClient.from_kubeconfig(kubeconfig({"server": f"{peer.url}/k8s/clusters/c-1/"})) as client:
        await client.get(CONFIG_MAP, "default", "a")

    assert peer.requests[0].path == "/k8s/clusters/c-1/api/v1/namespaces/default/configmaps/a"


def test_a_context_is_found_by_load(kubeconfig: Kubeconfig) -> None:
    """What messages call the cluster is its context and address."""
    assert str(load((kubeconfig({"server": "https://x:6443/"}),))) == "here (https://x:6443)"
