"""What AuthorizationPolicies, ours and those that users wrote, make of a call: whether it may be made, and why.

Source: https://istio.io/latest/docs/concepts/security/#implicit-enablement (CUSTOM, then DENY, then ALLOW; no ALLOW
policy means allow), https://istio.io/latest/docs/reference/config/security/authorization-policy/ (how fields match).
What cannot be known from a call on paper, such as an address or a header, makes the answer DEPENDS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any

import msgspec

from isthmus.istio.kinds import AUTHORIZATION_POLICY

Manifest = Mapping[str, Any]


class Answer(Enum):
    """Whether something holds."""

    NO = "no"
    DEPENDS = "depends"
    YES = "yes"


class Workload(msgspec.Struct, frozen=True):
    """Pods that are called."""

    namespace: str
    labels: Mapping[str, str]


class Call(msgspec.Struct, frozen=True):
    """A request. *principal* is ``<trust domain>/ns/<namespace>/sa/<account>``, empty without mutual TLS.

    *port* is that of the pod. *method* and *path* empty: any, which makes what they decide depend on them. A call over
    plain TCP (*is_http* False) has neither.
    """

    principal: str
    port: int = 0
    method: str = ""
    path: str = ""
    is_http: bool = True

    @property
    def namespace(self) -> str:
        """The caller's namespace, as its principal tells it."""
        parts = self.principal.split("/")
        return parts[2] if len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa" else ""


class Decision(msgspec.Struct, frozen=True):
    """Whether a call may be made, and the policies that decide: ``<namespace>/<name>``, sorted."""

    answer: Answer
    reason: str
    policies: tuple[str, ...] = ()


class Policies:
    """The AuthorizationPolicies of one cluster, whose root namespace is *root*."""

    def __init__(self, manifests: Iterable[Manifest], root: str) -> None:
        self._root = root
        self._policies: dict[str, list[Manifest]] = {}
        for manifest in manifests:
            if manifest.get("kind") == AUTHORIZATION_POLICY.kind:
                self._policies.setdefault(manifest["metadata"].get("namespace", ""), []).append(manifest)

    def of(self, workload: Workload) -> list[Manifest]:
        """The policies that apply to *workload*: of its namespace and the root namespace those that select it."""
        namespaces = dict.fromkeys((self._root, workload.namespace))
        return [
            policy
            for namespace in namespaces
            for policy in self._policies.get(namespace, ())
            if _selects(policy, workload)
        ]

    def decide(self, workload: Workload, call: Call) -> Decision:
        """Whether *call* of *workload* may be made."""
        return decide(self.of(workload), call)


def decide(policies: Sequence[Manifest], call: Call) -> Decision:
    """What *policies*, all of which apply to the workload that is called, make of *call*."""
    by_action: dict[str, list[Manifest]] = {}
    for policy in policies:
        by_action.setdefault(str((policy.get("spec") or {}).get("action") or "ALLOW").upper(), []).append(policy)
    custom = _matching(by_action.get("CUSTOM", ()), call)
    denied = _matching(by_action.get("DENY", ()), call)
    if denied[Answer.YES]:
        return Decision(Answer.NO, "a DENY policy matches", tuple(denied[Answer.YES]))
    allows = by_action.get("ALLOW", ())
    allowed = _matching(allows, call)
    if allows and not allowed[Answer.YES] and not allowed[Answer.DEPENDS]:
        return Decision(Answer.NO, "no ALLOW policy matches", tuple(sorted(_name(policy) for policy in allows)))
    if custom[Answer.YES] or custom[Answer.DEPENDS]:
        asked = (*custom[Answer.YES], *custom[Answer.DEPENDS])
        return Decision(Answer.DEPENDS, "a CUSTOM policy asks somebody else", tuple(sorted(asked)))
    if denied[Answer.DEPENDS]:
        return Decision(Answer.DEPENDS, "a DENY policy may match", tuple(denied[Answer.DEPENDS]))
    if not allows:
        return Decision(Answer.YES, "no ALLOW policy applies, so nothing is refused")
    if allowed[Answer.YES]:
        return Decision(Answer.YES, "an ALLOW policy matches", tuple(allowed[Answer.YES]))
    return Decision(Answer.DEPENDS, "an ALLOW policy may match", tuple(allowed[Answer.DEPENDS]))


def _matching(policies: Iterable[Manifest], call: Call) -> dict[Answer, list[str]]:
    found: dict[Answer, list[str]] = {answer: [] for answer in Answer}
    for policy in policies:
        spec = policy.get("spec") or {}
        denies = str(spec.get("action") or "ALLOW").upper() == "DENY"
        found[_any(_rule(rule or {}, call, denies=denies) for rule in spec.get("rules") or ())].append(_name(policy))
    found[Answer.NO] = []
    return {answer: sorted(names) for answer, names in found.items()}


def _name(policy: Manifest) -> str:
    return f"{policy['metadata'].get('namespace', '')}/{policy['metadata']['name']}"


