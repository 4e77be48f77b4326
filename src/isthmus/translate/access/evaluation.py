"""What AuthorizationPolicies, ours and those that users wrote, make of calls: whether they may be made, and why.

Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement (CUSTOM, then DENY, then ALLOW; no ALLOW
policy means allow), https://istio.io/latest/docs/reference/config/security/authorization-policy/ (how fields match),
https://istio.io/latest/docs/reference/config/security/conditions/.

One request is judged for any number of callers at once: a set of callers is an integer with one bit for each of them,
so a rule costs a few operations on integers whether it is asked about one caller or about ten thousand. What a request
on paper does not tell, such as an address or the claims of a token, leaves the answer open: callers then are in
`Masks.perhaps` and not in `Masks.sure`. `decide` asks about one caller and says why.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import lru_cache
from ipaddress import ip_network
from typing import Any, NamedTuple

import msgspec

from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.translate.access.patterns import any_of, ends_of, matches, template
from isthmus.translate.ports import LARGEST_PORT

Manifest = Mapping[str, Any]

SOURCE_FIELDS = {
    "principals": "source.principal",
    "namespaces": "source.namespace",
    "serviceAccounts": "source.serviceAccount",
    "trustDomains": "source.trustDomain",
    "requestPrincipals": "request.auth.principal",
    "ipBlocks": "source.ip",
    "remoteIpBlocks": "remote.ip",
}
OPERATION_FIELDS = {"ports": "destination.port", "methods": "method", "paths": "path", "hosts": "host"}
"""The fields of sources and operations, by the attribute that they speak of; conditions name attributes themselves."""

CALLER = ("source.principal", "source.namespace", "source.serviceAccount", "source.trustDomain")
ATTRIBUTES = (
    *SOURCE_FIELDS.values(), "request.auth.audiences", "request.auth.presenter",
    "destination.port", "destination.ip", "connection.sni",
)  # fmt: skip
NAMED = ("request.headers", "request.auth.claims", "experimental.envoy.filters.")
"""How attributes begin that have a name in brackets: ``request.headers[User-Agent]``."""
ADDRESSES = ("source.ip", "remote.ip", "destination.ip")
HTTP_ONLY = ("method", "path", "host", "request.")
LOCAL_TRUST_DOMAIN = "cluster.local"  # in a policy it stands for the mesh's own trust domain and its aliases
DRY_RUN = "istio.io/dry-run"
GATEWAY_NAME = "gateway.networking.k8s.io/gateway-name"
ANY = "\uffff"
"""In a path or a host: some text that is in no policy."""


class Answer(Enum):
    """Whether something holds."""

    NO = "no"
    DEPENDS = "depends"
    YES = "yes"


class Workload(msgspec.Struct, frozen=True):
    """Pods that are called."""

    namespace: str
    labels: Mapping[str, str]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a workload. Empty fields and 0 are left open.

    *port* is that of the pod. A request over plain TCP (*is_http* False) has neither method nor path nor host.
    *assumed* settles what a request on paper leaves open, by the names of `open_questions`.
    """

    port: int = 0
    port_name: str = ""
    """Of the port of a service; nothing to policies."""
    method: str = ""
    path: str = ""
    host: str = ""
    headers: Mapping[str, str] | None = None
    """Names in lower case; None leaves them open."""
    is_http: bool = True
    assumed: Mapping[str, bool] = {}


class Call(Request, frozen=True, kw_only=True):
    """A request of one caller: ``<trust domain>/ns/<namespace>/sa/<account>``, empty without mutual TLS."""

    principal: str


class Decision(msgspec.Struct, frozen=True):
    """Whether a call may be made, and the policies that decide: ``<namespace>/<name>``, sorted."""

    answer: Answer
    reason: str
    policies: tuple[str, ...] = ()
    depends_on: tuple[str, ...] = ()
    """What decides when the answer is DEPENDS, sorted: ``method is GET``."""


# --- policies ---------------------------------------------------------------------------------------------------------


class Clause(msgspec.Struct, frozen=True):
    """An attribute is one of some patterns, or with *negative* none of them."""

    attribute: str
    patterns: tuple[str, ...]
    negative: bool = False


class Rule(msgspec.Struct, frozen=True):
    """Calls from one of *sources* for one of *operations* under all *conditions*; an empty tuple asks for nothing."""

    sources: tuple[tuple[Clause, ...], ...] = ()
    operations: tuple[tuple[Clause, ...], ...] = ()
    conditions: tuple[Clause, ...] = ()

    def clauses(self) -> Iterator[Clause]:
        """All clauses."""
        for group in (*self.sources, *self.operations, self.conditions):
            yield from group


