"""Access as derived collections: from policies, services and virtual meshes to AuthorizationPolicies and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.common import ApprovalStatus
from isthmus.api.discovery import ServiceType
from isthmus.api.virtual_mesh import GlobalAccessPolicy, VirtualMesh
from isthmus.flow import Collection, Fetch, Graph, Index, first_part
from isthmus.istio import objects as istio
from isthmus.model.names import sanitize
from isthmus.model.problem import Problem
from isthmus.model.ref import Ref
from isthmus.translate import selection
from isthmus.translate.access.evaluation import LOCAL_TRUST_DOMAIN
from isthmus.translate.access.facts import AccessFacts, access_facts, problems_of
from isthmus.translate.access.rules import Named, Refusal, authorize, split
from isthmus.translate.facts import MeshFacts, ServiceFacts
from isthmus.translate.federation.derivations import Federation
from isthmus.translate.federation.objects import metadata
from isthmus.translate.membership import Membership
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import parents, parents_annotation
from isthmus.translate.selection import Selection
from isthmus.translate.selectors import rules_of
from isthmus.translate.verdicts import Judged, by_policy, judge

DENY_ALL = "global-access-control"
FAULTY = "the policy has a fault of its own, see status.errors, and allows nobody here"
GATEWAY_LABEL, GATEWAY_VALUES = "istio", ("ingressgateway", "eastwestgateway", "ingress")
MADE_GATEWAY_LABEL = "gateway.networking.k8s.io/gateway-name"
"""How gateways' services select their pods. Source: Istio's charts and installation guides; those that Istio makes of
Gateways of Kubernetes, https://istio.io/latest/docs/tasks/traffic-management/ingress/gateway-api/
"""
OPEN_GATEWAY = "gateways are reachable for everybody while the virtual mesh denies by default: changes nothing there"
CLOSED_GATEWAY = "who comes from outside or another cluster has no identity at a gateway, and is refused there"


Applied = selection.Applied[AccessFacts]
"""The access policies on one service, from old to young."""


class Guarded(msgspec.Struct, frozen=True, gc=False):
    """What the policies on one service come to."""

    cluster: str
    policies: tuple[Ref, ...]
    parts: tuple[istio.AuthorizationPolicy, ...]
    refusals: tuple[Refusal, ...]
    warnings: tuple[tuple[Ref, str], ...]
    error: str


class Access:
    """The collections of access policies, and of what virtual meshes deny."""

    def __init__(
        self,
        graph: Graph,
        *,
        policies: Collection[Ref, AccessPolicy],
        virtual_meshes: Collection[Ref, VirtualMesh],
        meshes: Collection[Ref, MeshFacts],
        services: Collection[Ref, ServiceFacts],
        services_by_identity: Index[Ref, Ref, ServiceFacts],
        membership: Membership,
        federation: Federation,
        entrances: Collection[Ref, ServiceFacts],
    ) -> None:
        """*entrances* are services of gateways that users let requests in by, whatever their pods are labelled."""
        self._services = services
        self._membership = membership
        self._federation = federation
        self.problems: Collection[Ref, tuple[Problem, ...]] = graph.map(
            "access policy problems", policies, lambda _, policy: problems_of(policy.spec) or None
        )
        self.facts: Collection[Ref, AccessFacts] = graph.map(
            "access policies", policies, lambda _, policy: access_facts(policy)
        )
        self._selection = Selection(
            graph,
            "access policy",
            policies,
            lambda policy: rules_of(policy.spec.destination_selector),
            services_by_identity,
        )
        self.missing = self._selection.missing
        self._modes: Collection[Ref, GlobalAccessPolicy] = graph.map(
            "global access policies", virtual_meshes, lambda _, each: each.spec.global_access_policy
        )
        self.domains: Collection[Ref, dict[str, Named]] = graph.derive(
            "trust domains of callers", meshes, self._callers_of
        )
        self.applied: Collection[Ref, Applied] = graph.derive("applied access policies", services, self._apply)
        self._guarded: Collection[Ref, Guarded] = graph.derive("guarded services", self.applied, self._guard)
        self.judged: Collection[Ref, Judged] = graph.map(
            "judged access", self._guarded, lambda _, guarded: _judge(guarded)
        )
        verdicts = graph.expand("verdicts on access policies", self.judged, by_policy)
        self.verdicts: Index[Ref, tuple[Ref, Ref], ApprovalStatus] = graph.index(
            "verdicts by access policy", verdicts, first_part
        )
        gateways = graph.expand("gateways that stay open", services, _gateways)
        self._gateways: Index[Ref, Ref, ServiceFacts] = graph.index(
            "gateways that stay open by mesh", gateways, lambda _, service: (service.mesh,)
        )
        self._entrances: Index[Ref, Ref, ServiceFacts] = graph.index(
            "gateways of virtual gateways by mesh", entrances, lambda _, service: (service.mesh,)
        )
        self.outputs: tuple[Collection[OutputKey, Output], ...] = (
            graph.expand("authorization policies", self._guarded, _authorization_policies),
            graph.expand("global access control", meshes, self._deny),
        )

    def _callers_of(self, fetch: Fetch, ref: Ref, mesh: MeshFacts) -> dict[str, Named]:
        """Trust domains, by cluster, of the meshes whose workloads can call those of *mesh*.

        While a mesh changes its domain, its workloads show the old one until they restart; then the old one is among
        its aliases. An alias that is another mesh's own domain is left out: it would make two callers one. So is
        ``cluster.local``, which the proxies of *mesh* take for its own domain, unless it is one of its names.
        Source: https://istio.io/latest/docs/tasks/security/authorization/authz-td-migration/,
        https://github.com/istio/istio/blob/master/pilot/pkg/security/trustdomain/bundle.go
        """
        group = self._membership.group_of(fetch, ref)
        meshes = {each.ref: each for each in (*(group.members if group is not None else ()), mesh)}.values()
        taken = {each.trust_domain for each in meshes}
        misread = {LOCAL_TRUST_DOMAIN} - {mesh.trust_domain, *mesh.trust_domain_aliases}
        found: dict[str, Named] = {}
        for each in meshes:
            own = (each.trust_domain,) if each.trust_domain else ()
            aliases = tuple(alias for alias in each.trust_domain_aliases if alias not in taken) if own else ()
            before = found.get(each.cluster, Named(()))
            domains = dict.fromkeys(name for name in (*before.domains, *own, *aliases) if name not in misread)
            found[each.cluster] = Named(tuple(domains), before.ambiguous or each.trust_domain in misread)
        return found

    def _apply(self, fetch: Fetch, _: Ref, service: ServiceFacts) -> Applied | None:
        return self._selection.applied(fetch, service, self.facts)

    def _guard(self, fetch: Fetch, _: Ref, applied: Applied) -> Guarded:
        service = applied.service
        policies = tuple(policy.ref for policy in applied.policies)
        warnings = (*_port_warnings(applied), *self._gateway_warnings(fetch, applied))
        if not service.selector:
            error = "the Service selects no pods by labels, so nothing can be allowed or refused there"
            return Guarded(service.service.cluster, policies, (), (), warnings, error)
        domains: dict[str, Named] | None = fetch.get(self.domains, service.mesh)
        authorized = authorize(applied.policies, domains or {})
        annotations = parents_annotation(parents(AccessPolicy.KIND, *policies))
        where = service.service
        parts = tuple(
            istio.AuthorizationPolicy(
                metadata=metadata(_name_of_part(where.name, number), where.namespace, annotations),
                spec=istio.AuthorizationPolicySpec(
                    selector=istio.WorkloadSelector(match_labels=service.selector), rules=rules
                ),
            )
            for number, rules in split(authorized.rules).items()
        )
        faults = (Refusal(policy.ref, FAULTY) for policy in applied.policies if not policy.callers)
        return Guarded(where.cluster, policies, parts, (*authorized.refusals, *faults), warnings, "")

    def _gateway_warnings(self, fetch: Fetch, applied: Applied) -> Iterator[tuple[Ref, str]]:
        """What policies come to on a gateway, before which others end than the callers that they name."""
        service = applied.service
        if not is_gateway(service) and not self._is_east_west(fetch, service):
            return
        denies = self._denies(fetch, service.mesh) is not None
        for policy in applied.policies:
            if denies:
                yield policy.ref, OPEN_GATEWAY
            elif not any(callers.anybody for callers in policy.callers):
                yield policy.ref, CLOSED_GATEWAY

    def _is_east_west(self, fetch: Fetch, service: ServiceFacts) -> bool:
        """Whether other clusters reach the mesh of *service* by it."""
        if service.type is ServiceType.CLUSTER_IP:  # nobody outside reaches it: most services need not ask
            return False
        found = fetch.get(self._federation.gateways, service.mesh)
        return found is not None and any(each.destination == service.ref for each in found.gateways)

    def _denies(self, fetch: Fetch, mesh: Ref) -> Ref | None:
        """The virtual mesh that allows in *mesh* only what policies allow, None if there is none."""
        member = fetch.get(self._membership.member, mesh)
        if member is None or fetch.get(self._modes, member.virtual_mesh) is not GlobalAccessPolicy.ENABLED:
            return None
        return member.virtual_mesh

    def _deny(self, fetch: Fetch, ref: Ref, mesh: MeshFacts) -> Iterable[tuple[OutputKey, Output]]:
        """Nothing is allowed in *mesh* but what policies allow, and calls that come in by its gateways.

        A gateway is opened in its own namespace: in the root namespace, its selector would open pods everywhere.
        Source: reference, global access control; Istio, an ALLOW policy without rules matches no request.
        """
        virtual_mesh = self._denies(fetch, ref)
        if virtual_mesh is None:
            return
        whose = parents(VirtualMesh.KIND, virtual_mesh)
        annotations = parents_annotation(whose)
        found = [
            istio.AuthorizationPolicy(
                metadata=metadata(DENY_ALL, mesh.root_namespace, annotations), spec=istio.AuthorizationPolicySpec()
            )
        ]
        open_to_all = (*fetch.group(self._gateways, ref), *fetch.group(self._entrances, ref))
        gateways = {service.ref: service for _, service in open_to_all}
        applied = fetch.get(self._federation.gateways, ref)
        for gateway in applied.gateways if applied else ():
            service = fetch.get(self._services, gateway.destination)
            if service is not None and service.selector:
                gateways[gateway.destination] = service
        for _, service in sorted(gateways.items()):
            name = f"allow-ingress-gateway-{service.service.name}-{service.service.namespace}"
            selector = istio.WorkloadSelector(match_labels=service.selector)
            spec = istio.AuthorizationPolicySpec(selector=selector, rules=(istio.AuthorizationRule(),))
            where = metadata(sanitize(name), service.service.namespace, annotations)
            found.append(istio.AuthorizationPolicy(metadata=where, spec=spec))
        for made in found:
            yield OutputKey(mesh.cluster, made.key), Output(made, whose, ref)


def is_gateway(service: ServiceFacts) -> bool:
    """Whether *service* is that of a gateway, by how it selects its pods."""
    return service.selector.get(GATEWAY_LABEL) in GATEWAY_VALUES or MADE_GATEWAY_LABEL in service.selector


def _name_of_part(service: str, number: int) -> str:
    """That of the Service; those of further parts have a dot, which no Service's has."""
    return f"{service}.{number + 1}" if number else service


