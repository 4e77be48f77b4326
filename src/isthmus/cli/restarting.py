"""Having the agent of a cluster restart a mesh's pods once. Called by `meshctl mesh restart`.

A person's wish is a PodBounceDirective like that of the management plane, marked as written by hand: agents know how to
follow one, over any number of their own restarts, and tell in its status how far they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from isthmus.api.base import ObjectMeta, Resource
from isthmus.api.common import ObjectRef
from isthmus.api.discovery import Mesh, Workload
from isthmus.api.issued_certificate import IssuedCertificate
from isthmus.api.issued_certificate import IssuedCertificateState as State
from isthmus.api.parse import parse
from isthmus.api.pod_bounce_directive import BY_HAND, PodBounceDirective
from isthmus.cli.failure import Failure
from isthmus.cli.progress import say
from isthmus.translate.trust.facts import TrustFacts, trust_facts, workload_facts
from isthmus.translate.trust.objects import pod_bounce_directive

if TYPE_CHECKING:
    from isthmus.kube import KubeClient

R = TypeVar("R", bound=Resource)

FOLLOW = "the agent goes on; the same command shows how far it is"


async def cluster_of(mgmt: KubeClient, namespace: str, name: str) -> str:
    """The cluster of the mesh *name*. Raises `Failure`."""
    return (await _placed(mgmt, namespace, name))[1].cluster


async def restart_mesh(mgmt: KubeClient, remote: KubeClient, namespace: str, name: str, seconds: float) -> None:
    """Restart what is outdated of the mesh *name*, and watch for so many *seconds*. Raises `Failure`."""
    mesh, facts = await _placed(mgmt, namespace, name)
    certificate = await _certificate(remote, mesh, facts)
    status = certificate.status
    if status is None or status.state not in (State.ISSUED, State.FINISHED):
        state = status.state.value if status is not None else State.PENDING.value
        reason = f": {status.error}" if status is not None and status.error else ""
        raise Failure(
            f"the certificate of {name} is {state}{reason}", "pods would restart for nothing; `meshctl check`"
        )
    if status.state is State.FINISHED:
        say(f"no pod of {name} runs with an older certificate")
        return
    outdated = status.outdated_pods.count if status.outdated_pods is not None else 0
    say(f"{_pods(outdated)} of {name} with an older certificate")
    ref = certificate.spec.pod_bounce_directive
    if ref is not None:
        say("the mesh restarts by itself, so this only watches")
        await _watch(remote, ref, seconds)
    else:
        ref = await _ask(remote, certificate, await _directive(mgmt, namespace, mesh, facts, certificate))
        await _watch(remote, ref, seconds)
        await _clear(remote, ref)
    say(f"every pod of {name} runs with the present certificate")


async def _placed(mgmt: KubeClient, namespace: str, name: str) -> tuple[Mesh, TrustFacts]:
    mesh = parse(await mgmt.get(Mesh.KIND, namespace, name))
    facts = trust_facts(mesh.ref, mesh) if isinstance(mesh, Mesh) else None
    if not isinstance(mesh, Mesh) or facts is None or not facts.agent_namespace:
        raise Failure(f"{name} is no mesh of Istio with an agent", "`meshctl describe mesh` shows what is known of it")
    return mesh, facts


async def _certificate(remote: KubeClient, mesh: Mesh, facts: TrustFacts) -> IssuedCertificate:
    """The certificate of *mesh*, which a mesh of another revision in its namespace may have for both."""
    found = await _all(remote, IssuedCertificate, facts.agent_namespace)
    for certificate in sorted(found, key=lambda each: each.metadata.name != mesh.metadata.name):
        target = certificate.spec.issued_certificate_secret
        if certificate.metadata.name == mesh.metadata.name or (target and target.namespace == facts.namespace):
            return certificate
    raise Failure(f"{mesh.metadata.name} has no certificate of ours", "a VirtualMesh with mtlsConfig gives it one")


async def _directive(
    mgmt: KubeClient, namespace: str, mesh: Mesh, facts: TrustFacts, certificate: IssuedCertificate
) -> PodBounceDirective:
    """What the management plane would write if the mesh restarted by itself."""
    peers = {mesh.ref: facts}
    for other in await _all(mgmt, Mesh, namespace):
        beside = trust_facts(other.ref, other)
        if beside is not None and beside.place == facts.place:
            peers[other.ref] = beside
    workloads = [
        found
        for workload in await _all(mgmt, Workload, namespace)
        if (found := workload_facts(workload.ref, workload)) is not None and found.mesh in peers
    ]
    made = pod_bounce_directive(mesh.ref, mesh.ref, list(peers.values()), workloads)
    metadata = ObjectMeta(
        name=f"{certificate.metadata.name}-by-hand",
        namespace=facts.agent_namespace,
        annotations={BY_HAND: certificate.metadata.name},
    )
    return PodBounceDirective(metadata=metadata, spec=made.spec)


async def _ask(remote: KubeClient, certificate: IssuedCertificate, wanted: PodBounceDirective) -> ObjectRef:
    """Write *wanted*, unless an earlier wish is still under way."""
    from isthmus.kube import AlreadyExists

    ref = ObjectRef(name=wanted.metadata.name, namespace=wanted.metadata.namespace)
    earlier = next(
        (d for d in await _all(remote, PodBounceDirective, ref.namespace) if d.metadata.name == ref.name), None
    )
    if earlier is not None and earlier.status is not None and earlier.status.finished:
        await _clear(remote, ref)
    elif earlier is not None:
        say("the agent is at it already")
        return ref
    try:
        await remote.create(PodBounceDirective.KIND, wanted.manifest())
    except AlreadyExists:
        say("somebody else has asked for it at the same time")
    return ref


async def _watch(remote: KubeClient, ref: ObjectRef, seconds: float) -> None:
    """Say what changes until it is finished. Raises `Failure`."""
    from isthmus.kube import Changed, Removed, Replaced

    told: tuple[int, tuple[str, ...]] = (0, ())
    gone = Failure(f"PodBounceDirective {ref.namespace}/{ref.name} was deleted", "run the same command again")
    try:
        async with asyncio.timeout(seconds):
            kind, fields = PodBounceDirective.KIND, f"metadata.name={ref.name}"
            async for event in remote.watch(kind, ref.namespace, fields=fields):
                match event:
                    case Replaced(items):
                        if not items:
                            raise gone
                        found = parse(items[0])
                    case Changed(item):
                        found = parse(item)
                    case Removed():
                        raise gone
                status = found.status if isinstance(found, PodBounceDirective) else None
                if status is None:
                    continue
                now = (sum(len(each.bounced_pods) for each in status.pods_bounced), status.waiting)
                _tell(told, now)
                told = now
                if status.finished:
                    return
    except TimeoutError:
        left = "; ".join(told[1]) or "the agent has not said how far it is; is it of this version?"
        raise Failure(f"not done after {seconds:.0f} seconds: {left}", FOLLOW) from None


def _tell(before: tuple[int, Sequence[str]], now: tuple[int, Sequence[str]]) -> None:
    if now[0] != before[0]:
        say(f"{_pods(now[0])} restarted")
    for sentence in now[1]:
        if sentence not in before[1]:
            say(f"  {sentence}")


def _pods(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


async def _clear(remote: KubeClient, ref: ObjectRef) -> None:
    from isthmus.kube import NotFound

    try:
        await remote.delete(PodBounceDirective.KIND, ref.namespace, ref.name)
    except NotFound:
        return


async def _all(cluster: KubeClient, kind: type[R], namespace: str) -> list[R]:
    items = (await cluster.list(kind.KIND, namespace)).items
    return [found for item in items if isinstance(found := parse(item), kind)]