class Effect(msgspec.Struct, frozen=True, eq=False):
    """What a policy does, apart from whom it applies to. Equal texts give one object: see `Policies`."""

    action: str
    rules: tuple[Rule, ...]
    provider: str = ""
    """Who is asked where the action is CUSTOM."""


class Effects(dict[tuple[Any, ...], Effect]):
    """Effects by what they were made of, so that equal policies have one; shared by what is to be compared."""

    def __init__(self) -> None:
        super().__init__()
        self.read: dict[tuple[object, ...], tuple[Sequence[object], Policies]] = {}
        """The policies of places, and what they were read from."""


class Policy(msgspec.Struct, frozen=True, eq=False):
    """An AuthorizationPolicy that is in force."""

    namespace: str
    name: str
    selector: Mapping[str, str]
    gateways: tuple[str, ...] | None
    """The Gateways that it is attached to, if it names targets."""
    effect: Effect
    annotations: Mapping[str, str]

    @property
    def key(self) -> str:
        """``<namespace>/<name>``."""
        return f"{self.namespace}/{self.name}"

    def selects(self, workload: Workload) -> bool:
        """Whether the pods are meant, if the namespace is right. Sidecars ignore policies that name targets.

        Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/, targetRefs.
        """
        if self.gateways is not None:
            return self.namespace == workload.namespace and workload.labels.get(GATEWAY_NAME) in self.gateways
        return all(workload.labels.get(name) == value for name, value in self.selector.items())


class Policies:
    """The AuthorizationPolicies that one mesh reads.

    *root* is its root namespace, *trust_domains* its own and its aliases, which pass for each other in policies.
    Effects are compared by identity: *effects*, shared by several, makes equal effects one object in all of them.
    """

    def __init__(
        self,
        manifests: Iterable[Manifest],
        root: str,
        trust_domains: Sequence[str] = (),
        effects: Effects | None = None,
    ) -> None:
        self._root = root
        self._trust_domains = tuple(trust_domains)
        self._effects = effects if effects is not None else Effects()
        # By namespace and one label that they ask for, so that a workload is not compared with all of its namespace.
        self._found: dict[tuple[str, str, str], list[Policy]] = {}
        for manifest in manifests:
            if manifest.get("kind") == AUTHORIZATION_POLICY.kind and (policy := self._policy(manifest)) is not None:
                name, value = min(policy.selector.items(), default=("", ""))
                self._found.setdefault((policy.namespace, name, value), []).append(policy)

    def of(self, workload: Workload) -> list[Policy]:
        """The policies that apply to *workload*: of its namespace and the root namespace those that select it."""
        namespaces = dict.fromkeys((self._root, workload.namespace))
        return [policy for namespace in namespaces for policy in self.within(namespace, workload)]

    def within(self, namespace: str, workload: Workload) -> list[Policy]:
        """Those of *namespace* alone, which is that of *workload* or the root namespace."""
        found = self._found
        return [
            policy
            for name, value in (("", ""), *workload.labels.items())
            if (namespace, name, value) in found
            for policy in found[namespace, name, value]
            if policy.selects(workload)
        ]

    def decide(self, workload: Workload, call: Call) -> Decision:
        """Whether *call* of *workload* may be made."""
        return decide(self.of(workload), call)

    def _policy(self, manifest: Manifest) -> Policy | None:
        """The policy of *manifest*, None for one that only observes: AUDIT, or a dry run of anything but CUSTOM.

        Source: https://istio.io/latest/docs/tasks/security/authorization/authz-dry-run/
        """
        metadata, spec = manifest["metadata"], manifest.get("spec") or {}
        action, namespace = str(spec.get("action") or "ALLOW").upper(), metadata.get("namespace", "")
        annotations = metadata.get("annotations") or {}
        dry = str(annotations.get(DRY_RUN, "")) in ("1", "t", "T", "true", "TRUE", "True")
        if action not in ("ALLOW", "DENY", "CUSTOM") or (dry and action != "CUSTOM"):
            return None
        targets = spec.get("targetRefs") or ([spec["targetRef"]] if spec.get("targetRef") else None)
        return Policy(
            namespace=namespace,
            name=metadata["name"],
            selector=(spec.get("selector") or {}).get("matchLabels") or {},
            gateways=tuple(t.get("name", "") for t in targets if t.get("kind") == "Gateway") if targets else None,
            effect=self._effect(action, spec, namespace),
            annotations=annotations,
        )

    def _effect(self, action: str, spec: Manifest, namespace: str) -> Effect:
        provider = (spec.get("provider") or {}).get("name", "")
        text = msgspec.json.encode(spec.get("rules") or ())
        # A service account without a namespace is of the policy's own.
        key = (action, provider, text, self._trust_domains, namespace if b"erviceAccount" in text else "")
        if (known := self._effects.get(key)) is None:
            found = (compile_rule(rule, action, namespace, self._trust_domains) for rule in spec.get("rules") or ())
            known = self._effects[key] = Effect(action, tuple(filter(None, found)), provider)
        return known


