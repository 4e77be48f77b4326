"""What `meshctl describe` says about a policy."""

from __future__ import annotations

from typing import Any

from isthmus.api.base import Resource
from isthmus.cli.description.parts import Known, Parts, Section, outcome_facts, selected, state_of


def describe(resource: Resource, known: Known) -> Parts:
    """A kind without a description of its own: its outcome, and the destinations that its selector chooses."""
    status: Any = getattr(resource, "status", None)
    selectors = getattr(resource.spec, "destination_selector", None)  # type: ignore[attr-defined]  # every kind has one
    sections = []
    if isinstance(selectors, tuple):
        outcomes = getattr(status, "destinations", {}) if status else {}
        chosen = tuple(
            (found.metadata.name, state_of(outcomes.get(found.ref.key)))
            for found in selected(selectors, known.destinations)
        )
        sections.append(Section("Selected destinations", ("DESTINATION", "STATE"), chosen))
    if workloads := tuple((key,) for key in getattr(status, "workloads", ())):
        sections.append(Section("Workloads", ("WORKLOAD",), workloads))
    return outcome_facts(resource), sections
