"""Who may call whom, on paper: a question about one call, a matrix, and what a change would open or close.

Pure; `meshctl access` is one user. Callers and callees are Workloads and Destinations by the names that users give
them, `Ref(cluster, namespace, name)`. A call is judged where it arrives, by the caller's own identity, also when it
comes from another cluster: gateways between clusters pass TLS on as it is.

Ten thousand services make a hundred million pairs, so classes are judged and not pairs: callees to whose pods the same
rules apply on the same ports are one class, and all callers are judged at once (`evaluation`). What is asked without a
method or a path is asked with every one that the rules tell apart (`patterns.representatives`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache, cached_property, partial
from typing import Any

import msgspec

from isthmus.api.discovery import Destination, Mesh, ServicePort, Workload
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import ObjectKey, Ref
from isthmus.translate.access import evaluation
from isthmus.translate.access.emission import Emitted
from isthmus.translate.access.evaluation import (
    ANY,
    Answer,
    Call,
    Callers,
    Decision,
    Effect,
    Effects,
    Masks,
    Policies,
    Policy,
    Request,
    compile_rule,
    decide,
    judge,
    matching,
    open_questions,
)
from isthmus.translate.access.patterns import representatives
from isthmus.translate.access.rules import authorize
from isthmus.translate.callers import CallerFacts, caller_facts
from isthmus.translate.facts import MeshFacts, mesh_facts
from isthmus.translate.output import Output, OutputKey
from isthmus.translate.parents import ANNOTATION
from isthmus.translate.ports import is_http, is_tcp
from isthmus.translate.trust.domains import DomainFacts, domain_facts

MOST_REQUESTS = 4096  # tried for one class of callees; beyond, what tells requests apart is left open
MOST_ASSUMPTIONS = 256  # of what requests on paper leave open, tried for each of them
ANYTHING: Request = Request()


class Reach(Enum):
    """Whether a caller reaches a callee."""

    YES = "yes"
    DEPENDS = "depends"
    """On the request, or on what nobody can know on paper."""
    NO = "no"
    UNKNOWN = "not known there"
    """The caller's cluster does not know the callee, or the callee's proxies refuse the caller's trust domain."""


class Identity(msgspec.Struct, frozen=True, order=True):
    """As whom pods call. Meshes tell apart what a shared trust domain does not."""

    mesh: Ref
    namespace: str
    account: str


class Roster:
    """The workloads of a fleet: who calls, and whose pods are behind services."""

    def __init__(self, workloads: Iterable[Workload]) -> None:
        self.callers: dict[Ref, CallerFacts] = {}
        """Workloads by the names that users give them."""
        self._by_place: dict[tuple[str, str], list[CallerFacts]] = {}
        self._by_label: dict[tuple[str, str], dict[tuple[str, str], list[CallerFacts]]] = {}
        for workload in workloads:
            facts = caller_facts(workload.ref, workload)
            if facts is not None:
                where = facts.controller
                self.callers[where] = facts
                self._by_place.setdefault((where.cluster, where.namespace), []).append(facts)

    def behind(self, destination: Destination) -> list[CallerFacts]:
        """The workloads that a service selects."""
        service = destination.spec.kube_service
        if service is None or not service.workload_selector_labels:
            return []
        wanted = service.workload_selector_labels.items()
        labelled = self._labelled((service.ref.cluster_name, service.ref.namespace))
        fewest = min((labelled.get(label, []) for label in wanted), key=len)
        return [facts for facts in fewest if wanted <= facts.labels.items()]

    def _labelled(self, place: tuple[str, str]) -> dict[tuple[str, str], list[CallerFacts]]:
        """Those of one cluster and namespace, by each of their labels."""
        found = self._by_label.get(place)
        if found is None:
            found = self._by_label[place] = {}
            for facts in self._by_place.get(place, ()):
                for label in facts.labels.items():
                    found.setdefault(label, []).append(facts)
        return found


