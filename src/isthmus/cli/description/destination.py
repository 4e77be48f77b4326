"""What `meshctl describe` says about a Destination."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from isthmus.api.common import ApprovalState
from isthmus.api.discovery import Destination
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.cli.description.access_policy import callers
from isthmus.cli.description.parts import Known, Parts, Section, is_behind, pairs, state_of
from isthmus.cli.description.traffic import Policies, conflicts_of, name_of, routes_sections, settings_of
from isthmus.translate.facts import endpoint_facts

MAX_ENDPOINTS = 50  # lines that a person still reads; `meshctl get -o yaml` has them all


def describe(destination: Destination, known: Known) -> Parts:
    """The parts of a destination, with its ports, endpoints and the meshes that know it."""
    status, service, external = destination.status, destination.spec.kube_service, destination.spec.external_service
    applied = status.applied_federation if status else None
    facts = {
        "Host name": status.local_fqdn if status else "",
        "On other meshes": applied.federated_hostname if applied else "not federated",
        "Mesh": destination.spec.mesh.name if destination.spec.mesh else "none",
    }
    sections = []
    if external is not None:
        facts = {
            "Type": "external service",
            "Host name": ", ".join(external.hosts),
            "State": status.state.value if status else "",
            "Mesh": destination.spec.mesh.name if destination.spec.mesh else "",
        }
        listed = tuple((str(p.number), p.name, p.protocol) for p in external.ports)
        sections.append(Section("Ports", ("PORT", "NAME", "PROTOCOL"), listed))
        answering = tuple(
            (each.address, ",".join(str(each.ports.get(port.name, port.number)) for port in external.ports))
            for each in external.endpoints
        )
        sections.append(Section("Endpoints", ("ADDRESS", "PORTS"), answering))
        meshes = tuple((ref.name,) for ref in applied.federated_to_meshes) if applied else ()
        sections.append(Section("Known on", ("MESH",), meshes))
        sections.append(Section("Traffic shifted there", ("POLICY", "STATE"), tuple(_shifting(destination, known))))
        return facts, sections
    if service is not None:
        facts |= {
            "Cluster": service.ref.cluster_name,
            "Service": f"{service.ref.namespace}/{service.ref.name}",
            "Type": service.service_type.value,
            "Region": service.region,
            "Labels": pairs(service.labels),
            "Pod selector": pairs(service.workload_selector_labels),
            "Subsets": "; ".join(f"{label} = {', '.join(v.values)}" for label, v in sorted(service.subsets.items())),
            "External addresses": ", ".join(found.ip or found.dns_name or "" for found in service.external_addresses),
        }
        ports = tuple((str(p.port), p.name, p.protocol, p.app_protocol) for p in service.ports)
        sections.append(Section("Ports", ("PORT", "NAME", "PROTOCOL", "APPLICATION"), ports))
        endpoints = [
            (
                endpoint.ip_address,
                ",".join(str(port.port) for port in subset.ports),
                endpoint.sub_locality.zone if endpoint.sub_locality else "",
                pairs(endpoint.labels),
            )
            for subset in service.endpoint_subsets
            for endpoint in subset.endpoints
        ]
        shown = tuple(endpoints[:MAX_ENDPOINTS])
        columns = ("ADDRESS", "PORTS", "ZONE", "LABELS")
        sections.append(Section("Endpoints", columns, shown, more=len(endpoints) - len(shown)))
        workloads = tuple((w.metadata.name,) for w in known.workloads if is_behind(w, destination))
        sections.append(Section("Workloads behind it", ("WORKLOAD",), workloads))
    meshes = tuple((ref.name,) for ref in applied.federated_to_meshes) if applied else ()
    sections.append(Section("Federated to", ("MESH",), meshes))
    sections += _traffic(destination, known)
    sections.append(Section("Access policies", ("POLICY", "STATE", "CALLERS"), tuple(_access(destination, known))))
    return facts, sections


def _access(destination: Destination, known: Known) -> Iterator[tuple[str, str, str]]:
    """The access policies on *destination*: those that it accepted, then those at fault, which may close it too.

    Its status lists the first, as the reference has it; the others say so themselves.
    """
    accepted = destination.status.applied_access_policies if destination.status else ()
    for found in accepted:
        yield (
            name_of(found.ref.ref),
            ApprovalState.ACCEPTED.value,
            callers(found.spec) if found.spec is not None else "",
        )
    for policy in known.access_policies:
        outcome = policy.status.destinations.get(destination.ref.key) if policy.status else None
        if outcome is not None and outcome.state is not ApprovalState.ACCEPTED:
            yield name_of(policy.ref), state_of(outcome), callers(policy.spec)


def _shifting(destination: Destination, known: Known) -> Iterator[tuple[str, str]]:
    """The traffic policies that send requests to the external service *destination*."""
    for policy in known.traffic_policies:
        shift = policy.spec.policy.traffic_shift if policy.spec.policy else None
        targets = (each.static_destination for each in shift.destinations) if shift else ()
        if any(target is not None and target.ref == destination.ref for target in targets):
            yield name_of(policy.ref), policy.status.state.value if policy.status else ""


def _traffic(destination: Destination, known: Known) -> Iterator[Section]:
    """The traffic policies on *destination*, what they come to, and the subsets that they name."""
    found = Policies(known)
    policies, merged = found.on(destination), found.merged(destination)
    key = destination.ref.key
    rows = tuple(
        (
            name_of(policy.ref),
            state_of(policy.status.destinations.get(key) if policy.status else None),
            settings_of(policy),
        )
        for policy in policies
    )
    yield Section("Traffic policies", ("POLICY", "STATE", "SETS"), rows)
    if merged:
        yield from routes_sections(merged)
    if conflicts := conflicts_of(merged.values()):
        lines = tuple((each.field.value, name_of(each.winner), name_of(each.loser)) for each in conflicts)
        yield Section("Conflicts", ("FIELD", "COUNTS", "LEFT OUT"), lines)
    if trouble := tuple(_trouble(policies, key)):
        yield Section("Trouble with policies", ("POLICY", "PROBLEM"), trouble)
    if subsets := tuple(_subsets(destination)):
        yield Section("Subsets in use", ("LABELS", "READY PODS", "POLICY"), subsets)


def _trouble(policies: Iterable[TrafficPolicy], destination: str) -> Iterator[tuple[str, str]]:
    """What is wrong with each policy on the destination with that status key."""
    for policy in policies:
        outcome = policy.status.destinations.get(destination) if policy.status else None
        for text in (*outcome.errors, *outcome.warnings) if outcome else ():
            yield name_of(policy.ref), text


def _subsets(destination: Destination) -> Iterator[tuple[str, str, str]]:
    """The subsets of *destination* that traffic shifts name."""
    service, facts = destination.spec.kube_service, endpoint_facts(destination.ref, destination)
    ready = list(facts.ready()) if facts is not None else []
    for required in destination.status.required_subsets if destination.status else ():
        for target in required.traffic_shift.destinations if required.traffic_shift else ():
            named = target.kube_service
            if service is not None and named is not None and named.ref == service.ref.ref and named.subset:
                count = sum(pods for labels, _, _, pods in ready if named.subset.items() <= labels.items())
                yield pairs(named.subset), str(count), name_of(required.traffic_policy_ref.ref)
