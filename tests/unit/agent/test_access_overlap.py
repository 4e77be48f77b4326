"""Policies whose selectors overlap: no step opens what stays closed, or closes what stays open, whatever fails.

Here policies have any selectors, in Istio's root namespace too, where they select pods of all namespaces.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, product, repeat
from typing import NamedTuple

from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.agent.outputs import Blocked, Prune, Write
from isthmus.istio import objects as istio
from isthmus.istio.kinds import AUTHORIZATION_POLICY
from tests.unit.agent.test_access_order import ROOT, Agent, Cluster, Manifest, key_of, policy

Labels = tuple[tuple[str, str], ...]
Allowed = frozenset[str]
KLM = ("k", "l", "m")
EVERYBODY = frozenset((*KLM, "a caller that no policy names"))
NAMESPACES = ("default", "elsewhere", ROOT)
MOST_STEPS = 3000


class Pod(NamedTuple):
    """Where a pod is, and its labels."""

    namespace: str
    labels: Labels


def labels(app: str, role: str) -> Labels:
    """Those that are not empty."""
    return tuple((name, value) for name, value in (("app", app), ("role", role)) if value)


PODS = tuple(
    Pod(namespace, labels(app, role)) for namespace, app, role in product(NAMESPACES, ("", "a", "b"), ("", "p", "q"))
)
SELECTORS = tuple(labels(app, role) for app, role in product(("", "a", "b"), ("", "p", "q")) if app or role)
DENY_ALL = policy("global-access-control", ROOT, istio.AuthorizationPolicySpec())


def allow(name: str, namespace: str, selector: Labels, callers: Iterable[str]) -> Manifest:
    """A policy that allows *callers*, or all if they are everybody; each has a rule of his own."""
    one_each = tuple(
        istio.AuthorizationRule(from_=(istio.From(source=istio.Source(principals=(caller,))),))
        for caller in sorted(callers)
    )
    rules = (istio.AuthorizationRule(),) if frozenset(callers) == EVERYBODY else one_each
    where = istio.WorkloadSelector(match_labels=dict(selector))
    return policy(name, namespace, istio.AuthorizationPolicySpec(selector=where, rules=rules))


def cluster(*manifests: Manifest) -> Cluster:
    return {key_of(manifest): manifest for manifest in manifests}


def selects(manifest: Manifest, pod: Pod) -> bool:
    """Source: https://istio.io/latest/docs/reference/config/security/authorization-policy/, selector."""
    asked = ((manifest["spec"].get("selector") or {}).get("matchLabels") or {}).items()
    return manifest["metadata"]["namespace"] in (ROOT, pod.namespace) and asked <= dict(pod.labels).items()


def callers_of(manifest: Manifest) -> Allowed:
    rules = manifest["spec"].get("rules") or ()
    if {} in rules:
        return EVERYBODY
    return frozenset(name for rule in rules for name in rule["from"][0]["source"]["principals"])


def guards(found: Cluster, pod: Pod) -> list[Manifest]:
    return [manifest for manifest in found.values() if selects(manifest, pod)]


def allowed(found: Cluster) -> dict[Pod, Allowed]:
    """Who may call which pods. Source: Istio, implicit enablement."""
    of = {pod: guards(found, pod) for pod in PODS}
    return {pod: frozenset().union(*map(callers_of, of[pod])) if of[pod] else EVERYBODY for pod in PODS}


def beyond(was: Cluster, now: Cluster, will: Cluster) -> list[tuple[Pod, str]]:
    """The calls that one step, from *was* to *now* on the way to *will*, changes other than to what they are to be."""
    before, after, end = allowed(was), allowed(now), allowed(will)
    found = []
    for pod in PODS:
        opened = after[pod] - before[pod] - end[pod]
        closed = (before[pod] & end[pod]) - after[pod]
        found += [(pod, f"passes: {caller}") for caller in sorted(opened)]
        if closed and not may_refuse(was, will, pod, before, end):
            found += [(pod, f"refused: {caller}") for caller in sorted(closed)]
    return found


def may_refuse(was: Cluster, will: Cluster, pod: Pod, before: dict[Pod, Allowed], end: dict[Pod, Allowed]) -> bool:
    """Whether *pod* is open at one end and has several policies at the other, none of which may allow everything.

    Then no order of steps refuses nothing: the first of them, or all but the last, allow what they do and no more. One
    may not if that let pass, on another pod, what is refused before and after; or if all it does is to refuse.
    """
    several = guards(will, pod) if before[pod] == EVERYBODY else guards(was, pod) if end[pod] == EVERYBODY else []
    return len(several) > 1 and all(
        not callers_of(each) or any(selects(each, other) and before[other] | end[other] != EVERYBODY for other in PODS)
        for each in several
    )