def _gateways(_: Fetch, ref: Ref, service: ServiceFacts) -> Iterable[tuple[Ref, ServiceFacts]]:
    if is_gateway(service):
        yield ref, service


def _authorization_policies(_: Fetch, ref: Ref, guarded: Guarded) -> Iterable[tuple[OutputKey, Output]]:
    whose = parents(AccessPolicy.KIND, *guarded.policies)
    for part in guarded.parts:
        yield OutputKey(guarded.cluster, part.key), Output(part, whose, ref)


def _judge(guarded: Guarded) -> Judged:
    errors: dict[Ref, list[str]] = {policy: [guarded.error] if guarded.error else [] for policy in guarded.policies}
    for refusal in guarded.refusals:
        errors[refusal.policy].append(refusal.message)
    warnings: dict[Ref, list[str]] = {}
    for policy, warning in guarded.warnings:
        warnings.setdefault(policy, []).append(warning)
    return judge(guarded.policies, errors=errors, warnings=warnings)


def _port_warnings(applied: Applied) -> Iterator[tuple[Ref, str]]:
    """Policies that name the port of the Service where the pods' port counts."""
    targets = {
        str(port.port): port.target_port_number
        for port in applied.service.ports
        if port.target_port_number is not None and port.target_port_number != port.port
    }
    reached = {str(target) for target in targets.values()}
    for policy in applied.policies:
        for number in policy.operation.ports:
            if number in targets and number not in reached:
                yield (
                    policy.ref,
                    f"spec.allowedPorts: {number} is the Service's port; proxies see the pods' port {targets[number]}",
                )
