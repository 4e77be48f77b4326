"""Dependencies as derived collections: from what says who calls what to a Sidecar for each workload.

A *scope* is an object that says that some workloads call some destinations: a ServiceDependency, and, where the virtual
mesh tells proxies only what they may call, an AccessPolicy. A workload's proxies know the union of its scopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from isthmus.api.common import ApprovalState, ApprovalStatus, KubeWorkloadMatcher
from isthmus.api.discovery import Workload
from isthmus.api.service_dependency import ServiceDependency
from isthmus.api.virtual_mesh import ProxyScope, VirtualMesh
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.model.ref import Ref
from isthmus.translate.access.derivations import Access
from isthmus.translate.access.derivations import Applied as Allowed
from isthmus.translate.access.facts import AccessFacts, Callers
from isthmus.translate.callers import CallerFacts, caller_facts, matchers_of
from isthmus.translate.dependencies.objects import imported, mesh_services, sidecar
from isthmus.translate.facts import DEFAULT_CLUSTER_DOMAIN, ServiceFacts, local_fqdn
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.membership import Membership
from isthmus.translate.output import Output, OutputKey, StatusKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.selection import Selection
from isthmus.translate.selectors import EVERYTHING, Term, matches, rules_of, terms_of, terms_of_rule
from isthmus.translate.virtual_destinations.derivations import Resolved, VirtualDestinations

Hosts = tuple[str, ...]
"""Hosts as a Sidecar names them, sorted."""
Names = tuple[tuple[str, str], ...]
"""Host names of a service, each behind a cluster that knows the service by it; sorted."""


class CallerRule(msgspec.Struct, frozen=True, gc=False):
    """One alternative of a dependency's source selectors."""

    dependency: Ref
    matcher: KubeWorkloadMatcher


class Grant(msgspec.Struct, frozen=True, gc=False):
    """Callers that an access policy lets call its destinations."""

    policy: Ref
    callers: Callers


class Known(msgspec.Struct, frozen=True, gc=False):
    """A virtual destination's host name, and the clusters that know it."""

    hostname: str
    clusters: tuple[str, ...]


