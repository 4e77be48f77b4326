"""What is written for virtual destinations, as derived collections."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from isthmus.api.virtual_destination import VirtualDestination
from isthmus.flow import Collection, Fetch, Graph
from isthmus.istio import objects as istio
from isthmus.model.ref import Ref
from isthmus.translate.facts import DEFAULT_CLUSTER_DOMAIN, EndpointFacts, local_fqdn
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.local import MUTUAL_TLS, Asked, local_entry, local_rule, reads_endpoints
from isthmus.translate.federation.objects import Pairs
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.traffic.derivations import Traffic, labels_of
from isthmus.translate.traffic.fields import Field
from isthmus.translate.virtual_destinations import objects
from isthmus.translate.virtual_destinations.derivations import Resolved, VirtualDestinations
from isthmus.translate.virtual_destinations.facts import VirtualDestinationFacts
from isthmus.translate.virtual_destinations.objects import Backing


class VirtualDestinationOutputs:
    """The objects of virtual destinations; traffic policies say which subsets are told apart."""

    def __init__(
        self,
        graph: Graph,
        *,
        virtual_destinations: VirtualDestinations,
        traffic: Traffic,
        federation: Federation,
        endpoints: Collection[Ref, EndpointFacts],
        cluster_domains: Collection[str, str],
    ) -> None:
        self._virtual_destinations = virtual_destinations
        self._traffic = traffic
        self._federation = federation
        self._endpoints = endpoints
        self._domains = cluster_domains
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("virtual destination outputs", virtual_destinations.resolved, self._write),
        )

    def _write(self, fetch: Fetch, ref: Ref, resolved: Resolved) -> Iterable[tuple[OutputKey, Output]]:
        if not resolved.works:
            return
        whose = parents(VirtualDestination.KIND, ref)
        annotations = parents_annotation(whose)
        name = self._virtual_destinations.object_name(fetch, resolved.facts)
        address = fetch.get(self._virtual_destinations.addresses, resolved.facts.hostname)
        assert address is not None, resolved.facts.hostname
        abroad = labels_of(self._traffic.uses_of(fetch, ref))
        clusters: dict[tuple[str, str], Ref] = {}
        for mesh in resolved.meshes:
            clusters.setdefault((mesh.cluster, mesh.root_namespace), mesh.ref)
        regions = {mesh.cluster: mesh.region for mesh in resolved.meshes}
        for (cluster, namespace), mesh_ref in clusters.items():
            facts = self._watched(fetch, resolved, cluster).seen_from(regions[cluster])
            endpoints, by_name = self._endpoints_for(fetch, resolved, facts, cluster, abroad)
            wanted = labels_of(self._traffic.uses_on(fetch, cluster, ref))
            for made in (
                objects.entry(name, facts, namespace, address, endpoints, annotations, by_name=by_name),
                objects.rule(name, facts, namespace, resolved.alias, wanted, annotations),
            ):
                yield OutputKey(cluster, made.key), Output(made, whose, mesh_ref)
        for backing in resolved.backings if not resolved.flat_network and len(clusters) > 1 else ():
            for local in self._behind_gateways(fetch, resolved, backing, abroad, annotations):
                yield OutputKey(backing.mesh.cluster, local.key), Output(local, whose, backing.mesh.ref)

    def _behind_gateways(
        self,
        fetch: Fetch,
        resolved: Resolved,
        backing: Backing,
        wanted: tuple[Pairs, ...],
        annotations: dict[str, str],
    ) -> Iterable[istio.IstioObject]:
        """What the gateways of one service's mesh need to pass calls of other clusters on."""
        gateways = fetch.get(self._federation.gateway_namespaces, backing.mesh.ref)
        if gateways is None:
            return
        service = backing.service
        asked = (Asked(port.number, found) for port in resolved.facts.ports if (found := port.of(service.ports)))
        facts = fetch.get(self._endpoints, service.ref) if reads_endpoints(service) else None
        yield local_entry(resolved.alias, service, asked, facts, gateways, annotations)
        if wanted:
            yield local_rule(resolved.alias, service, wanted, gateways, annotations)

    def _watched(self, fetch: Fetch, resolved: Resolved, cluster: str) -> VirtualDestinationFacts:
        """The facts, with the outlier detection that counts on *cluster*.

        Static destinations have none of their own: the first whose traffic policies have one lends it to all.
        """
        facts = resolved.facts
        for backing in resolved.backings if facts.static else ():
            said = self._traffic.said(fetch, backing.service.ref, cluster).get(Field.OUTLIERS)
            if said is not None and isinstance(said.value, istio.OutlierDetection):
                return msgspec.structs.replace(facts, outliers=said.value)
        return facts

    def _endpoints_for(
        self,
        fetch: Fetch,
        resolved: Resolved,
        virtual: VirtualDestinationFacts,
        cluster: str,
        wanted: tuple[Pairs, ...],
    ) -> tuple[tuple[istio.WorkloadEntry, ...], bool]:
        """Every place where the host name is answered, as *cluster* reaches it; whether one of them is a host name."""
        found: list[istio.WorkloadEntry] = []
        by_name = False
        for backing in resolved.backings:
            if backing.mesh.cluster == cluster or resolved.flat_network:
                reached, named = self._pods(fetch, resolved, backing, cluster)
            else:
                reached, named = self._gateways(fetch, resolved, backing, wanted)
            if virtual.static:
                reached = objects.in_order(reached, virtual, backing.service.service)
            elif virtual.order:
                facts = fetch.get(self._endpoints, backing.service.ref)
                reached = objects.by_region(reached, virtual, facts.region if facts is not None else "")
            found += reached
            by_name |= named
        return tuple(found), by_name

    def _gateways(
        self, fetch: Fetch, resolved: Resolved, backing: Backing, wanted: tuple[Pairs, ...]
    ) -> tuple[tuple[istio.WorkloadEntry, ...], bool]:
        """Endpoints at the gateways in front of one service; in a fixed order it does not matter where its pods are."""
        facts = fetch.get(self._endpoints, backing.service.ref)
        entries = fetch.get(self._federation.entries, backing.mesh.ref) or ()
        if facts is None:
            return (), False
        places = objects.places_of(facts, "" if resolved.facts.static else facts.region, wanted)
        by_name = any(not _is_ip(address) for address, _ in entries)
        return objects.gateway_endpoints(entries, places, resolved.facts.ports), by_name

    def _pods(
        self, fetch: Fetch, resolved: Resolved, backing: Backing, cluster: str
    ) -> tuple[tuple[istio.WorkloadEntry, ...], bool]:
        """Endpoints of one service within its own network; of very many pods, its cluster IP by name.

        Other clusters do not know that name, so they hold those pods that discovery listed.
        """
        facts = fetch.get(self._endpoints, backing.service.ref)
        if facts is None:
            return (), False
        if facts.counted is None or backing.mesh.cluster != cluster:
            return objects.pod_endpoints(facts, backing.service, resolved.facts.ports, facts.region), False
        where = backing.service.service
        fqdn = local_fqdn(where, fetch.get(self._domains, where.cluster) or DEFAULT_CLUSTER_DOMAIN)
        targets = {
            port.name: target.port for port in resolved.facts.ports if (target := port.of(backing.service.ports))
        }
        place = objects.locality(facts.region, "", "")
        return (istio.WorkloadEntry(address=fqdn, ports=targets, labels=MUTUAL_TLS, locality=place),), True


def _is_ip(address: str) -> bool:
    return ":" in address or address.replace(".", "").isdigit()