CALLERS = st.frozensets(st.sampled_from(KLM)) | st.just(EVERYBODY)
POLICIES = st.dictionaries(
    st.tuples(st.sampled_from(("one", "two", "three")), st.sampled_from(NAMESPACES)),
    st.tuples(st.sampled_from(SELECTORS), CALLERS),
    max_size=6,
)
STATES = st.builds(
    lambda found, denies: cluster(
        *(allow(name, namespace, *spec) for (name, namespace), spec in found.items()), *([DENY_ALL] if denies else ())
    ),
    POLICIES,
    st.booleans(),
)


class Course(NamedTuple):
    """What happens to a run."""

    refusals: tuple[bool, ...]
    """Whether the cluster refuses a step; none after these."""
    arrivals: tuple[int, ...]
    """Which of several writes arrives first, by number; the oldest after these."""
    restarts: frozenset[int]
    """After how many steps the agent ends and begins again."""
    haste: tuple[int, ...]
    """How many steps a wish lasts until the next one replaces it; those after these last until all is done."""


COURSES = st.builds(
    Course,
    st.lists(st.booleans(), max_size=25).map(tuple),
    st.lists(st.integers(0, 11), max_size=40).map(tuple),
    st.frozensets(st.integers(0, 30)),
    st.lists(st.integers(1, 20), max_size=3).map(tuple),
)


STAYS = allow("stays", "default", labels("b", "p"), KLM)
SEVERAL = (
    allow("one", ROOT, labels("", "p"), "l"),
    allow("two", ROOT, labels("", "p"), "m"),
    allow("three", "default", labels("a", ""), "l"),
)
"""None of the first two may allow everything beside what stays; for some of their pods, the third may."""
SMOOTH = Course((), (), frozenset(), ())


@settings(max_examples=200, deadline=None)
@example([cluster(STAYS), cluster(STAYS, *SEVERAL), cluster(STAYS)], SMOOTH)
@example(
    [
        cluster(allow("one", ROOT, labels("a", ""), "k")),
        cluster(allow("one", ROOT, labels("a", ""), "l"), allow("two", "default", labels("a", "p"), "k")),
    ],
    SMOOTH,
)
@given(st.lists(STATES, min_size=1, max_size=4), COURSES)
def test_each_step_leaves_every_call_as_it_is_or_as_it_is_to_be(states: list[Cluster], course: Course) -> None:
    check(states, course)


def check(states: Sequence[Cluster], course: Course) -> None:
    """Wish for one of *states* after the other, and look at every step."""
    agent, number = Agent({}), 0
    refused, arrivals = chain(course.refusals, repeat(False)), chain(course.arrivals, repeat(0))
    lasting = (*course.haste[: len(states) - 1], *repeat(MOST_STEPS, len(states)))
    for wish, most in zip(states, lasting, strict=False):
        agent.receive(wish)
        taken, done = 0, False
        was = dict(agent.cluster)
        while not done and taken < most:
            done = True
            for decided_for in agent.steps(refused, arrivals):
                assert beyond(was, agent.cluster, decided_for) == []
                was, number, taken = dict(agent.cluster), number + 1, taken + 1
                if number in course.restarts:
                    agent.restart(wish)
                    done = False
                if number in course.restarts or taken == most:
                    break
        assert taken < MOST_STEPS
    assert agent.cluster == states[-1]


# --- single cases -----------------------------------------------------------------------------------------------------

K, L = frozenset({"k"}), frozenset({"l"})
A, PRIMARY, REPLICA = labels("a", ""), labels("a", "p"), labels("a", "q")


def settled(*manifests: Manifest) -> Agent:
    """An agent of whose cluster *manifests* are all that there is, and all that is wished for."""
    agent = Agent({})
    agent.receive(cluster(*manifests))
    for _ in agent.steps(repeat(False)):
        pass
    return agent


def on_the_way(agent: Agent, *wish: Manifest) -> list[dict[str, tuple[Labels, Allowed]]]:
    """What is on the cluster, by name, after each step until *wish* stands."""
    agent.receive(cluster(*wish))
    return [
        {
            key.name: (tuple(manifest["spec"].get("selector", {}).get("matchLabels", {}).items()), callers_of(manifest))
            for key, manifest in agent.cluster.items()
        }
        for _ in agent.steps(repeat(False))
    ]


def test_what_denies_by_default_never_allows_everything() -> None:
    """Though policies of gateways stand beside it in Istio's root namespace, and guard the same pods."""
    gateways = [allow(name, ROOT, PRIMARY, EVERYBODY) for name in ("ingressgateway", "allow-ingress-gateway")]
    agent = settled(allow("a", "default", A, EVERYBODY), gateways[0])

    seen = [
        *on_the_way(agent, gateways[1], DENY_ALL),
        *on_the_way(agent, *gateways),
        *on_the_way(agent, DENY_ALL, *gateways),
    ]

    found = [each["global-access-control"] for each in seen if "global-access-control" in each]
    assert set(found) == {((), frozenset())}


