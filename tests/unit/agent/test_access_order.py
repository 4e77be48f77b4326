"""No step of a change of access opens what stays closed, or closes what stays open, whatever fails and whoever ends.

Istio's published rules are the judge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.agent.outputs import Blocked, Outputs, Prune, Write
from isthmus.agent.ownership import ownership_labels, with_labels
from isthmus.istio import objects as istio
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from isthmus.model.ref import ObjectKey
from isthmus.program.work import WorkQueue
from isthmus.translate.access.evaluation import Answer, Call, Policies, Workload
from isthmus.translate.access.rules import split

Manifest = dict[str, Any]
Cluster = dict[ObjectKey, Manifest]
Verdicts = dict[tuple[str, str], Answer]

SELECTS = {"a": "a", "twin-of-a": "a", "b": "b"}
"""Services, and the pods that they select."""
CALLERS = tuple(f"cluster1/ns/default/sa/{name}" for name in "klmnopqr")
ROOT = "istio-system"
PODS = {name: Workload("default", {"app": name}) for name in SELECTS.values()} | {
    "gateway": Workload(ROOT, {"istio": "ingressgateway"})
}
OURS = ownership_labels("cluster1", "gloo-mesh")
AT_ONCE = 4  # writes and prunes under way
OLDEST_FIRST = repeat(0)
SMALL = 200  # bytes of one part: room for two or three callers


def policy(name: str, namespace: str, spec: istio.AuthorizationPolicySpec) -> Manifest:
    made = istio.AuthorizationPolicy(metadata=istio.Metadata(name=name, namespace=namespace), spec=spec)
    return dict(orjson.loads(made.payload()))


def key_of(manifest: Manifest) -> ObjectKey:
    kind, metadata = AUTHORIZATION_POLICY, manifest["metadata"]
    return ObjectKey(kind.api_version, kind.kind, metadata["namespace"], metadata["name"])


def wanted(allowed: Mapping[str, Iterable[str] | None], *, denies: bool) -> Cluster:
    """What translation makes of callers by service, None where no policy is, and of a virtual mesh that *denies*."""
    found = []
    for name, callers in allowed.items():
        if callers is None:
            continue
        sources = (istio.From(source=istio.Source(principals=tuple(sorted(callers)))),) if callers else ()
        rules = (istio.AuthorizationRule(from_=sources),) if sources else ()
        for number, part in split(rules, SMALL).items():
            selector = istio.WorkloadSelector(match_labels={"app": SELECTS[name]})
            spec = istio.AuthorizationPolicySpec(selector=selector, rules=part)
            found.append(policy(f"{name}.{number + 1}" if number else name, "default", spec))
    if denies:
        selector = istio.WorkloadSelector(match_labels={"istio": "ingressgateway"})
        spec = istio.AuthorizationPolicySpec(selector=selector, rules=(istio.AuthorizationRule(),))
        found += [
            policy("global-access-control", ROOT, istio.AuthorizationPolicySpec()),
            policy("allow-ingress-gateway", ROOT, spec),
        ]
    return {key_of(manifest): manifest for manifest in found}


def verdicts(cluster: Cluster) -> Verdicts:
    """Who may call whom."""
    policies = Policies(cluster.values(), ROOT)
    return {
        (name, caller): policies.decide(pods, Call(principal=caller, port=9080, method="GET", path="/")).answer
        for name, pods in PODS.items()
        for caller in CALLERS
    }


class Agent:
    """What decides and queues in an agent, against a cluster that may refuse."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.version = 0
        self.now = 0.0
        self.restart({})

    def restart(self, desired: Cluster) -> None:
        """Begin again; what was under way never arrives."""
        self.outputs, self.queue = Outputs("cluster1", "gloo-mesh"), WorkQueue[ObjectKey]()
        self.under_way: list[tuple[ObjectKey, Write | Prune, Cluster]] = []
        self.receive(desired)
        listed = [self.stored(manifest) for manifest in self.cluster.values()]
        self.queue.add(self.outputs.replaced(AUTHORIZATION_POLICY, listed), self.now)

    def receive(self, desired: Cluster) -> None:
        self.wish = desired
        records: dict[str, bytes | None] = dict.fromkeys(self.outputs.records())
        records.update((str(key), orjson.dumps(manifest)) for key, manifest in desired.items())
        self.queue.add(self.outputs.receive(records, complete=True), self.now)

    def stored(self, manifest: Manifest) -> Manifest:
        self.version += 1
        found = with_labels(manifest, OURS)
        return found | {"metadata": {**found["metadata"], "resourceVersion": str(self.version), "uid": "u"}}

    def steps(self, refused: Iterator[bool], arrivals: Iterator[int] = OLDEST_FIRST) -> Iterator[Cluster]:
        """What was wished for at each write and prune, until nothing is left to do.

        *refused* tells which of them the cluster refuses, *arrivals* which of several under way comes next, by number.
        """
        while True:
            while len(self.under_way) < AT_ONCE and (key := self.queue.take(self.now)) is not None:
                action = self.outputs.decide(key)
                if isinstance(action, Write | Prune):
                    self.under_way.append((key, action, self.wish))
                else:
                    self.queue.done(key)
            if not self.under_way:
                due = self.queue.next_due()
                if due is None:
                    return
                self.now = due
                continue
            key, action, wish = self.under_way.pop(next(arrivals) % len(self.under_way))
            if next(refused):
                self.queue.add(self.outputs.failed(key), self.now)
                self.queue.failed(key, self.now)
                continue
            if isinstance(action, Write):
                written = without_labels(action.manifest)
                self.cluster[key_of(written)] = written
                self.queue.add(self.outputs.wrote(key, action, self.stored(written)), self.now)
            else:
                gone = self.stored(self.cluster.pop(key))
                self.queue.add(self.outputs.removed(AUTHORIZATION_POLICY, gone), self.now)
            self.queue.done(key)
            yield wish


