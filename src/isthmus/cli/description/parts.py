"""What descriptions are made of, and what several kinds show alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.common import ApprovalStatus, DestinationSelector, ObjectRef
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.translate.facts import service_facts
from isthmus.translate.selectors import rules_of, selects


class Section(msgspec.Struct, frozen=True):
    """A titled table. Without rows it still says that there is nothing."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    more: int = 0
    """Rows that are left out."""


class Description(msgspec.Struct, frozen=True):
    """An object: one-line facts, what it selects and is selected by, and its problems."""

    kind: str
    namespace: str
    name: str
    facts: dict[str, str]
    sections: tuple[Section, ...]


class Known(msgspec.Struct, frozen=True):
    """The objects of the management cluster, as far as a description looks at them."""

    meshes: tuple[Mesh, ...] = ()
    workloads: tuple[Workload, ...] = ()
    destinations: tuple[Destination, ...] = ()
    traffic_policies: tuple[TrafficPolicy, ...] = ()
    access_policies: tuple[AccessPolicy, ...] = ()

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Known:
        """Those of *resources* that descriptions look at."""
        found = tuple(resources)
        return cls(
            meshes=tuple(item for item in found if isinstance(item, Mesh)),
            workloads=tuple(item for item in found if isinstance(item, Workload)),
            destinations=tuple(item for item in found if isinstance(item, Destination)),
            traffic_policies=tuple(item for item in found if isinstance(item, TrafficPolicy)),
            access_policies=tuple(item for item in found if isinstance(item, AccessPolicy)),
        )


Parts = tuple[dict[str, str], list[Section]]
"""Facts and sections of one object; empty facts are left out."""


def selected(selectors: tuple[DestinationSelector, ...], destinations: Iterable[Destination]) -> list[Destination]:
    """The *destinations* that *selectors* choose; no selectors choose all."""
    rules = list(rules_of(selectors))
    chosen = []
    for destination in destinations:
        facts = service_facts(destination.ref, destination)
        if facts is not None and any(selects(rule, facts) for rule in rules):
            chosen.append(destination)
    return chosen


def outcome_facts(resource: Resource) -> dict[str, str]:
    """The outcome of *resource* as a fact; none of a kind without a status."""
    status: Any = getattr(resource, "status", None)
    state = getattr(status, "state", None)
    if status is None or state is None:
        return {"State": "not processed yet"} if hasattr(resource, "status") else {}
    stale = status.observed_generation != resource.metadata.generation
    return {"State": state.value + (" (of an older version of the object)" if stale else "")}


def problems_of(resource: Resource) -> Iterable[tuple[str, str]]:
    """Names of objects in the status of *resource*, and what it says is wrong with them."""
    status: Any = getattr(resource, "status", None)
    if status is None:
        return
    own = [*getattr(status, "errors", ()), *getattr(status, "warnings", ())]
    if error := getattr(status, "error", ""):
        own.append(error)
    for text in dict.fromkeys(own):
        yield resource.metadata.name, text
    for part in ("meshes", "destinations"):
        outcomes: Mapping[str, ApprovalStatus] = getattr(status, part, {})
        for key, outcome in sorted(outcomes.items()):
            for text in (*outcome.errors, *outcome.warnings):
                if text not in own:
                    yield key.split(".")[0], text


def state_of(outcome: ApprovalStatus | None) -> str:
    """The state in *outcome*; empty if there is none yet."""
    return outcome.state.value if outcome else ""


def identity(workload: Workload, mesh: Mesh) -> str:
    """The SPIFFE identity of the pods of *workload*."""
    kubernetes = workload.spec.kubernetes
    if kubernetes is None:
        return ""
    domain = (mesh.spec.istio.trust_domain if mesh.spec.istio else "") or "cluster.local"
    return f"spiffe://{domain}/ns/{kubernetes.controller.namespace}/sa/{kubernetes.service_account_name or 'default'}"


def gateway_rows(mesh: Mesh) -> Iterable[tuple[str, str, str]]:
    """The east-west gateways of *mesh*: name, addresses and port."""
    for gateway in mesh.status.applied_east_west_ingress_gateways if mesh.status else ():
        yield gateway.destination_ref.name, ", ".join(gateway.external_addresses), str(gateway.external_port)


def destination_row(destination: Destination) -> tuple[str, str, str]:
    """Name of *destination*, its host name, and that on other meshes."""
    status = destination.status
    applied = status.applied_federation if status else None
    return destination.metadata.name, status.local_fqdn if status else "", applied.federated_hostname if applied else ""


def is_behind(workload: Workload, destination: Destination) -> bool:
    """Whether *destination* selects the pods of *workload*."""
    kubernetes, service = workload.spec.kubernetes, destination.spec.kube_service
    if kubernetes is None or service is None or not service.workload_selector_labels:
        return False
    where = kubernetes.controller
    return (where.cluster_name, where.namespace) == (service.ref.cluster_name, service.ref.namespace) and (
        service.workload_selector_labels.items() <= kubernetes.pod_labels.items()
    )


def listed(refs: Iterable[ObjectRef]) -> str:
    """The names of *refs*."""
    return ", ".join(ref.name for ref in refs)


def pairs(labels: Mapping[str, str]) -> str:
    """*labels* by name."""
    return ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