class Fleet(msgspec.Struct, frozen=True):
    """All that the answers follow from, at one instant."""

    meshes: Mapping[Ref, Mesh]
    roster: Roster
    destinations: Mapping[Ref, Destination]
    """Those that are asked about, and by which callers are named."""
    emitted: Emitted
    own: Mapping[str, Sequence[Mapping[str, Any]]] = {}
    """By cluster, the AuthorizationPolicies there that are not ours."""


class Port(msgspec.Struct, frozen=True):
    """A port as callers see it and as the pods do; *target* is 0 if that is not known."""

    number: int
    target: int
    is_http: bool
    name: str = ""

    def __str__(self) -> str:
        """As users may name it."""
        return f"{self.number} ({self.name})" if self.name else str(self.number)


ANY_PORT = Port(0, 0, True)
"""Of workloads, whose pods answer on any."""


class Callee(msgspec.Struct, frozen=True, eq=False):
    """What is called: pods, in groups that differ in their labels."""

    name: Ref
    mesh: Ref
    pods: tuple[Mapping[str, str], ...]
    ports: tuple[Port, ...]
    known_to: frozenset[Ref]
    trouble: tuple[str, ...] = ()
    assumed_pods: bool = False
    """Whether no workload is known behind a Service, whose selector then stands for its pods."""


class Kind(msgspec.Struct, frozen=True):
    """What a callee has in common with all that are judged alike."""

    cluster: str
    mesh: Ref
    effects: tuple[frozenset[Effect], ...]
    ports: tuple[Port, ...]
    known_to: frozenset[Ref]


class Judged(msgspec.Struct, frozen=True):
    """The callers of one callee: those who pass, those of whom it depends, and those who know it at all."""

    yes: int
    depends: int
    known: int

    def of(self, number: int) -> Reach:
        """The answer for one of the callers."""
        bit = 1 << number
        if not self.known & bit:
            return Reach.UNKNOWN
        return Reach.YES if self.yes & bit else Reach.DEPENDS if self.depends & bit else Reach.NO


class Deciding(msgspec.Struct, frozen=True):
    """A policy that decides."""

    policy: Policy
    behind: tuple[Ref, ...] = ()
    """The AccessPolicies it is made of that let the call pass, or may; none where it does not, or is a user's."""


class Ground(msgspec.Struct, frozen=True):
    """Why pods decide as they do."""

    decision: Decision
    about: str
    """Of which of the callers, pods and ports this is the ground; empty if of all."""
    policies: tuple[Deciding, ...]
    """Those of the decision."""


class Verdict(msgspec.Struct, frozen=True):
    """An answer, and why."""

    answer: Reach
    reason: str
    grounds: tuple[Ground, ...] = ()


class Matrix(msgspec.Struct, frozen=True):
    """Who reaches what; callers, and callees, of whom all answers are the same are together."""

    callers: tuple[tuple[Ref, ...], ...]
    callees: tuple[tuple[Ref, ...], ...]
    cells: tuple[tuple[Reach, ...], ...]
    """By callee, then by caller."""


class Change(msgspec.Struct, frozen=True):
    """What becomes different for some callers of some callees: all of the first for all of the second."""

    callers: tuple[Ref, ...]
    callees: tuple[Ref, ...]
    before: Reach
    after: Reach
    opens: bool
    """Whether some request passes that did not. Where that cannot be told on paper, it counts as so."""
    closes: bool


class Compared(msgspec.Struct, frozen=True):
    """What a change makes of the callers of one callee."""

    before: Judged
    after: Judged
    opened: int
    closed: int


class NotFound(LookupError):
    """Nothing is called so; the argument is the name."""


def identities(*fleets: Fleet) -> tuple[Identity, ...]:
    """Everybody who calls in any of *fleets*, sorted: the numbering that `Reachability` of all of them share."""
    return tuple(sorted({_identity(facts) for fleet in fleets for facts in fleet.roster.callers.values()}))


def _identity(facts: CallerFacts) -> Identity:
    return Identity(facts.mesh, facts.controller.namespace, facts.service_account)


