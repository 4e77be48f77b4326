"""kubectl uses the server as it uses any other: nothing on stderr that a real server would not put there."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.contract.server import Server, until


class Kubectl:
    """kubectl with the server's kubeconfig, in a namespace of the test's own."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.namespace = server.new_namespace()
        self.folder = folder
        self._base = ["kubectl", f"--kubeconfig={server.kubeconfig}", f"--cache-dir={folder}", "-n", self.namespace]

    def command(self, *words: str) -> list[str]:
        return [*self._base, *words]

    def run(self, *words: str, send: Any = None) -> subprocess.CompletedProcess[str]:
        """Run to its end, whatever that is."""
        content = None
        if send is not None:
            content = send if isinstance(send, str) else yaml.safe_dump_all(send if isinstance(send, list) else [send])
        return subprocess.run(
            self.command(*words), input=content, capture_output=True, text=True, timeout=60, check=False
        )

    def __call__(self, *words: str, send: Any = None) -> str:
        """What it prints; fails unless it succeeds without a word on stderr."""
        done = self.run(*words, send=send)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture
def kubectl(server: Server, tmp_path: Path) -> Kubectl:
    return Kubectl(server, tmp_path)


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def deployment(image: str) -> dict[str, Any]:
    containers = [{"name": "main", "image": image, "ports": [{"containerPort": 80}]}]
    template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}
    spec = {"selector": {"matchLabels": {"app": "d"}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def service() -> dict[str, Any]:
    spec = {"selector": {"app": "d"}, "ports": [{"name": "http", "port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": spec}


@pytest.fixture
def widgets(kubectl: Kubectl) -> Callable[..., dict[str, Any]]:
    """A custom kind; makes manifests of it."""
    group = f"{kubectl.server.new_name('g')}.example.com"
    properties = {
        "spec": {
            "type": "object",
            "description": "What is wanted.",
            "properties": {
                "size": {"type": "integer", "description": "How large it is."},
                "hosts": {"type": "array", "items": {"type": "string"}},
            },
        },
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    }
    columns = [
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}},
    }
    word = group.split(".")[0].replace("-", "")
    names = {"plural": f"w{word}", "singular": f"one{word}", "kind": "Widget", "shortNames": [f"s{word}"]}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"w{word}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
    }
    kubectl("apply", "-f", "-", send=definition)
    kubectl("wait", "--for=condition=Established", f"crd/w{word}.{group}", "--timeout=30s")
    path = f"/openapi/v3/apis/{group}/v1"
    until("the schema is published", lambda: kubectl.server.http.get(path).status_code == 200)
    # kubectl keeps what it discovers once; a real API server lists a new kind a moment after serving it.
    until("the kind is discovered", lambda: names["plural"] in kubectl("api-resources", f"--api-group={group}"))

    def make(**spec: Any) -> dict[str, Any]:
        return {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec}

    return make


def resource_of(widget: dict[str, Any]) -> str:
    """The qualified plural of a manifest that the fixture made."""
    group = widget["apiVersion"].split("/")[0]
    return f"w{group.split('.')[0].replace('-', '')}.{group}"


def test_apply_changes_only_what_changed(kubectl: Kubectl) -> None:
    """Client-side apply: created, unchanged, configured; a key that is given up goes, one that others wrote stays."""
    objects = [config_map(k="v", j="v"), deployment("one:1"), service()]

    first = kubectl("apply", "-f", "-", send=objects)
    again = kubectl("apply", "-f", "-", send=objects)
    kubectl("patch", "configmap", "a", "--type=merge", "-p", '{"data":{"other":"x"}}')
    third = kubectl("apply", "-f", "-", send=[config_map(k="w"), deployment("two:2"), service()])

    assert first.splitlines() == ["configmap/a created", "deployment.apps/d created", "service/s created"]
    assert again.splitlines() == ["configmap/a unchanged", "deployment.apps/d unchanged", "service/s unchanged"]
    assert third.splitlines() == ["configmap/a configured", "deployment.apps/d configured", "service/s unchanged"]
    assert json.loads(kubectl("get", "cm", "a", "-o", "json"))["data"] == {"k": "w", "other": "x"}
    image = kubectl("get", "deploy", "d", "-o", "jsonpath={.spec.template.spec.containers[*].image}")
    assert image == "two:2"


def test_apply_of_custom_resources(kubectl: Kubectl, widgets: Callable[..., dict[str, Any]]) -> None:
    """Client-side apply works for kinds that kubectl does not know."""
    words = [
        kubectl("apply", "-f", "-", send=widgets(size=1, hosts=["a"])).split()[-1],
        kubectl("apply", "-f", "-", send=widgets(size=1, hosts=["a"])).split()[-1],
        kubectl("apply", "-f", "-", send=widgets(size=2)).split()[-1],
    ]

    assert words == ["created", "unchanged", "configured"]
    found = json.loads(kubectl("get", resource_of(widgets()), "w", "-o", "json"))
    assert found["spec"] == {"size": 2}
    assert found["metadata"]["generation"] == 2


def test_apply_refuses_unknown_fields(kubectl: Kubectl, widgets: Callable[..., dict[str, Any]]) -> None:
    """A misspelt field is an error that names it."""
    done = kubectl.run("apply", "-f", "-", send=widgets(seize=1))

    assert done.returncode == 1
    assert 'unknown field "spec.seize"' in done.stderr


def test_server_side_apply(kubectl: Kubectl) -> None:
    """Server-side apply, a conflict with its advice, and the force that resolves it."""
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", send=config_map(k="v"))

    refused = kubectl.run("apply", "--server-side", "--field-manager=two", "-f", "-", send=config_map(k="w"))
    forced = kubectl(
        "apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", send=config_map(k="w")
    )

    assert refused.returncode == 1
    assert 'Apply failed with 1 conflict: conflict with "one": .data.k' in refused.stderr
    assert forced == "configmap/a serverside-applied\n"
    assert kubectl("get", "cm", "a", "-o", "jsonpath={.data.k}") == "w"


def test_from_client_side_to_server_side_apply(kubectl: Kubectl) -> None:
    """An object that was applied by the client is taken over without a conflict."""
    objects = [config_map(k="v", j="v"), deployment("one:1"), service()]
    kubectl("apply", "-f", "-", send=objects)

    kubectl("apply", "--server-side", "-f", "-", send=objects)
    kubectl("apply", "--server-side", "-f", "-", send=[config_map(k="w")])

    assert json.loads(kubectl("get", "cm", "a", "-o", "json"))["data"] == {"k": "w"}


def test_get_prints_columns(kubectl: Kubectl, widgets: Callable[..., dict[str, Any]]) -> None:
    """Columns as the server defines them; wide ones on demand; names; nothing found."""
    kubectl("apply", "-f", "-", send=[config_map(k="v"), service(), deployment("i:1"), widgets(size=3)])

    lines = kubectl("get", "service", "s", "-o", "wide").splitlines()
    assert lines[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert lines[1].split()[0:2] == ["s", "ClusterIP"]
    assert kubectl("get", "deploy", "d").splitlines()[1].split()[:4] == ["d", "0/1", "0", "0"]
    lines = kubectl("get", resource_of(widgets())).splitlines()
    assert [line.split()[:2] for line in lines] == [["NAME", "SIZE"], ["w", "3"]]
    assert kubectl("get", "cm,svc", "-o", "name", "-l", "!x").split() == ["configmap/a", "service/s"]
    everywhere = kubectl("get", "cm", "-A", "--field-selector", f"metadata.namespace={kubectl.namespace}")
    assert everywhere.split()[:4] == ["NAMESPACE", "NAME", "DATA", "AGE"]
    missing = kubectl.run("get", "cm", "none")
    assert missing.stderr == 'Error from server (NotFound): configmaps "none" not found\n'


def test_edits(kubectl: Kubectl) -> None:
    """label, annotate, patch in all three forms, scale, set image, rollout restart, replace."""
    kubectl("apply", "-f", "-", send=[config_map(k="v"), deployment("one:1")])

    assert kubectl("label", "cm", "a", "x=1") == "configmap/a labeled\n"
    assert kubectl("label", "cm", "a", "x=2", "--overwrite") == "configmap/a labeled\n"
    assert kubectl("annotate", "cm", "a", "note=hello") == "configmap/a annotated\n"
    kubectl("patch", "cm", "a", "--type=json", "-p", '[{"op":"replace","path":"/data/k","value":"w"}]')
    containers = '{"spec":{"template":{"spec":{"containers":[{"name":"side","image":"two"}]}}}}'
    kubectl("patch", "deploy", "d", "-p", containers)
    kubectl("set", "image", "deploy/d", "main=one:2")
    kubectl("scale", "deploy/d", "--replicas=3")
    kubectl("rollout", "restart", "deploy/d")

    changed = json.loads(kubectl("get", "cm", "a", "-o", "json"))
    assert changed["metadata"]["labels"] == {"x": "2"}
    assert changed["metadata"]["annotations"]["note"] == "hello"
    assert changed["data"] == {"k": "w"}
    spec = json.loads(kubectl("get", "deploy", "d", "-o", "json"))["spec"]
    images = sorted((c["name"], c["image"]) for c in spec["template"]["spec"]["containers"])
    assert images == [("main", "one:2"), ("side", "two")]
    assert spec["replicas"] == 3
    assert "kubectl.kubernetes.io/restartedAt" in spec["template"]["metadata"]["annotations"]
    changed["data"] = {"k": "x"}
    assert kubectl("replace", "-f", "-", send=changed) == "configmap/a replaced\n"


def test_create_by_command(kubectl: Kubectl) -> None:
    """The builders of kubectl, which send protobuf."""
    kubectl("create", "configmap", "c", "--from-literal=k=v")
    kubectl("create", "secret", "generic", "s", "--from-literal=k=v")
    kubectl("create", "serviceaccount", "sa")
    kubectl("create", "role", "r", "--verb=get,list", "--resource=pods")
    kubectl("create", "rolebinding", "rb", "--role=r", f"--serviceaccount={kubectl.namespace}:sa")
    kubectl("create", "deployment", "d", "--image=i:1", "--port=80", "--replicas=2")
    kubectl("create", "service", "clusterip", "svc", "--tcp=80:8080")
    kubectl("expose", "deployment", "d", "--port=81")
    other = kubectl.server.new_name()
    kubectl("create", "namespace", other)

    assert kubectl("get", "cm", "c", "-o", "jsonpath={.data.k}") == "v"
    assert kubectl("get", "secret", "s", "-o", "jsonpath={.data.k} {.type}") == "dg== Opaque"
    assert kubectl("get", "role", "r", "-o", "jsonpath={.rules[0].verbs}") == '["get","list"]'
    assert kubectl("get", "rolebinding", "rb", "-o", "jsonpath={.roleRef.name} {.subjects[0].name}") == "r sa"
    path = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort} {.spec.selector}"
    assert kubectl("get", "deploy", "d", "-o", path) == '2 80 {"matchLabels":{"app":"d"}}'
    assert kubectl("get", "svc", "svc", "-o", "jsonpath={.spec.ports[0].targetPort}") == "8080"
    assert kubectl("get", "svc", "d", "-o", "jsonpath={.spec.ports[0].port}") == "81"
    assert kubectl("get", "namespace", other, "-o", "jsonpath={.status.phase}") == "Active"


def test_delete_waits_until_it_is_gone(kubectl: Kubectl) -> None:
    """delete by name, by file and by label."""
    kubectl("apply", "-f", "-", send=[config_map(k="v"), service(), deployment("i:1")])
    kubectl("label", "svc", "s", "x=1")

    gone = kubectl.run("delete", "cm", "a")
    assert gone.returncode == 0
    assert gone.stdout.startswith('configmap "a" deleted')
    kubectl.run("delete", "svc", "-l", "x=1")
    kubectl("delete", "-f", "-", "--ignore-not-found", send=deployment("i:1"))
    left = kubectl.run("get", "cm/a", "svc/s", "deploy/d", "--ignore-not-found", "-o", "name")
    assert left.stdout == ""


def test_wait(kubectl: Kubectl, widgets: Callable[..., dict[str, Any]]) -> None:
    """wait for a condition, for a field and for deletion."""
    kubectl("apply", "-f", "-", send=[widgets(size=1), config_map(k="v")])
    resource = resource_of(widgets())
    waiting = [
        subprocess.Popen(kubectl.command("wait", *words, "--timeout=30s"), stdout=subprocess.PIPE, text=True)
        for words in (
            (f"{resource}/w", "--for=condition=Ready"),
            (f"{resource}/w", "--for=jsonpath={.status.phase}=Done"),
            ("cm/a", "--for=delete"),
        )
    ]
    time.sleep(0.5)  # some of them have asked by now, the others see the result at once; both must end

    status = '{"status":{"phase":"Done","conditions":[{"type":"Ready","status":"True"}]}}'
    kubectl("patch", resource, "w", "--subresource=status", "--type=merge", "-p", status)
    kubectl.run("delete", "cm", "a")

    for process in waiting:
        output, _ = process.communicate(timeout=40)
        assert process.returncode == 0
        assert "met" in output


def test_get_and_watch(kubectl: Kubectl) -> None:
    """``get -w`` prints what is there and then each change."""
    kubectl("apply", "-f", "-", send=config_map(k="v"))
    command = kubectl.command("get", "cm", "-w", "--no-headers", "--field-selector=metadata.name!=kube-root-ca.crt")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        kubectl("patch", "cm", "a", "--type=merge", "-p", '{"data":{"other":"x"}}')
        second = process.stdout.readline()
        process.terminate()

    assert first.split()[:2] == ["a", "1"]
    assert second.split()[:2] == ["a", "2"]


def test_about_the_server(kubectl: Kubectl, widgets: Callable[..., dict[str, Any]]) -> None:
    """version, api-resources, api-versions, explain, auth, dry runs and diffs."""
    version = kubectl.run("version", "-o", "json")  # warns where client and server are far apart
    assert json.loads(version.stdout)["serverVersion"]["major"] == "1"
    listed = kubectl("api-resources", "--no-headers")
    assert any(line.split()[0] == "deployments" and "deploy" in line.split() for line in listed.splitlines())
    assert "apps/v1" in kubectl("api-versions").split()
    assert "How large it is." in kubectl("explain", f"{resource_of(widgets())}.spec.size")
    assert kubectl("auth", "can-i", "create", "pods") == "yes\n"
    assert "admin" in kubectl("auth", "whoami")
    assert kubectl("apply", "--dry-run=server", "-f", "-", send=config_map(k="v")) == (
        "configmap/a created (server dry run)\n"
    )
    assert kubectl.run("get", "cm", "a").returncode == 1
