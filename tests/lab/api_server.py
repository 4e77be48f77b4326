"""A real API server alone: kube-apiserver and etcd on this machine, without controllers that answer back."""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from isthmus.embedded import merged_kubeconfig
from isthmus.embedded.certificates import Credentials, issue_credentials, save_credentials
from isthmus.lab.binaries import find
from tests.lab.running import Lab, eventually

START_SECONDS = 180.0


@dataclass(frozen=True)
class Reachable:
    name: str
    url: str
    credentials: Credentials


@contextlib.contextmanager
def bare_api_server(folder: Path) -> Iterator[Path]:
    """The kubeconfig of an API server that runs until the block ends; its files are in *folder*."""
    port, storage, peers = _free_ports(3)
    credentials = issue_credentials(secrets.token_urlsafe(24), ("localhost", "127.0.0.1"))
    save_credentials(credentials, folder)
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.TraditionalOpenSSL  # kube-apiserver reads no other
    (folder / "sa.key").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        yaml.safe_dump(merged_kubeconfig([Reachable("real", f"https://127.0.0.1:{port}", credentials)]))
    )
    etcd = (
        f"--data-dir={folder / 'etcd'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=http://127.0.0.1:{storage}",
        f"--advertise-client-urls=http://127.0.0.1:{storage}",
        f"--listen-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-advertise-peer-urls=http://127.0.0.1:{peers}",
        f"--initial-cluster=default=http://127.0.0.1:{peers}",
        "--log-level=warn",
    )
    api_server = (
        f"--etcd-servers=http://127.0.0.1:{storage}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={folder}",
        f"--tls-cert-file={folder / 'server.crt'}",
        f"--tls-private-key-file={folder / 'server.key'}",
        f"--client-ca-file={folder / 'ca.crt'}",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--endpoint-reconciler-type=none",
        "--disable-admission-plugins=ServiceAccount",  # without a controller no namespace has one
        "--profiling=false",
    )
    with _running(folder, "etcd", etcd):
        # Twice, so that there is a past: what the first run wrote, the second has no history of.
        with _running(folder, "kube-apiserver", api_server):
            _wait(folder)
        with _running(folder, "kube-apiserver", api_server):
            _wait(folder)
            yield kubeconfig


def _wait(folder: Path) -> None:
    ready = ("kubectl", "--context", "real", "get", "--raw", "/readyz")
    server = Lab(folder)
    eventually("kube-apiserver is ready", lambda: server.attempt(*ready).returncode == 0, within=START_SECONDS)


@contextlib.contextmanager
def _running(folder: Path, name: str, arguments: tuple[str, ...]) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([find().path(name), *arguments], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # kube-apiserver waits for watches
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]