class Reachability:
    """The answers about one fleet. What is to be compared shares *numbered* and *effects*."""

    def __init__(
        self,
        fleet: Fleet,
        numbered: Sequence[Identity] = (),
        effects: Effects | None = None,
    ) -> None:
        self._fleet = fleet
        self._effects = effects if effects is not None else Effects()
        self._numbered = tuple(numbered) or identities(fleet)
        self._numbers = {identity: number for number, identity in enumerate(self._numbered)}
        self._meshes: dict[Ref, MeshFacts] = {}
        self._domains: dict[Ref, DomainFacts] = {}
        for ref, mesh in fleet.meshes.items():
            if (facts := mesh_facts(ref, mesh)) is not None and (domain := domain_facts(ref, mesh)) is not None:
                self._meshes[ref], self._domains[ref] = facts, domain
        self._callers = Callers(tuple(map(self._principal, self._numbered)))
        self._of_mesh: dict[Ref, int] = {}
        for number, identity in enumerate(self._numbered):
            self._of_mesh[identity.mesh] = self._of_mesh.get(identity.mesh, 0) | 1 << number
        self._services = {
            service.ref.ref: ref
            for ref, destination in fleet.destinations.items()
            if (service := destination.spec.kube_service) is not None
            and destination.spec.mesh is not None
            and destination.spec.mesh.ref in self._meshes
        }
        # Read one namespace at a time, when somebody asks about it.
        self._unread: dict[tuple[str, str], list[Output | Mapping[str, Any]]] = {}
        own = set()
        for cluster, policies in fleet.own.items():
            for policy in policies:
                namespace, name = policy["metadata"].get("namespace", ""), policy["metadata"]["name"]
                own.add((cluster, namespace, name))
                self._unread.setdefault((cluster, namespace), []).append(policy)
        for key, output in fleet.emitted.policies.items():
            # Ours is not written where somebody else's object has its name.
            if (key.cluster, key.object.namespace, key.object.name) not in own:
                self._unread.setdefault((key.cluster, key.object.namespace), []).append(output)
        self._policies: dict[tuple[Ref, str], Policies] = {}
        self._known: dict[tuple[Ref, frozenset[Ref]], int] = {}
        self._judged: dict[tuple[Kind, bytes], Judged] = {}

    # --- names --------------------------------------------------------------------------------------------------------

    @cached_property
    def callers(self) -> dict[Ref, int]:
        """The number of everybody who may call, by name, sorted."""
        found = self._fleet.roster.callers
        return {name: self._numbers[_identity(found[name])] for name in sorted(found)}

    @property
    def services(self) -> tuple[Ref, ...]:
        """The names of all Destinations that are asked about, sorted."""
        return tuple(sorted(self._services))

    def principal_of(self, number: int) -> str:
        """Who a caller is to policies: ``<trust domain>/ns/<namespace>/sa/<account>``."""
        return self._principal(self._numbered[number])

    def find_callers(self, name: Ref) -> dict[Ref, int]:
        """The workloads that *name* means, with their numbers: a workload, or those behind a service.

        Raises `NotFound`.
        """
        roster = self._fleet.roster
        if (alone := roster.callers.get(name)) is not None:
            found = [alone]
        elif (destination := self._services.get(name)) is not None:
            found = roster.behind(self._fleet.destinations[destination])
        else:
            found = []
        if not found:
            raise NotFound(name)
        return {facts.controller: self._numbers[_identity(facts)] for facts in found}

    def find_callee(self, name: Ref) -> Callee:
        """What *name* means where it is called: a service, else a workload. Raises `NotFound`."""
        if (ref := self._services.get(name)) is not None:
            return self._service(ref, self._fleet.destinations[ref])
        if (found := self._fleet.roster.callers.get(name)) is not None:
            return self._workload(found)
        raise NotFound(name)

    def _service(self, ref: Ref, destination: Destination) -> Callee:
        service, mesh = destination.spec.kube_service, destination.spec.mesh
        assert service is not None
        assert mesh is not None
        behind = self._fleet.roster.behind(destination)
        pods = {tuple(sorted(facts.labels.items())): facts.labels for facts in behind}
        return Callee(
            name=service.ref.ref,
            mesh=mesh.ref,
            pods=tuple(pods[labels] for labels in sorted(pods)) or (service.workload_selector_labels,),
            ports=tuple(
                Port(port.port, target, is_http(port), port.name)
                for port in service.ports
                if is_tcp(port)
                for target in _targets(port, destination)
            ),
            known_to=self._fleet.emitted.known_to.get(ref, frozenset()),
            trouble=self._fleet.emitted.trouble.get(ref, ()),
            assumed_pods=not behind,
        )

    def _workload(self, facts: CallerFacts) -> Callee:
        known: set[Ref] = set()
        for ref, destination in self._fleet.destinations.items():
            service = destination.spec.kube_service
            if service is None or service.ref.namespace != facts.controller.namespace:
                continue
            if facts in self._fleet.roster.behind(destination):
                known |= self._fleet.emitted.known_to.get(ref, frozenset())
        return Callee(facts.controller, facts.mesh, (facts.labels,), (ANY_PORT,), frozenset(known))

    def _principal(self, identity: Identity) -> str:
        domain = self._domains.get(identity.mesh)
        return f"{domain.own}/ns/{identity.namespace}/sa/{identity.account}" if domain is not None else ""

    # --- answers ------------------------------------------------------------------------------------------------------

    def can(self, caller: Ref, callee: Ref, request: Request = ANYTHING) -> Verdict:
        """Whether everybody behind *caller* may send *request* to all pods of *callee*, and why.

        *request.port* is that of the Service, for a workload that of its pods, of which no names are known; what is
        open in *request* may be anything. Raises `NotFound`.
        """
        callers, found = self.find_callers(caller), self.find_callee(callee)
        ports = _ports(found.ports, request)
        if not ports:
            there = ", ".join(dict.fromkeys(map(str, found.ports))) or "none that a proxy sees"
            asked = request.port_name or str(request.port or "")
            what = f"no port {asked}" if asked else "no port over TCP"
            return Verdict(Reach.UNKNOWN, f"{spelled(callee)} has {what}; its ports: {there}")
        judged = self.judge(found, request)
        answers = {judged.of(number) for number in callers.values()}
        if Reach.UNKNOWN in answers:
            number = next(n for n in callers.values() if judged.of(n) is Reach.UNKNOWN)
            return Verdict(Reach.UNKNOWN, self._why_unknown(self._numbered[number], found))
        answer = answers.pop() if len(answers) == 1 else Reach.DEPENDS
        grounds = tuple(self._grounds(callers, found, ports, request))
        reasons = dict.fromkeys(ground.decision.reason for ground in grounds)
        if answer is Reach.YES and any(ground.decision.answer is not Answer.YES for ground in grounds):
            reason = "the policies together let every such request pass"
        elif answer is Reach.NO and any(ground.decision.answer is not Answer.NO for ground in grounds):
            reason = "the policies together let no such request pass"
        else:
            reason = "; ".join(reasons)
        if found.assumed_pods:
            reason += "; no workload is known behind the service, so its selector stands for its pods"
        return Verdict(answer, reason, grounds)

    def matrix(self, callees: Iterable[Ref], callers: Iterable[Ref], request: Request = ANYTHING) -> Matrix:
        """Every answer about *callees* for *callers*, both among `services` and `callers`."""
        numbers = self.callers
        chosen = {name: numbers[name] for name in callers}
        judged: dict[Judged, list[Ref]] = {}
        for name in sorted(callees):
            judged.setdefault(self.judge(self.find_callee(name), request), []).append(name)
        blocks = _blocks(judged, chosen.values())
        alike: dict[int, list[Ref]] = {}
        for name in sorted(chosen):
            alike.setdefault(blocks[chosen[name]], []).append(name)
        groups = sorted(alike.values())
        firsts = [chosen[names[0]] for names in groups]
        return Matrix(
            callers=tuple(map(tuple, groups)),
            callees=tuple(map(tuple, judged.values())),
            cells=tuple(tuple(each.of(number) for number in firsts) for each in judged),
        )

    def judge(self, callee: Callee, request: Request = ANYTHING) -> Judged:
        """What *request* comes to for all callers of *callee*."""
        kind = self.kind(callee)
        key = (kind, msgspec.json.encode(request))
        if (judged := self._judged.get(key)) is None:
            judged = self._judged[key] = self._judge(kind, request)
        return judged

    def kind(self, callee: Callee) -> Kind:
        """What *callee* has in common with others."""
        mesh = self._meshes[callee.mesh]
        effects = tuple(frozenset(p.effect for p in self.policies(callee, labels)) for labels in callee.pods)
        return Kind(mesh.cluster, callee.mesh, effects, callee.ports, callee.known_to)

    def policies(self, callee: Callee, labels: Mapping[str, str]) -> list[Policy]:
        """The AuthorizationPolicies that apply to pods of *callee* with *labels*."""
        workload = evaluation.Workload(callee.name.namespace, labels)
        namespaces = dict.fromkeys((self._meshes[callee.mesh].root_namespace, callee.name.namespace))
        return [
            policy
            for namespace in namespaces
            for policy in self._policies_of(callee.mesh, namespace).within(namespace, workload)
        ]

    def _policies_of(self, ref: Ref, namespace: str) -> Policies:
        """Those of one namespace, as a mesh reads them; the same object where the same ones were read before."""
        if (found := self._policies.get((ref, namespace))) is not None:
            return found
        mesh, domain = self._meshes[ref], self._domains[ref]
        domains = (domain.own, *domain.aliases)
        sources = self._unread.get((mesh.cluster, namespace), ())
        key = (mesh.cluster, namespace, mesh.root_namespace, domains)
        before = self._effects.read.get(key)
        if before is not None and _identical(before[0], sources):
            found = before[1]
        else:
            manifests = (each.manifest() if isinstance(each, Output) else each for each in sources)
            found = Policies(manifests, mesh.root_namespace, domains, self._effects)
            self._effects.read[key] = sources, found
        self._policies[ref, namespace] = found
        return found

    def _judge(self, kind: Kind, request: Request) -> Judged:
        known = self.known(kind)
        ports = _ports(kind.ports, request)
        if not ports:
            return Judged(0, 0, 0)
        every, some = self._callers.everybody, 0
        for effects in dict.fromkeys(kind.effects):
            for asked in requests(effects, ports, request):
                found = judge(effects, self._callers, asked)
                every, some = every & found.sure, some | found.perhaps
        return Judged(every & known, some & ~every & known, known)

    def known(self, kind: Kind) -> int:
        """The callers whose mesh knows callees of *kind*, and whose certificate passes there."""
        key = (kind.mesh, kind.known_to)
        if (known := self._known.get(key)) is not None:
            return known
        here, found = self._domains[kind.mesh], 0
        passing = {here.own, *here.aliases, *here.accepted}
        for ref, callers in self._of_mesh.items():
            mesh = self._meshes.get(ref)
            if mesh is None or (mesh.cluster != kind.cluster and ref not in kind.known_to):
                continue
            if not here.refuses or self._domains[ref].own in passing:
                found |= callers
        self._known[key] = found
        return found

    def same_callers(self, other: Reachability) -> bool:
        """Whether the same workloads of the same meshes call in *other*, under the same names."""
        same_workloads = self._fleet.roster is other._fleet.roster
        return same_workloads and self._meshes == other._meshes and self._domains == other._domains

    def same_for(self, other: Reachability, name: Ref, same_policies: Callable[[str, str], bool]) -> bool:
        """Whether it is plain, without a look at rules, that *other*, with the same callers, says the same of *name*.

        *same_policies* tells it of a namespace of a cluster.
        """
        ours, theirs = self._fleet, other._fleet
        ref = self._services.get(name)
        if ref is None or ref != other._services.get(name):
            return False
        destination = ours.destinations[ref]
        mesh = destination.spec.mesh
        if destination is not theirs.destinations[ref] or mesh is None:
            return False
        if ours.emitted.known_to.get(ref) != theirs.emitted.known_to.get(ref):
            return False
        namespaces = {name.namespace, self._meshes[mesh.ref].root_namespace}
        return all(same_policies(name.cluster, namespace) for namespace in namespaces)

    def as_before(self, callee: Callee, before: Reachability) -> Callee | None:
        """*callee*, a service in *before*, as it is here if its pods and ports are plainly the same."""
        ours, theirs = self._fleet, before._fleet
        ref = self._services.get(callee.name)
        if ref is None or ref != before._services.get(callee.name) or ours.roster is not theirs.roster:
            return None
        if ours.destinations[ref] is not theirs.destinations[ref]:
            return None
        known, trouble = ours.emitted.known_to.get(ref, frozenset()), ours.emitted.trouble.get(ref, ())
        if (known, trouble) == (callee.known_to, callee.trouble):
            return callee
        return msgspec.structs.replace(callee, known_to=known, trouble=trouble)

    def same_policies(self, other: Reachability, cluster: str, namespace: str) -> bool:
        """Whether the two read the very same AuthorizationPolicies there."""
        ours, theirs = (each._unread.get((cluster, namespace), []) for each in (self, other))
        return _identical(ours, theirs)

    def passing(self, effects: Iterable[Effect], request: Request) -> Masks:
        """Whose *request* passes pods to which *effects* apply."""
        return judge(effects, self._callers, request)

    def _why_unknown(self, identity: Identity, callee: Callee) -> str:
        caller, here = self._meshes[identity.mesh], self._meshes[callee.mesh]
        name = spelled(callee.name)
        if caller.cluster == here.cluster or identity.mesh in callee.known_to:
            domain = self._domains[identity.mesh].own
            return f"not known there: proxies of mesh {callee.mesh.name} refuse callers of trust domain {domain}"
        if callee.trouble:
            return f"not known there: the federation of {name} failed: {'; '.join(callee.trouble)}"
        if callee.known_to:
            return f"not known there: other meshes know {name}, but not mesh {identity.mesh.name} of {caller.cluster}"
        return f"not known there: {name} is not federated to other clusters, and the caller is on {caller.cluster}"

    def _grounds(
        self, callers: Mapping[Ref, int], callee: Callee, ports: Sequence[Port], request: Request
    ) -> Iterator[Ground]:
        """Why, for callers, pods and ports; those of which the same is true together."""
        found: dict[tuple[Decision, tuple[Deciding, ...]], list[tuple[str, str, str]]] = {}
        principals = sorted({self.principal_of(number) for number in callers.values()})
        for principal, labels, port in itertools.product(principals, callee.pods, ports):
            policies = self.policies(callee, labels)
            asked = msgspec.structs.replace(request, port=port.target, is_http=port.is_http)
            call = Call(principal=principal, **msgspec.structs.asdict(asked))
            decision = decide(policies, call)
            deciding = tuple(
                Deciding(policy, self._behind(callee, policy, call))
                for policy in sorted(policies, key=lambda policy: policy.key)
                if policy.key in decision.policies
            )
            pods = ", ".join(f"{name}={value}" for name, value in sorted(labels.items()))
            found.setdefault((decision, deciding), []).append((principal, f"pods {pods}", f"port {port.number}"))
        for (decision, deciding), cases in found.items():
            several = len(found) > 1
            parts = [sorted({case[i] for case in cases}) for i in range(3)] if several else []
            everything = [sorted({c[i] for each in found.values() for c in each}) for i in range(3)]
            about = "; ".join(", ".join(part) for part, all_ in zip(parts, everything, strict=False) if part != all_)
            yield Ground(decision, about, deciding)

    def _behind(self, callee: Callee, policy: Policy, call: Call) -> tuple[Ref, ...]:
        """The AccessPolicies merged into *policy* that by themselves let *call* pass, or may."""
        kind, emitted = AUTHORIZATION_POLICY, self._fleet.emitted
        key = ObjectKey(kind.api_version, kind.kind, policy.namespace, policy.name)
        output = emitted.policies.get(OutputKey(self._meshes[callee.mesh].cluster, key))
        applied = emitted.applied.get(output.subject) if output is not None else None
        if applied is None or ANNOTATION not in policy.annotations:
            return ()
        domains, callers = emitted.domains.get(applied.service.mesh, {}), Callers((call.principal,))
        found = []
        for facts in applied.policies:
            rules = msgspec.json.decode(msgspec.json.encode(authorize((facts,), domains).rules))
            compiled = (compile_rule(rule, "ALLOW", policy.namespace, ()) for rule in rules)
            effect = Effect("ALLOW", tuple(filter(None, compiled)))
            if matching(effect, callers, call).perhaps:
                found.append(facts.ref)
        return tuple(sorted(found))


