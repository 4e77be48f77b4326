"""`meshctl access` says what the engine writes: its answers are those of the AuthorizationPolicies that come out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import Resource
from isthmus.api.common import ClusterObjectRef, DestinationSelector, KubeServiceMatcher
from isthmus.api.discovery import Destination, DestinationStatus, KubernetesWorkload, Mesh, Workload, WorkloadSpec
from isthmus.api.parse import parse
from isthmus.api.virtual_destination import (
    LocalizedFailover,
    MeshList,
    VirtualDestination,
    VirtualDestinationPort,
    VirtualDestinationSpec,
    VirtualDestinationStatus,
)
from isthmus.api.virtual_mesh import Federation, FederationSelector
from isthmus.cli.access_fleet import Scope, fleets, found_in
from isthmus.cli.files import Document
from isthmus.istio.kinds import AUTHORIZATION_POLICY, SERVICE_ENTRY
from isthmus.model.ref import Kind, Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.access.evaluation import Request, question
from isthmus.translate.access.reachability import Fleet, Reach, Reachability
from isthmus.translate.output import OutputKey
from tests.golden import case_id, cases, load_yaml
from tests.unit.translate import histories
from tests.unit.translate.fleets import mesh_ref, meta, service, three_clusters, virtual_mesh
from tests.unit.translate.slow_authorization import Asked, allowed
from tests.unit.translate.test_gateways import virtual_gateways

NAMESPACE = "gloo-mesh"
GOLDEN = [*cases("access"), *cases("gateways"), *cases("virtual-destinations"), *cases("federation")]
METHODS = ("GET", "PUT")


def translated(found: Iterable[Resource]) -> Engine:
    engine = Engine()
    for resource in found:
        engine.set(resource)
    engine.run()
    return engine


def previewed(found: Iterable[Resource], *namespaces: str) -> Fleet:
    """What is known to `meshctl access` when it is asked about *namespaces*."""
    documents = (Document(resource.manifest(), resource.ref.key) for resource in found)
    return fleets(found_in(documents, NAMESPACE, Scope(frozenset(namespaces))), None, NAMESPACE)[0]


def written(engine: Engine, cluster: str) -> list[dict[str, Any]]:
    """The AuthorizationPolicies that the engine wants on *cluster*."""
    return [
        output.manifest()
        for key, output in engine.outputs().items()
        if key.cluster == cluster and key.object.kind == AUTHORIZATION_POLICY.kind
    ]


def of_case(case: Path) -> list[Resource]:
    """The objects of a golden case, with a workload behind every service that selects pods."""
    found = [each for each in map(parse, load_yaml(case / "in.yaml")) if isinstance(each, Resource)]
    return [*(each for each in found if not isinstance(each, Workload)), *workloads(found)]


def workloads(found: Iterable[Resource]) -> Iterator[Workload]:
    """A Deployment behind each service, called as the service account ``bookinfo-<service>``."""
    for each in found:
        service = each.spec.kube_service if isinstance(each, Destination) else None
        if isinstance(each, Destination) and service is not None and service.workload_selector_labels:
            where = service.ref
            controller = ClusterObjectRef(
                name=f"{where.name}-v1", namespace=where.namespace, cluster_name=where.cluster_name
            )
            kubernetes = KubernetesWorkload(
                controller=controller,
                pod_labels=service.workload_selector_labels,
                service_account_name=f"bookinfo-{where.name}",
            )
            spec = WorkloadSpec(kubernetes=kubernetes, mesh=each.spec.mesh)
            yield Workload(metadata=meta(f"{each.metadata.name}-v1"), spec=spec)


def paths(policies: Iterable[Mapping[str, Any]]) -> set[str]:
    """A path of every rule, and one of none."""
    operations = (
        to["operation"] for policy in policies for rule in policy["spec"].get("rules", ()) for to in rule.get("to", ())
    )
    named = {pattern.replace("*", "x") for each in operations for pattern in each.get("paths", ())}
    return {"/none", *(path if path.startswith("/") else f"/{path}" for path in named)}


def tokens(policies: Iterable[Mapping[str, Any]]) -> dict[str, bool]:
    """That callers have no token."""
    sources = (
        each["source"]
        for policy in policies
        for rule in policy["spec"].get("rules", ())
        for each in rule.get("from", ())
    )
    fields = ("requestPrincipals", "notRequestPrincipals")
    patterns = (pattern for source in sources for field in fields for pattern in source.get(field, ()))
    return {question("request.auth.principal", pattern): False for pattern in patterns}


@pytest.mark.parametrize("case", GOLDEN, ids=case_id)
def test_answers_about_a_golden_case_are_those_of_what_is_written(case: Path) -> None:
    """Whichever namespace is asked about; each request is judged anew, as plainly as Istio's rules can be read."""
    found = of_case(case)
    engine = translated(found)
    meshes = {each.ref: each for each in found if isinstance(each, Mesh) and each.spec.istio is not None}
    services = {service_of(each): each for each in found if isinstance(each, Destination) and each.spec.kube_service}
    pairs = 0
    for namespace in sorted({name.namespace for name in services}):
        reachability = Reachability(previewed(found, namespace))
        asked = [name for name in reachability.services if name.namespace == namespace]
        for callee in asked:
            destination = services[callee]
            assert destination.spec.mesh is not None
            home = meshes[destination.spec.mesh.ref]
            assert home.spec.istio is not None
            policies = written(engine, callee.cluster)
            labels = destination.spec.kube_service.workload_selector_labels  # type: ignore[union-attr]
            callers = {name: reachability.principal_of(number) for name, number in reachability.callers.items()}
            known = {name for name in callers if is_known(engine, found, destination, name.cluster)}
            target = reachability.find_callee(callee)
            for port, method, path in itertools.product(target.ports, METHODS, sorted(paths(policies))):
                request = Request(port=port.number, method=method, path=path, assumed=tokens(policies))
                judged = reachability.judge(target, request)
                for caller, principal in callers.items():
                    call = Asked(principal, port.target, method, path, "", port.is_http)
                    passes = allowed(policies, root_of(home), callee.namespace, labels, call)
                    expected = (Reach.YES if passes else Reach.NO) if caller in known else Reach.UNKNOWN
                    assert judged.of(reachability.callers[caller]) is expected, (caller, callee, request)
                    pairs += 1
    assert pairs or not services


