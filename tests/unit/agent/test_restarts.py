"""What restarts next, on clusters of every shape and whatever happens in between."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.agent.restarts import AT_ONCE, PATIENCE, Enlist, Evict, Plan, Roll, Scene, plan, started_before
from isthmus.agent.rollouts import Budget, Controller, Owner, Pod, Service
from isthmus.api.pod_bounce_directive import PodSelector
from tests.unit.agent.simulated import ISTIOD, NEW, START, Cluster, Set

APPS = ("a", "b", "c")
MOST_STEPS = 2000


def control_plane(replicas: int = 1, taken: int = 0) -> Set:
    return Set(Controller(ISTIOD, replicas=replicas, most_taken=taken), "istiod", surge=1)


@st.composite
def sets(draw: st.DrawFn, number: int) -> Set:
    """A controller of any kind and strategy."""
    kind = draw(st.sampled_from(["Deployment", "Recreate", "StatefulSet", "OnDelete", "DaemonSet", "ReplicaSet"]))
    replicas = draw(st.integers(0, 4))
    taken, surge = draw(st.sampled_from([(0, 1), (1, 0), (1, 1), (2, 1), (replicas, 0)]))
    if kind == "Recreate":
        taken = replicas
    elif kind != "Deployment":
        taken, surge = 1, 0
    names = {"Recreate": "Deployment", "OnDelete": "StatefulSet"}
    controller = Controller(
        Owner(names.get(kind, kind), "default", f"set{number}"),
        replicas=replicas,
        most_taken=max(taken, 0 if surge else 1),
        rolls=kind not in ("OnDelete", "ReplicaSet"),
    )
    return Set(controller, draw(st.sampled_from(APPS)), surge, broken=draw(st.booleans()), recreates=kind == "Recreate")


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """An istiod and up to six other controllers, which share services and budgets."""
    made = [draw(sets(number)) for number in range(draw(st.integers(1, 6)))]
    chosen = draw(st.lists(st.sampled_from(APPS), unique=True))
    guards = draw(st.dictionaries(st.sampled_from(APPS), st.integers(0, 3), max_size=2))
    bare = draw(st.lists(st.sampled_from(APPS), max_size=2))
    cluster = Cluster(
        [control_plane(draw(st.integers(1, 3)), draw(st.integers(0, 1))), *made],
        tuple(Service("default", f"service-{app}", {"app": app}) for app in chosen),
        bare=tuple(bare),
    )
    cluster.guards = {app: min(wanted, cluster.ready(app)) for app, wanted in guards.items()}
    return cluster


def look(cluster: Cluster) -> Plan:
    return plan(cluster.selectors, NEW, cluster.scene, cluster.now)


def go_on(cluster: Cluster) -> Plan:
    """Let agent and cluster do all they can, in turns."""
    for _ in range(MOST_STEPS):
        made = look(cluster)
        cluster.act(made)
        steps = cluster.steps()
        for step in steps[:1]:
            step()
        if not steps:
            if not made.actions and made.look_again is None:
                return made
            cluster.now = max(cluster.now, made.look_again or cluster.now)
        check(cluster)
    pytest.fail("the restart goes round in circles")


def check(cluster: Cluster) -> None:
    """What must hold at every moment."""
    for service in cluster.services:
        app = service.selector["app"]
        assert cluster.ready(app) >= 1 or app not in cluster.served, f"{service.name} lost its last ready pod"
    for app, wanted in cluster.guards.items():
        assert cluster.ready(app) >= wanted, f"fewer pods of {app} than its PodDisruptionBudget asks for"
    assert len(set(cluster.begun)) == len(cluster.begun), f"restarted twice: {cluster.begun}"
    assert len(set(cluster.evicted)) == len(cluster.evicted), f"evicted twice: {cluster.evicted}"
    if set(cluster.begun) - {ISTIOD}:
        assert cluster.synchronised, "a workload was restarted before the new root was everywhere"
        assert not [p for p in cluster.pods.values() if p.owner == ISTIOD and p.restarted_for != NEW], "istiod is old"


@given(clusters())
def test_without_the_management_plane_nothing_begins_that_requests_depend_on(cluster: Cluster) -> None:
    """Other clusters would go on calling the pods that end. istiod restarts; all else when it is connected again."""
    for _ in range(MOST_STEPS):
        made = plan(cluster.selectors, NEW, replace(cluster.scene, linked=False), cluster.now)
        cluster.act(made)
        steps = cluster.steps()
        for step in steps[:1]:
            step()
        if not steps and not made.actions:
            break
    else:
        pytest.fail("the restart goes round in circles")

    assert set(cluster.begun) <= {ISTIOD}
    assert cluster.evicted == []
    go_on(cluster)
    assert look(cluster).actions == ()


@given(clusters(), st.lists(st.tuples(st.integers(0, 99), st.integers(0, 3)), max_size=60))
def test_no_destination_loses_its_last_ready_pod(cluster: Cluster, history: list[tuple[int, int]]) -> None:
    """Whatever comes when, and wherever the agent is killed: nothing is lost or restarted twice, istiod is first.

    A kill comes after the first *n* actions of a plan; nothing but the cluster remembers them.
    """
    for step, actions in history:
        cluster.act(look(cluster), actions)
        check(cluster)
        if steps := cluster.steps():
            steps[step % len(steps)]()
        else:
            cluster.now += PATIENCE / 2
        check(cluster)
    end = go_on(cluster)

    told = " ".join((*end.left, *end.waiting))
    assert all(pod.called in told or str(pod.owner) in told for pod in end.old if cluster.synchronised), end


@given(clusters())
def test_what_can_be_restarted_is(cluster: Cluster) -> None:
    """Deployments that take no pod away before its successor is ready all end with new pods."""
    for each in cluster.sets:
        each.broken = False

    go_on(cluster)

    for each in cluster.sets:
        if each.owner.kind == "Deployment" and each.controller.most_taken == 0:
            assert {pod.restarted_for for pod in cluster.pods.values() if pod.owner == each.owner} <= {NEW}


@given(clusters())
def test_a_second_look_at_a_finished_restart_does_nothing(cluster: Cluster) -> None:
    end = go_on(cluster)

    assert not look(cluster).actions
    assert look(cluster) == end


# --- one by one -----------------------------------------------------------------------------------------------------


def one(kind: str = "Deployment", replicas: int = 1, *, app: str = "a", name: str = "one", taken: int = 0) -> Set:
    controller = Controller(Owner(kind, "default", name), replicas=replicas, most_taken=taken)
    return Set(controller, app, surge=0 if taken else 1, recreates=taken == replicas)


def serving(*apps: str) -> tuple[Service, ...]:
    return tuple(Service("default", f"service-{app}", {"app": app}) for app in apps)


def after_istiod(cluster: Cluster) -> Cluster:
    """*cluster* once istiod has the new certificate and its root is everywhere."""
    istiod = cluster.sets[0]
    istiod.template = NEW
    istiod.controller = replace(istiod.controller, restarted_for=NEW)
    cluster.pods = {
        uid: replace(pod, restarted_for=NEW, ready_since=START) if pod.owner == ISTIOD else pod
        for uid, pod in cluster.pods.items()
    }
    cluster.synchronised = True
    return cluster


def test_istiod_comes_first() -> None:
    cluster = Cluster([control_plane(), one()], serving("a"))

    made = look(cluster)

    assert [action.controller.owner for action in made.actions if isinstance(action, Roll)] == [ISTIOD]
    assert made.waiting == (
        "Deployment istio-system/istiod is restarting",
        "0 of 1 restarted pods in istio-system with app=istiod are ready",
    )


def test_workloads_wait_for_the_root_in_their_namespace() -> None:
    cluster = after_istiod(Cluster([control_plane(), one()], serving("a")))
    cluster.synchronised = False

    made = look(cluster)

    assert not made.actions
    assert made.waiting == ("ConfigMap default/istio-ca-root-cert does not have the new root yet",)


def test_an_ending_istiod_is_waited_for() -> None:
    """It signs to its end, with what it began with."""
    cluster = after_istiod(Cluster([control_plane(), one()], serving("a")))
    cluster.pods["late"] = Pod(
        "istio-system", "istiod-late", "late", {"app": "istiod"}, ISTIOD, ready=True, ending=True, created=START
    )

    assert not look(cluster).actions
    del cluster.pods["late"]
    assert look(cluster).actions


def test_a_recreated_deployment_is_replaced_pod_by_pod() -> None:
    """Its own strategy would take all pods at once."""
    cluster = after_istiod(Cluster([control_plane(), one(replicas=2, taken=2)], serving("a")))

    [enlist] = look(cluster).actions
    assert isinstance(enlist, Enlist)
    assert len(enlist.pods) == 2
    cluster.act(look(cluster))
    [evict] = look(cluster).actions
    assert isinstance(evict, Evict)

    assert go_on(cluster).done
    assert len(cluster.evicted) == 2


def test_the_only_pod_of_a_destination_is_left_to_a_person() -> None:
    cluster = after_istiod(Cluster([control_plane(), one("StatefulSet", taken=1)], serving("a")))

    made = go_on(cluster)

    assert not made.done
    assert made.left == ("StatefulSet default/one has the last ready pod of service service-a",)


def test_the_only_pod_that_nobody_asks_is_restarted() -> None:
    cluster = after_istiod(Cluster([control_plane(), one("StatefulSet", taken=1)], ()))

    assert go_on(cluster).done


def test_a_budget_that_allows_nothing_is_obeyed() -> None:
    """Unless the controller takes no pod before its successor is ready."""
    cluster = after_istiod(
        Cluster([control_plane(), one(replicas=2, taken=1), one(app="b", name="two")], (), guards={"a": 2, "b": 1})
    )

    made = go_on(cluster)

    assert made.left == (
        "Deployment default/one may not be restarted now: PodDisruptionBudget guard-a allows 0 pods away",
    )
    assert cluster.begun == [Owner("Deployment", "default", "two")]


def test_a_budget_is_shared_by_all_that_one_plan_takes() -> None:
    """Of one whose time is up and one that begins, each alone may take a pod; both would be one too many."""
    enlisted, next_one = one(replicas=2, taken=2, name="enlisted"), one(replicas=1, taken=1, name="next")
    cluster = after_istiod(Cluster([control_plane(), enlisted, next_one], ()))
    cluster.guards = {"a": 2}
    cluster.act(look(cluster))  # writes down what is to be evicted
    assert enlisted.controller.enlisted

    cluster.now += 3 * PATIENCE
    cluster.act(look(cluster))

    assert cluster.ready("a") == 2
    assert cluster.begun == [enlisted.owner]


def test_pods_without_a_controller_are_told_and_left_alone() -> None:
    cluster = after_istiod(Cluster([control_plane()], (), bare=("a",)))

    made = look(cluster)

    assert not made.actions
    assert [pod.name for pod in made.old] == ["bare-1"]
    assert made.left == ("default/bare-1 has no controller that would replace it",)


def test_controllers_of_one_destination_go_one_after_the_other() -> None:
    several = [one(name=f"set{number}") for number in range(3)]
    cluster = after_istiod(Cluster([control_plane(), *several], serving("a")))

    assert len(look(cluster).actions) == 1


def test_only_so_many_controllers_roll_side_by_side() -> None:
    several = [one(name=f"set{number}", app=f"app{number}") for number in range(9)]
    cluster = after_istiod(Cluster([control_plane(), *several], ()))

    assert len(look(cluster).actions) == AT_ONCE


def test_a_controller_that_gets_no_ready_pods_holds_up_others_only_for_a_time() -> None:
    first, second = one(name="first"), one(name="second")
    first.broken = True
    cluster = after_istiod(Cluster([control_plane(), first, second], serving("a")))
    cluster.act(look(cluster))
    for step in cluster.steps():
        step()

    assert not look(cluster).actions
    assert look(cluster).look_again == START + PATIENCE
    cluster.now += PATIENCE
    made = look(cluster)
    assert [action.controller.owner.name for action in made.actions if isinstance(action, Roll)] == ["second"]
    assert made.left == ("Deployment default/first was restarted, and its new pods do not get ready",)


def test_what_a_person_deployed_long_after_istiod_is_new() -> None:
    cluster = after_istiod(Cluster([control_plane(), one()], serving("a")))
    cluster.pods = {
        uid: replace(pod, created=START + timedelta(hours=1)) if pod.owner != ISTIOD else pod
        for uid, pod in cluster.pods.items()
    }

    assert look(cluster).done


def test_a_controller_whose_pods_would_stay_as_they_are_is_told() -> None:
    paused = one()
    paused.controller = replace(paused.controller, unmovable="is paused")
    cluster = after_istiod(Cluster([control_plane(), paused], serving("a")))

    assert look(cluster).left == ("Deployment default/one is paused",)


def test_names_of_replaced_pods_are_told_per_selector() -> None:
    cluster = after_istiod(Cluster([control_plane(), one()], serving("a")))
    [pod] = [pod for pod in cluster.pods.values() if pod.owner != ISTIOD]

    begun = look(cluster)
    cluster.act(begun)

    assert begun.bounced == look(cluster).bounced == ((), (pod.name,))


def test_a_pod_of_several_selectors_is_the_first_one_s() -> None:
    pod = Pod("default", "x", labels={"app": "a", "version": "v1"})
    selectors = [PodSelector(namespace="default", labels=labels) for labels in ({"app": "a"}, {"version": "v1"})]

    assert plan(selectors, NEW, Scene((pod,)), START).left == ("default/x has no controller that would replace it",)


def test_pods_with_an_older_certificate_are_those_that_started_before() -> None:
    early, late = START - timedelta(seconds=1), START + timedelta(seconds=1)
    pods = [
        Pod("default", "early", started=early, meshed=True),
        Pod("default", "late", started=late, meshed=True),
        Pod("default", "without-proxy", started=early),
        Pod("default", "ending", started=early, meshed=True, ending=True),
        Pod("default", "pending", meshed=True),
    ]

    assert [pod.name for pod in started_before(pods, START)] == ["early"]


def test_a_budget_selects_by_labels_and_expressions() -> None:
    budget = Budget("default", "b", {"app": "a"}, (("version", "NotIn", frozenset({"v1"})),))

    chosen = [
        version
        for version in ("v1", "v2", "")
        if budget.selects(Pod("default", "x", labels={"app": "a"} | ({"version": version} if version else {})))
    ]

    assert chosen == ["v2", ""]