def test_open_pods_get_a_wider_and_a_narrower_policy_by_way_of_one_that_allows_everything() -> None:
    wide, narrow = allow("wide", "default", A, K), allow("narrow", "default", PRIMARY, L)

    assert on_the_way(Agent({}), wide, narrow) == [
        {"wide": (A, EVERYBODY)},
        {"wide": (A, EVERYBODY), "narrow": (PRIMARY, L)},
        {"wide": (A, K), "narrow": (PRIMARY, L)},
    ]


def test_a_narrower_policy_goes_only_once_the_wider_one_is_there() -> None:
    """Else its pods were open in between."""
    agent = settled(allow("narrow", "default", PRIMARY, K))

    assert on_the_way(agent, allow("wide", ROOT, A, K))[0].keys() == {"narrow", "wide"}


def test_policies_that_exchange_their_pods_leave_none_open() -> None:
    """One is kept under a second name until the other is where it was."""
    agent = settled(allow("one", "default", PRIMARY, K), allow("two", "default", REPLICA, L))

    seen = on_the_way(agent, allow("one", "default", REPLICA, K), allow("two", "default", PRIMARY, L))

    assert all({PRIMARY, REPLICA} <= {selector for selector, _ in each.values()} for each in seen)
    assert any("one.before" in each or "two.before" in each for each in seen)
    assert seen[-1] == {"one": (REPLICA, K), "two": (PRIMARY, L)}


def test_a_prune_that_waits_for_what_cannot_be_written_names_it() -> None:
    goes, comes = allow("goes", "default", PRIMARY, K), allow("comes", "default", A, L)
    agent = settled(goes)
    agent.receive(cluster(comes))

    agent.outputs.decide(key_of(comes))
    meanwhile = agent.outputs.decide(key_of(goes))
    again = agent.outputs.failed(key_of(comes))

    assert meanwhile is None
    assert [key for key, _ in again] == [key_of(goes)]
    blocked = agent.outputs.decide(key_of(goes))
    assert isinstance(blocked, Blocked)
    assert blocked.reason.startswith(f"{key_of(comes)} is to be there first")


def test_only_where_users_have_policies_nothing_is_opened() -> None:
    """They may close what others open; policies of other pods, or that deny, do not matter."""
    wish = cluster(allow("wide", "default", A, K), allow("narrow", "default", PRIMARY, L))
    theirs = [
        allow("theirs", "elsewhere", A, K),
        allow("theirs", "default", labels("b", ""), K),
        {**(same := allow("theirs", "default", A, K)), "spec": {**same["spec"], "action": "DENY"}},
        allow("theirs", "default", A, K),
        allow("theirs", ROOT, A, K),
    ]

    assert [is_opened(wish, each) for each in theirs] == [True, True, True, False, False]


def is_opened(wish: Cluster, theirs: Manifest) -> bool:
    """Whether the first write beside *theirs* allows everything."""
    agent = Agent({})
    agent.receive(wish)
    metadata = {**theirs["metadata"], "resourceVersion": "1", "uid": "theirs"}
    agent.outputs.replaced(AUTHORIZATION_POLICY, [theirs | {"metadata": metadata}])
    write = agent.outputs.decide(min(wish))
    assert isinstance(write, Write)
    return callers_of(write.manifest) == EVERYBODY


def test_a_mesh_tells_which_namespace_is_the_root() -> None:
    """There, and there alone, selectors count for all namespaces."""
    goes, comes = allow("goes", "default", PRIMARY, K), allow("comes", "mesh", A, L)

    def waits(roots: frozenset[str]) -> bool:
        agent = settled(goes)
        agent.outputs.rooted(roots)
        agent.receive(cluster(comes))
        return agent.outputs.decide(key_of(goes)) is None

    assert [waits(frozenset(roots)) for roots in (set(), {"istio-system"}, {"mesh"})] == [False, False, True]


def test_what_waits_is_looked_at_again_when_the_root_namespace_is_known() -> None:
    goes, comes = allow("goes", "default", PRIMARY, K), allow("comes", ROOT, A, L)
    agent = settled(goes)
    agent.receive(cluster(comes))
    assert agent.outputs.decide(key_of(goes)) is None

    again = agent.outputs.rooted(frozenset({"mesh"}))

    assert key_of(goes) in [key for key, _ in again]
    assert isinstance(agent.outputs.decide(key_of(goes)), Prune)