def without_labels(manifest: Manifest) -> Manifest:
    metadata = {name: value for name, value in manifest["metadata"].items() if name != "labels"}
    return {**manifest, "metadata": metadata}


CALLERS_OR_NOBODY = st.none() | st.frozensets(st.sampled_from(CALLERS))
STATES = st.tuples(st.fixed_dictionaries(dict.fromkeys(SELECTS, CALLERS_OR_NOBODY)), st.booleans())


def beyond(seen: Cluster, was: Verdicts, will: Verdicts) -> list[tuple[str, str]]:
    """The calls that are neither as they were before a change nor as they are to be after it."""
    return [call for call, now in verdicts(seen).items() if now not in (was[call], will[call])]


@settings(max_examples=100, deadline=None)
@given(st.lists(STATES, min_size=2, max_size=4), st.lists(st.booleans(), max_size=25), st.sets(st.integers(0, 20)))
def test_no_step_of_a_change_goes_beyond_what_was_and_what_will_be(
    states: list[tuple[dict[str, frozenset[str] | None], bool]], refusals: list[bool], restarts: set[int]
) -> None:
    agent, count = Agent({}), 0
    refused = iter([*refusals, *[False] * 1000])
    for allowed, denies in states:
        after = wanted(allowed, denies=denies)
        was, will = verdicts(agent.cluster), verdicts(after)
        agent.receive(after)
        done = False
        while not done:
            done = True
            for _ in agent.steps(refused):
                assert beyond(agent.cluster, was, will) == []
                count += 1
                if count in restarts:
                    agent.restart(after)
                    done = False
                    break
        assert agent.cluster == after


K = frozenset(CALLERS[:1])
DENY_ALL = ObjectKey("security.istio.io/v1beta1", "AuthorizationPolicy", ROOT, "global-access-control")


def ready(desired: Cluster, found: Iterable[Manifest] = ()) -> Agent:
    """An agent that is to write *desired* where *found* are."""
    agent = Agent({})
    agent.receive(desired)
    agent.outputs.replaced(AUTHORIZATION_POLICY, [*found])
    return agent


def test_the_denial_names_what_it_waits_for() -> None:
    """The status of the virtual mesh shows it: until then calls are not denied by default."""
    agent = ready(wanted({"a": K}, denies=True))

    blocked = agent.outputs.decide(DENY_ALL)

    assert isinstance(blocked, Blocked)
    assert "is to be there first" in blocked.reason


def test_a_denial_that_somebody_deletes_comes_back_at_once() -> None:
    """Also while another policy cannot be written: what was closed stays closed."""
    desired = wanted({"a": K}, denies=True)
    agent = Agent({})
    agent.receive(desired)
    for _ in agent.steps(iter([False] * 100)):
        pass

    agent.receive(wanted({"a": K, "b": K}, denies=True))
    agent.outputs.removed(AUTHORIZATION_POLICY, agent.stored(agent.cluster.pop(DENY_ALL)))

    assert isinstance(agent.outputs.decide(DENY_ALL), Write)


def test_nobody_waits_for_what_somebody_else_has() -> None:
    """A policy of that name that a user wrote is left alone, and does not keep the rest open."""
    desired = wanted({"a": K}, denies=True)
    agent = Agent({})
    theirs = policy("a", "default", istio.AuthorizationPolicySpec())
    theirs["metadata"] |= {"resourceVersion": "1", "uid": "theirs"}
    agent.receive(desired)
    agent.queue.add(agent.outputs.replaced(AUTHORIZATION_POLICY, [theirs]), 0.0)

    for _ in agent.steps(iter([False] * 100)):
        pass

    assert sorted(key.name for key in agent.cluster) == ["allow-ingress-gateway", "global-access-control"]


def test_what_users_close_is_not_opened_meanwhile() -> None:
    """Open pods get several policies by way of one that allows everything, but not where users have policies."""
    everybody = frozenset(CALLERS)
    desired = wanted({"a": everybody}, denies=False)
    theirs = policy("theirs", "default", istio.AuthorizationPolicySpec())
    theirs["metadata"] |= {"resourceVersion": "1", "uid": "theirs"}

    first = [ready(desired, found).outputs.decide(sorted(desired)[0]) for found in ((), (theirs,))]

    assert len(desired) > 1
    assert [isinstance(write, Write) and write.manifest["spec"]["rules"] == [{}] for write in first] == [True, False]