def service_of(destination: Destination) -> Ref:
    assert destination.spec.kube_service is not None
    return destination.spec.kube_service.ref.ref


def root_of(mesh: Mesh) -> str:
    assert mesh.spec.istio is not None
    assert mesh.spec.istio.installation is not None
    return mesh.spec.istio.installation.namespace


def is_known(engine: Engine, found: Sequence[Resource], destination: Destination, cluster: str) -> bool:
    """Whether *cluster* has the service, a entry for its federated name, or one that leads to it among others."""
    where = service_of(destination)
    if where.cluster == cluster:
        return True
    status = engine.status(StatusKey(Destination.KIND, destination.metadata.namespace, destination.metadata.name))
    assert isinstance(status, DestinationStatus)
    entries = [
        output.manifest()["spec"]
        for key, output in engine.outputs().items()
        if key.cluster == cluster and key.object.kind == SERVICE_ENTRY.kind
    ]
    federation = status.applied_federation
    if federation and any(federation.federated_hostname in entry["hosts"] for entry in entries):
        return True
    ways = reached_at(destination) | {
        address
        for each in found
        if isinstance(each, Destination) and each.spec.kube_service and service_of(each).cluster == where.cluster
        for address in entered_at(each)
    }
    return any(
        virtual.spec.hostname in entry["hosts"] and ways & {each["address"] for each in entry.get("endpoints", ())}
        for virtual in found
        if isinstance(virtual, VirtualDestination) and destination.ref in behind(engine, virtual)
        for entry in entries
    )


def reached_at(destination: Destination) -> set[str]:
    """The addresses of its pods."""
    service = destination.spec.kube_service
    return {each.ip_address for subset in (service.endpoint_subsets if service else ()) for each in subset.endpoints}


def entered_at(destination: Destination) -> set[str]:
    """The addresses of a gateway."""
    service = destination.spec.kube_service
    return {each.ip or each.dns_name or "" for each in (service.external_addresses if service else ())}


def behind(engine: Engine, virtual: VirtualDestination) -> set[Ref]:
    """The Destinations behind a host name, by its status."""
    status = engine.status(StatusKey(VirtualDestination.KIND, virtual.metadata.namespace, virtual.metadata.name))
    assert isinstance(status, VirtualDestinationStatus)
    return {Ref("", each.ref.namespace, each.ref.name) for each in status.selected_destinations}


# --- virtual destinations ---------------------------------------------------------------------------------------------

FRONT = DestinationSelector(kube_service_matcher=KubeServiceMatcher(labels={"tier": "front"}))
NOTHING = Federation(selectors=(FederationSelector(destination_selectors=(histories.REVIEWS,)),))


def front(namespace: str, cluster: str = "cluster2") -> Destination:
    """A service that is federated to nobody."""
    return service(cluster, "front", namespace=namespace, labels={"tier": "front"})


