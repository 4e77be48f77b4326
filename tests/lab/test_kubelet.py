"""Pods on the lab do what they do on a cluster.

They run in a namespace of their own on the management cluster, which has no Istio; where two nodes matter, on cluster1.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus.lab.box import Box
from tests.lab.running import Json, Lab, eventually

SPACE = f"kubelet-{uuid.uuid4().hex[:6]}"  # its own, so that nobody has to wait for the end of an earlier one
PROMPT = 2.0  # seconds after which changes of ConfigMaps and Secrets must have arrived
PATIENT = {"timeoutSeconds": 10}  # for probes that start a process on a busy machine
FOREVER = "while :; do sleep 0.1; done"
LOOP = f"trap 'exit 0' TERM; {FOREVER}"  # the first process of a container dies of no signal that it does not ask for


@pytest.fixture(scope="module")
def mgmt(lab: Lab) -> Iterator[Lab]:
    """The lab with an empty namespace on mgmt and cluster1."""
    for cluster in ("mgmt", "cluster1"):
        lab.kubectl(cluster, "create", "namespace", SPACE)
    for cluster in ("mgmt", "cluster1"):
        eventually("a service account", lambda each=cluster: lab.has(each, "serviceaccount", "default", "-n", SPACE))
    yield lab
    for cluster in ("mgmt", "cluster1"):
        lab.kubectl(cluster, "delete", "namespace", SPACE, "--wait=false")


def shell(name: str, script: str, **more: Any) -> Json:
    """A container that runs *script*."""
    return {"name": name, "image": "lab-client", "command": ["sh", "-c", script], **more}


def pod(name: str, *containers: Json, labels: dict[str, str] | None = None, **spec: Any) -> Json:
    """A pod of *containers*."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": SPACE, "labels": labels or {}},
        "spec": {"containers": list(containers), "terminationGracePeriodSeconds": 5, **spec},
    }


def held(kind: str, name: str, **content: str) -> Json:
    """A ConfigMap or Secret."""
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": SPACE},
        ("data" if kind == "ConfigMap" else "stringData"): content,
    }


def read(lab: Lab, name: str, cluster: str = "mgmt") -> Json:
    """The pod *name* as it is now."""
    [found] = lab.objects(cluster, "pod", name, "-n", SPACE)
    return found


def state(found: Json, container: str = "main") -> Json:
    """The status of one of a pod's containers; empty if there is none yet."""
    status = found.get("status", {})
    every = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((each for each in every if each["name"] == container), {})


def ready(lab: Lab, *names: str) -> None:
    lab.kubectl(
        "mgmt", "wait", "-n", SPACE, "--for=condition=Ready", *(f"pod/{name}" for name in names), "--timeout=60s"
    )


def inside(lab: Lab, name: str, *command: str, container: str = "main") -> str:
    """What *command* prints in the pod."""
    return lab.kubectl("mgmt", "exec", "-n", SPACE, name, "-c", container, "--", *command)


def prints(lab: Lab, name: str, script: str) -> str:
    """What *script* prints in the pod, whether it ends well or not."""
    return lab.attempt("kubectl", "--context", "mgmt", "exec", "-n", SPACE, name, "--", "sh", "-c", script).stdout


def logs(lab: Lab, name: str, *options: str) -> str:
    return lab.kubectl("mgmt", "logs", "-n", SPACE, name, *options)


