"""Facts that federation is made of, one at a time."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.api.base import Empty
from isthmus.api.common import IstioMtls, MtlsPolicy, TlsMode
from isthmus.api.discovery import Destination, DestinationStatus, ExternalAddress, Mesh, ServicePort, ServiceType
from isthmus.api.settings import Settings, SettingsSpec
from isthmus.api.virtual_mesh import Federation, MtlsConfig, VirtualMesh
from isthmus.model.names import MAX_NAME
from isthmus.model.ref import Ref
from isthmus.translate import Engine, StatusKey
from isthmus.translate.facts import EndpointFacts, endpoint_facts, service_facts
from isthmus.translate.federation.addresses import AddressBook, candidate
from isthmus.translate.federation.gateways import choose_gateways
from isthmus.translate.federation.objects import label_shares, rule_name
from isthmus.translate.listing import MAX_LISTED_DESTINATIONS
from isthmus.translate.ports import protocol_of
from tests.unit.translate.fleets import gateway, mesh, mesh_ref, meta, service, virtual_mesh

V1, V2 = {"version": "v1"}, {"version": "v2"}


def endpoints(**pods: int) -> EndpointFacts:
    found = service("cluster2", "reviews", pods=pods)
    facts = endpoint_facts(found.ref, found)
    assert facts is not None
    return facts


@pytest.mark.parametrize(
    ("name", "namespace", "cluster", "address"),
    [("reviews", "default", "cluster2", "242.194.25.227"), ("some-svc", "some-ns", "cluster", "243.21.204.125")],
)
def test_addresses_are_those_of_existing_installations(name: str, namespace: str, cluster: str, address: str) -> None:
    """The reference's test vectors: whoever migrates keeps the addresses that clients may have cached."""
    assert candidate(Ref(cluster, namespace, name), 0) == address


@given(st.text("abc-", max_size=20), st.integers(0, 50))
def test_addresses_stay_inside_their_block(name: str, attempt: int) -> None:
    """Every candidate is in 240.0.0.0/4 and none in 255.0.0.0/8."""
    first = int(candidate(Ref("cluster1", "default", name), attempt).split(".")[0])

    assert 240 <= first < 255


@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=60))
def test_addresses_are_unique_and_stay(history: list[tuple[int, bool]]) -> None:
    """However names come and go, no two that are there share an address, and none changes its own while it is there."""
    book, held = AddressBook(), dict[str, str]()

    for number, there in history:
        hostname = f"host-{number}"
        # Every name has the identity of one of three services, so almost all of them collide.
        changes = book.update({hostname: Ref("cluster1", "default", f"svc-{number % 3}") if there else None})
        for changed, address in changes.items():
            assert changed == hostname
            held.pop(changed, None)
            if address is not None:
                held[changed] = address
        assert len(set(held.values())) == len(held)

    again = AddressBook(book.displaced)
    assert again.update({host: Ref("cluster1", "default", f"svc-{int(host[5:]) % 3}") for host in held}) == held


def test_a_list_that_promises_an_address_twice_is_not_believed() -> None:
    """Whoever edits the stored list cannot make two names share an address."""
    book = AddressBook({"b": "240.0.0.1", "a": "240.0.0.1"})

    found = book.update({name: Ref("cluster1", "default", name) for name in ("b", "a")})

    assert found["a"] == "240.0.0.1" != found["b"]
    assert book.displaced == {"a": "240.0.0.1"}


def test_no_subset_needs_one_endpoint() -> None:
    """While nobody tells versions apart, their numbers do not matter."""
    assert [share.labels for share in label_shares(endpoints(v1=1, v2=7), ())] == [{}]


def test_versions_are_told_apart_with_coarse_weights() -> None:
    """Shares follow ready pods by powers of two, so that 5 and 8 pods weigh the same."""
    shares = [
        [share.weight for share in label_shares(endpoints(v1=1, v2=pods), (tuple(V1.items()), tuple(V2.items())))]
        for pods in range(1, 9)
    ]

    assert shares == [[0, 0], [1, 2], [1, 4], [1, 4], [1, 8], [1, 8], [1, 8], [1, 8]]