def requests(effects: Iterable[Effect], ports: Iterable[Port], request: Request) -> list[Request]:
    """*request* on *ports*, as often as *effects* may tell apart what it leaves open of method and path."""
    found = list(effects)
    methods: Sequence[str] = (request.method,)
    paths: Sequence[str] = (request.path,)
    patterns: dict[str, dict[str, None]] = {"method": {}, "path": {}}
    for clause in (clause for effect in found for rule in effect.rules for clause in rule.clauses()):
        if clause.attribute in patterns:
            patterns[clause.attribute].update(dict.fromkeys(clause.patterns))
    if not request.method and patterns["method"]:
        methods = tuple(representatives(patterns["method"], ANY))
    if not request.path and patterns["path"]:
        paths = tuple(representatives(patterns["path"], ANY, "/"))
    asked: list[Request] = []
    for port in ports:
        replaced = msgspec.structs.replace(request, port=port.target, is_http=port.is_http)
        if not port.is_http or len(methods) * len(paths) > MOST_REQUESTS:
            asked.append(replaced)
            continue
        asked += [
            msgspec.structs.replace(replaced, method=method, path=path)
            for method, path in itertools.product(methods, paths)
        ]
    return asked


def _ports(ports: tuple[Port, ...], request: Request) -> tuple[Port, ...]:
    """Those of *ports* that *request* may go to; a workload's pods answer on any."""
    if ports == (ANY_PORT,):
        return () if request.port_name else (Port(request.port, request.port, request.is_http),)
    return tuple(port for port in ports if request.port in (0, port.number) and request.port_name in ("", port.name))