def _selects(policy: Manifest, workload: Workload) -> bool:
    spec = policy.get("spec") or {}
    if spec.get("targetRef") or spec.get("targetRefs"):
        return False  # of gateways and waypoints; sidecars ignore it
    labels = (spec.get("selector") or {}).get("matchLabels") or {}
    return all(workload.labels.get(name) == value for name, value in labels.items())


# --- one rule ---------------------------------------------------------------------------------------------------------


def _rule(rule: Manifest, call: Call, *, denies: bool) -> Answer:
    sources = [_source(each.get("source") or {}, call, denies=denies) for each in rule.get("from") or ()]
    operations = [_operation(each.get("operation") or {}, call, denies=denies) for each in rule.get("to") or ()]
    conditions = [_condition(each, call) for each in rule.get("when") or ()]
    return _all((_any(sources) if sources else Answer.YES, _any(operations) if operations else Answer.YES, *conditions))


def _source(source: Manifest, call: Call, *, denies: bool) -> Answer:
    known: dict[str, Callable[[str], Answer]] = {
        "principals": lambda pattern: _text(pattern, call.principal),
        "namespaces": lambda pattern: _text(pattern, call.namespace),
    }
    return _all(_fields(source, known, call, denies=denies, of_http=("requestPrincipals",)))


def _operation(operation: Manifest, call: Call, *, denies: bool) -> Answer:
    known: dict[str, Callable[[str], Answer]] = {
        "ports": lambda pattern: _number(pattern, call.port),
        "methods": lambda pattern: _perhaps(pattern, call.method),
        "paths": lambda pattern: _perhaps(pattern, call.path.partition("?")[0]),
    }
    return _all(_fields(operation, known, call, denies=denies, of_http=("hosts", "methods", "paths")))


def _fields(
    found: Manifest,
    known: Mapping[str, Callable[[str], Answer]],
    call: Call,
    *,
    denies: bool,
    of_http: Sequence[str],
) -> Iterable[Answer]:
    """Each field of a source or operation. For TCP, Istio leaves fields of HTTP out of DENY rules, and ALLOW rules out.

    Source: https://istio.io/latest/docs/concepts/security/#using-istio-authorization-on-plain-tcp-protocols
    """
    for name, patterns in found.items():
        negative = name.startswith("not") and name[3:4].isupper()
        plain = name[3].lower() + name[4:] if negative else name
        if not patterns:
            continue
        if plain in of_http and not call.is_http:
            if not denies:
                yield Answer.NO
            continue
        match = known.get(plain)
        answer = _any(match(str(pattern)) for pattern in patterns) if match is not None else Answer.DEPENDS
        yield _not(answer) if negative else answer


def _condition(condition: Manifest, call: Call) -> Answer:
    known: dict[str, Callable[[str], Answer]] = {
        "source.principal": lambda pattern: _text(pattern, call.principal),
        "source.namespace": lambda pattern: _text(pattern, call.namespace),
        "destination.port": lambda pattern: _number(pattern, call.port),
    }
    match = known.get(str(condition.get("key")))
    if match is None:
        return Answer.DEPENDS
    answers = []
    if condition.get("values"):
        answers.append(_any(match(str(value)) for value in condition["values"]))
    if condition.get("notValues"):
        answers.append(_not(_any(match(str(value)) for value in condition["notValues"])))
    return _all(answers)


def _text(pattern: str, value: str) -> Answer:
    """Exact, ``prefix*``, ``*suffix`` or ``*``, which asks that there is something."""
    if pattern == "*":
        holds = bool(value)
    elif pattern.startswith("*"):
        holds = value.endswith(pattern[1:])
    elif pattern.endswith("*"):
        holds = value.startswith(pattern[:-1])
    else:
        holds = value == pattern
    return Answer.YES if holds else Answer.NO


def _perhaps(pattern: str, value: str) -> Answer:
    """As `_text`, for a value that may be left open."""
    if not value:
        return Answer.YES if pattern == "*" else Answer.DEPENDS
    if "{" in pattern:
        return Answer.DEPENDS  # a template of paths
    return _text(pattern, value)


def _number(pattern: str, value: int) -> Answer:
    if not value:
        return Answer.DEPENDS
    return Answer.YES if pattern == str(value) else Answer.NO


def _any(answers: Iterable[Answer]) -> Answer:
    best = Answer.NO
    for answer in answers:
        if answer is Answer.YES:
            return answer
        if answer is Answer.DEPENDS:
            best = answer
    return best


def _all(answers: Iterable[Answer]) -> Answer:
    worst = Answer.YES
    for answer in answers:
        if answer is Answer.NO:
            return answer
        if answer is Answer.DEPENDS:
            worst = answer
    return worst


def _not(answer: Answer) -> Answer:
    return {Answer.YES: Answer.NO, Answer.NO: Answer.YES, Answer.DEPENDS: Answer.DEPENDS}[answer]