def compile_rule(rule: Manifest | None, action: str, namespace: str, trust_domains: Sequence[str]) -> Rule | None:
    """*rule* of a policy in *namespace*, None if Istio leaves it out: it is null, or speaks of what Istio can't read.

    Source: https://github.com/istio/istio/blob/master/pilot/pkg/security/authz/model/model.go. A port that is no
    number, an address that is none and a name without brackets, which API servers with Istio's webhook refuse, take a
    rule out of ALLOW policies and make others wider.
    """
    if rule is None:
        return None
    sources = [_fields(each.get("source") or {}, SOURCE_FIELDS) for each in rule.get("from") or ()]
    operations = [_fields(each.get("operation") or {}, OPERATION_FIELDS) for each in rule.get("to") or ()]
    conditions = []
    for condition in rule.get("when") or ():
        key = str(condition.get("key"))
        if key not in ATTRIBUTES and not key.startswith(NAMED):
            return None
        for name, negative in (("values", False), ("notValues", True)):
            if condition.get(name):
                conditions.append(Clause(key, tuple(map(str, condition[name])), negative))
    groups = (*sources, *operations, conditions)
    readable = [[_readable(clause) for clause in group] for group in groups]
    if action == "ALLOW" and readable != list(groups):
        return None
    *made, when = (
        tuple(_prepared(clause, namespace, trust_domains) for clause in group if clause.patterns) for group in readable
    )
    return Rule(tuple(made[: len(sources)]), tuple(made[len(sources) :]), when)


def _fields(found: Manifest, attributes: Mapping[str, str]) -> list[Clause]:
    """Each field of a source or operation that says anything."""
    clauses = []
    for name, attribute in attributes.items():
        for spelling, negative in ((name, False), (f"not{name[0].upper()}{name[1:]}", True)):
            if found.get(spelling):
                clauses.append(Clause(attribute, tuple(map(str, found[spelling])), negative))
    return clauses


def _readable(clause: Clause) -> Clause:
    """*clause* with the patterns that Istio can read."""
    attribute = clause.attribute
    if attribute.startswith(NAMED):
        head, bracket, rest = attribute.partition("[")
        whole = bracket and rest.endswith("]") and (head in NAMED or head.startswith(NAMED[-1]))
        return clause if whole else msgspec.structs.replace(clause, patterns=())
    if attribute != "destination.port" and attribute not in ADDRESSES:
        return clause
    reads = _is_address if attribute in ADDRESSES else _is_port
    return msgspec.structs.replace(clause, patterns=tuple(filter(reads, clause.patterns)))


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and int(text) <= LARGEST_PORT