def _identical(some: Sequence[object], others: Sequence[object]) -> bool:
    """Whether both have the very same objects in one order."""
    return len(some) == len(others) and all(one is other for one, other in zip(some, others, strict=True))


def _targets(port: ServicePort, destination: Destination) -> tuple[int, ...]:
    """The pods' ports behind a Service's; one called by name may differ from pod to pod."""
    if port.target_port_number is not None:
        return (port.target_port_number,)
    if port.target_port_name is None:
        return (port.port,)
    service = destination.spec.kube_service
    subsets = service.endpoint_subsets if service is not None else ()
    return tuple(sorted({each.port for subset in subsets for each in subset.ports if each.name == port.name})) or (0,)


def _blocks(judged: Iterable[Judged], numbers: Iterable[int]) -> dict[int, int]:
    """To each of *numbers* the block of those to whom all of *judged* say the same."""
    every = 0
    for number in numbers:
        every |= 1 << number
    blocks = [every]
    for mask in {mask for each in judged for mask in (each.yes, each.depends, each.known)}:
        split = []
        for block in blocks:
            split += [part for part in (block & mask, block & ~mask) if part]
        blocks = split
    return {number: i for i, block in enumerate(blocks) for number in members(block)}


def members(callers: int) -> Iterator[int]:
    """The numbers in a set of callers, in order."""
    while callers:
        lowest = callers & -callers
        yield lowest.bit_length() - 1
        callers ^= lowest


