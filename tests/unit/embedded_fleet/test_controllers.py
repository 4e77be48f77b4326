"""The controllers make an embedded cluster look alive."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.embedded.controllers import Controllers, Copy
from isthmus.embedded.plans import HASH_LABEL, MAX_ENDPOINTS
from isthmus.model.kinds import (
    DAEMON_SET,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    NAMESPACE,
    NODE,
    POD,
    REPLICA_SET,
    SERVICE,
    SERVICE_ACCOUNT,
    STATEFUL_SET,
)
from tests.unit.embedded_fleet.clusters import Cluster, Manifest, endpoints, node, service, workload


def available(copy: Copy, replicas: int, name: str = "web") -> bool:
    """Whether the Deployment has exactly so many pods, all of them of its template and available."""
    found = copy.get(DEPLOYMENT, "default", name)
    status = (found or {}).get("status", {})
    counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
    return (
        found is not None
        and counts == [replicas] * 3
        and status.get("observedGeneration") == found["metadata"]["generation"]
    )


async def test_a_deployment_has_pods_that_run() -> None:
    """From the Deployment to pods: owners, labels, a node, an address and readiness, as discovery reads them."""
    cluster = Cluster()
    cluster.create(node("a"), node("b"), workload(replicas=2))

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 2))

    [replica_set] = cluster.all(REPLICA_SET)
    pods = cluster.all(POD)
    digest = replica_set["metadata"]["labels"][HASH_LABEL]
    assert replica_set["metadata"]["name"] == f"web-{digest}"
    assert replica_set["metadata"]["ownerReferences"][0]["uid"] == cluster.get(DEPLOYMENT, "web")["metadata"]["uid"]
    assert {pod["spec"]["nodeName"] for pod in pods} == {"a", "b"}
    assert len({pod["status"]["podIP"] for pod in pods}) == 2
    for pod in pods:
        assert pod["metadata"]["name"].startswith(f"web-{digest}-")
        assert pod["metadata"]["labels"] == {"app": "web", HASH_LABEL: digest}
        assert pod["metadata"]["ownerReferences"][0]["name"] == replica_set["metadata"]["name"]
        assert ip_address(pod["status"]["podIP"]) in ip_network("10.9.0.0/16")
        assert pod["status"]["containerStatuses"][0]["ready"] is True


async def test_scaling_moves_pods_and_endpoints() -> None:
    """Up, down and to nothing; endpoints follow."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=1), service())

    async with cluster.running():
        for replicas in (3, 1, 0, 2):
            cluster.patch(DEPLOYMENT, "web", {"spec": {"replicas": replicas}})
            await cluster.until(
                lambda copy, wanted=replicas: available(copy, wanted) and len(endpoints(copy)) == wanted
            )

            assert len(cluster.all(POD)) == replicas


async def test_a_deleted_pod_is_replaced() -> None:
    """By a pod of another name and address, and only one."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=1), service())

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 1))
        [before] = cluster.all(POD)
        cluster.delete(POD, before["metadata"]["name"])
        await cluster.until(lambda copy: endpoints(copy) not in ([], [before["status"]["podIP"]]))
        await cluster.settled()

    [after] = cluster.all(POD)
    assert after["metadata"]["name"] != before["metadata"]["name"]


async def test_a_changed_template_makes_a_new_replica_set() -> None:
    """The old one stays, with no pods."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=2))

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 2))
        old = {pod["metadata"]["name"] for pod in cluster.all(POD)}
        cluster.patch(DEPLOYMENT, "web", {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}})
        await cluster.until(
            lambda copy: available(copy, 2) and not old & {p["metadata"]["name"] for p in copy.all(POD)}
        )

    assert sorted(item["spec"]["replicas"] for item in cluster.all(REPLICA_SET)) == [0, 2]


