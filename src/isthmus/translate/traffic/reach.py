"""By which name, and whether at all, the proxies of a cluster reach a service."""

from __future__ import annotations

from isthmus.flow import Collection, Fetch, Graph, Index
from isthmus.model.ref import Ref
from isthmus.translate.external_services.derivations import ExternalServices
from isthmus.translate.facts import DEFAULT_CLUSTER_DOMAIN, EndpointFacts, ServiceFacts, local_fqdn
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.objects import Pairs
from isthmus.translate.traffic.routes import Reachable, Unreachable
from isthmus.translate.virtual_destinations.derivations import VirtualDestinations


class Reach:
    """What routes look up: services by the names that a cluster knows, and whether pods are behind a subset."""

    def __init__(
        self,
        graph: Graph,
        *,
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        cluster_domains: Collection[str, str],
        federation: Federation,
        virtual_destinations: VirtualDestinations,
        external_services: ExternalServices,
        endpoints: Collection[Ref, EndpointFacts],
    ) -> None:
        self._services_by_identity = services_by_identity
        self._domains = cluster_domains
        self._federation = federation
        self.east_west = federation.gateways
        """The gateways of meshes at which calls from other meshes come in."""
        self._virtual_destinations = virtual_destinations
        self._external_services = external_services
        self._pods: Collection[Ref, frozenset[Pairs]] = graph.map(
            "labels of ready pods", endpoints, lambda _, facts: facts.pod_labels() or None
        )

    def fqdn(self, fetch: Fetch, service: Ref) -> str:
        """The host name of *service* on its own cluster."""
        return local_fqdn(service, fetch.get(self._domains, service.cluster) or DEFAULT_CLUSTER_DOMAIN)

    def known_on(self, fetch: Fetch, cluster: str, service: Ref, remedy: str = "") -> Reachable | Unreachable:
        """*service* as proxies of *cluster* know it; without a cluster of its own it is a VirtualDestination.

        *remedy* is what else than federating it may help, for the text.
        """
        if not service.cluster:
            return self._virtual_destinations.known_on(fetch, service, cluster)
        found = [facts for _, facts in fetch.group(self._services_by_identity, service)]
        if not found:
            return Unreachable("there is no such service yet", later=True)
        if service.cluster == cluster:
            return Reachable(self.fqdn(fetch, service), found[0].ports)
        for facts in found:
            federated = self._federation.known_abroad(fetch, facts.ref)
            if federated is not None and any(mesh.cluster == cluster for mesh in federated.targets):
                if not self._federation.has_way(fetch, federated):
                    return Unreachable(f"no gateway lets calls into cluster {service.cluster} yet", later=True)
                return Reachable(federated.hostname, facts.ports)
        return Unreachable(
            f"it is not federated to cluster {cluster}, from where it would be called: see federation.selectors of the "
            f"VirtualMesh{remedy}"
        )

    def external_on(
        self, fetch: Fetch, cluster: str, destination: Ref, *, requests: bool = True
    ) -> Reachable | Unreachable:
        """The external service of *destination* as proxies of *cluster* know it, for *requests* or connections."""
        return self._external_services.known_on(fetch, destination, cluster, requests=requests)

    def has_pods(self, fetch: Fetch, service: Ref, labels: Pairs) -> bool:
        """Whether a ready pod of *service*, or of a VirtualDestination, has all of *labels*."""
        if service.cluster:
            behind = [destination for destination, _ in fetch.group(self._services_by_identity, service)]
        else:
            behind = list(self._virtual_destinations.behind(fetch, service))
        wanted = set(labels)
        return any(wanted <= set(pod) for destination in behind for pod in fetch.get(self._pods, destination) or ())