def test_a_container_sees_what_its_pod_says(mgmt: Lab) -> None:
    mgmt.apply("mgmt", held("ConfigMap", "seen", **{"app.conf": "on"}))
    mgmt.apply("mgmt", held("Secret", "hidden", password="xyzzy"))
    mount = [
        {"name": "conf", "mountPath": "/etc/app"},
        {"name": "conf", "mountPath": "/etc/one", "subPath": "app.conf"},
        {"name": "work", "mountPath": "/work"},
        {"name": "self", "mountPath": "/etc/self"},
    ]
    env = [
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "hidden", "key": "password"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "URL", "value": "http://$(IP):80"},
    ]
    security = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    volumes = [
        {"name": "conf", "configMap": {"name": "seen"}},
        {"name": "work", "emptyDir": {}},
        {"name": "self", "downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    mgmt.apply(
        "mgmt",
        pod(
            "seeing",
            shell("main", LOOP, volumeMounts=mount, env=env, securityContext=security),
            volumes=volumes,
            hostAliases=[{"ip": "192.0.2.7", "hostnames": ["alias.example"]}],
            securityContext={"runAsUser": 4711, "runAsGroup": 4712, "fsGroup": 4713},
        ),
    )
    ready(mgmt, "seeing")

    script = """
    cat /etc/app/app.conf /etc/one /etc/self/n; echo " $PASSWORD $IP $URL $(hostname) $(id -u):$(id -g)"
    echo mine > /work/file && stat -c %g /work/file
    touch /forbidden 2>/dev/null || echo read-only
    getent hosts alias.example | tr -s ' '
    test -s /var/run/secrets/kubernetes.io/serviceaccount/token && echo token
    """
    lines = inside(mgmt, "seeing", "sh", "-c", script).splitlines()

    address = read(mgmt, "seeing")["status"]["podIP"]
    assert lines == [
        f"ononseeing xyzzy {address} http://{address}:80 seeing 4711:4712",
        "4713",
        "read-only",
        "192.0.2.7 alias.example",
        "token",
    ]


def test_volumes_follow_what_they_show(mgmt: Lab) -> None:
    mgmt.apply("mgmt", held("ConfigMap", "moving", value="1"))
    mgmt.apply("mgmt", held("Secret", "moving", value="1"))
    volumes = [
        {"name": "conf", "configMap": {"name": "moving"}},
        {"name": "keys", "secret": {"secretName": "moving"}},
        {"name": "later", "configMap": {"name": "later", "optional": True}},
        {"name": "self", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
    ]
    mount = [{"name": each["name"], "mountPath": f"/v/{each['name']}"} for each in volumes]
    mgmt.apply("mgmt", pod("following", shell("main", LOOP, volumeMounts=mount), volumes=volumes))
    ready(mgmt, "following")
    assert inside(mgmt, "following", "sh", "-c", "cat /v/*/value") == "11"

    mgmt.apply("mgmt", held("ConfigMap", "moving", value="2"))
    mgmt.apply("mgmt", held("Secret", "moving", value="2"))
    mgmt.apply("mgmt", held("ConfigMap", "later", value="2"))
    mgmt.kubectl("mgmt", "label", "pod", "following", "-n", SPACE, "step=two")
    began = time.monotonic()
    script = "cat /v/*/value; grep step /v/self/labels"
    eventually("what is new", lambda: prints(mgmt, "following", script) == '222step="two"\n')

    mgmt.measure("ConfigMap, Secret and label in a volume", time.monotonic() - began, PROMPT)


def test_containers_start_and_end_in_their_order(mgmt: Lab) -> None:
    """Init containers, sidecars, then the rest; sidecars end last, though their hook runs at once."""
    mount = [{"name": "work", "mountPath": "/work"}]

    def note(name: str, text: str) -> str:
        return f"echo {name}-{text} >> /work/order"

    def stays(name: str, **more: Any) -> Json:
        script = f"trap '{note(name, 'ends')}; exit 0' TERM; {note(name, 'starts')}; {FOREVER}"
        return shell(name, script, volumeMounts=mount, **more)

    hook = {"preStop": {"exec": {"command": ["sh", "-c", note("sidecar", "is-told")]}}}
    started = {"exec": {"command": ["grep", "-q", "sidecar-starts", "/work/order"]}, "periodSeconds": 1}
    started |= PATIENT | {"failureThreshold": 60}
    # The folder outlives the pod that writes to it.
    work = {"name": "work", "hostPath": {"path": "/order", "type": "DirectoryOrCreate"}}
    everybody = {"securityContext": {"runAsUser": 0}}
    mgmt.apply(
        "mgmt",
        pod(
            "ordered",
            stays("main"),
            initContainers=[
                shell("first", f"rm -f /work/order; {note('first', 'runs')}", volumeMounts=mount),
                stays("sidecar", restartPolicy="Always", startupProbe=started, lifecycle=hook),
                shell("second", note("second", "runs"), volumeMounts=mount),
            ],
            volumes=[work],
            **everybody,
        ),
    )
    ready(mgmt, "ordered")
    mgmt.kubectl("mgmt", "delete", "pod", "ordered", "-n", SPACE, "--timeout=30s")

    mgmt.apply("mgmt", pod("reader", shell("main", LOOP, volumeMounts=mount), volumes=[work], **everybody))
    ready(mgmt, "reader")
    lines = inside(mgmt, "reader", "cat", "/work/order").split()
    assert lines[:4] == ["first-runs", "sidecar-starts", "second-runs", "main-starts"]
    assert set(lines[4:6]) == {"main-ends", "sidecar-is-told"}
    assert lines[6:] == ["sidecar-ends"]


def test_a_container_that_crashes_is_started_again_ever_later(mgmt: Lab) -> None:
    crash = shell("main", "echo run $$ says oops; exit 7", terminationMessagePolicy="FallbackToLogsOnError")
    mgmt.apply("mgmt", pod("crashing", crash))

    found = eventually(
        "three restarts",
        lambda: (now := read(mgmt, "crashing")) and state(now).get("restartCount", 0) >= 3 and now,
    )

    assert found["status"]["phase"] == "Running"
    last = eventually("a back-off", lambda: "waiting" in (now := state(read(mgmt, "crashing")))["state"] and now)
    assert last["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert last["lastState"]["terminated"]["exitCode"] == 7
    assert "oops" in last["lastState"]["terminated"]["message"]
    assert "oops" in logs(mgmt, "crashing", "--previous")
    events = mgmt.kubectl("mgmt", "get", "events", "-n", SPACE, "--field-selector=involvedObject.name=crashing")
    assert "Back-off restarting failed container" in events


def test_probes_decide_who_is_started_again_and_who_gets_requests(mgmt: Lab) -> None:
    """The container says by files what to answer; a web server is not needed for that."""
    well = {"exec": {"command": ["test", "!", "-e", "/tmp/sick"]}, "periodSeconds": 1, "failureThreshold": 2, **PATIENT}
    willing = {
        "exec": {"command": ["test", "-e", "/tmp/willing"]},
        "periodSeconds": 1,
        "failureThreshold": 1,
        **PATIENT,
    }
    probed = shell("main", LOOP, livenessProbe=well, readinessProbe=willing)
    mgmt.apply("mgmt", pod("probed", probed, labels={"app": "probed"}))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "probed", "namespace": SPACE},
        "spec": {"selector": {"app": "probed"}, "ports": [{"port": 80}]},
    }
    mgmt.apply("mgmt", service)

    def serves() -> bool:
        slices = mgmt.objects("mgmt", "endpointslices", "-n", SPACE, "-l", "kubernetes.io/service-name=probed")
        endpoints = [each for found in slices for each in found.get("endpoints") or ()]
        return any(each["conditions"]["ready"] for each in endpoints)

    eventually("it runs", lambda: "running" in state(read(mgmt, "probed")).get("state", {}))
    assert not serves()
    inside(mgmt, "probed", "touch", "/tmp/willing")
    eventually("it is ready", serves)
    inside(mgmt, "probed", "rm", "/tmp/willing")
    eventually("it is not ready any more", lambda: not serves())
    inside(mgmt, "probed", "touch", "/tmp/sick")

    found = eventually("it is started again", lambda: (now := state(read(mgmt, "probed")))["restartCount"] and now)
    assert found["restartCount"] == 1
    eventually("it runs again", lambda: "running" in state(read(mgmt, "probed"))["state"])


def test_jobs(mgmt: Lab) -> None:
    def job(name: str, script: str) -> Json:
        spec = {"containers": [shell("main", script)], "restartPolicy": "Never"}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": SPACE},
            "spec": {"backoffLimit": 0, "template": {"spec": spec}},
        }

    mgmt.apply("mgmt", job("succeeds", "echo done"))
    mgmt.apply("mgmt", job("fails", "exit 3"))

    mgmt.kubectl("mgmt", "wait", "-n", SPACE, "--for=condition=Complete", "job/succeeds", "--timeout=60s")
    mgmt.kubectl("mgmt", "wait", "-n", SPACE, "--for=condition=Failed", "job/fails", "--timeout=60s")

    [done] = mgmt.objects("mgmt", "pods", "-n", SPACE, "-l", "job-name=succeeds")
    assert done["status"]["phase"] == "Succeeded"
    assert state(done)["state"]["terminated"]["reason"] == "Completed"
    assert logs(mgmt, done["metadata"]["name"]) == "done\n"
    [failed] = mgmt.objects("mgmt", "pods", "-n", SPACE, "-l", "job-name=fails")
    assert (failed["status"]["phase"], state(failed)["state"]["terminated"]["exitCode"]) == ("Failed", 3)


