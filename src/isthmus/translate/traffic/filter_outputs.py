"""The EnvoyFilters of routes, as derived collections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.facts import MeshFacts
from isthmus.translate.federation.objects import metadata
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.traffic.derivations import Routed, Traffic
from isthmus.translate.traffic.filters import idle, insertion, on_route
from isthmus.translate.traffic.routes import Filtered

CALLERS = "SIDECAR_OUTBOUND"
CHAIN_NAME = "csrf"


class Needed(msgspec.Struct, frozen=True, gc=False):
    """What routes of one name need, and the objects in whose statuses a failure is told."""

    filtered: Filtered
    policies: tuple[Ref, ...]
    destination: Ref


class FilterOutputs:
    """The EnvoyFilters that routes to destinations need, in the root namespaces of the clusters that have such routes.

    There, since a caller may be in any namespace. One puts the filter into the chain, and one for each thing that is
    said says it of the routes that have its name.
    """

    def __init__(self, graph: Graph, *, traffic: Traffic, meshes: Collection[Ref, MeshFacts]) -> None:
        self._meshes: Index[str, Ref, MeshFacts] = graph.index(
            "meshes by cluster", meshes, lambda _, mesh: (mesh.cluster,)
        )
        filtered = graph.expand("routes with filters", traffic.routed, _filtered)
        by_name: Index[tuple[str, str], tuple[Ref, str, str], Filtered] = graph.index(
            "routes with filters by name", filtered, lambda key, _: (key[1:],)
        )
        needed: Collection[tuple[str, str], Needed] = graph.derive("needed filters", by_name, _need)
        by_cluster: Index[str, tuple[str, str], Needed] = graph.index("needed filters by cluster", needed, first_part)
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("filters of routes", needed, self._say),
            graph.expand("filters in chains", by_cluster, self._insert),
        )

    def _say(self, fetch: Fetch, key: tuple[str, str], needed: Needed) -> Iterable[tuple[OutputKey, Output]]:
        cluster, name = key
        yield from self._write(fetch, cluster, name, on_route(CALLERS, name, needed.filtered.said), needed)

    def _insert(
        self, fetch: Fetch, cluster: str, every: tuple[tuple[tuple[str, str], Needed], ...]
    ) -> Iterable[tuple[OutputKey, Output]]:
        policies = dict.fromkeys(policy for _, needed in every for policy in needed.policies)
        needed = msgspec.structs.replace(every[0][1], policies=tuple(sorted(policies)))
        yield from self._write(fetch, cluster, CHAIN_NAME, insertion(CALLERS, idle()), needed)

    def _write(
        self, fetch: Fetch, cluster: str, name: str, patch: istio.ConfigPatch, needed: Needed
    ) -> Iterator[tuple[OutputKey, Output]]:
        whose = parents(TrafficPolicy.KIND, *needed.policies)
        for root in dict.fromkeys(mesh.root_namespace for _, mesh in fetch.group(self._meshes, cluster)):
            made = istio.EnvoyFilter(
                metadata=metadata(name, root, parents_annotation(whose)),
                spec=istio.EnvoyFilterSpec(config_patches=(patch,)),
            )
            yield OutputKey(cluster, made.key), Output(made, whose, needed.destination)


def _filtered(_: Fetch, ref: Ref, routed: Routed) -> Iterator[tuple[tuple[Ref, str, str], Filtered]]:
    for client in routed.clients:
        for each in client.routing.filtered:
            yield (ref, client.place.cluster, each.name), each


def _need(_: Fetch, __: tuple[str, str], found: tuple[tuple[tuple[Ref, str, str], Filtered], ...]) -> Needed:
    policies = sorted({each.policy for _, each in found})
    return Needed(found[0][1], tuple(policies), found[0][0][0])