def test_a_cut_list_is_weighed_by_what_was_counted() -> None:
    """A service of 24,000 endpoints lists a part of them; the weights are those of all."""
    facts = EndpointFacts(
        endpoints(v1=3, v2=3).subsets,
        {(("app", "reviews"), ("version", "v1")): 16000, (("version", "v2"),): 8000},
        region="",
    )

    assert [(share.labels, share.weight) for share in label_shares(facts, (tuple(V1.items()),))] == [(V1, 2), (V2, 1)]


@given(st.text("abcdefgh-", min_size=1, max_size=63), st.text("abc", min_size=1, max_size=63))
def test_rule_names_are_names(name: str, namespace: str) -> None:
    """A DestinationRule's name is a DNS label however long the service's parts are."""
    assert len(rule_name(Ref("cluster1", namespace, name))) <= MAX_NAME


@pytest.mark.parametrize(
    ("name", "app_protocol", "protocol"),
    [
        ("http", "", "HTTP"),
        ("http2-api", "", "HTTP2"),
        ("grpc-web-ui", "", "GRPC-WEB"),
        ("grpc-webhook", "", "GRPC-WEB"),
        ("HTTPS-x", "", "HTTPS"),
        ("", "", "TCP"),
        ("smtp", "", "TCP"),
        ("http", "tcp", "TCP"),
        ("x", "kubernetes.io/h2c", "HTTP2"),
    ],
)
def test_protocols_follow_istios_rules(name: str, app_protocol: str, protocol: str) -> None:
    """An appProtocol beats the name, the name's prefix tells the protocol, anything else is TCP."""
    assert protocol_of(ServicePort(port=1, name=name, app_protocol=app_protocol, protocol="TCP")) == protocol


def test_a_node_port_gateway_needs_its_node_port() -> None:
    """Nodes do not listen at the service's port, so without a node port there is no way in."""
    found = service(
        "cluster1",
        "istio-ingressgateway",
        selector={"istio": "ingressgateway"},
        ports=(ServicePort(port=15443, name="tls", protocol="TCP"),),
        type=ServiceType.NODE_PORT,
        addresses=(ExternalAddress(ip="203.0.113.1"),),
    )
    facts = service_facts(found.ref, found)
    assert facts is not None

    chosen = choose_gateways((), (facts,))

    assert chosen.gateways == ()
    assert "has no node port" in chosen.errors[0]


def status(engine: Engine, kind: type, name: str) -> object:
    return engine.status(StatusKey(kind.KIND, "gloo-mesh", name))  # type: ignore[attr-defined]


def test_what_discovery_warned_of_stays_in_the_status() -> None:
    """A warning that an agent reports with an object is in the status that users see."""
    found = service("cluster1", "reviews")
    engine = Engine()
    engine.set(msgspec.structs.replace(found, status=DestinationStatus(warnings=("odd",))))
    engine.set(mesh("cluster1"))
    engine.run()

    assert status(engine, Destination, found.metadata.name).warnings == ("odd",)  # type: ignore[attr-defined]
    assert status(engine, Mesh, "istiod-istio-system-cluster1").warnings == ()  # type: ignore[attr-defined]


def test_a_status_of_very_many_destinations_fits_an_api_server() -> None:
    """Beyond a bound the status lists destinations with errors first, and says how many it leaves out."""
    engine = Engine()
    for cluster, address in (("cluster1", "203.0.113.1"), ("cluster2", None)):
        engine.set(mesh(cluster))
        engine.set(gateway(cluster, address))
    for number in range(MAX_LISTED_DESTINATIONS):
        engine.set(service("cluster1", f"service-{number}"))
    engine.set(service("cluster2", "unreachable"))
    engine.set(virtual_mesh("cluster1", "cluster2"))
    engine.run()

    found = status(engine, VirtualMesh, "virtual-mesh")

    assert len(found.destinations) == MAX_LISTED_DESTINATIONS  # type: ignore[attr-defined]
    assert found.destinations["unreachable-default-cluster2.gloo-mesh."].errors  # type: ignore[attr-defined]
    assert f"lists {MAX_LISTED_DESTINATIONS} of {MAX_LISTED_DESTINATIONS + 3}" in found.warnings[-1]  # type: ignore[attr-defined]


