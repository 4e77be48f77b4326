"""Registering a cluster with the management plane and taking it out again. Called by `meshctl cluster` and `install`.

No credentials of the cluster reach the management plane: two Secrets are copied to the cluster, an agent is installed
there, and the agent dials out. Source of the steps: reference, cluster register.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from isthmus.agent.removal import find_left_behind
from isthmus.api.kinds import CERTIFICATES
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.cli.applying import (
    INSTALLED,
    apply_all,
    apply_one,
    create_missing,
    delete_all,
    delete_deployment,
    find_all,
    pod_troubles,
    wait_for,
    wait_until_available,
)
from isthmus.cli.failure import Failure
from isthmus.cli.progress import say, waiting
from isthmus.install import COMPONENT, AgentValues, Release, agent, helm_release, read_values, registration
from isthmus.kube import AlreadyExists, KubeClient, NotFound
from isthmus.model import kinds
from isthmus.model.problem import Problem
from isthmus.pki import PemInvalid, certificate_facts, check_chain

Manifest = dict[str, Any]

AGENT = "enterprise-agent"
SERVER = "enterprise-networking"
RELAY_PORT = 9900
MAX_NAME = 63  # a cluster name is a DNS label: it is part of host names and the name in a certificate
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)

AGENT_KINDS = (
    kinds.SERVICE,
    kinds.SERVICE_ACCOUNT,
    kinds.CLUSTER_ROLE_BINDING,
    kinds.CLUSTER_ROLE,
    kinds.ROLE_BINDING,
    kinds.ROLE,
)
"""What an agent's installation consists of besides its Deployment, definitions, Secrets and namespace."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """What `meshctl cluster register` was told. Empty: the default, or found out."""

    name: str
    cluster_domain: str = "cluster.local"
    relay_address: str = ""
    mgmt_namespace: str = "gloo-mesh"
    remote_namespace: str = "gloo-mesh"
    values: tuple[Manifest, ...] = ()
    """Values files for the agent, later ones win."""
    settings: tuple[str, ...] = ()
    """``--set`` for the agent."""
    seconds: float = 120.0
    """How long to wait for the agent."""


async def register(mgmt: KubeClient, remote: KubeClient, wanted: Registration) -> None:
    """Register the cluster behind *remote* with the management plane on *mgmt*. Raises `Failure`.

    Nothing is written before it is known that the name is free on both sides.
    """
    if not NAME.fullmatch(wanted.name) or len(wanted.name) > MAX_NAME:
        raise Failure(
            f"{wanted.name!r} can't be the name of a cluster",
            f"use at most {MAX_NAME} of a-z, 0-9 and '-', with a letter or digit at both ends",
        )
    address = check_address(wanted.relay_address) if wanted.relay_address else ""
    say(f"Registering cluster {wanted.name}")
    await _name_is_free(mgmt, wanted)
    if kept := await _no_other_agent(remote, wanted):
        raise Failure(
            f"Helm installed the agent on {remote.connection.name}, as release {kept}",
            f"create the KubernetesCluster {wanted.mgmt_namespace}/{wanted.name} by hand, or first "
            f"`helm uninstall {kept} --namespace {wanted.remote_namespace} --kube-context {remote.connection.name}`",
        )
    values = _agent_values(wanted, address or await relay_address(mgmt, wanted.mgmt_namespace))
    if isinstance(values, Problem):
        raise Failure(str(values), "`meshctl cluster register --help` says what can be set")
    relay = values.relay
    release = Release(namespace=wanted.remote_namespace)
    token_made = False

    items = agent(values, release)
    await apply_one(remote, items[0])  # the namespace, which the Secrets need
    root = await _relay_secret(mgmt, wanted.mgmt_namespace, "relay-root-tls-secret")
    if await _copy_root(remote, root, relay.root_tls_secret.name, wanted.remote_namespace):
        say(f"Copied the relay's root certificate to {remote.connection.name}")
    await _drop_stale_certificate(remote, relay.client_cert_secret.name, wanted, _data(root, "ca.crt"))
    if not await _exists(remote, relay.client_cert_secret.name, wanted.remote_namespace):
        token = await _relay_secret(mgmt, wanted.mgmt_namespace, "relay-identity-token-secret")
        token_made = await create_missing(
            remote, _copy(token, relay.token_secret.name, wanted.remote_namespace, token.get("data", {}))
        )
        if token_made:
            say(f"Copied the registration token to {remote.connection.name}")
    try:
        # Before the agent, whose first words are refused otherwise.
        await _create_registration(mgmt, wanted)
        say(f"Created KubernetesCluster {wanted.mgmt_namespace}/{wanted.name} on {mgmt.connection.name}")
        await apply_all(remote, items)
        say(f"Installed the agent on {remote.connection.name}; it dials {relay.server_address}")
        await _wait_for_certificate(remote, relay.client_cert_secret.name, wanted)
    finally:
        # Used or not, the token lets whoever reads it enter under any free name. It does not stay.
        if token_made:
            await remote.delete(kinds.SECRET, wanted.remote_namespace, relay.token_secret.name)
            say("Removed the registration token")
    with waiting("Waiting until the agent is ready"):
        await wait_until_available(remote, wanted.remote_namespace, AGENT, seconds=wanted.seconds)
    say(f"Cluster {wanted.name} is registered")