async def test_recreate_never_runs_two_templates_at_once() -> None:
    """What must be alone on its cluster, such as our own programs, is: the old pods are gone before the new come."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=2, strategy={"type": "Recreate"}))
    watch = cluster.api.store.watch("pods", "default", None)
    hashes: dict[str, str] = {}

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 2))
        cluster.patch(DEPLOYMENT, "web", {"spec": {"template": {"metadata": {"annotations": {"restarted": "now"}}}}})
        await cluster.until(lambda copy: available(copy, 2) and len(copy.all(REPLICA_SET)) == 2)

    for event in watch.take():
        if event.deleted:
            del hashes[event.object.name]
        else:
            hashes[event.object.name] = event.object.labels[HASH_LABEL]
        assert len(set(hashes.values())) <= 1
    assert len(hashes) == 2


async def test_a_stateful_set_names_its_pods() -> None:
    """By ordinal; scaled down from the end; a new template replaces them under their names."""
    cluster = Cluster()
    cluster.create(node("a"), workload(STATEFUL_SET, replicas=3))

    def ready(copy: Copy, replicas: int) -> bool:
        found = copy.get(STATEFUL_SET, "default", "web")
        status = (found or {}).get("status", {})
        return [status.get("readyReplicas"), status.get("updatedReplicas"), status.get("replicas")] == [replicas] * 3

    async with cluster.running():
        await cluster.until(lambda copy: ready(copy, 3))
        assert [pod["metadata"]["name"] for pod in cluster.all(POD)] == ["web-0", "web-1", "web-2"]
        cluster.patch(STATEFUL_SET, "web", {"spec": {"replicas": 1}})
        await cluster.until(lambda copy: ready(copy, 1))
        [before] = cluster.all(POD)
        cluster.patch(STATEFUL_SET, "web", {"spec": {"template": {"metadata": {"annotations": {"new": "yes"}}}}})
        await cluster.until(
            lambda copy: ready(copy, 1) and copy.all(POD)[0]["metadata"]["uid"] != before["metadata"]["uid"]
        )

    assert [pod["metadata"]["name"] for pod in cluster.all(POD)] == ["web-0"]


async def test_a_daemon_set_is_on_every_node() -> None:
    """Also on those that come later, and not on those that went."""
    cluster = Cluster()
    cluster.create(node("a"), node("b"), workload(DAEMON_SET))

    def on(copy: Copy, *nodes: str) -> bool:
        found = copy.get(DAEMON_SET, "default", "web")
        return sorted(pod["spec"]["nodeName"] for pod in copy.all(POD)) == sorted(nodes) and (
            (found or {}).get("status", {}).get("numberReady") == len(nodes)
        )

    async with cluster.running():
        await cluster.until(lambda copy: on(copy, "a", "b"))
        cluster.create(node("c"))
        await cluster.until(lambda copy: on(copy, "a", "b", "c"))
        cluster.delete(NODE, "b")
        await cluster.until(lambda copy: on(copy, "a", "c"))


async def test_pods_wait_for_a_node() -> None:
    """On a cluster without nodes nothing runs; with the first node everything does."""
    cluster = Cluster()
    cluster.create(workload(replicas=2))

    async with cluster.running():
        await cluster.until(lambda copy: len(copy.all(POD)) == 2)
        await cluster.settled()
        assert not any(pod["status"].get("podIP") for pod in cluster.all(POD))
        cluster.create(node("a"))
        await cluster.until(lambda copy: available(copy, 2))


async def test_every_namespace_has_an_account() -> None:
    """The service account ``default``, also of namespaces that come later, and again when it is deleted."""
    cluster = Cluster()

    async with cluster.running():
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}})
        await cluster.until(
            lambda copy: {item["metadata"]["namespace"] for item in copy.all(SERVICE_ACCOUNT)} >= {"default", "later"}
        )


async def test_endpoint_slices_hold_a_hundred_and_change_little() -> None:
    """One pod less changes one slice; the others keep their revision, so watchers of large services hear little."""
    cluster = Cluster()
    cluster.create(node("a", "zone-a"), workload(replicas=2 * MAX_ENDPOINTS + 1), service())

    async with cluster.running():
        await cluster.until(lambda copy: len(endpoints(copy)) == 2 * MAX_ENDPOINTS + 1)
        await cluster.settled()
        before = {item["metadata"]["name"]: item for item in cluster.all(ENDPOINT_SLICE)}
        full = next(item for item in before.values() if len(item["endpoints"]) == MAX_ENDPOINTS)
        gone = full["endpoints"][7]["targetRef"]["name"]
        cluster.patch(REPLICA_SET, cluster.all(REPLICA_SET)[0]["metadata"]["name"], {"spec": {"replicas": 200}})
        cluster.patch(DEPLOYMENT, "web", {"spec": {"replicas": 200}})
        cluster.delete(POD, gone)
        await cluster.until(lambda copy: len(endpoints(copy)) == 200 and available(copy, 200))
        await cluster.settled()

    after = {item["metadata"]["name"]: item for item in cluster.all(ENDPOINT_SLICE)}
    assert sorted(len(item["endpoints"]) for item in before.values()) == [1, MAX_ENDPOINTS, MAX_ENDPOINTS]
    unchanged = [name for name in before if name in after and after[name]["metadata"] == before[name]["metadata"]]
    assert len(unchanged) >= 1
    assert all(len(item["endpoints"]) <= MAX_ENDPOINTS for item in after.values())
    assert {endpoint["zone"] for item in after.values() for endpoint in item["endpoints"]} == {"zone-a"}


async def test_named_target_ports_are_looked_up_in_the_pod() -> None:
    """Pods that give the name another number have a slice of their own; pods without it have no such port."""
    cluster = Cluster()
    ports = [{"name": "web", "containerPort": 8080}]
    moved = [{"name": "web", "containerPort": 9090}]
    cluster.create(
        node("a"),
        workload(name="old", labels={"app": "web"}, container={"ports": ports}) | {"spec": _spec("old", ports)},
        workload(name="new") | {"spec": _spec("new", moved)},
        service(ports=[{"name": "http", "port": 80, "targetPort": "web", "appProtocol": "http2"}]),
    )

    async with cluster.running():
        await cluster.until(lambda copy: len(endpoints(copy)) == 2)

    found = {item["ports"][0]["port"]: item["ports"][0] for item in cluster.all(ENDPOINT_SLICE)}
    assert found.keys() == {8080, 9090}
    assert found[8080] == {"name": "http", "port": 8080, "protocol": "TCP", "appProtocol": "http2"}


def _spec(version: str, ports: list[Manifest]) -> Manifest:
    labels = {"app": "web", "version": version}
    containers = [{"name": "main", "image": "example/web:1", "ports": ports}]
    return {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
    }


async def test_a_changed_selector_changes_the_endpoints() -> None:
    """Endpoints are those of the selector as it is, and none without one."""
    cluster = Cluster()
    cluster.create(node("a"), workload(name="web"), workload(name="other"), service())

    def backed(copy: Copy, name: str) -> bool:
        ips = [pod["status"].get("podIP") for pod in copy.all(POD) if pod["metadata"]["labels"]["app"] == name]
        return bool(ips) and endpoints(copy) == ips

    async with cluster.running():
        await cluster.until(lambda copy: backed(copy, "web"))
        cluster.patch(SERVICE, "web", {"spec": {"selector": {"app": "other"}}})
        await cluster.until(lambda copy: backed(copy, "other"))


def ingress(copy: Copy, name: str = "web") -> list[Manifest]:
    found = copy.get(SERVICE, "default", name)
    return ((found or {}).get("status", {}).get("loadBalancer", {}).get("ingress")) or []


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({}, {"ip": "192.0.2.1", "ipMode": "VIP"}),
        ({"load_balancers": "2001:db8::/120"}, {"ip": "2001:db8::1", "ipMode": "VIP"}),
        ({"ingress": "hostname"}, {"hostname": "lb-192-0-2-1.elb.example.com"}),
    ],
)
async def test_a_load_balancer_gets_an_address(how: Manifest, expected: Manifest) -> None:
    """Each its own, once a pod can answer; it stays while the pods change, and goes with the type."""
    cluster = Cluster(**how)
    cluster.create(node("a"), service(type="LoadBalancer"))

    async with cluster.running():
        await cluster.until(lambda copy: copy.get(SERVICE, "default", "web") is not None)
        await cluster.settled()
        assert ingress(cluster.controllers.copy) == []
        cluster.create(workload(), workload(name="other"), service("other", type="LoadBalancer"))
        await cluster.until(lambda copy: bool(ingress(copy) and ingress(copy, "other")))
        addresses = [ingress(cluster.controllers.copy), ingress(cluster.controllers.copy, "other")]
        cluster.patch(DEPLOYMENT, "web", {"spec": {"replicas": 0}})
        await cluster.until(lambda copy: available(copy, 0))
        await cluster.settled()
        assert [ingress(cluster.controllers.copy), ingress(cluster.controllers.copy, "other")] == addresses
        cluster.patch(SERVICE, "web", {"spec": {"type": "ClusterIP"}})
        await cluster.until(lambda copy: not ingress(copy))

    assert [expected] in addresses
    assert addresses[0] != addresses[1]


async def test_an_address_that_is_there_stays() -> None:
    """What a file of the walk-through says about its gateway holds."""
    cluster = Cluster()
    given = {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}}
    cluster.create(node("a"), workload(), service(type="LoadBalancer") | {"status": given})

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 1) and len(endpoints(copy)) == 1)
        await cluster.settled()

    assert cluster.get(SERVICE, "web")["status"] == given


ISTIOD = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "istiod", "namespace": "istio-system"},
}


@pytest.mark.parametrize(
    ("version", "labels", "pod_labels", "where"),
    [
        ("1.9.9", {"istio-injection": "enabled"}, {}, "containers"),
        ("1.31.1", {"istio-injection": "enabled"}, {}, "initContainers"),
        ("1.20.0", {"istio.io/rev": "canary"}, {}, "containers"),
        ("1.20.0", {}, {}, None),
        ("1.20.0", {}, {"sidecar.istio.io/inject": "true"}, "containers"),
        ("1.20.0", {"istio-injection": "enabled"}, {"sidecar.istio.io/inject": "false"}, None),
        (None, {"istio-injection": "enabled"}, {}, None),
    ],
)
async def test_pods_get_the_proxy_that_istio_would_give_them(
    version: str | None, labels: dict[str, str], pod_labels: dict[str, str], where: str | None
) -> None:
    """By namespace and pod labels, as a container or, from 1.27 on, as a restartable init container."""
    cluster = Cluster()
    if version:
        cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "istio-system"}})
        image = f"docker.io/istio/pilot:{version}"
        cluster.create({**ISTIOD, "spec": workload(image=image)["spec"]})
    cluster.patch(NAMESPACE, "default", {"metadata": {"labels": labels}})
    cluster.create(node("a"), workload(labels=pod_labels))

    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 1))

    [pod] = cluster.all(POD)
    found = {
        part: [c["image"] for c in pod["spec"].get(part, ()) if c["name"] == "istio-proxy"]
        for part in ("containers", "initContainers")
    }
    wanted = [f"docker.io/istio/proxyv2:{version}"]
    assert found == {part: wanted if part == where else [] for part in found}


async def test_new_controllers_find_nothing_to_do() -> None:
    """After a restart everything is as it should be, and nothing is written."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=3), workload(STATEFUL_SET, "db"), service(type="LoadBalancer"))
    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 3) and len(endpoints(copy)) == 3)
        await cluster.settled()
    revision = cluster.api.store.revision

    cluster.controllers = Controllers(cluster.door, cluster.addresses)
    async with cluster.running():
        await cluster.until(lambda copy: available(copy, 3))
        await cluster.settled()

    assert cluster.api.store.revision == revision


