"""What `meshctl describe` says about a VirtualDestination: what is behind its host name, and who sees and uses it."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.api.discovery import Destination
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.cli.description.parts import Known, Parts, Section, outcome_facts, state_of
from isthmus.cli.description.traffic import name_of
from isthmus.model.ref import Ref
from isthmus.translate.facts import endpoint_facts


def describe(virtual: VirtualDestination, known: Known) -> Parts:
    """The parts of a virtual destination, with its members and their places, and the policies that send calls there."""
    spec, status = virtual.spec, virtual.status
    ports = (*((spec.port,) if spec.port is not None else ()), *spec.ports)
    facts = {
        **outcome_facts(virtual),
        "Host name": spec.hostname,
        "Ports": ", ".join(f"{port.number} {port.protocol or 'http'}" for port in ports),
        "Order": "fixed" if spec.static is not None else "nearest first",
    }
    destinations = {found.ref: found for found in known.destinations}
    members = [
        (each.ref.name, row)
        for each in (status.selected_destinations if status else ())
        for row in _places(destinations.get(Ref("", each.ref.namespace, each.ref.name)))
    ]
    meshes = tuple(
        (key.partition(".")[0], state_of(outcome)) for key, outcome in (status.meshes if status else {}).items()
    )
    using = tuple((name_of(policy),) for policy in _using(virtual, known))
    return facts, [
        Section(
            "Members",
            ("DESTINATION", "CLUSTER", "REGION", "ZONE", "READY PODS"),
            tuple((name, *row) for name, row in members),
        ),
        Section("Seen on", ("MESH", "STATE"), meshes),
        Section("Used by", ("POLICY",), using),
    ]


def _places(destination: Destination | None) -> Iterator[tuple[str, str, str, str]]:
    """Cluster, region and zone of the ready pods of *destination*, and how many there are."""
    service = destination.spec.kube_service if destination is not None else None
    facts = endpoint_facts(destination.ref, destination) if destination is not None else None
    if service is None or facts is None:
        yield "not discovered", "", "", ""
        return
    zones: dict[str, int] = {}
    for _, zone, _, count in facts.ready():
        zones[zone] = zones.get(zone, 0) + count
    for zone, count in sorted(zones.items()) or [("", 0)]:
        yield service.ref.cluster_name, facts.region, zone, str(count)


def _using(virtual: VirtualDestination, known: Known) -> Iterator[Ref]:
    for policy in known.traffic_policies:
        shift = policy.spec.policy.traffic_shift if policy.spec.policy is not None else None
        for target in shift.destinations if shift is not None else ():
            named = target.virtual_destination
            if named is not None and (named.namespace, named.name) == (virtual.ref.namespace, virtual.ref.name):
                yield policy.ref
                break