def test_who_does_not_end_is_ended(mgmt: Lab) -> None:
    deaf = shell("main", f"trap '' TERM; {FOREVER}")
    mgmt.apply("mgmt", pod("deaf", deaf, terminationGracePeriodSeconds=3))
    ready(mgmt, "deaf")

    began = time.monotonic()
    mgmt.kubectl("mgmt", "delete", "pod", "deaf", "-n", SPACE, "--timeout=30s")

    assert 2.5 < time.monotonic() - began < 25


def test_a_pod_deleted_by_force_ends_nevertheless(mgmt: Lab) -> None:
    mount = [{"name": "work", "mountPath": "/work"}]
    work = {"name": "work", "hostPath": {"path": "/forced"}}
    root = {"securityContext": {"runAsUser": 0}}
    beat = shell("main", "trap '' TERM; while :; do date +%s%N > /work/beat; sleep 0.1; done", volumeMounts=mount)
    mgmt.apply("mgmt", pod("forced", beat, volumes=[work], **root))
    mgmt.apply("mgmt", pod("watcher", shell("main", LOOP, volumeMounts=mount), volumes=[work], **root))
    ready(mgmt, "forced", "watcher")

    mgmt.kubectl("mgmt", "delete", "pod", "forced", "-n", SPACE, "--force", "--grace-period=0")

    two_beats = "cat /work/beat; sleep 2; cat /work/beat"

    def stands_still() -> bool:
        beats = prints(mgmt, "watcher", two_beats).split()
        return len(beats) == 2 and beats[0] == beats[1]

    eventually("its heart stands still", stands_still)