async def test_whatever_an_owner_leaves_goes_with_it() -> None:
    """A deleted Deployment takes its pods and its Service's endpoints along."""
    cluster = Cluster()
    cluster.create(node("a"), workload(replicas=2), service())

    async with cluster.running():
        await cluster.until(lambda copy: len(endpoints(copy)) == 2)
        cluster.delete(DEPLOYMENT, "web")
        await cluster.until(lambda copy: not copy.all(POD) and not copy.all(REPLICA_SET) and not endpoints(copy))
        cluster.delete(SERVICE, "web")
        await cluster.until(lambda copy: not copy.all(ENDPOINT_SLICE))


def _pod(name: str, uid: str, revision: int) -> Manifest:
    return {"metadata": {"name": name, "namespace": "x", "uid": uid, "resourceVersion": str(revision)}, "spec": {}}


def test_late_news_change_nothing() -> None:
    """A watch may tell of what our own writes have overtaken; the copy never goes back, and the dead stay dead."""
    copy = Copy()

    assert copy.put(POD, _pod("a", "1", 5))
    assert not copy.put(POD, _pod("a", "1", 4))
    assert copy.remove(POD, _pod("a", "1", 6), by_us=True)
    assert not copy.put(POD, _pod("a", "1", 5))
    assert copy.put(POD, _pod("a", "2", 7))
    assert not copy.remove(POD, _pod("a", "1", 6))

    assert [item["metadata"]["uid"] for item in copy.all(POD)] == ["2"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("scale"), st.sampled_from(["web", "other"]), st.integers(0, 4)),
        st.tuples(st.just("kill"), st.sampled_from(["web", "other"]), st.integers(0, 3)),
        st.tuples(st.just("restart"), st.sampled_from(["web", "other"]), st.integers(0, 2)),
        st.tuples(st.just("pause"), st.just(""), st.integers(0, 5)),
    ),
    max_size=12,
)