def spelled(name: Ref) -> str:
    """*name* as users write it: ``<namespace>/<name>@<cluster>``."""
    return f"{name.namespace}/{name.name}@{name.cluster}"


# --- what a change comes to -------------------------------------------------------------------------------------------


def difference(
    before: Reachability,
    after: Reachability,
    callees: Iterable[Ref],
    callers: Iterable[Ref],
    request: Request = ANYTHING,
) -> tuple[Change, ...]:
    """What *after* makes different among *callees* and *callers*; the two share numbers and effects.

    Also finds what `matrix` does not show: another path for somebody who could call some paths before. Callees and
    callers that are in one of the two only reach nothing, and are reached by nobody, in the other. Callers that are in
    both have one identity in both.
    """
    there, then = before.callers, after.callers
    chosen = {name: then.get(name, there.get(name, 0)) for name in callers}
    wanted = 0
    for number in chosen.values():
        wanted |= 1 << number
    known: dict[tuple[Kind | None, Kind | None, bool], Compared] = {}
    found: dict[Compared, list[Ref]] = {}
    nobody = Judged(0, 0, 0)
    same_policies, same_callers = cache(partial(before.same_policies, after)), before.same_callers(after)
    for name in sorted(set(callees)):
        if same_callers and before.same_for(after, name, same_policies):
            continue
        old = _found(before, name)
        new = after.as_before(old, before) if old is not None else None
        new = new or _found(after, name)
        was, is_ = before.kind(old) if old else None, after.kind(new) if new else None
        if was is not None and was == is_ and before.known(was) == after.known(was):
            continue
        kinds = (was, is_, bool(old and new and old.pods == new.pods))
        if kinds not in known:
            opened, closed = _compare(before, after, *kinds, request)
            known[kinds] = Compared(
                before.judge(old, request) if old else nobody,
                after.judge(new, request) if new else nobody,
                opened & wanted,
                closed & wanted,
            )
        if known[kinds].opened | known[kinds].closed:
            found.setdefault(known[kinds], []).append(name)
    changes: list[Change] = []
    for each, names in found.items():
        groups: dict[tuple[Reach, Reach, bool, bool], list[Ref]] = {}
        for caller, number in sorted(chosen.items()):
            opens, closes = bool(each.opened >> number & 1), bool(each.closed >> number & 1)
            if opens or closes:
                key = (each.before.of(number), each.after.of(number), opens, closes)
                groups.setdefault(key, []).append(caller)
        changes += [Change(tuple(who), tuple(names), *key) for key, who in groups.items()]
    return tuple(sorted(changes, key=lambda change: (not change.opens, change.callees, change.callers)))


