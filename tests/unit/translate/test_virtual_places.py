"""Which pods are behind a virtual destination, and where they are, as clients and gateways are told."""

from __future__ import annotations

import msgspec
import pytest

from isthmus.api.common import ApprovalState
from isthmus.api.discovery import Endpoint, EndpointPort, EndpointSubset, ServicePort, SubLocality
from isthmus.api.virtual_destination import VirtualDestinationPort
from isthmus.translate.facts import EndpointFacts, ServiceFacts, service_facts
from isthmus.translate.virtual_destinations.facts import VirtualPort, problems_of
from isthmus.translate.virtual_destinations.objects import Place, places_of, pod_endpoints
from tests.unit.translate.fleets import engine_of, federated_pair, gateway, mesh, service, virtual_mesh
from tests.unit.translate.test_virtual_destinations import status, virtual

DNS = ServicePort(port=9080, name="dns", protocol="UDP")
WEB = ServicePort(port=9080, name="http", protocol="TCP")
PORT = VirtualPort(9080, "HTTP", "", 9080)


def at(address: str, zone: str, sub_zone: str) -> Endpoint:
    return Endpoint(ip_address=address, labels={"version": "v1"}, sub_locality=SubLocality(zone, sub_zone))


def facts_of(*endpoints: Endpoint, port: str = "http") -> EndpointFacts:
    subset = EndpointSubset(endpoints=endpoints, ports=(EndpointPort(port=8080, name=port, protocol="TCP"),))
    return EndpointFacts((subset,), None, "west")


def reviews(*ports: ServicePort) -> ServiceFacts:
    found = service("cluster1", "reviews", ports=ports)
    facts = service_facts(found.ref, found)
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("places", "found"),
    [
        ((("a", "x"), ("a", "x")), "west/a/x"),
        ((("a", "x"), ("a", "y")), "west/a"),
        ((("a", "x"), ("b", "x")), "west"),
    ],
)
def test_what_is_behind_a_gateway_is_in_the_smallest_place_that_holds_it_all(
    places: tuple[tuple[str, str], ...], found: str
) -> None:
    """Rack x of one zone is not rack x of another."""
    pods = (at(f"10.0.0.{number}", *place) for number, place in enumerate(places))

    assert places_of(facts_of(*pods), "west", ()) == (Place(found, (), 2),)


def test_pods_that_do_not_answer_at_the_port_are_left_out() -> None:
    """As those that were started before the port was, whose list of ports lacks it."""
    pod = at("10.0.0.1", "a", "")

    (found,) = pod_endpoints(facts_of(pod), reviews(WEB), (PORT,), "west")

    assert (found.address, found.ports, found.locality) == ("10.0.0.1", {"http-9080": 8080}, "west/a")
    assert pod_endpoints(facts_of(pod, port="admin"), reviews(WEB), (PORT,), "west") == ()


def test_a_udp_port_of_the_same_number_is_not_meant() -> None:
    assert PORT.of((DNS, WEB)) == WEB
    assert PORT.of((DNS,)) is None


def test_a_port_is_named_once() -> None:
    spec = msgspec.structs.replace(virtual().spec, ports=(VirtualDestinationPort(9080, "TCP"),))

    assert [str(problem) for problem in problems_of(spec)] == ["spec.ports[0].number: port 9080 is named twice"]


def test_of_two_that_want_one_name_the_older_has_it() -> None:
    """Whatever they are called."""
    first, second = (
        msgspec.structs.replace(each, metadata=msgspec.structs.replace(each.metadata, creation_timestamp=created))
        for each, created in (
            (virtual(name="zebra"), "2026-01-01T00:00:00Z"),
            (virtual(name="ant"), "2026-02-01T00:00:00Z"),
        )
    )
    engine = engine_of((*federated_pair(), second, first))
    engine.run()

    assert status(engine, "zebra").state is ApprovalState.ACCEPTED
    assert status(engine, "ant").errors == (
        "spec.hostname: reviews.global already belongs to VirtualDestination zebra.gloo-mesh.",
    )


def test_clusters_that_do_not_reach_each_other_share_no_name() -> None:
    clusters = ("cluster1", "cluster2")
    apart = [each for c in clusters for each in (mesh(c), gateway(c), service(c, "reviews"))]
    engine = engine_of((virtual_mesh(*clusters, federation=None), *apart, virtual()))
    engine.run()

    (error,) = status(engine).errors
    assert error.endswith("does not federate, so clusters do not reach each other")
