"""Which workloads the statuses of policies list: those that the selectors select, whatever came in which order."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.api.access_policy import AccessPolicy
from isthmus.api.discovery import Workload
from isthmus.api.parse import parse
from isthmus.api.traffic_policy import TrafficPolicy
from isthmus.model.ref import Kind, Ref
from isthmus.translate import Engine
from isthmus.translate.callers import CallerFacts
from isthmus.translate.output import StatusKey
from isthmus.translate.selectors import EVERYTHING
from isthmus.translate.sources import Firsts
from tests.unit.translate.fleets import gateway, mesh, service, virtual_mesh

MESH = Ref("", "gloo-mesh", "istiod")
CLUSTERS, NAMESPACES, VALUES = ("cluster1", "cluster2"), ("default", "shop"), ("a", "b")
PLACES = st.tuples(st.sampled_from(CLUSTERS), st.sampled_from(NAMESPACES), st.sampled_from("xyz"))
SOMETIMES = st.booleans()


def caller(name: str, label: str) -> CallerFacts:
    where = Ref("cluster1", "default", name)
    return CallerFacts(Ref("", "gloo-mesh", name), where, MESH, {"app": label}, "default")


def groups(found: CallerFacts) -> Iterator[tuple[Ref, tuple[str, ...]]]:
    yield MESH, EVERYTHING
    yield MESH, ("label", "app", found.labels["app"])


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["x", "y", None])), max_size=60),
    st.integers(min_value=1, max_value=5),
)
def test_the_first_of_each_group_are_kept_whatever_happens(history: list[tuple[str, str | None]], size: int) -> None:
    firsts = Firsts(3, groups)
    present: dict[str, str] = {}
    kept: dict[Any, tuple[Ref, ...]] = {}
    for start in range(0, len(history), size):
        changes: dict[Ref, CallerFacts | None] = {}
        for name, label in history[start : start + size]:
            changes[Ref("", "gloo-mesh", name)] = caller(name, label) if label else None
            present = {**present, name: label} if label else {k: v for k, v in present.items() if k != name}
        for group, found in firsts.update(changes).items():
            kept = {**kept, group: found} if found else {k: v for k, v in kept.items() if k != group}

    wanted: dict[Any, list[Ref]] = {}
    for name, label in sorted(present.items()):
        for group in groups(caller(name, label)):
            wanted.setdefault(group, []).append(Ref("", "gloo-mesh", name))
    assert kept == {group: tuple(refs[:3]) for group, refs in wanted.items()}


def test_the_next_in_line_is_kept_though_another_joins_when_a_first_one_leaves() -> None:
    firsts = Firsts(3, groups)
    refs = {name: Ref("", "gloo-mesh", name) for name in "abcde"}
    firsts.update({refs[name]: caller(name, "x") for name in "abcd"})

    found = firsts.update({refs["a"]: None, refs["e"]: caller("e", "x")})

    assert found[MESH, EVERYTHING] == tuple(refs[name] for name in "bcd")


def workload(place: tuple[str, str, str], labels: dict[str, str]) -> Workload:
    cluster, namespace, name = place
    found = parse(
        {
            "apiVersion": "discovery.mesh.gloo.solo.io/v1",
            "kind": "Workload",
            "metadata": {"name": f"{name}-{namespace}-{cluster}", "namespace": "gloo-mesh"},
            "spec": {
                "kubernetes": {
                    "controller": {"name": name, "namespace": namespace, "clusterName": cluster},
                    "podLabels": labels,
                    "serviceAccountName": f"{name}-account",
                },
                "mesh": {"name": f"istiod-istio-system-{cluster}", "namespace": "gloo-mesh"},
            },
        }
    )
    assert isinstance(found, Workload)
    return found


@st.composite
def matchers(draw: st.DrawFn) -> dict[str, Any]:
    """A workload matcher."""
    labels = draw(st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(VALUES), max_size=2))
    return {
        "labels": labels,
        "namespaces": draw(st.lists(st.sampled_from(NAMESPACES), unique=True)),
        "clusters": draw(st.lists(st.sampled_from(CLUSTERS), unique=True)),
    }


def policy(kind: type[TrafficPolicy] | type[AccessPolicy], sources: list[dict[str, Any]]) -> Any:
    """A policy with *sources* on all services."""
    return parse(
        {
            "apiVersion": kind.KIND.api_version,
            "kind": kind.KIND.kind,
            "metadata": {"name": "p", "namespace": "gloo-mesh"},
            "spec": {"sourceSelector": sources},
        }
    )


def listed(kind: Kind, *resources: Any) -> tuple[str, ...]:
    """The workloads in the status of policy p, with *resources* beside a fleet of two clusters."""
    engine = Engine()
    engine.set(virtual_mesh(*CLUSTERS))
    for cluster in CLUSTERS:
        for resource in (mesh(cluster), gateway(cluster), service(cluster, "reviews")):
            engine.set(resource)
    for resource in resources:
        engine.set(resource)
    engine.run()
    status: Any = engine.status(StatusKey(kind, "gloo-mesh", "p"))
    return tuple(key.partition(".")[0] for key in status.workloads)


WORKLOADS = st.dictionaries(
    PLACES, st.fixed_dictionaries({"app": st.sampled_from(VALUES), "tier": st.sampled_from(VALUES)}), max_size=8
)


@settings(deadline=None, max_examples=60)
@given(WORKLOADS, st.lists(matchers(), max_size=2))
def test_senders_are_those_that_a_matcher_matches(
    there: dict[tuple[str, str, str], dict[str, str]], sources: list[dict[str, Any]]
) -> None:
    found = listed(
        TrafficPolicy.KIND,
        policy(TrafficPolicy, [{"kubeWorkloadMatcher": matcher} for matcher in sources]),
        *(workload(place, labels) for place, labels in there.items()),
    )

    assert found == tuple(
        sorted(
            f"{name}-{namespace}-{cluster}"
            for (cluster, namespace, name), labels in there.items()
            if not sources
            or any(
                (not matcher["clusters"] or cluster in matcher["clusters"])
                and (not matcher["namespaces"] or namespace in matcher["namespaces"])
                and matcher["labels"].items() <= labels.items()
                for matcher in sources
            )
        )
    )


@settings(deadline=None, max_examples=60)
@given(
    WORKLOADS, PLACES, st.tuples(SOMETIMES, SOMETIMES, SOMETIMES), st.lists(st.sampled_from(NAMESPACES), unique=True)
)
def test_callers_are_those_with_the_identity(
    there: dict[tuple[str, str, str], dict[str, str]],
    named: tuple[str, str, str],
    says: tuple[bool, bool, bool],
    namespaces: list[str],
) -> None:
    """An account of which only parts are named means any; a name needs its namespace."""
    account = {
        **({"clusterName": named[0]} if says[0] else {}),
        **({"namespace": named[1]} if says[1] or says[2] else {}),
        **({"name": f"{named[2]}-account"} if says[2] else {}),
    }
    source: dict[str, Any] = {"kubeServiceAccountRefs": {"serviceAccounts": [account]}}
    if namespaces:
        source["kubeIdentityMatcher"] = {"namespaces": namespaces}

    found = listed(
        AccessPolicy.KIND,
        policy(AccessPolicy, [source]),
        *(workload(place, labels) for place, labels in there.items()),
    )

    assert found == tuple(
        sorted(
            f"{name}-{namespace}-{cluster}"
            for (cluster, namespace, name) in there
            if account.get("clusterName", cluster) == cluster
            and account.get("namespace", namespace) == namespace
            and account.get("name", f"{name}-account") == f"{name}-account"
            and (not namespaces or namespace in namespaces)
        )
    )
