"""What each operation asks of the API server, and what it makes of the answer."""

from __future__ import annotations

import asyncio
import time

import pytest

from isthmus.kube import (
    AlreadyExists,
    BadRequest,
    Conflict,
    Forbidden,
    Gone,
    Invalid,
    KubeClient,
    KubeError,
    NotFound,
    TooLarge,
    Unauthorized,
    Unavailable,
)
from isthmus.model.kinds import CLUSTER_ROLE, CONFIG_MAP, DEPLOYMENT, POD
from isthmus.model.ref import Kind

from .conftest import Kubeconfig
from .peer import DEADLINE, Answer, Peer, answer, config_map, listing, status

FINE = config_map("a", 7)


async def test_get_names_the_object(client: KubeClient, peer: Peer) -> None:
    """Group, namespace and name make the path; what has no namespace is asked for without one."""
    peer.script = [answer(200, FINE)]

    await client.get(CONFIG_MAP, "default", "a")
    await client.get(DEPLOYMENT, "apps-of-mine", "web")
    await client.get(CLUSTER_ROLE, "", "system:node/odd")

    assert [request.path for request in peer.requests] == [
        "/api/v1/namespaces/default/configmaps/a",
        "/apis/apps/v1/namespaces/apps-of-mine/deployments/web",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode%2Fodd",
    ]


async def test_a_missing_part_is_our_bug(client: KubeClient) -> None:
    """A request for a nameless object would reach the collection, and delete it."""
    with pytest.raises(ValueError, match="without a name"):
        await client.delete(CONFIG_MAP, "default", "")
    with pytest.raises(ValueError, match="without a namespace"):
        await client.apply(CONFIG_MAP, {"metadata": {"name": "a"}})


async def test_list_reads_all_pages(client: KubeClient, peer: Peer) -> None:
    """A list is complete, its items say their kind and come without managedFields."""
    peer.script = [listing(7, config_map("a", 3), more="next"), listing(7, config_map("b", 4))]

    found = await client.list(CONFIG_MAP, labels="app=x", fields="metadata.name!=z")

    assert [item["metadata"]["name"] for item in found.items] == ["a", "b"]
    assert found.resource_version == "7"
    assert found.items[0]["kind"] == "ConfigMap"
    assert "managedFields" not in found.items[0]["metadata"]
    selectors = {"labelSelector": "app=x", "fieldSelector": "metadata.name!=z", "limit": "500"}
    assert [request.query for request in peer.requests] == [selectors, {**selectors, "continue": "next"}]


async def test_list_starts_over_when_its_pages_expire(client: KubeClient, peer: Peer) -> None:
    """Pages of two states are never mixed."""
    gone = answer(410, status(410, "Expired"))
    peer.script = [listing(7, config_map("a", 3), more="next"), gone, listing(9, config_map("b", 8))]

    found = await client.list(CONFIG_MAP, "default")

    assert [item["metadata"]["name"] for item in found.items] == ["b"]
    assert peer.requests[-1].query == {"limit": "500"}


async def test_list_asks_for_one_page_when_pages_keep_expiring(client: KubeClient, peer: Peer) -> None:
    """A server that compacts faster than we read is asked for everything at once."""

    def reply(request: object) -> Answer:
        asked = peer.requests[-1].query if request is None else request.query  # type: ignore[attr-defined]
        if "continue" in asked:
            return answer(410, status(410, "Expired"))
        return listing(7, config_map("a", 3), more="next") if "limit" in asked else listing(8, config_map("c", 3))

    peer.script = [reply]

    found = await client.list(CONFIG_MAP)

    assert [item["metadata"]["name"] for item in found.items] == ["c"]


async def test_apply_is_server_side(client: KubeClient, peer: Peer) -> None:
    """Field manager, force and dry run are said as the API wants them."""
    peer.script = [answer(200, FINE)]
    wanted = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "default"}}

    await client.apply(CONFIG_MAP, wanted)
    await client.apply(CONFIG_MAP, wanted, force=True, manager="meshctl", dry_run=True)

    first, second = peer.requests
    assert (first.method, first.path) == ("PATCH", "/api/v1/namespaces/default/configmaps/a")
    assert first.headers["content-type"] == "application/apply-patch+yaml"
    assert first.json == wanted
    assert first.query == {"fieldManager": "isthmus", "force": "false"}
    assert second.query == {"fieldManager": "meshctl", "force": "true", "dryRun": "All"}