class Scoped(msgspec.Struct, frozen=True, gc=False):
    """What the proxies of one workload are told about. No hosts: everything."""

    caller: CallerFacts
    name: str
    """Of the Sidecar."""
    dependencies: tuple[Ref, ...]
    """Sorted."""
    without: tuple[Ref, ...]
    """Those of *dependencies* of whose destinations the workload's cluster knows none."""
    virtual_mesh: Ref | None
    """The virtual mesh that tells its proxies only what they may call, None if it does not."""
    hosts: Hosts

    @property
    def applied(self) -> tuple[Ref, ...]:
        """Those of *dependencies* that have an effect."""
        return tuple(each for each in self.dependencies if each not in self.without) if self.hosts else ()

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The hosts without the namespaces that they are looked for in, sorted."""
        return tuple(sorted(host.partition("/")[2] for host in self.hosts))


class Dependencies:
    """The collections of service dependencies, and of what virtual meshes tell proxies."""

    def __init__(
        self,
        graph: Graph,
        *,
        dependencies: Collection[Ref, ServiceDependency],
        virtual_meshes: Collection[Ref, VirtualMesh],
        workloads: Collection[Ref, Workload],
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        cluster_domains: Collection[str, str],
        membership: Membership,
        federation: Federation,
        virtual_destinations: VirtualDestinations,
        access: Access,
    ) -> None:
        self._domains = cluster_domains
        self._membership = membership
        self._federation = federation

        self._modes: Collection[Ref, ProxyScope] = graph.map(
            "proxy scopes", virtual_meshes, lambda _, each: each.spec.proxy_scope
        )
        virtual_names = graph.expand("virtual names of services", virtual_destinations.resolved, _virtual_names)
        self._virtual_names: Index[Ref, tuple[Ref, Ref], Known] = graph.index(
            "virtual names by service", virtual_names, lambda key, _: (key[1],)
        )
        self._limiting: Index[tuple[()], Ref, ProxyScope] = graph.index(
            "virtual meshes that limit what proxies know",
            self._modes,
            lambda _, mode: ((),) if mode is ProxyScope.ACCESS_POLICIES else (),
        )

        self._selection = Selection(
            graph,
            "service dependency",
            dependencies,
            lambda dependency: rules_of(dependency.spec.destination_selectors),
            services_by_identity,
        )
        self.missing = self._selection.missing
        callers = graph.expand("callers of service dependencies", dependencies, _caller_rules)
        self._callers_by_term = graph.index(
            "callers of service dependencies by term", callers, lambda _, each: terms_of_rule(each.matcher)
        )
        grants = graph.expand("callers of access policies", access.facts, _grants)
        self._grants_by_term = graph.index(
            "callers of access policies by term", grants, lambda _, each: _terms_of_callers(each.callers)
        )

        depended = graph.expand("services that are depended on", services, self._depended)
        allowed = graph.expand("services that may be called", access.applied, self._allowed)
        self._hosts_of_dependency = self._hosts(graph, "service dependencies", depended)
        self._hosts_of_policy = self._hosts(graph, "access policies", allowed)

        self.callers: Collection[Ref, CallerFacts] = graph.map("callers", workloads, caller_facts)
        self._by_controller: Index[Ref, Ref, CallerFacts] = graph.index(
            "callers by controller", self.callers, lambda _, caller: (caller.controller,)
        )
        self.scoped: Collection[Ref, Scoped] = graph.derive("scoped proxies", self.callers, self._scope)
        verdicts = graph.expand("verdicts on service dependencies", self.scoped, _verdicts)
        self.verdicts: Index[Ref, tuple[Ref, Ref], ApprovalStatus] = graph.index(
            "verdicts by service dependency", verdicts, first_part
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (graph.expand("sidecars", self.scoped, _sidecars),)

    def _hosts(
        self, graph: Graph, what: str, destinations: Collection[tuple[Ref, Ref], Names]
    ) -> Collection[tuple[Ref, str], Hosts]:
        """The hosts of each scope as each cluster knows them, kept once for all workloads that have the scope."""
        by_scope: Index[Ref, tuple[Ref, Ref], Names] = graph.index(
            f"destinations by owner, {what}", destinations, first_part
        )
        return graph.expand(f"hosts by owner and cluster, {what}", by_scope, _by_cluster)

    def _named(self, fetch: Fetch, ref: Ref, service: ServiceFacts) -> Names:
        """The names of *service* on all clusters that know it."""
        where = service.service
        names = {(where.cluster, local_fqdn(where, fetch.get(self._domains, where.cluster) or DEFAULT_CLUSTER_DOMAIN))}
        federated = self._federation.known_abroad(fetch, ref)
        if federated is not None and self._federation.has_way(fetch, federated):
            names.update((mesh.cluster, federated.hostname) for mesh in federated.targets)
        for _, known in fetch.group(self._virtual_names, ref):
            names.update((cluster, known.hostname) for cluster in known.clusters)
        return tuple(sorted(names))

    def _depended(self, fetch: Fetch, ref: Ref, service: ServiceFacts) -> Iterable[tuple[tuple[Ref, Ref], Names]]:
        chosen = self._selection.of(fetch, service)
        if chosen:
            names = self._named(fetch, ref, service)
            yield from (((dependency, ref), names) for dependency in chosen)

    def _allowed(self, fetch: Fetch, ref: Ref, allowed: Allowed) -> Iterable[tuple[tuple[Ref, Ref], Names]]:
        if fetch.group(self._limiting, ()):
            names = self._named(fetch, ref, allowed.service)
            yield from (((policy.ref, ref), names) for policy in allowed.policies)

    def _scope(self, fetch: Fetch, ref: Ref, caller: CallerFacts) -> Scoped | None:
        if caller.is_gateway:
            return None  # Istio tells gateways everything, whatever Sidecars say
        cluster = caller.controller.cluster
        terms = tuple(terms_of(caller.controller, caller.labels))
        dependencies = {
            rule.dependency
            for term in terms
            for _, rule in fetch.group(self._callers_by_term, term)
            if matches(rule.matcher, caller.controller, caller.labels)
        }
        hosts = {each: fetch.get(self._hosts_of_dependency, (each, cluster)) for each in sorted(dependencies)}
        found: list[Hosts] = [each for each in hosts.values() if each]
        member = fetch.get(self._membership.member, caller.mesh)
        limited = member is not None and fetch.get(self._modes, member.virtual_mesh) is ProxyScope.ACCESS_POLICIES
        if member is not None and limited:
            domain = fetch.get(self._domains, cluster) or DEFAULT_CLUSTER_DOMAIN
            found.append((mesh_services(member.mesh.root_namespace, domain),))
            policies = {
                grant.policy
                for term in terms
                for _, grant in fetch.group(self._grants_by_term, term)
                if _may_be(grant.callers, caller)
            }
            found += filter(None, (fetch.get(self._hosts_of_policy, (each, cluster)) for each in sorted(policies)))
        if not dependencies and not found:
            return None
        claims = fetch.group(self._by_controller, caller.controller)
        return Scoped(
            caller=caller,
            name=caller.controller.name if claims[0][0] == ref else ref.name,
            dependencies=tuple(hosts),
            without=tuple(each for each, named in hosts.items() if not named),
            virtual_mesh=member.virtual_mesh if member is not None and limited else None,
            hosts=_union(tuple(found)) if caller.labels else (),
        )


def _caller_rules(_: Fetch, ref: Ref, dependency: ServiceDependency) -> Iterator[tuple[tuple[Ref, int], CallerRule]]:
    for i, matcher in enumerate(matchers_of(dependency.spec.source_selectors)):
        yield (ref, i), CallerRule(ref, matcher)


def _grants(_: Fetch, ref: Ref, policy: AccessFacts) -> Iterator[tuple[tuple[Ref, int], Grant]]:
    for i, callers in enumerate(policy.callers):
        yield (ref, i), Grant(ref, callers)


def _virtual_names(_: Fetch, ref: Ref, resolved: Resolved) -> Iterator[tuple[tuple[Ref, Ref], Known]]:
    if resolved.works:
        known = Known(resolved.facts.hostname, tuple(sorted({mesh.cluster for mesh in resolved.meshes})))
        for backing in resolved.backings:
            yield (ref, backing.service.ref), known


def _by_cluster(
    _: Fetch, scope: Ref, destinations: tuple[tuple[tuple[Ref, Ref], Names], ...]
) -> Iterator[tuple[tuple[Ref, str], Hosts]]:
    hosts: dict[str, set[str]] = {}
    for _key, names in destinations:
        for cluster, hostname in names:
            hosts.setdefault(cluster, set()).add(imported(hostname))
    for cluster, found in hosts.items():
        yield (scope, cluster), tuple(sorted(found))


@lru_cache(maxsize=256)  # workloads of one identity have the same scopes
def _union(found: tuple[Hosts, ...]) -> Hosts:
    return found[0] if len(found) == 1 else tuple(sorted({host for each in found for host in each}))


def _terms_of_callers(callers: Callers) -> tuple[Term, ...]:
    """Terms of which every workload that *callers* may mean has at least one."""
    if callers.namespaces:
        return tuple(("namespace", namespace) for namespace in callers.namespaces)
    if callers.accounts and all(account.namespace for account in callers.accounts):
        return tuple(("namespace", namespace) for namespace in sorted({each.namespace for each in callers.accounts}))
    return (EVERYTHING,)


def _may_be(callers: Callers, caller: CallerFacts) -> bool:
    """Whether *callers* mean the identity of *caller*. Tokens come with requests, so whoever may show one counts."""
    where = caller.controller
    of_account = not callers.accounts or any(
        account.cluster in ("", where.cluster)
        and account.namespace in ("", where.namespace)
        and account.name in ("", caller.service_account)
        for account in callers.accounts
    )
    return of_account and (not callers.namespaces or where.namespace in callers.namespaces)


def _verdicts(_: Fetch, ref: Ref, scoped: Scoped) -> Iterator[tuple[tuple[Ref, Ref], ApprovalStatus]]:
    for dependency in scoped.dependencies:
        if not scoped.caller.labels:
            message = "the workload's pods have no labels, by which a Sidecar could select them"
            verdict = ApprovalStatus(state=ApprovalState.INVALID, errors=(message,))
        elif dependency in scoped.without:
            message = f"cluster {scoped.caller.controller.cluster} knows none of the destinations"
            verdict = ApprovalStatus(state=ApprovalState.PENDING, errors=(message,))
        else:
            verdict = ApprovalStatus(state=ApprovalState.ACCEPTED)
        yield (dependency, ref), verdict


def _sidecars(_: Fetch, ref: Ref, scoped: Scoped) -> Iterable[tuple[OutputKey, Output]]:
    caller = scoped.caller
    if not scoped.hosts:
        return
    whose: tuple[StatusKey, ...] = parents(ServiceDependency.KIND, *scoped.dependencies)
    subject = ref
    if not whose and scoped.virtual_mesh is not None:
        whose, subject = parents(VirtualMesh.KIND, scoped.virtual_mesh), caller.mesh
    made = sidecar(caller, scoped.name, scoped.hosts, parents_annotation(whose))
    yield OutputKey(caller.controller.cluster, made.key), Output(made, whose, subject)