def together(**more: Any) -> VirtualDestination:
    """One host name for all services of the front, on cluster1 and cluster2 unless *more* says another."""
    seen = {"mesh_list": MeshList((mesh_ref("cluster1"), mesh_ref("cluster2")))} | more
    spec = VirtualDestinationSpec(
        hostname="front.global",
        port=VirtualDestinationPort(9080, "HTTP"),
        localized=LocalizedFailover((FRONT,)),
        **seen,
    )
    return VirtualDestination(metadata=meta("front"), spec=spec)


@pytest.mark.parametrize(
    ("more", "answers"),
    [
        ((), {"cluster1": Reach.UNKNOWN, "cluster2": Reach.YES, "cluster3": Reach.UNKNOWN}),
        ((together(),), {"cluster1": Reach.YES, "cluster2": Reach.YES, "cluster3": Reach.UNKNOWN}),
        # Two services on one cluster are an error, also where only one of them is asked about.
        ((together(), front("b-c")), {"cluster1": Reach.UNKNOWN, "cluster2": Reach.YES, "cluster3": Reach.UNKNOWN}),
    ],
    ids=["alone", "behind-a-virtual-destination", "not-alone-behind-it"],
)
def test_a_virtual_destination_leads_to_what_is_not_federated(
    more: Sequence[Resource], answers: Mapping[str, Reach]
) -> None:
    found = [*three_clusters(), front("default"), *more]
    joined = virtual_mesh("cluster1", "cluster2", "cluster3", federation=NOTHING)
    calling = workloads(service(cluster, "client") for cluster in answers)
    everything = {(each.KIND, each.ref): each for each in (*found, joined, *calling)}

    reachability = Reachability(previewed(everything.values(), "default"))

    callee = Ref("cluster2", "default", "front")
    assert {
        cluster: reachability.can(Ref(cluster, "default", "client-v1"), callee).answer for cluster in answers
    } == answers


def test_without_a_gateway_a_virtual_destination_does_not_lead_to_another_cluster() -> None:
    found = [each for each in three_clusters() if each.metadata.name != "istio-ingressgateway-istio-system-cluster2"]
    calling = workloads([service("cluster1", "client")])
    everything = {(each.KIND, each.ref): each for each in (*found, front("default"), together(), *calling)}

    reachability = Reachability(previewed(everything.values()))

    verdict = reachability.can(Ref("cluster1", "default", "client-v1"), Ref("cluster2", "default", "front"))
    assert verdict.answer is Reach.UNKNOWN


# --- whatever there is ------------------------------------------------------------------------------------------------

fleets_of_objects = st.tuples(
    st.lists(histories.discovered, max_size=8),
    st.lists(histories.stances, max_size=1),
    st.lists(histories.access_policies | histories.virtual_destinations, max_size=6),
    st.lists(virtual_gateways, max_size=2),
).map(lambda drawn: {(each.KIND, each.ref): each for each in (*three_clusters(), *itertools.chain(*drawn))})


@settings(max_examples=80, deadline=None)
@given(fleets_of_objects, st.sampled_from(("", "default", "b-c", "istio-system")))
def test_a_part_of_a_fleet_is_translated_as_the_engine_does(
    drawn: Mapping[tuple[Kind, Ref], Resource], namespace: str
) -> None:
    """However much is left out since it is not asked about."""
    found = list(drawn.values())
    engine = translated(found)

    fleet = previewed(found, *([namespace] if namespace else []))

    def about(key: OutputKey) -> bool:
        return key.object.kind == AUTHORIZATION_POLICY.kind and key.object.namespace in (
            namespace or key.object.namespace,
            "istio-system",
            "other",
        )

    expected = {key: output.payload() for key, output in engine.outputs().items() if about(key)}
    assert {key: output.payload() for key, output in fleet.emitted.policies.items() if about(key)} == expected


@settings(max_examples=50, deadline=None)
@given(fleets_of_objects, st.sampled_from(("default", "b-c")))
def test_who_knows_a_service_is_told_alike_of_a_part_and_of_all(
    drawn: Mapping[tuple[Kind, Ref], Resource], namespace: str
) -> None:
    part, whole = (previewed(drawn.values(), *asked).emitted for asked in ([namespace], []))

    about = {
        ref
        for (kind, ref), each in drawn.items()
        if isinstance(each, Destination) and each.spec.kube_service and service_of(each).namespace == namespace
    }
    assert {ref: part.known_to.get(ref) for ref in about} == {ref: whole.known_to.get(ref) for ref in about}
    assert {ref: part.trouble.get(ref) for ref in about} == {ref: whole.trouble.get(ref) for ref in about}