async def test_conflict_names_managers_and_fields(client: KubeClient, peer: Peer) -> None:
    """Whose fields stand against ours, for the status that reports it."""
    causes = [
        {"reason": "FieldManagerConflict", "message": f'conflict with "{who}" using v1', "field": path}
        for who, path in (("kubectl-edit", ".spec.hosts"), ("argo", ".spec.ports"), ("argo", ".spec.hosts"))
    ]
    peer.script = [answer(409, status(409, "Conflict", "Apply failed with 3 conflicts", causes=causes))]

    with pytest.raises(Conflict, match=r"here \(http://127.*apply ConfigMap default/a: Apply failed") as caught:
        await client.apply(CONFIG_MAP, FINE)

    assert caught.value.managers == ("argo", "kubectl-edit")
    assert caught.value.fields == (".spec.hosts", ".spec.ports")


async def test_apply_status_touches_nothing_else(client: KubeClient, peer: Peer) -> None:
    """The spec, labels and annotations of the manifest stay at home."""
    peer.script = [answer(200, FINE)]
    kind = Kind("networking.mesh.gloo.solo.io", "v1", "VirtualMesh", "virtualmeshes")
    metadata = {"name": "vm", "namespace": "gloo-mesh", "labels": {"a": "b"}, "resourceVersion": "5"}

    await client.apply_status(kind, {"metadata": metadata, "spec": {"x": 1}, "status": {"state": "ACCEPTED"}})

    [request] = peer.requests
    assert request.path == "/apis/networking.mesh.gloo.solo.io/v1/namespaces/gloo-mesh/virtualmeshes/vm/status"
    assert request.query == {"fieldManager": "isthmus", "force": "true"}
    assert request.json == {
        "apiVersion": "networking.mesh.gloo.solo.io/v1",
        "kind": "VirtualMesh",
        "metadata": {"name": "vm", "namespace": "gloo-mesh", "resourceVersion": "5"},
        "status": {"state": "ACCEPTED"},
    }


async def test_patch_merges(client: KubeClient, peer: Peer) -> None:
    """A merge patch, of a subresource if asked."""
    peer.script = [answer(200, FINE)]

    await client.patch(DEPLOYMENT, "default", "web", {"spec": {"replicas": 0}}, subresource="scale")

    [request] = peer.requests
    assert request.headers["content-type"] == "application/merge-patch+json"
    assert request.path.endswith("/deployments/web/scale")
    assert request.json == {"spec": {"replicas": 0}}


async def test_a_strategic_patch_says_so(client: KubeClient, peer: Peer) -> None:
    """The server then merges lists by their keys."""
    peer.script = [answer(200, FINE)]

    await client.patch(POD, "default", "web", {"status": {"conditions": []}}, subresource="status", strategic=True)

    [request] = peer.requests
    assert request.headers["content-type"] == "application/strategic-merge-patch+json"
    assert request.path.endswith("/pods/web/status")


async def test_delete_states_its_preconditions(client: KubeClient, peer: Peer) -> None:
    """A delete reaches the object that was meant, or none."""
    peer.script = [
        answer(200, {"kind": "Status"}),
        answer(404, status(404, "NotFound")),
        answer(200, {"kind": "Status"}),
    ]

    assert await client.delete(CONFIG_MAP, "default", "a", uid="u1", resource_version="4", propagation="Foreground")
    assert not await client.delete(CONFIG_MAP, "default", "a")
    assert await client.delete(POD, "default", "a", grace_seconds=0)

    preconditions = {"uid": "u1", "resourceVersion": "4"}
    first = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
    assert peer.requests[0].json == {**first, "preconditions": preconditions}
    assert peer.requests[1].json == {**first, "propagationPolicy": "Background"}
    assert peer.requests[2].json == {**first, "propagationPolicy": "Background", "gracePeriodSeconds": 0}