def check_address(address: str) -> str:
    """*address* if it can be dialled: ``host:port``, an IPv6 host in brackets. Raises `Failure`."""
    example = "write host:port, such as 203.0.113.7:9900 or relay.example.com:9900"
    if "://" in address:
        raise Failure(f"the relay address {address!r} has a scheme", example)
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Failure(f"the relay address {address!r} has no port", example)
    if not host:
        raise Failure(
            f"the relay address {address!r} has no host: the Service has no IP address yet, or a host name instead",
            "leave --relay-server-address out, and meshctl takes what the Service has",
        )
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise Failure(f"the IPv6 host of relay address {address!r} is not in brackets", "write [2001:db8::1]:9900")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if not re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?", host, re.ASCII):
            raise Failure(f"the relay address {address!r} has no host name or IP address", example) from None
    return address


async def relay_address(mgmt: KubeClient, namespace: str) -> str:
    """Where agents reach the management plane, from the status of its Service. Raises `Failure`."""
    try:
        service = await mgmt.get(kinds.SERVICE, namespace, SERVER)
    except NotFound as error:
        raise _no_management_plane(mgmt, namespace) from error
    port = next((p["port"] for p in service["spec"].get("ports", ()) if p.get("name") == "grpc"), RELAY_PORT)
    for ingress in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()):
        if host := ingress.get("ip") or ingress.get("hostname"):
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise Failure(
        f"Service {namespace}/{SERVER} on {mgmt.connection.name} has no external address",
        "wait for the load balancer, or say where agents reach it with --relay-server-address HOST:PORT",
    )


def _no_management_plane(mgmt: KubeClient, namespace: str) -> Failure:
    return Failure(
        f"there is no management plane in namespace {namespace} on {mgmt.connection.name}",
        f"`meshctl install --kubecontext {mgmt.connection.name}`, or name the right one with --mgmt-context and "
        "--mgmt-namespace",
    )


async def _name_is_free(mgmt: KubeClient, wanted: Registration) -> None:
    try:
        present = await mgmt.get(KubernetesCluster.KIND, wanted.mgmt_namespace, wanted.name)
    except NotFound as error:
        if error.of_kind:
            raise _no_management_plane(mgmt, wanted.mgmt_namespace) from error
        return
    raise _taken(wanted, present["metadata"].get("creationTimestamp", ""))


def _taken(wanted: Registration, since: str = "") -> Failure:
    return Failure(
        f"a cluster is already registered as {wanted.name}" + (f", since {since}" if since else ""),
        f"choose another name, or first `meshctl cluster deregister {wanted.name}`",
    )


