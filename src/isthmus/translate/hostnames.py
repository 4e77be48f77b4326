"""Which host names are those of services, and so nobody else's."""

from __future__ import annotations

from collections.abc import Iterable

from isthmus.flow import Collection, Fetch, Index
from isthmus.model.ref import Ref
from isthmus.translate.facts import DEFAULT_CLUSTER_DOMAIN, MeshFacts, ServiceFacts
from isthmus.translate.federation.derivations import Federation


class ServiceNames:
    """The names of the services that there are, on their own cluster and on others."""

    def __init__(
        self,
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        cluster_domains: Collection[str, str],
        federation: Federation,
    ) -> None:
        self._services_by_identity = services_by_identity
        self._domains = cluster_domains
        self._federation = federation

    def owner(self, fetch: Fetch, hostname: str, meshes: Iterable[MeshFacts]) -> str | None:
        """Whose name *hostname* is where *meshes* are, in words; None if it is no service's."""
        if fetch.group(self._federation.by_hostname, hostname):
            return "a federated service"
        name, _, rest = hostname.partition(".")
        namespace, _, rest = rest.partition(".")
        for cluster in dict.fromkeys(mesh.cluster for mesh in meshes):
            domain = fetch.get(self._domains, cluster) or DEFAULT_CLUSTER_DOMAIN
            # Proxies and resolvers know services by these, too.
            if rest in ("", "svc", f"svc.{domain}") and fetch.group(
                self._services_by_identity, Ref(cluster, namespace, name)
            ):
                return f"a service on cluster {cluster}"
            if hostname.endswith((".svc", f".svc.{domain}")):
                return f"what may be a service on cluster {cluster}, though in no mesh"
        return None
