"""The objects by which meshes know each other's services, as derived collections."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.api.virtual_mesh import VirtualMesh
from isthmus.flow import Collection, Fetch, Graph
from isthmus.istio.objects import IstioObject, OutlierDetection
from isthmus.model.ref import Ref
from isthmus.translate.facts import EndpointFacts
from isthmus.translate.federation import objects
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.gateways import MeshGateways
from isthmus.translate.federation.local import Asked, local_entry, local_rule, reads_endpoints
from isthmus.translate.federation.objects import Federated, LabelShare, Pairs
from isthmus.translate.membership import Membership
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.ports import is_tcp
from isthmus.translate.traffic.derivations import Traffic, labels_of
from isthmus.translate.traffic.fields import Field


class FederationOutputs:
    """What federation writes; traffic policies say which subsets are told apart, and how clients connect."""

    def __init__(
        self,
        graph: Graph,
        *,
        federation: Federation,
        traffic: Traffic,
        membership: Membership,
        endpoints: Collection[Ref, EndpointFacts],
    ) -> None:
        self._federation = federation
        self._traffic = traffic
        self._membership = membership
        self._endpoints = endpoints
        self._wanted: Collection[Ref, tuple[Pairs, ...]] = graph.derive(
            "wanted subsets", federation.federated, self._wanted_subsets
        )
        self._shares: Collection[Ref, tuple[LabelShare, ...]] = graph.derive(
            "label shares", self._wanted, self._label_shares
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("remote outputs", federation.federated, self._remote_outputs),
            graph.expand("local outputs", federation.federated, self._local_outputs),
            graph.expand("gateway outputs", federation.gateways, self._gateway_outputs),
        )

    def _wanted_subsets(self, fetch: Fetch, _: Ref, federated: Federated) -> tuple[Pairs, ...]:
        """Labels of the subsets that other clusters name."""
        service = federated.service.service
        return labels_of(self._traffic.uses_abroad(fetch, service))

    def _label_shares(self, fetch: Fetch, ref: Ref, wanted: tuple[Pairs, ...]) -> tuple[LabelShare, ...]:
        return objects.label_shares(fetch.get(self._endpoints, ref) if wanted else None, wanted)

    def _remote_outputs(self, fetch: Fetch, ref: Ref, federated: Federated) -> Iterable[tuple[OutputKey, Output]]:
        if self._federation.known_abroad(fetch, ref) is None:
            return
        service = federated.service.service
        if federated.flat_network:
            facts = fetch.get(self._endpoints, ref)
            endpoints = objects.pod_endpoints(federated, facts) if facts else ()
        else:
            entries = fetch.get(self._federation.entries, federated.service.mesh)
            if entries is None:
                return
            endpoints = objects.gateway_endpoints(federated, entries, fetch.get(self._shares, ref) or ())
        address = fetch.get(self._federation.addresses, federated.hostname)
        assert address is not None, federated.hostname
        name = self._federation.rule_name(fetch, federated)
        whose = parents(VirtualMesh.KIND, federated.virtual_mesh)
        annotation = parents_annotation(whose)
        entries_built: dict[str, IstioObject] = {}
        rules_built: dict[tuple[object, ...], IstioObject] = {}
        for mesh in federated.targets:
            root = mesh.root_namespace
            if root not in entries_built:
                entries_built[root] = objects.remote_entry(federated, root, address, endpoints, annotation)
            wanted = labels_of(self._traffic.uses_on(fetch, mesh.cluster, service))
            said = self._traffic.said(fetch, ref, mesh.cluster).get(Field.OUTLIERS)
            outliers = said.value if said is not None and isinstance(said.value, OutlierDetection) else None
            alike = (root, wanted, outliers)
            if alike not in rules_built:
                rules_built[alike] = objects.remote_rule(federated, name, root, wanted, outliers, annotation)
            for made in (entries_built[root], rules_built[alike]):
                yield OutputKey(mesh.cluster, made.key), Output(made, whose, ref)

    def _local_outputs(self, fetch: Fetch, ref: Ref, federated: Federated) -> Iterable[tuple[OutputKey, Output]]:
        if federated.flat_network or self._federation.known_abroad(fetch, ref) is None:
            return
        service = federated.service
        gateways = fetch.get(self._federation.gateway_namespaces, service.mesh)
        if gateways is None:
            return
        whose = parents(VirtualMesh.KIND, federated.virtual_mesh)
        annotation = parents_annotation(whose)
        asked = (Asked(port.port, port) for port in service.ports if is_tcp(port))
        facts = fetch.get(self._endpoints, ref) if reads_endpoints(service) else None
        entry = local_entry(federated.hostname, service, asked, facts, gateways, annotation)
        yield OutputKey(service.service.cluster, entry.key), Output(entry, whose, ref)
        wanted = fetch.get(self._wanted, ref)
        if wanted:
            rule = local_rule(federated.hostname, service, wanted, gateways, annotation)
            yield OutputKey(service.service.cluster, rule.key), Output(rule, whose, ref)

    def _gateway_outputs(self, fetch: Fetch, ref: Ref, gateways: MeshGateways) -> Iterable[tuple[OutputKey, Output]]:
        member = fetch.get(self._membership.member, ref)
        virtual_mesh = self._federation.virtual_mesh_of(fetch, ref)
        if member is None or virtual_mesh is None:
            return
        whose = parents(VirtualMesh.KIND, virtual_mesh.ref)
        for gateway in gateways.gateways:
            made = objects.passthrough_gateway(member.mesh, gateway, virtual_mesh.suffix, parents_annotation(whose))
            yield OutputKey(member.mesh.cluster, made.key), Output(made, whose, ref)