async def test_create_posts_to_the_collection(client: KubeClient, peer: Peer) -> None:
    """Create is a POST, and an object that is there already is told apart from a conflict."""
    peer.script = [answer(201, FINE), answer(409, status(409, "AlreadyExists", 'configmaps "a" already exists'))]

    await client.create(CONFIG_MAP, FINE)
    with pytest.raises(AlreadyExists, match='create ConfigMap default/a: configmaps "a" already exists'):
        await client.create(CONFIG_MAP, FINE)

    assert peer.requests[0].path == "/api/v1/namespaces/default/configmaps"


async def test_create_of_a_subresource_goes_to_the_object(client: KubeClient, peer: Peer) -> None:
    """Such as the binding of a pod to its node."""
    peer.script = [answer(201, {"kind": "Status"})]

    await client.create(POD, {"metadata": {"name": "web", "namespace": "default"}}, subresource="binding")

    assert peer.requests[0].path == "/api/v1/namespaces/default/pods/web/binding"


@pytest.mark.parametrize(
    ("code", "reason", "message", "expected"),
    [
        (400, "BadRequest", "field label not supported", BadRequest),
        (401, "Unauthorized", "Unauthorized", Unauthorized),
        (403, "Forbidden", "User may not", Forbidden),
        (404, "NotFound", 'configmaps "a" not found', NotFound),
        (409, "Conflict", "the object has been modified", Conflict),
        (410, "Expired", "too old", Gone),
        (413, "RequestEntityTooLarge", "limit is 3145728", TooLarge),
        (500, "", "etcdserver: request is too large", TooLarge),
        (500, "", "rpc error: trying to send message larger than max (3 vs. 2)", TooLarge),
        (422, "Invalid", "spec.x: Required value", Invalid),
        (405, "MethodNotAllowed", "not on this resource", KubeError),
    ],
)
async def test_refusals_are_raised_at_once(
    client: KubeClient, peer: Peer, code: int, reason: str, message: str, expected: type[KubeError]
) -> None:
    """Each refusal has its class; the message names cluster, request and what the server said. None is retried."""
    peer.script = [answer(code, status(code, reason, message))]

    with pytest.raises(KubeError) as caught:
        await client.get(CONFIG_MAP, "default", "a")

    assert type(caught.value) is expected
    assert str(caught.value) == f"here ({peer.url}): get ConfigMap default/a: {message} ({code})"
    assert caught.value.code == code
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "trouble",
    [
        answer(500, status(500, "InternalError")),
        Answer(502, b"<html>Bad Gateway</html>"),
        answer(503, {}),
        answer(504, status(504, "Timeout")),
        answer(429, status(429, "TooManyRequests")),
        Answer(then="break"),
        Answer(chunks=(b'{"ki',), then="break"),
        Answer(200, b'{"cut'),
        Answer(200, b"<html>Log in</html>"),
    ],
    ids=lambda answer: f"{answer.code}-{answer.then}-{len(answer.body)}",
)
async def test_passing_trouble_is_not_seen(client: KubeClient, peer: Peer, trouble: Answer) -> None:
    """Trouble that passes is not the caller's, whatever its shape; the request is sent whole each time."""
    peer.script = [trouble, trouble, answer(200, FINE)]

    assert await client.apply(CONFIG_MAP, FINE) == FINE
    assert [request.json for request in peer.requests] == [FINE] * 3


async def test_retry_after_is_honoured(client: KubeClient, peer: Peer) -> None:
    """A server that asks for a second gets a second, whether the header or the status asks."""
    peer.script = [answer(429, {}, Retry_After="1"), answer(200, FINE)]

    started = time.monotonic()
    await client.get(CONFIG_MAP, "default", "a")

    assert time.monotonic() - started >= 1.0


async def test_retry_after_in_the_status_is_honoured(client: KubeClient, peer: Peer) -> None:
    """A wait beyond our patience is not begun."""
    peer.script = [answer(503, status(503, "ServiceUnavailable", retryAfterSeconds=60))]

    started = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await client.get(CONFIG_MAP, "default", "a")

    assert caught.value.retry_after == 60
    assert time.monotonic() - started < DEADLINE


