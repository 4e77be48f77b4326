"""Statuses of VirtualGateways, VirtualHosts and RouteTables, and what TrafficPolicies' say of routes.

Source: reference, status of these kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from isthmus.api.common import AppliedIngressGateway, ApprovalState, ObjectRef, ObjectRefList
from isthmus.api.discovery import DestinationStatus
from isthmus.api.route_table import RouteTable, RouteTableStatus, SelectedBy
from isthmus.api.traffic_policy import AppliedTrafficPolicy, GatewayRoutes, TrafficPolicyStatus
from isthmus.api.virtual_gateway import VirtualGateway, VirtualGatewayStatus
from isthmus.api.virtual_host import VirtualHost, VirtualHostStatus
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate.gateways.findings import Finding, Weight
from isthmus.translate.gateways.objects import IngressGateway, gateway_name
from isthmus.translate.listing import object_ref
from isthmus.translate.output import StatusKey


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """What became of an object."""

    state: ApprovalState
    errors: tuple[str, ...]
    warnings: tuple[str, ...]


def verdict(problems: Sequence[Problem], warnings: Iterable[str], findings: Iterable[Finding]) -> Verdict:
    """What became of an object with *problems* and *warnings* of its own, about which there are *findings*."""
    found = sorted(findings)
    errors = [*map(str, problems), *(each.message for each in found if each.weight is Weight.ERROR)]
    later = [each.message for each in found if each.weight is Weight.LATER]
    said = [*warnings, *(each.message for each in found if each.weight is Weight.WARNING)]
    state = ApprovalState.ACCEPTED
    if errors or later:
        state = ApprovalState.INVALID if errors else ApprovalState.PENDING
    return Verdict(state, tuple(dict.fromkeys(errors + later)), tuple(dict.fromkeys(said)))


def virtual_gateway_status(
    gateway: VirtualGateway,
    outcome: Verdict,
    serving: Sequence[IngressGateway],
    written: Sequence[IngressGateway],
    hosts: Iterable[Ref],
    tables: Iterable[Ref],
) -> VirtualGatewayStatus:
    """Status of *gateway*: *serving* are the gateways that it has, *written* those that there is an object for."""
    created: dict[str, list[ObjectRef]] = {}
    for each in written:
        name = gateway_name(gateway.ref, each.where)
        created.setdefault(each.cluster, []).append(ObjectRef(name=name, namespace=each.where.namespace))
    return VirtualGatewayStatus(
        observed_generation=gateway.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=outcome.warnings,
        applied_ingress_gateways=tuple(
            AppliedIngressGateway(
                destination_ref=object_ref(each.service.ref),
                external_addresses=each.service.external_addresses,
                port=each.port.port,
                external_port=each.external_port,
            )
            for each in serving
        ),
        selected_virtual_hosts=_refs(hosts),
        selected_route_tables=_refs(tables),
        created_istio_gateways={cluster: ObjectRefList(refs=tuple(refs)) for cluster, refs in sorted(created.items())},
    )


def virtual_host_status(
    host: VirtualHost,
    outcome: Verdict,
    gateways: Iterable[Ref],
    tables: Iterable[Ref],
    policies: tuple[AppliedTrafficPolicy, ...],
) -> VirtualHostStatus:
    """Status of *host*, which *gateways* serve."""
    return VirtualHostStatus(
        observed_generation=host.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=outcome.warnings,
        attached_virtual_gateways=_refs(gateways),
        selected_route_tables=_refs(tables),
        applied_traffic_policies=policies,
    )


def route_table_status(
    table: RouteTable,
    outcome: Verdict,
    selected_by: Iterable[SelectedBy],
    tables: Iterable[Ref],
    policies: tuple[AppliedTrafficPolicy, ...],
) -> RouteTableStatus:
    """Status of *table*."""
    return RouteTableStatus(
        observed_generation=table.metadata.generation,
        state=outcome.state,
        errors=outcome.errors,
        warnings=outcome.warnings,
        selected_by=tuple(sorted(selected_by, key=lambda each: (each.type.value, each.namespace, each.name))),
        selected_route_tables=_refs(tables),
        applied_traffic_policies=policies,
    )


class OnRoutes(msgspec.Struct, frozen=True, gc=False):
    """What a TrafficPolicy does to routes of gateways: names of routes by object, and what is wrong there."""

    routes: dict[StatusKey, tuple[str, ...]]
    outcome: Verdict


def with_routes(status: TrafficPolicyStatus, on_routes: OnRoutes | None) -> TrafficPolicyStatus:
    """*status* of a TrafficPolicy, with what it does to routes; None: it selects none, or has a fault of its own."""
    if on_routes is None:
        return status
    outcome, warnings = on_routes.outcome, dict.fromkeys((*status.warnings, *on_routes.outcome.warnings))
    return msgspec.structs.replace(
        status,
        state=max(status.state, outcome.state, key=_GRAVITY.index),
        errors=(*status.errors, *outcome.errors),
        warnings=tuple(warnings),
        gateway_routes={
            f"{key.name}.{key.namespace} ({key.kind.kind})": GatewayRoutes(routes=names)
            for key, names in sorted(on_routes.routes.items())
        },
    )


_GRAVITY = (ApprovalState.ACCEPTED, ApprovalState.PENDING, ApprovalState.FAILED, ApprovalState.INVALID)

AnyStatus = VirtualGatewayStatus | VirtualHostStatus | RouteTableStatus


def with_failures(status: AnyStatus | DestinationStatus, failures: Sequence[str]) -> AnyStatus | DestinationStatus:
    """*status*, of an object whose outputs could not all be written."""
    if not failures:
        return status
    state = max(status.state, ApprovalState.FAILED, key=_GRAVITY.index)
    return msgspec.structs.replace(status, state=state, errors=(*status.errors, *failures))


def _refs(refs: Iterable[Ref]) -> tuple[ObjectRef, ...]:
    return tuple(object_ref(ref) for ref in sorted(set(refs)))
