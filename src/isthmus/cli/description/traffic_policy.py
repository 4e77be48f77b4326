"""What `meshctl describe` says about a TrafficPolicy: what it sets, where it counts, and where another does."""

from __future__ import annotations

from collections.abc import Iterator

from isthmus.api.discovery import Destination
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.cli.description.parts import Known, Parts, Section, outcome_facts, selected, state_of
from isthmus.cli.description.traffic import Policies, conflicts_of, name_of, requests_of, value_text
from isthmus.translate.callers import matchers_of
from isthmus.translate.gateways.routes import fields_of_route
from isthmus.translate.traffic.merge import policy_facts


def describe(policy: TrafficPolicy, known: Known) -> Parts:
    """The parts of a traffic policy, with the destinations that it selects and its conflicts with others there."""
    spec, status = policy.spec, policy.status
    outcomes = status.destinations if status else {}
    about_services = bool(spec.destination_selector) or not spec.route_selector
    destinations = selected(spec.destination_selector, known.destinations) if about_services else []
    facts = {**outcome_facts(policy), "Callers": _callers(policy), "Requests": requests_of(policy)}
    said = {**policy_facts(policy).fields, **(fields_of_route(spec.policy) if spec.route_selector else {})}
    settings = tuple((field.value, value_text(value)) for field, value in said.items())
    chosen = tuple((found.metadata.name, state_of(outcomes.get(found.ref.key))) for found in destinations)
    policies = Policies(known)
    sections = [
        Section("Sets", ("FIELD", "VALUE"), settings),
        Section("Selected destinations", ("DESTINATION", "STATE"), chosen),
    ]
    on_routes = status.gateway_routes if status else {}
    if routes := tuple((name, ", ".join(found.routes)) for name, found in on_routes.items()):
        sections.append(Section("Routes of gateways", ("OBJECT", "ROUTES"), routes))
    if conflicts := tuple(row for found in destinations for row in _conflicts(policy, found, policies)):
        sections.append(Section("Conflicts", ("DESTINATION", "FIELD", "COUNTS", "LEFT OUT"), conflicts))
    if workloads := tuple((key.partition(".")[0],) for key in (status.workloads if status else ())):
        sections.append(Section("Calling workloads", ("WORKLOAD",), workloads))
    return facts, sections


def _conflicts(
    policy: TrafficPolicy, destination: Destination, policies: Policies
) -> Iterator[tuple[str, str, str, str]]:
    for conflict in conflicts_of(policies.merged(destination).values()):
        if policy.ref in (conflict.loser, conflict.winner):
            yield destination.metadata.name, conflict.field.value, name_of(conflict.winner), name_of(conflict.loser)


def _callers(policy: TrafficPolicy) -> str:
    return "; ".join(
        " and ".join(
            [
                *([f"cluster {' or '.join(matcher.clusters)}"] if matcher.clusters else []),
                *([f"namespace {' or '.join(matcher.namespaces)}"] if matcher.namespaces else []),
                *(f"{name}={value}" for name, value in sorted(matcher.labels.items())),
            ]
        )
        or "all"
        for matcher in matchers_of(policy.spec.source_selector)
    )
