"""What `meshctl describe` says about an object: plain functions from typed objects to a `Description`.

One module for each kind, `parts` for what they share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.base import Resource
from isthmus.api.discovery import Destination, Mesh, Workload
from isthmus.api.kubernetes_cluster import KubernetesCluster
from isthmus.api.route_table import RouteTable
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.api.virtual_destination import VirtualDestination
from isthmus.api.virtual_gateway import VirtualGateway
from isthmus.api.virtual_host import VirtualHost
from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.cli.description import (
    access_policy,
    cluster,
    destination,
    gateways,
    mesh,
    policy,
    traffic_policy,
    virtual_destination,
    virtual_mesh,
    workload,
)
from isthmus.cli.description.parts import Description, Known, Parts, Section, problems_of


class _Kind(msgspec.Struct, frozen=True):
    """How a kind is described, and which kinds that reads besides the object itself."""

    describe: Callable[[Any, Known], Parts] = policy.describe
    needs: tuple[type[Resource], ...] = ()


_KINDS: dict[type[Resource], _Kind] = {
    VirtualMesh: _Kind(virtual_mesh.describe, (Mesh, Destination)),
    Mesh: _Kind(mesh.describe, (Workload, Destination)),
    Workload: _Kind(workload.describe, (Mesh, Destination)),
    Destination: _Kind(destination.describe, (Mesh, Workload, TrafficPolicy, AccessPolicy)),
    KubernetesCluster: _Kind(cluster.describe, (Mesh, Workload, Destination)),
    TrafficPolicy: _Kind(traffic_policy.describe, (Mesh, Destination, TrafficPolicy)),
    VirtualDestination: _Kind(virtual_destination.describe, (Destination, TrafficPolicy)),
    VirtualGateway: _Kind(gateways.virtual_gateway),
    VirtualHost: _Kind(gateways.virtual_host),
    RouteTable: _Kind(gateways.route_table),
    AccessPolicy: _Kind(access_policy.describe, (Destination, Workload)),
}


def needed(kind: type[Resource]) -> tuple[type[Resource], ...]:
    """The kinds that the description of *kind* reads besides the object itself."""
    return _KINDS.get(kind, _Kind()).needs


def describe_object(resource: Resource, known: Known) -> Description:
    """Everything `meshctl describe` shows about *resource*."""
    facts, sections = _KINDS.get(type(resource), _Kind()).describe(resource, known)
    problems = Section("Problems", ("OBJECT", "PROBLEM"), tuple(problems_of(resource)))
    return Description(
        resource.KIND.kind,
        resource.metadata.namespace,
        resource.metadata.name,
        {name: value for name, value in facts.items() if value},
        (*sections, problems) if problems.rows else tuple(sections),
    )