async def _create_registration(mgmt: KubeClient, wanted: Registration) -> None:
    made = registration(wanted.name, wanted.cluster_domain, wanted.mgmt_namespace)
    try:
        await mgmt.create(KubernetesCluster.KIND, made)
    except AlreadyExists as error:  # somebody else was faster
        raise _taken(wanted) from error


async def _no_other_agent(remote: KubeClient, wanted: Registration) -> str:
    """The release of which Helm keeps the cluster's agent. Raise `Failure` if it runs one under another name."""
    try:
        present = await remote.get(kinds.DEPLOYMENT, wanted.remote_namespace, AGENT)
    except NotFound:
        return ""
    other = agent_cluster(present)
    if other and other != wanted.name:
        raise Failure(
            f"{remote.connection.name} already runs an agent, for a cluster registered as {other}",
            f"check --remote-context; to rename the cluster, first `meshctl cluster deregister {other}`",
        )
    return helm_release(present)


def agent_cluster(deployment: Manifest) -> str:
    """The cluster name that an agent's Deployment passes to it."""
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        for argument in container.get("args", ()):
            if argument.startswith("--cluster="):
                return str(argument.removeprefix("--cluster="))
    return ""


def _agent_values(wanted: Registration, address: str) -> AgentValues | Problem:
    ours = {
        "relay": {
            "cluster": wanted.name,
            "serverAddress": address,
            "authority": f"{SERVER}.{wanted.mgmt_namespace}",
        }
    }
    return read_values(AgentValues, [ours, *wanted.values], wanted.settings)


async def _relay_secret(mgmt: KubeClient, namespace: str, name: str) -> Manifest:
    try:
        return await mgmt.get(kinds.SECRET, namespace, name)
    except NotFound as error:
        raise Failure(
            f"Secret {namespace}/{name} is missing on {mgmt.connection.name}",
            f"`meshctl install --kubecontext {mgmt.connection.name}` makes the relay's Secrets that are missing",
        ) from error


def _data(secret: Manifest, key: str) -> bytes:
    return base64.b64decode(secret.get("data", {}).get(key, ""))


def _copy(secret: Manifest, name: str, namespace: str, data: Manifest) -> Manifest:
    labels = {**INSTALLED, COMPONENT: AGENT}
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}


async def _copy_root(remote: KubeClient, root: Manifest, name: str, namespace: str) -> bool:
    """Copy the certificate, not the key; whether it was not there yet. A different one there is not overwritten."""
    certificate = root.get("data", {}).get("ca.crt", "")
    if await create_missing(remote, _copy(root, name, namespace, {"ca.crt": certificate})):
        return True
    present = await remote.get(kinds.SECRET, namespace, name)
    if _data(present, "ca.crt").split() != _data(root, "ca.crt").split():
        raise Failure(
            f"Secret {namespace}/{name} on {remote.connection.name} holds the root of another management plane",
            f"if that one is gone: `kubectl --context {remote.connection.name} -n {namespace} delete secret {name}`",
        )
    return False


async def _exists(remote: KubeClient, name: str, namespace: str) -> bool:
    try:
        await remote.get(kinds.SECRET, namespace, name)
    except NotFound:
        return False
    return True


async def _drop_stale_certificate(remote: KubeClient, name: str, wanted: Registration, root: bytes) -> None:
    """Delete a client certificate that an earlier registration left and that is of no use now."""
    try:
        present = await remote.get(kinds.SECRET, wanted.remote_namespace, name)
    except NotFound:
        return
    try:
        names = certificate_facts(_data(present, "tls.crt")).dns_names
        useful = wanted.name in names and check_chain(_data(present, "tls.crt"), root, datetime.now(UTC)) is None
    except PemInvalid:
        useful = False
    if not useful:
        uid = present["metadata"].get("uid", "")
        await remote.delete(kinds.SECRET, wanted.remote_namespace, name, uid=uid)
        say("Removed the client certificate of an earlier registration")