def _found(reachability: Reachability, name: Ref) -> Callee | None:
    try:
        return reachability.find_callee(name)
    except NotFound:
        return None


def _compare(
    before: Reachability,
    after: Reachability,
    old: Kind | None,
    new: Kind | None,
    same_pods: bool,
    request: Request,
) -> tuple[int, int]:
    """Callers for whom some request passes that did not, and those for whom some does not that did.

    Pods that differ are compared each with each.
    """
    knew, knows = before.known(old) if old else 0, after.known(new) if new else 0
    were, are = old.effects if old else (frozenset(),), new.effects if new else (frozenset(),)
    ports = tuple(dict.fromkeys((*(old.ports if old else ()), *(new.ports if new else ()))))
    opened = closed = 0
    for was, is_ in dict.fromkeys(zip(were, are, strict=True) if same_pods else itertools.product(were, are)):
        effects = was | is_
        for asked in requests(effects, _ports(ports, request), request):
            had, has = knew if _answers(old, asked) else 0, knows if _answers(new, asked) else 0
            for settled in _settled(effects, asked):
                passed, passes = before.passing(was, settled), after.passing(is_, settled)
                opened |= passes.perhaps & has & ~(passed.sure & had)
                closed |= passed.perhaps & had & ~(passes.sure & has)
    return opened, closed


def _answers(kind: Kind | None, request: Request) -> bool:
    """Whether callees of *kind* have the port of *request*, which is that of the pods."""
    return kind is not None and any(
        port.target in (0, request.port) and port.is_http is request.is_http for port in kind.ports
    )


def _settled(effects: Iterable[Effect], request: Request) -> Iterator[Request]:
    """*request* with every combination of what it leaves open, or as it is if they are too many."""
    questions = sorted(set(open_questions(effects, request)))
    if not questions or 1 << len(questions) > MOST_ASSUMPTIONS:
        yield request
        return
    for answers in itertools.product((False, True), repeat=len(questions)):
        assumed = {**request.assumed, **dict(zip(questions, answers, strict=True))}
        yield msgspec.structs.replace(request, assumed=assumed)