def _is_address(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _prepared(clause: Clause, namespace: str, trust_domains: Sequence[str]) -> Clause:
    patterns: Iterable[str] = clause.patterns
    if clause.attribute == "source.principal" and trust_domains:
        patterns = (name for pattern in patterns for name in _with_aliases(pattern, trust_domains))
    elif clause.attribute == "source.trustDomain":
        patterns = (
            name for pattern in patterns for name in (trust_domains if pattern in trust_domains else (pattern,))
        )
    elif clause.attribute == "source.serviceAccount":
        patterns = (pattern if "/" in pattern else f"{namespace}/{pattern}" for pattern in patterns)
    return msgspec.structs.replace(clause, patterns=tuple(dict.fromkeys(patterns)))


def _with_aliases(principal: str, trust_domains: Sequence[str]) -> Iterator[str]:
    """*principal* in each of *trust_domains* if it is of one of them or of ``cluster.local``, else as it is.

    Source: https://istio.io/latest/docs/tasks/security/authorization/authz-td-migration/,
    https://github.com/istio/istio/blob/master/pilot/pkg/security/trustdomain/bundle.go
    """
    domain, *rest = principal.split("/")
    is_ours = domain == LOCAL_TRUST_DOMAIN or any(matches(domain, ours) for ours in trust_domains)
    if len(rest) != 4 or domain == "*" or not is_ours:
        yield principal
        return
    for ours in trust_domains:
        yield principal if domain.startswith("*") and matches(domain, ours) else "/".join((ours, *rest))


# --- many callers at once ---------------------------------------------------------------------------------------------


class Masks(NamedTuple):
    """Callers for whom something holds for sure, and those for whom it may."""

    sure: int
    perhaps: int


class Callers:
    """Callers by number: the n-th bit of a set stands for the n-th of *principals*. Empty ones come without TLS."""

    def __init__(self, principals: Sequence[str]) -> None:
        self.everybody = (1 << len(principals)) - 1
        self._sets: dict[str, int] = {}
        for number, principal in enumerate(principals):
            if principal:
                self._sets[principal] = self._sets.get(principal, 0) | 1 << number
        self._sorted = sorted(self._sets)
        self._known: dict[tuple[str, tuple[str, ...]], int] = {}
        self._by_part: dict[str, dict[str, int]] = {}

    def matching(self, attribute: str, patterns: tuple[str, ...]) -> int:
        """The callers of whom an attribute of `CALLER` is one of *patterns*."""
        known = self._known.get((attribute, patterns))
        if known is None:
            known = 0
            for pattern in patterns:
                known |= self._matching(attribute, pattern)
            self._known[attribute, patterns] = known
        return known

    def _matching(self, attribute: str, pattern: str) -> int:
        if attribute == "source.principal":
            if "*" not in (pattern[:1], pattern[-1:]):
                return self._sets.get(pattern, 0)
            if pattern.endswith("*") and not pattern.startswith("*"):
                return self._union(self._beginning_with(pattern[:-1]))
            return self._union(principal for principal in self._sorted if matches(pattern, principal))
        if "*" not in pattern or attribute == "source.serviceAccount":
            return self._parts(attribute).get(pattern, 0)
        if attribute == "source.namespace":
            expression = re.compile(
                r"spiffe://.*/ns/" + ".*".join(map(re.escape, pattern.split("*"))) + r"/.*"
            )  # as Istio writes it
            return self._union(name for name in self._sorted if expression.fullmatch(f"spiffe://{name}"))
        if pattern == "*":
            return self._union(self._sorted)
        head, _, tail = pattern.partition("*")  # also in the middle; another one is a character, as Istio has it
        expression = re.compile(f"{re.escape(head)}[^/]*{re.escape(tail)}")
        return self._union(name for name in self._sorted if expression.fullmatch(name.partition("/")[0]))

    def _beginning_with(self, prefix: str) -> Iterator[str]:
        for number in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[number].startswith(prefix):
                return
            yield self._sorted[number]

    def _union(self, principals: Iterable[str]) -> int:
        found = 0
        for principal in principals:
            found |= self._sets[principal]
        return found

    def _parts(self, attribute: str) -> dict[str, int]:
        """Callers by their namespace, service account or trust domain."""
        if attribute not in self._by_part:
            found = self._by_part[attribute] = {}
            for principal, callers in self._sets.items():
                domain, _, namespace, _, account = (*principal.split("/"), "", "", "", "")[:5]
                part = {"source.namespace": namespace, "source.trustDomain": domain}.get(
                    attribute, f"{namespace}/{account}"
                )
                found[part] = found.get(part, 0) | callers
        return self._by_part[attribute]


def judge(effects: Iterable[Effect], callers: Callers, request: Request) -> Masks:
    """Whose *request* passes a workload to which *effects* apply."""
    sure = perhaps = callers.everybody
    allows, allowed = False, Masks(0, 0)
    for effect in effects:
        action = _action(effect, request)
        found = matching(effect, callers, request)
        if action == "ALLOW":
            allows, allowed = True, Masks(allowed.sure | found.sure, allowed.perhaps | found.perhaps)
        elif action == "CUSTOM":
            sure &= ~found.perhaps
        elif action == "DENY":
            sure, perhaps = sure & ~found.perhaps, perhaps & ~found.sure
    if allows:
        sure, perhaps = sure & allowed.sure, perhaps & allowed.perhaps
    return Masks(sure, perhaps)


def matching(effect: Effect, callers: Callers, request: Request) -> Masks:
    """The callers whose *request* some rule of *effect* matches."""
    sure = perhaps = 0
    for rule in effect.rules:
        found = _rule(rule, effect.action == "ALLOW", callers, request)
        sure, perhaps = sure | found.sure, perhaps | found.perhaps
    return Masks(sure, perhaps)


def _rule(rule: Rule, allows: bool, callers: Callers, request: Request) -> Masks:
    """What is of HTTP only takes a rule out of ALLOW policies for TCP, and is left out of rules of others.

    Source: https://istio.io/latest/docs/concepts/security/#using-istio-authorization-on-plain-tcp-protocols
    """
    if not request.is_http and allows and any(_http_only(clause) for clause in rule.clauses()):
        return Masks(0, 0)
    sure = perhaps = callers.everybody
    for alternatives in (rule.operations, (rule.conditions,), rule.sources):
        if not alternatives:
            continue
        some_sure = some_perhaps = 0
        for clauses in alternatives:
            found = _clauses(clauses, callers, request)
            some_sure, some_perhaps = some_sure | found.sure, some_perhaps | found.perhaps
        sure, perhaps = sure & some_sure, perhaps & some_perhaps
        if not perhaps:
            break
    return Masks(sure, perhaps)


def _clauses(clauses: tuple[Clause, ...], callers: Callers, request: Request) -> Masks:
    sure = perhaps = callers.everybody
    for clause in clauses:
        if _http_only(clause) and not request.is_http:
            continue
        if clause.attribute in CALLER:
            found = callers.matching(clause.attribute, clause.patterns)
            found = callers.everybody & ~found if clause.negative else found
            sure, perhaps = sure & found, perhaps & found
            continue
        answer = holds(clause, request)
        if answer is Answer.NO:
            return Masks(0, 0)
        if answer is Answer.DEPENDS:
            sure = 0
    return Masks(sure, perhaps)


def _http_only(clause: Clause) -> bool:
    return clause.attribute.startswith(HTTP_ONLY)


def _provider(effect: Effect) -> str:
    return f"provider {effect.provider} agrees"


def _action(effect: Effect, request: Request) -> str:
    """What *effect* does once it is assumed what the provider of a CUSTOM policy says; empty for nothing."""
    if effect.action != "CUSTOM":
        return effect.action
    return {True: "", False: "DENY", None: "CUSTOM"}[request.assumed.get(_provider(effect))]


# --- one clause and one request ---------------------------------------------------------------------------------------


def holds(clause: Clause, request: Request) -> Answer:
    """Whether *request* is as *clause*, of an attribute that is not the caller's, wants it."""
    answer = any_of(_holds(clause.attribute, pattern, request) for pattern in clause.patterns)
    if answer is None:
        return Answer.DEPENDS
    return Answer.YES if answer is not clause.negative else Answer.NO


def open_questions(effects: Iterable[Effect], request: Request) -> Iterator[str]:
    """What decides about *request* and is not told by it, as keys of `Request.assumed`; may repeat itself."""
    for effect in effects:
        allows = effect.action == "ALLOW"
        if effect.action == "CUSTOM" and _provider(effect) not in request.assumed:
            yield _provider(effect)
        for rule in effect.rules:
            clauses = tuple(clause for clause in rule.clauses() if clause.attribute not in CALLER)
            if not request.is_http:
                if allows and any(map(_http_only, clauses)):
                    continue
                clauses = tuple(clause for clause in clauses if not _http_only(clause))
            for clause in clauses:
                for pattern in clause.patterns:
                    if _holds(clause.attribute, pattern, request) is None:
                        yield question(clause.attribute, pattern)


def question(attribute: str, pattern: str) -> str:
    """The name of whether *attribute* is *pattern*."""
    return f"{attribute} is {pattern}"


def _holds(attribute: str, pattern: str, request: Request) -> bool | None:
    """Whether *attribute* of *request* is *pattern*, None if that is open."""
    reads = _READS.get(attribute, _header if attribute.startswith("request.headers[") else None)
    found = reads(attribute, pattern, request) if reads is not None else None
    return request.assumed.get(question(attribute, pattern)) if found is None else found


def _port(_: str, pattern: str, request: Request) -> bool | None:
    return int(pattern) == request.port if request.port else None


def _method(_: str, pattern: str, request: Request) -> bool | None:
    return matches(pattern, request.method) if request.method else True if pattern == "*" else None


def _path(_: str, pattern: str, request: Request) -> bool | None:
    if pattern == "*":
        return True
    if not request.path:
        return None
    if (expression := template(pattern)) is None:
        return matches(pattern, normal_path(request.path))
    if ANY not in request.path:
        return expression.fullmatch(normal_path(request.path)) is not None
    head, tail = ends_of(pattern)
    before, _, after = request.path.partition(ANY)
    return None if before.startswith(head) and after.endswith(tail) else False


def _host(_: str, pattern: str, request: Request) -> bool | None:
    if pattern == "*":
        return True
    return matches(pattern.lower(), request.host.lower()) if request.host else None


def _header(attribute: str, pattern: str, request: Request) -> bool | None:
    name = attribute.partition("[")[2].removesuffix("]").lower()
    if name in _PARTS:
        return _PARTS[name](name, pattern, request)
    if request.headers is None or name.startswith(":"):
        return None
    value = request.headers.get(name)
    return value is not None and (pattern == "*" or matches(pattern, value))


def _authority(_: str, pattern: str, request: Request) -> bool | None:
    return matches(pattern, request.host) if request.host else True if pattern == "*" else None


_PARTS: dict[str, Callable[[str, str, Request], bool | None]] = {
    ":method": _method,
    ":authority": _authority,
    "host": _authority,
}
"""Headers that are parts of every request. Envoy calls the Host header ``:authority``, whatever a request has."""

_READS: dict[str, Callable[[str, str, Request], bool | None]] = {
    "destination.port": _port,
    "method": _method,
    "path": _path,
    "host": _host,
}


@lru_cache(maxsize=1024)
def normal_path(path: str) -> str:
    """*path* as policies see it: without query and fragment, ``\\`` as ``/``, dot segments resolved.

    Source: https://istio.io/latest/docs/reference/config/security/normalization/, BASE, the default.
    """
    path = re.split(r"[?#]", path, maxsplit=1)[0].replace("\\", "/")
    if "/." not in path:
        return path
    kept: list[str] = []
    *parts, last = path.split("/")[1:]
    for part in (*parts, last):
        if part == "..":
            kept[-1:] = []
        elif part != ".":
            kept.append(part)
    return "/" + "/".join([*kept, ""] if last in (".", "..") else kept)


# --- one caller, and why ----------------------------------------------------------------------------------------------


def decide(policies: Sequence[Policy], call: Call) -> Decision:
    """What *policies*, all of which apply to the workload that is called, make of *call*."""
    callers = Callers((call.principal,))
    found: dict[tuple[str, Answer], list[Policy]] = {}
    for policy in policies:
        masks = matching(policy.effect, callers, call)
        answer = Answer.YES if masks.sure else Answer.DEPENDS if masks.perhaps else Answer.NO
        found.setdefault((_action(policy.effect, call), answer), []).append(policy)

    def of(action: str, *answers: Answer) -> list[Policy]:
        return [policy for answer in answers for policy in found.get((action, answer), ())]

    def decision(answer: Answer, reason: str, deciding: Sequence[Policy]) -> Decision:
        asked = open_questions((policy.effect for policy in deciding), call) if answer is Answer.DEPENDS else ()
        return Decision(answer, reason, tuple(sorted({policy.key for policy in deciding})), tuple(sorted(set(asked))))

    allows = of("ALLOW", *Answer)
    if denying := of("DENY", Answer.YES):
        return decision(Answer.NO, "a DENY policy matches", denying)
    if allows and not of("ALLOW", Answer.YES, Answer.DEPENDS):
        return decision(Answer.NO, "no ALLOW policy matches", allows)
    if asking := of("CUSTOM", Answer.YES, Answer.DEPENDS):
        return decision(Answer.DEPENDS, "a CUSTOM policy asks somebody else", asking)
    if denying := of("DENY", Answer.DEPENDS):
        return decision(Answer.DEPENDS, "a DENY policy may match", denying)
    if not allows:
        return Decision(Answer.YES, "no ALLOW policy applies, so nothing is refused")
    if allowing := of("ALLOW", Answer.YES):
        return decision(Answer.YES, "an ALLOW policy matches", allowing)
    return decision(Answer.DEPENDS, "an ALLOW policy may match", of("ALLOW", Answer.DEPENDS))