def test_force_hurries_a_pod_that_already_ends(mgmt: Lab) -> None:
    """Its object is gone at once; its successor of the same name need not wait for the old grace either."""
    deaf = pod("hurried", shell("main", f"trap '' TERM; {FOREVER}"), terminationGracePeriodSeconds=600)
    mgmt.apply("mgmt", deaf)
    ready(mgmt, "hurried")
    mgmt.kubectl("mgmt", "delete", "pod", "hurried", "-n", SPACE, "--wait=false")
    eventually("it ends", lambda: "deletionTimestamp" in read(mgmt, "hurried")["metadata"])
    assert _runs_in_box(mgmt, "hurried")

    mgmt.kubectl("mgmt", "delete", "pod", "hurried", "-n", SPACE, "--force", "--grace-period=0")

    eventually("nothing of it runs", lambda: not _runs_in_box(mgmt, "hurried"), within=15)


def _runs_in_box(lab: Lab, name: str) -> bool:
    return any(process.place == f"mgmt/{SPACE}/{name}" for process in Box(lab.directory).processes())


def test_a_pod_that_no_node_takes_says_so(mgmt: Lab) -> None:
    mgmt.apply("mgmt", pod("picky", shell("main", LOOP), nodeSelector={"disk": "gold"}))

    def scheduled() -> Json:
        conditions = read(mgmt, "picky")["status"].get("conditions", ())
        return next((each for each in conditions if each["type"] == "PodScheduled"), {})

    assert eventually("a condition", scheduled)["reason"] == "Unschedulable"
    mgmt.kubectl("mgmt", "label", "node", "mgmt-a", "disk=gold")
    try:
        ready(mgmt, "picky")
    finally:
        mgmt.kubectl("mgmt", "label", "node", "mgmt-a", "disk-")
    assert scheduled()["status"] == "True"


def test_what_keeps_a_pod_waiting_is_told(mgmt: Lab) -> None:
    mgmt.apply("mgmt", pod("unknown", {"name": "main", "image": "nginx:1.27"}))
    as_root = shell("main", LOOP, securityContext={"runAsNonRoot": True, "runAsUser": 0})
    mgmt.apply("mgmt", pod("root", as_root))
    needs = [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "awaited", "key": "x"}}}]
    mgmt.apply("mgmt", pod("waiting", shell("main", LOOP, env=needs)))

    def reason(name: str) -> str:
        return str(state(read(mgmt, name)).get("state", {}).get("waiting", {}).get("reason", ""))

    eventually("unknown images are told", lambda: reason("unknown") == "ErrImagePull")
    assert "lab-client" in state(read(mgmt, "unknown"))["state"]["waiting"]["message"]
    eventually("forbidden root is told", lambda: reason("root") == "CreateContainerConfigError")
    eventually("a missing ConfigMap is told", lambda: reason("waiting") == "CreateContainerConfigError")

    mgmt.apply("mgmt", held("ConfigMap", "awaited", x="1"))
    ready(mgmt, "waiting")


