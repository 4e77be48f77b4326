"""One cluster's control plane: etcd, kube-apiserver, kube-controller-manager, kube-proxy and CoreDNS in its machine."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from isthmus.embedded import merged_kubeconfig
from isthmus.embedded.certificates import Credentials, issue_credentials, save_credentials
from isthmus.kube import KubeClient, KubeError
from isthmus.lab.binaries import Binaries
from isthmus.lab.network import in_machine
from isthmus.lab.plan import API_PORT, API_SERVICE, DNS_SERVICE, SERVICES, ClusterPlan
from isthmus.lab.processes import Daemon, until
from isthmus.model.kinds import ENDPOINT_SLICE, SERVICE

Manifest = dict[str, Any]

START_SECONDS = 180.0  # three control planes start at once, on a shared machine
DNS_PORTS = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
ETCD = "http://127.0.0.1:2379"
# What bookinfo, Istio and our own charts need; a controller that nothing asks for only takes memory.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "garbage-collector-controller",
    "job-controller",
    "legacy-serviceaccount-token-cleaner-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
)


class ControlPlane:
    """The control plane of *cluster*, its files in *directory* and its logs in *logs*."""

    def __init__(self, cluster: ClusterPlan, binaries: Binaries, directory: Path, logs: Path) -> None:
        self.cluster = cluster
        self.name = cluster.name
        self.url = f"https://{cluster.address}:{API_PORT}"
        self._binaries = binaries
        self._directory = directory
        self._logs = logs
        directory.mkdir(parents=True)
        logs.mkdir(parents=True, exist_ok=True)
        hosts = (
            "localhost",
            "127.0.0.1",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            str(API_SERVICE),
            *(str(node.address) for node in cluster.nodes),
            *(node.name for node in cluster.nodes),
        )
        self.credentials: Credentials = issue_credentials(secrets.token_urlsafe(24), hosts)
        save_credentials(self.credentials, directory)
        (directory / "sa.key").write_bytes(_rsa_key())
        self.kubeconfig = directory / "kubeconfig"
        self.kubeconfig.write_text(json.dumps(merged_kubeconfig([self])))

    def file(self, name: str) -> str:
        """Path of one of the certificates or keys of the cluster."""
        return str(self._directory / name)

    async def run(self, tasks: asyncio.TaskGroup) -> None:
        """Start everything in *tasks*, in order, and return when the API answers and DNS is announced."""
        etcd = self._start(tasks, "etcd", *self._etcd())
        api = self._start(tasks, "kube-apiserver", *self._api_server())
        await until(f"etcd of {self.cluster.name}", lambda: etcd.pid, START_SECONDS, etcd)
        await until(f"kube-apiserver of {self.cluster.name}", self._api_ready, START_SECONDS, api)
        self._start(tasks, "kube-controller-manager", *self._controller_manager())
        self._start(tasks, "kube-proxy", *self._proxy())
        self._start(tasks, "coredns", *self._dns())
        async with KubeClient.from_kubeconfig(self.kubeconfig, self.cluster.name) as kube:
            for kind, manifest in ((SERVICE, _dns_service()), (ENDPOINT_SLICE, _dns_endpoints(self.cluster))):
                await kube.apply(kind, manifest, manager="isthmus-lab")

    def _start(self, tasks: asyncio.TaskGroup, name: str, *arguments: str) -> Daemon:
        argv = in_machine(self.cluster.name, str(self._binaries.path(name)), *arguments)
        daemon = Daemon(name, argv, self._logs / f"{name}.log")
        tasks.create_task(daemon.run(), name=f"{self.cluster.name}/{name}")
        return daemon

    def kubelet_tls(self) -> ssl.SSLContext:
        """For the kubelets' endpoint: only the API server may come in."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=self.file("ca.crt"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(self.file("server.crt"), self.file("server.key"))
        return context

    async def _api_ready(self) -> bool:
        try:
            async with KubeClient.from_kubeconfig(self.kubeconfig, self.cluster.name) as kube:
                return bool(await asyncio.wait_for(kube.get(SERVICE, "default", "kubernetes"), 5.0))
        except (KubeError, TimeoutError):
            return False

    def _etcd(self) -> tuple[str, ...]:
        return (
            f"--data-dir={self._directory / 'etcd'}",
            "--unsafe-no-fsync",  # the lab's objects end with the lab
            f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}",
            "--listen-peer-urls=http://127.0.0.1:2380",
            "--log-level=warn",
        )

    def _api_server(self) -> tuple[str, ...]:
        return (
            f"--etcd-servers={ETCD}",
            f"--bind-address={self.cluster.address}",
            f"--advertise-address={self.cluster.address}",
            f"--secure-port={API_PORT}",
            f"--cert-dir={self._directory}",
            f"--tls-cert-file={self.file('server.crt')}",
            f"--tls-private-key-file={self.file('server.key')}",
            f"--client-ca-file={self.file('ca.crt')}",
            f"--kubelet-certificate-authority={self.file('ca.crt')}",
            f"--kubelet-client-certificate={self.file('admin.crt')}",
            f"--kubelet-client-key={self.file('admin.key')}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-key-file={self.file('sa.key')}",
            f"--service-account-signing-key-file={self.file('sa.key')}",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--profiling=false",
            "--v=1",
        )

    def _controller_manager(self) -> tuple[str, ...]:
        return (
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(CONTROLLERS)}",
            f"--service-account-private-key-file={self.file('sa.key')}",
            f"--root-ca-file={self.file('ca.crt')}",
            f"--cluster-name={self.cluster.name}",
            "--leader-elect=false",
            "--secure-port=0",
            "--endpointslice-updates-batch-period=0s",
            "--concurrent-gc-syncs=2",
            "--v=1",
        )

    def _proxy(self) -> tuple[str, ...]:
        return (
            f"--kubeconfig={self.kubeconfig}",
            "--proxy-mode=iptables",
            f"--cluster-cidr={self.cluster.pods}",
            f"--hostname-override={self.cluster.nodes[0].name}",
            "--iptables-min-sync-period=50ms",
            "--conntrack-max-per-core=0",  # a limit of the whole kernel, which is not the lab's to change
            "--conntrack-min=0",
            "--conntrack-tcp-timeout-established=0",
            "--conntrack-tcp-timeout-close-wait=0",
            "--healthz-bind-address=127.0.0.1:10256",
            "--metrics-bind-address=127.0.0.1:10249",
            "--v=1",
        )

    def _dns(self) -> tuple[str, ...]:
        corefile = self._directory / "Corefile"
        corefile.write_text(
            f""".:53 {{
    bind {self.cluster.address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {self.kubeconfig} {self.cluster.name}
        pods insecure
        ttl 2
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
"""
        )
        return ("-conf", str(corefile))


def _dns_service() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": str(DNS_SERVICE), "ports": DNS_PORTS},
    }


def _dns_endpoints(cluster: ClusterPlan) -> Manifest:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": [str(cluster.address)], "conditions": {"ready": True}}],
        "ports": DNS_PORTS,
    }


def _rsa_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
