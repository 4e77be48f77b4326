"""What istiod makes of the ServiceEntry beside a gateway is where Kubernetes would have sent the call."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.base import Resource
from isthmus.api.discovery import Endpoint, EndpointPort, EndpointSubset, ServicePort, ServiceType
from isthmus.istio.objects import ServiceEntry, ServiceEntrySpec
from isthmus.model.ref import Ref
from isthmus.translate.facts import EndpointFacts, ServiceFacts
from isthmus.translate.federation.local import Asked, local_entry, reads_endpoints
from isthmus.translate.federation.objects import CLUSTER_LABEL
from tests.unit.translate.histories import Step, histories, starts
from tests.unit.translate.test_properties import Followed

NAMES = ("web", "http", "grpc-admin", "east-west-port-")  # a container's port has at most 15 characters
SELECTOR = {"app": "reviews"}
numbers = st.integers(8000, 8003)
containers = st.fixed_dictionaries(dict.fromkeys(NAMES, numbers))
targets = st.sampled_from(NAMES) | numbers


class Pod(NamedTuple):
    """An address, and the numbers that its container gives to names."""

    address: str
    container: dict[str, int]


fleets = st.lists(containers, max_size=3).map(lambda found: [Pod(f"10.0.0.{i}", each) for i, each in enumerate(found)])


def service_of(wanted: list[str | int], *, selects: bool) -> ServiceFacts:
    ports = tuple(
        ServicePort(
            port=80 + i,
            name=NAMES[i],
            protocol="TCP",
            target_port_name=target if isinstance(target, str) else None,
            target_port_number=target if isinstance(target, int) else None,
        )
        for i, target in enumerate(wanted)
    )
    ref = Ref("cluster1", "shop", "reviews")
    return ServiceFacts(ref, ref, ref, {}, SELECTOR if selects else {}, ports, ServiceType.CLUSTER_IP, ())


def kubernetes(service: ServiceFacts, pod: Pod) -> dict[int, int]:
    """Where *pod* answers for each port of the service."""
    return {p.port: pod.container[p.target_port_name] if p.target_port_name else p.target_port_number or 0
            for p in service.ports}  # fmt: skip


def facts_of(service: ServiceFacts, pods: list[Pod]) -> EndpointFacts:
    """What discovery lists: a subset for each pod."""
    subsets = tuple(
        EndpointSubset(
            endpoints=(Endpoint(ip_address=pod.address),),
            ports=tuple(
                EndpointPort(port=kubernetes(service, pod)[p.port], name=p.name, protocol="TCP") for p in service.ports
            ),
        )
        for pod in pods
    )
    return EndpointFacts(subsets, None, "")


def istiod(entry: ServiceEntrySpec, pod: Pod, *, reads_containers: bool) -> dict[int, int]:
    """Where istiod has *pod* answer, if the entry selects it: since 1.15 it reads the names of containers' ports."""
    named = pod.container if reads_containers else {}
    return {p.number: named.get(p.name) or p.target_port or p.number for p in entry.ports}


def written(service: ServiceFacts, facts: EndpointFacts | None) -> ServiceEntrySpec:
    asked = (Asked(port.port, port) for port in service.ports)
    entry: ServiceEntry = local_entry("reviews.global", service, asked, facts, ("gateways",), {})
    assert (entry.metadata.namespace, entry.spec.export_to) == ("shop", ("gateways",))
    assert entry.spec.workload_selector is None or not entry.spec.endpoints
    assert len({port.name for port in entry.spec.ports}) == len(service.ports)
    return entry.spec


@given(st.lists(targets, min_size=1, max_size=4), fleets, st.booleans(), st.booleans())
def test_every_pod_is_asked_where_it_answers(
    wanted: list[str | int], pods: list[Pod], selects: bool, reads_containers: bool
) -> None:
    """Of whatever names and numbers the ports are, with every Istio, selected or listed."""
    service = service_of(wanted, selects=selects)

    entry = written(service, facts_of(service, pods))

    if entry.workload_selector is not None:
        assert entry.workload_selector.labels == SELECTOR
        found = {pod.address: istiod(entry, pod, reads_containers=reads_containers) for pod in pods}
    else:
        names = {port.name: port.number for port in entry.ports}
        found = {e.address: {names[name]: number for name, number in e.ports.items()} for e in entry.endpoints}
    assert found == {pod.address: kubernetes(service, pod) for pod in pods}


@given(st.lists(targets, min_size=1, max_size=4), fleets, fleets)
def test_pods_that_nobody_told_of_are_asked_where_they_answer(
    wanted: list[str | int], before: list[Pod], after: list[Pod]
) -> None:
    """What selects holds for other pods too, which give other numbers to the same names; a second port may not."""
    names = [target for target in wanted if isinstance(target, str)]
    service = service_of(wanted, selects=True)

    entry = written(service, facts_of(service, before))

    followed = len(set(names)) == len(names)
    if entry.workload_selector is not None and followed:
        for pod in after:
            assert istiod(entry, pod, reads_containers=True) == kubernetes(service, pod)


@given(st.lists(targets, min_size=1, max_size=4), st.booleans(), fleets)
def test_endpoints_are_read_where_the_entry_depends_on_them(
    wanted: list[str | int], selects: bool, pods: list[Pod]
) -> None:
    """Where they need not be read, the entry is the same whatever they are."""
    service = service_of(wanted, selects=selects)

    if not reads_endpoints(service):
        assert written(service, facts_of(service, pods)) == written(service, None)


@given(starts, histories)
@settings(max_examples=60, deadline=None)
def test_gateways_know_each_host_that_clients_send_them(start: list[Resource], history: list[Step]) -> None:
    """Whatever users write, a host that is reached through gateways is told to those of its cluster, with its ports."""
    followed = Followed(start)

    followed.follow(history)

    entries = [(key.cluster, o.object.spec) for key, o in followed.engine.outputs().items()
               if isinstance(o.object, ServiceEntry)]  # fmt: skip
    told = {(cluster, host): entry for cluster, entry in entries if entry.export_to for host in entry.hosts}
    for _, entry in entries:
        if entry.resolution == "DNS" and not entry.export_to:
            for home in {e.labels[CLUSTER_LABEL] for e in entry.endpoints if CLUSTER_LABEL in e.labels}:
                known = told[home, entry.hosts[0]]
                assert [port.number for port in known.ports] == [port.number for port in entry.ports]