def test_a_virtual_mesh_that_federates_nothing_says_so() -> None:
    """One mesh named twice, or two revisions that share a root namespace, are accepted with a warning."""
    canary = mesh_ref("cluster1", "istiod-canary")
    warnings = {}
    for name, members in {"twice": ("cluster1", "cluster1"), "revisions": ("cluster1", canary)}.items():
        engine = Engine()
        for resource in (mesh("cluster1"), mesh("cluster1", plane="istiod-canary"), gateway("cluster1")):
            engine.set(resource)
        engine.set(gateway("cluster1", plane="istiod-canary", object_name="other-gateway"))
        engine.set(virtual_mesh(*members))
        engine.run()
        warnings[name] = str(status(engine, VirtualMesh, "virtual-mesh").warnings)  # type: ignore[attr-defined]

    assert "fewer than two meshes federates nothing" in warnings["twice"]
    assert "share root namespace istio-system of cluster cluster1" in warnings["revisions"]


def test_what_is_not_implemented_is_not_accepted() -> None:
    """Limited trust is an error, as in the reference."""
    found = virtual_mesh("cluster1", "cluster2")
    spec = msgspec.structs.replace(found.spec, mtls_config=MtlsConfig(limited=Empty()))
    engine = Engine()
    engine.set(msgspec.structs.replace(found, spec=spec))
    engine.run()

    errors = status(engine, VirtualMesh, "virtual-mesh").errors  # type: ignore[attr-defined]

    assert any("spec.mtlsConfig.limited" in error for error in errors)


def test_settings_without_effect_are_warned_of() -> None:
    """Settings are accepted, and what in them does nothing is named."""
    engine = Engine()
    mtls = MtlsPolicy(istio=IstioMtls(tls_mode=TlsMode.SIMPLE))
    engine.set(Settings(metadata=meta("settings"), spec=SettingsSpec(mtls=mtls)))
    engine.run()

    assert "spec.mtls" in str(status(engine, Settings, "settings").warnings)  # type: ignore[attr-defined]


@pytest.mark.parametrize("suffix", [".global", "Global", "a b", "x..y", "-x", "*.global"])
def test_a_suffix_that_is_no_dns_name_is_refused(suffix: str) -> None:
    """Nothing is written under names that no API server takes; the status says which field is wrong."""
    engine = Engine()
    for cluster in ("cluster1", "cluster2"):
        for resource in (mesh(cluster), gateway(cluster), service(cluster, "reviews")):
            engine.set(resource)
    engine.set(virtual_mesh("cluster1", "cluster2", federation=Federation(hostname_suffix=suffix)))
    engine.run()

    errors = status(engine, VirtualMesh, "virtual-mesh").errors  # type: ignore[attr-defined]

    assert engine.outputs() == {}
    assert any("spec.federation.hostnameSuffix" in error for error in errors)


def test_a_service_of_five_hundred_ports_keeps_them_all() -> None:
    """Every port of a service is listed once, at the service's number here and at the gateway's port there."""
    ports = tuple(ServicePort(port=1000 + i, name=f"http-{i}", protocol="TCP") for i in range(500))
    engine = Engine()
    for cluster in ("cluster1", "cluster2"):
        engine.set(mesh(cluster))
        engine.set(gateway(cluster))
    engine.set(service("cluster2", "wide", ports=ports))
    engine.set(virtual_mesh("cluster1", "cluster2"))
    engine.run()

    (entry,) = (
        output.object.spec  # type: ignore[attr-defined]
        for key, output in engine.outputs().items()
        if key.cluster == "cluster1" and key.object.kind == "ServiceEntry" and key.object.name.startswith("wide.")
    )

    assert [port.number for port in entry.ports] == [port.port for port in ports]
    assert entry.endpoints[0].ports == {port.name: 15443 for port in ports}