@given(steps)
@settings(max_examples=30)
def test_any_history_ends_as_the_specs_say(history: list[tuple[str, str, int]]) -> None:
    """Whatever happens and when: so many pods, each with an address of its own, and exactly them as endpoints."""
    asyncio.run(_lives_through(history))


async def _lives_through(history: list[tuple[str, str, int]]) -> None:
    cluster = Cluster()
    wanted = {"web": 1, "other": 1}
    cluster.create(node("a"), node("b"), *(item(name=name) for item in (workload, service) for name in wanted))
    async with cluster.running():
        for step, name, number in history:
            if step == "scale":
                wanted[name] = number
                cluster.patch(DEPLOYMENT, name, {"spec": {"replicas": number}})
            elif step == "restart":
                template = {"metadata": {"annotations": {"restarted": str(number)}}}
                cluster.patch(DEPLOYMENT, name, {"spec": {"template": template}})
            elif step == "kill":
                pods = [pod for pod in cluster.all(POD) if pod["metadata"]["labels"]["app"] == name]
                for pod in pods[number : number + 1]:
                    cluster.delete(POD, pod["metadata"]["name"])
            else:
                for _ in range(number):
                    await asyncio.sleep(0)
        await cluster.until(lambda copy: all(available(copy, wanted[name], name) for name in wanted))
        await cluster.settled()

    pods = cluster.all(POD)
    ips = [pod["status"]["podIP"] for pod in pods]
    assert len(set(ips)) == len(ips)
    for name, replicas in wanted.items():
        mine = [pod for pod in pods if pod["metadata"]["labels"]["app"] == name]
        assert len(mine) == replicas
        assert endpoints(cluster.controllers.copy, name) == sorted(pod["status"]["podIP"] for pod in mine)