async def _wait_for_certificate(remote: KubeClient, name: str, wanted: Registration) -> None:
    def issued(secret: Manifest | None) -> bool | None:
        return True if secret is not None and "tls.crt" in secret.get("data", {}) else None

    try:
        with waiting("Waiting until the agent has its client certificate"):
            await wait_for(remote, kinds.SECRET, wanted.remote_namespace, name, issued, seconds=wanted.seconds)
    except TimeoutError as error:
        reasons = await pod_troubles(remote, wanted.remote_namespace, AGENT)
        raise Failure(
            f"the agent on {remote.connection.name} got no client certificate within {wanted.seconds:.0f} s"
            + "".join(f"\n{reason}" for reason in reasons),
            f"its log says why: `kubectl --context {remote.connection.name} -n {wanted.remote_namespace} logs "
            f"deployment/{AGENT}`; then `meshctl cluster deregister {wanted.name}` and register again",
        ) from error


async def deregister(
    mgmt: KubeClient, remote: KubeClient | None, name: str, mgmt_namespace: str, remote_namespace: str
) -> None:
    """Take cluster *name* out of the management plane and remove from the cluster what its agent wrote.

    *remote* None leaves the cluster alone (it may be gone). Raises `Failure`.
    """
    written, kept = 0, ""
    if remote is not None:
        kept = await _no_other_agent(remote, Registration(name=name, remote_namespace=remote_namespace))
        written = len(await find_left_behind(remote, name, remote_namespace))
    try:
        known = await mgmt.delete(KubernetesCluster.KIND, mgmt_namespace, name)
    except NotFound:
        known = False
    if known:
        say(f"Deleted KubernetesCluster {mgmt_namespace}/{name} on {mgmt.connection.name}")
    else:
        say(f"No cluster is registered as {name} on {mgmt.connection.name}")
    if remote is None:
        if not known:
            raise Failure(f"there is no cluster {name}", "`meshctl cluster list` shows those that are")
        say("Left on the cluster: its agent, and what the agent wrote")
        return
    if not await _remove_agent(remote, name, remote_namespace, written) and not written and not known:
        raise Failure(
            f"{remote.connection.name} runs no agent for {name}, and no cluster of that name is registered",
            "`meshctl cluster list` shows those that are",
        )
    if kept:
        where = remote.connection.name
        say(f"Helm still lists it: `helm uninstall {kept} --namespace {remote_namespace} --kube-context {where}`")


async def _remove_agent(remote: KubeClient, name: str, namespace: str, count: int) -> bool:
    """Whether there was anything to remove."""
    where = remote.connection.name
    try:
        with waiting(f"Stopping the agent on {where}"):
            stopped = await delete_deployment(remote, namespace, AGENT, seconds=60)
    except TimeoutError as error:
        raise Failure(
            f"the agent's pod on {where} does not end",
            f"`kubectl --context {where} -n {namespace} delete pod -l app={AGENT} --force`, then deregister again",
        ) from error
    # Only now: a running agent would write them again. What it was already told to delete is gone.
    written = 0
    for left in await find_left_behind(remote, name, namespace):  # one by one: their order is a safe one
        written += await remote.delete(left.kind, left.namespace, left.name, uid=left.uid)
    labels = ",".join(f"{key}={value}" for key, value in {**INSTALLED, COMPONENT: AGENT}.items())
    parts = await delete_all(remote, await find_all(remote, (*AGENT_KINDS, kinds.SECRET), labels))
    secrets = await _delete_secrets(remote, namespace)
    say(f"Deleted the agent's accounts, rights and Secrets on {where} ({parts + secrets} objects)")
    say(f"Deleted the Istio objects that it wrote there ({count} objects)")
    say(
        f"Left on {where}: namespace {namespace}, the custom resource definitions of {_groups()}, "
        "and Istio with the certificates that it has"
    )
    return stopped or bool(written + parts + secrets)


async def _delete_secrets(remote: KubeClient, namespace: str) -> int:
    """Delete what the agent made without our labels: its certificate, and a key that still waited for one."""
    names = ("relay-client-tls-secret", "relay-client-tls-secret-pending")
    return sum([await remote.delete(kinds.SECRET, namespace, name) for name in names])


def _groups() -> str:
    return ", ".join(sorted({resource.KIND.group for resource in CERTIFICATES}))