async def test_patience_ends(peer: Peer, kubeconfig: Kubeconfig) -> None:
    """Retries end, with the last thing the server said."""
    peer.script = [Answer(503, b"upstream  connect\nerror")]

    async with KubeClient.from_kubeconfig(kubeconfig({"server": peer.url}), patience=0.5) as client:
        with pytest.raises(Unavailable, match=r"upstream connect error \(503\)"):
            await client.get(CONFIG_MAP, "default", "a")

    assert len(peer.requests) >= 2


async def test_nobody_listening(kubeconfig: Kubeconfig) -> None:
    """A server that is not there is named."""
    async with KubeClient.from_kubeconfig(kubeconfig({"server": "http://127.0.0.1:1"}), patience=0.2) as client:
        with pytest.raises(Unavailable, match=r"here \(http://127.0.0.1:1\): get the version: Connection refused"):
            await client.version()


async def test_requests_in_flight_are_bounded(peer: Peer, client: KubeClient) -> None:
    """A burst waits here instead of tripping the server's limits; watches take no place in the queue."""
    peer.gate = asyncio.Event()
    peer.script = [answer(200, FINE)]
    few = KubeClient(client.connection, in_flight=3)

    async with few, asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(few.get(CONFIG_MAP, "default", "a"))
        await peer.until(lambda: len(peer.requests) == 3)
        peer.gate.set()

    assert len(peer.requests) == 20
    assert peer.most_running == 3


async def test_connections_are_kept(client: KubeClient, peer: Peer) -> None:
    """Requests one after the other share a connection."""
    peer.script = [answer(200, FINE)]

    for _ in range(5):
        await client.get(CONFIG_MAP, "default", "a")

    assert peer.connections == 1


async def test_kinds_from_the_aggregated_document(client: KubeClient, peer: Peer) -> None:
    """Servers from 1.27 on tell all kinds in two answers."""

    def reply(kind: str, plural: str, scope: str) -> dict[str, object]:
        return {"resource": plural, "responseKind": {"kind": kind}, "scope": scope}

    core = {"metadata": {}, "versions": [{"version": "v1", "resources": [reply("Node", "nodes", "Cluster")]}]}
    istio = {
        "metadata": {"name": "networking.istio.io"},
        "versions": [
            {"version": "v1beta1", "resources": [reply("Gateway", "gateways", "Namespaced"), {"resource": "stale"}]}
        ],
    }
    peer.script = [answer(200, {"kind": "APIGroupDiscoveryList", "items": [group]}) for group in (core, istio)]

    assert await client.kinds() == (
        Kind("", "v1", "Node", "nodes", namespaced=False),
        Kind("networking.istio.io", "v1beta1", "Gateway", "gateways"),
    )
    assert "v=v2;as=APIGroupDiscoveryList" in peer.requests[0].headers["accept"]


async def test_kinds_group_by_group(client: KubeClient, peer: Peer) -> None:
    """Older servers are asked for each group; subresources are no kinds."""
    resources = [
        {"name": "gateways", "kind": "Gateway", "namespaced": True},
        {"name": "gateways/status", "kind": "Gateway", "namespaced": True},
    ]
    peer.script = [
        answer(200, {"kind": "APIVersions", "versions": ["v1"]}),
        answer(200, {"groupVersion": "v1", "resources": [{"name": "nodes", "kind": "Node", "namespaced": False}]}),
        answer(200, {"kind": "APIGroupList", "groups": [{"versions": [{"groupVersion": "networking.istio.io/v1"}]}]}),
        answer(200, {"groupVersion": "networking.istio.io/v1", "resources": resources}),
    ]

    assert await client.kinds() == (
        Kind("", "v1", "Node", "nodes", namespaced=False),
        Kind("networking.istio.io", "v1", "Gateway", "gateways"),
    )


async def test_version(client: KubeClient, peer: Peer) -> None:
    """The server's own word for its version."""
    peer.script = [answer(200, {"gitVersion": "v1.30.2"})]

    assert await client.version() == "v1.30.2"