def test_a_readiness_gate_is_opened_by_others(mgmt: Lab) -> None:
    mgmt.apply("mgmt", pod("gated", shell("main", LOOP), readinessGates=[{"conditionType": "example.org/gate"}]))

    def conditions() -> dict[str, str]:
        return {each["type"]: each["status"] for each in read(mgmt, "gated")["status"].get("conditions", ())}

    eventually("its containers are ready", lambda: conditions().get("ContainersReady") == "True")
    assert conditions()["Ready"] == "False"
    gate = {"status": {"conditions": [{"type": "example.org/gate", "status": "True"}]}}
    mgmt.kubectl("mgmt", "patch", "pod", "gated", "-n", SPACE, "--subresource=status", "-p", json.dumps(gate))

    eventually("it is ready", lambda: conditions()["Ready"] == "True")
    assert conditions()["example.org/gate"] == "True"


def test_replicas_spread_over_zones_and_come_back(mgmt: Lab) -> None:
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "spread", "namespace": SPACE},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": {"app": "spread"}},
            "template": {
                "metadata": {"labels": {"app": "spread"}},
                "spec": {"containers": [shell("main", LOOP)], "terminationGracePeriodSeconds": 1},
            },
        },
    }
    mgmt.apply("cluster1", deployment)
    mgmt.kubectl("cluster1", "rollout", "status", "deployment/spread", "-n", SPACE, "--timeout=60s")

    pods = mgmt.objects("cluster1", "pods", "-n", SPACE, "-l", "app=spread")
    zones = [each["metadata"]["labels"]["topology.kubernetes.io/zone"] for each in pods]
    assert sorted(zones) == ["us-east-1a", "us-east-1a", "us-east-1b", "us-east-1b"]
    before = {each["metadata"]["name"] for each in pods}
    mgmt.kubectl("cluster1", "delete", "pods", "-n", SPACE, "-l", "app=spread")
    eventually(
        "four others run",
        lambda: len(mgmt.pods("cluster1", "app=spread", namespace=SPACE) - before) == 4,
    )


def test_a_pod_of_the_same_name_comes_after_its_predecessor(mgmt: Lab) -> None:
    stateful = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "named", "namespace": SPACE},
        "spec": {
            "serviceName": "named",
            "selector": {"matchLabels": {"app": "named"}},
            "template": {"metadata": {"labels": {"app": "named"}}, "spec": {"containers": [shell("main", LOOP)]}},
        },
    }
    mgmt.apply("mgmt", stateful)
    eventually("it is there", lambda: mgmt.pods("mgmt", "app=named", namespace=SPACE))
    first = read(mgmt, "named-0")["metadata"]["uid"]

    mgmt.kubectl("mgmt", "delete", "pod", "named-0", "-n", SPACE, "--timeout=60s", "--grace-period=1")
    eventually("its successor is ready", lambda: mgmt.pods("mgmt", "app=named", namespace=SPACE))

    assert read(mgmt, "named-0")["metadata"]["uid"] != first
    assert inside(mgmt, "named-0", "hostname") == "named-0\n"


def test_a_service_of_type_load_balancer_has_an_address_that_leads_to_its_pods(mgmt: Lab) -> None:
    """Through kube-proxy's rules, and by the Service's name."""
    deployment = "docker.io/istio/examples-bookinfo-details-v1:1.20"
    mgmt.apply("mgmt", pod("details", {"name": "main", "image": deployment}, labels={"app": "details"}))
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "details", "namespace": SPACE},
        "spec": {"type": "LoadBalancer", "selector": {"app": "details"}, "ports": [{"port": 80, "targetPort": 9080}]},
    }
    mgmt.apply("mgmt", service)
    mgmt.apply("mgmt", pod("caller", shell("main", LOOP)))
    ready(mgmt, "details", "caller")

    def address() -> str:
        [found] = mgmt.objects("mgmt", "service", "details", "-n", SPACE)
        return str(found["status"]["loadBalancer"].get("ingress", [{}])[0].get("ip", ""))

    given = eventually("an address", address)
    for host in (given, "details"):
        call = f"call http://{host}/details/0"
        eventually(call, lambda each=call: re.search('"status": ?200', prints(mgmt, "caller", each)))
    mgmt.kubectl("mgmt", "delete", "service", "details", "-n", SPACE)
    mgmt.apply("mgmt", service)
    assert eventually("an address again", address) == given
